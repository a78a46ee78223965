"""What histories cost: CPU time of a replay for each application, and bytes of state.

``make bench NAME=histories`` (a minute): a simulated market of 30 days, with and without
``[features] histories``, by the same linear product. CPU time: ``hearback replay`` in this process,
in turns; with histories each time right after without, and the median of the differences counts.
Bytes: of the keys and values of histories in the state at the end of the log, of a member, a job,
its preferences, and a pair; and what the lines of ``labels.jsonl`` of an application grow by. The
last line is one JSON object.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.aging import MARKET
from producers.simulate import simulate
from stream.logs.files import LogLine
from stream.policy import FeaturePolicy, Policy
from stream.replay.reader import first_look
from stream.replay.run_folder import LABELS, RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.state import keys
from stream.updaters.newton import warm_up

POLICIES = {
    "with": Policy(),
    "without": Policy(features=FeaturePolicy(histories=False)),
}
ROUNDS = 7


class Found(NamedTuple):
    """Of a replay: CPU seconds, bytes of ``labels.jsonl``, and (number, bytes) by kind of value."""

    seconds: float
    labels_bytes: int
    values: dict[str, tuple[int, int]]


def replayed(lines: list[bytes], policy: Policy) -> Found:
    """Replay a log; say what it took and left."""
    raw = (LogLine("simulated", number, line) for number, line in enumerate(lines, 1))
    read, space = first_look(raw, None)
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run") as out:
        began = time.process_time()
        replay(read, out, policy, None, space, Options())
        seconds = time.process_time() - began
        prefixes = {
            "member": keys.prefix(keys.HISTORY, "member"),
            "job": keys.prefix(keys.HISTORY, "job"),
            "pair": keys.PAIR,
            "preferences": keys.PREFERENCES,
        }
        values = {}
        for name, prefix in prefixes.items():
            sizes = [
                len(key) + len(value) for key, value in out.store.scan(prefix, keys.after(prefix))
            ]
            values[name] = (len(sizes), sum(sizes))
        out.lengths()
        return Found(seconds, (Path(folder) / "run" / LABELS).stat().st_size, values)


def main() -> None:
    """Run it and say what came out."""
    warm_up()
    lines = list(simulate(MARKET))
    applications = sum(b'"application"' in line for line in lines)
    differences, shares = [], []
    for turn in range(ROUNDS + 1):
        without, with_ = (replayed(lines, POLICIES[name]) for name in ("without", "with"))
        if turn:  # the first warms up
            differences.append((with_.seconds - without.seconds) / applications * 1e6)
            shares.append(with_.seconds / without.seconds)
            print(
                f"{without.seconds / applications * 1e6:.0f} µs an application without histories,"
                f" {differences[-1]:.0f} more with them",
                flush=True,
            )
    result: dict[str, float] = {
        "applications": applications,
        "more_us": round(median(differences), 1),
        "cpu_times": round(median(shares), 3),
        "label_bytes": round((with_.labels_bytes - without.labels_bytes) / applications),
        "label_bytes_times": round(with_.labels_bytes / without.labels_bytes, 2),
    }
    for name, (count, size) in with_.values.items():
        result |= {f"{name}_bytes": round(size / count), f"{name}_values": count}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
