"""One worker on a real Kafka: how many events, how soon, and how quickly it is back.

The Kafka is the one of ``HEARBACK_TEST_BROKER`` (its topics are deleted, whosever they are), or one
that is started for this run. Keys of the last line:

- ``over_empty_faust``: input events per second of one worker that does the whole job (labels, both
  effects, RocksDB, changelog, transactions, coefficients), over those of a stock Faust application
  with the same topics and hops whose agents do nothing (``baseline_faust.py``);
- ``over_quix_lambda_learner``: the same over the same job, one event at a time, on Quix Streams'
  state with lambda-learner (``baseline_quix.py``);
- ``over_replay``: the same over ``hearback replay`` on the same log;
- ``events_per_s``: that of the worker, by the clock;
- ``p50_ms``, ``p99_ms``: from an event's arrival in Kafka to the arrival of its coefficients at a
  consumer, at a steady 1,000 events a second with two partitions; ``p50_ms_of_6``,
  ``p99_ms_of_6``: with six. Every partition has transactions of its own, and a transaction its
  price for each partition that it writes to: a worker of many partitions on two cores that it
  shares with the broker is busy with transactions;
- ``recovery_per_s``: entity states of 1 kB a second that a worker with an empty folder reads from
  its changelog, 1,000,000 in all, by the clock, from the assignment until it works on all of them;
- ``takeover_s``: a second worker joins, each follows as standby what the other owns, and the first
  is killed: seconds from the assignment until the second works on all partitions;
- ``restart_s``: that one is killed too and started again on its folder: seconds from its start
  until it works on all partitions, less the session time-out of 10 s;
- ``boosted_cpu_times``: CPU time of a worker with boosted trees that takes histories, over that of
  one with a linear model that keeps none, each the least of its runs, on 20,000 events.

Everything is read from topics that are full before it begins. Worker and Faust take turns; of each
the fastest run counts. Rates are by the clock, on the cores that the broker has to share; the same
ratios by the CPU time of the process alone have ``_cpu`` at the end of their keys, and are what to
look at where other programs are busy too.

Arguments choose parts: ``throughput``, ``latency``, ``recovery``, ``boosted``; none means all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.baselines import baselines_python
from deploy.kafka import Kafka, MissingError
from producers.kafka import produce
from producers.simulate import simulate
from producers.truth import SimulationSettings, draw_truth
from stream.backtest.tuning import trainer
from stream.cli import PROGRAM
from stream.configuration.load import load_config
from stream.events.applications import RawApplication
from stream.events.records import APPLICATIONS, COEFFICIENTS, ENGAGEMENTS
from stream.events.wire import decode_raw
from stream.logs.files import merge, write_lines
from stream.model.folder import GlobalModel, load_model
from stream.model.kind import ModelKind
from stream.policy import DAY_MS, Policy
from stream.replay.run_folder import RunFolder
from stream.replay.single import replay
from stream.state import codec, keys
from stream.updaters.kept import Example, Kept, Posterior
from stream.updaters.newton import warm_up
from stream.worker.changelog import changelog_of
from stream.worker.topics import create_topics
from stream.worker.transactions import Transactions
from tests.integration.world import remove_topics

PARTITIONS = 6
RUNS = 2
MARKET = SimulationSettings(seed=11, members=3000, jobs=600, days=30)
FEW_EVENTS = 2_000  # for what does hundreds a second
BOOSTED_EVENTS = 20_000
STEADY_PER_S = 1000
LATENCY_PARTITIONS = (2, PARTITIONS)
STEADY_S = 60.0
SETTLING_S = 30.0  # whose latencies do not count: a broker that was just started is slow
STATES = 1_000_000
PATIENCE_S = 300.0
SESSION_S = 10.0  # the worker's default

_BASELINES = Path(__file__).parent
_PRODUCER = {"partitioner": "murmur2_random", "linger.ms": 5}


class Market:
    """A simulated log, or its first ``events``, and the global model trained on its first half.

    ``kind``: of the model. ``histories``: whether they are kept, and taken by a boosted one.
    """

    def __init__(
        self,
        folder: Path,
        events: int | None = None,
        *,
        kind: ModelKind = "linear",
        histories: bool = True,
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.policy_file = folder / "policy.toml"
        self.policy_file.write_text("" if histories else "[features]\nhistories = false\n")
        policy = load_config(None, {}, self.policy_file).policy
        self.lines = list(islice(simulate(MARKET), events))
        self.log = folder / "log.jsonl"
        self.few = folder / "few.jsonl"
        write_lines(self.log, self.lines)
        write_lines(self.few, self.lines[:FEW_EVENTS])
        raw = map(decode_raw, self.lines)
        self.applications = sum(isinstance(event, RawApplication) for event in raw)
        self.engagements = len(self.lines) - self.applications
        until_ms = MARKET.start_ms + MARKET.days * DAY_MS // 2
        fitting = trainer(policy, until_ms, draw_truth(MARKET).feature_names, None, kind)
        fitting.read(merge([self.log]), lambda _: None)
        fitting.fit(folder / "model")
        self.model: GlobalModel = load_model(folder / "model")


class Worker:
    """``hearback worker`` with an empty folder, or with that of another."""

    def __init__(
        self, broker: str, market: Market, application_id: str, before: Worker | None = None
    ) -> None:
        self._folder: Path = before._folder if before else Path(tempfile.mkdtemp(dir=market.folder))
        self._log = self._folder / "worker.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(*PROGRAM, "worker", "--broker", broker),
                    *("--model", str(market.folder / "model"), "--app-id", application_id),
                    *("--policy", str(market.policy_file), "--metrics-port", "0"),
                    *("--data", str(self._folder / "data")),
                ],
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def metrics(self) -> Counter[tuple[str, ...]]:
        """Return its metrics, by name and the values of their labels; none while it starts."""
        if self._process.poll() is not None:
            sys.exit(f"the worker ended: {self._log.read_text()}")
        found = re.search(r"http://\S+/metrics", self._log.read_text())
        values: Counter[tuple[str, ...]] = Counter()
        with suppress(OSError):
            if found is not None:
                with urllib.request.urlopen(found.group(), timeout=5) as page:  # noqa: S310
                    text = page.read().decode()
                for family in text_string_to_metric_families(text):
                    for sample in family.samples:
                        values[sample.name, *sample.labels.values()] = sample.value  # type: ignore[assignment]
        return values

    def wait(self, condition: Callable[[Counter[tuple[str, ...]]], bool], every_s: float) -> float:
        """Wait until its metrics are so; return the time at which they were."""
        deadline = time.perf_counter() + PATIENCE_S
        while not condition(self.metrics()):
            if time.perf_counter() > deadline:
                sys.exit(f"the worker is too slow: {self.metrics()}\n{self._log.read_text()}")
            time.sleep(every_s)
        return time.perf_counter()

    def wait_for_partitions(self, count: int = PARTITIONS) -> float:
        """Wait until it works on all partitions."""
        return self.wait(
            lambda found: (
                found["hearback_partitions", "member"] == count
                and found["hearback_partitions", "job"] == count
            ),
            0.05,
        )

    def cpu_seconds(self) -> float:
        """CPU time that its process has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Kill -9; its folder stays."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def real_kafka(folder: Path) -> Iterator[str]:
    """Address of the Kafka to use."""
    given = os.environ.get("HEARBACK_TEST_BROKER")
    if given:
        yield given
        return
    try:
        kafka = Kafka(folder)
    except MissingError as missing:
        sys.exit(f"no real Kafka: {missing}")
    kafka.start()
    try:
        yield kafka.address
    finally:
        kafka.kill()


def fresh_topics(broker: str, partitions: int = PARTITIONS) -> str:
    """Make all topics anew; return the application id that they are for."""
    application_id = f"bench-{time.monotonic_ns()}"
    remove_topics(broker)
    create_topics(
        *(broker, application_id, Policy().labels.window_ms), partitions=partitions, replication=1
    )
    return application_id


# -- throughput ----------------------------------------------------------------------------------


def worker_rates(broker: str, market: Market) -> tuple[float, float]:
    """Input events per second of the worker: by the clock and by its CPU time."""
    application_id = fresh_topics(broker)
    produce([market.log], broker)
    worker = Worker(broker, market, application_id)
    try:
        began = worker.wait_for_partitions()
        began_cpu = worker.cpu_seconds()

        def all_done(found: Counter[tuple[str, ...]]) -> bool:
            events = Counter({key[1:]: n for key, n in found.items() if key[0].endswith("_total")})
            emitted = sum(n for key, n in found.items() if key[0] == "hearback_labels_total")
            return (
                events["member", "application"] == market.applications
                and events["job", "application"] == market.applications
                and events["job", "engagement"] + events["job", "job"] == market.engagements
                and found["hearback_events_total", "member", "label"] == emitted
            )

        ended = worker.wait(all_done, 0.5)  # reading the metrics takes time from the worker
        ended_cpu = worker.cpu_seconds()
    finally:
        worker.stop()
    events = len(market.lines)
    return events / (ended - began), events / (ended_cpu - began_cpu)


def baseline_rates(
    broker: str, log: Path, events: int, program: str, *arguments: object
) -> tuple[float, float]:
    """Input events per second of a baseline: by the clock and by its CPU time."""
    fresh_topics(broker)
    produce([log], broker)
    done = subprocess.run(
        [baselines_python(), _BASELINES / program, broker, *map(str, arguments)],
        check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    # Faust's terminal codes may stand around it.
    found = done.stdout[done.stdout.rindex("{") : done.stdout.rindex("}") + 1]
    told = msgspec.json.decode(found, type=dict[str, float])
    return events / told["seconds"], events / told["cpu_seconds"]


def replay_rates(market: Market) -> tuple[float, float]:
    """Input events per second of a replay: by the clock and by CPU time."""
    warm_up()
    folder = market.folder / "run"
    start, start_cpu = time.perf_counter(), time.process_time()
    with RunFolder(folder) as run:
        replay(merge([market.log]), run, Policy(), market.model, market.model.space)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    shutil.rmtree(folder)
    return len(market.lines) / seconds, len(market.lines) / cpu_seconds


def throughput(broker: str, market: Market) -> dict[str, float]:
    """Compare the worker with the two baselines and the replay."""
    print(f"{len(market.lines):,} events, {market.applications:,} of them applications")
    rates: dict[str, list[tuple[float, float]]] = {}

    def measured(name: str, found: tuple[float, float]) -> None:
        print(f"{name}: {found[0]:,.0f} events/s by the clock, {found[1]:,.0f} per CPU second")
        rates.setdefault(name, []).append(found)

    for _ in range(RUNS):
        measured("worker", worker_rates(broker, market))
        counts = (PARTITIONS, market.applications, market.engagements)
        measured(
            "empty Faust",
            baseline_rates(broker, market.log, len(market.lines), "baseline_faust.py", *counts),
        )
    measured(
        "Quix and lambda-learner",
        baseline_rates(broker, market.few, FEW_EVENTS, "baseline_quix.py"),
    )
    measured("replay", replay_rates(market))
    clock, cpu = (
        {name: max(pair[at] for pair in found) for name, found in rates.items()} for at in (0, 1)
    )
    others = {
        "over_empty_faust": "empty Faust",
        "over_quix_lambda_learner": "Quix and lambda-learner",
        "over_replay": "replay",
    }
    over = {key: round(clock["worker"] / clock[name], 2) for key, name in others.items()}
    over |= {f"{key}_cpu": round(cpu["worker"] / cpu[name], 2) for key, name in others.items()}
    return over | {"events_per_s": round(clock["worker"])}


def boosted(broker: str, market: Market) -> dict[str, float]:
    """Compare a worker with trees over histories with a linear one without, in turns."""
    markets = {
        "linear, no histories": Market(market.folder / "a", BOOSTED_EVENTS, histories=False),
        "boosted, histories": Market(market.folder / "b", BOOSTED_EVENTS, kind="boosted"),
    }
    least = dict.fromkeys(markets, float("inf"))
    for _ in range(RUNS):
        for name, each in markets.items():
            _, per_cpu_second = worker_rates(broker, each)
            seconds = BOOSTED_EVENTS / per_cpu_second
            print(f"{name}: {seconds:.1f} s of CPU", flush=True)
            least[name] = min(least[name], seconds)
    linear, trees = least.values()
    return {"boosted_cpu_times": round(trees / linear, 2)}


# -- latency -------------------------------------------------------------------------------------


def latency(broker: str, market: Market) -> dict[str, float]:
    """Play the log at a steady rate, and listen to the coefficients."""
    result: dict[str, float] = {}
    for partitions in LATENCY_PARTITIONS:
        p50, p99 = _latencies(broker, market, partitions)
        of = "" if partitions == LATENCY_PARTITIONS[0] else f"_of_{partitions}"
        result |= {f"p50_ms{of}": round(p50), f"p99_ms{of}": round(p99)}
    return result


def _latencies(broker: str, market: Market, partitions: int) -> tuple[float, float]:
    application_id = fresh_topics(broker, partitions)
    worker = Worker(broker, market, application_id)
    try:
        worker.wait_for_partitions(partitions)
        done = threading.Event()
        sender = threading.Thread(target=play, args=(broker, market, done))
        sender.start()
        latencies = _listen(broker, done)
        sender.join()
    finally:
        worker.stop()
    p50, p99 = np.quantile(latencies, [0.5, 0.99])
    print(
        f"{partitions} partitions, {len(latencies):,} coefficients: p50 {p50:.0f} ms, p99 {p99:.0f}"
    )
    return float(p50), float(p99)


def play(broker: str, market: Market, done: threading.Event) -> None:
    """Send events, a hundredth of a second's worth at a time."""
    producer = Producer({"bootstrap.servers": broker, **_PRODUCER})
    count = min(len(market.lines), int(STEADY_PER_S * STEADY_S))
    began = time.perf_counter()
    for at, line in enumerate(market.lines[:count]):
        if at % (STEADY_PER_S // 100) == 0:
            producer.poll(0)
            time.sleep(max(0.0, began + at / STEADY_PER_S - time.perf_counter()))
        event: dict[str, Any] = msgspec.json.decode(line)
        application = event["type"] == "application"
        producer.produce(
            APPLICATIONS if application else ENGAGEMENTS,
            line,
            event["member_id" if application else "job_id"],
        )
    producer.flush()
    time.sleep(1.0)
    done.set()


def _listen(broker: str, done: threading.Event) -> list[float]:
    """Milliseconds from the events to their coefficients, until told that it is over."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "bench-latency",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.subscribe([COEFFICIENTS])
    heard: list[float] = []
    first: float | None = None
    while not done.is_set():
        for message in consumer.consume(1000, 0.02):
            if message.error() is None and not (message.key() or b"").startswith(b"control:"):
                now = time.time()
                first = first or now
                if now - first > SETTLING_S:
                    heard.append(now * 1000.0 - message.timestamp()[1])
    consumer.close()
    return heard


# -- recovery ------------------------------------------------------------------------------------


def recovery(broker: str, market: Market) -> dict[str, float]:
    """Fill the members' changelog; let workers take it over: from nothing, as standby, again."""
    application_id = fresh_topics(broker)
    for number in range(PARTITIONS):
        _fill(broker, application_id, number)
    first = Worker(broker, market, application_id)
    workers = [first]
    try:
        recovery_s = _takeover_s(first, Counter())
        found = first.metrics()["hearback_recovered_records_total", "member"]
        print(f"{found:,.0f} records recovered in {recovery_s:.1f} s")
        second = Worker(broker, market, application_id)
        workers.append(second)
        second.wait(_stands_by, 0.1)
        before = second.metrics()
        first.kill()
        takeover_s = _takeover_s(second, before)
        second.kill()
        started = time.perf_counter()
        again = Worker(broker, market, application_id, second)
        workers.append(again)
        restart_s = again.wait_for_partitions() - started - SESSION_S
    finally:
        for worker in workers:
            worker.stop()
    print(
        f"taken over in {takeover_s:.2f} s, back after {restart_s:.1f} s and the session time-out"
    )
    return {
        "recovery_per_s": round(found / recovery_s),
        "takeover_s": round(takeover_s, 2),
        "restart_s": round(restart_s, 1),
    }


def _takeover_s(worker: Worker, before: Counter[tuple[str, ...]]) -> float:
    """Wait until it works on all partitions; return how long its takeovers took, by itself."""

    def all_taken(found: Counter[tuple[str, ...]]) -> bool:
        taken = found["hearback_takeover_seconds_count",]
        owned = found["hearback_partitions", "member"], found["hearback_partitions", "job"]
        return taken > before["hearback_takeover_seconds_count",] and owned == (PARTITIONS,) * 2

    worker.wait(all_taken, 0.05)
    sum_ = ("hearback_takeover_seconds_sum",)
    return worker.metrics()[sum_] - before[sum_]


def _stands_by(found: Counter[tuple[str, ...]]) -> bool:
    """Whether it owns some, and its copies of the others are at their ends."""
    return (
        0 < found["hearback_partitions", "member"] < PARTITIONS
        and found["hearback_standby_partitions",] > 0
        and found["hearback_standby_partitions_behind",] == 0
    )


def _fill(broker: str, application_id: str, number: int) -> None:
    """Write a partition's share of the states, 1 kB each, as the worker does."""
    topic = changelog_of(application_id, "member")
    transactions = Transactions(broker, f"fill-{number}")
    transactions.fence()
    values = list(_states(np.random.default_rng(number)))
    for first in range(number, STATES, PARTITIONS * 5000):
        entities = range(first, min(STATES, first + PARTITIONS * 5000), PARTITIONS)
        writes: dict[bytes, bytes | None] = {
            keys.key(keys.POSTERIOR, "per_member", f"m{entity:07}"): values[entity % len(values)]
            for entity in entities
        }
        transactions.send([], {(topic, number): writes}, lambda: True)
    transactions.close()


def _states(dice: np.random.Generator) -> Iterator[bytes]:
    """A thousand posteriors of about 1 kB as they are stored."""
    for entity in range(1000):
        kept = [
            Example(
                1_704_067_200_000 + number,
                f"6:j{number:05}a{entity:07}",
                4,
                True,
                1.0,
                float(dice.normal()),
                dice.normal(size=4).astype("<f4").tobytes(),
            )
            for number in range(15)
        ]
        yield codec.encode_posterior(Posterior(dice.normal(size=4).tobytes(), 1, Kept.of(kept)))


PARTS = {
    "throughput": throughput,
    "latency": latency,
    "recovery": recovery,
    "boosted": boosted,
}


def main() -> None:
    """Measure the parts that were asked for."""
    wanted = sys.argv[1:] or list(PARTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        market = Market(folder, None if {*wanted} - {"boosted"} else FEW_EVENTS)
        result: dict[str, float] = {}
        with real_kafka(folder / "kafka") as broker:
            for part in wanted:
                result |= PARTS[part](broker, market)
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
