"""``make picture``: Prometheus's own graph page, a worker's and a service's, for the docs.

Of the stack that ``make stack`` has running, in a headless browser.
"""

from __future__ import annotations

import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

from deploy.browser import Browser, MissingError, look
from deploy.compose import services
from deploy.monitoring import TOKEN

IMAGES = Path("docs/images")
QUERY = (  # in thousandths: the graph's axis has no room for more digits
    '1000 * sum by (score) (hearback_quality_log_loss_nats{judged="early"})'
    ' / on () group_left sum(hearback_quality_applications{judged="early"})'
)

_LOOKED_S = 60.0  # a worker's page has a rate to show once it was looked at for a while
_SETTLE_S = 2.0  # a row's last move is over, and the list was asked for again
PAGES = {
    "applicants-light.png": ((1400, 900), False, True),
    "applicants-dark.png": ((1400, 900), True, True),
    "applicants-narrow-light.png": ((390, 844), False, False),
    "applicants-narrow-dark.png": ((390, 844), True, True),
}
"""Pictures of a service's page: size, whether dark, and whether of an applicant or the ranking."""


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
    # So wide, that the query stands in one line.
    look(url, f"--screenshot={image.absolute()}", size=(1600, 900))


def take_status(worker: str, image: Path, looked_s: float = _LOOKED_S) -> None:
    """Take the picture of a worker's page, all of it.

    Args:
        worker: its address. image: the file. looked_s: for how long the page is looked at before.

    Raises:
        MissingError: there is no browser.
        RuntimeError: the page does not get so far.

    """
    with Browser() as browser:
        browser.show(f"{worker}/", size=(1400, 900))
        browser.wait_for("document.getElementById('ready').textContent")
        time.sleep(looked_s)
        height = browser.run("document.documentElement.scrollHeight")
        browser.resize((1400, height))
        browser.picture(image)


def take_applicants(service: str, token: str, folder: Path) -> list[Path]:
    """Take the pictures of a service's page, of the job with most open applicants.

    Args:
        service: its address. token: one of its own. folder: where they go.

    Raises:
        MissingError: there is no browser.
        RuntimeError: the page does not get so far.

    """
    with Browser() as browser:
        for name, (size, dark, closer) in PAGES.items():
            browser.show("about:blank")
            browser.show(f"{service}/#token={token}", size=size, dark=dark)
            browser.wait_for("document.querySelector('#job-list button')")
            browser.run("document.querySelector('#job-list button').click()")
            browser.wait_for("document.querySelector('#applicants button')")
            if closer:
                browser.run("document.querySelectorAll('#applicants button')[1].click()")
                browser.wait_for("document.querySelector('#standing .big')")
            time.sleep(_SETTLE_S)
            browser.picture(folder / name)
    return [folder / name for name in PAGES]


def main() -> int:
    """Take the pictures of the docs."""
    stack = services()
    prometheus, worker, service = (
        f"http://127.0.0.1:{stack[name].ports[0].outside}"
        for name in ("prometheus", "worker-1", "serve")
    )
    try:
        page = graph_url(prometheus, QUERY, 10)
        take(page, f"{prometheus}/-/ready", IMAGES / "prometheus.png")
        take_status(worker, IMAGES / "status-page.png")
        taken = take_applicants(service, TOKEN.read_text(encoding="utf-8").strip(), IMAGES)
    except (MissingError, RuntimeError, OSError) as error:
        sys.stderr.write(f"no picture: {error} (is `make stack` running?)\n")
        return 1
    taken += [IMAGES / "prometheus.png", IMAGES / "status-page.png"]
    sys.stdout.write(f"{', '.join(map(str, taken))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
