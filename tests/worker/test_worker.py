"""The whole worker on the embedded broker: the same labels as a replay, whatever happens to it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, Producer

from producers.simulate import simulate
from producers.truth import SimulationSettings, draw_truth
from stream.cli import PROGRAM
from stream.effects import JOB
from stream.events.ladder import BY_NAME, rung
from stream.events.records import COEFFICIENTS, DEAD_LETTERS, LABELS
from stream.events.wire import decode_label
from stream.kafka.embedded import EmbeddedBroker
from stream.logs.files import merge, write_lines
from stream.model.folder import GlobalModel, load_model
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy
from stream.replay.run_folder import RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.serving.lookup import from_data, from_run, from_topic
from stream.worker.topics import plans

PARTITIONS = 4
START_MS = SimulationSettings().start_ms


class World:
    """A simulated log, its model, its closed replay, and a broker with all topics."""

    def __init__(self, folder: Path, broker: EmbeddedBroker) -> None:
        self.folder = folder
        self.broker = broker.bootstrap_servers
        self.log = folder / "log.jsonl.gz"
        self.processes: list[subprocess.Popen[str]] = []
        settings = SimulationSettings(
            seed=3, members=60, jobs=24, days=20, applications_per_member=12.0
        )
        write_lines(self.log, simulate(settings))
        trainer = Trainer(Policy(), START_MS + 20 * DAY_MS, draw_truth(settings).feature_names)
        trainer.read(merge([self.log]), lambda _: None)
        trainer.fit(folder / "model")
        self.model: GlobalModel = load_model(folder / "model")
        with RunFolder(folder / "run") as run:
            replay(
                merge([self.log]), run, Policy(), self.model, self.model.space, Options(close=True)
            )
        lines = (folder / "run" / "labels.jsonl").read_bytes().splitlines()
        self.wanted = last_labels(lines, self.model)
        broker.create_topics({plan.name: PARTITIONS for plan in plans("hearback", DAY_MS)})

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a worker as a user would."""
        process = subprocess.Popen(
            [
                *(*PROGRAM, "worker", "--broker", self.broker),
                *("--model", str(self.folder / "model"), "--data", str(self.folder / "data")),
                *("--metrics-port", "0", "--session-timeout", "2s"),
                *map(str, arguments),
            ],
            stderr=subprocess.PIPE,
            text=True,
            umask=0,
        )
        self.processes.append(process)
        return process

    def produce(self, *arguments: object) -> None:
        """Play the log."""
        command = [*PROGRAM, "produce", str(self.log)]
        done = subprocess.run(
            [*command, "--broker", self.broker, *map(str, arguments)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def read(self, topic: str, enough: Callable[[list[bytes]], bool]) -> list[bytes]:
        """Read a topic from its start until enough was read."""
        consumer = Consumer(
            {"bootstrap.servers": self.broker, "group.id": f"read-{time.monotonic_ns()}",
             "auto.offset.reset": "earliest", "enable.auto.commit": False, "log_level": 0}
        )  # fmt: skip
        consumer.subscribe([topic])
        values: list[bytes] = []
        deadline = time.monotonic() + 60
        try:
            while not enough(values):
                assert time.monotonic() < deadline, f"{topic}: {len(values)} messages, not enough"
                found = consumer.consume(1000, timeout=0.2)
                values += [value for message in found if (value := message.value()) is not None]
        finally:
            consumer.close()
        return values

    def final_labels(self) -> list[bytes]:
        """Read labels until every application's is final."""

        def enough(values: list[bytes]) -> bool:
            last = last_labels(values, self.model)
            return len(last) == len(self.wanted) and all(final for _, _, final in last.values())

        return self.read(LABELS, enough)


def last_labels(
    lines: Sequence[bytes], model: GlobalModel
) -> dict[tuple[str, str], tuple[int, str, bool]]:
    """Return the highest label of each application, as any consumer of the topic keeps it."""
    last: dict[tuple[str, str], tuple[int, str, bool]] = {}
    for line in lines:
        label = decode_label(line, model.space)
        key = label.job_id, label.application_id
        new = (label.label, label.kind, label.final)
        old = last.get(key)
        if old is None or rung(BY_NAME[new[1]], new[2]) >= rung(BY_NAME[old[1]], old[2]):
            last[key] = new
    return last


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> str:
    """Stop a worker gracefully; return what it said."""
    process.send_signal(how)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    return said


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a world of its own for the test."""
    with EmbeddedBroker() as broker:
        made = World(tmp_path, broker)
        yield made
        for process in made.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def test_labels_equal_those_of_a_replay(world: World) -> None:
    """Every application's last label is that of the closed replay; coefficients are published.

    Nobody but their owner can read the files of it, whatever the umask, in a folder that was open.
    """
    (world.folder / "data").mkdir(mode=0o755)
    worker = world.start()
    world.produce("--close")
    labels = world.final_labels()
    assert last_labels(labels, world.model) == world.wanted
    keys = {
        (raw["effect"], raw["entity_id"])
        for raw in map(
            msgspec.json.decode,
            (world.folder / "run" / "coefficients.jsonl").read_bytes().splitlines(),
        )
    }
    published = world.read(
        COEFFICIENTS,
        lambda values: len(entities(values)) == len(keys),
    )
    assert entities(published) == keys
    said = end(worker)
    assert "this is an embedded broker" in said
    data = world.folder / "data"
    assert not [path for path in (data, *data.rglob("*")) if path.lstat().st_mode & 0o077]
    effect, entity_id = min(keys)
    assert effect == "per_job"
    live = from_data(world.folder / "data", JOB, entity_id)
    from_broker = from_topic(world.broker, JOB, entity_id, model=world.model)
    replayed = from_run(world.folder / "run", JOB, entity_id)
    assert live is not None
    assert replayed is not None
    assert from_broker is not None
    assert live.coefficients == from_broker.coefficients
    assert live.history is not None
    assert replayed.history is not None
    assert msgspec.structs.astuple(live.history) == pytest.approx(
        msgspec.structs.astuple(replayed.history), rel=1e-9
    )
    assert live.preferences is not None
    assert from_broker.preferences is not None
    assert replayed.preferences is not None
    assert from_broker.preferences.totals[1:3] == live.preferences.totals[1:3]  # as last rated
    assert live.preferences.by_weight() == replayed.preferences.by_weight()
    assert live.coefficients.examples == replayed.coefficients.examples
    assert live.names == replayed.names


def entities(values: list[bytes]) -> set[tuple[str, str]]:
    """Return effects and entities of coefficients messages, control records left out."""
    found = map(msgspec.json.decode, values)
    return {(raw["effect"], raw["entity_id"]) for raw in found if raw["effect"] != "control"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_stops_well_as_soon_as_it_says_that_it_is_on(
    world: World, number: signal.Signals
) -> None:
    """Exit code 0 and no complaint, whatever of it has started by then."""
    for after_s in (0.0, 0.1, 0.3):
        process = world.start()
        assert process.stderr is not None
        while not process.stderr.readline().startswith("worker hearback on "):
            assert process.poll() is None
        time.sleep(after_s)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")


def test_a_restart_in_the_middle_changes_nothing(world: World) -> None:
    """Stopped after half of the log and started again: the same labels, none emitted twice."""
    middle = START_MS + 12 * DAY_MS
    first = world.start()
    world.produce("--until", middle)
    world.read(LABELS, lambda values: len(values) > 50)
    end(first, signal.SIGINT)
    second = world.start()
    world.produce("--from", middle, "--close")
    labels = world.final_labels()
    end(second)
    assert last_labels(labels, world.model) == world.wanted
    emitted = [
        (label.job_id, label.application_id, label.kind, label.weight, label.final)
        for label in (decode_label(line, world.model.space) for line in labels)
    ]
    assert len(emitted) == len(set(emitted))


def test_bad_records_go_to_the_dead_letters(world: World) -> None:
    """Malformed and misrouted records are set aside with reasons; the rest is unharmed."""
    worker = world.start()
    producer = Producer(
        {"bootstrap.servers": world.broker, "partitioner": "murmur2_random", "log_level": 0}
    )
    for number in range(20):
        producer.produce("applications", b"{", key=b"m%d" % number)
        producer.produce("engagements", b'{"type":"engagement"}', key=b"j%d" % number)
        producer.produce("applications-by-job", b"[]", key=b"j")
    producer.flush(10)
    world.produce("--close")
    labels = world.final_labels()
    assert last_labels(labels, world.model) == world.wanted
    letters = world.read(DEAD_LETTERS, lambda values: len(values) >= 60)
    assert letters.count(b"{") == 20
    end(worker)


def test_metrics_are_served_on_localhost(world: World) -> None:
    """``/metrics`` tells events, labels, refits, latency and lag in Prometheus' format."""
    worker = world.start()
    world.produce("--close")
    world.final_labels()
    assert worker.stderr is not None
    address = None
    while address is None:
        address = re.search(r"http://127\.0\.0\.1:\d+/metrics", worker.stderr.readline())
    with urllib.request.urlopen(address.group(), timeout=5) as page:  # noqa: S310 - localhost
        text = page.read().decode()
    for name in (
        'hearback_events_total{stage="job",type="engagement"}',
        'hearback_labels_total{kind="positive",rule="action"}',
        'hearback_refits_total{effect="per_member"}',
        'hearback_event_to_coefficients_seconds_count{effect="per_job"}',
        'hearback_watermark_lag_seconds{partition="3",stage="job"}',
        'hearback_partitions{stage="member"} 4.0',
        "hearback_build_info",
    ):
        assert name in text
    end(worker)


def test_a_state_of_another_model_is_refused(world: World) -> None:
    """A worker with another model than its state's stops with one line and exit code 1."""
    first = world.start()
    world.produce()
    world.read(LABELS, lambda values: len(values) > 5)
    end(first)
    manifest = world.folder / "model" / "manifest.json"
    changed = msgspec.json.decode(manifest.read_bytes())
    changed["model_version"] = "another"
    manifest.write_bytes(msgspec.json.encode(changed))
    second = world.start()
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "was learned with model" in said
    assert "Traceback" not in said


def test_a_lost_data_folder_is_made_again(world: World) -> None:
    """A worker that finds its folder wiped takes its state from the changelogs and goes on."""
    middle = START_MS + 12 * DAY_MS
    first = world.start()
    world.produce("--until", middle)
    world.read(LABELS, lambda values: len(values) > 50)
    end(first)
    shutil.rmtree(world.folder / "data")
    second = world.start()
    world.produce("--from", middle, "--close")
    labels = world.final_labels()
    end(second)
    assert last_labels(labels, world.model) == world.wanted


def test_compressed_topics_are_read(world: World) -> None:
    """A producer may compress with whatever Kafka knows."""
    worker = world.start()
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        producer = Producer(
            {"bootstrap.servers": world.broker, "compression.type": codec, "log_level": 0}
        )
        for number in range(20):
            producer.produce("applications", b"not JSON " * 50, key=b"m%d" % number)
        producer.flush(10)
    assert len(world.read(DEAD_LETTERS, lambda values: len(values) >= 80)) == 80
    end(worker)
