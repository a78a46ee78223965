"""The frozen fixed effect: fitted once by ``train``, then only ever scored.

A model is a folder with two files:

- ``manifest.json``: format version, model version, feature names per block, training span and
  counts, and the SHA-256 of the arrays;
- ``coefficients.npy``: float64 coefficients of the global block, shape (d_global,).
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ModelError
from stream.features.blocks import FeatureSpace
from stream.labels.delays import DelayCurve

FORMAT = 1
MANIFEST = "manifest.json"
ARRAYS = "coefficients.npy"
NO_MODEL = "none"
"""Model version of a run whose events bring their own ``global_score``."""


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """How good a model is that was fitted without the newest applications, on these.

    ``from_ms``: when the first of them was submitted. ``auc`` is None where all were answered, or
    none. ``constant_log_loss``: of a constant fitted in its place.
    """

    from_ms: int
    applications: int
    positives: int
    auc: float | None
    log_loss: float
    constant_log_loss: float | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How the regularisation was chosen: by cross-validation over jobs.

    ``log_losses``: mean over the ``applications`` of each C of the ``grid``; ``errors``: standard
    error of what each loses to the best; ``constant_log_loss``: of a constant. ``fold_log_losses``:
    by fold and C.
    """

    jobs: int
    applications: int
    grid: list[float]
    log_losses: list[float]
    errors: list[float]
    constant_log_loss: float
    fold_applications: list[int]
    fold_log_losses: list[list[float]]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What ``manifest.json`` says.

    ``regularisation``: C, the inverse strength; ``choice``: how it was chosen, None: too little
    was there to choose by. ``delays``: how long answers take, None: too few were there to tell.
    """

    format: int
    model_version: str
    features: dict[str, list[str]]
    trained_from_ms: int
    trained_until_ms: int
    applications: int
    positives: int
    regularisation: float
    sha256: str
    held_out: HeldOut | None = None
    delays: DelayCurve | None = None
    choice: Choice | None = None


class GlobalModel:
    """Scores the global block; knows the names and sizes of all three.

    Args:
        manifest: names, version and span.
        coefficients: β, shape (d_global,).

    """

    def __init__(self, manifest: Manifest, coefficients: NDArray[np.float64]) -> None:
        self.manifest = manifest
        self.coefficients = coefficients
        self.version = manifest.model_version
        self.space = FeatureSpace(
            manifest.features["global"],
            manifest.features["per_member"],
            manifest.features["per_job"],
        )

    def score(self, packed: bytes) -> float:
        """x'β in log-odds, from the float32 bytes of the global block."""
        return float(np.frombuffer(packed, dtype="<f4").astype(np.float64) @ self.coefficients)


def save_model(
    path: Path,
    coefficients: NDArray[np.float64],
    features: dict[str, list[str]],
    *,
    trained_from_ms: int,
    trained_until_ms: int,
    applications: int,
    positives: int,
    regularisation: float,
    held_out: HeldOut | None = None,
    delays: DelayCurve | None = None,
    choice: Choice | None = None,
) -> Manifest:
    """Write a model folder; the version is a digest of its content, so equal models are equal."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(coefficients, dtype="<f8"), allow_pickle=False)
    arrays = buffer.getvalue()
    sha256 = hashlib.sha256(arrays).hexdigest()
    names = msgspec.json.encode([features["global"], features["per_member"], features["per_job"]])
    curve = b"" if delays is None else msgspec.json.encode(delays)
    version = hashlib.sha256(names + arrays + curve).hexdigest()[:12]
    manifest = Manifest(
        format=FORMAT,
        model_version=version,
        features=features,
        trained_from_ms=trained_from_ms,
        trained_until_ms=trained_until_ms,
        applications=applications,
        positives=positives,
        regularisation=regularisation,
        sha256=sha256,
        held_out=held_out,
        delays=delays,
        choice=choice,
    )
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ARRAYS).write_bytes(arrays)
        (path / MANIFEST).write_bytes(
            msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        )
    except OSError as error:
        raise ModelError(f"model {path} cannot be written: {error.strerror}") from None
    return manifest


def load_model(path: Path) -> GlobalModel:
    """Read and check a model folder.

    Raises:
        ModelError: a file is missing, damaged, of another format, or the sizes disagree.

    """
    try:
        text = (path / MANIFEST).read_bytes()
        arrays = (path / ARRAYS).read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} is no model folder ({error.strerror}: {error.filename});"
            " make one with: hearback train LOG --out MODEL"
        ) from None
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path / MANIFEST} is damaged: {error}") from None
    if manifest.format != FORMAT:
        raise ModelError(
            f"{path} has model format {manifest.format}, this release reads {FORMAT}: train again"
        )
    missing = {"global", "per_member", "per_job"} - manifest.features.keys()
    if missing:
        raise ModelError(f"{path / MANIFEST} names no features for {', '.join(sorted(missing))}")
    if hashlib.sha256(arrays).hexdigest() != manifest.sha256:
        raise ModelError(f"{path / ARRAYS} does not match the checksum in its manifest")
    try:
        coefficients = np.load(io.BytesIO(arrays), allow_pickle=False)
    except ValueError as error:
        raise ModelError(f"{path / ARRAYS} is damaged: {error}") from None
    size = len(manifest.features["global"])
    if coefficients.shape != (size,) or not np.isfinite(coefficients).all():
        raise ModelError(f"{path}: {coefficients.shape} coefficients for {size} global features")
    return GlobalModel(manifest, coefficients.astype(np.float64))
