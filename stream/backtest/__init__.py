"""Several settings over one log, compared: ``hearback backtest``.

======================  =======================================================================
``comparison``          ``compare.toml``: which settings
``schedule``            when each setting hears of a label: at once, weekly, after the window
``judgement``           AUC, log loss and calibration over time, with intervals by blocks of time
``freshness``           what is lost when updates stop
``timeliness``          how early labels are known, and how right they are at each age
``result``              all of it, as ``backtest.json`` has it
``run``                 one recording of the log, one pass of learning for each setting
======================  =======================================================================
"""
