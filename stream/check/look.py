"""SHELL: one look through logs, before anything is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stream.check.problem import Problem
from stream.check.problems import problems
from stream.check.survey import Survey
from stream.features.blocks import FeatureSpace
from stream.logs.files import ReadProgress, merge
from stream.policy import Policy
from stream.progress import reading


def look(
    logs: Sequence[Path],
    policy: Policy,
    *,
    max_jump_ms: int | None = None,
    from_ms: int | None = None,
    until_ms: int | None = None,
    whole: bool = True,
    space: FeatureSpace | None = None,
    attributes: bool = False,
) -> tuple[Survey, list[Problem]]:
    """Look through logs.

    Args:
        logs: the files. policy: as they will be learned with.
        max_jump_ms, from_ms, until_ms: what is left out.
        whole: whether they are all that is learned from.
        space: the feature blocks that applications must have, where they are known.
        attributes: whether to count these.

    Returns:
        What the logs hold, and what is wrong with it, errors first.

    """
    read = ReadProgress()
    survey = Survey(
        policy,
        max_jump_ms=max_jump_ms,
        from_ms=from_ms,
        until_ms=until_ms,
        space=space,
        attributes=attributes,
    )
    with reading("checking", read) as progress:
        survey.read(merge(logs, read), progress)
    return survey, problems(survey, names=[path.name for path in logs], whole=whole)
