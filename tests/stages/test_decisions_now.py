"""Rankings at the moment of decision, where the global model takes histories, or preferences."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from stream.backtest.rehearsal import Recorder
from stream.events.structs import Application, Engagement
from stream.labels.changes import Scores
from stream.logs.files import LogLine
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel
from stream.policy import DAY_MS, LabelPolicy, Policy
from stream.quality.ranking import RankingQuality
from stream.replay.single import replay
from tests import decisions
from tests.kit import SPACE, TestEvent, to_json
from tests.partitions.test_rankings import events
from tests.serving.test_scores import with_preferences

W = 90 * DAY_MS
POLICY = Policy(labels=LabelPolicy(aging=(), later_response="off", window_ms=W))


class Seen(Recorder):
    """A replay's results, with the scores of each application's first sight."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def scored(self, app: Application, scores: Scores) -> None:
        """Keep the global score."""
        self.seen.append(scores.global_score)
        super().scored(app, scores)


def log() -> list[TestEvent]:
    """Return the events, their applications with terms and without scores of their own."""
    return [
        msgspec.structs.replace(each, global_score=None, terms={"skill": ["sql"]})
        if isinstance(each, Application)
        else each
        for each in events()
    ]


def weighing(name: str) -> GlobalModel:
    """Return a global model whose score is one number of the history, or of preferences."""
    columns = with_preferences().columns
    weights = np.zeros(len(columns))
    weights[columns.index(name if name.startswith("preferences") else f"history.{name}")] = 1.0
    return GlobalModel(with_preferences().manifest, Linear(weights))


def ranked(name: str) -> tuple[RankingQuality, list[float]]:
    """Rankings of a replay by such a model, and the scores of first sight."""
    lines = [LogLine("log", at, to_json(event)) for at, event in enumerate(log(), 1)]
    sink = Seen()
    found = replay(lines, sink, POLICY, weighing(name), SPACE).rankings
    assert found is not None
    assert found.decisions > 50
    return found, sink.seen


@pytest.mark.parametrize(
    "name", ["job.applications", "job.answers", "preferences.applications", "preferences.positives"]
)
def test_what_is_the_job_s_own_ranks_nobody_in_it(name: str) -> None:
    """A job's numbers are those of the moment, for all: whoever came at other times ties."""
    found, seen = ranked(name)
    assert len(set(seen)) > 5
    assert found.orders["global"]["auc"].value == 0.5


def test_pairs_are_those_of_the_moment() -> None:
    """Candidates rank by the applications for this job that each had sent by the decision."""
    found, _ = ranked("pair.applications")
    read: list[TestEvent] = log()
    lines = [LogLine("log", at, to_json(event)) for at, event in enumerate(read, 1)]
    wanted = []
    for made in decisions.decisions(lines, SPACE, W):
        if not made.of_job:
            continue
        before = read[: _position(read, made)]

        def sent(app: Application, before: Sequence[TestEvent] = before) -> int:
            return sum(
                isinstance(each, Application)
                and (each.job_id, each.member_id) == (app.job_id, app.member_id)
                for each in before
            )

        own = sent(made.answered)
        others = [sent(app) for app in made.of_job]
        less, same = sum(n < own for n in others), sum(n == own for n in others)
        wanted.append((less + 0.5 * same) / len(others))
    assert found.decisions == len(wanted)
    assert found.orders["global"]["auc"].value == pytest.approx(np.mean(wanted))


def _position(read: Sequence[TestEvent], made: decisions.Decision) -> int:
    """Position of the event that made a decision: the answer, or, after it, its application."""
    app = made.answered
    places: dict[tuple[tuple[str, str], str], int] = {}
    for at, event in enumerate(read):
        if isinstance(event, Application | Engagement):
            kind = "application" if isinstance(event, Application) else event.action
            places.setdefault(((event.job_id, event.application_id), kind), at)
    key = app.job_id, app.application_id
    answers = [at for (of, kind), at in places.items() if of == key and kind in {"message", "hire"}]
    return max(min(answers), places[key, "application"])
