"""A first spec of a log's attributes: what is there, what it tells alone, and what is left out.

An attribute that tells too much is left out by name: it was written once the answer was known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.check.attributes import Attribute, Sample, auc_alone, numbers_of, tokens_of
from stream.features.values import as_time_ms, as_words

TELLING_AUC: Final = 0.9
"""An attribute that alone has a larger AUC was written afterwards."""

_MOSTLY: Final = 0.9  # of the values are of the type that counts
_RARE: Final = 0.01  # of the applications have it: too few to learn from
_MISSING: Final = 0.01  # of the applications lack it: worth a column
_ONE_SIDED: Final = 0.02  # of those that have it are not as the others
_EXPECTED: Final = 10.0  # but so many should be
_OWN: Final = 0.5  # of the members (or jobs) have a value of their own: a name, or a number of it
_FEW_ENTITIES: Final = 20  # of which each may well have its own value
_COLUMNS: Final = 64  # of frequent terms; more are hashed
_WORDS: Final = 3.0  # on average; a longer text is read word by word
_SKEWED: Final = 1.0
_COMMON: Final = 0.3  # of the job's values are said by members too: they can be compared
_FIRST_MS: Final = 0  # of what may be a date, as a number: 1970 ...
_LAST_MS: Final = 4_102_444_800_000  # ... to 2100
_OF_TYPE: Final = {"number": (int, float, bool), "terms": (list,), "text": (str,)}


class Suggestion(NamedTuple):
    """A spec as text, how many features it has, and what it leaves out: attributes, and why."""

    text: str
    features: int
    left_out: list[tuple[str, str]]


class _Taken(msgspec.Struct, frozen=True):
    """An attribute that the spec takes; ``said``: its different texts."""

    path: str
    kind: str
    said: frozenset[str]
    options: list[str]
    comment: str

    @property
    def side(self) -> str:
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        return re.sub(r"[^A-Za-z0-9_-]", "_", self.path)[:64]


def suggest(sample: Sample) -> Suggestion:
    """Write a first spec for what was read."""
    taken: list[_Taken] = []
    left_out: list[tuple[str, str]] = []
    for one in sample.attributes():
        kind = _kind(one)
        tokens = tokens_of(kind, one.values, sample.times_ms)
        auc = auc_alone([tokens[at] for at in np.flatnonzero(sample.closed)], sample.outcomes)
        why = _why_not(one, kind, tokens, auc, sample)
        if why:
            left_out.append((one.path, why))
        else:
            taken.append(_take(one, kind, tokens, auc, sample))
    lines = _head(sample, left_out)
    names: set[str] = set()
    for feature in taken:
        of, blocks = _toml(feature.path), _BLOCKS[feature.side]
        if feature.kind in {"category", "terms", "text"}:
            blocks = ("global",)
        lines += _table(
            feature.name, feature.kind, of, blocks, feature.options, feature.comment, names
        )
    for first, second, by in _matches(taken):
        of = _toml([first.path, second.path])
        options, comment = [f"by = {_toml(by)}"], "how the two lie to each other"
        name = f"{first.name}_{second.name}"[:64]
        # Within one job a difference says no more than the member's own number, and vice versa.
        blocks = ("global",) if by == ["difference"] else _BLOCKS["both"]
        lines += _table(name, "match", of, blocks, options, comment, names)
    return Suggestion("\n".join(lines) + "\n", len(names), left_out)


_BLOCKS: Final = {
    "member": ("global", "per_job"),
    "job": ("global", "per_member"),
    "context": ("global",),
    "both": ("global", "per_member", "per_job"),
}
"""Where a number goes: the job's own for the member's model, and the other way round."""


def _kind(one: Attribute) -> str:
    """Tell the kind of an attribute's feature; "": values of several types."""
    values = [value for value in one.values if value is not None]
    of = next(
        (
            kind
            for kind, types in _OF_TYPE.items()
            if sum(isinstance(value, types) for value in values) >= _MOSTLY * len(values)
        ),
        "",
    )
    if of == "number" and all(
        type(value) is int and value > _LAST_MS // 10_000 for value in values
    ):
        times = [as_time_ms(value) or 0 for value in values]
        if all(_FIRST_MS < time_ms < _LAST_MS for time_ms in times):
            return "date"
    if of != "text":
        return of
    if sum(as_time_ms(value) is not None for value in values) >= _MOSTLY * len(values):
        return "date"
    words = sum(len(as_words(value)) for value in values) / len(values)
    return "text" if words > _WORDS else "category"


def _why_not(
    one: Attribute, kind: str, tokens: list[tuple[Any, ...]], auc: float, sample: Sample
) -> str:
    """Say why an attribute is left out; "": it is not."""
    filled = one.filled
    share = float(filled.mean())
    if not kind:
        return "values of several types"
    different = len({token for of_one in tokens for token in of_one})
    if kind in {"category", "number"} and different == 1 and share == 1.0:
        return "always the same"
    if auc > TELLING_AUC:
        return f"alone it has an AUC of {auc:.2f}: it was written once the answer was known"
    closed = filled[sample.closed]
    count, answered = int(closed.sum()), int(sample.outcomes[closed].sum())
    rate = float(sample.outcomes.mean()) if len(sample.outcomes) else 0.0
    if count * (1 - rate) >= _EXPECTED and count - answered <= _ONE_SIDED * count * (1 - rate):
        return "it is there only where there was an answer: it was written afterwards"
    if count * rate >= _EXPECTED and answered <= _ONE_SIDED * count * rate:
        return "it is there only where there was no answer: it was written afterwards"
    if share < _RARE:
        return f"only {share:.1%} of the applications have it"
    own = one.distinct > _OWN * one.entities and one.entities >= _FEW_ENTITIES
    if own and (kind == "category" or (kind == "number" and one.path.lower().endswith("id"))):
        return "nearly every one is another: a name or a number of its own"
    return ""


def _take(
    one: Attribute, kind: str, tokens: list[tuple[Any, ...]], auc: float, sample: Sample
) -> _Taken:
    share = float(one.filled.mean())
    options, said = [], frozenset[str]()
    about = [f"{share:.0%} have it"]
    if kind in {"number", "date"}:
        numbers = numbers_of(kind, one.values, sample.times_ms)
        numbers = numbers[~np.isnan(numbers)]
        unit = " days old" if kind == "date" else ""
        about.append(
            f"{_short(numbers.min())} to {_short(numbers.max())}{unit}, half below"
            f" {_short(np.median(numbers))}"
        )
        if numbers.min() >= 0.0 and _skewness(numbers) > _SKEWED:
            options.append("log1p = true")
        if set(np.unique(numbers)) <= {0.0, 1.0}:
            options.append("standardise = false")
    else:
        said = frozenset(token for of_one in tokens for token in of_one)
        about.append(f"{len(said):,} different")
    if share < 1.0 - _MISSING and kind in {"number", "date", "category"}:
        options.append("missing = true")
    if kind == "terms" and len(said) > _COLUMNS:
        options.append("hashed = 32")
    about.append(f"alone an AUC of {auc:.2f}")
    return _Taken(one.path, kind, said, options, "; ".join(about))


def _matches(taken: list[_Taken]) -> Iterator[tuple[_Taken, _Taken, list[str]]]:
    """Pairs of a member's and a job's attribute that can be compared, and by what."""
    members = [one for one in taken if one.side == "member"]
    jobs = [one for one in taken if one.side == "job"]
    for member in members:
        for job in jobs:
            if {member.kind, job.kind} <= {"number"}:
                if _words_of(member.path) & _words_of(job.path):
                    yield member, job, ["difference"]
            elif member.said and len(member.said & job.said) >= _COMMON * len(job.said) > 0:
                both = {member.kind, job.kind}
                yield member, job, ["equal"] if both == {"category"} else ["overlap"]


def _words_of(path: str) -> set[str]:
    """What a name consists of: ``job.min_years`` of ``min`` and ``years``."""
    return {
        word for word in re.split(r"[^a-z0-9]+", path.partition(".")[2].lower()) if len(word) > 2
    }


def _toml(value: object) -> str:
    """Text, or texts, as TOML has them: as JSON, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _short(number: float) -> str:
    return f"{round(number, 1):.6g}"


def _skewness(numbers: NDArray[np.float64]) -> float:
    deviation = numbers.std()
    if not deviation > 0.0:
        return 0.0
    return float((((numbers - numbers.mean()) / deviation) ** 3).mean())


def _head(sample: Sample, left_out: list[tuple[str, str]]) -> list[str]:
    kept = f", of which {len(sample.times_ms):,} were looked at" if sample.share > 1 else ""
    lines = [
        f"# Suggested by hearback features suggest from {sample.total:,} applications{kept};",
        f"# {len(sample.outcomes):,} of them have a closed window. docs/features.md has all kinds.",
    ]
    if left_out:
        lines += ["#", "# Left out:"]
        lines += [f"#   {_toml(path)}: {why}" for path, why in left_out]
    return lines


def _table(
    name: str,
    kind: str,
    of: str,
    blocks: tuple[str, ...],
    options: list[str],
    comment: str,
    names: set[str],
) -> list[str]:
    """Write the table of a feature, under a name that none before it has."""
    own, number = name, 2
    while own in names:
        own, number = f"{name[:60]}_{number}", number + 1
    names.add(own)
    return [
        "",
        f"[features.{own}]  # {comment}",
        f'kind = "{kind}"',
        f"of = {of}",
        *options,
        f"blocks = {_toml(blocks)}",
    ]
