"""What scores for a global model: coefficients, or trees.

A scorer knows columns, not names: of each row x (d,) float32 it gives the log-odds. It is made of
bytes, those of the model folder's file, and checks them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.model.kind import ModelKind

Floats32 = NDArray[np.float32]


class Scorer(Protocol):
    """Scores rows of d columns; ``score`` and ``score_all`` give a row the same float64."""

    @property
    def kind(self) -> ModelKind:
        """Which of them it is."""

    def encoded(self) -> bytes:
        """Return the bytes that it can be made of."""

    def score(self, packed: bytes) -> float:
        """Log-odds, of the float32 bytes of one row (d,)."""

    def score_all(self, X: Floats32) -> NDArray[np.float64]:
        """Log-odds (n,) of rows (n, d)."""

    def contributions(self, x: Floats32) -> NDArray[np.float64]:
        """What each column adds to the log-odds of a row (d,), and what is so without any.

        Returns:
            (d + 1,): the last is the constant; the sum is the score.

        """

    def contributions_all(self, X: Floats32) -> NDArray[np.float64]:
        """:meth:`contributions` of rows (n, d): (n, d + 1)."""
