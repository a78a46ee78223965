"""What becomes of attributes: the spec that a person writes, read and checked.

A spec is a TOML file with a table ``[features.NAME]`` for each feature: ``kind``, the attributes
that it is made ``of``, the ``blocks`` that it goes to, and what its kind takes (docs/features.md).
What is learned of the training rows stands in :mod:`stream.features.fitting`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from stream.errors import ConfigError
from stream.text import read_text

SIDES: Final = ("member", "job", "context")
"""Whose attributes there are."""

APPLIED: Final = "event_time"
"""Stands for an attribute: the time of the application."""

BLOCKS: Final = ("global", "per_member", "per_job")

BlockName = Literal["global", "per_member", "per_job"]
MatchBy = Literal["equal", "overlap", "jaccard", "difference"]
DatePart = Literal["age", "weekday"]

_Size = Annotated[int, msgspec.Meta(ge=0, le=4096)]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Feature(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """What all kinds have: the blocks that a feature goes to; none, if only crosses take it."""

    blocks: tuple[BlockName, ...] = ("global",)

    @property
    def paths(self) -> tuple[str, ...]:
        """The attributes that it is made of."""
        of: str | tuple[str, str] = self.of  # type: ignore[attr-defined]
        return (of,) if isinstance(of, str) else of


class Scale(_Feature, frozen=True, kw_only=True):
    """What is done to a number, in this order: ``clip``, ``log1p``, ``standardise``.

    ``log1p`` is sign(x)·ln(1 + |x|). ``missing``: one more column says where there is no number.
    """

    clip: tuple[float, float] | None = None
    log1p: bool = False
    standardise: bool = True
    missing: bool = False


class Number(Scale, frozen=True, kw_only=True, tag="number"):
    """A number, or true and false as 1 and 0."""

    of: str


class Date(Scale, frozen=True, kw_only=True, tag="date"):
    """A date or time: its age in days when the application was submitted; its day of the week."""

    of: str
    parts: tuple[DatePart, ...] = ("age",)


class Category(_Feature, frozen=True, kw_only=True, tag="category"):
    """One column for each of the ``most`` frequent texts, one for all others.

    A frequent one was there ``least`` times.
    """

    of: str
    most: _Size = 32
    least: _Size = 10
    missing: bool = False


class TermList(_Feature, frozen=True, kw_only=True, tag="terms"):
    """A list of texts, or one: a column for each frequent one, ``hashed`` columns for others."""

    of: str
    most: _Size = 64
    least: _Size = 10
    hashed: _Size = 0


class Text(_Feature, frozen=True, kw_only=True, tag="text"):
    """The words of a text, as columns of unit length: frequent ones, and ``hashed`` ones."""

    of: str
    most: _Size = 0
    least: _Size = 10
    hashed: _Size = 64


class Match(_Feature, frozen=True, kw_only=True, tag="match"):
    """How two attributes lie to each other."""

    of: tuple[str, str]
    by: Annotated[tuple[MatchBy, ...], msgspec.Meta(min_length=1)]


class Cross(_Feature, frozen=True, kw_only=True, tag="cross"):
    """Every column of one feature times every column of another."""

    of: tuple[str, str]


Feature = Number | Date | Category | TermList | Text | Match | Cross
Spec = dict[str, Feature]
"""Features by name, in the order of the file, crosses last."""


def read_spec(path: Path) -> Spec:
    """Read a spec from a file.

    Raises:
        ConfigError: it cannot be read, or is none.

    """
    try:
        return parse_spec(read_text(path))
    except OSError as error:
        raise ConfigError(f"spec {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"spec {path}: not UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"spec {path}: {error}") from None


def parse_spec(text: str) -> Spec:
    """TOML → spec, checked.

    Raises:
        ConfigError: it is none; the message names the feature.

    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from None
    tables = document.pop("features", None)
    if document:
        raise ConfigError(f"unknown: {', '.join(document)}; a spec has tables [features.NAME]")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError("it has no features: each is a table [features.NAME]")
    spec = {name: _feature(name, table) for name, table in tables.items()}
    for name, feature in spec.items():
        if isinstance(feature, Cross):
            _check_cross(name, feature, spec)
    return dict(sorted(spec.items(), key=lambda item: isinstance(item[1], Cross)))


def _feature(name: str, table: Any) -> Feature:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"[features.{name}] must be a name of letters, digits, _ and -")
    try:
        feature: Feature = msgspec.convert(table, Feature)
    except msgspec.ValidationError as error:
        raise ConfigError(f"[features.{name}] {error}") from None
    if not isinstance(feature, Cross):
        for path in feature.paths:
            side, _, attribute = path.partition(".")
            if path != APPLIED and (side not in SIDES or not attribute):
                raise ConfigError(
                    f"[features.{name}] {path!r} is no attribute: write member.NAME, job.NAME or"
                    f" context.NAME, or {APPLIED}"
                )
    if isinstance(feature, Scale) and feature.clip and not feature.clip[0] < feature.clip[1]:
        raise ConfigError(f"[features.{name}] clip must be two numbers, the smaller first")
    return feature


def _check_cross(name: str, cross: Cross, spec: Spec) -> None:
    for of in cross.of:
        if of not in spec or isinstance(spec[of], Cross):
            raise ConfigError(
                f"[features.{name}] crosses {of!r}, which is no other feature of the spec; give it"
                " a table of its own, with blocks = [] if only the cross is wanted"
            )
