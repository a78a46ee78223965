"""Models of the labels of a topic: one a week, judged, and rolled in once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from confluent_kafka import Producer
from prometheus_client import CollectorRegistry

from producers.simulate import simulate
from producers.truth import SimulationSettings, draw_truth
from stream.backtest.tuning import trainer
from stream.configuration.sections import Config, WorkerSection
from stream.errors import ConfigError
from stream.events.wire import decode_label
from stream.kafka.connection import Broker
from stream.kafka.embedded import EmbeddedBroker
from stream.logs.files import merge, write_lines
from stream.metrics.worker import WorkerMetrics
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, load_model, save_model
from stream.partitions import commands
from stream.partitions.commands import control_of
from stream.policy import DAY_MS, Policy
from stream.refresh.newest import newest_label_ms
from stream.refresh.refresher import Refresher
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.savepoint import Options
from stream.worker.control import CommandReader, last_refusal, roll_in, sent_rolls

MARKET = SimulationSettings(seed=5, members=120, jobs=60, days=56, applications_per_member=14)
WEEK_MS = 7 * DAY_MS
FIRST_MS = MARKET.start_ms + 3 * WEEK_MS  # a Monday
PARTITIONS = 4
NAMES = draw_truth(MARKET).feature_names


def trained(log: Path, until_ms: int) -> GlobalModel:
    """Train on the log, as `hearback train LOG --until` does."""
    made = trainer(Policy(), until_ms, NAMES, None, "linear")
    made.read(merge([log]), lambda _: None)
    return made.model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a log, a model of its first weeks, and a run with that."""
    path = tmp_path_factory.mktemp("refresh")
    log = path / "log.jsonl"
    write_lines(log, simulate(MARKET))
    model = trained(log, FIRST_MS)
    save_model(path / "model", model)
    lines, space = first_look(merge([log]), model)
    replay_into(path / "run", [log], lines, Policy(), model, space, Options())
    return path


class Town:
    """A broker with the labels of a market as they come, and refreshers beside it."""

    def __init__(self, folder: Path, out: Path, broker: EmbeddedBroker) -> None:
        self.address = Broker(broker.bootstrap_servers)
        self.out = out
        self.first = load_model(folder / "model")
        self.said: list[str] = []
        self._producer = Producer({"bootstrap.servers": self.address})
        lines = (folder / "run" / "labels.jsonl").read_bytes().splitlines()
        space = self.first.space
        self._labels = [(decode_label(line, space).label_time_ms, line) for line in lines]
        self._sent_ms = 0
        broker.create_topics({"labels": PARTITIONS, control_of("a"): 1, control_of("b"): 1})

    def go_to(self, time_ms: int) -> None:
        """Send the labels up to a time."""
        for at_ms, line in self._labels:
            if self._sent_ms < at_ms <= time_ms:
                self._producer.produce("labels", line, partition=crc32(line) % PARTITIONS)
        self._sent_ms = time_ms
        assert self._producer.flush(30) == 0

    def refresher(self, application_id: str = "a", margin: float = 1.0) -> Refresher:
        """Start one."""
        config = Config(worker=WorkerSection(application_id=application_id))
        return Refresher(
            *(self.address, config, "labels", self.first, self.out),
            every_ms=WEEK_MS,
            margin=margin,
            say=self.said.append,
        )

    def trained_until(self, application_id: str = "a") -> list[int]:
        """Tell until when the models were trained that were rolled in, in their order."""
        rolls = sent_rolls(self.address, application_id)
        return [roll.model.manifest.trained_until_ms for roll in rolls]


@pytest.fixture
def town(folder: Path, tmp_path: Path) -> Iterator[Town]:
    """Give a town without labels."""
    with EmbeddedBroker() as broker:
        yield Town(folder, tmp_path / "models", broker)


def test_a_week_has_one_model_whoever_starts_again(town: Town, folder: Path) -> None:
    """It is that of `train LOG --until`, from a time ahead on; of missed weeks only the last."""
    one = town.refresher()
    one.look()
    town.go_to(FIRST_MS + WEEK_MS - DAY_MS)
    one.look()
    assert town.trained_until() == []
    now_ms = FIRST_MS + WEEK_MS + 3 * DAY_MS
    town.go_to(now_ms)
    for refresher in (one, one, town.refresher()):
        refresher.look()
    (roll,) = sent_rolls(town.address, "a")
    assert roll.model.manifest.trained_until_ms == FIRST_MS + WEEK_MS
    assert roll.from_ms > newest_label_ms(town.address, "labels", PARTITIONS)
    wanted, found = trained(folder / "log.jsonl", FIRST_MS + WEEK_MS), roll.model.model()
    assert isinstance(wanted.scorer, Linear)
    assert isinstance(found.scorer, Linear)
    assert found.manifest.features == wanted.manifest.features
    np.testing.assert_allclose(found.scorer.coefficients, wanted.scorer.coefficients, atol=0.02)
    assert load_model(town.out / "2024-01-29").version == found.version
    told = "\n".join(town.said)
    assert told.count(f"model {found.version} in {town.out / '2024-01-29'} scores") == 1
    assert "whose windows ended after the model before was trained" in told
    roll_in(town.address, "a", town.first, now_ms + DAY_MS)  # somebody rolls back
    town.refresher().look()
    assert town.trained_until() == [FIRST_MS + WEEK_MS, FIRST_MS]
    town.go_to(FIRST_MS + 4 * WEEK_MS + DAY_MS)
    one.look()
    assert town.trained_until()[2:] == [FIRST_MS + 4 * WEEK_MS]


def test_a_worse_model_stays_out(town: Town) -> None:
    """Nothing is written or sent, and it is said; the week is not looked at again."""
    refresher = town.refresher(margin=-1.0)
    town.go_to(FIRST_MS + WEEK_MS + DAY_MS)
    refresher.look()
    refresher.look()
    assert town.trained_until() == []
    assert not town.out.exists()
    (told,) = town.said
    assert told.startswith("2024-01-29: the model before stays: the new model is worse than model")
    town.go_to(FIRST_MS + 2 * WEEK_MS + DAY_MS)
    refresher.look()
    assert town.said[1].startswith("2024-02-05: the model before stays")


def test_a_refused_week_is_not_judged_again_after_a_restart(town: Town) -> None:
    """Whoever goes on knows it from the control topic, unless it lets more in; others do not."""
    town.go_to(FIRST_MS + WEEK_MS + DAY_MS)
    town.refresher(margin=-0.5).look()
    refusal = last_refusal(town.address, "a")
    assert refusal is not None
    assert (refusal.until_ms, refusal.reason) == (FIRST_MS + WEEK_MS, "worse")
    for margin in (-0.5, -1.0):
        town.refresher(margin=margin).look()
    assert len(town.said) == 1
    assert last_refusal(town.address, "b") is None
    town.refresher(margin=1.0).look()
    assert town.trained_until() == [FIRST_MS + WEEK_MS]
    town.refresher(margin=-0.5).look()
    town.go_to(FIRST_MS + 2 * WEEK_MS + DAY_MS)
    town.refresher(margin=-0.5).look()
    assert [line[:30] for line in town.said[3:]] == ["2024-02-05: the model before s"]


def test_a_model_that_no_message_can_have_is_told_of(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line; it is not made again, and the week after has its own. Workers count it."""
    refresher = town.refresher()
    town.go_to(FIRST_MS + WEEK_MS + DAY_MS)
    with monkeypatch.context() as small:
        small.setattr(commands, "MAX_COMMAND_BYTES", 600)
        refresher.look()
    assert town.trained_until() == []
    assert re.fullmatch(
        "2024-01-29: the model before stays: a command with this model takes [0-9,]+ bytes, 600 at"
        " most: such a model takes a cut-over",
        town.said[-1],
    )
    said = len(town.said)
    for again in (refresher, town.refresher(), town.refresher(margin=2.0)):
        again.look()
    assert len(town.said) == said
    registry = CollectorRegistry()
    reader = CommandReader(
        *(town.address, "a", lambda _: None, WorkerMetrics(registry, "v").refresh_refused)
    )
    reader.start()
    name, deadline = "hearback_refresh_refused_until_seconds", time.monotonic() + 20
    while registry.get_sample_value(name, {"reason": "too_large"}) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    reader.stop()
    found = registry.get_sample_value(name, {"reason": "too_large"})
    assert found == (FIRST_MS + WEEK_MS) / 1000
    town.go_to(FIRST_MS + 2 * WEEK_MS + DAY_MS)
    refresher.look()
    assert town.trained_until() == [FIRST_MS + 2 * WEEK_MS]


def test_a_damaged_model_of_its_own_is_told_of_and_can_be_mended(town: Town) -> None:
    """The model before stays; once the folder is gone the week has its model after a restart."""
    folder = town.out / "2024-01-29"
    folder.mkdir(parents=True)
    town.go_to(FIRST_MS + WEEK_MS + DAY_MS)
    town.refresher().look()
    assert town.said[0].startswith("2024-01-29: the model before stays")
    folder.rmdir()
    town.refresher().look()
    assert town.trained_until() == [FIRST_MS + WEEK_MS]


def test_a_model_that_was_not_sent_any_more_is_sent_next_time(town: Town) -> None:
    """Ended between writing and sending, a refresher goes on with what it has written."""
    town.go_to(FIRST_MS + WEEK_MS + DAY_MS)
    town.refresher("b").look()
    written = load_model(town.out / "2024-01-29")
    (town.out / ".2024-01-29.part").mkdir()  # nobody minds one that was left
    town.refresher().look()
    (roll,) = sent_rolls(town.address, "a")
    assert roll.model.manifest.model_version == written.version
    assert "was trained before" in town.said[-2]
    assert [path.name for path in town.out.iterdir() if path.name[0] != "."] == ["2024-01-29"]


def test_a_folder_of_something_else_is_not_taken(town: Town) -> None:
    """A model that has its name and was trained until another time is refused."""
    save_model(town.out / "2024-01-29", town.first)
    town.go_to(FIRST_MS + WEEK_MS + DAY_MS)
    with pytest.raises(ConfigError, match="trained until another time"):
        town.refresher().look()
    assert town.trained_until() == []


def test_a_missing_topic_is_said_at_once(town: Town) -> None:
    """It is no trouble of the broker's, which would be waited for."""
    arguments = (town.address, Config(), "none", town.first, town.out)
    with pytest.raises(ConfigError, match="there is no topic none"):
        Refresher(*arguments, every_ms=WEEK_MS, margin=0.0, say=print)
