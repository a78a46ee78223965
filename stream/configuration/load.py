"""Reads the configuration: file, then environment; every unknown key is an error.

A setting ``key`` of ``[section]`` is overridden by ``HEARBACK_SECTION_KEY`` (dots become
underscores); lists are written with commas. Errors name the file or the variable.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from stream.configuration.policy_file import FILE_SECTIONS, check_keys, policy_of
from stream.configuration.sections import (
    SECRETS,
    TEXTS,
    Config,
    ConsoleFile,
    ConsoleSection,
    KafkaFile,
    LogFile,
    LogSection,
    WorkerFile,
    WorkerSection,
)
from stream.errors import ConfigError
from stream.kafka.connection import Broker, Security
from stream.units import parse_duration_ms

PREFIX = "HEARBACK_"

_T = TypeVar("_T")

_OWN: dict[str, type[msgspec.Struct]] = {
    "kafka": KafkaFile,
    "worker": WorkerFile,
    "console": ConsoleFile,
    "log": LogFile,
}
SECTIONS: dict[str, type[msgspec.Struct]] = _OWN | FILE_SECTIONS
"""What may be written in each section."""

_ON = {"true": True, "on": True, "false": False, "off": False}


def variable_of(setting: str) -> str:
    """Name of the environment variable of a setting, ``section.key``."""
    return PREFIX + setting.replace(".", "_").upper()


VARIABLES = {
    variable_of(f"{section}.{key}"): f"{section}.{key}"
    for section, keys in TEXTS.items()
    for key in keys
} | {variable_of(secret): secret for secret in SECRETS}
"""Environment variable → setting."""


def load_config(
    path: Path | None, environment: Mapping[str, str], policy: Path | None = None
) -> Config:
    """Read what is in force before the options of the command line.

    Args:
        path: of the configuration file; None: there is none.
        environment: variables by name.
        policy: of a file with labels, effects and gate alone, which stand above those in the
            configuration file.

    Raises:
        ConfigError: a file or variable cannot be read, or says what cannot be.

    """
    tables: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for file, what, sections in (
        (path, "configuration", SECTIONS),
        (policy, "policy", FILE_SECTIONS),
    ):
        if file is not None:
            found = _read(file, what, [*sections])
            sources |= dict.fromkeys(_settings(found), str(file))
            _merge(tables, found)
    secrets: dict[str, str] = {}
    for name, text in environment.items():
        setting = VARIABLES.get(name)
        if setting is None:
            _check_unknown(name)
            continue
        sources[setting] = name
        if setting in SECRETS:
            secrets[setting] = text
        else:
            _override(tables, setting, name, text)
    try:
        return _checked(tables, secrets, sources)
    except ConfigError as error:
        where = ", ".join(dict.fromkeys(sources.values()))
        raise ConfigError(f"{error} (set by {where})") from None


def _read(path: Path, what: str, sections: list[str]) -> dict[str, Any]:
    where = f"{what} {path}"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {_reason(error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None
    tops = {section.split(".")[0] for section in sections}
    for name, table in tables.items():
        if name not in tops:
            known = ", ".join(f"[{section}]" for section in sections)
            raise ConfigError(f"{where}: there is no section [{name}]; there are {known}")
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: {name} must be a section, [{name}]")
    for secret in SECRETS:
        section, key = secret.rsplit(".", 1)
        if key in tables.get(section, {}):
            raise ConfigError(
                f"{where}: a secret does not belong here: give {variable_of(secret)} or"
                f" {key}_file instead of {key}"
            )
    # What can be is checked of each file by itself, so that the message names it.
    try:
        _check_keys(tables)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return tables


def _check_keys(tables: dict[str, Any]) -> None:
    """Check that all keys are known and of the right type."""
    for section, kind in _OWN.items():
        _struct(tables.get(section, {}), kind, section)
    check_keys({key: table for key, table in tables.items() if key not in _OWN})


def _struct(table: dict[str, Any], kind: type[_T], section: str) -> _T:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"[{section}] {error}") from None


def _settings(tables: dict[str, Any], above: str = "") -> list[str]:
    settings = []
    for key, value in tables.items():
        name = above + key
        settings += _settings(value, name + ".") if isinstance(value, dict) else [name]
    return settings


def _merge(tables: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            _merge(tables.setdefault(key, {}), value)
        else:
            tables[key] = value


def _check_unknown(name: str) -> None:
    """Refuse a variable that begins as those of a section do, and is none."""
    for section in SECTIONS:
        if name.startswith(variable_of(section) + "_"):
            raise ConfigError(f"{name} is no setting of [{section}]: see hearback config show")


def _override(tables: dict[str, Any], setting: str, name: str, text: str) -> None:
    section, key = setting.rsplit(".", 1)
    table = tables
    for part in section.split("."):
        table = table.setdefault(part, {})
    table[key] = _typed(SECTIONS[section], key, name, text)


def _typed(kind: type[msgspec.Struct], key: str, name: str, text: str) -> Any:
    """Read a variable's text as what the setting holds."""
    hint = get_type_hints(kind)[key]
    choices = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if any(get_origin(choice) is list for choice in choices):
        return [part.strip() for part in text.split(",") if part.strip()]
    if bool in choices:
        if text.lower() not in _ON:
            raise ConfigError(f"{name}: {text[:40]!r} is neither true nor false")
        return _ON[text.lower()]
    for number in (int, float):
        if number in choices:
            try:
                return number(text)
            except ValueError:
                raise ConfigError(f"{name}: {text[:40]!r} is no number") from None
    return text


def _checked(tables: dict[str, Any], secrets: dict[str, str], sources: dict[str, str]) -> Config:
    kafka = _struct(tables.get("kafka", {}), KafkaFile, "kafka")
    worker = _struct(tables.get("worker", {}), WorkerFile, "worker")
    console = _struct(tables.get("console", {}), ConsoleFile, "console")
    log = _struct(tables.get("log", {}), LogFile, "log")
    port = console.port
    if port is not None and not 0 <= port <= 65_535:
        raise ConfigError("[console] port must lie between 0 and 65535")
    if worker.application_id == "":
        raise ConfigError("[worker] application_id is empty")
    security = Security(
        **_given(
            protocol=kafka.security,
            mechanism=kafka.sasl_mechanism,
            username=kafka.username,
            password=_secret(secrets, "kafka.password", kafka.password_file),
            ca_file=_path(kafka.ca_file),
            certificate_file=_path(kafka.certificate_file),
            key_file=_path(kafka.key_file),
            key_password=_secret(secrets, "kafka.key_password", kafka.key_password_file),
        )
    )
    return Config(
        # Without an address it still says how to talk to the one that an option names.
        broker=Broker(kafka.broker or "", security),
        worker=WorkerSection(
            **_given(
                application_id=worker.application_id,
                model=_path(worker.model),
                data=_path(worker.data),
                idle_timeout_ms=_duration("idle_timeout", worker.idle_timeout),
                session_timeout_ms=_duration("session_timeout", worker.session_timeout),
            )
        ),
        console=ConsoleSection(**_given(host=console.host, port=port)),
        log=LogSection(**_given(level=log.level, format=log.format)),
        policy=policy_of({key: table for key, table in tables.items() if key not in _OWN}),
        sources=sources,
        secret_files=_given(
            password_file=kafka.password_file, key_password_file=kafka.key_password_file
        ),
    )


def _secret(secrets: dict[str, str], name: str, path: str | None) -> str | None:
    """Return a secret from the environment, or from its file: the first line, as it stands."""
    if name in secrets:
        return secrets[name]
    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[kafka] {path} cannot be read: {_reason(error)}") from None
    if not lines or not lines[0]:
        raise ConfigError(f"[kafka] {path} is empty: its first line is to be the secret")
    return lines[0]


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8"


def _given(**values: Any) -> dict[str, Any]:  # the structs' own fields are checked by msgspec
    return {key: value for key, value in values.items() if value is not None}


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _duration(key: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_duration_ms(text)
    except ConfigError as error:
        raise ConfigError(f"[worker] {key}: {error}") from None
