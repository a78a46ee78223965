"""The console script ``hearback``: refuses to run with packages of others.

There are other distributions with a package ``stream``, and ``PYTHONPATH`` may lead to one. Nothing
of a foreign package is imported to find that out.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

_MARK = 'DISTRIBUTION = "hearback-stream"'  # a line of our stream/__init__.py


def main() -> None:
    """Run the command line, if it is ours."""
    stream = _found("stream")
    if stream is None or _MARK not in stream.read_text("utf-8", errors="replace"):
        _refuse("stream", stream)
    producers = _found("producers")
    if producers is None or producers.parents[1] != stream.parents[1]:
        _refuse("producers", producers)
    from stream.cli import main as run  # noqa: PLC0415 - only now is it known to be ours

    run()


def _found(name: str) -> Path | None:
    """Return the source file of a package, without running it."""
    spec = find_spec(name)
    return Path(spec.origin) if spec is not None and spec.origin else None


def _refuse(name: str, found: Path | None) -> NoReturn:
    sys.exit(
        f"hearback: the Python package {name!r} that is found first is not hearback's ({found}):"
        " install hearback-stream into an environment of its own (python3 -m venv), without"
        " PYTHONPATH"
    )
