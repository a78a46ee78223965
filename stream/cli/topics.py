"""The topics that a worker needs."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.options import (
    ApplicationId,
    BrokerAddress,
    ConfigFile,
    PolicyFile,
    configured,
    connected,
    group,
)
from stream.cli.terminal import tell

topics = group(__doc__)


@topics.command()
def create(
    broker: BrokerAddress = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Partitions of each topic, forever; many more than workers. Default: as those"
            " that are there, else 12.",
        ),
    ] = None,
    replication: Annotated[
        int | None,
        typer.Option(min=1, help="Copies of each partition. Default: 3, if there are 3 brokers."),
    ] = None,
    app_id: ApplicationId = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
) -> None:
    """Create the topics that are missing; check those that are there.

    Inputs and labels are kept for twice the label window; coefficients and the changelogs of the
    application id are compacted. Topics that are not as they have to be are refused, with the
    command that sets them right; none is ever changed.
    """
    from stream.worker.topics import create_topics

    found = configured(config, policy=policy, broker=broker, app_id=app_id)
    made = create_topics(
        connected(found),
        found.worker.application_id,
        found.policy.labels.window_ms,
        partitions=partitions,
        replication=replication,
    )
    for name, new in made.items():
        tell(f"{'created' if new else 'is there'}  {name}")
