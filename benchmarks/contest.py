"""The contest log: AUC and log loss of the replay, scored before learned.

The log may not be distributed: HEARBACK_CONTEST_LOG names it, with ``policy.toml`` and
``features.json`` beside it. Protocol: the global model is trained on the first quarter of the
applications' time span and frozen; everything is learned from the start; scores count from the end
of that quarter; truth is the final label. With ``--live`` a worker on the embedded broker learns
the same log: all but the last 14 days as fast as possible, those at 10,000 times real time; the
AUC over them is compared with the replay's over the same applications (about three minutes). With
``--boosted`` the global model is of boosted trees, and brings the prior of its effects.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

import msgspec

from producers.kafka import produce
from stream.backtest.prior import with_chosen_prior
from stream.backtest.tuning import trainer
from stream.cli import PROGRAM
from stream.cli.audience import Audience
from stream.configuration.load import load_config, with_model
from stream.configuration.sections import Config
from stream.events.records import TOPICS
from stream.events.wire import decode_label
from stream.kafka.embedded import EmbeddedBroker
from stream.logs.files import merge
from stream.model.folder import GlobalModel, save_model
from stream.model.kind import ModelKind
from stream.policy import DAY_MS, Policy
from stream.quality.prequential import quality
from stream.replay.reader import first_look
from stream.replay.run_folder import RunFolder, RunMetrics
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.updaters.newton import warm_up

LIVE_SPEED = 10_000.0
TAIL_MS = 14 * DAY_MS


def main() -> None:
    """Train, replay, print; then live if asked."""
    named = os.environ.get("HEARBACK_CONTEST_LOG", "")
    if not Path(named).is_file():
        sys.exit("HEARBACK_CONTEST_LOG must name the contest log (events.jsonl.gz)")
    log = Path(named)
    policy = load_config(None, {}, log.parent / "policy.toml").policy
    first_ms, last_ms = application_span(log)
    quarter_ms = first_ms + (last_ms - first_ms) // 4
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        kind: ModelKind = "boosted" if "--boosted" in sys.argv else "linear"
        names = msgspec.json.decode((log.parent / "features.json").read_bytes())
        fitting = trainer(policy, quarter_ms, names, None, kind)
        fitting.read(merge([log]), lambda _: None)
        warm_up()
        model = fitting.model()
        if kind == "boosted":
            model, said = with_chosen_prior(merge([log]), model, policy)
            print(said)
            policy = with_model(Config(policy=policy), model).policy
        save_model(work / "model", model)
        start = time.perf_counter()
        metrics = replay_all(log, work / "run", policy, model, quarter_ms)
        seconds = time.perf_counter() - start
        full, alone = metrics.quality.full, metrics.quality.global_
        assert full is not None
        assert alone is not None
        result: dict[str, float | int | None] = {
            "auc": full.auc,
            "log_loss": full.log_loss,
            "global_auc": alone.auc,
            "global_log_loss": alone.log_loss,
            "observed_over_expected": full.observed_over_expected,
            "global_observed_over_expected": alone.observed_over_expected,
            "applications": metrics.quality.applications,
            "replay_seconds": round(seconds, 1),
        }
        rankings = metrics.rankings
        assert rankings is not None
        print(rankings.in_words())
        for order, measures in rankings.orders.items():
            print(f"{order:24} AUC at the decision {measures['auc'].text('{:.3f}')}")
            result[f"decision_auc_{order}"] = measures["auc"].value
        result["decision_auc_low"] = rankings.orders["full"]["auc"].low
        result["decision_auc_high"] = rankings.orders["full"]["auc"].high
        if "--live" in sys.argv:
            from_ms = last_ms - TAIL_MS
            result |= live(log, work, policy, model, from_ms, last_ms)
            result["replay_tail_auc"] = tail_auc(work / "run", model, from_ms)
    for name, value in result.items():
        print(f"{name:24} {value}")
    print(msgspec.json.encode(result).decode())


def application_span(log: Path) -> tuple[int, int]:
    """Return the first and last application's time (engagements straggle on for months)."""
    times = [
        raw["event_time_ms"]
        for raw in (msgspec.json.decode(line.raw) for line in merge([log]))
        if raw["type"] == "application"
    ]
    return min(times), max(times)


def replay_all(
    log: Path, out: Path, policy: Policy, model: GlobalModel, score_from_ms: int
) -> RunMetrics:
    """Replay and close the log."""
    lines, space = first_look(merge([log]), model)
    with RunFolder(out) as folder:
        options = Options(score_from_ms=score_from_ms, close=True)
        return replay(lines, folder, policy, model, space, options)


def tail_auc(run: Path, model: GlobalModel, from_ms: int) -> float | None:
    """AUC of the replay's full score over the applications since a time."""
    targets: dict[tuple[str, str], int] = {}
    scores: dict[tuple[str, str], float] = {}
    for line in (run / "labels.jsonl").read_bytes().splitlines():
        label = decode_label(line, model.space)
        if label.application_time_ms >= from_ms:
            key = label.job_id, label.application_id
            targets[key] = label.label
            scores[key] = label.global_score + label.member_score + label.job_score
    judged = quality(array("b", targets.values()), array("d", scores.values()))
    return None if judged is None else judged.auc


def live(
    log: Path, work: Path, policy: Policy, model: GlobalModel, from_ms: int, last_ms: int
) -> dict[str, float | int | None]:
    """Play the log to a worker, the tail slowly; judge the tail."""
    labels = policy.labels
    with EmbeddedBroker() as broker:
        address = broker.bootstrap_servers
        broker.create_topics(dict.fromkeys(TOPICS, 4))
        audience = Audience(address, model.space)
        audience.start()
        worker = subprocess.Popen(
            [
                *(*PROGRAM, "worker", "--broker", address),
                *("--model", str(work / "model"), "--policy", str(log.parent / "policy.toml")),
                *("--data", str(work / "data"), "--metrics-port", "0"),
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            produce([log], address, until_ms=from_ms, throttle="on")
            wait_until_quiet(audience)
            produce([log], address, speed=LIVE_SPEED, from_ms=from_ms, until_ms=last_ms + 1)
            produce([log], address, from_ms=last_ms + 1, close=True, labels=labels)
            while not audience.all_final(1):
                time.sleep(0.2)
            wait_until_quiet(audience)
        finally:
            worker.terminate()
            worker.wait()
            audience.stop()
    judged = audience.summary(from_ms).full
    replayed = {
        (label.job_id, label.application_id): (label.kind, label.final)
        for label in (
            decode_label(line, model.space)
            for line in (work / "run" / "labels.jsonl").read_bytes().splitlines()
        )
    }
    equal = sum(
        replayed.get(key) == (label.kind, label.final) for key, label in audience.last.items()
    )
    return {
        "live_labels_equal_to_replay": equal,
        "live_tail_auc": None if judged is None else judged.auc,
        "live_tail_applications": audience.summary(from_ms).applications,
        "live_applications": len(audience.last),
    }


def wait_until_quiet(audience: Audience) -> None:
    """Return when no label came for three seconds."""
    before = -1
    while (now := sum(audience.labels.values())) != before:
        before = now
        time.sleep(3.0)


if __name__ == "__main__":
    main()
