"""Who listens in the demo: reads what the worker publishes, as any consumer of it would."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections import Counter

import numpy as np
from confluent_kafka import Consumer

from stream.events.ladder import BY_NAME
from stream.events.records import COEFFICIENTS, DEAD_LETTERS, LABELS, PREFERENCES
from stream.events.structs import Coefficients, Label
from stream.events.wire import decode_coefficients, decode_label, decode_preferences
from stream.features.blocks import FeatureSpace
from stream.histories.preferences import Preferences, Weighed
from stream.policy import DAY_MS
from stream.quality.prequential import Summary, quality


class Audience:
    """Reads labels, coefficients, preferences and dead letters in a thread of its own.

    Attributes:
        labels: label messages by kind. flips: labels that turned positive, by previous kind.
        last: the last label of each application. entities: the newest coefficients by key.
        preferences: the newest of each job.
        dead_letters: how many there were.
        error: what ended the listening before its time.
        measuring: whether the time from event to coefficients is taken.

    """

    def __init__(self, broker: str, space: FeatureSpace) -> None:
        self.labels: Counter[str] = Counter()
        self.flips: Counter[str] = Counter()
        self.last: dict[tuple[str, str], Label] = {}
        self.entities: dict[tuple[str, str], Coefficients] = {}
        self.preferences: dict[str, Preferences] = {}
        self.dead_letters = 0
        self.measuring = True
        self._space = space
        self._broker = broker
        self._latencies_s = array("d")
        self._positives = 0
        self._positives_within_a_day = 0
        self._done = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._listen, name="audience", daemon=True)

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def all_final(self, applications: int, before_ms: float = math.inf) -> bool:
        """Whether the applications before a time, so many, have labels that stay as they are."""
        labels = [
            label for label in list(self.last.values()) if label.application_time_ms < before_ms
        ]
        return len(labels) >= applications and all(label.final for label in labels)

    def positives_within_a_day(self) -> float:
        """Share of positives that were known a day after the application."""
        return self._positives_within_a_day / max(self._positives, 1)

    def latency_s(self, quantile: float) -> float:
        """Quantile of the time from an event's arrival in Kafka to its coefficients' arrival."""
        return float(np.quantile(self._latencies_s, quantile)) if self._latencies_s else 0.0

    def summary(self, from_ms: int) -> Summary:
        """Judge the scores of the applications since a time by their final labels."""
        judged = [
            label
            for label in list(self.last.values())
            if label.application_time_ms >= from_ms and label.final
        ]
        targets = array("b", [label.label for label in judged])
        return Summary(
            applications=len(judged),
            positives=sum(targets),
            global_=quality(targets, array("d", [label.global_score for label in judged])),
            full=quality(targets, array("d", [label.full_score for label in judged])),
        )

    def best_known(self, effect: str, count: int) -> list[Coefficients]:
        """Entities of an effect with the clearest coefficients, relative to their errors."""
        of_effect = [found for (name, _), found in self.entities.items() if name == effect]
        return sorted(of_effect, key=_clearness, reverse=True)[:count]

    def choosiest(self) -> str | None:
        """Name the job whose answers depend most on a term; None: on none, anywhere."""
        spreads = {
            job_id: terms[0].positive - terms[1].positive
            for job_id, preferences in self.preferences.items()
            if (terms := for_and_against(preferences)) is not None
        }
        return max(sorted(spreads), key=spreads.__getitem__, default=None)

    def _listen(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._broker,
                "group.id": "hearback-demo-audience",
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        consumer.subscribe([LABELS, COEFFICIENTS, PREFERENCES, DEAD_LETTERS])
        try:
            while not self._done.is_set():
                for message in consumer.consume(1000, timeout=0.02):
                    value = message.value()
                    if message.error() is None and value is not None:
                        self._hear(message.topic() or "", value, message.timestamp()[1])
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            self.error = error
        finally:
            consumer.close()

    def _hear(self, topic: str, value: bytes, timestamp_ms: int) -> None:
        if topic == LABELS:
            self._hear_label(decode_label(value, self._space))
        elif topic == PREFERENCES:
            found_of = decode_preferences(value)
            self.preferences[found_of.job_id] = found_of.counts()
        elif topic == COEFFICIENTS:
            found = decode_coefficients(value)
            if found.control:
                return
            self.entities[found.effect, found.entity_id] = found
            if self.measuring:
                self._latencies_s.append(max(time.time() - timestamp_ms / 1000.0, 0.0))
        else:
            self.dead_letters += 1

    def _hear_label(self, label: Label) -> None:
        self.labels[label.kind] += 1
        if label.label:
            self._positives += 1
            age_ms = label.label_time_ms - label.application_time_ms
            self._positives_within_a_day += age_ms <= DAY_MS
            if label.previous is not None:
                self.flips[label.previous] += 1
        key = label.job_id, label.application_id
        known = self.last.get(key)
        if known is None or BY_NAME[label.kind] >= BY_NAME[known.kind]:
            self.last[key] = label


def _clearness(found: Coefficients) -> float:
    mean, variance = np.array(found.mean), np.array(found.variance)
    return float(np.max(np.abs(mean) / np.sqrt(variance)))


def for_and_against(preferences: Preferences) -> tuple[Weighed, Weighed] | None:
    """Find the two terms of one type whose weights differ most, the larger first."""
    of_types: dict[str, list[Weighed]] = {}
    for each in preferences.by_weight():
        of_types.setdefault(each.kind, []).append(each)
    pairs = [(of_type[0], of_type[-1]) for of_type in of_types.values()]
    return max(pairs, key=lambda pair: pair[0].positive - pair[1].positive, default=None)
