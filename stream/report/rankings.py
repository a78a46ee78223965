"""The rankings of a backtest, as a section of the page."""

from __future__ import annotations

from html import escape

from stream.quality.ranking import MEASURES, RankingQuality

_SHOWN = {
    "auc": ("AUC", "{:.3f}"),
    "reciprocal_rank": ("reciprocal rank", "{:.3f}"),
    "ndcg_at_1": ("NDCG@1", "{:.3f}"),
    "ndcg_at_5": ("NDCG@5", "{:.3f}"),
    "ndcg_at_10": ("NDCG@10", "{:.3f}"),
    "top_1": ("top 1", "{:.1%}"),
    "top_5": ("top 5", "{:.1%}"),
    "top_10": ("top 10", "{:.1%}"),
}

_ORDERS = {
    "global": "global score",
    "with_member": "global + member",
    "with_job": "global + job",
    "full": "all three",
    "landmark": "all three, age and answers since",
    "delays": "all three, age",
    "newest_first": "newest first",
    "random": "random",
}

LEAD = (
    "A recruiter chooses among those who wait, at a moment. Each first answer is ranked against the"
    " others who waited for one then, by the coefficients of that moment. Within a job those who"
    " wait are also ordered by what is known of waiting: by age, and with a landmark by answers to"
    " later applicants. Newest first and random know nothing of anybody. Figures are means over"
    " these decisions, with 95 % intervals by resampling jobs (members, below)."
)


def tables(*found: RankingQuality | None) -> str:
    """Write a table for each of the rankings that there are."""
    return "".join(_table(each) for each in found if each is not None)


def _table(found: RankingQuality) -> str:
    shown = [name for name in MEASURES if name in found.orders["full"]]
    head = "".join(f"<th>{escape(_SHOWN[name][0])}</th>" for name in shown)
    body = "".join(
        f"<tr><td>{escape(_ORDERS[order])}</td>"
        + "".join(f"<td>{escape(each[name].text(_SHOWN[name][1]))}</td>" for name in shown)
        + "</tr>"
        for order, each in found.orders.items()
    )
    best, gain = _ORDERS[found.best], found.gain.text("{:+.3f}")
    return (
        f"<h3>Within a {found.within}</h3><div class='scroll'><table>"
        f"<thead><tr><th>order</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<p>{escape(found.in_words())}. AUC of all three less that of the best part ({best}):"
        f" {escape(gain)}.</p>"
    )
