"""Models of attributes in Python."""

from __future__ import annotations

import warnings
from pathlib import Path

import msgspec
import polars as pl
import pytest

import stream as hb
from producers.simulate import SimulationSettings, simulate
from stream.errors import ConfigError
from stream.logs.files import write_lines

SETTINGS = SimulationSettings(
    members=50, jobs=24, days=34, applications_per_member=7, attributes=True
)
SPEC = '[features.years]\nkind = "number"\nof = "member.years"\nblocks = ["global", "per_job"]\n'


def test_a_model_takes_its_features_from_a_file_or_another_model(tmp_path: Path) -> None:
    """As `train --spec` and `--spec-of` do; a model without a spec is refused in words."""
    log, file = tmp_path / "log.jsonl", tmp_path / "features.toml"
    write_lines(log, simulate(SETTINGS))
    file.write_text(SPEC, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        first = hb.train(log, until="2024-01-25", spec=file, progress=False)
        second = hb.train(log, until="2024-02-01", spec=first, progress=False)
        plain = hb.train(log, until="2024-01-25", progress=False)
    assert first.features["global"] == ["intercept", "years"]
    assert "spec: 1 features make columns: 2 global, 1 per_member, 2 per_job" in first.notes
    assert second.frozen.manifest.spec == first.frozen.manifest.spec
    assert second.version != first.version
    with pytest.raises(ConfigError, match=f"model {plain.version} makes no features of attributes"):
        hb.train(log, spec=plain, progress=False)
    with pytest.raises(ConfigError, match="give feature_names or spec"):
        hb.train(log, spec=file, feature_names=first.features, progress=False)


def test_attributes_of_a_frame_are_those_of_a_file(tmp_path: Path) -> None:
    """A frame with structs of attributes, and no numeric blocks, gives the model of a file."""
    rows = [msgspec.json.decode(line) for line in simulate(SETTINGS)]
    for row in rows:
        row.pop("features", None)
    file, spec = tmp_path / "log.jsonl", tmp_path / "features.toml"
    write_lines(file, map(msgspec.json.encode, rows))
    spec.write_text(SPEC, encoding="utf-8")
    frame = hb.read(pl.DataFrame(rows, infer_schema_length=None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        of_file, of_frame = (
            hb.train(log, until="2024-01-25", spec=spec, progress=False) for log in (file, frame)
        )
    assert of_frame.version == of_file.version
