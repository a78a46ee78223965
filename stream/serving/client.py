"""A client of the service, with and without asyncio.

::

    with Client("http://127.0.0.1:9465") as client:
        candidate = Candidate("m1", features=CandidateFeatures(per_member=[1.0], per_job=[1.0]),
                              global_score=-1.2)
        answer = client.rank(RankQuestion(job_id="j1", candidates=[candidate], top=10))

For volume, :func:`columns_of` takes arrays and :func:`numbers` gives them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from stream.errors import HearbackError
from stream.histories.preferences import Terms
from stream.serving.messages import (
    Answer,
    ApplicantAnswer,
    ApplicantsAnswer,
    By,
    Columns,
    EntityAnswer,
    JobsAnswer,
    Problem,
    RankQuestion,
    ScoreQuestion,
)
from stream.serving.positions import AFTER
from stream.text import path_part

if TYPE_CHECKING:
    import httpx
    import numpy as np
    from confluent_kafka import Message
    from numpy.typing import NDArray

_T = TypeVar("_T")

_TIMEOUT_S = 10.0
_NOBODY = frozenset({"unknown_entity", "not_open"})
_PACKED = "application/msgpack"
_HEADERS = {"Content-Type": _PACKED, "Accept": _PACKED}


class ServiceError(HearbackError):
    """The service does not answer, or refuses.

    Attributes:
        status: the code of HTTP; 0: there was no answer. problem: the reason it gives.
        retry_after_s: when to try again; None: that would not help.

    """

    reason = "service"

    def __init__(
        self, message: str, *, status: int = 0, problem: str = "", retry_after_s: float | None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem
        self.retry_after_s = retry_after_s


class Client:
    """Asks a service; a context manager, to be used by one thread at a time.

    Args:
        url: such as ``http://127.0.0.1:9465``. token: one of the service's token file.
        timeout_s: for an answer.
        verify: path of the CAs that its certificate is checked by; None: the system's.

    Each method raises :class:`ServiceError` where there is no answer. ``after``: positions of
    applications and engagements (:func:`position_of`), with commas between: the answer waits up to
    a second until all that they have led to is in lists and scores; the problem is ``not_yet``
    where that is too short.

    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        verify: str | None = None,
    ) -> None:
        import httpx  # noqa: PLC0415 - a tenth of a second, and most who import us ask nobody

        self._http = httpx.Client(**_settings(url, token, timeout_s, verify))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections."""
        self._http.close()

    def score(self, question: ScoreQuestion, *, after: str = "") -> Answer:
        """Score candidates."""
        return _answer(self._post("/v1/score", question, after), Answer)

    def rank(self, question: RankQuestion, *, after: str = "") -> Answer:
        """Score candidates; return the best, ranked."""
        return _answer(self._post("/v1/rank", question, after), Answer)

    def entity(self, effect: str, entity_id: str) -> EntityAnswer | None:
        """Return what is known of a member or job; None: nothing is."""
        return _known(self._ask("GET", _path(effect, entity_id), None), EntityAnswer)

    def applicants(
        self,
        job_id: str,
        *,
        top: int = 20,
        by: By = "probability",
        at_ms: int | None = None,
        after: str = "",
    ) -> ApplicantsAnswer:
        """Rank the open applicants of a job; ``at_ms``: when ages count, None: now."""
        path = _query(f"/v1/jobs/{_id(job_id)}/applicants", top=top, by=by, at_ms=at_ms)
        return _answer(self._ask("GET", path, None, after), ApplicantsAnswer)

    def applicant(
        self,
        job_id: str,
        application_id: str,
        *,
        by: By = "probability",
        at_ms: int | None = None,
        after: str = "",
    ) -> ApplicantAnswer | None:
        """Tell where an application stands among the open ones of its job; None: it is not open."""
        path = f"/v1/jobs/{_id(job_id)}/applicants/{_id(application_id)}"
        asked = self._ask("GET", _query(path, by=by, at_ms=at_ms), None, after)
        return _known(asked, ApplicantAnswer)

    def jobs(self, search: str = "", *, limit: int = 20) -> JobsAnswer:
        """Find jobs whose id has a text in it, those with most open applicants first."""
        path = _query("/v1/jobs", search=search, limit=limit)
        return _answer(self._ask("GET", path, None), JobsAnswer)

    def _post(self, path: str, question: ScoreQuestion, after: str) -> httpx.Response:
        return self._ask("POST", path, msgspec.msgpack.encode(question), after)

    def _ask(self, method: str, path: str, body: bytes | None, after: str = "") -> httpx.Response:
        import httpx  # noqa: PLC0415

        try:
            return self._http.request(method, path, content=body, headers=_after(after))
        except httpx.HTTPError as error:
            raise _silent(self._http.base_url, error) from None


class AsyncClient:
    """:class:`Client` for asyncio: the same methods, awaited."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        verify: str | None = None,
    ) -> None:
        import httpx  # noqa: PLC0415

        self._http = httpx.AsyncClient(**_settings(url, token, timeout_s, verify))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        await self._http.aclose()

    async def score(self, question: ScoreQuestion, *, after: str = "") -> Answer:
        """Score candidates."""
        return _answer(await self._post("/v1/score", question, after), Answer)

    async def rank(self, question: RankQuestion, *, after: str = "") -> Answer:
        """Score candidates; return the best, ranked."""
        return _answer(await self._post("/v1/rank", question, after), Answer)

    async def entity(self, effect: str, entity_id: str) -> EntityAnswer | None:
        """Return what is known of a member or job; None: nothing is."""
        return _known(await self._ask("GET", _path(effect, entity_id), None), EntityAnswer)

    async def applicants(
        self,
        job_id: str,
        *,
        top: int = 20,
        by: By = "probability",
        at_ms: int | None = None,
        after: str = "",
    ) -> ApplicantsAnswer:
        """Rank the open applicants of a job; ``at_ms``: when ages count, None: now."""
        path = _query(f"/v1/jobs/{_id(job_id)}/applicants", top=top, by=by, at_ms=at_ms)
        return _answer(await self._ask("GET", path, None, after), ApplicantsAnswer)

    async def applicant(
        self,
        job_id: str,
        application_id: str,
        *,
        by: By = "probability",
        at_ms: int | None = None,
        after: str = "",
    ) -> ApplicantAnswer | None:
        """Tell where an application stands among the open ones of its job; None: it is not open."""
        path = f"/v1/jobs/{_id(job_id)}/applicants/{_id(application_id)}"
        asked = await self._ask("GET", _query(path, by=by, at_ms=at_ms), None, after)
        return _known(asked, ApplicantAnswer)

    async def jobs(self, search: str = "", *, limit: int = 20) -> JobsAnswer:
        """Find jobs whose id has a text in it, those with most open applicants first."""
        path = _query("/v1/jobs", search=search, limit=limit)
        return _answer(await self._ask("GET", path, None), JobsAnswer)

    async def _post(self, path: str, question: ScoreQuestion, after: str) -> httpx.Response:
        return await self._ask("POST", path, msgspec.msgpack.encode(question), after)

    async def _ask(
        self, method: str, path: str, body: bytes | None, after: str = ""
    ) -> httpx.Response:
        import httpx  # noqa: PLC0415

        try:
            return await self._http.request(method, path, content=body, headers=_after(after))
        except httpx.HTTPError as error:
            raise _silent(self._http.base_url, error) from None


def position_of(message: Message) -> str:
    """Position of an application or engagement: of the message that ``on_delivery`` is given."""
    return f"{message.topic()}/{message.partition()}:{message.offset()}"


def columns_of(
    *,
    member_id: list[str] | None = None,
    job_id: list[str] | None = None,
    application_time_ms: list[int | None] | None = None,
    later: list[int] | None = None,
    terms: list[Terms | None] | None = None,
    channel: list[str | None] | None = None,
    global_score: NDArray[np.float64] | None = None,
    **blocks: NDArray[np.float32],
) -> Columns:
    """Columns of arrays.

    ``global_score`` is (n,); the blocks ``global_``, ``per_member`` and ``per_job`` are (n, d), and
    are rounded to float32 as the worker does.
    """
    packed = {name: array.astype("<f4").tobytes() for name, array in blocks.items()}
    scores = None if global_score is None else global_score.astype("<f8").tobytes()
    return Columns(
        member_id=member_id,
        job_id=job_id,
        application_time_ms=application_time_ms,
        later=later,
        terms=terms,
        channel=channel,
        global_score=scores,
        **packed,
    )


def numbers(column: Sequence[float | None] | bytes) -> NDArray[np.float64]:
    """Return an answered column as an array (n,), with NaN for candidates that have an error."""
    import numpy as np  # noqa: PLC0415

    if isinstance(column, bytes):
        return np.frombuffer(column, "<f8")
    return np.array([np.nan if each is None else each for each in column])


def _settings(url: str, token: str | None, timeout_s: float, verify: str | None) -> dict[str, Any]:
    headers = _HEADERS if token is None else _HEADERS | {"Authorization": f"Bearer {token}"}
    settings: dict[str, Any] = {"base_url": url, "timeout": timeout_s, "headers": headers}
    if verify is not None:
        import ssl  # noqa: PLC0415

        settings["verify"] = ssl.create_default_context(cafile=verify)
    return settings


def _after(positions: str) -> dict[str, str]:
    return {AFTER: positions} if positions else {}


def _path(effect: str, entity_id: str) -> str:
    return f"/v1/entities/{_id(effect)}/{_id(entity_id)}"


def _id(of: str) -> str:
    try:
        return path_part(of)
    except UnicodeEncodeError:
        raise ServiceError(
            f"the id {of!r} is not valid Unicode: nobody has it", retry_after_s=None
        ) from None


def _query(path: str, **given: str | int | None) -> str:
    return f"{path}?{urlencode({name: each for name, each in given.items() if each is not None})}"


def _answer(response: httpx.Response, kind: type[_T]) -> _T:
    if response.status_code != 200:
        raise _refusal(response)
    return msgspec.msgpack.decode(response.content, type=kind)


def _known(response: httpx.Response, kind: type[_T]) -> _T | None:
    """Read an answer; None: it says that there is nobody."""
    if response.status_code == 404 and _problem(response).reason in _NOBODY:
        return None
    return _answer(response, kind)


def _problem(response: httpx.Response) -> Problem:
    try:
        return msgspec.json.decode(response.content, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Problem("unknown", response.text[:200])


def _refusal(response: httpx.Response) -> ServiceError:
    problem = _problem(response)
    after = response.headers.get("Retry-After", "")
    return ServiceError(
        f"the service refuses ({response.status_code} {problem.reason}): {problem.message}",
        status=response.status_code,
        problem=problem.reason,
        retry_after_s=float(after) if after.isdigit() else None,
    )


def _silent(url: object, error: Exception) -> ServiceError:
    why = str(error) or type(error).__name__
    return ServiceError(
        f"no answer from {url} ({why}): is hearback serve running there?", retry_after_s=1.0
    )
