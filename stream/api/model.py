"""The global model for the Python API."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stream import progress as shown
from stream.api import html
from stream.api.given import Duration, PolicyLike, Time, duration_ms, moment, settings, time_ms
from stream.api.log import Log, Source, as_log, look_first
from stream.backtest.explained import explained
from stream.backtest.training import learned_spec
from stream.backtest.training import train as fit
from stream.errors import ConfigError
from stream.features.blocks import FeatureSpace
from stream.features.making import Maker
from stream.model import words
from stream.model.folder import GlobalModel, HeldOut
from stream.model.folder import load_model as load
from stream.model.folder import save_model as save
from stream.model.kind import ModelKind
from stream.text import new_folder

if TYPE_CHECKING:
    import polars as pl


class Model:
    """A frozen global model; :func:`train` and :func:`load_model` make one.

    Attributes:
        frozen: what scores, of :mod:`stream.model.folder`.
        notes: how it came about and how good it is, in sentences.

    """

    def __init__(self, frozen: GlobalModel, notes: Sequence[str] = ()) -> None:
        self.frozen = frozen
        self.notes = list(notes) or [words.subject(frozen.manifest), words.rows(frozen.manifest)]

    @property
    def version(self) -> str:
        """Digest of all that decides what is scored and learned."""
        return self.frozen.version

    @property
    def kind(self) -> ModelKind:
        """``linear`` or ``boosted``."""
        return self.frozen.manifest.kind

    @property
    def features(self) -> dict[str, list[str]]:
        """Names of the features by block."""
        return self.frozen.manifest.features

    @property
    def trained_until(self) -> datetime:
        """Nothing that happened later is in it."""
        return moment(self.frozen.manifest.trained_until_ms)

    @property
    def held_out(self) -> HeldOut | None:
        """How good it was on the newest fifth, fitted without it; None: not judged."""
        return self.frozen.manifest.held_out

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model folder, as ``hearback train`` does.

        Raises:
            ConfigError: the folder is there already. ModelError: it cannot be written.

        """
        path = Path(folder)
        new_folder(path)
        save(path, self.frozen)
        return path

    def explain(
        self,
        log: Log | Source,
        application: str,
        *,
        job: str | None = None,
        policy: PolicyLike | None = None,
        progress: bool = True,
    ) -> pl.DataFrame:
        """Say what each feature adds to an application's global score, in log-odds.

        A row for each, the most first, and the constant last; together they are the score.

        Args:
            log: that has it, from its beginning: of :func:`stream.read`, or a file or frame.
            application: its id.
            job: the id of its job, where several have applications of this id.
            policy: whose labels make the histories that the model may take: a file, or a
                dictionary.
            progress: show on stderr how far it is.

        Raises:
            ConfigError: it is not there, or Polars is not installed.

        """
        try:
            polars = import_module("polars")
        except ModuleNotFoundError:
            raise ConfigError("frames need Polars: pip install 'hearback-stream[frames]'") from None
        paths, policies = as_log(log).paths, settings(policy).policy
        with shown.hidden(not progress):
            parts = explained(self.frozen, policies, paths, application, job)
        columns = {"feature": str, "value": float, "adds": float}
        frame: pl.DataFrame = polars.DataFrame(parts, schema=columns, orient="row")
        return frame

    def __repr__(self) -> str:
        """Name kind and version."""
        return f"Model({self.kind}, {self.version})"

    def _repr_html_(self) -> str:
        found = self.held_out
        figures: dict[str, object] = {"kind": self.kind}
        if found is not None:
            figures["AUC, held out"] = "-" if found.auc is None else f"{found.auc:.4f}"
            figures["log loss, held out"] = f"{found.log_loss:.4f}"
            if found.constant_log_loss is not None:
                figures["log loss of a constant"] = f"{found.constant_log_loss:.4f}"
        return html.facts(f"model {self.version}", figures) + html.listing(self.notes)


def train(
    log: Log | Source,
    *,
    until: Time | None = None,
    kind: ModelKind = "linear",
    policy: PolicyLike | None = None,
    feature_names: Mapping[str, Sequence[str]] | None = None,
    spec: Model | str | os.PathLike[str] | None = None,
    max_jump: Duration | None = None,
    force: bool = False,
    progress: bool = True,
) -> Model:
    """Fit the global model on a log, as ``hearback train`` does.

    Args:
        log: of :func:`stream.read`, or a file or frame.
        until: nothing that happened later is used; None: all of the log is.
        kind: a logistic regression, or boosted trees.
        policy: what counts as an answer, and how long to wait: a file, or a dictionary.
        feature_names: by block (``global``, ``per_member``, ``per_job``), where events carry lists.
        spec: what becomes of attributes, where applications carry them: a file, or a model whose
            features are made in the same way, so that the new one can be rolled in after it.
        max_jump: hold an event that lies further ahead back until others lie there too.
        force: go on in spite of errors that a look at the log finds.
        progress: show on stderr how far it is.

    Raises:
        LogError: there are errors in the log. ModelError: there is too little to learn from.
        ConfigError: a setting cannot be.

    """
    whole, config, until_ms = as_log(log), settings(policy), time_ms(until)
    if feature_names is not None and spec is not None:
        raise ConfigError("give feature_names or spec: a spec names the features that it makes")
    names: dict[str, list[str]] | Maker | None = None
    if feature_names is not None:
        names = {block: list(given) for block, given in feature_names.items()}
    jump_ms = duration_ms(max_jump)
    with shown.hidden(not progress):
        maker = None if spec is None else _maker(spec, whole.paths, until_ms)
        names, space = (names, None) if maker is None else (maker, FeatureSpace.made(maker))
        look_first(
            *(whole, config.policy),
            force=force,
            max_jump_ms=jump_ms,
            until_ms=until_ms,
            space=space,
        )
        found = fit(
            *(whole.paths, config),
            until_ms=until_ms,
            names=names,
            max_jump_ms=jump_ms,
            kind=kind,
        )
    manifest = found.model.manifest
    notes = [
        words.subject(manifest),
        *([] if maker is None else words.spec(maker)),
        *found.lines(config.policy.labels),
        words.useless(manifest, found.chosen),
    ]
    return Model(found.model, [note for note in notes if note])


def _maker(
    spec: Model | str | os.PathLike[str], logs: Sequence[Path], until_ms: int | None
) -> Maker:
    """Return what makes features of attributes: that of a model, or what a log teaches of a file.

    Raises:
        ConfigError: the model makes none, or the file is no spec.

    """
    if not isinstance(spec, Model):
        return learned_spec(Path(spec), logs, until_ms)
    maker = spec.frozen.space.maker
    if maker is None:
        raise ConfigError(f"model {spec.version} makes no features of attributes: give a file")
    return maker


def load_model(folder: str | os.PathLike[str]) -> Model:
    """Read a model folder.

    Raises:
        ModelError: it is none, or damaged.

    """
    return Model(load(Path(folder)))


def as_frozen(given: Model | str | os.PathLike[str] | None) -> GlobalModel | None:
    """Return what scores; None where applications bring their global score."""
    if given is None or isinstance(given, Model):
        return None if given is None else given.frozen
    return load(Path(given))
