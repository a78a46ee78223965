"""A real Prometheus reads a worker and a service of a played market: all that is asked is there.

On the embedded broker, with a policy and some records that bring about what is rare in a simulated
market: dead letters, folds, somebody who is forgotten.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from confluent_kafka import Producer

from deploy import browser, picture
from deploy.dashboards import ALL
from deploy.dashboards.panels import RATE
from deploy.kafka import free_ports
from deploy.monitoring import MissingError, Prometheus, config_for
from producers.simulate import simulate
from producers.truth import SimulationSettings, draw_truth, member_id
from stream.cli import PROGRAM
from stream.events.records import APPLICATIONS
from stream.kafka.embedded import EmbeddedBroker
from stream.logs.files import merge, write_lines
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy
from stream.worker.topics import plans
from tests.deploy.promql import selectors, without_comparison, without_fallback
from tests.deploy.test_alerts import ALERTS
from tests.kit import looked_at

pytestmark = pytest.mark.timeout(900)  # a fresh machine compiles the kernel first

SETTINGS = SimulationSettings(seed=1, members=300, jobs=60, days=40)
PARTITIONS = 2
PLAY_S = 20.0
PATIENCE_S = 90.0

RARE = {
    "ALERTS",
    "hearback_batches_redone_total",
    "hearback_lost_records_total",
    "hearback_refits_unconverged_total",
    "hearback_refresh_refused_until_seconds",
    "hearback_sessions_lost_total",
}
"""What a run without trouble does not have: here a query may answer with its zero."""

POLICY = """\
[effects.per_member]
capacity = 16
[effects.per_job]
capacity = 16
open_limit = 16
[matches]
enabled = true
p_min = 0.0
top = 1.0
"""


class Run:
    """A broker, a worker, a market and a Prometheus; ``answered`` are the queries that had data."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self._folder = folder
        self._queries = {query.replace(RATE, "1m") for query in (*panel_queries(), *conditions())}
        self.answered: set[str] = set()
        # First of all, so that the test is skipped before anything is started.
        port, metrics = free_ports()
        serving, _ = free_ports()
        addresses = {
            "worker-1:9464": f"127.0.0.1:{metrics}",
            "serve:9465": f"127.0.0.1:{serving}",
        }
        self.prometheus = Prometheus(folder / "prometheus", port, config_for(addresses, "1s"))
        self.worker = f"http://127.0.0.1:{metrics}"
        broker = EmbeddedBroker()
        ends.enter_context(closing(broker))
        self._broker = broker.bootstrap_servers
        names = [plan.name for plan in plans("hearback", DAY_MS)]
        broker.create_topics(dict.fromkeys(names, PARTITIONS))
        self._train()
        ends.callback(self.prometheus.stop)
        self.prometheus.start()
        worker = self._hearback(
            *("worker", "--model", folder / "model", "--data", folder / "data"),
            *("--policy", folder / "policy.toml", "--metrics-port", metrics),
        )
        ends.callback(worker.wait)
        ends.callback(worker.terminate)
        service = self._hearback("serve", "--model", folder / "model", "--port", serving)
        ends.callback(service.wait)
        ends.callback(service.terminate)
        self._wait_until_ready(worker, f"{self.worker}/readyz")
        self._wait_until_ready(service, f"http://127.0.0.1:{serving}/readyz")
        recruiters = self._hearback(
            *("browse", folder / "log.jsonl.gz", "--url", f"http://127.0.0.1:{serving}"),
        )
        ends.callback(recruiters.wait)
        ends.callback(recruiters.terminate)

    def play(self) -> None:
        """Play the market, with some trouble, and ask all the while."""
        speed = (SETTINGS.days + 14) * 86_400 / PLAY_S
        market = self._folder / "log.jsonl.gz"
        playing = self._hearback("produce", market, "--speed", f"{speed:.0f}x", "--close")
        self._ask_while(lambda: playing.poll() is None)
        assert playing.returncode == 0, (self._folder / "produce.log").read_text()
        producer = Producer({"bootstrap.servers": self._broker})
        for number in range(20):
            producer.produce(APPLICATIONS, b"{", b"m%d" % number)
        assert producer.flush(10) == 0
        member = member_id(1)
        assert self._hearback("forget", "member", member).wait(60) == 0
        deadline = time.monotonic() + PATIENCE_S
        self._ask_while(lambda: self.answered < self._queries and time.monotonic() < deadline)

    def has_data(self, query: str) -> bool:
        """Whether the query gave a number at some time of the run."""
        return query.replace(RATE, "1m") in self.answered

    def _ask_while(self, going_on: object) -> None:
        assert callable(going_on)
        while going_on():
            for query in self._queries - self.answered:
                found = self.prometheus.query(query)
                if any(not math.isnan(float(series["value"][1])) for series in found):
                    self.answered.add(query)
            time.sleep(1.0)

    def _train(self) -> None:
        log = self._folder / "log.jsonl.gz"
        write_lines(log, simulate(SETTINGS))
        (self._folder / "policy.toml").write_text(POLICY)
        until_ms = SETTINGS.start_ms + 24 * DAY_MS
        trainer = Trainer(Policy(), until_ms, draw_truth(SETTINGS).feature_names)
        trainer.read(merge([log]), lambda _: None)
        trainer.fit(self._folder / "model")

    def _hearback(self, *arguments: object) -> subprocess.Popen[bytes]:
        with (self._folder / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [*PROGRAM, *map(str, arguments)],
                env=dict(os.environ) | {"HEARBACK_KAFKA_BROKER": self._broker},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes], probe: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(probe):  # noqa: S310
                return
            time.sleep(0.1)
        raise AssertionError([path.read_text() for path in self._folder.glob("*.log")])


def panel_queries() -> list[str]:
    """All queries of all panels, without the zero that stands in for what never was."""
    return [
        query.expr if asks_for_rare(query.expr) else without_fallback(query.expr)
        for board in ALL
        for row in board.rows
        for panel in row.panels
        for query in panel.queries
    ]


def conditions() -> list[str]:
    """What the alerts compare."""
    return [without_comparison(rule["expr"]) for rule in ALERTS.values()]


def asks_for_rare(query: str) -> bool:
    """Whether a query asks for something that a run without trouble does not have."""
    return any(name in RARE for name, _ in selectors(query))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return the run when the market has been played; without Prometheus the tests are skipped."""
    with ExitStack() as ends:
        try:
            made = Run(tmp_path_factory.mktemp("run"), ends)
        except MissingError as missing:
            pytest.skip(f"nobody reads the metrics: {missing}")
        made.play()
        yield made


def test_every_query_of_every_panel_returns_data(run: Run) -> None:
    """At some time of the run each gave at least one number."""
    assert [query for query in panel_queries() if not run.has_data(query)] == []


def test_what_every_alert_compares_returns_data(run: Run) -> None:
    """An alert whose expression never has a value would never fire.

    One on records that were lost has none in a run that loses none; ``deploy/prometheus`` tests
    that it fires.
    """
    missing = [
        alert
        for alert, rule in ALERTS.items()
        if not run.has_data(without_comparison(rule["expr"]))
    ]
    assert missing == ["HearbackRecordsLost"]
    assert {name for name, _ in selectors(ALERTS[missing[0]]["expr"])} <= RARE


def test_prometheus_takes_every_rule(run: Run) -> None:
    """All are evaluated without an error: no joins of many to many, no templates that fail."""
    told = {rule["name"]: rule for rule in run.prometheus.rules()}
    assert told.keys() == ALERTS.keys()
    for rule in told.values():
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]


def test_worker_and_service_are_scraped(run: Run) -> None:
    """They are up, as the jobs that queries and alerts name."""
    targets = run.prometheus.targets()
    assert {(one["health"], one["lastError"]) for one in targets} == {("up", "")}
    assert sorted(one["labels"]["job"] for one in targets) == ["hearback", "hearback-serve"]


def test_the_address_of_the_alerts_answers(run: Run) -> None:
    """What ``make stack`` prints is a page of the Prometheus that is installed."""
    with urllib.request.urlopen(run.prometheus.alerts, timeout=10) as page:  # noqa: S310
        assert page.status == 200


def test_a_browser_shows_a_query_on_prometheus_own_page(run: Run, tmp_path: Path) -> None:
    """The picture of the docs can be taken: the page draws a line for each score."""
    url = picture.graph_url(run.prometheus.url, picture.QUERY, 5)
    page = looked_at(url, "--dump-dom")
    picture.take(url, f"{run.prometheus.url}/-/ready", tmp_path / "prometheus.png")
    for score in ("global", "with_member", "with_job", "full"):
        assert f'{{score="{score}"}}' in page
    assert (tmp_path / "prometheus.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_the_status_page_can_be_taken(run: Run, tmp_path: Path) -> None:
    """The page is drawn to its end, however long it is."""
    try:
        picture.take_status(run.worker, tmp_path / "status-page.png", looked_s=0.0)
    except browser.MissingError as missing:
        pytest.skip(f"page not looked at: {missing}")
    head = (tmp_path / "status-page.png").read_bytes()[:24]
    assert (head[:4], int.from_bytes(head[16:20])) == (b"\x89PNG", 1400)
    assert int.from_bytes(head[20:24]) >= 900
