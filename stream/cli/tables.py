"""Command import: tables of a company → an event log."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.check import check
from stream.cli.options import ConfigFile, PolicyFile, configured
from stream.cli.terminal import OUT, doing, key_values, tell
from stream.errors import ConfigError

if TYPE_CHECKING:
    from stream.tables.load import Imported

_SHOWN_ROWS = 1_000
_SHOWN_EVENTS = 4

_FORMATS = "CSV, JSON Lines or Parquet"


def import_(
    applications: Annotated[
        Path, typer.Option(help=f"Table of applications: {_FORMATS}, plain or compressed.")
    ],
    actions: Annotated[Path, typer.Option(help="Table of what recruiters did with them.")],
    map_: Annotated[
        Path,
        typer.Option("--map", help="TOML file that says which column is what; --guess writes it."),
    ],
    jobs: Annotated[Path | None, typer.Option(help="Table of jobs.")] = None,
    members: Annotated[Path | None, typer.Option(help="Table of those who apply.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The log: .parquet, .jsonl, .jsonl.gz or .jsonl.zst.")
    ] = None,
    guess: Annotated[
        bool, typer.Option("--guess", help="Write a first map, and show what it makes of the rows.")
    ] = False,
    policy: PolicyFile = None,
    config: ConfigFile = None,
) -> None:
    """Make an event log from tables: applications, recruiters' actions, jobs, members.

    `--guess` writes a map of the columns from their names and values: look through it. Then the
    command without `--guess` reads the tables, joins jobs and members as of the time of each
    application, sorts all events by time, and checks the log as `hearback check` does. What is left
    out is counted by its reason.
    """
    labels = configured(config, policy=policy).policy.labels
    known = [*labels.positive_actions, *labels.negative_actions, *labels.neutral_actions]
    given = {"applications": applications, "actions": actions, "jobs": jobs, "members": members}
    files = {name: path for name, path in given.items() if path is not None}
    if guess:
        _guess(files, known, map_)
        return
    if out is None:
        raise typer.BadParameter("name the log: --out, or write a map first: --guess")
    if out.exists():
        raise ConfigError(f"{out} is there already: name another file or remove it")
    from stream.tables.load import import_tables
    from stream.tables.mapping import read_map

    mapping = read_map(map_, known)
    out.parent.mkdir(parents=True, exist_ok=True)
    with doing("reading tables") as show:
        made = import_tables(
            files, mapping, known, out, lambda what, share: show(f"{what}: {share:.0f} %")
        )
    _tell(made)
    tell(f"the log is {out}; as hearback check sees it:\n")
    check([out], policy=policy, config=config)


def _guess(files: dict[str, Path], known: list[str], map_: Path) -> None:
    from stream.tables.guess import guess_map
    from stream.tables.load import import_tables
    from stream.tables.mapping import read_map

    if map_.exists():
        raise ConfigError(f"{map_} is there already: name another file or remove it")
    with doing("looking at the tables"):
        guessed = guess_map(files, known, lambda _what, _share: None)
        map_.write_text(guessed.text, "utf-8")
        tell(guessed.text)
        if guessed.unknown:
            raise ConfigError(
                f"no column looks like {', '.join(guessed.unknown)}: name it in {map_}, where it"
                ' says "?"'
            )
        with TemporaryDirectory() as folder:
            log = Path(folder) / "log.jsonl"
            import_tables(
                files, read_map(map_, known), known, log, lambda _what, _share: None, _SHOWN_ROWS
            )
            lines = log.read_text("utf-8").splitlines()
    tell("Of the first rows it makes, among others:\n")
    for kind in ("application", "engagement", "job"):
        for line in [one for one in lines if one.startswith(f'{{"type":"{kind}"')][:_SHOWN_EVENTS]:
            tell(line)
    tell(f"\nThe map is {map_}: look through it, then give --out in place of --guess.")


def _tell(made: Imported) -> None:
    for title, counts in (
        ("rows read", made.read),
        ("events", made.written),
        ("applications whose row was found", made.joined),
        ("left out", made.left_out),
        ("not mapped: name them in [actions.names]", made.unmapped),
    ):
        if counts:
            OUT.print(key_values(title, counts))
    for note in made.notes:
        tell(f"warning: {note}")
