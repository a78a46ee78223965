"""Recruiters who look at a service: whom they ask about, and how they take refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from producers.visits import MOST_CANDIDATES, Visits, candidates_of, visit
from stream.errors import ConfigError
from tests.kit import application, to_json
from tests.serving.asking import NOW_MS, serving
from tests.serving.test_applicants import Holding, applicant

FEATURES = {"per_member": [1.0, 0.5], "per_job": [1.0]}
JOBS = {"j": [{"member_id": "m", "global_score": 0.0}]}


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A service that answers everything with a status; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815 - its name above us

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def once(url: str) -> Visits:
    """Send a single visit."""
    stop = Event()
    return visit(url, JOBS, per_second=100.0, stop=stop, on_visit=lambda _: stop.set())


def test_the_newest_applicants_of_each_job_are_known(tmp_path: Path) -> None:
    """As the log has them, before the time that is given; lines that are none are passed over."""
    log = tmp_path / "log.jsonl"
    many = [application(f"a{n}", n, member=f"m{n}", job="big") for n in range(MOST_CANDIDATES + 1)]
    late = application("late", 1_000, job="small")
    early = application("early", 10, member="e", job="small")
    log.write_bytes(b"\n".join([*map(to_json, [*many, early, late]), b"{"]))
    found = candidates_of([log], early.event_time_ms + 1)
    assert [each["member_id"] for each in found["small"]] == ["e"]
    assert found["small"][0]["features"] == {
        "global": [1.0],
        "per_member": [1.0, 0.5],
        "per_job": [1.0],
    }
    everybody = candidates_of([log])
    assert [each["member_id"] for each in everybody["big"]] == [
        f"m{n}" for n in range(1, MOST_CANDIDATES + 1)
    ]
    with pytest.raises(ConfigError, match="no application"):
        candidates_of([log], 0)


@pytest.mark.parametrize("status", [503, 422])
def test_a_refusal_is_counted_and_waited_for(status: int) -> None:
    """No answer is made up for it, and the next visit comes a while later."""
    with answering(status) as url:
        done = once(url)
    assert (done.asked, done.answered, done.refused) == (1, 0, {status: 1})
    assert f"1 refused with {status}" in done.in_words()


def test_who_finds_nobody_comes_again() -> None:
    """A service that is not there yet ends nothing; the pause keeps visits few."""
    stop = Event()
    with answering(200) as url:
        pass
    began_s = time.monotonic()
    done = visit(
        url,
        JOBS,
        per_second=100.0,
        stop=stop,
        on_visit=lambda done: stop.set() if done.asked == 2 else None,
    )
    assert (done.silent, done.answered) == (2, 0)
    assert time.monotonic() - began_s >= 1.0
    assert "2 without an answer" in done.in_words()


def looked_at(asked: Holding, least: int) -> Visits:
    """Visit a service until so many applicants were looked at."""
    stop = Event()
    with serving(asked) as url:
        return visit(
            url,
            {"j": [{"member_id": "m", "global_score": 0.0, "features": FEATURES}]},
            per_second=1000.0,
            stop=stop,
            on_visit=lambda done: stop.set() if done.looked >= least else None,
        )


@pytest.mark.parametrize("name", [".", "..", "a/../b", "?", "%2e"])
def test_ids_that_an_address_would_swallow_are_asked_for(name: str) -> None:
    """Jobs and applications with any id are looked at, and none is refused."""
    asked = Holding()
    asked.publish(applicant(name, NOW_MS, job=name))
    done = looked_at(asked, 10)
    assert (done.answered, done.refused, done.looked) == (done.asked, {}, 10)


def test_open_applicants_are_looked_at() -> None:
    """Where the service holds them: those of a job, and now and then one of them."""
    asked = Holding()
    asked.publish(*(applicant(f"a/{n}", NOW_MS, job="a job/ä") for n in range(3)))
    done = looked_at(asked, 30)
    assert (done.answered, done.refused) == (done.asked, {})
    assert done.looked == 30
    seen = {
        label["route"]: count
        for label, count in (
            (sample.labels, sample.value)
            for family in asked.registry.collect()
            for sample in family.samples
            if sample.name == "hearback_serve_requests_total"
        )
    }
    assert seen["/v1/jobs"] == seen["/v1/jobs/{job}/applicants"] == 10
    assert 1 <= seen["/v1/jobs/{job}/applicants/{application}"] < 10
    assert seen["/v1/rank"] == done.candidates > 0
