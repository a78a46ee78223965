"""Text and tables as they are."""

from __future__ import annotations

import pytest
from rich.console import Console

from stream.cli import terminal

NAMES = ("skill[python]", "pay[/h]", "[bold]x", "b:x:", "a.jsonl:100:", r"\[a]")
"""As feature names, actions and files may be called; to rich some are markup."""


@pytest.mark.parametrize("console", ["OUT", "ERR"])
def test_names_are_printed_as_they_are(console: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in a table's title, head or cell, or in a line, is text and nothing else."""
    to: Console = getattr(terminal, console)
    for name in NAMES:
        table = terminal.numbers(name, name, name)
        table.add_row(name, name)
        to.print(table)
        to.print(terminal.key_values(name, {name: 1}))
        terminal.tell(name, to)
        printed = "".join(capsys.readouterr())
        assert printed.count(name) == 8
        assert printed.replace(name, "").split() == ["1"]
