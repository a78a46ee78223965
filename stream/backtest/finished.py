"""A replay that is over, as a backtest of one setting: its scores against the global model's."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.backtest.judgement import Blocks, Judge
from stream.backtest.result import GLOBAL_ALONE, Backtest, setting_result
from stream.errors import ConfigError
from stream.replay.run_folder import RunMetrics, load_metrics

REPLAYED: Final = "as replayed"
"""Name of the setting."""


def judged(run: Path, names: list[str]) -> Backtest:
    """Judge a run's scores by final labels: of applications whose window has closed.

    Args:
        run: a folder that was written as Parquet.
        names: of its logs, as the page names them.

    Raises:
        ConfigError: it is no such folder, or there is only one outcome.

    """
    metrics = load_metrics(run)
    path = run / "labels.parquet"
    if metrics.window_ms is None or not path.exists():
        raise ConfigError(f"{path} is not there: replay again, with --format parquet")
    labels = _final_labels(path)
    times_ms = labels["application_time"].cast("int64").to_numpy()
    # A positive label is final at once; to judge it before its window has closed would favour it.
    closed = times_ms + metrics.window_ms < (metrics.watermark_ms or 0)
    closed &= times_ms >= metrics.score_from_ms
    further = [sum(dict(one or ()).values()) for one in labels["further_scores"].to_pylist()]
    parts = [labels[name].to_numpy() for name in ("global_score", "member_score", "job_score")]
    scores = {
        REPLAYED: (sum(parts) + np.array(further, dtype=np.float64))[closed],
        GLOBAL_ALONE: parts[0][closed],
    }
    targets = labels["label"].to_numpy()[closed]
    return _judged(names, metrics, metrics.window_ms, targets, times_ms[closed], scores)


def _final_labels(path: Path) -> Any:  # pyarrow has hardly any types
    columns = ["label", "application_time", "global_score", "member_score", "job_score"]
    read: Any = import_module("pyarrow.parquet").read_table
    return read(path, columns=[*columns, "further_scores"], filters=[("final", "==", True)])


def _judged(
    names: list[str],
    metrics: RunMetrics,
    window_ms: int,
    targets: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    scores: dict[str, NDArray[np.float64]],
) -> Backtest:
    positives = int(targets.sum())
    if not 0 < positives < len(targets):
        raise ConfigError(
            f"{len(targets):,} applications have a closed window, {positives:,} of them positive:"
            " both outcomes are needed; take a longer log, or an earlier score_from"
        )
    from_ms = int(times_ms.min())
    score_from_ms = max(metrics.score_from_ms, from_ms)
    blocks = Blocks.cut(times_ms, score_from_ms)
    judge = Judge(targets.astype(np.float64), blocks.of, len(blocks.from_ms))
    said = {REPLAYED: "at every label", GLOBAL_ALONE: "no effects"}
    sums = {one: judge.sums(found) for one, found in scores.items()}
    return Backtest(
        logs=names,
        model_version=metrics.model_version,
        events=sum(metrics.events.values()),
        applications=metrics.applications,
        from_ms=from_ms,
        until_ms=int(times_ms.max()),
        score_from_ms=score_from_ms,
        window_ms=window_ms,
        judged=len(targets),
        positives=positives,
        blocks=len(blocks.from_ms),
        block_ms=blocks.length_ms,
        reference=REPLAYED,
        settings=[
            setting_result(judge, blocks, one, said[one], found, sums[one], sums[REPLAYED])
            for one, found in scores.items()
        ],
        labels=[],
        freshness=None,
        by_member_examples=[],
        by_job_examples=[],
        rankings=metrics.rankings,
        member_rankings=metrics.member_rankings,
    )
