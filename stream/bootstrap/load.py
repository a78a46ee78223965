"""SHELL: the state of a replay becomes that of live workers (``hearback bootstrap``).

History goes into an application id that has none yet, whose outputs are its own, so that it can run
beside another one until consumers have switched. In order:

1. Every changelog partition gets the mark :data:`~stream.worker.changelog.UNFINISHED`, all in one
   transaction: from now on workers refuse this application id. Whoever had a partition is fenced.
2. The replay's state goes into the changelogs, each entry where murmur2 puts its member or job, and
   its coefficients into their topic; some thousand records in a transaction.
3. One transaction says in all partitions at once whose the state is, where event time stands and
   from where inputs are to be read, and takes the marks away.

So a bootstrap that is cut short anywhere leaves an application id that nobody works on; begun
again, it removes that one's topics, in which there is nothing but what it wrote itself. All
transactions have one id: a second bootstrap fences the first.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from stream.bootstrap.split import identity_of, preferences_entry, split
from stream.bootstrap.target import Settings, Target
from stream.errors import ConfigError, StateError
from stream.events import records
from stream.events.records import TopicNames
from stream.events.wire import coefficients_key, decode_coefficients
from stream.model.folder import NO_MODEL
from stream.replay.run_folder import COEFFICIENTS, RunMetrics, load_metrics, states_of
from stream.state import keys
from stream.state.store import RocksStore
from stream.worker.changelog import RECORD_BYTES, Mark, apply
from stream.worker.contract import PartitionId
from stream.worker.crashpoints import crash_point
from stream.worker.data_folder import DataFolder

_SAY_EVERY = 1_000  # records
_COPY_BYTES = 8 << 20  # written at once into a data folder, about


class Bootstrapped(NamedTuple):
    """What a bootstrap has done."""

    records: int
    entities: int
    partitions: int
    watermark_ms: int | None
    names: TopicNames


def bootstrap(
    settings: Settings,
    on_progress: Callable[[int, int], None] = lambda _, __: None,
) -> Bootstrapped:
    """Load a replay's state; blocks for as long as that takes.

    Args:
        settings: which, and where to.
        on_progress: called with how many entries are written, of about how many.

    Raises:
        BrokerError: the broker does not answer or refuses.
        ConfigError: the run, the application id or the data folder cannot be used for it.
        StateError: the run's state cannot be read.

    """
    metrics = load_metrics(settings.run)
    _check(settings, metrics)
    with ExitStack() as held:
        stores = [RocksStore(path, read_only=True) for path in states_of(settings.run)]
        for store in stores:
            held.callback(store.close)
        identity = identity_of(stores)
        target = Target(settings)
        held.callback(target.close)
        copy = None
        if settings.data is not None:
            copy = DataCopy(settings.data, settings.application_id)
            held.callback(copy.abandon)
        target.prepare()
        entities = sum(metrics.entities.values())
        about = sum(store.count_roughly() for store in stores) + entities
        done = 0
        for entry in split(stores, target.partitions, time.time_ns() // 1_000_000):
            target.put(entry.place, entry.key, entry.value)
            if entry.key[:1] == keys.PREFERENCES:
                target.publish(records.PREFERENCES, *preferences_entry(entry.key, entry.value))
            if copy is not None:
                copy.put(entry.place, entry.key, entry.value)
            done += 1
            if done % _SAY_EVERY == 0:
                on_progress(done, max(about, done + entities))
        for key, value in _coefficients(settings.run / COEFFICIENTS):
            target.publish(records.COEFFICIENTS, key, value)
            done += 1
            if done % _SAY_EVERY == 0:
                on_progress(done, max(about, done))
        target.flush()
        if copy is not None:
            copy.flush()
        crash_point("loaded")
        own = {place: target.own(place, identity, metrics.watermark_ms) for place in target.places}
        with _undisturbed():
            marks = target.finish(own)
            crash_point("bootstrapped")
            if copy is not None:
                copy.finish(own, marks)
    return Bootstrapped(done, entities, target.partitions, metrics.watermark_ms, target.names)


class DataCopy:
    """A data folder in the making, beside the changelogs: under another name until it is whole."""

    def __init__(self, path: Path, application_id: str) -> None:
        self._path = path
        self._making = path.with_name(f"{path.name}.part")
        shutil.rmtree(self._making, ignore_errors=True)  # of an attempt that was cut short
        self._folder = DataFolder(self._making, application_id)
        self._whole = False
        self._writes: defaultdict[PartitionId, dict[bytes, bytes | None]] = defaultdict(dict)
        self._bytes = 0

    def put(self, place: PartitionId, key: bytes, value: bytes) -> None:
        """Write an entry into a partition's store."""
        self._writes[place][key] = value
        self._bytes += len(key) + len(value) + RECORD_BYTES
        if self._bytes >= _COPY_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        for place, writes in self._writes.items():
            self._folder.store(place).write(writes, logged=False)  # cut short, it is thrown away
        self._writes.clear()
        self._bytes = 0

    def finish(
        self, own: dict[PartitionId, list[tuple[bytes, bytes]]], marks: dict[PartitionId, Mark]
    ) -> None:
        """Complete all stores, and give the folder its name.

        Raises:
            ConfigError: the name is taken by now.

        """
        for place, entries in own.items():
            store = self._folder.store(place)
            apply(store, dict(entries), marks[place], logged=False)
            store.flush()
        self._folder.release()
        self._whole = True
        try:
            self._making.rename(self._path)
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be made: {error.strerror}; all is well without it, workers"
                " recover from the changelogs"
            ) from None

    def abandon(self) -> None:
        """Remove what there is, if it is not whole."""
        if not self._whole:
            self._folder.release()
            shutil.rmtree(self._making, ignore_errors=True)


def _check(settings: Settings, metrics: RunMetrics) -> None:
    """Refuse a run that workers cannot go on from, before anything is done."""
    if metrics.model_version == NO_MODEL:
        raise ConfigError(
            f"{settings.run} was replayed without a global model, which workers need: replay with"
            " --model"
        )
    if metrics.watermark_ms is None:
        raise ConfigError(f"{settings.run} has read no events: there is nothing to load")
    if metrics.watermark_ms >= settings.labels.past_everything_ms(metrics.newest_event_ms):
        raise ConfigError(
            f"{settings.run} ends with all windows closed (--close, or a clock), so that what comes"
            " next would be late: replay without"
        )
    if settings.data is not None and settings.data.exists():
        raise ConfigError(f"{settings.data} is there already: name another --data or remove it")


def _coefficients(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a run's coefficients, as workers publish them."""
    try:
        with path.open("rb") as lines:
            for line in lines:
                value = line.rstrip(b"\n")
                found = decode_coefficients(value)
                yield coefficients_key(found.effect, found.entity_id), value
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C come too late: what is done in here takes a moment, and then all is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
