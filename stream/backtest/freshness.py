"""What a model loses when its updates stop: the freshness curve.

At several moments the coefficients are frozen, and every application of the following weeks is
scored three ways: as it was (updated at every label), with both effects frozen, and with none. The
share of the effects' advantage that is left, by how long ago updates stopped:

    both:    (frozen − global) / (live − global)
    member:  (member frozen, job live − job live alone) / (live − job live alone)
    job:     likewise with the roles changed

of AUC, and of log loss. A member or job that came after the freeze scores 0, as in a model that
was never updated. Shapes: n applications, E entities, d features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.backtest.judgement import Interval, Judge, Sums, divided, interval
from stream.backtest.rehearsal import Modes, Rehearsal
from stream.effects import JOB, MEMBER, EffectSpec
from stream.policy import DAY_MS

MOST_FREEZES: Final = 12
EDGES_DAYS: Final = (0, 1, 3, 7, 14, 21, 28, 35, 42, 56, 70, 84)
"""Ages of the frozen coefficients between which applications are taken together."""

FEWEST: Final = 300
FEWEST_OF_EACH: Final = 30

_EVERY_MS: Final = 7 * DAY_MS
_LEAST_ADVANTAGE: Final = 0.005  # of AUC: shares of less are noise

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of an advantage; None where there was none to lose."""

    auc: Interval | None
    log_loss: Interval | None


class AgePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Applications that came between ``from_days`` and ``to_days`` after updates stopped."""

    from_days: float
    to_days: float
    mean_days: float
    applications: int
    auc_live: float
    auc_frozen: float
    auc_global: float
    log_loss_live: float
    log_loss_frozen: float
    log_loss_global: float
    both: Share
    member: Share
    job: Share


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """The curve. ``half_life_days``: when half of the AUC's advantage is lost.

    None where it is not lost within the curve; then the interval is None too, or begins where
    the draws' would.
    """

    frozen_at_ms: list[int]
    points: list[AgePoint]
    half_life_days: dict[str, Interval | None]


_ROW: Final = np.dtype([("number", "<i8"), ("age_ms", "<i8"), ("member", "<f8"), ("job", "<f8")])
"""An application as scored with coefficients of a certain age."""

_Rows = NDArray[np.void]


class Freezer:
    """Scores what follows each freeze with the coefficients of that moment.

    Args:
        rehearsal: the recording.
        judged: which applications count (n,).
        from_ms, until_ms: the first freeze may be at the one, the last application at the other.

    Attributes:
        pauses: application number → the freeze's time; to be given to ``rehearse``.
        rows: all that was scored so far, freeze after freeze, each a :data:`_ROW`.

    """

    def __init__(
        self, rehearsal: Rehearsal, judged: NDArray[np.bool_], from_ms: int, until_ms: int
    ) -> None:
        self._judged = judged
        self._times_ms = rehearsal.times_ms
        self._entities = [_Entities(rehearsal, spec) for spec in (MEMBER, JOB)]
        self.rows = np.empty(0, _ROW)
        self.pauses: dict[int, int] = {}
        for freeze_ms in _freezes(from_ms, until_ms):
            after = np.flatnonzero(self._times_ms >= freeze_ms)
            if len(after):
                self.pauses[int(after[0])] = freeze_ms

    def freeze(self, number: int, modes: dict[str, Modes]) -> None:
        """Take the coefficients as they are before this application is scored."""
        freeze_ms = self.pauses[number]
        age_ms = self._times_ms - freeze_ms
        chosen = self._judged & (age_ms >= 0) & (age_ms < EDGES_DAYS[-1] * DAY_MS)
        rows = np.empty(np.count_nonzero(chosen), _ROW)
        rows["number"] = np.flatnonzero(chosen)
        rows["age_ms"] = age_ms[chosen]
        for one in self._entities:
            rows[one.spec.kind] = one.scores(rows["number"], modes.get(one.spec.name, {}))
        self.rows = np.concatenate([self.rows, rows])

    def curve(
        self, targets: _Floats, fixed: _Floats, *, member: _Floats, job: _Floats, blocks: _Ints
    ) -> Freshness:
        """Judge it all.

        Args:
            targets, fixed, member, job: final labels, global and live scores (n,).
            blocks: block of each application (n,), for the intervals.

        """
        count = int(blocks.max(initial=-1)) + 1
        points: list[AgePoint] = []
        drawn: list[dict[str, _Floats]] = []
        for low, high in itertools.pairwise(EDGES_DAYS):
            age_ms = self.rows["age_ms"]
            rows = self.rows[(age_ms >= low * DAY_MS) & (age_ms < high * DAY_MS)]
            numbers = rows["number"]
            y = targets[numbers]
            if len(y) < FEWEST or not FEWEST_OF_EACH <= y.sum() <= len(y) - FEWEST_OF_EACH:
                continue
            judge = Judge(y, blocks[numbers], count)
            live = (column[numbers] for column in (fixed, member, job))
            point, of_draws = _point(judge, (low, high), rows, *live)
            points.append(point)
            drawn.append(of_draws)
        ages = [point.mean_days for point in points]
        return Freshness(
            frozen_at_ms=list(self.pauses.values()),
            points=points,
            half_life_days={
                name: _half_life(
                    ages, [_value(getattr(point, name).auc) for point in points],
                    [one[name] for one in drawn], count,
                )
                for name in ("both", "member", "job")
            },
        )  # fmt: skip


class _Entities:
    """One effect's side of all applications: whose coefficients (n,), features (n, d)."""

    def __init__(self, rehearsal: Rehearsal, spec: EffectSpec) -> None:
        self.spec = spec
        self._index: dict[str, int] = {}
        ids = [getattr(one, spec.entity) for one in rehearsal.applications]
        self._of = np.array([self._index.setdefault(one, len(self._index)) for one in ids])
        packed = b"".join(getattr(one.features, spec.block) for one in rehearsal.applications)
        size = rehearsal.space.block(spec.block).size
        self._z = np.frombuffer(packed, dtype="<f4").reshape(len(ids), size)

    def scores(self, numbers: _Ints, modes: Modes) -> _Floats:
        """z'θ of some applications, 0 for an entity without coefficients."""
        theta = np.zeros((len(self._index), self._z.shape[1]))
        for entity, mode in modes.items():
            theta[self._index[entity]] = np.frombuffer(mode)
        scores: _Floats = (self._z[numbers] * theta[self._of[numbers]]).sum(axis=1)
        return scores


def _freezes(from_ms: int, until_ms: int) -> list[int]:
    """Every week, or less often: while two weeks are left to be lost."""
    every_ms = _EVERY_MS
    while (until_ms - from_ms) // every_ms > MOST_FREEZES + 1:
        every_ms += _EVERY_MS
    return list(range(from_ms, until_ms - 2 * _EVERY_MS, every_ms))[:MOST_FREEZES]


def _point(
    judge: Judge, edges: tuple[int, int], rows: _Rows, fixed: _Floats, member: _Floats, job: _Floats
) -> tuple[AgePoint, dict[str, _Floats]]:
    """Judge one range of ages; also the shares of AUC in every draw, by effect."""
    live, frozen, alone = (
        judge.sums(fixed + member + job),
        judge.sums(fixed + rows["member"] + rows["job"]),
        judge.sums(fixed),
    )
    job_live, member_live = judge.sums(fixed + job), judge.sums(fixed + member)
    triples = {
        "both": (live, frozen, alone),
        "member": (live, judge.sums(fixed + rows["member"] + job), job_live),
        "job": (live, judge.sums(fixed + member + rows["job"]), member_live),
    }
    shares = {}
    of_draws = {}
    for name, triple in triples.items():
        auc, drawn = _share(judge, Sums.auc, 1.0, *triple)
        log_loss, _ = _share(judge, Sums.log_loss, -1.0, *triple)
        shares[name] = Share(auc=auc, log_loss=log_loss)
        of_draws[name] = drawn

    def figures(figure: Callable[[Sums, _Floats], _Floats]) -> list[float]:
        return [float(figure(sums, judge.whole)[0]) for sums in (live, frozen, alone)]

    auc_live, auc_frozen, auc_global = figures(Sums.auc)
    loss_live, loss_frozen, loss_global = figures(Sums.log_loss)
    point = AgePoint(
        from_days=float(edges[0]),
        to_days=float(edges[1]),
        mean_days=float(rows["age_ms"].mean()) / DAY_MS,
        applications=len(rows),
        auc_live=auc_live,
        auc_frozen=auc_frozen,
        auc_global=auc_global,
        log_loss_live=loss_live,
        log_loss_frozen=loss_frozen,
        log_loss_global=loss_global,
        both=shares["both"],
        member=shares["member"],
        job=shares["job"],
    )
    return point, of_draws


def _share(
    judge: Judge,
    figure: Callable[[Sums, _Floats], _Floats],
    sign: float,
    live: Sums,
    frozen: Sums,
    without: Sums,
) -> tuple[Interval | None, _Floats]:
    """What is left of an advantage, as a value with interval, and in every draw (B,)."""

    def share(draws: _Floats) -> _Floats:
        base = figure(without, draws)
        gained, kept = sign * (figure(live, draws) - base), sign * (figure(frozen, draws) - base)
        return divided(kept, gained, _LEAST_ADVANTAGE / 10)

    drawn = share(judge.draws)
    advantage = sign * (figure(live, judge.whole)[0] - figure(without, judge.whole)[0])
    if not advantage > _LEAST_ADVANTAGE:
        return None, drawn
    return interval(float(share(judge.whole)[0]), drawn, len(judge.whole[0])), drawn


def _half_life(
    ages: list[float], shares: list[float], drawn: list[_Floats], blocks: int
) -> Interval | None:
    """When the curve first falls to one half, with the interval over the draws."""
    value = _crossing(ages, shares)
    if value is None:
        return None
    found = [
        _crossing(ages, list(one)) for one in np.array(drawn).T
    ]  # a draw that never falls that low: later than the curve
    times = np.array([np.inf if one is None else one for one in found])
    within = interval(value, times, blocks)
    if within.high is not None and not np.isfinite(within.high):
        return Interval(value, within.low, None)
    return within


def _crossing(ages: list[float], shares: list[float]) -> float | None:
    """Age at which the curve from (0, 1) first reaches ½, by straight lines between points."""
    age_before, before = 0.0, 1.0
    for age, share in zip(ages, shares, strict=True):
        if np.isnan(share):
            continue
        if share <= 0.5:
            return age_before + (age - age_before) * (before - 0.5) / (before - share)
        age_before, before = age, share
    return None


def _value(found: Interval | None) -> float:
    return float("nan") if found is None else found.value
