"""The picture in ``docs/labels.md``: ``make docs`` draws it, a test keeps it equal."""

from __future__ import annotations

from pathlib import Path

from stream.labels.delays import curve_of
from stream.policy import LabelPolicy
from stream.report.charts import delays
from stream.report.page import picture

PICTURE = Path("docs/images/aging.svg")


def aging() -> str:
    """Draw the default curve and the default steps."""
    policy = LabelPolicy()
    return picture(delays(curve_of(policy, None), policy.aging))


if __name__ == "__main__":
    PICTURE.write_text(aging(), encoding="utf-8")
