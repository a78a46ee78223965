"""A real Kafka with a second listener, SASL over TLS: PLAIN and SCRAM-SHA-512."""

from __future__ import annotations

import subprocess
from pathlib import Path

# Public, but not named in an __all__.
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.integration.kafka import Kafka, _found, _free_ports

USER = "hearback"
PASSWORD = "s3cret-of-the-tests"  # noqa: S105
_STORE_PASSWORD = "changeit-please"  # noqa: S105

_PROPERTIES = """
listeners=PLAINTEXT://{plain},SASL_SSL://{secure},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{plain},SASL_SSL://{secure}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PKCS12
ssl.keystore.location={store}
ssl.keystore.password={store_password}
"""


class SecureKafka(Kafka):
    """One node; ``secure_address`` asks for a user and has a certificate of its own CA.

    Args:
        folder: its data, log, settings and certificates.

    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        store, self.ca_file = folder / "keys.p12", folder / "ca.pem"
        keytool = _found("keytool")
        store_options = ("-keystore", str(store), "-storepass", _STORE_PASSWORD, "-alias", "kafka")
        for command in (
            (
                *(keytool, "-genkeypair", *store_options, "-storetype", "PKCS12"),
                *(
                    "-keyalg",
                    "RSA",
                    "-keysize",
                    "2048",
                    "-validity",
                    "30",
                    "-dname",
                    "CN=localhost",
                ),
                *("-ext", "SAN=dns:localhost,ip:127.0.0.1"),
            ),
            (keytool, "-exportcert", *store_options, "-rfc", "-file", str(self.ca_file)),
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        port, _ = _free_ports()
        self.secure_address = f"127.0.0.1:{port}"
        settings = folder / "server.properties"
        known = dict(
            line.split("=", 1) for line in settings.read_text().splitlines() if "=" in line
        )
        with settings.open("a") as more:
            more.write(
                _PROPERTIES.format(
                    plain=self.address,
                    secure=self.secure_address,
                    controller=known["controller.quorum.voters"].rsplit(":", 1)[1],
                    user=USER,
                    password=PASSWORD,
                    store=store,
                    store_password=_STORE_PASSWORD,
                )
            )

    def start(self) -> None:
        """Start it and make the user of SCRAM."""
        super().start()
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        upsert = UserScramCredentialUpsertion(
            USER, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode()
        )
        for future in client.alter_user_scram_credentials([upsert]).values():
            future.result(30)
