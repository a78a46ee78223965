"""Trees: the table of nodes, the compiled walk, explanations."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ModelError
from stream.model.folder import MANIFEST, GlobalModel, load_model, new_model, save_model
from stream.model.kind import FILES
from stream.model.trees import MOST_DEPTH, NODE, Table, Trees, constant, joined, with_means
from tests.model.test_linear import SPAN

COLUMNS = 3
NAMES = {"global": ["a", "b", "c"], "per_member": ["m"], "per_job": ["j"]}
Tree = tuple[Any, ...]  # (value,) of a leaf; (feature, threshold, missing, left, right) of a split

# Few numbers, so that rows often lie on a threshold; two around what LightGBM takes for zero.
NUMBERS = [0.0, -0.0, 1e-35, -1e-35, 2e-35, 0.1, -1.5, 3.0]
numbers = st.sampled_from([float(np.float32(number)) for number in NUMBERS])
leaves = st.tuples(st.floats(-4, 4))
trees = st.recursive(
    leaves,
    lambda below: st.tuples(st.integers(0, COLUMNS - 1), numbers, st.integers(0, 3), below, below),
    max_leaves=8,
)
rows = st.lists(numbers | st.just(math.nan), min_size=COLUMNS, max_size=COLUMNS)


def table_of(tree: Tree) -> Table:
    """Write a tree as a table: a node, what is left of it, what is right of it."""
    if len(tree) == 1:
        return constant(tree[0])
    feature, threshold, missing, left, right = tree
    sides = [table_of(left), table_of(right)]
    table = np.zeros(1 + sum(map(len, sides)), NODE)
    table[0] = (0, feature, threshold, 1, 1 + len(sides[0]), missing, 0.0)
    table[1:] = joined(sides)
    for side in ("left", "right"):
        below = table[side][1:]
        below[below >= 0] += 1
    table["tree"] = 0
    return table


def walked(tree: Tree, row: list[float]) -> float:
    """Value of the leaf that a row comes to, as the format says it in words."""
    if len(tree) == 1:
        return float(tree[0])
    feature, threshold, missing, left, right = tree
    number = row[feature]
    if math.isnan(number) or (missing >= 2 and abs(number) <= 1e-35):
        return walked(left if missing in {1, 3} else right, row)
    return walked(left if number <= threshold else right, row)


def stumps() -> Table:
    """Two trees of one split each, after a constant."""
    return joined([constant(0.5), *map(table_of, [(0, 1.0, 0, (1.0,), (2.0,))] * 2)])


@given(st.lists(trees, min_size=1, max_size=4), st.lists(rows, min_size=1, max_size=5))
def test_the_compiled_walk_is_a_walk(forest: list[Tree], found: list[list[float]]) -> None:
    """One row or many, from bytes or arrays: the sum of the leaves that a plain walk comes to."""
    scorer = Trees(joined([table_of(tree) for tree in forest]), COLUMNS)
    X = np.array(found, np.float32)
    at_once = scorer.score_all(X)
    for row, score in zip(X, at_once.tolist(), strict=True):
        wanted = 0.0
        for tree in forest:
            wanted += walked(tree, row.tolist())
        assert scorer.score(row.tobytes()) == score == wanted


def attributed(table: Table, row: list[float]) -> list[float]:
    """Changes of the value on a row's way by column, and the roots', by a plain walk."""
    found = [0.0] * (COLUMNS + 1)
    nodes = table.tolist()
    for at, (tree, *_) in enumerate(nodes):
        if at and nodes[at - 1][0] == tree:
            continue
        found[-1] += nodes[at][-1]
        below = at
        while (here := nodes[below])[1] >= 0:
            _, feature, threshold, left, right, missing, value = here
            number = float(np.float32(row[feature]))
            goes_left = number <= threshold
            if math.isnan(number) or (missing >= 2 and abs(number) <= 1e-35):
                goes_left = missing in {1, 3}
            below = left if goes_left else right
            found[feature] += nodes[below][-1] - value
    return found


@given(st.lists(trees, min_size=1, max_size=4), rows)
def test_contributions_sum_to_the_score(forest: list[Tree], row: list[float]) -> None:
    """What columns add, and what is so without any, is the score; what is not asked adds 0."""
    table = joined([with_means(one, np.ones(len(one))) for one in map(table_of, forest)])
    scorer = Trees(table, COLUMNS)
    x = np.array(row, np.float32)
    found = scorer.contributions(x)
    assert found.sum() == pytest.approx(scorer.score(x.tobytes()), abs=1e-12)
    assert found.tolist() == pytest.approx(attributed(table, row), abs=1e-12)
    both = scorer.contributions_all(np.array([row, row[::-1]], np.float32))
    reversed_ = scorer.contributions(x[::-1])
    assert both.tolist() == [found.tolist(), reversed_.tolist()]
    for column in set(range(COLUMNS)) - set(table["feature"].tolist()):
        assert found[column] == 0.0


def test_a_contribution_is_what_the_mean_of_the_leaves_changes_by() -> None:
    """Worked by hand: leaves 1 (of 3 examples), 2 (of 1), 10 (of 4)."""
    table = table_of((0, 0.0, 0, (1, 5.0, 0, (1.0,), (2.0,)), (10.0,)))
    table = with_means(table, np.array([0.0, 0.0, 3.0, 1.0, 4.0]))
    assert table["value"].tolist() == [5.625, 1.25, 1.0, 2.0, 10.0]
    found = Trees(table, 2).contributions(np.array([-1.0, 9.0], np.float32))
    assert found.tolist() == [1.25 - 5.625, 2.0 - 1.25, 5.625]


def made(table: Table) -> GlobalModel:
    """Return a model of trees."""
    return new_model(Trees(table, COLUMNS), NAMES, **SPAN)


def test_a_folder_of_trees_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Scores, contributions by name and the version survive; other trees are another version."""
    model = made(stumps())
    save_model(tmp_path / "m", model)
    found = load_model(tmp_path / "m")
    assert found.manifest == model.manifest
    assert found.manifest.kind == "boosted"
    x = np.array([1.0, 0.0, 0.0], "<f4")
    assert found.score(x.tobytes()) == 2.5
    assert found.contributions(x) == [("a", 2.0), ("b", 0.0), ("c", 0.0), ("", 0.5)]
    other = stumps()
    other["threshold"][1] = 1.5
    assert made(other).version != model.version == made(stumps()).version


def test_a_row_of_another_size_is_not_walked() -> None:
    """The walk would read what is not there."""
    scorer = Trees(stumps(), COLUMNS)
    with pytest.raises(ModelError, match="2 numbers to score, the model has 3"):
        scorer.score(bytes(8))
    with pytest.raises(ModelError, match="4 numbers a row, the model has 3"):
        scorer.score_all(np.zeros((1, 4), np.float32))


def _chain(depth: int) -> Table:
    """Return a tree in which a row may ask so many nodes."""
    table = np.zeros(2 * depth + 1, NODE)
    splits = np.arange(depth) * 2
    table["left"][splits], table["right"][splits] = splits + 1, splits + 2
    ends = np.append(splits + 1, 2 * depth)
    for field in ("feature", "left", "right"):
        table[field][ends] = -1
    return table


def _set(field: str, at: int, value: float) -> Callable[[Table], object]:
    def change(table: Table) -> None:
        table[field][at] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("tree", 0, 1), "not numbered from 0"),
        (_set("tree", -1, 4), "not numbered from 0"),
        (_set("threshold", 1, math.nan), "not finite"),
        (_set("value", 0, math.inf), "not finite"),
        (_set("value", slice(None), 1e308), "not finite"),  # type: ignore[arg-type]
        (_set("feature", 1, -1), "half a leaf"),
        (_set("left", 1, -1), "half a leaf"),
        (_set("feature", 2, 0), "half a leaf"),
        (_set("feature", 1, 3), "asks column 3, the model has 3"),
        (_set("missing", 1, 4), "missing values"),
        (_set("left", 1, 1), "after the one above"),
        (_set("left", 4, 2), "after the one above"),
        (_set("right", 4, 7), "after the one above"),
        (_set("left", 1, 5), "in another tree"),
        (_set("left", 1, 3), "below none, or below several"),
    ],
)
def test_damaged_trees_are_refused(change: Callable[[Table], object], says: str) -> None:
    """Whatever breaks a rule of the format is named in one line; nothing is walked."""
    table = stumps()
    change(table)
    with pytest.raises(ModelError, match=says) as error:
        Trees(table, COLUMNS)
    assert "\n" not in str(error.value)


def test_there_are_trees_and_they_are_not_too_deep() -> None:
    """No nodes, and a chain beyond what a score may take, are refused."""
    with pytest.raises(ModelError, match="no nodes"):
        Trees(np.zeros(0, NODE), COLUMNS)
    assert Trees(_chain(MOST_DEPTH), 1).score(bytes(4)) == 0.0
    with pytest.raises(ModelError, match="deeper than"):
        Trees(_chain(MOST_DEPTH + 1), 1)


def _bytes(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"x", _bytes(stumps())[:-1], _bytes(np.zeros(3)), _bytes(stumps()[None]),
     _bytes(np.array([{}], object))],
)  # fmt: skip
def test_what_is_no_table_is_refused(data: bytes) -> None:
    """Cut short, of another type or shape, or a pickle: one line, and nothing is executed."""
    with pytest.raises(ModelError, match="its trees are damaged") as error:
        Trees.decoded(data, COLUMNS)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    """A missing file, another checksum, a source of columns that this release has not."""
    save_model(tmp_path / "m", made(stumps()))
    manifest = msgspec.json.decode((tmp_path / "m" / MANIFEST).read_bytes())
    manifest["inputs"] = ["global", "weather"]
    (tmp_path / "m" / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(ModelError, match="takes global, weather, this release global, history"):
        load_model(tmp_path / "m")
    manifest["inputs"] = ["global"]
    (tmp_path / "m" / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    trees = tmp_path / "m" / FILES["boosted"]
    trees.write_bytes(trees.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="checksum"):
        load_model(tmp_path / "m")
    trees.unlink()
    with pytest.raises(ModelError, match="no model folder"):
        load_model(tmp_path / "m")
