"""What `hearback import` takes: CPU and memory for many actions, as CSV.

    make bench NAME=tables ARGS="--actions 10000000"

Tables of random ids and times are written, then read, joined and sorted by a process of its own,
whose CPU time and largest resident memory are told. The look at the log that follows is not in the
figures. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

MAP: Final = """
[applications]
id = "application_id"
member = "candidate"
job = "job"
time = "applied_at"
channel = "source"
[actions]
id = "action_id"
application = "application"
time = "at"
action = "stage"
names = { "Phone screen" = "interview", "Rejected" = "reject", "Viewed" = "view_profile" }
"""

IMPORT: Final = """
import sys
from pathlib import Path
from stream.policy import Policy
from stream.tables.load import import_tables
from stream.tables.mapping import read_map
labels = Policy().labels
known = [*labels.positive_actions, *labels.negative_actions, *labels.neutral_actions]
folder = Path(sys.argv[1])
files = {name: folder / f"{name}.csv" for name in ("applications", "actions")}
made = import_tables(
    files, read_map(folder / "map.toml", known), known, folder / "log.parquet", lambda *_: None
)
print(sum(made.written.values()))
"""


def write_tables(folder: Path, actions: int, per_application: int = 8) -> int:
    """Write tables of so many actions; return the number of applications."""
    rng = np.random.default_rng(1)
    count = max(actions // per_application, 1)
    applied = np.datetime64("2024-01-01T00:00:00") + rng.integers(0, 200 * 86_400, count)
    members, jobs = rng.integers(0, count // 4 + 1, count), rng.integers(0, count // 60 + 1, count)
    with (folder / "applications.csv").open("w") as file:
        file.write("application_id,candidate,job,applied_at,source\n")
        for at, (time, member, job) in enumerate(zip(applied, members, jobs, strict=True)):
            file.write(f"app-{at:08d},member-{member:07d},job-{job:06d},{time}Z,web\n")
    stages = np.array(["Phone screen", "Rejected", "Viewed"])
    with (folder / "actions.csv").open("w") as file:
        file.write("action_id,application,at,stage\n")
        for start in range(0, actions, 1 << 20):
            size = min(1 << 20, actions - start)
            of = rng.integers(0, count, size)
            times = applied[of] + rng.integers(60, 13 * 86_400, size)
            chosen = stages[rng.integers(0, 3, size)]
            file.writelines(
                f"act-{start + at:09d},app-{of[at]:08d},{times[at]}Z,{chosen[at]}\n"
                for at in range(size)
            )
    (folder / "map.toml").write_text(MAP)
    return count


def main() -> None:
    """Write, import, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actions", type=int, default=1_000_000)
    actions = parser.parse_args().actions
    with TemporaryDirectory() as name:
        folder = Path(name)
        applications = write_tables(folder, actions)
        size = sum(path.stat().st_size for path in folder.glob("*.csv"))
        done = subprocess.run(
            [sys.executable, "-c", IMPORT, name], check=True, capture_output=True, text=True
        )
        assert int(done.stdout) == applications + actions
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s, peak_mb = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(f"{applications:,} applications and {actions:,} actions, {size / 1e6:,.0f} MB of CSV")
    print(f"{cpu_s:.0f} s of CPU, at most {peak_mb:,.0f} MB of memory")
    told = {"applications": applications, "actions": actions, "csv_mb": round(size / 1e6)}
    print(json.dumps({**told, "cpu_s": round(cpu_s, 1), "peak_mb": round(peak_mb)}))


if __name__ == "__main__":
    main()
