"""JSON Schemas of the messages: an independent validator and our decoders agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.cli import app
from stream.errors import ConfigError
from stream.events.document import FOLDER, pages
from stream.events.records import DEAD_LETTERS, TOPICS
from stream.events.schemas import MESSAGES, schema
from stream.policy import DAY_MS
from tests.kit import Market, closing, model, parse_policy
from tests.replay.test_single import market

ROOT = Path(__file__).parents[2]
VALIDATORS = {name: Draft202012Validator(schema(name)) for name in MESSAGES}
BLOCK = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> Iterator[dict[str, Any]]:
    """Return the messages that the pages show: objects of JSON blocks, one after the other."""
    for page in ("events.md", "labels.md"):
        for block in BLOCK.findall((ROOT / "docs" / page).read_text("utf-8")):
            rest = block.strip()
            while rest:
                found, end = json.JSONDecoder().raw_decode(rest)
                yield found
                rest = rest[end:].strip()


EXAMPLES = list(examples())


def name_of(message: dict[str, Any], topic: str = "") -> str:
    """Return the name of a message."""
    if topic == "applications-by-job" and message["type"] == "application":
        return "application-by-job"
    return str(message["type"])


@pytest.mark.parametrize("name", MESSAGES)
def test_schemas_are_schemas(name: str) -> None:
    """Each is a valid JSON Schema of the draft that it names, and speaks plain English."""
    found = schema(name)
    Draft202012Validator.check_schema(found)
    assert found["title"] == name
    assert "`" not in json.dumps(found)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: str(one["type"]))
def test_the_examples_of_the_pages_are_valid(example: dict[str, Any]) -> None:
    """What the documentation shows is a message."""
    VALIDATORS[name_of(example)].validate(example)


def test_the_pages_show_every_message_that_others_read_or_write() -> None:
    """An example of each, but of those between our own stages."""
    shown = {name_of(example) for example in EXAMPLES}
    assert shown == MESSAGES.keys() - {"application-by-job", "watermark"}


def test_what_simulated_producers_write_is_valid() -> None:
    """Applications with terms and attributes, engagements and job events."""
    settings = SimulationSettings(seed=4, members=20, jobs=60, days=10, terms_share=1.0)
    found = [json.loads(line) for line in simulate(settings)]
    for message in found:
        VALIDATORS[name_of(message)].validate(message)
    assert {message["type"] for message in found} >= {"application", "engagement"}


def test_what_both_stages_send_is_valid() -> None:
    """Every record of a small market's partitions fits the schema of a message of its topic."""
    policy = parse_policy("[matches]\nenabled = true\n[applicants]\nenabled = true\n")
    both = Market(policy, 2, global_model=model())
    both.produce([*market(days=30), closing("x", 40 * DAY_MS, job="j0")])
    both.clock(80 * DAY_MS)
    both.run()
    seen = set()
    for message in both.sent:
        if message.topic == DEAD_LETTERS or message.value is None:
            continue
        found = json.loads(message.value)
        name = name_of(found, message.topic)
        assert message.topic in MESSAGES[name].topics
        VALIDATORS[name].validate(found)
        seen.add(name)
    assert seen >= {
        *("application-by-job", "watermark", "label", "coefficients", "match", "applicant")
    }


@given(st.data())
def test_a_validator_and_our_decoder_agree(data: st.DataObject) -> None:
    """An example with a field left out, or with another value, is valid where it is decoded."""
    example = data.draw(st.sampled_from(EXAMPLES))
    name = name_of(example)
    field = data.draw(st.sampled_from(sorted(example.keys() - {"type"})))
    changed = dict(example)
    if data.draw(st.booleans()):
        del changed[field]
    else:
        changed[field] = data.draw(
            st.sampled_from([None, "", "x" * 257, -1, 1.5, [], {}, True, [1.5], {"a": ["b"]}, "a"])
        )
    try:
        msgspec.json.decode(json.dumps(changed), type=MESSAGES[name].struct)
        decoded = True
    except msgspec.ValidationError:
        decoded = False
    assert VALIDATORS[name].is_valid(changed) == decoded


def test_every_topic_has_its_messages() -> None:
    """No topic is forgotten; dead letters are bytes as they came."""
    topics = {topic for one in MESSAGES.values() for topic in one.topics}
    assert topics == set(TOPICS) - {DEAD_LETTERS}


def test_the_pages_are_up_to_date() -> None:
    """``make docs`` has written the schemas and their list, and no other file lies there."""
    found = pages()
    for path, content in found.items():
        assert (ROOT / path).read_text("utf-8") == content
    there = {path.relative_to(ROOT) for path in (ROOT / FOLDER / "schemas").iterdir()}
    assert there == {path for path in found if path.parent.name == "schemas"}


def test_the_command_prints_a_schema() -> None:
    """With a name the schema alone, for a pipe; without, all names; an unknown one is an error."""
    done = CliRunner().invoke(app, ["schema", "label"])
    assert json.loads(done.stdout) == schema("label")
    listed = CliRunner().invoke(app, ["schema"]).stdout
    assert all(name in listed for name in MESSAGES)
    with pytest.raises(ConfigError, match="did you mean label"):
        schema("labl")
