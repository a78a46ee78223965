"""``make soak``: the crash tests again and again, each round with other moments to die."""

from __future__ import annotations

import os
import subprocess
import sys
import time


def main(hours: float) -> int:
    """Run rounds until the time is over or one fails; its seed is printed."""
    began = time.monotonic()
    seed = int(time.time())
    rounds = 0
    while time.monotonic() - began < hours * 3600:
        seed += 1
        rounds += 1
        environment = os.environ | {"HEARBACK_TEST_SEED": str(seed), "HEARBACK_TEST_KILLS": "20"}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "tests/integration", "--timeout", "3600"),
                *("-k", "crash or several or trouble"),
            ],
            env=environment,
            check=False,
        )
        sys.stdout.write(f"round {rounds}, HEARBACK_TEST_SEED={seed}: {done.returncode}\n")
        sys.stdout.flush()
        if done.returncode != 0:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
