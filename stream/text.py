"""Text as editors and other systems leave it, in UTF-8 or another encoding; ids in URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

from stream.errors import ConfigError

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""That of UTF-8."""

_MARKS: Final = {  # the longer ones first: one of UTF-32 begins as one of UTF-16 does
    b"\xff\xfe\0\0": "utf-32-le",
    b"\0\0\xfe\xff": "utf-32-be",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
}
_ZEROS: Final[
    dict[tuple[bool, ...], str]
] = {  # which of the first four bytes are zero, without a mark (RFC 4627, section 3)
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
_CONTROLS: Final = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"
}


def encoding_of(head: bytes) -> str | None:
    """Tell by its first bytes what a text is encoded in, if not in UTF-8.

    Without a byte order mark only a text that begins with two ASCII characters is recognised, as
    all JSON does.
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    return _ZEROS.get(tuple(byte == 0 for byte in head[:4]))


def read_text(path: Path) -> str:
    """Read a file that a person wrote, in UTF-8, as any editor leaves it: with a mark or without.

    Raises:
        ConfigError: it is in another encoding that can be told. OSError, UnicodeDecodeError: it
            cannot be read.

    """
    raw = path.read_bytes()
    encoding = encoding_of(raw)
    if encoding is not None:
        raise ConfigError(f"the file is {encoding[:6].upper()}: save it as UTF-8")
    return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def path_part(of: str) -> str:
    """Percent-encode an id, so that it is one part of a URL's path, whatever it has.

    Neither "." nor ".." may stand there as it is: clients and proxies take it for another path.

    Raises:
        UnicodeEncodeError: it is no valid Unicode.

    """
    return quote(of, safe="") if of.strip(".") else of.replace(".", "%2E")


def printable(text: str) -> str:
    r"""Write control characters as ``\x1b``: a terminal obeys them, and ids come from anywhere."""
    return text.translate(_CONTROLS)


def new_folder(path: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ConfigError: it does.

    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there already: name another folder or remove it")
