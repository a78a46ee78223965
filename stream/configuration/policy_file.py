"""The policy as TOML: ``[labels]``, ``[effects.NAME]``, ``[gate]``; every key is optional."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from stream.configuration.settings import changed, parse_toml, read_document, read_toml, to_toml
from stream.policy import Policy


def load_policy(path: Path | None) -> Policy:
    """Policy from a file; the defaults without one."""
    default = Policy()
    return default if path is None else read_toml(path, "policy", partial(change_policy, default))


def parse_policy(text: str) -> Policy:
    """TOML text → policy; ConfigError names the setting and what it accepts."""
    return change_policy(Policy(), parse_toml(text))


def change_policy(policy: Policy, changes: dict[str, Any]) -> Policy:
    """Policy with some settings changed; ``changes`` is shaped like a policy file."""
    return changed(policy, read_document(changes, policy))


def format_policy(policy: Policy) -> str:
    """Policy → TOML with every setting; :func:`parse_policy` gives an equal policy."""
    return to_toml(policy)
