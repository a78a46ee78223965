"""Replays for the Python API."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from stream import progress as shown
from stream.api import html
from stream.api.given import Duration, PolicyLike, Time, duration_ms, settings, time_ms
from stream.api.log import Log, Source, as_log, look_first
from stream.api.model import Model, as_frozen
from stream.api.report import Report
from stream.backtest.finished import judged
from stream.configuration.load import with_model
from stream.errors import ConfigError
from stream.logs.files import ReadProgress, merge
from stream.model.folder import GlobalModel, load_model
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.run_folder import RunMetrics, load_metrics
from stream.replay.savepoint import Options
from stream.report.page import page
from stream.stages.succession import Rolled

if TYPE_CHECKING:
    import polars as pl

Table = Literal["labels", "scores", "coefficients"]


class Metrics(RunMetrics, frozen=True, kw_only=True):
    """Counts and quality of a run (:class:`stream.replay.run_folder.RunMetrics`)."""

    def __repr__(self) -> str:
        """Say how good the scores are; the rest is in the fields."""
        summary = self.quality
        said = [
            f"{name} AUC {one.auc:.4f}, log loss {one.log_loss:.4f}"
            for name, one in (("full", summary.full), ("global only", summary.global_))
            if one is not None and one.auc is not None
        ]
        judged = f"{summary.applications:,} applications judged, {summary.positives:,} positive"
        return f"Metrics({'; '.join([judged, *said])})"

    def _repr_html_(self) -> str:
        summary = self.quality
        rows = [
            (
                name,
                "-" if one is None or one.auc is None else f"{one.auc:.4f}",
                "-" if one is None else f"{one.log_loss:.4f}",
                "-" if one is None else f"{one.observed_over_expected:.3f}",
            )
            for name, one in (("global only", summary.global_), ("full", summary.full))
        ]
        figures = html.table(
            ("score", "AUC", "log loss", "observed/expected"),
            rows,
            f"scored before learned: {summary.applications:,} applications whose window has closed,"
            f" {summary.positives:,} positive",
        )
        counts = {"events": self.events, "labels": self.labels, "dead letters": self.dead_letters}
        said = [html.facts(title, found) for title, found in counts.items() if found]
        return figures + "".join(said)


class Run:
    """A replay's results; :func:`replay` and :func:`load_run` make one.

    Frames are read from the run's files when they are asked for
    (docs/reference/parquet.md has their columns); :meth:`lazy` reads of them only what is used.

    Attributes:
        path: of the folder, which ``hearback inspect --run`` reads, too. One that was made for this
            run goes with it.

    """

    def __init__(self, path: Path, logs: Sequence[str] = ()) -> None:
        self.path = path
        self._logs = list(logs) or [path.name]

    @cached_property
    def labels(self) -> pl.DataFrame:
        """Every label message, in order: training examples that say what was known when."""
        return self.lazy("labels").collect()

    @cached_property
    def scores(self) -> pl.DataFrame:
        """A row for each application: its scores before anything of it was learned."""
        return self.lazy("scores").collect()

    @cached_property
    def coefficients(self) -> pl.DataFrame:
        """A row for each member and job: what is believed of it at the end."""
        return self.lazy("coefficients").collect()

    @cached_property
    def metrics(self) -> Metrics:
        """Counts and quality."""
        return msgspec.json.decode(msgspec.json.encode(load_metrics(self.path)), type=Metrics)

    def lazy(self, table: Table) -> pl.LazyFrame:
        """Return a lazy frame over one of the files.

        Raises:
            ConfigError: Polars is not installed, or the run was written as JSON Lines.

        """
        path = self.path / f"{table}.parquet"
        if not path.exists():
            raise ConfigError(f"{path} is not there: replay with --format parquet")
        try:
            polars = import_module("polars")
        except ModuleNotFoundError:
            raise ConfigError("frames need Polars: pip install 'hearback-stream[frames]'") from None
        frame: pl.LazyFrame = polars.scan_parquet(path)
        return frame

    def report(self, path: str | os.PathLike[str] | None = None) -> Report:
        """Make a page of tables and pictures, as ``hearback backtest`` does, of this one run.

        Args:
            path: where it goes, if anywhere; a file that is there is replaced.

        Raises:
            ConfigError: there are too few applications whose window has closed.

        """
        report = Report(page(judged(self.path, self._logs)))
        if path is not None:
            report.save(path)
        return report

    def __repr__(self) -> str:
        """Name the folder."""
        return f"Run({self.path})"

    def _repr_html_(self) -> str:
        return self.metrics._repr_html_()


def replay(
    log: Log | Source,
    model: Model | str | os.PathLike[str] | None = None,
    *,
    rolls: Sequence[tuple[Model | str | os.PathLike[str], Time]] = (),
    out: str | os.PathLike[str] | None = None,
    score_from: Time | None = None,
    close: bool = False,
    policy: PolicyLike | None = None,
    workers: int = 1,
    max_jump: Duration | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Run:
    """Run a log through the whole pipeline, as ``hearback replay`` does.

    Each application is scored before anything of it is learned. The same log, model and settings
    give the same rows.

    Args:
        log: of :func:`stream.read`, or a file or frame.
        model: of :func:`stream.train`, or its folder; None where every application brings its
            ``global_score``.
        rolls: models of the same features, and from when on each scores applications in the place
            of those before.
        out: folder of the run; None: a temporary one, which goes with the run.
        score_from: judge only applications from this time on (learning is not limited).
        close: at the end, let every label window pass.
        policy: labels and effects: a file, or a dictionary.
        workers: how many processes share the work, 1 to 64. A script that uses several needs
            ``if __name__ == "__main__":`` around its work, as with :mod:`multiprocessing`.
        max_jump: hold an event that lies further ahead back until others lie there too.
        resume: go on with ``out``, which was interrupted.
        force: go on in spite of errors that a look at the log finds.
        progress: show on stderr how far it is.

    Raises:
        LogError: there are errors in the log. ModelError: the log does not fit the model.
        ConfigError: a setting cannot be, or the folder is there already.

    """
    whole, frozen = as_log(log), as_frozen(model)
    policies = with_model(settings(policy), frozen).policy
    options = Options(
        score_from_ms=time_ms(score_from) or 0,
        close=close,
        max_jump_ms=duration_ms(max_jump),
        workers=workers,
        rolls=tuple(Rolled(_model(one), time_ms(since) or 0) for one, since in rolls),
    )
    path = Path(tempfile.mkdtemp(prefix="hearback-run-")) if out is None else Path(out)
    run = Run(path, [one.name for one in whole.paths])
    if out is None:
        weakref.finalize(run, shutil.rmtree, path, ignore_errors=True)
    read = ReadProgress()
    with shown.hidden(not progress):
        lines, space = first_look(merge(whole.paths, read), frozen)
        if not resume:
            look_first(whole, policies, force=force, max_jump_ms=options.max_jump_ms, space=space)
        shown.load_kernel(frozen)
        with shown.reading("replaying", read) as said:
            replay_into(
                *(path, whole.paths, lines, policies, frozen, space, options),
                resume=resume, form="parquet", progress=said,
            )  # fmt: skip
    return run


def _model(given: Model | str | os.PathLike[str]) -> GlobalModel:
    return given.frozen if isinstance(given, Model) else load_model(Path(given))


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Open the folder of a run that ``hearback replay --format parquet`` or :func:`replay` wrote.

    Raises:
        ConfigError: it is none, or did not come to its end. StateError: it is damaged.

    """
    run = Run(Path(folder))
    load_metrics(run.path)
    return run
