"""Features of attributes: held against scikit-learn and plain loops, and against any JSON."""

from __future__ import annotations

import copy
import json
from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from stream.features.fitting import FittedSpec, SpecFitter
from stream.features.making import Maker
from stream.features.spec import parse_spec

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


class Said(NamedTuple):
    """What an application says."""

    member: dict[str, Any]
    job: dict[str, Any]
    context: dict[str, Any]
    time_ms: int


def fitted(text: str, rows: list[Said]) -> Maker:
    """Learn a spec of rows, and write and read what was learned."""
    fitter = SpecFitter(parse_spec(text))
    for row in rows:
        fitter.add(*row)
    found = fitter.fitted()
    stored = msgspec.json.decode(msgspec.json.encode(found), type=FittedSpec)
    assert stored == found
    return Maker(stored)


def columns(maker: Maker, rows: list[Said], block: int = 0) -> dict[str, NDArray[np.float32]]:
    """Make a block of rows; return its columns by name."""
    X = np.array([np.frombuffer(maker.blocks(*row)[block], "<f4") for row in rows])
    names = list(maker.names.values())[block]
    assert X.shape == (len(rows), len(names))
    return {name: X[:, at] for at, name in enumerate(names)}


def said(member: dict[str, Any], job: dict[str, Any] | None = None, time_ms: int = NOW_MS) -> Said:
    """Tell what a member says, and a job."""
    return Said(member, job or {}, {}, time_ms)


def standardised(values: Any) -> NDArray[np.float64]:
    """Scale a column (n, 1) as scikit-learn does."""
    scaler: Any = StandardScaler()  # type: ignore[no-untyped-call]
    found: NDArray[np.float64] = scaler.fit_transform(values)
    return found


def test_numbers_are_those_of_scikit_learn() -> None:
    """Clipped, as logarithms, standardised by the rows that have them; one column: who has none."""
    rng = Random(1)
    draws = [(None, rng.lognormvariate(3, 2), rng.randrange(-9, 40)) for _ in range(500)]
    values = [rng.choice(three) for three in draws]
    rows = [said({} if value is None else {"x": value}) for value in values]
    spec = """
    [features.plain]
    kind = "number"
    of = "member.x"
    [features.full]
    kind = "number"
    of = "member.x"
    clip = [-5, 100]
    log1p = true
    missing = true
    [features.raw]
    kind = "number"
    of = "member.x"
    standardise = false
    """
    found = columns(fitted(spec, rows), rows)
    x = np.array([np.nan if value is None else value for value in values])[:, None]
    clipped = np.clip(x, -5, 100)
    logs = np.sign(clipped) * np.log1p(np.abs(clipped))
    for name, raw in (("plain", x), ("full", logs)):
        scaled = np.nan_to_num(np.clip(standardised(raw), -10, 10))
        assert found[name] == pytest.approx(scaled[:, 0], rel=1e-6, abs=1e-6)
    assert found["full.missing"].tolist() == [float(value is None) for value in values]
    assert found["raw"] == pytest.approx(np.nan_to_num(x[:, 0]), rel=1e-6)
    assert set(found["intercept"]) == {1.0}


def test_categories_are_those_of_scikit_learn() -> None:
    """A column for each of the most frequent, one for the rest, also for what is new."""
    rng = Random(2)
    values = [rng.choices("abcdefgh", weights=range(1, 9))[0] for _ in range(400)]
    spec = """
    [features.c]
    kind = "category"
    of = "member.c"
    most = 4
    missing = true
    """
    rows = [said({"c": value}) for value in values]
    maker = fitted(spec, rows)
    oracle: Any = OneHotEncoder(  # type: ignore[no-untyped-call]
        max_categories=5, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    want = oracle.fit_transform([[value] for value in values])
    rare = set(oracle.infrequent_categories_[0])
    frequent = [str(one) for one in oracle.categories_[0] if one not in rare]
    names = [f"c={one}" for one in frequent] + ["c.other"]
    assert maker.names["global"] == ["intercept", *names, "c.missing"]
    found = columns(maker, rows)
    assert np.array([found[name] for name in names]).T.tolist() == want.tolist()
    new = columns(maker, [said({"c": "new"}), said({}), said({"c": None}), said({"c": [1]})])
    assert new["c.other"].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert new["c.missing"].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_numbers_and_truth_values_are_categories_too() -> None:
    """A code that one producer sends as 7 and another as "7" is one category."""
    spec = """
    [features.c]
    kind = "category"
    of = "member.c"
    least = 1
    """
    rows = [said({"c": value}) for value in ("7", 7, 7.0, True, "true", 2.5)]
    maker = fitted(spec, rows)
    assert maker.names["global"][1:] == ["c=2.5", "c=7", "c=true", "c.other"]
    assert columns(maker, rows)["c=7"].tolist() == [1, 1, 1, 0, 0, 0]


def test_terms_are_a_bag_and_the_rest_is_hashed() -> None:
    """Plain loops give the same: frequent terms by name, others by their checksum."""
    rng = Random(3)
    words = [f"w{k}" for k in range(30)]
    lists = [rng.choices(words, weights=range(30, 0, -1), k=rng.randrange(6)) for _ in range(300)]
    spec = """
    [features.t]
    kind = "terms"
    of = "job.t"
    most = 8
    hashed = 4
    """
    rows = [said({}, {"t": terms}) for terms in lists]
    maker = fitted(spec, rows)
    counts = Counter(term for terms in lists for term in set(terms))
    frequent = sorted(sorted(counts, key=lambda term: (-counts[term], term))[:8])
    want = []
    for terms in lists:
        row = [float(term in terms) for term in frequent] + [0.0] * 4
        for term in set(terms) - set(frequent):
            row[8 + crc32(term.encode()) % 4] = 1.0
        want.append(row)
    found = columns(maker, rows)
    names = [f"t={term}" for term in frequent] + [f"t.hash{k}" for k in range(4)]
    assert np.array([found[name] for name in names]).T.tolist() == want
    assert columns(maker, [said({}, {"t": frequent[0]})])[f"t={frequent[0]}"].tolist() == [1.0]


def test_texts_are_words_of_unit_length() -> None:
    """Case and punctuation do not count; the columns of a text have length 1, of none length 0."""
    texts = ["Data analyst, DATA!", "analyst (m/f)", "", "nurse", "Data"]
    spec = """
    [features.w]
    kind = "text"
    of = "job.title"
    most = 2
    least = 2
    hashed = 3
    """
    rows = [said({}, {"title": text}) for text in texts]
    maker = fitted(spec, rows)
    assert maker.names["global"][1:3] == ["w=analyst", "w=data"]
    found = columns(maker, rows)
    want = []
    for words in (["data", "analyst", "data"], ["analyst", "m", "f"], [], ["nurse"], ["data"]):
        row = [float(words.count("analyst")), float(words.count("data")), 0.0, 0.0, 0.0]
        for word in set(words) - {"analyst", "data"}:
            row[2 + crc32(word.encode()) % 3] += words.count(word)
        length = np.linalg.norm(row)
        want.append([value / length if length else 0.0 for value in row])
    assert pytest.approx(np.array(want), abs=1e-6) == np.array(list(found.values())[1:]).T


def test_dates_have_an_age_and_a_weekday() -> None:
    """ISO 8601 with a zone or without, seconds and milliseconds are the same day."""
    posted = datetime(2023, 11, 1, 12, tzinfo=UTC)
    ways: list[Any] = [
        "2023-11-01T12:00:00Z",
        "2023-11-01T13:00:00+01:00",
        "2023-11-01T12:00:00",
        posted.timestamp(),
        int(posted.timestamp() * 1000),
    ]
    spec = """
    [features.d]
    kind = "date"
    of = "job.d"
    parts = ["age", "weekday"]
    standardise = false
    missing = true
    [features.applied]
    kind = "date"
    of = "event_time"
    parts = ["weekday"]
    """
    rows = [said({}, {"d": way}) for way in ways] + [said({}, {"d": "soon"}), said({})]
    found = columns(fitted(spec, rows), rows)
    days = (NOW_MS - posted.timestamp() * 1000) / DAY_MS
    assert found["d.age"] == pytest.approx([days] * 5 + [0.0] * 2, rel=1e-6)
    assert found["d.wednesday"].tolist() == [1.0] * 5 + [0.0] * 2
    assert found["d.missing"].tolist() == [0.0] * 5 + [1.0] * 2
    assert found["applied.tuesday"].tolist() == [1.0] * 7  # 2023-11-14


PAIRS: list[tuple[Any, Any, float | None, float | None, float | None]] = [
    ("Berlin", "berlin ", 1.0, 1.0, 1.0),
    ("data analyst", "Senior Data Analyst", 0.0, 2 / 3, 2 / 3),
    (["sql", "Python"], ["python", "c"], 0.0, 0.5, 1 / 3),
    (["sql"], "needs SQL and more", 0.0, 0.25, 0.25),
    (["a", "b"], ["b", "a"], 1.0, 1.0, 1.0),
    ("x", "y", 0.0, 0.0, 0.0),
    (None, "y", None, None, None),
    ([], ["y"], None, None, None),
    ({"a": 1}, ["y"], None, None, None),
]


def test_matches_are_those_of_plain_loops() -> None:
    """Equal, overlap and Jaccard of words and lists, standardised; unknown is the average."""
    spec = """
    [features.m]
    kind = "match"
    of = ["member.x", "job.x"]
    by = ["jaccard", "equal", "overlap"]
    """
    rows = [said({"x": one}, {"x": other}) for one, other, *_ in PAIRS]
    found = columns(fitted(spec, rows), rows)
    for at, by in enumerate(("equal", "overlap", "jaccard")):
        want = np.array([[np.nan if row[2 + at] is None else row[2 + at]] for row in PAIRS], float)
        scaled = np.nan_to_num(standardised(want))[:, 0]
        assert found[f"m.{by}"] == pytest.approx(scaled, abs=1e-6)


def test_differences_are_of_numbers_and_of_dates() -> None:
    """The first less the second, in days of dates; what cannot be subtracted is the average."""
    spec = """
    [features.m]
    kind = "match"
    of = ["member.x", "job.x"]
    by = ["difference"]
    """
    pairs: list[tuple[Any, Any]] = [
        (5, 2),
        (1, 2.5),
        ("2024-01-03", "2024-01-01"),
        (1, "x"),
        (3, None),
    ]
    rows = [said({"x": one}, {"x": other}) for one, other in pairs]
    found = columns(fitted(spec, rows), rows)["m.difference"]
    scaled = standardised([[3.0], [-1.5], [2.0]])[:, 0]
    assert found == pytest.approx([*scaled, 0.0, 0.0], abs=1e-6)


def test_a_cross_is_every_product() -> None:
    """Columns of one feature times those of another, which need not be in any block themselves."""
    rng = Random(4)
    rows = [said({"c": rng.choice("abc"), "n": rng.gauss(2, 3)}) for _ in range(200)]
    spec = """
    [features.c]
    kind = "category"
    of = "member.c"
    blocks = []
    [features.n]
    kind = "number"
    of = "member.n"
    blocks = ["per_job"]
    [features.both]
    kind = "cross"
    of = ["c", "n"]
    blocks = ["global", "per_job"]
    """
    maker = fitted(spec, rows)
    found, alone = columns(maker, rows), columns(maker, rows, 2)["n"]
    assert list(found) == ["intercept", *(f"both:c={c}*n" for c in "abc"), "both:c.other*n"]
    for c in "abc":
        is_c = np.array([row.member["c"] == c for row in rows])
        assert found[f"both:c={c}*n"].tolist() == np.where(is_c, alone, 0.0).tolist()
    assert list(columns(maker, rows, 2)) == ["intercept", "n", *list(found)[1:]]
    assert list(columns(maker, rows, 1)) == ["intercept"]


def test_what_stands_within_an_attribute_has_a_path() -> None:
    """Objects within objects are reached by dots."""
    spec = """
    [features.city]
    kind = "category"
    of = "member.address.city"
    least = 1
    """
    rows = [said({"address": {"city": "Bonn"}}), said({"address": "Bonn"}), said({})]
    found = columns(fitted(spec, rows), rows)
    assert found["city=Bonn"].tolist() == [1.0, 0.0, 0.0]


def test_terms_of_members_are_their_terms() -> None:
    """What members list is counted among what jobs prefer, under the attribute's own name."""
    spec = """
    [features.s]
    kind = "terms"
    of = "member.profile.skill"
    blocks = []
    [features.asked]
    kind = "terms"
    of = "job.skill"
    """
    maker = fitted(spec, [said({"profile": {"skill": ["a"]}})])
    assert maker.terms({"profile": {"skill": ["b", "a", "b", 7, None, {}]}}) == {
        "skill": ["b", "a", "7"]
    }
    assert maker.terms({"profile": {"skill": []}}) == {}
    many = maker.terms({"profile": {"skill": [*map(str, range(99))]}})
    assert len(many["skill"]) == 64


def test_rare_texts_are_forgotten_where_there_are_very_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory is bounded; the frequent ones are found all the same."""
    monkeypatch.setattr("stream.features.fitting.MOST_COUNTED", 50)
    spec = """
    [features.c]
    kind = "category"
    of = "member.c"
    """
    values = ["often"] * 400 + [f"rare{k}" for k in range(400)]
    Random(5).shuffle(values)
    maker = fitted(spec, [said({"c": value}) for value in values])
    assert maker.names["global"] == ["intercept", "c=often", "c.other"]


def test_what_was_missing_or_odd_is_counted() -> None:
    """Of the rows that were learned from, and by feature."""
    spec = """
    [features.n]
    kind = "number"
    of = "member.n"
    """
    values = [1, None, "x", [2], "", 3.5, True]
    found = fitted(spec, [said({"n": value}) for value in values]).fitted.features[0]
    assert (found.rows, found.missing, found.odd) == (7, 2, 2)


EVERYTHING = """
[features.number]
kind = "number"
of = "member.a"
blocks = ["global", "per_job"]
missing = true
[features.logs]
kind = "number"
of = "job.a"
log1p = true
standardise = false
[features.date]
kind = "date"
of = "job.b"
parts = ["age", "weekday"]
missing = true
blocks = ["per_member", "global"]
[features.category]
kind = "category"
of = "member.b"
least = 1
missing = true
[features.terms]
kind = "terms"
of = "member.c"
least = 1
hashed = 3
[features.text]
kind = "text"
of = "context.a.b"
most = 3
least = 1
hashed = 3
[features.match]
kind = "match"
of = ["member.a", "job.a"]
by = ["equal", "overlap", "jaccard", "difference"]
blocks = ["global", "per_member", "per_job"]
[features.cross]
kind = "cross"
of = ["number", "match"]
"""

ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["2024-01-31", "2024-01-31T12:00Z", "a b", "1e400"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)
SIDE = st.dictionaries(st.sampled_from("abc"), ANY)
ROWS = st.lists(st.builds(Said, SIDE, SIDE, SIDE, st.integers(0, 253_402_300_799_999)), max_size=6)


@given(ROWS, ROWS)
def test_any_json_gives_finite_numbers(learned: list[Said], rows: list[Said]) -> None:
    """Nothing in attributes is an error, in learning or later; inputs stay as they are."""
    fitter = SpecFitter(parse_spec(EVERYTHING))
    for row in learned:
        fitter.add(*row)
    maker = Maker(fitter.fitted())
    for row in (*learned, *rows):
        before = copy.deepcopy(row)
        blocks = maker.blocks(*row)
        maker.terms(row.member)
        assert repr(row) == repr(before)
        for block, names in zip(blocks, maker.names.values(), strict=True):
            x = np.frombuffer(block, "<f4")
            assert x.shape == (len(names),)
            assert np.isfinite(x).all()
            assert np.abs(x).max() <= 1e6
            assert x[0] == 1.0
        member, job, context = (dict(reversed(side.items())) for side in row[:3])
        assert maker.blocks(member, job, context, row.time_ms) == blocks


@given(ROWS)
def test_what_was_learned_is_read_as_it_was_written(learned: list[Said]) -> None:
    """A fitted spec survives its JSON, and makes the same numbers."""
    rows = [row for row in learned if _is_json(row)]
    maker = fitted(EVERYTHING, rows)
    fitter = SpecFitter(parse_spec(EVERYTHING))
    for row in rows:
        fitter.add(*row)
    fresh = Maker(fitter.fitted())
    assert [maker.blocks(*row) for row in rows] == [fresh.blocks(*row) for row in rows]


def _is_json(row: Said) -> bool:
    """Whether a message could have brought it: no half surrogates."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
