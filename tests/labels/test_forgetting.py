"""State that forgets: it stays as large as what is open, however long the market runs."""

from __future__ import annotations

from stream.policy import DAY_MS, HOUR_MS, LabelPolicy
from tests.kit import application, closing, engagement
from tests.labels.bench import Bench

A_DAY = 24  # applications
OPEN_JOBS = 4
JOB_LIFE_DAYS = 10


def live(bench: Bench, day: int) -> None:
    """Let one day pass: an application an hour, answers, declines, notes, orphans, closings."""
    for hour in range(A_DAY):
        number = day * A_DAY + hour
        now_ms = (day + 1) * DAY_MS + hour * HOUR_MS
        job = f"j{day // JOB_LIFE_DAYS}-{number % OPEN_JOBS}"
        bench.apply(application(f"a{number}", now_ms, job=job))
        before = number - 3 * OPEN_JOBS  # the same job's, half a day ago
        if before >= 0 and hour % 3 == 0:
            action = ("message", "reject", "note")[day % 3]
            bench.apply(engagement(f"e{number}", f"a{before}", now_ms, action, job=job))
        if hour == 0:
            bench.apply(engagement(f"o{number}", "nobody", now_ms, job=job))
        if hour == 23 and day % JOB_LIFE_DAYS == JOB_LIFE_DAYS - 1:
            for at in range(OPEN_JOBS):
                job = f"j{day // JOB_LIFE_DAYS}-{at}"
                bench.apply(closing(f"x{job}", now_ms, job=job))
        bench.move(now_ms - HOUR_MS)
    bench.overlay.flush()


def test_a_year_later_there_is_as_much_state_as_after_a_month() -> None:
    """A year at a constant rate ends with as many keys as there were after a month, within 10 %."""
    bench = Bench(LabelPolicy())
    sizes = []
    for day in range(365):
        live(bench, day)
        sizes.append(sum(1 for _ in bench.store.scan(b"", b"\xff")))
    assert sizes[30] > 28 * A_DAY  # facts or a marker of each, for two windows
    assert abs(sizes[-1] - sizes[30]) <= 0.1 * sizes[30]
    assert max(sizes) <= 1.1 * max(sizes[30:60])
    assert len(bench.last) > 300 * A_DAY
