"""The model command: models from elsewhere, and why a model scores as it does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.check import Force, look_first
from stream.cli.options import (
    ApplicationId,
    BrokerAddress,
    ConfigFile,
    FeatureNames,
    Logs,
    Margin,
    MaxJump,
    PolicyFile,
    configured,
    connected,
    group,
    names_in,
    parsed,
)
from stream.cli.terminal import OUT, numbers, reading, tell
from stream.errors import ConfigError, ModelError
from stream.logs.files import ReadProgress, merge
from stream.model.folder import load_model, new_model, save_model
from stream.text import new_folder
from stream.units import format_time, parse_duration_ms, parse_time_ms

if TYPE_CHECKING:
    from stream.model.folder import GlobalModel
    from stream.model.kind import ModelKind
    from stream.policy import Policy

model = group("Global models: take over one of XGBoost or LightGBM; explain a score; roll one in.")


@model.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="What booster.save_model('model.json') of XGBoost wrote, or"
            " json.dump(booster.dump_model(), file) of LightGBM.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The model folder; must not exist yet.")],
    trained_until: Annotated[
        str,
        typer.Option(
            help="The newest label that the model was fitted on was known at this time (a date, ISO"
            " 8601, or seconds or milliseconds since 1970): a backtest judges from then on."
        ),
    ],
    logs: Annotated[
        list[Path] | None,
        typer.Option(
            "--log",
            help="An event log, as train takes it: names the features of all blocks, and tells how"
            " long answers take. May be given several times.",
        ),
    ] = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    feature_names: FeatureNames = None,
    max_jump: MaxJump = None,
    force: Force = False,
) -> None:
    """Take over boosted trees that XGBoost or LightGBM have grown.

    Writes a model folder that scores as the library does (to 1e-6), in a microsecond or two, and
    needs neither library. Applications are scored by their global features: each feature of the
    model must be one of them, by its name; a model that was fitted without names takes them in
    their order. Features that the model does not ask for may be there too.

    The names of the blocks come from --log or --feature-names. With --log only, the model knows how
    long answers take, as one of `hearback train` does: what silence is worth by age.

    Taken over are numerical splits of one binary outcome (XGBoost: gbtree with binary:logistic;
    LightGBM: binary or cross_entropy). What was sent as a missing value to the library cannot be
    sent here: features are finite, and a name that an application leaves out is 0.
    """
    from stream.model.imported import read_model
    from stream.model.training import Trainer

    new_folder(out)
    until_ms = parsed(parse_time_ms, trained_until) or 0
    if not logs and feature_names is None:
        raise typer.BadParameter("give --log or --feature-names: they name the features")
    try:
        found = read_model(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None
    policies = configured(config, policy=policy).policy
    max_jump_ms = parsed(parse_duration_ms, max_jump)
    names = None if feature_names is None else names_in(feature_names)
    trainer = Trainer(policies, until_ms, names, max_jump_ms)
    if logs:
        look_first(logs, policies, force=force, max_jump_ms=max_jump_ms, until_ms=until_ms)
        read = ReadProgress()
        with reading("reading names and answers", read) as progress:
            trainer.read(merge(logs, read), progress)
    features, delays = trainer.features(), trainer.delays()
    try:
        scorer = found.over(features["global"])
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None
    made = new_model(
        scorer,
        features,
        trained_from_ms=0,
        trained_until_ms=until_ms,
        applications=0,
        positives=0,
        delays=delays,
    )
    save_model(out, made)
    tell(
        f"model {made.version} in {out}: {scorer.trees - 1:,} trees of {found.library} over"
        f" {len(features['global'])} global features, {len(scorer.table):,} nodes; trained until"
        f" {format_time(until_ms)}"
    )
    if delays is None:
        tell("answer delays: not known; the default curve is in force (--log tells them)")


@model.command()
def roll(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="The model folder.")],
    at: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Applications from this time on, by their own time, are scored by it (a date, ISO"
            " 8601, or seconds or milliseconds since 1970).",
        ),
    ],
    not_worse_than: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Roll nothing in and fail (exit code 1) when the new model is worse than this one,"
            " on the applications of --on whose windows ended after both were trained.",
        ),
    ] = None,
    logs: Annotated[
        list[Path] | None,
        typer.Option("--on", help="An event log to judge on. May be given several times."),
    ] = None,
    margin: Margin = 0.005,
    broker: BrokerAddress = None,
    app_id: ApplicationId = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
) -> None:
    """Let another global model score applications from a time on, under running workers.

    Applications before that time are scored by the model before. What members and jobs have learned
    stays, as do kept examples, the delays of answers and the effects' settings. What was scored
    already stays as it is: where TIME has passed, only applications that are read later are scored
    by the new one. To roll back, roll the old model in again.

    The command carries the model: workers need no file, and those that are down obey when they are
    back. The new model must have the features of the one that the state began with, in each block;
    where it has not, workers leave it aside and say so in their log.

    With --not-worse-than and --on, both models are judged first, on the applications whose windows
    ended after both were trained. A model that was trained on all there is cannot be judged so:
    `hearback train --not-worse-than` judges it as it is fitted, and writes none that is worse.
    """
    from stream.partitions.commands import check_roll
    from stream.worker.control import roll_in

    loaded = load_model(folder)
    if (not_worse_than is None) != (not logs):
        raise typer.BadParameter("--not-worse-than and --on go together")
    found = configured(config, policy=policy, broker=broker, app_id=app_id)
    if not_worse_than is not None:
        _judge(loaded, not_worse_than, logs or [], found.policy, margin)
    if found.worker.model is not None and found.worker.model.exists():
        check_roll(loaded, load_model(found.worker.model), found.policy)
    from_ms = parsed(parse_time_ms, at) or 0
    address, application_id = connected(found), found.worker.application_id
    roll_in(address, application_id, loaded, from_ms)
    tell(
        f"told the workers of {application_id} to score applications from {format_time(from_ms)} on"
        f" by model {loaded.version}"
    )
    if from_ms <= time.time_ns() // 1_000_000:
        tell("that time has passed: what was scored since then stays as it is")


@model.command()
def refresh(
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for the models, each in one of its own: 2024-02-19."),
    ],
    first: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="The model that the workers began with. Default: [worker] model.",
        ),
    ] = None,
    every: Annotated[
        str, typer.Option(help="How often, by event time; weeks begin on Monday (UTC).")
    ] = "7d",
    labels: Annotated[
        str | None,
        typer.Option(
            "--from-labels",
            metavar="TOPIC",
            help="Topic of the labels. Default: that of the application id.",
        ),
    ] = None,
    margin: Margin = 0.005,
    broker: BrokerAddress = None,
    app_id: ApplicationId = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
) -> None:
    """Roll a new global model in every week, under running workers, until Ctrl-C.

    When event time has passed the end of a week, a model of the kind of the one in force is trained
    on the labels known then (`hearback train --from-labels`). It is judged on its newest
    applications, and where it is worse than the one in force by more than --margin, that one stays.
    Else it scores the applications that come from then on (`hearback model roll`).

    Says what it did each time. What was rolled in or refused stands in the control topic, so it may
    be ended at any point and started again, on another machine too: no week has two models, and of
    weeks that passed meanwhile only the last one has one. Run one of them for each application id.
    """
    import signal

    from stream.events.records import LABELS, TopicNames
    from stream.kafka.cluster import look_at_cluster
    from stream.refresh.refresher import Refresher

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    options = {"worker.model": first}
    found = configured(config, policy=policy, broker=broker, app_id=app_id, options=options)
    every_ms = parsed(parse_duration_ms, every) or 0
    if every_ms <= 0:
        raise typer.BadParameter("--every: give a duration that is longer than 0")
    if found.worker.model is None:
        raise typer.BadParameter("name the model that the workers began with: --model")
    address, application_id = connected(found), found.worker.application_id
    began = load_model(found.worker.model)
    if labels is None:
        there = look_at_cluster(address, 10.0).partitions
        labels = TopicNames.among(application_id, there).of(LABELS)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        refresher = Refresher(
            *(address, found, labels, began, out), every_ms=every_ms, margin=margin, say=_say
        )
        _say(f"a new model for {application_id} every {every}, of the topic {labels}")
        refresher.run()
    except KeyboardInterrupt:
        _say("ended; started again, it goes on where it was")


def _say(text: str) -> None:
    tell(text)
    OUT.file.flush()


def _judge(new: GlobalModel, than: Path, logs: list[Path], policy: Policy, margin: float) -> None:
    """Refuse a model that is worse than another on windows that ended after both were trained."""
    from stream.backtest.tuning import trainer as trainer_of
    from stream.model.held_out import check_not_worse
    from stream.stages.succession import BLOCKS, check_fits

    old = load_model(than)
    check_fits(new, old, policy)
    # Only trees take histories, and counts of preferences.
    trees = any(one.takes_further and one.manifest.kind == "boosted" for one in (new, old))
    kind: ModelKind = "boosted" if trees else "linear"
    names = new.space.maker or {block: new.manifest.features[block] for block in BLOCKS}
    trainer = trainer_of(policy, None, names, None, kind)
    read = ReadProgress()
    with reading("judging", read) as progress:
        trainer.read(merge(logs, read), progress)
    judged = trainer.compare(new, old)
    check_not_worse(judged, than, margin)


@model.command()
def explain(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="The model folder.")],
    logs: Logs,
    application: Annotated[str, typer.Option("--application", help="The application's id.")],
    job: Annotated[
        str | None, typer.Option(help="Its job, where several have applications of this id.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="How many features are shown.")] = 20,
    policy: PolicyFile = None,
    config: ConfigFile = None,
) -> None:
    """Show what each feature adds to the global score of an application.

    In log-odds, the largest first; with the constant they sum to the score. In a linear model it is
    coefficient times value. In boosted trees it is how much the mean of the leaves below changes
    where a tree asks for the feature, on the application's way (Saabas' path attribution).

    Histories and preferences are those that the logs give, from their beginning, under the policy's
    labels.
    """
    from stream.backtest.explained import explained

    loaded = load_model(folder)
    policies = configured(config, policy=policy).policy
    *parts, constant = explained(loaded, policies, logs, application, job)
    score = sum(part.adds for part in parts) + constant.adds
    table = numbers(f"global score {score:+.4f}", "feature", "value", "adds")
    for part in parts[:most]:
        table.add_row(part.feature, f"{part.value:g}", f"{part.adds:+.4f}")
    if len(parts) > most:
        rest = sum(part.adds for part in parts[most:])
        table.add_row(f"{len(parts) - most} others", "", f"{rest:+.4f}")
    table.add_row("constant", "", f"{constant.adds:+.4f}")
    OUT.print(table)
