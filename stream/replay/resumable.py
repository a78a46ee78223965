"""A replay into a folder, by one process or several, that can be interrupted and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from stream.errors import ConfigError
from stream.features.blocks import FeatureSpace
from stream.logs.files import LogLine
from stream.model.folder import NO_MODEL, GlobalModel
from stream.policy import Policy
from stream.replay.columns import TABLES, Format
from stream.replay.parallel import replay_parallel
from stream.replay.process import seldom_collecting
from stream.replay.run_folder import RunFolder, RunMetrics
from stream.replay.savepoint import Checkpoints, Options, RunSettings
from stream.replay.single import replay
from stream.replay.tables import check_parquet, to_parquet
from stream.stages.succession import check_fits


def replay_into(
    out: Path,
    logs: Sequence[Path],
    lines: Iterable[LogLine],
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    options: Options,
    *,
    resume: bool = False,
    form: Format = "json",
    progress: Callable[[int], None] = lambda _: None,
) -> RunMetrics:
    """Replay logs into a folder; what an interruption leaves there can be resumed.

    Args:
        out: the folder: new, or with ``resume`` that of an interrupted replay.
        logs: the files. lines: all their lines, in order of arrival.
        policy: label policy and effects.
        model: the frozen global model; None when every application brings its ``global_score``.
        space: the feature blocks, from :func:`stream.replay.first_look`.
        options: the rest.
        resume: go on from the last checkpoint.
        form: of labels, scores and coefficients in the end.
        progress: called with the number of lines read, now and then.

    Raises:
        ConfigError: the folder is not new, or there is nothing to resume, or it was another replay,
            or several processes cannot learn an effect, or its settings do not fit the features.
        StateError, WorkerDiedError: what was written until the last checkpoint can be resumed.

    """
    if form == "parquet":
        check_parquet()
    alone = options.workers == 1
    space.fitted(policy)  # refused before anything is written
    for rolled in options.rolls:
        check_fits(rolled.model, model, policy)
    for spec in policy.declared:
        if spec.score is None and not alone:  # each process would learn it apart
            raise ConfigError(f"{spec.name} is learned by one process: replay without --workers")
    settings = RunSettings(
        logs=[(path.name, path.stat().st_size) for path in logs],
        model=NO_MODEL if model is None else model.version,
        rolls=options.roll_names,
        policy=msgspec.json.encode(policy, order="sorted").decode(),
        score_from_ms=options.score_from_ms,
        close=options.close,
        max_jump_ms=options.max_jump_ms,
        workers=options.workers,
        sync_ms=None if alone else options.sync_ms,
        flush_every=options.flush_every,
        every_lines=options.checkpoint_every,
    )
    checkpoints = Checkpoints(out, settings)
    if resume:
        resumed = checkpoints.resume()
        folder = RunFolder(out, lengths=resumed.lengths if resumed else {}, own_state=alone)
    else:
        resumed = None
        folder = RunFolder(out, own_state=alone)
        checkpoints.begin()
    run = replay if alone else replay_parallel
    with seldom_collecting(), folder:
        metrics = run(
            *(lines, folder, policy, model, space, options),
            progress=progress,
            checkpoints=checkpoints,
            resumed=resumed,
        )
    if form == "parquet":
        to_parquet(out)
    checkpoints.remove()
    if form == "parquet":  # as long as there is a checkpoint, the lines are needed
        for name in TABLES:
            (out / f"{name}.jsonl").unlink()
    return metrics
