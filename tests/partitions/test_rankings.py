"""Rankings in a job partition: those of a replay, whenever it crashes or starts anew."""

from __future__ import annotations

import random
from functools import cache

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from stream.backtest.rehearsal import Recorder
from stream.console.status import About, status
from stream.events.records import APPLICATIONS, APPLICATIONS_BY_JOB, ENGAGEMENTS, LABELS
from stream.events.structs import Application, Features
from stream.logs.files import LogLine
from stream.metrics.worker import WorkerMetrics
from stream.policy import DAY_MS, GateSettings, LabelPolicy, Policy
from stream.quality.ranking import RankingQuality
from stream.replay.single import replay
from stream.stages.decisions import FIRST_SIGHT
from tests.kit import NOW_MS, SPACE, TWO, Market, TestEvent, application, engagement, model, to_json

POLICY = Policy(
    labels=LabelPolicy(aging=(), later_response="full", window_ms=90 * DAY_MS),
    gate=GateSettings(rankings=True),
)
"""No label follows from time: a worker's event time is another than a replay's."""


@cache
def events() -> tuple[TestEvent, ...]:
    """Return applications and answers, some of which come before their applications."""
    rng = random.Random(4)
    made: list[tuple[float, TestEvent]] = []
    for number in range(150):
        time_ms = number * 3_600_000
        job, member = f"j{rng.randrange(5)}", f"m{rng.randrange(20)}"
        app = application(f"a{number}", time_ms, job=job, member=member, score=rng.gauss(0.0, 1.0))
        z = np.array([rng.gauss(0.0, 2.0)], dtype="<f4").tobytes()
        features = Features(app.features.global_, TWO, z)
        made.append((time_ms, msgspec.structs.replace(app, features=features)))
        for answer in range(rng.randrange(3)):
            after_ms = time_ms + rng.randrange(5 * DAY_MS)
            read_ms = after_ms - (6 * 3_600_000 if rng.random() < 0.2 else 0)
            action = rng.choice(["message", "hire", "reject", "note"])
            name = f"e{number}-{answer}"
            act = engagement(name, app.application_id, after_ms, action, job=job, member=member)
            made.append((read_ms, act))
    return tuple(event for _, event in sorted(made, key=lambda pair: pair[0]))


@cache
def replayed() -> RankingQuality:
    """Return the rankings of a replay of all events."""
    lines = [LogLine("log", at, to_json(event)) for at, event in enumerate(events(), 1)]
    found = replay(lines, Recorder(), POLICY, model(), SPACE).rankings
    assert found is not None
    assert found.decisions > 50
    assert found.orders["with_job"] != found.orders["global"]
    return found


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_worker_ranks_as_a_replay_does(seed: int | None) -> None:
    """Event by event the figures are the same, also where it crashes and starts anew."""
    rng = random.Random(seed)
    market = Market(POLICY, 1)

    def read(stage: str, topic: str) -> None:
        if seed is not None and rng.random() < 0.2:
            market.step(stage, 0, topic, 1, crash=True)
        if seed is not None and rng.random() < 0.2:
            market.restart(stage, 0)
        while market.step(stage, 0, topic, 1):
            pass

    for event in events():
        market.produce([event])
        if isinstance(event, Application):
            read("member", APPLICATIONS)
            read("job", APPLICATIONS_BY_JOB)
        else:
            read("job", ENGAGEMENTS)
        read("member", LABELS)
    judged = market.partitions["job", 0].judged
    found, wanted = judged.rankings.decisions.quality(FIRST_SIGHT["job"]), replayed()
    assert found is not None
    assert found.decisions == wanted.decisions
    for order, measures in wanted.orders.items():
        for measure, mean in measures.items():
            assert found.orders[order][measure].value == pytest.approx(mean.value), (order, measure)

    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, "test")
    for partition in market.partitions.values():
        metrics.standing(partition, {}, NOW_MS)
    shown = status(registry, About("app", "1", "test"), (True, ""), 0.0).rankings
    assert [each.order for each in shown] == list(wanted.orders)
    for each in shown:
        assert each.decisions == wanted.decisions
        for name in ("auc", "reciprocal_rank", "ndcg_at_10", "top_1"):
            assert getattr(each, name) == pytest.approx(wanted.orders[each.order][name].value)
