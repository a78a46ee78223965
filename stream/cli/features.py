"""Commands about attributes and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import ConfigFile, Logs, PolicyFile, configured, group
from stream.cli.terminal import ERR, reading, tell
from stream.errors import ConfigError, LogError
from stream.logs.files import ReadProgress, merge

features = group("Say what becomes of attributes: a first spec from what a log holds.")


@features.command("suggest")
def suggest_spec(
    logs: Logs,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write (TOML); printed unless given."),
    ] = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
) -> None:
    """Write a first spec for the attributes of a log.

    Looks at what members, jobs and occasions say: numbers, dates, categories, lists of terms and
    texts, what can be compared between a member and a job, and what each tells alone about who is
    answered. Each feature has a comment that says so. `hearback train LOG --spec features.toml`
    learns it; docs/features.md says what else a spec can do.

    Leaves out, and names, what must have been written after the answer: an attribute that alone
    has an AUC above 0.9, or that is there only where there was an answer, or only where there was
    none. Also names of people and jobs, and what never changes. Memory stays within some 200 MB:
    of large logs a sample is looked at.
    """
    from stream.check.attributes import Sample
    from stream.check.suggestion import suggest

    if out is not None and out.exists():
        raise ConfigError(f"{out} is there already: name another file or remove it")
    sample = Sample(configured(config, policy=policy).policy.labels)
    read = ReadProgress()
    with reading("looking at attributes", read) as progress:
        sample.read(merge(logs, read), progress)
    if not sample.total:
        raise LogError(
            "no application has attributes: send them as member, job and context (docs/events.md)"
        )
    found = suggest(sample)
    for path, why in found.left_out:
        tell(f"left out: {path}: {why}", ERR)
    if out is None:
        typer.echo(found.text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(found.text, encoding="utf-8")
    tell(f"{found.features} features in {out}; hearback train LOG --spec {out} learns them")
