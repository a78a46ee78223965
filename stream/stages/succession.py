"""Which global model an application is scored by, where one was rolled in for another.

A state begins with one model. Another can be *rolled in*: applications from a time on (by their own
time) are scored by it, earlier ones by the model before. What was rolled in last has the say: from
the same time on, it takes the other's place; the older model, rolled in again, is back.

Models are numbered in the order in which they were rolled in, from 0, the one that the state began
with. Facts keep the number of the one that scored them, so names of all are remembered. How long
answers take, and the effects' settings, stay those of the first.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import NamedTuple

import msgspec

from stream.errors import ConfigError, ModelError, StateError
from stream.model.folder import GlobalModel, Manifest
from stream.policy import Policy
from stream.state import keys
from stream.state.codec import Codec
from stream.state.overlay import Overlay

NAMES_KEY = keys.own("models")
"""Names of a state's models, once one was rolled in."""

MODEL_KEYS = keys.own("model ")
"""With it begin the keys of the models themselves."""

_MOST_ARRAYS = 64 << 20  # bytes that a stored model may unfold to

BLOCKS = ("global", "per_member", "per_job")


class Rolled(NamedTuple):
    """A model that scores the applications from a time (ms) on, in the place of others."""

    model: GlobalModel
    from_ms: int


class Roll(msgspec.Struct, frozen=True, array_like=True):
    """A model is in force for applications from a time on (ms); ``issued_ms``: asked for when."""

    from_ms: int
    version: str
    issued_ms: int = 0


class StoredModel(msgspec.Struct, frozen=True, array_like=True):
    """A whole model: what its folder says, and the bytes of its arrays, compressed by zlib."""

    manifest: Manifest
    arrays: bytes

    @classmethod
    def of(cls, model: GlobalModel) -> StoredModel:
        """Store a model."""
        return cls(model.manifest, zlib.compress(model.scorer.encoded()))

    def model(self) -> GlobalModel:
        """Return the model.

        Raises:
            ModelError: its arrays are damaged.

        """
        version = self.manifest.model_version
        unpacker = zlib.decompressobj()
        try:
            arrays = unpacker.decompress(self.arrays, _MOST_ARRAYS)
        except zlib.error as error:
            raise ModelError(f"model {version} is damaged: {error}") from None
        if hashlib.sha256(arrays).hexdigest() != self.manifest.sha256:
            raise ModelError(f"model {version} is damaged: its arrays have another checksum")
        return GlobalModel.of(self.manifest, arrays)


NAMES = Codec[tuple[Roll, ...]](tuple[Roll, ...], sound=lambda rolls: len(rolls) > 1)
MODEL = Codec[StoredModel](StoredModel)


class Succession:
    """Names of the models of one state, and which of them is in force when.

    Args:
        overlay: of the state.
        version: of the model that it began with, where it does not say so itself.

    """

    def __init__(self, overlay: Overlay, version: str) -> None:
        self._overlay = overlay
        self._began = (Roll(0, version),)
        self._load()
        overlay.attach(self._load)

    @property
    def rolls(self) -> tuple[Roll, ...]:
        """All models in the order of their numbers, the one that the state began with first."""
        return self._rolls

    @property
    def versions(self) -> list[str]:
        """Of all models, by number."""
        return self._versions

    def number_at(self, time_ms: int) -> int:
        """Return the number of the model that scores applications of a time."""
        rolls = self._rolls
        for number in range(len(rolls) - 1, 0, -1):
            if rolls[number].from_ms <= time_ms:
                return number
        return 0

    def version_at(self, time_ms: int) -> str:
        """Return the version of the model that scores applications of a time."""
        return self._versions[self.number_at(time_ms)]

    def in_order_of_time(self) -> list[tuple[str, int]]:
        """Versions, and from when on each is in force; those left out that never will be."""
        found: list[tuple[str, int]] = []
        for roll in self._rolls:
            while found and found[-1][1] >= roll.from_ms:
                found.pop()
            found.append((roll.version, roll.from_ms))
        return found

    def until_ms(self, number: int) -> int | None:
        """Return from when on others have the place of a model; None: it is in force for good."""
        return min((roll.from_ms for roll in self._rolls[number + 1 :]), default=None)

    def add(self, roll: Roll) -> int:
        """Roll a model in; return its number."""
        self._take((*self._rolls, roll))
        self._overlay.put(NAMES_KEY, NAMES.encode(self._rolls))
        return len(self._rolls) - 1

    def _load(self) -> None:
        stored = self._overlay.get(NAMES_KEY)
        self._take(self._began if stored is None else NAMES.decode(stored))

    def _take(self, rolls: tuple[Roll, ...]) -> None:
        self._rolls = rolls
        self._versions = [roll.version for roll in rolls]


class Models:
    """The global models of one partition's jobs: all that an application in time may need.

    Args:
        overlay: of its state. succession: of the same.
        given: the model that the state begins with, or one that it has; None: there is none.
        policy: W, and what models may take.

    Attributes:
        first: the one that the state began with.
        let_go_ms: the watermark at which another one is not needed any more; None: none will be.

    """

    def __init__(
        self, overlay: Overlay, succession: Succession, given: GlobalModel | None, policy: Policy
    ) -> None:
        self._overlay = overlay
        self._succession = succession
        self._policy = policy
        self._loaded: dict[int, GlobalModel] = {}
        self.first = given if len(succession.rolls) == 1 else self._stored(0)
        if self.first is not None:
            self.first.check(policy)
        self._plan()
        overlay.attach(self._forget)

    def at(self, number: int) -> GlobalModel | None:
        """Return the model of a number; None: there is none at all.

        Raises:
            StateError: it was let go of.

        """
        if number == 0:
            return self.first
        found = self._loaded.get(number)
        if found is None:
            found = self._loaded[number] = self._stored(number)
        return found

    def roll(self, model: GlobalModel, from_ms: int, issued_ms: int = 0) -> None:
        """Let a model score the applications from a time on.

        Raises:
            ConfigError: it takes other features than the first, or what is not kept.

        """
        check_fits(model, self.first, self._policy)
        if len(self._succession.rolls) == 1 and self.first is not None:
            self._put(0, self.first)
        number = self._succession.add(Roll(from_ms, model.version, issued_ms))
        self._put(number, model)
        model.warm_up()
        self._loaded[number] = model
        self._plan()

    def let_go(self, watermark_ms: int) -> None:
        """Let go of the models that no application in time can need."""
        for number, over_ms in self._ends():
            if watermark_ms >= over_ms:
                self._overlay.put(_key(number), None)
                self._loaded.pop(number, None)
        self._plan()

    def _ends(self) -> list[tuple[int, int]]:
        """Numbers of models that others have followed, and when their last windows end.

        The first is kept: how long answers take is that of it.
        """
        found = []
        for number in range(1, len(self._succession.rolls)):
            until_ms = self._succession.until_ms(number)
            if until_ms is not None and self._overlay.get(_key(number)) is not None:
                found.append((number, until_ms + self._policy.labels.window_ms))
        return found

    def _plan(self) -> None:
        self.let_go_ms = min((over_ms for _, over_ms in self._ends()), default=None)

    def _forget(self) -> None:
        self._loaded.clear()
        self._plan()

    def _put(self, number: int, model: GlobalModel) -> None:
        self._overlay.put(_key(number), MODEL.encode(StoredModel.of(model)))

    def _stored(self, number: int) -> GlobalModel:
        value = self._overlay.get(_key(number))
        if value is None:
            version = self._succession.versions[number]
            raise StateError(f"the state has lost model {version}: replay history again")
        try:
            model = MODEL.decode(value).model()
        except ModelError as error:
            raise StateError(f"a stored value is damaged: {error}") from None
        model.warm_up()
        return model


def check_fits(model: GlobalModel, first: GlobalModel | None, policy: Policy) -> None:
    """Refuse a model that cannot follow another.

    Raises:
        ConfigError: there is no other, it has other features, or the model takes what is not kept.

    """
    if first is None:
        raise ConfigError("there is no global model that another could follow: pass one")
    for block in BLOCKS:
        if model.manifest.features[block] != first.manifest.features[block]:
            raise ConfigError(
                f"model {model.version} has other {block} features than {first.version}: only one"
                " of the same features can be rolled in; others take a cut-over"
            )
    if model.manifest.spec != first.manifest.spec:
        raise ConfigError(
            f"model {model.version} makes other features of attributes than {first.version}: train"
            " it with --spec-of the model that it follows"
        )
    model.check(policy)


def _key(number: int) -> bytes:
    return MODEL_KEYS + str(number).encode()
