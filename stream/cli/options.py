"""Options that several commands share, and the configuration below them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from stream.cli.terminal import ERR, tell
from stream.configuration.load import load_config, renamed
from stream.configuration.sections import Config
from stream.configuration.settings import reason, table
from stream.errors import ConfigError
from stream.kafka.connection import Broker
from stream.model.kind import ModelKind
from stream.text import read_text

_T = TypeVar("_T")


def group(about: str) -> typer.Typer:
    """Commands below a name, which stays when there is but one; ``about``: what the list says."""
    commands = typer.Typer(help=about, no_args_is_help=True)
    commands.callback()(lambda: None)
    return commands


_SETTINGS = {row.name: row for row in table(Config())}


def setting(name: str, *flags: str, **more: Any) -> Any:
    """Option that stands above a setting, which explains it; goes to :func:`configured`."""
    row = _SETTINGS[name]
    default = f"[{row.section}] {row.key}" + (f", {row.text}" if row.written else "")
    text = f"{row.help[0].upper()}{row.help[1:]}. Default: {default}."
    return typer.Option(*flags, help=text, **more)


Logs = Annotated[
    list[Path],
    typer.Argument(
        metavar="LOG...",
        help="Event logs: JSON Lines or an array, plain or compressed (gzip, zstd), or Parquet."
        " Several are merged by event time.",
    ),
]
MaxJump = Annotated[
    str | None,
    typer.Option(
        "--max-jump",
        help="Hold an event that lies further ahead (30d, say) back until 100 others lie there"
        " too; a single wrong clock then closes no windows.",
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        help="TOML file with [features], [labels], [effects.*] and [gate] alone; stands above"
        " --config.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="HEARBACK_CONFIG",
        help="TOML file with all settings (hearback.example.toml lists them).",
    ),
]
BrokerAddress = Annotated[str | None, setting("kafka.broker", "--broker")]
ApplicationId = Annotated[str | None, setting("worker.application_id", "--app-id")]
Replication = Annotated[
    int | None,
    typer.Option(min=1, help="Copies of each new topic. Default: 3, if there are 3 brokers."),
]
DataFolder = Annotated[Path | None, setting("worker.data", "--data")]


FeatureNames = Annotated[
    Path | None,
    typer.Option(
        "--feature-names",
        help="JSON file with the names of the blocks global, per_member and per_job, for logs"
        " that carry features as lists (a truth file of simulate will do).",
    ),
]
Margin = Annotated[
    float,
    typer.Option(min=0.0, help="Worse is: an AUC lower, or a log loss higher, by more than this."),
]
Kind = Annotated[ModelKind, typer.Option("--kind", help="A logistic regression, or boosted trees.")]


SpecFile = Annotated[
    Path | None,
    typer.Option(
        "--spec",
        help="TOML file that says what becomes of attributes (`hearback features suggest` writes"
        " one), where applications carry them.",
    ),
]


def names_in(path: Path) -> dict[str, list[str]]:
    """Read a file of feature names."""
    try:
        document = msgspec.json.decode(read_text(path))
        if isinstance(document, dict) and "feature_names" in document:
            document = document["feature_names"]
        return msgspec.convert(document, dict[str, list[str]])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"feature names {path}: {reason(error)}") from None


def parsed(parse: Callable[[str], _T], text: str | None) -> _T | None:
    """Read an option's text; what cannot be read is bad usage (exit code 2)."""
    if text is None:
        return None
    try:
        return parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def configured(
    config: Path | None,
    *,
    policy: Path | None = None,
    broker: str | None = None,
    app_id: str | None = None,
    options: Mapping[str, object] | None = None,
) -> Config:
    """Read the configuration; options stand above it: those given, by the setting's name.

    Raises:
        BadParameter: an option cannot be.

    """
    given = {"kafka.broker": broker, "worker.application_id": app_id, **(options or {})}
    values = {
        name: parsed(partial(_SETTINGS[name].read, text=True), str(value))
        for name, value in given.items()
        if value is not None
    }
    environment = renamed(os.environ, partial(tell, console=ERR))
    return load_config(config, environment, policy, values)


def connected(config: Config) -> Broker:
    """Return the broker, which has to be named.

    Raises:
        BadParameter: it is not.

    """
    if not config.broker:
        raise typer.BadParameter(
            "no broker is named: give --broker, HEARBACK_KAFKA_BROKER, or [kafka] broker in"
            " --config"
        )
    return config.broker
