"""The service: CPU of a request, memory and start with a million entities.

500 candidates of one job: 16 features of each, which the job's coefficients multiply, and 16 of the
job, which the members' do. A service in a process of its own scores them, over loopback; members
are drawn from 200,000. It is asked in columns, in JSON and in MessagePack; with 16 features of each
pair in both blocks; for the best 20 of 500 applicants of a job that it holds; and without work
(`/healthz`). Of held applicants it has the list already; or it is another job each time; or a
message about another job, or about this one, is taken in before each request, or one of its
applicants, as if the job were asked for the first time. Beside it the way
of docs/learning.md, a dictionary of messages and `stream.serving.belief`. What is printed is CPU of
the process that scores, by turns in one run; a core's requests a second are one over it. p50 and
p99 are wall time of one client.

Then a process takes in the messages of a million entities of 16 features, with histories, as a
follower hands them over, writes its snapshot and begins again from it. With `--broker B` (a real
Kafka: make kafka) it also follows them in a topic. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn
import uvloop
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from stream.events.applicants import Applicant, applicants_key, encode_applicant
from stream.events.partitioner import partition_of
from stream.events.records import APPLICANTS, APPLICATIONS_BY_JOB, COEFFICIENTS, TopicNames
from stream.events.structs import Coefficients
from stream.events.wire import AllFeatures, coefficients_key, encode
from stream.histories.history import Summary
from stream.metrics.process import process_registry
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, new_model
from stream.policy import ApplicantSettings, Policy
from stream.serving.belief import Belief, mean_score
from stream.serving.embedded import EmbeddedStore
from stream.serving.follower import Follower
from stream.serving.memory import give_back, share
from stream.serving.scorer import Scorer
from stream.serving.server import GuardedProtocol
from stream.serving.service import Service
from stream.serving.snapshot import Place, load_snapshot, save_snapshot

CANDIDATES, FEATURES = 500, 16
HELD_JOBS = ["j1", *(f"k{number}" for number in range(100))]  # more than scores are kept
ENTITIES = 1_000_000
NOW_MS = 1_700_000_000_000
BATCH = 2_000
TURNS, REQUESTS = 7, 100
_OF = "/v1/jobs/{}/applicants?top=20"
_TICKS = os.sysconf("SC_CLK_TCK")


def a_model() -> GlobalModel:
    """Return a linear model of 16 features in each block."""
    names = [f"feature {number}" for number in range(FEATURES)]
    return new_model(
        Linear(np.linspace(-1.0, 1.0, FEATURES)),
        {"global": names, "per_member": names, "per_job": names},
        trained_from_ms=0,
        trained_until_ms=0,
        applications=1,
        positives=1,
    )


def learned(rng: np.random.Generator, version: str, effect: str, entity_id: str) -> Coefficients:
    """Return some coefficients, with a history, as workers publish them by default."""
    mean = rng.normal(size=FEATURES)
    history = Summary(12, 5, 3, NOW_MS, 4.2, 2.1, rng.random(), NOW_MS - 1000, NOW_MS - 2000)
    return Coefficients(
        effect=effect,
        entity_id=entity_id,
        model_version=version,
        mean=mean.tolist(),
        variance=(0.1 + mean * mean).tolist(),
        examples=12,
        event_time_ms=NOW_MS,
        history=history,
    )


def messages(version: str, entities: int) -> Iterator[list[tuple[bytes, bytes | None]]]:
    """Give messages of members, and of one job, as they are polled."""
    rng = np.random.default_rng(1)
    job = learned(rng, version, "per_job", "j1")
    yield [(coefficients_key("per_job", "j1"), encode(job))]
    for first in range(0, entities, BATCH):
        found = [learned(rng, version, "per_member", f"m{first + n:07d}") for n in range(BATCH)]
        yield [(coefficients_key("per_member", each.entity_id), encode(each)) for each in found]


def applicants(model: GlobalModel, job_id: str) -> list[tuple[bytes, bytes | None]]:
    """Messages of a job's open applicants."""
    rng = np.random.default_rng(len(job_id))
    asked = rng.normal(size=(CANDIDATES, FEATURES)).astype(np.float32)
    scores = model.score_all(asked.astype(np.float64)).tolist()
    now_ms = time.time_ns() // 1_000_000
    found = [
        Applicant(
            application_id=f"a{at}",
            member_id=f"m{number:07d}",
            job_id=job_id,
            application_time_ms=now_ms - 60_000 * at,
            model_version=model.version,
            features=AllFeatures(
                global_=asked[at].tolist(),
                per_member=rng.normal(size=FEATURES).tolist(),
                per_job=rng.normal(size=FEATURES).tolist(),
            ),
            global_score=scores[at],
            member_score=0.0,
            job_score=0.0,
        )
        for at, number in enumerate(rng.integers(0, ENTITIES // 5, CANDIDATES))
    ]
    return [(applicants_key(job_id, each.application_id), encode_applicant(each)) for each in found]


# -- processes that are measured -------------------------------------------------------------------


def serve() -> None:
    """Serve on a free port, which is printed."""
    model = a_model()
    policy = Policy(applicants=ApplicantSettings(enabled=True))
    store = EmbeddedStore(model, policy)
    for batch in messages(model.version, ENTITIES // 5):
        store.apply(batch)
    first = {}
    for job_id in HELD_JOBS:
        found = applicants(model, job_id)
        store.topics[APPLICANTS](found)
        first[job_id.encode()] = found[:1]
    store.stands(None, ready=True, current_ms=time.time_ns() // 1_000_000)
    service = Service(Scorer(model, policy, store), process_registry(), applicants=store.applicants)
    rng = np.random.default_rng(3)
    jobs = [learned(rng, model.version, "per_job", "k0") for _ in range(100)]
    news = itertools.cycle([(coefficients_key("per_job", "k0"), encode(job)) for job in jobs])

    async def learning(scope: Any, receive: Any, send: Any) -> None:
        """Answer; first learn something of the job k0, or enter an applicant, as is wished."""
        for name, value in scope["headers"]:
            if name == b"x-learn":
                store.apply([next(news)])
            elif name == b"x-enter":
                store.topics[APPLICANTS](first[value])
        await service(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            learning,
            loop="uvloop",
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
        )
    )
    service.arrived = lambda: len(server.server_state.tasks)
    print(listening.getsockname()[1], flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[listening]))


def hold(folder: str) -> None:
    """Take in a million entities; print what that took."""
    model = a_model()
    store = EmbeddedStore(model, Policy())
    taken_s = 0.0
    for batch in messages(model.version, ENTITIES):
        began_s = time.process_time()
        store.apply(batch)
        taken_s += time.process_time() - began_s
    began_s = time.process_time()
    save_snapshot(
        Path(folder) / "snapshot", store, {COEFFICIENTS: Place("t", "", [0])}, current_ms=0
    )
    saved_s = time.process_time() - began_s
    give_back()
    tell(take_in_s=taken_s, save_s=saved_s, **memory())


def begin(folder: str) -> None:
    """Begin from the snapshot; print what that took."""
    store = EmbeddedStore(a_model(), Policy())
    began_s, cpu_s = time.perf_counter(), time.process_time()
    load_snapshot(Path(folder) / "snapshot", store)
    assert len(store.tables["per_member"]) == ENTITIES
    give_back()
    tell(wall_s=time.perf_counter() - began_s, cpu_s=time.process_time() - cpu_s, **memory())


def follow(broker: str) -> None:
    """Follow a topic to its end; print what that took."""
    store = EmbeddedStore(a_model(), Policy())
    began_s, cpu_s = time.perf_counter(), time.process_time()
    follower = Follower(broker, "bench-serve", store)
    follower.start()
    while not store.standing().ready:
        time.sleep(0.05)
        if follower.failed is not None:
            raise follower.failed
    taken = {"wall_s": time.perf_counter() - began_s, "cpu_s": time.process_time() - cpu_s}
    assert len(store.tables["per_member"]) == ENTITIES
    follower.stop()
    tell(**taken, **memory())


def memory() -> dict[str, float]:
    """Resident megabytes, now and at most."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    most_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6, "most_mb": most_kb * 1024 / 1e6}


def tell(**found: float) -> None:
    """Print what was measured, for the parent."""
    print(msgspec.json.encode(found).decode())


# -- what measures them ----------------------------------------------------------------------------


def child(*arguments: str) -> Any:
    """Run a part of this in a process of its own; return what it told."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serve", *arguments], check=True, stdout=subprocess.PIPE
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1])


class Questions:
    """Requests as bytes, and the same question for the documented way."""

    def __init__(self) -> None:
        rng = np.random.default_rng(2)
        self.ids = [f"m{n:07d}" for n in rng.integers(0, ENTITIES // 5, CANDIDATES)]
        self.member, self.job = (
            np.round(rng.normal(size=(CANDIDATES, FEATURES)), 6) for _ in range(2)
        )
        self.scores = np.round(rng.normal(size=CANDIDATES), 6)
        self.requests: dict[str, Iterator[bytes]] = {
            "without work": itertools.repeat(_get("/healthz"))
        }
        self.requests["held applicants"] = itertools.repeat(_get(_OF.format("j1")))
        others = itertools.cycle([_get(_OF.format(job_id)) for job_id in HELD_JOBS])
        self.requests["held, another job each"] = others
        self.requests["without work, learning"] = itertools.repeat(_get("/healthz", "X-Learn: 1"))
        for name, job_id in (("held, others learned", "k1"), ("held, scored anew", "k0")):
            self.requests[name] = itertools.repeat(_get(_OF.format(job_id), "X-Learn: 1"))
        self.requests["without work, entering"] = itertools.repeat(_get("/healthz", "X-Enter: j1"))
        self.requests["held, for the first time"] = itertools.cycle(
            [_get(_OF.format(job_id), f"X-Enter: {job_id}") for job_id in HELD_JOBS]
        )
        for name, member in (("", self.member[:1]), (", both blocks", self.member)):
            lists = {
                "member_id": self.ids,
                "global_score": self.scores.tolist(),
                "per_member": member.tolist(),
                "per_job": self.job.tolist(),
            }
            packed = lists | {
                "global_score": self.scores.tobytes(),
                "per_member": member.astype("<f4").tobytes(),
                "per_job": self.job.astype("<f4").tobytes(),
            }
            json = msgspec.json.encode({"job_id": "j1", "columns": lists})
            msgpack = msgspec.msgpack.encode({"job_id": "j1", "columns": packed})
            self.requests[f"JSON{name}"] = itertools.repeat(post("application/json", json))
            packed_post = post("application/msgpack", msgpack)
            self.requests[f"MessagePack{name}"] = itertools.repeat(packed_post)

    def documented(self, known: dict[bytes, Coefficients]) -> list[float]:
        """Score as docs/learning.md says."""
        job = Belief.of(known.get(coefficients_key("per_job", "j1")), FEATURES, 3.0)
        return [
            mean_score(
                score,
                (Belief.of(known.get(coefficients_key("per_member", each)), FEATURES, 3.0), z),
                (job, other_z),
            )
            for each, score, z, other_z in zip(
                self.ids, self.scores.tolist(), self.member, self.job, strict=True
            )
        ]


class Connection:
    """A client that asks and waits."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """Return the body of the answer."""
        self._socket.sendall(request)
        told = b""
        while b"\r\n\r\n" not in told:
            told += self._socket.recv(1 << 18)
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._socket.recv(1 << 18)
        return body


def _get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode()


def post(kind: str, body: bytes) -> bytes:
    """Return a request for scores."""
    head = (
        f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def cpu_s(pid: int) -> float:
    """CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def requests() -> dict[str, dict[str, float]]:
    """CPU (µs) of each kind of request, and wall time in milliseconds."""
    questions = Questions()
    version = a_model().version
    wanted = {coefficients_key("per_member", each) for each in questions.ids}
    wanted.add(coefficients_key("per_job", "j1"))
    known = {
        key: msgspec.json.decode(value, type=Coefficients)
        for batch in messages(version, ENTITIES // 5)
        for key, value in batch
        if key in wanted and value is not None
    }
    program = [sys.executable, "-m", "benchmarks.serve", "server"]
    taken: dict[str, list[float]] = {name: [] for name in (*questions.requests, "documented")}
    walls: dict[str, list[float]] = {name: [] for name in questions.requests}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        connection = Connection(int(server.stdout.readline()))
        asked = next(questions.requests["JSON, both blocks"])
        served = msgspec.json.decode(connection.ask(asked))["columns"]["log_odds"]
        difference = np.abs(np.array(served) - questions.documented(known)).max()
        assert difference < 1e-9, difference
        for _ in range(TURNS):
            for name, request in questions.requests.items():
                light = name.startswith(("without work", "held"))
                count = REQUESTS * (10 if light else 5)
                began = cpu_s(server.pid)
                for _ in range(count):
                    began_s = time.perf_counter()
                    connection.ask(next(request))
                    walls[name].append(time.perf_counter() - began_s)
                taken[name].append((cpu_s(server.pid) - began) / count)
            began = time.process_time()
            for _ in range(REQUESTS // 5):
                questions.documented(known)
            taken["documented"].append((time.process_time() - began) / (REQUESTS // 5))
        server.terminate()
    found = {name: {"cpu_us": float(np.median(times)) * 1e6} for name, times in taken.items()}
    for name, times in walls.items():
        found[name] |= {
            "p50_ms": float(np.quantile(times, 0.5)) * 1e3,
            "p99_ms": float(np.quantile(times, 0.99)) * 1e3,
        }
    return found


def publish(broker: str) -> None:
    """Write a million entities to a topic of their own."""
    admin = AdminClient({"bootstrap.servers": broker})
    names = TopicNames.own("bench-serve")
    topics = [names.of(COEFFICIENTS), names.of(APPLICATIONS_BY_JOB)]
    there = admin.list_topics(timeout=10).topics
    old = [name for name in topics if name in there]
    if old:
        for future in admin.delete_topics(old).values():
            future.result()
        time.sleep(1.0)
    for future in admin.create_topics([NewTopic(name, 4, 1) for name in topics]).values():
        future.result()
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 20})
    for batch in messages(a_model().version, ENTITIES):
        for key, value in batch:
            producer.produce(topics[0], value, key, partition_of(key, 4))
        producer.poll(0)
        while len(producer) > 20_000:
            producer.poll(0.05)
    producer.flush()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*")
    parser.add_argument("--broker", help="a real Kafka, for the start from a topic")
    options = parser.parse_args()
    share()
    parts: dict[str, Callable[..., None]] = {
        "server": serve,
        "hold": hold,
        "begin": begin,
        "follow": follow,
    }
    if options.part:
        parts[options.part[0]](*options.part[1:])
        return
    found = requests()
    without, documented = found["without work"]["cpu_us"], found["documented"]["cpu_us"]
    print(f"{CANDIDATES} candidates, {FEATURES} features a block: CPU of a request")
    print(f"{'':26}{'µs':>8}{'times less':>12}{'× no work':>11}{'p50 ms':>9}{'p99 ms':>9}")
    for name, row in found.items():
        us = row["cpu_us"]
        walls = "".join(f"{row[key]:9.2f}" for key in ("p50_ms", "p99_ms") if key in row)
        print(f"{name:26}{us:8.0f}{documented / us:12.1f}{us / without:11.1f}{walls}")
    packed = found["MessagePack"]["cpu_us"]
    print(f"a core answers {1e6 / packed:,.0f} MessagePack requests a second")
    with tempfile.TemporaryDirectory() as folder:
        held, began = child("hold", folder), child("begin", folder)
    print(f"{ENTITIES:,} entities of {FEATURES} features:")
    print(f"  held: {held['mb']:.0f} MB, at most {held['most_mb']:.0f} MB")
    print(f"  messages taken in: {held['take_in_s']:.1f} s of CPU; saved: {held['save_s']:.1f} s")
    print(f"  from the snapshot: {began['wall_s']:.1f} s, {began['most_mb']:.0f} MB at most")
    followed = None
    if options.broker:
        publish(options.broker)
        followed = child("follow", options.broker)
        print(
            f"  from the topic: {followed['wall_s']:.1f} s, {followed['cpu_s']:.1f} s of CPU,"
            f" {followed['most_mb']:.0f} MB at most"
        )
    everything = {"requests": found, "held": held, "begun": began, "followed": followed}
    print(msgspec.json.encode(everything).decode())


if __name__ == "__main__":
    main()
