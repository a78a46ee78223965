"""SHELL: history through the same stages as the worker's, without a broker.

=================  ==============================================================================
``reader``         log lines → events in order, each with the whole log's watermark
``tallies``        what is counted on the way, and ``metrics.json`` made of it
``checkpoints``    what an interrupted replay goes on from
``run``            one process: every record in full (scored, labelled, learned) before the next
``lane``           the stages over one share of the members and jobs, for several processes
``messages``       what the processes of one replay say to each other
``workers``        the worker processes, as their parent sees them
``process``        one worker process around a lane
``parallel``       the process that reads, splits, merges and writes
``collector``      the garbage collector, told what a replay is like
``resumable``      a replay into a folder, by one process or several, that can be resumed
=================  ==============================================================================

What comes out depends on the log, the model, the policy, the number of workers and how often they
wait for each other, never on the clock: running twice gives the same bytes.
"""
