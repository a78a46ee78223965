"""What labels that age cost: bytes for each application, and CPU time of a replay.

``make bench NAME=aging`` (a minute): a simulated market of 30 days with and without ``aging``
(without, an answer to a later applicant is a full no to the earlier ones). Bytes: all of it goes
through a member and a job partition in memory, ten events in each unit of work, so that few writes
fall together; what they write into the state, which is what changelogs hold, and what they send.
CPU time: ``hearback replay`` in this process, in turns. The last line is one JSON object.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median

from producers.simulate import SimulationSettings, simulate
from stream.events.records import APPLICATIONS, ENGAGEMENTS
from stream.logs.files import LogLine, read_head
from stream.policy import DAY_MS, LabelPolicy, Policy
from stream.replay.reader import first_look
from stream.replay.run_folder import RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.state.store import MemoryStore, Writes
from stream.updaters.newton import warm_up
from tests.kit import NOW_MS, Market, model

MARKET = SimulationSettings(
    members=400,
    jobs=80,
    start_ms=NOW_MS - 60 * DAY_MS,
    d_global=1,
    d_member=2,
    d_job=1,
    global_score=True,
)
POLICIES = {"with": Policy(), "without": Policy(labels=LabelPolicy(aging=()))}
IN_A_UNIT = 10
ROUNDS = 3


class Counted(MemoryStore):
    """A store that counts what is written into it, keys included."""

    written = 0

    def write(self, writes: Writes, *, logged: bool = True) -> None:
        """Write, and count."""
        super().write(writes, logged=logged)
        self.written += sum(len(key) + len(value or b"") for key, value in writes.items())


def bytes_of(lines: list[bytes], policy: Policy) -> tuple[int, int]:
    """Bytes that go into changelogs, and into the topics that are sent to."""
    market = Market(policy, 1, global_model=model())
    stores = [Counted(), Counted()]
    for stage, store in zip(("member", "job"), stores, strict=True):
        market.stores[stage, 0] = store
        market.restart(stage, 0)
    for at in range(0, len(lines), IN_A_UNIT):
        for line in lines[at : at + IN_A_UNIT]:
            head = read_head(line)
            assert head is not None
            if head.type == "application":
                market.append(APPLICATIONS, 0, str(head.member_id).encode(), line)
            else:
                market.append(ENGAGEMENTS, 0, str(head.job_id).encode(), line)
        market.run()
    sent = sum(len(one.key or b"") + len(one.value or b"") for one in market.sent)
    return sum(store.written for store in stores), sent


def seconds_of(lines: list[bytes], policy: Policy) -> float:
    """CPU time of a replay."""
    raw = (LogLine("simulated", number, line) for number, line in enumerate(lines, 1))
    read, space = first_look(raw, None)
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run") as out:
        began = time.process_time()
        replay(read, out, policy, None, space, Options(close=True))
        return time.process_time() - began


def main() -> None:
    """Run it and say what came out."""
    warm_up()
    lines = list(simulate(MARKET))
    applications = sum(b'"application"' in line for line in lines)
    found = {name: bytes_of(lines, policy) for name, policy in POLICIES.items()}
    for name, (state, sent) in found.items():
        print(
            f"{name:8} aging: {state / applications:7.0f} bytes of changelog and"
            f" {sent / applications:7.0f} of output an application"
        )
    ratios = []
    for turn in range(ROUNDS + 1):
        one, other = (seconds_of(lines, policy) for policy in POLICIES.values())
        if turn:  # the first warms up
            ratios.append(one / other)
            print(f"replay with aging {one:.1f} s, without {other:.1f} s: {one / other:.2f} times")
    state, sent = (one / other for one, other in zip(*found.values(), strict=True))
    both = sum(found["with"]) / sum(found["without"])
    print(
        json.dumps(
            {
                "changelog_times": round(state, 2),
                "output_times": round(sent, 2),
                "bytes_times": round(both, 2),
                "replay_cpu_times": round(median(ratios), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
