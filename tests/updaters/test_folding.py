"""Folding, overflow and their corrections: the derivation of ``folding.py``, checked."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from stream.effects import JOB
from stream.events.structs import Coefficients, Label
from stream.labels.delays import steps_of
from stream.policy import DAY_MS, EffectSettings, LabelPolicy
from stream.updaters import folding
from stream.updaters.effect import Effect
from stream.updaters.kept import Posterior
from tests.updaters.test_effect import DictBook

Array = NDArray[np.float64]
HALF_LIFE_DAYS = 30.0


def label(
    number: int,
    z: Array,
    kind: str,
    *,
    final: bool = False,
    previous: str | None = None,
    hour: float | None = None,
    score: float = 0.0,
    weight: float = 1.0,
    previous_weight: float | None = None,
) -> Label:
    """Label of application ``number`` with features z; one an hour unless told otherwise."""
    return Label(
        application_id=f"a{number:05}",
        member_id="m",
        job_id="j",
        label=int(kind == "positive"),
        kind=kind,
        previous=previous,
        rule=None,
        final=final or kind in {"positive", "negative_conclusive"},
        weight=weight,
        previous_weight=previous_weight,
        application_time_ms=int((number if hour is None else hour) * 3_600_000),
        evidence_time_ms=None,
        label_time_ms=0,
        model_version="v",
        per_member=b"",
        per_job=z.astype("<f4").tobytes(),
        global_score=score,
        member_score=0.0,
        job_score=0.0,
        channel=None,
        terms=None,
    )


def learn(
    labels: Sequence[Label], d: int, cuts: set[int] | None = None, **settings: Any
) -> Posterior:
    """Learn labels of job j, flushing after the numbers in ``cuts``."""
    book = DictBook()
    effect = Effect(
        JOB, d, settings=EffectSettings(**settings), model_version="v", book=book, tolerance=1e-14
    )
    for count, item in enumerate(labels):
        effect.learn(item)
        if cuts is None or count in cuts:
            effect.flush()
    effect.flush()
    posterior = book.load("j")
    assert posterior is not None
    return posterior


def rows(seed: int, n: int, d: int) -> Array:
    """Positively correlated features, the first a constant 1."""
    rng = np.random.default_rng(seed)
    Z = 0.7 * rng.normal(size=(n, 1)) + 0.7 * rng.normal(size=(n, d))
    Z[:, 0] = 1.0
    return Z.astype(np.float32).astype(np.float64)


class Reference:
    """Spec's updater written down a second time, plainly: lists, NumPy, a Newton of its own."""

    def __init__(
        self, d: int, *, capacity: int, open_limit: int, full: bool, prior: Sequence[float] = ()
    ) -> None:
        self.prior = np.diag(prior or np.full(d, 3.0))
        self.F, self.f, self.T = np.zeros((d, d)), np.zeros(d), 0.0
        self.theta = np.zeros(d)
        self.kept: dict[str, Label] = {}
        self._limits = {True: capacity, False: open_limit}
        self._full = full

    def weight(self, item: Label) -> float:
        """Aged weight of an example."""
        age_ms = self.T - item.application_time_ms
        return float(item.weight * 2 ** (-age_ms / (HALF_LIFE_DAYS * DAY_MS)))

    def columns(self, items: Sequence[Label]) -> tuple[Array, Array, Array, Array]:
        """Z, y, w, o."""
        Z = np.array([np.frombuffer(item.per_job, "<f4").astype(float) for item in items])
        y = np.array([float(item.label) for item in items])
        w = np.array([self.weight(item) for item in items])
        o = np.array([item.global_score for item in items])
        return Z.reshape(len(items), len(self.f)), y, w, o

    def hessian(self) -> Array:
        """Of the whole objective at the mode."""
        return self._hessian(*self.columns(list(self.kept.values())))

    def _hessian(self, Z: Array, _y: Array, w: Array, o: Array) -> Array:
        p = expit(o + Z @ self.theta)
        return np.asarray((Z * (w * p * (1 - p))[:, None]).T @ Z + self.F + self.prior)

    def refit(self) -> None:
        """Newton with full steps (the problems here are tame)."""
        Z, y, w, o = columns = self.columns(list(self.kept.values()))
        for _ in range(60):
            p = expit(o + Z @ self.theta)
            g = Z.T @ (w * (p - y)) + self.F @ self.theta - self.f + self.prior @ self.theta
            self.theta = self.theta - np.linalg.solve(self._hessian(*columns), g)

    def learn(self, item: Label) -> None:
        """Take one label in, by the order of the spec."""
        T = max(self.T, item.application_time_ms)
        factor = 2 ** (-(T - self.T) / (HALF_LIFE_DAYS * DAY_MS))
        self.F, self.f, self.T = self.F * factor, self.f * factor, T
        known = item.application_id in self.kept
        if item.previous is not None and not known:
            assert item.previous_weight is not None
            before = int(item.previous == "positive")
            added = self.weight(item) * (1 - item.previous_weight / item.weight)
            if added:
                self.refit()
                self._add(msgspec.structs.replace(item, label=before), added, False)
            z = np.frombuffer(item.per_job, "<f4").astype(float)
            self.f = self.f + self.weight(item) * (item.label - before) * z
        else:
            self.kept[item.application_id] = item
        for final in (True, False):
            same = sorted(
                (other for other in self.kept.values() if other.final is final),
                key=lambda other: (other.application_time_ms, other.application_id),
            )
            if len(same) >= self._limits[final] + 32:
                self.refit()
                self._fold(same[:32], final)

    def _fold(self, items: list[Label], final: bool) -> None:
        for item in items:
            self._add(item, self.weight(item), final)
            del self.kept[item.application_id]

    def _add(self, item: Label, w: float, final: bool) -> None:
        Z, y, _, o = (column[0] for column in self.columns([item]))
        m = o + Z @ self.theta
        p = expit(m)
        c = p * (1 - p)
        if not final and abs(m - o) >= 1e-6:
            c = max(c, (p - expit(o)) / (m - o))
        added = c * np.outer(Z, Z)
        if not self._full:
            added = np.diag(c * Z**2 if final else c * np.abs(Z) * np.abs(Z).sum())
        self.F = self.F + w * added
        self.f = self.f + w * ((y - p) * Z + added @ self.theta)


def stream_of_labels(seed: int, n: int, d: int) -> list[Label]:
    """Labels of n applications in which wrong ones come first and are corrected later.

    Some of the wrong ones age: their weight climbs.
    """
    random, Z = Random(seed), rows(seed, n, d)
    queue: list[tuple[float, Label]] = []
    for number in range(n):
        kind = random.choice(["positive", "negative_conclusive", "negative_explicit"])
        score = random.gauss(-1, 1)
        first_at = number + random.random() * 20
        later_at = first_at + random.random() * 300
        common: dict[str, Any] = {"hour": float(number), "score": score}
        if random.random() < 0.6:
            for weight in random.choice([[1.0], [0.4], [0.4, 0.7], [0.3, 0.8, 1.0]]):
                common["weight"] = weight
                inferred = label(number, Z[number], "negative_inferred", **common)
                queue.append((first_at, inferred))
                first_at += (later_at - first_at) * random.random()
                common |= {"previous": "negative_inferred", "previous_weight": weight}
            common["weight"] = 1.0
        queue.append((later_at, label(number, Z[number], kind, **common)))
    return [item for _, item in sorted(queue, key=lambda pair: pair[0])]


def scaled(item: Label, factor: float) -> Label:
    """Return a label with other weights."""
    before = item.previous_weight
    return msgspec.structs.replace(
        item,
        weight=item.weight * factor,
        previous_weight=None if before is None else before * factor,
    )


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(("capacity", "open_limit"), [(1, 1), (40, 30), (5, 1000), (1000, 5)])
@pytest.mark.parametrize("prior", [(), (0.5, 8.0, 3.0, 30.0)])
def test_folds_follow_the_formulas(
    full: bool, capacity: int, open_limit: int, prior: tuple[float, ...]
) -> None:
    """F, f, mode and kept examples equal those of a plain second implementation; weights vary.

    With one λ, and with one for each feature.
    """
    labels = [
        scaled(item, 0.2 + sum(item.application_id.encode()) % 15 / 5)
        for item in stream_of_labels(3, 300, 4)
    ]
    wanted = Reference(4, capacity=capacity, open_limit=open_limit, full=full, prior=prior)
    for item in labels:
        wanted.learn(item)
    wanted.refit()
    settings: dict[str, Any] = {"capacity": capacity, "open_limit": open_limit}
    settings["full_up_to"] = 4 if full else 3
    if prior:
        settings["prior_precision"] = dict(zip("abcd", prior, strict=True))
    found = learn(labels, 4, set(), **settings)
    assert [e.id for e in found.kept] == sorted(wanted.kept)
    assert found.examples == 300
    sd = np.sqrt(np.diag(np.linalg.inv(wanted.hessian())))
    assert np.max(np.abs(np.frombuffer(found.mode) - wanted.theta) / sd) < 1e-6
    F = np.frombuffer(found.precision)
    assert np.allclose(F.reshape(4, 4) if full else np.diag(F), wanted.F, rtol=1e-6, atol=1e-9)
    assert np.allclose(np.frombuffer(found.linear), wanted.f, rtol=1e-6, atol=1e-8)


@given(st.integers(0, 1000), st.sets(st.integers(0, 250)), st.booleans())
def test_cuts_change_nothing(seed: int, cuts: set[int], full: bool) -> None:
    """However the sequence is cut into batches, state and variances are the same."""
    labels = stream_of_labels(seed, 120, 3)
    settings = {"capacity": 20, "open_limit": 10, "full_up_to": 3 if full else 2}
    one, other = learn(labels, 3, cuts, **settings), learn(labels, 3, None, **settings)
    assert one.kept == other.kept
    variance = np.array(described(one, **settings).variance)
    away = np.abs(np.frombuffer(one.mode) - np.frombuffer(other.mode)) / np.sqrt(variance)
    assert np.max(away) < 1e-6
    assert np.allclose(described(other, **settings).variance, variance, rtol=1e-6)
    for name in ("precision", "linear"):
        first, second = (np.frombuffer(getattr(p, name)) for p in (one, other))
        assert np.allclose(first, second, rtol=1e-6, atol=1e-9)


@st.composite
def corrected(draw: st.DrawFn) -> tuple[list[Label], list[Label], int]:
    """Return final labels with wrong ones and repeats between them, the final ones, a capacity.

    No fold lies between a wrong label and its correction, nor between a label and its repeat.
    """
    capacity, n = draw(st.integers(1, 6)), draw(st.integers(33, 90))
    Z = rows(draw(st.integers(0, 99)), n, 3)
    random = Random(draw(st.integers(0, 9999)))
    kinds = [random.choice(["positive", "negative_conclusive"]) for _ in range(n)]
    hours = [random.uniform(0, 500) for _ in range(n)]
    # The label with number capacity + 31 brings on the first fold, then each 32nd.
    eras = [max(number - capacity, 0) // 32 for number in range(n)]
    before: list[list[Label]] = [[] for _ in range(n + 1)]
    last = []
    for number in range(n):
        common: dict[str, Any] = {"hour": hours[number], "score": 0.1 * (number % 7)}
        wrong = label(number, Z[number], "negative_inferred", **common)
        final = label(number, Z[number], kinds[number], **common)
        at = max(number - random.randrange(8), 0)
        if random.random() < 0.5 and eras[at] == eras[number]:
            before[at].append(wrong)
            final = label(number, Z[number], kinds[number], previous=wrong.kind, **common)
            again = min(number + random.randrange(1, 8), n - 1)
            if eras[again] == eras[number] and again > number:
                before[again].append(random.choice([wrong, final]))
        last.append(final)
    plain = [label(k, Z[k], kinds[k], hour=hours[k], score=0.1 * (k % 7)) for k in range(n)]
    mixed = [item for number in range(n) for item in [*before[number], last[number]]]
    return mixed, plain, capacity


@given(corrected(), st.sets(st.integers(0, 150)), st.booleans())
def test_corrections_are_exact_between_folds(
    labels: tuple[list[Label], list[Label], int], cuts: set[int], full: bool
) -> None:
    """With folds too the state is that without the wrong labels and repeats, full and diagonal."""
    mixed, plain, capacity = labels
    settings = {"capacity": capacity, "open_limit": 100, "full_up_to": 3 if full else 2}
    found, wanted = learn(mixed, 3, cuts, **settings), learn(plain, 3, set(), **settings)
    assert [item.id for item in found.kept] == [item.id for item in wanted.kept]
    assert (found.examples, found.time_ms) == (wanted.examples, wanted.time_ms)
    variance = np.array(described(wanted, **settings).variance)
    away = np.abs(np.frombuffer(found.mode) - np.frombuffer(wanted.mode)) / np.sqrt(variance)
    assert np.max(away) < 1e-6
    assert np.allclose(described(found, **settings).variance, variance, rtol=1e-6)
    for name in ("precision", "linear"):
        first, second = (np.frombuffer(getattr(p, name)) for p in (found, wanted))
        assert np.allclose(first, second, rtol=1e-6, atol=1e-9)


def described(posterior: Posterior, **settings: Any) -> Coefficients:
    """Coefficients of a posterior of three features."""
    return Effect(
        JOB, 3, settings=EffectSettings(**settings), model_version="v", book=DictBook()
    ).describe({"j": posterior})["j"]


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("final", [True, False])
def test_a_fold_keeps_the_mode(ndim: int, final: bool) -> None:
    """The folded part has the slope of the loss that it replaces, at the mode."""
    Z = rows(5, 40, 4)
    rng = np.random.default_rng(5)
    y, w, o = (rng.random(40) < 0.3).astype(float), rng.uniform(0.5, 2, 40), rng.normal(size=40)
    theta = rng.normal(size=4)
    F, f = np.zeros((4,) * ndim), np.zeros(4)
    folding.fold(F, f, Z, y, w, o, theta, final=final)
    full = F if ndim == 2 else np.diag(F)
    slope_of_loss = Z.T @ (w * (expit(o + Z @ theta) - y))
    assert np.allclose(full @ theta - f, slope_of_loss, atol=1e-9)


def test_the_diagonal_of_open_examples_dominates() -> None:
    """The overflow's diagonal is at least the full matrix, along every direction."""
    Z, zero = rows(6, 30, 5), np.zeros(30)
    full, diagonal = np.zeros((5, 5)), np.zeros(5)
    theta = np.full(5, 0.3)
    for F in (full, diagonal):
        folding.fold(F, np.zeros(5), Z, zero, zero + 1, zero, theta, final=False)
    assert np.linalg.eigvalsh(np.diag(diagonal) - full).min() > -1e-9


def test_a_correction_after_overflow_is_linear() -> None:
    """A label that flips after its example overflowed moves f by w·Δy·z, and nothing else."""
    Z = rows(7, 60, 3)
    labels = [label(n, Z[n], "negative_inferred") for n in range(60)]
    settings = {"open_limit": 20, "half_life_ms": None}
    before = learn(labels, 3, set(), **settings)
    flip = label(2, Z[2], "positive", previous="negative_inferred")
    after = learn([*labels, flip], 3, set(), **settings)
    assert before.precision == after.precision
    moved = np.frombuffer(after.linear) - np.frombuffer(before.linear)
    assert np.allclose(moved, Z[2], atol=1e-12)
    assert (after.examples, after.kept) == (60, before.kept)


def test_a_final_label_of_an_overflowed_negative_changes_nothing() -> None:
    """Conclusive after inferred: y stays 0, so nothing moves and nothing is counted twice."""
    Z = rows(8, 60, 3)
    labels = [label(n, Z[n], "negative_inferred") for n in range(60)]
    end = label(2, Z[2], "negative_conclusive", previous="negative_inferred")
    assert learn([*labels, end], 3, set(), open_limit=20) == learn(labels, 3, set(), open_limit=20)


def exact(labels: Sequence[Label], d: int) -> tuple[Array, Array]:
    """MAP over the last labels with nothing folded, and its standard deviations."""
    last = {item.application_id: item for item in labels}
    whole = Reference(d, capacity=10**9, open_limit=10**9, full=True)
    whole.T = max(item.application_time_ms for item in last.values())
    whole.kept = last
    whole.refit()
    return whole.theta, np.sqrt(np.diag(np.linalg.inv(whole.hessian())))


def hot_job(n: int, seed: int = 0) -> list[Label]:
    """Return n applications in three days, all inferred negatives first; a fifth turns positive."""
    rng, Z = np.random.default_rng(seed), rows(seed, n, 4)
    chance = expit(-1.6 + Z[:, 1:] @ np.array([0.5, -0.3, 0.2]))
    positive = rng.random(n) < chance * 0.2 / chance.mean()
    hours = np.sort(rng.random(n) * 72)
    first = [label(k, Z[k], "negative_inferred", hour=hours[k], score=-1.0) for k in range(n)]
    later = [
        label(k, Z[k], "positive", previous="negative_inferred", hour=hours[k], score=-1.0)
        for k in rng.permutation(np.flatnonzero(positive))
    ]
    return first + later


AFTER_STEPS_H = 72.0 + 6 * 24
"""When every application of a hot job has passed all steps, and no window has closed."""


def aging_hot_job(n: int, seed: int = 0) -> list[tuple[float, Label]]:
    """Return hours and labels of n applications in three days, from the first step to the end.

    They pass all default steps of the weight unless they are answered before, as a fifth is, after
    delays of the default curve (inverted from 1 − e^(−a/2.5d), cut at the window).
    """
    rng, Z = np.random.default_rng(seed), rows(seed, n, 4)
    chance = expit(-1.6 + Z[:, 1:] @ np.array([0.5, -0.3, 0.2]))
    positive = rng.random(n) < chance * 0.2 / chance.mean()
    hours, window_h, mean_h = np.sort(rng.random(n) * 72), 14 * 24.0, 60.0
    delays = -mean_h * np.log1p(-rng.random(n) * -np.expm1(-window_h / mean_h))
    labels: list[tuple[float, Label]] = []
    for k in range(n):
        common: dict[str, Any] = {"hour": float(hours[k]), "score": -1.0}
        end = float(delays[k]) if positive[k] else window_h
        for step in steps_of(LabelPolicy()):
            at = step.age_ms / 3_600_000
            if at < end:
                aged = label(k, Z[k], "negative_inferred", weight=step.weight, **common)
                labels.append((hours[k] + at, aged))
                common |= {"previous": aged.kind, "previous_weight": step.weight}
        kind = "positive" if positive[k] else "negative_conclusive"
        labels.append((hours[k] + end, label(k, Z[k], kind, **common)))
    return sorted(labels, key=lambda item: item[0])


def hot_errors(labels: Sequence[Label], d: int, **settings: Any) -> tuple[float, float]:
    """Largest distance of a coefficient to the exact mode: in standard deviations, in log-odds."""
    wanted, sd = exact(labels, d)
    error = np.abs(np.frombuffer(learn(labels, d, set(), **settings).mode) - wanted)
    return float(np.max(error / sd)), float(np.max(error))


@pytest.mark.parametrize(("n", "full_up_to"), [(1000, 4), (1000, 3), (2000, 4)])
def test_a_hot_job_whose_labels_age_stays_near_the_exact_map(n: int, full_up_to: int) -> None:
    """Within 1.5 sd after all steps and at the end: up to ``open_limit``, and twice it if full."""
    labels = aging_hot_job(n)
    before = [item for hour, item in labels if hour < AFTER_STEPS_H]
    assert len(before) > 2.5 * n
    for known in (before, [item for _, item in labels]):
        assert hot_errors(known, 4, full_up_to=full_up_to)[0] < 1.5


def test_a_hot_job_ends_near_the_exact_map() -> None:
    """1,000 applications in three days, a fifth of the inferred negatives turn: within 1.5 sd."""
    assert hot_errors(hot_job(1000), 4)[0] < 1.5


def test_the_laplace_error_is_small() -> None:
    """2,000 final examples of which all but the last 128 are folded: within 0.3 sd of the MAP."""
    Z = rows(9, 2000, 4)
    rng = np.random.default_rng(9)
    labels = [
        label(k, Z[k], "positive" if rng.random() < 0.25 else "negative_conclusive", hour=k / 10)
        for k in range(2000)
    ]
    wanted, sd = exact(labels, 4)
    found = np.frombuffer(learn(labels, 4, set()).mode)
    assert np.max(np.abs(found - wanted) / sd) < 0.3
