"""SHELL: logs → a comparison of settings (``hearback backtest``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from stream.backtest.comparison import load_comparison
from stream.backtest.rehearsal import LeftOut
from stream.backtest.result import Backtest
from stream.backtest.runner import Runner, look_through
from stream.backtest.training import fitted_model, known_space
from stream.configuration.load import with_model
from stream.configuration.sections import Config
from stream.features.blocks import FeatureSpace
from stream.features.making import Maker
from stream.logs.files import ReadProgress, merge
from stream.model.folder import GlobalModel
from stream.model.kind import ModelKind
from stream.policy import Policy
from stream.progress import load_kernel, reading, steps
from stream.replay.process import seldom_collecting


class Compared(NamedTuple):
    """What was found, and what of the logs could not be used, or was ignored."""

    found: Backtest
    left_out: LeftOut


def compare(
    logs: Sequence[Path],
    settings: Config,
    comparison: Path | None,
    model: GlobalModel | None,
    *,
    kind: ModelKind = "linear",
    learn_spec: Callable[[int], Maker] | None = None,
    score_from_ms: int | None = None,
    max_jump_ms: int | None = None,
    retrain_ms: int | None = None,
    look: Callable[[Policy, FeatureSpace | None], None],
    processes: int = 1,
) -> Compared:
    """Compare settings over logs.

    Args:
        logs: the files.
        settings: the base policy, and where it is from.
        comparison: what is compared (TOML); None: what ``hearback backtest --example`` prints.
        model: the global model; None, where applications bring no score: one of ``kind`` is fitted
            on the first quarter of the log.
        kind: of that model.
        learn_spec: makes its features, of attributes up to a time (ms); None: they are sent.
        score_from_ms: judge applications from then on; None: from the end of the training.
        max_jump_ms: hold an event further ahead back until others confirm it; None: never.
        retrain_ms: compare the reference with itself where a new global model is trained so often.
        look: looks through the logs before anything is done with them, and may refuse.
        processes: how many may learn; more than two are not used.

    Raises:
        ConfigError: the comparison cannot be, or there is too little to judge by.
        ModelError: the log does not fit the model.
        WorkerDiedError: a process that learned settings ended.

    """
    base = with_model(settings, model).policy
    asked = load_comparison(comparison, base)
    known = None if learn_spec else known_space(logs, model)
    look(base, known)
    read = ReadProgress()
    with reading("looking through", read) as progress:
        span = look_through(merge(logs, read), progress, max_jump_ms)
    from_ms = span.quarter_ms() if model is None else model.manifest.trained_until_ms
    if known is None:
        maker = None if learn_spec is None else learn_spec(from_ms)
        model = fitted_model(logs, base, from_ms, max_jump_ms, kind, prior=True, maker=maker)
        known = model.space
        base = with_model(settings, model).policy
        asked = load_comparison(comparison, base)
    asked = asked.with_retrained(retrain_ms)
    asked.check(known)
    load_kernel(model)
    read = ReadProgress()
    with seldom_collecting():
        with reading("labelling", read) as progress:
            runner = Runner(
                read=lambda: merge(logs, read),
                progress=progress,
                names=[path.name for path in logs],
                span=span,
                comparison=asked,
                policy=base,
                model=model,
                score_from_ms=from_ms if score_from_ms is None else score_from_ms,
                max_jump_ms=max_jump_ms,
                simpler=comparison is None,
            )
        done = count()
        with steps("learning", len(runner.comparison.settings)) as show:
            found = runner.run(lambda name: show(next(done), name), processes)
    return Compared(found, runner.left_out)
