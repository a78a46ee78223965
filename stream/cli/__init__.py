"""SHELL: the command line. ``hearback COMMAND --help`` teaches each command.

Exit codes: 0 done, 1 failed with one line on stderr, 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

import typer

from stream.cli import demo, history, live, look
from stream.errors import HearbackError

app = typer.Typer(
    name="hearback",
    help="How likely is an application to be answered? Learns it from the event stream, member by"
    " member and job by job, within a second.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

for _command in (
    demo.demo,
    history.simulate,
    history.train,
    history.replay,
    look.inspect,
    live.broker,
    live.worker,
    live.produce,
):
    app.command()(_command)


def main() -> None:
    """Run the command line; the console script ``hearback``."""
    try:
        app()
    except HearbackError as error:
        sys.stderr.write(f"hearback: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("hearback: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
