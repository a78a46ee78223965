"""Tables of a company → an event log: applications, recruiters' actions, jobs, members.

A short file names the columns (:mod:`stream.tables.mapping`). Everything else is one query of
DuckDB, which reads, joins and sorts what is larger than memory within a limit that it is given.
Polars, tried on 1.2 million applications and 10 million actions, took as much time and 2.2 GB in
place of 0.6: its join and its sort hold all rows in memory.
"""
