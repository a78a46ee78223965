"""A session refuses whatever its status does not allow, and changes nothing by refusing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from stream.errors import BrokerError, NotOpenError
from stream.events.records import PLAIN
from stream.kafka.embedded import EmbeddedBroker
from stream.metrics.worker import WorkerMetrics
from stream.policy import DAY_MS, Policy
from stream.worker.data_folder import DataFolder
from stream.worker.limits import TopicLimits
from stream.worker.session import Session, Status
from stream.worker.settings import Resources, WorkerSettings
from stream.worker.topics import plans
from stream.worker.transactions import Transactions
from tests import kit


@pytest.fixture
def session(embedded_broker: EmbeddedBroker, tmp_path: Path) -> Iterator[Session]:
    """A session of a job partition, not open yet."""
    embedded_broker.create_topics({plan.name: 1 for plan in plans("test", DAY_MS)})
    data = DataFolder(tmp_path / "data", "test")
    with ThreadPoolExecutor(1) as threads:
        yield Session(
            ("job", 0),
            Resources(
                settings=WorkerSettings(
                    broker=embedded_broker.bootstrap_servers,
                    application_id="test",
                    data_dir=tmp_path,
                    partitions=1,
                    embedded=True,
                ),
                model=kit.model(),
                policy=Policy(),
                data=data,
                metrics=WorkerMetrics(CollectorRegistry(), "test"),
                now_ms=lambda: kit.NOW_MS,
                threads=threads,
            ),
            topic_ids={},
            limits=TopicLimits(embedded_broker.bootstrap_servers, PLAIN, []),
            go_on=lambda: True,
        )
    data.release()


async def opened(session: Session) -> None:
    """Open it."""
    await asyncio.to_thread(session.open)


async def lost(session: Session) -> None:
    """Lose it in a flush."""
    await opened(session)
    with pytest.MonkeyPatch.context() as patch:

        def away(*_: object) -> None:
            raise BrokerError("away")

        patch.setattr(Transactions, "send", away)
        with pytest.raises(BrokerError, match="away"):
            await session.flush([])


async def not_opened(session: Session) -> None:
    """Fail to open it."""
    with pytest.MonkeyPatch.context() as patch:

        def away(*_: object) -> None:
            raise BrokerError("away")

        patch.setattr(Transactions, "fence", away)
        with pytest.raises(BrokerError, match="away"):
            await asyncio.to_thread(session.open)


async def ended(session: Session) -> None:
    """End it after it was open."""
    await opened(session)
    await session.end()


async def untouched(session: Session) -> None:
    """Leave it as it is."""


async def flush(session: Session) -> None:
    """Flush nothing."""
    await session.flush([])


async def check_owner(session: Session) -> None:
    """Ask who the owner is."""
    await asyncio.to_thread(session.check_owner)


async def look_at_partition(session: Session) -> None:
    """Take the partition."""
    assert session.partition.number == 0


Step = Callable[[Session], Awaitable[None]]


def run(session: Session, *steps: Step) -> None:
    """Take steps with a session, and end it."""

    async def whole() -> None:
        try:
            for step in steps:
                await step(session)
        finally:
            await session.end()

    asyncio.run(whole())


async def refused(session: Session, use: Step, status: Status) -> None:
    """Check that the error says what the session is, and that it stays so."""
    with pytest.raises(NotOpenError, match=f"the session of job-0 is {status.value}, not"):
        await use(session)
    assert session.status is status


@pytest.mark.parametrize(
    ("before", "status"),
    [
        (untouched, Status.NEW),
        (not_opened, Status.LOST),
        (lost, Status.LOST),
        (ended, Status.ENDED),
    ],
)
@pytest.mark.parametrize("use", [flush, check_owner, look_at_partition])
def test_only_an_open_session_is_used(
    session: Session, before: Step, status: Status, use: Step
) -> None:
    """Neither before it is open, nor when it is lost, nor after its end."""
    run(session, before, lambda each: refused(each, use, status))


@pytest.mark.parametrize(
    ("before", "status"), [(opened, Status.OPEN), (lost, Status.LOST), (ended, Status.ENDED)]
)
def test_a_session_is_opened_once(session: Session, before: Step, status: Status) -> None:
    """Not while it is open, and never again: another assignment makes another session."""
    run(session, before, lambda each: refused(each, opened, status))


def test_a_session_that_is_flushed_may_be_looked_at_and_not_used(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second flush and a question to the broker wait for the first; afterwards it is open."""
    found: list[Status] = []
    send = Transactions.send

    async def while_flushing(session: Session) -> None:
        loop = asyncio.get_running_loop()

        async def look() -> None:
            found.append(session.status)
            assert session.flushing_since is not None
            await look_at_partition(session)
            await refused(session, flush, Status.FLUSHING)
            await refused(session, check_owner, Status.FLUSHING)

        def slow(self: Transactions, *arguments: object) -> object:
            asyncio.run_coroutine_threadsafe(look(), loop).result(10)
            return send(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Transactions, "send", slow)
        await session.flush([])
        monkeypatch.setattr(Transactions, "send", send)

    async def is_open(session: Session) -> None:
        assert session.status is Status.OPEN
        assert session.flushing_since is None
        await check_owner(session)

    def prepared(session: Session) -> Awaitable[None]:
        session._overlay.put(b"\x01a", b"1")
        return while_flushing(session)

    run(session, opened, prepared, is_open)
    assert found == [Status.FLUSHING]


def test_a_lost_flush_tells_since_when(session: Session) -> None:
    """What the metric of unattended partitions counts from; the end may be told twice."""

    async def knows(session: Session) -> None:
        assert session.flushing_since is not None
        await session.end()

    run(session, lost, knows)
