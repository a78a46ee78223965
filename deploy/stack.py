"""``make stack``: the services of ``docker-compose.yml`` as processes of this machine.

The commands are those of the file; only folders and addresses are others. Kafka is the same release
from Maven Central, Prometheus the one that is installed. Grafana stays out: no package has it.
Ctrl-C ends everything. What is left is in the folder, ``stack-run``; the next start replaces it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from msgspec import structs

from deploy.compose import Condition, Service, in_order, services
from deploy.kafka import Kafka, free_ports
from deploy.kafka import MissingError as KafkaMissingError
from deploy.monitoring import TOKEN, MissingError, Prometheus, config_for, program
from stream.cli import PROGRAM
from stream.cli.patience import Patience

FOLDER = Path("stack-run")

_MARKER = ".hearback-stack"
_LEFT_OUT = "grafana"
_DOWN_S = 30.0


class StackError(Exception):
    """The stack cannot go on; says why in one line."""


class Process:
    """A service of ours as a process.

    Args:
        service: what to run.
        folder: of the whole stack.
        broker: Kafka's address.
        port: of its page, its probes and its metrics.
        addresses: where each ``name:port`` of the containers is on this machine.

    """

    def __init__(
        self,
        service: Service,
        folder: Path,
        broker: str,
        port: int | None,
        addresses: Mapping[str, str],
    ) -> None:
        self.name = service.name
        self.url = None if port is None else f"http://127.0.0.1:{port}"
        self.log = folder / f"{service.name}.log"
        self._asked = False
        command = [*PROGRAM, *localised(service, folder, addresses)]
        environment = dict(os.environ) | service.environment | {"HEARBACK_KAFKA_BROKER": broker}
        if port is not None:
            environment |= {
                "HEARBACK_CONSOLE_HOST": "127.0.0.1",
                "HEARBACK_CONSOLE_PORT": str(port),
                "HEARBACK_SERVING_HOST": "127.0.0.1",
                "HEARBACK_SERVING_PORT": str(port),
            }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the stack, which ends it in its turn
            )
        self.patience = Patience(self._process.pid, lambda: self.log.stat().st_size)

    def failed(self) -> bool:
        """Whether it has ended with an error."""
        return self._process.poll() not in {None, 0}

    def done(self) -> bool:
        """Whether it has ended well."""
        return self._process.poll() == 0

    def ready(self) -> bool:
        """Whether it says so itself."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):  # noqa: S310 - localhost
                return True
        except OSError:
            return False

    def request_stop(self) -> None:
        """Tell it to end, as an operator would: once, a second time would cut it short."""
        if not self._asked:
            self._asked = True
            self._process.terminate()

    def stop(self) -> None:
        """End it."""
        self.request_stop()
        try:
            self._process.wait(_DOWN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """Its log's last line."""
        return (self.log.read_text(errors="replace").strip().splitlines() or ["nothing said"])[-1]


class Stack:
    """All services; a context manager that ends them.

    Args:
        folder: everything's data and logs; one that an earlier stack made is replaced.
        say: told what happens.
        any_port: take free ports, not those that the file publishes.
        options: of services' commands, in place of those of the same name in the file.
        scrape_interval: of Prometheus, instead of what its file says.

    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        any_port: bool = False,
        options: Mapping[str, Sequence[str]] | None = None,
        scrape_interval: str | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.processes: dict[str, Process] = {}
        self.prometheus: Prometheus | None = None
        self.broker = ""
        self._services = services()
        self._ports = {
            one.name: free_ports()[0] if any_port else one.ports[0].outside
            for one in self._services.values()
            if one.ports and one.name != _LEFT_OUT
        }
        self._addresses = {
            f"{name}:{self._services[name].ports[0].inside}": f"127.0.0.1:{port}"
            for name, port in self._ports.items()
        }
        self._say = say
        self._options = options or {}
        self._scrape_interval = scrape_interval
        self._stop = threading.Event()
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        if self.folder.is_dir() and not (self.folder / _MARKER).is_file():
            raise StackError(f"{self.folder} is there already and no stack's: remove it yourself")
        for name, port in self._ports.items():
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    raise StackError(f"port {port}, of {name}, is taken: is a stack running?")
        program()  # is it there? Better said before anything is started
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / _MARKER).touch()
        return self

    def __exit__(self, *_: object) -> None:
        self._say("ending everything")
        for process in self.processes.values():
            process.request_stop()
        self._ends.close()

    def request_stop(self) -> None:
        """Let :meth:`start` and :meth:`watch` return; for signal handlers."""
        self._stop.set()

    def start(self) -> None:
        """Start one service after the other, each when what it waits for is there.

        Raises:
            StackError: one has failed, or takes too long.

        """
        for service in in_order(self._services):
            if service.name == _LEFT_OUT:
                continue
            for other, condition in service.waits_for.items():
                self.wait_for(other, condition)
            if self._stop.is_set():
                return
            self._start(service)

    def addresses(self) -> str:
        """Say where everything is, for a person."""
        token = f"#token={TOKEN.read_text(encoding='utf-8').strip()}"
        told = [f"  Kafka       {self.broker}"]
        told += [
            f"  {name:<11} {process.url}/{token if name == 'serve' else ''}"
            for name, process in self.processes.items()
            if process.url is not None
        ]
        if self.prometheus is not None:
            alerts = self.prometheus.alerts
            told.append(f"  Prometheus  {self.prometheus.url}/ (its alerts: {alerts})")
        told.append(f"logs and data in {self.folder}; Ctrl-C ends everything")
        return "\n".join(["running; a simulated market is played", *told])

    def watch(self, seconds: float | None = None) -> None:
        """Return when a stop is requested, or after so many seconds.

        Raises:
            StackError: a service has failed.

        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._stop.wait(0.5):
            self._check()
            if deadline is not None and time.monotonic() > deadline:
                return

    def _start(self, service: Service) -> None:
        self._say(f"starting {service.name}")
        port = self._ports.get(service.name)
        if service.name == "kafka":
            kafka = Kafka(self.folder / service.name, port)
            self._ends.callback(kafka.stop)
            kafka.start()
            self.broker = kafka.address
        elif service.name == "prometheus":
            self.prometheus = Prometheus(
                self.folder / service.name,
                self._ports[service.name],
                config_for(self._addresses, self._scrape_interval),
            )
            self._ends.callback(self.prometheus.stop)
            self.prometheus.start()
        elif service.is_ours:
            service = with_options(service, self._options.get(service.name, ()))
            process = Process(service, self.folder, self.broker, port, self._addresses)
            self.processes[service.name] = process
            self._ends.callback(process.stop)
        else:
            raise StackError(f"nobody knows how to run {service.name} as a process")

    def wait_for(self, name: str, condition: Condition) -> None:
        """Return when a service is there, has become ready, or has ended well.

        Raises:
            StackError: it has failed, or takes too long.

        """
        process = self.processes.get(name)
        if process is None or condition == "service_started":
            return  # Kafka and Prometheus answer when they have been started
        reached = process.ready if condition == "service_healthy" else process.done
        while not reached() and not self._stop.is_set():
            self._check()
            if process.patience.is_over():
                raise StackError(f"{name} does not get on: see {process.log}")
            self._stop.wait(0.2)

    def _check(self) -> None:
        for process in self.processes.values():
            if process.failed():
                raise StackError(f"{process.name}: {process.last_words()} (see {process.log})")
        if self.prometheus is not None and self.prometheus.ended:
            raise StackError(f"Prometheus has ended: see {self.folder / 'prometheus'}")


def localised(service: Service, folder: Path, addresses: Mapping[str, str]) -> list[str]:
    """Return a command's arguments with the paths and addresses of this machine.

    A volume is a folder of its name; other files are where the repository has them.
    """
    arguments = list(service.command[1:])
    for there, address in addresses.items():
        arguments = [argument.replace(f"//{there}", f"//{address}") for argument in arguments]
    for mount in service.mounts:
        here = folder / mount.source if mount.is_volume else Path(mount.source).absolute()
        if mount.is_volume:
            here.mkdir(exist_ok=True)
        arguments = [
            argument.replace(mount.target, str(here), 1)
            if argument.split("=", 1)[-1].startswith(mount.target)
            else argument
            for argument in arguments
        ]
    return arguments


def with_options(service: Service, options: Sequence[str]) -> Service:
    """Return the service with options, ``--days=20``, in place of its own of the same name."""
    named = {option.split("=", 1)[0] for option in options}
    kept = (one for one in service.command if one.split("=", 1)[0] not in named)
    return structs.replace(service, command=(*kept, *options))


def main() -> int:
    """Run the stack until Ctrl-C."""

    def say(words: str) -> None:
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()

    try:
        with Stack(FOLDER, say) as stack:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stack.request_stop())
            stack.start()
            say(stack.addresses())
            stack.watch()
    except (StackError, MissingError, KafkaMissingError, RuntimeError) as error:
        sys.stderr.write(f"stack: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
