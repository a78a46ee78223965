"""How long a command waits for a child process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from stream.cli.patience import Patience


def test_who_gets_on_is_waited_for() -> None:
    """Hours, if need be; two minutes without a sign are enough."""
    now_s, sign = [0.0], [0]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        patience = Patience(child.pid, lambda: sign[0], now_s=lambda: now_s[0])
        for _ in range(100):
            now_s[0] += 100.0
            sign[0] += 1
            assert not patience.is_over()
        now_s[0] += 119.0
        assert not patience.is_over()
        now_s[0] += 2.0
        assert patience.is_over()


def test_who_computes_gets_on() -> None:
    """A process that has used CPU time between two looks need not have said anything."""
    now_s = [0.0]
    patience = Patience(os.getpid(), lambda: None, now_s=lambda: now_s[0], cpu_step_s=0.02)
    assert not patience.is_over()
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    now_s[0] = 121.0
    assert not patience.is_over()
