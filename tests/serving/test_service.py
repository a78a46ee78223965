"""The service over HTTP: what it refuses and how, what it tells of itself; without a server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.configuration.sections import ServingSection
from stream.errors import ConfigError
from stream.metrics.document import page
from stream.metrics.service import SERVICE
from stream.policy import ApplicantSettings, Policy
from stream.serving import service as service_module
from stream.serving.access import Tokens, check_access
from stream.serving.openapi import document
from tests.kit import model
from tests.serving.asking import NOW_MS, Asked
from tests.serving.test_attributes import of_attributes
from tests.serving.test_embedded import control
from tests.serving.test_ranks import candidates
from tests.serving.test_scores import known

RIGHT = {"job_id": "j", "candidates": candidates(0.5, 1.5)}


def test_an_entity_is_told_by_feature_name() -> None:
    """Ids may have any characters; what is not known is 404."""
    asked = Asked(model())
    known(asked, "per_member", "a/b ü", [0.5, -1.0], 0.25)
    found = asked.ask("/v1/entities/per_member/a%2Fb%20%C3%BC").json()
    assert found == {
        "effect": "per_member",
        "entity_id": "a/b ü",
        "model_version": "test-model",
        "coefficients": {"m0": 0.5, "m1": -1.0},
        "standard_errors": {"m0": 0.5, "m1": 0.5},
        "examples": 2,
        "event_time_ms": 3,
        "history": None,
    }
    for path in ("per_member/a", "per_what/a", "per_member", "per_member/%FF%00", ""):
        reply = asked.ask(f"/v1/entities/{path}")
        assert (reply.status, reply.json()["reason"]) == (404, "unknown_entity")


REFUSALS: list[tuple[int, str, dict[str, Any]]] = [
    (404, "not_found", {"path": "/v1/nothing"}),
    (405, "method", {"path": "/v1/score", "method": "GET"}),
    (405, "method", {"path": "/healthz", "method": "POST"}),
    (415, "content_type", {"body": RIGHT, "kind": "text/plain"}),
    (415, "content_type", {"body": RIGHT, "headers": {"content-encoding": "gzip"}}),
    (400, "malformed", {"body": b"{"}),
    (400, "malformed", {"body": b'{"job_id": "\xff"}'}),
    (400, "malformed", {"body": b"\xc1", "kind": "application/msgpack"}),
    (422, "invalid_question", {"body": b"[]"}),
    (422, "invalid_question", {"body": {"candidates": [{"member_id": 3}]}}),
    (422, "invalid_question", {"body": {"top": 3, **RIGHT}}),
    (413, "too_large", {"parts": [b" " * 100, b" " * 100]}),
    (413, "too_large", {"body": b"{}", "headers": {"content-length": "151"}}),
]


@pytest.mark.parametrize(("status", "reason", "request_"), REFUSALS)
def test_what_is_refused_is_refused_in_json(
    status: int, reason: str, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a code, a reason and words."""
    if status == 413:
        monkeypatch.setattr(service_module, "MOST_BODY_BYTES", 150)
    reply = Asked(model()).ask(**({"path": "/v1/score"} | request_))
    assert (reply.status, reply.json()["reason"]) == (status, reason)
    assert reply.json()["message"]


def test_before_it_is_ready_there_are_no_scores() -> None:
    """503 and a time to try again; it lives all the same."""
    asked = Asked(model())
    asked.store.stands("the topic is being read", ready=False)
    reply = asked.ask("/v1/score", RIGHT)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.json() == {"reason": "not_ready", "message": "the topic is being read"}
    assert asked.ask("/v1/entities/per_job/j").status == 503
    assert asked.ask("/readyz").status == 503
    assert asked.ask("/healthz").status == 200


def test_old_scores_say_so() -> None:
    """Without a broker what is known is served on, with its age."""
    asked = Asked(model())
    assert asked.score(**RIGHT)["degraded"] == []
    asked.store.stands("no broker", ready=True)
    asked.now_ms = NOW_MS + 95_000
    found = asked.score(**RIGHT)
    assert (found["staleness_s"], found["degraded"]) == (95.0, ["stale"])
    reply = asked.ask("/readyz")
    assert (reply.status, reply.body) == (200, b"ready; no broker, as of 95 s ago\n")


def test_a_model_that_is_not_in_force_says_so() -> None:
    """From the time on at which another follows it, of which only the name is known.

    And so does a gate that is shut.
    """
    asked = Asked(model())
    asked.store.apply([control("per_job", 0, "earlier", "test-model")])
    assert asked.score(**RIGHT)["degraded"] == []
    asked.store.apply([control("per_job", 0, "test-model", "later", shut=True)])
    assert asked.score(**RIGHT)["degraded"] == ["gate_shut:per_job", "other_model_in_force"]
    asked.now_ms = 999
    asked.store.apply([control("per_job", 0, "test-model", "later")])
    assert "other_model_in_force" not in asked.score(**RIGHT)["degraded"]


def test_too_many_requests_are_shed() -> None:
    """503 at once, before anything is read, while more wait than are taken; then all is well."""
    asked = Asked(model())
    asked.service.arrived = lambda: service_module.MOST_WAITING + 1
    reply = asked.ask("/v1/score", b"not even looked at")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.json()["reason"] == "overload"
    asked.service.arrived = lambda: service_module.MOST_WAITING
    assert asked.ask("/v1/score", RIGHT).status == 200
    assert b"hearback_serve_shed_total 1.0" in asked.ask("/metrics").body


def test_who_is_busy_is_seen_and_not_killed_for_it() -> None:
    """Probes and metrics are answered while questions are shed."""
    asked = Asked(model())
    asked.service.arrived = lambda: service_module.MOST_WAITING + 1
    assert asked.ask("/v1/score", RIGHT).status == 503
    for path in ("/healthz", "/readyz", "/metrics"):
        assert asked.ask(path).status == 200
    assert asked.ask("/openapi.json").status == 503


def test_methods_are_those_of_the_path() -> None:
    """What can be got can be looked at with HEAD; who uses another is told which there are."""
    asked = Asked(model())
    for path in ("/healthz", "/openapi.json", "/v1/jobs", "/v1/entities/per_job/j"):
        got, headed = asked.ask(path), asked.ask(path, method="HEAD")
        assert (headed.status, headed.headers) == (got.status, got.headers)
        refused = asked.ask(path, method="DELETE")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    for method in ("GET", "HEAD", "OPTIONS"):
        refused = asked.ask("/v1/score", method=method)
        assert (refused.status, refused.headers["allow"]) == (405, "POST")


def test_metrics_are_those_of_the_catalogue() -> None:
    """Exactly its names are exported, and the docs have them; none has an id."""
    asked = Asked(model())
    asked.score(**RIGHT)
    asked.ask("/v1/entities/per_job/secret-id")
    told = asked.ask("/metrics").body.decode()
    found = {line.split()[2] for line in told.splitlines() if line.startswith("# TYPE hearback")}
    assert found == {metric.exported for metric in SERVICE.metrics}
    assert all(f"`{metric.exported}" in page() for metric in SERVICE.metrics)
    assert 'hearback_serve_requests_total{route="/v1/score",status="200"} 1.0' in told
    assert "hearback_serve_candidates_total 2.0" in told
    assert 'hearback_serve_unknown_total{effect="per_member"} 2.0' in told
    assert 'hearback_serve_unknown_total{effect="per_job"} 1.0' in told
    assert "secret-id" not in told


# -- who may ask ---------------------------------------------------------------------------------


def test_only_who_has_a_token_may_ask(tmp_path: Path) -> None:
    """Any of the file's; probes need none. A changed file counts within a second."""
    path = tmp_path / "tokens"
    path.write_text("first-of-the-tokens\n\n  second-of-the-tokens  \n")
    tokens = Tokens(path)
    asked = Asked(model(), tokens=tokens)

    def status(token: str | None, where: str = "/metrics") -> int:
        headers = {} if token is None else {"authorization": token}
        return asked.ask(where, headers=headers).status

    assert status("Bearer first-of-the-tokens") == 200
    assert status("bearer second-of-the-tokens") == 200
    for wrong in (None, "", "Bearer ", "Bearer third-of-the-tokens", "Basic first-of-the-tokens"):
        assert status(wrong) == 401
    assert status(None, "/healthz") == status(None, "/readyz") == 200
    reply = asked.ask("/v1/score", RIGHT)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    path.write_text("third-of-the-tokens\n")
    os.utime(path, ns=(1, 1))
    tokens._looked_s -= 2.0
    assert status("Bearer third-of-the-tokens") == 200
    assert status("Bearer first-of-the-tokens") == 401
    path.write_text("")
    tokens._looked_s -= 2.0
    assert status("Bearer third-of-the-tokens") == 200


OF_LOOPBACK = [
    "localhost",
    "LocalHost:9465",
    "a.b-c.localhost:1",
    "127.0.0.1",
    "127.9.8.7:80",
    "[::1]:9",
]
OF_OTHERS = [
    *("", "example.org", "127.0.0.1.example.org", "localhost.example.org:9465", "notlocalhost"),
    *("127.0.0.1:9465@example.org", "example.org:127", "10.0.0.1", "0.0.0.0:9465", "[::2]"),
    *(".localhost", "localhost:", "localhost/", "localhost localhost", "localhost\n", "[::1", "é"),
]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/entities/per_job/j", "/metrics", "/v1/score"])
def test_without_tokens_nothing_is_told_under_a_name_of_elsewhere(path: str) -> None:
    """Any site's name can be made to point to 127.0.0.1; a browser then shows its pages all.

    Probes and the page's files have nothing to tell. No other site's page may embed anything.
    """
    asked = Asked(model())
    body = RIGHT if path == "/v1/score" else None
    for host in OF_LOOPBACK:
        assert asked.ask(path, body, headers={"host": host}).status in {200, 404}, host
    for host in OF_OTHERS:
        reply = asked.ask(path, body, headers={"host": host})
        assert (reply.status, reply.json()["reason"]) == (421, "host"), host
        assert "--token-file" in reply.json()["message"]
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        for free in ("/healthz", "/readyz", "/", "/page.js"):
            assert asked.ask(free, headers={"host": host}).status == 200


def test_with_tokens_any_name_will_do(tmp_path: Path) -> None:
    """Prometheus and proxies use names of their own; a page of another site has no token."""
    path = tmp_path / "tokens"
    path.write_text("sixteen-characters\n")
    asked = Asked(model(), tokens=Tokens(path))
    headers = {"host": "serve:9465", "authorization": "Bearer sixteen-characters"}
    assert asked.ask("/metrics", headers=headers).status == 200
    assert asked.ask("/metrics", headers={"host": "serve:9465"}).status == 401


def test_a_token_file_must_have_tokens(tmp_path: Path) -> None:
    """Of some length."""
    path = tmp_path / "tokens"
    for text in ("", "\n\n", "short\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="a token on each line"):
            Tokens(path)
    with pytest.raises(ConfigError, match="No such file"):
        Tokens(tmp_path / "nothing")


def test_other_machines_need_a_token_and_tls(tmp_path: Path) -> None:
    """Localhost does not; a proxy may have the certificate, but it lets others ask."""
    file = tmp_path / "file"
    file.write_text("x")
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_access(ServingSection(host=host))
        check_access(ServingSection(host=host, token_file=file, behind_proxy=True))
        with pytest.raises(ConfigError, match="through the proxy: give a token_file"):
            check_access(ServingSection(host=host, behind_proxy=True))
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):  # noqa: S104
        with pytest.raises(ConfigError, match="give a token_file"):
            check_access(ServingSection(host=host, behind_proxy=True))
        with pytest.raises(ConfigError, match="in plain text"):
            check_access(ServingSection(host=host, token_file=file))
        check_access(ServingSection(host=host, token_file=file, behind_proxy=True))
        check_access(
            ServingSection(host=host, token_file=file, certificate_file=file, key_file=file)
        )
    with pytest.raises(ConfigError, match="belong together"):
        check_access(ServingSection(key_file=file))
    with pytest.raises(ConfigError, match="there is no file"):
        check_access(ServingSection(certificate_file=file, key_file=tmp_path / "no"))


# -- the document --------------------------------------------------------------------------------

_SCHEMAS = document()["components"]["schemas"]
_OTHER = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3)
)


def of_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema of the document allows."""
    if "$ref" in schema:
        return st.deferred(lambda: of_schema(_SCHEMAS[schema["$ref"].rsplit("/", 1)[1]]))
    if "anyOf" in schema:
        return st.one_of(*(of_schema(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            required = set(schema.get("required", []))
            parts = {name: of_schema(each) for name, each in schema["properties"].items()}
            return st.fixed_dictionaries(
                {name: parts[name] for name in required},
                optional={name: part for name, part in parts.items() if name not in required},
            )
        case "object" if "additionalProperties" not in schema:
            names = st.sampled_from(["years", "skills", "x"])
            return st.dictionaries(names, _OTHER | st.lists(_OTHER, max_size=2), max_size=3)
        case "object":
            values = of_schema(schema["additionalProperties"])
            return st.dictionaries(st.sampled_from(["m0", "m1", "j0", "x"]), values, max_size=3)
        case "array":
            return st.lists(of_schema(schema["items"]), max_size=3)
        case "string" if "contentEncoding" in schema:
            return st.sampled_from(["", "AACAPw==", "AACAPwAAgD8=", "AADAfwAAgD8=", "A"])
        case "string":
            return st.sampled_from(["", "m1", "j1", "ü\0/", "x" * 300])
        case "integer":
            low, high = schema.get("minimum", -5), schema.get("maximum", 10**20)
            far = () if "maximum" in schema else (10**400,)
            return st.integers(low, high) | st.sampled_from([low, *far])
        case "number":
            low, high = schema.get("minimum", -1e300), schema.get("maximum", 1e300)
            return st.floats(low, high) | st.sampled_from([low, 0.0, 1.0])
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    raise AssertionError(schema)


def spoilt(value: Any, draw: Any) -> Any:
    """Put something else into some place of a value."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        return value | {name: spoilt(value[name], draw)}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], spoilt(value[at], draw), *value[at + 1 :]]
    return draw(_OTHER)


@given(data=st.data())
def test_no_body_of_the_document_breaks_the_service(data: st.DataObject) -> None:
    """Nor one that is nearly so: answers are 200 or refusals, in JSON as the document has them."""
    asked = Asked(data.draw(st.sampled_from([model(), of_attributes()])))
    name, path = data.draw(
        st.sampled_from([("ScoreQuestion", "/v1/score"), ("RankQuestion", "/v1/rank")])
    )
    body = data.draw(of_schema(_SCHEMAS[name]))
    if data.draw(st.integers(0, 2)) == 0:
        body = spoilt(body, data.draw)
    kind = data.draw(st.sampled_from(["application/json", "application/msgpack"]))
    try:
        packed = kind == "application/msgpack"
        raw = msgspec.msgpack.encode(body) if packed else json.dumps(body).encode()
    except (ValueError, OverflowError):  # a number that MessagePack has not
        return
    cut = data.draw(st.integers(0, 20))
    reply = asked.ask(
        path, raw if cut else raw[: len(raw) // 2], kind=kind, headers={"accept": "*/*"}
    )
    packed = reply.headers["content-type"] == "application/msgpack"
    found = (msgspec.msgpack if packed else msgspec.json).decode(reply.body)
    assert reply.status in {200, 400, 422}, found
    if reply.status == 200:
        assert set(found) <= set(_SCHEMAS["Answer"]["properties"])
    else:
        assert set(found) == {"reason", "message"}


_PARTS = st.sampled_from(
    [b"jobs", b"j", b"applicants", b"a", b"per_job", b"%2F", b"%", b"%FF", b"..", b"", b"\xff"]
) | st.binary(max_size=4).map(lambda part: part.replace(b"/", b"").replace(b"?", b""))
_QUERY = st.lists(
    st.tuples(
        st.sampled_from([b"top", b"by", b"at_ms", b"search", b"limit", b"x"]),
        st.sampled_from([b"1", b"0", b"-1", b"next", b"null", b"1e9", b"9" * 5000, b"", b"%FF"])
        | st.binary(max_size=4),
    ),
    max_size=3,
)


@given(
    stem=st.sampled_from([b"/v1/jobs", b"/v1/jobs/j/applicants", b"/v1/entities/per_job", b""]),
    parts=st.lists(_PARTS, max_size=4),
    query=_QUERY,
    accept=st.binary(max_size=8),
)
def test_no_address_breaks_the_service(
    stem: bytes, parts: list[bytes], query: list[tuple[bytes, bytes]], accept: bytes
) -> None:
    """Whatever bytes are in path, query and headers: an answer, or a refusal in JSON."""
    asked = Asked(model(), Policy(applicants=ApplicantSettings(enabled=True)))
    path = b"/".join([stem, *parts]) or b"/"
    reply = asked.ask(
        path + b"?" + b"&".join(b"=".join(each) for each in query),
        headers={"accept": accept.decode("latin-1")},
    )
    assert reply.status in {200, 404, 422}, reply
    if reply.status != 200:
        assert set(reply.json()) == {"reason", "message"}


def test_the_document_names_every_route() -> None:
    """And is served; every reference in it leads somewhere."""
    asked = Asked(model())
    found = asked.ask("/openapi.json").json()
    assert found["openapi"] == "3.1.0"
    for path in found["paths"]:
        reply = asked.ask(path, method="PUT")
        assert reply.status == 405, path
    text = msgspec.json.encode(found).decode()
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(found["components"]["schemas"])
