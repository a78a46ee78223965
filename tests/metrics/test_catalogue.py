"""The metrics are exactly those of the catalogue, and the page of the docs says so."""

from __future__ import annotations

from pathlib import Path

from stream.metrics.catalogue import BY_NAME, GROUPS, PROCESS
from stream.metrics.document import PAGE, page
from stream.metrics.process import process_registry
from stream.metrics.worker import WorkerMetrics

NAMES = {
    "hearback_applications_closed_total",
    "hearback_matches_closed_total",
    "hearback_matches_total",
    "hearback_batches_redone_total",
    "hearback_build_info",
    "hearback_early_engagements_total",
    "hearback_takeover_seconds",
    "hearback_commit_seconds",
    "hearback_damaged_stores",
    "hearback_dead_letters_total",
    "hearback_delay_curve_distance",
    "hearback_entities",
    "hearback_entities_left_total",
    "hearback_event_to_coefficients_seconds",
    "hearback_events_total",
    "hearback_flush_seconds",
    "hearback_folded_total",
    "hearback_gate_held_entities",
    "hearback_gate_open",
    "hearback_gate_worse_nats",
    "hearback_ignored_total",
    "hearback_label_flips_total",
    "hearback_labels_total",
    "hearback_model_partitions",
    "hearback_newton_steps_total",
    "hearback_orphans",
    "hearback_pairs",
    "hearback_partitions",
    "hearback_pending_applications",
    "hearback_quality_applications",
    "hearback_quality_auc",
    "hearback_quality_expected_positives",
    "hearback_quality_log_loss_nats",
    "hearback_quality_pooled_auc",
    "hearback_quality_positives",
    "hearback_ranking_decisions",
    "hearback_ranking_sum",
    "hearback_read_lag_records",
    "hearback_lost_records_total",
    "hearback_ready",
    "hearback_recovered_records_total",
    "hearback_recovery_remaining_records",
    "hearback_recovery_seconds",
    "hearback_refits_total",
    "hearback_refits_unconverged_total",
    "hearback_refresh_refused_until_seconds",
    "hearback_sessions_lost_total",
    "hearback_standby_partitions",
    "hearback_standby_partitions_behind",
    "hearback_state_bytes",
    "hearback_state_cache_bytes",
    "hearback_state_cache_hits_total",
    "hearback_state_cache_misses_total",
    "hearback_state_write_seconds",
    "hearback_terms_refused_total",
    "hearback_time_to_label_seconds",
    "hearback_unassigned_seconds",
    "hearback_unattended_seconds",
    "hearback_watermark_lag_seconds",
    "hearback_slowest_channel",
    "hearback_slowest_channel_since_seconds",
    *PROCESS,
}
"""Dashboards and alerts of users rest on these: a change here is a change for them."""

LABELS = {
    "answered", "effect", "judged", "kind", "label", "measure", "model_version", "order",
    "partition", "reason", "rule", "score", "sort", "stage", "topic", "type", "version",
}  # fmt: skip
"""Each has a bounded number of values."""


def test_exactly_these_names_are_exported() -> None:
    """A worker's registry has these metrics, no other, and the catalogue lists them all."""
    registry = process_registry()
    WorkerMetrics(registry, "test")
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
    }
    assert found == NAMES
    assert {metric.exported for metric in BY_NAME.values()} == NAMES - set(PROCESS)
    assert len(BY_NAME) == sum(len(group.metrics) for group in GROUPS)


def test_labels_are_bounded() -> None:
    """No metric has a label that is not known to be bounded; names carry base units."""
    for metric in BY_NAME.values():
        assert set(metric.labels) <= LABELS, metric.name
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")


def test_the_page_of_the_docs_is_made_from_the_catalogue() -> None:
    """``make docs`` has been run."""
    assert (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8") == page()
