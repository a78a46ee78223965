"""Is the worker alive, and is it ready? Asked from the server's threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_BEAT_S = 1.0
_SILENT_S = 30.0  # a recovery's or a batch's compute may hold the loop for some seconds

Answer = tuple[bool, str]
"""Yes or no, and the reason."""


class Probes:
    """Answers for ``/healthz`` and ``/readyz``.

    Alive: the event loop turns. A worker that is not should be killed; the next one goes on from
    the state. Ready: every partition that is assigned here is worked on; not while recovering.

    Args:
        now_s: a clock that never goes back.

    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._beaten_s = now_s()
        self._why_not: Callable[[], str | None] = lambda: "starting"

    def watch(self, why_not: Callable[[], str | None]) -> None:
        """Ask this from now on: why the worker is not ready, or None when it is."""
        self._why_not = why_not

    def beat(self) -> None:
        """Note that the event loop turns; once called within it, it calls itself."""
        self._beaten_s = self._now_s()
        asyncio.get_running_loop().call_later(_BEAT_S, self.beat)

    def alive(self) -> Answer:
        """Whether the event loop has turned lately."""
        silent_s = self._now_s() - self._beaten_s
        if silent_s > _SILENT_S:
            return False, f"the event loop has not turned for {silent_s:.0f} s"
        return True, "alive"

    def ready(self) -> Answer:
        """Whether every partition that is assigned is worked on."""
        why_not = self._why_not()
        return why_not is None, why_not or "ready"
