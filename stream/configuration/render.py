"""Configuration → TOML: what is in force; the example file, every setting with its default."""

from __future__ import annotations

import json
from pathlib import Path

from stream.configuration.load import variable_of
from stream.configuration.sections import EXAMPLES, SECRETS, TEXTS, Config
from stream.kafka.connection import security_of
from stream.policy import EffectSettings
from stream.units import format_duration

EXAMPLE = Path("hearback.example.toml")

Value = str | int | float | bool | list[str] | None
"""Of a setting, as it is written; None: it has none."""

_SECRET = "(secret)"  # noqa: S105 - it stands for one


def values(config: Config) -> dict[str, dict[str, Value]]:
    """Every setting by section and key; secrets are left out."""
    security, labels, gate = security_of(config.broker), config.policy.labels, config.policy.gate
    return {
        "kafka": {
            "broker": str(config.broker) or None,
            "security": security.protocol,
            "sasl_mechanism": security.mechanism,
            "username": security.username,
            "password_file": config.secret_files.get("password_file"),
            "ca_file": _path(security.ca_file),
            "certificate_file": _path(security.certificate_file),
            "key_file": _path(security.key_file),
            "key_password_file": config.secret_files.get("key_password_file"),
        },
        "worker": {
            "application_id": config.worker.application_id,
            "model": _path(config.worker.model),
            "data": _path(config.worker.data),
            "idle_timeout": format_duration(config.worker.idle_timeout_ms),
            "session_timeout": format_duration(config.worker.session_timeout_ms),
        },
        "console": {"host": config.console.host, "port": config.console.port},
        "log": {"level": config.log.level, "format": config.log.format},
        "labels": {
            "positive_actions": sorted(labels.positive_actions),
            "negative_actions": sorted(labels.negative_actions),
            "neutral_actions": sorted(labels.neutral_actions),
            "window": format_duration(labels.window_ms),
            "later_response": labels.later_response,
            "min_age": format_duration(labels.min_age_ms),
            "job_closed": labels.job_closed,
            "allowed_lateness": format_duration(labels.allowed_lateness_ms),
            "orphan_ttl": format_duration(labels.orphan_ttl_ms),
        },
        **{f"effects.{name}": _effect(one) for name, one in config.policy.effects.items()},
        "gate": {
            "enabled": gate.enabled,
            "age": format_duration(gate.age_ms),
            "applications": gate.applications,
            "margin": gate.margin,
            "bucket": format_duration(gate.bucket_ms),
        },
    }


def shown(config: Config) -> str:
    """What is in force, as TOML; where it is from stands behind what is not the default."""
    parts = []
    for section, keys in values(config).items():
        parts.append(f"[{section}]")
        for key, value in keys.items():
            source = config.sources.get(f"{section}.{key}")
            if value is not None:
                parts.append(f"{key} = {_written(value)}" + (f"  # {source}" if source else ""))
        parts += [
            f"# {secret.removeprefix(section + '.')}: {_SECRET}, {config.sources[secret]}"
            for secret in SECRETS
            if secret.startswith(section + ".") and secret in config.sources
        ]
        parts.append("")
    return "\n".join(parts)


def example() -> str:
    """Return the example file: every setting with its default, what has none switched off."""
    parts = [
        "# Every setting of hearback with its default. Made by `make docs`; copy what you change.",
        "# The environment stands above the file: HEARBACK_KAFKA_BROKER is [kafka] broker,",
        "# HEARBACK_EFFECTS_PER_JOB_CAPACITY is [effects.per_job] capacity. Secrets only come from",
        f"# there ({', '.join(map(variable_of, SECRETS))}) or from files.",
        "",
    ]
    for section, keys in values(Config()).items():
        parts.append(f"[{section}]")
        width = max(len(_line(section, key, value)) for key, value in keys.items())
        for key, value in keys.items():
            parts.append(f"{_line(section, key, value):{min(width, 48)}}  # {TEXTS[section][key]}")
        parts.append("")
    return "\n".join(parts)


def _line(section: str, key: str, value: Value) -> str:
    if value is None:
        return f"# {key} = {_written(EXAMPLES[f'{section}.{key}'])}"
    return f"{key} = {_written(value)}"


def _written(value: Value) -> str:
    """Write a TOML value; strings and lists of strings are those of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _effect(settings: EffectSettings) -> dict[str, Value]:
    return {
        "prior_precision": settings.prior_precision,
        "half_life": _or_off(settings.half_life_ms),
        "capacity": settings.capacity,
        "open_limit": settings.open_limit,
        "full_up_to": settings.full_up_to,
        "coupled": settings.coupled,
        "entity_ttl": _or_off(settings.entity_ttl_ms),
    }


def _or_off(duration_ms: int | None) -> str:
    return "off" if duration_ms is None else format_duration(duration_ms)


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8")
