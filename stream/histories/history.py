"""The history of a member, a job or a pair of both: counts, and what is read of them.

An application counts when it is read, its answer (a decline or a positive one) and its positive
answer when they become known, each once. An answer's time is the earliest that is known of it. The
recent counts halve in :data:`HALF_LIFE_MS` of application time. So a history says the same
whatever order it learned in, but for rounding.

Pure: :mod:`stream.state.stored_histories` keeps histories, :mod:`stream.stages.histories` says who
learns what, and when it is read.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

import msgspec

from stream.policy import DAY_MS, HOUR_MS

HALF_LIFE_MS = 7 * DAY_MS
"""In which a recent application, or answer, loses half of what it counts."""

MOST_OPEN = 4096
"""Applications of a history that are told apart; a repeat of an older one counts again."""

PRIOR = 0.2
"""Positives that every rate begins with, of one application or answer."""

PARTS = ("member", "job", "pair")
"""Whose histories an application has, in the order of its numbers."""

NUMBERS = (
    "applications",
    "answers",
    "positives",
    "positives_per_answer",
    "positives_per_application",
    "recent_applications",
    "recent_answers",
    "recent_positives_per_answer",
    "recent_positives_per_application",
    "unanswered",
    "hours_since_answer",
    "hours_since_positive",
)
"""What is read of each; hours are -1 where there is none."""

NAMES = tuple(f"{part}.{number}" for part in PARTS for number in NUMBERS)
"""Of an application's history, float32 of shape (36,)."""

NUMBERS_BYTES = 4 * len(NUMBERS)
HISTORY_BYTES = 4 * len(NAMES)

_FINGERPRINT_BYTES = 8  # two of the 4096 of a history are taken for one once in 10^12 histories
_pack = Struct(f"<{len(NUMBERS)}f").pack


class Counted(msgspec.Struct, array_like=True, gc=False):
    """An application that was counted, and what is known of its answer.

    Without one its time alone stands for it; earlier releases wrote this for all.
    """

    time_ms: int
    answered_ms: int | None = None
    positive: bool = False


class Summary(msgspec.Struct, frozen=True, gc=False):
    """What others need to read a member's or job's history; the recent counts are those of T."""

    applications: int
    answers: int
    positives: int
    newest_ms: int
    recent_applications: float
    recent_answers: float
    recent_positives: float
    answered_ms: int | None
    positive_ms: int | None

    def in_words(self) -> str:
        """Tell in one sentence."""
        plural = "s" if self.applications != 1 else ""
        return (
            f"{self.applications} application{plural} read, {self.answers} of them answered,"
            f" {self.positives} positively."
        )


class Answer(NamedTuple):
    """What a label said that was not known before.

    ``first``: that there is an answer. ``positive``: that it is positive. ``was_ms``: when it had
    been taken to be, where it was earlier.
    """

    application_ms: int
    at_ms: int
    first: bool
    positive: bool
    was_ms: int | None = None


class History(msgspec.Struct, array_like=True, gc=False):
    """Counts.

    Attributes:
        applications, answers, positives: of all time.
        newest_ms: T, the largest application time.
        recent_applications, recent_answers, recent_positives: sums of 2^(-(T - A) / half-life).
        answered_ms, positive_ms: when the last came; -1: never.
        settled_ms: ... of those that are not in ``open``.
        open: applications that may come again, or be answered, by fingerprint, in the order in
            which they were read; none are kept of a job as a whole.

    """

    applications: int = 0
    answers: int = 0
    positives: int = 0
    newest_ms: int = 0
    recent_applications: float = 0.0
    recent_answers: float = 0.0
    recent_positives: float = 0.0
    answered_ms: int = -1
    positive_ms: int = -1
    settled_ms: int = -1
    open: dict[bytes, int | Counted] = {}

    @classmethod
    def of(cls, summary: Summary) -> History:
        """What a published history says to whoever reads it; it cannot be learned on."""
        *counts, answered_ms, positive_ms = msgspec.structs.astuple(summary)
        times = (-1 if at is None else at for at in (answered_ms, positive_ms))
        return cls(*counts, *times)

    def count(self, time_ms: int) -> None:
        """Count an application."""
        if time_ms > self.newest_ms:
            faded = _faded(time_ms - self.newest_ms)
            self.recent_applications = self.recent_applications * faded + 1.0
            self.recent_answers *= faded
            self.recent_positives *= faded
            self.newest_ms = time_ms
        else:
            self.recent_applications += _faded(self.newest_ms - time_ms)
        self.applications += 1

    def enter(self, name: bytes, time_ms: int, over_ms: int) -> bool:
        """Count an application once; those before ``over_ms`` need not be known any more.

        Returns whether it is new.
        """
        known = self.open
        if name in known:
            return False
        if known and (len(known) >= MOST_OPEN or _time_ms(next(iter(known.values()))) < over_ms):
            self._settle(over_ms)
        known[name] = time_ms
        self.count(time_ms)
        return True

    def learn(self, name: bytes, at_ms: int, *, positive: bool) -> Answer | None:
        """Take in that an application was answered; None: it is not open, or nothing is new.

        Args:
            name: its fingerprint. at_ms: when it was. positive: whether that was a yes.

        """
        known = self.open.get(name)
        if known is None:
            return None
        if isinstance(known, int):
            known = Counted(known)
        before_ms, first = known.answered_ms, known.answered_ms is None
        is_new = positive and not known.positive
        was_ms = before_ms if before_ms is not None and at_ms < before_ms else None
        if not (first or is_new or was_ms is not None):
            return None
        known.positive |= positive
        if first or was_ms is not None:
            known.answered_ms = at_ms
        self.open[name] = known
        answer = Answer(known.time_ms, at_ms, first, is_new, was_ms)
        self.take(answer)
        if was_ms is not None and was_ms == self.answered_ms:
            self.answered_ms = max(self.settled_ms, *(at_ms for at_ms, _ in self._answered()))
        return answer

    def learn_closed(self, answer: Answer) -> bool:
        """Take in an answer to an application that is not open any more, or was never counted.

        Returns whether it counts: of those that are not open there are never more answers than
        applications, nor more positives than answers, however often an answer is heard of.
        """
        answered = self._answered()
        answers = self.answers - len(answered)
        positives = self.positives - sum(positive for _, positive in answered)
        if answer.first and answers >= self.applications - len(self.open):
            return False
        if answer.positive and positives >= answers + answer.first:
            return False
        self.take(answer)
        return True

    def take(self, answer: Answer) -> None:
        """Add an answer; one that was earlier than known moves nothing."""
        share = _faded(max(self.newest_ms - answer.application_ms, 0))
        if answer.first:
            self.answers += 1
            self.recent_answers += share
            self.answered_ms = max(self.answered_ms, answer.at_ms)
        if answer.positive:
            self.positives += 1
            self.recent_positives += share
            self.positive_ms = max(self.positive_ms, answer.at_ms)

    def read(self, at_ms: int) -> bytes:
        """:data:`NUMBERS` as of an application at a time, float32 bytes of shape (12,)."""
        now_ms, applications, answers = self.newest_ms, self.applications, self.answers
        recent_applications, recent_answers = self.recent_applications, self.recent_answers
        recent = self.recent_positives
        if at_ms > now_ms:
            faded = _faded(at_ms - now_ms)
            recent_applications *= faded
            recent_answers *= faded
            recent *= faded
            now_ms = at_ms
        rated = self.positives + PRIOR
        recent += PRIOR
        answered_ms, positive_ms = self.answered_ms, self.positive_ms
        return _pack(
            applications,
            answers,
            self.positives,
            rated / (answers + 1.0),
            rated / (applications + 1.0),
            recent_applications,
            recent_answers,
            recent / (recent_answers + 1.0),
            recent / (recent_applications + 1.0),
            applications - answers,
            -1.0 if answered_ms < 0 else max(now_ms - answered_ms, 0) / HOUR_MS,
            -1.0 if positive_ms < 0 else max(now_ms - positive_ms, 0) / HOUR_MS,
        )

    def summary(self) -> Summary:
        """What is published of it."""
        return Summary(
            self.applications,
            self.answers,
            self.positives,
            self.newest_ms,
            self.recent_applications,
            self.recent_answers,
            self.recent_positives,
            None if self.answered_ms < 0 else self.answered_ms,
            None if self.positive_ms < 0 else self.positive_ms,
        )

    def _answered(self) -> list[tuple[int, bool]]:
        """When those of the open applications were answered that were, and whether positively."""
        return [
            (each.answered_ms, each.positive)
            for each in self.open.values()
            if isinstance(each, Counted) and each.answered_ms is not None
        ]

    def _settle(self, over_ms: int) -> None:
        """Let go of the oldest that need not be known any more, or where there are too many."""
        known = self.open
        while known:
            name, each = next(iter(known.items()))
            if len(known) < MOST_OPEN and _time_ms(each) >= over_ms:
                return
            del known[name]
            if isinstance(each, Counted) and each.answered_ms is not None:
                self.settled_ms = max(self.settled_ms, each.answered_ms)


NOTHING = History().read(0)
"""What is read of a history in which nothing has happened."""


@lru_cache(maxsize=1 << 12)  # both stages ask, one soon after the other
def fingerprint(job_id: str, application_id: str) -> bytes:
    """Tell applications of different jobs, or of one, apart: 8 bytes."""
    name = f"{len(job_id)}:{job_id}{application_id}"
    return blake2b(name.encode(), digest_size=_FINGERPRINT_BYTES).digest()


def _time_ms(one: int | Counted) -> int:
    return one if isinstance(one, int) else one.time_ms


def _faded(elapsed_ms: int) -> float:
    return 2.0 ** (-elapsed_ms / HALF_LIFE_MS)  # type: ignore[no-any-return]
