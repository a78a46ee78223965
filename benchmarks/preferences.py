"""What are preferences for terms worth where somebody is chosen, and how far is the truth?

Simulated markets whose recruiters have preferences of several strengths, as ``hearback simulate
--preferences`` makes them (:mod:`producers.terms` says what they are; nothing here was tuned to
them), three seeds of each. Models are trained on the first half and judged on the second, at the
moment of decision: the one who was answered among all who waited for the same job, by the effects'
coefficients of that moment, and by the global score over the histories of job and pair and the
preferences of that moment, as the job stage ranks (:mod:`stream.stages.decisions`). NDCG@1 is the
share of decisions in which the one answered stood first, alone.

Settings, all with both effects:

- *without*: a linear global model over the features of the log;
- *features*: linear, or boosted, over what `train` keeps of preferences and of histories, too;
- *hashed*: the candidate's terms in columns of the job's effect: each adds 1 to the column that its
  CRC-32 chooses among 32;
- *both*: linear over preferences, and hashed;
- *truth*: the log-odds by which the market decides.

Intervals of 95 %: jobs are drawn with replacement, the same ones for all settings. The last line is
one JSON object. Eight minutes.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from producers.drift import Preferences
from producers.simulate import simulate
from producers.terms import CHANNELS, Terms
from producers.truth import SimulationSettings, lively
from stream.backtest.decisions import ScoreOf, Watch
from stream.backtest.rehearsal import Rehearsal, Step, record, rehearse
from stream.backtest.tuning import train_until
from stream.events.structs import Application, Label
from stream.features.blocks import FeatureSpace
from stream.histories.history import NOTHING, NUMBERS_BYTES
from stream.logs.files import LogLine
from stream.model.folder import GlobalModel
from stream.policy import DAY_MS, FeaturePolicy, Policy
from stream.quality.ranking import Owner
from stream.replay.reader import first_look
from stream.stages.histories import JobHistories
from stream.state.census import Census
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from stream.state.stored_facts import StoredFacts

STRENGTHS = (0.5, 1.0, 2.0)
SEEDS = (21, 22, 23)
DAYS = 60
HASHED = 32
SETTINGS = ("without", "features", "boosted features", "hashed", "both", "truth")

_DRAWS = 1000
_Floats = NDArray[np.float64]
_Hits = dict[tuple[int, str], list[float]]
"""By seed and job, of each decision, whether the one answered stood first."""


def main() -> None:
    """Simulate, train, judge, print."""
    result: dict[str, dict[str, list[float]]] = {}
    for strength in STRENGTHS:
        hits: dict[str, _Hits] = {name: {} for name in SETTINGS}
        for seed in SEEDS:
            settings = market(seed, strength)
            for name, found in judged(settings).items():
                hits[name] |= {(seed, job): each for job, each in found.items()}
        result[f"{strength:g}"] = told = figures(hits)
        decisions = sum(map(len, hits["without"].values()))
        print(f"\npreferences of {strength:g}: {decisions:,} decisions")
        print(f"{'':20}{'NDCG@1':>8}{'times without':>18}")
        for name, (value, ratio, low, high) in told.items():
            print(f"{name:20}{value:8.3f}{ratio:8.2f} ({low:.2f} to {high:.2f})", flush=True)
    print(msgspec.json.encode(result).decode())


def market(seed: int, strength: float) -> SimulationSettings:
    """Describe a market of about 19,000 applications."""
    return lively(
        seed=seed, members=750, jobs=100, days=DAYS, preference_sd=strength, terms_share=1.0
    )


def judged(settings: SimulationSettings) -> dict[str, dict[str, list[float]]]:
    """Of every setting, by job, whether the one answered stood first."""
    lines = [LogLine("market", at, line) for at, line in enumerate(simulate(settings), 1)]
    until_ms = settings.start_ms + DAYS // 2 * DAY_MS
    alone = Policy(features=FeaturePolicy(histories=False))
    models = {
        "without": train_until(lines, alone, until_ms, lambda _: None),
        "features": train_until(lines, Policy(), until_ms, lambda _: None),
        "boosted features": train_until(lines, Policy(), until_ms, lambda _: None, kind="boosted"),
    }
    rest, space = first_look(iter(lines), models["without"])
    recorded = record(rest, Policy(), models["without"], space)
    found = {name: scored_by(recorded, model) for name, model in models.items()}
    found["hashed"] = with_hashed_terms(found["without"])
    found["both"] = with_hashed_terms(found["features"])
    found["truth"] = copy.copy(recorded)
    found["truth"].global_scores = true_scores(settings, recorded)
    said = {}
    models["both"] = models["features"]
    for name, rehearsal in found.items():
        watch = Firsts(rehearsal, Policy().labels.window_ms, until_ms, models.get(name))
        rehearse(rehearsal, Policy(), () if name == "truth" else None, watch=watch)
        said[name] = watch.first
    return said


def scored_by(rehearsal: Rehearsal, model: GlobalModel) -> Rehearsal:
    """Return the same market, scored by a model; labels carry what it takes."""
    told = {number: label for number, label in rehearsal.steps if label is not None}
    rows = [
        model.row(app.features.global_ or b"", told[number].history, told[number].preferences)
        for number, app in enumerate(rehearsal.applications)
    ]
    found = copy.copy(rehearsal)
    found.global_scores = model.score_all(np.array([np.frombuffer(row, "<f4") for row in rows]))
    if len(model.manifest.inputs) > 1:
        print(f"{model.manifest.kind} takes {', '.join(model.manifest.inputs)}", flush=True)
    return found


class Firsts(Watch):
    """Keeps, by job, whether the one answered stood first, alone.

    Args:
        rehearsal, window_ms, from_ms: as of :class:`Watch`.
        model: scores the candidates anew at each decision, where it takes more than the features;
            None: none does.

    """

    def __init__(
        self, rehearsal: Rehearsal, window_ms: int, from_ms: int, model: GlobalModel | None
    ) -> None:
        super().__init__(rehearsal, window_ms, from_ms)
        self.first: dict[str, list[float]] = {}
        self._asked = rehearsal.applications
        self._first_sight = rehearsal.global_scores
        self._model = model if model is not None and model.takes_further else None
        overlay = Overlay(MemoryStore())
        census = Census(overlay)
        facts = StoredFacts(overlay, census)
        self._histories = JobHistories(overlay, window_ms, facts=facts, census=census)
        self._of_members = {
            number: label.history[:NUMBERS_BYTES]
            for number, label in rehearsal.steps
            if label is not None and label.history is not None
        }

    def scored(self, number: int) -> None:
        """Count an application."""
        super().scored(number)
        self._histories.enter(self._asked[number], None)

    def label(self, number: int, label: Label, scores: Mapping[str, ScoreOf]) -> None:
        """Judge before the label is learned."""
        super().label(number, label, scores)
        self._histories.learn(label)

    def decided(
        self,
        within: Owner,
        numbers: list[int],
        at_ms: int,
        values: _Floats,
        *,
        sampled: bool,
    ) -> None:
        """Keep a decision of a job all of whose candidates are ranked."""
        if within != "job" or sampled:
            return
        full = values[3]
        if self._model is not None:
            full = full - self._first_sight[numbers] + self._scored_now(self._model, numbers, at_ms)
        first = full[0] > full[1:].max()
        self.first.setdefault(self._asked[numbers[0]].job_id, []).append(float(first))

    def _scored_now(self, model: GlobalModel, numbers: list[int], at_ms: int) -> _Floats:
        """Log-odds (n,) by what has happened in the job, and that of the member at first sight."""
        rows = []
        for number in numbers:
            app = self._asked[number]
            history = self._of_members.get(number, NOTHING)
            history += self._histories.as_of(app.job_id, app.member_id, at_ms)
            preferred = self._histories.preferred(app.job_id, app.channel, app.terms)
            rows.append(model.row(app.features.global_ or b"", history, preferred))
        return model.score_all(np.array([np.frombuffer(row, "<f4") for row in rows]))


def figures(hits: Mapping[str, _Hits]) -> dict[str, list[float]]:
    """NDCG@1 of each setting, how many times that without it is, and the interval of that."""
    jobs = sorted(hits["without"])
    count = np.array([len(hits["without"][job]) for job in jobs], dtype=np.float64)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(jobs), np.full(len(jobs), 1.0 / len(jobs)), _DRAWS)
    sums = {name: np.array([sum(found[job]) for job in jobs]) for name, found in hits.items()}
    told = {}
    for name, own in sums.items():
        low, high = np.quantile((draws @ own) / (draws @ sums["without"]), [0.025, 0.975])
        value = own.sum() / count.sum()
        told[name] = [
            round(float(x), 4) for x in (value, own.sum() / sums["without"].sum(), low, high)
        ]
    return told


def true_scores(settings: SimulationSettings, rehearsal: Rehearsal) -> _Floats:
    """Log-odds (n,) by which the market decides, as ``truth.json`` has what they are made of."""
    asked = rehearsal.applications
    member = np.array([int(app.member_id[1:]) for app in asked])
    job = np.array([int(app.job_id[1:]) for app in asked])
    channel = np.array(
        [0 if one.channel is None else 1 + CHANNELS.index(one.channel) for one in asked]
    )
    blocks = [app.features for app in asked]
    x = _matrix([of.global_ for of in blocks])
    z_member = _matrix([of.per_member for of in blocks])
    z_job = _matrix([of.per_job for of in blocks])
    drift, day = Preferences(settings), (rehearsal.times_ms - settings.start_ms) // DAY_MS
    scores = Terms(settings).log_odds(member, job, channel) + np.zeros(len(asked))
    for number in range(int(day.max()) + 1):
        at, today = np.flatnonzero(day == number), drift.go_to(number)
        scores[at] += x[at] @ today.beta
        scores[at] += np.einsum("nd,nd->n", z_member[at], today.per_member[member[at]])
        scores[at] += np.einsum("nd,nd->n", z_job[at], today.per_job[job[at]])
    return scores


def _matrix(packed: list[bytes | None]) -> _Floats:
    return np.array([np.frombuffer(one or b"", "<f4") for one in packed], dtype=np.float64)


def with_hashed_terms(rehearsal: Rehearsal) -> Rehearsal:
    """Return the same market, with the candidates' terms in columns of the job's effect."""
    found = copy.copy(rehearsal)
    found.applications = [_hashed(app) for app in rehearsal.applications]
    found.steps = [
        Step(
            number,
            None
            if label is None
            else msgspec.structs.replace(
                label, per_job=found.applications[number].features.per_job
            ),
        )
        for number, label in rehearsal.steps
    ]
    space = rehearsal.space
    names = [*space.per_job.names, *(f"term_{number}" for number in range(HASHED))]
    found.space = FeatureSpace(None, space.per_member.names, names)
    return found


def _hashed(app: Application) -> Application:
    columns = np.zeros(HASHED, "<f4")
    for kind, terms in (app.terms or {}).items():
        for term in terms:
            columns[zlib.crc32(f"{kind}={term}".encode()) % HASHED] += 1.0
    features: Any = app.features
    features = msgspec.structs.replace(features, per_job=features.per_job + columns.tobytes())
    return msgspec.structs.replace(app, features=features)


if __name__ == "__main__":
    main()
