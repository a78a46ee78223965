"""Comparing settings over a log, for the Python API."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stream import progress as shown
from stream.api import html
from stream.api.given import Duration, PolicyLike, Time, duration_ms, settings, time_ms
from stream.api.log import Log, Source, as_log, look_first
from stream.api.model import Model, as_frozen
from stream.api.report import Report
from stream.backtest.compared import compare
from stream.backtest.result import Backtest
from stream.backtest.training import learned_spec
from stream.errors import ConfigError
from stream.features.blocks import FeatureSpace
from stream.model.kind import ModelKind
from stream.policy import Policy
from stream.report.page import page
from stream.report.words import sentences

if TYPE_CHECKING:
    import polars as pl

_FIGURES = (
    "auc", "auc_difference", "log_loss", "log_loss_difference", "observed_over_expected",
)  # fmt: skip


class Comparison:
    """What a backtest found; :func:`backtest` makes one.

    Attributes:
        found: every figure (:class:`stream.backtest.result.Backtest`).

    """

    def __init__(self, found: Backtest) -> None:
        self.found = found

    @property
    def sentences(self) -> Sequence[str]:
        """The findings in plain sentences, the most important first."""
        return sentences(self.found)

    @property
    def settings(self) -> pl.DataFrame:
        """A row for each setting: figures, each with the ends of its 95 % interval.

        Raises:
            ConfigError: Polars is not installed.

        """
        rows: list[dict[str, object]] = []
        for one in self.found.settings:
            row: dict[str, object] = {"setting": one.name, "what it is": one.in_words}
            for name in _FIGURES:
                figure = getattr(one, name)
                row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
            rows.append(row)
        return _frame(rows)

    @property
    def importance(self) -> pl.DataFrame:
        """A row for each feature of the global model, the most important first.

        By how much the log loss grows where it tells nothing, with the ends of a 95 % interval;
        no rows where applications bring their score.

        Raises:
            ConfigError: Polars is not installed.

        """
        told = self.found.importance
        rows: list[dict[str, object]] = [
            {
                "feature": one.name,
                "block": one.block,
                "log_loss": one.log_loss.value,
                "log_loss_low": one.log_loss.low,
                "log_loss_high": one.log_loss.high,
            }
            for one in ([] if told is None else told.columns)
        ]
        return _frame(rows)

    def report(self, path: str | os.PathLike[str] | None = None) -> Report:
        """Make the page of ``hearback backtest``, and write it to a file if one is named."""
        report = Report(page(self.found))
        if path is not None:
            report.save(path)
        return report

    def __repr__(self) -> str:
        """Name what was compared."""
        return f"Comparison({', '.join(one.name for one in self.found.settings)})"

    def _repr_html_(self) -> str:
        rows = [
            (one.name, one.in_words, one.auc.text("{:.4f}"), one.log_loss.text("{:.4f}"))
            for one in self.found.settings
        ]
        heads = ("setting", "what it is", "AUC", "log loss")
        return html.table(heads, rows) + html.listing(self.sentences)


def _frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    try:
        polars = import_module("polars")
    except ModuleNotFoundError:
        raise ConfigError("frames need Polars: pip install 'hearback-stream[frames]'") from None
    frame: pl.DataFrame = polars.DataFrame(rows, infer_schema_length=None)
    return frame


def backtest(
    log: Log | Source,
    model: Model | str | os.PathLike[str] | None = None,
    *,
    compare_file: str | os.PathLike[str] | None = None,
    kind: ModelKind = "linear",
    spec: str | os.PathLike[str] | None = None,
    score_from: Time | None = None,
    policy: PolicyLike | None = None,
    max_jump: Duration | None = None,
    retrain: Duration | None = None,
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> Comparison:
    """Compare settings over one log, as ``hearback backtest`` does.

    Each application is scored before anything of it is learned, with each setting, and judged by
    its final label. The log is held in memory, about 10 kB for each application.

    Args:
        log: of :func:`stream.read`, or a file or frame.
        model: of :func:`stream.train`, or its folder; None, where applications bring no
            ``global_score``: one is fitted on the first quarter of the log.
        compare_file: what is compared (TOML); None: what ``hearback backtest --example`` prints.
        kind: of the model that is fitted.
        spec: a file that says what becomes of attributes, where a model is fitted.
        score_from: judge only applications from this time on; None: from the end of the training.
        policy: labels and effects: a file, or a dictionary.
        max_jump: hold an event that lies further ahead back until others lie there too.
        retrain: compare the reference also with itself where a new global model is trained so
            often, and rolled in.
        workers: with 2, a second process learns, too, where it is worth it, with the same figures.
            A script that uses it needs ``if __name__ == "__main__":`` around its work, as with
            :mod:`multiprocessing`.
        force: go on in spite of errors that a look at the log finds.
        progress: show on stderr how far it is.

    Raises:
        LogError: there are errors in the log. ModelError: the log does not fit the model.
        ConfigError: a setting cannot be, or there is too little to judge by.

    """
    whole, frozen, jump_ms = as_log(log), as_frozen(model), duration_ms(max_jump)
    if frozen is not None and spec is not None:
        raise ConfigError("a model has a spec of its own: give model or spec")

    def look(base: Policy, known: FeatureSpace | None) -> None:
        look_first(whole, base, force=force, max_jump_ms=jump_ms, space=known)

    with shown.hidden(not progress):
        found, _ = compare(
            whole.paths,
            settings(policy),
            None if compare_file is None else Path(compare_file),
            frozen,
            kind=kind,
            learn_spec=None if spec is None else partial(learned_spec, Path(spec), whole.paths),
            score_from_ms=time_ms(score_from),
            max_jump_ms=jump_ms,
            retrain_ms=duration_ms(retrain),
            look=look,
            processes=workers,
        )
    return Comparison(found)
