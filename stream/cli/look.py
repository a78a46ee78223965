"""The inspect command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.options import ApplicationId, ConfigFile, configured, connected
from stream.cli.terminal import OUT, numbers, tell
from stream.effects import EFFECTS
from stream.errors import ConfigError
from stream.model.linear import load_model

if TYPE_CHECKING:
    from stream.serving.lookup import Entity

_KINDS = "|".join(spec.kind for spec in EFFECTS)


def inspect(
    kind: Annotated[str, typer.Argument(metavar=_KINDS, help="Of what.")],
    entity_id: Annotated[str, typer.Argument(metavar="ID", help="The member's or job's id.")],
    run: Annotated[Path | None, typer.Option(help="A replay's folder.")] = None,
    data: Annotated[Path | None, typer.Option(help="A stopped worker's data folder.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="Kafka (host:port): reads the coefficients topic.")
    ] = None,
    config: ConfigFile = None,
    model: Annotated[
        Path | None, typer.Option(help="With --broker: the model folder that names the features.")
    ] = None,
    app_id: ApplicationId = None,
) -> None:
    """Show what was learned of a member or a job.

    Coefficients in log-odds by feature name with standard errors, the number of applications
    learned and the last of them. Give one of --run, --data and --broker.
    """
    from stream.serving.lookup import from_data, from_run, from_topic

    effect = next((spec for spec in EFFECTS if spec.kind == kind), None)
    if effect is None:
        raise typer.BadParameter(f"{kind!r} is not one of {_KINDS}")
    if sum(source is not None for source in (run, data, broker)) != 1:
        raise typer.BadParameter("give exactly one of --run, --data and --broker")
    entity: Entity | None
    if run is not None:
        entity = from_run(run, effect, entity_id)
    elif data is not None:
        entity = from_data(data, effect, entity_id)
    else:
        found = configured(config, broker=broker, app_id=app_id)
        entity = from_topic(
            connected(found),
            effect,
            entity_id,
            model=None if model is None else load_model(model),
            application_id=found.worker.application_id,
        )
    if entity is None:
        raise ConfigError(f"nothing was learned of {kind} {entity_id}")
    tell(entity.in_words())
    table = numbers(None, "feature", "coefficient", "standard error")
    for name, mean, error in zip(
        entity.names, entity.coefficients.mean, entity.standard_errors, strict=True
    ):
        table.add_row(name, f"{mean:+.4f}", f"{error:.4f}")
    OUT.print(table)
