"""Ranks the applications of a job at the moment when one of them is answered.

By the global score and the member's of first sight, and the job's coefficients of that moment
(:mod:`stream.quality.ranking`). All of it is read from the state, so a restart changes nothing.

A decision costs a refit and up to a hundred scores, as much as one or two events. So where there
are more than :data:`MOST_A_WEEK` a week, only those of half of the jobs are looked at, and so on; a
week that brings few gives some back.
"""

from __future__ import annotations

import msgspec
import numpy as np

from stream.policy import DAY_MS
from stream.quality.ranking import MOST_CANDIDATES, row, watched
from stream.state import keys
from stream.state.codec import Codec
from stream.state.facts import Count
from stream.state.overlay import Overlay
from stream.state.stored_facts import StoredFacts
from stream.state.waiting import Waits, mark
from stream.updaters.effect import Effect

MOST_A_WEEK = 512
"""Decisions of a week of event time that are judged before half of the jobs are left out."""

FIRST_SIGHT = ("global", "member")
"""Of these scores that of the application's first sight is taken."""

_STATE = keys.own("rankings")
_WEEK_MS = 7 * DAY_MS
_MOST_HALVINGS = 20


class Looked(msgspec.Struct, array_like=True):
    """``judged`` decisions of a ``week``, of the jobs that are left after ``halvings``."""

    week: Count = 0
    judged: Count = 0
    halvings: Count = 0


LOOKED = Codec[Looked](Looked)


class JobDecisions:
    """Decisions of the jobs of one partition.

    Args:
        overlay: of its state. book: what is remembered of the applications.
        effect: of the jobs. window_ms: W.
        most: pending applications of jobs that are followed; of more, half of the jobs are.

    Attributes:
        made: the decision that was told of last, as :func:`~stream.quality.ranking.row` has it;
            None: it was none, or of a job that is left out.

    """

    def __init__(
        self, overlay: Overlay, book: StoredFacts, effect: Effect, window_ms: int, most: int
    ) -> None:
        self.made: bytes | None = None
        self._overlay = overlay
        self._book = book
        self._effect = effect
        self._window_ms = window_ms
        self._most = most
        overlay.attach(self.throw_away, self.write_out)
        self.throw_away()

    @property
    def halvings(self) -> int:
        """How often the jobs that are looked at were halved."""
        return self._looked.halvings

    def decide(self, job_id: str, application_id: str, answered: Waits, at_ms: int) -> None:
        """Rank who is answered for the first time, before anything of that is learned.

        Args:
            job_id: whose decision. application_id, answered: who is answered.
            at_ms: the answer's time.

        """
        owner = mark(job_id)
        self._pass_to(at_ms // _WEEK_MS)
        if not watched(owner, self._looked.halvings):
            return
        others, sampled = self._book.waiting(job_id).others(
            application_id, at_ms, self._window_ms, MOST_CANDIDATES - 1
        )
        if not others:
            return
        times, fixed, members, z = zip(answered, *others, strict=True)
        values = np.empty((5, len(times)))
        values[:] = fixed
        job = self._effect.scores(job_id, b"".join(z))
        values[1] += members
        values[2] += job
        values[3] = values[1] + job
        values[4] = times
        self.made = row(owner, values, sampled=sampled)
        self._count()

    def _pass_to(self, week: int) -> None:
        """Begin a week; look at more jobs after one that has brought few decisions."""
        looked = self._looked
        if week > looked.week:
            fewer = looked.halvings - 1
            if fewer >= 0 and 4 * looked.judged < MOST_A_WEEK and not self._too_many(fewer):
                looked.halvings = fewer
            looked.week, looked.judged = week, 0
            self._changed = True

    def _count(self) -> None:
        looked = self._looked
        looked.judged += 1
        self._changed = True
        if (
            looked.judged >= MOST_A_WEEK or self._too_many(looked.halvings)
        ) and looked.halvings < _MOST_HALVINGS:
            looked.halvings += 1
            looked.judged //= 2
            left = looked.halvings
            self._book.stop_following(lambda job_id: not watched(mark(job_id), left))

    def _too_many(self, halvings: int) -> bool:
        """Whether more applications would be followed than memory should be spent on."""
        return self._book.census.counts.pending > self._most << halvings

    def write_out(self) -> None:
        """Put what changed into the overlay."""
        if self._changed:
            self._overlay.put(_STATE, LOOKED.encode(self._looked))
            self._changed = False

    def throw_away(self) -> None:
        """Go back to what the store says."""
        value = self._overlay.store.get(_STATE)
        self._looked = Looked() if value is None else LOOKED.decode(value)
        self._changed = False
