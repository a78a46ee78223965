"""The frozen global model: made once, by ``train`` or ``model import``, then only ever scored.

A model is a folder with two files:

- ``manifest.json``: format version, model version, what kind of model it is, feature names per
  block, training span and counts, and the SHA-256 of the other file;
- the arrays of its kind: ``coefficients.npy`` (:mod:`stream.model.coefficients`) or ``trees.npy``
  (:mod:`stream.model.trees`).

A model's *columns* are the features of the blocks that ``inputs`` names, one block after the other,
each in the order of its names (:mod:`stream.model.columns`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError, ModelError
from stream.features.blocks import FeatureSpace
from stream.features.fitting import FittedSpec
from stream.features.making import Maker
from stream.labels.delays import DelayCurve
from stream.model.coefficients import Linear
from stream.model.columns import INPUTS, Columns, further
from stream.model.inputs import Dropped
from stream.model.kind import FILES, ModelKind
from stream.model.landmark import Landmark
from stream.model.scorer import Floats32, Scorer
from stream.policy import Policy

FORMAT = 1
MANIFEST = "manifest.json"
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

    ``rows``: what it was fitted on (:mod:`stream.model.rows`), ``applications`` of them.
    ``regularisation``: C, the inverse strength; ``choice``: how it was chosen, None: too little
    was there to choose by; both of a linear model. ``delays``: how long answers take, None: too few
    were there to tell. ``inputs``: the blocks that its columns come from. ``prior_precision``: λ of
    the effects over it where a policy says nothing; None: as it is without a model.
    ``landmark``: what is left to come of who waits, None: by ``delays`` alone. ``dropped``: inputs
    that were left out, for they did not pay. ``spec``: what makes the features of
    attributes, None: applications bring them.
    """

    format: int
    model_version: str
    features: dict[str, list[str]]
    trained_from_ms: int
    trained_until_ms: int
    applications: int
    positives: int
    sha256: str
    kind: ModelKind = "linear"
    inputs: tuple[str, ...] = ("global",)
    regularisation: float | None = None
    prior_precision: float | None = None
    held_out: HeldOut | None = None
    delays: DelayCurve | None = None
    choice: Choice | None = None
    rows: Literal["closed", "aged"] = "closed"
    landmark: Landmark | None = None
    dropped: tuple[Dropped, ...] = ()
    spec: FittedSpec | None = None


class GlobalModel:
    """Scores applications; knows the names and sizes of all blocks.

    Args:
        manifest: names, version and span.
        scorer: what scores the columns.

    Attributes:
        columns: their names, in the model's order.
        takes_further: whether there are others than the global features: histories, preferences.
        takes_history, takes_preferences: whether there are those of either.
        row: joins the float32 bytes of what is scored (:meth:`stream.model.columns.Columns.row`).

    """

    def __init__(self, manifest: Manifest, scorer: Scorer) -> None:
        self.manifest = manifest
        self.scorer = scorer
        self.version = manifest.model_version
        columns = Columns(manifest.features, manifest.inputs)
        self.columns, self.row = columns.names, columns.row
        self.takes_further, self.takes_history = columns.further, columns.history
        self.takes_preferences = "preferences" in manifest.inputs
        self.space = FeatureSpace(
            manifest.features["global"],
            manifest.features["per_member"],
            manifest.features["per_job"],
            maker=None if manifest.spec is None else Maker(manifest.spec),
        )
        self.score = scorer.score  # log-odds, of the float32 bytes of the columns

    @classmethod
    def of(cls, manifest: Manifest, arrays: bytes) -> GlobalModel:
        """Put a model together from what its folder says.

        Raises:
            ModelError: the arrays are damaged, or of another size than the names.

        """
        size = len(Columns(manifest.features, manifest.inputs).names)
        if manifest.kind == "linear":
            return cls(manifest, Linear.decoded(arrays, size))
        from stream.model.trees import Trees  # noqa: PLC0415 - Numba takes half a second to load

        return cls(manifest, Trees.decoded(arrays, size))

    def check(self, policy: Policy) -> None:
        """Refuse a policy that leaves out what the model takes.

        Raises:
            ConfigError: it keeps no histories, and the model takes them or preferences.

        """
        if self.takes_further and not policy.features.histories:
            raise ConfigError(
                f"model {self.version} takes {further(self.manifest.inputs)}: set [features]"
                " histories = true, or train a model without them"
            )

    def warm_up(self) -> None:
        """Score and explain once, so that no event waits for what is compiled on first use."""
        self.score(bytes(4 * len(self.columns)))
        self.scorer.contributions(np.zeros(len(self.columns), np.float32))

    def score_all(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds (n,) of rows (n, d), rounded to float32 as every number that is scored."""
        return self.scorer.score_all(X.astype(np.float32))

    def contributions(self, x: Floats32) -> list[tuple[str, float]]:
        """What each column adds to the log-odds of a row (d,), by name; they sum to the score.

        The last is what is so without any, and has no name.
        """
        return list(zip([*self.columns, ""], self.scorer.contributions(x).tolist(), strict=True))


def new_model(
    scorer: Scorer,
    features: dict[str, list[str]],
    *,
    trained_from_ms: int,
    trained_until_ms: int,
    applications: int,
    positives: int,
    regularisation: float | None = None,
    held_out: HeldOut | None = None,
    delays: DelayCurve | None = None,
    choice: Choice | None = None,
    rows: Literal["closed", "aged"] = "closed",
    inputs: tuple[str, ...] = ("global",),
    dropped: Sequence[Dropped] = (),
    spec: FittedSpec | None = None,
) -> GlobalModel:
    """Make a model; the version is a digest of its content, so equal models are equal."""
    arrays = scorer.encoded()
    manifest = Manifest(
        format=FORMAT,
        model_version="",
        kind=scorer.kind,
        features=features,
        trained_from_ms=trained_from_ms,
        trained_until_ms=trained_until_ms,
        applications=applications,
        positives=positives,
        regularisation=regularisation,
        sha256="",
        held_out=held_out,
        delays=delays,
        choice=choice,
        rows=rows,
        inputs=inputs,
        dropped=tuple(dropped),
        spec=spec,
    )
    return GlobalModel(_versioned(manifest, arrays), scorer)


def with_prior(model: GlobalModel, prior_precision: float) -> GlobalModel:
    """Return the model with a λ for the effects over it, under a version of its own."""
    manifest = msgspec.structs.replace(model.manifest, prior_precision=prior_precision)
    return GlobalModel(_versioned(manifest, model.scorer.encoded()), model.scorer)


def _versioned(manifest: Manifest, arrays: bytes) -> Manifest:
    """Put in the arrays' checksum, and a name for all that decides what is scored and learned."""
    features, further = (
        manifest.features,
        (manifest.delays, manifest.prior_precision, manifest.landmark, manifest.spec),
    )
    further_inputs = [block for block in manifest.inputs if block != "global"]
    blocks = ["global", "per_member", "per_job", *further_inputs]
    names = msgspec.json.encode([features[block] for block in blocks])
    said = [msgspec.json.encode(one) for one in further if one is not None]
    version = hashlib.sha256(b"".join([names, arrays, *said])).hexdigest()[:12]
    sha256 = hashlib.sha256(arrays).hexdigest()
    return msgspec.structs.replace(manifest, model_version=version, sha256=sha256)


def with_landmark(model: GlobalModel, landmark: Landmark) -> GlobalModel:
    """Return the model with a landmark, under a version of its own."""
    manifest = msgspec.structs.replace(model.manifest, landmark=landmark)
    return GlobalModel(_versioned(manifest, model.scorer.encoded()), model.scorer)


def save_model(path: Path, model: GlobalModel) -> Manifest:
    """Write a model folder; return its manifest."""
    manifest = model.manifest
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / FILES[manifest.kind]).write_bytes(model.scorer.encoded())
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
    manifest = _manifest(path, _read(path, MANIFEST))
    name = FILES[manifest.kind]
    arrays = _read(path, name)
    if hashlib.sha256(arrays).hexdigest() != manifest.sha256:
        raise ModelError(f"{path / name} does not match the checksum in its manifest")
    changed = _versioned(manifest, arrays).model_version != manifest.model_version
    newer = manifest.landmark is not None or manifest.spec is not None
    if changed and newer:  # older releases had other versions
        raise ModelError(f"{path / MANIFEST} was changed: it is not of its model_version")
    try:
        return GlobalModel.of(manifest, arrays)
    except ModelError as error:
        raise ModelError(f"model {path}: {error}") from None


def _manifest(path: Path, text: bytes) -> Manifest:
    """Read and check what a folder says of itself."""
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path / MANIFEST} is damaged: {error}") from None
    if manifest.format != FORMAT:
        raise ModelError(
            f"{path} has model format {manifest.format}, this release reads {FORMAT}: train again"
        )
    needed = {"global", "per_member", "per_job"} | set(manifest.inputs) & set(INPUTS)
    missing = needed - manifest.features.keys()
    if missing:
        raise ModelError(f"{path / MANIFEST} names no features for {', '.join(sorted(missing))}")
    try:
        Columns(manifest.features, manifest.inputs)
    except ModelError as error:
        raise ModelError(f"model {path}: {error}") from None
    return manifest


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} is no model folder ({error.strerror}: {error.filename});"
            " make one with: hearback train LOG --out MODEL"
        ) from None
