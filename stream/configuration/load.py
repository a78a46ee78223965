"""Reads the configuration: file, then policy file, then environment, then the command line.

A setting ``key`` of ``[section]`` is overridden by ``HEARBACK_SECTION_KEY`` (dots become
underscores); lists are written with commas. Any other ``HEARBACK_`` variable is an error, but for
those that Kubernetes sets for services of such names. Errors name the file or the variable. Each
value is
checked where it is read; those that depend on each other may come from different places and are
checked together at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stream.configuration.sections import Config
from stream.configuration.settings import (
    Row,
    changed,
    read_document,
    read_toml,
    reason,
    table,
)
from stream.errors import ConfigError, meant
from stream.text import read_text

if TYPE_CHECKING:
    from stream.model.folder import GlobalModel

COMMAND_LINE = "the command line"

RENAMED = {"HEARBACK_BROKER": "HEARBACK_KAFKA_BROKER"}
"""Variables that had another name: old → new."""

_READ_ELSEWHERE = ("HEARBACK_CONFIG", "HEARBACK_CRASH_AT", "HEARBACK_CONTEST_LOG")
_OF_TESTS = ("HEARBACK_TEST_", "HEARBACK_BASELINES")

# What Kubernetes puts into every container for each service of the namespace, here for one called
# hearback, or hearback-something: kubernetes.io/docs/concepts/services-networking/service, and the
# variables of Docker's links, which it adds.
_OF_SERVICE = re.compile(
    r"HEARBACK_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_ADDRESS_OF_SERVICE = re.compile(r"(tcp|udp|sctp)://")


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
        if not variable.startswith("HEARBACK_") or _is_of_service(variable, text):
            continue
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


def with_model(config: Config, model: GlobalModel | None) -> Config:
    """Put what a model says of the effects in force where nothing else says it.

    Raises:
        ConfigError: the configuration leaves out what the model takes.

    """
    if model is not None:
        model.check(config.policy)
    precision = None if model is None else model.manifest.prior_precision
    if model is None or precision is None:
        return config
    names = [f"effects.{effect}.prior_precision" for effect in config.policy.effects]
    values = {name: precision for name in names if name not in config.sources}
    sources = config.sources | dict.fromkeys(values, f"model {model.version}")
    return msgspec.structs.replace(changed(config, values), sources=sources)


def _check_unknown(variable: str, rows: list[Row]) -> None:
    """Refuse a variable that is neither a setting nor read by something else of ours."""
    if variable in _READ_ELSEWHERE or variable.startswith(_OF_TESTS):
        return
    near = meant(variable, [*(row.variable for row in rows), *_READ_ELSEWHERE])
    hint = near if "did you mean" in near else "; hearback config show lists them all"
    raise ConfigError(f"{variable} is no setting{hint}")


def _is_of_service(variable: str, text: str) -> bool:
    """Whether Kubernetes sets it; ``HEARBACK_CONSOLE_PORT=tcp://…`` for a hearback-console."""
    if variable.endswith("_PORT") and _ADDRESS_OF_SERVICE.match(text):
        return True
    return _OF_SERVICE.fullmatch(variable) is not None


def renamed(environment: Mapping[str, str], say: Callable[[str], None]) -> Mapping[str, str]:
    """Return the environment with variables under their present names; ``say`` tells of others."""
    found = dict(environment)
    for old, new in RENAMED.items():
        text = found.pop(old, None)
        if text is not None:
            say(f"{old} is called {new} now: rename it")
            found.setdefault(new, text)
    return found


def _secret(row: Row, values: Mapping[str, Any]) -> str | None:
    """Return a secret from the environment, or from its file: the first line, as it stands."""
    path: Path | None = values.get(f"{row.name}_file")
    if row.name in values or path is None:
        return values.get(row.name)
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"[{row.section}] {path} cannot be read: {reason(error)}") from None
    if not lines or not lines[0]:
        raise ConfigError(f"[{row.section}] {path} is empty: its first line must be the secret")
    return lines[0]
