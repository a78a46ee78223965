"""``hearback serve`` and ``hearback rank`` as a user starts them, and the client, over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from stream.cli import PROGRAM
from stream.events.records import APPLICANTS, COEFFICIENTS, LABELS
from stream.kafka.embedded import EmbeddedBroker
from stream.model.coefficients import Linear
from stream.model.folder import new_model, save_model
from stream.serving import (
    AsyncClient,
    Candidate,
    CandidateFeatures,
    Client,
    Columns,
    RankQuestion,
    ScoreQuestion,
    ServiceError,
    columns_of,
    numbers,
)
from tests.kit import application, model, to_json
from tests.serving.test_applicants import applicant, label, published
from tests.serving.test_embedded import coefficients
from tests.serving.test_follower import send

_PATIENCE_S = 60.0


class Served:
    """A broker, a model folder, and services as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = EmbeddedBroker()
        self.broker.create_topics({COEFFICIENTS: 2})
        manifest = save_model(
            folder / "model",
            new_model(
                Linear(np.array([-1.0])),
                model().manifest.features,
                trained_from_ms=0,
                trained_until_ms=0,
                applications=2,
                positives=1,
            ),
        )
        self.version = manifest.model_version
        self.processes: list[subprocess.Popen[bytes]] = []
        found = [coefficients("per_member", f"m{n}", n, version=self.version) for n in range(1, 4)]
        send(self.broker, *found, coefficients("per_job", "j", 1, version=self.version))

    def start(self, *options: object, ready: bool = True) -> str:
        """Start a service; return its address."""
        log = self.folder / f"{len(self.processes)}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    *(*PROGRAM, "serve", "--broker", self.broker.bootstrap_servers),
                    *("--model", str(self.folder / "model"), "--port", "0"),
                    *map(str, options),
                ],
                stderr=stderr,
            )
        self.processes.append(process)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            found = re.search(r"(https?://\S+)/v1/score", log.read_text())
            if found and not ready:
                return found.group(1)
            with contextlib.suppress(OSError):
                if found:
                    urllib.request.urlopen(f"{found.group(1)}/readyz", timeout=5)  # noqa: S310
                    return found.group(1)
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.broker.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Return what a service needs."""
    found = Served(tmp_path)
    yield found
    found.end()


def question() -> RankQuestion:
    """Members m1 to m3, and one that nobody knows."""
    features = CandidateFeatures(per_member=[1.0, 0.0], per_job=[1.0])
    return RankQuestion(
        job_id="j",
        candidates=[Candidate(f"m{n}", features=features, global_score=0.0) for n in range(1, 5)],
        top=2,
    )


def test_a_client_asks_a_service(served: Served) -> None:
    """With and without asyncio, one by one and with arrays; it stops at SIGTERM, and comes back."""
    snapshot = served.folder / "kept" / "snapshot"
    url = served.start("--snapshot", snapshot)
    with Client(url) as client:
        found = client.rank(question())
        assert found.model_version == served.version
        assert isinstance(found.candidates, list)
        assert [(each.member_id, each.log_odds) for each in found.candidates] == [
            ("m3", 4.0),
            ("m2", 3.0),
        ]
        columns = columns_of(
            member_id=["m1", "m9"],
            global_score=np.zeros(2),
            per_member=np.array([[1.0, 1.0], [1.0, 1.0]], np.float32),
            per_job=np.ones((2, 1), np.float32),
        )
        answer = client.score(ScoreQuestion(job_id="j", columns=columns))
        assert not isinstance(answer.columns, msgspec.UnsetType)
        assert numbers(answer.columns.log_odds).tolist() == [4.0, 1.0]
        assert answer.columns.member_known == [True, False]
        entity = client.entity("per_member", "m2")
        assert entity is not None
        assert entity.coefficients == {"m0": 2.0, "m1": 3.0}
        assert client.entity("per_member", "m9") is None
        with pytest.raises(ServiceError, match="give job_id") as refused:
            client.score(ScoreQuestion(columns=Columns(member_id=["a"])))
        assert (refused.value.status, refused.value.problem) == (422, "invalid_question")

    async def ask() -> None:
        async with AsyncClient(url) as asked:
            assert (await asked.rank(question())).candidates == found.candidates
            assert await asked.entity("per_member", "m9") is None

    asyncio.run(ask())
    (process,) = served.processes
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert snapshot.stat().st_mode & 0o777 == 0o600
    with Client(url) as client, pytest.raises(ServiceError, match="is hearback serve running"):
        client.rank(question())
    served.broker.close()
    url = served.start("--snapshot", snapshot)
    with Client(url) as client:
        assert client.rank(question()).candidates == found.candidates


def test_a_log_is_ranked_on_the_command_line(served: Served) -> None:
    """``hearback rank`` prints the best candidates of a job, or of a member."""
    url = served.start()
    log = served.folder / "log.jsonl"
    apps = [application(f"a{n}", n, member=f"m{n}") for n in range(1, 5)]
    log.write_bytes(b"".join(to_json(app) + b"\n" for app in [*apps, apps[0]]) + b"{\n")

    def ranked(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, "rank", *arguments, str(log), "--url", url],
            capture_output=True,
            text=True,
            check=False,
            env={"COLUMNS": "100", "PATH": ""},
        )

    done = ranked("job", "j", "--top", "3")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["member", "probability", "log-odds", "±", "global", "member", "job"]
    assert [row[:2] for row in rows[1:]] == [["1", "m3"], ["2", "m2"], ["3", "m1"]]
    assert rows[1][4:] == ["2.42", "+0.00", "+5.00", "+1.00"]
    assert [row[1] for row in map(str.split, ranked("member", "m2").stdout.splitlines()[1:])] == [
        "j"
    ]
    many = [to_json(application(f"b{n}", n, member=f"n{n}", job="hot")) for n in range(10_002)]
    log.write_bytes(b"\n".join(many))
    done = ranked("job", "hot", "--top", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "only the last 10,000 of 10,002 applications are ranked\n"
    done = ranked("job", "elsewhere")
    assert (done.returncode, done.stderr) == (
        1,
        "hearback: the log has no application of job elsewhere\n",
    )


def test_open_applicants_are_told_over_sockets(served: Served) -> None:
    """By the client, with and without asyncio, and on the command line without a log."""
    served.broker.create_topics({APPLICANTS: 2, LABELS: 2})
    producer = Producer({"bootstrap.servers": served.broker.bootstrap_servers, "log_level": 0})
    now_ms = time.time_ns() // 1_000_000
    long = "a3-of-a-system-whose-ids-are-" + "long-" * 20
    apps = [
        applicant(each, now_ms - n * 1000, member=f"m{n}", model_version=served.version)
        for n, each in enumerate(("a1", "a2", long, "a4"), 1)
    ]
    apps.append(applicant("..", now_ms, job=".", model_version=served.version))
    for topic, messages in (
        (APPLICANTS, published(*apps)),
        (LABELS, [label("a1", "positive", at_ms=now_ms)]),
    ):
        for key, value in messages:
            producer.produce(topic, value, key)
    assert producer.flush(10) == 0
    policy = served.folder / "policy.toml"
    policy.write_text("[applicants]\nenabled = true\n")
    url = served.start("--policy", policy)
    with Client(url) as client:
        found = client.applicants("j", top=2)
        assert (found.of, [each.member_id for each in found.applicants]) == (3, ["m3", "m2"])
        second = client.applicant("j", "a2")
        assert second is not None
        assert (second.rank, second.of, second.log_odds) == (2, 3, found.applicants[1].log_odds)
        assert client.applicant("j", "a1") is None
        dots = client.applicant(".", "..")
        assert dots is not None
        assert (dots.job_id, dots.application_id) == (".", "..")
        assert [each.job_id for each in client.jobs("j").jobs] == ["j"]
        with pytest.raises(ServiceError, match="422"):
            client.applicants("j", top=0)

    async def ask() -> None:
        async with AsyncClient(url) as client:
            again = await client.applicants("j", top=2, at_ms=found.as_of_ms)
            assert again.applicants == found.applicants
            told = await client.applicant("j", "a2", at_ms=second.as_of_ms)
            assert told is not None
            assert msgspec.structs.replace(told, staleness_s=second.staleness_s) == second
            assert (await client.jobs()).jobs[0].open == 3

    asyncio.run(ask())
    done = subprocess.run(
        [*PROGRAM, "rank", "job", "j", "--top", "2", "--url", url],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows[1:]] == [["1", long, "m3"], ["2", "a2", "m2"]]
    assert len(rows[1]) == 10  # piped, on one line however long
    assert done.stderr.startswith("2 of 3 open applicants, as of ")
    other = served.start()
    with Client(other) as client, pytest.raises(ServiceError, match="no_applicants"):
        client.applicant("j", "a1")


def test_recruiters_browse_a_service(served: Served) -> None:
    """``hearback browse`` asks for as long as it is told, with a token, and says what it got."""
    tokens = served.folder / "tokens"
    tokens.write_text("\nsixteen-characters\n")
    url = served.start("--token-file", tokens)
    log = served.folder / "log.jsonl"
    apps = [application(f"a{n}", n, member=f"m{n}") for n in range(1, 5)]
    log.write_bytes(b"".join(to_json(app) + b"\n" for app in apps) + b"{\n")

    def browse(*options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, "browse", str(log), "--url", url, "--rate", "200", *map(str, options)],
            capture_output=True,
            text=True,
            check=False,
        )

    done = browse("--for", "1s", "--token-file", tokens)
    assert done.returncode == 0, done.stderr
    told = re.fullmatch(
        r"(\d+) of (\d+) requests answered in \d s, (\d+) candidates ranked,"
        r" 0 open applicants seen, 1 refused with 404; p50 [\d.]+ ms, p99 [\d.]+ ms\n",
        done.stdout,
    )
    assert told is not None, done.stdout  # it was told once that no applicants are held
    answered, asked, ranked = map(int, told.groups())
    assert (asked, ranked) == (answered + 1, 4 * answered)
    assert answered > 0
    done = browse("--for", "1s")
    assert (done.returncode, done.stderr) == (
        1,
        "hearback: the service wants a token: give --token-file, with one of its own\n",
    )
    tokens.write_text("\n")
    done = browse("--for", "1s", "--token-file", tokens)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "must have a token on each line" in done.stderr


def test_slow_clients_are_left(served: Served) -> None:
    """Who sends half of a request, or endless headers, is disconnected; others are served."""
    url = served.start()
    port = int(url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(50)
        ]
        for each in slow:
            each.sendall(b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\n")
        endless = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with contextlib.suppress(OSError):
            for _ in range(4):
                endless.sendall(b"X-Filler: " + b"x" * 60_000 + b"\r\n")
                time.sleep(0.05)
        half = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        half.sendall(head + b"Content-Length: 100\r\n\r\n{")
        with Client(url) as client:
            for _ in range(20):
                assert client.rank(question()).candidates
        for each in slow:
            each.settimeout(30)
            assert each.recv(100) == b""
        endless.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            while told := endless.recv(1000):
                assert told.startswith(b"HTTP/1.1 400 ")
        half.settimeout(30)
        assert half.recv(100).startswith(b"HTTP/1.1 408 ")


def test_other_machines_are_served_over_tls_with_a_token(served: Served) -> None:
    """Not in plain text, and not without a token."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no certificate can be made: openssl is not installed")
    key, certificate = served.folder / "key.pem", served.folder / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    tokens = served.folder / "tokens"
    tokens.write_text("a-token-of-this-test\n")
    url = served.start(
        *("--host", "0.0.0.0", "--token-file", tokens),  # noqa: S104
        *("--certificate-file", certificate, "--key-file", key),
        ready=False,
    )
    assert url.startswith("https://0.0.0.0:")
    local = f"https://localhost:{url.rpartition(':')[2]}"
    deadline = time.monotonic() + _PATIENCE_S
    with Client(local, token="a-token-of-this-test", verify=str(certificate)) as client:  # noqa: S106
        while True:
            try:
                assert client.rank(question()).candidates
                break
            except ServiceError:  # not ready yet
                assert time.monotonic() < deadline
                time.sleep(0.1)
    with Client(local, verify=str(certificate)) as client, pytest.raises(ServiceError) as refused:
        client.rank(question())
    assert (refused.value.status, refused.value.retry_after_s) == (401, None)
    with Client(local) as client, pytest.raises(ServiceError, match="certificate verify failed"):
        client.rank(question())
    with Client(local.replace("https", "http")) as client, pytest.raises(ServiceError):
        client.rank(question())


def test_what_cannot_be_served_is_said_in_one_line(served: Served) -> None:
    """No topic, a port that is taken, an open address: exit code 1."""
    url = served.start()

    def refused(*options: str) -> str:
        done = subprocess.run(
            [*PROGRAM, "serve", "--model", str(served.folder / "model"), *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1
        return done.stderr

    broker = served.broker.bootstrap_servers
    said = refused("--broker", broker, "--port", url.rpartition(":")[2])
    assert said.count("\n") == 1
    assert "choose another --port" in said
    assert "give a token_file" in refused("--broker", broker, "--host", "0.0.0.0")  # noqa: S104
    with EmbeddedBroker() as empty:
        said = refused("--broker", empty.bootstrap_servers, "--port", "0")
    assert "there is no topic coefficients" in said
    assert "Traceback" not in said
