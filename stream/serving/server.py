"""SHELL: the process ``hearback serve``: model, store, follower, HTTP server, signals."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stream.configuration.load import with_model
from stream.configuration.sections import Config
from stream.errors import ConfigError
from stream.metrics.process import process_registry
from stream.model.folder import load_model
from stream.serving.access import Tokens, check_access
from stream.serving.embedded import EmbeddedStore
from stream.serving.follower import Follower
from stream.serving.memory import share
from stream.serving.scorer import Scorer
from stream.serving.service import Service
from stream.worker.control import CommandReader
from stream.worker.logs import formatter

_log = logging.getLogger(__name__)

_HEAD_S = 10.0
_MOST_HEAD_BYTES = 64 << 10
_KEEP_ALIVE_S = 60
_STOP_S = 5
_LOOK_S = 0.2


def serve(config: Config, model_folder: Path, say: Callable[[str], None]) -> int:
    """Serve scores until a signal stops it; return the exit code.

    Raises:
        HearbackError: it cannot start, or has nothing to serve.

    """
    share()
    serving = config.serving
    check_access(serving)
    tokens = None if serving.token_file is None else Tokens(serving.token_file)
    model = load_model(model_folder)
    config = with_model(config, model)
    model.warm_up()
    _log_to_stderr(config)
    store = EmbeddedStore(model, config.policy)
    registry = process_registry()
    service = Service(
        Scorer(model, config.policy, store), registry, applicants=store.applicants, tokens=tokens
    )
    follower = Follower(
        config.broker,
        config.worker.application_id,
        store,
        snapshot=serving.snapshot,
        served=service.served,
    )
    commands = CommandReader(
        config.broker, config.worker.application_id, store.models.take, keeps_rolls=False
    )
    listening = _listen(serving.host, serving.port)
    server = uvicorn.Server(
        uvicorn.Config(
            service,
            loop="uvloop",
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            access_log=False,  # its lines have paths, and paths have ids
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_S,
            ssl_certfile=serving.certificate_file,
            ssl_keyfile=serving.key_file,
        )
    )
    service.arrived = lambda: len(server.server_state.tasks)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the server raises again what has stopped it
    scheme = "http" if serving.certificate_file is None else "https"
    host = f"[{serving.host}]" if ":" in serving.host else serving.host
    say(
        f"model {model.version} from {config.broker}, scores on"
        f" {scheme}://{host}:{listening.getsockname()[1]}/v1/score"
    )
    commands.start()
    follower.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(server, listening, follower, store))
    finally:
        follower.stop()
        commands.stop()
    if follower.failed is not None and not store.standing().ready:
        raise follower.failed
    return 0


class GuardedProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers are too long in coming, or too large."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for the headers of a request."""
        super().on_message_begin()
        self._head_bytes = 0
        if self._deadline is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """Wait no more."""
        self._came()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; those of headers are counted."""
        super().data_received(data)
        if self._deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES:
                self.transport.close()

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(_HEAD_S, self.transport.close)

    def _came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


async def _run(
    server: uvicorn.Server, listening: socket.socket, follower: Follower, store: EmbeddedStore
) -> None:
    """Serve until a signal, or until there is nothing to serve."""
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    while not serving.done():
        await asyncio.wait([serving], timeout=_LOOK_S)
        if follower.failed is not None and not store.standing().ready:
            server.should_exit = True
    await serving


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"nothing can be served on {host}:{port} ({error.strerror}): choose another --port,"
            " or 0 for any free one"
        ) from None


def _log_to_stderr(config: Config) -> None:
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(formatter(config.log.format))
    logging.basicConfig(level=config.log.level, handlers=[handler], force=True)
