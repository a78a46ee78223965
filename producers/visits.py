"""SHELL: recruiters who look at a service: a small load, as a market makes it.

Each visit has the applicants ranked that a log has of some job; or, where the service holds open
applicants, looks at those of a job, and now and then at one of them. Visits come at random (a
Poisson process), whatever the answers take; who finds nobody there comes again later.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event
from typing import Any, Final

import httpx
import msgspec

from stream.errors import ConfigError, EventError
from stream.events.applications import RawApplication
from stream.events.wire import decode_raw
from stream.logs.files import merge
from stream.text import path_part

MOST_CANDIDATES: Final = 200
"""Of a job, the newest so many are ranked."""

TOP: Final = 20
_ANSWER_S: Final = 10.0
_PAUSE_S: Final = 1.0  # after a refusal, or no answer
_KEPT: Final = 10_000  # times of answers, of which the quantiles are told
_LISTED: Final = 50  # jobs that a visitor chooses from
_HELD: Final = 0.5  # of the visits are to open applicants
_CLOSER: Final = 0.3  # of those look at one of them
_FIELDS: Final = ("member_id", "features", "global_score", "member", "job", "context")

Candidates = Mapping[str, list[dict[str, Any]]]
"""Of each job, as ``/v1/rank`` takes them."""


class Visits:
    """What came of visits.

    Attributes:
        asked: requests sent. answered: of them with 200. refused: by status, the others that were
            answered. silent: not answered at all. candidates: ranked.

    """

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0
        self.candidates = 0
        self.looked = 0
        self.silent = 0
        self.refused: Counter[int] = Counter()
        self._seconds: deque[float] = deque(maxlen=_KEPT)
        self._began_s = time.monotonic()

    def took(self, seconds: float) -> None:
        """Note how long an answer took."""
        self._seconds.append(seconds)

    def in_words(self) -> str:
        """Tell it in a line."""
        took = sorted(self._seconds)
        middle, slow = (
            (took[int(share * (len(took) - 1))] * 1000 for share in (0.5, 0.99))
            if took
            else (0.0, 0.0)
        )
        refused = "".join(f", {n:,} refused with {status}" for status, n in self.refused.items())
        silent = f", {self.silent:,} without an answer" if self.silent else ""
        return (
            f"{self.answered:,} of {self.asked:,} requests answered in"
            f" {time.monotonic() - self._began_s:.0f} s, {self.candidates:,} candidates ranked,"
            f" {self.looked:,} open applicants seen{refused}{silent};"
            f" p50 {middle:.1f} ms, p99 {slow:.1f} ms"
        )


def candidates_of(logs: Iterable[Path], until_ms: int | None = None) -> Candidates:
    """Read the newest applicants of each job, submitted before a time.

    Raises:
        ConfigError: the logs have none.

    """
    found: dict[str, deque[dict[str, Any]]] = {}
    for line in merge(list(logs)):
        try:
            event = decode_raw(line.raw)
        except EventError:
            continue
        if not isinstance(event, RawApplication):
            continue
        if until_ms is not None and event.event_time_ms >= until_ms:
            continue
        told = msgspec.to_builtins(event)
        candidate = {name: told[name] for name in _FIELDS if told.get(name) is not None}
        found.setdefault(event.job_id, deque(maxlen=MOST_CANDIDATES)).append(candidate)
    if not found:
        raise ConfigError("there is no application in the log: nobody could be ranked")
    return {job_id: list(kept) for job_id, kept in found.items()}


def visit(
    url: str,
    candidates: Candidates,
    *,
    per_second: float,
    stop: Event,
    token: str | None = None,
    seed: int = 1,
    on_visit: Callable[[Visits], None] = lambda _: None,
) -> Visits:
    """Send visits until ``stop`` is set.

    Args:
        url: of the service. candidates: who is ranked. per_second: visits, on average.
        token: one of the service's. seed: of who is visited when.
        on_visit: told after each.

    Raises:
        ConfigError: the service does not know the token.

    """
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=_ANSWER_S) as client:
        visitor = _Visitor(client, candidates, chance)
        done = visitor.done
        due_s = time.monotonic()
        while not stop.wait(max(due_s - time.monotonic(), 0.0)):
            good = visitor.look() if chance.random() < _HELD else visitor.rank()
            on_visit(done)
            # Who is late does not make up for it: the load stays what it is.
            due_s = max(due_s, time.monotonic() - 1.0) + chance.expovariate(per_second)
            if not good:
                due_s = max(due_s, time.monotonic() + _PAUSE_S)
    return done


class _Visitor:
    """Asks, and counts; its methods return whether there was an answer."""

    def __init__(self, client: httpx.Client, candidates: Candidates, chance: random.Random) -> None:
        self.done = Visits()
        self._client = client
        self._candidates = candidates
        self._jobs = sorted(candidates)
        self._chance = chance
        self._holds = True  # open applicants, as far as is known

    def rank(self) -> bool:
        """Have the applicants of a job ranked, as the log has them."""
        job_id = self._chance.choice(self._jobs)
        candidates = self._candidates[job_id]
        question = {"job_id": job_id, "candidates": candidates, "top": TOP}
        if self._ask("POST", "/v1/rank", json=question) is None:
            return False
        self.done.candidates += len(candidates)
        return True

    def look(self) -> bool:
        """Look at the open applicants of a job, if the service holds any."""
        if not self._holds:
            return self.rank()
        listed = self._ask("GET", "/v1/jobs", params={"limit": _LISTED})
        if listed is None:
            return not self._holds
        jobs = [job["job_id"] for job in listed["jobs"] if job["open"]]
        if not jobs:
            return self.rank()
        path = f"/v1/jobs/{path_part(self._chance.choice(jobs))}/applicants"
        found = self._ask("GET", path, params={"top": TOP})
        if found is None:
            return False
        self.done.looked += len(found["applicants"])
        if found["applicants"] and self._chance.random() < _CLOSER:
            chosen = path_part(self._chance.choice(found["applicants"])["application_id"])
            self._ask("GET", f"{path}/{chosen}")  # it may have been answered meanwhile
        return True

    def _ask(self, method: str, path: str, **what: Any) -> Any:
        """Return the answer to one request; None: there was none."""
        done = self.done
        done.asked += 1
        began_s = time.monotonic()
        try:
            reply = self._client.request(method, path, **what)
        except httpx.HTTPError:
            done.silent += 1
            return None
        done.took(time.monotonic() - began_s)
        if reply.status_code == httpx.codes.OK:
            done.answered += 1
            return reply.json()
        if reply.status_code == httpx.codes.UNAUTHORIZED:
            raise ConfigError("the service wants a token: give --token-file, with one of its own")
        done.refused[reply.status_code] += 1
        if reply.status_code == httpx.codes.NOT_FOUND and path == "/v1/jobs":
            self._holds = False
        return None
