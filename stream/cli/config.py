"""The config command."""

from __future__ import annotations

from stream.cli.options import ConfigFile, PolicyFile, configured, group
from stream.cli.terminal import ERR, tell
from stream.configuration.load import with_model
from stream.configuration.settings import to_toml
from stream.errors import ModelError

config = group("The configuration: one TOML file, overridden by the environment.")


@config.command()
def show(config: ConfigFile = None, policy: PolicyFile = None) -> None:
    """Print every setting that is in force, and where it is from; secrets are not shown.

    What it prints is a configuration file: defaults, then what the model says of the effects, then
    the file, then the environment (HEARBACK_KAFKA_BROKER is [kafka] broker).
    """
    found = configured(config, policy=policy)
    if found.worker.model is not None:
        from stream.model.folder import load_model

        try:
            found = with_model(found, load_model(found.worker.model))
        except ModelError as error:
            tell(f"without what the model says of the effects: {error}", ERR)
    tell(to_toml(found, found.sources).rstrip("\n"))


@config.command()
def check(config: ConfigFile = None, policy: PolicyFile = None) -> None:
    """Check the configuration without starting anything: exit code 0, or 1 and one line.

    Checked are keys, types, ranges, durations, that settings agree with each other, and that the
    files of certificates, secrets and the model can be read.
    """
    from stream.kafka.connection import tls_context
    from stream.model.folder import load_model

    found = configured(config, policy=policy)
    tls_context(found.kafka)
    if found.worker.model is not None:
        model = load_model(found.worker.model)
        model.space.fitted(with_model(found, model).policy)
    files = [str(path) for path in (config, policy) if path is not None]
    where = " and ".join([*files, "the environment"])
    tell(f"{where} can be used; {len(found.sources)} settings are not the default")
