"""*Is it healthy*: are all partitions worked on, is it behind, what does it refuse."""

from __future__ import annotations

from deploy.dashboards.panels import RATE, Board, Panel, Query, Row, or_zero, per_second, quantiles

_NOW = Row(
    "Now",
    (
        Panel(
            title="Workers up",
            text="Workers whose metrics Prometheus can read.",
            queries=(Query('sum(up{job="hearback"})'),),
            kind="stat", span=4, warn=1, low_is_bad=True,
        ),
        Panel(
            title="Workers ready",
            text="Workers that work on every partition that is assigned to them.",
            queries=(Query("sum(hearback_ready)"),),
            kind="stat", span=4, warn=1, low_is_bad=True,
        ),
        Panel(
            title="Partitions worked on",
            text="Of both stages, over all workers: as many as the topics have, of each.",
            queries=(Query("sum by (stage) (hearback_partitions)", "{{stage}}"),),
            kind="stat", span=4, warn=1, low_is_bad=True,
        ),
        Panel(
            title="Longest unattended",
            text="For how long a partition has had nobody; minutes mean a broker in trouble.",
            queries=(Query("max(hearback_unattended_seconds)"),),
            kind="stat", unit="s", span=4, warn=30, bad=120,
        ),
        Panel(
            title="Records to be read",
            text="Between where the workers are and the ends of their topics.",
            queries=(Query("sum(hearback_read_lag_records)"),),
            kind="stat", unit="locale", span=4, warn=10_000,
        ),
        Panel(
            title="Alerts firing",
            text="docs/operations.md says what to do, by the alert's name.",
            queries=(Query(or_zero('count(ALERTS{alertstate="firing"})')),),
            kind="stat", span=4, warn=1, bad=1,
        ),
    ),
)  # fmt: skip

_INTAKE = Row(
    "Intake",
    (
        Panel(
            title="Records applied",
            text="By type; clock: event time that was sent without an event.",
            queries=(Query(per_second("hearback_events_total", "type"), "{{type}}"),),
            unit="cps",
        ),
        Panel(
            title="Records to be read",
            text="The consumer's lag. It should return to 0.",
            queries=(Query("sum by (topic) (hearback_read_lag_records)", "{{topic}}"),),
            unit="locale",
        ),
        Panel(
            title="Event time behind the clock",
            text="About allowed_lateness on a busy market, more where partitions are sparse; the"
            " age of the log where an old one is played. It grows while nothing comes.",
            queries=(Query("max by (stage) (hearback_watermark_lag_seconds)", "{{stage}}"),),
            unit="s",
        ),
        Panel(
            title="What holds event time back",
            text="By job partition: the member partition that is slowest, −1 for the partition's"
            " own engagements; and for how many seconds it has been that one.",
            queries=(
                Query("max by (partition) (hearback_slowest_channel)", "{{partition}}: channel"),
                Query(
                    "max by (partition) (hearback_slowest_channel_since_seconds)",
                    "{{partition}}: seconds",
                ),
            ),
            unit="locale",
        ),
        Panel(
            title="Dead letters",
            text="Records set aside, by reason; they are in the topic dead-letters.",
            queries=(
                Query(or_zero(per_second("hearback_dead_letters_total", "reason")), "{{reason}}"),
            ),
            unit="cps",
        ),
        Panel(
            title="Ignored",
            text="Events that changed nothing: repeats, late ones, ones outside their window.",
            queries=(Query(or_zero(per_second("hearback_ignored_total", "reason")), "{{reason}}"),),
            unit="cps",
        ),
        Panel(
            title="Engagements before their application",
            text="They take effect when it comes.",
            queries=(
                Query(or_zero(f"sum(rate(hearback_early_engagements_total[{RATE}]))"), "early"),
            ),
            unit="cps",
        ),
        Panel(
            title="Workers without partitions",
            text="For how long. A worker more than there are partitions stays without.",
            queries=(Query("max by (instance) (hearback_unassigned_seconds)", "{{instance}}"),),
            unit="s",
        ),
    ),
)

_DELIVERY = Row(
    "Delivery",
    (
        Panel(
            title="To make a unit of work safe",
            text="Kafka transaction and state together.",
            queries=quantiles("hearback_flush_seconds"),
            unit="s",
        ),
        Panel(
            title="Kafka transactions",
            text="Their share of it. Slow ones: look at the broker.",
            queries=quantiles("hearback_commit_seconds"),
            unit="s",
        ),
        Panel(
            title="State written",
            text="RocksDB's share of it. Slow ones: look at the disk.",
            queries=quantiles("hearback_state_write_seconds"),
            unit="s",
        ),
        Panel(
            title="Sessions lost",
            text="Partitions whose session ended before its time; others follow.",
            queries=(
                Query(
                    or_zero(
                        f"sum by (stage, reason) (increase(hearback_sessions_lost_total[{RATE}]))"
                    ),
                    "{{stage}} {{reason}}",
                ),
            ),
        ),
        Panel(
            title="Damage",
            text="Stores put aside as damaged; batches on which a stage failed; records that were"
            " deleted before they were read, and passed over. All should be 0.",
            queries=(
                Query("sum(hearback_damaged_stores)", "damaged stores"),
                Query(
                    or_zero(f"sum(increase(hearback_batches_redone_total[{RATE}]))"),
                    "batches redone",
                ),
                Query(
                    or_zero(f"sum(increase(hearback_lost_records_total[{RATE}]))"), "lost records"
                ),
            ),
            unit="locale",
        ),
        Panel(
            title="To be recovered",
            text="Changelog records still to be applied to partitions that are being taken over.",
            queries=(Query("sum by (stage) (hearback_recovery_remaining_records)", "{{stage}}"),),
            unit="locale",
        ),
        Panel(
            title="Standby copies",
            text="Of partitions that other workers own, and how many of them are behind.",
            queries=(
                Query("sum(hearback_standby_partitions)", "copies"),
                Query("sum(hearback_standby_partitions_behind)", "behind"),
            ),
        ),
        Panel(
            title="Time of recoveries",
            text="On average, of those since the worker's start.",
            queries=(
                Query(
                    "sum by (stage) (hearback_recovery_seconds_sum)"
                    " / sum by (stage) (hearback_recovery_seconds_count)",
                    "{{stage}}",
                ),
                Query(
                    "sum(hearback_takeover_seconds_sum) / sum(hearback_takeover_seconds_count)",
                    "all of an assignment",
                ),
            ),
            unit="s",
        ),
        Panel(
            title="Records recovered",
            text="Changelog records applied when partitions were taken over.",
            queries=(
                Query(
                    or_zero(per_second("hearback_recovered_records_total", "stage")), "{{stage}}"
                ),
            ),
            unit="cps",
        ),
    ),
)

_HITS = per_second("hearback_state_cache_hits_total", "stage")
_MISSES = per_second("hearback_state_cache_misses_total", "stage")

_STATE = Row(
    "State and processes",
    (
        Panel(
            title="State",
            text="RocksDB's files, and what is not in one yet.",
            queries=(Query("sum by (stage) (hearback_state_bytes)", "{{stage}}"),),
            unit="bytes",
        ),
        Panel(
            title="State read from files",
            text="Share of RocksDB's blocks that were not in its cache. Rising while the workers"
            " fall behind: they need more memory.",
            queries=(
                Query(
                    f"{_MISSES} / clamp_min({_HITS} + {_MISSES}, 0.001)",
                    "{{stage}}",
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            title="Memory",
            text="Of the processes, and of it RocksDB's block cache.",
            queries=(
                Query('process_resident_memory_bytes{job="hearback"}', "{{instance}}"),
                Query("hearback_state_cache_bytes", "cache of {{instance}}"),
            ),
            unit="bytes",
        ),
        Panel(
            title="Processors",
            text="1: one core is busy all the time.",
            queries=(
                Query(f'rate(process_cpu_seconds_total{{job="hearback"}}[{RATE}])', "{{instance}}"),
            ),
        ),
        Panel(
            title="Open files",
            text="Share of those that the process may open.",
            queries=(
                Query(
                    'process_open_fds{job="hearback"} / process_max_fds{job="hearback"}',
                    "{{instance}}",
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            title="Global model in force",
            text="Job partitions by the model that scores applications of now. One model, but while"
            " another one is rolled in.",
            queries=(
                Query(
                    "sum by (model_version) (hearback_model_partitions)",
                    "{{model_version}}",
                ),
            ),
        ),
        Panel(
            title="Refused models",
            text="1: the weekly refresh has refused a model, by reason. The metric itself is the"
            " time of the newest.",
            queries=(
                Query(
                    or_zero("count by (reason) (hearback_refresh_refused_until_seconds)"),
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Releases and models",
            text="Workers by release and by the model that they were started with: one of each, but"
            " for a restart.",
            queries=(
                Query(
                    "count by (version, model_version) (hearback_build_info)",
                    "{{version}} with {{model_version}}",
                ),
            ),
        ),
    ),
)

HEALTHY = Board(
    "healthy",
    "Is it healthy?",
    "Are all partitions worked on, how far behind are they, and what is refused.",
    (_NOW, _INTAKE, _DELIVERY, _STATE),
)
