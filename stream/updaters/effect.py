"""One effect: a posterior per entity, refitted lazily.

An entity with new labels is refitted when it is next needed (to score an application) or at the
flush. So labels that come together cost one refit, and a score always sees every label learned
before it. What was used lately stays in memory, whatever is flushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.errors import StateError
from stream.events.structs import Coefficients, Label
from stream.features.blocks import vector
from stream.labels.ladder import BY_NAME, target
from stream.policy import FOLD, EffectSettings
from stream.updaters import newton
from stream.updaters.folding import fold
from stream.updaters.kept import Example, Kept
from stream.updaters.posterior import Posterior

EffectName = Literal["per_member", "per_job"]

MOST_HELD = 1 << 14
"""Examples in memory after a flush, about 200 bytes each and four more for each feature."""

_AT_ONCE = 1 << 12  # entities refitted in one call at a flush: the call copies all their examples
_FLOAT32 = np.dtype("<f4")
_TARGETS = np.array([float(target(label >> 1)) for label in range(256)])
"""Training target of a label in the column of :class:`~stream.updaters.kept.Kept`."""


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
        name: ``per_member`` or ``per_job``.
        size: d, the number of features.
        settings: prior, forgetting and limits.
        model_version: version of the frozen global model, carried into the coefficients.
        book: where posteriors are kept.
        tolerance: of the Newton steps; tests of equality use a smaller one.
        most_held: examples in memory after a flush.

    """

    def __init__(
        self,
        name: EffectName,
        size: int,
        settings: EffectSettings,
        model_version: str,
        book: PosteriorBook,
        tolerance: float = newton.TOLERANCE,
        most_held: int = MOST_HELD,
    ) -> None:
        self.name: EffectName = name
        self.refits = 0
        self.newton_steps = 0
        self.unconverged = 0
        self.folded = 0
        self.overflowed = 0
        self._size = size
        self._settings = settings
        self._model_version = model_version
        self._book = book
        self._tolerance = tolerance
        self._most_held = most_held
        full = size <= settings.full_up_to
        self._shape = (size, size) if full else (size,)  # of F
        self._folded_bytes = 8 * size * (size if full else 1)
        self._least_folded = min(settings.capacity, settings.open_limit) + FOLD  # kept examples
        self._live: dict[str, Posterior | None] = {}  # what was read or learned lately
        self._weight = 0  # of it: kept examples, and entities that never learned
        self._stale: set[str] = set()  # entities with labels that their mode has not seen
        self._changed: dict[str, None] = {}  # entities to be saved, in order of their first label

    def score(self, entity_id: str, z: bytes) -> float:
        """z'θ in log-odds, having seen every label learned so far; 0 for an unknown entity."""
        posterior = self._get(entity_id)
        if posterior is None:
            return 0.0
        if entity_id in self._stale:
            self._refit([entity_id])
        return float(np.frombuffer(z, _FLOAT32).dot(np.frombuffer(posterior.mode)))

    def learn(self, label: Label) -> bool:
        """Take a label in; a repeat or one that stands lower than what is known does nothing.

        A label of an entity that is not there is learned as new, whatever it was before. Returns
        whether the entity is new.

        In order: age what was folded if T grows; add or replace; fold final examples over
        ``capacity``; overflow provisional ones over ``open_limit``. Whether to fold depends on the
        sequence of labels alone, never on when a flush happens.
        """
        entity_id, example = self._example(label)
        posterior = self._get(entity_id)
        new = posterior is None
        if posterior is None:
            posterior = Posterior(bytes(8 * self._size), example.time_ms, Kept.of([example]))
            self._live[entity_id] = posterior
            self._weight += _weight(posterior) - _weight(None)
            self._stale.add(entity_id)
        elif not self._enter(entity_id, posterior, example, label.previous):
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

    def entity_of(self, label: Label) -> str:
        """Id of the entity that a label belongs to."""
        return label.member_id if self.name == "per_member" else label.job_id

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
        coefficients = self._describe(changed)
        self._evict()
        return [(entity_id, coefficients.get(entity_id)) for entity_id in changed]

    @property
    def is_full(self) -> bool:
        """Whether there is so much in memory that it should be flushed now."""
        return self._weight > 2 * self._most_held

    def discard(self) -> None:
        """Forget what was learned since the last flush, and whatever else is in memory."""
        self._live.clear()
        self._weight = 0
        self._stale.clear()
        self._changed.clear()

    def coefficients(self, entity_id: str) -> Coefficients | None:
        """Mode and marginal variances of an entity as saved; None when it never learned."""
        posterior = self._book.load(entity_id)
        return None if posterior is None else self.describe(entity_id, posterior)

    def describe(self, entity_id: str, posterior: Posterior) -> Coefficients:
        """Coefficients message of a posterior."""
        (variance,) = self._variances([posterior])
        return self._message(entity_id, posterior, variance)

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

    def _describe(self, entity_ids: Sequence[str]) -> dict[str, Coefficients]:
        """Coefficients of entities in memory that are fitted, in one call for all of a shape."""
        found: dict[str, Coefficients] = {}
        for group in self._by_shape(entity_ids):
            variances = self._variances([posterior for _, posterior in group])
            for (entity_id, posterior), variance in zip(group, variances, strict=True):
                found[entity_id] = self._message(entity_id, posterior, variance)
        return found

    def _variances(self, posteriors: Sequence[Posterior]) -> list[list[float]]:
        """Marginal variances of posteriors of one shape."""
        Z, _, w, o = self._arrays([(each.time_ms, each.kept) for each in posteriors])
        F, f = self._natural(posteriors)
        modes = np.frombuffer(b"".join([posterior.mode for posterior in posteriors]))
        found: list[list[float]] = newton.variances_all(
            _starts(posteriors), Z, w, o, self._settings.prior_precision, F, modes.reshape(f.shape)
        ).tolist()
        return found

    def _message(self, entity_id: str, posterior: Posterior, variance: list[float]) -> Coefficients:
        return Coefficients(
            effect=self.name,
            entity_id=entity_id,
            model_version=self._model_version,
            mean=np.frombuffer(posterior.mode).tolist(),
            variance=variance,
            examples=posterior.examples,
            event_time_ms=posterior.time_ms,
        )

    def _get(self, entity_id: str) -> Posterior | None:
        if entity_id in self._live:
            return self._live[entity_id]
        posterior = self._live[entity_id] = self._book.load(entity_id)
        self._weight += _weight(posterior)
        return posterior

    def _enter(
        self, entity_id: str, posterior: Posterior, example: Example, previous: str | None
    ) -> bool:
        """Add an example to what an entity knows, or replace one; False: nothing changes."""
        kept = posterior.kept
        at, there = kept.place(example)
        if there:
            # The offset is that of the first sight in every label: only the label itself changes.
            if example.rung <= kept.rung(at):
                return False
            # A negative that has become final has the mode that it had.
            before = target(kept.kind(at)), kept.weights[at]
            if (target(example.kind), example.weight) != before:
                self._stale.add(entity_id)
            kept.replace(at, example)
            return True
        change: int | None = None
        if previous is not None and posterior.folded:
            change = target(example.kind) - target(BY_NAME[previous])
            if not change:
                return False
        self._age(posterior, example.time_ms)
        if change is None:
            kept.insert(at, example)
            self._weight += 1
        else:
            self._correct(posterior, example, change)
        self._stale.add(entity_id)
        return True

    def _example(self, label: Label) -> tuple[str, Example]:
        """Return the label as this effect's entity sees it."""
        offset = label.global_score
        if self.name == "per_member":
            z, other = label.per_member, label.job_score
            # Applications are numbered per job: the length keeps (job, id) pairs apart.
            identity = f"{len(label.job_id)}:{label.job_id}{label.application_id}"
        else:
            z, other = label.per_job, label.member_score
            identity = label.application_id
        if self._settings.coupled:
            offset += other
        return self.entity_of(label), Example(
            label.application_time_ms,
            identity,
            BY_NAME[label.kind],
            label.final,
            label.weight,
            offset,
            z,
        )

    def _refit(self, entity_ids: Iterable[str]) -> None:
        """Bring modes up to date with their labels, in one call for all of a shape."""
        for group in self._by_shape(entity_ids):
            self._fit([posterior for _, posterior in group])
            self._stale.difference_update([entity_id for entity_id, _ in group])

    def _by_shape(self, entity_ids: Iterable[str]) -> list[list[tuple[str, Posterior]]]:
        """Entities of which nothing is folded, and those of which something is; no empty groups."""
        whole: list[tuple[str, Posterior]] = []
        folded: list[tuple[str, Posterior]] = []
        for entity_id in entity_ids:
            posterior = self._live[entity_id]
            if posterior is not None:
                (folded if posterior.linear else whole).append((entity_id, posterior))
        return [group for group in (whole, folded) if group]

    def _fit(self, posteriors: Sequence[Posterior]) -> None:
        """Refit posteriors, all of which have something folded or none of which has."""
        Z, y, w, o = self._arrays([(each.time_ms, each.kept) for each in posteriors])
        F, f = self._natural(posteriors)
        modes = np.frombuffer(b"".join([posterior.mode for posterior in posteriors]))
        theta = modes.reshape(f.shape).copy()
        taken = newton.fit_all(
            _starts(posteriors),
            Z,
            y,
            w,
            o,
            self._settings.prior_precision,
            F,
            f,
            theta,
            self._tolerance,
        ).tolist()
        for posterior, mode in zip(posteriors, theta, strict=True):
            posterior.mode = mode.tobytes()
        self.refits += len(taken)
        self.newton_steps += sum(map(abs, taken))
        self.unconverged += sum(steps < 0 for steps in taken)

    def _fold(self, entity_id: str, posterior: Posterior, most: int, *, final: bool) -> None:
        """Fold the oldest of a sort when there are too many of it, at the mode as of now."""
        oldest = posterior.oldest(most, final=final)
        if not oldest:
            return
        if entity_id in self._stale:
            self._refit([entity_id])
        Z, y, w, o = self._arrays([(posterior.time_ms, posterior.kept.take(oldest))])
        F, f = self._folded(posterior)
        fold(F, f, Z.astype(np.float64), y, w, o, np.frombuffer(posterior.mode), final=final)
        posterior.precision, posterior.linear = F.tobytes(), f.tobytes()
        posterior.drop(oldest)
        self._weight -= len(oldest)
        # The mode stays where it is, but for rounding: fitted again before it is used.
        self._stale.add(entity_id)
        if final:
            self.folded += len(oldest)
        else:
            self.overflowed += len(oldest)

    def _correct(self, posterior: Posterior, example: Example, change: int) -> None:
        """Correct an example that is folded already by Δy: the log-likelihood is linear in y."""
        _, f = self._folded(posterior)
        _, _, w, _ = self._arrays([(posterior.time_ms, Kept.of([example]))])
        f += w[0] * change * vector(example.z)
        posterior.linear = f.tobytes()

    def _age(self, posterior: Posterior, time_ms: int) -> None:
        """Let T grow; what was folded loses weight as the kept examples do."""
        if time_ms <= posterior.time_ms:
            return
        half_life_ms = self._settings.half_life_ms
        if half_life_ms is not None and posterior.linear:
            factor = 2.0 ** (-(time_ms - posterior.time_ms) / half_life_ms)
            F, f = self._folded(posterior)
            posterior.precision, posterior.linear = (F * factor).tobytes(), (f * factor).tobytes()
        posterior.time_ms = time_ms

    def _folded(self, posterior: Posterior) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """F, (d, d) or its diagonal (d,), and f (d,): writable copies."""
        if not posterior.linear:
            return np.zeros(self._shape), np.zeros(self._size)
        F, f = self._natural([posterior])
        return F[0].copy(), f[0].copy()

    def _natural(
        self, posteriors: Sequence[Posterior]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """F of m posteriors, (m, d, d) or diagonals (m, d), and f (m, d): read-only views.

        Either all of them have something folded or none: then F is the diagonals of nothing, with
        which the kernel is quick.
        """
        d = self._size
        if not posteriors[0].linear:
            nothing = np.frombuffer(bytes(8 * d * len(posteriors))).reshape(len(posteriors), d)
            return nothing, nothing
        for posterior in posteriors:
            if len(posterior.precision) != self._folded_bytes:
                raise StateError(
                    f"the state of {self.name} was learned with another full_up_to: start over"
                )
        F = np.frombuffer(b"".join([posterior.precision for posterior in posteriors]))
        f = np.frombuffer(b"".join([posterior.linear for posterior in posteriors]))
        return F.reshape(-1, *self._shape), f.reshape(-1, d)

    def _arrays(
        self, parts: Sequence[tuple[int, Kept]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Z (n, d), y, w aged to the T that stands beside the examples, o (n,); of all parts."""
        # Into bytearrays: the kernel is compiled for columns that may be written to.
        labels = b"".join([kept.labels for _, kept in parts])
        y = _TARGETS[np.frombuffer(labels, np.uint8)]
        w = np.frombuffer(bytearray().join([kept.weights for _, kept in parts]))
        o = np.frombuffer(bytearray().join([kept.offsets for _, kept in parts]))
        packed = b"".join([kept.features for _, kept in parts])
        Z = np.frombuffer(packed, dtype=_FLOAT32).reshape(len(y), self._size)
        half_life_ms = self._settings.half_life_ms
        if half_life_ms is not None:
            times_ms = np.frombuffer(b"".join([kept.times_ms for _, kept in parts]), np.int64)
            now_ms: int | NDArray[np.int64] = parts[0][0]
            if len(parts) > 1:
                now_ms = np.repeat(
                    [time_ms for time_ms, _ in parts], [len(kept) for _, kept in parts]
                )
            w = w * np.exp2((now_ms - times_ms) / -half_life_ms)
        return Z, y, w, o


def _weight(posterior: Posterior | None) -> int:
    """Share of ``MOST_HELD``, in examples: an entity takes as much room as three of its own."""
    return 1 if posterior is None else 3 + len(posterior.kept)


def _starts(posteriors: Sequence[Posterior]) -> NDArray[np.int64]:
    """Where the examples of each begin, and the last ones end."""
    return np.array([0, *accumulate(len(each.kept) for each in posteriors)])
