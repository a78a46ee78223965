"""Start and stop of the worker: exit codes, one line for each error, and what was committed."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from faust.tables.manager import TableManager

from stream.errors import PoisonError
from stream.worker.app import Worker, run
from stream.worker.contract import InputPartition, Membership, RecordBatch
from stream.worker.settings import WorkerSettings
from tests.worker.conftest import TOPICS, Kit, Recorder, no_sleep


class WritingHandler:
    """Writes each batch and each hook as a line to a file, by which the tests see it."""

    def __init__(self, control: Membership, mode: str, path: Path) -> None:
        self._control = control
        self._mode = mode
        self._path = path

    def leaving(self) -> None:
        """Nothing waits."""

    async def process(self, batch: RecordBatch) -> bool:
        """Take as long, or fail, as the mode says."""
        self._write(f"begin {batch.topic} {batch.partition} {batch.begin}")
        if self._mode == "slow":
            await asyncio.sleep(1.5)
        elif self._mode == "stuck":
            await asyncio.to_thread(threading.Event().wait)
        elif self._mode == "bug" and batch.partition == 2:
            raise ZeroDivisionError("no handler has thought of this")
        elif self._mode == "failing" and batch.partition == 2:
            raise PoisonError("record 7 cannot be set aside")
        self._write(f"end {batch.topic} {batch.partition} {batch.begin} {batch.end}")
        return True

    async def tick(self) -> None:
        """Fail if the mode says so."""
        if self._mode == "bad-tick":
            raise PoisonError("the tick failed")

    async def assigned(self, partitions: frozenset[InputPartition]) -> None:
        """Write down what was assigned."""
        if self._mode == "bad-assigned":
            raise PoisonError("the store is locked")
        self._write(f"assigned {sorted(partitions)}")

    async def skip(self, partition: InputPartition, position: int, first: int) -> None:
        """Nothing is ever gone."""

    async def revoked(self, partitions: frozenset[InputPartition]) -> None:
        """Write down what was revoked."""
        self._write(f"revoked {sorted(partitions)}")

    async def stop(self) -> None:
        """Write down that it was called."""
        self._write(f"stop {sorted(self._control.positions())}")

    def _write(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(line + "\n")


def main() -> int:
    """Be the worker of a test; what the subprocess runs."""
    pytest.MonkeyPatch().setattr(TableManager, "sleep", no_sleep)
    settings = msgspec.json.decode(
        sys.argv[1], type=WorkerSettings, dec_hook=lambda kind, text: kind(text)
    )
    mode, path = sys.argv[2], Path(sys.argv[3])
    return run(settings, lambda control: WritingHandler(control, mode, path))


class Process:
    """A worker in a process of its own."""

    def __init__(self, settings: WorkerSettings, mode: str, path: Path) -> None:
        self._path = path
        code = "import sys; from tests.worker.test_app import main; sys.exit(main())"
        text = msgspec.json.encode(settings, enc_hook=str).decode()
        self.popen = subprocess.Popen(  # this interpreter, our own code
            [sys.executable, "-c", code, text, mode, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(self, begin: str) -> list[list[str]]:
        """What the handler wrote with this first word, split into words."""
        written = self._path.read_text().splitlines() if self._path.exists() else []
        return [line.split() for line in written if line.split()[0] == begin]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition while the process lives; a minute, for a machine that is busy."""
        for _ in range(3000):
            if condition():
                return
            assert self.popen.poll() is None, self.popen.communicate()
            time.sleep(0.02)
        raise AssertionError("waited a minute")

    def ended(self) -> dict[InputPartition, int]:
        """The end of the newest handled batch of each partition."""
        return {(topic, int(number)): int(end) for _, topic, number, _, end in self.lines("end")}

    def finish(self) -> tuple[int, str]:
        """Wait for the end; exit code and stderr. stdout has to be empty."""
        out, err = self.popen.communicate(timeout=20)
        assert out == ""
        return self.popen.returncode, err

    def stop(self) -> tuple[int, str]:
        """Send SIGTERM and wait for the end."""
        self.popen.send_signal(signal.SIGTERM)
        return self.finish()


@pytest.fixture
def worker(kit: Kit) -> Iterator[Callable[..., Process]]:
    """Starts a worker process: ``worker(mode, **changed_settings)``."""
    started: list[Process] = []

    def start(mode: str = "plain", **changes: object) -> Process:
        number = len(started)
        changes.setdefault("data_dir", kit.folder / str(number))
        started.append(Process(kit.settings(**changes), mode, kit.folder / f"log-{number}"))
        return started[-1]

    yield start
    for process in started:
        with suppress(OSError):
            process.popen.kill()
        process.popen.communicate()


def test_sigterm_stops_gracefully(kit: Kit, worker: Callable[..., Process]) -> None:
    """SIGTERM ends the worker with exit code 0, silent, and with all committed that was handled."""
    kit.produce(800)
    process = worker()
    process.wait_for(lambda: len(process.ended()) == 8)
    begun = time.monotonic()
    assert process.stop() == (0, "")
    assert time.monotonic() - begun < 5
    assert kit.committed() == process.ended() == kit.ends()
    assert len(process.lines("stop")) == 1


def test_batches_in_flight_are_finished_first(kit: Kit, worker: Callable[..., Process]) -> None:
    """Control-C in the middle of a batch waits for it, commits it, and begins no further one."""
    kit.produce(1600)
    process = worker("slow", max_poll_records=50, commit_interval_s=60.0)
    process.wait_for(lambda: len(process.lines("begin")) == 8)
    assert process.lines("end") == []
    process.popen.send_signal(signal.SIGINT)
    assert process.finish() == (0, "")
    assert len(process.lines("begin")) == len(process.lines("end")) == 8
    assert kit.committed() == process.ended()


def test_a_bug_of_the_handler_stops_the_worker(kit: Kit, worker: Callable[..., Process]) -> None:
    """An exception in ``process`` is exit code 1, one line, and nothing committed of that batch."""
    kit.produce(800)
    process = worker("bug")
    code, err = process.finish()
    assert code == 1
    assert re.fullmatch(
        r"hearback worker: unexpected ZeroDivisionError in \w+-2 from 0: no handler .*\n",
        err,
    )
    committed = {key: end for key, end in kit.committed().items() if end > 0}
    assert committed == process.ended()
    assert not any(partition == 2 for _, partition in committed)
    assert len(process.lines("stop")) == 1


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("failing", "record 7 cannot be set aside"),
        ("bad-tick", "the tick failed"),
        ("bad-assigned", "the store is locked"),
    ],
)
def test_errors_that_are_raised_on_purpose_are_shown_as_they_are(
    kit: Kit, capsys: pytest.CaptureFixture[str], mode: str, line: str
) -> None:
    """One of our own errors, wherever the handler raises it, is the one line; exit code 1."""
    kit.produce(8)
    path = kit.folder / "log"
    assert run(kit.settings(), lambda control: WritingHandler(control, mode, path)) == 1
    assert capsys.readouterr().err == f"hearback worker: {line}\n"


def test_a_stuck_batch_does_not_keep_the_process(kit: Kit, worker: Callable[..., Process]) -> None:
    """When a batch does not end within the time for stopping the process ends with code 1."""
    kit.produce(8)
    process = worker("stuck", stop_timeout_s=1.0)
    process.wait_for(lambda: len(process.lines("begin")) == 8)
    code, err = process.stop()
    assert code == 1
    assert "not stopped within 1 s" in err
    assert all(offset == 0 for offset in kit.committed().values())


def test_a_restart_leaves_nothing_out(kit: Kit, worker: Callable[..., Process]) -> None:
    """After kill -9 a second worker goes on at the committed offsets or before, never behind."""
    kit.produce(800)
    first = worker(max_poll_records=10)
    first.wait_for(lambda: len(first.lines("end")) > 8)
    first.popen.kill()
    first.popen.wait()
    committed = kit.committed()
    second = worker()
    second.wait_for(lambda: second.ended() == kit.ends())
    assert second.stop()[0] == 0
    begins: dict[InputPartition, int] = {}
    for _, topic, partition, begin in second.lines("begin"):
        begins.setdefault((topic, int(partition)), int(begin))
    assert all(begins.get(key, 100) >= offset for key, offset in committed.items())
    assert all(begins.get(key, 100) <= first.ended().get(key, 0) for key in kit.ends())


def test_hooks_and_ticks_come_in_order(kit: Kit) -> None:
    """``assigned`` is first, ticks follow, ``stop`` is last."""
    recorder = Recorder()
    kit.work(recorder, lambda: recorder.ticks > 3)
    assert recorder.hooks == ["assigned 8", "stop"]


def test_nothing_listens_and_no_topic_is_added(kit: Kit, worker: Callable[..., Process]) -> None:
    """The worker opens no port for connections, and leaves the topics of the broker as they are."""
    process = worker()
    process.wait_for(lambda: len(process.lines("assigned")) > 0)
    sockets = {link.readlink().name for link in _links(process.popen.pid)}
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in _table(process.popen.pid, table)
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    ]
    assert listening == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 6066), timeout=1)
    assert process.stop() == (0, "")
    assert kit.topics() == set(TOPICS)


def test_no_broker_is_said_in_one_line(kit: Kit, worker: Callable[..., Process]) -> None:
    """A worker whose broker does not answer ends with code 1 and a line that names the address."""
    with _unused_port() as port:
        process = worker(broker=f"127.0.0.1:{port}", broker_timeout_s=0.5)
        code, err = process.finish()
    assert code == 1
    assert re.fullmatch(rf"hearback worker: no Kafka broker answers at 127.0.0.1:{port} .*\n", err)
    assert len(process.lines("stop")) == 1


def _links(pid: int) -> list[Path]:
    return [link for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]


def _table(pid: int, name: str) -> list[list[str]]:
    return [line.split() for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()]


@contextmanager
def _unused_port() -> Iterator[int]:
    """Yield a port that is taken but does not answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_worker_without_partitions_ticks(kit: Kit) -> None:
    """Its folder may hold copies of others' partitions; between two assignments nothing ticks."""
    recorder = Recorder()

    async def scenario() -> None:
        worker = Worker(kit.settings(), recorder)
        recorder.control = None
        ticking = asyncio.create_task(worker._tick())
        await asyncio.sleep(0.2)
        assert recorder.ticks == 0
        await worker._take_over(frozenset())
        while not recorder.ticks:
            await asyncio.sleep(0.01)
        await worker._on_revoked()
        ticks = recorder.ticks
        await asyncio.sleep(0.2)
        assert recorder.ticks == ticks
        worker.request_stop()
        await ticking

    asyncio.run(asyncio.wait_for(scenario(), 10))
    assert recorder.hooks == ["assigned 0"]
