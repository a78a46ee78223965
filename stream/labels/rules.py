"""The rules that turn evidence into labels (docs/labels.md, 1 to 3).

An action says something of its own application. A rule that *infers* says which applications, by
the time of their submission, a piece of evidence settles, whether they were read before it or are
read after.
"""

from __future__ import annotations

from stream.labels.settled import Stretch
from stream.labels.transitions import Stimulus
from stream.policy import LabelPolicy

EVIDENCE = (Stimulus.DECLINED, Stimulus.ANSWERED)
"""What says something of earlier applications too."""


def stimuli(policy: LabelPolicy) -> dict[str, Stimulus]:
    """What each known action is to its own application."""
    return {
        **dict.fromkeys(policy.neutral_actions, Stimulus.NOTED),
        **dict.fromkeys(policy.negative_actions, Stimulus.DECLINED),
        **dict.fromkeys(policy.positive_actions, Stimulus.ANSWERED),
    }


class LaterResponse:
    """Somebody who applied strictly later was answered or declined: this one was passed over."""

    name = "later_response"

    def __init__(self, policy: LabelPolicy) -> None:
        self._window_ms = policy.window_ms
        self._min_age_ms = policy.min_age_ms

    def settles(self, time_ms: int, submitted_ms: int) -> Stretch:
        """What a response at ``time_ms`` to an application of ``submitted_ms`` settles."""
        last_ms = min(submitted_ms - 1, time_ms - self._min_age_ms)
        return Stretch(time_ms - self._window_ms, last_ms, time_ms, self.name)


class JobClosed:
    """The job was closed while the application's window was open."""

    name = "job_closed"

    def __init__(self, policy: LabelPolicy) -> None:
        self._window_ms = policy.window_ms

    def settles(self, time_ms: int) -> Stretch:
        """What a closing at ``time_ms`` settles."""
        return Stretch(time_ms - self._window_ms, time_ms, time_ms, self.name)
