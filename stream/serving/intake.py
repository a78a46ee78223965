"""Questions as arrays: ids, blocks, times, and what is wrong with single candidates.

What is wrong with the question as a whole (columns of different lengths, say) is refused. What is
wrong with one candidate is noted, and its numbers are zeros until the answer leaves it out.

Shapes: n candidates; d features of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import EventError, InvalidFeaturesError, InvalidIdError, QuestionError
from stream.events.structs import MAX_ID_CHARS
from stream.features.blocks import Block, FeatureSpace, RawBlock, check_size
from stream.features.making import Blocks, Maker
from stream.histories.preferences import Terms
from stream.serving.messages import MOST_CANDIDATES, Candidate, Columns, ScoreQuestion
from stream.units import MAX_TIME_MS

Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]

_MOST_LATER = 2**31
_FAR = 2**62
"""Numbers beyond this are refused as this is; JSON has some that float64 has not."""

_COLUMNS = [(field.name, field.encode_name) for field in msgspec.structs.fields(Columns)]


class Batch(msgspec.Struct, gc=False):
    """Candidates as arrays.

    Attributes:
        size: n.
        member_ids, job_ids: of each candidate; or one, of all.
        global_: features of the global model (n, d), or (1, d) of all; None: nobody needs them.
        blocks: of the effects, by name, (n, d) or (1, d) float32.
        global_score: (n,), NaN where the model is to score; None: everywhere.
        times_ms: when the applications were submitted (n,), NaN where they are not; None: nowhere.
        later: later applicants who were answered (n,).
        errors: what is wrong with candidates, by place.
        terms, channels: of each candidate; or one, of all.

    """

    size: int
    member_ids: list[str]
    job_ids: list[str]
    global_: Floats32 | None
    blocks: dict[str, Floats32]
    global_score: Floats | None
    times_ms: Floats | None
    later: Floats
    errors: dict[int, EventError]
    terms: list[Terms | None]
    channels: list[str | None]


def take_in(question: ScoreQuestion, space: FeatureSpace, at_ms: int) -> Batch:
    """Read a question.

    Args:
        question: as decoded. space: the model's blocks, with the limit of their numbers.
        at_ms: when applications are made that have no time.

    Raises:
        QuestionError: it cannot be answered at all.

    """
    if (question.candidates is None) == (question.columns is None):
        raise QuestionError("give either candidates or columns")
    if question.columns is not None:
        if not question.member is question.job is question.context is None:
            raise QuestionError("attributes are of candidates: give those, or blocks as columns")
        return _columns(question, question.columns, space)
    return _candidates(question, question.candidates or [], space, at_ms)


def _columns(question: ScoreQuestion, columns: Columns, space: FeatureSpace) -> Batch:
    size = _size(columns, space)
    errors: dict[int, EventError] = {}
    member_ids = _ids("member_id", question.member_id, columns.member_id, errors)
    job_ids = _ids("job_id", question.job_id, columns.job_id, errors)
    global_, global_score = None, None
    if columns.global_score is not None:
        global_score = _numbers(columns.global_score)
        _refuse(global_score, np.isnan(global_score), "global_score is no number", errors)
        _check_scores(global_score, space.limit, errors)
    elif space.global_ is not None:
        global_ = _block(columns.global_, space.global_, size, errors)
    times_ms = None
    if columns.application_time_ms is not None:
        times_ms = _whole(columns.application_time_ms)
        _check_times(times_ms, errors)
    later = np.zeros(size) if columns.later is None else _whole(columns.later)
    _check_later(later, errors)
    blocks = {
        block.label: _block(getattr(columns, block.label), block, size, errors)
        for block in (space.per_member, space.per_job)
    }
    terms, channels = [question.terms], [question.channel]
    if columns.terms is not None:
        terms = [question.terms if each is None else each for each in columns.terms]
    if columns.channel is not None:
        channels = [question.channel if each is None else each for each in columns.channel]
    return Batch(
        *(size, member_ids, job_ids, global_, blocks, global_score, times_ms, later, errors),
        *(terms, channels),
    )


def _candidates(
    question: ScoreQuestion, candidates: list[Candidate], space: FeatureSpace, at_ms: int
) -> Batch:
    size = len(candidates)
    if size > MOST_CANDIDATES:
        raise QuestionError(f"{size} candidates, the most are {MOST_CANDIDATES}: ask twice")
    errors: dict[int, EventError] = {}
    given = {}
    for name in ("member_id", "job_id"):
        shared = getattr(question, name)
        own = [getattr(each, name) for each in candidates]
        one_each = shared is None or any(each is not None for each in own)
        column = [(shared or "") if each is None else each for each in own] if one_each else None
        given[name] = _ids(name, shared, column, errors)
    scores = np.full(size, np.nan)
    terms = [question.terms if each.terms is None else each.terms for each in candidates]
    packed: dict[str, list[bytes]] = {"global": [], "per_member": [], "per_job": []}
    blocks = [block for block in (space.global_, space.per_member, space.per_job) if block]
    for at, each in enumerate(candidates):
        if each.global_score is not None:
            scores[at] = each.global_score
            if np.isnan(scores[at]):  # which stands for none, from here on
                errors.setdefault(at, InvalidFeaturesError("global_score is no number"))
        made = _made(question, each, space.maker, at_ms)
        if made is not None:
            of_member, rows = made
            terms[at] = of_member | (terms[at] or {}) if of_member else terms[at]
            for block, row in zip(blocks, rows, strict=True):
                packed[block.label].append(row)
            continue
        for block in blocks:
            unneeded = block is space.global_ and each.global_score is not None
            sent = getattr(each.features, "global_" if block is space.global_ else block.label)
            row = bytes(4 * block.size) if unneeded else _row(sent or [], at, block, errors)
            packed[block.label].append(row)
    _check_scores(scores, space.limit, errors)
    times_ms = _whole([each.application_time_ms for each in candidates])
    _check_times(times_ms, errors)
    later = _whole([each.later for each in candidates])
    _check_later(later, errors)
    arrays = {
        block.label: np.frombuffer(b"".join(packed[block.label]), "<f4").reshape(size, block.size)
        for block in blocks
    }
    return Batch(
        size,
        given["member_id"],
        given["job_id"],
        arrays.pop("global", None),
        arrays,
        scores,
        None if np.isnan(times_ms).all() else times_ms,
        later,
        errors,
        terms,
        [question.channel if each.channel is None else each.channel for each in candidates],
    )


def _made(
    question: ScoreQuestion, candidate: Candidate, maker: Maker | None, at_ms: int
) -> tuple[Terms, Blocks] | None:
    """Make a candidate's terms and blocks of its attributes; None: they are those of its own."""
    if maker is None:
        return None
    sides = [
        one if one is not None else all_of_them
        for one, all_of_them in (
            (candidate.member, question.member),
            (candidate.job, question.job),
            (candidate.context, question.context),
        )
    ]
    if sides == [None, None, None]:
        return None
    member, job, context = (side or {} for side in sides)
    time_ms = candidate.application_time_ms
    if time_ms is None or not 0 <= time_ms <= MAX_TIME_MS:  # the latter is refused later on
        time_ms = at_ms
    return maker.terms(member), maker.blocks(member, job, context, time_ms)


def _size(columns: Columns, space: FeatureSpace) -> int:
    """How many candidates there are: as many as each column has entries."""
    blocks = {
        block.label: block
        for block in (space.global_, space.per_member, space.per_job)
        if block is not None
    }
    sizes: dict[str, int] = {}
    for attribute, name in _COLUMNS:
        column = getattr(columns, attribute)
        if isinstance(column, bytes):
            width = (
                8 if name == "global_score" else 4 * (blocks[name].size if name in blocks else 0)
            )
            if width == 0 or len(column) % width:
                raise QuestionError(
                    f"columns.{name} has {len(column)} bytes, not {width} for each candidate"
                )
            sizes[name] = len(column) // width
        elif column is not None:
            sizes[name] = len(column)
    shared = {name for name in blocks if sizes.get(name) == 1}
    each = {size for name, size in sizes.items() if name not in shared}
    if len(each) > 1 or not sizes:
        told = ", ".join(f"{name}: {size}" for name, size in sizes.items()) or "none is given"
        raise QuestionError(f"all columns must have the same number of entries ({told})")
    (size,) = each or {1}
    if size > MOST_CANDIDATES:
        raise QuestionError(f"{size} candidates, the most are {MOST_CANDIDATES}: ask twice")
    return size


def _ids(
    name: str, shared: str | None, column: list[str] | None, errors: dict[int, EventError]
) -> list[str]:
    if column is None:
        if not shared or len(shared) > MAX_ID_CHARS:
            raise QuestionError(
                f"give {name}, for all candidates or for each: 1 to {MAX_ID_CHARS} characters"
            )
        return [shared]
    _check_ids(name, column, errors)
    return column


def _check_ids(name: str, ids: Sequence[str], errors: dict[int, EventError]) -> None:
    lengths = list(map(len, ids))
    if lengths and not 0 < min(lengths) <= max(lengths) <= MAX_ID_CHARS:
        for at, length in enumerate(lengths):
            if not 0 < length <= MAX_ID_CHARS:
                errors.setdefault(
                    at, InvalidIdError(f"{name} has {length} characters, not 1 to {MAX_ID_CHARS}")
                )


def _block(
    rows: list[RawBlock] | bytes | None, block: Block, size: int, errors: dict[int, EventError]
) -> Floats32:
    """Rows of a block (n, d)."""
    if rows is None:
        if block.size:
            raise QuestionError(
                f"give columns.{block.label}: {block.size} numbers for each candidate"
            )
        return np.zeros((size, 0), np.float32)
    own: dict[int, EventError] = {}
    if isinstance(rows, bytes):
        packed, count = rows, len(rows) // (4 * block.size)
    else:
        whole, count = block.pack_rows(rows), len(rows)
        packed = whole or b"".join([_row(row, at, block, own) for at, row in enumerate(rows)])
    array = _within(np.frombuffer(packed, "<f4").reshape(count, block.size), block, own)
    if count != size and own:  # of the one row of all
        raise QuestionError(str(own[0]))
    for at, error in own.items():
        errors.setdefault(at, error)
    return array


def _row(row: RawBlock, at: int, block: Block, errors: dict[int, EventError]) -> bytes:
    """One row of a block; zeros where it cannot be."""
    try:
        return block.pack(row)
    except InvalidFeaturesError as error:
        errors.setdefault(at, error)
        return bytes(4 * block.size)


def _within(array: Floats32, block: Block, errors: dict[int, EventError]) -> Floats32:
    """Put zeros in the place of rows with numbers that are none, or too large."""
    limit = np.inf if block.limit is None else block.limit
    good = np.abs(array) <= limit  # not of NaN
    if good.all():
        return array
    wrong = np.flatnonzero(~good.all(axis=1)).tolist()
    for at in wrong:
        errors.setdefault(at, _wild(f"features.{block.label}", array[at].tolist(), limit))
    array = array.copy()
    array[wrong] = 0.0
    return array


def _wild(what: str, values: list[float], limit: float) -> EventError:
    """Say which number cannot be."""
    try:
        check_size(what, [value for value in values if value == value], limit)  # noqa: PLR0124
    except InvalidFeaturesError as error:
        return error
    return InvalidFeaturesError(f"{what} has a number that is none")


def _numbers(column: list[float] | bytes) -> Floats:
    if isinstance(column, bytes):
        return np.frombuffer(column, "<f8").copy()
    return np.array(column, np.float64)


def _whole(column: Sequence[int | None]) -> Floats:
    """Whole numbers of any size (n,), NaN for None."""
    given = [np.nan if each is None else each for each in column]
    try:
        return np.array(given, np.float64)
    except OverflowError:
        return np.array([max(min(each, _FAR), -_FAR) for each in given], np.float64)


def _check_scores(scores: Floats, limit: float | None, errors: dict[int, EventError]) -> None:
    size = np.abs(scores)
    wrong = size > (np.inf if limit is None else limit)
    for at in np.flatnonzero(wrong).tolist():
        errors.setdefault(at, _wild("global_score", [scores[at].item()], limit or np.inf))
    scores[wrong] = 0.0


def _check_times(times_ms: Floats, errors: dict[int, EventError]) -> None:
    _refuse(
        times_ms,
        (times_ms < 0) | (times_ms > MAX_TIME_MS),
        "application_time_ms is no time in milliseconds since 1970",
        errors,
    )


def _check_later(later: Floats, errors: dict[int, EventError]) -> None:
    wrong = (later < 0) | (later > _MOST_LATER)
    _refuse(later, wrong, "later is the number of later applicants, 0 or more", errors)


def _refuse(
    numbers: Floats, wrong: NDArray[np.bool_], why: str, errors: dict[int, EventError]
) -> None:
    for at in np.flatnonzero(wrong).tolist():
        errors.setdefault(at, EventError(why))
    numbers[wrong] = 0.0
