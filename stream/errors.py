"""Every error of the product, under one root.

Each class knows its ``reason`` (the dead-letter header and the metric label, a closed set) and
whether trying again can help (``retriable``). Messages are one line, name what the operator or
the producer should do, and quote ids, never whole payloads.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import ClassVar


class HearbackError(Exception):
    """Root of all errors raised on purpose; the command line prints it as one line, exit code 1."""

    reason: ClassVar[str] = "error"
    retriable: ClassVar[bool] = False


def meant(given: str, known: Collection[str]) -> str:
    """Say what could have been meant by an unknown name."""
    near = get_close_matches(given, known, n=1)
    return f": did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def caused_by(error: HearbackError, first: Exception) -> None:
    """Let an error say what came before it: at the root of its causes."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    if root is not first:
        root.__cause__ = first


class ConfigError(HearbackError):
    """A setting, a policy file or a command's arguments cannot be used."""

    reason = "config"


class ModelTooLargeError(ConfigError):
    """A global model does not fit into a message: it cannot be rolled in."""

    reason = "model_too_large"


class StoppedError(HearbackError):
    """Ctrl-C, in a command that says itself what is left of its work (exit code 130)."""

    reason = "stopped"


class ModelError(HearbackError):
    """A model folder is missing, damaged, or does not fit the data or the state."""

    reason = "model"


class StateError(HearbackError):
    """A stored value or a data folder cannot be read, or belongs to something else."""

    reason = "state"


class NotOpenError(StateError):
    """A session or store is used before it is open, or after its end: a fault of the program."""

    reason = "not_open"


class DamagedStateError(StateError):
    """A store's files are damaged: it has to be rebuilt from its changelog."""

    reason = "damaged_state"


class WorkerDiedError(HearbackError):
    """A process of a replay or a backtest ended, or could not go on."""

    reason = "worker_died"


class LogError(HearbackError):
    """A log file is missing or cannot be opened."""

    reason = "log"


class BrokerError(HearbackError):
    """The Kafka broker cannot be reached or refuses."""

    reason = "broker"
    retriable = True


class FencedError(BrokerError):
    """Another session owns the partition: nothing of this one reaches Kafka any more."""

    reason = "fenced"


class RefusedError(BrokerError):
    """A topic takes less at once than what was sent to it."""

    reason = "refused"


class InterruptedSessionError(BrokerError):
    """A session was given up while it was being made: a rebalance or the end has begun."""

    reason = "interrupted"


class MisroutedProducerError(HearbackError):
    """Most keys of a partition sit where murmur2 would not put them: a producer must be fixed."""

    reason = "misrouted_producer"


class QuestionError(HearbackError):
    """A question to the service cannot be answered as it is asked."""

    reason = "invalid_question"


class EventError(HearbackError):
    """One input record cannot be used: it becomes a dead letter and the stream goes on."""

    reason = "malformed"


class TooLargeError(EventError):
    """The message is larger than the limit (256 KiB)."""

    reason = "too_large"


class UnknownTypeError(EventError):
    """The ``type`` is missing, unknown, or does not belong into this topic."""

    reason = "unknown_type"


class UnknownActionError(EventError):
    """The ``action`` is not in the label policy."""

    reason = "unknown_action"


class InvalidIdError(EventError):
    """An id is missing, not a string, empty, or longer than 256 characters."""

    reason = "invalid_id"


class InvalidTimeError(EventError):
    """``event_time_ms`` is missing, negative or absurd."""

    reason = "invalid_time"


class InvalidFeaturesError(EventError):
    """A feature block is missing, of the wrong size, or has an unknown name or a wild number."""

    reason = "invalid_features"


class NoScoreError(EventError):
    """There is no global model and the application carries no ``global_score``."""

    reason = "no_global_score"


class MisroutedError(EventError):
    """The key is not the event's id, or the partition is not the key's murmur2 partition."""

    reason = "misrouted"


class ConflictError(EventError):
    """An event with this id was read before with other content; the first stays."""

    reason = "conflict"


class MismatchError(EventError):
    """The engagement names another member than its application."""

    reason = "mismatch"


class UnmatchedError(EventError):
    """No application came for this engagement within ``orphan_ttl``."""

    reason = "unmatched"


class TimeJumpError(EventError):
    """The event lies further ahead than ``--max-jump`` and nothing followed it there."""

    reason = "time_jump"


class OtherModelError(EventError):
    """A label of the topic was made with another global model than this worker's."""

    reason = "other_model"


class PoisonError(EventError):
    """Processing this record raised an unexpected error; the record was set aside."""

    reason = "poison"
