"""Who predicts best on the contest log? One protocol, one row per method.

HEARBACK_CONTEST_LOG names the log. The global model is trained on the first quarter of the
applications' time span and frozen. Every method sees labels as they come, from the start of the
log, with the global score as offset, and scores each application before it learns anything of it;
what comes after the quarter is judged, truth is the final label. An entity that was never seen
scores what the global model says.

hearback runs with its defaults: silence weighs what it is worth. *Hard inference* is what it did
before: no label of an unanswered application until a later one of its job is answered, then a full
negative. The others' settings are chosen for each of them here, one at a time over the values in
:data:`GRIDS`, by log loss on the first quarter alone, judged as ``hearback tune`` does (closed
windows, cross-fitted global scores); so is which labels they get: aged ones with their weights,
those of hard inference, or final ones alone. lambda-learner and river have one effect each, as the
libraries do. *Boosted* has a global model of trees with histories and the prior that they bring;
*refreshed weekly* is it where another one is rolled in every week, of what was known then
(``--boosted`` prints these rows alone, in two minutes). A batch refit takes the label that is known
of each application and fits both effects at once, to the optimum that coordinate descent would end
in; its coefficients serve until the next refit (its settings are chosen with weekly ones). The last
line is one JSON object. About ten minutes, half of it lambda-learner.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

from benchmarks.baselines import baselines_python
from benchmarks.contest import application_span
from benchmarks.defaults import contest_quarter
from stream.backtest.comparison import Setting
from stream.backtest.prior import with_chosen_prior
from stream.backtest.rehearsal import Rehearsal, record, rehearse
from stream.backtest.retraining import retrained
from stream.backtest.tuning import trainer
from stream.configuration.load import load_config, with_model
from stream.configuration.sections import Config
from stream.configuration.settings import changed
from stream.effects import EFFECT_NAMES
from stream.logs.files import merge
from stream.model.folder import load_model
from stream.model.logistic import fit_path
from stream.model.training import Trainer
from stream.policy import DAY_MS, EffectSettings, Policy
from stream.quality.prequential import quality
from stream.replay.reader import first_look

_Floats = NDArray[np.float64]
Settings = dict[str, Any]
Scorer = Callable[[Settings], _Floats]

LEARNERS: dict[str, Settings] = {
    "lambda-learner": {"precision": 3.0, "delta": 1.0, "labels": "aged"},
    "river": {"rate": 0.03, "l2": 0.0, "labels": "aged"},
    "batch": {"precision": 3.0, "half_life_days": None, "labels": "aged"},
}
"""Where each method's settings start."""

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "lambda-learner": {
        "precision": (1.0, 3.0, 10.0),
        "delta": (0.95, 0.99, 1.0),
        "labels": ("aged", "hard", "final"),
    },
    "river": {
        "rate": (0.003, 0.01, 0.03, 0.1, 0.3),
        "l2": (0.0, 0.01, 0.1, 0.3),
        "labels": ("aged", "hard", "final"),
    },
    "batch": {
        "precision": (1.0, 3.0, 10.0),
        "half_life_days": (14, 30, None),
        "labels": ("aged", "hard"),
    },
}

VARIANTS: dict[str, tuple[Settings, tuple[str, ...]]] = {
    "hearback, per member alone": ({}, ("per_member",)),
    "hearback, per job alone": ({}, ("per_job",)),
    "hearback, not coupled": ({"coupled": False}, EFFECT_NAMES),
    "hearback, capacity 32": ({"capacity": 32}, EFFECT_NAMES),
    "hearback, nothing folded": ({"capacity": 10**6, "open_limit": 10**6}, EFFECT_NAMES),
    "hearback": ({}, EFFECT_NAMES),
}


HARD = {"labels.aging": (), "labels.later_response": "full"}
"""Hard inference, as settings."""


class Judged(NamedTuple):
    """A recorded log, and which applications are judged (n,)."""

    rehearsal: Rehearsal
    judged: NDArray[np.bool_]


class Exercise(NamedTuple):
    """The same, with hard inference too, and as arrays."""

    rehearsal: Rehearsal
    judged: NDArray[np.bool_]
    hard: Rehearsal
    arrays: dict[str, NDArray[Any]]


class Say(Protocol):
    """What judges scores and prints a row."""

    def __call__(
        self, name: str, part: Judged | Exercise, scores: _Floats, settings: str = ""
    ) -> None:
        """Judge scores (n,)."""


def main() -> None:
    """Run all methods, print the table."""
    named = os.environ.get("HEARBACK_CONTEST_LOG", "")
    if not Path(named).is_file():
        sys.exit("HEARBACK_CONTEST_LOG must name the contest log (events.jsonl.gz)")
    log = Path(named)
    rows: dict[str, dict[str, float]] = {}

    def say(name: str, part: Judged | Exercise, scores: _Floats, settings: str = "") -> None:
        rows[name] = judge(part, scores)
        auc, loss, ratio = rows[name].values()
        print(f"{name:30}{auc:8.4f}{loss:10.4f}{ratio:8.3f}  {settings}", flush=True)

    print(f"{'':30}{'AUC':>8}{'log loss':>10}{'O/E':>8}  settings chosen on the first quarter")
    if "--boosted" not in sys.argv:
        compare_methods(log, say)
    boosted(log, say)
    print(msgspec.json.encode(rows).decode())


def compare_methods(log: Path, say: Say) -> None:
    """Run all that stand on one linear model."""
    whole, early = scored_part(log), first_quarter(log)
    print(f"{int(whole.judged.sum()):,} applications judged")
    say("global only", whole, whole.rehearsal.global_scores)
    chosen = choose("batch", early, partial(_batch, early, 7))
    for name, days in (("weekly batch refit", 7), ("daily batch refit", 1)):
        say(name, whole, batch(whole, days, **chosen), _said(chosen))
    with rival(early) as ask_early, rival(whole) as ask_whole:
        for method in ("lambda-learner", "river"):
            for effect in ("member", "job"):
                kind = {"method": method, "effect": effect}
                chosen = choose(method, early, partial(_ask, ask_early, kind))
                say(f"{method} per {effect}", whole, ask_whole(kind | chosen), _said(chosen))
    hard = whole.hard
    say("hearback, hard inference", whole, hard.scores(rehearse(hard, Policy())))
    hard.global_scores = loosely_fitted(hard, whole.judged)
    say("the same, global C = 1", whole, hard.scores(rehearse(hard, Policy())))
    for name, (differs, effects) in VARIANTS.items():
        settings = EffectSettings(**differs)
        found = rehearse(
            whole.rehearsal, Policy(effects={"per_member": settings, "per_job": settings}), effects
        )
        say(name, whole, whole.rehearsal.scores(found))


def boosted(log: Path, say: Say) -> None:
    """Grow trees on the first quarter; freeze them, or follow them by others every week."""
    policy, quarter_ms, names = protocol(log)
    fitting = trainer(policy, quarter_ms, names, None, "boosted")
    fitting.read(merge([log]), lambda _: None)
    model, said = with_chosen_prior(merge([log]), fitting.model(), policy)
    policy = with_model(Config(policy=policy), model).policy
    lines, space = first_look(merge([log]), model)
    frozen = record(lines, policy, model, space)
    part = Judged(frozen, frozen.times_ms >= quarter_ms)
    say("boosted, global only", part, frozen.global_scores, said)
    say("hearback, boosted", part, frozen.recorded)
    anew = Setting(name="weekly", retrain_ms=7 * DAY_MS, policy=policy)
    weekly = frozen.with_global_scores(retrained(frozen, anew, model))
    say("refreshed weekly, global only", part, weekly.global_scores)
    say("hearback, refreshed weekly", part, weekly.scores(rehearse(weekly, policy)))


def protocol(log: Path) -> tuple[Policy, int, dict[str, list[str]]]:
    """Return the policy, the end of the first quarter, and the features' names."""
    policy = load_config(None, {}, log.parent / "policy.toml").policy
    first_ms, last_ms = application_span(log)
    names = msgspec.json.decode((log.parent / "features.json").read_bytes())
    return policy, first_ms + (last_ms - first_ms) // 4, names


def scored_part(log: Path) -> Exercise:
    """Train the global model on the first quarter; record the log; judge what follows."""
    policy, quarter_ms, names = protocol(log)
    fitting = Trainer(policy, quarter_ms, names)
    fitting.read(merge([log]), lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        fitting.fit(Path(folder))
        model = load_model(Path(folder))
    rehearsals = []
    for labels in (policy, changed(policy, HARD)):
        lines, space = first_look(merge([log]), model)
        rehearsals.append(record(lines, labels, model, space))
    rehearsal, hard = rehearsals
    return exercise(rehearsal, hard, rehearsal.times_ms >= quarter_ms)


def loosely_fitted(rehearsal: Rehearsal, judged: NDArray[np.bool_]) -> _Floats:
    """Global scores (n,) of a model with C = 1, whatever the cross-validation says."""
    packed = [app.features.global_ for app in rehearsal.applications]
    X = np.array([np.frombuffer(x or b"", dtype="<f4") for x in packed], dtype=np.float64)
    known = rehearsal.times_ms + Policy().labels.window_ms < rehearsal.times_ms[judged].min()
    beta = fit_path(X[known], rehearsal.targets[known].astype(np.int64), (1.0,))[0]
    scores: _Floats = X @ beta
    return scores


def first_quarter(log: Path) -> Exercise:
    """The part on which settings are chosen."""
    market, hard = contest_quarter(log), contest_quarter(log, HARD).rehearsal
    assert market.until_ms is not None
    known = ~np.isnan(market.rehearsal.targets)
    return exercise(market.rehearsal, hard, known & (market.rehearsal.times_ms <= market.until_ms))


def exercise(rehearsal: Rehearsal, hard: Rehearsal, judged: NDArray[np.bool_]) -> Exercise:
    """Write a recording as arrays (see ``baseline_methods.py``)."""
    asked = rehearsal.applications
    arrays: dict[str, NDArray[Any]] = {"offset": rehearsal.global_scores}
    for effect in ("member", "job"):
        ids = [getattr(one, f"{effect}_id") for one in asked]
        arrays[effect] = np.unique(ids, return_inverse=True)[1]
        packed = [np.frombuffer(getattr(one.features, f"per_{effect}"), "<f4") for one in asked]
        arrays[f"z_{effect}"] = np.array(packed, dtype=np.float64)
    for name, recorded in (("aged", rehearsal), ("hard", hard)):
        steps = np.array(
            [
                (number, -1, 0, 0.0)
                if label is None
                else (number, label.label, label.final, label.weight)
                for number, label in recorded.steps
            ],
        )
        asks = (steps[:, 1] < 0) & judged[steps[:, 0].astype(np.int64)]
        arrays[name] = steps[: np.flatnonzero(asks)[-1] + 1]  # what comes later is for nobody
    return Exercise(rehearsal, judged, hard, arrays)


def judge(part: Judged | Exercise, scores: _Floats) -> dict[str, float]:
    """AUC, log loss and observed over expected of what is judged."""
    found = quality(part.rehearsal.targets[part.judged], scores[part.judged])
    assert found is not None
    assert found.auc is not None
    figures = {"auc": found.auc, "log_loss": found.log_loss}
    figures["observed_over_expected"] = found.observed_over_expected
    return {name: round(value, 4) for name, value in figures.items()}


def choose(method: str, early: Exercise, score: Scorer) -> Settings:
    """Go through the grids one setting at a time; return what has the least log loss."""
    best = dict(LEARNERS[method])
    least = judge(early, score(best))["log_loss"]
    for key, values in GRIDS[method].items():
        for value in values:
            if value != best[key]:
                tried = best | {key: value}
                loss = judge(early, score(tried))["log_loss"]
                if loss < least:
                    best, least = tried, loss
    return best


def batch(
    part: Exercise,
    every_days: int,
    *,
    precision: float,
    half_life_days: float | None,
    labels: str,
) -> _Floats:
    """Refit both effects every so many days on all labels known by then; scores (n,).

    Minimises the log loss of the known labels, each with its weight, halved every half-life by
    application time, plus ½·λ·‖θ‖² over all members' and jobs' coefficients together, by L-BFGS
    from the last ones.
    """
    arrays, times_ms = part.arrays, part.rehearsal.times_ms
    design = _design(arrays)
    offset = arrays["offset"]
    theta: _Floats = np.zeros(design.shape[1])
    known, weight = np.full(len(offset), -1), np.zeros(len(offset))
    scores = offset.copy()
    next_ms = int(times_ms[0]) + every_days * DAY_MS
    for at, target, _, of_label in arrays[labels].tolist():
        number = int(at)
        if target >= 0:
            known[number], weight[number] = target, of_label
            continue
        while times_ms[number] >= next_ms:
            seen = np.flatnonzero(known >= 0)
            w = weight[seen]
            if half_life_days is not None:
                w = w * np.exp2(-(next_ms - times_ms[seen]) / (half_life_days * DAY_MS))
            theta = _fit(design[seen], known[seen].astype(float), w, offset[seen], precision, theta)
            next_ms += every_days * DAY_MS
        row = slice(design.indptr[number], design.indptr[number + 1])
        scores[number] += design.data[row] @ theta[design.indices[row]]
    return scores


def _design(arrays: dict[str, NDArray[Any]]) -> Any:
    """One row per application: its member's and its job's features in their columns (sparse)."""
    columns, values = [], []
    first = 0
    for effect in ("member", "job"):
        z = arrays[f"z_{effect}"]
        columns.append(first + arrays[effect][:, None] * z.shape[1] + np.arange(z.shape[1]))
        values.append(z)
        first += (int(arrays[effect].max()) + 1) * z.shape[1]
    indices, data = np.hstack(columns), np.hstack(values)
    indptr = np.arange(0, indices.size + 1, indices.shape[1])
    untyped: Any = csr_matrix
    return untyped((data.ravel(), indices.ravel(), indptr), shape=(len(data), first))


def _fit(X: Any, y: _Floats, w: _Floats, o: _Floats, precision: float, start: _Floats) -> _Floats:
    transposed = X.T.tocsr()

    def loss(theta: _Floats) -> tuple[float, _Floats]:
        m = o + X @ theta
        value = w @ (np.logaddexp(0.0, m) - y * m) + 0.5 * precision * theta @ theta
        return float(value), transposed @ (w * (expit(m) - y)) + precision * theta

    untyped: Any = minimize
    found = untyped(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-3})
    return np.asarray(found.x, dtype=np.float64)


@contextmanager
def rival(part: Exercise) -> Iterator[Scorer]:
    """Start the baselines' program on an exercise; give what asks it for a method's scores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exercise.npz"
        arrays: Any = part.arrays
        np.savez(path, **arrays)
        program = Path(__file__).with_name("baseline_methods.py")
        with subprocess.Popen(
            [baselines_python(), program, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        ) as process:
            stdin, stdout = process.stdin, process.stdout
            assert stdin is not None
            assert stdout is not None

            def ask(method: Settings) -> _Floats:
                stdin.write(msgspec.json.encode(method) + b"\n")
                stdin.flush()
                answer = stdout.readline()
                if not answer:
                    sys.exit(f"the baselines' program ended on {method}")
                return np.array(msgspec.json.decode(answer))

            yield ask
            stdin.close()


def _batch(part: Exercise, days: int, settings: Settings) -> _Floats:
    return batch(part, days, **settings)


def _ask(ask: Scorer, kind: Settings, settings: Settings) -> _Floats:
    return ask(kind | settings)


def _said(settings: Settings) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


if __name__ == "__main__":
    main()
