"""The worker's job one event at a time: Quix Streams, its state, and lambda-learner.

Run by ``benchmarks/worker.py`` in the baselines' environment: ``python baseline_quix.py BROKER``.
The per-member stage scores and learns members, the per-job stage labels, scores and learns jobs;
each label is learned at once by lambda-learner's own training with what it knew before as the
prior. Left out, which is in its favour: windows never close, watermarks, repeats, forgetting, the
corrections of labels, exactly-once. Prints one JSON object when nothing has arrived for a while.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import import_module
from typing import Any

import numpy as np

SILENCE_S = 5.0
PRIOR_PRECISION = 3.0
POSITIVE = frozenset({"view_profile", "message", "shortlist", "interview", "offer", "hire"})
NEGATIVE = frozenset({"reject", "archive", "skip"})

Event = dict[str, Any]


class Learner:
    """One effect: coefficients and their precision per entity, in Quix's state of the entity."""

    def __init__(self, effect: str) -> None:
        self._effect = effect
        self._sparse = import_module("scipy.sparse")
        self._dataset = import_module("linkedin.learner.ds.indexed_dataset").IndexedDataset
        self._model = import_module("linkedin.learner.ds.indexed_model").IndexedModel
        self._full = import_module("linkedin.learner.prediction.hessian_type").HessianType.FULL
        self._trainer = import_module(
            "linkedin.learner.prediction.trainer_sequential_bayesian_logistic_loss_with_l2"
        ).TrainerSequentialBayesianLogisticLossWithL2

    def score(self, state: Any, features: list[float]) -> float:
        """Log-odds of the entity's effect."""
        known = state.get(self._effect)
        return 0.0 if known is None else float(np.dot(known["mean"], features))

    def learn(self, state: Any, entity_id: str, label: Event, other: str) -> Event:
        """Learn a label; return the coefficients."""
        features = np.array([label["features"][self._effect]])
        size = features.shape[1]
        known = state.get(self._effect)
        if known is None:
            known = {
                "mean": [0.0] * size,
                "precision": (PRIOR_PRECISION * np.eye(size)).tolist(),
                "examples": 0,
            }
        trained = self._trainer(
            training_data=self._dataset(
                self._sparse.csc_matrix(features),
                np.array([2.0 * label["label"] - 1.0]),
                np.ones(1),
                np.array([label["global_score"] + label[other]]),
            ),
            initial_model=self._model(
                np.array(known["mean"]), self._sparse.csc_matrix(np.array(known["precision"]))
            ),
            hessian_type=self._full,
            delta=1.0,
        ).train()[0]
        precision = trained.hessian.toarray()
        known = {
            "mean": trained.theta.tolist(),
            "precision": precision.tolist(),
            "examples": known["examples"] + 1,
        }
        state.set(self._effect, known)
        return {
            "type": "coefficients",
            "effect": self._effect,
            "entity_id": entity_id,
            "mean": known["mean"],
            "variance": np.diag(np.linalg.inv(precision)).tolist(),
            "examples": known["examples"],
        }


class Job:
    """Both stages, and the times of the first and the last record."""

    def __init__(self) -> None:
        self._members = Learner("per_member")
        self._jobs = Learner("per_job")
        self._start: tuple[float, float] | None = None
        self._end = (0.0, 0.0)
        self.events = 0
        self.labels = 0

    def member(self, event: Event, state: Any) -> list[Event]:
        """Score an application, or learn a label."""
        self._note()
        if event["type"] == "label":
            self.labels += 1
            return [self._members.learn(state, event["member_id"], event, "job_score")]
        if event["type"] != "application":
            return []
        self.events += 1
        score = self._members.score(state, event["features"]["per_member"])
        return [{**event, "member_score": score}]

    def job(self, event: Event, state: Any) -> list[Event]:
        """Label an application, or what an engagement says of it and of earlier ones."""
        self._note()
        if event["type"] == "application":
            return self._application(event, state)
        self.events += 1
        if event["type"] != "engagement":
            return []
        return self._engagement(event, state)

    def seconds(self) -> dict[str, float]:
        """Return the time from the first to the last record, by the clock and of the CPU."""
        start = self._start or self._end
        return {
            "seconds": self._end[0] - start[0],
            "cpu_seconds": self._end[1] - start[1],
            "events": self.events,
            "labels": self.labels,
        }

    def _note(self) -> None:
        self._end = (time.perf_counter(), time.process_time())
        if self._start is None:
            self._start = self._end

    def _application(self, event: Event, state: Any) -> list[Event]:
        application_id = event["application_id"]
        facts = {
            "application_id": application_id,
            "member_id": event["member_id"],
            "job_id": event["job_id"],
            "time_ms": event["event_time_ms"],
            "features": event["features"],
            "global_score": event.get("global_score", -1.0),
            "member_score": event["member_score"],
            "job_score": self._jobs.score(state, event["features"]["per_job"]),
            "kind": None,
        }
        state.set(f"application:{application_id}", facts)
        waiting = state.get(f"orphan:{application_id}")
        if waiting is not None:
            state.delete(f"orphan:{application_id}")
            return self._engagement(waiting, state)
        pending = state.get("pending") or []
        pending.append([event["event_time_ms"], application_id])
        state.set("pending", pending)
        return []

    def _engagement(self, event: Event, state: Any) -> list[Event]:
        facts = state.get(f"application:{event['application_id']}")
        if facts is None:
            state.set(f"orphan:{event['application_id']}", event)
            return []
        action = event["action"]
        if action not in POSITIVE and action not in NEGATIVE:
            return []
        out: list[Event] = []
        pending = state.get("pending") or []
        later = []
        for submitted_ms, application_id in pending:
            if application_id == event["application_id"]:
                continue
            if submitted_ms < facts["time_ms"]:
                earlier = state.get(f"application:{application_id}")
                out += self._label(earlier, state, "negative_inferred")
            else:
                later.append([submitted_ms, application_id])
        if len(later) < len(pending):
            state.set("pending", later)
        return out + self._label(
            facts, state, "positive" if action in POSITIVE else "negative_explicit"
        )

    def _label(self, facts: Event, state: Any, kind: str) -> list[Event]:
        if facts["kind"] in (kind, "positive"):
            return []
        facts["kind"] = kind
        state.set(f"application:{facts['application_id']}", facts)
        label = {**facts, "type": "label", "label": int(kind == "positive")}
        return [label, self._jobs.learn(state, facts["job_id"], label, "member_score")]


def main() -> None:
    """Run until nothing arrives any more."""
    (broker,) = sys.argv[1:]
    quix = import_module("quixstreams")
    app = quix.Application(
        broker_address=broker,
        consumer_group=f"baseline-{time.time_ns()}",
        auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(),
        loglevel="ERROR",
    )
    applications, engagements, by_job, labels, coefficients = (
        app.topic(name, value_serializer="json", value_deserializer="json")
        for name in (
            "applications",
            "engagements",
            "applications-by-job",
            "labels",
            "coefficients",
        )
    )
    job = Job()
    members = app.dataframe(applications).concat(app.dataframe(labels))
    members = members.apply(job.member, stateful=True, expand=True)
    _send(members, "application", by_job, lambda event: event["job_id"])
    _send(members, "coefficients", coefficients, lambda event: event["entity_id"])
    jobs = app.dataframe(engagements).concat(app.dataframe(by_job))
    jobs = jobs.apply(job.job, stateful=True, expand=True)
    _send(jobs, "label", labels, lambda event: event["member_id"])
    _send(jobs, "coefficients", coefficients, lambda event: event["entity_id"])
    app.run(timeout=SILENCE_S)
    print(json.dumps(job.seconds()), flush=True)


def _send(events: Any, kind: str, topic: Any, key: Any) -> None:
    """Send what is of a kind to a topic."""
    events.filter(lambda event: event["type"] == kind).to_topic(topic, key=key)


if __name__ == "__main__":
    main()
