"""What a frozen global model is fitted on and judged by, gathered from wherever it comes.

Which applications it is fitted on, and what they count: :mod:`stream.model.rows`. What is judged is
judged by final labels, of a model fitted on what was known before.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError, ModelError
from stream.features.making import Maker
from stream.histories.preferences import Preferred
from stream.labels.delays import DelayCurve, curve_of
from stream.model.block_names import BlockNames
from stream.model.boosting import fit_boosted
from stream.model.coefficients import Linear
from stream.model.columns import HISTORY_COLUMNS, Columns, frequent, preference_columns
from stream.model.folder import (
    GlobalModel,
    HeldOut,
    Manifest,
    new_model,
    save_model,
)
from stream.model.held_out import Judgement, Unjudged, compare, hold_out
from stream.model.inputs import Dropped, helpful
from stream.model.kind import ModelKind
from stream.model.logistic import Chosen, fit_logistic
from stream.model.rows import NEVER, POSITIVES_PER_FEATURE, Outcomes, Rows
from stream.model.scorer import Floats32, Scorer
from stream.policy import Policy


class Row(msgspec.Struct):
    """What an application is scored by, and when its label became what it is.

    ``columns``: numbers of the block's names, in the order in which they were first seen; None: the
    values are in order.
    """

    columns: list[int] | None
    values: list[float] | NDArray[np.float32]
    answered_ms: int = NEVER
    settled_ms: int = NEVER
    history: bytes | None = None
    preferences: Preferred | None = None


class TrainingSet:
    """Applications with what they are scored by, and their outcomes; fits models on them.

    Whoever reads them (:class:`stream.model.training.Trainer`) puts rows in.

    Args:
        policy: the label policy.
        names: feature names per block where events carry lists, or what makes the features of
            attributes; None: from the events.
        kind: of model that is fitted.
        further: blocks that models may be fitted on beside the global features; rows have them.

    Attributes:
        chosen: how strong the regularisation is of the linear model that was fitted.
        refused: lines left out, by reason, as a replay counts its dead letters.
        ignored: events that changed no label, by reason, as a replay counts them.
        dropped: inputs that were left out, for they do not pay.
        end_ms: end of what may be known.

    Raises:
        ConfigError: names of other blocks than there are.

    """

    def __init__(
        self,
        policy: Policy,
        names: dict[str, list[str]] | Maker | None,
        kind: ModelKind = "linear",
        further: Sequence[str] = (),
    ) -> None:
        self.chosen: Chosen | None = None
        self.dropped: list[Dropped] = []
        self.end_ms = 0
        self._inputs: tuple[str, ...] | None = None  # not chosen yet
        self._kind = kind
        self._policy = policy
        self._further = further
        self._types: Counter[str] = Counter()
        self._maker = names if isinstance(names, Maker) else None
        names = names.names if isinstance(names, Maker) else names
        blocks = ("global", "per_member", "per_job")
        if names is not None and set(names) != set(blocks):
            raise ConfigError(f"the names file must have exactly the keys {', '.join(blocks)}")
        limit = policy.features.max_feature
        self._names = {
            block: BlockNames(block, None if names is None else names[block], limit)
            for block in blocks
        }
        self._rows: list[Row] = []
        self._times = array("q")
        self._jobs = array("q")  # numbered in the order of their first row
        self._numbers: dict[str, int] = {}
        self._from_ms: int | None = None
        self.refused: Counter[str] = Counter()
        self._refusals: dict[str, str] = {}  # the first message of each reason
        self.ignored: Counter[str] = Counter()

    def put(self, row: Row, job_id: str, time_ms: int) -> None:
        """Take an application in whose label will not change any more."""
        if row.preferences is not None:
            self._types.update(row.preferences.weights.keys())
        self._rows.append(row)
        self._times.append(time_ms)
        self._jobs.append(self._numbers.setdefault(job_id, len(self._numbers)))

    def hold_out(
        self,
        than: GlobalModel | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Judgement | Unjudged:
        """Judge a model fitted without the newest applications on these.

        Inputs beside the global features that do not pay there are left out from then on.

        Args:
            than: a model to compare it with, on those whose windows ended after it was trained.
            progress: is told what is being done.

        Raises:
            ModelError: that model has features that this log has not, or has seen all of them.

        """
        final, blocks = self.rows(self.end_ms, aged=False), self._blocks()
        names = [name for block in blocks.values() for name in block]
        window_ms = self._policy.labels.window_ms
        found: dict[tuple[str, ...], Judgement | Unjudged] = {}

        def judged(further: tuple[str, ...]) -> Judgement | Unjudged:
            columns = self._columns(("global", *further))

            def fit(known: Rows) -> Callable[[Floats32], NDArray[np.float64]]:
                scorer = self._fitted(known.only(columns), progress)
                return lambda X: scorer.score_all(X[:, columns])

            if further not in found:
                found[further] = hold_out(final, window_ms, names, self.rows, fit, than)
            return found[further]

        def losses(further: tuple[str, ...]) -> NDArray[np.float64]:
            judgement = judged(further)
            return judgement.losses if isinstance(judgement, Judgement) else np.empty(0)

        kept, self.dropped = helpful([*blocks][1:], losses)
        self._inputs = ("global", *kept)
        return judged(kept)

    def _refuse(self, reason: str, message: str) -> None:
        self.refused[reason] += 1
        self._refusals.setdefault(reason, message)

    def _advice(self, used: int) -> str:
        """Say why there is nothing to fit on: most often what was refused, else too short a log."""
        for reason, count in self.refused.most_common(1):
            if count > used:
                first = self._refusals.get(reason, "their time lies more than --max-jump ahead")
                return f"{count:,} lines were left out as {reason}, the first: {first}"
        return "take a longer log, a later --until or a shorter window"

    def compare(self, new: GlobalModel, old: GlobalModel) -> Judgement | Unjudged:
        """Judge two models on the applications read whose windows ended after both were trained.

        Raises:
            ModelError: one of them has features that this log has not.

        """
        names = [name for block in self._blocks().values() for name in block]
        window_ms = self._policy.labels.window_ms
        return compare(self.rows(self.end_ms, aged=False), window_ms, names, new, old)

    def fit(self, out: Path) -> Manifest:
        """Fit on what was read and write the model folder; errors as of :meth:`model`."""
        return save_model(out, self.model())

    def model(
        self,
        held_out: HeldOut | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> GlobalModel:
        """Fit on what was read.

        Which inputs stay is judged first, unless :meth:`hold_out` has done so.

        Args:
            held_out: what :meth:`hold_out` has found, for the manifest.
            progress: is told what is being done.

        Raises:
            ModelError: nothing to fit on, or one class only.

        """
        rows = self.rows(self.end_ms)
        count, positives = len(rows.y), int(rows.y.sum())
        if not rows.of_both_kinds:
            whose = "were known" if rows.aged else "have their whole window"
            raise ModelError(
                f"{count} applications {whose} before the end of training, {positives} of them"
                f" positive: both kinds are needed; {self._advice(count)}"
            )
        if self._inputs is None:
            self.hold_out(progress=progress)
        inputs = self._inputs or ("global",)
        scorer = self._fitted(rows.only(self._columns(inputs)), progress)
        blocks = self._blocks()
        return new_model(
            scorer,
            self.features() | {block: blocks[block] for block in inputs},
            trained_from_ms=self._from_ms or 0,
            trained_until_ms=self.end_ms,
            rows="aged" if rows.aged else "closed",
            applications=count,
            positives=positives,
            regularisation=None if self.chosen is None else self.chosen.C,
            held_out=held_out,
            delays=self.delays(),
            choice=None if self.chosen is None else self.chosen.choice,
            inputs=inputs,
            dropped=self.dropped,
            spec=None if self._maker is None else self._maker.fitted,
        )

    def scorer_at(self, at_ms: int) -> Scorer | None:
        """Fit on what was known at a time, on all columns; None: of one outcome only."""
        rows = self.rows(at_ms)
        return self._fitted(rows, lambda _: None) if rows.of_both_kinds else None

    def features(self) -> dict[str, list[str]]:
        """Return the feature names of each block, as given or as the log has them."""
        return {block: names.names() for block, names in self._names.items()}

    def _blocks(self) -> dict[str, list[str]]:
        """Return the columns of the rows by block, in their order; all but the first may go."""
        blocks = {"global": self._names["global"].names()}
        if "history" in self._further:
            blocks["history"] = HISTORY_COLUMNS
        if "preferences" in self._further and self._types:
            counts, types = self._kind == "boosted", frequent(self._types)
            blocks["preferences"] = preference_columns(types, counts=counts)
        return blocks

    def _columns(self, inputs: tuple[str, ...]) -> list[int]:
        """Return which columns those of some blocks are."""
        blocks = [block for block, names in self._blocks().items() for _ in names]
        return [at for at, block in enumerate(blocks) if block in inputs]

    def delays(self) -> DelayCurve | None:
        """Return how long answers take; None where there are too few to tell."""
        return self._outcomes().delays(self.end_ms)

    def newest(self, most: int) -> int:
        """Time of the first of the ``most`` newest applications whose windows have closed."""
        outcomes = self._outcomes()
        times_ms = np.sort(outcomes.times_ms[outcomes.closed(self.end_ms)])
        return int(times_ms[-most:].min(initial=self.end_ms))

    def rows(self, at_ms: int, *, aged: bool | None = None) -> Rows:
        """Return what a model is fitted on that is trained at a time.

        Args:
            at_ms: the time; :attr:`end_ms` at most.
            aged: aged rows or closed ones; None: aged ones for trees, and where the closed ones are
                too few for a linear model. With ``aging`` off there are closed ones only.

        """
        outcomes = self._outcomes()
        closed = outcomes.closed(at_ms)
        if aged is None:
            positives = int((outcomes.answered_ms[closed] != NEVER).sum())
            few = positives < POSITIVES_PER_FEATURE * len(self.features()["global"])
            aged = few or self._kind == "boosted"
        aged = aged and bool(self._policy.labels.aging)
        curve = curve_of(self._policy.labels, outcomes.delays(at_ms))
        y, weights = outcomes.known(at_ms, curve)
        used = np.flatnonzero(weights > 0.0 if aged else closed)
        return Rows(
            self._matrix([self._rows[at] for at in used]),
            y[used],
            weights[used],
            outcomes.times_ms[used],
            np.array(self._jobs, dtype=np.int64)[used],
            aged,
        )

    def _fitted(self, rows: Rows, progress: Callable[[str], None]) -> Scorer:
        if self._kind == "boosted":
            return fit_boosted(rows.X, rows.y, rows.weights)
        coefficients, self.chosen = fit_logistic(rows, progress)
        return Linear(coefficients)

    def _outcomes(self) -> Outcomes:
        return Outcomes(
            np.array(self._times, dtype=np.int64),
            np.array([row.answered_ms for row in self._rows], dtype=np.int64),
            np.array([row.settled_ms for row in self._rows], dtype=np.int64),
            self._policy.labels.window_ms,
        )

    def _matrix(self, rows: list[Row]) -> NDArray[np.float64]:
        """Rows → float64 (n, d), each number rounded to float32 as scoring will see it."""
        block = self._names["global"]
        names = block.names()
        X = np.zeros((len(rows), len(names)), dtype=np.float32)
        first_seen = {at: names.index(name) for name, at in block.index.items()}
        for at, row in enumerate(rows):
            if row.columns is None:
                X[at] = row.values
            else:
                X[at, [first_seen[column] for column in row.columns]] = row.values
        blocks = self._blocks()
        columns = Columns(blocks, [*blocks])
        if columns.further:
            packed = b"".join(columns.row(b"", row.history, row.preferences) for row in rows)
            own = np.frombuffer(packed, "<f4").reshape(len(rows), len(columns.names) - len(names))
            X = np.concatenate([X, own], axis=1)
        return X.astype(np.float64)
