"""Takes over trees that XGBoost or LightGBM have grown, from the JSON that they write.

XGBoost's is what ``booster.save_model("model.json")`` writes, LightGBM's what
``json.dump(booster.dump_model(), file)`` does. Neither library is needed.

What differs from our trees (:mod:`stream.model.trees`):

- **XGBoost** keeps numbers as float32 and sends a row left where its number is *less* than the
  threshold: among float32 that is at most the next smaller one. ``base_score`` is a probability,
  but for ``binary:logitraw``. It sums in float32, so it differs in the seventh digit. After early
  stopping trees count up to ``best_iteration``, as ``XGBClassifier.predict`` has them.
- **LightGBM** keeps float64 and sends left what is at most the threshold. What is not a number is
  read as 0 where a node knows no missing values; ``zero_as_missing`` takes |x| ≤ 1e-35 for missing.
  Log-odds are the sum of the leaves times the ``sigmoid`` of the objective.

Means of splits, which only explain scores, weigh leaves by their Hessians (XGBoost) and by their
examples (LightGBM).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from stream.errors import ModelError
from stream.model.trees import NODE, Table, Trees, constant, joined, with_means
from stream.model.walk import MISSING_LEFT, ZERO_IS_MISSING

_Key = TypeVar("_Key")

_XGBOOST_OBJECTIVES: Final = ("binary:logistic", "reg:logistic", "binary:logitraw")
_RAW: Final = "binary:logitraw"  # whose base score is no probability
_NUMERICAL: Final = 0  # XGBoost's split_type; 1 is categorical


class Imported(NamedTuple):
    """What a file holds: a constant and trees that ask the library's columns, and their names.

    ``names`` None: the library knows its columns by number only.
    """

    library: str
    table: Table
    columns: int
    names: list[str] | None

    def over(self, block: Sequence[str]) -> Trees:
        """Return trees that ask a block of features.

        Raises:
            ModelError: the block lacks a feature of the model, or has others where the model knows
                them by number only.

        """
        if self.names is None:
            if len(block) != self.columns:
                raise ModelError(
                    f"the model names no features and has {self.columns}, the global block has"
                    f" {len(block)}: give the model feature names in {self.library}"
                )
            return Trees(self.table, len(block))
        at = {name: number for number, name in enumerate(block)}
        for name in self.names:
            if name not in at:
                raise ModelError(
                    f"the model has the feature {name[:64]!r}, the global block has not: it has"
                    f" {', '.join(block[:8])}{', …' if len(block) > 8 else ''}"
                )
        places = np.array([at[name] for name in self.names], np.int32)
        table = self.table.copy()
        asked = table["feature"] >= 0
        table["feature"][asked] = places[table["feature"][asked]]
        return Trees(table, len(block))


def read_model(data: bytes) -> Imported:
    """Read a model of XGBoost or LightGBM.

    Raises:
        ModelError: it is of neither, damaged, or has something that our trees have not.

    """
    try:
        either = msgspec.json.decode(data, type=_Either)
        if bytes(either.learner):
            return _xgboost(msgspec.json.decode(data, type=_XGBoost).learner)
        if bytes(either.tree_info):
            return _lightgbm(msgspec.json.decode(data, type=_LightGBM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"it is no JSON of XGBoost or LightGBM, or damaged: {error}; write it with"
            " booster.save_model('model.json'), or json.dump(booster.dump_model(), file)"
        ) from None
    raise ModelError(
        "it is neither a model of XGBoost (booster.save_model('model.json')) nor one of LightGBM"
        " (json.dump(booster.dump_model(), file))"
    )


class _Either(msgspec.Struct):
    """What tells the two apart."""

    learner: msgspec.Raw = msgspec.Raw()
    tree_info: msgspec.Raw = msgspec.Raw()


class _XGBoostTree(msgspec.Struct):
    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_conditions: list[float]
    default_left: list[bool | int]
    sum_hessian: list[float]
    split_type: list[int] = []


class _XGBoostTrees(msgspec.Struct):
    trees: list[_XGBoostTree]
    tree_info: list[int]
    gbtree_model_param: dict[str, str]


class _Booster(msgspec.Struct):
    name: str
    model: _XGBoostTrees | None = None


class _Objective(msgspec.Struct):
    name: str


class _Learner(msgspec.Struct):
    gradient_booster: _Booster
    learner_model_param: dict[str, str]
    objective: _Objective
    attributes: dict[str, str] = {}
    feature_names: list[str] = []


class _XGBoost(msgspec.Struct):
    learner: _Learner


def _xgboost(learner: _Learner) -> Imported:
    booster, objective = learner.gradient_booster, learner.objective.name
    if booster.name != "gbtree" or booster.model is None:
        raise ModelError(f"its booster is {booster.name}: only gbtree can be taken over")
    if objective not in _XGBOOST_OBJECTIVES:
        raise ModelError(
            f"its objective is {objective}: only {', '.join(_XGBOOST_OBJECTIVES)} give log-odds"
        )
    param = learner.learner_model_param
    if any(booster.model.tree_info) or _whole(param.get("num_target", "1")) > 1:
        raise ModelError("it has several outputs: only one outcome can be taken over")
    columns = _whole(param.get("num_feature", ""))
    trees = booster.model.trees
    if "best_iteration" in learner.attributes:
        at_once = _whole(booster.model.gbtree_model_param.get("num_parallel_tree", "1"))
        trees = trees[: (_whole(learner.attributes["best_iteration"]) + 1) * at_once]
    base = _margin(param.get("base_score", ""), raw=objective == _RAW)
    parts = [constant(base)]
    parts += [_xgboost_tree(tree) for tree in trees]
    names = learner.feature_names or None
    return _checked(Imported("XGBoost", joined(parts), columns, names))


def _xgboost_tree(tree: _XGBoostTree) -> Table:
    size = len(tree.left_children)
    each = (tree.right_children, tree.split_indices, tree.split_conditions, tree.default_left)
    if any(len(values) != size for values in (*each, tree.sum_hessian)):
        raise ModelError("it is damaged: a tree's arrays are not of one length")
    if any(kind != _NUMERICAL for kind in tree.split_type):
        raise ModelError("it splits by categories: only numerical splits can be taken over")
    conditions = np.array(tree.split_conditions).astype(np.float32)
    # Less than a float32 is at most the next smaller one.
    thresholds = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64).tolist()

    def described(at: int) -> _Leaf | _Split[int]:
        if not 0 <= at < size:
            raise ModelError("it is damaged: a node goes on to one that is not there")
        left, right = tree.left_children[at], tree.right_children[at]
        if left < 0:
            return _Leaf(float(conditions[at]), tree.sum_hessian[at])
        missing = MISSING_LEFT if tree.default_left[at] else 0
        return _Split(tree.split_indices[at], thresholds[at], missing, left, right)

    return _laid_out(0, described, most=size)


def _margin(text: str, *, raw: bool) -> float:
    """Log-odds of XGBoost's base score, a probability; newer releases write it in brackets."""
    try:
        base = float(text.strip("[]"))
        return base if raw else math.log(base / (1.0 - base))
    except (ValueError, ZeroDivisionError):
        raise ModelError(f"its base_score is {text[:32]!r}, no probability") from None


class _LightGBMNode(msgspec.Struct):
    """A leaf has a value; a split has two children."""

    leaf_value: float | None = None
    leaf_count: float = 0
    leaf_features: list[int] | None = None
    split_feature: int = -1
    threshold: float | str = 0.0
    decision_type: str = "<="
    default_left: bool = False
    missing_type: str = "None"
    left_child: _LightGBMNode | None = None
    right_child: _LightGBMNode | None = None


class _LightGBMTree(msgspec.Struct):
    tree_structure: _LightGBMNode


class _LightGBM(msgspec.Struct):
    tree_info: list[_LightGBMTree]
    feature_names: list[str]
    max_feature_idx: int
    num_class: int = 1
    num_tree_per_iteration: int = 1
    average_output: bool = False
    objective: str = ""


def _lightgbm(model: _LightGBM) -> Imported:
    if model.num_class != 1 or model.num_tree_per_iteration != 1:
        raise ModelError("it has several outputs: only one outcome can be taken over")
    if model.average_output:
        raise ModelError("it is a random forest, which averages its trees: only sums are log-odds")
    objective, *given = model.objective.split() or [""]
    options = dict(option.partition(":")[::2] for option in given)
    if objective not in {"binary", "cross_entropy"}:
        raise ModelError(
            f"its objective is {objective or 'unknown'}: only binary and cross_entropy give"
            " log-odds"
        )
    try:
        slope = float(options.get("sigmoid", "1"))
    except ValueError:
        raise ModelError(f"its objective is {model.objective!r}, which has no number") from None
    parts = [constant(0.0)]
    parts += [_lightgbm_tree(tree.tree_structure, slope) for tree in model.tree_info]
    columns, names = model.max_feature_idx + 1, model.feature_names
    numbered = names == [f"Column_{number}" for number in range(columns)]
    return _checked(Imported("LightGBM", joined(parts), columns, None if numbered else names))


def _lightgbm_tree(root: _LightGBMNode, slope: float) -> Table:
    def described(node: _LightGBMNode) -> _Leaf | _Split[_LightGBMNode]:
        if node.leaf_features is not None:
            raise ModelError("it has linear models in its leaves: only constants can be taken over")
        if node.leaf_value is not None:
            return _Leaf(node.leaf_value * slope, node.leaf_count)
        if node.left_child is None or node.right_child is None:
            raise ModelError("it is damaged: a node is neither a leaf nor a split")
        if node.decision_type != "<=" or isinstance(node.threshold, str):
            raise ModelError("it splits by categories: only numerical splits can be taken over")
        missing = MISSING_LEFT if node.default_left else 0
        if node.missing_type == "Zero":
            missing |= ZERO_IS_MISSING
        elif node.missing_type == "None":
            missing = MISSING_LEFT if node.threshold >= 0.0 else 0
        elif node.missing_type != "NaN":
            raise ModelError(f"it has a missing_type {node.missing_type[:32]!r}, which is unknown")
        children = node.left_child, node.right_child
        return _Split(node.split_feature, node.threshold, missing, *children)

    return _laid_out(root, described)


class _Leaf(NamedTuple):
    value: float
    weight: float


class _Split(NamedTuple, Generic[_Key]):
    feature: int
    threshold: float
    missing: int
    left: _Key
    right: _Key


def _laid_out(
    root: _Key, described: Callable[[_Key], _Leaf | _Split[_Key]], most: float = math.inf
) -> Table:
    """Lay a tree out as our table: a node, what is left of it, what is right of it.

    Args:
        root: where it begins. described: tells what a node is. most: nodes that it may have.

    """
    rows: list[tuple[int, int, float, int, int, int, float]] = []
    weights: list[float] = []
    above: list[tuple[_Key, int, str]] = [(root, -1, "left")]
    sides: dict[str, list[tuple[int, int]]] = {"left": [], "right": []}
    while above:
        key, parent, side = above.pop()
        at = len(rows)
        if at >= most:
            raise ModelError("it is damaged: a node is below several")
        if parent >= 0:
            sides[side].append((parent, at))
        node = described(key)
        if isinstance(node, _Leaf):
            rows.append((0, -1, 0.0, -1, -1, 0, node.value))
            weights.append(node.weight)
            continue
        if node.feature < 0:
            raise ModelError("it is damaged: a split asks no feature")
        rows.append((0, node.feature, node.threshold, -1, -1, node.missing, 0.0))
        weights.append(0.0)
        above += [(node.right, at, "right"), (node.left, at, "left")]
    table = np.array(rows, NODE)
    for side, pairs in sides.items():
        for parent, at in pairs:
            table[side][parent] = at
    return with_means(table, np.array(weights))


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ModelError(f"it is damaged: {text[:32]!r} should be a whole number") from None


def _checked(found: Imported) -> Imported:
    """Refuse what breaks a rule of our trees, and names that do not fit."""
    Trees(found.table, found.columns)
    if found.names is not None and len({*found.names}) != len(found.names):
        raise ModelError("it is damaged: its feature names repeat")
    if found.names is not None and len(found.names) != found.columns:
        raise ModelError(f"it has {found.columns} columns and {len(found.names)} names")
    return found
