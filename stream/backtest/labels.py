"""A rehearsal from labels alone: what effects have seen, in about the order in which they saw it.

Labels say when they were known, and bring their applications. So an application is scored at its
own time, and a label learned at its own. Applications without a label are not there.
"""

from __future__ import annotations

from collections.abc import Iterable

from stream.backtest.rehearsal import Recorder, Rehearsal
from stream.errors import EventError
from stream.events.structs import Application, Features, Label
from stream.labels.changes import Scores
from stream.model.folder import GlobalModel
from stream.model.labels import LabelReader, known_ms


def decoded(values: Iterable[bytes], until_ms: int, from_ms: int) -> list[Label]:
    """Labels known by a time, of applications from another time on that have global features."""
    reader, labels = LabelReader(until_ms), []
    for raw in values:
        try:
            label = reader.read(raw)
        except EventError:
            continue  # counted when they were read first
        if label is not None and label.global_ is not None and label.application_time_ms >= from_ms:
            labels.append(label)
    return labels


def recorded(labels: list[Label], model: GlobalModel) -> Rehearsal:
    """Put labels in the order in which they were known, each application before its first.

    Repeats are learned again, which changes nothing.
    """
    recorder, seen = Recorder(), dict[tuple[str, str], Label]()
    for label in labels:
        seen.setdefault((label.job_id, label.application_id), label)
    steps = [(label.application_time_ms, False, label) for label in seen.values()]
    steps += [(max(known_ms(label), label.label_time_ms), True, label) for label in labels]
    for _, learned, label in sorted(steps, key=lambda step: step[:2]):
        if learned:
            recorder.label(label)
        else:
            recorder.scored(_application(label), _scores(label))
    return Rehearsal(recorder, model.space, model=model)


def _application(label: Label) -> Application:
    features = Features(label.global_, label.per_member, label.per_job)
    return Application(
        label.application_id,
        label.member_id,
        label.job_id,
        label.application_time_ms,
        features,
        channel=label.channel,
        terms=label.terms,
    )


def _scores(label: Label) -> Scores:
    return Scores(
        label.global_score,
        label.member_score,
        label.job_score,
        label.further_scores,
        label.history,
        label.preferences,
    )
