"""Stored values: round trips, truncation at every byte, and a committed file per version."""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.errors import StateError
from stream.events.ladder import BY_NAME, Kind
from stream.events.structs import Source
from stream.histories.history import Counted, History
from stream.histories.preferences import Preferences, Preferred
from stream.partitions.clock import Channel, EventTime
from stream.partitions.progress import IDENTITY, PROGRESS, Identity, Progress, decode_progress
from stream.policy import EffectSettings
from stream.quality.gate import Gate
from stream.quality.judged import JUDGEMENTS, TALLY, Judgements
from stream.quality.tally import Paired, Score, Tally
from stream.stages.succession import MODEL, NAMES, Roll, StoredModel
from stream.state import codec
from stream.state.census import COUNTS, StateCounts
from stream.state.facts import (
    Applied,
    Deadline,
    DeadlineKind,
    Facts,
    JobEventFact,
    Marker,
    Orphan,
    Stretch,
    Waiting,
)
from stream.updaters.kept import Example, Kept, Posterior
from stream.worker.changelog import MARKS, Mark
from tests import kit

GOLDEN = Path(__file__).parent.parent / "golden" / "state-values-v1.json"
GOLDEN_2 = GOLDEN.with_name("state-values-v2.json")
GOLDEN_0 = GOLDEN.with_name("state-values-v0.json")  # what was written without a version byte

VALUES: dict[str, tuple[Any, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "facts": (
        Facts(
            member_id="m1",
            event_time_ms=1700000000000,
            digest=b"d" * 16,
            partition=3,
            per_member=b"\0\0\x80?",
            per_job=b"",
            global_score=-1.25,
            member_score=0.5,
            job_score=0.0,
            channel="job_applicants",
            terms={"skill": ["python"]},
            kind=2,
            rule="later_response",
            engagements=("e1", "e2"),
            more=True,
        ),
        codec.APPLICATION.encode,
        codec.APPLICATION.decode,
    ),
    "marker": (Marker("m1", 5), codec.APPLICATION.encode, codec.APPLICATION.decode),
    "waiting": (Waiting(2), codec.APPLICATION.encode, codec.APPLICATION.decode),
    "applied": (Applied(b"d" * 16), codec.ENGAGEMENT.encode, codec.ENGAGEMENT.decode),
    "orphan": (
        Orphan("e1", "a1", "m1", 5, "message", b"d" * 16, Source("t", 1, 2, 3, b"raw", b"k")),
        codec.ENGAGEMENT.encode,
        codec.ENGAGEMENT.decode,
    ),
    "settled": (
        (Stretch(1, 5, 9, "later_response"), Stretch(7, 8, 8, "job_closed")),
        codec.SETTLED.encode,
        codec.SETTLED.decode,
    ),
    "job_event": (JobEventFact(5, b"d" * 16), codec.JOB_EVENT.encode, codec.JOB_EVENT.decode),
    "deadline": (
        Deadline(5, 1, "j", "a", "e"),
        codec.DEADLINE.encode,
        codec.DEADLINE.decode,
    ),
    "deadlines": (
        [Deadline(5, 1, "j", "a", "e"), Deadline(6, 3, "j")],
        codec.DEADLINES.encode,
        codec.DEADLINES.decode,
    ),
    "posterior": (
        Posterior(
            b"\0" * 8,
            9,
            Kept.of([Example(9, "1:ja", 4, True, 1.0, -0.5, b"\0\0\x80?")]),
            folded=3,
            precision=b"\1" * 8,
            linear=b"\2" * 8,
        ),
        codec.encode_posterior,
        codec.decode_posterior,
    ),
    "posterior_folded_full": (
        Posterior(
            struct.pack("<2d", 0.1, -1 / 3),
            1700000000000,
            Kept.of(
                [
                    Example(
                        1690000000000, "1:ja", 1, False, 0.5, -0.5, struct.pack("<2f", 1.0, 0.1)
                    ),
                    Example(
                        1700000000000, "1:jb", 4, True, 1.0, 1e-3, struct.pack("<2f", 1.0, -2.0)
                    ),
                ]
            ),
            folded=32,
            precision=struct.pack("<4d", 2 / 3, 0.1, 0.1, 1e300),
            linear=struct.pack("<2d", -1 / 7, 1e-300),
        ),
        codec.encode_posterior,
        codec.decode_posterior,
    ),
    "posterior_folded_diagonal": (
        Posterior(
            struct.pack("<2d", 0.1, -1 / 3),
            1700000000000,
            Kept.of(
                [Example(1700000000000, "b", 2, True, 1.0, 0.0, struct.pack("<2f", 1.0, -2.0))]
            ),
            folded=64,
            precision=struct.pack("<2d", 2 / 3, 1e300),
            linear=struct.pack("<2d", -1 / 7, 1e-300),
        ),
        codec.encode_posterior,
        codec.decode_posterior,
    ),
    "identity": (
        Identity(
            format=1,
            model_version="m1",
            features={"per_member": ["a"], "per_job": ["b", "c"]},
            effects={
                "per_member": EffectSettings(entity_ttl_ms=5),
                "per_job": EffectSettings(half_life_ms=None),
            },
            partitions=3,
            topic_ids={"labels": "x1"},
        ),
        IDENTITY.encode,
        IDENTITY.decode,
    ),
    "progress": (
        Progress(
            positions={"labels": 7, "applications": 9},
            event_time=EventTime([Channel(1700000000000, 1700000000000), Channel()], 1700000000000),
        ),
        PROGRESS.encode,
        decode_progress,
    ),
    "tally": (
        Tally(
            *(2, 1),
            [Score(0.75, 1.25, {3: 1}, {-50: 1}) for _ in range(4)],
            [Paired(-0.5, 0.25), Paired()],
        ),
        TALLY.encode,
        TALLY.decode,
    ),
    "judged": (
        Judgements({"early": 5, "final": 3}, Gate("early", 1, 2, 3, 4), 9),
        JUDGEMENTS.encode,
        JUDGEMENTS.decode,
    ),
    "census": (StateCounts(1, 2, 3), COUNTS.encode, COUNTS.decode),
    "history": (
        History(
            *(5, 3, 1, 1700000000000, 2.5, 1 / 3, 0.25),
            *(1690000000000, 1680000000000, -1),
            {
                b"12345678": Counted(1690000000000),
                b"abcdefgh": Counted(1700000000000, 1700000000005, True),
            },
        ),
        codec.HISTORY.encode,
        codec.HISTORY.decode,
    ),
    "history_of_the_silent": (
        History(
            *(5, 3, 1, 1700000000000, 2.5, 1 / 3, 0.25),
            *(1690000000000, 1680000000000, -1),
            {
                b"12345678": 1690000000000,
                b"abcdefgh": Counted(1700000000000, 1700000000005, True),
            },
        ),
        codec.HISTORY.encode,
        codec.HISTORY.decode,
    ),
    "preferences": (
        Preferences(
            ["", "search"],
            [7, 2, 1, 3, 1, 0, 4, 1, 1],
            {"skill": {"sql": [3, 1, 0, 3, 1, 0], "go": [1, 0, 0]}, "title": {}},
            *(2, 15),
        ),
        codec.PREFERENCES.encode,
        codec.PREFERENCES.decode,
    ),
    "facts_with_history": (
        Facts(
            member_id="m1",
            event_time_ms=1700000000000,
            digest=b"d" * 16,
            partition=3,
            per_member=b"\0\0\x80?",
            per_job=b"",
            global_score=-1.25,
            member_score=0.5,
            job_score=0.0,
            channel=None,
            terms=None,
            weight=0.5,
            history=b"\0\0\x80?" * 36,
            preferences=Preferred((3.0, 1.0, 0.0, 2.0, 1.0, 0.0), {"skill": (0.5, -0.25, 0, 0)}),
        ),
        codec.APPLICATION.encode,
        codec.APPLICATION.decode,
    ),
    "facts_with_what_was_scored": (
        Facts(
            member_id="m1",
            event_time_ms=1700000000000,
            digest=b"d" * 16,
            partition=0,
            per_member=b"",
            per_job=b"",
            global_score=-1.25,
            member_score=0.5,
            job_score=0.0,
            channel=None,
            terms=None,
            global_=b"\0\0\x80?" * 2,
        ),
        codec.APPLICATION.encode,
        codec.APPLICATION.decode,
    ),
    "facts_of_a_rolled_model": (
        Facts(
            member_id="m1",
            event_time_ms=1700000000000,
            digest=b"d" * 16,
            partition=0,
            per_member=b"",
            per_job=b"",
            global_score=-1.25,
            member_score=0.5,
            job_score=0.0,
            channel=None,
            terms=None,
            model=300,
        ),
        codec.APPLICATION.encode,
        codec.APPLICATION.decode,
    ),
    "models": (
        (Roll(0, "555c61fed509"), Roll(1700000000000, "0123456789ab", 1700000001000)),
        NAMES.encode,
        NAMES.decode,
    ),
    "model": (
        StoredModel(kit.model().manifest, b"arrays"),
        MODEL.encode,
        MODEL.decode,
    ),
    "mark": (
        Mark("a-job-changelog", "id", 12, 1700000000000, True),
        MARKS.encode,
        MARKS.decode,
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_round_trip(name: str) -> None:
    """What was encoded decodes to an equal value."""
    value, encode, decode = VALUES[name]
    assert decode(encode(value)) == value


@pytest.mark.parametrize("name", VALUES)
def test_truncation_at_every_byte_is_an_error(name: str) -> None:
    """No cut of a value is read as something else."""
    value, encode, decode = VALUES[name]
    whole = encode(value)
    for length in range(len(whole)):
        with pytest.raises(StateError):
            decode(whole[:length])


def test_another_version_is_refused_in_words() -> None:
    """A value of a version to come names both versions."""
    with pytest.raises(StateError, match="version 9, this release reads 1"):
        codec.APPLICATION.decode(b"\x09" + codec.APPLICATION.encode(Waiting(1))[1:])


def test_values_of_version_1_are_read_for_ever() -> None:
    """The committed bytes of version 1 decode to what they were made from."""
    golden = msgspec.json.decode(GOLDEN.read_bytes(), type=dict[str, str])
    assert golden.keys() == VALUES.keys()
    for name, (value, _, decode) in VALUES.items():
        assert decode(bytes.fromhex(golden[name])) == value


def test_values_without_a_version_are_read_for_ever() -> None:
    """They decode to the same as those with one, which are written; no cut of them is read."""
    golden = msgspec.json.decode(GOLDEN_0.read_bytes(), type=dict[str, str])
    written = msgspec.json.decode(GOLDEN.read_bytes(), type=dict[str, str])
    written |= msgspec.json.decode(GOLDEN_2.read_bytes(), type=dict[str, str])
    assert golden.keys() == {"identity", "progress", "tally", "judged", "census", "mark"}
    for name, raw in golden.items():
        value, encode, decode = VALUES[name]
        whole = bytes.fromhex(raw)
        assert decode(whole) == value
        assert whole[0] >= 0x20
        assert encode(value).hex() == written[name]
        for length in range(len(whole)):
            with pytest.raises(StateError):
                decode(whole[:length])


def test_values_of_version_2_are_read_for_ever_and_written() -> None:
    """So are those of version 2 (a census with one more field), which are written now."""
    golden = msgspec.json.decode(GOLDEN_2.read_bytes(), type=dict[str, str])
    posteriors = {name for name in VALUES if name.startswith("posterior")}
    assert golden.keys() == posteriors | {"progress", "census", "tally"}
    for name, raw in golden.items():
        value, encode, decode = VALUES[name]
        assert decode(bytes.fromhex(raw)) == value
        assert encode(value).hex() == raw


def test_columns_that_do_not_fit_together_are_an_error() -> None:
    """A posterior with a value more or less in one of its columns is not half-used."""
    value, encode, _ = VALUES["posterior_folded_full"]
    for name in ("ids", "labels", "times_ms", "weights", "offsets", "features"):
        broken = copy.deepcopy(value)
        getattr(broken.kept, name).pop()
        with pytest.raises(StateError, match="do not fit together"):
            codec.decode_posterior(encode(broken))


@pytest.mark.parametrize(
    "kept",
    [
        [Example(1, "a", -1, True, 1.0, 0.0, b"")],
        [Example(1, "a", 128, True, 1.0, 0.0, b"")],
        [Example(1, "a", 1, True, 1.0, 0.0, bytes(4)), Example(2, "b", 1, True, 1.0, 0.0, b"")],
    ],
)
def test_damaged_examples_of_version_1_are_an_error(kept: list[Example]) -> None:
    """Numbers that no release wrote, and features of different lengths."""
    value = b"\x01" + msgspec.msgpack.encode((b"", 2, kept))
    with pytest.raises(StateError, match="damaged"):
        codec.decode_posterior(value)


def test_features_of_no_examples_are_an_error() -> None:
    """A posterior that keeps nothing has empty columns."""
    empty = Posterior(b"", 2, Kept.of([]))
    assert codec.decode_posterior(codec.encode_posterior(empty)) == empty
    empty.kept.features.extend(b"1234")
    with pytest.raises(StateError, match="do not fit together"):
        codec.decode_posterior(codec.encode_posterior(empty))


@pytest.mark.parametrize(("name", "shape"), [("full", (2, 2)), ("diagonal", (2,))])
def test_folded_parts_of_version_1_are_float64(name: str, shape: tuple[int, ...]) -> None:
    """F and f come out of the committed bytes with every digit, full or as a diagonal."""
    golden = msgspec.json.decode(GOLDEN.read_bytes(), type=dict[str, str])
    posterior = codec.decode_posterior(bytes.fromhex(golden[f"posterior_folded_{name}"]))
    F = np.frombuffer(posterior.precision).reshape(shape)
    assert (F.flat[0], F.flat[-1]) == (2 / 3, 1e300)
    assert np.frombuffer(posterior.linear).tolist() == [-1 / 7, 1e-300]
    assert np.frombuffer(posterior.mode).tolist() == [0.1, -1 / 3]


def holds(name: str, value: Any) -> bool:
    """Whether a value is one that could have been stored, by what it is used for."""
    match value:
        case Facts():
            scores = (value.global_score, value.member_score, value.job_score)
            return (
                all(map(math.isfinite, scores))
                and value.kind in set(Kind)
                and value.rule in {None, "later_response", "job_closed"}
                and min(value.event_time_ms, value.partition) >= 0
            )
        case Marker() | Orphan() | JobEventFact():
            return value.event_time_ms >= 0
        case Waiting():
            return value.orphans >= 0
        case Deadline():
            return value.kind in set(DeadlineKind)
        case list():
            return bool(value) and value == sorted(value) and all(holds("", one) for one in value)
        case tuple() if name == "settled":
            times = [time_ms for one in value for time_ms in (one.first_ms, one.last_ms)]
            apart = all(one.last_ms < other.first_ms for one, other in pairwise(value))
            rules = {one.rule for one in value} <= {"later_response", "job_closed"}
            return times == sorted(times) and apart and rules
        case Posterior():
            d = len(value.mode) // 8
            numbers = [
                *np.frombuffer(value.mode),
                *np.frombuffer(value.precision),
                *np.frombuffer(value.linear),
                *(x for each in value.kept for x in np.frombuffer(each.z, "<f4")),
                *(x for each in value.kept for x in (each.weight, each.offset)),
            ]
            places = [(each.time_ms, each.id) for each in value.kept]
            return (
                all(map(math.isfinite, numbers))
                and all(one < other for one, other in pairwise(places))
                and all(0 <= time_ms <= value.time_ms for time_ms, _ in places)
                and all(each.weight > 0 for each in value.kept)
                and all(each.kind in set(BY_NAME.values()) for each in value.kept)
                and all(len(each.z) == 4 * d for each in value.kept)
                and (value.folded > 0) == (len(value.linear) > 0) == (len(value.precision) > 0)
                and (value.folded == 0 or len(value.linear) == 8 * d)
                and (value.folded == 0 or len(value.precision) in {8 * d, 8 * d * d})
            )
        case Progress():
            return min(value.positions.values(), default=0) >= 0
        case Tally():
            sums = [x for one in value.scores for x in (one.expected, one.log_loss)]
            sizes = len(value.scores), len(value.paired)
            return all(map(math.isfinite, sums)) and sizes == (4, 2)
        case StateCounts():
            return min(value.pending, value.orphans, value.entities, value.pairs) >= 0
        case Preferences():
            tables = value.terms.values()
            rows = [value.totals, *(row for table in tables for row in table.values())]
            return all(min(row) >= 0 for row in rows) and value.size == sum(map(len, tables))
        case History():
            recent = value.recent_applications, value.recent_answers, value.recent_positives
            counts = 0, value.positives, value.answers, value.applications
            return list(counts) == sorted(counts) and all(math.isfinite(x) for x in recent)
        case Mark():
            return value.offset >= 0
        case Judgements():
            return value.held >= 0
        case _:
            return True


@pytest.mark.parametrize("name", VALUES)
def test_damaged_bytes_are_an_error_or_a_value_that_could_be(name: str) -> None:
    """Whatever byte is changed, added, taken out or repeated; of old versions, too."""
    value, encode, decode = VALUES[name]
    assert holds(name, value)
    old = msgspec.json.decode(GOLDEN.read_bytes(), type=dict[str, str])
    dice, refused = Random(name), 0
    for whole in (encode(value), bytes.fromhex(old.get(name, ""))):
        for _ in range(400 if whole else 0):
            raw = bytearray(whole)
            for _ in range(dice.choice((1, 1, 2, 4))):
                at = dice.randrange(len(raw))
                match dice.randrange(5):
                    case 0:
                        raw[at] ^= 1 << dice.randrange(8)
                    case 1:
                        raw[at] = dice.randrange(256)
                    case 2:
                        raw.insert(at, dice.randrange(256))
                    case 3 if len(raw) > 1:
                        del raw[at]
                    case _:  # as where a number is not one, or too large for anything
                        raw[at : at + 8] = b"\xff" * min(8, len(raw) - at)
            try:
                found = decode(bytes(raw))
            except StateError:
                refused += 1
            else:
                assert holds(name, found), bytes(raw)
    assert refused


def test_posteriors_that_no_release_writes_are_an_error() -> None:
    """Kinds, order, weights, sizes and numbers: one wrong at a time."""
    z, mode = struct.pack("<2f", 1.0, 0.1), struct.pack("<2d", 0.1, -0.5)
    first, last = Example(5, "1:a", 1, False, 0.5, 0.1, z), Example(9, "1:b", 4, True, 1.0, 0.1, z)
    change = msgspec.structs.replace

    def posterior(*kept: Example, time_ms: int = 9, **more: Any) -> Posterior:
        return Posterior(more.pop("mode", mode), time_ms, Kept.of(kept), **more)

    folded: dict[str, Any] = {"folded": 3, "precision": mode, "linear": mode}
    right = [posterior(first, last), posterior(), posterior(first, change(last, time_ms=5))]
    for each in (*right, posterior(last, **folded)):
        assert codec.decode_posterior(codec.encode_posterior(each)) == each
    infinite = struct.pack("<2d", 1.0, math.inf)
    wrong = [
        posterior(last, first),
        posterior(first, first),
        posterior(change(last, time_ms=5), first),
        posterior(first, last, time_ms=8),
        posterior(change(first, time_ms=-1), last),
        posterior(change(first, kind=0)),
        posterior(change(first, kind=5)),
        posterior(change(first, weight=0.0)),
        posterior(change(first, weight=-0.5)),
        posterior(change(first, weight=math.nan)),
        posterior(change(first, offset=-math.inf)),
        posterior(change(first, z=struct.pack("<2f", 1.0, math.nan))),
        posterior(change(first, z=z * 2)),
        posterior(first, mode=infinite),
        posterior(first, mode=mode[:12]),
        posterior(first, **{**folded, "precision": infinite}),
        posterior(first, **{**folded, "linear": infinite}),
        posterior(first, **{**folded, "precision": mode + mode[:8]}),
        posterior(first, **{**folded, "linear": b""}),
        posterior(first, **{**folded, "folded": 0}),
        posterior(first, **{**folded, "folded": -1}),
    ]
    for each in wrong:
        with pytest.raises(StateError, match="damaged"):
            codec.decode_posterior(codec.encode_posterior(each))
