"""What of a survey is wrong, and what to do about it: one line each.

An error is what makes the figures of a run wrong while they look right: most of the log is ignored,
or all of one kind is. Everything else that is ignored is a warning. Shares count only where there
are twenty to judge by; below, what would be an error is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from statistics import median

from stream.check.order import SECONDS
from stream.check.problem import FEWEST, MOST, Level, Problem, level_of, listing, share_of
from stream.check.refusals import line_problems
from stream.check.survey import APPLICATION, ENGAGEMENT, LEAST_MAX_JUMP_MS, Survey
from stream.check.tallies import Tally
from stream.policy import HOUR_MS
from stream.units import format_duration, format_time

_SOME = 0.01  # of what every real log has a little: a smaller share is not worth a line
_LOST_IN_BLOCKS = 0.1
_BLOCK = 10  # events of one type in a row, on average, are no order of time
_REPEATED = 0.3
_AFTER = 0.1
_UNMATCHED = 0.05
_WIDE = 100.0  # standard deviation; the effects' priors take features of about 1 for granted


def problems(survey: Survey, *, names: Iterable[str] = (), whole: bool = True) -> list[Problem]:
    """Judge a log.

    Args:
        survey: of the log. names: of its files.
        whole: whether the log is all that is learned from. Else (played into Kafka, where the rest
            may come from elsewhere) it may lack what belongs to it: that is a warning then.

    Returns:
        Errors first.

    """
    found = [
        *line_problems(survey, names),
        *_times(survey),
        *_events(survey, whole),
        *_features(survey),
    ]
    return sorted(found, key=lambda one: one.level != "error")


# -- times -----------------------------------------------------------------------------------


def _times(survey: Survey) -> Iterator[Problem]:
    """Units, far times, order."""
    for name, times in survey.times.items():
        for unit, tally in (
            ("seconds", times.seconds),
            ("microseconds", times.micros),
            ("nanoseconds", times.nanos),
        ):
            if tally.count and (unit != "seconds" or _in_seconds(survey)):
                yield Problem(
                    level_of(tally.count, times.events),
                    f"{tally.where}: the times of {share_of(tally.count, times.events)} {name}"
                    f" events seem to be {unit} ({tally.example}):"
                    " event_time_ms is in milliseconds",
                )
    if survey.far.count:
        yield _far(survey)
    if not _wrong_unit(survey):
        yield from _order(survey)


def _wrong_unit(survey: Survey) -> bool:
    seconds = _in_seconds(survey)
    return any(
        tally.count > MOST * times.events
        for times in survey.times.values()
        for tally in (*((times.seconds,) if seconds else ()), times.micros, times.nanos)
    )


def _in_seconds(survey: Survey) -> bool:
    """Whether times in January 1970 are a mistake: no other is near, or all are there."""
    known = [times for times in survey.times.values() if times.events]
    suspect = sum(times.seconds.count for times in known)
    later = survey.order.largest_ms > 100 * SECONDS.stop
    return later or suspect > 0.99 * sum(times.events for times in known)


def _far(survey: Survey) -> Problem:
    far = survey.far
    said = f"{far.where}: {far.count:,} event(s) far ahead of all others"
    first = f"the first at {format_time(survey.far_ms)}"
    if survey.max_jump_ms is not None:
        level = level_of(far.count, survey.usable, most=_LOST_IN_BLOCKS)
        whole_end = far.count >= FEWEST and not survey.overtaken
        return Problem(
            "error" if whole_end else level,
            f"{said}, {first}, are left out by --max-jump: set it longer if their times are right",
        )
    levels = (
        level_of(survey.overtaken, survey.usable, most=_LOST_IN_BLOCKS),
        level_of(survey.closed, survey.joins.applications, most=_LOST_IN_BLOCKS),
    )
    maybe = not survey.overtaken and not survey.not_yet
    return Problem(
        "error" if "error" in levels and not maybe else "warning",
        f"{said}, {first}{', in the future' if survey.not_yet else ''}: every window closes there,"
        f" {survey.closed * survey.joins.share:,} of them by nothing else, and"
        f" {survey.overtaken:,} later events come too late."
        f" {'If it is wrong, correct' if maybe else 'Correct'} the time, or leave such events out"
        f" with --max-jump {format_duration(LEAST_MAX_JUMP_MS)}",
    )


def _order(survey: Survey) -> Iterator[Problem]:
    order, joins = survey.order, survey.joins
    late = joins.late_applications.count
    lost = joins.late_engagements.count + joins.expired.count
    share = max(late / max(joins.applications, 1), lost / max(joins.joined, 1))
    behind = order.behind.count / max(order.count, 1)
    first = next(
        (
            one
            for one in (order.behind, joins.late_applications, joins.late_engagements)
            if one.count
        ),
        joins.expired,
    )
    if share <= _SOME and behind <= _SOME:
        return
    apps, engagements = survey.times[APPLICATION].events, survey.times[ENGAGEMENT].events
    in_blocks = (survey.turns - 1) * _BLOCK < min(apps, engagements)
    backwards = order.backwards > 0.9 * order.count
    known = apps + engagements
    if in_blocks:
        text = (
            "applications and engagements come one after the other, not as they happened: sort by"
            " time, or pass each as a file of its own"
        )
    elif backwards:
        text = "the newest events come first: sort the log by time"
    elif behind > MOST:
        text = "events are in no order of time: sort by event_time_ms"
    elif order.worst_ms > LEAST_MAX_JUMP_MS:
        text = "some clocks are wrong: correct their times"
    else:
        text = (
            "sort by event_time_ms, or set allowed_lateness in the policy if they arrive like this"
        )
    disordered = in_blocks or backwards or behind > MOST or order.worst_ms > LEAST_MAX_JUMP_MS
    most = _LOST_IN_BLOCKS if disordered else MOST
    yield Problem(
        "error" if known >= FEWEST and share > most else "warning",
        f"{first.where}: {share_of(order.behind.count, order.count)} events lie more than"
        f" allowed_lateness ({format_duration(survey.policy.labels.allowed_lateness_ms)}) before"
        f" others that come earlier, {about(order.worst_ms)} at most; {late + lost:,} are lost by"
        f" it: {text}",
    )


def about(ms: float) -> str:
    """Write a duration as a person would say it."""
    for unit, size in (("days", 24 * HOUR_MS), ("hours", HOUR_MS), ("minutes", 60_000)):
        if ms >= 2 * size:
            return f"{ms / size:.0f} {unit}"
    return f"{ms / 1000:g} s"


# -- events ----------------------------------------------------------------------------------


def _events(survey: Survey, whole: bool) -> Iterator[Problem]:
    """Types, actions, ids."""
    apps, engagements = survey.times[APPLICATION].events, survey.times[ENGAGEMENT].events
    lacking: Level = "error" if whole else "warning"
    if survey.usable and not apps:
        yield Problem(lacking, "there are no applications: pass the file that has them too")
    if apps and not engagements:
        yield Problem(
            lacking if apps >= FEWEST else "warning",
            f"there are {apps:,} applications and no engagements, so that all would count as not"
            " answered: pass the file that has them too",
        )
    yield from _actions(survey)
    if apps and engagements:
        joins = list(_joins(survey, whole))
        yield from joins
        if not any(one.level == "error" for one in joins):
            yield from _classes(survey, lacking)
    yield from _repeats(survey)


def _actions(survey: Survey) -> Iterator[Problem]:
    labels, unlisted = survey.policy.labels, survey.unlisted
    listed = labels.positive_actions | labels.negative_actions | labels.neutral_actions
    if unlisted.count:
        total = survey.actions.total()
        names = listing(name for name, _ in survey.actions.most_common() if name not in listed)
        yield Problem(
            level_of(unlisted.count, total),
            f"{unlisted.where}: {unlisted.count:,} of {total:,} engagements have actions that the"
            f" policy does not list: {names}; name them with --policy",
        )
    if survey.unlisted_jobs.count:
        names = listing(name for name, _ in survey.job_actions.most_common() if name != "closed")
        yield Problem(
            "warning",
            f"{survey.unlisted_jobs.where}: {survey.unlisted_jobs.count:,} of"
            f" {survey.job_actions.total():,} job events have actions that are not known: {names};"
            " closed is",
        )


def _joins(survey: Survey, whole: bool) -> Iterator[Problem]:
    """How engagements lie to their applications."""
    joins, labels = survey.joins, survey.policy.labels
    looked = f"; looked at: 1 of {joins.share} ids" if joins.share > 1 else ""

    def problem(
        tally: Tally, of: int, most: float, text: Callable[[str], str]
    ) -> Iterator[Problem]:
        if tally.count and tally.count > most * of:
            said = text(f"{tally.where}: {share_of(tally.count, of)} engagements")
            yield Problem(level_of(tally.count, of), said + looked)

    yield from _unmatched(survey, whole, looked)
    yield from problem(
        joins.mismatched,
        joins.joined + joins.mismatched.count,
        0.0,
        lambda said: (
            f"{said} name another member than their application, the first:"
            f" {joins.mismatched.example}: member_id is the applicant's"
        ),
    )
    if _wrong_unit(survey):
        return
    yield from problem(
        joins.early,
        joins.joined,
        0.0,
        lambda said: (
            f"{said} lie before their application by more than clock_skew"
            f" ({format_duration(labels.clock_skew_ms)}), half of them by"
            f" {about(_mid(joins.early_ms))} or more, and count for nothing:"
            f" {_early_advice(_mid(joins.early_ms))}"
        ),
    )
    yield from problem(
        joins.after,
        joins.joined,
        _AFTER,
        lambda said: (
            f"{said} come more than window ({format_duration(labels.window_ms)}) after their"
            f" application, half of them {about(_mid(joins.after_ms))} or more after it, and count"
            " for nothing: set window in the policy if answers take so long"
        ),
    )


def _mid(gaps_ms: list[int]) -> float:
    return median(gaps_ms) if gaps_ms else 0.0


def _early_advice(gap_ms: float) -> str:
    if gap_ms > 365 * 24 * HOUR_MS:
        return "are these times in another unit?"
    if 0.4 * HOUR_MS <= gap_ms <= 15 * HOUR_MS:
        return "is one of both in local time? Times are UTC"
    return "do the clocks differ? Set clock_skew in the policy, or correct the times"


def _unmatched(survey: Survey, whole: bool, looked: str) -> Iterator[Problem]:
    joins = survey.joins
    unmatched, total = joins.unmatched, joins.engagements
    certain = unmatched.count - joins.too_old.count
    nothing = joins.joined < 0.05 * total
    if not unmatched.count or (certain <= _UNMATCHED * total and not nothing):
        return
    missing = unmatched.count if nothing else certain
    level = level_of(missing, total) if whole else "warning"
    if joins.other_job.count > MOST * unmatched.count:
        yield Problem(
            level,
            f"{joins.other_job.where}: {share_of(joins.other_job.count, total)} engagements name"
            " another job than their application, and are not matched by its id alone:"
            f" {joins.other_job.example}{looked}",
        )
        return
    yield Problem(
        level,
        f"{unmatched.where}: {share_of(missing, total)} engagements name an application that the"
        f" log has not, the first {unmatched.example!r}; an application of the log is"
        f" {joins.an_application()!r}: are these the same ids, and are all files there?{looked}",
    )


def _classes(survey: Survey, lacking: Level) -> Iterator[Problem]:
    """Whether there is anything to learn: some are answered, some not."""
    joins = survey.joins
    apps = joins.applications - joins.late_applications.count
    level = lacking if apps >= FEWEST else "warning"
    total = survey.actions.total()
    some_listed = not total or survey.unlisted.count < total  # else that is said
    if joins.answered == 0 and apps > 0 and some_listed:
        yield Problem(
            level,
            f"none of {apps:,} applications is answered (positive_actions:"
            f" {listing(sorted(survey.policy.labels.positive_actions))}): does the log end before"
            " answers come, or does the policy name the wrong actions?",
        )
    elif joins.answered >= apps >= FEWEST:
        yield Problem(
            level,
            f"all {apps:,} applications are answered: does the log lack those that are not, or does"
            " positive_actions name what is no answer?",
        )


def _repeats(survey: Survey) -> Iterator[Problem]:
    joins = survey.joins
    repeats = joins.repeats
    for kind, conflicts in joins.conflicts.items():
        of = joins.distinct(kind) + conflicts.count
        if conflicts.count:
            yield Problem(
                level_of(conflicts.count, of),
                f"{conflicts.where}: {share_of(conflicts.count, of)} {kind} events have the id of"
                f" another one with other content ({conflicts.example}), and are refused as"
                " conflict: ids must be unique within their job",
            )
    lost = sum(tally.count for tally in joins.conflicts.values())
    total = joins.applications + joins.engagements + repeats.count + lost
    if repeats.count > _REPEATED * total and total >= FEWEST:
        yield Problem(
            "warning",
            f"{repeats.where}: {share_of(repeats.count, total)} events come again with the same"
            " content, and are ignored: was a file passed twice?",
        )


# -- features --------------------------------------------------------------------------------


def _features(survey: Survey) -> Iterator[Problem]:
    apps = survey.times[APPLICATION].events
    if survey.unscored.count:
        yield Problem(
            level_of(survey.unscored.count, apps),
            f"{survey.unscored.where}: {share_of(survey.unscored.count, apps)} applications have"
            " neither features.global nor global_score: the global model has nothing to go by",
        )
    for tally, text in (
        (
            survey.huge_scores,
            "have a global_score beyond max_feature (it is in log-odds), the first",
        ),
        (survey.misfits, "are refused: each must be like the first or the model, the first"),
    ):
        if tally.count:
            yield Problem(
                level_of(tally.count, apps),
                f"{tally.where}: {share_of(tally.count, apps)} applications {text}, the first:"
                f" {tally.example}",
            )
    for label, block in survey.blocks.items():
        if len(block.shapes) > 1:
            usual = max(block.shapes, key=lambda size: block.shapes[size].count)
            other = min(
                (tally for size, tally in block.shapes.items() if size != usual),
                key=lambda tally: tally.count,
            )
            rest = block.rows - block.shapes[usual].count
            kind = f"lists of {usual} numbers" if usual else "objects"
            yield Problem(
                level_of(rest, apps),
                f"{other.where}: features.{label} of {share_of(rest, block.rows)} applications has"
                f" another shape than most, which are {kind}",
            )
        if block.beyond.count:
            limit = survey.policy.features.max_feature
            yield Problem(
                level_of(block.beyond.count, apps),
                f"{block.beyond.where}: features.{label} of {share_of(block.beyond.count, apps)}"
                f" applications has a number beyond max_feature ({limit:g}), the first"
                f" {block.beyond.example}: send it scaled",
            )
        wide = [name for name, one in block.columns.items() if one.deviation > _WIDE]
        if wide and label != "global":
            worst = max(wide, key=lambda name: block.columns[name].deviation)
            yield Problem(
                "warning",
                f"features.{label}: {listing(wide)} vary by more than {_WIDE:g} ({worst}: standard"
                f" deviation {block.columns[worst].deviation:.3g}): effects learn best from"
                " features of about 1",
            )
