"""The two stages as the worker runs them: records of one partition in, messages out.

Decoding, routing, positions, channels and dead letters around :mod:`stream.stages.job`. Still core:
no Kafka client, no clock (``now_ms`` is passed in), no disk but through the overlay.

``process`` and ``tick`` are generators of *units of work*: after each one the caller must make the
messages safe, then flush the overlay, then go on. A unit holds everything or nothing of each
record, positions included; only a record that settles or closes very much is spread over several,
and after a crash between two of them it goes on where it stopped. What raises unexpectedly is
rolled back and redone record by record, so that one poisonous record becomes a dead letter and the
rest is unharmed.
"""
