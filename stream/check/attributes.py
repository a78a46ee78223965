"""What attributes a log has, and how they lie to the answers; in bounded memory.

Of more than :data:`MOST_KEPT` applications a sample by id is kept, with its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.check.tallies import left_out
from stream.errors import EventError
from stream.events.applications import RawApplication
from stream.events.structs import Engagement
from stream.events.wire import decode_raw
from stream.features.spec import SIDES
from stream.features.values import as_items, as_number, as_text, as_time_ms, as_words
from stream.logs.files import LogLine
from stream.policy import DAY_MS, LabelPolicy

MOST_KEPT: Final = 1 << 15
"""Applications, and as many that were answered."""

_DEEPEST: Final = 4  # objects within objects
_BINS: Final = 32  # that numbers are sorted into, by rank
_PRIOR: Final = 5.0  # applications that the rate of a value begins with
Tokens = tuple[Hashable, ...]
"""What an attribute says of one application; nothing where it is missing."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """What is kept of an application; ``said``: its attributes as JSON."""

    member_id: str
    job_id: str
    time_ms: int
    said: bytes


class Attribute(msgspec.Struct):
    """One attribute of the sample.

    ``values``: of each application, in order, None where it is missing. ``entities``: how many
    members, or jobs, have it. ``distinct``: how many different values there are.
    """

    path: str
    values: list[Any]
    entities: int
    distinct: int

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Where it is there (n,)."""
        return np.array([value is not None for value in self.values], dtype=bool)


class Sample:
    """The applications that were kept.

    Attributes:
        times_ms: of the applications (n,).
        closed: whether the whole window lies in the log (n,). outcomes: whether a positive action
            came in time, of these (m,).
        total: applications with attributes in the log.

    """

    def __init__(self, policy: LabelPolicy) -> None:
        self._policy = policy
        self._apps: dict[tuple[str, str], _Kept] = {}
        self._answers: dict[tuple[str, str], list[int]] = {}
        self._mask = 0
        self.total = 0

    def read(self, lines: Iterable[LogLine], progress: Callable[[int], None]) -> None:
        """Take a whole log in; ``progress`` is told the number of lines now and then."""
        count = 0
        for count, line in enumerate(lines, 1):
            if count % 4096 == 0:
                progress(count)
            try:
                event = decode_raw(line.raw)
            except EventError:
                continue
            if isinstance(event, RawApplication):
                self._application(event)
            elif isinstance(event, Engagement) and event.action in self._policy.positive_actions:
                self._answer(event)
        progress(count)
        self._end()

    @property
    def share(self) -> int:
        """Of so many applications one was kept."""
        return self._mask + 1

    def attributes(self) -> Iterator[Attribute]:
        """Give each attribute in turn, by side and name."""
        apps = list(self._apps.values())
        for number, side in enumerate(SIDES):
            rows = [dict(flat(_decode(app.said)[number] or {})) for app in apps]
            owners = [(app.member_id, app.job_id, str(at))[number] for at, app in enumerate(apps)]
            for name in sorted({name for row in rows for name in row}):
                values = [row.get(name) for row in rows]
                having = {
                    one for one, value in zip(owners, values, strict=True) if value is not None
                }
                distinct = len({str(value) for value in values if value is not None})
                yield Attribute(f"{side}.{name}", values, len(having), distinct)

    def _application(self, app: RawApplication) -> None:
        if app.member is None and app.job is None and app.context is None:
            return
        self.total += 1
        if left_out(app.application_id, self._mask):
            return
        said = _encode((app.member, app.job, app.context))
        kept = _Kept(app.member_id, app.job_id, app.event_time_ms, said)
        self._apps.setdefault((app.job_id, app.application_id), kept)
        if len(self._apps) > MOST_KEPT:
            self._halve()

    def _answer(self, event: Engagement) -> None:
        if left_out(event.application_id, self._mask):
            return
        key = event.job_id, event.application_id
        self._answers.setdefault(key, []).append(event.event_time_ms)
        if len(self._answers) > MOST_KEPT:
            self._halve()

    def _halve(self) -> None:
        """Look at half of the ids only, of those before too."""
        mask = self._mask = 2 * self._mask + 1
        self._apps = {key: app for key, app in self._apps.items() if not left_out(key[1], mask)}
        self._answers = {key: at for key, at in self._answers.items() if not left_out(key[1], mask)}

    def _end(self) -> None:
        policy = self._policy
        self.times_ms = np.array([app.time_ms for app in self._apps.values()], dtype=np.int64)
        answered = np.array(
            [
                any(
                    -policy.clock_skew_ms <= at_ms - app.time_ms <= policy.window_ms
                    for at_ms in self._answers.get(key, ())
                )
                for key, app in self._apps.items()
            ],
            dtype=bool,
        )
        self._answers.clear()
        end_ms = self.times_ms.max(initial=0)
        self.closed = self.times_ms + policy.window_ms <= end_ms
        self.outcomes = answered[self.closed]


def flat(said: dict[str, Any], before: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Give all that stands in an object, and in those within it, under its whole name.

    But what no path can name: nothing, and names with dots in them.
    """
    for name, value in said.items():
        if isinstance(value, dict) and depth < _DEEPEST and name and "." not in name:
            yield from flat(value, f"{before}{name}.", depth + 1)
        elif value is not None and value != "" and name and "." not in name:
            yield before + name, value


def auc_alone(tokens: list[Tokens], y: NDArray[np.bool_]) -> float:
    """AUC of an attribute alone: of the rates at which others with the same values were answered.

    Args:
        tokens: of each application (n,), what its attribute says; none: it is missing.
        y: whether it was answered (n,).

    Returns:
        At least 0.5. The rates are those of the other half of the applications, so that values
        that only one application has tell nothing.

    """
    half = np.arange(len(y)) % 2 == 0
    scores = np.zeros(len(y))
    for part in (half, ~half):
        rate = float(y[~part].mean()) if (~part).any() else 0.0
        counts: dict[Hashable, list[float]] = {}
        for at in np.flatnonzero(~part):
            for token in tokens[at] or (None,):
                sums = counts.setdefault(token, [_PRIOR * rate, _PRIOR])
                sums[0] += y[at]
                sums[1] += 1.0
        rates = {token: answered / count for token, (answered, count) in counts.items()}
        for at in np.flatnonzero(part):
            found = [rates.get(token, rate) for token in tokens[at] or (None,)]
            scores[at] = sum(found) / len(found)
    auc = _auc(scores, y)
    return max(auc, 1.0 - auc)


def _auc(scores: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    """Share of pairs of an answered and another one that scores put in order; ties count half."""
    positives = int(y.sum())
    pairs = positives * (len(y) - positives)
    if not pairs:
        return 0.5
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    return float((ranks[y].sum() - positives * (positives + 1) / 2.0) / pairs)


def tokens_of(kind: str, values: list[Any], times_ms: NDArray[np.int64]) -> list[Tokens]:
    """What an attribute says in values that come again: texts, words, or numbers by rank."""
    if kind in {"number", "date"}:
        numbers = numbers_of(kind, values, times_ms)
        there = ~np.isnan(numbers)
        edges = np.unique(np.quantile(numbers[there], np.linspace(0.0, 1.0, _BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, numbers, side="right").tolist()
        return [(one,) if is_there else () for one, is_there in zip(bins, there, strict=True)]
    read = {"terms": as_items, "text": as_words}.get(kind, _as_one)
    return [tuple(dict.fromkeys(read(value))) for value in values]


def numbers_of(kind: str, values: list[Any], times_ms: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers, or ages of dates in days (n,); NaN where there is none."""
    if kind == "number":
        found = [as_number(value) for value in values]
        return np.array([np.nan if one is None else float(one) for one in found])
    dates = [as_time_ms(value) for value in values]
    days = [
        np.nan if date_ms is None else (at_ms - date_ms) / DAY_MS
        for date_ms, at_ms in zip(dates, times_ms.tolist(), strict=True)
    ]
    return np.array(days)


def _as_one(value: Any) -> list[str]:
    text = as_text(value)
    return [] if text is None else [text]
