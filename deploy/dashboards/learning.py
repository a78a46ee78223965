"""*Is it learning*: do labels come, how soon, and do they become coefficients."""

from __future__ import annotations

from deploy.dashboards.panels import RATE, Board, Panel, Query, Row, or_zero, per_second, quantiles

_DAY_S = "86400.0"  # the bucket of the histogram, as it is exported


def _within_a_day(label: str) -> Query:
    def rate(series: str, more: str = "") -> str:
        return (
            f'sum(rate(hearback_time_to_label_seconds_{series}{{label="{label}"{more}}}[{RATE}]))'
        )

    within = rate("bucket", f',le="{_DAY_S}"')
    return Query(f"{within} / {rate('count')}", label)


_NOW = Row(
    "Now",
    (
        Panel(
            title="Labels",
            text="Of both signs, corrections included.",
            queries=(Query(f"sum(rate(hearback_labels_total[{RATE}]))"),),
            kind="stat", unit="cps", span=6,
        ),
        Panel(
            title="Entities refitted",
            text="Members and jobs.",
            queries=(Query(f"sum(rate(hearback_refits_total[{RATE}]))"),),
            kind="stat", unit="cps", span=6,
        ),
        Panel(
            title="Event to coefficients, p99",
            text="From the event that caused a label to its coefficients in Kafka.",
            queries=(
                Query(
                    "histogram_quantile(0.99, sum by (le)"
                    f" (rate(hearback_event_to_coefficients_seconds_bucket[{RATE}])))"
                ),
            ),
            kind="stat", unit="s", span=6, warn=1, bad=5,
        ),
        Panel(
            title="Members and jobs known",
            text="Of which something was learned.",
            queries=(Query("sum by (effect) (hearback_entities)", "{{effect}}"),),
            kind="stat", unit="locale", span=6,
        ),
    ),
)  # fmt: skip

_LABELS = Row(
    "Labels",
    (
        Panel(
            title="By kind",
            text="positive: answered; negative_inferred: by a rule, may turn; negative_explicit:"
            " declined; negative_conclusive: the window has passed.",
            queries=(Query(per_second("hearback_labels_total", "kind"), "{{kind}}"),),
            unit="cps",
        ),
        Panel(
            title="By what decided",
            text="A rule, a recruiter's own action, or the window's end.",
            queries=(Query(per_second("hearback_labels_total", "rule"), "{{rule}}"),),
            unit="cps",
        ),
        Panel(
            title="Turned positive",
            text="Labels that were negative first, by what had made them so. Each is replaced.",
            queries=(Query(or_zero(per_second("hearback_label_flips_total", "rule")), "{{rule}}"),),
            unit="cps",
        ),
        Panel(
            title="Known within a day",
            text="Share of first labels, and of positive ones, that came within a day of their"
            " application, by event time.",
            queries=(_within_a_day("first"), _within_a_day("positive")),
            unit="percentunit",
        ),
        Panel(
            title="Delays against the curve",
            text="How far the delays of the newest answers lie from the delay curve that says what"
            " silence is worth. Chance alone gives 0.05.",
            queries=(Query("max(hearback_delay_curve_distance)", "distance"),),
            unit="percentunit",
        ),
        Panel(
            title="Time to label",
            text="Age of an application at its first label, and when it turned positive.",
            queries=quantiles("hearback_time_to_label_seconds", "label"),
            unit="s",
        ),
        Panel(
            title="Waiting",
            text="Applications without a label yet; engagements whose application has not come.",
            queries=(
                Query("sum(hearback_pending_applications)", "applications without label"),
                Query("sum(hearback_orphans)", "engagements without application"),
            ),
            unit="locale",
        ),
    ),
)

_COEFFICIENTS = Row(
    "Coefficients",
    (
        Panel(
            title="Event to coefficients",
            text="From the Kafka timestamp of the event to the acknowledged coefficients.",
            queries=quantiles("hearback_event_to_coefficients_seconds", "effect"),
            unit="s",
        ),
        Panel(
            title="Entities refitted",
            text="By effect.",
            queries=(Query(per_second("hearback_refits_total", "effect"), "{{effect}}"),),
            unit="cps",
        ),
        Panel(
            title="Newton steps of a refit",
            text="Two to four are usual; many more: absurd features or weights.",
            queries=(
                Query(
                    f"{per_second('hearback_newton_steps_total', 'effect')}"
                    f" / {per_second('hearback_refits_total', 'effect')}",
                    "{{effect}}",
                ),
            ),
        ),
        Panel(
            title="Refits that did not converge",
            text="Should be none.",
            queries=(
                Query(
                    or_zero(per_second("hearback_refits_unconverged_total", "effect")),
                    "{{effect}}",
                ),
            ),
            unit="cps",
        ),
        Panel(
            title="Examples folded",
            text="Into an entity's summary: final ones over capacity, open ones over open_limit.",
            queries=(
                Query(
                    or_zero(per_second("hearback_folded_total", "effect", "sort")),
                    "{{effect}} {{sort}}",
                ),
            ),
            unit="cps",
        ),
        Panel(
            title="Members and jobs known",
            text="Of which something was learned, and that have not left; pairs of both with a"
            " history.",
            queries=(
                Query("sum by (effect) (hearback_entities)", "{{effect}}"),
                Query("sum(hearback_pairs)", "pairs"),
            ),
            unit="locale",
        ),
        Panel(
            title="Terms not counted",
            text="Candidates' terms that a job's preferences have no more room for.",
            queries=(Query(or_zero(f"sum(rate(hearback_terms_refused_total[{RATE}]))"), "terms"),),
            unit="cps",
        ),
        Panel(
            title="Left",
            text="Members and jobs whose state went: forgotten, or quiet for entity_ttl.",
            queries=(
                Query(
                    or_zero(per_second("hearback_entities_left_total", "effect", "reason")),
                    "{{effect}} {{reason}}",
                ),
            ),
            unit="cps",
        ),
    ),
)

LEARNING = Board(
    "learning",
    "Is it learning?",
    "Do labels come, how soon, and do they become coefficients.",
    (_NOW, _LABELS, _COEFFICIENTS),
)
