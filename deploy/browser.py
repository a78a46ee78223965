"""A headless browser, as a user's machine has one: pages as it shows them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE_S = 240.0


class MissingError(Exception):
    """There is no browser here; says where it comes from."""


def look(
    url: str, *options: str, size: tuple[int, int] = (1400, 900), wait_ms: int | None = 10_000
) -> str:
    """Open a page and let it work for a while; return what the browser printed.

    Args:
        url: of the page.
        options: of Chromium, such as ``--dump-dom`` or ``--screenshot=FILE``.
        size: width and height of the window, in pixels.
        wait_ms: the page's own time to work; None: until it is loaded.

    Raises:
        MissingError: there is no browser.
        RuntimeError: it fails.

    """
    program = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if program is None:
        raise MissingError("there is no Chromium here (Debian: apt-get install chromium)")
    waits = () if wait_ms is None else (f"--virtual-time-budget={wait_ms}",)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}"),
                *(f"--window-size={size[0]},{size[1]}", *waits, *options, url),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    if done.returncode != 0:
        raise RuntimeError(f"the browser fails: {done.stderr.strip()[-300:]}")
    return done.stdout
