"""SHELL: reads labels into what the next global model is fitted on (``train --from-labels``).

Labels carry what was scored, the history of first sight, and when what they rest on happened; so
they tell what a log tells, but for applications that have no label yet. Whoever is silent has the
first one after a while, who is answered at once: to take the answered alone would favour them. So
applications younger than the age at which silence is first labelled are left out, answered or not.

Which of an application's labels come, how often, and in which order does not matter: the time of an
answer, and the first time at which it was settled, are told by each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from stream.errors import EventError, InvalidFeaturesError
from stream.events.ladder import Kind
from stream.events.structs import Label
from stream.events.wire import decode_whole_label, numbers
from stream.features.blocks import FeatureSpace
from stream.features.making import Maker
from stream.model.block_names import BlockNames
from stream.model.kind import FURTHER, ModelKind
from stream.model.rows import NEVER
from stream.model.training_set import Row, TrainingSet
from stream.policy import Policy

_PROGRESS: Final = 2048  # labels


class _Sizes(msgspec.Struct):
    """The blocks of a message that is a label."""

    per_member: list[float]
    per_job: list[float]


class _Sized(msgspec.Struct, tag_field="type", tag="label"):
    features: _Sizes


class _Seen(msgspec.Struct):
    """An application, and when silence first gave it a label."""

    time_ms: int
    row: Row
    silent_ms: int = NEVER


class LabelReader:
    """Decodes labels; those known by a time.

    Args:
        until_ms: labels that rest on what happened later, or on silence until later, are left out.

    """

    def __init__(self, until_ms: int | None) -> None:
        self._until_ms = NEVER if until_ms is None else until_ms
        self._space: FeatureSpace | None = None

    def read(self, raw: bytes) -> Label | None:
        """Decode a label; None: it was not known yet.

        Raises:
            EventError: it is none, or its blocks have other sizes than those before.

        """
        if self._space is None:
            try:
                sizes = msgspec.json.decode(raw, type=_Sized).features
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise EventError(f"no label: {error}") from None
            per_member = [f"per_member[{at}]" for at in range(len(sizes.per_member))]
            per_job = [f"per_job[{at}]" for at in range(len(sizes.per_job))]
            self._space = FeatureSpace(None, per_member, per_job)
        label = decode_whole_label(raw, self._space)
        return label if known_ms(label) <= self._until_ms else None


def known_ms(label: Label) -> int:
    """When a label could be known: what it rests on had happened, or silence had lasted."""
    at_ms = label.label_time_ms if label.evidence_time_ms is None else label.evidence_time_ms
    return max(at_ms, label.application_time_ms)


class LabelTrainer(TrainingSet):
    """Reads labels, fits.

    Args:
        policy: the label policy that they were made with.
        until_ms: only what was known by then is used; None: all.
        names: of the features by block, or what has made them of attributes; None: numbered.
        kind: of model that is fitted; histories and preferences are inputs, too, unless the
            policy keeps none.

    """

    def __init__(
        self,
        policy: Policy,
        until_ms: int | None,
        names: dict[str, list[str]] | Maker | None,
        kind: ModelKind = "linear",
    ) -> None:
        super().__init__(policy, names, kind, FURTHER[kind] if policy.features.histories else ())
        self._until_ms = until_ms
        self._mark_ms = 0  # event time when silence was last labelled
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._reader = LabelReader(until_ms)

    def read(self, values: Iterable[bytes], progress: Callable[[int], None]) -> None:
        """Take labels in, to their end; ``progress`` is told how many, now and then."""
        count = 0
        for count, raw in enumerate(values, 1):
            try:
                label = self._reader.read(raw)
                if label is not None:
                    self._take(label)
            except EventError as error:
                self._refuse(error.reason, str(error))
            if count % _PROGRESS == 0:
                progress(count)
        progress(count)
        self._end()

    def _take(self, label: Label) -> None:
        if label.global_ is None:
            raise InvalidFeaturesError(
                "no features.global to train on: the application brought its score, or the label is"
                " of an earlier release"
            )
        key = label.job_id, label.application_id
        seen = self._seen.get(key)
        if seen is None:
            for name, packed in (
                ("global", label.global_),
                ("per_member", label.per_member),
                ("per_job", label.per_job),
            ):
                _adopted(self._names[name], numbers(packed))
            row = Row(None, numbers(label.global_))
            row.history, row.preferences = label.history, label.preferences
            seen = self._seen[key] = _Seen(label.application_time_ms, row)
        row, evidence_ms = seen.row, label.evidence_time_ms
        self.end_ms = max(self.end_ms, known_ms(label))
        if evidence_ms is None:
            self._mark_ms = max(self._mark_ms, label.label_time_ms)
            seen.silent_ms = min(seen.silent_ms, label.label_time_ms)
        elif label.kind == Kind.POSITIVE.wire:
            row.answered_ms = min(row.answered_ms, evidence_ms)
        else:
            row.settled_ms = min(row.settled_ms, evidence_ms)

    def _end(self) -> None:
        """Keep the applications that would have a label by now had nothing happened to them."""
        if self._until_ms is not None:
            self.end_ms = self._until_ms
        silent = [seen for seen in self._seen.values() if seen.silent_ms != NEVER]
        least_ms = min((seen.silent_ms - seen.time_ms for seen in silent), default=0)
        for (job_id, _), seen in sorted(
            self._seen.items(), key=lambda item: (item[1].time_ms, item[0])
        ):
            if seen.time_ms + least_ms <= self._mark_ms:
                self.put(seen.row, job_id, seen.time_ms)
                self._from_ms = seen.time_ms if self._from_ms is None else self._from_ms


def _adopted(names: BlockNames, values: list[float]) -> None:
    names.check(values)
    names.adopt(values)
