"""How the effects' defaults were chosen: what each setting does on markets that are never scored.

The markets: simulated ones (λ of the truth 1, 3 and 10; one with many features over a longer time;
one with few applications each), and the first quarter of the contest log where
HEARBACK_CONTEST_LOG names it: only events of that quarter are read, and only applications whose
whole window lies in it are judged, with cross-fitted global scores
(:mod:`stream.backtest.tuning`). One setting at a time is moved away from the defaults. A cell is
the change of the prequential log loss, in 1e-4 nats (negative: better than the default), and of the
AUC, in 1e-4 (positive: better). The simulated markets do not drift: what they say of half-lives is
one-sided. Two minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.contest import application_span
from producers.simulate import SimulationSettings, simulate
from stream.backtest.rehearsal import Rehearsal, record, rehearse
from stream.backtest.tuning import before, cross_fit, train_until
from stream.configuration.load import load_config
from stream.configuration.settings import changed
from stream.logs.files import LogLine, merge
from stream.policy import DAY_MS, EffectSettings, Policy
from stream.quality.prequential import quality
from stream.replay.reader import first_look

SIMULATED: dict[str, dict[str, Any]] = {
    "λ = 1": {"precision_member": 1.0, "precision_job": 1.0},
    "λ = 3": {"precision_member": 3.0, "precision_job": 3.0},
    "λ = 10": {"precision_member": 10.0, "precision_job": 10.0},
    "wide": {"days": 90, "d_member": 12, "d_job": 8},
    "sparse": {"members": 4000, "jobs": 1500, "applications_per_member": 3.0},
}
"""What differs from 600 members who apply 20 times each to 120 jobs in 30 days."""

HALF_LIVES: dict[str, int | None] = {
    "14d": 14 * DAY_MS,
    "30d": 30 * DAY_MS,
    "60d": 60 * DAY_MS,
    "off": None,
}


class Market(NamedTuple):
    """A recorded log; which of its applications are judged: all up to a time."""

    name: str
    rehearsal: Rehearsal
    until_ms: int | None


class Figures(NamedTuple):
    """Quality of one setting on one market."""

    log_loss: float
    auc: float


def main() -> None:
    """Record the markets, move each setting, print."""
    markets = list(all_markets())
    at_default = [judge(market, Policy()) for market in markets]
    print(f"{'':32}" + "".join(f"{market.name:>14}" for market in markets))
    print(
        f"{'default: log loss AUC':32}"
        + "".join(f"{one.log_loss:8.4f} {one.auc:.3f}" for one in at_default)
    )
    moved: dict[str, dict[str, dict[str, float]]] = {}
    for name, policy in variations():
        found = [judge(market, policy) for market in markets]
        cells = [
            (1e4 * (one.log_loss - base.log_loss), 1e4 * (one.auc - base.auc))
            for one, base in zip(found, at_default, strict=True)
        ]
        print(f"{name:32}" + "".join(f"{loss:+8.0f} {auc:+5.0f}" for loss, auc in cells))
        moved[name] = {
            market.name: {"log_loss": one.log_loss, "auc": one.auc}
            for market, one in zip(markets, found, strict=True)
        }
    print(msgspec.json.encode(moved).decode())


def variations() -> Iterator[tuple[str, Policy]]:
    """One setting at a time, away from the defaults."""
    default = EffectSettings()
    for effect in ("per_member", "per_job"):
        for precision in (1.0, 2.0, 3.0, 5.0, 10.0):
            if precision != Policy().effects[effect].prior_precision:
                yield f"{effect} λ = {precision:g}", _with([effect], prior_precision=precision)
    for text, half_life_ms in HALF_LIVES.items():
        if half_life_ms != default.half_life_ms:
            yield f"half-life {text}", _with(["per_member", "per_job"], half_life_ms=half_life_ms)
    for capacity in (32, 64, 512):
        yield f"capacity {capacity}", _with(["per_member", "per_job"], capacity=capacity)
    yield "not coupled", _with(["per_member", "per_job"], coupled=False)


def judge(market: Market, policy: Policy) -> Figures:
    """Rehearse a setting; judge the applications whose whole window was seen."""
    rehearsal = market.rehearsal
    scores = rehearsal.scores(rehearse(rehearsal, policy))
    chosen = ~np.isnan(rehearsal.targets)
    if market.until_ms is not None:
        chosen &= rehearsal.times_ms <= market.until_ms
    judged = quality(rehearsal.targets[chosen], scores[chosen])
    assert judged is not None
    return Figures(judged.log_loss, judged.auc or float("nan"))


def all_markets() -> Iterator[Market]:
    """The simulated markets and, where it is at hand, the contest's first quarter."""
    for name, differs in SIMULATED.items():
        settings = {"members": 600, "jobs": 120, "global_score": True} | differs
        yield Market(name, simulated(SimulationSettings(**settings)), None)
    named = os.environ.get("HEARBACK_CONTEST_LOG", "")
    if Path(named).is_file():
        yield contest_quarter(Path(named))
    else:
        print("HEARBACK_CONTEST_LOG names no log: left out", file=sys.stderr)


def simulated(settings: SimulationSettings) -> Rehearsal:
    """Simulate and record a market whose applications carry their true global score."""
    raw = (LogLine("simulated", number, line) for number, line in enumerate(simulate(settings), 1))
    lines, space = first_look(raw, None)
    return record(lines, Policy(), None, space)


def contest_quarter(log: Path, settings: Mapping[str, Any] | None = None) -> Market:
    """Record the first quarter of the contest log's application time span, with these settings."""
    policy = changed(load_config(None, {}, log.parent / "policy.toml").policy, settings or {})
    first_ms, last_ms = application_span(log)
    quarter_ms = first_ms + (last_ms - first_ms) // 4
    model = train_until(merge([log]), policy, quarter_ms, lambda _: None)
    lines, space = first_look(before(merge([log]), quarter_ms), model)
    rehearsal = record(lines, policy, model, space)
    cross_fit(rehearsal, policy, quarter_ms)
    return Market("contest Q1", rehearsal, quarter_ms - policy.labels.window_ms)


def _with(effects: list[str], **changes: Any) -> Policy:
    policy = Policy()
    moved = {name: msgspec.structs.replace(policy.effects[name], **changes) for name in effects}
    return msgspec.structs.replace(policy, effects=policy.effects | moved)


if __name__ == "__main__":
    main()
