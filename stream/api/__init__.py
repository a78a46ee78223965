"""SHELL: hearback from Python: ``import stream as hb``.

==============  ====================================================================================
``log``         event logs: files, or frames of pandas, Polars and Arrow
``model``       fitting, keeping and loading a global model
``run``         replaying a log: frames, figures, a report
``comparison``  comparing settings over a log
``report``      pages
``given``       what may be given for times, durations and policies
``html``        what notebooks show
==============  ====================================================================================

The same code as behind the commands, and the same figures. What cannot be done raises a
:class:`stream.errors.HearbackError`, whose message is one line that says what to do; what is odd
about a log is a warning, :class:`stream.api.log.LogWarning`. Nothing is read from the environment.

Frames are Polars frames (``to_pandas`` gives others): ``pip install 'hearback-stream[frames]'``.
"""
