"""What a worker shows over HTTP: metrics, probes, status, and the page in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import msgspec
import pytest

from stream.console.server import Console, Probes
from stream.console.status import About, Status, status
from stream.errors import ConfigError
from stream.metrics.process import process_registry
from stream.metrics.worker import WorkerMetrics
from stream.policy import HOUR_MS, LabelPolicy, Policy
from tests.kit import NOW_MS, Market, application, engagement, looked_at

ABOUT = About("test-app", "1.2.3", "model-7")


class Bench:
    """A console over the metrics of a small market; ready when the test says so."""

    def __init__(self) -> None:
        registry = process_registry()
        metrics = WorkerMetrics(registry, "model-7")
        market = Market(Policy(labels=LabelPolicy(aging=())), 1)
        market.produce([application("a", 0), application("b", 1), engagement("e", "b", HOUR_MS)])
        market.append("engagements", 0, b"j", b"{")
        market.run()
        metrics.owned(list(market.partitions.values()), {number for _, number in market.partitions})
        for partition in market.partitions.values():
            metrics.applied(partition)
            metrics.standing(partition, dict.fromkeys(partition.topics, 2), NOW_MS)
            metrics.unattended(partition.stage, partition.number, 0.0)
        self.why_not: str | None = "2 of 2 partitions are being taken over"
        self.now_s = 0.0
        self.probes = Probes(lambda: self.now_s)
        self.probes.watch(lambda: self.why_not)
        self.console = Console(registry, self.probes, ABOUT, host="127.0.0.1", port=0)
        self.console.start()

    @property
    def url(self) -> str:
        """Where the console is."""
        return f"http://127.0.0.1:{self.console.port}"

    def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Ask for a path; return status, content type and text."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=5) as page:  # noqa: S310
                return page.status, page.headers["Content-Type"], page.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a console that is served."""
    made = Bench()
    yield made
    made.console.stop()


def test_ready_when_nothing_is_being_taken_over(bench: Bench) -> None:
    """``/readyz`` says what it waits for, then 200."""
    assert bench.get("/readyz") == (503, "text/plain; charset=utf-8", f"{bench.why_not}\n")
    bench.why_not = None
    assert bench.get("/readyz")[0] == 200


def test_alive_while_the_event_loop_turns(bench: Bench) -> None:
    """``/healthz`` is 503 once the loop has not turned for half a minute."""
    bench.now_s = 29.0
    assert bench.get("/healthz")[0] == 200
    bench.now_s = 31.0
    status, _, text = bench.get("/healthz")
    assert status == 503
    assert "31 s" in text

    async def turn() -> None:
        bench.probes.beat()

    asyncio.run(turn())
    assert bench.get("/healthz")[0] == 200


def test_metrics_are_in_prometheus_format(bench: Bench) -> None:
    """``/metrics`` is text that Prometheus reads; HEAD has no body."""
    status, content_type, text = bench.get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert 'hearback_labels_total{kind="positive",rule="action"} 1.0' in text
    assert bench.get("/metrics", "HEAD")[2] == ""


def test_other_paths_and_methods_are_refused(bench: Bench) -> None:
    """There is nothing to write to, and nothing else to read."""
    assert bench.get("/etc/passwd")[0] == 404
    assert bench.get("/status.json", "POST")[0] == 501


def test_the_status_is_what_the_metrics_say(bench: Bench) -> None:
    """``/status.json`` decodes as the struct that documents it."""
    found = msgspec.json.decode(bench.get("/status.json?x=1")[2], type=Status)
    assert found.about == ABOUT
    assert found.ready is False
    assert found.labels == {"negative_inferred": 1, "positive": 1}
    assert found.dead_letters == {"malformed": 1}
    assert found.entities == {"per_job": 1, "per_member": 2}
    assert found.events == {"application": 2, "engagement": 1}  # each once, labels not at all
    assert [(place.stage, place.lag_records) for place in found.places] == [
        ("job", 4),
        ("member", 4),
    ]


def test_an_engagement_that_waits_is_not_one_that_changed_nothing() -> None:
    """It is read before its application, takes effect with it, and is never counted as ignored."""
    registry = process_registry()
    metrics = WorkerMetrics(registry, "model-7")
    market = Market(Policy(), 1)

    def told() -> Status:
        for partition in market.partitions.values():
            metrics.applied(partition)
            metrics.standing(partition, {}, NOW_MS)
        return status(registry, ABOUT, (True, ""), NOW_MS / 1000)

    market.produce([engagement("e", "a", HOUR_MS)])
    market.run()
    assert (told().orphans, told().ignored) == (1, {})
    market.produce([application("a", 0)])
    market.run()
    assert (told().orphans, told().ignored) == (0, {})
    assert told().labels == {"positive": 1}
    assert registry.get_sample_value("hearback_early_engagements_total") == 1
    market.produce([application("a", 0)])
    market.run()
    assert told().ignored == {"repeats": 1}


def test_what_fails_is_told_to_the_client(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An error within the worker is a 500 and a line in the log; the server goes on."""

    def broken() -> str | None:
        raise RuntimeError("broken")

    bench.probes.watch(broken)
    assert bench.get("/readyz")[0] == 500
    assert "/readyz cannot be answered" in caplog.text
    assert bench.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=",
        "application/openmetrics-text; version=1.0.0; escaping=nonsense",
        "text/plain;version=1.0.0;escaping",
        "text/plain; q=x;;=,;,, version=1.0.0=2",
        ";" * 500,
        "\u00e9\u00ff",
    ],
)
def test_an_odd_accept_header_is_answered(
    bench: Bench, accept: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Metrics come, in some format of Prometheus, and nothing is logged."""
    request = urllib.request.Request(bench.url + "/metrics", headers={"Accept": accept})  # noqa: S310
    with urllib.request.urlopen(request, timeout=5) as page:  # noqa: S310
        assert "hearback_labels_total" in page.read().decode()
    assert caplog.text == ""


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/x\r\n\r\n",
        b"G\xc3\x89T /\xff HTTP/1.1\r\nA: \xff\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n: \r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"POST /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("leaves", [False, True])
def test_what_is_no_request_leaves_no_trace(
    bench: Bench,
    sent: bytes,
    leaves: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither is a client that leaves before the answer: nothing is written, the server goes on."""
    with socket.create_connection(("127.0.0.1", bench.console.port), timeout=5) as client:
        client.sendall(sent or b"GET /metrics HTTP/1.1\r\n\r\n")
        if leaves:  # with a reset: what the server writes next fails
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(65_536):
                    pass
    assert bench.get("/healthz")[0] == 200
    for thread in threading.enumerate():  # whatever was asked before is done
        if "process_request_thread" in thread.name:
            thread.join(5)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_said_in_words(bench: Bench) -> None:
    """The message names the option."""
    with pytest.raises(ConfigError, match="--metrics-port"):
        Console(process_registry(), bench.probes, ABOUT, host="127.0.0.1", port=bench.console.port)


def test_the_page_needs_nothing_from_outside(bench: Bench) -> None:
    """One file: no address but its own, so that it works where there is no internet."""
    page = bench.get("/")[2]
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_the_page_shows_the_status_in_a_browser(bench: Bench) -> None:
    """A headless browser runs the page: readiness, counts and dead letters are on it."""
    text = looked_at(bench.url + "/", "--dump-dom", wait_ms=3000)
    for words in (
        "test-app",
        "2 of 2 partitions are being taken over",
        "negative inferred",
        "malformed",
        "model-7",
        "Does it help?",
        "event to coefficients (p99 ",
    ):
        assert words in text, words
    # Event time years ago is a day of a played log, not a delay.
    assert "event time behind" not in text
    assert re.search(r"<td>\d{4}-\d\d-\d\d \d\d:\d\d</td>", text)
