"""The label stage: events per second, cost with many pending, memory, longest block.

The label stage alone is: the label machine with its state in RocksDB, from events to labels; no
scoring, no learning; one core. Keys of the last line:

- ``label_events_per_s``: on a simulated log of about 220,000 events, flushed every 2,000;
- ``with_json_events_per_s``: the same with the events decoded from JSON and the labels encoded;
- ``pending_100k_over_100``: cost per event of a job with 100,000 pending applications over that of
  one with 100, the same mix of applications and answers that settle a few;
- ``rss_mb_1m_pending``: resident memory of a process with 1,000,000 pending applications, also
  while they are closed;
- ``longest_block_ms``: the longest stretch that an event loop waits while the watermark passes
  them all, one unit of work with its flush; also for a whole job partition that learns, with
  100,000 of them.

A shared machine is noisy: rates and costs are by the CPU time of the process, all its threads
included, and the best of several runs that take turns; the rate by the clock is printed beside.
"""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from producers.simulate import simulate
from producers.truth import SimulationSettings, draw_truth
from stream.errors import EventError
from stream.events.records import APPLICATIONS_BY_JOB, ENGAGEMENTS, LABELS, Read, Record
from stream.events.structs import (
    Application,
    Clock,
    Engagement,
    Event,
    Features,
    Source,
    Watermark,
)
from stream.events.wire import decode_event, encode, encode_label
from stream.features.blocks import FeatureSpace
from stream.labels.changes import Change, Scores, Step, label_of
from stream.labels.machine import LabelMachine
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, Manifest
from stream.partitions.job import MOST_STEPS, JobPartition
from stream.policy import DAY_MS, LabelPolicy, Policy
from stream.state.overlay import Overlay
from stream.state.store import RocksStore
from stream.state.stored_facts import StoredFacts
from stream.updaters.newton import warm_up

RUNS = 4
FLUSH_EVERY = 2000
PAST_ALL_MS = 500 * 1_000_000 + 15 * DAY_MS
"""Past the windows of all applications that :func:`fill` makes."""

FEATURES = 16  # of each effect
NOWHERE = Source("engagements", 0, 0, 0, b"")


def scores(_: Application) -> Scores:
    """Scores of every application."""
    return Scores(-1.2, 0.1, -0.3)


class LabelStage:
    """The label part of the per-job stage, as replay and worker drive it."""

    def __init__(self, folder: Path, policy: LabelPolicy, *, encode: bool = True) -> None:
        self._encode = encode
        self.store = RocksStore(folder)
        self.overlay = Overlay(self.store)
        self.machine = LabelMachine(policy, StoredFacts(self.overlay))
        self.lateness_ms = policy.allowed_lateness_ms
        self.watermark_ms = 0
        self.labels = 0
        self._events = 0

    def apply(self, event: Event) -> None:
        """Apply one event, then move the watermark; flush now and then."""
        self.emit(self.machine.apply(event, NOWHERE, self.watermark_ms, score=scores))
        mark_ms = event.event_time_ms - self.lateness_ms
        if mark_ms > self.watermark_ms:
            self.watermark_ms = mark_ms
            self.emit(self.machine.close_due(mark_ms))
        self._events += 1
        if self._events % FLUSH_EVERY == 0:
            self.overlay.flush()

    def emit(self, steps: Iterable[Step]) -> None:
        """Make the labels and, if told to, encode them."""
        for step in steps:
            if isinstance(step, Change) and step.label:
                label = label_of(step, "bench")
                if self._encode:
                    encode_label(label)
                self.labels += 1

    def close(self) -> None:
        """Flush and release the store."""
        self.overlay.flush()
        self.store.close()


def throughput(folder: Path, lines: list[bytes], space: FeatureSpace, *, json: bool) -> float:
    """Events per second of CPU time on a log; ``json``: decoding and encoding are part of it."""
    stage = LabelStage(folder, LabelPolicy(), encode=json)
    events = [] if json else list(decoded(lines, space))
    start, start_cpu = time.perf_counter(), time.process_time()
    for event in decoded(lines, space) if json else events:
        with contextlib.suppress(EventError):
            stage.apply(event)
    stage.overlay.flush()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    stage.close()
    print(
        f"{len(lines):,} events, {stage.labels:,} labels{', with JSON' if json else ''}:"
        f" {len(lines) / cpu_seconds:,.0f} events a second of CPU,"
        f" {len(lines) / seconds:,.0f} by the clock"
    )
    return len(lines) / cpu_seconds


def decoded(lines: list[bytes], space: FeatureSpace) -> Iterator[Event]:
    """Events of a log, without what is refused."""
    for line in lines:
        with contextlib.suppress(EventError):
            yield decode_event(line, space)


def application(number: int, time_ms: int, job: str) -> Application:
    """Return an application of a member of its own."""
    return Application(
        application_id=f"a{number:08}",
        member_id=f"m{number:08}",
        job_id=job,
        event_time_ms=time_ms,
        features=Features(None, bytes(4 * FEATURES), bytes(4 * FEATURES)),
        global_score=-1.0,
    )


class HotJob:
    """A job with many pending applications, kept at that number.

    Four applications arrive for each answer, which goes to the fourth-oldest one pending, and so
    settles the three before it.
    """

    def __init__(self, folder: Path, pending: int) -> None:
        self.stage = LabelStage(folder, LabelPolicy(window_ms=60 * DAY_MS))
        self._oldest = self._newest = self._turns = 0
        for _ in range(pending):
            self._apply()
        self.stage.overlay.flush()

    def cost(self, events: int = 10_000) -> float:
        """Seconds of CPU time per event of some more events."""
        start = time.process_time()
        for _ in range(events):
            self._turns += 1
            if self._turns % 5:
                self._apply()
            else:
                self._answer()
        self.stage.overlay.flush()
        return (time.process_time() - start) / events

    def _apply(self) -> None:
        self.stage.apply(application(self._newest, 1 + 10 * self._newest, "hot"))
        self._newest += 1

    def _answer(self) -> None:
        answered = self._oldest + 3
        self._oldest += 4
        self.stage.apply(
            Engagement(
                engagement_id=f"e{answered:08}",
                application_id=f"a{answered:08}",
                member_id=f"m{answered:08}",
                job_id="hot",
                event_time_ms=1 + 10 * self._newest,
                action="message",
            )
        )


def fill(folder: Path, pending: int, jobs: int) -> LabelStage:
    """Make a store with so many pending applications, spread over so many jobs."""
    stage = LabelStage(folder, LabelPolicy())
    for number in range(pending):
        stage.apply(application(number, 1 + 500 * number, f"j{number % jobs:05}"))
    stage.overlay.flush()
    return stage


def million(folder: Path) -> dict[str, float]:
    """Hold 1,000,000 pending applications; close them in units as the job partition does."""
    pending = 1_000_000
    settle_collector()
    stage = fill(folder, pending, 2_000)
    resident = [resident_mb()]
    longest = 0.0
    start = turn = time.perf_counter()
    for steps, step in enumerate(stage.machine.close_due(PAST_ALL_MS), 1):
        stage.emit([step])
        if steps % MOST_STEPS == 0:
            stage.overlay.flush()
            now = time.perf_counter()
            longest, turn = max(longest, now - turn), now
        if steps % 100_000 == 0:
            resident.append(resident_mb())
    seconds = time.perf_counter() - start
    stage.close()
    assert stage.labels == pending
    return {"rss_mb": max(resident), "seconds": seconds, "longest_block_ms": longest * 1000}


def learning(folder: Path) -> dict[str, float]:
    """Let a whole job partition, which learns, close 100,000 windows of 2,000 jobs."""
    pending = 100_000
    warm_up()
    fill(folder, pending, 2_000).close()
    store = RocksStore(folder)
    overlay = Overlay(store)
    partition = JobPartition(
        0, partitions=1, overlay=overlay, model=model(), policy=Policy(), idle_timeout_ms=60_000
    )
    inputs = [
        (APPLICATIONS_BY_JOB, encode(Watermark(0, PAST_ALL_MS, idle=False))),
        (ENGAGEMENTS, encode(Clock(PAST_ALL_MS))),
    ]
    settle_collector()
    labels = 0
    longest = 0.0
    start = turn = time.perf_counter()
    for topic, value in inputs:
        read = Read(topic, [Record(0, None, value, PAST_ALL_MS)], 1)
        for unit in partition.process([read], PAST_ALL_MS):
            overlay.flush()
            now = time.perf_counter()
            longest, turn = max(longest, now - turn), now
            labels += sum(message.topic == LABELS for message in unit)
    seconds = time.perf_counter() - start
    store.close()
    assert labels == pending
    return {"rss_mb": resident_mb(), "seconds": seconds, "longest_block_ms": longest * 1000}


def settle_collector() -> None:
    """Leave what is there for good out of garbage collections, as the worker does."""
    gc.collect()
    gc.freeze()


def model() -> GlobalModel:
    """Return a global model that is never asked."""
    names = {
        "global": ["g"],
        "per_member": [f"m{at}" for at in range(FEATURES)],
        "per_job": [f"j{at}" for at in range(FEATURES)],
    }
    manifest = Manifest(
        format=1,
        model_version="bench",
        features=names,
        trained_from_ms=0,
        trained_until_ms=0,
        applications=2,
        positives=1,
        regularisation=1.0,
        sha256="",
    )
    return GlobalModel(manifest, Linear(np.array([0.0])))


def resident_mb() -> float:
    """Resident memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


PARTS = {"million": million, "learning": learning}


def apart(part: str) -> dict[str, float]:
    """Run one of the parts in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.labels", part],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])


def main() -> None:
    """Measure all four; what fills the memory in processes of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if sys.argv[1:]:
            print(msgspec.json.encode(PARTS[sys.argv[1]](folder / "store")).decode())
            return
        settings = SimulationSettings(members=6000, jobs=1200, days=60)
        names = draw_truth(settings).feature_names
        space = FeatureSpace(names["global"], names["per_member"], names["per_job"])
        lines = list(simulate(settings))
        settle_collector()
        rates: dict[bool, list[float]] = {False: [], True: []}
        for run in range(2 * RUNS):
            json = run % 2 == 1
            rates[json].append(throughput(folder / f"run{run}", lines, space, json=json))
        del lines
        few, many = HotJob(folder / "few", 100), HotJob(folder / "many", 100_000)
        costs = [(few.cost(), many.cost()) for _ in range(2 * RUNS)]
        few_s, many_s = (min(cost) for cost in zip(*costs, strict=True))
        print(f"an event with 100 pending {few_s * 1e6:.1f} µs, with 100,000 {many_s * 1e6:.1f} µs")
    alone, whole = apart("million"), apart("learning")
    print(
        f"1,000,000 pending: {alone['rss_mb']:.0f} MB resident; all closed in"
        f" {alone['seconds']:.0f} s, at most {alone['longest_block_ms']:.0f} ms at a stretch"
    )
    print(
        f"100,000 closed and learned in {whole['seconds']:.0f} s, at most"
        f" {whole['longest_block_ms']:.0f} ms at a stretch"
    )
    result = {
        "label_events_per_s": round(max(rates[False])),
        "with_json_events_per_s": round(max(rates[True])),
        "pending_100k_over_100": round(many_s / few_s, 2),
        "rss_mb_1m_pending": round(alone["rss_mb"]),
        "longest_block_ms": round(max(alone["longest_block_ms"], whole["longest_block_ms"])),
    }
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
