"""What scores for a global model.

A scorer knows columns, not names: of each row x (d,) float32 it gives the log-odds. It is made of
bytes, those of the model folder's file, and checks them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]


class Scorer(Protocol):
    """Scores rows of d columns."""

    def encoded(self) -> bytes:
        """Return the bytes that it can be made of."""

    def score(self, packed: bytes) -> float:
        """Log-odds, of the float32 bytes of one row (d,)."""

    def score_all(self, X: Floats32) -> NDArray[np.float64]:
        """Log-odds (n,) of rows (n, d)."""
