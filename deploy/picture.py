"""``make picture``: a query on Prometheus's own graph page, and a worker's page, for the docs.

Of the stack that ``make stack`` has running, in a headless browser.
"""

from __future__ import annotations

import sys
import urllib.parse
import urllib.request
from pathlib import Path

from deploy.browser import MissingError, look
from deploy.compose import services

IMAGES = Path("docs/images")
QUERY = (
    'sum by (score) (hearback_quality_log_loss_nats{judged="early"})'
    ' / on () group_left sum(hearback_quality_applications{judged="early"})'
)


def graph_url(prometheus: str, query: str, minutes: int) -> str:
    """Address of the graph page with a query over the last minutes."""
    asked = {"g0.expr": query, "g0.tab": "0", "g0.range_input": f"{minutes}m"}
    return f"{prometheus}/graph?{urllib.parse.urlencode(asked)}"


def take(url: str, alive: str, image: Path) -> None:
    """Take the picture of a page.

    Args:
        url: of the page.
        alive: address that answers while the server is there: the browser's own words would be a
            picture too.
        image: the file.

    Raises:
        MissingError: there is no browser.
        OSError: nobody answers.

    """
    with urllib.request.urlopen(alive, timeout=10):  # noqa: S310 - localhost
        pass
    look(url, f"--screenshot={image.absolute()}")


def main() -> int:
    """Take the pictures of the docs."""
    stack = services()
    prometheus, worker = (
        f"http://127.0.0.1:{stack[name].ports[0].outside}" for name in ("prometheus", "worker-1")
    )
    try:
        page = graph_url(prometheus, QUERY, 10)
        take(page, f"{prometheus}/-/ready", IMAGES / "prometheus.png")
        take(f"{worker}/", f"{worker}/healthz", IMAGES / "status-page.png")
    except (MissingError, RuntimeError, OSError) as error:
        sys.stderr.write(f"no picture: {error} (is `make stack` running?)\n")
        return 1
    sys.stdout.write(f"{IMAGES}/prometheus.png, {IMAGES}/status-page.png\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
