"""A backtest in plain sentences, for who has never heard of AUC."""

from __future__ import annotations

from collections.abc import Iterator

from stream.backtest.judgement import Interval
from stream.backtest.result import GLOBAL_ALONE, Backtest, Gain, SettingResult
from stream.units import format_time

INPUTS = {"global": "global features", "history": "histories", "preferences": "preferences"}
"""What the report calls the blocks that a global model takes."""

_FIRST = 10  # features that count as the most important
_CALIBRATED = 0.05  # observed over expected within this of 1 is called right


def sentences(found: Backtest) -> list[str]:
    """Say what was found, the most important first."""
    return [
        *_worth(found),
        *_rankings(found),
        *_matches(found),
        *_refresh(found),
        *_decay(found),
        *_settings(found),
        *_importance(found),
        *_labels(found),
        *_who_gains(found),
        *_calibrated(found),
    ]


def subject(found: Backtest) -> str:
    """Say what was looked at."""
    return (
        f"{found.judged:,} applications from {format_time(found.score_from_ms)[:10]} to"
        f" {format_time(found.until_ms)[:10]}, of which {found.positives / found.judged:.0%} were"
        f" answered, out of {found.events:,} events in {', '.join(found.logs)}. Each was scored"
        " before anything of it was learned."
    )


def _worth(found: Backtest) -> Iterator[str]:
    reference, alone = found.named(found.reference), found.named(GLOBAL_ALONE)
    verdict = _verdict(alone.auc_difference)
    gained = -alone.auc_difference.value
    if verdict == "no clear difference":
        yield (
            "Learning per member and per job made no clear difference on this log: of an answered"
            " and an unanswered application, the answered one scores higher"
            f" {_in_hundred(reference)} times in 100, {_in_hundred(alone)} times with the global"
            " model alone."
        )
        return
    better = "better" if gained > 0 else "worse"
    yield (
        "Of an answered and an unanswered application, the answered one gets the higher score"
        f" {_in_hundred(reference)} times in 100. With the global model alone it is"
        f" {_in_hundred(alone)} times (a coin gives 50): learning per member and per job is"
        f" clearly {better}."
    )


def _rankings(found: Backtest) -> Iterator[str]:
    rankings = found.rankings
    if rankings is None:
        return
    auc = {name: measures["auc"].value for name, measures in rankings.orders.items()}
    yield (
        f"At {rankings.decisions:,} moments at which somebody was answered, that one ranked above"
        f" {100 * auc['full']:.0f} in 100 of those who were waiting for the same job (with the"
        f" global model alone {100 * auc['global']:.0f}, with the member's part"
        f" {100 * auc['with_member']:.0f}, with the job's {100 * auc['with_job']:.0f}; the newest"
        f" first {100 * auc['newest_first']:.0f}, by chance 50)."
    )
    if rankings.harms:
        yield (
            "For rankings within a job the whole score is clearly worse than its best part: look at"
            " the priors."
        )


def _matches(found: Backtest) -> Iterator[str]:
    said = None if found.matches is None else found.matches.in_words()
    if said is not None:
        yield f"With a budget of {found.matches_a_day} matches a day per job, {said}"


def _refresh(found: Backtest) -> Iterator[str]:
    parts = []
    for one in found.settings:
        words = one.in_words
        if words.startswith("refreshed every") or words == "never updated":
            lost = f"{one.auc_difference.value:+.3f}".replace("-", "−")
            parts.append(f"{lost} when {words} (“{one.name}”)")
    if parts and found.named(found.reference).in_words.startswith("at every label"):
        yield (
            "How soon labels take effect: compared with taking them in at once, AUC changes by "
            + "; ".join(parts)
            + "."
        )


def _decay(found: Backtest) -> Iterator[str]:
    curve = found.freshness
    if curve is None or not curve.points:
        return
    half = curve.half_life_days
    last = curve.points[-1].to_days
    both = half["both"]
    if both is None:
        if curve.points[0].both.auc is not None:
            yield (
                f"When updates stop, more than half of the gain is still there {last:.0f} days"
                " later."
            )
        return
    parts = "".join(
        f", of what {name}s’ coefficients add after {_days(each)}"
        for name in ("job", "member")
        if (each := half[name]) is not None
    )
    yield f"When updates stop, half of the gain in AUC is lost after {_days(both)}{parts}."


def _settings(found: Backtest) -> Iterator[str]:
    better = [
        one
        for one in found.settings
        if one.name not in {found.reference, GLOBAL_ALONE}
        and _verdict(one.log_loss_difference) == "better"
    ]
    if better:
        best = min(better, key=lambda one: one.log_loss.value)
        yield (
            f"“{best.name}” predicts better than “{found.reference}”: log loss"
            f" {best.log_loss.value:.4f} instead of"
            f" {found.named(found.reference).log_loss.value:.4f}"
            f" ({_range(best.log_loss_difference, '{:+.4f}')})."
        )
    elif len(found.settings) > 2:
        yield (
            f"None of the other {len(found.settings) - 2} settings predicts clearly better than"
            f" “{found.reference}” (by log loss)."
        )


def _importance(found: Backtest) -> Iterator[str]:
    if found.importance is None:
        return
    first = [one for one in found.importance.columns[:_FIRST] if one.log_loss.ends[0] > 0.0]
    if not first:
        return
    names = ", ".join(one.name for one in first[:3])
    further = sum(one.block != "global" for one in first)
    own = ""
    if len(found.importance.blocks) > 1:
        own = f" Of its {len(first)} most important features, the stream itself counts {further}."
    yield f"What the global model would miss most: {names}.{own}"


def _labels(found: Backtest) -> Iterator[str]:
    for timing in found.labels:
        at = timing.at("1d")
        if timing.learn == "early" and at is not None and at.right is not None:
            yield (
                f"A day after applying, {at.labelled:.0%} of the applications have a label, and"
                f" {at.right:.0%} of these labels, counted as they weigh, are right in the end; the"
                " others are corrected."
                f" {at.positives_known or 0.0:.0%} of the answers are known by then."
            )


def _who_gains(found: Backtest) -> Iterator[str]:
    for whose, groups in (("members", found.by_member_examples), ("jobs", found.by_job_examples)):
        if len(groups) < 2:
            continue
        total = sum(one.applications * one.log_loss_gained.value for one in groups)
        most = max(groups, key=lambda one: one.log_loss_gained.value)
        none = next((one for one in groups if one.examples == "0"), None)
        if total <= 0 or most.log_loss_gained.value <= 0:
            continue
        first = "" if none is None or none is most else f", those without any {_gained(none)}"
        examples = "no" if most is none else most.examples
        yield (
            f"{whose.capitalize()} with {examples} labelled applications gain most:"
            f" {_gained(most)} nats of log loss per application{first}."
        )


def _calibrated(found: Backtest) -> Iterator[str]:
    one = found.named(found.reference)
    ratio = one.observed_over_expected.value
    if abs(ratio - 1) <= _CALIBRATED:
        yield "The probabilities are right on average: as many answers came as were expected."
    else:
        word = "more" if ratio > 1 else "fewer"
        yield (
            f"The probabilities are off on average: {abs(ratio - 1):.0%} {word} answers came than"
            " were expected."
        )


def _verdict(difference: Interval) -> str:
    """Say which is better, where less is better."""
    if difference.low is None or difference.high is None:
        return "no clear difference" if difference.value == 0 else "better"
    if difference.low <= 0 <= difference.high:
        return "no clear difference"
    return "better" if difference.value < 0 else "worse"


def _in_hundred(one: SettingResult) -> str:
    return f"{100 * one.auc.value:.0f}"


def _gained(gain: Gain) -> str:
    return f"{gain.log_loss_gained.value:.3f}"


def _days(found: Interval) -> str:
    if found.low is None:
        return f"{found.value:.0f} days"
    if found.high is None:
        return f"{found.value:.0f} days (at least {found.low:.0f})"
    return f"{found.value:.0f} days ({found.low:.0f} to {found.high:.0f})"


def _range(found: Interval, form: str) -> str:
    if found.low is None or found.high is None:
        return form.format(found.value)
    return f"{form.format(found.low)} to {form.format(found.high)}"
