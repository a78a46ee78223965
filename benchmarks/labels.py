"""The label stage alone: events per second, cost with many pending, memory, longest block.

Decoding of events, the label machine with its state in RocksDB, and encoded label messages; no
scoring, no learning. One core. Keys of the last line:

- ``label_events_per_s``: on a simulated log (about 150,000 events), flushed every 2,000 records;
- ``pending_100k_over_100``: cost per event of a job with 100,000 pending applications over that of
  one with 100, the same mix of applications and answers that settle a few;
- ``rss_mb_1m_pending``: resident memory of a process with 1,000,000 pending applications;
- ``longest_block_ms``: the longest stretch without a turn of the event loop while the watermark
  passes them all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from producers.simulate import simulate
from producers.truth import SimulationSettings, draw_truth
from stream.errors import EventError
from stream.events import Application, Clock, Engagement, Event, Features, JobEvent, Source
from stream.features import FeatureSpace
from stream.labels.changes import Change, Scores, label_of
from stream.labels.machine import LabelMachine
from stream.partitions.job import MOST_STEPS
from stream.policy import DAY_MS, LabelPolicy
from stream.state.facts import StoredFacts
from stream.state.overlay import Overlay
from stream.state.store import RocksStore
from stream.wire import decode_event, encode_label

FLUSH_EVERY = 2000
SCORES = Scores(-1.2, 0.1, -0.3)
NOWHERE = Source("engagements", 0, 0, 0, b"")


class LabelStage:
    """The label part of the per-job stage, as replay and worker drive it."""

    def __init__(self, folder: Path, policy: LabelPolicy) -> None:
        self.store = RocksStore(folder)
        self.overlay = Overlay(self.store)
        self.machine = LabelMachine(policy, StoredFacts(self.overlay), Counter(), lambda _: None)
        self.lateness_ms = policy.allowed_lateness_ms
        self.watermark_ms = 0
        self.labels = 0

    def apply(self, event: Event) -> None:
        """Apply one event, then move the watermark."""
        match event:
            case Application():
                admitted = self.machine.admit(event, self.watermark_ms)
                if admitted is not None:
                    self.emit(self.machine.add(admitted, SCORES, 0, self.watermark_ms))
            case Engagement():
                self.emit(self.machine.engagement(event, NOWHERE, self.watermark_ms))
            case JobEvent():
                self.emit(self.machine.job_event(event, self.watermark_ms))
            case Clock():
                pass
        mark_ms = event.event_time_ms - self.lateness_ms
        if mark_ms > self.watermark_ms:
            self.watermark_ms = mark_ms
            self.emit(self.machine.close_due(mark_ms))

    def emit(self, changes: Iterable[Change | None]) -> None:
        """Encode the labels."""
        for change in changes:
            if change is not None and change.label:
                encode_label(label_of(change, "bench"))
                self.labels += 1


def throughput(folder: Path) -> float:
    """Events per second on the simulated log."""
    settings = SimulationSettings(members=4000, jobs=800, days=30)
    names = draw_truth(settings).feature_names
    space = FeatureSpace(names["global"], names["per_member"], names["per_job"])
    lines = list(simulate(settings))
    stage = LabelStage(folder, LabelPolicy())
    start = time.process_time()
    for count, line in enumerate(lines, 1):
        with suppress(EventError):
            stage.apply(decode_event(line, space))
        if count % FLUSH_EVERY == 0:
            stage.overlay.flush()
    stage.overlay.flush()
    seconds = time.process_time() - start
    stage.store.close()
    print(f"{len(lines):,} events, {stage.labels:,} labels in {seconds:.1f} s of one core")
    return len(lines) / seconds


def application(number: int, time_ms: int, job: str) -> Application:
    """Return an application of 16 features per effect."""
    return Application(
        application_id=f"a{number:08}",
        member_id=f"m{number:08}",
        job_id=job,
        event_time_ms=time_ms,
        features=Features(bytes(64), bytes(64), bytes(64)),
        global_score=-1.0,
    )


def cost_with_pending(folder: Path, pending: int, events: int = 20_000) -> float:
    """Seconds per event on a job with so many pending applications, kept at that number.

    Four applications arrive for each answer, which goes to the fifth-oldest one pending and so
    settles the four before it.
    """
    stage = LabelStage(folder, LabelPolicy(window_ms=60 * DAY_MS))
    step_ms = 10
    for number in range(pending):
        stage.apply(application(number, 1 + number * step_ms, "hot"))
        if number % FLUSH_EVERY == 0:
            stage.overlay.flush()
    stage.overlay.flush()
    newest, oldest = pending, 0
    start = time.process_time()
    for count in range(events):
        now_ms = newest * step_ms + 1
        if count % 5 < 4:
            stage.apply(application(newest, now_ms, "hot"))
            newest += 1
        else:
            answered = oldest + 3
            oldest += 4
            stage.apply(
                Engagement(
                    engagement_id=f"e{count:08}",
                    application_id=f"a{answered:08}",
                    member_id=f"m{answered:08}",
                    job_id="hot",
                    event_time_ms=now_ms,
                    action="message",
                )
            )
        if count % FLUSH_EVERY == 0:
            stage.overlay.flush()
    stage.overlay.flush()
    seconds = time.process_time() - start
    stage.store.close()
    return seconds / events


def million(folder: Path) -> dict[str, float]:
    """Fill a store with 1,000,000 pending applications, then close them all in chunks."""
    stage = LabelStage(folder, LabelPolicy())
    for number in range(1_000_000):
        stage.apply(application(number, 1 + number * 500, f"j{number % 2000:05}"))
        if number % FLUSH_EVERY == 0:
            stage.overlay.flush()
    stage.overlay.flush()
    rss = resident_mb()
    longest = 0.0
    closed = 0
    turn = time.perf_counter()
    for steps, change in enumerate(stage.machine.close_due(10**15), 1):
        if change is not None:
            closed += change.closed
            if change.label:
                encode_label(label_of(change, "bench"))
        if steps % MOST_STEPS == 0:
            stage.overlay.flush()
            longest = max(longest, time.perf_counter() - turn)
            turn = time.perf_counter()
    stage.overlay.flush()
    assert closed == 1_000_000
    return {"rss_mb": max(rss, resident_mb()), "longest_block_ms": longest * 1000}


def resident_mb() -> float:
    """Resident memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    """Measure all four; the million in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if sys.argv[1:] == ["million"]:
            print(msgspec.json.encode(million(folder / "million")).decode())
            return
        rate = throughput(folder / "throughput")
        few = cost_with_pending(folder / "few", 100)
        many = cost_with_pending(folder / "many", 100_000)
        print(f"per event with 100 pending {few * 1e6:.1f} µs, with 100,000 {many * 1e6:.1f} µs")
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.labels", "million"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = msgspec.json.decode(done.stdout.splitlines()[-1])
        print(
            f"1,000,000 pending: {found['rss_mb']:.0f} MB resident, longest block while closing"
            f" {found['longest_block_ms']:.0f} ms"
        )
        result = {
            "label_events_per_s": round(rate),
            "pending_100k_over_100": round(many / few, 2),
            "rss_mb_1m_pending": round(found["rss_mb"]),
            "longest_block_ms": round(found["longest_block_ms"]),
        }
        print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
