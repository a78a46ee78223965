"""A simulated market, what a replay learns of it, and workers that must learn the same.

The policy keeps every example and couples nothing, so that what is learned of each entity does not
depend on the order in which labels came: kept examples must be equal, coefficients to 1e-6
standard deviations.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from producers.simulate import simulate
from producers.truth import SimulationSettings, draw_truth
from stream import effects
from stream.backtest.tuning import trainer
from stream.cli import PROGRAM
from stream.configuration.load import load_config
from stream.events.applicants import decode_applicants_key
from stream.events.ladder import BY_NAME, rung
from stream.events.records import (
    APPLICANTS,
    COEFFICIENTS,
    CONSUMED,
    LABELS,
    MATCHES,
    PLAIN,
    TopicNames,
)
from stream.events.structs import Match
from stream.events.wire import decode_label
from stream.kafka.cluster import ids_of_topics
from stream.logs.files import merge, write_lines
from stream.model.folder import GlobalModel, load_model
from stream.model.kind import ModelKind
from stream.policy import DAY_MS, Policy
from stream.replay.run_folder import STATE, RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.state.entities import StoredPosteriors, all_posteriors
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore, RocksStore, Store
from stream.updaters.effect import Effect
from stream.worker.changelog import Changelog, changelog_of
from stream.worker.crashpoints import VARIABLE
from stream.worker.topics import create_topics
from stream.worker.transactions import Transactions
from tests.integration.workers import Worker

PARTITIONS = 6
EFFECTS: dict[str, str] = {spec.stage: spec.name for spec in effects.EFFECTS}
_POLICY = """\
[effects.per_member]
capacity = 3000
open_limit = 3000
half_life = "off"
coupled = false
[effects.per_job]
capacity = 3000
open_limit = 3000
half_life = "off"
coupled = false
[matches]
enabled = true
[applicants]
enabled = true
"""
_PATIENCE_S = 120.0

Key = tuple[str, str]
Last = dict[Key, tuple[int, str, bool]]


class Learned(NamedTuple):
    """What is known of one entity."""

    examples: int
    kept: list[tuple[str, int, bool]]
    mean: np.ndarray
    sd: np.ndarray


class Market:
    """A log with its model and policy, and what its closed replay says.

    Made once for all tests. ``trained_days``: of the log, for the model; None: all. ``keep``: which
    lines of the simulated log it has, once the model is trained on all of them. ``kind``: of the
    model; a boosted one takes histories.
    """

    def __init__(
        self,
        folder: Path,
        settings: SimulationSettings,
        trained_days: int | None = None,
        keep: Callable[[bytes], bool] | None = None,
        kind: ModelKind = "linear",
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.start_ms = settings.start_ms
        self.log = folder / "log.jsonl.gz"
        self.policy_file = folder / "policy.toml"
        self.policy_file.write_text(_POLICY)
        self.policy: Policy = load_config(None, {}, self.policy_file).policy
        self.events = write_lines(self.log, simulate(settings))
        until_ms = settings.start_ms + (trained_days or settings.days) * DAY_MS
        fitting = trainer(self.policy, until_ms, draw_truth(settings).feature_names, None, kind)
        fitting.read(merge([self.log]), lambda _: None)
        fitting.fit(folder / "model")
        if keep is not None:
            self.events = write_lines(self.log, filter(keep, simulate(settings)))
        self.model: GlobalModel = load_model(folder / "model")
        with RunFolder(folder / "run") as run:
            replay(
                merge([self.log]),
                run,
                self.policy,
                self.model,
                self.model.space,
                Options(close=True),
            )
        lines = (folder / "run" / "labels.jsonl").read_bytes().splitlines()
        self.last = last_labels(lines, self.model)
        store = RocksStore(folder / "run" / STATE, read_only=True)
        self.learned = {stage: self.learned_in(store, stage) for stage in EFFECTS}
        store.close()

    def replay_until(self, time_ms: int) -> Path:
        """Replay the events before a time, in their order, and leave the end open."""
        run = self.folder / f"run-{time_ms}"
        if not run.exists():
            log = self.folder / f"log-{time_ms}.jsonl"
            lines = (line for line in merge([self.log]) if decode_raw_time(line.raw) < time_ms)
            write_lines(log, (line.raw for line in lines))
            with RunFolder(run) as folder:
                replay(merge([log]), folder, self.policy, self.model, self.model.space)
        return run

    def parts(self, count: int) -> list[Path]:
        """Cut the log into parts of the same number of events, in their order."""
        folder = self.folder / f"parts-{count}"
        paths = [folder / f"{part}.jsonl" for part in range(count)]
        if not folder.exists():
            folder.mkdir()
            lines = [line.raw for line in merge([self.log])]
            for part, path in enumerate(paths):
                first, last = (len(lines) * n // count for n in (part, part + 1))
                write_lines(path, lines[first:last])
        return paths

    def learned_in(self, store: Store, stage: str) -> dict[str, Learned]:
        """Everything that a store knows of a stage's entities."""
        (spec,) = [spec for spec in effects.EFFECTS if spec.stage == stage]
        name, size = spec.name, self.model.space.block(spec.block).size
        effect = Effect(
            spec,
            size,
            settings=self.model.space.fitted(self.policy)[name],
            model_version=self.model.version,
            book=StoredPosteriors(name, Overlay(store)),
        )
        found = {}
        for entity_id, posterior in all_posteriors(store, name):
            told = effect.describe({entity_id: posterior})[entity_id]
            found[entity_id] = Learned(
                told.examples,
                [(example.id, example.kind, example.final) for example in posterior.kept],
                np.array(told.mean),
                np.sqrt(np.array(told.variance)),
            )
        return found


class World:
    """A broker with the topics of one application id, and the workers of one test."""

    def __init__(
        self, folder: Path, broker: str, market: Market, partitions: int = PARTITIONS
    ) -> None:
        self.folder = folder
        self.broker = broker
        self.market = market
        self.partitions = partitions
        self.application_id = f"test-{time.monotonic_ns()}"
        self.warm = f"warm-{time.monotonic_ns()}"  # for a bootstrap; of no earlier test
        self.names = PLAIN
        self.history: list[bytes] = []
        """Label messages from before the first live event: those of a replay."""
        self.workers: list[Worker] = []
        self._producers: list[subprocess.Popen[bytes]] = []
        remove_topics(broker)
        create_topics(
            broker,
            self.application_id,
            market.policy.labels.window_ms,
            partitions=partitions,
            replication=1,
        )

    def start(self, name: str = "a", crash_at: str | None = None, **more: Any) -> Worker:
        """Start a worker with the data folder ``name``."""
        worker = Worker(self, name, crash_at, **more)
        self.workers.append(worker)
        return worker

    def bootstrap(
        self, application_id: str, run: Path, *arguments: object, crash_at: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Load a replay's state into a new application id; it is the one looked at from now on."""
        environment = dict(os.environ)
        if crash_at is not None:
            environment[VARIABLE] = crash_at
        self.application_id = application_id
        self.names = TopicNames.own(application_id)
        self.history = (run / "labels.jsonl").read_bytes().splitlines()
        return subprocess.run(
            [
                *(*PROGRAM, "bootstrap", "--broker", self.broker),
                *("--run", str(run), "--app-id", application_id),
                *("--policy", str(self.market.policy_file), *map(str, arguments)),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env=environment,
        )

    def produce(
        self, *arguments: object, log: Path | None = None, wait: bool = True
    ) -> subprocess.Popen[bytes]:
        """Play the market's log, or another."""
        producer = subprocess.Popen(
            [
                *(*PROGRAM, "produce", str(log or self.market.log)),
                *("--broker", self.broker, "--policy", str(self.market.policy_file)),
                *map(str, arguments),
            ],
            stdout=subprocess.DEVNULL,
        )
        self._producers.append(producer)
        if wait:
            assert producer.wait(300) == 0
        return producer

    def fit(self, line: bytes) -> bytes:
        """Give an application's features the sizes of the market's model."""
        event = msgspec.json.decode(line)
        space = self.market.model.space
        event["features"] = {
            "per_member": [1.0] * space.per_member.size,
            "per_job": [1.0] * space.per_job.size,
        }
        event["global_score"] = 0.0
        encoded: bytes = msgspec.json.encode(event)
        return encoded

    def fence(self, stage: str, number: int) -> None:
        """Take a partition's transactional id away from whoever has it."""
        Transactions(self.broker, f"{self.application_id}-{stage}-{number}").fence()

    def end(self) -> None:
        """Kill whatever still runs."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.thaw()
                worker.kill()
        for producer in self._producers:
            if producer.poll() is None:
                producer.kill()
                producer.wait()

    # -- what came of it ---------------------------------------------------------------------

    def wait_until_final(self, patience_s: float = _PATIENCE_S) -> list[bytes]:
        """Read labels until every application's is final; return all label messages."""
        return self.wait_for_labels(
            lambda last: (
                len(last) >= len(self.market.last) and all(final for _, _, final in last.values())
            ),
            patience_s,
        )

    def wait_for_labels(
        self, enough: Callable[[Last], bool], patience_s: float = _PATIENCE_S
    ) -> list[bytes]:
        """Read labels from the start until what they say is enough."""
        values = list(self.history)
        last = last_labels(values, self.market.model)
        deadline = time.monotonic() + patience_s
        for messages in self.reading(LABELS):
            new = [message.value() or b"" for message in messages]
            values += new
            merge_labels(last, new, self.market.model)
            if enough(last):
                return values
            for worker in self.workers:
                assert worker.failed or worker.process.poll() != 1, worker.said
            if time.monotonic() > deadline:
                missing = self.market.last.keys() - last.keys()
                said = "\n".join(f"{worker.name}: {worker.said}" for worker in self.workers)
                raise AssertionError(
                    f"not enough labels in {patience_s:g} s: {len(values)} messages,"
                    f" {len(missing)} applications without any\n{said}"
                )
        raise AssertionError("reading never ends")

    def reading(self, topic: str) -> Iterator[list[Message]]:
        """Give a topic's messages from its start, as they come, read committed."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker,
                "group.id": f"read-{time.monotonic_ns()}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
        try:
            name = self.names.of(topic)
            consumer.assign([TopicPartition(name, n, 0) for n in range(self.partitions)])
            while True:
                found = consumer.consume(2000, 0.2)
                errors = [error for message in found if (error := message.error())]
                assert all(error.retriable() for error in errors), errors
                yield [message for message in found if message.error() is None]
        finally:
            consumer.close()

    def all_of(self, topic: str) -> list[Message]:
        """Return a topic's messages, once no more have come for a second."""
        found: list[Message] = []
        quiet = 0
        for messages in self.reading(topic):
            found += messages
            quiet = 0 if messages else quiet + 1
            if quiet == 6 and found:
                break
        return found

    def check(self) -> None:
        """Compare everything with the replay; all labels have to be final."""
        labels = self.wait_until_final(10.0)
        self.check_labels(labels)
        self.check_learned()

    def check_labels(self, labels: Sequence[bytes]) -> None:
        """The last label of each application is the replay's, and none stands twice."""
        last = last_labels(labels, self.market.model)
        different = {key for key in last if last[key] != self.market.last.get(key)}
        assert last.keys() == self.market.last.keys()
        assert not different, f"{len(different)} labels differ, such as {sorted(different)[:3]}"
        emitted: Counter[tuple[str, str, str, float, bool]] = Counter()
        for line in labels:
            label = decode_label(line, self.market.model.space)
            kind = label.kind, label.weight, label.final
            emitted[label.job_id, label.application_id, *kind] += 1
        twice = [key for key, count in emitted.items() if count > 1]
        assert not twice, f"{len(twice)} labels stand twice, such as {twice[:3]}"

    def check_matches(self) -> None:
        """Each match stands once, and no job has more of them in a day than it may."""
        told: Counter[Key] = Counter()
        days: Counter[tuple[str, int]] = Counter()
        quiet = 0
        for messages in self.reading(MATCHES):
            for message in messages:
                match = msgspec.json.decode(message.value() or b"", type=Match)
                told[match.job_id, match.application_id] += 1
                days[match.job_id, match.event_time_ms // DAY_MS] += 1
            quiet = 0 if messages else quiet + 1
            if quiet == 10:
                break
        assert told
        assert told.keys() <= self.market.last.keys()
        assert set(told.values()) == {1}
        assert max(days.values()) <= self.market.policy.matches.per_day

    def applicants(self) -> dict[Key, list[bytes | None]]:
        """What is published of each application by job and id, in order; None: withdrawn."""
        told: dict[Key, list[bytes | None]] = defaultdict(list)
        for message in self.all_of(APPLICANTS):
            told[decode_applicants_key(message.key() or b"")].append(message.value())
        return told

    def check_applicants(self) -> None:
        """All windows are over: each application that was published once is withdrawn, once."""
        told = self.applicants()
        assert len(told) > len(self.market.last) / 2
        assert told.keys() <= self.market.last.keys()
        for ids, values in told.items():
            assert [value is None for value in values] in ([False, True], [True]), ids

    def check_learned(self, *, coefficients: bool = True) -> None:
        """What the changelogs say of each entity is what the replay learned of it.

        The last labels may be learned a moment after they can be read. ``coefficients``: False
        where offsets depend on what was read when; then only what is kept is compared.
        """
        deadline = time.monotonic() + 30.0
        while True:
            wrong = [line for stage in EFFECTS for line in self._differences(stage, coefficients)]
            if not wrong:
                return
            assert time.monotonic() < deadline, f"{len(wrong)} differ: {wrong[:5]}"
            time.sleep(0.5)

    def _differences(self, stage: str, coefficients: bool) -> Iterator[str]:
        wanted = self.market.learned[stage]
        found = self.recovered(stage)
        for entity_id in wanted.keys() | found.keys():
            want, have = wanted.get(entity_id), found.get(entity_id)
            if want is None or have is None:
                yield f"{stage} {entity_id}: {'unknown' if have is None else 'unwanted'}"
            elif want.kept != have.kept or want.examples != have.examples:
                yield f"{stage} {entity_id}: {have.examples} examples, not {want.examples}"
            elif coefficients and np.max(np.abs(want.mean - have.mean) / want.sd) > 1e-6:
                yield f"{stage} {entity_id}: {have.mean}, not {want.mean}"

    def recovered(self, stage: str) -> dict[str, Learned]:
        """What a stage's changelog says, read into an empty store."""
        ids = ids_of_topics(self.broker, [changelog_of(self.application_id, stage)], 10.0)
        learned: dict[str, Learned] = {}
        for number in range(self.partitions):
            store = MemoryStore()
            changelog = Changelog(self.broker, self.application_id, (stage, number), topic_ids=ids)
            changelog.bring_up(store, renew=MemoryStore, go_on=lambda: True, now_ms=lambda: 0)
            learned |= self.market.learned_in(store, stage)
        return learned

    def published(self) -> dict[bytes, bytes | None]:
        """The newest coefficients of each entity, as a consumer of their topic keeps them."""
        found: dict[bytes, bytes | None] = {}
        quiet = 0
        for messages in self.reading(COEFFICIENTS):
            found |= {
                message.key() or b"": message.value()
                for message in messages
                if not (message.key() or b"").startswith(b"control:")
            }
            quiet = 0 if messages else quiet + 1
            if quiet == 10:
                break
        return found

    def committed_share(self) -> float:
        """How much of the inputs the group has committed, 0 … 1."""
        consumer = Consumer(
            {"bootstrap.servers": self.broker, "group.id": self.application_id, "log_level": 0}
        )
        try:
            places = [
                TopicPartition(self.names.of(t), n)
                for t in CONSUMED
                for n in range(self.partitions)
            ]
            ends = [consumer.get_watermark_offsets(place, timeout=10)[1] for place in places]
            done = [max(place.offset, 0) for place in consumer.committed(places, timeout=10)]
        finally:
            consumer.close()
        return sum(done) / max(sum(ends), 1)


def decode_raw_time(raw: bytes) -> int:
    """Event time of a line, in milliseconds."""
    time_ms: int = msgspec.json.decode(raw)["event_time_ms"]
    return time_ms


def last_labels(lines: Sequence[bytes], model: GlobalModel) -> Last:
    """Return the highest label of each application, as any consumer of the topic keeps it."""
    last: Last = {}
    merge_labels(last, lines, model)
    return last


def merge_labels(last: Last, lines: Sequence[bytes], model: GlobalModel) -> None:
    """Enter further labels into what :func:`last_labels` returned."""
    for line in lines:
        label = decode_label(line, model.space)
        key = label.job_id, label.application_id
        new = (label.label, label.kind, label.final)
        old = last.get(key)
        if old is None or rung(BY_NAME[new[1]], new[2]) >= rung(BY_NAME[old[1]], old[2]):
            last[key] = new


def remove_topics(broker: str) -> None:
    """Delete every topic that is not Kafka's own."""
    client = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    deadline = time.monotonic() + 30.0
    while True:
        there = [
            name for name in client.list_topics(timeout=10).topics if not name.startswith("__")
        ]
        if not there:
            return
        assert time.monotonic() < deadline, f"topics stay: {there}"
        for future in client.delete_topics(there).values():
            with suppress(KafkaException):
                future.result(10)
        time.sleep(0.1)
