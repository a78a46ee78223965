"""What a look at a log counted, for who reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from stream.check.survey import Survey

_MOST_ACTIONS = 20


def counts(survey: Survey) -> Iterator[tuple[str, dict[str, int]]]:
    """Give counts by name under a title each; a title may have none."""
    joins = survey.joins
    yield "events", {name: times.events for name, times in survey.times.items() if times.events}
    ids = {"members": survey.members, "jobs": survey.jobs}
    yield (
        "different ids",
        {name if one.exact else f"{name}, about": one.count for name, one in ids.items()},
    )
    labels = survey.policy.labels
    meanings = {
        **dict.fromkeys(labels.positive_actions, "answered"),
        **dict.fromkeys(labels.negative_actions, "declined"),
        **dict.fromkeys(labels.neutral_actions, "no evidence"),
    }
    yield (
        "actions",
        {
            f"{name} ({meanings.get(name, 'not in the policy')})": count
            for name, count in survey.actions.most_common(_MOST_ACTIONS)
        },
    )
    yield "actions of jobs", dict(survey.job_actions.most_common(_MOST_ACTIONS))
    found = {
        "joined, in time": joins.joined
        - joins.early.count
        - joins.after.count
        - joins.late_engagements.count
        - joins.expired.count,
        "before their application": joins.early.count,
        "... within clock_skew": joins.skewed.count,
        "after the window": joins.after.count,
        "of another member": joins.mismatched.count,
        "without an application": joins.unmatched.count,
        "too late by the order": joins.late_engagements.count + joins.expired.count,
    }
    sample = f", 1 of {joins.share} ids" if joins.share > 1 else ""
    if joins.engagements:
        yield f"engagements{sample}", found
    others = Counter(
        {
            "different ones": joins.applications,
            "answered": joins.answered,
            "too late by the order": joins.late_applications.count,
            "with a global score": survey.scored,
        }
    )
    if joins.applications:
        yield f"applications{sample}", dict(others)
    refused = dict(sorted(survey.refused_by_reason().items()))
    refused["repeats"] = joins.repeats.count
    refused["conflict"] = sum(tally.count for tally in joins.conflicts.values())
    refused["outside of the times asked for"] = survey.left_out
    yield "lines left out", {name: count for name, count in refused.items() if count}
