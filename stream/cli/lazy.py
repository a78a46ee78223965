"""The commands by name; a command's module is imported when it runs, not to list it.

In the list a command says what the docstring of its function says, a group what that of its module
says; both are read from the source.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from typer import Typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

COMMANDS: Final = {
    "demo": "demo",
    "simulate": "history",
    "train": "history",
    "replay": "history",
    "backtest": "backtest",
    "tune": "tune",
    "inspect": "look",
    "broker": "live",
    "worker": "live",
    "produce": "live",
    "bootstrap": "warm",
    "checkpoint": "upkeep",
    "forget": "upkeep",
    "topics": "topics",
    "state": "state",
    "gate": "gate",
    "config": "config",
}
"""The module of each command, which has a function or a Typer of the command's name."""


def load(name: str) -> Typer:
    """Import a command; return a command line that has it alone."""
    alone = Typer(add_completion=False, rich_markup_mode="markdown")
    alone.callback()(lambda: None)  # without it Typer takes an only command for the whole
    found = getattr(import_module(f"stream.cli.{COMMANDS[name]}"), name)
    if isinstance(found, Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name)(found)
    return alone


class LazyGroup(TyperGroup):
    """The command line's root: any of :data:`COMMANDS`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name in COMMANDS:
            self.add_command(TyperCommand(name))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what the list shows of a command."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            source = Path(__file__).with_name(f"{COMMANDS[cmd_name]}.py").read_text("utf-8")
            module = ast.parse(source)
            functions = (node for node in module.body if isinstance(node, ast.FunctionDef))
            told = {function.name: function for function in functions}.get(cmd_name, module)
            command.help = ast.get_docstring(told)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command to run, imported."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and get_group(load(args[0])).get_command(ctx, args[0]), rest
