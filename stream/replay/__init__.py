"""SHELL: history through the same stages as the worker's, without a broker.

=================  ==============================================================================
``reader``         log lines → events in order, each with the whole log's watermark; holds back an
                   event that lies implausibly far ahead
``run_folder``     the files of a run; what is counted on the way, and ``metrics.json`` made of it
``columns``        which columns labels, scores and coefficients have as Parquet
``tables``         lines of a run → Parquet
``document``       the page of docs about the columns
``savepoint``      how to replay, and what an interrupted replay goes on from
``stages``         both stages over the store of one share
``single``         one process: every record in full (scored, labelled, learned) before the next
``lane``           the stages over one share of the members and jobs, for several processes
``messages``       what the processes of one replay say to each other
``process``        the worker processes: what runs in each, and how their parent sees them
``parallel``       the process that reads, splits, merges and writes
``resumable``      a replay into a folder, by one process or several, that can be resumed
=================  ==============================================================================

What comes out depends on the log, the model, the policy, the number of workers and how often they
wait for each other, never on the clock: running twice gives the same bytes.
"""
