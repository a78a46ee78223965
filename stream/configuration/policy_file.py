"""The policy as TOML: ``[labels]``, ``[effects.per_member]``, ``[effects.per_job]``, ``[gate]``.

Every key is optional, an unknown key is an error. Durations are written ``"14d"``, ``"1h"``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from stream.errors import ConfigError
from stream.policy import EffectSettings, GateSettings, LabelPolicy, Policy
from stream.units import format_duration, parse_duration_ms


class _LabelsFile(msgspec.Struct, forbid_unknown_fields=True):
    positive_actions: list[str] | None = None
    negative_actions: list[str] | None = None
    neutral_actions: list[str] | None = None
    window: str | None = None
    later_response: bool | Literal["on", "off"] | None = None
    min_age: str | None = None
    job_closed: bool | Literal["on", "off"] | None = None
    allowed_lateness: str | None = None
    orphan_ttl: str | None = None


class _EffectFile(msgspec.Struct, forbid_unknown_fields=True):
    prior_precision: float | None = None
    half_life: str | None = None
    capacity: int | None = None
    open_limit: int | None = None
    full_up_to: int | None = None
    coupled: bool | None = None
    entity_ttl: str | None = None


class _EffectsFile(msgspec.Struct, forbid_unknown_fields=True):
    per_member: _EffectFile = msgspec.field(default_factory=_EffectFile)
    per_job: _EffectFile = msgspec.field(default_factory=_EffectFile)


class _GateFile(msgspec.Struct, forbid_unknown_fields=True):
    enabled: bool | None = None
    age: str | None = None
    applications: int | None = None
    margin: float | None = None
    bucket: str | None = None


class _PolicyFile(msgspec.Struct, forbid_unknown_fields=True):
    labels: _LabelsFile = msgspec.field(default_factory=_LabelsFile)
    effects: _EffectsFile = msgspec.field(default_factory=_EffectsFile)
    gate: _GateFile = msgspec.field(default_factory=_GateFile)


FILE_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "labels": _LabelsFile,
    "effects.per_member": _EffectFile,
    "effects.per_job": _EffectFile,
    "gate": _GateFile,
}
"""What may be written in each section."""


def parse_policy(text: str) -> Policy:
    """TOML text → policy; ConfigError names the key and what it accepts."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from None
    return policy_of(document)


def change_policy(policy: Policy, changes: dict[str, Any]) -> Policy:
    """Policy with some keys set anew; ``changes`` is shaped like a policy file."""
    return policy_of(_merged(tomllib.loads(format_policy(policy)), changes))


def policy_of(document: dict[str, Any]) -> Policy:
    """Policy from what a policy file holds; ConfigError names the key and what it accepts."""
    found = _file_of(document)
    labels = found.labels
    return Policy(
        labels=LabelPolicy(
            **_given(
                positive_actions=_actions(labels.positive_actions),
                negative_actions=_actions(labels.negative_actions),
                neutral_actions=_actions(labels.neutral_actions),
                window_ms=_duration("window", labels.window),
                later_response=_switch(labels.later_response),
                min_age_ms=_duration("min_age", labels.min_age),
                job_closed=_switch(labels.job_closed),
                allowed_lateness_ms=_duration("allowed_lateness", labels.allowed_lateness),
                orphan_ttl_ms=_duration("orphan_ttl", labels.orphan_ttl),
            )
        ),
        effects={
            "per_member": _effect(found.effects.per_member),
            "per_job": _effect(found.effects.per_job),
        },
        gate=GateSettings(
            **_given(
                enabled=found.gate.enabled,
                age_ms=_duration("age", found.gate.age),
                applications=found.gate.applications,
                margin=found.gate.margin,
                bucket_ms=_duration("bucket", found.gate.bucket),
            )
        ),
    )


def check_keys(document: dict[str, Any]) -> None:
    """Refuse unknown keys and other types; values may depend on what stands in another file."""
    _file_of(document)


def _file_of(document: dict[str, Any]) -> _PolicyFile:
    try:
        return msgspec.convert(document, _PolicyFile)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from None


def load_policy(path: Path | None) -> Policy:
    """Policy from a file; the defaults without one."""
    if path is None:
        return Policy()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"policy {path}: {error}") from None
    try:
        return parse_policy(text)
    except ConfigError as error:
        raise ConfigError(f"policy {path}: {error}") from None


def format_policy(policy: Policy) -> str:
    """Policy → TOML with every key, as :func:`parse_policy` reads it; it comes back equal."""
    labels = policy.labels
    parts = [
        "[labels]",
        *(
            f"{key} = {_list(getattr(labels, key))}"
            for key in ("positive_actions", "negative_actions", "neutral_actions")
        ),
        *(
            f'{key} = "{format_duration(getattr(labels, key + "_ms"))}"'
            for key in ("window", "min_age", "allowed_lateness", "orphan_ttl")
        ),
        f"later_response = {_truth(labels.later_response)}",
        f"job_closed = {_truth(labels.job_closed)}",
    ]
    for name, effect in policy.effects.items():
        parts += [
            f"\n[effects.{name}]",
            f"prior_precision = {effect.prior_precision!r}",
            f'half_life = "{_duration_or_off(effect.half_life_ms)}"',
            f"capacity = {effect.capacity}",
            f"open_limit = {effect.open_limit}",
            f"full_up_to = {effect.full_up_to}",
            f"coupled = {_truth(effect.coupled)}",
            f'entity_ttl = "{_duration_or_off(effect.entity_ttl_ms)}"',
        ]
    gate = policy.gate
    parts += [
        "\n[gate]",
        f"enabled = {_truth(gate.enabled)}",
        f'age = "{format_duration(gate.age_ms)}"',
        f"applications = {gate.applications}",
        f"margin = {gate.margin!r}",
        f'bucket = "{format_duration(gate.bucket_ms)}"',
    ]
    return "\n".join(parts) + "\n"


def _list(names: frozenset[str]) -> str:
    # A JSON string is a TOML string, but for DEL.
    return msgspec.json.encode(sorted(names)).decode().replace("\x7f", "\\u007F")


def _duration_or_off(duration_ms: int | None) -> str:
    return "off" if duration_ms is None else format_duration(duration_ms)


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _effect(found: _EffectFile) -> EffectSettings:
    settings = EffectSettings(
        **_given(
            prior_precision=found.prior_precision,
            capacity=found.capacity,
            open_limit=found.open_limit,
            full_up_to=found.full_up_to,
            coupled=found.coupled,
        )
    )
    given = {}
    for key in ("half_life", "entity_ttl"):
        text = getattr(found, key)
        if text is not None:
            given[f"{key}_ms"] = None if text == "off" else _duration(key, text)
    return msgspec.structs.replace(settings, **given)


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _given(**values: Any) -> dict[str, Any]:  # the structs' own fields are checked by msgspec
    return {key: value for key, value in values.items() if value is not None}


def _actions(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _duration(key: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_duration_ms(text)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


def _switch(value: bool | str | None) -> bool | None:
    return {"on": True, "off": False}.get(value) if isinstance(value, str) else value
