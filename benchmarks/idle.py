"""What a worker costs that has little or nothing to do: transactions, messages and CPU a second.

Simulated: all partitions of both stages in one process, with stores in memory and a clock that is
set by hand; they are looked at once a second, as a worker does. By the number of partitions (12,
48, 128), in all:

- ``trickle``: one application a second for each partition, from the first one on;
- ``played``: the same while each second of the wall clock is twenty minutes of event time, so that
  every job partition has to be told all the time;
- ``quiet``: nothing comes, for two idle timeouts and a bit.

Keys of the last line, each with ``_12``, ``_48``, ``_128``: ``NAME_transactions_per_s``,
``NAME_bare_per_s`` (bare watermarks), ``NAME_bare_most_in_a_s``, ``NAME_cpu_ms_per_s``.

On a real Kafka (that of ``HEARBACK_TEST_BROKER``, whose topics are deleted, or one that is started
for this run) one worker of 12 partitions: ``kafka_quiet_transactions_per_s``,
``kafka_quiet_cpu_ms_per_s``, and the same with ``trickle``.

Arguments choose parts: ``simulated``, ``kafka``; none means both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
from confluent_kafka import Producer

from benchmarks.worker import Market, Worker, fresh_topics, real_kafka
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, APPLICATIONS_BY_JOB, ENGAGEMENTS
from stream.partitions.base import Unit
from stream.policy import Policy
from stream.updaters.newton import warm_up
from tests import kit
from tests.kit import application

PARTITIONS = (12, 48, 128)
BUSY_S = 60
QUIET_S = 3_700
PLAYED = 1_200
"""Seconds of event time in one of the wall clock."""

KAFKA_PARTITIONS = 12
SETTLING_S = 75.0  # until the last positions were stored, once a minute
MEASURED_S = 60.0


class Partitions(kit.Market):
    """All partitions of a cluster; counts what they send."""

    def __init__(self, count: int) -> None:
        self.transactions = 0
        self.bare: Counter[int] = Counter()  # by second
        self.written = 0  # engagements
        super().__init__(Policy(), count)
        self.members: list[str] = []
        number = 0
        while len(self.members) < count:
            number += 1
            if partition_of(f"m{number}".encode(), count) == len(self.members):
                self.members.append(f"m{number}")

    def deliver(
        self, stage: str, number: int, units: Iterable[Unit], *, flush: bool = True
    ) -> None:
        """Count units of work that a worker would commit."""
        for unit in units:
            self.transactions += 1
            self.bare[self.now_ms // 1000] += sum(
                each.topic == APPLICATIONS_BY_JOB and each.key is None for each in unit
            )
            super().deliver(stage, number, [unit], flush=flush)

    def tick(self, stage: str, number: int) -> None:
        """Look at a partition, as a worker does once a second."""
        partition = self.partitions[stage, number]
        topic = partition.input_topic
        at_end = (partition.position(topic) or 0) >= len(self.topics[topic, number])
        partition.clock.observe_end(self.now_ms, at_end=at_end, written=self.written)
        self.deliver(stage, number, partition.tick(self.now_ms, self.now_ms, self.written))

    def second(self) -> None:
        """Read what is there, and look at everything once."""
        self.now_ms += 1000
        for (stage, number), partition in self.partitions.items():
            for topic in partition.topics:
                self.step(stage, number, topic, 1000)
            self.tick(stage, number)

    def apply(self, second: int, event_ms: int) -> None:
        """Write one application to each partition."""
        for number, member in enumerate(self.members):
            job = f"j{(second * 37 + number * 101) % 1000}"
            applied = application(f"a{second}-{number}", event_ms, job=job, member=member)
            self.append(APPLICATIONS, number, member.encode(), kit.to_json(applied))

    def measure(self, name: str, seconds: int, event_s: int) -> dict[str, float]:
        """Let seconds pass; ``event_s``: of event time in each, 0: nothing comes."""
        self.transactions = 0
        self.bare.clear()
        start = time.process_time()
        for _ in range(seconds):
            if event_s:
                self.event_ms += event_s * 1000
                self.apply(self.now_ms // 1000, self.event_ms)
            self.second()
        cpu_s = time.process_time() - start
        found = {
            "transactions_per_s": round(self.transactions / seconds, 2),
            "bare_per_s": round(self.bare.total() / seconds, 2),
            "bare_most_in_a_s": max(self.bare.values(), default=0),
            "cpu_ms_per_s": round(1000 * cpu_s / seconds, 2),
        }
        told = ", ".join(f"{value:,} {key}" for key, value in found.items())
        print(f"{self.count} partitions, {name}: {told}", flush=True)
        return {f"{name}_{key}_{self.count}": value for key, value in found.items()}

    event_ms = kit.NOW_MS - 100 * 86_400_000


def simulated() -> dict[str, float]:
    """Measure partitions without a broker."""
    result: dict[str, float] = {}
    for count in PARTITIONS:
        partitions = Partitions(count)
        job = next(f"j{n}" for n in range(10**6) if partition_of(f"j{n}".encode(), count) == 0)
        answer = kit.engagement("e", "nobody", partitions.event_ms, job=job)
        partitions.append(ENGAGEMENTS, 0, job.encode(), kit.to_json(answer))
        partitions.written = 1
        result |= partitions.measure("trickle", BUSY_S, 1)
        result |= partitions.measure("played", BUSY_S, PLAYED)
        for _ in range(120):
            partitions.second()
        result |= partitions.measure("quiet", QUIET_S, 0)
    return result


def kafka(folder: Path) -> dict[str, float]:
    """Measure one worker on a real Kafka."""
    market = Market(folder)
    applied = msgspec.json.decode(
        next(line for line in market.lines if b'"application"' in line[:40])
    )
    result: dict[str, float] = {}
    with real_kafka(folder / "kafka") as broker:
        worker = Worker(broker, market, fresh_topics(broker, KAFKA_PARTITIONS))
        producer = Producer(
            {"bootstrap.servers": broker, "partitioner": "murmur2_random", "log_level": 0}
        )

        def trickle(seconds: float) -> None:
            begun = time.monotonic()
            sent = 0
            while (past := time.monotonic() - begun) < seconds:
                while sent < past * KAFKA_PARTITIONS:
                    sent += 1
                    member = f"m{sent % 997}"
                    event = applied | {
                        "application_id": f"t{begun}-{sent}",
                        "member_id": member,
                        "event_time_ms": time.time_ns() // 1_000_000,
                    }
                    producer.produce(APPLICATIONS, msgspec.json.encode(event), member)
                producer.flush(10)
                time.sleep(0.1)

        def measure(name: str) -> None:
            before, cpu_s = worker.metrics(), worker.cpu_seconds()
            start = time.monotonic()
            if name == "trickle":
                trickle(MEASURED_S)
            else:
                time.sleep(MEASURED_S)
            seconds = time.monotonic() - start
            commits = worker.metrics()["hearback_commit_seconds_count",]
            commits -= before["hearback_commit_seconds_count",]
            found = {
                "transactions_per_s": round(commits / seconds, 2),
                "cpu_ms_per_s": round(1000 * (worker.cpu_seconds() - cpu_s) / seconds, 1),
            }
            told = ", ".join(f"{value:,} {key}" for key, value in found.items())
            print(f"Kafka, {KAFKA_PARTITIONS} partitions, {name}: {told}", flush=True)
            result.update({f"kafka_{name}_{key}": value for key, value in found.items()})

        try:
            worker.wait_for_partitions(KAFKA_PARTITIONS)
            trickle(10.0)
            measure("trickle")
            time.sleep(SETTLING_S)
            measure("quiet")
        finally:
            worker.stop()
    return result


def main() -> None:
    """Run the parts that were asked for, and print the result."""
    parts = sys.argv[1:] or ["simulated", "kafka"]
    warm_up()
    result: dict[str, float] = {}
    if "simulated" in parts:
        result |= simulated()
    if "kafka" in parts:
        with tempfile.TemporaryDirectory() as folder:
            result |= kafka(Path(folder))
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
