"""What scoring asks of a store of coefficients, wherever it is kept.

:class:`~stream.serving.embedded.EmbeddedStore` holds all of it in the process, fed from the topic.
A store that several processes share would have the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events.structs import Coefficients
from stream.histories.history import Summary
from stream.histories.preferences import Preferences
from stream.model.folder import GlobalModel
from stream.serving.models import Chosen
from stream.serving.positions import Position


class Found(msgspec.Struct, frozen=True, gc=False):
    """What is known of n entities of one effect, as of one moment.

    Attributes:
        known: whether anything is, (n,) bool.
        mean: coefficients (n, d) float64; 0 of who is not known.
        variance: (n, d) float32; of who is not known, the prior's.
        summaries: their histories, if they were asked for; None: nothing is known of it.

    """

    known: NDArray[np.bool_]
    mean: NDArray[np.float64]
    variance: NDArray[np.float32]
    summaries: list[Summary | None]

    def same(self, other: Found) -> bool:
        """Whether as much is known in another, the histories aside."""
        return (
            np.array_equal(self.known, other.known)
            and np.array_equal(self.mean, other.mean)
            and np.array_equal(self.variance, other.variance)
        )


class Standing(msgspec.Struct, frozen=True):
    """How a store stands.

    Attributes:
        ready: whether it has all that was published when it was started.
        current_ms: wall clock of the last moment as of which it had everything; None: never.
        entities: by effect, how many are known.
        left_out: messages that were not taken, by reason.
        why_not: why it is not ready, or not current.
        degraded: what else keeps its scores from being what they should be.

    """

    ready: bool
    current_ms: int | None
    entities: dict[str, int]
    left_out: dict[str, int]
    why_not: str | None = None
    degraded: tuple[str, ...] = ()

    def age_s(self, now_ms: int) -> float | None:
        """How old what it has may be; None: it never had all of it."""
        return None if self.current_ms is None else max(now_ms - self.current_ms, 0) / 1000.0


class Store(Protocol):
    """Coefficients, to be read from any thread."""

    @property
    def changes(self) -> int:
        """Another number after each change of what it has."""

    def find(self, effect: str, ids: Sequence[str], *, histories: bool = False) -> Found:
        """Return what is known of entities; every row is one that was published, whole."""

    def finder(self, effect: str, ids: Sequence[str]) -> Callable[[], Found]:
        """Return what finds the same entities again and again, as :meth:`find`, for less."""

    def preferences_of(self, job_id: str) -> Preferences:
        """Return a job's preferences, to be read only; without any count where none is known."""

    def entity(self, effect: str, entity_id: str) -> Coefficients | None:
        """Return one entity's coefficients; None: it is not known."""

    def choose(
        self, job_ids: Sequence[str], times_ms: NDArray[np.float64] | None, at_ms: int
    ) -> Chosen:
        """Return which global models score candidates, as :class:`Models` does."""

    def model(self, version: str) -> GlobalModel | None:
        """Return the global model of a version; None: it is not at hand."""

    def wait(self, positions: Sequence[Position]) -> Future[None]:
        """Return what is done when all that inputs have led to is here.

        Raises:
            QuestionError: their topics have no such partition.

        """

    def standing(self) -> Standing:
        """Tell how it stands."""
