"""What travels: events and messages as structs, their bytes, records, routing, the partitioner."""
