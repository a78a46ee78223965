"""Replay by several processes: the same final labels, the same bytes every time."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.configuration.load import load_config
from stream.effects import EFFECTS
from stream.errors import ConfigError, WorkerDiedError
from stream.events.ladder import BY_NAME, rung
from stream.logs.files import merge, write_lines
from stream.model.folder import load_model
from stream.model.training import Trainer
from stream.policy import Policy
from stream.replay import lane as lanes_module
from stream.replay import parallel, process
from stream.replay.lane import Lane
from stream.replay.messages import Asked, Batch, Item
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.run_folder import COEFFICIENTS, FILES, LABELS, SCORES, RunMetrics
from stream.replay.savepoint import SYNC_MS, Options
from stream.replay.stages import Stages
from stream.serving.lookup import from_run
from stream.state.store import MemoryStore
from tests import kit
from tests.kit import CONTEST, with_contest
from tests.replay.test_single import market, rows

EFFECT = {spec.name: spec for spec in EFFECTS}
MARKET = SimulationSettings(
    seed=3, members=60, jobs=20, days=20, global_score=True, applications_per_member=10
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated log with repeats, latecomers, conflicts and lines that are no events."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    lines = list(simulate(MARKET))
    conflict = lines[40].replace(b'"event_time_ms":1', b'"event_time_ms":2')
    write_lines(path, [*lines[:300], b"{", conflict, *lines[300:], b"[]"])
    return path


def run(log: Path, out: Path, *, policy: Policy | None = None, **options: Any) -> RunMetrics:
    """Replay a log."""
    lines, space = first_look(merge([log]), None)
    chosen = Options(close=True, **options)
    return replay_into(out, [log], lines, policy or Policy(), None, space, chosen)


def final_labels(path: Path) -> dict[tuple[str, str], tuple[int, str, bool]]:
    """Return the last label of each application, by the ladder."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows(path / LABELS):
        key = row["job_id"], row["application_id"]
        if key not in found or _height(row) >= _height(found[key]):
            found[key] = row
    return {key: (row["label"], row["kind"], row["final"]) for key, row in found.items()}


def _height(row: dict[str, Any]) -> int:
    return rung(BY_NAME[row["kind"]], row["final"])


def same_files(one: Path, other: Path) -> None:
    """Fail unless two runs wrote the same bytes."""
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def alone(log: Path) -> tuple[Path, RunMetrics]:
    """Return the replay of one process."""
    out = log.parent / "alone"
    return out, run(log, out)


@pytest.fixture(scope="module")
def pair(log: Path) -> tuple[Path, RunMetrics]:
    """Return the replay of two."""
    out = log.parent / "pair"
    return out, run(log, out, workers=2)


def test_final_labels_are_those_of_one_process(
    alone: tuple[Path, RunMetrics], pair: tuple[Path, RunMetrics]
) -> None:
    """Two workers give every application the label that one process gives it, and count alike."""
    assert final_labels(pair[0]) == final_labels(alone[0])
    one, two = alone[1], pair[1]
    for name in ("events", "ignored", "dead_letters", "labels", "flips", "closed", "entities"):
        assert getattr(one, name) == getattr(two, name), name
    assert one.dead_letters["malformed"] == 2


def test_quality_is_that_of_one_process(
    alone: tuple[Path, RunMetrics], pair: tuple[Path, RunMetrics]
) -> None:
    """What the workers learn from each other ten minutes late costs less than 0.002 of the AUC."""
    one, two = alone[1].quality.full, pair[1].quality.full
    assert one is not None
    assert two is not None
    assert one.auc is not None
    assert two.auc == pytest.approx(one.auc, abs=0.002)


def test_decisions_are_those_of_one_process(
    alone: tuple[Path, RunMetrics], pair: tuple[Path, RunMetrics]
) -> None:
    """As many, of as many jobs; what the members' scores are no part of is the same."""
    one, two = alone[1].rankings, pair[1].rankings
    assert one is not None
    assert two is not None
    assert (one.share, one.decisions, one.owners) == (two.share, two.decisions, two.owners)
    assert one.decisions > 30
    for order in ("global", "newest_first", "random"):
        assert one.orders[order] == two.orders[order]
    assert two.orders["full"]["auc"].value == pytest.approx(
        one.orders["full"]["auc"].value, abs=0.02
    )


@with_contest
def test_quality_on_a_real_log_is_that_of_one_process(tmp_path: Path) -> None:
    """The contest log with a model of its first quarter: two workers are within 0.002 of one."""
    policy = load_config(None, {}, CONTEST.parent / "policy.toml").policy
    quarter_ms = 1_494_321_754_582
    names = msgspec.json.decode((CONTEST.parent / "features.json").read_bytes())
    trainer = Trainer(policy, quarter_ms, names)
    trainer.read(merge([CONTEST]), lambda _: None)
    trainer.fit(tmp_path / "model")
    model = load_model(tmp_path / "model")
    auc = []
    for number in (1, 2):
        lines, space = first_look(merge([CONTEST]), model)
        chosen = Options(close=True, workers=number, score_from_ms=quarter_ms)
        out = tmp_path / f"{number}"
        full = replay_into(out, [CONTEST], lines, policy, model, space, chosen).quality.full
        assert full is not None
        auc.append(full.auc)
    assert auc[0] == pytest.approx(0.761, abs=0.002)
    assert auc[1] == pytest.approx(auc[0], abs=0.002)


def test_the_same_number_writes_the_same_bytes(log: Path, pair: tuple[Path, RunMetrics]) -> None:
    """Two workers write the same files every time."""
    run(log, log.parent / "again", workers=2)
    same_files(pair[0], log.parent / "again")


def test_lines_are_in_the_order_of_the_log(pair: tuple[Path, RunMetrics]) -> None:
    """Scores stand in the order of the applications, coefficients in that of their keys."""
    lines, _ = first_look(merge([pair[0].parent / "log.jsonl"]), None)
    order: dict[str, int] = {}
    for line in lines:
        try:
            event = msgspec.json.decode(line.raw)
        except msgspec.DecodeError:
            continue
        if isinstance(event, dict) and event["type"] == "application":
            order.setdefault(event["application_id"], line.number)
    numbers = [order[row["application_id"]] for row in rows(pair[0] / SCORES)]
    assert numbers == sorted(numbers)
    keys = [(row["effect"], row["entity_id"]) for row in rows(pair[0] / COEFFICIENTS)]
    assert keys == sorted(keys)


def test_three_workers_with_uneven_rounds(log: Path, alone: tuple[Path, RunMetrics]) -> None:
    """Three workers, who wait for each other once a day, give the same labels too."""
    run(log, log.parent / "three", workers=3, sync_ms=144 * SYNC_MS)
    assert final_labels(log.parent / "three") == final_labels(alone[0])


def test_inspect_finds_every_entity(pair: tuple[Path, RunMetrics]) -> None:
    """An entity's coefficients are found in the state of the worker that learned it."""
    written = rows(pair[0] / COEFFICIENTS)
    for row in (written[0], written[1], written[-1], written[-2]):
        entity = from_run(pair[0], EFFECT[row["effect"]], row["entity_id"])
        assert entity is not None
        assert entity.coefficients.mean == row["mean"]


def test_a_dead_worker_ends_the_replay(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a worker is killed the replay ends with one line that says which."""
    entered = process.Workers.__enter__

    def enter(self: process.Workers) -> process.Workers:
        team = entered(self)
        pid = team._processes[1].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return team

    monkeypatch.setattr(process.Workers, "__enter__", enter)
    with pytest.raises(WorkerDiedError, match=r"^replay worker 1 .*SIGKILL.*--resume$"):
        run(log, log.parent / "dead", workers=2)


def test_an_error_of_a_worker_is_told(log: Path) -> None:
    """What a worker cannot do is said in its own words."""
    out = log.parent / "blocked"
    setups = parallel._setups

    def spoiled(*arguments: Any) -> Any:
        (out / "state").mkdir(exist_ok=True)
        (out / "state" / "1").write_bytes(b"no folder")
        return setups(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "_setups", spoiled)
        with pytest.raises(WorkerDiedError, match=r"state/1"):
            run(log, out, workers=2)


def test_no_worker_is_left_behind(log: Path) -> None:
    """After an interruption no worker process is there any more."""
    team: list[process.Workers] = []
    entered = process.Workers.__enter__

    def enter(self: process.Workers) -> process.Workers:
        team.append(self)
        return entered(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.Workers, "__enter__", enter)
        lines, space = first_look(merge([log]), None)

        def interrupted(count: int) -> None:
            if count > 500:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            replay_into(
                log.parent / "stopped", [log], lines, Policy(), None, space, Options(workers=2),
                progress=interrupted,
            )  # fmt: skip
    assert [each.is_alive() for each in team[0]._processes] == [False, False]


def test_settings_out_of_range_are_refused() -> None:
    """No workers, or a barrier at every instant, is bad usage."""
    with pytest.raises(ConfigError, match="--workers"):
        Options(workers=0)
    with pytest.raises(ConfigError, match="--sync"):
        Options(sync_ms=0)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=6), most=st.integers(1, 40))
def test_lanes_give_the_final_labels_wherever_barriers_are(cuts: list[int], most: int) -> None:
    """However the log is cut by barriers and rounds, two lanes give the labels of one."""
    events = [event for event in market(20) if not isinstance(event, bytes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes_module, "MOST_STEPS", most)
        whole = _lanes(events, 1, [])
        assert _lanes(events, 2, sorted({cut % len(events) for cut in cuts})) == whole


def _lanes(events: Sequence[Any], count: int, cuts: Sequence[int]) -> dict[Any, Any]:
    """Play events through lanes in this process; return the final labels."""
    model = kit.model()
    lanes = [
        Lane(share, count, Stages(MemoryStore(), Policy(), model, model.space, 0))
        for share in range(count)
    ]
    written: list[dict[str, Any]] = []
    largest = 0
    watermark: int | None = None
    bounds = [0, *cuts, len(events)]
    for first, end in pairwise(bounds):
        batches: list[list[Item]] = [[] for _ in range(count)]
        asked: list[list[list[Any]]] = [[[] for _ in range(count)] for _ in range(count)]
        for number in range(first, end):
            event = events[number]
            share = hash_of(event.job_id, count)
            name = type(event).__name__
            owner = hash_of(getattr(event, "member_id", event.job_id), count)
            batches[share].append(Item(number, watermark, kit.source(), owner, event))
            if name == "Application" and owner != share:
                ids = event.job_id, event.application_id
                one = Asked(
                    event.member_id,
                    event.features.per_member,
                    *ids,
                    event_time_ms=event.event_time_ms,
                    watermark_ms=watermark,
                )
                asked[owner][share].append(one)
            largest = max(largest, event.event_time_ms)
            watermark = largest - Policy().labels.allowed_lateness_ms
        if end == len(events):
            watermark = Policy().labels.past_everything_ms(largest)
        told = [
            Batch(batches[share], asked[share], [], end, watermark, flush=share == 0)
            for share in range(count)
        ]
        answers = [lane.answer(batch) for lane, batch in zip(lanes, told, strict=True)]
        rounds = [
            lane.work(batch, [answers[other][share] for other in range(count)])
            for share, (lane, batch) in enumerate(zip(lanes, told, strict=True))
        ]
        while any(done := [next(each, None) for each in rounds]):
            for each in done:
                if each is not None:
                    written += [msgspec.json.decode(line) for line in each.output.labels[1]]
            for share, lane in enumerate(lanes):
                lane.learn([each.handed[share] for each in done if each is not None])
        for lane, batch in zip(lanes, told, strict=True):
            lane.end(batch)
    last: dict[Any, Any] = {}
    for row in written:
        key = row["job_id"], row["application_id"]
        if key not in last or _height(row) >= _height(last[key]):
            last[key] = row
    return {key: (row["label"], row["kind"], row["final"]) for key, row in last.items()}


def hash_of(name: str, count: int) -> int:
    """Return a share."""
    return sum(name.encode()) % count
