"""Tallies: against scikit-learn, merged, corrected; and what the gate makes of them."""

from __future__ import annotations

from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from stream.events.structs import Label
from stream.policy import DAY_MS, HOUR_MS, GateSettings, Policy
from stream.quality.gate import Gate, decide, opened_by_hand
from stream.quality.judged import TALLY, JudgedScores
from stream.quality.ranking import Ranked, RankingQuality
from stream.quality.tally import SCORES, JudgedScore, Tally, add_all, merged
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from tests.updaters.test_folding import label

_Floats = NDArray[np.float64]


def draw(seed: int, count: int) -> tuple[_Floats, _Floats]:
    """Draw labels (n,) and the three parts of the score (n, 3)."""
    rng = np.random.default_rng(seed)
    parts = rng.normal([-1.0, 0.0, 0.0], [1.0, 0.7, 0.5], (count, 3))
    labels = rng.random(count) < 1 / (1 + np.exp(-parts.sum(1)))
    return labels.astype(float), parts


def taken(sign: int, label: float, scores: _Floats, weight: float) -> JudgedScore:
    """One application."""
    global_, member, job = map(float, scores)
    return JudgedScore(sign, int(label), global_, member, job, float(weight))


def tallied(labels: _Floats, parts: _Floats, weights: _Floats | None = None) -> Tally:
    """Take everything in."""
    tally = Tally()
    judged = [
        taken(1, answered, scores, weight)
        for answered, scores, weight in zip(
            labels, parts, np.ones(len(labels)) if weights is None else weights, strict=True
        )
    ]
    add_all([(tally, judged)])
    return tally


def test_quality_is_that_of_scikit_learn() -> None:
    """AUC to 0.002 (bins), log loss and observed/expected to rounding, for all four scores."""
    labels, parts = draw(1, 4000)
    tally = tallied(labels, parts)
    columns = {"global": [0], "with_member": [0, 1], "with_job": [0, 2], "full": [0, 1, 2]}
    for name in SCORES:
        p = 1 / (1 + np.exp(-parts[:, columns[name]].sum(1)))
        found = tally.quality(name)
        assert found is not None
        assert found.auc == pytest.approx(roc_auc_score(labels, p), abs=0.002)
        assert found.log_loss == pytest.approx(log_loss(labels, p))
        assert found.observed_over_expected == pytest.approx(labels.sum() / p.sum())


def aged(labels: _Floats) -> _Floats:
    """Weights (n,): 1 for positives, those of three steps and 1 for negatives."""
    drawn = np.random.default_rng(8).choice([0.359, 0.7, 0.9, 1.0], len(labels))
    return np.where(labels == 1, 1.0, drawn)


def test_a_label_of_a_weight_counts_as_so_many_applications() -> None:
    """All figures are scikit-learn's with these sample weights; paired differences weighted too."""
    labels, parts = draw(4, 4000)
    weights = aged(labels)
    tally = tallied(labels, parts, weights)
    assert tally.applications == 4000
    assert tally.weight == pytest.approx(weights.sum())
    losses = {}
    columns = {"global": [0], "with_member": [0, 1], "with_job": [0, 2], "full": [0, 1, 2]}
    for name in SCORES:
        p = 1 / (1 + np.exp(-parts[:, columns[name]].sum(1)))
        losses[name] = -np.log(np.where(labels == 1, p, 1 - p))
        found = tally.quality(name)
        assert found is not None
        assert found.auc == pytest.approx(
            roc_auc_score(labels, p, sample_weight=weights), abs=0.002
        )
        assert found.log_loss == pytest.approx(log_loss(labels, p, sample_weight=weights))
        assert found.observed_over_expected == pytest.approx(labels.sum() / (weights @ p))
    worse = losses["full"] - losses["with_member"]
    mean = weights @ worse / weights.sum()
    spread = np.sqrt(weights @ (worse - mean) ** 2 / weights.sum())
    wanted = mean, spread / np.sqrt(weights.sum())
    assert tally.worse("per_job") == pytest.approx(wanted)
    assert TALLY.decode(TALLY.encode(tally)) == tally
    cut = merged(tallied(labels[at::3], parts[at::3], weights[at::3]) for at in range(3))
    assert cut.weight == pytest.approx(tally.weight)
    whole, less = (one.worse_but_for_level("per_member")[0] for one in (tally, cut))
    assert whole == pytest.approx(less)


def test_a_label_that_climbs_counts_as_if_it_always_had_stood_there() -> None:
    """Each step takes back the one before, weight and all."""
    labels, parts = draw(5, 200)
    weights = aged(labels)
    tally = tallied(np.zeros(200), parts, np.full(200, 0.359))
    for answered, scores, weight in zip(labels, parts, weights, strict=True):
        back = taken(-1, 0.0, scores, 0.359)
        add_all([(tally, [back, taken(1, answered, scores, weight)])])
    right = tallied(labels, parts, weights)
    assert (tally.applications, tally.positives) == (right.applications, right.positives)
    assert tally.weight == pytest.approx(right.weight)
    for found, wanted in zip(tally.scores, right.scores, strict=True):
        assert (found.negatives, found.missing) == (wanted.negatives, wanted.missing)
        assert found.log_loss == pytest.approx(wanted.log_loss)
    assert tally.worse("per_member") == pytest.approx(right.worse("per_member"))


@given(st.integers(0, 10_000))
def test_early_judgements_weigh_what_was_known_at_their_age(seed: int) -> None:
    """Of each application counts its last label of that age, with the weight of then."""
    random = Random(seed)
    judged = JudgedScores(Overlay(MemoryStore()), Policy(), "per_job")
    last: dict[int, tuple[Label, _Floats]] = {}
    final: list[int] = []
    for number in range(30):
        parts = np.array([random.gauss(-1, 1), random.gauss(0, 1), random.gauss(0, 1)])
        hour = 0.0
        before: Label | None = None
        ladder = [("negative_inferred", weight) for weight in (0.36, 0.71, 0.9)]
        ladder = random.sample(ladder, random.randrange(4))
        ladder.sort(key=lambda step: step[1])
        ladder += [("negative_explicit", 1.0)] * random.randrange(2)
        ladder += [(random.choice(["positive", "negative_conclusive"]), 1.0)]
        for kind, weight in ladder:
            hour += random.expovariate(1 / 20)
            one = msgspec.structs.replace(
                label(
                    number, np.zeros(1), kind, hour=number / 100, weight=weight,
                    previous=None if before is None else before.kind,
                    previous_weight=None if before is None else before.weight,
                ),
                label_time_ms=int((number / 100 + hour) * HOUR_MS),
                global_score=parts[0], member_score=parts[1], job_score=parts[2],
            )  # fmt: skip
            judged.observe(one)
            before = one
            if one.label_time_ms - one.application_time_ms <= 2 * DAY_MS:
                last[number] = one, parts
            final += [one.label] * one.final
    judged.judge(15 * DAY_MS)
    known = list(last.values())
    wanted = tallied(
        np.array([one.label for one, _ in known], float),
        np.array([parts for _, parts in known]).reshape(-1, 3),
        np.array([one.weight for one, _ in known]),
    )
    found = judged.newest("early")
    assert (found.applications, found.positives) == (wanted.applications, wanted.positives)
    assert found.scores[3].missing == wanted.scores[3].missing
    assert found.scores[3].log_loss == pytest.approx(wanted.scores[3].log_loss)
    closed = judged.newest("final")
    assert (closed.applications, closed.positives) == (len(final), sum(final))
    assert closed.weight == closed.applications


def test_merged_tallies_are_the_tally_of_all() -> None:
    """However applications are divided: sums, AUC and paired differences are the same."""
    labels, parts = draw(2, 600)
    whole = tallied(labels, parts)
    cut = merged(tallied(labels[at::3], parts[at::3]) for at in range(3))
    one, other = cut.quality("full"), whole.quality("full")
    assert one is not None
    assert other is not None
    assert one.auc == other.auc
    assert one.log_loss == pytest.approx(other.log_loss)
    assert cut.worse("per_job") == pytest.approx(whole.worse("per_job"))


def test_a_negative_that_turns_positive_counts_as_if_it_always_had() -> None:
    """The correction takes back what the wrong label had added."""
    labels, parts = draw(3, 200)
    tally = tallied(np.zeros(200), parts)
    for answered, scores in zip(labels, parts, strict=True):
        if answered:
            values = tuple(map(float, scores))
            add_all([(tally, [JudgedScore(-1, 0, *values), JudgedScore(1, 1, *values)])])
    right = tallied(labels, parts)
    assert (tally.applications, tally.positives) == (right.applications, right.positives)
    for found, wanted in zip(tally.scores, right.scores, strict=True):
        assert found.negatives == wanted.negatives
        assert found.positives == wanted.positives
        assert found.log_loss == pytest.approx(wanted.log_loss)
    assert tally.worse("per_member") == pytest.approx(right.worse("per_member"))


def test_absurd_scores_are_finite() -> None:
    """Log-odds of thousands do not overflow."""
    tally = Tally()
    add_all(
        [(tally, [JudgedScore(1, 1, -5000.0, 0.0, 9000.0), JudgedScore(1, 0, 5000.0, 5000.0, 0.0)])]
    )
    found = tally.quality("full")
    assert found is not None
    assert np.isfinite(found.log_loss)
    assert np.isfinite(tally.worse_but_for_level("per_job")).all()


def noisy(count: int, spread: float, shift: float = 0.0) -> Tally:
    """Labels of the global score alone; the member's part is noise, and of another level."""
    rng = np.random.default_rng(7)
    global_ = rng.normal(-1.0, 1.0, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-global_))).astype(float)
    member = rng.normal(shift, spread, count)
    return tallied(labels, np.stack([global_, member, np.zeros(count)], 1))


SETTINGS = GateSettings(applications=500)


def test_the_gate_pauses_for_harm_and_opens_when_it_is_over() -> None:
    """Noise pauses; half the margin opens; in between it stays as it is; few are no evidence."""
    nothing, harm, help_ = Tally(), noisy(600, 1.5), noisy(600, 0.0)
    gate = Gate()
    assert (
        decide(
            gate, "per_member", early=noisy(400, 1.5), final=nothing, settings=SETTINGS, now_ms=0
        )
        is gate
    )
    assert decide(gate, "per_job", early=harm, final=nothing, settings=SETTINGS, now_ms=0) is gate
    paused = decide(gate, "per_member", early=harm, final=nothing, settings=SETTINGS, now_ms=5)
    assert (paused.open, paused.cause, paused.pauses) == (False, "early", 1)
    assert (
        decide(paused, "per_member", early=harm, final=help_, settings=SETTINGS, now_ms=6) is paused
    )
    assert (
        decide(paused, "per_member", early=nothing, final=help_, settings=SETTINGS, now_ms=6)
        is paused
    )
    opened = decide(paused, "per_member", early=help_, final=harm, settings=SETTINGS, now_ms=9)
    assert (opened.open, opened.final_from_ms, opened.early_from_ms) == (True, 9, 0)
    late = decide(gate, "per_member", early=help_, final=harm, settings=SETTINGS, now_ms=0)
    assert late.cause == "final"


def test_rankings_pause_where_they_are_clearly_worse_for_the_effect() -> None:
    """Only beyond the interval, and where the best part does without the effect; else it opens."""

    def ranked(gain: float, error: float, best: str = "with_member") -> RankingQuality:
        return RankingQuality(
            within="job",
            first_sight=("global", "member"),
            decisions=900,
            owners=100,
            share=1.0,
            sampled=0,
            orders={},
            best=best,
            gain=Ranked(gain, gain - error, gain + error),
        )

    def decided(gate: Gate, rankings: RankingQuality | None) -> Gate:
        return decide(
            gate, "per_job", early=Tally(), final=Tally(), rankings=rankings, settings=SETTINGS,
            now_ms=7,
        )  # fmt: skip

    gate = Gate()
    for harmless in (None, ranked(-0.03, 0.04), ranked(0.1, 0.01), ranked(-0.03, 0.02, "with_job")):
        assert decided(gate, harmless) is gate
    paused = decided(gate, ranked(-0.03, 0.02))
    assert (paused.cause, paused.pauses) == ("rankings", 1)
    assert decided(gate, ranked(-0.03, 0.02, "global")).cause == "rankings"
    assert decided(paused, ranked(-0.03, 0.04)) is paused
    for over in (None, ranked(0.0, 0.04), ranked(-0.03, 0.02, "with_job")):
        assert decided(paused, over).open


def test_a_wrong_level_is_no_harm_early_but_is_in_the_end() -> None:
    """Labels known early are not a fair sample: only final ones judge the level."""
    shifted = noisy(2000, 0.0, shift=0.8)
    worse, error = shifted.worse("per_member")
    assert worse > 0.01
    assert worse > 3 * error
    assert shifted.worse_but_for_level("per_member")[0] == pytest.approx(0.0, abs=2e-3)
    assert decide(
        Gate(), "per_member", early=shifted, final=Tally(), settings=SETTINGS, now_ms=0
    ).open
    assert not decide(
        Gate(), "per_member", early=Tally(), final=shifted, settings=SETTINGS, now_ms=0
    ).open


def test_a_command_opens_and_starts_the_evidence_anew() -> None:
    """Everything submitted before it counts no more."""
    paused = decide(
        Gate(), "per_member", early=noisy(600, 1.5), final=Tally(), settings=SETTINGS, now_ms=5
    )
    assert opened_by_hand(paused, 3, 77) == Gate(None, 77, 77, 3, 1)


def test_a_label_that_takes_back_what_was_never_taken_is_stored_and_read() -> None:
    """As after a bootstrap, or where the label before was lost; counts are below zero for it."""
    tally = Tally()
    add_all([(tally, [JudgedScore(-1, 0, 0.1, 0.2, 0.3)])])
    assert tally.applications == -1
    assert TALLY.decode(TALLY.encode(tally)) == tally
