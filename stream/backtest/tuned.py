"""SHELL: logs → what chooses the effects' settings (``hearback tune``), and the file it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from stream.backtest.rehearsal import LeftOut, record
from stream.backtest.training import fitted_model, known_space
from stream.backtest.tuning import Tuner, before, cross_fit
from stream.configuration.settings import to_toml
from stream.features.blocks import FeatureSpace
from stream.features.making import Maker
from stream.logs.files import ReadProgress, merge
from stream.model.kind import ModelKind
from stream.policy import Policy
from stream.progress import reading
from stream.replay.reader import first_look
from stream.units import format_time


def begun(
    logs: Sequence[Path],
    start: Policy,
    until_ms: int,
    *,
    kind: ModelKind = "linear",
    maker: Maker | None = None,
    max_jump_ms: int | None = None,
    look: Callable[[FeatureSpace | None], None],
) -> tuple[Tuner, LeftOut]:
    """Record logs up to a time, with cross-fitted global scores where applications bring none.

    Args:
        logs: the files. start: the policy to begin with; its labels stay.
        until_ms: end of what may be known.
        kind: of the global models that are fitted.
        maker: makes their features of attributes; None: they are sent.
        max_jump_ms: hold an event further ahead back until others confirm it; None: never.
        look: looks through the logs first, and may refuse; is told the features if they are known.

    Returns:
        What chooses, and what of the logs could not be used.

    Raises:
        ConfigError: there is too little to judge by. ModelError: the log fits no model.

    """
    known = None if maker else known_space(logs, None, until_ms)
    look(known)
    model = None if known else fitted_model(logs, start, until_ms, max_jump_ms, kind, maker=maker)
    read = ReadProgress()
    lines, space = first_look(before(merge(logs, read), until_ms), model)
    space.fitted(start)  # refused before it takes time
    with reading("labelling", read) as progress:
        rehearsal = record(lines, start, model, space, progress, max_jump_ms)
    if model is not None:
        cross_fit(rehearsal, start, until_ms, kind)
    return Tuner(rehearsal, start, until_ms), rehearsal.left_out


def policy_text(tuner: Tuner, until_ms: int) -> str:
    """Write the best policy so far as TOML, with a comment on where it is from."""
    best = tuner.best
    return (
        f"# Chosen by hearback tune on events up to {format_time(until_ms)}: prequential log loss"
        f" {best.quality.log_loss:.4f}\n# over {int(tuner.judged.sum())} applications,"
        f" {tuner.trials[0].quality.log_loss:.4f} at the start, {tuner.alone.log_loss:.4f} of the"
        f" global model alone.\n\n{to_toml(best.policy)}"
    )
