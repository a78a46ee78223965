"""One effect: a posterior per entity, refitted lazily.

An entity with new labels is refitted when it is next needed (to score an application) or at the
flush. So labels that come together cost one refit, and a score always sees every label learned
before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.errors import StateError
from stream.events import Coefficients, Label
from stream.features import vector
from stream.labels.ladder import BY_NAME, target
from stream.policy import EffectSettings
from stream.updaters import newton
from stream.updaters.folding import fold
from stream.updaters.posterior import Example, Posterior

EffectName = Literal["per_member", "per_job"]

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
        name: ``per_member`` or ``per_job``.
        size: d, the number of features.
        settings: prior, forgetting and limits.
        model_version: version of the frozen global model, carried into the coefficients.
        book: where posteriors are kept.
        tolerance: of the Newton steps; tests of equality use a smaller one.

    """

    def __init__(
        self,
        name: EffectName,
        size: int,
        settings: EffectSettings,
        model_version: str,
        book: PosteriorBook,
        tolerance: float = newton.TOLERANCE,
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
        full = size <= settings.full_up_to
        self._shape = (size, size) if full else (size,)  # of F
        self._folded_bytes = 8 * size * (size if full else 1)
        self._live: dict[str, Posterior | None] = {}
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
            posterior = Posterior(bytes(8 * self._size), example.time_ms, [example])
            self._live[entity_id] = posterior
        elif (replaced := posterior.replace(example)) is False:
            return False
        elif replaced is None:
            self._age(posterior, example.time_ms)
            if label.previous is None or not posterior.folded:
                posterior.add(example)
            elif not self._correct(posterior, example, label.previous):
                return False
        self._stale.add(entity_id)
        self._changed[entity_id] = None
        self._fold(entity_id, posterior, self._settings.capacity, final=True)
        self._fold(entity_id, posterior, self._settings.open_limit, final=False)
        return new

    def forget(self, entity_id: str) -> None:
        """Let an entity go, as if it had never learned; it counts as changed."""
        self._live[entity_id] = None
        self._stale.discard(entity_id)
        self._changed[entity_id] = None

    def entity_of(self, label: Label) -> str:
        """Id of the entity that a label belongs to."""
        return label.member_id if self.name == "per_member" else label.job_id

    def newest_ms(self, entity_id: str) -> int | None:
        """T of an entity, its largest application time; None when it is not there."""
        posterior = self._get(entity_id)
        return None if posterior is None else posterior.time_ms

    def flush(self) -> list[str]:
        """Refit what is stale, save what changed; return the changed entities, gone ones too."""
        changed = list(self._changed)
        self._refit([entity_id for entity_id in changed if entity_id in self._stale])
        for entity_id in changed:
            posterior = self._live[entity_id]
            if posterior is None:
                self._book.remove(entity_id)
            else:
                self._book.save(entity_id, posterior)
        self.discard()
        return changed

    def discard(self) -> None:
        """Forget what was learned since the last flush."""
        self._live.clear()
        self._stale.clear()
        self._changed.clear()

    def coefficients(self, entity_id: str) -> Coefficients | None:
        """Mode and marginal variances of an entity as saved; None when it never learned."""
        posterior = self._book.load(entity_id)
        return None if posterior is None else self.describe(entity_id, posterior)

    def describe(self, entity_id: str, posterior: Posterior) -> Coefficients:
        """Coefficients message of a posterior."""
        Z, _, w, o = self._columns([(posterior.time_ms, posterior.kept)])
        F, _ = self._natural([posterior])
        mode = np.frombuffer(posterior.mode)
        variance = newton.variances(Z, w, o, self._settings.prior_precision, F[0], mode)
        return Coefficients(
            effect=self.name,
            entity_id=entity_id,
            model_version=self._model_version,
            mean=mode.tolist(),
            variance=variance.tolist(),
            examples=posterior.examples,
            event_time_ms=posterior.time_ms,
        )

    def _get(self, entity_id: str) -> Posterior | None:
        if entity_id not in self._live:
            self._live[entity_id] = self._book.load(entity_id)
        return self._live[entity_id]

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
        folded: list[Posterior] = []
        whole: list[Posterior] = []
        for entity_id in entity_ids:
            posterior = self._live[entity_id]
            if posterior is not None:
                (folded if posterior.linear else whole).append(posterior)
                self._stale.discard(entity_id)
        for posteriors in (whole, folded):
            if posteriors:
                self._fit(posteriors)

    def _fit(self, posteriors: list[Posterior]) -> None:
        """Refit posteriors, all of which have something folded or none of which has."""
        starts = np.array([0, *accumulate(len(posterior.kept) for posterior in posteriors)])
        Z, y, w, o = self._columns(
            [(posterior.time_ms, posterior.kept) for posterior in posteriors]
        )
        F, f = self._natural(posteriors)
        modes = np.frombuffer(b"".join([posterior.mode for posterior in posteriors]))
        theta = modes.reshape(f.shape).copy()
        taken = newton.fit_all(
            starts, Z, y, w, o, self._settings.prior_precision, F, f, theta, self._tolerance
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
        Z, y, w, o = self._columns([(posterior.time_ms, oldest)])
        F, f = self._folded(posterior)
        fold(F, f, Z.astype(np.float64), y, w, o, np.frombuffer(posterior.mode), final=final)
        posterior.precision, posterior.linear = F.tobytes(), f.tobytes()
        posterior.drop(oldest)
        # The mode stays where it is, but for rounding: fitted again before it is used.
        self._stale.add(entity_id)
        if final:
            self.folded += len(oldest)
        else:
            self.overflowed += len(oldest)

    def _correct(self, posterior: Posterior, example: Example, previous: str) -> bool:
        """Correct an example that is folded already: the log-likelihood is linear in y."""
        change = target(example.kind) - target(BY_NAME[previous])
        if not change:
            return False
        _, f = self._folded(posterior)
        _, _, w, _ = self._columns([(posterior.time_ms, [example])])
        f += w[0] * change * vector(example.z)
        posterior.linear = f.tobytes()
        if not posterior.precision:
            posterior.precision = self._folded(posterior)[0].tobytes()
        return True

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

    def _columns(
        self, parts: Sequence[tuple[int, list[Example]]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Z (n, d), y, w aged to the T that stands beside the examples, o (n,); of all parts."""
        examples = [example for _, part in parts for example in part]
        packed = b"".join([example.z for example in examples])
        Z = np.frombuffer(packed, dtype=_FLOAT32).reshape(len(examples), self._size)
        y = np.array([target(example.kind) for example in examples], dtype=np.float64)
        w = np.array([example.weight for example in examples], dtype=np.float64)
        o = np.array([example.offset for example in examples], dtype=np.float64)
        half_life_ms = self._settings.half_life_ms
        if half_life_ms is not None:
            ages_ms = [now_ms - example.time_ms for now_ms, part in parts for example in part]
            w *= np.exp2(np.array(ages_ms, dtype=np.float64) / -half_life_ms)
        return Z, y, w, o
