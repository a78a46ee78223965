"""SHELL: the prior precision of the effects over a new global model (``hearback train``).

One λ for all effects goes through a grid as ``hearback tune`` would take it
(:mod:`stream.backtest.tuning`): on the model's own span, with cross-fitted global scores, by
prequential log loss; another λ than usual is taken when it gains more than its standard error.
Which one suits depends on what the model knows already: what it explains, the effects need not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from stream.backtest.rehearsal import Rehearsal, record_labels
from stream.backtest.tuning import PRIOR, Tuner, before, cross_fit
from stream.errors import ConfigError
from stream.logs.files import LogLine
from stream.model.folder import GlobalModel, Manifest, with_prior
from stream.policy import PRIOR_PRECISION, Policy
from stream.replay.reader import first_look

MOST: Final = 100_000
"""Newest applications that the choice looks at, about so many: each takes 3 kB of memory."""


def with_chosen_prior(
    lines: Iterable[LogLine],
    model: GlobalModel,
    policy: Policy,
    progress: Callable[[int], None] = lambda _: None,
    max_jump_ms: int | None = None,
) -> tuple[GlobalModel, str]:
    """Choose λ; return the model with it, and what is to be said of the choice.

    Where there is too little to choose by, the model is returned as it is.

    Args:
        lines: of the log that the model was fitted on; events after that are not read.
        model: without a λ.
        policy: of the labels, and of all else of the effects.
        progress: is told how many lines were read.
        max_jump_ms: as of the training.

    """
    until_ms, from_ms = model.manifest.trained_until_ms, newest_from_ms(model.manifest)
    read_from_ms = None if model.takes_further else from_ms  # histories begin with the log
    rest, space = first_look(before(lines, until_ms, read_from_ms), model)
    rehearsal = record_labels(
        rest, policy, model, space, max_jump_ms, from_ms or 0, progress=progress
    )
    return choose_prior(rehearsal, model, policy)


def choose_prior(
    rehearsal: Rehearsal, model: GlobalModel, policy: Policy
) -> tuple[GlobalModel, str]:
    """Choose λ on what was recorded; as :func:`with_chosen_prior` on a log."""
    until_ms = model.manifest.trained_until_ms
    start = PRIOR.set(policy, PRIOR_PRECISION)
    try:
        cross_fit(rehearsal, start, until_ms, model.manifest.kind)
        tuner = Tuner(rehearsal, start, until_ms)
    except ConfigError as error:
        return model, f"prior precision of the effects: as usual, not chosen: {error}"
    for _ in tuner.prior():
        pass
    precision = PRIOR.row(tuner.best.policy).value
    return with_prior(model, precision), (
        f"prior precision of the effects: λ = {precision:g}, on {int(tuner.judged.sum()):,}"
        f" applications: log loss {tuner.best.quality.log_loss:.4f}"
        f" ({tuner.trials[0].quality.log_loss:.4f} with {PRIOR_PRECISION:g},"
        f" {tuner.alone.log_loss:.4f} of the global model alone)"
    )


def newest_from_ms(manifest: Manifest) -> int | None:
    """Return when about the newest :data:`MOST` applications began; None: there are no more."""
    if manifest.applications <= MOST:
        return None
    span_ms = manifest.trained_until_ms - manifest.trained_from_ms
    return manifest.trained_until_ms - int(span_ms * MOST / manifest.applications)
