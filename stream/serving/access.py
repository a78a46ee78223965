"""SHELL: who may ask: anybody on this machine, or whoever has one of the tokens of a file."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from stream.configuration.sections import ServingSection
from stream.errors import ConfigError
from stream.text import read_text

_log = logging.getLogger(__name__)

_LEAST_CHARS = 16
_LOOK_S = 1.0
_BEARER = b"bearer "
_OF_LOOPBACK = re.compile(
    rb"(?:127(?:\.[0-9]{1,3}){3}|(?:[a-z0-9_-]+\.)*localhost|\[::1\])(?::[0-9]+)?", re.IGNORECASE
)


class Tokens:
    """The tokens of a file, one a line; a changed file is read again within a second.

    So a token is changed without a moment in which neither the old one nor the new one works: both
    stand in the file for a while.

    Args:
        path: the file.

    Raises:
        ConfigError: it cannot be read, or has no token, or a short one.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_s = time.monotonic()
        self._changed_ns = _changed_ns(path)
        self._hashes = _hashes(path)

    def allow(self, authorization: bytes) -> bool:
        """Whether a header ``Authorization: Bearer TOKEN`` has one of them.

        What it takes depends on the number of tokens alone: all hashes are compared, whole.
        """
        self._look()
        if authorization[: len(_BEARER)].lower() != _BEARER:
            return False
        given = hashlib.sha256(authorization[len(_BEARER) :].strip()).digest()
        found = [hmac.compare_digest(given, each) for each in self._hashes]
        return any(found)

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        try:
            changed_ns = _changed_ns(self._path)
            if changed_ns != self._changed_ns:
                self._hashes = _hashes(self._path)
                self._changed_ns = changed_ns
        except ConfigError as error:
            _log.warning("%s: the tokens read before are still taken", error)


@lru_cache(16)
def names_loopback(host: bytes) -> bool:
    """Whether a header ``Host`` has a name or address that can only be one of this machine.

    Without tokens it must be. Else a site that a browser shows could have its own name point to
    127.0.0.1 (DNS rebinding), and the browser would let it read what is answered.
    """
    return _OF_LOOPBACK.fullmatch(host) is not None


def check_access(serving: ServingSection) -> None:
    """Refuse to serve other machines without a token, or in plain text.

    Raises:
        ConfigError: the message says what is missing.

    """
    if (serving.certificate_file is None) != (serving.key_file is None):
        raise ConfigError("[serving] certificate_file and key_file belong together")
    for path in (serving.certificate_file, serving.key_file):
        if path is not None and not path.is_file():
            raise ConfigError(f"[serving] there is no file {path}")
    if serving.behind_proxy and serving.token_file is None:
        raise ConfigError(
            "[serving] behind_proxy: other machines may ask through the proxy: give a token_file"
            " (--token-file)"
        )
    if _is_local(serving.host):
        return
    if serving.token_file is None:
        raise ConfigError(
            f"[serving] host {serving.host} is open to other machines: give a token_file"
            " (--token-file), or listen on 127.0.0.1"
        )
    if serving.certificate_file is None and not serving.behind_proxy:
        raise ConfigError(
            f"[serving] host {serving.host} is open to other machines, in plain text: give"
            " certificate_file and key_file, or --behind-proxy where a proxy has the certificate"
        )


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(f"[serving] token_file {path}: {error.strerror}") from None


def tokens_of(path: Path) -> list[str]:
    """Read the tokens of a file, one a line.

    Raises:
        ConfigError: it cannot be read, or has no token, or a short one.

    """
    try:
        tokens = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path} cannot be read: {error}") from None
    if not tokens or min(map(len, tokens)) < _LEAST_CHARS:
        raise ConfigError(
            f"token file {path} must have a token on each line, of {_LEAST_CHARS}"
            " characters at least"
        )
    return tokens


def _hashes(path: Path) -> list[bytes]:
    return [hashlib.sha256(token.encode()).digest() for token in tokens_of(path)]
