"""What is left to come of who waits: is its probability right at any age, and how does it rank?

Two simulated markets (``lively`` drifts and has recruiters with habits, ``calm`` does not), trained
on their first half, and the contest log where HEARBACK_CONTEST_LOG names it, trained on the first
quarter of its applications' time span. Judged on what came after, by final labels.

**By age**: observed over expected answers, of open applications sampled over their windows
(:mod:`stream.backtest.moments`), for σ(score) × (1 − F) in odds, and for the landmark's
probability. **At the moment of decision**: AUC, mean reciprocal rank and share in the first place
of the one answered among those who wait for the same job (up to 100), with 95 % intervals by jobs,
and what is gained over the score. The last line is one JSON object. Three minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import application_span
from producers.simulate import simulate
from producers.truth import SimulationSettings, lively
from stream.backtest.landmarks import MOST, learn_landmark
from stream.backtest.moments import Moments, Seen, features
from stream.backtest.rehearsal import Rehearsal, record, rehearse
from stream.backtest.waiting import by_age
from stream.configuration.load import load_config
from stream.labels.delays import curve_of
from stream.logs.files import LogLine, merge
from stream.model.folder import GlobalModel, with_landmark
from stream.model.landmark import log_odds_now, order_now
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy
from stream.quality.ranking import MOST_CANDIDATES
from stream.replay.reader import first_look

_DRAWS = 1000
_Floats = NDArray[np.float64]


class Market(NamedTuple):
    """A log that can be read again, and where training on it ends."""

    name: str
    lines: Callable[[], Iterator[LogLine]]
    policy: Policy
    until_ms: int
    names: dict[str, list[str]] | None


def main() -> None:
    """Train, rehearse, judge and print."""
    result: dict[str, dict[str, float]] = {}
    for market in markets():
        print(f"\n{market.name}")
        result[market.name] = judge(market)
    print(msgspec.json.encode(result).decode())


def markets() -> Iterator[Market]:
    """Two simulated ones, and the contest where it is at hand."""
    sizes: dict[str, Any] = {"seed": 11, "members": 1500, "jobs": 200, "days": 60}
    for name, settings in (("lively", lively(**sizes)), ("calm", SimulationSettings(**sizes))):
        raw = [LogLine(name, at, line) for at, line in enumerate(simulate(settings), 1)]
        until_ms = settings.start_ms + 30 * DAY_MS
        yield Market(name, raw.__iter__, Policy(), until_ms, None)
    named = os.environ.get("HEARBACK_CONTEST_LOG", "")
    if not Path(named).is_file():
        print("HEARBACK_CONTEST_LOG names no log: left out", file=sys.stderr)
        return
    log = Path(named)
    first_ms, last_ms = application_span(log)
    yield Market(
        "contest",
        lambda: merge([log]),
        load_config(None, {}, log.parent / "policy.toml").policy,
        first_ms + (last_ms - first_ms) // 4,
        msgspec.json.decode((log.parent / "features.json").read_bytes()),
    )


def trained(market: Market) -> GlobalModel:
    """Train as the command does."""
    trainer = Trainer(market.policy, market.until_ms, market.names)
    trainer.read(market.lines(), lambda _: None)
    model = trainer.model()
    landmark = learn_landmark(market.lines(), market.policy, model, trainer.newest(MOST))
    return model if landmark is None else with_landmark(model, landmark)


def judge(market: Market) -> dict[str, float]:
    """Print the tables of a market; return the figures."""
    model = trained(market)
    known = model.manifest.landmark
    assert known is not None
    lines, space = first_look(market.lines(), model)
    rehearsal = record(lines, market.policy, model, space)
    watch = Moments(rehearsal, market.policy.labels.window_ms)
    rehearse(rehearsal, market.policy, watch=watch)
    curve = curve_of(market.policy.labels, model.manifest.delays)
    found: dict[str, float] = {}

    def columns(seen: list[Seen]) -> _Floats:
        return features(seen, curve)

    assert rehearsal.metrics is not None
    last_ms = rehearsal.metrics.newest_event_ms - market.policy.labels.window_ms
    known_ms = range(market.until_ms, last_ms + 1)  # later windows reach beyond the log
    after = [seen for seen in watch.moments if int(rehearsal.times_ms[seen.number]) in known_ms]
    X = columns(after)
    at_ages(
        rehearsal,
        after,
        {"delays": log_odds_now(None, X), "landmark": log_odds_now(known, X)},
        market.policy.labels.window_ms,
        found,
    )
    decisions = [
        (job_id, seen) for at_ms, job_id, seen in watch.decisions if at_ms >= market.until_ms
    ]
    orders: dict[str, Callable[[_Floats], _Floats]] = {
        "newest first": lambda Z: -Z[:, 2],
        "score": lambda Z: Z[:, 0],
        "score, delays": lambda Z: log_odds_now(None, Z),
        "probability now": lambda Z: log_odds_now(known, Z),
        "order now": lambda Z: order_now(known, Z),
    }
    at_decisions([(job_id, columns(seen)) for job_id, seen in decisions], orders, found)
    return found


def at_ages(
    rehearsal: Rehearsal,
    seen: list[Seen],
    log_odds: dict[str, _Floats],
    window_ms: int,
    found: dict[str, float],
) -> None:
    """Print observed over expected by age, and the log loss."""
    numbers = np.array([one.number for one in seen])
    y, ages_ms = rehearsal.targets[numbers], np.array([one.age_ms for one in seen])
    brackets = by_age(y, ages_ms, log_odds, window_ms, np.zeros_like(numbers), 1)
    spans = [(at.from_ms / DAY_MS, at.to_ms / DAY_MS) for at in brackets]
    print(
        f"{'observed/expected':18}"
        + "".join(f"{low:>6g}-{high:g}d" for low, high in spans)
        + "  log loss"
    )
    for name, margins in log_odds.items():
        ratios = [at.observed_over_expected[name].value for at in brackets]
        for (low, _), ratio in zip(spans, ratios, strict=True):
            found[f"{name}_{low:g}"] = round(ratio, 3)
        loss = float((np.logaddexp(0.0, margins) - y * margins).mean())
        print(f"{name:18}" + "".join(f"{ratio:9.2f}" for ratio in ratios) + f"{loss:10.4f}")


def at_decisions(
    decisions: list[tuple[str, _Floats]],
    orders: dict[str, Callable[[_Floats], _Floats]],
    found: dict[str, float],
) -> None:
    """Print how orders rank the one who was answered."""
    _, job = np.unique([job_id for job_id, _ in decisions], return_inverse=True)
    jobs = int(job.max()) + 1
    measured = {name: measures(decisions, order) for name, order in orders.items()}
    whole = np.array([len(X) < MOST_CANDIDATES for _, X in decisions], dtype=np.float64)
    weights = np.column_stack([np.ones(len(job)), whole, whole])
    draws = np.random.default_rng(7).multinomial(jobs, np.full(jobs, 1 / jobs), _DRAWS)
    counts = np.column_stack([np.bincount(job, w, minlength=jobs) for w in weights.T])

    def mean(values: _Floats) -> tuple[_Floats, _Floats]:
        sums = np.column_stack(
            [
                np.bincount(job, v * w, minlength=jobs)
                for v, w in zip(values.T, weights.T, strict=True)
            ]
        )
        drawn = (draws @ sums) / np.maximum(draws @ counts, 1e-9)
        return sums.sum(axis=0) / counts.sum(axis=0), np.quantile(drawn, [0.025, 0.975], axis=0)

    print(f"{len(job):,} decisions of {jobs} jobs: AUC, reciprocal rank, first place, AUC gained")
    for name, values in measured.items():
        value, (low, high) = mean(values)
        gain, (worst, best) = mean(values - measured["score"])
        print(
            f"{name:18}"
            + "".join(
                f"{v:8.3f} [{a:.3f}, {b:.3f}]" for v, a, b in zip(value, low, high, strict=True)
            )
            + f"{gain[0]:+9.3f} [{worst[0]:+.3f}, {best[0]:+.3f}]"
        )
        key = name.replace(" ", "_").replace(",", "")
        found[f"{key}_auc"], found[f"{key}_rr"] = (round(float(v), 4) for v in value[:2])


def measures(decisions: list[tuple[str, _Floats]], order: Callable[[_Floats], _Floats]) -> _Floats:
    """AUC, reciprocal rank and whether the first place, of each decision (D, 3); ties share."""
    found = np.empty((len(decisions), 3))
    for at, (_, X) in enumerate(decisions):
        values = order(X)
        rank = 1.0 + (values[1:] > values[0]).sum() + (values[1:] == values[0]).sum() / 2
        found[at] = (len(X) - rank) / (len(X) - 1), 1.0 / rank, rank <= 1.0
    return found


if __name__ == "__main__":
    main()
