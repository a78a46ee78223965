"""A real Kafka of one node on this machine, a plain Java process: for the stack, tests, benchmarks.

Its jars come from Maven Central, once, into ``~/.cache/hearback``. ``python -m deploy.kafka start``
(``make kafka``) leaves one running in ``.kafka`` and prints its address, ``stop`` (``make
kafka-stop``) ends it and removes its files.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.cli.patience import Patience

_POM = Path(__file__).with_name("kafka-pom.xml")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hearback"
_LIBS = _CACHE / "kafka-4.3.0"
_DOWNLOAD_S = 600.0  # and whatever else may take long on a busy machine
_DOWN_S = 30.0
_STANDING = Path(".kafka")  # the folder of `make kafka`

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""

_LOG4J = """\
status: error
name: Kafka
appenders:
  Console:
    name: STDOUT
    PatternLayout:
      pattern: "%d %p %c %m%n"
Loggers:
  Root:
    level: warn
    AppenderRef:
      - ref: STDOUT
"""


class MissingError(Exception):
    """Java, Maven or the jars cannot be had; says which, for the words of a skipped test."""


class Kafka:
    """One node, broker and controller in one; may be stopped, killed and started again.

    Args:
        folder: its data, log and settings.
        port: where it listens; any free one by default.

    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._folder = folder
        self._libs = jars()
        free, controller = free_ports()
        port = free if port is None else port
        self.address = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = folder / "server.properties"
        self._settings.write_text(
            PROPERTIES.format(port=port, controller=controller, folder=folder)
        )
        (folder / "log4j2.yaml").write_text(_LOG4J)
        # The leading letter: an id that begins with a dash would be taken for an option.
        cluster = "k" + urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        formatting = self._java("256m", "kafka.tools.StorageTool", "format", "-t", cluster, "-c")
        if formatting.wait(_DOWNLOAD_S) != 0:
            raise RuntimeError(f"Kafka's folder cannot be made: see {folder / 'kafka.log'}")

    @property
    def pid(self) -> int:
        """Of the Java process."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = self._java("512m", "kafka.Kafka")
        log = self._folder / "kafka.log"
        patience = Patience(self._process.pid, lambda: log.stat().st_size)
        while not answers(self.address, timeout_s=1):
            if self._process.poll() is not None or patience.is_over():
                raise RuntimeError(f"Kafka does not start: see {log}")

    def stop(self) -> None:
        """End it in an orderly way; its data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; its data stays."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_DOWN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _java(self, heap: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "kafka.log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(found("java"), f"-Xmx{heap}", "-XX:+UseSerialGC"),
                    f"-Dlog4j2.configurationFile={self._folder / 'log4j2.yaml'}",
                    f"-Djava.io.tmpdir={self._folder}",  # a killed one leaves its libraries there
                    *("-cp", f"{self._libs}/*", program, *arguments, str(self._settings)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, not for it
            )


def jars() -> Path:
    """Return the folder of Kafka's jars; fetched once.

    Raises:
        MissingError: there is no Java or Maven, or the jars cannot be fetched.

    """
    found("java")
    if _LIBS.is_dir():
        return _LIBS
    maven = found("mvn")
    _CACHE.mkdir(parents=True, exist_ok=True)
    making = _CACHE / f"kafka-{os.getpid()}"
    command = [
        *(maven, "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"),
        *(f"-DoutputDirectory={making}", "-DincludeScope=runtime"),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_DOWNLOAD_S
        )
    except subprocess.TimeoutExpired:
        raise MissingError("Maven did not fetch Kafka's jars in time") from None
    if done.returncode != 0:
        last = (done.stdout or done.stderr).strip().splitlines()[:1]
        raise MissingError(f"Maven could not fetch Kafka's jars: {' '.join(last)}")
    with suppress(OSError):  # another process was faster
        making.rename(_LIBS)
    shutil.rmtree(making, ignore_errors=True)
    return _LIBS


def found(program: str) -> str:
    """Return a program's path.

    Raises:
        MissingError: it is not there.

    """
    path = shutil.which(program)
    if path is None:
        raise MissingError(f"there is no {program} (Java 17 and Maven are needed)")
    return path


def free_ports() -> tuple[int, int]:
    """Return two ports that are free, below those that the system gives to outgoing connections."""
    dice = random.SystemRandom()
    ports: list[int] = []
    while len(ports) < 2:
        port = dice.randrange(20_000, 32_000)
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            ports.append(port)
    return ports[0], ports[1]


def answers(address: str, timeout_s: float = 5.0) -> bool:
    """Whether a broker does, at this address."""
    host, port = address.rsplit(":", 1)
    with suppress(KafkaException, OSError):
        socket.create_connection((host, int(port)), timeout_s).close()  # refused at once, if so
        client = AdminClient({"bootstrap.servers": address, "log_level": 0})
        return bool(client.list_topics(timeout=timeout_s).brokers)
    return False


def _end_standing() -> None:
    """End the Kafka of ``make kafka``, if there is one, and remove its folder."""
    pid = _STANDING / "pid"
    if pid.is_file():
        number = int(pid.read_text())
        # After a restart of the machine the number may be another program's.
        ps = shutil.which("ps")
        asked = [ps, "-o", "args=", "-p", str(number)] if ps else ["cat", f"/proc/{number}/cmdline"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if str(_STANDING.absolute()) in done.stdout:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
    shutil.rmtree(_STANDING, ignore_errors=True)


def main(command: str) -> int:
    """Start or stop the Kafka of ``make kafka``."""
    address = _STANDING / "address"
    if command == "start" and address.is_file() and answers(address.read_text().strip()):
        sys.stdout.write(address.read_text())
        return 0
    _end_standing()
    if command == "stop":
        return 0
    try:
        kafka = Kafka(_STANDING.absolute())
        kafka.start()
    except (MissingError, RuntimeError) as error:
        sys.stderr.write(f"no Kafka: {error}\n")
        return 1
    address.write_text(f"{kafka.address}\n")
    (_STANDING / "pid").write_text(str(kafka.pid))
    sys.stdout.write(f"{kafka.address}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
