"""*Does it help*: the score with what was learned against the global model's, and the gate."""

from __future__ import annotations

from deploy.dashboards.panels import Board, Panel, Query, Row, Unit


def _log_loss(score: str) -> str:
    """Sum of the log loss of a score, by how it was judged."""
    return f'sum by (judged) (hearback_quality_log_loss_nats{{score="{score}"}})'


_APPLICATIONS = "sum by (judged) (hearback_quality_applications)"
_EXPECTED = "sum by (judged, score) (hearback_quality_expected_positives)"

_RANKED: tuple[tuple[str, str, Unit, str], ...] = (
    (
        "AUC among those who wait", "auc", "none",
        "Share of the others who waited for the same job that rank below the one who is answered,"
        " over the newest decisions; by chance 0.5.",
    ),
    (
        "Reciprocal rank", "reciprocal_rank", "none",
        "Mean of 1/rank of the one who is answered.",
    ),
    ("First place", "top_1", "percentunit", "How often the one who is answered ranks first."),
)  # fmt: skip

_NOW = Row(
    "Now",
    (
        Panel(
            title="Log loss gained",
            text="Mean log loss of the global score less that of the whole, in nats: above 0, what"
            " was learned of members and jobs helps.",
            queries=(
                Query(
                    f"({_log_loss('global')} - {_log_loss('full')}) / {_APPLICATIONS}",
                    "{{judged}}",
                ),
            ),
            kind="stat", unit="none", span=8, bad=0, warn=0.001, low_is_bad=True,
        ),
        Panel(
            title="AUC gained",
            text="Of the whole score over the global one, on average over the workers.",
            queries=(
                Query(
                    'avg by (judged) (hearback_quality_pooled_auc{score="full"})'
                    ' - avg by (judged) (hearback_quality_pooled_auc{score="global"})',
                    "{{judged}}",
                ),
            ),
            kind="stat", unit="none", span=8, bad=0, warn=0.001, low_is_bad=True,
        ),
        Panel(
            title="Partitions held back",
            text="By the gate, because the effect makes the score worse.",
            queries=(Query("sum by (effect) (1 - hearback_gate_open)", "{{effect}}"),),
            kind="stat", span=8, warn=1, bad=1,
        ),
    ),
)  # fmt: skip

_QUALITY = Row(
    "Scored before learned",
    (
        Panel(
            title="Log loss",
            text="Mean over the newest applications of all partitions. early: by the labels known"
            " at the gate's age; final: when their windows have closed. Less is better.",
            queries=(
                Query(
                    "sum by (judged, score) (hearback_quality_log_loss_nats)"
                    f" / on (judged) group_left {_APPLICATIONS}",
                    "{{score}}, {{judged}}",
                ),
            ),
            unit="none", span=12,
        ),
        Panel(
            title="AUC",
            text="Of a worker's partitions together, on average over the workers.",
            queries=(
                Query(
                    "avg by (judged, score) (hearback_quality_pooled_auc)", "{{score}}, {{judged}}"
                ),
            ),
            unit="none", span=12,
        ),
        Panel(
            title="Observed/expected",
            text="Answers over those that a score expected; final should be about 1. early is not:"
            " a refusal comes sooner than silence.",
            queries=(
                Query(
                    "sum by (judged) (hearback_quality_positives)"
                    f" / on (judged) group_right {_EXPECTED}",
                    "{{score}}, {{judged}}",
                ),
            ),
            unit="none",
        ),
        Panel(
            title="Judged",
            text="The newest applications that the figures are of, and how many were answered.",
            queries=(
                Query(_APPLICATIONS, "applications, {{judged}}"),
                Query("sum by (judged) (hearback_quality_positives)", "answered, {{judged}}"),
            ),
            unit="locale",
        ),
        Panel(
            title="AUC by partition",
            text="Of the whole score, judged when windows have closed: is one partition odd?",
            queries=(
                Query(
                    'max by (partition) (hearback_quality_auc{score="full",judged="final"})',
                    "{{partition}}",
                ),
            ),
            unit="none",
        ),
    ),
)  # fmt: skip

_RANKINGS = Row(
    "When somebody is answered",
    tuple(
        Panel(
            title=title,
            text=text,
            queries=(
                Query(
                    f'sum by (order) (hearback_ranking_sum{{measure="{measure}"}})'
                    " / on () group_left"
                    f' sum(hearback_ranking_decisions{{measure="{measure}"}})',
                    "{{order}}",
                ),
            ),
            unit=unit,
        )
        for title, measure, unit, text in _RANKED
    ),
)

_MATCHES = Row(
    "Matches",
    (
        Panel(
            title="Matches told",
            text="In a minute; none unless [matches] is enabled.",
            queries=(Query("60 * sum(rate(hearback_matches_total[5m]))", "a minute"),),
            unit="none", span=12,
        ),
        Panel(
            title="Answered",
            text="Of those whose windows closed within the last hour: of the matches, and of all"
            " applications.",
            queries=(
                Query(
                    'sum(increase(hearback_matches_closed_total{answered="yes"}[1h]))'
                    " / sum(increase(hearback_matches_closed_total[1h]))",
                    "matches",
                ),
                Query(
                    'sum(increase(hearback_applications_closed_total{answered="yes"}[1h]))'
                    " / sum(increase(hearback_applications_closed_total[1h]))",
                    "all",
                ),
            ),
            unit="percentunit", span=12,
        ),
    ),
)  # fmt: skip

_GATE = Row(
    "The gate",
    (
        Panel(
            title="How much worse an effect makes it",
            text="Mean log loss with the effect less that without it, of the partition where it is"
            " worst; below 0 it helps. The gate compares it with its margin.",
            queries=(
                Query(
                    "max by (effect, judged) (hearback_gate_worse_nats)", "{{effect}}, {{judged}}"
                ),
            ),
            unit="none",
        ),
        Panel(
            title="Partitions held back",
            text="Where the gate is shut.",
            queries=(Query("sum by (effect) (1 - hearback_gate_open)", "{{effect}}"),),
        ),
        Panel(
            title="Coefficients held back",
            text="Members and jobs that have changed and wait to be published.",
            queries=(Query("sum by (effect) (hearback_gate_held_entities)", "{{effect}}"),),
            unit="locale",
        ),
    ),
)

HELPING = Board(
    "helping",
    "Does it help?",
    "What the scores are worth with what was learned of members and jobs, and without it.",
    (_NOW, _QUALITY, _RANKINGS, _MATCHES, _GATE),
)
