"""Every metric of hearback: name, kind, labels and what it means. Nothing else is ever exported.

A counter's name is without the ``_total`` that Prometheus sees. What is told of the process by
prometheus-client itself is listed in :data:`PROCESS`.
"""

from __future__ import annotations

from stream.labels.timeliness import AGES_MS
from stream.metrics.metric import Group, Metric

AGES_S = tuple(ms / 1000.0 for ms in AGES_MS.values())
"""Upper ends of the buckets of an application's age: an hour to a fortnight."""

_PLACE = ("stage", "partition")

INTAKE = Group(
    "Intake",
    (
        Metric(
            "hearback_events",
            "counter",
            ("stage", "type"),
            "Records applied. `type`: application, engagement, job, clock, forget, label.",
        ),
        Metric(
            "hearback_dead_letters",
            "counter",
            ("stage", "reason"),
            "Records set aside in `dead-letters`; the reasons are those of their header `reason`.",
        ),
        Metric(
            "hearback_batches_redone",
            "counter",
            ("stage",),
            "Batches on which a stage failed, done again record by record; the log has the"
            " traceback. A record that fails alone is a dead letter (`poison`).",
        ),
        Metric(
            "hearback_ignored",
            "counter",
            ("reason",),
            "Events that changed nothing: repeats, late ones, engagements outside of their"
            " application's window.",
        ),
        Metric(
            "hearback_early_engagements",
            "counter",
            (),
            "Engagements that were read before their application. They take effect when it comes;"
            " `hearback_orphans` wait now, `unmatched` dead letters have waited in vain.",
        ),
        Metric(
            "hearback_lost_records",
            "counter",
            ("topic", "partition"),
            "Records that were deleted before they were read, and passed over with"
            " `--accept-lost-records`; marks of transactions among them count too.",
        ),
        Metric(
            "hearback_read_lag_records",
            "gauge",
            ("topic", "partition"),
            "Records between where a partition has been read and its end: the consumer's lag.",
        ),
        Metric(
            "hearback_watermark_lag_seconds",
            "gauge",
            _PLACE,
            "Wall clock less the partition's event time: about `allowed_lateness` on a busy"
            " market, up to three times `idle_timeout` more where partitions are sparse, years for"
            " a played log of old. It grows while nothing comes.",
        ),
        Metric(
            "hearback_slowest_channel",
            "gauge",
            ("partition",),
            "What holds the event time of a job partition back: the number of a member partition,"
            " or −1 for the partition's own engagements.",
        ),
        Metric(
            "hearback_slowest_channel_since_seconds",
            "gauge",
            ("partition",),
            "For how long it has been that one.",
        ),
    ),
)

LABELS = Group(
    "Labels",
    (
        Metric(
            "hearback_labels",
            "counter",
            ("kind", "rule"),
            "Labels emitted, by kind and what decided: `age`, `later_response`, `job_closed`,"
            " `action` (a recruiter's own), `window` (its end).",
        ),
        Metric(
            "hearback_label_flips",
            "counter",
            ("rule",),
            "Labels that turned positive, by what had made them negative: a rule, or the kind.",
        ),
        Metric(
            "hearback_time_to_label_seconds",
            "histogram",
            ("label",),
            "Age of an application, in event time, when it got its `first` label, and when it"
            " became `positive`.",
            AGES_S,
        ),
        Metric(
            "hearback_delay_curve_distance",
            "gauge",
            (),
            "How far the delays of the newest answers lie from the delay curve in force: the"
            " largest difference between two shares, of which chance alone gives 0.05; NaN before"
            " 50 answers. Far off: silence weighs too much or too little; train again.",
        ),
        Metric(
            "hearback_matches",
            "counter",
            (),
            "Applications told as matches; none unless `[matches] enabled`.",
        ),
        Metric(
            "hearback_matches_closed",
            "counter",
            ("answered",),
            "Matches whose windows have closed, by whether they were answered: `yes` or `no`.",
        ),
        Metric(
            "hearback_applications_closed",
            "counter",
            ("answered",),
            "All applications whose windows have closed, by whether they were answered: what the"
            " share of the matches is to be compared with.",
        ),
        Metric(
            "hearback_pending_applications",
            "gauge",
            ("partition",),
            "Applications that have no label yet.",
        ),
        Metric(
            "hearback_orphans",
            "gauge",
            ("partition",),
            "Engagements that wait for their application. Many: applications arrive late, or not"
            " at all.",
        ),
    ),
)

LEARNING = Group(
    "Learning",
    (
        Metric("hearback_refits", "counter", ("effect",), "Entities refitted."),
        Metric("hearback_newton_steps", "counter", ("effect",), "Newton steps of all refits."),
        Metric(
            "hearback_refits_unconverged",
            "counter",
            ("effect",),
            "Refits that ended before the mode: very large features or scores.",
        ),
        Metric(
            "hearback_folded",
            "counter",
            ("effect", "sort"),
            "Examples folded into an entity's summary: `final` ones over `capacity`, `open` ones"
            " over `open_limit`.",
        ),
        Metric(
            "hearback_entities",
            "gauge",
            ("effect", "partition"),
            "Members or jobs of which something was learned, and that have not left.",
        ),
        Metric(
            "hearback_pairs",
            "gauge",
            ("partition",),
            "Members and jobs whose common history is kept, for two label windows after the last"
            " application.",
        ),
        Metric(
            "hearback_terms_refused",
            "counter",
            (),
            "Terms of applications that were not counted among a job's preferences, because it has"
            " 2,000, or 64 KiB of them.",
        ),
        Metric(
            "hearback_entities_left",
            "counter",
            ("effect", "reason"),
            "Members or jobs whose state went: `forget` (somebody asked for it) or `entity_ttl`.",
        ),
        Metric(
            "hearback_event_to_coefficients_seconds",
            "histogram",
            ("effect",),
            "From the Kafka timestamp of the event that caused a label to its coefficients being"
            " acknowledged by Kafka.",
        ),
    ),
)

DELIVERY = Group(
    "Delivery and state",
    (
        Metric(
            "hearback_flush_seconds",
            "histogram",
            (),
            "To make a unit of work safe: Kafka transaction and state.",
        ),
        Metric("hearback_commit_seconds", "histogram", (), "The Kafka transaction's share of it."),
        Metric("hearback_state_write_seconds", "histogram", (), "The state's (RocksDB) share."),
        Metric(
            "hearback_partitions",
            "gauge",
            ("stage",),
            "Partitions that are worked on here.",
        ),
        Metric(
            "hearback_unattended_seconds",
            "gauge",
            _PLACE,
            "For how long a partition that is assigned here has had no session, or a flush that"
            " hangs; 0: it is worked on. Grows while the broker is away.",
        ),
        Metric(
            "hearback_unassigned_seconds",
            "gauge",
            (),
            "For how long this worker has had no partitions: it waits for its group, or the broker"
            " is away. 0: it has some.",
        ),
        Metric(
            "hearback_takeover_seconds",
            "histogram",
            (),
            "From an assignment until all its partitions are worked on here.",
        ),
        Metric(
            "hearback_standby_partitions",
            "gauge",
            (),
            "Copies kept of partitions that another worker owns, to be taken over from it.",
        ),
        Metric(
            "hearback_standby_partitions_behind",
            "gauge",
            (),
            "Copies that have not come to the end of their changelogs.",
        ),
        Metric(
            "hearback_sessions_lost",
            "counter",
            ("stage", "reason"),
            "Sessions of a partition that ended before their time (`fenced`, `broker`, `refused`: a"
            " topic takes less than it should, `damaged_state`: a store's files are damaged); new"
            " ones follow.",
        ),
        Metric(
            "hearback_recovery_remaining_records",
            "gauge",
            _PLACE,
            "Changelog records still to be applied to a partition that is being taken over; 0:"
            " done.",
        ),
        Metric(
            "hearback_recovered_records",
            "counter",
            ("stage",),
            "Changelog records applied when partitions were taken over.",
        ),
        Metric(
            "hearback_recovery_seconds",
            "histogram",
            ("stage",),
            "To take a partition over: fence earlier owners, read the changelog, open.",
        ),
        Metric(
            "hearback_state_bytes",
            "gauge",
            _PLACE,
            "Size of a partition's RocksDB: files, and what is not in one yet.",
        ),
        Metric(
            "hearback_damaged_stores",
            "gauge",
            (),
            "Stores of this worker that were damaged, put aside and rebuilt; each is kept for a"
            " week. More than one: look at the disk.",
        ),
        Metric(
            "hearback_state_cache_hits",
            "counter",
            ("stage",),
            "Blocks of RocksDB that were found in memory.",
        ),
        Metric(
            "hearback_state_cache_misses",
            "counter",
            ("stage",),
            "Blocks of RocksDB that were read from files.",
        ),
        Metric(
            "hearback_state_cache_bytes",
            "gauge",
            (),
            "Memory of RocksDB's block cache that is in use, for all partitions together.",
        ),
    ),
)

WORKER = Group(
    "The worker",
    (
        Metric(
            "hearback_ready",
            "gauge",
            (),
            "1 when every partition that is assigned here is worked on, and nothing is wrong with"
            " the inputs (`/readyz`), else 0.",
        ),
        Metric(
            "hearback_build_info",
            "gauge",
            ("version", "model_version"),
            "1, labelled with the release and the global model that it was started with.",
        ),
        Metric(
            "hearback_model_partitions",
            "gauge",
            ("model_version",),
            "Job partitions worked on here in which this global model is in force at event time.",
        ),
        Metric(
            "hearback_refresh_refused_until_seconds",
            "gauge",
            ("reason",),
            "Unix time (event time) at which the training of the model ended that `hearback model"
            " refresh` has refused last. `reason`: `worse` (or nobody can tell), `too_large`.",
        ),
    ),
)

_JUDGED = (
    " `judged`: `early`, by the labels known at the gate's `age`, or `final`, when windows have"
    " closed."
)
_SCORE = " `score`: `global`, `with_member`, `with_job` or `full`."

QUALITY = Group(
    "Quality: scored before learned",
    (
        Metric(
            "hearback_quality_applications",
            "gauge",
            ("judged", "partition"),
            "The newest applications that were judged, each as its label weighs; what follows is of"
            " these." + _JUDGED,
        ),
        Metric(
            "hearback_quality_positives",
            "gauge",
            ("judged", "partition"),
            "How many of them were answered.",
        ),
        Metric(
            "hearback_quality_expected_positives",
            "gauge",
            ("judged", "score", "partition"),
            "How many a score expected: observed/expected is"
            " `sum(hearback_quality_positives) / sum(this)`." + _SCORE,
        ),
        Metric(
            "hearback_quality_log_loss_nats",
            "gauge",
            ("judged", "score", "partition"),
            "Log loss, summed over them: the mean over any partitions is"
            " `sum(this) / sum(hearback_quality_applications)`.",
        ),
        Metric(
            "hearback_quality_auc",
            "gauge",
            ("judged", "score", "partition"),
            "AUC; absent where only one class was seen.",
        ),
        Metric(
            "hearback_quality_pooled_auc",
            "gauge",
            ("judged", "score"),
            "AUC over the applications of all partitions of this worker together.",
        ),
    ),
)

RANKINGS = Group(
    "Rankings at the moment of decision",
    (
        Metric(
            "hearback_ranking_decisions",
            "gauge",
            ("measure",),
            "The newest decisions that a measure counts: somebody was answered while others of the"
            " job waited. `measure`: `auc`, `reciprocal_rank`, `ndcg_at_1` to `_10`, `top_1` to"
            " `_10`; with more than 100 candidates only `auc`.",
        ),
        Metric(
            "hearback_ranking_sum",
            "gauge",
            ("order", "measure"),
            "The measure, summed over them. `order`: `global`, `with_member`, `with_job`, `full`,"
            " `newest_first`, `random` (in expectation); the global and the member's score are of"
            " first sight, the job's of the moment.",
        ),
    ),
)

GATE = Group(
    "The gate",
    (
        Metric(
            "hearback_gate_open",
            "gauge",
            ("effect", "partition"),
            "1: the effect's coefficients are published; 0: they are held back, because they make"
            " the score worse.",
        ),
        Metric(
            "hearback_gate_held_entities",
            "gauge",
            ("effect", "partition"),
            "Members or jobs whose coefficients have changed and wait to be published.",
        ),
        Metric(
            "hearback_gate_worse_nats",
            "gauge",
            ("effect", "judged", "partition"),
            "By how much the effect makes the mean log loss worse (negative: better), over the"
            " newest applications; what the gate compares with its `margin`." + _JUDGED,
        ),
    ),
)

GROUPS = (INTAKE, LABELS, LEARNING, QUALITY, RANKINGS, GATE, DELIVERY, WORKER)

PROCESS = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "python_gc_collections_total",
    "python_gc_objects_collected_total",
    "python_gc_objects_uncollectable_total",
    "python_info",
)
"""What prometheus-client tells of every Python process on Linux."""

BY_NAME = {metric.name: metric for group in GROUPS for metric in group.metrics}
