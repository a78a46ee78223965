"""States are opened by several threads at once, in a process that has read none before."""

from __future__ import annotations

import subprocess
import sys

_OPEN_TWELVE = """
import sys
import threading

from stream.features.blocks import FeatureSpace
from stream.policy import Policy
from stream.state.overlay import Overlay
from stream.partitions.progress import load_identity, save_identity
from stream.state.store import MemoryStore

store = MemoryStore()
overlay = Overlay(store)
save_identity(overlay, "m", FeatureSpace(None, ("a",), ("b",)), Policy())
overlay.flush()
sys.setswitchinterval(1e-6)
together = threading.Barrier(12)
found = []

def read():
    together.wait()
    found.append(load_identity(store))

threads = [threading.Thread(target=read) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 12
"""


def test_twelve_threads_read_their_first_identity_at_once() -> None:
    """A struct with structs in it, described at its first use, ended the process otherwise."""
    for _ in range(5):  # a process can be wrong only once, and is not every time
        done = subprocess.run(
            [sys.executable, "-c", _OPEN_TWELVE], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
