"""Rankings: who is wanted, in which order, and what exploring does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stream.policy import DAY_MS, Policy
from stream.serving.draws import normals
from stream.serving.waiting import Waiting
from tests.kit import model
from tests.serving.asking import NOW_MS, Asked
from tests.serving.test_scores import known


def candidates(*scores: float, **more: object) -> list[dict[str, Any]]:
    """Members m0, m1, … with these global scores and no other features."""
    return [
        {
            "member_id": f"m{number}",
            "features": {"per_member": [1.0, 0.0], "per_job": [1.0]},
            "global_score": score,
        }
        | more
        for number, score in enumerate(scores)
    ]


def order(found: Any, field: str = "member_id") -> list[str]:
    """Ids of a ranking."""
    assert [each["rank"] for each in found["candidates"]] == [
        *range(1, len(found["candidates"]) + 1)
    ]
    return [each[field] for each in found["candidates"]]


@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 0.25, 3.0]), max_size=12),
    top=st.integers(1, 14),
    seed=st.integers(0, 3),
)
def test_the_order_is_that_of_the_rule(scores: list[float], top: int, seed: int) -> None:
    """By score, then member, then job, then place: whatever the order of the question."""
    asked = Asked(model())
    rng = np.random.default_rng(seed)
    given_ones = candidates(*scores)
    for each in given_ones:
        each["job_id"] = f"j{rng.integers(2)}"
        each["member_id"] = f"m{rng.integers(3)}"
    found = asked.rank(candidates=given_ones, top=top)
    wanted = sorted(
        range(len(scores)),
        key=lambda at: (-scores[at], given_ones[at]["member_id"], given_ones[at]["job_id"], at),
    )[:top]
    assert [each["at"] for each in found["candidates"]] == wanted


def test_who_is_left_out() -> None:
    """Candidates below a probability, unknown ones, those excluded, and those with an error."""
    asked = Asked(model())
    known(asked, "per_member", "m1", [0.0, 0.0], 0.1)
    known(asked, "per_member", "m3", [0.0, 0.0], 0.1)
    given_ones = candidates(0.0, 1.0, 2.0, -2.0, 1e9)

    def left(**filters: object) -> list[str]:
        return order(asked.rank(job_id="j", candidates=given_ones, filters=filters))

    assert left() == ["m2", "m1", "m0", "m3"]
    assert left(min_probability=0.5) == ["m2", "m1", "m0"]
    assert left(known="member") == ["m1", "m3"]
    assert left(known="both") == left(known="job") == []
    assert left(exclude=["m2", "j9"]) == ["m1", "m0", "m3"]
    assert left(exclude=["j"]) == []
    assert asked.ask("/v1/rank", b'{"candidates":[],"filters":{"exclude":["m"]}}').status != 500
    columns = {
        "member_id": ["m0", "m1"],
        "global_score": [0.0, 1.0],
        "per_member": [[1.0, 0.0]] * 2,
        "per_job": [[1.0]] * 2,
    }
    found = asked.rank(job_id="j", columns=columns)["columns"]
    assert (found["at"], found["log_odds"]) == ([1, 0], [1.0, 0.0])
    assert found["member_known"] == [True, False]


def test_open_applications_are_ranked_by_what_is_still_to_come() -> None:
    """By the probability of now, or by who is likeliest to be next; ages are needed."""
    asked = Asked(model())
    waiting = Waiting(model(), Policy().labels)
    given_ones = candidates(1.0, 1.0, 0.9)
    for each, days in zip(given_ones, (12, 1, 1), strict=True):
        each["application_time_ms"] = NOW_MS - days * DAY_MS
    found = asked.rank(job_id="j", candidates=given_ones, by="probability_now")
    assert order(found) == ["m1", "m2", "m0"]
    assert found["candidates"][0]["probability_now"] == pytest.approx(
        waiting.probability(1.0, DAY_MS)
    )
    assert order(asked.rank(job_id="j", candidates=given_ones, by="next")) == ["m1", "m2", "m0"]
    del given_ones[0]["application_time_ms"]
    found = asked.rank(job_id="j", candidates=given_ones, by="next")
    assert order(found) == ["m1", "m2"]
    assert "application_time_ms" in found["errors"][0]["message"]
    for question in ({"job_id": "j", "candidates": candidates(1.0)}, {"candidates": given_ones}):
        reply = asked.ask("/v1/rank", question | {"by": "next"})
        assert reply.status == 422, reply


def test_a_draw_depends_on_no_other_candidate() -> None:
    """Nor on their order; on the seed, the entity and the model it does."""
    asked = Asked(model())
    given_ones = candidates(*[0.0] * 20)

    def drawn(those: list[dict[str, Any]], seed: int = 5, job: str = "j") -> dict[str, float]:
        found = asked.rank(job_id=job, candidates=those, explore={"seed": seed})
        assert order(found) == sorted(
            order(found),
            key=lambda name: next(
                -each["drawn"] for each in found["candidates"] if each["member_id"] == name
            ),
        )
        return {each["member_id"]: each["drawn"] for each in found["candidates"]}

    all_of_them = drawn(given_ones)
    assert drawn(given_ones[::-3]) == {name: all_of_them[name] for name in drawn(given_ones[::-3])}
    assert drawn(given_ones, 6) != all_of_them
    assert drawn(given_ones, 5, "other") != all_of_them
    assert len(set(all_of_them.values())) == 20
    other = Asked(model("newer"))
    found = other.rank(job_id="j", candidates=given_ones, explore={"seed": 5})
    assert found["candidates"][0]["drawn"] not in all_of_them.values()


def test_draws_have_the_moments_of_what_is_believed() -> None:
    """Mean and variance of the score, over seeds; a known entity's are its own."""
    asked = Asked(model())
    known(asked, "per_member", "m0", [2.0, 0.0], 0.04)
    found = [
        asked.rank(job_id=f"j{seed}", candidates=candidates(0.5), explore={"seed": seed})
        for seed in range(1500)
    ]
    drawn = np.array([each["candidates"][0]["drawn"] for each in found])
    deviation = found[0]["candidates"][0]["standard_deviation"]
    assert deviation == pytest.approx((0.04 + 1 / 3) ** 0.5)
    assert drawn.mean() == pytest.approx(2.5, abs=0.05)
    assert drawn.std() == pytest.approx(deviation, rel=0.06)


def test_drawn_numbers_are_standard_normal_and_independent() -> None:
    """Across ids, effects, seeds and coefficients; an odd number of them is no other matter."""
    ids = [f"m{number}" for number in range(4000)]
    found = normals(1, "per_member", ids, "v", 5)
    assert found.shape == (4000, 5)
    assert stats.kstest(found.ravel(), "norm").pvalue > 0.001
    others = [normals(2, "per_member", ids, "v", 5), normals(1, "per_job", ids, "v", 5)]
    stacked = np.hstack([found, *others])
    correlations = np.corrcoef(stacked.T) - np.eye(15)
    assert np.abs(correlations).max() < 0.07
    assert (normals(1, "per_member", ids[7:8], "v", 5) == found[7]).all()
    assert normals(1, "per_member", [], "v", 5).shape == (0, 5)
