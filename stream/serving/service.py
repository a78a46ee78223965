"""The service over HTTP: an ASGI application that answers from a scorer.

A raw application, not a framework: routing and decoding are two look-ups here. All is answered in
the event loop: a question takes less than a millisecond, a thread would only wait for it.

Bodies, waiting requests and times are bounded. What is refused is refused in JSON.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stream.errors import QuestionError
from stream.metrics.service import ServiceMetrics, State
from stream.serving.access import Tokens, names_loopback
from stream.serving.answers import degraded, rank, score
from stream.serving.applicants import Applicants
from stream.serving.job_routes import JobRoutes, route_of
from stream.serving.messages import EntityAnswer, Problem, RankQuestion, ScoreQuestion
from stream.serving.openapi import JSON, MSGPACK, document
from stream.serving.page import POLICY, page_files
from stream.serving.positions import AFTER, positions_of
from stream.serving.rankings import NotOpenError
from stream.serving.scorer import Scorer

_log = logging.getLogger(__name__)

MOST_BODY_BYTES = 8 << 20
MOST_WAITING = 64
"""Requests that have come and are not looked at yet; more are refused."""
MOST_OPEN = 512
"""Requests that are looked at and not answered: their bodies are coming, or answers going."""
BODY_S = 10.0
AFTER_S = 1.0
"""How long a question waits for what its asker has written."""
ANSWER_S = 30.0

_TEXT = "text/plain; charset=utf-8"
_PLAIN_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    # No page of another site may so much as see whether there is an answer.
    (b"cross-origin-resource-policy", b"same-origin"),
)
_PROBES = frozenset({"/healthz", "/readyz"})
_TOLD_ALWAYS = _PROBES | {"/metrics"}
"""Answered whatever waits: who is busy is not to be killed for it, and is to be seen."""
_GET, _POST = ("GET", "HEAD"), ("POST",)  # of an answer to HEAD the server sends no body
_ENTITY = b"/v1/entities/"
_AFTER = AFTER.lower().encode()

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Reply = tuple[int, str, bytes]
"""Status, content type and body."""


class RefusedError(Exception):
    """A request gets no answer; ``status``, ``reason`` and message say why.

    ``allow``: the methods that its path has, where it has not this one.
    """

    def __init__(self, status: HTTPStatus, reason: str, message: str, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.allow = allow


class Head(msgspec.Struct, frozen=True, gc=False):
    """What counts of a request's headers."""

    content_type: bytes
    encoding: bytes
    accept: bytes
    authorization: bytes
    host: bytes
    length: int
    after: bytes


class Service:
    """The application.

    Args:
        scorer: what it answers with.
        applicants: of open jobs; None: they are not held.
        registry: of the metrics.
        tokens: who may ask; None: everybody, by a name of this machine alone.
        now_ms: the wall clock.

    Attributes:
        arrived: how many requests there are that are not answered; the server knows.
        served: is given the seconds until coefficients were served.

    """

    def __init__(
        self,
        scorer: Scorer,
        registry: CollectorRegistry,
        *,
        applicants: Applicants | None = None,
        tokens: Tokens | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._scorer = scorer
        self._registry = registry
        self._applicants = applicants
        self._jobs = None if applicants is None else JobRoutes(scorer, applicants)
        self._tokens = tokens
        self._now_ms = now_ms
        self._metrics = ServiceMetrics(registry, self._state)
        self.served = self._metrics.served
        self._open = 0
        self._document = msgspec.json.encode(document())
        self._posts: dict[str, tuple[Any, Any, Any]] = {
            "/v1/score": (
                msgspec.json.Decoder(ScoreQuestion),
                msgspec.msgpack.Decoder(ScoreQuestion),
                score,
            ),
            "/v1/rank": (
                msgspec.json.Decoder(RankQuestion),
                msgspec.msgpack.Decoder(RankQuestion),
                rank,
            ),
        }
        self._gets: dict[str, Callable[[Head], Reply]] = {
            "/healthz": lambda _: (200, _TEXT, b"alive\n"),
            "/readyz": self._readyz,
            "/metrics": self._exposed,
            "/openapi.json": lambda _: (200, JSON, self._document),
        }
        page = page_files()
        self._free = _PROBES | page.keys()
        for path, (content_type, content) in page.items():
            self._gets[path] = partial(_fixed, (200, content_type, content))
        self.arrived: Callable[[], int] = lambda: self._open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        began_s = time.perf_counter()
        waiting = self.arrived() - self._open
        self._open += 1
        route = "other"
        retry, allow = False, ""
        try:
            path: str = scope["path"]
            head = _head(scope["headers"])
            route, answer = self._route(scope, path)
            busy = waiting > MOST_WAITING or self._open > MOST_OPEN
            if busy and path not in _TOLD_ALWAYS:
                self._metrics.shed.inc()
                raise RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE, "overload", "too many requests are waiting"
                )
            self._check(head, path)
            if head.after and path not in self._gets:
                await self._wait(head.after.decode("latin-1"))
            reply = await answer(head, receive)
        except RefusedError as refused:
            retry, allow = refused.status == HTTPStatus.SERVICE_UNAVAILABLE, refused.allow
            reply = _problem(refused.status, refused.reason, str(refused))
        except NotOpenError as error:
            reply = _problem(HTTPStatus.NOT_FOUND, "not_open", str(error))
        except QuestionError as error:
            reply = _problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.reason, str(error))
        except asyncio.CancelledError:
            self._open -= 1
            raise
        except Exception:  # noqa: BLE001 - the client is told, the service goes on
            _log.exception("a request for %s cannot be answered", route)
            reply = _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "see the log")
        try:
            await self._send(send, reply, retry=retry, allow=allow)
        finally:
            self._open -= 1
            self._metrics.answered(route, reply[0], began_s)

    def _route(
        self, scope: Scope, path: str
    ) -> tuple[str, Callable[[Head, Receive], Awaitable[Reply]]]:
        """Which route a request takes, and what answers there."""
        method = scope["method"]
        if path in self._posts:
            _only(_POST, method)
            return path, lambda head, receive: self._post(path, head, receive)
        get = self._gets.get(path)
        if get is not None:
            _only(_GET, method)
            return path, lambda head, _: _now(get(head))
        raw: bytes = scope["raw_path"]
        if raw.startswith(_ENTITY):
            _only(_GET, method)
            return "/v1/entities", lambda head, _: _now(self._entity(raw, head))
        found = route_of(raw)
        if found is not None:
            _only(_GET, method)
            query: bytes = scope["query_string"]
            return found[0], lambda head, _: _now(self._of_jobs(*found, query, head))
        raise RefusedError(HTTPStatus.NOT_FOUND, "not_found", "see /openapi.json")

    def _check(self, head: Head, path: str) -> None:
        if path in self._free:
            return
        if self._tokens is None:
            if not names_loopback(head.host):
                raise RefusedError(
                    HTTPStatus.MISDIRECTED_REQUEST,
                    "host",
                    "without tokens only localhost and 127.0.0.1 are served by name: ask for one"
                    " of them, or start the service with a --token-file",
                )
        elif not self._tokens.allow(head.authorization):
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED, "unauthorized", "Authorization: Bearer TOKEN is needed"
            )

    async def _wait(self, after: str) -> None:
        """Wait until what the asker has written is in lists and scores."""
        self._check_ready()
        try:
            async with asyncio.timeout(AFTER_S):
                await asyncio.wrap_future(self._scorer.store.wait(positions_of(after)))
        except TimeoutError:
            raise RefusedError(
                HTTPStatus.PRECONDITION_FAILED,
                "not_yet",
                f"what {after[:200]} led to was not all there within {AFTER_S:g} s: ask again",
            ) from None

    async def _post(self, path: str, head: Head, receive: Receive) -> Reply:
        from_json, from_msgpack, answer = self._posts[path]
        packed = head.content_type.startswith(b"application/msgpack")
        typed = packed or head.content_type.startswith(b"application/json")
        if not typed or head.encoding not in {b"", b"identity"}:
            # A browser sends other types to any address without asking; these it does not.
            told = f"send {JSON} or {MSGPACK}, uncompressed"
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content_type", told)
        self._check_ready()
        body = await _body(receive, head.length)
        try:
            question = (from_msgpack if packed else from_json).decode(body)
        except msgspec.ValidationError as error:
            raise QuestionError(str(error)) from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, "malformed", str(error) or "too deeply nested"
            ) from None
        packed = _packed(head, packed=packed)
        found = answer(self._scorer, question, self._now_ms(), packed=packed)
        self._metrics.scored(found.scored, len(found.answer.errors), found.unknown)
        if packed:
            return 200, MSGPACK, msgspec.msgpack.encode(found.answer)
        return 200, JSON, msgspec.json.encode(found.answer)

    def _entity(self, raw: bytes, head: Head) -> Reply:
        self._check_ready()
        effect, slash, encoded = raw[len(_ENTITY) :].partition(b"/")
        scorer = self._scorer
        known = scorer.effects.get(effect.decode(errors="replace"))
        found = None
        if slash and known is not None:
            entity_id = unquote_to_bytes(encoded).decode(errors="replace")
            found = scorer.store.entity(known.name, entity_id)
        if known is None or found is None:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, "unknown_entity", "nothing is known of this entity"
            )
        names = scorer.space.block(known.block).names
        errors = [variance**0.5 for variance in found.variance]
        answer = EntityAnswer(
            effect=found.effect,
            entity_id=found.entity_id,
            model_version=found.model_version,
            coefficients=dict(zip(names, found.mean, strict=True)),
            standard_errors=dict(zip(names, errors, strict=True)),
            examples=found.examples,
            event_time_ms=found.event_time_ms,
            history=found.history or None,
        )
        return _answer(answer, head)

    def _of_jobs(self, route: str, ids: list[str], query: bytes, head: Head) -> Reply:
        if self._jobs is None:
            raise RefusedError(
                HTTPStatus.NOT_FOUND,
                "no_applicants",
                "applicants are not held: set [applicants] enabled = true for workers and service",
            )
        self._check_ready()
        return _answer(self._jobs.answer(route, ids, query, self._now_ms()), head)

    def _check_ready(self) -> None:
        standing = self._scorer.store.standing()
        if not standing.ready:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", standing.why_not or "starting"
            )

    def _readyz(self, _: Head) -> Reply:
        standing = self._scorer.store.standing()
        why_not = standing.why_not
        if not standing.ready:
            return 503, _TEXT, f"{why_not or 'starting'}\n".encode()
        age_s = standing.age_s(self._now_ms())
        told = f"ready; {why_not}, as of {age_s or 0.0:.0f} s ago" if why_not else "ready"
        return 200, _TEXT, f"{told}\n".encode()

    def _exposed(self, head: Head) -> Reply:
        try:
            encode, content_type = choose_encoder(head.accept.decode("latin-1"))
        except Exception:  # noqa: BLE001 - it chokes on what clients may write there
            encode, content_type = choose_encoder("")
        return 200, content_type, encode(self._registry)

    def _state(self) -> State:
        held = self._applicants
        store, now_ms = self._scorer.store, self._now_ms()
        standing, chosen = store.standing(), store.choose([], None, now_ms)
        return State(
            ready=standing.ready,
            staleness_s=standing.age_s(now_ms),
            entities=standing.entities,
            applicants=0 if held is None else len(held),
            left_out=standing.left_out,
            degraded=degraded(standing, chosen, now_ms),
            model_version=chosen.now.version,
        )

    @staticmethod
    async def _send(send: Send, reply: Reply, *, retry: bool, allow: str) -> None:
        status, content_type, body = reply
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            *_PLAIN_HEADERS,
        ]
        if content_type.startswith("text/html"):
            headers.append((b"content-security-policy", POLICY.encode()))
        if retry:
            headers.append((b"retry-after", b"1"))
        if allow:
            headers.append((b"allow", allow.encode()))
        if status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        if status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}:
            headers.append((b"connection", b"close"))  # what is left of the body is not read
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        try:
            async with asyncio.timeout(ANSWER_S):
                await send({"type": "http.response.body", "body": body})
        except TimeoutError:
            _log.warning("an answer was not read within %g s", ANSWER_S)


async def _body(receive: Receive, length: int) -> bytes:
    """Read a body, of bounded size and in bounded time."""
    too_large = RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too_large",
        f"the limit is {MOST_BODY_BYTES} bytes: ask in parts",
    )
    if length > MOST_BODY_BYTES:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise RefusedError(HTTPStatus.BAD_REQUEST, "malformed", "the client has left")
                part: bytes = message["body"]
                size += len(part)
                if size > MOST_BODY_BYTES:
                    raise too_large
                parts.append(part)
                if not message["more_body"]:
                    return part if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, "timeout", f"the body did not come within {BODY_S:g} s"
        ) from None


def _head(headers: list[tuple[bytes, bytes]]) -> Head:
    found = dict(headers)
    length = found.get(b"content-length", b"0")
    return Head(
        found.get(b"content-type", b"").lower(),
        found.get(b"content-encoding", b"").lower(),
        found.get(b"accept", b""),
        found.get(b"authorization", b""),
        found.get(b"host", b""),
        int(length) if length.isdigit() else 0,
        b",".join(value for name, value in headers if name == _AFTER),
    )


def _answer(answer: msgspec.Struct, head: Head) -> Reply:
    """Encode the answer to a GET."""
    if _packed(head, packed=False):
        return 200, MSGPACK, msgspec.msgpack.encode(answer)
    return 200, JSON, msgspec.json.encode(answer)


def _packed(head: Head, *, packed: bool) -> bool:
    """Whether an answer is to be MessagePack: as is accepted, else as the question was."""
    if MSGPACK.encode() in head.accept:
        return True
    return packed and JSON.encode() not in head.accept


def _only(allowed: tuple[str, ...], method: str) -> None:
    if method not in allowed:
        raise RefusedError(
            HTTPStatus.METHOD_NOT_ALLOWED, "method", f"use {allowed[0]}", ", ".join(allowed)
        )


async def _now(reply: Reply) -> Reply:
    return reply


def _fixed(reply: Reply, _: Head) -> Reply:
    return reply


def _problem(status: HTTPStatus, reason: str, message: str) -> Reply:
    return int(status), JSON, msgspec.json.encode(Problem(reason, message))
