"""The environment of what hearback is compared with, never ours.

lambda-learner fails on SciPy ≥ 1.18, so it, river, stock Faust and Quix Streams live in a virtual
environment of their own, made on first use from ``requirements-baselines.txt`` in the
user's cache folder (or in HEARBACK_BASELINES) and kept for the next time. A benchmark runs its
baselines as a program there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements-baselines.txt")


def baselines_python(requirements: Path = REQUIREMENTS) -> Path:
    """Return the Python of an environment of baselines, making it the first time.

    Another list of requirements, or another Python, is another environment.

    Ends the program with what pip said where it cannot install them.

    """
    recipe = sys.version.encode() + requirements.read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hearback"
    root = Path(os.environ.get("HEARBACK_BASELINES") or cache / "baselines")
    home = root / hashlib.sha256(recipe).hexdigest()[:12]
    python = home / "bin" / "python"
    ready = home / "ready"
    if not ready.exists():
        print(f"installing the baselines into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        made = subprocess.run(
            [python, *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
             *("-r", requirements)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode != 0:
            sys.exit(
                f"the baselines could not be installed into {home}:\n{made.stderr[-2000:]}\nThey"
                " need a package index, and a Python for which SciPy 1.17 has wheels (3.11 to 3.14)"
            )
        ready.touch()
    return python


if __name__ == "__main__":
    print(baselines_python())
