"""hearback: a near-real-time learner for hiring marketplaces.

The map of the package, from the bottom up; a module imports only what stands above it.

==========================  ====================================================================
``errors``, ``units``       one error root; times, durations and speeds as people write them
``connection``              where a broker is, and how to talk to it
``events``, ``features``    what travels, as frozen structs; feature blocks and their names
``wire``                    bytes ↔ events: the only owner of field names
``partitioner``             murmur2, as Java clients do it
``policy``                  the label policy and the effects' settings
``global_model``            the frozen fixed effect: load, check, score
``labels``                  the ladder, the rules, the machine, event time
``updaters``                an entity's posterior, the Newton kernel, one effect
``state``                   keys, codecs, stores, and what is not flushed yet
``entities``                who of an effect comes, and who goes when
``stages``                  the two stages over structs: who scores, labels, learns
``scoring``                 for serving processes: the mean, a Thompson draw
``evaluation``              prequential quality, time to label
``quality``                 what scores are worth; the gate of what makes them worse
``commands``                what workers may be told while they run
``records``, ``partitions``  the stages as the worker runs them: records in, messages out
``producers``               (a package beside this one) simulate, read and play logs
``run_folder``, ``replay``  logs → the same stages → files
``training``, ``held_out``  fits the global model on a log; judges it on the newest part
``rehearsal``, ``tuning``   a log learned again with other settings; choosing them
``backtest``, ``report``    several settings over one log, compared; a page people look at
``inspection``              one entity's coefficients, from wherever they are
``metrics``                 every metric: the catalogue, the collectors, the page of docs
``console``                 what a worker serves: metrics, probes, a page for a person
``embedded_broker``         a throw-away broker for trying things out
``worker``                  the same stages behind Faust
``configuration``           one TOML file and the environment: every setting
``cli``                     the commands
==========================  ====================================================================

The core (everything down to ``partitions``, but for reading model folders and RocksDB) is a
function of state, event and now: no clock, no randomness, no network, no logging.
"""
