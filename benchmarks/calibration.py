"""How often 95 % intervals hold the truth; what folding costs a hot job; what a draw gets wrong.

**Alone**: entities whose coefficients are drawn from N(0, I/λ), 6 features (a constant, five
correlated ones), 5, 20, 60 or 200 final labels each; the other effect's true score is in the
offset; half-life off. The configured λ is the true one unless told otherwise. **Market**: the
simulator's, λ = 3, both effects learned from the stream, with its wrong labels corrected later.
**Hot job**: applications within three days, a fifth of which turn positive, against the exact mode
over the last labels; in posterior standard deviations. Aging: through all steps of the weight; the
larger error of two moments, after the last step and when all windows are closed. Hard: all inferred
negative with weight 1 first, then the positives. **Draws**: the standard deviation of a score drawn
from a message (independent coefficients) over that drawn from the whole state. The last line is one
JSON object. Two minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.defaults import simulated
from producers.simulate import SimulationSettings, draw_truth, job_id, member_id
from stream.backtest.rehearsal import rehearse
from stream.effects import JOB
from stream.events.structs import Coefficients, Label
from stream.policy import EffectSettings, Policy
from stream.serving.belief import Belief
from stream.updaters.effect import Effect
from stream.updaters.kept import Posterior
from tests.updaters.test_folding import AFTER_STEPS_H, aging_hot_job, hot_errors, hot_job

D = 6
SIZES = (5, 20, 60, 200)
ENTITIES = 1200
"""For each λ: 7,200 intervals."""

_WIDTH = 1.959964  # standard errors on either side of a 95 % interval
_Floats = NDArray[np.float64]


class Learned(NamedTuple):
    """An entity: its true coefficients (d,), what was learned, its state and features (n, d)."""

    truth: _Floats
    coefficients: Coefficients
    posterior: Posterior
    Z: _Floats


def main() -> None:
    """Measure and print all of it."""
    result: dict[str, float] = {}

    def say(name: str, value: float, count: int | None = None) -> None:
        result[name] = round(value, 4)
        print(f"{name:58}{value:8.4f}" + ("" if count is None else f"{count:12,}"))

    print(f"{'coverage of 95 % intervals':58}{'share':>8}{'intervals':>12}")
    for truth in (1.0, 3.0, 10.0):
        say(f"alone, λ = {truth:g}", *pooled(alone(truth, EffectSettings(**_settings(truth)))))
    others: tuple[tuple[str, dict[str, Any]], ...] = (
        ("capacity 16 (most are folded)", {"capacity": 16}),
        ("diagonal", {"full_up_to": 0}),
        ("diagonal, capacity 16", {"full_up_to": 0, "capacity": 16}),
        ("configured λ = 1", {"prior_precision": 1.0}),
        ("configured λ = 10", {"prior_precision": 10.0}),
    )
    for name, differs in others:
        settings = EffectSettings(**_settings(3.0) | differs)
        say(f"alone, λ = 3, {name}", *pooled(alone(3.0, settings)))
    say("alone, λ = 1, configured λ = 3", *pooled(alone(1.0, EffectSettings(**_settings(3.0)))))
    say("alone, λ = 10, configured λ = 3", *pooled(alone(10.0, EffectSettings(**_settings(3.0)))))
    markets: tuple[tuple[str, dict[str, Any]], ...] = (
        ("coupled, half-life off", {"half_life_ms": None}),
        ("coupled, defaults", {}),
        ("uncoupled, half-life off", {"half_life_ms": None, "coupled": False}),
    )
    for name, differs in markets:
        for effect, share, count in market(EffectSettings(**differs)):
            say(f"market, {name}, {effect}", share, count)
    print("\nhot job: largest error of a coefficient, in standard deviations")
    for n in (1000, 2000, 5000):
        aging = aging_hot_job(n)
        whole = [item for _, item in aging]
        stepped = [item for hour, item in aging if hour < AFTER_STEPS_H]
        for name, moments in (("aging", (stepped, whole)), ("hard", (hot_job(n),))):
            for sort, full_up_to in (("full", 4), ("diagonal", 3)):
                errors = [hot_errors(labels, 4, full_up_to=full_up_to) for labels in moments]
                in_sd, in_log_odds = max(errors)
                say(f"{name}, {n} applications, {sort}", in_sd)
                say(f"{name}, {n} applications, {sort}, in log-odds", in_log_odds)
    print("\nstandard deviation of a score: drawn from a message over drawn from the state")
    for n in SIZES:
        ratios = list(draw_ratios(n))
        say(f"{n} labels, median", float(np.median(ratios)))
        for percent in (5, 95):
            say(f"{n} labels, {percent}th percentile", float(np.percentile(ratios, percent)))
    print(msgspec.json.encode(result).decode())


def alone(
    true_precision: float, settings: EffectSettings, entities: int = ENTITIES
) -> Iterator[Learned]:
    """Entities learned one by one, everything else known."""
    rng = np.random.default_rng(int(true_precision * 10))
    for number in range(entities):
        n = SIZES[number % len(SIZES)]
        truth = rng.standard_normal(D) / np.sqrt(true_precision)
        Z = 0.7 * rng.standard_normal((n, 1)) + 0.7 * rng.standard_normal((n, D))
        Z[:, 0] = 1.0
        Z = Z.astype("<f4").astype(np.float64)
        global_score, other = rng.normal(-0.5, 0.8, n), rng.normal(0.0, 0.6, n)
        chance = 1.0 / (1.0 + np.exp(-(global_score + other + Z @ truth)))
        y = rng.random(n) < chance
        book = _Book()
        effect = Effect(JOB, D, settings=settings, model_version="calibration", book=book)
        for at in range(n):
            effect.learn(_label(at, bool(y[at]), Z[at], float(global_score[at]), float(other[at])))
        effect.flush()
        coefficients, posterior = effect.coefficients("j"), book.load("j")
        assert coefficients is not None
        assert posterior is not None
        yield Learned(truth, coefficients, posterior, Z)


def pooled(entities: Iterator[Learned]) -> tuple[float, int]:
    """Share of the intervals that hold the truth, and their number."""
    inside = [covered(one.truth, one.coefficients) for one in entities]
    return float(np.mean(inside)), int(np.size(inside))


def covered(truth: _Floats, known: Coefficients) -> NDArray[np.bool_]:
    """Which of an entity's 95 % intervals hold the true coefficient, (d,)."""
    error, allowed = np.abs(truth - known.mean), _WIDTH * np.sqrt(known.variance)
    return np.asarray(error <= allowed, dtype=np.bool_)


def market(settings: EffectSettings) -> Iterator[tuple[str, float, int]]:
    """Learn a simulated market; give effect, coverage and number of intervals."""
    simulation = SimulationSettings(members=1500, jobs=300, days=40, global_score=True, seed=2)
    truth = draw_truth(simulation)
    rehearsed = rehearse(
        simulated(simulation), Policy(effects={"per_member": settings, "per_job": settings})
    )
    for name, true, id_of in (
        ("per_member", truth.per_member, member_id),
        ("per_job", truth.per_job, job_id),
    ):
        effect = rehearsed.effects["per_member" if name == "per_member" else "per_job"]
        known = ((row, effect.coefficients(id_of(number))) for number, row in enumerate(true))
        inside = [covered(row, found) for row, found in known if found is not None]
        yield name, float(np.mean(inside)), int(np.size(inside))


def draw_ratios(n: int) -> Iterator[float]:
    """For each score: its standard deviation under a message's belief over the state's."""
    settings = EffectSettings(**_settings(3.0))
    for one in alone(3.0, settings, 200):
        if len(one.Z) == n:
            variance = np.array(one.coefficients.variance)
            root = Belief.of_state(one.posterior, settings).root
            for z in one.Z[:5]:
                yield float(np.sqrt((z**2 @ variance) / np.sum((z @ root) ** 2)))


class _Book:
    def __init__(self) -> None:
        self._posteriors: dict[str, Posterior] = {}

    def load(self, entity_id: str) -> Posterior | None:
        return self._posteriors.get(entity_id)

    def save(self, entity_id: str, posterior: Posterior) -> None:
        self._posteriors[entity_id] = posterior

    def remove(self, entity_id: str) -> None:
        self._posteriors.pop(entity_id, None)


def _settings(precision: float) -> dict[str, Any]:
    return {"prior_precision": precision, "half_life_ms": None}


def _label(number: int, positive: bool, z: _Floats, global_score: float, other: float) -> Label:
    """Final label of an application to job j."""
    return Label(
        application_id=f"a{number:04}",
        member_id="m",
        job_id="j",
        label=int(positive),
        kind="positive" if positive else "negative_conclusive",
        previous=None,
        rule=None,
        final=True,
        weight=1.0,
        application_time_ms=number * 3_600_000,
        evidence_time_ms=None,
        label_time_ms=0,
        model_version="calibration",
        per_member=b"",
        per_job=z.astype("<f4").tobytes(),
        global_score=global_score,
        member_score=other,
        job_score=0.0,
        channel=None,
        terms=None,
    )


if __name__ == "__main__":
    main()
