"""Commands around scores: serve, rank, browse."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from stream.cli.options import (
    ApplicationId,
    BrokerAddress,
    ConfigFile,
    Logs,
    PolicyFile,
    configured,
    connected,
    parsed,
    setting,
)
from stream.cli.terminal import ERR, numbers, tell, whole
from stream.configuration.sections import LogFormat, LogLevel
from stream.effects import EFFECTS
from stream.errors import ConfigError
from stream.units import format_time, parse_duration_ms, parse_time_ms

if TYPE_CHECKING:
    from stream.serving import Answer, ApplicantsAnswer, Candidate

_KINDS = "|".join(spec.kind for spec in EFFECTS)
_URL = "http://127.0.0.1:9465"
_TELL_S = 60.0

Url = Annotated[str, typer.Option(help="Where hearback serve listens.")]
TokenFile = Annotated[Path | None, typer.Option(help="Its first token is one of the service.")]


def serve(
    broker: BrokerAddress = None,
    model: Annotated[Path | None, setting("worker.model", "--model")] = None,
    config: ConfigFile = None,
    policy: PolicyFile = None,
    app_id: ApplicationId = None,
    host: Annotated[str | None, setting("serving.host", "--host")] = None,
    port: Annotated[int | None, setting("serving.port", "--port", min=0, max=65_535)] = None,
    snapshot: Annotated[Path | None, setting("serving.snapshot", "--snapshot")] = None,
    token_file: Annotated[Path | None, setting("serving.token_file", "--token-file")] = None,
    certificate: Annotated[
        Path | None, setting("serving.certificate_file", "--certificate-file")
    ] = None,
    key: Annotated[Path | None, setting("serving.key_file", "--key-file")] = None,
    behind_proxy: Annotated[bool | None, setting("serving.behind_proxy", "--behind-proxy")] = None,
    log_level: Annotated[LogLevel | None, setting("log.level", "--log-level")] = None,
    log_format: Annotated[LogFormat | None, setting("log.format", "--log-format")] = None,
) -> None:
    """Serve scores and rankings over HTTP, from the coefficients that workers publish.

    Follows the topic coefficients and keeps all of it in memory; as many may run as you like. Give
    it the model and the policy of the worker. POST /v1/score and /v1/rank, in JSON or MessagePack;
    /openapi.json says all. Listens on localhost, unless there are tokens and a certificate.
    """
    from stream.serving.server import serve as run

    options = {
        "worker.model": model,
        "serving.host": host,
        "serving.port": port,
        "serving.snapshot": snapshot,
        "serving.token_file": token_file,
        "serving.certificate_file": certificate,
        "serving.key_file": key,
        "serving.behind_proxy": behind_proxy,
        "log.level": log_level,
        "log.format": log_format,
    }
    found = configured(config, policy=policy, broker=broker, app_id=app_id, options=options)
    if found.worker.model is None:
        raise typer.BadParameter(
            "no model is named: give --model, or [worker] model in --config (hearback train makes"
            " one)"
        )
    connected(found)
    raise typer.Exit(run(found, found.worker.model, partial(tell, console=ERR)))


def rank(
    kind: Annotated[str, typer.Argument(metavar=_KINDS, help="Whose candidates.")],
    entity_id: Annotated[str, typer.Argument(metavar="ID", help="The job's or member's id.")],
    logs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[LOG...]", help="Event logs; none: whom the service holds."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="So many, the best first.")] = 10,
    url: Url = _URL,
    token_file: TokenFile = None,
) -> None:
    """Rank the open applicants of a job, or the applications of a job or member that a log has.

    Asks a running hearback serve for their scores as of now. Each line says what the global model,
    the member and the job add, in log-odds; ± is the standard deviation of the score.
    """
    from stream.serving import Client, RankQuestion
    from stream.serving.messages import MOST_CANDIDATES

    if kind not in {spec.kind for spec in EFFECTS}:
        raise typer.BadParameter(f"{kind!r} is not one of {_KINDS}")
    if not logs:
        if kind != "job":
            raise typer.BadParameter("the service holds applicants of jobs alone: give a LOG")
        with Client(url, token=_token(token_file)) as client:
            _tell_open(client.applicants(entity_id, top=top))
        return
    found = list(_candidates(logs, kind, entity_id).values())
    candidates = found[-MOST_CANDIDATES:]
    if not found:
        raise ConfigError(f"the log has no application of {kind} {entity_id}")
    if len(found) > len(candidates):
        tell(f"only the last {len(candidates):,} of {len(found):,} applications are ranked", ERR)
    question = (
        RankQuestion(job_id=entity_id, candidates=candidates, top=top)
        if kind == "job"
        else RankQuestion(member_id=entity_id, candidates=candidates, top=top)
    )
    with Client(url, token=_token(token_file)) as client:
        _tell(client.rank(question), kind)


def browse(
    logs: Logs,
    url: Url = _URL,
    rate: Annotated[float, typer.Option(min=0.01, help="Visits a second, on average.")] = 10.0,
    for_: Annotated[
        str | None, typer.Option("--for", help="How long: 60s, say. Until Ctrl-C unless set.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Leave out applications from this time on.")
    ] = None,
    token_file: TokenFile = None,
) -> None:
    """Play recruiters who look at a running hearback serve: a small load, to see it work.

    Each visit has the applicants of some job ranked, as a log has them, or looks at those who are
    open, where the service holds them. Prints what came of it, every minute and at the end.
    """
    from producers.visits import Visits, candidates_of, visit

    seconds = None if for_ is None else (parsed(parse_duration_ms, for_) or 0) / 1000.0
    candidates = candidates_of(logs, parsed(parse_time_ms, until))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    began_s = told_s = time.monotonic()

    def note(done: Visits) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if seconds is not None and now_s - began_s >= seconds:
            stop.set()
        elif now_s - told_s >= _TELL_S:
            told_s = now_s
            tell(done.in_words(), ERR)

    token = _token(token_file)
    done = visit(url, candidates, per_second=rate, stop=stop, token=token, on_visit=note)
    tell(done.in_words())


def _token(file: Path | None) -> str | None:
    """Return the first token of a file."""
    from stream.serving.access import tokens_of

    return None if file is None else tokens_of(file)[0]


def _candidates(logs: list[Path], kind: str, entity_id: str) -> dict[str, Candidate]:
    """Applications of a log, as candidates, by id."""
    from stream.errors import EventError
    from stream.events.applications import RawApplication
    from stream.events.wire import decode_raw
    from stream.logs.files import merge
    from stream.serving import Candidate, CandidateFeatures

    found: dict[str, Candidate] = {}
    for line in merge(logs):
        try:
            event = decode_raw(line.raw)
        except EventError:
            continue
        if isinstance(event, RawApplication) and getattr(event, f"{kind}_id") == entity_id:
            sent, features = event.features, CandidateFeatures()
            if sent is not None:
                features = CandidateFeatures(sent.global_, sent.per_member, sent.per_job)
            found[event.application_id] = Candidate(
                member_id=event.member_id,
                job_id=event.job_id,
                features=features,
                global_score=event.global_score,
                application_time_ms=event.event_time_ms,
                member=event.member,
                job=event.job,
                context=event.context,
                terms=event.terms,
                channel=event.channel,
            )
    return found


def _tell_open(answer: ApplicantsAnswer) -> None:
    """Print the open applicants of a job."""
    table = numbers(
        *(None, "", "application", "member", "probability", "still to come"),
        *("log-odds", "±", "global", "member", "job"),
    )
    for each in answer.applicants:
        table.add_row(
            *(str(each.rank), each.application_id, each.member_id),
            *(f"{each.probability:.1%}", f"{each.probability_now:.1%}", f"{each.log_odds:+.2f}"),
            f"{each.standard_deviation:.2f}",
            *(f"{part:+.2f}" for part in msgspec.structs.astuple(each.parts)),
        )
    whole(table, 1, 2)
    shown, as_of = len(answer.applicants), format_time(answer.as_of_ms)
    tell(f"{shown} of {answer.of} open applicants, as of {as_of}", ERR)
    if answer.degraded:
        tell(f"these scores are {', '.join(answer.degraded)}", ERR)


def _tell(answer: Answer, kind: str) -> None:
    """Print a ranking."""
    other = next(spec.kind for spec in EFFECTS if spec.kind != kind)
    table = numbers(None, "", other, "probability", "log-odds", "±", "global", "member", "job")
    for each in answer.candidates or []:
        found = (each.probability, each.log_odds, each.standard_deviation)
        parts = (each.parts.global_, each.parts.member, each.parts.job)
        table.add_row(
            str(each.rank),
            each.member_id if kind == "job" else each.job_id,
            f"{found[0]:.1%}",
            f"{found[1]:+.2f}",
            f"{found[2]:.2f}",
            *(f"{part:+.2f}" for part in parts),
        )
    whole(table, 1)
    for error in answer.errors:
        tell(f"not scored: {error.message}", ERR)
    if answer.degraded:
        tell(f"these scores are {', '.join(answer.degraded)}", ERR)
