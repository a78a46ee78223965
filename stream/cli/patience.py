"""How long a command waits for a child process: as long as it gets on, however busy the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from pathlib import Path

_WITHOUT_PROGRESS_S = 120.0
_CPU_STEP_S = 10.0  # a process that only waits uses less in two minutes


class Patience:
    """Waits for a process; used by the demo, and by the stack of ``deploy``.

    Args:
        pid: of the process; computing is progress (where there is ``/proc``).
        signs: what changes as it gets on: the size of its log, what came of it.
        now_s: a clock that never goes back.
        cpu_step_s: so much CPU time is progress.

    """

    def __init__(
        self,
        pid: int,
        signs: Callable[[], Hashable],
        *,
        now_s: Callable[[], float] = time.monotonic,
        cpu_step_s: float = _CPU_STEP_S,
    ) -> None:
        self._pid = pid
        self._cpu_step_s = cpu_step_s
        self._signs = signs
        self._now_s = now_s
        self._seen: Hashable = None
        self._since_s = now_s()

    def is_over(self) -> bool:
        """Whether there has been no progress for two minutes; to be asked now and then."""
        seen = (self._signs(), _cpu_s(self._pid) // self._cpu_step_s)
        if seen != self._seen:
            self._seen, self._since_s = seen, self._now_s()
        return self._now_s() - self._since_s > _WITHOUT_PROGRESS_S


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:  # it has ended, or this is not Linux
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
