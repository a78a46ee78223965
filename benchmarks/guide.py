"""The guide 'Your own data' with many applications: its four commands, one after the other.

    make bench NAME=guide ARGS="--members 3450"

The invented company of examples/ is made again with so many candidates (3,450 send some 100,000
applications to 2,000 jobs), and the commands of docs/your-own-data.md run on its tables as they
stand there, from CSV to the report. Told of each: time on the wall, CPU time with that of its other
processes, and the most memory that all of them held together. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from stream.cli import PROGRAM

ROOT: Final = Path(__file__).parents[1]
GUIDE: Final = ROOT / "docs" / "your-own-data.md"
_COMMANDS: Final = ("import", "features", "train", "backtest")
_LOOK_EVERY_S: Final = 0.5


def main() -> None:
    """Make the tables, run the commands, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=3_450)
    parser.add_argument("--jobs", type=int, default=2_000)
    asked = parser.parse_args()
    members, jobs = asked.members, asked.jobs
    guide = GUIDE.read_text("utf-8")
    (map_,) = re.findall(r"^```toml\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^\$ hearback (.*)$", guide, re.MULTILINE)
    with TemporaryDirectory() as name:
        folder = Path(name)
        made = [ROOT / "examples" / "tables.py", folder, f"members={members}", f"jobs={jobs}"]
        subprocess.run([sys.executable, *map(str, made)], check=True, cwd=ROOT)
        (folder / "map.toml").write_text(map_, "utf-8")
        with (folder / "applications.csv").open(encoding="utf-8") as file:
            applications = sum(1 for _ in file) - 1
        print(f"{applications:,} applications, {os.cpu_count()} cores", flush=True)
        told = {}
        for line in lines[: len(_COMMANDS)]:
            words = shlex.split(line)
            told[words[0]] = measured([*PROGRAM, *words], folder)
            print(f"{words[0]}: {told[words[0]]}", flush=True)
    assert tuple(told) == _COMMANDS
    total = {key: round(sum(one[key] for one in told.values())) for key in ("wall_s", "cpu_s")}
    total["peak_mb"] = max(one["peak_mb"] for one in told.values())
    print(json.dumps({"applications": applications, **total, "commands": told}))


def measured(command: list[str], folder: Path) -> dict[str, Any]:
    """Run a command; return its times and the memory of it and of the processes that it starts."""
    before, began_s = os.times(), time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(process.pid))
        time.sleep(_LOOK_EVERY_S)
    assert process.returncode == 0, command
    wall_s, after = time.monotonic() - began_s, os.times()
    cpu_s = sum(after[2:4]) - sum(before[2:4])
    return {"wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1), "peak_mb": peak >> 20}


def _resident(pid: int) -> int:
    """Resident bytes of a process and of its children (Linux)."""
    found = 0
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
        found = pages * os.sysconf("SC_PAGE_SIZE")
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += sum(map(_resident, map(int, (task / "children").read_text("ascii").split())))
    except (OSError, ValueError):
        pass  # it has just ended
    return found


if __name__ == "__main__":
    main()
