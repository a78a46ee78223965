"""Fits of wild examples: whatever an application may bring ends soon, and never at nonsense."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.effects import MEMBER
from stream.policy import EffectSettings
from stream.updaters import newton
from stream.updaters.effect import MOST_WORK, Effect
from tests.updaters.kernels import (
    TOLERANCE,
    Array,
    folded,
    in_extended_precision,
    matrix,
    objective,
)
from tests.updaters.test_effect import DictBook, label

MOST_STEPS = 400
"""Of a fit; it was 500 steps, each with 60 halvings, before work was bounded."""

Wild = tuple[Any, Array, Array, Array]


def wild(seed: int, n: int, d: int, sizes: str) -> Wild:
    """Z, y, w, o with features up to 1e6 and offsets up to 1000, as an application may have."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, d))
    if sizes == "all":
        Z = rng.choice([-1.0, 1.0], (n, d)) * 10.0 ** rng.uniform(-6, 6, (n, d))
    elif sizes == "rows":
        Z *= 10.0 ** rng.uniform(-6, 6, (n, 1))
    elif sizes == "columns":
        Z *= 10.0 ** rng.uniform(-6, 6, d)
    elif sizes == "few":
        Z[rng.random((n, d)) < 0.005] = 9.9e5
    y = (rng.random(n) < 0.4) if seed % 2 else Z[:, 0] > 0
    o = [rng.normal(size=n), rng.choice([-1000.0, 1000.0], n), 1000 * rng.normal(size=n)][seed % 3]
    Z = np.clip(Z, -1e6, 1e6).astype(np.float32)
    return Z, y.astype(np.float64), 10.0 ** rng.uniform(-3, 0, n), o


def fit(examples: Wild, precision: float, natural: tuple[Array, Array], theta: Array) -> int:
    """Move ``theta`` (d,); steps, negative where the mode was not reached."""
    (Z, y, w, o), (F, f) = examples, natural
    starts, modes = np.array([0, len(y)]), theta[None]
    taken = newton.fit_all(starts, Z, y, w, o, precision, F[None], f[None], modes, TOLERANCE)
    theta[:] = modes[0]
    return int(taken[0])


@given(
    st.integers(0, 10_000),
    st.integers(1, 1000),
    st.integers(1, 32),
    st.sampled_from(["plain", "all", "rows", "columns", "few"]),
    st.sampled_from([1e-6, 0.1, 3.0, 1e6]),
    st.sampled_from(["nothing", "diagonal", "full"]),
    st.sampled_from([0.0, 1.0, -30.0]),
)
def test_any_accepted_input_ends_soon_and_no_worse_than_it_began(
    seed: int, n: int, d: int, sizes: str, precision: float, kind: str, start: float
) -> None:
    """Steps are bounded, the mode is finite, and J there is at most J at the start."""
    examples = wild(seed, n, d, sizes)
    F, f = folded(seed, d, kind)

    def value(theta: Array) -> float:
        own = 0.5 * theta @ matrix(F) @ theta - f @ theta
        return objective(theta, *examples, precision) + float(own)

    theta = np.full(d, start)
    before = value(theta)
    assert abs(fit(examples, precision, (F, f), theta)) <= MOST_STEPS
    assert np.isfinite(theta).all()
    assert value(theta) <= before + 1e-9 * (1 + abs(before))


@pytest.mark.skipif(
    bool(np.finfo(np.longdouble).eps > 1e-18),
    reason="this machine has no floats of 80 bits or more",
)
@pytest.mark.parametrize("sizes", ["all", "rows", "columns", "few"])
@pytest.mark.parametrize(("n", "d"), [(40, 8), (8, 8), (60, 3)])
def test_wild_examples_have_the_mode_of_extended_precision(sizes: str, n: int, d: int) -> None:
    """Where a fit says that it came to the mode it did, to 1e-3 standard deviations."""
    reached = 0
    for seed, precision in itertools.product(range(6), (0.1, 3.0)):
        Z, y, w, o = wild(seed, n, d, sizes)
        theta = np.zeros(d)
        if fit((Z, y, w, o), precision, (np.zeros(d), np.zeros(d)), theta) < 0:
            continue
        reached += 1
        A, f = precision * np.eye(d), np.zeros(d)
        wanted, exact = in_extended_precision(Z, y, w, o, A, f, theta)
        assert np.max(np.abs(theta - wanted) / np.sqrt(exact)) < 1e-3
    assert reached >= 10


@pytest.mark.parametrize(("sizes", "seed"), [("all", 4), ("few", 4), ("few", 3), ("rows", 6)])
def test_what_a_fit_did_not_reach_later_ones_do(sizes: str, seed: int) -> None:
    """Fits that end early go on where they ended: a few come to the mode, never uphill."""
    examples = wild(seed, 1000, 32, sizes)
    theta, nothing = np.zeros(32), (np.zeros(32), np.zeros(32))
    values = [objective(theta, *examples, 3.0)]
    taken = -1
    while taken < 0 and len(values) < 12:
        taken = fit(examples, 3.0, nothing, theta)
        values.append(objective(theta, *examples, 3.0))
    assert taken > 0
    assert len(values) > 2
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(values))


def test_fits_that_did_not_come_to_the_mode_are_counted() -> None:
    """The fitter counts them for the metric, and their cost asks for a pause."""
    Z, y, _, o = wild(4, 1000, 32, "few")
    subject = Effect(MEMBER, 32, settings=EffectSettings(), model_version="v", book=DictBook())
    example = label(0, "negative_conclusive")
    for number in range(1000):
        subject.learn(
            msgspec.structs.replace(
                example,
                application_id=f"a{number}",
                kind="positive" if y[number] else "negative_inferred",
                final=False,
                global_score=o[number],
                per_member=Z[number].tobytes(),
            )
        )
    fits = 0
    while not subject.has_worked:
        fits += 1
        subject.score("m", Z[0].tobytes())
        subject.learn(
            msgspec.structs.replace(
                example, application_id=f"b{fits}", final=False, per_member=Z[fits].tobytes()
            )
        )
    assert subject.fitter.unconverged > 0
    assert MOST_WORK / 40e6 < fits < MOST_WORK / 1e6
    subject.flush()
    assert not subject.has_worked
