"""Several settings over one log, compared: ``hearback backtest``.

======================  =======================================================================
``comparison``          ``compare.toml``: which settings
``schedule``            when each setting hears of a label, and how right those known are then
``judgement``           AUC, log loss and calibration over time, with intervals by blocks of time
``freshness``           what is lost when updates stop
``result``              all of it, as ``backtest.json`` has it
``runner``              one recording of the log, one pass of learning for each setting
======================  =======================================================================
"""
