"""An effect: corrections replace, refits are lazy, offsets are fixed, the old is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER, EffectSpec
from stream.errors import StateError
from stream.events.structs import Label
from stream.policy import DAY_MS, EffectSettings
from stream.state.codec import decode_posterior, encode_posterior
from stream.updaters.effect import Effect
from stream.updaters.kept import Posterior
from tests.updaters.kernels import Array, ReferenceKernel, fitted, hessian

Z_ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype("<f4")


def mode(Z: Any, y: Array, w: Array, o: Array, precision: float) -> Array:
    """Fit one entity with the slow kernel, nothing folded."""
    return fitted(ReferenceKernel(), (Z, y, w, o), precision)


class DictBook:
    """Posteriors in a dictionary, copied as a store would."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def load(self, entity_id: str) -> Posterior | None:
        """Return a posterior."""
        value = self.values.get(entity_id)
        return None if value is None else decode_posterior(value)

    def save(self, entity_id: str, posterior: Posterior) -> None:
        """Keep a posterior."""
        self.values[entity_id] = encode_posterior(posterior)

    def remove(self, entity_id: str) -> None:
        """Keep it no longer."""
        self.values.pop(entity_id, None)


def label(
    number: int,
    kind: str,
    *,
    final: bool = False,
    previous: str | None = None,
    job: str = "j",
    day: int | None = None,
    weight: float = 1.0,
    previous_weight: float | None = None,
) -> Label:
    """Label of application ``number`` of member m; its features are row ``number``."""
    return Label(
        application_id=f"a{number:03}",
        member_id="m",
        job_id=job,
        label=int(kind == "positive"),
        kind=kind,
        previous=previous,
        rule=None,
        final=final or kind == "positive",
        weight=weight,
        previous_weight=previous_weight,
        application_time_ms=(number if day is None else day) * DAY_MS,
        evidence_time_ms=None,
        label_time_ms=0,
        model_version="v",
        per_member=Z_ROWS[number].tobytes(),
        per_job=Z_ROWS[-1 - number].tobytes(),
        global_score=0.1 * number,
        member_score=0.3,
        job_score=-0.2,
        channel=None,
        terms=None,
    )


def effect(book: DictBook, spec: EffectSpec = MEMBER, **settings: Any) -> Effect:
    """Make an effect of three features with a strict tolerance."""
    return Effect(
        spec, 3, settings=EffectSettings(**settings), model_version="v", book=book, tolerance=1e-14
    )


def learn(labels: Sequence[Label], cuts: Sequence[int] = (), **settings: Any) -> Posterior:
    """Learn labels, flushing after the numbers in ``cuts``, and return the posterior."""
    book = DictBook()
    subject = effect(book, **settings)
    for count, item in enumerate(labels):
        subject.learn(item)
        if count in cuts:
            subject.flush()
    subject.flush()
    posterior = book.load("m")
    assert posterior is not None
    return posterior


def theta(posterior: Posterior) -> NDArray[np.float64]:
    """Mode as an array."""
    return np.frombuffer(posterior.mode)


def test_mode_is_the_map_over_the_last_labels() -> None:
    """After labels and corrections the mode is the kernel's on the last labels with offsets."""
    labels = [label(n, "negative_inferred") for n in range(6)]
    labels += [label(2, "positive", previous="negative_inferred")]
    posterior = learn(labels, half_life_ms=None)
    y = np.array([0.0, 0, 1, 0, 0, 0])
    o = np.array([0.1 * n - 0.2 for n in range(6)])
    assert np.allclose(theta(posterior), mode(Z_ROWS[:6], y, np.ones(6), o, 3.0), atol=1e-9)
    assert posterior.examples == 6


def test_uncoupled_offset_is_the_global_score() -> None:
    """Without coupling the other effect's score is left out of the offset."""
    posterior = learn([label(4, "positive")], half_life_ms=None, coupled=False)
    o = np.array([0.4])
    assert np.allclose(theta(posterior), mode(Z_ROWS[4:5], np.ones(1), np.ones(1), o, 3.0))


def test_per_job_effect_takes_the_members_score_and_the_jobs_features() -> None:
    """The job's entity learns the per-job block, with the member's score in the offset."""
    book = DictBook()
    subject = effect(book, JOB, half_life_ms=None)
    subject.learn(label(4, "positive"))
    subject.flush()
    posterior = book.load("j")
    assert posterior is not None
    wanted = mode(Z_ROWS[-5:-4], np.ones(1), np.ones(1), np.array([0.4 + 0.3]), 3.0)
    assert np.allclose(theta(posterior), wanted)


@st.composite
def sequences(draw: st.DrawFn) -> list[Label]:
    """Return sequences of labels that climb, of up to eight applications, interleaved."""
    queues = []
    for number in range(draw(st.integers(1, 8))):
        steps = draw(
            st.sampled_from(
                [
                    ["negative_inferred"],
                    ["negative_inferred~0.4", "negative_inferred~0.8"],
                    ["negative_inferred~0.4", "positive"],
                    ["negative_inferred~0.4", "negative_inferred~0.8", "negative_conclusive!"],
                    ["negative_inferred", "positive"],
                    ["negative_inferred", "negative_explicit", "positive"],
                    ["negative_explicit", "negative_explicit!"],
                    ["negative_inferred", "negative_conclusive!"],
                    ["positive"],
                ]
            )
        )
        queue: list[Label] = []
        for step in steps:
            kind, _, weight = step.rstrip("!").partition("~")
            queue.append(
                label(
                    number,
                    kind,
                    final=step.endswith("!"),
                    previous=queue[-1].kind if queue else None,
                    weight=float(weight or 1),
                    previous_weight=queue[-1].weight if queue else None,
                )
            )
        queues.append(queue)
    result = []
    while queues:
        queue = draw(st.sampled_from(queues))
        result.append(queue.pop(0))
        queues = [q for q in queues if q]
    return result


@given(sequences(), st.sets(st.integers(0, 20)), st.sampled_from([1, 128]), st.data())
def test_state_equals_never_having_seen_the_wrong_labels(
    labels: list[Label], cuts: set[int], limit: int, data: st.DataObject
) -> None:
    """Any order, cut, repeats or limits: the posterior is that of the last labels alone."""
    settings: dict[str, Any] = {"capacity": limit, "open_limit": limit}
    last = {item.application_id: item for item in labels}
    wanted = learn(list(last.values()), **settings)
    repeated = list(labels)
    for item in labels:
        if data.draw(st.booleans()):
            at = data.draw(st.integers(labels.index(item), len(repeated)))
            repeated.insert(at, item)
    found = learn(repeated, tuple(cuts), **settings)
    assert found.kept == wanted.kept
    assert found.time_ms == wanted.time_ms
    Z = np.frombuffer(b"".join(e.z for e in wanted.kept), "<f4").reshape(-1, 3)
    w = np.array(wanted.kept.weights)
    w *= np.exp2(-(wanted.time_ms - np.array([e.time_ms for e in wanted.kept])) / (30 * DAY_MS))
    o = np.array([e.offset for e in wanted.kept])
    sd = np.sqrt(np.diag(np.linalg.inv(hessian(theta(wanted), Z, w, o, 3.0))))
    assert np.max(np.abs(theta(found) - theta(wanted)) / sd) < 1e-6


def test_examples_are_forgotten_by_half_life() -> None:
    """An example one half-life older than the newest counts half."""
    posterior = learn([label(0, "positive", day=0), label(1, "positive", day=30)])
    o = np.array([-0.2, -0.1])
    wanted = mode(Z_ROWS[:2], np.ones(2), np.array([0.5, 1.0]), o, 3.0)
    assert np.allclose(theta(posterior), wanted, atol=1e-9)


def test_applications_of_different_jobs_may_share_an_id() -> None:
    """An application is identified by its job and its id together."""
    same = [label(0, "positive", job=job) for job in ("j", "k", "0:j")]
    assert learn(same).examples == 3


def test_refits_are_lazy() -> None:
    """Labels that come together cost one refit, at the next score; a score sees them all."""
    book = DictBook()
    subject = effect(book)
    z = Z_ROWS[0].tobytes()
    assert subject.score("m", z) == 0.0
    subject.learn(label(0, "positive"))
    subject.learn(label(1, "positive"))
    assert subject.fitter.refits == 0
    assert subject.score("m", z) != 0.0
    assert subject.score("m", z) != 0.0
    subject.flush()
    assert subject.fitter.refits == 1


def test_discarded_labels_were_never_learned() -> None:
    """What was learned since the last flush goes with a discard."""
    book = DictBook()
    subject = effect(book)
    subject.learn(label(0, "positive"))
    subject.discard()
    assert subject.flush() == []
    assert subject.score("m", Z_ROWS[0].tobytes()) == 0.0


def test_coefficients_carry_mode_and_variance() -> None:
    """The message has mode, marginal variances and the number of examples."""
    book = DictBook()
    subject = effect(book, half_life_ms=None)
    subject.learn(label(0, "positive"))
    subject.flush()
    found = subject.coefficients("m")
    assert found is not None
    wanted = np.linalg.inv(
        hessian(np.array(found.mean), Z_ROWS[:1], np.ones(1), np.array([-0.2]), 3.0)
    )
    assert found.variance == pytest.approx(np.diag(wanted).tolist())
    assert (found.examples, found.model_version, found.event_time_ms) == (1, "v", 0)


@pytest.mark.parametrize("full_up_to", [2, 3])
def test_a_state_of_another_shape_is_refused(full_up_to: int) -> None:
    """A folded part learned full is not read as a diagonal, nor the other way round."""
    book = DictBook()
    subject = effect(book, capacity=1, full_up_to=full_up_to)
    for number in range(39):
        subject.learn(label(number, "positive"))
    subject.flush()
    other = effect(book, capacity=1, full_up_to=5 - full_up_to)
    with pytest.raises(StateError, match="another full_up_to"):
        other.learn(label(39, "positive"))


def test_entities_are_refitted_together_as_alone() -> None:
    """A flush of many entities, some with something folded, gives each the mode it has alone."""
    members = {"a": 2, "b": 36, "c": 1, "d": 37, "e": 12}  # by how many labels each has
    alone: dict[str, bytes] = {}
    together = DictBook()
    subject = effect(together, capacity=1)
    for member, count in members.items():
        own = DictBook()
        single = effect(own, capacity=1)
        for number in range(count):
            item = msgspec.structs.replace(
                label(number, "negative_conclusive" if number % 3 else "positive", final=True),
                member_id=member,
            )
            single.learn(item)
            subject.learn(item)
        single.flush()
        alone[member] = own.values[member]
    assert subject.flush() == list(members)
    for member, value in alone.items():
        one = decode_posterior(value)
        found = together.load(member)
        assert found is not None
        assert (found.kept, found.folded) == (one.kept, one.folded)
        assert np.allclose(theta(found), theta(one), atol=1e-9)
    assert subject.fitter.unconverged == 0


def test_an_effect_without_features_learns_nothing_and_says_zero() -> None:
    """A model may leave an effect's block empty."""
    effect = Effect(MEMBER, 0, settings=EffectSettings(), model_version="v", book=DictBook())
    for number in range(3):
        effect.learn(msgspec.structs.replace(label(number, "positive"), per_member=b""))
        assert effect.score("m", b"") == 0.0
    ((_, coefficients),) = effect.publish()
    assert coefficients is not None
    assert (coefficients.mean, coefficients.variance, coefficients.examples) == ([], [], 3)
