"""Why an applicant stands where it does: what each feature adds to its score, and the few largest.

What the global model adds for everybody is left out. Where it is not known what that model was
asked, or the model is not at hand, or what it was asked does not give the score that it has (a
score that was sent counts more than features that were), its whole score is told as one.

Shapes: k applicants; m features, of the global model, of the member's and of the job's block.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER
from stream.serving.held import Held
from stream.serving.messages import Reason
from stream.serving.scorer import Scorer

FEW: Final = 5
"""Reasons that are told of each kind."""

_WHOLE: Final = ""  # in place of a model's version
_MOST_NAMES: Final = 16  # of models
_NEAR: Final = 1e-6  # what differs by less, of a score, is rounding

_Floats = NDArray[np.float64]
_Places = NDArray[np.int64]


class Names(msgspec.Struct, frozen=True, gc=False):
    """Effect and name of each of m features."""

    effects: list[str]
    features: list[str]


class Added(msgspec.Struct, frozen=True, gc=False):
    """What each feature adds to the scores (k, m) of those at some places of a question."""

    at: list[int]
    values: _Floats
    names: Names


class Reasons:
    """Tells what adds to held applicants' scores.

    Args:
        scorer: features, and which models are at hand.

    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._learned = [
            (effect.name, name)
            for effect, block in ((MEMBER, scorer.space.per_member), (JOB, scorer.space.per_job))
            for name in block.names
        ]
        self._names: dict[str, Names] = {}

    def few(self, held: Held, places: _Places, learned: _Floats) -> list[list[Reason]]:
        """Return the largest of each applicant; arguments as of :meth:`added`."""
        found: list[list[Reason]] = [[]] * len(places)
        for added in self.added(held, places, learned):
            for at, reasons in zip(added.at, largest(added.values, added.names), strict=True):
                found[at] = reasons
        return found

    def added(self, held: Held, places: _Places, learned: _Floats) -> list[Added]:
        """Tell what each feature adds, of each model's applicants together.

        Args:
            held: the job's applicants. places: of k of them.
            learned: what the features of member and job add (k, m').

        """
        of_model: dict[str, list[int]] = {}
        whole: list[int] = []
        asked = [held.seen[place] for place in places.tolist()]
        for at, place in enumerate(places.tolist()):
            known = whole if asked[at] is None else of_model.setdefault(held.models[place], [])
            known.append(at)
        found = []
        for version, of in of_model.items():
            model = self._scorer.store.model(version)
            if model is None:
                whole += of
                continue
            rows = [
                model.row(seen.global_, seen.history, seen.preferences)
                for seen in map(asked.__getitem__, of)
                if seen is not None
            ]
            X = np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), len(model.columns))
            values = model.scorer.contributions_all(X)
            scores = held.global_score[places[of]]
            explained = np.abs(values.sum(axis=1) - scores) <= _NEAR * (1.0 + np.abs(scores))
            values = values[:, :-1]
            if not explained.all():
                whole += np.array(of)[~explained].tolist()
                of, values = np.array(of)[explained].tolist(), values[explained]  # noqa: PLW2901
            if of:
                found.append(self._joined(of, version, model.columns, values, learned))
        if whole:
            scores = held.global_score[places[whole], None]
            found.append(self._joined(whole, _WHOLE, ["global_score"], scores, learned))
        return found

    def _joined(
        self, at: list[int], version: str, columns: list[str], of_global: _Floats, learned: _Floats
    ) -> Added:
        names = self._names.get(version)
        if names is None:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            told = [*(("global", name) for name in columns), *self._learned]
            names = Names([effect for effect, _ in told], [name for _, name in told])
            self._names[version] = names
        return Added(at, np.concatenate([of_global, learned[at]], axis=1), names)


def largest(values: _Floats, names: Names) -> list[list[Reason]]:
    """Return the few that are largest in size of each row (k, m); none of nothing."""
    left, rows = np.abs(values), np.arange(len(values))
    order = np.empty((len(values), min(FEW, values.shape[1])), np.int64)
    for nth in range(order.shape[1]):  # of equal ones the first; sorting all takes twice as long
        order[:, nth] = at = left.argmax(axis=1)
        left[rows, at] = -1.0
    places, width = order.ravel().tolist(), order.shape[1]
    added = values[rows[:, None], order].ravel().tolist()
    of = map(names.effects.__getitem__, places), map(names.features.__getitem__, places)
    reasons = list(map(Reason, *of, added))
    found = [reasons[row * width : (row + 1) * width] for row in range(len(values))]
    if 0.0 in added:
        found = [[each for each in few if each.contribution] for few in found]
    return found
