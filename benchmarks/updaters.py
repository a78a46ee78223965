"""The kernel against lambda-learner and river, and how its cost grows.

lambda-learner 0.1.0 and river train in an environment of their own (``baselines.py``). All of it
runs on one core, in turns: each round times hearback, lambda-learner and river on the same
entities. Other work on a shared machine only ever slows one down, so of each the fastest of
``ROUNDS`` counts, in pieces of the same length: a millisecond or less, one entity for the
baselines, all of them for hearback.

An *update* of an entity: 10 new examples arrive on top of 160 that are folded; in: the folded part
and the old mode; out: the MAP to hearback's tolerance and the posterior precision. For
lambda-learner that is its training alone, whose prior mode and precision are the same; for river
(fixed steps, no posterior) ten calls of ``learn_one``. The modes must agree to 1e-3 posterior
standard deviations.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import baselines_python
from stream.effects import JOB
from stream.events.structs import Label
from stream.policy import EffectSettings
from stream.state import codec
from stream.updaters import newton
from stream.updaters.dense import add_gram, compiled
from stream.updaters.effect import Effect
from stream.updaters.folding import fold
from stream.updaters.kept import Posterior
from stream.updaters.objective import curvatures, prior

Array = NDArray[np.float64]

PRECISION = 3.0  # λ, the default
FOLDED = 160
ENTITIES = 200
ROUNDS = 15
SIZES = [(8, 5), (16, 10), (32, 10), (64, 20)]
DECIDING = (32, 10)


class Problem(NamedTuple):
    """Entities with something folded, and n new examples each; shapes as in ``newton.fit_all``."""

    starts: NDArray[np.int64]
    Z: NDArray[np.float32]
    y: Array
    w: Array
    o: Array
    F: Array
    f: Array
    theta: Array


def problem(d: int, n: int, *, full: bool, entities: int = ENTITIES, seed: int = 0) -> Problem:
    """Draw entities from the prior, fold ``FOLDED`` examples into each, and draw n new ones."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(entities):
        truth = rng.normal(size=d) / np.sqrt(PRECISION)
        Z = rng.normal(size=(FOLDED + n, d)).astype(np.float32)
        o = rng.normal(size=FOLDED + n)
        chance = 1.0 / (1.0 + np.exp(-o - Z @ truth))
        y = (rng.random(FOLDED + n) < chance).astype(np.float64)
        F, f, theta = np.zeros((1, d, d) if full else (1, d)), np.zeros((1, d)), np.zeros((1, d))
        old, one, starts = slice(FOLDED), np.ones(FOLDED), np.array([0, FOLDED])
        newton.fit_all(
            starts, Z[old], y[old], one, o[old], PRECISION, F, f, theta, newton.TOLERANCE
        )
        fold(F[0], f[0], Z[old].astype(np.float64), y[old], one, o[old], theta[0], final=True)
        drawn.append((Z[FOLDED:], y[FOLDED:], o[FOLDED:], F[0], f[0], theta[0]))
    Z, y, o = (np.concatenate([each[k] for each in drawn]) for k in range(3))
    F, f, theta = (np.stack([each[k] for each in drawn]) for k in range(3, 6))
    return Problem(np.arange(entities + 1) * n, Z, y, np.ones(len(y)), o, F, f, theta)


@compiled
def precisions(
    starts: NDArray[np.int64], Z: NDArray[np.float32], w: Array, o: Array, F: Array, theta: Array
) -> Array:
    """λI + F + Z'WZ of all entities, or its diagonals: of the shape of ``F``."""
    result = np.empty(F.shape)
    for e in range(starts.shape[0] - 1):
        a, b = starts[e], starts[e + 1]
        curvature = curvatures(Z[a:b], w[a:b], o[a:b], theta[e])
        if F.ndim == 2:
            for j in range(F.shape[1]):
                result[e, j] = PRECISION + F[e, j]
                for i in range(b - a):
                    result[e, j] += curvature[i] * Z[a + i, j] * Z[a + i, j]
        else:
            prior(PRECISION, F[e], result[e])
            add_gram(result[e], Z[a:b].astype(np.float64), curvature)
            for j in range(F.shape[1]):
                for k in range(j):
                    result[e, k, j] = result[e, j, k]
    return result


def update(of: Problem, *, with_variances: bool = False) -> tuple[Array, Array]:
    """Update every entity once; modes and posterior precisions."""
    starts, Z, y, w, o, F, f, old = of
    theta = old.copy()
    newton.fit_all(starts, Z, y, w, o, PRECISION, F, f, theta, newton.TOLERANCE)
    found = precisions(starts, Z, w, o, F, theta)
    if with_variances:
        newton.variances_all(starts, Z, w, o, PRECISION, F, theta)
    return theta, found


def seconds_of(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


class Baselines:
    """The process that trains lambda-learner and river."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [str(baselines_python()), str(Path(__file__).with_name("baseline_updates.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def train(self, method: str, name: str, of: Problem) -> dict[str, Any]:
        """Train all entities of a problem with a method; what ``baseline_updates.py`` answers."""
        file = self._folder / f"{name}.npz"
        if not file.exists():
            entities, d = of.theta.shape
            prior = PRECISION * (np.eye(d) if of.F.ndim == 3 else np.ones(d)) + of.F
            np.savez(
                file,
                Z=of.Z.reshape(entities, -1, d),
                y=of.y.reshape(entities, -1),
                o=of.o.reshape(entities, -1),
                theta=of.theta,
                hessian=prior,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{method} {file}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{method} failed in {baselines_python()}: see above; remove that environment")
        found: dict[str, Any] = msgspec.json.decode(answer)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def same(name: str, of: Problem, trained: dict[str, Any]) -> float:
    """Check that both found the same posterior; largest distance of modes in its deviations."""
    theta, found = update(of)
    starts, Z, _, w, o, F, _, _ = of
    sd = np.sqrt(newton.variances_all(starts, Z, w, o, PRECISION, F, theta))
    distance = float(np.max(np.abs(theta - np.array(trained["modes"])) / sd))
    if not distance <= 1e-3:
        sys.exit(f"{name}: the modes differ by {distance:.1e} standard deviations")
    if not np.allclose(found, np.array(trained["precisions"]), rtol=1e-2, atol=1e-2):
        sys.exit(f"{name}: the posterior precisions differ")
    return distance


def against_baselines() -> dict[str, float]:
    """Print a row per size and mode; the deciding ratios."""
    print(
        f"{'d, n':8}{'folded part':12}{'hearback/s':>12}{'with var./s':>12}"
        f"{'lambda-l./s':>13}{'ratio':>8}{'river/s':>10}{'ratio':>8}{'modes, sd':>12}"
    )
    keys: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        baselines = Baselines(Path(folder))
        for d, n in SIZES:
            for mode in ("full", "diagonal"):
                name = f"{mode}-{d}-{n}"
                of = problem(d, n, full=mode == "full")
                distance = same(name, of, baselines.train("lambda_learner", name, of))
                update(of, with_variances=True)
                seconds = [one_round(of, name, baselines) for _ in range(ROUNDS)]
                ours, whole, theirs, river = np.min(seconds, axis=0).mean(axis=1).tolist()
                over_theirs, over_river = theirs / ours, river / ours
                print(
                    f"{f'{d}, {n}':8}{mode:12}{1 / ours:12,.0f}{1 / whole:12,.0f}"
                    f"{1 / theirs:13,.0f}{over_theirs:8.0f}{1 / river:10,.0f}{over_river:8.1f}"
                    f"{distance:12.0e}"
                )
                if (d, n) == DECIDING:
                    keys[f"{mode}_over_lambda_learner"] = round(over_theirs, 1)
                    if mode == "full":
                        keys["over_river"] = round(over_river, 2)
        baselines.close()
    return keys


def one_round(of: Problem, name: str, baselines: Baselines) -> list[list[float]]:
    """Seconds per update of each entity: hearback's, with variances, lambda-learner's, river's."""
    update(of)  # back into the processor's cache, where the baselines' own work is
    ours = seconds_of(lambda: update(of)) / ENTITIES
    whole = seconds_of(lambda: update(of, with_variances=True)) / ENTITIES
    theirs = [
        baselines.train(method, name, of)["seconds"] for method in ("lambda_learner", "river")
    ]
    return [[ours] * ENTITIES, [whole] * ENTITIES, *theirs]


def growth() -> None:
    """Print microseconds per update by n and d."""
    counts = (1, 5, 10, 20, 40, 80, 160)
    for mode in ("full", "diagonal"):
        print(f"\nmicroseconds per update, {mode} folded part; n across, d down")
        print(f"{'':6}" + "".join(f"{n:>9}" for n in counts))
        for d in (4, 8, 16, 32, 64, 128):
            row = []
            for n in counts:
                of = problem(d, n, full=mode == "full", entities=8)
                update(of)
                row.append(min(seconds_of(partial(update, of)) for _ in range(40)) / 8)
            print(f"{d:<6}" + "".join(f"{seconds * 1e6:9.1f}" for seconds in row))


class Book:
    """Posteriors as stored values, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def load(self, entity_id: str) -> Posterior | None:
        """Decode a posterior."""
        value = self.values.get(entity_id)
        return None if value is None else codec.decode_posterior(value)

    def save(self, entity_id: str, posterior: Posterior) -> None:
        """Encode a posterior."""
        self.values[entity_id] = codec.encode_posterior(posterior)

    def remove(self, entity_id: str) -> None:
        """Remove a posterior."""
        self.values.pop(entity_id, None)


def folded_entity() -> dict[str, float]:
    """Cost of a label, with load, refit and save, after 160 examples and after 10,000."""
    d = 32
    rng = np.random.default_rng(1)
    Z = rng.normal(size=(512, d)).astype("<f4")
    truth = rng.normal(size=d) / np.sqrt(PRECISION)
    result = {}
    for mode, full_up_to in (("full", d), ("diagonal", d - 1)):
        book = Book()
        effect = Effect(
            JOB, d, settings=EffectSettings(full_up_to=full_up_to), model_version="v", book=book
        )
        values: dict[int, bytes] = {}
        for number in range(10_000):
            if number == FOLDED:
                effect.flush()
                values[number] = book.values["j"]
            effect.learn(label(number, Z, truth, rng))
        effect.flush()
        values[10_000] = book.values["j"]
        costs = dict.fromkeys(values, np.inf)
        for _ in range(10):
            for number, value in values.items():
                # 32 labels: exactly one of them brings on a fold.
                more = [label(number + k, Z, truth, rng) for k in range(32)]
                book.values["j"] = value
                effect.discard()  # what is in memory has learned these labels in an earlier round
                start = time.perf_counter()
                for item in more:
                    effect.learn(item)
                    effect.flush()
                costs[number] = min(costs[number], (time.perf_counter() - start) / len(more))
        print(
            f"{mode:10} after {FOLDED} examples {costs[FOLDED] * 1e6:6.0f} µs a label,"
            f" after 10,000 {costs[10_000] * 1e6:6.0f} µs"
        )
        result[f"{mode}_folded_cost_ratio"] = round(costs[10_000] / costs[FOLDED], 2)
    return result


def label(number: int, Z: NDArray[np.float32], truth: Array, rng: np.random.Generator) -> Label:
    """Make the final label of one application of the job, a minute after the one before."""
    z = Z[number % len(Z)]
    positive = rng.random() < 1.0 / (1.0 + np.exp(1.0 - z @ truth))
    return Label(
        application_id=f"a{number:06}",
        member_id="m",
        job_id="j",
        label=int(positive),
        kind="positive" if positive else "negative_conclusive",
        previous=None,
        rule=None,
        final=True,
        weight=1.0,
        application_time_ms=number * 60_000,
        evidence_time_ms=None,
        label_time_ms=0,
        model_version="v",
        per_member=b"",
        per_job=z.tobytes(),
        global_score=-1.0,
        member_score=0.0,
        job_score=0.0,
        channel=None,
        terms=None,
    )


def main() -> None:
    """Print the three tables; last, the keys."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core, baselines included
    newton.warm_up()
    result = against_baselines()
    growth()
    print("\na label of an entity with 32 features: load, learn, refit, save")
    result |= folded_entity()
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
