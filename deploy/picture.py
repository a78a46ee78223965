"""``make picture``: what a query looks like on Prometheus's own graph page, in a headless browser.

Of the stack that ``make stack`` has running; the picture is part of the docs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from deploy.compose import services

IMAGE = Path("docs/images/prometheus.png")
QUERY = (
    'sum by (score) (hearback_quality_log_loss_nats{judged="early"})'
    ' / on () group_left sum(hearback_quality_applications{judged="early"})'
)
SIZE = (1400, 900)

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE_S = 240.0


class MissingError(Exception):
    """There is no browser here; says where it comes from."""


def graph_url(prometheus: str, query: str, minutes: int) -> str:
    """Address of the graph page with a query over the last minutes."""
    asked = {"g0.expr": query, "g0.tab": "0", "g0.range_input": f"{minutes}m"}
    return f"{prometheus}/graph?{urllib.parse.urlencode(asked)}"


def look(url: str, *options: str) -> str:
    """Open a page in a headless browser and let it work for some seconds; return what it printed.

    Raises:
        MissingError: there is no browser.
        RuntimeError: it fails.

    """
    program = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if program is None:
        raise MissingError("there is no Chromium here (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}"),
                *(f"--window-size={SIZE[0]},{SIZE[1]}", "--virtual-time-budget=10000"),
                *(*options, url),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    if done.returncode != 0:
        raise RuntimeError(f"the browser fails: {done.stderr.strip()[-300:]}")
    return done.stdout


def take(prometheus: str, image: Path, query: str = QUERY, minutes: int = 10) -> None:
    """Take the picture of a query.

    Raises:
        MissingError: there is no browser.
        OSError: no Prometheus answers; its own words would be a picture too.

    """
    with urllib.request.urlopen(f"{prometheus}/-/ready", timeout=10):  # noqa: S310 - localhost
        pass
    look(graph_url(prometheus, query, minutes), f"--screenshot={image.absolute()}")


def main() -> int:
    """Take the picture of the docs."""
    port = services()["prometheus"].ports[0].outside
    try:
        take(f"http://127.0.0.1:{port}", IMAGE)
    except (MissingError, RuntimeError, OSError) as error:
        sys.stderr.write(f"no picture: {error} (is `make stack` running?)\n")
        return 1
    sys.stdout.write(f"{IMAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
