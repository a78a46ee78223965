"""What the commands that fit a model do with a spec of attributes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream.cli.terminal import tell

if TYPE_CHECKING:
    from stream.features.making import Maker


def fitted_spec(path: Path, logs: list[Path], until_ms: int | None) -> Maker:
    """Read a spec, and learn it of the logs up to a time; tell what came of it."""
    from stream.backtest.training import learned_spec
    from stream.model import words

    maker = learned_spec(path, logs, until_ms)
    for line in words.spec(maker):
        tell(line)
    return maker
