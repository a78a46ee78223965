"""One effect: a posterior per entity, refitted lazily.

An entity with new labels is refitted when it is next needed (to score an application) or at the
flush. So labels that come together cost one refit, and a score always sees every label learned
before it. What was used lately stays in memory, whatever is flushed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER, EffectSpec
from stream.events.ladder import BY_NAME, target
from stream.events.structs import Application, Coefficients, Label
from stream.policy import FOLD, EffectSettings
from stream.updaters import newton
from stream.updaters.fitter import Fitter, Kernel
from stream.updaters.kept import Example, Kept, Posterior

MOST_HELD = 1 << 14
"""Examples in memory after a flush, about 200 bytes each and four more for each feature."""

MOST_WORK = 100_000_000
"""Multiplications of refits between two flushes of a worker: about 20 ms."""

_AT_ONCE = 1 << 12  # entities refitted in one call at a flush: the call copies all their examples
_FLOAT32 = np.dtype("<f4")


class PosteriorBook(Protocol):
    """Where the posteriors of one effect are kept."""

    def load(self, entity_id: str) -> Posterior | None:
        """Return the posterior of an entity; None when it never learned."""

    def save(self, entity_id: str, posterior: Posterior) -> None:
        """Replace the posterior of an entity."""

    def remove(self, entity_id: str) -> None:
        """Remove the posterior of an entity, whether there is one or not."""


class Effect:
    """The posteriors of one effect's entities, and what they say.

    Args:
        spec: which effect. size: d, the number of features.
        settings: prior, forgetting and limits.
        model_version: version of the frozen global model, carried into the coefficients.
        book: where posteriors are kept.
        kernel: that finds the modes. tolerance: its; tests of equality use a smaller one.
        most_held: examples in memory after a flush.

    Attributes:
        fitter: of its posteriors; it counts.
        entity_of: gives the id of the entity of an application or a label; None: there is none.

    """

    def __init__(
        self,
        spec: EffectSpec,
        size: int,
        *,
        settings: EffectSettings,
        model_version: str,
        book: PosteriorBook,
        kernel: Kernel = newton,
        tolerance: float = newton.TOLERANCE,
        most_held: int = MOST_HELD,
    ) -> None:
        self.spec = spec
        self.fitter = Fitter(kernel, size, settings, tolerance)
        self.entity_of: Callable[[Application | Label], str | None] = attrgetter(spec.entity)
        self._features: Callable[[object], bytes] = attrgetter(spec.block)
        self._of_job = spec.entity == "job_id"
        self._with_member = settings.coupled and spec.score != MEMBER.score
        self._with_job = settings.coupled and spec.score != JOB.score
        self._size = size
        self._settings = settings
        self._model_version = model_version
        self._book = book
        self._most_held = most_held
        self._least_folded = min(settings.capacity, settings.open_limit) + FOLD  # kept examples
        self._live: dict[str, Posterior | None] = {}  # what was read or learned lately
        self._work = 0  # of refits since the last flush, and of those that are due
        self._weight = 0  # of it: kept examples, and entities that never learned
        self._stale: set[str] = set()  # entities with labels that their mode has not seen
        self._changed: dict[str, None] = {}  # entities to be saved, in order of their first label

    @property
    def name(self) -> str:
        """Of the effect, in keys and messages."""
        return self.spec.name

    def score_of(self, app: Application) -> float:
        """Log-odds of an application; 0 where it has no entity."""
        entity_id = self.entity_of(app)
        return 0.0 if entity_id is None else self.score(entity_id, self._features(app.features))

    def score(self, entity_id: str, z: bytes) -> float:
        """z'θ in log-odds, having seen every label learned so far; 0 for an unknown entity."""
        posterior = self._get(entity_id)
        if posterior is None:
            return 0.0
        if entity_id in self._stale:
            self._refit([entity_id])
        return float(np.frombuffer(z, _FLOAT32).dot(np.frombuffer(posterior.mode)))

    def scores(self, entity_id: str, z: bytes) -> NDArray[np.float64]:
        """Return :meth:`score` of many applications (n,), whose features follow each other in z.

        Equal features get equal scores, wherever they stand.
        """
        Z = np.frombuffer(z, _FLOAT32).reshape(-1, self._size)
        posterior = self._get(entity_id)
        if posterior is None:
            return np.zeros(len(Z))
        if entity_id in self._stale:
            self._refit([entity_id])
        return np.asarray((Z * np.frombuffer(posterior.mode)).sum(axis=1))

    def learn(self, label: Label) -> bool:
        """Take a label in; a repeat or one that stands lower than what is known does nothing.

        A label of an entity that is not there is learned as new, whatever it was before; one
        without an entity teaches nothing. Returns whether the entity is new.

        In order: age what was folded if T grows; add or replace; fold final examples over
        ``capacity``; overflow provisional ones over ``open_limit``. Whether to fold depends on the
        sequence of labels alone, never on when a flush happens.
        """
        entity_id = self.entity_of(label)
        if entity_id is None:
            return False
        example = self._example(label)
        posterior = self._get(entity_id)
        new = posterior is None
        if posterior is None:
            posterior = Posterior(bytes(8 * self._size), example.time_ms, Kept.of([example]))
            self._live[entity_id] = posterior
            self._weight += _weight(posterior) - _weight(None)
            self._outdate(entity_id, posterior)
        elif not self._enter(entity_id, posterior, example, label):
            return False
        self._changed[entity_id] = None
        if len(posterior.kept) >= self._least_folded:
            self._fold(entity_id, posterior, self._settings.capacity, final=True)
            self._fold(entity_id, posterior, self._settings.open_limit, final=False)
        return new

    def forget(self, entity_id: str) -> bool:
        """Let an entity go, as if it had never learned; it counts as changed.

        Returns whether it was there.
        """
        posterior = self._get(entity_id)
        self._weight -= _weight(posterior) - _weight(None)
        self._live[entity_id] = None
        self._stale.discard(entity_id)
        self._changed[entity_id] = None
        return posterior is not None

    def newest_ms(self, entity_id: str) -> int | None:
        """T of an entity, its largest application time; None when it is not there."""
        posterior = self._get(entity_id)
        return None if posterior is None else posterior.time_ms

    def flush(self) -> list[str]:
        """Refit what is stale, save what changed; return the changed entities, gone ones too."""
        changed = self._save()
        self._evict()
        return changed

    def publish(self) -> list[tuple[str, Coefficients | None]]:
        """Flush; return what changed and its coefficients, in order; None: the entity is gone."""
        changed = self._save()
        there = {
            entity_id: posterior
            for entity_id in changed
            if (posterior := self._live[entity_id]) is not None
        }
        coefficients = self.describe(there)
        self._evict()
        return [(entity_id, coefficients.get(entity_id)) for entity_id in changed]

    @property
    def is_full(self) -> bool:
        """Whether there is so much in memory that it should be flushed now."""
        return self._weight > 2 * self._most_held

    @property
    def has_worked(self) -> bool:
        """Whether refits since the last flush, and those that are due, take longer than a tick."""
        return self._work > MOST_WORK

    def discard(self) -> None:
        """Forget what was learned since the last flush, and whatever else is in memory."""
        self._live.clear()
        self._weight = 0
        self._work = 0
        self._stale.clear()
        self._changed.clear()

    def coefficients(self, entity_id: str) -> Coefficients | None:
        """Mode and marginal variances of an entity as saved; None when it never learned."""
        posterior = self._book.load(entity_id)
        return None if posterior is None else self.describe({entity_id: posterior})[entity_id]

    def describe(self, posteriors: Mapping[str, Posterior]) -> dict[str, Coefficients]:
        """Coefficients of entities by id, whose posteriors must be up to date."""
        variances = self.fitter.variances(list(posteriors.values()))
        return {
            entity_id: Coefficients(
                effect=self.name,
                entity_id=entity_id,
                model_version=self._model_version,
                mean=np.frombuffer(posterior.mode).tolist(),
                variance=variance,
                examples=posterior.examples,
                event_time_ms=posterior.time_ms,
            )
            for (entity_id, posterior), variance in zip(posteriors.items(), variances, strict=True)
        }

    def _save(self) -> list[str]:
        """Refit what is stale, save what changed; it stays in memory."""
        changed = list(self._changed)
        stale = [entity_id for entity_id in changed if entity_id in self._stale]
        for at in range(0, len(stale), _AT_ONCE):
            self._refit(stale[at : at + _AT_ONCE])
        for entity_id in changed:
            posterior = self._live[entity_id]
            if posterior is None:
                self._book.remove(entity_id)
            else:
                self._book.save(entity_id, posterior)
        self._work = 0
        self._stale.clear()
        self._changed.clear()
        return changed

    def _evict(self) -> None:
        """Forget what has been in memory for longest, when there is too much; all is saved."""
        if self._weight <= self._most_held:
            return
        for entity_id in list(self._live):
            self._weight -= _weight(self._live.pop(entity_id))
            if self._weight <= self._most_held // 2:
                return

    def _get(self, entity_id: str) -> Posterior | None:
        if entity_id in self._live:
            return self._live[entity_id]
        posterior = self._live[entity_id] = self._book.load(entity_id)
        self._weight += _weight(posterior)
        return posterior

    def _enter(self, entity_id: str, posterior: Posterior, example: Example, label: Label) -> bool:
        """Add an example to what an entity knows, or replace one; False: nothing changes."""
        kept = posterior.kept
        at, there = kept.place(example)
        if there:
            # The offset is that of the first sight in every label: only the label itself changes.
            weight = kept.weights[at]
            if (example.rung, example.weight) <= (kept.rung(at), weight):
                return False
            # A negative of weight 1 that has become final has the mode that it had.
            if (target(example.kind), example.weight) != (target(kept.kind(at)), weight):
                self._outdate(entity_id, posterior)
            kept.replace(at, example)
            return True
        if label.previous is not None and posterior.folded:
            before = target(BY_NAME[label.previous])
            before_weight = 1.0 if label.previous_weight is None else label.previous_weight
            if (target(example.kind), example.weight) == (before, before_weight):
                return False
            if entity_id in self._stale and example.weight != before_weight:
                self._refit([entity_id])
            self.fitter.age(posterior, example.time_ms)
            self.fitter.correct(posterior, example, before, before_weight)
        else:
            self.fitter.age(posterior, example.time_ms)
            kept.insert(at, example)
            self._weight += 1
        self._outdate(entity_id, posterior)
        return True

    def _example(self, label: Label) -> Example:
        """Return the label as this effect's entity sees it."""
        offset = label.global_score
        if self._with_member:
            offset += label.member_score
        if self._with_job:
            offset += label.job_score
        if label.further_scores and self._settings.coupled:
            further = label.further_scores.items()
            offset += sum(score for name, score in further if name != self.spec.name)
        # Applications are numbered per job: elsewhere the length keeps (job, id) pairs apart.
        identity = label.application_id
        if not self._of_job:
            identity = f"{len(label.job_id)}:{label.job_id}{identity}"
        return Example(  # in order: it is made for every label
            label.application_time_ms,
            identity,
            BY_NAME[label.kind],
            label.final,
            label.weight,
            offset,
            self._features(label),
        )

    def _refit(self, entity_ids: Sequence[str]) -> None:
        """Bring modes up to date with their labels."""
        live = [self._live[entity_id] for entity_id in entity_ids]
        posteriors = [posterior for posterior in live if posterior is not None]
        self._work -= sum([posterior.cost for posterior in posteriors])
        self.fitter.fit(posteriors)
        self._work += sum([posterior.cost for posterior in posteriors])
        self._stale.difference_update(entity_ids)

    def _outdate(self, entity_id: str, posterior: Posterior) -> None:
        """Note that a mode has not seen all labels; its refit will cost about what the last did."""
        if entity_id not in self._stale:
            self._stale.add(entity_id)
            self._work += posterior.cost

    def _fold(self, entity_id: str, posterior: Posterior, most: int, *, final: bool) -> None:
        """Fold the oldest of a sort when there are too many of it, at the mode as of now."""
        kept = posterior.kept
        if len(kept) < most + FOLD or kept.count(final=final) < most + FOLD:
            return
        oldest = kept.places(final=final)[:FOLD]
        if entity_id in self._stale:
            self._refit([entity_id])
        self.fitter.fold(posterior, oldest, final=final)
        self._weight -= len(oldest)
        # The mode stays where it is, but for rounding: fitted again before it is used.
        self._outdate(entity_id, posterior)


def _weight(posterior: Posterior | None) -> int:
    """Share of ``MOST_HELD``, in examples: an entity takes as much room as three of its own."""
    return 1 if posterior is None else 3 + len(posterior.kept)
