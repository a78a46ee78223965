"""The guide 'Your own data' from the model to running services, word by word, on a real Kafka."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from stream.cli import PROGRAM
from stream.events.records import DEAD_LETTERS, LABELS
from stream.events.structs import Label
from stream.events.wire import decode_raw, decode_whole_label
from stream.logs.files import merge
from stream.model.folder import GlobalModel, load_model
from stream.policy import LabelPolicy
from tests.examples.test_your_own_data import EXAMPLES, GUIDE, fenced
from tests.integration.world import remove_topics

ADDRESS, PAGE, URL = "localhost:9092", "http://127.0.0.1:9464", "http://127.0.0.1:9465"
PARTITIONS = 4
PATIENCE_S = 120.0


class Follower:
    """Runs the guide's commands in a folder, those that do not end beside the others."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.folder, self._broker = folder, broker
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.url = ""

    def follow(self, line: str) -> str:
        """Run a command as it stands, but for the address of the broker and free ports."""
        words = shlex.split(line.replace(ADDRESS, self._broker).replace(URL, self.url))
        if words[0] == "curl":
            return self._run(words)
        assert words[0] == "hearback"
        words = [*PROGRAM, *words[1:]]
        name = line.split()[1]
        if name not in {"worker", "serve"}:
            return self._run([*words, *(["--url", self.url] if name == "rank" else [])])
        words += ["--metrics-port" if name == "worker" else "--port", "0"]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(words, cwd=self.folder, stderr=log)
        ready = f"{self._where(name)}/readyz"
        wait(lambda: answers(ready))
        if name == "serve":
            self.url = self._where(name)
        return ""

    def end(self) -> None:
        """Stop what runs, as Ctrl-C does; all must end well."""
        for process in self.running.values():
            process.send_signal(signal.SIGINT)
        assert [process.wait(60) for process in self.running.values()] == [0, 0]

    def _run(self, words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def _where(self, name: str) -> str:
        log = self.folder / f"{name}.log"
        found: list[str] = []

        def said() -> bool:
            assert self.running[name].poll() is None, log.read_text()
            found[:] = re.findall(r"(http://[^/\s]+)/(?:v1/score|metrics)", log.read_text())
            return bool(found)

        wait(said)
        return found[0]


def wait(true: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether a page is there, and well."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310 - localhost
        return True
    return False


def values(broker: str, topic: str, partitions: int) -> Iterator[bytes]:
    """Read what was committed to a topic so far."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": f"guide-{time.monotonic_ns()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, n, 0) for n in range(partitions)])
        ended = 0
        while ended < partitions:
            for message in consumer.consume(2000, 1.0):
                if message.error() is not None:
                    ended += 1
                else:
                    yield message.value() or b""
    finally:
        consumer.close()


def answered(log: Path) -> set[str]:
    """Return who was answered within the window, by looking at all actions."""
    policy = LabelPolicy()
    events = [msgspec.to_builtins(decode_raw(line.raw)) for line in merge([log])]
    applied = {e["application_id"]: e["event_time_ms"] for e in events if "member" in e}
    return {
        event["application_id"]
        for event in events
        if event.get("action") in policy.positive_actions
        and event["event_time_ms"] - applied[event["application_id"]] <= policy.window_ms
    }


def check_features(label: Label, model: GlobalModel, raw: dict[str, dict[str, Any]]) -> None:
    """Compare the blocks of a label with those that are made of the attributes of the log."""
    app = raw[label.application_id]
    assert model.space.maker is not None
    made = model.space.maker.blocks(app["member"], app["job"], {}, label.application_time_ms)
    assert (label.per_member, label.per_job) == (made.per_member, made.per_job)
    assert label.global_ == made.global_


@pytest.fixture
def follower(broker: str, tmp_path: Path) -> Iterator[Follower]:
    """The folder of somebody who has followed the guide so far."""
    for table in EXAMPLES.glob("*.csv"):
        shutil.copy(table, tmp_path)
    (tmp_path / "map.toml").write_text(fenced("toml")[0], "utf-8")
    remove_topics(broker)
    following = Follower(tmp_path, broker)
    for line in commands(0)[:3]:  # the fourth is the report
        following.follow(line)
    message, question = fenced("json")
    (tmp_path / "new.json").write_text(message, "utf-8")
    (tmp_path / "question.json").write_text(question, "utf-8")
    yield following
    for process in following.running.values():
        process.kill()
        process.wait()
    remove_topics(broker)


def commands(block: int) -> list[str]:
    """Return the commands of a block of the guide."""
    return re.findall(r"^\$ (.*)$", fenced("console")[block], re.MULTILINE)


@pytest.mark.timeout(400)
def test_the_guide_leads_to_scores_of_running_services(follower: Follower, broker: str) -> None:
    """All that stands after the report, with attributes all the way; nothing is left out."""
    assert f"`{ADDRESS}`" in GUIDE
    assert f"`{PAGE}`" in GUIDE
    for block in (1, 2):
        for line in commands(block):
            follower.follow(line)
    play, *looks = commands(3)
    follower.follow(play)
    model, log = load_model(follower.folder / "model"), follower.folder / "log.parquet"
    expected = answered(log)
    labels: list[Label] = []

    def learned() -> bool:
        found = values(broker, LABELS, PARTITIONS)
        labels[:] = [decode_whole_label(value, model.space) for value in found]
        return {label.application_id for label in labels if label.label} >= expected

    wait(learned)
    assert {label.application_id for label in labels if label.label} == expected
    events = [msgspec.json.decode(line.raw) for line in merge([log])]
    raw = {event["application_id"]: event for event in events if "member" in event}
    for label in labels:
        check_features(label, model, raw)
    wait(lambda: answers(f"{follower.url}/v1/entities/per_job/j00054"))
    inspected, ranked = map(follower.follow, looks)
    assert "job j00054" in inspected
    assert len(re.findall(r"m\d{6}", ranked)) == 5
    for line in commands(4):
        follower.follow(line)
    following = load_model(follower.folder / "next").manifest.features
    for name in ("global", "per_member", "per_job"):  # preferences are inputs where they pay
        assert following[name] == model.manifest.features[name]
    for line in [*commands(5), *commands(6)]:
        told = follower.follow(line)
    assert len(fenced("console")) == 7
    found = msgspec.json.decode(told)
    assert not found["errors"]
    assert len(found["candidates"]) == 2
    assert all(one["job_known"] for one in found["candidates"])
    assert not list(values(broker, DEAD_LETTERS, 1))
    follower.end()
