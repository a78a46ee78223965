"""Models of attributes: trained, stored, and used wherever applications enter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from producers.simulate import SimulationSettings, simulate
from stream.errors import ConfigError, ModelError
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, DEAD_LETTERS, ENGAGEMENTS
from stream.events.wire import numbers
from stream.features.making import Maker
from stream.features.spec import parse_spec
from stream.logs.files import LogLine
from stream.model.folder import GlobalModel, load_model, save_model
from stream.model.spec_fitting import fit_spec
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy
from stream.replay.reader import first_look
from stream.replay.run_folder import RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.stages.succession import check_fits
from tests.kit import Market, last_labels

SETTINGS = SimulationSettings(
    members=100, jobs=40, days=24, applications_per_member=8, attributes=True
)
Event = dict[str, Any]
UNTIL_MS = SETTINGS.start_ms + 20 * DAY_MS
POLICY = Policy()
SPEC = """
[features.years]
kind = "number"
of = "member.years"
log1p = true
missing = true
blocks = ["global", "per_job"]
[features.skills]
kind = "terms"
of = "member.skills"
[features.city]
kind = "category"
of = "job.city"
[features.words]
kind = "text"
of = "job.title"
hashed = 3
[features.posted]
kind = "date"
of = "job.posted"
blocks = ["global", "per_member"]
[features.same]
kind = "match"
of = ["member.city", "job.city"]
by = ["equal"]
blocks = ["global", "per_member", "per_job"]
"""


def as_lines(events: Iterable[Event]) -> list[LogLine]:
    """Events → lines of a log."""
    raw = [msgspec.json.encode(event) for event in events]
    return [LogLine("log", number, line) for number, line in enumerate(raw, 1)]


def quiet(_: int) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """Simulate a market of applications that have attributes and no features."""
    found = [msgspec.json.decode(line) for line in simulate(SETTINGS)]
    for event in found:
        event.pop("features", None)
    return found


@pytest.fixture(scope="module")
def maker(events: list[Event]) -> Maker:
    """Learn the spec of its first weeks."""
    return fit_spec(parse_spec(SPEC), as_lines(events), UNTIL_MS, quiet)


def trained(lines: list[LogLine], maker: Maker) -> GlobalModel:
    """Fit a model of attributes."""
    trainer = Trainer(POLICY, UNTIL_MS, maker)
    trainer.read(lines, quiet)
    return trainer.model()


@pytest.fixture(scope="module")
def model(events: list[Event], maker: Maker, tmp_path_factory: Any) -> GlobalModel:
    """Fit a model of them, write it and load it."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, trained(as_lines(events), maker))
    return load_model(folder)


def with_features(events: list[Event], maker: Maker) -> Iterator[Event]:
    """Give the same events with features in place of attributes, as a producer could send them."""
    for event in events:
        if event["type"] != "application":
            yield event
            continue
        member, job, context = (event[side] for side in ("member", "job", "context"))
        blocks = maker.blocks(member, job, context, event["event_time_ms"])
        names = ("global", "per_member", "per_job")
        yield {
            **{k: v for k, v in event.items() if k not in {"member", "job", "context"}},
            "features": {name: numbers(block) for name, block in zip(names, blocks, strict=True)},
            "terms": {"skills": member["skills"]},
        }


@pytest.fixture(scope="module")
def numeric(events: list[Event], maker: Maker) -> list[Event]:
    """Make the features of each application beforehand."""
    return list(with_features(events, maker))


def twin(model: GlobalModel) -> GlobalModel:
    """Return the same model without its spec, under the same version."""
    return GlobalModel(msgspec.structs.replace(model.manifest, spec=None), model.scorer)


def test_training_learns_from_attributes_what_it_learns_from_their_features(
    events: list[Event], numeric: list[Event], maker: Maker, model: GlobalModel
) -> None:
    """Coefficients, rows and delays are those of a log that brings the features."""
    trainer = Trainer(POLICY, UNTIL_MS, maker.names)
    trainer.read(as_lines(numeric), quiet)
    other = trainer.model()
    assert other.scorer.encoded() == model.scorer.encoded()
    assert model.manifest.applications == other.manifest.applications > 100
    assert other.version != model.version
    assert model.manifest.spec == maker.fitted
    # What comes later has no part in what is learned.
    later = [{**event} for event in events]
    for event in later:
        if event["type"] == "application" and event["event_time_ms"] > UNTIL_MS:
            event["member"] = {"years": 1e9, "skills": ["new"] * 3}
    assert (
        trained(
            as_lines(later), fit_spec(parse_spec(SPEC), as_lines(later), UNTIL_MS, quiet)
        ).version
        == model.version
    )


def test_replay_makes_features_where_applications_enter(
    events: list[Event], numeric: list[Event], model: GlobalModel, tmp_path: Path
) -> None:
    """Labels, scores and coefficients are those of a log that brings the features, byte by byte."""
    found = {}
    for name, log, one in (("made", events, model), ("sent", numeric, twin(model))):
        lines, space = first_look(as_lines(log), one)
        with RunFolder(tmp_path / name) as folder:
            metrics = replay(lines, folder, POLICY, one, space, Options(close=True))
        files = ("labels.jsonl", "scores.jsonl", "coefficients.jsonl")
        found[name] = [(tmp_path / name / file).read_bytes() for file in files]
        assert metrics.dead_letters.keys() <= {"unmatched"}
    assert found["made"] == found["sent"]
    assert b'"terms":{"skills":' in found["made"][0]


def test_a_worker_makes_features_where_applications_enter(
    events: list[Event], numeric: list[Event], model: GlobalModel
) -> None:
    """Labels are those of a log that brings the features; attributes go no further."""
    found = []
    for log, one in ((events, model), (numeric, twin(model))):
        market = Market(POLICY, 2, global_model=one)
        market.now_ms = SETTINGS.start_ms + 60 * DAY_MS
        for event in log[:900]:
            topic, owner = (
                (APPLICATIONS, event["member_id"])
                if event["type"] == "application"
                else (ENGAGEMENTS, event["job_id"])
            )
            key = owner.encode()
            market.append(topic, partition_of(key, 2), key, msgspec.json.encode(event))
        market.run()
        assert not [one for one in market.sent if b"joined" in (one.value or b"")]
        assert not [one for one in market.sent if one.topic == DEAD_LETTERS]
        labels = market.labels()
        found.append({(one.application_id, one.kind): one for one in labels})
        assert len(last_labels(labels)) > 100
    assert found[0] == found[1]


def test_other_attributes_are_a_conflict(model: GlobalModel) -> None:
    """A repeat is none; neither is one whose names come in another order."""
    market = Market(POLICY, 1, global_model=model)
    app = {
        "type": "application", "application_id": "a", "member_id": "m", "job_id": "j",
        "event_time_ms": 1_000, "member": {"years": 3, "nickname": "Jo"},
    }  # fmt: skip
    again = {**app, "member": {"nickname": "Jo", "years": 3}}
    other = {**app, "member": {"years": 3, "nickname": "Joe"}}  # of which nothing is made
    for event in (app, again, other):
        market.append(APPLICATIONS, 0, b"m", msgspec.json.encode(event))
    market.run()
    refused = [one for one in market.sent if one.topic == DEAD_LETTERS]
    assert [dict(one.headers)["reason"] for one in refused] == [b"conflict"]


def test_unknown_and_missing_attributes_are_ordinary(model: GlobalModel) -> None:
    """They are scored; an application without any attributes is refused, and so are features."""
    said: list[Event] = [
        {"member": {"years": "many"}},
        {"job": {}},
        {"context": {"x": [1]}},
    ]
    sent: list[Event] = [
        {},
        {"member": None},
        {"features": {"per_member": [], "per_job": []}},
    ]
    base = {
        "type": "application", "application_id": "a", "member_id": "m", "job_id": "j",
        "event_time_ms": 1_000,
    }  # fmt: skip
    for more in said:
        first_look(as_lines([base | more]), model)
    for more in sent:
        with pytest.raises(ModelError, match="no attributes"):
            first_look(as_lines([base | more]), model)
    with pytest.raises(ModelError, match=r"hearback train --spec"):
        first_look(as_lines([base | said[0]]), twin(model))
    with pytest.raises(ModelError, match="carries no features: pass a model"):
        first_look(as_lines([base | said[0] | {"global_score": 0.5}]), None)


def test_a_changed_spec_is_found(model: GlobalModel, tmp_path: Path) -> None:
    """A model folder whose spec is not that of its version is refused, also where sizes agree."""
    save_model(tmp_path, model)
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    assert '"log1p": true' in text
    manifest.write_text(text.replace('"log1p": true', '"log1p": false'), encoding="utf-8")
    with pytest.raises(ModelError, match="was changed"):
        load_model(tmp_path)


def test_only_a_model_of_the_same_spec_can_follow(
    events: list[Event], maker: Maker, model: GlobalModel
) -> None:
    """The names of columns say nothing of scales: they must have been learned of the same rows."""
    lines = as_lines(events)
    kept = trained(lines[: len(lines) // 2], Maker(maker.fitted))
    check_fits(kept, model, POLICY)
    assert kept.version != model.version
    other = trained(lines, fit_spec(parse_spec(SPEC), lines, UNTIL_MS - DAY_MS, quiet))
    assert other.manifest.features == model.manifest.features
    with pytest.raises(ConfigError, match="train it with --spec-of"):
        check_fits(other, model, POLICY)


def test_a_spec_needs_attributes(numeric: list[Event]) -> None:
    """A log without any is refused in words; so are attributes without a spec."""
    with pytest.raises(ModelError, match="no application has attributes"):
        fit_spec(parse_spec(SPEC), as_lines(numeric), None, quiet)


def test_attributes_need_a_spec(events: list[Event]) -> None:
    """Training says what is missing."""
    trainer = Trainer(POLICY, UNTIL_MS, None)
    trainer.read(as_lines(events), quiet)
    with pytest.raises(ModelError, match="--spec says what becomes of attributes"):
        trainer.model()
