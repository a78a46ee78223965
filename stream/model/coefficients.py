"""A linear global model: x'β in log-odds. Its file holds β (d,) float64, as NumPy writes it."""

from __future__ import annotations

import io
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from stream.errors import ModelError
from stream.model.kind import ModelKind
from stream.model.scorer import Floats32


class Linear:
    """Scores with coefficients (d,) (:class:`~stream.model.scorer.Scorer`)."""

    kind: Final[ModelKind] = "linear"

    def __init__(self, coefficients: NDArray[np.float64]) -> None:
        self.coefficients = coefficients

    @classmethod
    def decoded(cls, data: bytes, columns: int) -> Self:
        """Read and check.

        Raises:
            ModelError: these are no coefficients of so many columns.

        """
        try:
            found = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ModelError(f"its coefficients are damaged: {error}") from None
        if found.dtype != "<f8" or found.shape != (columns,) or not np.isfinite(found).all():
            raise ModelError(
                f"it has {found.shape} {found.dtype} coefficients for {columns} global"
                " features, or some that are no number"
            )
        return cls(found)

    def encoded(self) -> bytes:
        """Return the file's bytes."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(self.coefficients, dtype="<f8"), allow_pickle=False)
        return buffer.getvalue()

    def score(self, packed: bytes) -> float:
        """x'β, of the float32 bytes of one row."""
        return float(np.frombuffer(packed, dtype="<f4").astype(np.float64) @ self.coefficients)

    def score_all(self, X: Floats32) -> NDArray[np.float64]:
        """Xβ (n,)."""
        return np.asarray(X.astype(np.float64) @ self.coefficients)

    def contributions(self, x: Floats32) -> NDArray[np.float64]:
        """x_k·β_k of each column, and 0."""
        return np.asarray(self.contributions_all(x[None])[0])

    def contributions_all(self, X: Floats32) -> NDArray[np.float64]:
        """:meth:`contributions` of rows (n, d): (n, d + 1)."""
        found = np.zeros((len(X), len(self.coefficients) + 1))
        np.multiply(X, self.coefficients, found[:, :-1])
        return found
