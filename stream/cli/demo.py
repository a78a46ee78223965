"""The demo command: a simulated market, live, from nothing to a summary."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from stream.cli import PROGRAM
from stream.cli.patience import Patience
from stream.cli.terminal import ERR, OUT, doing, key_values, quality_table, tell
from stream.effects import EFFECTS, JOB, MEMBER
from stream.errors import ConfigError, HearbackError
from stream.units import MS_PER_UNIT, format_time, parse_time_ms

if TYPE_CHECKING:
    from stream.model.folder import GlobalModel

_START_MS = parse_time_ms("2024-01-01")
_DAYS = 40
_ANSWER_DAYS = 14  # answers follow for so long after the last application
_MORE_DAYS = 30  # of the market that goes on
_OPEN_DAYS = 16  # applications of so long before are open when it does
_MORE_SPEED = 720.0  # a day in two minutes
_TRAIN_DAYS = 24
_MEMBERS, _JOBS = 300, 80
_PARTITIONS = 4
_PREFERENCE_SD = 1.0  # "a clear preference" (producers/terms.py)
_MARKER = ".hearback-demo"
_DATA = "data"
_DAY_MS = MS_PER_UNIT["d"]
_PLAYED_MS = _START_MS + (_DAYS + _ANSWER_DAYS) * _DAY_MS
_FINAL_MS = _PLAYED_MS - _OPEN_DAYS * _DAY_MS


def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the files; an earlier demo's is replaced.")
    ] = Path("demo-run"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another market.")] = 1,
    seconds: Annotated[
        float, typer.Option(min=1, help="How long the market is played, in seconds.")
    ] = 45.0,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Go on afterwards, with a page to look at the market, until Ctrl-C."
        ),
    ] = False,
) -> None:
    """See all of it work: simulate, train, broker, worker, produce, and what came of it.

    A market of some weeks is simulated and played in under a minute through a throw-away broker
    and a real worker on this machine. Needs nothing but this package.
    """
    from stream.updaters.newton import warm_up
    from stream.worker.data_folder import KERNEL

    began = time.monotonic()
    # So that the worker is ended too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    _prepare(out)
    with _step("compiling the kernel (only the first time takes long)"):
        # Here, not in the worker: it would be given up as too slow on a busy machine.
        warm_up(out / _DATA / KERNEL)
    with _step("simulating a market and training the global model on its first weeks"):
        applications, until_ms = _make_market(out, seed, keep=keep)
    stage = _Stage(out, keep=keep)
    try:
        with _step("playing the market through a throw-away broker and a worker") as say:
            stage.start()
            stage.play(seconds, applications, say)
        if keep:
            OUT.print(_summary(stage, until_ms, out))
            stage.go_on()
            return
    finally:
        stage.stop()
    OUT.print(_summary(stage, until_ms, out))
    member = stage.audience.best_known(MEMBER.name, 1)[0].entity_id
    tell(f"Try: {_command()} inspect member {member} --data {shlex.quote(str(out / _DATA))}")
    tell(f"To see who is ranked where while the market goes on: {_command()} demo --keep")
    OUT.print(f"\ndone in {time.monotonic() - began:.0f} s", style="dim")


@contextmanager
def _step(what: str) -> Iterator[Callable[[str], None]]:
    """Say what is being done: as it goes on in a terminal, else in a line."""
    if not ERR.is_terminal:
        tell(what, ERR)
    with doing(what) as say:
        yield say


def _prepare(out: Path) -> None:
    """Make an empty folder; only one that a demo made is removed."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / _MARKER).is_file()):
        raise ConfigError(f"{out} is there already and no demo's: name another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARKER).touch()


def _make_market(out: Path, seed: int, *, keep: bool) -> tuple[int, int]:
    """Simulate the log and train; return the number of applications and the end of training.

    ``keep``: make it longer, and count only applications that are not open when it goes on.
    """
    from producers.simulate import simulate
    from producers.truth import SimulationSettings, draw_truth
    from stream.backtest.tuning import trainer as trainer_of
    from stream.events.applications import RawApplication
    from stream.events.wire import decode_raw
    from stream.logs.files import merge, write_lines
    from stream.policy import Policy

    more = _MORE_DAYS if keep else 0
    settings = SimulationSettings(
        seed=seed,
        members=_MEMBERS,
        jobs=_JOBS,
        days=_DAYS + more,
        start_ms=_START_MS,
        preference_sd=_PREFERENCE_SD,
        terms_share=1.0,
    )
    truth = draw_truth(settings)
    lines = list(simulate(settings))
    write_lines(out / "log.jsonl.gz", lines)
    (out / "truth.json").write_bytes(truth.to_json())
    until_ms = _START_MS + _TRAIN_DAYS * _DAY_MS
    trainer = trainer_of(Policy(), until_ms, truth.feature_names, None, "linear")
    trainer.read(merge([out / "log.jsonl.gz"]), lambda _: None)
    trainer.fit(out / "model")
    events = map(decode_raw, lines)
    ids = {
        (e.job_id, e.application_id)
        for e in events
        if isinstance(e, RawApplication) and not (keep and e.event_time_ms >= _FINAL_MS)
    }
    return len(ids), until_ms


class _Stage:
    """Broker, worker and audience of one demo; with ``keep`` a service too."""

    def __init__(self, out: Path, *, keep: bool) -> None:
        from stream.cli.audience import Audience
        from stream.kafka.embedded import EmbeddedBroker
        from stream.model.folder import load_model

        self.model: GlobalModel = load_model(out / "model")
        self.events = 0
        self._out = out
        self._keep = keep
        self._log = out / "worker.log"
        self._broker = EmbeddedBroker()
        self._worker: subprocess.Popen[bytes] | None = None
        self._service: subprocess.Popen[bytes] | None = None
        self.audience = Audience(self._broker.bootstrap_servers, self.model.space)

    def start(self) -> None:
        """Start everybody; return when the worker has its partitions."""
        from stream.worker.topics import plans

        names = [plan.name for plan in plans("hearback", _DAY_MS)]
        self._broker.create_topics(dict.fromkeys(names, _PARTITIONS))
        self.audience.start()
        self._worker = self._run("worker", "--data", str(self._out / _DATA), "--metrics-port", "0")
        if self._keep:
            self._service = self._run("serve", "--port", "0")
        self._wait(self._ready)

    def _run(self, command: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a command on the broker and the model; its words go to a log of its name."""
        common = ("--broker", self._broker.bootstrap_servers, "--model", str(self._out / "model"))
        # The demo has settings of its own: those of a real installation are none of its business.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HEARBACK_")}
        if self._keep:
            environment["HEARBACK_APPLICANTS_ENABLED"] = "true"
        with (self._out / f"{command}.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own program
                [*PROGRAM, command, *common, *options], stderr=log, env=environment
            )

    def play(self, seconds: float, applications: int, say: Callable[[str], None]) -> None:
        """Play the log in about so many seconds, close it, wait for the last label."""
        from producers.kafka import ProduceProgress, produce

        log = self._out / "log.jsonl.gz"
        broker = self._broker.bootstrap_servers

        def show(progress: ProduceProgress) -> None:
            self._check_worker()
            day = format_time(progress.event_time_ms or _START_MS)[:10]
            heard = sum(self.audience.labels.values())
            say(f"playing the market: {day}, {progress.sent:,} events, {heard:,} labels back")

        speed = (_PLAYED_MS - _START_MS) / 1000.0 / seconds
        until_ms = _PLAYED_MS if self._keep else None
        done = produce([log], broker, speed=speed, until_ms=until_ms, on_progress=show)
        self.events = done.sent
        self.audience.measuring = False
        if self._keep:
            self._wait(lambda: self.audience.all_final(applications, _FINAL_MS))
            return
        say("closing the last windows")
        produce([log], broker, from_ms=done.event_time_ms, close=True)
        self._wait(lambda: self.audience.all_final(applications))

    def go_on(self) -> None:
        """Say where the page is, and play what is left of the log, until Ctrl-C."""
        from producers.kafka import ProduceProgress, produce

        said = (self._out / "serve.log").read_text()
        page = re.search(r"(http://\S+/)v1/score", said)
        if page is None:
            raise HearbackError(f"the service does not get on: see {self._out / 'serve.log'}")
        tell(f"\nSee who is ranked where, and why: {page.group(1)}")
        tell("The market goes on, a day in two minutes, for an hour. Ctrl-C ends everything.")

        def show(progress: ProduceProgress) -> None:
            self._check_worker()
            say(f"playing the market: {format_time(progress.event_time_ms or _PLAYED_MS)[:16]}")

        with suppress(KeyboardInterrupt), doing("playing the market") as say:
            produce(
                [self._out / "log.jsonl.gz"],
                self._broker.bootstrap_servers,
                speed=_MORE_SPEED,
                from_ms=_PLAYED_MS,
                on_progress=show,
            )

    def stop(self) -> None:
        """End everybody, gracefully."""
        for process in (self._service, self._worker):
            if process is not None:
                process.terminate()
                process.wait()
        self.audience.stop()
        self._broker.close()

    def _ready(self) -> bool:
        """Whether the worker's metrics say that it owns all partitions."""
        found = re.search(r"http://\S+/metrics", self._log.read_text())
        if found is None:
            return False
        try:
            with urllib.request.urlopen(found.group(), timeout=5) as page:  # noqa: S310 - localhost
                return f'hearback_partitions{{stage="job"}} {_PARTITIONS}.0' in page.read().decode()
        except OSError:  # too busy to answer
            return False

    def _wait(self, until: Callable[[], bool]) -> None:
        if self._worker is None:
            raise HearbackError("the worker was not started")
        log, heard = self._log, self.audience
        patience = Patience(
            self._worker.pid,
            lambda: (log.stat().st_size, sum(heard.labels.values()), len(heard.entities)),
        )
        while not until():
            self._check_worker()
            if patience.is_over():
                raise HearbackError(f"the worker does not get on: see {self._log}")
            time.sleep(0.1)

    def _check_worker(self) -> None:
        if self.audience.error is not None:
            raise self.audience.error
        if self._worker is not None and self._worker.poll() is not None:
            last = self._log.read_text().strip().splitlines()[-1:]
            raise HearbackError(f"the worker ended: {' '.join(last)} (all of it in {self._log})")


def _command() -> str:
    """What runs this command line from the folder that the user is in."""
    found = shutil.which("hearback")
    if found is not None and Path(found).resolve() == _script().resolve():
        return "hearback"
    script = _script()
    return shlex.quote(str(script)) if script.is_file() else shlex.join(PROGRAM)


def _script() -> Path:
    """Path of the console script, where it is installed beside this Python."""
    return Path(sys.executable).with_name("hearback")


def _preferred(job_id: str | None, data: Path) -> Iterator[Text]:
    """Tell what the recruiters of a job prefer, of what the worker keeps of it."""
    from stream.cli.audience import for_and_against
    from stream.serving.lookup import from_data

    entity = None if job_id is None else from_data(data, JOB, job_id)
    preferences = None if entity is None else entity.preferences
    terms = None if preferences is None else for_and_against(preferences)
    if terms is not None:
        said = [f"*{term.term}* ({term.positives} of {term.applications})" for term in terms]
        yield Text(
            f"\nRecruiters of {job_id} answer candidates with {said[0]}, not with {said[1]}."
        )


def _summary(stage: _Stage, until_ms: int, out: Path) -> RenderableType:
    """What a person wants to know."""
    from stream.serving.lookup import Entity

    heard = stage.audience
    final = [label.label for label in list(heard.last.values()) if label.final]
    still_open = len(heard.last) - len(final)
    told = [
        Entity(
            coefficients=found, names=stage.model.manifest.features[spec.block], kind=spec.kind
        ).in_words()
        for spec in EFFECTS
        for found in heard.best_known(spec.name, 2)
    ]
    return Group(
        key_values(
            "The market",
            {
                "events played": stage.events,
                "applications": len(heard.last),
                "  answered in the end": sum(final),
                "  not answered": len(final) - sum(final),
                **({"  still open": still_open} if still_open else {}),
                "dead letters": heard.dead_letters,
            },
        ),
        key_values("\nLabels, as they came", dict(sorted(heard.labels.items()))),
        Text(
            f"\n{heard.positives_within_a_day():.0%} of the positives were known within a day."
            f" {sum(heard.flips.values()):,} labels were negative first and turned positive;"
            " each time the wrong label was replaced, not outvoted.\n"
        ),
        quality_table(heard.summary(until_ms)),
        Text(
            f"\nFrom event to published coefficients: p50 {heard.latency_s(0.5) * 1000:.0f} ms,"
            f" p99 {heard.latency_s(0.99) * 1000:.0f} ms.\n"
        ),
        Text("Two members and two jobs, as learned:"),
        *(Text(f"  {line}") for line in told),
        *_preferred(heard.choosiest(), out / _DATA),
        Text(
            f"\nFiles in {out}: log.jsonl.gz (the market), truth.json (what was to be learned),"
            " model/ (the global model), data/ (the worker's state), worker.log"
        ),
    )
