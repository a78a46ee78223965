"""Reads the configuration: file, then policy file, then environment, then the command line.

A setting ``key`` of ``[section]`` is overridden by ``HEARBACK_SECTION_KEY`` (dots become
underscores); lists are written with commas. Errors name the file or the variable. Each value is
checked where it is read; those that depend on each other may come from different places and are
checked together at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from stream.configuration.sections import Config
from stream.configuration.settings import (
    Row,
    changed,
    meant,
    read_document,
    read_toml,
    reason,
    table,
    variable_of,
)
from stream.errors import ConfigError

COMMAND_LINE = "the command line"


def load_config(
    path: Path | None,
    environment: Mapping[str, str],
    policy: Path | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    defaults: Config = Config(),  # noqa: B008 - frozen
) -> Config:
    """Read what is in force.

    Args:
        path: of the configuration file; None: there is none.
        environment: variables by name.
        policy: of a file with labels, effects and gate alone, which stand above those in the
            configuration file.
        options: values by the name of their setting, above all else.
        defaults: what is in force where nothing is given.

    Raises:
        ConfigError: a file or variable cannot be read, or says what cannot be.

    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for file, what, holder in (
        (path, "configuration", defaults),
        (policy, "policy", defaults.policy),
    ):
        if file is not None:
            found = read_toml(file, what, partial(read_document, holder=holder))
            values |= found
            sources |= dict.fromkeys(found, str(file))
    rows = table(defaults)
    by_variable = {row.variable: row for row in rows}
    for variable, text in environment.items():
        row = by_variable.get(variable)
        if row is None:
            _check_unknown(variable, rows)
            continue
        try:
            values[row.name] = row.read(text, text=True)
        except ConfigError as error:
            raise ConfigError(f"{variable}: {error}") from None
        sources[row.name] = variable
    values |= options or {}
    sources |= dict.fromkeys(options or {}, COMMAND_LINE)
    try:
        values |= {row.name: _secret(row, values) for row in rows if row.declared.secret}
        return msgspec.structs.replace(changed(defaults, values), sources=sources)
    except ConfigError as error:
        where = ", ".join(dict.fromkeys(sources.values()))
        raise ConfigError(f"{error} (set by {where})") from None


def _check_unknown(variable: str, rows: list[Row]) -> None:
    """Refuse a variable that begins as those of a section do, and is none."""
    for row in rows:
        section = row.section.split(".")[0]
        if variable.startswith(variable_of(section) + "_"):
            known = [one.variable for one in rows if one.section.split(".")[0] == section]
            raise ConfigError(f"{variable} is no setting of [{section}]{meant(variable, known)}")


def _secret(row: Row, values: Mapping[str, Any]) -> str | None:
    """Return a secret from the environment, or from its file: the first line, as it stands."""
    path: Path | None = values.get(f"{row.name}_file")
    if row.name in values or path is None:
        return values.get(row.name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[{row.section}] {path} cannot be read: {reason(error)}") from None
    if not lines or not lines[0]:
        raise ConfigError(f"[{row.section}] {path} is empty: its first line must be the secret")
    return lines[0]
