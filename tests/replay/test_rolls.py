"""A replay in which one global model follows another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.effects import EFFECTS
from stream.errors import ConfigError
from stream.logs.files import merge, write_lines
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, new_model, save_model
from stream.policy import DAY_MS, Policy
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.run_folder import COEFFICIENTS, LABELS, SCORES, load_metrics
from stream.replay.savepoint import Options
from stream.serving.lookup import from_run
from stream.stages.succession import Rolled
from stream.units import format_time
from tests.cli.test_history import hearback
from tests.replay.test_parallel import same_files
from tests.replay.test_single import rows

MARKET = SimulationSettings(
    seed=4, members=30, jobs=30, days=40, applications_per_member=12, d_global=3
)
COEFFICIENTS_OF = {"old": (-1.0, 0.5, 0.2), "new": (-0.5, -0.5, 1.0), "newest": (0.3, 0.0, -1.0)}
UNTIL = 1 << 60


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated log."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    write_lines(path, simulate(MARKET))
    return path


@pytest.fixture(scope="module")
def models(log: Path) -> dict[str, GlobalModel]:
    """Return three linear models of the log's features."""
    names = next(row["features"] for row in rows(log) if row["type"] == "application")
    features = {
        block: sorted(values) if isinstance(values, dict) else [f"{i}" for i in range(len(values))]
        for block, values in names.items()
    }
    return {
        name: new_model(
            Linear(np.array(beta)),
            features,
            trained_from_ms=0,
            trained_until_ms=0,
            applications=0,
            positives=0,
        )
        for name, beta in COEFFICIENTS_OF.items()
    }


@pytest.fixture(scope="module")
def begin_ms(log: Path) -> int:
    """Return the time of the first application."""
    times: list[int] = [row["event_time_ms"] for row in rows(log) if row["type"] == "application"]
    return min(times)


@pytest.fixture(scope="module")
def rolls(models: dict[str, GlobalModel], begin_ms: int) -> tuple[Rolled, ...]:
    """Return what is rolled in: a new model, a newer one too late, for which the old comes back."""
    return (
        Rolled(models["new"], begin_ms + 12 * DAY_MS),
        Rolled(models["newest"], begin_ms + 30 * DAY_MS),
        Rolled(models["old"], begin_ms + 20 * DAY_MS),
    )


def in_force(time_ms: int, begin_ms: int) -> str:
    """Name the model that has to score applications of a time."""
    if time_ms < begin_ms + 12 * DAY_MS:
        return "old"
    return "new" if time_ms < begin_ms + 20 * DAY_MS else "old"


def run(
    log: Path, out: Path, model: GlobalModel | None, *, resume: bool = False, **options: Any
) -> None:
    """Replay a log."""
    lines, space = first_look(merge([log]), model)
    chosen = Options(close=True, **options)
    replay_into(out, [log], lines, Policy(), model, space, chosen, resume=resume)


@pytest.fixture(scope="module", params=[1, 2])
def rolled(
    request: pytest.FixtureRequest,
    log: Path,
    models: dict[str, GlobalModel],
    rolls: tuple[Rolled, ...],
) -> Path:
    """Return the replay with these rolls, of one process or two."""
    out = log.parent / f"rolled-{request.param}"
    run(log, out, models["old"], rolls=rolls, workers=request.param)
    return out


def test_each_application_is_scored_by_the_model_of_its_time(
    log: Path, rolled: Path, models: dict[str, GlobalModel], begin_ms: int
) -> None:
    """Scores are x'β of that model; its version is in every label, the first one's beside it."""
    blocks = {
        (row["job_id"], row["application_id"]): row["features"]["global"]
        for row in rows(log)
        if row["type"] == "application"
    }
    first = models["old"].version
    seen = set()
    scores = {}
    for row in rows(rolled / LABELS):
        name = in_force(row["application_time_ms"], begin_ms)
        seen.add(name)
        x = blocks[row["job_id"], row["application_id"]]
        values = np.array([x[key] for key in sorted(x)] if isinstance(x, dict) else x, "<f4")
        expected = float(values.astype(np.float64) @ np.array(COEFFICIENTS_OF[name]))
        assert row["global_score"] == pytest.approx(expected, abs=1e-12)
        assert row["model_version"] == models[name].version
        came_back = row["application_time_ms"] >= begin_ms + 20 * DAY_MS
        assert row.get("first_model") == (first if name == "new" or came_back else None)
        scores[row["job_id"], row["application_id"]] = row["global_score"]
    assert seen == {"old", "new"}
    assert len(scores) == len(rows(rolled / SCORES))


def test_all_else_is_as_if_applications_had_brought_these_scores(
    log: Path, rolled: Path, tmp_path: Path, models: dict[str, GlobalModel], begin_ms: int
) -> None:
    """Labels, effects and coefficients are those of a log that carries the scores, to the digit.

    Nothing of the models is known there; coefficients name the one of the newest application.
    """
    scores = {
        (row["job_id"], row["application_id"]): row["global_score"] for row in rows(rolled / LABELS)
    }
    lines = []
    for row in rows(log):
        if row["type"] == "application":
            row["global_score"] = scores[row["job_id"], row["application_id"]]
            del row["features"]["global"]
        lines.append(msgspec.json.encode(row))
    told = tmp_path / "log.jsonl"
    write_lines(told, lines)
    workers = int(rolled.name[-1])
    run(told, tmp_path / "told", None, workers=workers)
    for file in (LABELS, SCORES):
        for ours, theirs in zip(rows(rolled / file), rows(tmp_path / "told" / file), strict=True):
            for row in (ours, theirs):
                row.pop("model_version", None)
                row.pop("first_model", None)
                row.get("features", {}).pop("global", None)  # theirs came without
            assert ours == theirs
    pairs = zip(rows(rolled / COEFFICIENTS), rows(tmp_path / "told" / COEFFICIENTS), strict=True)
    versions = set()
    for ours, theirs in pairs:
        version = models[in_force(ours["event_time_ms"], begin_ms)].version
        versions.add(version)
        assert ours == {**theirs, "model_version": version}
    assert len(versions) == 2


def test_a_resumed_replay_goes_on_with_its_models(
    log: Path,
    rolled: Path,
    tmp_path: Path,
    models: dict[str, GlobalModel],
    rolls: tuple[Rolled, ...],
) -> None:
    """Interrupted between two rolls, it ends with the same bytes; other rolls are refused."""
    workers = int(rolled.name[-1])
    options = Options(
        close=True, rolls=rolls, workers=workers, flush_every=1024, checkpoint_every=1024
    )
    half = len(rows(log)) // 2
    policy = Policy()

    def stopped(count: int) -> None:
        if count >= half:
            raise KeyboardInterrupt

    lines, space = first_look(merge([log]), models["old"])
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        replay_into(out, [log], lines, policy, models["old"], space, options, progress=stopped)
    other = msgspec.structs.replace(options, rolls=rolls[:2])
    for chosen in (other, options):
        lines, space = first_look(merge([log]), models["old"])
        if chosen is other:
            with pytest.raises(ConfigError, match="another --roll"):
                replay_into(out, [log], lines, policy, models["old"], space, chosen, resume=True)
        else:
            replay_into(out, [log], lines, policy, models["old"], space, chosen, resume=True)
    lines, space = first_look(merge([log]), models["old"])
    replay_into(tmp_path / "whole", [log], lines, policy, models["old"], space, options)
    same_files(out, tmp_path / "whole")


def test_metrics_and_inspection_tell_the_models(
    log: Path, rolled: Path, models: dict[str, GlobalModel], rolls: tuple[Rolled, ...]
) -> None:
    """metrics.json has the first and what was rolled in; inspection names an entity's newest."""
    metrics = load_metrics(rolled)
    assert metrics.model_version == models["old"].version
    assert metrics.rolls == [(each.model.version, each.from_ms) for each in rolls]
    effect = {spec.name: spec for spec in EFFECTS}
    for row in rows(rolled / COEFFICIENTS):
        found = from_run(rolled, effect[row["effect"]], row["entity_id"])
        assert found is not None
        assert found.coefficients.model_version == row["model_version"]


def test_the_command_rolls_models(
    log: Path,
    tmp_path: Path,
    models: dict[str, GlobalModel],
    rolls: tuple[Rolled, ...],
    begin_ms: int,
) -> None:
    """--roll MODEL@TIME, given several times, gives the same; what cannot be is refused."""
    for name, model in models.items():
        save_model(tmp_path / name, model)
    begun = ["replay", log, "--model", tmp_path / "old"]
    times = [
        f"--roll={tmp_path / name}@{format_time(begin_ms + days * DAY_MS)}"
        for name, days in (("new", 12), ("newest", 30), ("old", 20))
    ]
    out = tmp_path / "run"
    done = hearback(*begun, *times, "--close", "--out", out)
    assert done.returncode == 0, done.stderr
    run(log, tmp_path / "same", models["old"], rolls=rolls)
    same_files(out, tmp_path / "same")
    features = models["new"].manifest.features | {"per_job": ["other"]}
    manifest = msgspec.structs.replace(models["new"].manifest, features=features)
    save_model(tmp_path / "other", GlobalModel(manifest, models["new"].scorer))
    refused = hearback(*begun, f"--roll={tmp_path / 'other'}@2024-01-05", "--out", tmp_path / "no")
    assert refused.returncode == 1
    assert "other per_job features" in refused.stderr
    assert not (tmp_path / "no").exists()
    refused = hearback(*begun, "--roll=here", "--out", tmp_path / "no")
    assert refused.returncode == 2
    assert "MODEL@TIME" in refused.stderr
