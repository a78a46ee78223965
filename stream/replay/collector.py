"""The garbage collector, told what a replay is like."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG = 100_000  # objects made, less those gone, before the collector looks at them


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Let the collector walk what is in memory a hundred times less often.

    A replay holds a million objects that refer to each other without cycles and go by themselves;
    walking them after every 700 new ones would be a good part of its time.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
