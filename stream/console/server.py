"""The worker's HTTP server: ``/metrics``, ``/healthz``, ``/readyz``, ``/``, ``/status.json``.

Read only, without a password: it listens on localhost unless it is told otherwise, and shows
counts, never ids or payloads.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Thread
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stream.console.status import About, Answer, status
from stream.errors import ConfigError

_log = logging.getLogger(__name__)

_IDLE_S = 10.0  # a client that sends nothing for so long is disconnected
_BEAT_S = 1.0
_SILENT_S = 30.0  # a recovery's or a batch's compute may hold the loop for some seconds
_TEXT = "text/plain; charset=utf-8"
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

Body = tuple[HTTPStatus, str, bytes]
"""Status, content type and body."""


class Probes:
    """Answers for ``/healthz`` and ``/readyz``.

    Alive: the event loop turns. A worker that is not should be killed; the next one goes on from
    the state. Ready: every partition that is assigned here is worked on, and nothing is wrong with
    the inputs; not while recovering.

    Args:
        now_s: a clock that never goes back.

    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._beaten_s = now_s()
        self._why_not: Callable[[], str | None] = lambda: "starting"

    def watch(self, why_not: Callable[[], str | None]) -> None:
        """Ask this from now on: why the worker is not ready, or None when it is."""
        self._why_not = why_not

    def beat(self) -> None:
        """Note that the event loop turns; once called within it, it calls itself."""
        self._beaten_s = self._now_s()
        asyncio.get_running_loop().call_later(_BEAT_S, self.beat)

    def alive(self) -> Answer:
        """Whether the event loop has turned lately."""
        silent_s = self._now_s() - self._beaten_s
        if silent_s > _SILENT_S:
            return False, f"the event loop has not turned for {silent_s:.0f} s"
        return True, "alive"

    def ready(self) -> Answer:
        """Whether every partition that is assigned is worked on."""
        why_not = self._why_not()
        return why_not is None, why_not or "ready"


class Console:
    """The server, in threads of its own.

    Args:
        registry: of the metrics. probes: what is asked of the worker. about: who it is.
        host: where to listen. port: 0 for any free one.

    Raises:
        ConfigError: the port cannot be had.

    """

    def __init__(
        self, registry: CollectorRegistry, probes: Probes, about: About, *, host: str, port: int
    ) -> None:
        self._registry = registry
        self._probes = probes
        self._about = about
        self._page = files("stream.console").joinpath("page.html").read_bytes()
        self._routes: dict[str, Callable[[str], Body]] = {
            "/": lambda _: (HTTPStatus.OK, "text/html; charset=utf-8", self._page),
            "/status.json": self._status,
            "/metrics": self._metrics,
            "/healthz": lambda _: _probe(probes.alive()),
            "/readyz": lambda _: _probe(probes.ready()),
        }
        try:
            self._server = _Server((host, port), self.answer)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served on {host}:{port} ({error.strerror}):"
                " choose another --metrics-port, or 0 for any free one"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, name="console", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, accept: str) -> Body:
        """Answer a GET of a path, for a client that accepts these types."""
        route = self._routes.get(path)
        if route is None:
            told = "there are " + " ".join(self._routes)
            return HTTPStatus.NOT_FOUND, _TEXT, told.encode()
        return route(accept)

    def _status(self, _: str) -> Body:
        found = status(self._registry, self._about, self._probes.ready(), time.time())
        return HTTPStatus.OK, "application/json", msgspec.json.encode(found)

    def _metrics(self, accept: str) -> Body:
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # noqa: BLE001 - it chokes on what clients may write there
            encode, content_type = choose_encoder("")
        return HTTPStatus.OK, content_type, encode(self._registry)


def _probe(answer: Answer) -> Body:
    good, why = answer
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, _TEXT, f"{why}\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], answer: Callable[[str, str], Body]) -> None:
        self.answer = answer
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has left."""
        del request
        if not isinstance(sys.exception(), OSError):
            _log.exception("a request of %s cannot be answered", client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _IDLE_S
    server_version = "hearback"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with what the path names."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name above us
        """Say nothing: probes come every few seconds."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?", 1)[0]
        try:
            status, content_type, content = self.server.answer(path, self.headers.get("Accept", ""))
        except Exception:  # noqa: BLE001 - the client is told, the server goes on
            _log.exception("%s cannot be answered", path)
            status, content_type, content = HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"see the log"
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if body:
            self.wfile.write(content)
