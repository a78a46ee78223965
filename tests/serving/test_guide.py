"""The three uses of docs/serving.md, word by word, against a service that is fed by hand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from stream.cli import PROGRAM
from stream.events.records import APPLICANTS, LABELS, MATCHES
from stream.events.structs import Match
from stream.events.wire import encode
from tests.serving.test_applicants import applicant, label, published
from tests.serving.test_server import Served

USES = (
    Path("docs/serving.md").read_text("utf-8").partition("## Three uses")[2].partition("\n## ")[0]
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A broker with four applicants of a job, one of them answered, and a match."""
    found = Served(tmp_path)
    found.broker.create_topics({APPLICANTS: 2, LABELS: 2, MATCHES: 2})
    now_ms = time.time_ns() // 1_000_000
    apps = [
        applicant(f"a{n}", now_ms - n, job="j1", member=f"m{n}", model_version=found.version)
        for n in range(1, 5)
    ]
    match = Match(
        application_id="a3",
        member_id="m3",
        job_id="j1",
        event_time_ms=now_ms,
        model_version=found.version,
        score=2.2,
        probability=0.9,
        rank=2,
        applicants=31,
        percentile=96.8,
        among="job",
    )
    producer = Producer({"bootstrap.servers": found.broker.bootstrap_servers, "log_level": 0})
    for topic, messages in (
        (APPLICANTS, published(*apps)),
        (LABELS, [label("a1", "positive", job="j1", at_ms=now_ms)]),
        (MATCHES, [(b"j1", encode(match))]),
    ):
        for key, value in messages:
            producer.produce(topic, value, key)
    assert producer.flush(10) == 0
    yield found
    found.end()


def test_each_use_does_what_its_commands_say(served: Served) -> None:
    """Ranks who is open, tells one where it stands and why, and tells of a match."""
    (served.folder / "policy.toml").write_text("[applicants]\nenabled = true\n")
    url = served.start("--policy", served.folder / "policy.toml")

    def run(*command: str) -> list[str]:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={"COLUMNS": "140"}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    (line,) = re.findall(r"^\$ hearback (.*)", USES, re.MULTILINE)
    rows = run(*PROGRAM, *shlex.split(line), "--url", url)
    assert [row.split()[:3] for row in rows[1:]] == [
        ["1", "a3", "m3"],
        ["2", "a2", "m2"],
        ["3", "a4", "m4"],
    ]
    blocks = re.findall(r"```python\n(.*?)```", USES, re.DOTALL)
    ranked, mine, notified = (
        run(
            *(sys.executable, "-c"),
            block.replace("http://127.0.0.1:9465", url)
            .replace("kafka:9092", served.broker.bootstrap_servers)
            .replace("poll(30.0)", "poll(10.0)"),
        )
        for block in blocks
    )
    assert [each.partition(":")[0] for each in ranked] == ["1. a3", "2. a2", "3. a4", "3 are open"]
    assert mine[0] == "ahead of 33 % of 3 open applicants"
    assert mine[2].startswith("for: ")
    assert notified == ["j1: a3 (90%, 2 of 31)"]
