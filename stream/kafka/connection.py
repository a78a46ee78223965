"""Where a Kafka broker is, and how to talk to it: TLS and SASL.

A :class:`Broker` is the address itself (``host:port``, several with commas), so it goes wherever an
address goes; whoever makes a client of librdkafka adds :func:`client_security`, Faust is given
:func:`tls_context` and the credentials. Secrets are never part of a text: not of ``repr``, not of
an error.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec

from stream.errors import ConfigError
from stream.units import Setting

Protocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to a broker: the settings of ``[kafka]`` but for the address."""

    protocol: Annotated[Protocol, Setting("how to talk to the brokers", key="security")] = (
        "plaintext"
    )
    mechanism: Annotated[
        Mechanism | None, Setting("of SASL", example="SCRAM-SHA-512", key="sasl_mechanism")
    ] = None
    username: Annotated[str | None, Setting("of SASL", example="hearback")] = None
    password: Annotated[str | None, Setting("of SASL", secret=True)] = None
    password_file: Annotated[
        Path | None, Setting("its first line is the password", "/run/secrets/kafka-password")
    ] = None
    ca_file: Annotated[
        Path | None, Setting("PEM of the trusted CAs; else the system's", "/etc/hearback/ca.pem")
    ] = None
    certificate_file: Annotated[
        Path | None, Setting("PEM of the client's own certificate", "/etc/hearback/client.pem")
    ] = None
    key_file: Annotated[Path | None, Setting("PEM of its key", "/etc/hearback/client.key")] = None
    key_password: Annotated[str | None, Setting("of the key", secret=True)] = None
    key_password_file: Annotated[
        Path | None, Setting("its first line is the key's password", "/run/secrets/key-password")
    ] = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.sasl and not (self.mechanism and self.username and self.password):
            raise ConfigError(
                f"[kafka] security {self.protocol} needs sasl_mechanism, username and a password"
                " (HEARBACK_KAFKA_PASSWORD, or password_file)"
            )
        if not self.sasl and (self.mechanism or self.username or self.password):
            raise ConfigError(
                f"[kafka] a user or password is given, but security is {self.protocol}: set it to"
                " sasl_ssl (or sasl_plaintext)"
            )
        files = [self.ca_file, self.certificate_file, self.key_file]
        if any(files) and not self.tls:
            raise ConfigError(
                f"[kafka] certificates are given, but security is {self.protocol}: set it to ssl or"
                " sasl_ssl"
            )
        if (self.certificate_file is None) != (self.key_file is None):
            raise ConfigError("[kafka] certificate_file and key_file belong together")
        for path in files:
            if path is not None and not path.is_file():
                raise ConfigError(f"[kafka] there is no file {path}")

    @property
    def sasl(self) -> bool:
        """Whether there is a user and a password."""
        return self.protocol.startswith("sasl")

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.protocol.endswith("ssl")

    def __repr__(self) -> str:
        """Say everything but the secrets."""
        return f"Security({self.protocol}, {self.mechanism}, username={self.username})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Say no more to rich, which would ask for the fields."""
        names = ("protocol", "mechanism", "username")
        return [(name, getattr(self, name)) for name in names]


PLAINTEXT = Security()


class Broker(str):
    """An address that knows how to talk to what is there."""

    security: Security

    __slots__ = ("__dict__",)

    def __new__(cls, address: str, security: Security = PLAINTEXT) -> Self:
        """Make one of an address."""
        made = super().__new__(cls, address)
        made.security = security
        return made


def security_of(broker: str) -> Security:
    """How to talk to a broker; in plain text to one that is just an address."""
    return broker.security if isinstance(broker, Broker) else PLAINTEXT


def client_security(broker: str) -> dict[str, str]:
    """Settings of librdkafka that the broker needs; none for plain text."""
    security = security_of(broker)
    if security.protocol == "plaintext":
        return {}
    wanted = {
        "sasl.mechanism": security.mechanism,
        "sasl.username": security.username,
        "sasl.password": security.password,
        "ssl.ca.location": security.ca_file,
        "ssl.certificate.location": security.certificate_file,
        "ssl.key.location": security.key_file,
        "ssl.key.password": security.key_password,
    }
    given = {name: str(value) for name, value in wanted.items() if value is not None}
    return {"security.protocol": security.protocol} | given


def tls_context(security: Security) -> ssl.SSLContext | None:
    """TLS as Python's sockets want it; None where the connection is not encrypted.

    Raises:
        ConfigError: a certificate or key cannot be read.

    """
    if not security.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=security.ca_file)
        if security.certificate_file is not None:
            context.load_cert_chain(
                security.certificate_file, security.key_file, security.key_password or ""
            )
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"[kafka] certificates cannot be used: {error}") from None
    return context
