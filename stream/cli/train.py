"""The train command: fits a global model, and says how good it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.check import Force, look_first
from stream.cli.options import (
    ConfigFile,
    FeatureNames,
    Kind,
    Margin,
    MaxJump,
    PolicyFile,
    SpecFile,
    configured,
    connected,
    names_in,
    parsed,
)
from stream.cli.spec import fitted_spec
from stream.cli.terminal import ERR, tell
from stream.errors import ConfigError
from stream.features.blocks import FeatureSpace
from stream.logs.files import merge
from stream.model.folder import load_model, save_model
from stream.replay.run_folder import LABELS
from stream.text import new_folder
from stream.units import parse_duration_ms, parse_time_ms

if TYPE_CHECKING:
    from stream.configuration.sections import Config
    from stream.features.making import Maker
    from stream.model.held_out import Judgement, Unjudged


def train(
    out: Annotated[Path, typer.Option("--out", help="The model folder; must not exist yet.")],
    logs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="LOG...", help="Event logs, as replay takes them."),
    ] = None,
    from_labels: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS",
            help="In place of logs: a run's folder or its labels.jsonl; with --broker, the topic of"
            " the labels (labels, or ID-labels), to the end that it has now.",
        ),
    ] = None,
    broker: Annotated[
        str | None, typer.Option(help="With --from-labels: where the topic is (host:port).")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            help="Use only events up to this time (a date, ISO 8601, or seconds or milliseconds"
            " since 1970)."
        ),
    ] = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    kind: Kind = "linear",
    feature_names: FeatureNames = None,
    spec: SpecFile = None,
    spec_of: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Make features of attributes as this model does, with its vocabularies and scales:"
            " the new model can be rolled in after it.",
        ),
    ] = None,
    not_worse_than: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Write nothing and fail (exit code 1) when the new model is worse than this one,"
            " on the held-out applications whose windows ended after it was trained.",
        ),
    ] = None,
    margin: Margin = 0.005,
    max_jump: MaxJump = None,
    force: Force = False,
) -> None:
    """Fit the frozen global model on a log.

    A linear model (--kind linear) is a logistic regression; boosted trees (--kind boosted) find
    interactions and thresholds by themselves, and need some thousand applications to do better.
    `hearback model import` takes over trees that XGBoost or LightGBM have grown.

    Uses the applications whose whole label window has passed before --until (or the log's end),
    so that early answers are not favoured; where they have fewer than 10 positives for each
    feature, all applications before then, and silence weighs what it was worth then; so do trees
    always. MODEL is a folder: a manifest and arrays, no pickle.

    With --from-labels it is fitted on labels instead, which carry what was scored: what a worker or
    a replay has written suffices to train the next model. Applications younger than the
    first step of aging are left out. Names of features are those of --not-worse-than or
    --feature-names.

    How strongly coefficients are held near zero is chosen by cross-validation over jobs. Reports
    AUC and log loss on the newest fifth of the applications whose window has passed, of a model
    fitted on what was known before, and the log loss of a constant; the model that is written is
    then fitted on all.

    Where applications carry attributes, --spec says what becomes of them. What is frequent and
    how numbers are scaled is learned of the applications up to --until, and kept in the model, so
    that whoever has MODEL needs no spec.

    Learns with it what is left to come of applications that still wait, from moments of the newest
    of them.

    Where applications carry terms, what the job's recruiters had preferred of them is an input too,
    if the held-out part is better with it by more than a standard error.

    For effects over trees, one prior precision is chosen on the same span, and kept in the model:
    it is in force wherever a policy, a configuration and the environment say nothing of it.
    """
    from stream.backtest.training import train as fit
    from stream.backtest.training import train_from_labels
    from stream.model import words
    from stream.model.held_out import check_not_worse

    before = None if not_worse_than is None else load_model(not_worse_than)
    new_folder(out)
    settings = configured(config, policy=policy, broker=broker)
    policies = settings.policy
    paths = logs or []
    until_ms = parsed(parse_time_ms, until)
    max_jump_ms = parsed(parse_duration_ms, max_jump)
    if bool(logs) == (from_labels is not None):
        raise typer.BadParameter("give either LOG... or --from-labels LABELS")
    if broker is not None and from_labels is None:
        raise typer.BadParameter("--broker goes with --from-labels")
    if spec is not None and from_labels is not None:
        raise typer.BadParameter("labels carry no attributes: give --spec-of in place of --spec")
    if sum(given is not None for given in (feature_names, spec, spec_of)) > 1:
        raise typer.BadParameter("give one of --feature-names, --spec and --spec-of")
    names: dict[str, list[str]] | Maker | None = None
    space = None
    if feature_names is not None:
        names = names_in(feature_names)
    elif spec is not None or spec_of is not None:
        names = _maker_of(spec_of) if spec is None else fitted_spec(spec, paths, until_ms)
        space = FeatureSpace.made(names)

    def accept(judged: Judgement | Unjudged) -> None:
        if not_worse_than is not None:
            check_not_worse(judged, not_worse_than, margin)

    if from_labels is not None:
        found = train_from_labels(
            _labels(from_labels, settings, live=broker is not None),
            settings,
            until_ms=until_ms,
            names=names,
            kind=kind,
            before=before,
            accept=accept,
        )
    else:
        look_first(
            *(paths, policies),
            force=force,
            max_jump_ms=max_jump_ms,
            until_ms=until_ms,
            space=space,
        )
        found = fit(
            *(paths, settings),
            until_ms=until_ms,
            names=names,
            max_jump_ms=max_jump_ms,
            kind=kind,
            before=before,
            accept=accept,
        )
    for reason, count in sorted(found.refused.items()):
        tell(f"lines left out, {reason}: {count:,}", ERR)
    for reason, count in sorted(found.ignored.items()):
        tell(f"ignored, {reason}: {count:,}", ERR)
    manifest = save_model(out, found.model)
    tell(f"model {manifest.model_version} in {out}: {words.subject(manifest)}")
    for line in found.lines(policies.labels):
        tell(line)
    useless = words.useless(manifest, found.chosen)
    if useless:
        tell(useless, ERR)


def _maker_of(path: Path | None) -> Maker:
    """Return what makes the features of a model."""
    maker = None if path is None else load_model(path).space.maker
    if maker is None:
        raise ConfigError(f"model {path} makes no features of attributes: give --spec")
    return maker


def _labels(source: str, config: Config, *, live: bool) -> Callable[[], Iterable[bytes]]:
    """Return what gives the labels of a file, or of a topic as it is now."""
    if live:
        from stream.kafka.whole import WholeTopic

        return WholeTopic(connected(config), source).values
    path = Path(source)
    path = path / LABELS if path.is_dir() else path
    return lambda: (line.raw for line in merge([path]) if line.damaged is None)
