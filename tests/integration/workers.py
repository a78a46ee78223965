"""Workers and commands as a user starts them, and what a test waits for them to do."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from stream.cli import PROGRAM
from stream.worker.crashpoints import VARIABLE

if TYPE_CHECKING:
    from tests.integration.world import World

SEED = int(os.environ.get("HEARBACK_TEST_SEED", "1"))
"""Of whatever a test leaves to chance."""

SESSION_S = 3


class Worker:
    """A worker as a user starts it, with a data folder of its own."""

    def __init__(
        self,
        world: World,
        name: str,
        crash_at: str | None = None,
        more: Sequence[str] = (),
        program: Sequence[str] = PROGRAM[1:],
        largest_file_bytes: int | None = None,
    ) -> None:
        self.name = name
        self.failed = False  # as it had to
        self.log = world.folder / f"{name}-{time.monotonic_ns()}.log"
        environment = dict(os.environ)
        environment.pop(VARIABLE, None)
        if crash_at is not None:
            environment[VARIABLE] = crash_at
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, *program, "worker", "--broker", world.broker),
                    *("--model", str(world.market.folder / "model")),
                    *("--policy", str(world.market.policy_file)),
                    *("--data", str(world.folder / name), "--app-id", world.application_id),
                    *("--metrics-port", "0", "--session-timeout", f"{SESSION_S}s", *more),
                ],
                stderr=log,
                env=environment,
            )
        if largest_file_bytes is not None:
            limits = (largest_file_bytes, largest_file_bytes)
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, limits)

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return self.log.read_text()

    def has_partitions(self) -> bool:
        """Whether its metrics say that it works on some."""
        return self.metric("hearback_partitions") > 0

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric over everything that has these labels; 0 while nothing answers."""
        found = re.search(r"http://\S+/metrics", self.said)
        if found is None:
            return 0.0
        try:
            with urllib.request.urlopen(found.group(), timeout=5) as page:  # noqa: S310 - localhost
                text = page.read().decode()
        except OSError:
            return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def readiness(self) -> str:
        """What its ``/readyz`` says; nothing while it does not answer."""
        found = re.search(r"(http://\S+)/metrics", self.said)
        if found is None:
            return ""
        try:
            with urllib.request.urlopen(f"{found.group(1)}/readyz", timeout=5) as page:  # noqa: S310
                return str(page.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Let it stand still in the middle of whatever it does."""
        self.process.send_signal(signal.SIGSTOP)

    def is_frozen(self) -> bool:
        """Whether it stands still, at a crash point that freezes."""
        state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop gracefully; that has to succeed."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        assert self.process.returncode == 0, self.said

    def wait_for_failure(self, seconds: float = 60.0) -> str:
        """Wait until it has stopped with exit code 1; return its last line."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not stop: {self.said}") from None
        assert self.process.returncode == 1, self.said
        self.failed = True
        assert "Traceback" not in self.said
        return self.said.strip().splitlines()[-1]

    def wait_for_crash(self, seconds: float = 60.0) -> None:
        """Wait until it has died of its crash point."""
        assert self.has_crashed_within(seconds), f"did not come to its crash point: {self.said}"

    def has_crashed_within(self, seconds: float) -> bool:
        """Wait for it to die of its crash point, and of nothing else; whether it did."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        assert self.process.returncode == -signal.SIGKILL, self.said
        return True


def hearback(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )


def wait_for(condition: Callable[[], bool], *workers: Worker, seconds: float = 60.0) -> None:
    """Wait for a condition; a minute unless told otherwise, and the session time-out, at most."""
    deadline = time.monotonic() + seconds + SESSION_S
    while not condition():
        told = "\n".join(f"{worker.name}: {owned(worker)} {worker.said}" for worker in workers)
        assert time.monotonic() < deadline, told
        assert all(worker.process.poll() is None for worker in workers), told
        time.sleep(0.1)


def owned(worker: Worker) -> float:
    """How many partitions of both stages a worker works on."""
    return worker.metric("hearback_partitions")


def wait_for_partitions(worker: Worker) -> None:
    """Wait until a worker has been given its partitions and opened them."""
    deadline = time.monotonic() + 60
    while not worker.has_partitions():
        assert time.monotonic() < deadline, worker.said
        assert worker.process.poll() is None, worker.said
        time.sleep(0.05)


def flushes(worker: Worker) -> float:
    """How many units of work a worker has made safe."""
    return worker.metric("hearback_flush_seconds_count")
