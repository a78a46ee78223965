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


def test_what_a_terminal_would_obey_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    """An id that has escapes clears no screen, wherever it stands."""
    name = "a\x1b[2Jb\x9b0mc\rd"
    table = terminal.numbers(name, name, name)
    table.add_row(name, name)
    terminal.whole(table, 0)
    terminal.tell(name)
    terminal.tell(name, terminal.ERR)
    printed = "".join(capsys.readouterr())
    assert printed.count(r"a\x1b[2Jb\x9b0mc\x0dd") == 7
    assert not set(printed) & {"\x1b", "\x9b", "\r"}
