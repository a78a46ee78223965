"""Test kit: short builders for events, and a market of partitions without a broker."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import pytest

from deploy import browser
from stream.configuration.settings import changed, parse_toml, read_document
from stream.events import wire
from stream.events.ladder import BY_NAME, rung
from stream.events.partitioner import partition_of
from stream.events.records import (
    APPLICATIONS,
    APPLICATIONS_BY_JOB,
    ENGAGEMENTS,
    LABELS,
    Message,
    Read,
    Record,
)
from stream.events.structs import Application, Clock, Engagement, Features, JobEvent, Label, Source
from stream.features.blocks import FeatureSpace
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, Manifest
from stream.partitions.base import Partition, Unit
from stream.partitions.job import JobPartition
from stream.partitions.member import MemberPartition
from stream.policy import Policy
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore, Store

SPACE = FeatureSpace(("g",), ("m0", "m1"), ("j0",))
NOW_MS = 1_700_000_000_000
"""The wall clock of tests: later than all their events."""

CONTEST = Path(os.environ.get("HEARBACK_CONTEST_LOG", ""))
"""A real log; tests that use it are marked with ``with_contest``."""

with_contest = pytest.mark.skipif(
    not CONTEST.is_file(),
    reason="HEARBACK_CONTEST_LOG does not name the contest log (it may not be distributed)",
)

ONE = np.array([1.0], dtype="<f4").tobytes()
TWO = np.array([1.0, 0.5], dtype="<f4").tobytes()


def parse_policy(text: str, policy: Policy = Policy()) -> Policy:  # noqa: B008 - frozen
    """Policy with what the text of a policy file changes."""
    return changed(policy, read_document(parse_toml(text), policy))


def model(policy_version: str = "test-model") -> GlobalModel:
    """Return a global model of one feature with coefficient -1."""
    manifest = Manifest(
        format=1,
        model_version=policy_version,
        features={"global": ["g"], "per_member": ["m0", "m1"], "per_job": ["j0"]},
        trained_from_ms=0,
        trained_until_ms=0,
        applications=2,
        positives=1,
        regularisation=1.0,
        sha256="",
    )
    return GlobalModel(manifest, Linear(np.array([-1.0])))


def application(
    name: str, time_ms: int, *, job: str = "j", member: str | None = None, score: float | None = 0.0
) -> Application:
    """Application ``name`` of member ``m-name`` unless told otherwise."""
    return Application(
        application_id=name,
        member_id=member or f"m-{name}",
        job_id=job,
        event_time_ms=time_ms,
        features=Features(ONE, TWO, ONE),
        global_score=score,
    )


def engagement(
    name: str,
    of: str,
    time_ms: int,
    action: str = "message",
    *,
    job: str = "j",
    member: str | None = None,
) -> Engagement:
    """Engagement ``name`` with application ``of``."""
    return Engagement(
        engagement_id=name,
        application_id=of,
        member_id=member or f"m-{of}",
        job_id=job,
        event_time_ms=time_ms,
        action=action,
    )


def closing(name: str, time_ms: int, *, job: str = "j") -> JobEvent:
    """Closing ``name`` of a job."""
    return JobEvent(job_event_id=name, job_id=job, event_time_ms=time_ms, action="closed")


TestEvent = Application | Engagement | JobEvent


def to_json(event: TestEvent) -> bytes:
    """Event → the line that a producer would send."""
    fields = msgspec.to_builtins(event, builtin_types=(bytes,))
    if isinstance(event, Application):
        fields["type"] = "application"
        fields["features"] = {
            "global": wire.numbers(event.features.global_ or b""),
            "per_member": wire.numbers(event.features.per_member),
            "per_job": wire.numbers(event.features.per_job),
        }
    return msgspec.json.encode(fields)


def source(raw: bytes = b"raw") -> Source:
    """Return a place that a record could have been read from."""
    return Source("engagements", 0, 0, len(raw), raw, b"j")


def looked_at(url: str, *options: str, **more: Any) -> str:
    """Open a page in a headless browser; without one the test is skipped, in words."""
    try:
        return browser.look(url, *options, **more)
    except browser.MissingError as missing:
        pytest.skip(f"page not looked at: {missing}")


def opcodes(call: Callable[[], object]) -> int:
    """Count the steps of Python that a call takes, on any machine the same."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


Topics = str | Iterable[str]


class Market:
    """All partitions of both stages and the topics between them, in memory.

    Who runs when is the test's choice: :meth:`step`. Stores survive :meth:`restart`.
    """

    def __init__(
        self,
        policy: Policy,
        partitions: int,
        *,
        idle_timeout_ms: int = 1_800_000,
        global_model: GlobalModel | None = None,
    ) -> None:
        self.policy = policy
        self.count = partitions
        self.now_ms = NOW_MS
        self.topics: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.sent: list[Message] = []
        self._idle_timeout_ms = idle_timeout_ms
        self._model = global_model or model()
        self.stores: dict[tuple[str, int], Store] = {}
        self.partitions: dict[tuple[str, int], Partition] = {}
        for number in range(partitions):
            for stage in ("member", "job"):
                self.stores[stage, number] = MemoryStore()
                self.restart(stage, number)

    def restart(self, stage: str, number: int) -> None:
        """Start a partition anew from what its store holds."""
        overlay = Overlay(self.stores[stage, number])
        partition: Partition
        kind = MemberPartition if stage == "member" else JobPartition
        partition = kind(
            number,
            partitions=self.count,
            overlay=overlay,
            model=self._model,
            policy=self.policy,
            idle_timeout_ms=self._idle_timeout_ms,
        )
        overlay.flush()
        self.partitions[stage, number] = partition
        self._overlays = getattr(self, "_overlays", {})
        self._overlays[stage, number] = overlay

    def produce(self, events: Iterable[TestEvent]) -> None:
        """Write events into the input topics, as producers do."""
        for event in events:
            topic, identity = (
                (APPLICATIONS, event.member_id)
                if isinstance(event, Application)
                else (ENGAGEMENTS, event.job_id)
            )
            key = identity.encode()
            self.append(topic, partition_of(key, self.count), key, to_json(event))

    def clock(self, time_ms: int) -> None:
        """Write a clock to every partition of both inputs."""
        for topic in (APPLICATIONS, ENGAGEMENTS):
            for number in range(self.count):
                self.append(topic, number, None, wire.encode(Clock(time_ms)))

    def append(self, topic: str, number: int, key: bytes | None, value: bytes | None) -> None:
        """Write a record."""
        log = self.topics[topic, number]
        log.append(Record(len(log), key, value, self.now_ms))

    def step(
        self,
        stage: str,
        number: int,
        topics: str | Iterable[str],
        most: int,
        *,
        crash: bool = False,
    ) -> int:
        """Let a partition read up to ``most`` records of each topic; return how many it read.

        ``topics``: one, or several that are read together. ``crash``: it dies after sending its
        first outputs, before the state is written.
        """
        reads = self._reads(stage, number, topics, most)
        if reads:
            units = self.partitions[stage, number].process(reads, self.now_ms)
            self.deliver(stage, number, islice(units, 1) if crash else units, flush=not crash)
        if crash:
            self.restart(stage, number)
        return sum(len(read.records) for read in reads)

    def stumble(self, stage: str, number: int, topics: Topics, units: int, *, flushed: bool) -> int:
        """Let a partition read topics to their ends, and die after some units of work.

        ``flushed``: after the last one's state was written, else before. Returns how many messages
        it sent.
        """
        before = len(self.sent)
        reads = self._reads(stage, number, topics)
        work = self.partitions[stage, number].process(reads, self.now_ms)
        self.deliver(stage, number, islice(work, units - 1))
        self.deliver(stage, number, islice(work, 1), flush=flushed)
        self.restart(stage, number)
        return len(self.sent) - before

    def _reads(
        self, stage: str, number: int, topics: Topics, most: int | None = None
    ) -> list[Read]:
        """Return what there is of topics, as far as there is something."""
        reads = []
        for topic in [topics] if isinstance(topics, str) else topics:
            position = self.partitions[stage, number].position(topic) or 0
            records = self.topics[topic, number][position:][:most]
            if records:
                reads.append(Read(topic, records, records[-1].offset + 1))
        return reads

    def tick(self, stage: str, number: int) -> None:
        """Let a partition do what is due by the wall clock."""
        partition = self.partitions[stage, number]
        at_end = (partition.position(partition.input_topic) or 0) >= len(
            self.topics[partition.input_topic, number]
        )
        written = sum(len(self.topics[partition.input_topic, each]) for each in range(self.count))
        partition.clock.observe_end(self.now_ms, at_end=at_end, written=written)
        self.deliver(stage, number, partition.tick(self.now_ms, self.now_ms, written))

    def run(self) -> None:
        """Let everybody read everything; wall time passes, so that bare watermarks travel."""
        busy = True
        while busy:
            self.now_ms += 1001
            busy = False
            for (stage, number), partition in self.partitions.items():
                for topic in partition.topics:
                    busy |= self.step(stage, number, topic, 1000) > 0
                before = len(self.sent)
                self.tick(stage, number)
                busy |= len(self.sent) > before

    def labels(self) -> list[Label]:
        """Return all label messages sent so far."""
        return [
            wire.decode_label(message.value, self._model.space)
            for message in self.sent
            if message.topic == LABELS and message.value is not None
        ]

    def deliver(
        self, stage: str, number: int, units: Iterable[Unit], *, flush: bool = True
    ) -> None:
        """Send what units of work say, and write their state."""
        for unit in units:
            for message in unit:
                self.sent.append(message)
                if message.topic in {APPLICATIONS_BY_JOB, LABELS}:
                    assert message.partition is not None
                    self.append(message.topic, message.partition, message.key, message.value)
            if flush:
                self._overlays[stage, number].flush()


def last_labels(labels: Iterable[Label]) -> dict[tuple[str, str], tuple[int, str, bool, float]]:
    """(label, kind, final, weight) of each application's highest label, as a reader keeps it."""
    last: dict[tuple[str, str], Label] = {}
    for label in labels:
        key = label.job_id, label.application_id
        if key not in last or _height(label) >= _height(last[key]):
            last[key] = label
    return {
        key: (label.label, label.kind, label.final, label.weight) for key, label in last.items()
    }


def _height(label: Label) -> tuple[int, float]:
    return rung(BY_NAME[label.kind], label.final), label.weight
