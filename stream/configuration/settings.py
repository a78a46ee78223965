"""The table of settings, from the structs that declare them; reads, changes and writes by it.

A *section* is a frozen struct whose fields are declared with :class:`~stream.units.Setting`. A
*holder* has sections in its fields, in dictionaries by name, or in other holders: ``Policy``,
``Config``. A setting's name is that of its section and its key: ``effects.per_job.capacity``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from stream.errors import ConfigError, meant
from stream.text import read_text
from stream.units import Setting, format_duration, parse_duration_ms

_T = TypeVar("_T")
_Holder = TypeVar("_Holder", bound=msgspec.Struct)

_WHAT: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    frozenset[str]: 'a list of names such as ["message", "hire"]',
    tuple[float, ...]: 'a list of numbers such as [0.35, 0.7], or "off"',
    float | dict[str, float]: "a number, or in a file one for each feature: { bias = 3.0 }",
}
_SWITCH = {"true": True, "on": True, "false": False, "off": False}


class Row(NamedTuple):
    """One setting of a holder.

    ``type``: of its values, without None. ``optional``: whether None is one. ``value``: the one in
    force, None of a secret.
    """

    section: str
    key: str
    field: str
    type: Any
    optional: bool
    declared: Setting
    value: Any

    @property
    def name(self) -> str:
        """Section and key."""
        return f"{self.section}.{self.key}"

    @property
    def short_name(self) -> str:
        """The name as a policy's readers know it: ``window``, ``per_job.capacity``."""
        return self.name.removeprefix("labels.").removeprefix("effects.")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return variable_of(self.name)

    @property
    def help(self) -> str:
        """One line that says what it means, and what there is to choose from."""
        return self.declared.help + (f" ({', '.join(self._choices)})" if self._choices else "")

    @property
    def what(self) -> str:
        """What a value must be."""
        if self._duration:
            return 'a duration such as "14d"' + (', or "off"' if self.optional else "")
        return f"one of {', '.join(self._choices)}" if self._choices else _WHAT[self.type]

    def read(self, given: Any, *, text: bool = False) -> Any:
        """Check a value from a file, or a text from the environment or the command line.

        Raises:
            ConfigError: it cannot be; the message says what can.

        """
        try:
            return self._read(given, text)
        except (msgspec.ValidationError, ConfigError):
            raise ConfigError(
                f"[{self.section}] {self.key} must be {self.what}, not {_written(given)[:40]}"
            ) from None

    @property
    def written(self) -> str | None:
        """The value in force as TOML; None: there is none."""
        if self._duration:
            return _written("off" if self.value is None else format_duration(self.value))
        if isinstance(self.value, frozenset):
            return _written(sorted(self.value))
        if isinstance(self.value, tuple):
            return _written(list(self.value) or "off")
        return None if self.value is None else _written(self.value)

    @property
    def text(self) -> str:
        """The value in force without quotes."""
        return (self.written or "").strip('"')

    @property
    def _duration(self) -> bool:
        return self.field.endswith("_ms")

    @property
    def _choices(self) -> tuple[str, ...]:
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def _read(self, given: Any, text: bool) -> Any:
        if self._duration:
            off = self.optional and given == "off"
            return None if off else parse_duration_ms(msgspec.convert(given, str))
        if self.type is Path:
            return Path(msgspec.convert(given, str))
        if self.type is bool and isinstance(given, str):
            given = _SWITCH.get(given.lower(), given)
        elif self._choices and "off" in self._choices:
            given = self._switched(given)
        elif self.type == tuple[float, ...] and isinstance(given, str):
            parts = [] if given == "off" else given.split(",")
            return tuple(msgspec.convert(part.strip(), float, strict=False) for part in parts)
        elif self.type == frozenset[str] and text:
            given = [part.strip() for part in given.split(",") if part.strip()]
        elif self.type in {int, float, float | dict[str, float]} and text:
            number = self.type if self.type is int else float
            return msgspec.convert(given.strip(), number, strict=False)
        return msgspec.convert(given, self.type)

    def _switched(self, given: Any) -> Any:
        """A rule that was only on or off once: full or off."""
        switch = _SWITCH.get(given.lower(), given) if isinstance(given, str) else given
        return (
            {True: "full", False: "off"}.get(switch, given) if isinstance(switch, bool) else given
        )


def variable_of(name: str) -> str:
    """Environment variable of a setting or a section."""
    return "HEARBACK_" + name.replace(".", "_").upper()


def table(holder: msgspec.Struct, section: str = "") -> list[Row]:
    """Every setting of a holder, or of a section with its name, in the order of declaration."""
    rows = []
    for row in _declared(type(holder)):
        value = None if row.declared.secret else getattr(holder, row.field)
        rows.append(row._replace(section=section, value=value))
    for field in holder.__struct_fields__:
        for name, inner in _inner(field, getattr(holder, field)).items():
            rows += table(inner, name)
    return rows


def changed(holder: _Holder, values: Mapping[str, Any], section: str = "") -> _Holder:
    """Return a holder with other values, by name, checked together.

    Raises:
        ConfigError: they contradict each other.

    """
    given = {
        row.field: values[f"{section}.{row.key}"]
        for row in _declared(type(holder))
        if f"{section}.{row.key}" in values
    }
    for field in holder.__struct_fields__:
        held = getattr(holder, field)
        inner = {name: changed(one, values, name) for name, one in _inner(field, held).items()}
        if inner and isinstance(held, dict):
            given[field] = held | {name.split(".", 1)[1]: one for name, one in inner.items()}
        else:
            given |= inner
    try:
        return msgspec.structs.replace(holder, **given)
    except ConfigError as error:
        # A section that stands several times does not know its own name.
        known = str(error).startswith("[") or not section
        raise ConfigError(f"{error}" if known else f"[{section}] {error}") from None


def read_document(document: Mapping[str, Any], holder: msgspec.Struct) -> dict[str, Any]:
    """Check what a TOML file says, each setting by itself; return the values by name.

    Raises:
        ConfigError: a section or key is unknown, a value is none for its key, or a secret.

    """
    rows = {row.name: row for row in table(holder)}
    values: dict[str, Any] = {}
    for section, given in _tables(document, [*dict.fromkeys(row.section for row in rows.values())]):
        for key, value in given.items():
            row = rows.get(f"{section}.{key}")
            if row is None:
                of_section = [row for row in rows.values() if row.section == section]
                known = [row.key for row in of_section if not row.declared.secret]
                raise ConfigError(f"[{section}] unknown setting {key}{meant(key, known)}")
            if row.declared.secret:
                raise ConfigError(
                    f"a secret does not belong here: give {row.variable} or {key}_file, not {key}"
                )
            values[row.name] = row.read(value)
    return values


def read_toml(path: Path, what: str, parse: Callable[[dict[str, Any]], _T]) -> _T:
    """Read a TOML file; every :class:`ConfigError` names it."""
    try:
        return parse(parse_toml(read_text(path)))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{what} {path}: {reason(error)}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """TOML text → document, or ConfigError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from None


def reason(error: Exception) -> str:
    """Say why a file cannot be read, without its name."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def to_toml(holder: msgspec.Struct, sources: Mapping[str, str] | None = None) -> str:
    """Write every setting that has a value, as :func:`read_document` reads it.

    Where a value is from, by name, stands behind it. Of a secret nothing else is written.
    """
    lines: dict[str, list[str]] = {}
    for row in table(holder):
        source = (sources or {}).get(row.name)
        section = lines.setdefault(row.section, [f"[{row.section}]"])
        if row.written is not None:
            section.append(f"{row.key} = {row.written}" + (f"  # {source}" if source else ""))
        elif row.declared.secret and source:
            section.append(f"# {row.key}: (secret), {source}")
    return "\n".join("\n".join(section) + "\n" for section in lines.values())


@cache
def _declared(kind: type[msgspec.Struct]) -> list[Row]:
    """Rows of a struct's own settings, without section and value."""
    rows = []
    fields = msgspec.structs.fields(kind)
    # A section's own settings come before those that it inherits.
    for field in sorted(fields, key=lambda field: field.name not in kind.__annotations__):
        of, *notes = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
        optional = NoneType in get_args(of)
        plain = get_args(of)[0] if optional else of  # X of X | None
        for declared in notes:
            if isinstance(declared, Setting):
                key = declared.key or field.name.removesuffix("_ms")
                rows.append(Row("", key, field.name, plain, optional, declared, None))
    return rows


def _inner(field: str, held: object) -> dict[str, Any]:
    """Structs that a holder's field has, by name."""
    named = {field: held}
    if isinstance(held, dict):
        named = {f"{field}.{key}": one for key, one in held.items()}
    return {name: one for name, one in named.items() if isinstance(one, msgspec.Struct)}


def _tables(
    document: Mapping[str, Any], sections: Collection[str], above: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Sections of a document with what they say; what is no section is refused."""
    for key, given in document.items():
        name = above + key
        inner = any(section.startswith(f"{name}.") for section in sections)
        if name not in sections and not inner:
            known = [f"[{section}]" for section in sections]
            raise ConfigError(f"there is no section [{name}]{meant(f'[{name}]', known)}")
        if not isinstance(given, dict):
            raise ConfigError(f"{name} must be a section, [{name}]")
        if inner:
            yield from _tables(given, sections, f"{name}.")
        else:
            yield name, given


def _written(plain: Any) -> str:
    """Write a TOML value: one of JSON, but for DEL and tables."""
    if isinstance(plain, dict):
        pairs = (f"{_written(str(key))} = {_written(value)}" for key, value in plain.items())
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(plain, ensure_ascii=False, default=str).replace("\x7f", "\\u007F")
