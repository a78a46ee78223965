"""A look at a log for the Python API."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from stream import progress as shown
from stream.api import html
from stream.api.given import Duration, PolicyLike, Time, duration_ms, settings, time_ms
from stream.api.log import Log, Source, as_log
from stream.check.look import look
from stream.check.problem import Problem
from stream.check.said import Said
from stream.check.summary import counts
from stream.check.survey import Survey
from stream.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl


class Checked:
    """What a log holds, and what is wrong with it; :func:`check` makes one.

    Attributes:
        problems: each with a ``level`` (``error`` or ``warning``) and a ``text``, errors first.
        counts: what was counted, by title and name.

    """

    def __init__(self, survey: Survey, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        self.counts = {title: values for title, values in counts(survey) if values}
        self._said = survey.said or Said()

    @property
    def errors(self) -> list[str]:
        """What would make figures wrong that look right; other calls refuse such a log."""
        return [one.text for one in self.problems if one.level == "error"]

    @property
    def attributes(self) -> pl.DataFrame:
        """A row for each attribute: its kind, the share of applications that have it, its values.

        ``different`` counts these (of lists: items), ``exact`` says whether that is no estimate.

        Raises:
            ConfigError: Polars is not installed.

        """
        try:
            polars = import_module("polars")
        except ModuleNotFoundError:
            raise ConfigError("frames need Polars: pip install 'hearback-stream[frames]'") from None
        said = self._said
        rows = [
            (name, one.in_words(), one.filled / said.applications, one.values.count, one.exact)
            for name, one in sorted(said.found.items())
        ]
        columns = {"attribute": str, "kind": str, "there": float, "different": int, "exact": bool}
        frame: pl.DataFrame = polars.DataFrame(rows, schema=columns, orient="row")
        return frame

    def __repr__(self) -> str:
        """Say how many problems there are."""
        errors = len(self.errors)
        return f"Checked({errors} errors, {len(self.problems) - errors} warnings)"

    def _repr_html_(self) -> str:
        said = self._said
        rows = [
            (name, one.in_words(), f"{one.filled / said.applications:.1%}", one.different())
            for name, one in sorted(said.found.items())
        ]
        heads = ("attribute", "kind", "there", "different values")
        found = [html.facts(title, values) for title, values in self.counts.items()]
        found += [html.table(heads, rows)] if rows else []
        lines = [f"{one.level}: {one.text}" for one in self.problems] or ["no problems"]
        return "".join(found) + html.listing(lines)


def check(
    log: Log | Source,
    *,
    policy: PolicyLike | None = None,
    until: Time | None = None,
    max_jump: Duration | None = None,
    progress: bool = True,
) -> Checked:
    """Look through a log, as ``hearback check`` does: what it holds, and what is wrong with it.

    Nothing is raised for problems: they are in ``problems``.

    Args:
        log: of :func:`stream.read`, or a file or frame.
        policy: that the log will be learned with: a file, or a dictionary.
        until: look only at events up to this time.
        max_jump: as the calls that learn will have it.
        progress: show on stderr how far it is.

    Raises:
        LogError: a file cannot be read. ConfigError: a setting cannot be.

    """
    with shown.hidden(not progress):
        survey, problems = look(
            as_log(log).paths,
            settings(policy).policy,
            max_jump_ms=duration_ms(max_jump),
            until_ms=time_ms(until),
            attributes=True,
        )
    return Checked(survey, problems)
