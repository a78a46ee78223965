"""hearback: a near-real-time learner for hiring marketplaces.

The map of the package, from the bottom up. Each part imports only from those listed before it;
``make check`` enforces that.

=================  =============================================================================
``errors``         one error root
``text``           text files as editors leave them
``units``          times, durations and speeds as people write them
``effects``        the random effects, each declared once
``policy``         the label policy and the effects' settings
``features``       feature blocks and their names; what becomes of attributes
``histories``      what has happened so far to members, jobs and pairs: counts, as numbers
``events``         what travels: structs, bytes, the ladder, records, routing, the partitioner
``updaters``       an entity's posterior, the Newton kernel, one effect
``state``          facts and posteriors, keys, codecs, stores, and what is not flushed yet
``labels``         the rules, the machine, how early labels are known
``quality``        what scores are worth; the gate of what makes them worse
``logs``           reads event logs: JSON Lines, Parquet
``tables``         a company's tables → a log
``progress``       how far something is, shown to the person who waits for it
``model``          the frozen global model: load and score, fit on a log, judge
``check``          what a log holds, and what is wrong with it
``stages``         the two stages over structs: who scores, labels, learns, counts
``partitions``     the stages as the worker runs them: records in, messages out; event time
``kafka``          where a broker is and how to talk to it; a throw-away broker
``configuration``  one TOML file and the environment: every setting
``replay``         logs → the same stages → files
``backtest``       several settings over one log, compared; choosing settings
``report``         a backtest as a page
``metrics``        every metric: the catalogue, the collectors, the page of docs
``console``        what a worker serves over HTTP: metrics, probes, a status page
``worker``         the same stages behind Faust
``refresh``        a new global model every week, of the workers' labels
``bootstrap``      a replay's state → the state of live workers
``serving``        scores for others: a store of coefficients, the service, its client
``cli``            the commands
``api``            the same from Python: what ``import stream`` offers
=================  =============================================================================

``producers``, a package beside this one, simulates logs and plays them into Kafka.

The core is ``errors`` to ``partitions`` without ``logs``, ``tables``, ``check`` and fitting the
model (``model.training``, ``model.training_set``, ``model.labels``, ``model.logistic``,
``model.held_out``), plus ``serving.belief``. But for reading model folders and RocksDB it is a
function of state, event and now: no clock, no randomness, no network, no logging.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

DISTRIBUTION = "hearback-stream"
"""Its name on the package index, where `hearback` is another project."""

VERSION = "0.1.0"
"""The release; the build reads it here."""

_HOMES: Final = {
    "stream.api.check": ("Checked", "check"),
    "stream.api.comparison": ("Comparison", "backtest"),
    "stream.api.log": ("Log", "LogWarning", "read"),
    "stream.api.model": ("Model", "load_model", "train"),
    "stream.api.report": ("Report",),
    "stream.api.run": ("Metrics", "Run", "load_run", "replay"),
    "stream.api.tuning": ("Tuned", "tune"),
    "stream.errors": ("HearbackError",),
}
"""What is offered, by its module, which is imported when one of its names is used. The types of it
are in ``__init__.pyi``."""

__all__ = sorted(name for names in _HOMES.values() for name in names)


class _WhenUsed:
    """An attribute of this package that is imported when it is used.

    Not ``__getattr__``, which is asked only for what is not there: whoever imports the package
    ``stream.replay`` sets an attribute of that name, and ``hb.replay`` stays the function. It then
    has the package's modules and names for attributes, so that ``import stream.replay.reader as
    reader`` finds what it looks for there.
    """

    def __init__(self, home: str, name: str) -> None:
        self._home = home
        self._name = name

    def __get__(self, package: ModuleType | None, _: type) -> Any:
        """Import it."""
        found = getattr(import_module(self._home), self._name)
        beside = sys.modules.get(f"{__name__}.{self._name}")
        if beside is not None:
            found.__dict__ = vars(beside)
        return found

    def __set__(self, package: ModuleType, value: object) -> None:
        """Leave the function where a package of its name is imported."""


class _Package(ModuleType):
    def __dir__(self) -> list[str]:
        """List what is offered."""
        return [*__all__, *super().__dir__()]


for _home, _names in _HOMES.items():
    for _name in _names:
        setattr(_Package, _name, _WhenUsed(_home, _name))
sys.modules[__name__].__class__ = _Package
