"""A headless browser, as a user's machine has one: pages as it shows them, and what they do."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--disable-dev-shm-usage", "--no-first-run"),
)
_PATIENCE_S = 240.0
_LOOK_S = 0.05
_MOST_BYTES = 1 << 20
_FIRST_FD = 10
# Chromium takes commands at file 3 and answers at 4: a program between moves ours there.
_MOVE = (
    "import os, sys; a = sys.argv;"
    " os.dup2(int(a[1]), 3); os.dup2(int(a[2]), 4); os.execv(a[3], a[3:])"
)


class MissingError(Exception):
    """There is no browser here; says where it comes from."""


def _program() -> str:
    program = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if program is None:
        raise MissingError("there is no Chromium here (Debian: apt-get install chromium)")
    return program


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
    program = _program()
    waits = () if wait_ms is None else (f"--virtual-time-budget={wait_ms}",)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [
                *(program, *_FLAGS, f"--user-data-dir={folder}"),
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


class Browser:
    """A page that is worked with; a context manager.

    Speaks Chromium's own protocol (chromedevtools.github.io/devtools-protocol) over its pipe.

    Attributes:
        complaints: what the page logged as errors, its exceptions, what its policy forbade.
        requested: addresses that it asked for.

    Raises:
        MissingError: there is no browser.

    """

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self._program = _program()
        self._ends = ExitStack()
        self._number = 0
        self._session: dict[str, str] = {}
        self._came = bytearray()
        self._loaded = False

    def __enter__(self) -> Self:
        folder = self._ends.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FD) for fd in (theirs_in, theirs_out)]
        options = (*_FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank")
        process = subprocess.Popen(
            [sys.executable, "-c", _MOVE, *map(str, moved), self._program, *options],
            pass_fds=moved,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (*moved, theirs_in, theirs_out):
            os.close(fd)
        for call in (process.wait, process.kill):
            self._ends.callback(call)
        for fd in (self._in, self._out):
            self._ends.callback(os.close, fd)
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        attached = self.do("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def show(
        self,
        url: str,
        *,
        size: tuple[int, int] = (1400, 900),
        dark: bool = False,
        still: bool = False,
    ) -> None:
        """Open a page, and wait until it is loaded.

        Args:
            url: of the page. size: of the window, in pixels; narrow ones are phones.
            dark: whether the user likes dark pages. still: whether reduced motion.

        """
        self.resize(size)
        wishes = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.do("Emulation.setEmulatedMedia", features=features)
        self._loaded = False
        begun = self.do("Page.navigate", url=url)
        while "loaderId" in begun and not self._loaded:  # without: another fragment of the same
            self._heard(time.monotonic() + _PATIENCE_S)

    def resize(self, size: tuple[int, int]) -> None:
        """Make the window so wide and high, in pixels."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=False,
        )

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript, in the page."""
        said = self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise RuntimeError(f"{script}: {said['exceptionDetails']}")
        return said["result"].get("value")

    def wait_for(self, script: str, patience_s: float = 60.0) -> None:
        """Return once an expression is true.

        Raises:
            RuntimeError: it never is; says what is on the page.

        """
        deadline = time.monotonic() + patience_s
        while not self.run(f"!!({script})"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"never: {script}; {self.complaints}; {self.text()}")
            time.sleep(_LOOK_S)

    def text(self) -> str:
        """Return all text that a person sees."""
        return str(self.run("document.body.innerText"))

    def press(self, key: str, text: str | None = None) -> None:
        """Press a key, ``Tab`` or ``ArrowDown``, say; ``text``: what it writes."""
        more = {} if text is None else {"text": text}
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        self.do("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **code, **more)
        self.do("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **code)

    def write(self, text: str) -> None:
        """Type a text where the keyboard is."""
        self.do("Input.insertText", text=text)

    def picture(self, image: Path) -> None:
        """Write what is seen as a PNG."""
        image.write_bytes(base64.b64decode(self.do("Page.captureScreenshot")["data"]))

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol; return its result.

        Raises:
            RuntimeError: the browser refuses, or does not answer.

        """
        self._number += 1
        sent = {"id": self._number, "method": method, "params": parameters} | self._session
        os.write(self._out, json.dumps(sent).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            said = self._heard(deadline)
            if said.get("id") == self._number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return dict(said["result"])

    def _heard(self, deadline: float) -> dict[str, Any]:
        """Take the next message in: an answer, or an event, which is noted."""
        while b"\0" not in self._came:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0.0))
            came = os.read(self._in, _MOST_BYTES) if ready else b""
            if not came:
                raise RuntimeError("the browser does not answer")
            self._came += came
        raw, _, rest = self._came.partition(b"\0")
        self._came = bytearray(rest)
        said = dict(json.loads(raw))
        self._note(said.get("method"), said.get("params", {}))
        return said

    def _note(self, event: str | None, told: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
