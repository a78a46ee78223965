"""The model folder and its training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stream.errors import ConfigError, ModelError
from stream.logs.files import LogLine
from stream.model.coefficients import Linear
from stream.model.folder import MANIFEST, GlobalModel, load_model, new_model, save_model
from stream.model.kind import FILES
from stream.model.logistic import fit_path
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy
from stream.replay.run_folder import RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from tests import kit, oracle
from tests.kit import TestEvent, application, engagement

NAMES = {"global": ["one", "x"], "per_member": ["m"], "per_job": ["j"]}
SPAN: dict[str, Any] = {
    "trained_from_ms": 1,
    "trained_until_ms": 2,
    "applications": 3,
    "positives": 1,
}


def made(*coefficients: float) -> GlobalModel:
    """Return a small model."""
    return new_model(Linear(np.array(coefficients)), NAMES, regularisation=1.0, **SPAN)


def saved(path: Path) -> Path:
    """Write a small model."""
    save_model(path, made(0.5, -2.0))
    return path


def test_model_folder_round_trip(tmp_path: Path) -> None:
    """A model is loaded as it was saved, and scores the global block in log-odds."""
    model = load_model(saved(tmp_path / "m"))
    assert isinstance(model.scorer, Linear)
    assert model.scorer.coefficients.tolist() == [0.5, -2.0]
    assert model.space.per_member.names == ("m",)
    assert model.score(np.array([1.0, 0.25], "<f4").tobytes()) == 0.0
    assert model.manifest.trained_until_ms == 2


def test_equal_models_have_equal_versions(tmp_path: Path) -> None:
    """The version is a digest of names and coefficients."""
    first = load_model(saved(tmp_path / "a")).version
    assert load_model(saved(tmp_path / "b")).version == first
    save_model(tmp_path / "c", made(0.5, -2.1))
    assert load_model(tmp_path / "c").version != first


def _rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes())
        change(manifest)
        (path / MANIFEST).write_bytes(msgspec.json.encode(manifest))

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: (path / MANIFEST).unlink(), "no model folder"),
        (lambda path: (path / FILES["linear"]).unlink(), "no model folder"),
        (lambda path: (path / FILES["linear"]).write_bytes(b"x"), "checksum"),
        (lambda path: (path / MANIFEST).write_bytes(b"{"), "damaged"),
        (_rewrite(lambda m: m.update(format=2)), "format 2"),
        (_rewrite(lambda m: m["features"].pop("per_job")), "per_job"),
        (_rewrite(lambda m: m["features"]["global"].append("y")), "3 global features"),
    ],
)
def test_damaged_models_are_refused(
    damage: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    """Whatever is wrong with a model folder is said in one line."""
    damage(saved(tmp_path / "m"))
    with pytest.raises(ModelError, match=says):
        load_model(tmp_path / "m")


def test_fit_folds_the_standardisation_back() -> None:
    """Coefficients for raw features equal scikit-learn's on standardised ones, folded back."""
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(400), rng.normal(50, 10, 400), rng.normal(0, 0.01, 400)])
    y = (rng.random(400) < 1 / (1 + np.exp(-(0.1 * (X[:, 1] - 50) + 80 * X[:, 2])))).astype(int)
    (beta,) = fit_path(X, y, (1.0,))
    standard = (X[:, 1:] - X[:, 1:].mean(0)) / X[:, 1:].std(0)
    classifier: Any = LogisticRegression
    wanted = classifier(tol=1e-10).fit(standard, y)
    assert np.allclose(X @ beta, wanted.decision_function(standard), atol=1e-3)


def test_fit_without_a_constant_has_no_intercept() -> None:
    """Where no column is constant a zero vector scores zero: nothing is hidden."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(200, 2))
    y = (X[:, 0] > 0).astype(int)
    assert fit_path(X, y, (1.0,))[0][0] > 1


def _lines(events: list[TestEvent]) -> list[LogLine]:
    return [LogLine("log", n, kit.to_json(event)) for n, event in enumerate(events, 1)]


def _market(days: int) -> list[TestEvent]:
    """One application a day and job; every third is answered after two days."""
    events: list[TestEvent] = []
    for day in range(days):
        time_ms = day * DAY_MS
        events.append(application(f"a{day:03}", time_ms))
        if day >= 2 and day % 3 == 0:
            events.append(engagement(f"e{day}", f"a{day - 2:03}", time_ms))
    return events


def test_training_uses_only_whole_windows(tmp_path: Path) -> None:
    """Where enough windows are closed only those up to the end are used, positives too."""
    events = _market(80)
    until = 60 * DAY_MS
    trainer = Trainer(Policy(), until, None)
    trainer.read(_lines(events), lambda _: None)
    manifest = trainer.fit(tmp_path / "model")
    used = oracle.verdicts(
        [e for e in events if e.event_time_ms <= until], window_ms=14 * DAY_MS, watermark_ms=1e18
    )
    truth = [
        verdict
        for (_, name), verdict in used.items()
        if int(name[1:]) * DAY_MS + 14 * DAY_MS <= until
    ]
    assert manifest.rows == "closed"
    assert manifest.applications == len(truth) == 47
    assert manifest.positives == sum(verdict[0] for verdict in truth if verdict)
    assert (manifest.trained_from_ms, manifest.trained_until_ms) == (0, until)
    assert manifest.features["per_member"] == ["per_member[0]", "per_member[1]"]


def test_training_takes_the_labels_that_a_replay_gives(tmp_path: Path) -> None:
    """Of one log, with strays and repeats, both count the same rows, positives and dead letters."""
    events = _market(60)
    events += [
        events[3],
        engagement("stranger", "a020", 21 * DAY_MS, member="nobody"),
        engagement("orphan", "a999", 30 * DAY_MS),
        engagement("odd", "a030", 31 * DAY_MS, "dance"),
        application("a040", 40 * DAY_MS + 1),
    ]
    events.sort(key=lambda event: event.event_time_ms)
    model = kit.model()
    with RunFolder(tmp_path / "run") as folder:
        lines = _lines(events)
        metrics = replay(lines, folder, Policy(), model, model.space, Options(close=True))
    trainer = Trainer(Policy(), None, None)
    trainer.read(_lines(events), lambda _: None)
    manifest = trainer.fit(tmp_path / "model")
    assert trainer.refused == metrics.dead_letters
    assert set(trainer.refused) == {"mismatch", "unmatched", "unknown_action", "conflict"}
    written = (tmp_path / "run" / "labels.jsonl").read_bytes()
    labels = [msgspec.json.decode(line) for line in written.splitlines()]
    until_ms = max(event.event_time_ms for event in events)
    final = [
        row["label"]
        for row in labels
        if row["final"] and row["application_time_ms"] + 14 * DAY_MS <= until_ms
    ]
    assert (manifest.applications, manifest.positives) == (len(final), sum(final))


@pytest.mark.parametrize("at", [0, 3])
def test_training_sets_jumps_of_time_aside(tmp_path: Path, at: int) -> None:
    """With a limit, an event of 2099 costs training nothing, also as the first of a log."""
    events: list[TestEvent] = []
    for number in range(60):
        name = f"a{number}"
        events.append(application(name, number * DAY_MS))
        if number % 3 == 0:
            events.append(engagement(f"e{number}", name, number * DAY_MS + 5))
    wild = application("wild", 4_070_908_800_000)
    plain, guarded = (Trainer(Policy(), None, None, limit) for limit in (None, 30 * DAY_MS))
    plain.read(_lines(events), lambda _: None)
    guarded.read(_lines([*events[:at], wild, *events[at:]]), lambda _: None)
    assert guarded.fit(tmp_path / "guarded") == plain.fit(tmp_path / "plain")
    assert guarded.refused == {"time_jump": 1}


def test_training_learns_names_from_objects(tmp_path: Path) -> None:
    """Blocks sent as objects give the model its names, sorted; bad lines are counted."""
    lines = []
    for event in _market(30):
        raw = msgspec.json.decode(kit.to_json(event))
        if raw["type"] == "application":
            odd = int(raw["application_id"][1:]) % 2
            raw["features"] = {
                "global": {"one": 1, **({"odd": 1} if odd else {})},
                "per_member": {"z": 1, "a": 2},
                "per_job": {"k": 1},
            }
        lines.append(LogLine("log", 1, msgspec.json.encode(raw)))
    lines.append(LogLine("log", 2, b"{"))
    trainer = Trainer(Policy(), None, None)
    trainer.read(lines, lambda _: None)
    manifest = trainer.fit(tmp_path / "model")
    assert manifest.features == {
        "global": ["odd", "one"],
        "per_member": ["a", "z"],
        "per_job": ["k"],
    }
    assert trainer.refused == {"malformed": 1}


def test_training_leaves_out_what_the_worker_would_refuse(tmp_path: Path) -> None:
    """A number beyond max_feature is left out, in any block, and leaves no names behind."""
    lines = _lines(_market(30))
    raw = msgspec.json.decode(lines[0].raw) | {"application_id": "wild"}
    blocks = raw["features"]
    large = [
        {**raw, "features": {**blocks, "global": [1.1e6]}},
        {**raw, "features": {**blocks, "global": {"new": -1e39}}},
        {**raw, "features": {**blocks, "per_job": [1e7] * len(blocks["per_job"])}},
        {**raw, "global_score": 1e308},
    ]
    wild = [LogLine("log", 0, msgspec.json.encode(event)) for event in large]
    trainer = Trainer(Policy(), None, None)
    trainer.read([*wild, *lines], lambda _: None)
    manifest = trainer.fit(tmp_path / "model")
    assert trainer.refused == {"invalid_features": 4}
    assert manifest.features["global"] == ["global[0]"]


def test_training_needs_both_labels(tmp_path: Path) -> None:
    """A log in which nobody is answered is refused in words, nothing is written."""
    trainer = Trainer(Policy(), None, None)
    trainer.read(_lines(_market(3)), lambda _: None)
    with pytest.raises(ModelError, match="both kinds are needed"):
        trainer.fit(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_log_without_global_features_is_told_so(tmp_path: Path) -> None:
    """Where most applications are refused, a longer log is no help: the reason is named."""
    events = [msgspec.json.decode(line.raw) for line in _lines(_market(60))]
    for event in events:
        if event["type"] == "application":
            del event["features"]["global"]
    trainer = Trainer(Policy(), None, None)
    lines = [LogLine("log", at, msgspec.json.encode(event)) for at, event in enumerate(events)]
    trainer.read(lines, lambda _: None)
    with pytest.raises(ModelError, match="left out as invalid_features") as caught:
        trainer.fit(tmp_path / "model")
    assert "no features.global to train on" in str(caught.value)
    assert "longer" not in str(caught.value)


def test_names_file_must_name_all_blocks() -> None:
    """A names file without one of the blocks is a clear error."""
    with pytest.raises(ConfigError, match="per_member"):
        Trainer(Policy(), None, {"global": ["x"]})
