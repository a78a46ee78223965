"""Between posteriors and arrays: packs what is fitted together, calls the kernel, unpacks.

A kernel is whatever finds the mode of many entities at once: :mod:`stream.updaters.newton`, or
another module or object with the two functions of :class:`Kernel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError, StateError
from stream.events.ladder import target
from stream.policy import EffectSettings
from stream.updaters.folding import correct, fold, sigmoid
from stream.updaters.kept import Example, Kept, Posterior

_Vector = NDArray[np.float64]
_Features = NDArray[np.float32]
_FLOAT32 = np.dtype("<f4")
_TARGETS = np.array([float(target(label >> 1)) for label in range(256)])
"""Training target of a label in the column of :class:`~stream.updaters.kept.Kept`."""


class Kernel(Protocol):
    """What finds modes and variances; ``tests/updaters/test_kernel_contract.py`` holds it to that.

    Both take m entities, one after the other: entity e has the rows starts[e] to starts[e + 1],
    starts (m + 1,) int64. The objective is that of :mod:`stream.updaters.newton`. Only ``theta`` of
    ``fit_all`` is written to.
    """

    def fit_all(
        self,
        starts: NDArray[np.int64],
        Z: _Features,
        y: _Vector,
        w: _Vector,
        o: _Vector,
        precision: float,
        F: _Vector,
        f: _Vector,
        theta: _Vector,
        tolerance: float,
        /,
    ) -> NDArray[np.int64]:
        """Move ``theta`` to the modes, in place.

        Args:
            starts: see above. Z: features of all (N, d). y: targets in [0, 1], w: weights ≥ 0,
                o: offsets in log-odds, all (N,).
            precision: λ > 0.
            F: folded precisions, (m, d, d) or diagonals (m, d). f: linear parts (m, d).
            theta: where to begin (m, d).
            tolerance: of the squared distance to the mode in standard deviations.

        Returns:
            Steps taken by each (m,); negative where it did not come to the mode.

        """

    def variances_all(
        self,
        starts: NDArray[np.int64],
        Z: _Features,
        w: _Vector,
        o: _Vector,
        precision: float,
        F: _Vector,
        theta: _Vector,
        /,
    ) -> _Vector:
        """Diagonals of the inverse Hessians at ``theta`` (m, d); arguments as of ``fit_all``."""


class Fitter:
    """Refits posteriors of one effect, folds examples, describes what is known.

    Args:
        kernel: that does it.
        size: d, the number of features.
        settings: prior, forgetting, and up to where F is a full matrix, as
            :meth:`stream.policy.EffectSettings.fitted` gives them.
        tolerance: of the kernel.

    Attributes:
        refits: entities refitted. newton_steps: of all refits. unconverged: refits that did not
            come to the mode. folded, overflowed: final and provisional examples folded.

    """

    def __init__(
        self, kernel: Kernel, size: int, settings: EffectSettings, tolerance: float
    ) -> None:
        self.refits = 0
        self.newton_steps = 0
        self.unconverged = 0
        self.folded = 0
        self.overflowed = 0
        self._kernel = kernel
        self._size = size
        self._settings = settings
        self._full = size <= settings.full_up_to
        self._precision, self._beyond = _prior(settings, size)
        self._step_cost = size * (size // 4 + 8)  # of an example, in multiplications
        self._tolerance = tolerance

    def fit(self, posteriors: Sequence[Posterior]) -> None:
        """Bring modes up to date with their labels, in one call for all of a shape."""
        for group in _by_shape(posteriors):
            starts, Z, y, w, o, F, f, modes = self._packed(group)
            theta = modes.copy()
            steps = self._kernel.fit_all(
                starts, Z, y, w, o, self._precision, F, f, theta, self._tolerance
            ).tolist()
            for posterior, mode, taken in zip(group, theta, steps, strict=True):
                posterior.mode = mode.tobytes()
                posterior.cost = (abs(taken) + 1) * len(posterior.kept) * self._step_cost
            self.refits += len(steps)
            self.newton_steps += sum(map(abs, steps))
            self.unconverged += sum(taken < 0 for taken in steps)

    def variances(self, posteriors: Sequence[Posterior]) -> list[list[float]]:
        """Marginal variances (d,) of each, at its mode, which must be up to date."""
        found: dict[int, list[float]] = {}
        for group in _by_shape(posteriors):
            starts, Z, _, w, o, F, _, theta = self._packed(group)
            variances = self._kernel.variances_all(
                starts, Z, w, o, self._precision, F, theta
            ).tolist()
            found.update(zip(map(id, group), variances, strict=True))
        return [found[id(posterior)] for posterior in posteriors]

    def fold(self, posterior: Posterior, places: list[int], *, final: bool) -> None:
        """Fold the examples at some places, at the mode, which must be up to date."""
        Z, y, w, o = _arrays(
            [(posterior.time_ms, posterior.kept.take(places))],
            self._size,
            self._settings.half_life_ms,
        )
        F, f = self._folded(posterior)
        fold(F, f, Z.astype(np.float64), y, w, o, np.frombuffer(posterior.mode), final=final)
        posterior.precision, posterior.linear = F.tobytes(), f.tobytes()
        posterior.drop(places)
        if final:
            self.folded += len(places)
        else:
            self.overflowed += len(places)

    def correct(
        self, posterior: Posterior, example: Example, before: int, before_weight: float
    ) -> None:
        """Correct an example that overflowed, at the mode, up to date where the weight changes.

        Args:
            posterior: of the entity. example: as it is now.
            before: the target that it was folded with. before_weight: its weight, not aged.

        """
        F, f = self._folded(posterior)
        Z, y, w, o = self._arrays([(posterior.time_ms, Kept.of([example]))])
        correct(
            F,
            f,
            Z[0].astype(np.float64),
            targets=(before, float(y[0])),
            weights=(w[0] * before_weight / example.weight, w[0]),
            offset=float(o[0]),
            theta=np.frombuffer(posterior.mode),
        )
        posterior.precision, posterior.linear = F.tobytes(), f.tobytes()

    def age(self, posterior: Posterior, time_ms: int) -> None:
        """Let T grow; what was folded loses weight as the kept examples do."""
        if time_ms <= posterior.time_ms:
            return
        half_life_ms = self._settings.half_life_ms
        if half_life_ms is not None and posterior.linear:
            factor = 2.0 ** (-(time_ms - posterior.time_ms) / half_life_ms)
            F, f = self._folded(posterior)
            posterior.precision, posterior.linear = (F * factor).tobytes(), (f * factor).tobytes()
        posterior.time_ms = time_ms

    def _folded(self, posterior: Posterior) -> tuple[_Vector, _Vector]:
        """F, (d, d) or its diagonal (d,), and f (d,): writable copies."""
        d = self._size
        if not posterior.linear:
            return np.zeros((d, d) if self._full else d), np.zeros(d)
        F, f = _natural([posterior], d, full=self._full)
        return F[0].copy(), f[0].copy()

    def _packed(
        self, group: Sequence[Posterior]
    ) -> tuple[NDArray[np.int64], _Features, _Vector, _Vector, _Vector, _Vector, _Vector, _Vector]:
        """Where the examples of each begin; Z, y, w, o of all; F, f and modes of each.

        Of a prior that is not the same for all features, what lies beyond its smallest λ is in F:
        then λI + F is what it should be, and kernels need one λ only.
        """
        starts = np.array([0, *accumulate(len(each.kept) for each in group)])
        Z, y, w, o = self._arrays([(each.time_ms, each.kept) for each in group])
        F, f = _natural(group, self._size, full=self._full)
        if self._beyond is not None:
            F = F + (self._beyond if F.ndim == 2 else np.diag(self._beyond))
            F.flags.writeable = False  # as the views of bytes that kernels are compiled for
        modes = np.frombuffer(b"".join([posterior.mode for posterior in group]))
        return starts, Z, y, w, o, F, f, modes.reshape(f.shape)

    def _arrays(
        self, parts: Sequence[tuple[int, Kept]]
    ) -> tuple[_Features, _Vector, _Vector, _Vector]:
        return _arrays(parts, self._size, self._settings.half_life_ms)


def _by_shape(posteriors: Sequence[Posterior]) -> list[list[Posterior]]:
    """Those of which nothing is folded, and those of which something is; no empty groups."""
    if len(posteriors) == 1:
        return [list(posteriors)]
    whole = [posterior for posterior in posteriors if not posterior.linear]
    folded = [posterior for posterior in posteriors if posterior.linear]
    return [group for group in (whole, folded) if group]


def precision_at_mode(posterior: Posterior, settings: EffectSettings) -> _Vector:
    """H = Λ + F + Z'WZ at the mode, (d, d): what the marginal variances are taken from.

    ``settings`` as :class:`Fitter` has them. Λ: the diagonal of the prior.
    """
    theta = np.frombuffer(posterior.mode)
    d = len(theta)
    Z32, _, w, o = _arrays([(posterior.time_ms, posterior.kept)], d, settings.half_life_ms)
    F, _ = _natural([posterior], d, full=d <= settings.full_up_to)
    Z = Z32.astype(np.float64)
    p = sigmoid(o + Z @ theta)
    H = (Z * (w * p * (1.0 - p))[:, None]).T @ Z + (F[0] if F.ndim == 3 else np.diag(F[0]))
    precision, beyond = _prior(settings, d)
    if beyond is not None:
        H += np.diag(beyond)
    return np.asarray(H + precision * np.eye(d))


def _prior(settings: EffectSettings, d: int) -> tuple[float, _Vector | None]:
    """Return the smallest λ and what each feature has beyond it (d,); None: nothing."""
    if not isinstance(settings.prior_precision, dict):
        return settings.prior_precision, None
    each = np.array(list(settings.prior_precision.values()))
    if each.shape != (d,):
        raise ConfigError("prior_precision by name has not the effect's features: fit the settings")
    least = float(each.min())
    return least, each - least


def _natural(posteriors: Sequence[Posterior], d: int, *, full: bool) -> tuple[_Vector, _Vector]:
    """F of m posteriors, (m, d, d) or diagonals (m, d), and f (m, d): read-only views.

    Either all of them have something folded or none: then F is the diagonals of nothing, with
    which a kernel is quick.
    """
    if not posteriors[0].linear:
        nothing = np.frombuffer(bytes(8 * d * len(posteriors))).reshape(len(posteriors), d)
        return nothing, nothing
    shape = (d, d) if full else (d,)
    for posterior in posteriors:
        if len(posterior.precision) != 8 * d * (d if full else 1):
            raise StateError("the state was learned with another full_up_to: start over")
    F = np.frombuffer(b"".join([posterior.precision for posterior in posteriors]))
    f = np.frombuffer(b"".join([posterior.linear for posterior in posteriors]))
    return F.reshape(-1, *shape), f.reshape(-1, d)


def _arrays(
    parts: Sequence[tuple[int, Kept]], d: int, half_life_ms: int | None
) -> tuple[_Features, _Vector, _Vector, _Vector]:
    """Z (n, d), y, w aged to the T that stands beside the examples, o (n,); of all parts."""
    # Into bytearrays: the kernel is compiled for columns that may be written to.
    labels = b"".join([kept.labels for _, kept in parts])
    y = _TARGETS[np.frombuffer(labels, np.uint8)]
    w = np.frombuffer(bytearray().join([kept.weights for _, kept in parts]))
    o = np.frombuffer(bytearray().join([kept.offsets for _, kept in parts]))
    packed = b"".join([kept.features for _, kept in parts])
    Z = np.frombuffer(packed, dtype=_FLOAT32).reshape(len(y), d)
    if half_life_ms is not None:
        times_ms = np.frombuffer(b"".join([kept.times_ms for _, kept in parts]), np.int64)
        now_ms: int | NDArray[np.int64] = parts[0][0]
        if len(parts) > 1:
            now_ms = np.repeat([time_ms for time_ms, _ in parts], [len(kept) for _, kept in parts])
        w = w * np.exp2((now_ms - times_ms) / -half_life_ms)
    return Z, y, w, o
