"""SHELL: the command line. ``hearback COMMAND --help`` teaches each command.

Exit codes: 0 done, 1 failed with one line on stderr, 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stream import DISTRIBUTION
from stream.cli.lazy import LazyGroup
from stream.errors import HearbackError, StoppedError

_INTERRUPTED = 130  # Typer's exit code after Ctrl-C

app = typer.Typer(
    name=DISTRIBUTION,
    cls=LazyGroup,
    help="How likely is an application to be answered? Learns it from the event stream, member by"
    " member and job by job, within a second.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    from importlib.metadata import version

    if wanted:
        typer.echo(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
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
    """Run the command line; the console script ``hearback``."""
    try:
        app()
    except HearbackError as error:
        sys.stderr.write(f"hearback: {error}\n")
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
