"""A request for 500 scores: of the service, and of Feast's online features over Redis.

Both read 16 numbers of each of 500 members and multiply them with 16 features of the candidate.
Feast is asked with its SDK, in the process that scores, once with 16 features of one number and
once with one of 16 numbers; its CPU is that of the process and of Redis. The service is asked over
loopback in MessagePack and answers the job's effect, deviations and probabilities besides; its CPU
is that of its process. They take turns in one run, over 20,000 and 200,000 members. Feast and Redis
live in an environment of their own, which the first run makes. The last line is one JSON object.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.baselines import baselines_python
from benchmarks.serve import CANDIDATES, FEATURES, Connection, a_model, cpu_s, messages, post
from stream.events.structs import Coefficients

MEMBERS = 20_000
TURNS = 5
ASKED = {"columns": 5, "array": 5, "service": 200}  # of a turn

_BASELINES = Path(__file__).parent


def means() -> np.ndarray:
    """Coefficients of the first members (n, d), as the service has them."""
    found: list[list[float]] = []
    for batch in messages(a_model().version, MEMBERS):
        for key, value in batch:
            if key.startswith(b"per_member:"):
                found.append(msgspec.json.decode(value or b"", type=Coefficients).mean)
    return np.array(found, np.float32)


def main() -> None:
    """Measure, print."""
    rng = np.random.default_rng(3)
    asked = rng.integers(0, MEMBERS, CANDIDATES)
    z = rng.normal(size=(CANDIDATES, FEATURES)).astype("<f4")
    columns = {
        "member_id": [f"m{number:07d}" for number in asked],
        "global_score": np.zeros(CANDIDATES).tobytes(),
        "per_member": z.tobytes(),
        "per_job": np.zeros((1, FEATURES), "<f4").tobytes(),
    }
    body = msgspec.msgpack.encode({"job_id": "j1", "columns": columns})
    request = post("application/msgpack", body)
    python = baselines_python(_BASELINES / "requirements-feast.txt")
    taken: dict[str, list[float]] = {name: [] for name in ASKED}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for array, of in ((means(), "means"), (asked, "asked"), (z, "z")):
            np.save(folder / f"{of}.npy", array)
        feast = subprocess.Popen(
            [python, "-P", _BASELINES / "baseline_online_store.py", folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        service = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serve", "server"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert feast.stdin is not None
            assert feast.stdout is not None
            assert service.stdout is not None
            port = int(service.stdout.readline())
            while (line := feast.stdout.readline()) != "ready\n":
                assert line, "Feast has ended"
            served = msgspec.msgpack.decode(Connection(port).ask(request))["columns"]["log_odds"]
            for kind in ("columns", "array"):
                difference = np.abs(np.frombuffer(served, "<f8") - np.load(folder / f"{kind}.npy"))
                assert difference.max() < 1e-4, difference.max()
            for _ in range(TURNS):
                for kind, count in ASKED.items():
                    if kind == "service":
                        connection = Connection(port)  # one that was idle would be closed
                        began = cpu_s(service.pid)
                        for _ in range(count):
                            connection.ask(request)
                        spent = cpu_s(service.pid) - began
                    else:
                        feast.stdin.write(f"{kind} {count}\n")
                        feast.stdin.flush()
                        spent = float(feast.stdout.readline())
                    taken[kind].append(spent / count)
        finally:
            feast.communicate()  # the end of its input is its end, and that of Redis
            service.terminate()
            service.wait()
    us = {kind: float(np.median(times)) * 1e6 for kind, times in taken.items()}
    print(f"{CANDIDATES} × {FEATURES} numbers read and scored: CPU of a request")
    print(f"Feast, {FEATURES} features of one number: {us['columns']:,.0f} µs")
    print(f"Feast, one feature of {FEATURES} numbers: {us['array']:,.0f} µs")
    print(f"the service: {us['service']:,.0f} µs")
    times = min(us["columns"], us["array"]) / us["service"]
    print(f"the service takes {times:.1f} times less than the better of them")
    found = {f"{kind}_us": round(each) for kind, each in us.items()} | {"times": round(times, 1)}
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
