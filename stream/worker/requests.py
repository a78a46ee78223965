"""SHELL: what a person may ask of a running worker, over a Unix socket in its data folder.

One request, one answer, each a line of JSON. Whoever may write into the folder may ask; nothing
listens on the network.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from stream.errors import ConfigError, HearbackError, StateError
from stream.worker.data_folder import Checkpointed

_log = logging.getLogger(__name__)

SOCKET = "worker.sock"
"""Name of the socket in the data folder."""

_ANSWER_S = 600.0  # a checkpoint onto another file system is a copy
_LONGEST_PATH = 100  # bytes; the system takes 107, on some 103


class CheckpointRequest(msgspec.Struct, frozen=True, tag_field="request", tag="checkpoint"):
    """Copy the state into a folder."""

    out: str


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    done: Checkpointed | None = None
    error: str | None = None


class Requests:
    """Takes requests, one connection each, until it is closed.

    Args:
        folder: the worker's data folder, locked by it.
        checkpoint: makes one in the folder that it is given.

    """

    def __init__(self, folder: Path, checkpoint: Callable[[Path], Awaitable[Checkpointed]]) -> None:
        self._folder = folder
        self._checkpoint = checkpoint
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, if that is not so already; the socket of a dead worker is replaced.

        Raises:
            ConfigError: the folder takes no socket.

        """
        if self._server is not None:
            return
        try:
            with _short(self._folder) as path:
                self._server = await asyncio.start_unix_server(self._serve, path)
            (self._folder / SOCKET).chmod(0o600)
        except OSError as error:
            raise ConfigError(
                f"{self._folder} takes no socket: {error.strerror or error}"
            ) from None

    async def close(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.close()
            (self._folder / SOCKET).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(await reader.readline())
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
        except (OSError, ValueError) as error:  # who asked has gone, or talks something else
            _log.info("a request was not answered: %s", error)
        finally:
            with suppress(OSError):
                writer.close()
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> _Answer:
        try:
            request = msgspec.json.decode(line, type=CheckpointRequest)
        except msgspec.DecodeError as error:
            return _Answer(error=f"the worker does not know this request: {error}")
        try:
            return _Answer(done=await self._checkpoint(Path(request.out)))
        except (HearbackError, OSError) as error:
            return _Answer(error=str(error))


def ask_checkpoint(folder: Path, out: Path) -> Checkpointed:
    """Let the worker that uses a data folder copy its state into another folder; blocks.

    Args:
        folder: the worker's ``--data``. out: not there yet; the worker makes it.

    Raises:
        ConfigError: no worker answers. StateError: the worker refuses, or ends meanwhile.

    """
    request = msgspec.json.encode(CheckpointRequest(str(out.absolute())))
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}: name the --data of a running worker")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            with _short(folder) as path:
                connection.connect(path)
        except OSError as error:
            raise ConfigError(
                f"no worker answers in {folder} ({error.strerror}): is it running, on this"
                " machine, and has it got its partitions? The folder of a stopped worker can"
                " simply be copied"
            ) from None
        try:
            connection.sendall(request + b"\n")
            with connection.makefile("rb") as lines:
                answer = msgspec.json.decode(lines.readline(), type=_Answer)
        except (OSError, msgspec.DecodeError) as error:
            raise StateError(f"the worker of {folder} did not answer: {error}") from None
    if answer.done is None:
        raise StateError(answer.error or "the worker refused")
    return answer.done


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Give a path of the socket that the system takes, however long the folder's is."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
