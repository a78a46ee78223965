"""What matches would have been worth: as a worker tells them, judged by final labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.events.structs import Application
from stream.histories.applicants import Applicants, Market, enter
from stream.policy import MatchSettings
from stream.quality.matches import MatchCounts, MatchQuality


def match_quality(
    applications: Sequence[Application],
    scores: NDArray[np.float64],
    targets: NDArray[np.float64],
    judged: NDArray[np.bool_],
    settings: MatchSettings,
) -> MatchQuality | None:
    """Tell of matches in the order in which applications were read; None: there were none.

    Args:
        applications: as read (n). scores: log-odds of their first sight (n,).
        targets: whether they were answered (n,), 0 or 1, where they are judged.
        judged: which count (n,); the others are told of, for the budget is theirs too.
        settings: what a match is.

    """
    jobs: defaultdict[str, Applicants] = defaultdict(Applicants)
    market = Market()
    counts = MatchCounts()
    for at, app in enumerate(applications):
        found = enter(
            *(app.application_id, float(scores[at]), app.event_time_ms),
            job=jobs[app.job_id],
            market=market,
            settings=settings,
        )
        if judged[at]:
            counts.told += found is not None
            counts.close(answered=bool(targets[at]), match=found is not None)
    return counts.quality()
