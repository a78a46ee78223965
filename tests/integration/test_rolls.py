"""Another global model under running workers, killed in the middle: as a replay with its roll."""

from __future__ import annotations

import copy
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from producers.truth import draw_truth
from stream.cli import PROGRAM
from stream.events.applications import RawApplication
from stream.events.records import COEFFICIENTS
from stream.events.wire import decode_coefficients, decode_label, decode_raw
from stream.logs.files import merge
from stream.model.folder import load_model
from stream.model.training import Trainer
from stream.policy import DAY_MS
from stream.replay.run_folder import STATE, RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.serving import Candidate, CandidateFeatures, Client, ScoreQuestion
from stream.stages.succession import Rolled
from stream.state.store import RocksStore
from stream.units import format_time
from tests.integration.conftest import SMALL
from tests.integration.services import Service, wait
from tests.integration.workers import wait_for_partitions
from tests.integration.world import EFFECTS, Market, World, decode_raw_time


def rolled(market: Market, folder: Path, time_ms: int) -> Market:
    """Return the market as its replay has it in which a model of its first days is rolled in."""
    trainer = Trainer(market.policy, market.start_ms + 17 * DAY_MS, draw_truth(SMALL).feature_names)
    trainer.read(merge([market.log]), lambda _: None)
    trainer.fit(folder / "new")
    new = load_model(folder / "new")
    assert new.version != market.model.version
    options = Options(close=True, rolls=(Rolled(new, time_ms),))
    with RunFolder(folder / "run") as run:
        replay(merge([market.log]), run, market.policy, market.model, market.model.space, options)
    made = copy.copy(market)
    store = RocksStore(folder / "run" / STATE, read_only=True)
    made.learned = {stage: made.learned_in(store, stage) for stage in EFFECTS}
    store.close()
    return made


def wait_until_obeyed(world: World) -> None:
    """Wait until every partition says that there are two models."""
    told: dict[str, int] = {}
    deadline = time.monotonic() + 90
    for messages in world.reading(COEFFICIENTS):
        for message in messages:
            value = message.value()
            found = None if value is None else decode_coefficients(value)
            if found is not None and found.control:
                told[found.entity_id] = len(found.control.models)
        if list(told.values()) == [2] * 2 * world.partitions:
            return
        assert time.monotonic() < deadline, told


def misjudged(
    service: Service, log: list[Path], first_sights: dict[tuple[str, str], tuple[str, float]]
) -> list[str]:
    """Compare global scores that are served with those of first sights, of 500 applications."""
    events = (decode_raw(line.raw) for line in merge(log))
    apps = [event for event in events if isinstance(event, RawApplication) and event.features]
    step = max(len(apps) // 500, 1)
    candidates = {
        (app.job_id, app.application_id): Candidate(
            app.member_id,
            app.job_id,
            CandidateFeatures(*msgspec.structs.astuple(app.features)),
            application_time_ms=app.event_time_ms,
        )
        for app in apps[::step]
        if app.features
    }
    with Client(service.url) as client:
        answer = client.score(ScoreQuestion(candidates=list(candidates.values())))
    assert isinstance(answer.candidates, list)
    found = {
        place: (each.model_version or answer.model_version, each.parts.global_)
        for place, each in zip(candidates, answer.candidates, strict=True)
    }
    assert len({version for version, _ in found.values()}) == 2 or answer.degraded
    return [
        f"{place}: {version} {score}, not {first_sights[place]}"
        for place, (version, score) in found.items()
        if version != first_sights[place][0] or abs(score - first_sights[place][1]) > 1e-9
    ]


@pytest.mark.timeout(600)
def test_a_model_rolled_in_under_workers_that_die(
    small_world: World,
    small_market: Market,
    start_service: Callable[[str], Service],
    tmp_path: Path,
) -> None:
    """Labels, who scored what, offsets and coefficients are a replay's, whoever died meanwhile.

    A service that runs all the time scores with both models, and so does one that begins anew.

    One worker is killed as the command is sent, and comes back without its folder, and, killed once
    more when all have obeyed, with the new model; the other one is killed while applications are
    scored by the new model, and comes back with the old one.
    """
    world = small_world
    first, *_, last = small_market.parts(2)
    time_ms = 1 + max(decode_raw_time(line.raw) for line in merge([first]))
    world.market = rolled(small_market, tmp_path, time_ms)
    service = start_service("before")
    one, other = world.start("a"), world.start("b")
    wait_for_partitions(one)
    wait_for_partitions(other)
    world.produce(log=first)
    subprocess.run(
        [
            *(*PROGRAM, "model", "roll", str(tmp_path / "new"), "--at", format_time(time_ms)),
            *("--broker", world.broker, "--app-id", world.application_id),
        ],
        check=True,
        timeout=60,
    )
    one.kill()
    shutil.rmtree(world.folder / "a")
    again = world.start("a")
    wait_until_obeyed(world)
    again.kill()
    world.start("a", more=("--model", str(tmp_path / "new")))
    producer = world.produce("--close", log=last, wait=False)
    time.sleep(2.0)
    other.kill()
    world.start("b")
    assert producer.wait(300) == 0
    labels = world.wait_until_final()
    world.check()
    versions = {}
    space = small_market.model.space
    for line in (tmp_path / "run" / "labels.jsonl").read_bytes().splitlines():
        label = decode_label(line, space)
        versions[label.job_id, label.application_id] = label.model_version, label.global_score
    assert len({version for version, _ in versions.values()}) == 2
    for line in labels:
        label = decode_label(line, space)
        found = label.model_version, label.global_score
        assert found == versions[label.job_id, label.application_id]
    wait(lambda: not misjudged(service, [first, last], versions))
    service.process.terminate()
    assert service.process.wait(30) == 0
    assert not misjudged(start_service("again"), [first, last], versions)
