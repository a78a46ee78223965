"""From a replay to live workers on a real Kafka: history and live stream meet without a seam."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from producers.truth import SimulationSettings
from stream.cli import PROGRAM
from stream.events.wire import decode_coefficients
from stream.logs.files import merge
from stream.policy import DAY_MS
from tests.integration.workers import hearback, owned, wait_for
from tests.integration.world import PARTITIONS, Market, World

SETTINGS = SimulationSettings(seed=3, members=300, jobs=60, days=20, applications_per_member=14.0)

KINDS = ("engagement", "job")


def half(world: World) -> int:
    """A time in the middle of the market's log."""
    return world.market.start_ms + 12 * DAY_MS


@pytest.mark.timeout(300)
def test_live_workers_go_on_where_history_ended(small_world: World) -> None:
    """Half replayed, half live: labels, examples and coefficients of a replay of the whole.

    Workers read the whole log again: what history had changes nothing.
    """
    run = small_world.market.replay_until(half(small_world))
    done = small_world.bootstrap(small_world.warm, run)
    assert done.returncode == 0, done.stderr
    own = small_world.warm
    assert f"consumers: {own}-coefficients, {own}-labels" in " ".join(done.stdout.split())
    small_world.start("a")
    small_world.start("b")
    small_world.produce("--close")
    small_world.wait_until_final()
    small_world.check()
    check_published(small_world)
    again = small_world.bootstrap(small_world.warm, run)
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 1
    assert "bootstrap goes into a new one" in again.stderr


@pytest.mark.long
@pytest.mark.timeout(300)
def test_history_replayed_by_several_processes(small_world: World, tmp_path: Path) -> None:
    """A run with a state for each of three processes is split over the partitions likewise."""
    market = small_world.market
    market.replay_until(half(small_world))
    run = tmp_path / "several"
    replayed = hearback(
        *("replay", market.folder / f"log-{half(small_world)}.jsonl", "--out", run),
        *("--model", market.folder / "model", "--policy", market.policy_file, "--workers", 3),
    )
    assert replayed.returncode == 0, replayed.stderr
    assert len(list(run.glob("state/*/CURRENT"))) == 3
    done = small_world.bootstrap(small_world.warm, run)
    assert done.returncode == 0, done.stderr
    small_world.start("a")
    small_world.produce("--from", half(small_world), "--close")
    small_world.wait_until_final()
    small_world.check()


@pytest.mark.timeout(300)
def test_from_the_end_of_the_inputs_with_a_data_folder(small_world: World) -> None:
    """The folder is what the changelogs say, a worker takes it, and reads what came since."""
    small_world.produce("--until", half(small_world))
    run = small_world.market.replay_until(half(small_world))
    folder = small_world.folder / "a"
    done = small_world.bootstrap(small_world.warm, run, "--positions", "end", "--data", folder)
    assert done.returncode == 0, done.stderr
    assert not folder.with_name("a.part").exists()
    verified = hearback("state", "verify", "--broker", small_world.broker, "--checkpoint", folder)
    assert verified.returncode == 0, verified.stderr
    worker = small_world.start("a")
    wait_for(lambda: owned(worker) == 2 * PARTITIONS, worker)
    assert worker.metric("hearback_recovered_records_total") == 0
    assert worker.metric("hearback_events_total") == 0
    small_world.produce("--from", half(small_world), "--close")
    small_world.wait_until_final()
    small_world.check()
    refused = small_world.bootstrap("other", run, "--data", folder)
    assert "is there already" in refused.stderr


@pytest.mark.long
@pytest.mark.timeout(300)
def test_from_a_time_of_the_records(small_world: World) -> None:
    """Workers read what was written since, and nothing of what was there before."""
    run = small_world.market.replay_until(half(small_world))
    small_world.produce("--until", half(small_world))
    time.sleep(0.1)
    since_ms = time.time_ns() // 1_000_000
    small_world.produce("--from", half(small_world), "--close")
    done = small_world.bootstrap(small_world.warm, run, "--positions", since_ms)
    assert done.returncode == 0, done.stderr
    worker = small_world.start("a")
    small_world.wait_until_final()
    small_world.check()
    events = [msgspec.json.decode(line.raw) for line in merge([small_world.market.log])]
    for kind in KINDS:
        since = [event for event in events if event["event_time_ms"] >= half(small_world)]
        wanted = sum(event["type"] == kind for event in since)
        assert worker.metric("hearback_events_total", type=kind) == wanted


@pytest.mark.timeout(300)
def test_what_is_cut_short_is_refused_and_begun_again(small_world: World) -> None:
    """Killed wherever it may be: workers refuse the application id, another bootstrap does not."""
    run = small_world.market.replay_until(half(small_world))
    folder = small_world.folder / "made"
    for crash_at in ("marked", "sent:3", "loaded"):
        killed = small_world.bootstrap(small_world.warm, run, "--data", folder, crash_at=crash_at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not folder.exists()
        if crash_at != "sent:3":
            said = small_world.start("a").wait_for_failure()
            assert "hearback bootstrap, or begin it again" in said
    later = small_world.market.replay_until(half(small_world) + DAY_MS)
    done = small_world.bootstrap(small_world.warm, later, "--data", folder)
    assert done.returncode == 0, done.stderr
    assert folder.exists()
    shutil.rmtree(folder)
    small_world.start("a")
    small_world.produce("--from", half(small_world), "--close")
    small_world.wait_until_final()
    small_world.check()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_killed_when_all_is_done_it_is_done(small_world: World) -> None:
    """After the last transaction only the data folder is missing, and nobody needs it."""
    run = small_world.market.replay_until(half(small_world))
    folder = small_world.folder / "made"
    killed = small_world.bootstrap(small_world.warm, run, "--data", folder, crash_at="bootstrapped")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not folder.exists()
    assert "has state already" in small_world.bootstrap(small_world.warm, run).stderr
    small_world.start("a")
    small_world.produce("--from", half(small_world), "--close")
    small_world.wait_until_final()
    small_world.check()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_cut_over_to_a_new_model(small_world: World, tmp_path: Path) -> None:
    """Another model, trained later, its replay and its workers beside the old ones: both are right.

    Consumers that switch find all that the new model has learned in its own topics.
    """
    old = World.__new__(World)
    old.__dict__ = {**small_world.__dict__, "workers": [], "_producers": []}
    small_world.produce("--until", half(small_world))
    small_world.start("old")
    try:
        small_world.wait_for_labels(lambda last: len(last) > 500)
        market = Market(tmp_path / "new-market", SETTINGS, trained_days=18)
        assert market.model.version != small_world.market.model.version
        new = old
        new.market = market
        done = new.bootstrap(new.warm, market.replay_until(half(small_world)), "--positions", "end")
        assert done.returncode == 0, done.stderr
        worker = new.start("new")
        small_world.produce("--from", half(small_world), "--close")
        small_world.wait_until_final()
        small_world.check()
        new.wait_until_final()
        new.check()
        check_published(new)
        known = next(iter(market.learned["member"]))
        told = hearback("inspect", "member", known, "--broker", new.broker, "--app-id", new.warm)
        assert told.returncode == 0, told.stderr
        worker.stop()
        refused = new.start("old-model", more=["--model", str(small_world.market.folder / "model")])
        assert f"the state was learned with model {market.model.version}" in (
            refused.wait_for_failure()
        )
    finally:
        old.end()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_ctrl_c_leaves_nothing_half_used(small_world: World) -> None:
    """Interrupted, it says so in one line, and it can be begun again."""
    run = small_world.market.replay_until(half(small_world))
    process = subprocess.Popen(
        [
            *(*PROGRAM, "bootstrap", "--broker", small_world.broker),
            *("--run", str(run), "--app-id", small_world.warm),
            *("--policy", str(small_world.market.policy_file)),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HEARBACK_CRASH_AT": "sent:2:freeze"},
    )
    deadline = time.monotonic() + 60
    while "T" not in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2][:3]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines() == [
        f"hearback: interrupted: application id {small_world.warm} is not complete, workers refuse"
        " it; begin the bootstrap again"
    ]
    assert small_world.bootstrap(small_world.warm, run).returncode == 0


def check_published(world: World) -> None:
    """The newest coefficients of every entity are those that the replay of all has learned."""
    deadline = time.monotonic() + 30.0
    while True:
        wrong = list(_differences(world))
        if not wrong:
            return
        assert time.monotonic() < deadline, f"{len(wrong)} differ: {wrong[:5]}"


def _differences(world: World) -> list[str]:
    published = world.published()
    wanted = {
        f"per_{stage}:{entity_id}".encode(): learned
        for stage, all_learned in world.market.learned.items()
        for entity_id, learned in all_learned.items()
    }
    wrong = [f"{key!r} unwanted" for key in published.keys() - wanted.keys()]
    for key, want in wanted.items():
        value = published.get(key)
        if value is None:
            wrong.append(f"{key!r} is missing")
            continue
        told = decode_coefficients(value)
        assert told.model_version == world.market.model.version
        if told.examples != want.examples:
            wrong.append(f"{key!r}: {told.examples} examples, not {want.examples}")
        elif np.max(np.abs(np.array(told.mean) - want.mean) / want.sd) > 1e-5:
            wrong.append(f"{key!r}: {told.mean}, not {want.mean}")
    return wrong
