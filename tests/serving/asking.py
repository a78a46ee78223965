"""A service in this process, and questions to it, without a server or over a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, NamedTuple

import msgspec
import uvicorn

from stream.events.records import Message
from stream.metrics.process import process_registry
from stream.model.folder import GlobalModel
from stream.policy import Policy
from stream.serving.access import Tokens
from stream.serving.embedded import EmbeddedStore
from stream.serving.scorer import Scorer
from stream.serving.service import Service

NOW_MS = 1_700_000_000_000


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, which must be JSON."""
        assert self.headers["content-type"] == "application/json"
        return msgspec.json.decode(self.body)


class Asked:
    """A service over a store that tests fill.

    Attributes:
        store: ready, and current as of :data:`NOW_MS`.

    """

    def __init__(
        self,
        model: GlobalModel,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        *,
        tokens: Tokens | None = None,
    ) -> None:
        self.store = EmbeddedStore(model, policy)
        self.store.stands(None, ready=True, current_ms=NOW_MS)
        self.now_ms = NOW_MS
        self.registry = process_registry()
        self.service = Service(
            Scorer(model, policy, self.store),
            self.registry,
            applicants=self.store.applicants,
            tokens=tokens,
            now_ms=lambda: self.now_ms,
        )

    def hear(self, messages: Iterable[Message]) -> None:
        """Take in what the worker has sent."""
        sent = list(messages)
        for topic, take in self.store.topics.items():
            take([(each.key or b"", each.value) for each in sent if each.topic == topic])

    def ask(
        self,
        path: str | bytes,
        body: object = None,
        *,
        method: str | None = None,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
        parts: list[bytes] | None = None,
    ) -> Reply:
        """Send a request and return the answer; a body that is no bytes is encoded."""
        raw = b"" if body is None else body
        if not isinstance(raw, bytes):
            encode = msgspec.msgpack.encode if "msgpack" in kind else msgspec.json.encode
            raw = encode(raw)
        chunks = [raw] if parts is None else parts
        sent = {"host": "127.0.0.1", "content-type": kind} | (headers or {})
        whole = path if isinstance(path, bytes) else path.encode()
        raw_path, _, query = whole.partition(b"?")
        scope = {
            "type": "http",
            "method": method or ("GET" if body is None and parts is None else "POST"),
            "path": raw_path.decode(errors="replace"),
            "raw_path": raw_path,
            "query_string": query,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
        }
        out: list[Any] = []

        async def receive() -> Any:
            chunk = chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

        async def send(message: Any) -> None:
            out.append(message)

        asyncio.run(self.service(scope, receive, send))
        start, end = out
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        assert int(found["content-length"]) == len(end["body"])
        return Reply(start["status"], found, end["body"])

    def score(self, **question: object) -> Any:
        """Ask for scores in JSON."""
        reply = self.ask("/v1/score", question)
        assert reply.status == 200, reply
        return reply.json()

    def rank(self, **question: object) -> Any:
        """Ask for a ranking in JSON."""
        reply = self.ask("/v1/rank", question)
        assert reply.status == 200, reply
        return reply.json()


@contextmanager
def serving(asked: Asked) -> Iterator[str]:
    """Serve over a socket; give the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(asked.service, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
        listening.close()
