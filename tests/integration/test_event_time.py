"""Event time on a real Kafka: whatever comes after a silence is read in full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from producers.truth import SimulationSettings
from stream.events.partitioner import partition_of
from stream.logs.files import merge, write_lines
from stream.policy import DAY_MS
from tests.integration.workers import SEED, Worker, flushes, wait_for_partitions
from tests.integration.world import PARTITIONS, Market, World, decode_raw_time, last_labels

IDLE = ("--idle-timeout", "3s")  # a busy machine must not let partitions trail by more
SILENCE_S = 8.0  # more than two idle timeouts
OUTAGE_DAYS = 3
DECIDED = ("positive", "negative_explicit")  # labels that no window is waited for

Line = dict[str, object]


def is_application(line: bytes) -> bool:
    """Whether a line goes to the topic of applications."""
    fields: Line = msgspec.json.decode(line)
    return fields["type"] == "application"


def day(world: World, number: float) -> int:
    """A time of the market."""
    return world.market.start_ms + round(number * DAY_MS)


def play(world: World, *, since: float = 0.0, until: float = 99.0, close: bool = False) -> None:
    """Play some days of the market, without clocks; ``close``: to its end, and close it."""
    times = ("--from", day(world, since), "--until", day(world, until))
    world.produce("--no-clocks", *times, *(["--close"] if close else []))


def play_only(world: World, topic: str, since: float, until: float) -> None:
    """Play what one producer writes in some days."""
    log = world.folder / f"{topic}.jsonl"
    lines = (line.raw for line in merge([world.market.log]))
    days = range(day(world, since), day(world, until))
    write_lines(
        log,
        (
            raw
            for raw in lines
            if decode_raw_time(raw) in days and is_application(raw) == (topic == "applications")
        ),
    )
    world.produce("--no-clocks", log=log)


def end(world: World, *workers: Worker) -> None:
    """All labels are those of the replay; nothing was late, and nothing had no application."""
    world.wait_until_final()
    world.check()
    for worker in workers:
        assert worker.metric("hearback_dead_letters_total") == 0
        assert worker.metric("hearback_ignored_total", reason="late_applications") == 0
        if worker.process.poll() is None:
            worker.stop()


def begun(world: World, until: float) -> Worker:
    """A worker that has read some days and then has nothing to read for a while."""
    worker = world.start(more=IDLE)
    play(world, until=until)
    run = world.market.replay_until(day(world, until))
    lines = (run / "labels.jsonl").read_bytes().splitlines()
    last = last_labels(lines, world.market.model)
    decided = {key for key, (_, kind, _) in last.items() if kind in DECIDED}
    assert len(decided) > 10
    world.wait_for_labels(lambda labels: labels.keys() >= decided)
    time.sleep(SILENCE_S)
    return worker


def backlog_after_a_silence(world: World) -> None:
    """A worker waits at fresh topics for several idle timeouts, then a month is written."""
    worker = world.start(more=IDLE)
    wait_for_partitions(worker)
    time.sleep(SILENCE_S)
    play(world, until=18)
    play(world, since=18, close=True)
    end(world, worker)


def backlog_while_stopped(world: World) -> None:
    """What a worker knew of idleness when it stopped is not believed when it starts."""
    begun(world, 8).stop()
    play(world, since=8, until=18)
    second = world.start(more=IDLE)
    wait_for_partitions(second)
    play(world, since=18, close=True)
    end(world, second)


def outage_of_both(world: World) -> None:
    """For several idle timeouts nothing is written; then three days come at once."""
    worker = begun(world, 8)
    play(world, since=8, until=8 + OUTAGE_DAYS)
    time.sleep(SILENCE_S)
    play(world, since=8 + OUTAGE_DAYS, close=True)
    end(world, worker)


def outage_of_applications(world: World) -> None:
    """Engagements go on for three days whose applications come later."""
    worker = begun(world, 8)
    play_only(world, "engagements", 8, 8 + OUTAGE_DAYS)
    time.sleep(SILENCE_S)
    play_only(world, "applications", 8, 8 + OUTAGE_DAYS)
    time.sleep(SILENCE_S)
    play(world, since=8 + OUTAGE_DAYS, close=True)
    end(world, worker)


def outage_of_engagements(world: World) -> None:
    """Applications go on for longer than a window; then the engagements of that time come."""
    worker = begun(world, 2)
    play_only(world, "applications", 2, 18)
    time.sleep(SILENCE_S)
    play_only(world, "engagements", 2, 18)
    time.sleep(SILENCE_S)
    play(world, since=18, close=True)
    end(world, worker)


SCENARIOS: list[Callable[[World], None]] = [
    backlog_after_a_silence,
    backlog_while_stopped,
    outage_of_applications,
    outage_of_engagements,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_nothing_is_lost(small_world: World, scenario: Callable[[World], None]) -> None:
    """No application is late, no engagement without its own, and labels are the replay's."""
    scenario(small_world)


@pytest.fixture(scope="module", params=["unused", "unanswered"])
def sparse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Market:
    """A market without the members of one partition; and one without any engagements."""

    def keep(line: bytes) -> bool:
        if request.param == "unanswered":
            return is_application(line)
        member = msgspec.json.decode(line).get("member_id")
        return member is None or partition_of(member.encode(), PARTITIONS) != 2

    settings = SimulationSettings(
        seed=4, members=150, jobs=40, days=20, applications_per_member=9.0
    )
    return Market(tmp_path_factory.mktemp(request.param), settings, keep=keep)


@pytest.fixture
def sparse_world(broker: str, sparse: Market, tmp_path: Path) -> Iterator[World]:
    """Such a market on the shared broker, with topics of its own."""
    made = World(tmp_path, broker, sparse)
    yield made
    made.end()


def test_what_never_comes_holds_nothing_back_for_ever(sparse_world: World) -> None:
    """Windows close without a clock while others bring records, and nothing is lost."""
    world = sparse_world
    worker = world.start(more=IDLE)
    play(world, until=17)
    for half_day in range(5):  # windows of the first days end behind these
        play(world, since=17 + half_day / 2, until=17.5 + half_day / 2)
        time.sleep(2.5)
    world.wait_for_labels(lambda last: any(final and not one for one, _, final in last.values()))
    play(world, since=19.5, close=True)
    end(world, worker)


@pytest.fixture(scope="module", params=range(SEED, SEED + 4))
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Market:
    """One of several markets."""
    settings = SimulationSettings(
        seed=100 + request.param, members=200, jobs=50, days=20, applications_per_member=10.0
    )
    return Market(tmp_path_factory.mktemp(f"seed-{request.param}"), settings)


@pytest.mark.long
@pytest.mark.parametrize(
    "scenario", [*SCENARIOS, outage_of_both], ids=lambda scenario: scenario.__name__
)
def test_nothing_is_lost_in_other_markets(
    other: Market, broker: str, tmp_path: Path, scenario: Callable[[World], None]
) -> None:
    """The same over several markets."""
    world = World(tmp_path, broker, other)
    try:
        scenario(world)
    finally:
        world.end()


def test_an_idle_worker_commits_nothing(small_world: World) -> None:
    """Once what was read is told and stored, offsets stand still while nothing comes."""
    worker = small_world.start(more=("--idle-timeout", "1h"))
    small_world.produce("--no-clocks")
    small_world.wait_for_labels(lambda last: len(last) > 1000)
    last = 0.0
    for _ in range(20):
        before, last = last, flushes(worker)
        if last == before:
            break
        time.sleep(12.0)
    time.sleep(10.0)
    assert flushes(worker) - last <= 12  # progress, once a minute
    worker.stop()
