"""``hearback check``, and the look that other commands take first."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.check.said import MOST, Said
from stream.events.applications import RawApplication
from tests.check.test_problems import ANSWERS, APPS, GOOD, Line, encoded, in_time, moved
from tests.cli.test_history import hearback


def test_check_shows_what_a_log_holds(tmp_path: Path) -> None:
    """Counts, ids, actions, times and scales; exit code 0, and 1 where there are errors."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(encoded(GOOD))
    done = hearback("check", log)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("application", "message (answered)", "within clock_skew", "features.per_member",
                 "from 2017-04-01T04:38:14Z to", "no problems"):  # fmt: skip
        assert part in done.stdout
    log.write_bytes(encoded(APPS))
    done = hearback("check", log)
    assert done.returncode == 1
    assert "error: there are 40 applications and no engagements" in done.stdout
    assert done.stderr == "hearback: 1 error in the log; each line above says what to do\n"


def test_check_lists_attributes(tmp_path: Path) -> None:
    """Each with its kinds, how many applications have it, and how many values there are."""
    log = tmp_path / "log.jsonl"
    apps: list[Line] = []
    for number, app in enumerate(APPS):
        member: Line = {"skills": ["sql", f"s{number % 7}"], "home": {"city": "Bonn"}}
        member["years"] = number if number % 4 else str(number)
        job = {"posted": f"2017-01-{1 + number % 20:02d}"} if number % 2 else {"posted": None}
        apps.append({**app, "member": member, "job": job})
    log.write_bytes(encoded(in_time([*apps, *ANSWERS])))
    done = hearback("check", log)
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    at = rows.index("attributes of 40 applications")
    assert rows[at + 1 : at + 6] == [
        "kind there different values",
        "job.posted date 50.0% 10",
        "member.home.city text 100.0% 1",
        "member.skills list 100.0% 8",
        "member.years number 75%, text 25% 100.0% 40",
    ]


def test_counting_values_takes_bounded_memory() -> None:
    """Of many values an estimate is told, within a tenth; names beyond a limit are counted."""
    said = Said()
    for number in range(30_000):
        context: Line = {"n": number, f"x{number % 300}": True}
        said.add(raw_application(f"a{number}", context))
    assert len(said.found) == MOST
    assert said.others == 30_000 * (301 - MOST) // 300
    one = said.found["context.n"]
    assert one.different().startswith("about ")
    assert abs(one.values.count / 30_000 - 1) < 0.1
    assert len(one.values._seen) <= 4096


def raw_application(name: str, context: Line) -> RawApplication:
    """Application with attributes of the occasion."""
    return RawApplication(
        application_id=name, member_id="m", job_id="j", event_time_ms=0, context=context
    )


@pytest.mark.parametrize("command", ["replay", "train", "tune", "backtest"])
def test_nothing_is_written_of_a_log_with_errors(command: str, tmp_path: Path) -> None:
    """The commands end with exit code 1 before they write anything."""
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    log.write_bytes(encoded(in_time(APPS + moved(ANSWERS, -10_000_000))))
    more = ["--until", "2017-06-01"] if command == "tune" else []
    done = hearback(command, log, "--out", out, *more)
    assert done.returncode == 1
    assert "error: log.jsonl:" in done.stderr
    assert "lie before their application" in done.stderr
    assert "--force goes on" in done.stderr.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize("command", ["replay", "tune", "backtest"])
def test_applications_that_are_not_like_the_first_are_an_error(
    command: str, tmp_path: Path
) -> None:
    """What would be left out in silence because the first application is unlike all others."""
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    odd = {**GOOD[0], "features": {"per_member": [1.0], "per_job": [1.0]}}
    log.write_bytes(encoded([odd, *GOOD[1:]]))
    more = ["--until", "2017-06-01"] if command == "tune" else []
    done = hearback(command, log, "--out", out, *more)
    assert done.returncode == 1
    assert "39 of 40 (98%) applications are refused" in " ".join(done.stderr.split())
    assert not out.exists()


def test_force_goes_on_and_the_summary_tells_what_was_ignored(tmp_path: Path) -> None:
    """A replay that is forced tells the errors and goes on; its summary counts what is ignored."""
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    log.write_bytes(encoded(in_time(APPS + moved(ANSWERS, -10_000_000))))
    done = hearback("replay", log, "--out", out, "--close", "--force")
    assert done.returncode == 0, done.stderr
    assert "error: " in done.stderr
    assert "outside_window" in done.stdout
    assert (out / "metrics.json").exists()


def test_clocks_that_differ_a_little_lose_no_answer(tmp_path: Path) -> None:
    """Engagements a millisecond before their application count, and nothing is said of it."""
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    log.write_bytes(encoded(in_time(APPS + moved(ANSWERS, -3_600_001))))
    done = hearback("replay", log, "--out", out, "--close")
    assert (done.returncode, done.stderr) == (0, "")
    labels = (out / "labels.jsonl").read_text().splitlines()
    assert sum('"kind":"positive"' in line for line in labels) == 20
