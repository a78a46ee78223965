"""``hearback serve`` as processes of tests."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable

from stream.cli import PROGRAM
from tests.integration.world import World

_PATIENCE_S = 60.0


class Service:
    """``hearback serve`` as a process."""

    def __init__(self, world: World, name: str) -> None:
        self.log = world.folder / f"{name}.log"
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    *(*PROGRAM, "serve", "--broker", world.broker, "--port", "0"),
                    *("--model", str(world.market.folder / "model")),
                    *("--policy", str(world.market.policy_file)),
                    *("--app-id", world.application_id),
                    *("--snapshot", str(world.folder / "snapshot")),
                ],
                stderr=stderr,
            )

    @property
    def url(self) -> str:
        """Where it listens; empty while it does not."""
        found = re.search(r"(http://\S+)/v1/score", self.log.read_text())
        return found.group(1) if found else ""

    def is_ready(self) -> bool:
        """Whether it has read all."""
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            if self.url:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5)  # noqa: S310 - localhost
                return True
        return False


def wait(true: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
