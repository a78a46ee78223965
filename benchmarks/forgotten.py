"""What markers of forgotten members and jobs cost each application, by CPU time in one run.

``make bench NAME=forgotten``: applications go through a member partition and a job partition in
memory, with and without 10,000 markers in each, in turns.
"""

from __future__ import annotations

import json
import time
from statistics import median

from stream.policy import Policy
from stream.state import codec, keys
from tests.kit import NOW_MS, Market, application

MARKERS = 10_000
EVENTS = 2_000
ROUNDS = 15


def market(markers: int) -> Market:
    """Partitions of which so many members and jobs were forgotten lately."""
    made = Market(Policy(), 1)
    for stage in ("member", "job"):
        made.stores[stage, 0].write(
            {
                keys.key(keys.FORGOTTEN, f"per_{stage}", f"gone{each}"): codec.FORGOTTEN.encode(
                    (NOW_MS, NOW_MS)
                )
                for each in range(markers)
            }
        )
        made.restart(stage, 0)
    return made


def seconds(made: Market, turn: int) -> float:
    """CPU time of some applications, each of which moves event time."""
    first = 1_000_000 + turn * EVENTS
    made.produce([application(f"a{each}", each) for each in range(first, first + EVENTS)])
    began = time.process_time()
    made.run()
    return time.process_time() - began


def main() -> None:
    """Run it and say what came out."""
    without, with_markers = market(0), market(MARKERS)
    ratios = []
    for turn in range(ROUNDS + 1):
        one, other = seconds(without, turn), seconds(with_markers, turn)
        if turn:  # the first warms up
            ratios.append(other / one)
            print(f"{one / EVENTS * 1e6:6.1f} µs an application, {other / one:.3f} times with them")
    found = {"markers": MARKERS, "times": round(median(ratios), 3)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
