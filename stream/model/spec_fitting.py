"""SHELL: reads a log into what a spec learns, before a model of its features is fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stream.errors import EventError, ModelError
from stream.events.applications import RawApplication
from stream.events.wire import decode_raw
from stream.features.fitting import SpecFitter
from stream.features.making import Maker
from stream.features.spec import Spec
from stream.logs.files import LogLine


def fit_spec(
    spec: Spec, lines: Iterable[LogLine], until_ms: int | None, progress: Callable[[int], None]
) -> Maker:
    """Learn vocabularies and scales of a log's applications; labels have no part in it.

    Args:
        spec: what becomes of attributes.
        lines: the log. until_ms: what comes after is not used; None: all of it is.
        progress: is called with the number of lines now and then.

    Raises:
        ModelError: no application carries attributes.
        ConfigError: a cross has too many columns.

    """
    fitter = SpecFitter(spec)
    count = found = 0
    for count, line in enumerate(lines, 1):
        if count % 2048 == 0:
            progress(count)
        try:
            raw = decode_raw(line.raw)
        except EventError:
            continue
        if not isinstance(raw, RawApplication):
            continue
        if raw.member is None and raw.job is None and raw.context is None:
            continue
        if until_ms is None or raw.event_time_ms <= until_ms:
            fitter.add(raw.member or {}, raw.job or {}, raw.context or {}, raw.event_time_ms)
            found += 1
    progress(count)
    if not found:
        raise ModelError(
            "no application has attributes that a spec could make features of: send them as member,"
            " job and context (docs/events.md)"
        )
    return Maker(fitter.fitted())
