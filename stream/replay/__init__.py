"""SHELL: history through the same stages as the worker's, without a broker.

=================  ==============================================================================
``reader``         log lines → events in order, each with the whole log's watermark
``tallies``        what is counted on the way, and ``metrics.json`` made of it
``checkpoints``    what an interrupted replay goes on from
``run``            one process: every record in full (scored, labelled, learned) before the next
``lane``           the stages over one share of the members and jobs, for several processes
``messages``       what the processes of one replay say to each other
``process``        one worker process around a lane
``parallel``       the process that reads, splits, merges and writes
=================  ==============================================================================

What comes out depends on the log, the model, the policy, the number of workers and how often they
wait for each other, never on the clock: running twice gives the same bytes.
"""

from stream.replay.reader import first_look
from stream.replay.run import FLUSH_EVERY, replay

__all__ = ["FLUSH_EVERY", "first_look", "replay"]
