"""Matches of the jobs of one partition: what is kept of them, and what is told.

What makes a match: :mod:`stream.histories.applicants`. It is told with the application's own
effects and never withdrawn. Whether it was a good one is known when its window closes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from stream.events.structs import Application, Match
from stream.histories.applicants import Applicants, Market, enter
from stream.labels.changes import Change, Scores
from stream.policy import MatchSettings
from stream.state import codec, keys
from stream.state.overlay import Overlay
from stream.state.stored_histories import StoredValues

_MARKET: Final = keys.own("market")


class Matches:
    """Matches of the jobs of one partition.

    Args:
        overlay: where scores and matches are kept. settings: what a match is.
        version_at: which global model scores applications of a time (ms).

    """

    def __init__(
        self, overlay: Overlay, settings: MatchSettings, version_at: Callable[[int], str]
    ) -> None:
        self._settings = settings
        self._version_at = version_at
        self._jobs = StoredValues[Applicants](overlay, codec.APPLICANTS)
        self._market = StoredValues[Market](overlay, codec.MARKET)

    def enter(self, app: Application, scores: Scores, *, answered: bool) -> Match | None:
        """Count an application that is new and in time; tell of it if it is a match.

        ``answered``: its recruiter knows of it already, or its job is closed: it is none.
        """
        key = keys.MATCHES + app.job_id.encode()
        score = scores.full_score
        job = self._jobs.get(key) or Applicants()
        market = self._market.get(_MARKET) or Market()
        found = enter(
            *(app.application_id, score, app.event_time_ms),
            job=job,
            market=market,
            settings=self._settings,
            wanted=not answered,
        )
        self._market.put(_MARKET, market)
        self._jobs.put(key, job)
        if found is None:
            return None
        return Match(
            application_id=app.application_id,
            member_id=app.member_id,
            job_id=app.job_id,
            event_time_ms=app.event_time_ms,
            model_version=self._version_at(app.event_time_ms),
            score=score,
            probability=0.5 + 0.5 * math.tanh(0.5 * score),
            rank=found.rank,
            applicants=found.applicants,
            percentile=100.0 * (found.applicants - found.rank + 1) / found.applicants,
            among=found.among,
            channel=app.channel,
        )

    def closed(self, change: Change) -> bool:
        """Return whether an application whose window has closed was a match."""
        key = keys.MATCHES + change.job_id.encode()
        job = self._jobs.get(key)
        if job is None or change.application_id not in job.open:
            return False
        job.open.remove(change.application_id)
        self._jobs.put(key, job)
        return True

    def forget(self, job_id: str, before_ms: int | None = None) -> None:
        """Let a job's scores go; or only if its newest application is before a time."""
        key = keys.MATCHES + job_id.encode()
        job = self._jobs.get(key)
        if job is not None and (before_ms is None or job.newest_ms < before_ms):
            self._jobs.put(key, None)
