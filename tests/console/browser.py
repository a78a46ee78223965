"""A headless browser, as a user's machine has one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser() -> str:
    """Return the browser's program; without one the test is skipped, in words."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(
            "no Chromium on this machine (Debian: apt install chromium): page not looked at"
        )
    return found


def looked_at(url: str, folder: Path, *options: str, wait_ms: int = 3000) -> str:
    """Open a page; return the document as it stands after a while."""
    done = subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--no-first-run", f"--user-data-dir={folder / 'browser'}",
            f"--virtual-time-budget={wait_ms}", *options, url,
        ],
        capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def screenshot(url: str, image: Path, folder: Path, size: str = "1400,900") -> None:
    """Take a picture of a page after two renewals."""
    looked_at(url, folder, f"--screenshot={image}", f"--window-size={size}", wait_ms=5000)
    assert image.read_bytes().startswith(b"\x89PNG")
