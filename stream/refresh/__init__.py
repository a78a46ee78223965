"""A new global model every week, from the labels of running workers (``hearback model refresh``).

``plan`` decides when one is due, by event time; ``newest`` asks labels for that; ``refresher``
trains, judges and rolls in. What was done stands in the control topic, so a refresher has no state
of its own: it may end at any point, and go on anywhere.
"""
