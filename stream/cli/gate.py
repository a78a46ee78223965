"""The gate: it holds back the coefficients of an effect that makes the score worse."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from stream.cli.options import (
    ApplicationId,
    BrokerAddress,
    ConfigFile,
    configured,
    connected,
    group,
)
from stream.cli.terminal import tell
from stream.effects import EFFECT_NAMES

_CHOICES = "|".join([*EFFECT_NAMES, "all"])

gate = group(__doc__)


@gate.command("open")
def open_(
    effect: Annotated[str, typer.Argument(metavar=_CHOICES, help="Whose coefficients.")],
    broker: BrokerAddress = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Only in this partition. Default: in all.")
    ] = None,
    app_id: ApplicationId = None,
    config: ConfigFile = None,
) -> None:
    """Publish an effect's coefficients again, whatever its score is worth now.

    What changed while the gate was shut is published, and judging starts anew with the applications
    submitted from now on, so that a gate that still has reason shuts again. The workers obey within
    a second, those that are down when they are back. hearback_gate_open in their metrics tells.
    """
    from stream.partitions.commands import GateCommand
    from stream.worker.control import send_command

    if effect not in {*EFFECT_NAMES, "all"}:
        raise typer.BadParameter(f"{effect!r} is not one of {_CHOICES}")
    found = configured(config, broker=broker, app_id=app_id)
    address, application_id = connected(found), found.worker.application_id
    for each in EFFECT_NAMES if effect == "all" else [effect]:
        command = GateCommand(each, partition, time.time_ns() // 1_000_000)
        send_command(address, application_id, command)
        where = "all partitions" if partition is None else f"partition {partition}"
        tell(f"told the workers of {application_id} to publish {each} in {where}")
