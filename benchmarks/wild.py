"""What a few wild features cost: CPU time of a replay with them, as a share of that without.

A simulated market is replayed as it is, with one application in 200 having features of 1e38 (dead
letters), and with one in 200 having features just below ``max_feature``. Each in turn, three times;
of each the least CPU time counts. Last, the longest of many fits of 1,000 examples with 32 wild
features.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.logs.lines import LogLine
from stream.model.folder import load_model
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy
from stream.replay.reader import first_look
from stream.replay.run_folder import RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.updaters import newton

SHARE = 0.005
SIZES = {"none": 0.0, "1e38": 1e38, "9.9e5": 9.9e5}
ROUNDS = 3


def with_wild(lines: list[bytes], size: float) -> list[LogLine]:
    """Put a wild number into both blocks of a share of the applications."""
    dice = random.Random(1)  # noqa: S311 - no secret
    found = []
    for number, line in enumerate(lines, 1):
        raw = line
        if size and b'"application"' in line and dice.random() < SHARE:
            event: dict[str, Any] = msgspec.json.decode(line)
            if event["type"] == "application":
                for block in ("per_member", "per_job"):
                    values = event["features"][block]
                    values[dice.randrange(len(values))] = dice.choice((-size, size))
                raw = msgspec.json.encode(event)
        found.append(LogLine("log", number, raw))
    return found


def longest_fit_ms() -> float:
    """CPU time of the longest of 200 fits from nothing, d = 32 and n = 1,000."""
    longest = 0.0
    starts, nothing = np.array([0, 1000]), np.zeros((1, 32))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        Z = (rng.choice([-1, 1], (1000, 32)) * 10 ** rng.uniform(-6, 6, (1000, 32))).astype("<f4")
        y = (rng.random(1000) < 0.4).astype(float)
        o = rng.choice([-1000.0, 1000.0], 1000)
        best = np.inf
        for _ in range(3):
            began = time.process_time()
            newton.fit_all(
                *(starts, Z, y, np.ones(1000), o, 3.0, nothing, nothing, np.zeros((1, 32))),
                newton.TOLERANCE,
            )
            best = min(best, time.process_time() - began)
        longest = max(longest, 1e3 * best)
    return longest


def main() -> None:
    """Print CPU seconds of each, their ratios, and the longest fit."""
    newton.warm_up()
    settings = SimulationSettings(seed=7, members=600, jobs=150, days=60)
    lines = [line.rstrip() for line in simulate(settings)]
    logs = {name: with_wild(lines, size) for name, size in SIZES.items()}
    seconds = dict.fromkeys(SIZES, np.inf)
    refused = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Policy(), settings.start_ms + 40 * DAY_MS, None)
        trainer.read(logs["none"], lambda _: None)
        trainer.fit(Path(folder) / "model")
        model = load_model(Path(folder) / "model")
        for turn in range(ROUNDS):
            for name, log in logs.items():
                read, space = first_look(log, model)
                began = time.process_time()
                with RunFolder(Path(folder) / f"{name}-{turn}") as run:
                    metrics = replay(read, run, Policy(), model, space, Options(close=True))
                seconds[name] = min(seconds[name], time.process_time() - began)
                refused[name] = metrics.dead_letters.get("invalid_features", 0)
    for name, spent in seconds.items():
        rate = seconds["none"] / spent
        print(f"{name:8} {spent:6.2f} s, rate {rate:.3f}, {refused[name]} dead letters")
    keys = {
        f"rate_with_{name}": round(seconds["none"] / spent, 3) for name, spent in seconds.items()
    }
    keys["longest_fit_ms"] = round(longest_fit_ms(), 2)
    print(msgspec.json.encode(keys).decode())


if __name__ == "__main__":
    main()
