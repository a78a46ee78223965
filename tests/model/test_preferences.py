"""Preferences as inputs of a global model: train, replay, explain; what is missing or unknown."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from struct import unpack

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.preferences import Firsts
from producers.simulate import simulate
from producers.truth import lively
from stream.backtest.rehearsal import record, rehearse
from stream.backtest.tuning import train_until, trainer
from stream.errors import ConfigError, ModelError
from stream.events.structs import Label
from stream.events.wire import decode_label
from stream.histories.preferences import COUNTS, WEIGHTS, Preferred
from stream.logs.files import merge, write_lines
from stream.model.columns import HISTORY_COLUMNS, Columns, frequent, preference_columns
from stream.model.folder import load_model, save_model
from stream.model.kind import ModelKind
from stream.model.labels import LabelTrainer
from stream.policy import DAY_MS, FeaturePolicy, Policy
from stream.quality.ranking import Owner
from stream.replay.reader import first_look
from tests.model.test_boosted_model import blocks, hearback, replayed

KINDS: tuple[ModelKind, ...] = ("linear", "boosted")
SETTINGS = lively(
    seed=4,
    members=300,
    jobs=20,
    days=30,
    applications_per_member=9,
    preference_sd=4.0,
    terms_share=1.0,
)
UNTIL_MS = SETTINGS.start_ms + 30 * DAY_MS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a log whose recruiters prefer terms, and a model of it of each kind."""
    path = tmp_path_factory.mktemp("preferences")
    write_lines(path / "log.jsonl", simulate(SETTINGS))
    for kind in KINDS:
        log = merge([path / "log.jsonl"])
        made = train_until(log, Policy(), UNTIL_MS, lambda _: None, kind=kind)
        save_model(path / kind, made)
    return path


def by_name(label: Label) -> dict[str, float]:
    """Preferences of a label, each number by its name."""
    told = label.preferences or Preferred((0.0,) * 6, {})
    named = {f"preferences.{name}": x for name, x in zip(COUNTS, told.counts, strict=True)}
    for kind, weights in told.weights.items():
        for name, x in zip(WEIGHTS, weights, strict=True):
            named[f"preferences[{kind}].{name}"] = x
    return named


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_label_carries_gives_its_global_score(
    folder: Path, kind: ModelKind, tmp_path: Path
) -> None:
    """A replay, by one process and by two, scores with the preferences that labels carry.

    So does whoever reads them by name; and the model was fitted on the same numbers.
    """
    model = load_model(folder / kind)
    inputs = model.manifest.inputs
    assert "preferences" in inputs
    names = model.manifest.features["preferences"]
    assert names == preference_columns(["skill", "title"], counts=kind == "boosted")
    asked, rows = blocks(folder), set()
    for workers in (1, 2)[: 1 + (kind == "linear")]:
        lines = replayed(folder, tmp_path / str(workers), model, workers)
        for label in (decode_label(line, model.space) for line in lines):
            assert label.history is not None
            x = [*asked[label.job_id, label.application_id]]
            if "history" in inputs:
                x += np.frombuffer(label.history, "<f4").tolist()
            x += [by_name(label)[name] for name in names]
            row = np.array(x, "<f4")
            assert label.global_score == model.score_all(row[None].astype(float)).item()
            rows.add((len(asked) * (workers - 1), row.tobytes()))
    fitting = trainer(Policy(), None, None, None, kind)
    fitting.read(merge([folder / "log.jsonl"]), lambda _: None)
    X = fitting.rows(fitting.end_ms + 100 * DAY_MS).X.astype("<f4")
    kept = [*range(len(asked[label.job_id, label.application_id]))]
    kept += range(X.shape[1] - (len(model.columns) - len(kept)), X.shape[1])
    assert {row.tobytes() for row in X[:, kept]} == {row for first, row in rows if not first}


def test_a_model_explains_and_names_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ``model explain`` prints sums to the score, and names columns of preferences."""
    arguments = ("model", "explain", folder / "boosted", folder / "log.jsonl")
    assert hearback(monkeypatch, *arguments, "--application", "a0001500", "--most", 99) == 0
    said = capsys.readouterr().out
    assert "preferences[skill].positive" in said
    (score, *parts) = [float(x) for x in re.findall(r"([+-]\d+\.\d+) *$", said, re.MULTILINE)]
    assert sum(parts) == pytest.approx(score, abs=1e-4 * len(parts))


def test_a_policy_that_keeps_none(folder: Path) -> None:
    """It refuses a model that takes preferences, and trains one that does not."""
    without = Policy(features=FeaturePolicy(histories=False))
    with pytest.raises(ConfigError, match="takes preferences: set"):
        load_model(folder / "linear").check(without)
    log = merge([folder / "log.jsonl"])
    other = train_until(log, without, UNTIL_MS, lambda _: None)
    assert other.manifest.inputs == ("global",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_from_labels_takes_them(folder: Path, kind: ModelKind, tmp_path: Path) -> None:
    """On the same rows it is that of the log, bit by bit."""
    lines = replayed(folder, tmp_path, load_model(folder / kind), 1)
    quiet_ms = UNTIL_MS + 3 * DAY_MS  # all have waited for longer than the first step of aging
    of_log = trainer(Policy(), quiet_ms, None, None, kind)
    of_log.read(merge([folder / "log.jsonl"]), lambda _: None)
    of_labels = LabelTrainer(Policy(), quiet_ms, None, kind)
    of_labels.read(lines, lambda _: None)
    for each in (of_log, of_labels):
        each.hold_out()
    wanted = of_log.model().manifest
    assert "preferences" in wanted.inputs
    assert of_labels.model().manifest == wanted


def test_the_command_trains_on_those_of_labels(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``train --from-labels RUN`` keeps them where they pay, as ``train LOG`` does."""
    model = load_model(folder / "linear")
    replayed(folder, tmp_path / "run", model, 1)
    out = tmp_path / "next"
    assert hearback(monkeypatch, "train", "--from-labels", tmp_path / "run", "--out", out) == 0
    names = load_model(out).manifest.features["preferences"]
    assert names == model.manifest.features["preferences"]


def test_they_help_where_recruiters_have_preferences(folder: Path) -> None:
    """On the held-out part a model with them has the smaller log loss."""
    for kind in KINDS:
        losses = []
        for features in (FeaturePolicy(), FeaturePolicy(histories=False)):
            fitting = trainer(Policy(features=features), UNTIL_MS, None, None, kind)
            fitting.read(merge([folder / "log.jsonl"]), lambda _: None)
            judged = fitting.hold_out()
            losses.append(judged.held_out.log_loss)  # type: ignore[union-attr]
        assert losses[0] < losses[1] - 0.005


def test_columns_of_another_release_are_refused(folder: Path, tmp_path: Path) -> None:
    """Columns that this release would fill with other numbers score nothing."""
    model = load_model(folder / "linear")
    names = model.manifest.features["preferences"]
    for number, other in enumerate((names[::-1], names[1:], [*names, "preferences[x].p"])):
        features = model.manifest.features | {"preferences": other}
        manifest = msgspec.structs.replace(model.manifest, features=features)
        path = tmp_path / str(number)
        save_model(path, model)
        (path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        with pytest.raises(ModelError, match="takes other preferences"):
            load_model(path)


WEIGHTED = st.tuples(*[st.floats(-9, 9, width=32)] * 4)
PREFERRED = st.builds(
    Preferred,
    st.tuples(*[st.integers(0, 10**6).map(float)] * 6),
    st.dictionaries(st.sampled_from(["a", "].positive", "preferences[a", "b]"]), WEIGHTED),
)


@given(
    st.one_of(st.none(), PREFERRED),
    st.lists(st.sampled_from(["a", "].positive", "preferences[a", "z"]), unique=True),
    st.booleans(),
    st.booleans(),
)
def test_what_is_missing_is_zero_and_what_is_unknown_left_out(
    preferred: Preferred | None, types: list[str], counts: bool, history: bool
) -> None:
    """Whatever types are called, a row has the number of each name, or 0."""
    features = {
        "global": ["g"],
        "preferences": preference_columns(types, counts=counts),
        "history": HISTORY_COLUMNS,
    }
    inputs = ["global", *["history"] * history, "preferences"]
    if not features["preferences"]:
        return
    columns = Columns(features, inputs)
    row = columns.row(b"glob", None, preferred)
    assert row[:4] == b"glob"
    assert len(row) == 4 * len(columns.names)
    size = len(features["preferences"])
    found = dict(zip(features["preferences"], unpack(f"<{size}f", row[-4 * size :]), strict=True))
    known = {} if preferred is None else preferred.weights
    for kind in types:
        for at, name in enumerate(WEIGHTS):
            assert found[f"preferences[{kind}].{name}"] == known.get(kind, (0.0,) * 4)[at]
    for at, name in enumerate(COUNTS) if counts else ():
        told = 0.0 if preferred is None else preferred.counts[at]
        assert math.isclose(found[f"preferences.{name}"], told, rel_tol=1e-7)


def test_the_most_frequent_types_are_taken() -> None:
    """Sixteen of them, whatever their order in the log, named in alphabetical order."""
    counts = Counter({f"t{number:02d}": 100 - number for number in range(20)})
    assert frequent(counts) == [f"t{number:02d}" for number in range(16)]
    assert frequent(Counter({"b": 1, "a": 1})) == ["a", "b"]


class WithoutMembers(Firsts):
    """Ranks without the members' scores: a replay has those of first sight."""

    def decided(
        self,
        within: Owner,
        numbers: list[int],
        at_ms: int,
        values: NDArray[np.float64],
        *,
        sampled: bool,
    ) -> None:
        """Rank by the global score and the job's."""
        with_job = values[[0, 1, 2, 2, 4]]
        super().decided(within, numbers, at_ms, with_job, sampled=sampled)


def test_the_benchmark_ranks_as_the_job_stage_does(folder: Path) -> None:
    """With what has happened by the decision: global and job's score give a replay's NDCG@1."""
    model = load_model(folder / "boosted")
    assert model.takes_history
    assert model.takes_preferences
    lines, space = first_look(merge([folder / "log.jsonl"]), model)
    recorded = record(lines, Policy(), model, space)
    watch = WithoutMembers(recorded, Policy().labels.window_ms, 0, model)
    rehearse(recorded, Policy(), watch=watch)
    first = [x for found in watch.first.values() for x in found]
    assert recorded.metrics is not None
    assert recorded.metrics.rankings is not None
    wanted = recorded.metrics.rankings.orders["with_job"]["ndcg_at_1"].value
    assert sum(first) / len(first) == pytest.approx(wanted)
