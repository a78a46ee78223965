"""What an operator asks of a host: a copy of its state, commands, whether it is ready."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream.errors import ConfigError, StateError
from stream.partitions.commands import GateCommand
from stream.partitions.progress import load_progress
from stream.state.store import RocksStore
from stream.worker.data_folder import Checkpointed, partition_ids_in, whose
from stream.worker.host import Host
from stream.worker.requests import SOCKET, Requests, ask_checkpoint
from tests.worker.bench import ALL, ANSWER, APPLIED, Bench, run


def test_a_checkpoint_is_a_data_folder(bench: Bench, tmp_path: Path) -> None:
    """A copy of a running worker's state; a host on it goes on where the copy was made."""
    out = tmp_path / "copy"

    async def scenario(host: Host) -> None:
        with pytest.raises(ConfigError, match="no worker answers in"):
            await asyncio.to_thread(ask_checkpoint, bench.folder, out)
        await host.assigned(ALL)
        await host.process(ANSWER)
        done = await asyncio.to_thread(ask_checkpoint, bench.folder, out)
        assert done.stores == 2
        assert done.size_bytes > 0
        await host.process(APPLIED)
        with pytest.raises(StateError, match="copy is there already"):
            await asyncio.to_thread(ask_checkpoint, bench.folder, out)
        await host.revoked(ALL)
        with pytest.raises(StateError, match="is being taken over or given up"):
            await asyncio.to_thread(ask_checkpoint, bench.folder, tmp_path / "other")
        assert not list(tmp_path.glob("other*"))

    run(bench, scenario)
    assert partition_ids_in(out) == [("job", 0), ("member", 0)]
    assert whose(out) == "test"
    assert not (bench.folder / SOCKET).exists()
    store = RocksStore(out / "job-0", read_only=True)
    progress = load_progress(store)
    store.close()
    assert progress is not None
    assert progress.positions == {"engagements": 1}
    bench.folder = out

    async def go_on(host: Host) -> None:
        await host.assigned(ALL)
        assert bench.group.sought == {("engagements", 0): 1, ("applications-by-job", 0): 1}

    run(bench, go_on)


def test_requests_reach_a_folder_with_a_long_name(tmp_path: Path) -> None:
    """The system's limit to a socket's path is no limit to the folder's."""
    folder = tmp_path / ("long-" * 40)
    folder.mkdir()

    async def refuse(out: Path) -> Checkpointed:
        raise StateError(f"not into {out.name}")

    async def scenario() -> None:
        requests = Requests(folder, refuse)
        await requests.open()
        with pytest.raises(StateError, match="not into copy"):
            await asyncio.to_thread(ask_checkpoint, folder, tmp_path / "copy")
        await requests.close()

    asyncio.run(scenario())
    with pytest.raises(ConfigError, match="there is no folder"):
        ask_checkpoint(tmp_path / "none", tmp_path / "copy")


def test_partitions_obey_commands(bench: Bench) -> None:
    """At the next tick, once, and durably: the session after it knows."""

    async def scenario(host: Host) -> None:
        bench.commands.append(GateCommand("per_job", None, 5))
        for _ in range(2):
            await host.assigned(ALL)
            session = host._owned["job", 0].session
            assert session is not None
            await host.tick()
            deadline = asyncio.get_running_loop().time() + 20
            while session.partition.judged.gate.command != 5:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)
            await host.revoked(ALL)

    run(bench, scenario)


def test_ready_once_everything_is_worked_on(bench: Bench) -> None:
    """Not before the group has spoken, not while partitions are being taken over."""

    async def scenario(host: Host) -> None:
        assert host.why_not_ready() == "no partitions are assigned yet"
        await host.assigned(ALL)
        assert host.why_not_ready() is None
        await host.revoked(ALL)
        assert host.why_not_ready() == "2 of 2 partitions are being taken over"

    run(bench, scenario)
