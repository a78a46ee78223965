"""Commands on what workers keep: inspect, bootstrap, checkpoint, forget, topics, state, gate."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from stream.cli.options import (
    ApplicationId,
    BrokerAddress,
    ConfigFile,
    DataFolder,
    PolicyFile,
    Replication,
    configured,
    connected,
    group,
    parsed,
)
from stream.cli.terminal import OUT, doing, numbers, reading, tell
from stream.effects import EFFECT_NAMES, EFFECTS
from stream.errors import ConfigError, StateError, StoppedError
from stream.events.records import COEFFICIENTS, LABELS
from stream.histories.preferences import Preferences
from stream.logs.files import ReadProgress
from stream.units import format_time, parse_time_ms

_KINDS = "|".join(spec.kind for spec in EFFECTS)
_TERMS = 10  # shown at either end of a job's preferences
_GATES = "|".join([*EFFECT_NAMES, "all"])

topics = group("The topics that a worker needs.")
state = group("What workers keep.")
gate = group("The gate: it holds back the coefficients of an effect that makes the score worse.")


def inspect(
    kind: Annotated[str, typer.Argument(metavar=_KINDS, help="Of what.")],
    entity_id: Annotated[str, typer.Argument(metavar="ID", help="The member's or job's id.")],
    run: Annotated[Path | None, typer.Option(help="A replay's folder.")] = None,
    data: Annotated[Path | None, typer.Option(help="A stopped worker's data folder.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="Kafka (host:port): reads the coefficients topic.")
    ] = None,
    config: ConfigFile = None,
    model: Annotated[
        Path | None, typer.Option(help="With --broker: the model folder that names the features.")
    ] = None,
    app_id: ApplicationId = None,
) -> None:
    """Show what was learned of a member or a job.

    Coefficients in log-odds by feature name with standard errors, the number of applications
    learned and the last of them; the history, and a job's preferences by weight. Give one of --run,
    --data and --broker.
    """
    from stream.model.folder import load_model
    from stream.serving.lookup import from_data, from_run, from_topic

    effect = next((spec for spec in EFFECTS if spec.kind == kind), None)
    if effect is None:
        raise typer.BadParameter(f"{kind!r} is not one of {_KINDS}")
    if sum(source is not None for source in (run, data, broker)) != 1:
        raise typer.BadParameter("give exactly one of --run, --data and --broker")
    if run is not None:
        entity = from_run(run, effect, entity_id)
    elif data is not None:
        entity = from_data(data, effect, entity_id)
    else:
        found = configured(config, broker=broker, app_id=app_id)
        entity = from_topic(
            connected(found),
            effect,
            entity_id,
            model=None if model is None else load_model(model),
            application_id=found.worker.application_id,
        )
    if entity is None:
        raise ConfigError(f"nothing was learned of {kind} {entity_id}")
    tell(entity.in_words())
    table = numbers(None, "feature", "coefficient", "standard error")
    for name, mean, error in zip(
        entity.names, entity.coefficients.mean, entity.standard_errors, strict=True
    ):
        table.add_row(name, f"{mean:+.4f}", f"{error:.4f}")
    OUT.print(table)
    if entity.history is not None:
        tell(f"{entity.history.in_words()}")
    if entity.preferences is not None:
        _tell_preferences(entity_id, entity.preferences)


def _tell_preferences(job_id: str, preferences: Preferences) -> None:
    """Print a job's preferences by weight: the terms that tell most, for and against."""
    weighed = preferences.by_weight()
    shown = weighed if len(weighed) <= 2 * _TERMS else [*weighed[:_TERMS], *weighed[-_TERMS:]]
    applications, positives, negatives, *_ = preferences.totals
    tell(
        f"Of {applications} candidates with terms recruiters of {job_id} answered {positives}"
        f" positively and declined {negatives}; {len(shown)} of {len(weighed)} terms by weight"
        " (ln of observed over expected):"
    )
    headings = ("term", "positive", "declined", "candidates", "positives", "declines")
    table = numbers(None, *headings)
    for each in shown:
        table.add_row(
            f"{each.kind}: {each.term}",
            f"{each.positive:+.2f}",
            f"{each.negative:+.2f}",
            *map(str, (each.applications, each.positives, each.negatives)),
        )
    OUT.print(table)


def bootstrap(
    run: Annotated[
        Path, typer.Option(help="The replay's folder; replayed with --model, without --close.")
    ],
    broker: BrokerAddress = None,
    app_id: ApplicationId = None,
    positions: Annotated[
        str,
        typer.Option(
            help="From where workers read the inputs: earliest, end, or a time by Kafka's record"
            " timestamps (a date, ISO 8601, or seconds or milliseconds since 1970). Overlap is"
            " harmless, a gap is lost: when in doubt, earlier."
        ),
    ] = "earliest",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Make a worker's data folder too, so that it need not read the changelogs."
        ),
    ] = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    replication: Replication = None,
) -> None:
    """Load a replay's state into Kafka, so that live workers go on where history ended.

    Goes into a new application id (--app-id), and makes its topics: changelogs, and outputs of its
    own (ID-labels, ID-coefficients, …; inputs are shared), so that it can run beside another one,
    with another global model too, until your consumers have switched. Then start workers with
    `hearback worker --app-id ID`, the replay's model and its policy.

    Events that history had and workers read again change nothing, and event time goes on from the
    replay's. Until it has come to its end, workers refuse the application id; interrupted, it can
    be begun again.
    """
    from stream.bootstrap.load import bootstrap as load
    from stream.bootstrap.target import Settings
    from stream.worker.crashpoints import arm

    found = configured(config, policy=policy, broker=broker, app_id=app_id)
    application_id = found.worker.application_id
    settings = Settings(
        run=run,
        broker=connected(found),
        application_id=application_id,
        labels=found.policy.labels,
        start=positions if positions in {"earliest", "end"} else _time(positions),
        data=data,
        replication=replication,
    )
    arm(os.environ)
    read = ReadProgress()
    with reading("loading", read, "records") as advance:

        def show(done: int, total: int) -> None:
            read.done_bytes, read.total_bytes = done, total
            advance(done)

        try:
            done = load(settings, show)
        except KeyboardInterrupt:
            raise StoppedError(
                f"interrupted: application id {application_id} is not complete, workers refuse"
                " it; begin the bootstrap again"
            ) from None
    reached = "" if done.watermark_ms is None else format_time(done.watermark_ms)
    tell(
        f"{done.entities:,} members and jobs in {done.partitions} partitions, event time {reached}."
        f" Workers: hearback worker --app-id {application_id}; consumers:"
        f" {done.names.of(COEFFICIENTS)}, {done.names.of(LABELS)}"
    )


def _time(text: str) -> int:
    try:
        return parse_time_ms(text)
    except ConfigError as error:
        raise typer.BadParameter(f"--positions is earliest, end or a time: {error}") from None


def checkpoint(
    out: Annotated[Path, typer.Option(help="Folder of the copy; the worker makes it.")],
    data: DataFolder = None,
    config: ConfigFile = None,
) -> None:
    """Copy the state of a running worker, which goes on meanwhile.

    Asks the worker, over a socket in its data folder, for a copy of the stores of its partitions,
    each between two units of work; by hard links where that is one file system. The copy is a data
    folder: start a worker on it, or on a copy of it, and it goes on from there to the ends of the
    changelogs. Check one against them with hearback state verify.
    """
    from stream.worker.requests import ask_checkpoint

    with doing("copying the state"):
        folder = configured(config, options={"worker.data": data}).worker.data
        done = ask_checkpoint(folder, out)
    tell(f"{done.stores} stores, {done.size_bytes / 1e6:,.1f} MB in {out}")


def forget(
    kind: Annotated[Literal["member", "job"], typer.Argument(help="member or job")],
    entity_id: Annotated[str, typer.Argument(metavar="ID", help="The member's or job's id.")],
    broker: BrokerAddress = None,
    until: Annotated[
        str | None,
        typer.Option(
            help="Learn nothing more of applications up to this time. Default: now; for a played"
            " log of old, a time of the log."
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Forget what was learned of a member or a job.

    Writes a record into the worker's input; the worker that has the partition removes the state,
    its changelog entry, and the coefficients. For two label windows a marker stays, so that labels
    of applications up to now don't bring it back; later ones are learned anew. The topics' own
    records stay until their retention ends, and the facts of applications for two windows at
    most.
    """
    from producers.forget import send_forget
    from producers.outbox import now_ms
    from stream.events.structs import MAX_ID_CHARS, Forget

    if not 0 < len(entity_id) <= MAX_ID_CHARS:
        raise typer.BadParameter(f"an id has 1 to {MAX_ID_CHARS} characters")
    until_ms = parsed(parse_time_ms, until)
    event = Forget(
        member_id=entity_id if kind == "member" else None,
        job_id=entity_id if kind == "job" else None,
        event_time_ms=now_ms() if until_ms is None else until_ms,
    )
    topic, partition, offset = send_forget(connected(configured(config, broker=broker)), event)
    tell(
        f"{kind} {entity_id} is forgotten as soon as a worker comes to offset {offset} of"
        f" {topic}-{partition}"
    )


@topics.command()
def create(
    broker: BrokerAddress = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Partitions of each topic, forever; many more than workers. Default: as those"
            " that are there, else 12.",
        ),
    ] = None,
    replication: Replication = None,
    app_id: ApplicationId = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
) -> None:
    """Create the topics that are missing; check those that are there.

    Inputs and labels are kept for twice the label window; coefficients and the changelogs of the
    application id are compacted. Topics that are not as they have to be are refused, with the
    command that sets them right; none is ever changed.
    """
    from stream.worker.topics import create_topics

    found = configured(config, policy=policy, broker=broker, app_id=app_id)
    made = create_topics(
        connected(found),
        found.worker.application_id,
        found.policy.labels.window_ms,
        partitions=partitions,
        replication=replication,
    )
    for name, new in made.items():
        tell(f"{'created' if new else 'is there'}  {name}")
    if not any(made.values()):
        tell("nothing to do: all topics are there (hearback broker makes its own)")


@state.command()
def verify(
    checkpoint: Annotated[
        Path, typer.Option(help="A checkpoint, or a stopped worker's data folder.")
    ],
    broker: BrokerAddress = None,
    config: ConfigFile = None,
) -> None:
    """Compare a checkpoint with the changelogs that it follows.

    Every key that has not changed since the checkpoint must have the changelog's value, every
    deleted one be absent; keys that have changed since are counted. Changes nothing; workers may
    go on. Exit code 1 when something differs.
    """
    from stream.worker.data_folder import name_of
    from stream.worker.verification import verify_checkpoint

    address = connected(configured(config, broker=broker))
    table = numbers(None, "store", "up to offset", "equal", "changed since", "different")
    different = []
    with doing("reading") as say:
        for done in verify_checkpoint(
            checkpoint, address, lambda at: say(f"reading {name_of(at)}")
        ):
            counts = (done.offset, done.equal, done.later, done.different)
            table.add_row(name_of(done.place), *(f"{count:,}" for count in counts))
            different += [f"{name_of(done.place)}: {example}" for example in done.examples]
    OUT.print(table)
    if different:
        raise StateError(
            f"{checkpoint} is not what its changelogs say: {'; '.join(different[:5])}. Do not use"
            " it: take another checkpoint, or start with an empty --data"
        )


@gate.command("open")
def open_(
    effect: Annotated[str, typer.Argument(metavar=_GATES, help="Whose coefficients.")],
    broker: BrokerAddress = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Only in this partition. Default: in all.")
    ] = None,
    app_id: ApplicationId = None,
    config: ConfigFile = None,
) -> None:
    """Publish an effect's coefficients again, whatever its score is worth now.

    What changed while the gate was shut is published, and judging starts anew with the applications
    submitted from now on, so that a gate that still has reason shuts again. The workers obey within
    a second, those that are down when they are back. hearback_gate_open in their metrics tells.
    """
    from stream.partitions.commands import GateCommand
    from stream.worker.control import send_command

    if effect not in {*EFFECT_NAMES, "all"}:
        raise typer.BadParameter(f"{effect!r} is not one of {_GATES}")
    found = configured(config, broker=broker, app_id=app_id)
    address, application_id = connected(found), found.worker.application_id
    for each in EFFECT_NAMES if effect == "all" else [effect]:
        command = GateCommand(each, partition, time.time_ns() // 1_000_000)
        send_command(address, application_id, command)
        where = "all partitions" if partition is None else f"partition {partition}"
        tell(f"told the workers of {application_id} to publish {each} in {where}")
