"""``hearback replay`` at speed: one process, two, ten million events, and lambda-learner.

The whole job: a simulated log of the calm market, 16 features per effect, read from JSON Lines;
labels, both effects, RocksDB, all files written. Keys of the last line:

- ``events_per_s``: events of one process a second;
- ``two_over_one``: the same of two processes (``--workers 2 --sync 6h``) over it: some 2,000 events
  from barrier to barrier, as the ten minutes of the default are in a log of 10 million events;
- ``over_lambda_learner``: ``events_per_s`` over those of ``baseline_replay.py``, which updates two
  models with lambda-learner per label, on labels from the middle of the same run;
- ``last_over_first``: what an event of the last tenth costs over one of the first tenth after 28
  simulated days, two windows: from then on as many applications are closed as come, and as many
  markers go as are written;
- ``last_over_empty``: the same over the first tenth of all, in which nothing is closed yet;
- ``rss_mb``: the largest resident memory of the one process.

Rates are by the clock, from the first line read to the last file written, without the loading of
the kernel in the process that reads. ``_cpu``: by the CPU time of all processes, which is what to
look at where other programs are busy (``two_over_one_cpu``: were the work of two spread evenly).
``--full`` takes 1,000,000 members and 10,000,000 events, some 50 days, for the last three, and an
hour; without it they are of 400,000 events over 40,000 members, and one process is compared with
two on 200,000 events.
Arguments choose parts: ``speed``, ``large``; none means both.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from benchmarks.baselines import baselines_python
from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.logs.files import merge, write_lines
from stream.policy import Policy
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.run_folder import LABELS
from stream.replay.savepoint import Options
from stream.units import MS_PER_UNIT
from stream.updaters.newton import warm_up

MARKET = SimulationSettings(
    seed=11, members=12_000, jobs=2_400, days=30, d_member=16, d_job=16, global_score=True,
    applications_per_member=10,
)  # fmt: skip
GROWING = SimulationSettings(
    seed=12, members=40_000, jobs=8_000, days=56, d_member=16, d_job=16, global_score=True,
    applications_per_member=6,
)  # fmt: skip
FULL = SimulationSettings(
    seed=12, members=1_000_000, jobs=200_000, days=56, d_member=16, d_job=16, global_score=True,
    applications_per_member=6,
)  # fmt: skip
GROWING_EVENTS = 400_000
FULL_EVENTS = 10_000_000
FEW_LABELS = 2_000  # for what does hundreds a second
STEADY_MS = 28 * MS_PER_UNIT["d"]
SYNC_MS = 6 * MS_PER_UNIT["h"]
RUNS = 2


class When(msgspec.Struct):
    """When an event was."""

    event_time_ms: int


class Timed(msgspec.Struct):
    """A replay: seconds by the clock and of CPU, and when (lines, CPU seconds) it was how far."""

    seconds: float
    cpu_seconds: float
    rss_mb: float
    passed: list[tuple[int, float]]


def timed(log: Path, out: Path, workers: int) -> Timed:
    """Replay a log in a fresh process (called through :func:`apart`)."""
    warm_up()
    passed: list[tuple[int, float]] = []
    lines, space = first_look(merge([log]), None)
    begin, cpu = time.perf_counter(), time.process_time()
    replay_into(
        out, [log], lines, Policy(), None, space, Options(workers=workers, sync_ms=SYNC_MS),
        progress=lambda count: passed.append((count, time.process_time() - cpu)),
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    own = time.process_time() - cpu
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Timed(seconds, own + theirs.ru_utime + theirs.ru_stime, most_resident_mb(), passed)


def most_resident_mb() -> float:
    """Largest resident memory of this process, in MB.

    Not what getrusage says: that begins with the memory of whoever started the process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def apart(log: Path, workers: int = 1) -> Timed:
    """Time a replay in a process of its own, so that its memory is its own too."""
    with tempfile.TemporaryDirectory(dir=log.parent) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.replay", "one", log, f"{folder}/run", str(workers)],
            check=True, stdout=subprocess.PIPE,
        )  # fmt: skip
    return msgspec.json.decode(done.stdout, type=Timed)


def lambda_learner(log: Path, events: int, folder: Path) -> float:
    """Events a second of the same job with lambda-learner: on labels from the middle of the run.

    They come with as many lines of the log as there are to a label; the first lines of a log have
    few labels yet.
    """
    lines, space = first_look(merge([log]), None)
    replay_into(folder / "run", [log], lines, Policy(), None, space, Options())
    labels = (folder / "run" / LABELS).read_bytes().splitlines()
    few = round(FEW_LABELS * events / len(labels))
    work = folder / "work.jsonl"
    middle = islice(merge([log]), events // 2, events // 2 + few)
    first = len(labels) // 2
    write_lines(work, [*(line.raw for line in middle), *labels[first : first + FEW_LABELS]])
    done = subprocess.run(
        [baselines_python(), Path(__file__).with_name("baseline_replay.py"), work],
        check=True, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    return few / float(done.stdout)


def cost(run: Timed, first: int, count: int) -> float:
    """CPU seconds for each of ``count`` events from the one at ``first`` on."""

    def at(lines: int) -> tuple[int, float]:
        return min(run.passed, key=lambda point: abs(point[0] - lines))

    (begin, began), (end, ended) = at(first), at(first + count)
    return (ended - began) / (end - begin)


def speed(folder: Path) -> dict[str, float]:
    """One process, two, and lambda-learner, on one log."""
    log = folder / "log.jsonl"
    events = write_lines(log, simulate(MARKET))
    ones, twos = [], []
    for _ in range(RUNS):
        ones.append(apart(log, 1))
        twos.append(apart(log, 2))
        print(f"one process {events / ones[-1].seconds:,.0f} events/s,"
              f" two {events / twos[-1].seconds:,.0f}", flush=True)  # fmt: skip
    one, two = (min(runs, key=lambda run: run.seconds) for runs in (ones, twos))
    one_cpu, two_cpu = (min(run.cpu_seconds for run in runs) for runs in (ones, twos))
    baseline = lambda_learner(log, events, folder)
    print(f"lambda-learner {baseline:,.0f} events/s", flush=True)
    return {
        "events_per_s": round(events / one.seconds),
        "events_per_s_cpu": round(events / one_cpu),
        "two_over_one": round(one.seconds / two.seconds, 2),
        "two_over_one_cpu": round(2 * one_cpu / two_cpu, 2),
        "over_lambda_learner": round(events / one.seconds / baseline, 1),
        "events": events,
    }


def large(folder: Path, *, full: bool) -> dict[str, float]:
    """One process on a log that grows and grows."""
    log = folder / "large.jsonl"
    market, most = (FULL, FULL_EVENTS) if full else (GROWING, GROWING_EVENTS)
    before = 0
    time_of = msgspec.json.Decoder(When).decode

    def counted() -> Iterator[bytes]:
        nonlocal before
        for raw in islice(simulate(market), most):
            before += time_of(raw).event_time_ms < market.start_ms + STEADY_MS
            yield raw

    events = write_lines(log, counted())
    run = apart(log, 1)
    tenth = events // 10
    last = cost(run, events - tenth, tenth)
    return {
        "last_over_first": round(last / cost(run, before, tenth), 2),
        "last_over_empty": round(last / cost(run, tenth // 10, tenth), 2),
        "rss_mb": round(run.rss_mb),
        "large_events": events,
        "large_events_after_28_days": events - before,
        "large_events_per_s": round(events / run.seconds),
    }


def main() -> None:
    """Simulate, replay in turns, print."""
    if sys.argv[1:2] == ["one"]:
        of, out, workers = sys.argv[2:]
        print(msgspec.json.encode(timed(Path(of), Path(out), int(workers))).decode())
        return
    full = "--full" in sys.argv
    parts = set(sys.argv[1:]) - {"--full"} or {"speed", "large"}
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        if "speed" in parts:
            result |= speed(Path(name))
        if "large" in parts:
            result |= large(Path(name), full=full)
    for key, value in result.items():
        print(f"{key:22} {value}")
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
