"""A backtest as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from stream.backtest.freshness import Freshness
from stream.backtest.importance import Importance
from stream.backtest.judgement import Interval
from stream.backtest.result import GLOBAL_ALONE, Backtest, SettingResult
from stream.report import charts, rankings, words
from stream.units import format_duration, format_time

_Rows = Sequence[Sequence[str]]

_MOST_SHOWN = 15
"""Features whose importance is drawn; a table has all."""


def page(found: Backtest) -> str:
    """Write the whole page; it loads nothing."""
    body = "\n".join(_sections(found))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>hearback backtest: {escape(", ".join(found.logs))}</title>
<style>
{_resource("chart.css")}{_resource("page.css")}</style>
</head>
<body>
<main>
{body}
</main>
<script>
{_resource("page.js")}</script>
</body>
</html>
"""


def picture(svg: str) -> str:
    """Write a plot as a file of its own, with its style inside."""
    inside = (
        f"</title><style>{_resource('chart.css')}</style>"
        "<rect class='paper' width='100%' height='100%'/>"
    )
    return svg.replace("</title>", inside, 1) + "\n"


def _sections(found: Backtest) -> Iterator[str]:
    yield _head(found)
    yield _section(
        "Setting by setting",
        f"Each row is one way to run the model over the same log, compared with"
        f" “{found.reference}”. Whiskers are 95 % intervals over {found.blocks} {found.block}s;"
        " where they cross zero, the difference may be chance.",
        f'<div class="row">{charts.differences(found)}</div>' + _settings_table(found),
    )
    yield _section(
        "Over time",
        "Higher AUC and lower log loss are better. Weeks differ for everybody: what matters is how"
        " far lines are apart.",
        _legend(found) + f'<div class="row">{charts.over_time(found)}</div>',
    )
    if found.rankings is not None or found.member_rankings is not None:
        yield _section(
            "How well does it rank when somebody is chosen?",
            rankings.LEAD,
            rankings.tables(found.rankings, found.member_rankings),
        )
    if found.freshness is not None and found.freshness.points:
        yield _freshness(found.freshness)
    if found.labels:
        yield _labels(found)
    yield _section(
        "Are the probabilities right?",
        "Applications in ten groups by score. On the dotted line, as many were answered as the"
        " score said.",
        f'<div class="row">{charts.calibration(found)}</div>',
    )
    if found.waiting:
        yield _waiting(found)
    if found.importance is not None:
        yield _importance(found.importance)
    if found.by_member_examples or found.by_job_examples:
        yield _section(
            "Who gains",
            "What the effects take off the global model's log loss (more is better), by how many"
            " labelled applications of the member, or of the job, there were before.",
            f'<div class="row">{charts.gains(found)}</div>' + _gains_table(found),
        )
    yield _foot(found)


def _head(found: Backtest) -> str:
    reference, alone = found.named(found.reference), found.named(GLOBAL_ALONE)
    half = None if found.freshness is None else found.freshness.half_life_days["both"]
    tiles = [
        ("AUC", f"{reference.auc.value:.3f}", f"global model alone {alone.auc.value:.3f}"),
        (
            "log loss",
            f"{reference.log_loss.value:.3f}",
            f"global model alone {alone.log_loss.value:.3f}",
        ),
    ]
    if half is not None:
        tiles.append(("half the gain lost after", f"{half.value:.0f} days", "without updates"))
    at = next((one for timing in found.labels if (one := timing.at("1d"))), None)
    if at is not None and at.right is not None:
        tiles.append(
            ("labelled within a day", f"{at.labelled:.0%}", f"{at.right:.0%} of them right")
        )
    shown = "".join(
        f'<div class="tile"><span>{escape(name)}</span><strong>{escape(value)}</strong>'
        f"<small>{escape(more)}</small></div>"
        for name, value, more in tiles
    )
    said = "".join(f"<li>{escape(one)}</li>" for one in words.sentences(found))
    return (
        "<header><h1>What would it have done for us?</h1>"
        f"<p>{escape(words.subject(found))}</p></header>"
        f'<div class="tiles">{shown}</div>'
        f'<section class="short"><h2>In short</h2><ul>{said}</ul></section>'
    )


def _legend(found: Backtest) -> str:
    """One box for each setting; those that refresh differently are shown at first."""
    kinds = charts.kinds(found)
    boxes = []
    for one in found.settings:
        plain = one.name in {found.reference, GLOBAL_ALONE}
        shown = plain or "," not in one.in_words
        if not plain and one.in_words == "at every label":
            shown = False
        boxes.append(
            f'<label class="{kinds[one.name]}"><input type="checkbox"'
            f' data-setting="{kinds[one.name]}"{" checked" if shown else ""}>'
            f"<i></i>{escape(one.name)}</label>"
        )
    return f'<div class="legend">{"".join(boxes)}</div>'


def _freshness(curve: Freshness) -> str:
    rows = [
        (
            f"{point.from_days:g}-{point.to_days:g}",
            f"{point.applications:,}",
            f"{point.auc_live:.4f}",
            f"{point.auc_frozen:.4f}",
            f"{point.auc_global:.4f}",
            *(_share(getattr(point, name).auc) for name in ("both", "member", "job")),
            _share(point.both.log_loss),
        )
        for point in curve.points
    ]
    heads = (
        "days since", "applications", "AUC updated", "stopped", "no effects", "left: both",
        "per member", "per job", "both, of log loss",
    )  # fmt: skip
    return _section(
        "What is lost when updates stop",
        f"The coefficients were frozen at {len(curve.frozen_at_ms)} moments, and the applications"
        " that followed were scored with them. The gain is what the effects add to the global"
        " model's AUC; who came after the freeze has no coefficients at all.",
        f'<div class="row">{charts.freshness(curve)}{charts.ages(curve)}</div>'
        + _table(heads, rows),
    )


def _importance(found: Importance) -> str:
    rows = [
        (one.name, words.INPUTS[one.block], one.log_loss.text("{:+.5f}")) for one in found.columns
    ]
    blocks = [
        (words.INPUTS[one.name], one.log_loss.text("{:+.5f}"))
        for one in found.blocks
        if len(found.blocks) > 1
    ]
    whole = _plain_table(("all of these at once", "log loss, more"), blocks) if blocks else ""
    return _section(
        "What the global model goes by",
        f"Among {found.applications:,} of the applications the values of a feature were dealt out"
        " at random, so that it tells nothing: by so much the log loss of the global score grows,"
        " without the effects. Features that say the same stand in for each other.",
        f'<div class="row">{charts.importance(found, _MOST_SHOWN)}</div>{whole}'
        + _table(("feature", "of", "log loss, more"), rows),
    )


def _labels(found: Backtest) -> str:
    ways = "".join(
        f'<span class="{one.learn}"><i></i>{escape(charts.WAYS[one.learn])}</span>'
        for one in found.labels
    )
    rows = [
        (
            charts.WAYS[timing.learn],
            at.age,
            f"{at.labelled:.1%}",
            _known(at.right, "{:.1%}"),
            _known(at.positives_known, "{:.1%}"),
            _known(at.negatives_right, "{:.1%}"),
        )
        for timing in found.labels
        for at in timing.ages
    ]
    heads = ("labels are taken", "age", "labelled", "right", "answers known", "negatives right")
    return _section(
        "How early labels are known, and how right they are",
        "A label is right when it is the final one, and counts as it weighs. Early ones that were"
        " wrong are corrected.",
        f'<div class="legend">{ways}</div><div class="row">{charts.labels(found)}</div>'
        + _table(heads, rows),
    )


def _waiting(found: Backtest) -> str:
    names = list(found.waiting[0].observed_over_expected)
    rows = [
        (
            f"to {format_duration(at.to_ms)}",
            f"{at.moments:,}",
            *(at.observed_over_expected[name].text("{:.2f}") for name in names),
        )
        for at in found.waiting
    ]
    return _section(
        "Are they still right of who waits?",
        "Open applications were looked at now and then, by their age: answers that still came, over"
        " the sum of the probabilities of that moment (1 is right). “delays”: the score, less what"
        " should have come by then; “landmark”: what the model learned of those who wait.",
        _plain_table(("age", "moments", *names), rows),
    )


def _settings_table(found: Backtest) -> str:
    heads = (
        "setting", "what it is", "AUC", "difference", "log loss", "difference",
        "observed/expected",
    )  # fmt: skip

    def row(one: SettingResult) -> tuple[str, ...]:
        reference = one.name == found.reference
        return (
            one.name,
            one.in_words,
            one.auc.text("{:.4f}"),
            "" if reference else one.auc_difference.text("{:+.4f}"),
            one.log_loss.text("{:.4f}"),
            "" if reference else one.log_loss_difference.text("{:+.4f}"),
            f"{one.observed_over_expected.value:.3f}",
        )

    return _table(heads, [row(one) for one in found.settings])


def _gains_table(found: Backtest) -> str:
    rows = [
        (
            whose,
            gain.examples,
            f"{gain.applications:,}",
            _known(gain.auc_global, "{:.4f}"),
            _known(gain.auc, "{:.4f}"),
            f"{gain.log_loss_global:.4f}",
            f"{gain.log_loss:.4f}",
            gain.log_loss_gained.text("{:+.4f}"),
        )
        for whose, group in (("member", found.by_member_examples), ("job", found.by_job_examples))
        for gain in group
    ]
    heads = (
        "examples of the", "examples", "applications", "AUC, global alone", "AUC",
        "log loss, global alone", "log loss", "gained",
    )  # fmt: skip
    return _table(heads, rows)


def _foot(found: Backtest) -> str:
    window = format_duration(found.window_ms)
    return (
        "<footer><h2>How it was measured</h2>"
        f"<p>Every setting read the same {found.events:,} events in order of arrival"
        f" ({found.applications:,} applications since {format_time(found.from_ms)[:10]}), with the"
        f" frozen global model {escape(found.model_version)}. Scores are prequential: an"
        " application is scored before anything of it is learned. It is judged by its final label"
        f" once its whole window of {window} has passed; those whose window reaches beyond the log"
        " are left out. AUC: the share of pairs of an answered and an unanswered application in"
        " which the answered one scores higher. Log loss: nats per application. Observed/expected:"
        " answers over the sum of probabilities; 1 is right. Intervals: 95 %, by drawing"
        f" {found.blocks} {found.block}s with replacement 1,000 times, the same draws for every"
        " setting.</p></footer>"
    )


def _section(title: str, lead: str, inside: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(lead)}</p>{inside}</section>"


def _table(heads: Sequence[str], rows: _Rows) -> str:
    return f"<details><summary>All figures</summary>{_plain_table(heads, rows)}</details>"


def _plain_table(heads: Sequence[str], rows: _Rows) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        "<div class='scroll'><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _resource(name: str) -> str:
    return files("stream.report").joinpath(name).read_text(encoding="utf-8")


def _share(found: Interval | None) -> str:
    return "-" if found is None else found.text("{:.0%}")


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
