"""SHELL: the command line. ``hearback COMMAND --help`` teaches each command.

Exit codes: 0 done, 1 failed with one line on stderr, 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import ast
import os
import sys
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from stream import VERSION
from stream.errors import HearbackError, StoppedError
from stream.text import printable

_NAME = "hearback"
_INTERRUPTED = 130  # Typer's exit code after Ctrl-C

PROGRAM: Final = (sys.executable, "-P", "-m", "stream.cli")
"""How a child process runs this command line; ``-P``: not a ``stream.py`` of its working folder."""

_PRIVATE: Final = frozenset(
    {"import", "worker", "replay", "bootstrap", "checkpoint", "inspect", "serve", "state"}
)
"""Commands that write files of people's data: their owner alone may read them. Models, reports and
policies are for others too."""

COMMANDS: Final = {
    "demo": "demo",
    "simulate": "history",
    "import": "tables",
    "check": "check",
    "features": "features",
    "train": "train",
    "model": "model",
    "replay": "history",
    "backtest": "compare",
    "tune": "compare",
    "inspect": "upkeep",
    "broker": "live",
    "worker": "live",
    "produce": "live",
    "serve": "serving",
    "rank": "serving",
    "browse": "serving",
    "bootstrap": "upkeep",
    "checkpoint": "upkeep",
    "forget": "upkeep",
    "topics": "upkeep",
    "state": "upkeep",
    "gate": "upkeep",
    "config": "config",
    "schema": "schema",
}
"""The module of each command, which has a function or a group of the command's name (none can be
called ``import``: that of this command is ``import_``).

It is imported when the command runs, not to list it: what the list says of a command, the docstring
of its function or the text of its group, is read from the source.
"""


def _function(name: str) -> str:
    return f"{name}_" if iskeyword(name) else name


def load(name: str) -> typer.Typer:
    """Import a command; return a command line that has it alone."""
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    alone.callback()(lambda: None)  # without it Typer takes an only command for the whole
    found = getattr(import_module(f"stream.cli.{COMMANDS[name]}"), _function(name))
    if isinstance(found, typer.Typer):
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
            for node in ast.parse(source).body:
                match node:
                    case ast.FunctionDef(name=name) if name == _function(cmd_name):
                        command.help = ast.get_docstring(node)
                    case ast.Assign([ast.Name(id=name)], ast.Call(args=[text])) if name == cmd_name:
                        command.help = ast.literal_eval(text)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command to run, imported."""
        name, known, rest = super().resolve_command(ctx, args)
        if args[0] in _PRIVATE:
            os.umask(0o077)
        return name, known and get_group(load(args[0])).get_command(ctx, args[0]), rest


app = typer.Typer(
    name=_NAME,
    cls=LazyGroup,
    help="How likely is an application to be answered? Learns it from the event stream, member by"
    " member and job by job.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{_NAME} {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options that stand before any command."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except HearbackError as error:
        sys.stderr.write(f"hearback: {printable(str(error))}\n")
        sys.exit(_INTERRUPTED if isinstance(error, StoppedError) else 1)
    except OSError as error:
        # A full disk, a folder without permission: nothing that a traceback would explain.
        where = f" ({error.filename})" if error.filename else ""
        sys.stderr.write(f"hearback: {error.strerror or error}{where}\n")
        sys.exit(1)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            sys.stderr.write("hearback: interrupted; what was written so far is incomplete\n")
        raise
