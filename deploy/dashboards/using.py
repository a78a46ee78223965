"""*Is it used*: what services are asked, how fast they answer, and how good what they have is."""

from __future__ import annotations

from deploy.dashboards.panels import RATE, Board, Panel, Query, Row, or_zero, per_second, quantiles

_UP = 'up{job="hearback-serve"}'
_REQUESTS = f"sum(rate(hearback_serve_requests_total[{RATE}]))"
_CANDIDATES = f"sum(rate(hearback_serve_candidates_total[{RATE}]))"

_NOW = Row(
    "Now",
    (
        Panel(
            title="Services ready",
            text="Services that have all that was published when they started.",
            queries=(Query("sum(hearback_serve_ready)"),),
            kind="stat", span=4, warn=1, low_is_bad=True,
        ),
        Panel(
            title="Requests",
            text="Answered in a second, probes and Prometheus itself left out.",
            queries=(
                Query(
                    f'sum(rate(hearback_serve_requests_total{{route=~"/v1/.*"}}[{RATE}]))'
                ),
            ),
            kind="stat", unit="cps", span=4,
        ),
        Panel(
            title="Answered within, p99",
            text="Of scores, rankings and look-ups, since the service looked at the request.",
            queries=(
                Query(
                    "histogram_quantile(0.99, sum by (le)"
                    f' (rate(hearback_serve_seconds_bucket{{route=~"/v1/.*"}}[{RATE}])))'
                ),
            ),
            kind="stat", unit="s", span=4, warn=0.1, bad=1,
        ),
        Panel(
            title="Staleness",
            text="How old what the worst service knows may be. It serves on when the broker is"
            " away.",
            queries=(Query("max(hearback_serve_staleness_seconds)"),),
            kind="stat", unit="s", span=4, warn=30, bad=60,
        ),
        Panel(
            title="Services degraded",
            text="Services whose answers say that they are not what they should be; see below why.",
            queries=(
                Query("sum(max by (instance) (hearback_serve_degraded))"),
            ),
            kind="stat", span=4, warn=1,
        ),
        Panel(
            title="Refused as too many",
            text="Share of the requests that were answered with 503 because others were waiting.",
            queries=(
                Query(f"sum(rate(hearback_serve_shed_total[{RATE}])) / {_REQUESTS}"),
            ),
            kind="stat", unit="percentunit", span=4, warn=0.0001, bad=0.01,
        ),
    ),
)  # fmt: skip

_ASKED = Row(
    "Asked",
    (
        Panel(
            title="Requests by route",
            text="Answered in a second.",
            queries=(Query(per_second("hearback_serve_requests_total", "route"), "{{route}}"),),
            unit="cps",
        ),
        Panel(
            title="Requests by status",
            text="2xx: answered; 4xx: the client has to change something; 503: not ready, or too"
            " many waiting.",
            queries=(Query(per_second("hearback_serve_requests_total", "status"), "{{status}}"),),
            unit="cps",
        ),
        Panel(
            title="Time to answer",
            text="Since the service looked at the request.",
            queries=quantiles("hearback_serve_seconds", "route"),
            unit="s",
        ),
        Panel(
            title="Candidates",
            text="Scored in a second; and refused, of which the answers say why.",
            queries=(
                Query(_CANDIDATES, "scored"),
                Query(f"sum(rate(hearback_serve_refused_candidates_total[{RATE}]))", "refused"),
            ),
            unit="cps",
        ),
        Panel(
            title="Candidates of a request",
            text="Scored, on average, over all requests for scores and rankings.",
            queries=(
                Query(
                    f"{_CANDIDATES} / sum(rate(hearback_serve_requests_total"
                    f'{{route=~"/v1/(score|rank)"}}[{RATE}]))',
                    "candidates",
                ),
            ),
            unit="none",
        ),
        Panel(
            title="Refused as too many",
            text="Requests in a second that were answered with 503 because others were waiting.",
            queries=(
                Query(
                    f"sum by (instance) (rate(hearback_serve_shed_total[{RATE}]))", "{{instance}}"
                ),
            ),
            unit="cps",
        ),
    ),
)

_KNOWN = Row(
    "Known",
    (
        Panel(
            title="Members and jobs held",
            text="On average over the services; they all hold the same.",
            queries=(Query("avg by (effect) (hearback_serve_entities)", "{{effect}}"),),
            unit="locale",
        ),
        Panel(
            title="Applicants held",
            text="Open ones, and those that were decided lately; where [applicants] is enabled.",
            queries=(Query("hearback_serve_applicants", "{{instance}}"),),
            unit="locale",
        ),
        Panel(
            title="Unknown",
            text="Members and jobs asked about in a second that nobody knows; the prior stands for"
            " them. Near the number of candidates: is it the right topic, and the right ids?",
            queries=(
                Query(or_zero(per_second("hearback_serve_unknown_total", "effect")), "{{effect}}"),
            ),
            unit="cps",
        ),
        Panel(
            title="Staleness",
            text="How old what is served may be: around a second.",
            queries=(Query("hearback_serve_staleness_seconds", "{{instance}}"),),
            unit="s",
        ),
        Panel(
            title="Event to served",
            text="From the event that something was learned of until scores have it.",
            queries=quantiles("hearback_serve_learned_seconds"),
            unit="s",
        ),
        Panel(
            title="Degraded",
            text="Services whose answers say so, by what is wrong.",
            queries=(Query("sum by (reason) (hearback_serve_degraded)", "{{reason}}"),),
        ),
        Panel(
            title="Left out",
            text="Messages that were not taken, in a second. other_model: the"
            " workers have another one.",
            queries=(Query(per_second("hearback_serve_left_out_total", "reason"), "{{reason}}"),),
            unit="cps",
        ),
        Panel(
            title="Releases and models",
            text="Services by release and frozen global model: one of each, but for a restart.",
            queries=(
                Query(
                    "count by (version, model_version) (hearback_serve_build_info)",
                    "{{version}} with {{model_version}}",
                ),
            ),
        ),
    ),
)

_PROCESSES = Row(
    "Processes",
    (
        Panel(
            title="Services up",
            text="Whose metrics Prometheus can read: 1, or 0.",
            queries=(Query(_UP, "{{instance}}"),),
        ),
        Panel(
            title="Processors",
            text="1: one core is busy all the time, and a service has no more: start another one.",
            queries=(
                Query(
                    f'rate(process_cpu_seconds_total{{job="hearback-serve"}}[{RATE}])',
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            title="Memory",
            text="Of the processes.",
            queries=(Query('process_resident_memory_bytes{job="hearback-serve"}', "{{instance}}"),),
            unit="bytes",
        ),
    ),
)

USING = Board(
    "using",
    "Is it used?",
    "What services are asked, how fast they answer, and how good what they have is.",
    (_NOW, _ASKED, _KNOWN, _PROCESSES),
)
