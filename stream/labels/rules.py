"""The rules that turn evidence into labels, one small class each (docs/labels.md, 1 to 3).

A rule of *own evidence* looks at an engagement with the application itself. A rule of *settling*
infers a negative for applications that were passed over: ``reach`` says which ones, by the time of
their submission, a piece of evidence settles, whether they were read before it or are read after.
"""

from __future__ import annotations

from stream.labels.ladder import Kind
from stream.policy import LabelPolicy


class Positive:
    """The recruiter answered: positive, whatever else happened."""

    kind = Kind.POSITIVE

    def __init__(self, policy: LabelPolicy) -> None:
        self.actions = policy.positive_actions


class Explicit:
    """The recruiter declined: negative, unless an answer follows within the window."""

    kind = Kind.NEGATIVE_EXPLICIT

    def __init__(self, policy: LabelPolicy) -> None:
        self.actions = policy.negative_actions


class Neutral:
    """Known actions that say nothing."""

    kind = Kind.PENDING

    def __init__(self, policy: LabelPolicy) -> None:
        self.actions = policy.neutral_actions


class LaterResponse:
    """Somebody who applied strictly later was answered or declined: this one was passed over."""

    name = "later_response"

    def __init__(self, policy: LabelPolicy) -> None:
        self.window_ms = policy.window_ms
        self.min_age_ms = policy.min_age_ms

    def reach(self, time_ms: int, answered_ms: int) -> tuple[int, int]:
        """Submission times (closed range) settled by a response at ``time_ms``.

        ``answered_ms`` is the submission time of the application that was responded to.
        """
        return time_ms - self.window_ms, min(answered_ms - 1, time_ms - self.min_age_ms)


class JobClosed:
    """The job was closed while the application's window was open."""

    name = "job_closed"

    def __init__(self, policy: LabelPolicy) -> None:
        self.window_ms = policy.window_ms

    def reach(self, time_ms: int) -> tuple[int, int]:
        """Submission times (closed range) settled by a closing at ``time_ms``."""
        return time_ms - self.window_ms, time_ms
