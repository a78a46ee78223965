"""The order of several files: a time that is years off moves its own line, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.logs import order
from stream.logs.files import LogLine, merge
from stream.policy import DAY_MS, HOUR_MS

START_MS = 1_491_021_494_000
FAR_MS = 4_070_908_800_000  # 2099


def event(time_ms: int, kind: str = "application", **more: Any) -> dict[str, Any]:
    """Make an event that is usable, unless ``more`` spoils it."""
    ids = {
        f"{name}_id": "x" for name in ("application", "member", "job", "engagement", "job_event")
    }
    features = {"per_member": [1], "per_job": [1]}
    fields = {"type": kind, "event_time_ms": time_ms, "action": "message", "features": features}
    return fields | ids | more


def merged(folder: Path, *files: list[dict[str, Any]]) -> list[int]:
    """Write files, read them as one log; give the times in order."""
    paths = []
    for number, events in enumerate(files):
        path = folder / str(number)
        path.write_text("\n".join(json.dumps(one) for one in events))
        paths.append(path)
    return [json.loads(line.raw)["event_time_ms"] for line in merge(paths)]


STRAY = {
    "an application": event(FAR_MS),
    "an engagement": event(FAR_MS, "engagement"),
    "a clock": event(FAR_MS, "clock"),
    "a forget": {"type": "forget", "member_id": "m", "event_time_ms": FAR_MS},
    "an unknown type": event(FAR_MS, "heartbeat"),
    "no features": event(FAR_MS, features=None),
    "an empty id": event(FAR_MS, job_id=""),
    "no action": event(FAR_MS, "engagement", action=None),
    "three weeks ahead": event(START_MS + 21 * DAY_MS),
    "an ISO time": event(FAR_MS) | {"event_time_ms": "2099-01-01T00:00:00Z"},
}


@pytest.mark.parametrize("name", STRAY)
@pytest.mark.parametrize("at", [0, 1, 20, 38, 39, 40])
@pytest.mark.parametrize("many", [1, 7])
def test_a_far_time_holds_nothing_back(tmp_path: Path, name: str, at: int, many: int) -> None:
    """Wherever lines of a far time stand in a file, all others come by their times."""
    one = [event(START_MS + n * HOUR_MS) for n in range(40)]
    two = [event(START_MS + n * HOUR_MS + 5, "engagement") for n in range(40)]
    usual = merged(tmp_path, one, two)
    stray = STRAY[name]
    found = merged(tmp_path, [*one[:at], *[stray] * many, *one[at:]], two)
    assert [time for time in found if time in usual] == usual
    assert len(found) == 80 + many


@pytest.mark.parametrize("at", [0, 20])
def test_a_usable_event_comes_at_its_own_time(tmp_path: Path, at: int) -> None:
    """A usable event that is far ahead of its file comes when the log is there, or at the end."""
    one = [event(START_MS + n * HOUR_MS) for n in range(40)]
    two = [event(START_MS + n * HOUR_MS + 5) for n in range(80)]
    for ahead_ms in (60 * HOUR_MS, FAR_MS - START_MS):
        stray = event(START_MS + ahead_ms + 1)
        found = merged(tmp_path, [*one[:at], stray, *one[at:]], two)
        assert found == sorted(found)


def test_lines_that_cannot_be_used_go_with_the_line_before(tmp_path: Path) -> None:
    """What is no usable event keeps its place behind the line before it."""
    bad = [event(FAR_MS, "heartbeat"), event(FAR_MS, job_id=""), event(7, "forget")]
    one = [event(START_MS), *bad, event(START_MS + 9)]
    two = [event(START_MS + 5)]
    assert merged(tmp_path, one, two) == [
        *(START_MS, FAR_MS, FAR_MS, 7),
        *(START_MS + 5, START_MS + 9),
    ]


def test_a_real_gap_stays_a_gap(tmp_path: Path) -> None:
    """A file that pauses for months goes on at its time, also after a few late events."""
    pause = 200 * DAY_MS
    one = [START_MS + n * HOUR_MS for n in range(50)]
    one += [START_MS + pause + n * HOUR_MS for n in range(50)]
    late = [*one[:53], one[48], *one[53:60], one[49], *one[60:]]
    two = [START_MS + n * DAY_MS + 5 for n in range(300)]
    events = [event(time) for time in late], [event(time) for time in two]
    found = merged(tmp_path, *events)
    assert sorted(found) == sorted(late + two)
    in_order = [time for time in found if time not in {one[48], one[49]}]
    assert in_order == sorted(in_order)
    assert max(found.index(one[48]), found.index(one[49])) < 60
    assert merged(tmp_path, [event(t) for t in one[:51]], [event(t) for t in two]) == sorted(
        one[:51] + two
    )


def test_a_sparse_file_is_in_order(tmp_path: Path) -> None:
    """Events weeks apart are no jumps: what follows lies further ahead."""
    one = [event(START_MS + n * 21 * DAY_MS, "job") for n in range(30)]
    two = [event(START_MS + n * DAY_MS + 5) for n in range(600)]
    found = merged(tmp_path, one, two)
    assert found == sorted(found)


def test_many_far_times_take_bounded_memory_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a number of waiting lines the file is read in its own order; nothing is lost."""
    monkeypatch.setattr(order, "_MOST_WAITING", 10)
    one = [event(START_MS + n * DAY_MS * 2) for n in range(300)][::-1]
    two = [event(START_MS + 5)]
    found = merged(tmp_path, one, two)
    times = [one["event_time_ms"] for one in (*one, *two)]
    assert sorted(found) == sorted(times)
    assert [time for time in found if time in times[10:300]] == times[10:300]


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from(["application", "forget", "x"])),
        max_size=250,
    )
)
def test_nothing_is_lost_or_doubled(days: list[tuple[int, str]]) -> None:
    """Whatever the times are, every line of a file comes once, and those near stay in order."""
    lines = [
        LogLine("log", number, json.dumps(event(day * DAY_MS, kind, member_id="m")).encode())
        for number, (day, kind) in enumerate(days, 1)
    ]
    found = list(order.ordered(iter(lines), 0))
    assert sorted(line.number for _, line in found) == [line.number for line in lines]
    if [day for day, _ in days] == sorted(day for day, _ in days):
        assert [line for _, line in found] == lines
        assert [place for (place, _, _), _ in found] == sorted(place for (place, _, _), _ in found)


def test_objects_of_one_line_wait_one_after_the_other(tmp_path: Path) -> None:
    """Events far ahead that have one time and one line number come in their order."""
    far = [b'{"type":"clock","event_time_ms":900000000000,"n":%d}' % n for n in range(3)]
    near = [b'{"type":"clock","event_time_ms":%d}' % (1000 + n) for n in range(5)]
    first, other = tmp_path / "a", tmp_path / "b"
    first.write_bytes(near[0] + b"\n" + b"".join(far) + b"\n" + b"\n".join(near[1:]))
    other.write_bytes(near[0])
    found = [line for line in merge([first, other]) if line.source == "a"]
    assert [line.raw for line in found] == near + far
    assert [line.number for line in found] == [1, 3, 4, 5, 6, 2, 2, 2]
