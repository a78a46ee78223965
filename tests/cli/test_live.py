"""The demo and the broker command, as a newcomer runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from stream.cli import PROGRAM
from stream.events.records import TOPICS
from stream.logs.files import merge
from stream.policy import DAY_MS
from stream.units import parse_time_ms
from tests.cli.test_history import hearback


def test_demo_ends_with_a_summary(tmp_path: Path) -> None:
    """The demo runs to its summary, over the rests of an earlier one, and touches no other."""
    out = tmp_path / "demo"
    out.mkdir()
    for rest in (".hearback-demo", "worker.log"):
        (out / rest).write_text("of an earlier demo")
    (tmp_path / "stream.py").write_text("raise SystemExit('foreign code ran')")
    done = hearback("demo", "--out", out, "--seconds", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("compiling the kernel")  # where there is no terminal, in lines
    for text in ("answered in the end", "AUC", "global only", "p50", "member m", "job j", "Files"):
        assert text in done.stdout
    (tried,) = [line for line in done.stdout.splitlines() if line.startswith("Try: ")]
    command = tried.removeprefix("Try: ")
    for path in ("/usr/bin:/bin", os.environ["PATH"]):  # the command may not be on it
        assert "coefficient" in shell(command, tmp_path, path)
    check_what_is_preferred(done.stdout, command, out)
    log = (out / "worker.log").read_text()
    assert "Traceback" not in log
    assert "of an earlier demo" not in log
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    done = hearback("demo", "--out", foreign)
    assert done.returncode == 1
    assert "name another folder" in done.stderr
    assert (foreign / "thesis.txt").read_text() == "precious"


def shell(command: str, folder: Path, path: str) -> str:
    """Run a command as a newcomer would; return what it prints."""
    shown = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        check=False,
        env={"PATH": path},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def check_what_is_preferred(said: str, command: str, out: Path) -> None:
    """The sentence on a job's recruiters says what the state holds, and the log counts."""
    found = re.search(
        r"Recruiters of (\w+) answer candidates with \*(\w+)\* \((\d+) of (\d+)\),"
        r" not with \*(\w+)\* \((\d+) of (\d+)\)",
        " ".join(said.split()),
    )
    assert found is not None
    job_id, *told = found.groups()
    shown = shell(re.sub(r"member m\w+", f"job {job_id}", command), out.parent, "/usr/bin:/bin")
    applications: dict[str, list[str]] = {}
    for line in merge([out / "log.jsonl.gz"]):
        event = json.loads(line.raw)
        if event["type"] == "application" and event["job_id"] == job_id:
            terms = [term for of_type in event["terms"].values() for term in of_type]
            applications[event["application_id"]] = terms
    for term, positives, candidates in (told[:3], told[3:]):
        assert sum(term in terms for terms in applications.values()) == int(candidates)
        row = re.search(rf": {term} +\S+ +\S+ +(\d+) +(\d+) ", shown)
        assert row is not None, shown
        assert row.groups() == (candidates, positives)
    assert int(told[1]) / int(told[2]) > int(told[4]) / int(told[5])


def test_a_demo_that_is_ended_ends_its_worker(tmp_path: Path) -> None:
    """SIGTERM leaves no worker behind, which would wait for its broker for ever."""
    log = tmp_path / "demo-run" / "worker.log"
    with subprocess.Popen([*PROGRAM, "demo"], cwd=tmp_path, stderr=subprocess.PIPE) as demo:
        while not (log.exists() and (found := re.search(r"127.0.0.1:(\d+)/\n", log.read_text()))):
            assert demo.poll() is None
            time.sleep(0.2)
        demo.terminate()
        demo.communicate(timeout=200)
    assert demo.returncode == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found[1])))


def test_a_demo_that_is_kept_has_a_page_and_a_market_that_goes_on(tmp_path: Path) -> None:
    """The page's address is told, open applicants stand there, and Ctrl-C ends everybody well."""
    goes_on_ms = parse_time_ms("2024-01-01") + 54 * DAY_MS
    with subprocess.Popen(
        [*PROGRAM, "demo", "--keep", "--seconds", "5"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            said = ""
            while (found := re.search(r"http://127.0.0.1:\d+/", said)) is None:
                line = demo.stdout.readline()
                assert line, said
                said += line
            assert "still open" in said
            url = found.group()
            with urllib.request.urlopen(url) as page:  # noqa: S310 - localhost
                assert b"<title>hearback" in page.read()
            deadline = time.monotonic() + 120
            jobs: list[dict[str, int]] = []
            while not any(job["open"] and job["newest_ms"] >= goes_on_ms for job in jobs):
                assert time.monotonic() < deadline, jobs
                with urllib.request.urlopen(f"{url}v1/jobs?limit=1000") as answer:  # noqa: S310
                    jobs = json.load(answer)["jobs"]
                time.sleep(0.2)
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=100)
        finally:
            demo.terminate()
    assert demo.returncode == 0
    for log in ("worker.log", "serve.log"):
        assert "Traceback" not in (tmp_path / "demo-run" / log).read_text()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)  # noqa: S310


def test_broker_prints_its_address_and_stops_on_a_signal() -> None:
    """``hearback broker`` has all topics, warns that it keeps nothing, and ends with code 0.

    Who makes its topics as on a real Kafka is told that there is nothing to do.
    """
    process = subprocess.Popen(
        [*PROGRAM, "broker", "--partitions", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    found = AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=10)
    assert {topic: len(found.topics[topic].partitions) for topic in TOPICS} == dict.fromkeys(
        TOPICS, 3
    )
    made = hearback("topics", "create", "--broker", address)
    assert (made.returncode, made.stderr) == (0, "")
    assert "nothing to do" in made.stdout
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "keeps nothing" in said
