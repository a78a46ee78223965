"""Choosing the effects' settings, for the Python API."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream import progress as shown
from stream.api import html
from stream.api.given import Duration, PolicyLike, Time, duration_ms, settings, time_ms
from stream.api.log import Log, Source, as_log, look_first
from stream.backtest.training import learned_spec
from stream.backtest.tuned import begun, policy_text
from stream.backtest.tuning import Trial, Tuner
from stream.errors import ConfigError
from stream.features.blocks import FeatureSpace
from stream.model.kind import ModelKind

if TYPE_CHECKING:
    import polars as pl


class Tuned:
    """The settings that were chosen; :func:`tune` makes one.

    Attributes:
        text: the policy file (TOML), as ``hearback tune`` writes it.
        notes: what the choice is worth, in sentences.

    """

    def __init__(self, tuner: Tuner, until_ms: int, *, interrupted: bool = False) -> None:
        self.text = policy_text(tuner, until_ms)
        count = len(tuner.trials)
        self.notes = [tuner.worth()]
        if interrupted:
            self.notes.insert(0, f"interrupted: the best of the {count} policies tried so far")
        self._trials: Sequence[Trial] = list(tuner.trials)

    @property
    def policy(self) -> dict[str, Any]:
        """The policy, to be given to other calls as it is."""
        return tomllib.loads(self.text)

    @property
    def trials(self) -> pl.DataFrame:
        """A row for each policy that was tried, in order: what it changed, and how good it was.

        Raises:
            ConfigError: Polars is not installed.

        """
        try:
            polars = import_module("polars")
        except ModuleNotFoundError:
            raise ConfigError("frames need Polars: pip install 'hearback-stream[frames]'") from None
        rows = [
            (one.setting, one.value, one.quality.log_loss, one.quality.auc, one.taken)
            for one in self._trials
        ]
        columns = {"setting": str, "value": str, "log_loss": float, "auc": float, "taken": bool}
        frame: pl.DataFrame = polars.DataFrame(rows, schema=columns, orient="row")
        return frame

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the policy file.

        Raises:
            ConfigError: the file is there already.

        """
        to = Path(path)
        if to.exists():
            raise ConfigError(f"{to} is there already: name another file or remove it")
        to.write_text(self.text, encoding="utf-8")
        return to

    def __repr__(self) -> str:
        """Say what was tried, and what the best is worth."""
        return f"Tuned({len(self._trials)} tried; {self.notes[-1]})"

    def _repr_html_(self) -> str:
        rows = [
            (one.setting, one.value, f"{one.quality.log_loss:.5f}", "taken" if one.taken else "")
            for one in self._trials
        ]
        return html.table(("setting", "value", "log loss", ""), rows) + html.listing(self.notes)


def tune(
    log: Log | Source,
    *,
    until: Time,
    kind: ModelKind = "linear",
    spec: str | os.PathLike[str] | None = None,
    policy: PolicyLike | None = None,
    max_jump: Duration | None = None,
    force: bool = False,
    progress: bool = True,
) -> Tuned:
    """Choose the effects' settings for a log, as ``hearback tune`` does.

    An interruption (Ctrl-C, or a notebook's stop) ends the search: the best so far is returned.

    Args:
        log: of :func:`stream.read`, or a file or frame.
        until: nothing that happened later is used: keep it to see what the choice is worth.
        kind: of the global models that are fitted where applications bring no ``global_score``.
        spec: a file that says what becomes of attributes, for these models.
        policy: what to begin with: a file, or a dictionary; its labels stay.
        max_jump: hold an event that lies further ahead back until others lie there too.
        force: go on in spite of errors that a look at the log finds.
        progress: show on stderr how far it is.

    Raises:
        LogError: there are errors in the log. ModelError: no model can be fitted on it.
        ConfigError: a setting cannot be, or there is too little to judge by.

    """
    whole, start, jump_ms = as_log(log), settings(policy).policy, duration_ms(max_jump)
    until_ms = time_ms(until) or 0

    def look(known: FeatureSpace | None) -> None:
        look_first(whole, start, force=force, max_jump_ms=jump_ms, until_ms=until_ms, space=known)

    with shown.hidden(not progress):
        maker = None if spec is None else learned_spec(Path(spec), whole.paths, until_ms)
        tuner, _ = begun(
            whole.paths, start, until_ms, kind=kind, maker=maker, max_jump_ms=jump_ms, look=look
        )
        try:
            with shown.steps("trying", tuner.most) as show:
                for done, trial in enumerate(tuner.run(), 1):
                    show(done, trial.in_words())
        except KeyboardInterrupt:
            if not tuner.trials:
                raise
            return Tuned(tuner, until_ms, interrupted=True)
    return Tuned(tuner, until_ms)
