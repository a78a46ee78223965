"""SHELL: chooses the effects' settings for a log, by prequential log loss (``hearback tune``).

One setting at a time goes through its grid while the others stay. A value is taken when what it
gains is more than its standard error over the applications, and at least :data:`LEAST_GAIN` (the
rule of one standard error: Breiman et al., Classification and Regression Trees, §3.4.3). The
settings are gone through again until nothing moves, at most :data:`SWEEPS` times; what was tried
before is not tried again. Where the best value is at the end of its grid, the grid grows until it
no longer is. Last in each turn come priors by feature, :data:`ROUNDS` of
:mod:`stream.backtest.empirical` for each effect. Labels are made once
(:mod:`stream.backtest.rehearsal`); a value costs only the learning.

Only events up to ``until`` are read, and only applications whose whole window had passed by then
are judged.

**Global scores are cross-fitted.** A global model scores the very applications that it was fitted
on far too well (on the first quarter of the contest log AUC 0.75, where new applications get
0.59), and settings chosen with such scores leave the effects nothing to learn: they were worse
than the defaults by 0.04 AUC on what followed. So the model that scores an application here was
fitted without its job's applications.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.backtest.decisions import Watch
from stream.backtest.empirical import learned_prior
from stream.backtest.rehearsal import Rehearsal, Rehearsed, rehearse
from stream.configuration.settings import Row, changed, table
from stream.effects import EFFECT_NAMES, EFFECTS
from stream.errors import ConfigError
from stream.features.making import Maker
from stream.logs.files import LogLine, read_head
from stream.model.boosting import fit_boosted
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel
from stream.model.kind import FURTHER, ModelKind
from stream.model.logistic import choose, fit_path
from stream.model.scorer import Floats32, Scorer
from stream.model.training import Trainer
from stream.policy import DAY_MS, HOUR_MS, Policy
from stream.quality.prequential import quality
from stream.quality.ranking import RankingQuality
from stream.quality.tally import Quality
from stream.stages.first_sights import FirstSights
from stream.units import MAX_DURATION_MS

LEAST_GAIN = 1e-4
"""Nats per application that a value must gain at least: less is not worth another policy."""

SWEEPS = 2

ROUNDS = 3
"""Of empirical Bayes: each is tried, and the next one goes on from it, taken or not."""

_PARTS = 5  # of the jobs, for cross-fitting

_Floats = NDArray[np.float64]
_Fit = Callable[[Floats32, NDArray[np.int64]], Scorer]


class Hyperparameter(NamedTuple):
    """One thing to choose: the setting's key in each of these effects, and its grid.

    ``factor``: from one value to the next beyond the grid's ends, which ``limits`` bound; 0: the
    grid does not grow.
    """

    effects: tuple[str, ...]
    key: str
    grid: tuple[Any, ...]
    factor: int = 0
    limits: tuple[float, float] = (0.0, 0.0)

    @property
    def name(self) -> str:
        """As in the policy file; keys that go for both effects stand alone."""
        return self.key if len(self.effects) > 1 else f"{self.effects[0]}.{self.key}"

    def row(self, policy: Policy) -> Row:
        """Return the setting of the first effect, with its value."""
        name = f"effects.{self.effects[0]}.{self.key}"
        return next(row for row in table(policy) if row.name == name)

    def set(self, policy: Policy, value: Any) -> Policy:
        """Return the policy with this value in all of the effects."""
        return changed(policy, {f"effects.{effect}.{self.key}": value for effect in self.effects})

    def beyond(self, values: Collection[Any], best: Any) -> Any | None:
        """Return what to try next where the best of some values is an end of them; else None."""
        numbers = [value for value in values if isinstance(value, int | float)]
        if not self.factor or not isinstance(best, int | float):
            return None
        if best == min(numbers):
            following = best / self.factor
        elif best == max(numbers) and None not in values:  # no half-life is the longest
            following = best * self.factor
        else:
            return None
        following = int(following) if isinstance(best, int) else float(f"{following:.6g}")
        return following if self.limits[0] <= following <= self.limits[1] else None


_PRECISIONS = (0.3, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
_HALF_LIVES = (7 * DAY_MS, 14 * DAY_MS, 30 * DAY_MS, 60 * DAY_MS, 120 * DAY_MS, None)
HYPERPARAMETERS = (
    *(
        Hyperparameter((name,), "prior_precision", _PRECISIONS, 3, (1e-6, 1e6))
        for name in reversed(EFFECT_NAMES)
    ),
    *(
        Hyperparameter((name,), "half_life", _HALF_LIVES, 2, (HOUR_MS, MAX_DURATION_MS))
        for name in reversed(EFFECT_NAMES)
    ),
    Hyperparameter(EFFECT_NAMES, "capacity", (32, 128, 512), 4, (1, 1 << 20)),
    Hyperparameter(EFFECT_NAMES, "coupled", (True, False)),
)
"""In the order in which they are chosen: what matters most comes first."""


PRIOR = Hyperparameter(EFFECT_NAMES, "prior_precision", (1.0, 3.0, 10.0, 30.0), 3, (1e-6, 1e6))
"""One λ for all effects; :mod:`stream.backtest.prior` chooses it alone."""


class Trial(NamedTuple):
    """One policy that was tried: which setting moved to what, how good it was, whether taken.

    ``beyond``: whether the value lies beyond the grid's ends.
    """

    setting: str
    value: str
    policy: Policy
    quality: Quality
    taken: bool
    beyond: bool = False

    def in_words(self) -> str:
        """Name the setting and its value."""
        return f"{self.setting} = {self.value}" if self.value else "the start"


class Tuner:
    """Chooses settings on a recorded log. ``best`` is right at any time, also in between.

    Args:
        rehearsal: of the log up to ``until_ms``.
        policy: where to start; its labels stay.
        until_ms: end of what may be known.

    Attributes:
        judged: mask (n,) of the applications judged. positives: how many were answered.
        alone: how good the global score is without any effect.
        trials: all so far; the first is the policy that was started from.

    Raises:
        ConfigError: there is too little to judge by.

    """

    def __init__(self, rehearsal: Rehearsal, policy: Policy, until_ms: int) -> None:
        self.trials: list[Trial] = []
        self._rehearsal = rehearsal
        self._policy = policy
        first_ms = int(rehearsal.times_ms.min(initial=until_ms))
        self.judged = rehearsal.to_judge(
            first_ms, until_ms, policy.labels.window_ms, "a later --until"
        )
        self.positives = int(rehearsal.targets[self.judged].sum())
        self._targets = rehearsal.targets[self.judged]
        global_scores = rehearsal.global_scores[self.judged]
        self.alone = self._quality(global_scores)
        self._losses_alone = _losses(self._targets, global_scores)
        self._steps = rehearsal.steps[: _last_step(rehearsal, self.judged)]
        self._best_losses = np.empty(0)
        self._best: Rehearsed
        self._last: Rehearsed

    @property
    def best(self) -> Trial:
        """The last trial that was taken."""
        return next(trial for trial in reversed(self.trials) if trial.taken)

    @property
    def gained(self) -> tuple[float, float]:
        """What the best effects gain over the global model alone, in nats, and its error."""
        return _mean_and_error(self._losses_alone - self._best_losses)

    def worth(self) -> str:
        """Say whether the effects are worth anything on this log."""
        gain, error = self.gained
        alone, best = self.alone.log_loss, self.best.quality.log_loss
        if gain < 0.0:
            return f"on this log the global model alone is better: {alone:.3f} against {best:.3f}"
        if gain < error:
            return (
                "on this log the effects gain less than their standard error: global model alone"
                f" {alone:.4f}, with effects {best:.4f}"
            )
        return (
            f"the effects gain {gain:.4f} ± {error:.4f} over the global model alone ({alone:.4f})"
        )

    @property
    def most(self) -> int:
        """How many policies one sweep tries, where no grid grows."""
        return (
            1
            + len(EFFECT_NAMES) * ROUNDS
            + sum(
                len(chosen.grid) - (chosen.row(self._policy).value in chosen.grid)
                for chosen in HYPERPARAMETERS
            )
        )

    def rankings(self, policy: Policy) -> RankingQuality | None:
        """Learn with a policy once more; return how well it ranks when somebody is answered."""
        watch = Watch(self._rehearsal, self._policy.labels.window_ms)
        rehearse(self._rehearsal, policy, steps=self._steps, watch=watch)
        return watch.rankings()

    def run(self) -> Iterator[Trial]:
        """Try, giving each trial when it is done; the start first."""
        yield self._try("start", "", self._policy)
        for _ in range(SWEEPS):
            before = self.best.policy
            for chosen in HYPERPARAMETERS:
                yield from self._through(chosen)
            for effect in reversed(EFFECT_NAMES):
                yield from self._by_feature(effect)
            if self.best.policy == before:
                return

    def prior(self) -> Iterator[Trial]:
        """Try one λ for all effects, giving each trial when it is done; the start first."""
        yield self._try("start", PRIOR.row(self._policy).text, self._policy)
        yield from self._through(PRIOR)

    def _through(self, chosen: Hyperparameter) -> Iterator[Trial]:
        """Try the values of a grid, and beyond its ends."""
        values = [chosen.row(self.best.policy).value, *chosen.grid]
        for value in chosen.grid:
            policy = chosen.set(self.best.policy, value)
            if not self._was_tried(policy):
                yield self._try(chosen.name, chosen.row(policy).text, policy)
        while (value := chosen.beyond(values, chosen.row(self.best.policy).value)) is not None:
            values.append(value)
            policy = chosen.set(self.best.policy, value)
            if self._was_tried(policy):
                return
            yield self._try(chosen.name, chosen.row(policy).text, policy, beyond=True)

    def _by_feature(self, effect: str) -> Iterator[Trial]:
        """Try priors by feature, from what was learned with the best policy."""
        (spec,) = (spec for spec in EFFECTS if spec.name == effect)
        names = self._rehearsal.space.block(spec.block).names
        known = self._best
        for number in range(1, ROUNDS + 1):
            prior = learned_prior(known.effects[effect], known.posteriors[effect], names)
            policy = changed(self.best.policy, {f"effects.{effect}.prior_precision": prior})
            if prior is None or self._was_tried(policy):
                return
            yield self._try(f"{effect}.prior_precision", f"by feature, round {number}", policy)
            known = self._last

    def _was_tried(self, policy: Policy) -> bool:
        return any(trial.policy == policy for trial in self.trials)

    def _try(self, setting: str, value: str, policy: Policy, *, beyond: bool = False) -> Trial:
        rehearsal = self._rehearsal
        self._last = rehearse(rehearsal, policy, steps=self._steps)
        scores = rehearsal.scores(self._last)[self.judged]
        losses = _losses(self._targets, scores)
        taken = True
        if self.trials:
            gain, error = _mean_and_error(self._best_losses - losses)
            taken = gain >= max(LEAST_GAIN, error)
        if taken:
            self._best_losses, self._best = losses, self._last
        trial = Trial(setting, value, policy, self._quality(scores), taken, beyond)
        self.trials.append(trial)
        return trial

    def _quality(self, scores: NDArray[np.float64]) -> Quality:
        found = quality(self._targets, scores)
        if found is None:  # there are at least FEWEST
            raise ConfigError("nothing to judge")
        return found


def _losses(y: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log losses (n,) of log-odds (n,) in nats."""
    losses: NDArray[np.float64] = np.logaddexp(0.0, scores) - y * scores
    return losses


def _mean_and_error(gains: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of gains (n,) and its standard error, over the applications."""
    return float(gains.mean()), float(gains.std()) / math.sqrt(len(gains))


def before(
    lines: Iterable[LogLine], until_ms: int, from_ms: int | None = None
) -> Iterator[LogLine]:
    """Leave out the events after a time, and those before another.

    What has no time is left to the replay to refuse.
    """
    for line in lines:
        head = read_head(line.raw)
        time_ms = None if head is None else head.time_ms()
        if time_ms is None or (time_ms <= until_ms and (from_ms is None or time_ms >= from_ms)):
            yield line


def train_until(
    lines: Iterable[LogLine],
    policy: Policy,
    until_ms: int,
    progress: Callable[[int], None],
    max_jump_ms: int | None = None,
    kind: ModelKind = "linear",
    maker: Maker | None = None,
) -> GlobalModel:
    """Fit a global model on the log up to a time, as ``hearback train --until`` does."""
    fitted = trainer(policy, until_ms, maker, max_jump_ms, kind)
    fitted.read(lines, progress)
    return fitted.model()


def trainer(
    policy: Policy,
    until_ms: int | None,
    names: dict[str, list[str]] | Maker | None,
    max_jump_ms: int | None,
    kind: ModelKind,
) -> Trainer:
    """Make what fits a model, on histories and preferences too, unless the policy keeps none."""
    sights = partial(FirstSights, for_terms="history" not in FURTHER[kind])
    return Trainer(
        *(policy, until_ms, names, max_jump_ms, kind),
        first_sights=sights if policy.features.histories else None,
    )


def cross_fit(
    rehearsal: Rehearsal,
    policy: Policy,
    until_ms: int,
    kind: ModelKind = "linear",
    strength: float | None = None,
) -> None:
    """Put global scores in place that no application of the same job took part in.

    Applications without global features keep the score that they bring.

    Args:
        rehearsal: whose scores are put in place.
        policy: for how long labels are waited for. until_ms: end of what may be known.
        kind: of global model.
        strength: C of linear ones; None: chosen by cross-validation.

    Raises:
        ConfigError: too few jobs or outcomes for that.

    """
    X, there = rehearsal.matrix()
    known = there & (rehearsal.times_ms + policy.labels.window_ms <= until_ms)
    known &= ~np.isnan(rehearsal.targets)
    part = np.array([zlib.crc32(one.job_id.encode()) % _PARTS for one in rehearsal.applications])
    fit = _fit(kind, X[known], rehearsal.targets[known], _numbered(rehearsal)[known], strength)
    for number in range(_PARTS):
        fitted = known & (part != number)
        y = rehearsal.targets[fitted].astype(np.int64)
        if not 0 < y.sum() < len(y):
            raise ConfigError(
                "too few jobs whose applications have both outcomes before --until: take a longer"
                " log, or send a global_score with the applications"
            )
        scorer = fit(X[fitted], y)
        left_out = there & (part == number)
        rehearsal.global_scores[left_out] = scorer.score_all(X[left_out])


def _fit(
    kind: ModelKind, X: Floats32, y: _Floats, jobs: NDArray[np.int64], strength: float | None
) -> _Fit:
    """Return what fits a model; the strength of a linear one is chosen on these rows, if at all."""
    if kind == "boosted":
        return lambda X, y: fit_boosted(X.astype(np.float64), y, np.ones(len(y)))
    C = strength or choose(X.astype(np.float64), y.astype(np.int64), jobs).C
    return lambda X, y: Linear(fit_path(X.astype(np.float64), y, (C,))[0])


def _numbered(rehearsal: Rehearsal) -> NDArray[np.int64]:
    """Numbers of the applications' jobs (n,)."""
    numbers: dict[str, int] = {}
    jobs = [numbers.setdefault(one.job_id, len(numbers)) for one in rehearsal.applications]
    return np.array(jobs, dtype=np.int64)


def _last_step(rehearsal: Rehearsal, judged: NDArray[np.bool_]) -> int:
    """Count the steps up to the last scoring that is judged; later ones serve nobody."""
    number = int(np.flatnonzero(judged)[-1])
    return 1 + next(
        at
        for at in range(len(rehearsal.steps) - 1, -1, -1)
        if rehearsal.steps[at].label is None and rehearsal.steps[at].number == number
    )
