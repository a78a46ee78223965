"""The Faust worker: record-batch transport, assignment of partitions, start and stop."""
