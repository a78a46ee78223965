"""What a look at a log says: each kind of wrong log, and right ones."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from producers.simulate import simulate
from producers.truth import lively
from stream.check.problem import Problem
from stream.check.problems import problems
from stream.check.survey import Survey
from stream.configuration.load import load_config
from stream.logs.files import merge
from stream.policy import DAY_MS, HOUR_MS, LabelPolicy, Policy
from stream.replay.reader import first_look
from tests.kit import CONTEST, with_contest

START_MS = 1_491_021_494_000  # 2017-04-01
APPLICATIONS = 40

Line = dict[str, Any]


def application(number: int, **more: Any) -> Line:
    """Application ``number``, one a day."""
    return {
        "type": "application",
        "application_id": f"a{number}",
        "member_id": f"m{number % 3}",
        "job_id": f"j{number % 2}",
        "event_time_ms": START_MS + number * DAY_MS,
        "features": {"per_member": [1.0, number / 10], "per_job": [1.0]},
        "global_score": -1.0,
        **more,
    }


def engagement(number: int, **more: Any) -> Line:
    """An hour later, somebody writes to the applicant."""
    return {
        "type": "engagement",
        "engagement_id": f"e{number}",
        "application_id": f"a{number}",
        "member_id": f"m{number % 3}",
        "job_id": f"j{number % 2}",
        "event_time_ms": START_MS + number * DAY_MS + HOUR_MS,
        "action": "message",
        **more,
    }


APPS = [application(number) for number in range(APPLICATIONS)]
ANSWERS = [
    engagement(number, action="message" if number % 2 == 0 else "reject")
    for number in range(APPLICATIONS)
    if number % 4 != 3
]


def in_time(lines: Iterable[Line]) -> list[Line]:
    """Sort by time."""
    return sorted(lines, key=lambda line: line["event_time_ms"])


def moved(lines: Iterable[Line], by_ms: int) -> list[Line]:
    """The same, so much later."""
    return [{**line, "event_time_ms": line["event_time_ms"] + by_ms} for line in lines]


def divided(lines: Iterable[Line], by: float) -> list[Line]:
    """The same in another unit of time."""
    return [{**line, "event_time_ms": int(line["event_time_ms"] / by)} for line in lines]


def encoded(lines: Iterable[Line]) -> bytes:
    """Lines of JSON."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def look(
    folder: Path, *files: bytes, policy: Policy | None = None, whole: bool = True, **more: Any
) -> list[Problem]:
    """Write files and look through them."""
    paths = []
    for number, content in enumerate(files):
        paths.append(folder / f"log{number}.jsonl")
        paths[-1].write_bytes(content)
    survey = Survey(policy or Policy(), **more)
    survey.read(merge(paths), lambda _: None)
    return problems(survey, names=[path.name for path in paths], whole=whole)


def said(found: Iterable[Problem]) -> str:
    """What is said, a line each."""
    return "\n".join(f"{one.level}: {one.text}" for one in found)


GOOD = in_time(APPS + ANSWERS)


@pytest.mark.parametrize(
    "files",
    [
        [encoded(GOOD)],
        [encoded(APPS), encoded(ANSWERS)],
        [encoded(GOOD[:30]), encoded(GOOD[30:])],
        [encoded(in_time(APPS + moved(ANSWERS, -HOUR_MS - 5_000)))],
        [encoded(in_time(APPS + ANSWERS + ANSWERS[:3]))],
        [encoded(GOOD + moved(GOOD[-1:], 0))],
    ],
)
def test_a_right_log_has_no_problems(files: list[bytes], tmp_path: Path) -> None:
    """One file or several, repeats, and clocks that differ by up to the skew are no problem."""
    assert look(tmp_path, *files) == []


LONG = in_time([application(n) for n in range(400)] + [engagement(n) for n in range(0, 400, 3)])
SHUFFLED = GOOD.copy()
Random(3).shuffle(SHUFFLED)
ELSEWHERE = [{**line, "job_id": "k"} for line in ANSWERS]
NUMBERED = [{**line, "application_id": line["application_id"][1:]} for line in ANSWERS]
FAR = application(99, event_time_ms=4_070_908_800_000)

WRONG: dict[str, tuple[bytes, list[str]]] = {
    "seconds": (
        encoded(divided(GOOD, 1000)),
        ["log0.jsonl:1:", "40 of 40 (100%) application events seem to be seconds (1491021494)"],
    ),
    "engagements in seconds": (
        encoded(in_time(APPS + divided(ANSWERS, 1000))),
        ["30 of 30 (100%) engagement events seem to be seconds", "milliseconds"],
    ),
    "applications in seconds": (
        encoded(in_time(divided(APPS, 1000) + ANSWERS)),
        ["40 of 40 (100%) application events seem to be seconds"],
    ),
    "microseconds": (
        encoded(divided(GOOD, 1 / 1000)),
        ["none of 70 lines is an event", "application events seem to be microseconds"],
    ),
    "engagements in nanoseconds": (
        encoded(APPS + divided(ANSWERS, 1e-6)),
        ["30 of 30 (100%) engagement events seem to be nanoseconds"],
    ),
    "engagements before applications": (
        encoded(in_time(APPS + moved(ANSWERS, -HOUR_MS - 5_001))),
        ["30 of 30 (100%) engagements lie before their application", "clock_skew (5s)"],
    ),
    "engagements in local time": (
        encoded(in_time(APPS + moved(ANSWERS, -3 * HOUR_MS))),
        ["half of them by 2 hours or more", "local time"],
    ),
    "engagements after the window": (
        encoded(in_time(APPS + moved(ANSWERS, 20 * DAY_MS))),
        ["30 of 30 (100%) engagements come more than window (14d)", "20 days", "set window"],
    ),
    "applications first": (
        encoded(APPS + ANSWERS),
        ["one after the other", "sort by time, or pass each as a file of its own"],
    ),
    "engagements first": (
        encoded(ANSWERS + APPS),
        ["one after the other", "sort by time, or pass each as a file of its own"],
    ),
    "newest first": (encoded(GOOD[::-1]), ["the newest events come first: sort"]),
    "shuffled": (encoded(SHUFFLED), ["no order of time: sort by event_time_ms"]),
    "a far time": (
        encoded([*GOOD[:10], FAR, *GOOD[10:]]),
        ["log0.jsonl:11:", "2099-01-01", "60 later events come too late", "--max-jump 30d"],
    ),
    "a far time near the end": (
        encoded([*GOOD[:-1], FAR, GOOD[-1]]),
        ["log0.jsonl:70:", "14 of them by nothing else, and 1 later events", "--max-jump 30d"],
    ),
    "a far time last": (
        encoded([*GOOD, FAR]),
        ["log0.jsonl:71:", "2099-01-01T00:00:00Z, in the future", "14 of them by nothing else"],
    ),
    "a far clock last": (
        encoded([*GOOD, {"type": "clock", "event_time_ms": 4_070_908_800_000}]),
        ["log0.jsonl:71:", "14 of them by nothing else"],
    ),
    "a far time first": (encoded([FAR, *GOOD]), ["log0.jsonl:1:", "2099-01-01", "--max-jump 30d"]),
    "no log": (
        b"name,age\nann,30\nbob,31\n",
        ["none of 3 lines is an event", "'name,age'", "JSON object"],
    ),
    "other JSON": (
        b'{"user": 1}\n{"user": 2}\n',
        ["none of 2 lines is an event", "missing required field `type`"],
    ),
    "empty": (b"", ["log0.jsonl is empty"]),
    "blank": (b"\n\n", ["log0.jsonl is empty"]),
    "no engagements": (encoded(APPS), ["40 applications and no engagements", "pass the file"]),
    "no applications": (encoded(ANSWERS), ["no applications", "pass the file"]),
    "other ids": (
        encoded(in_time(APPS + NUMBERED)),
        ["30 of 30 (100%) engagements name an application that the log has not", "'0'", "'a0'"],
    ),
    "other jobs": (
        encoded(in_time(APPS + ELSEWHERE)),
        ["30 of 30 (100%) engagements name another job", "job 'k', the application job 'j0'"],
    ),
    "other members": (
        encoded(in_time(APPS + [{**line, "member_id": "recruiter"} for line in ANSWERS])),
        ["30 of 30 (100%) engagements name another member"],
    ),
    "unlisted actions": (
        encoded(in_time(APPS + [{**line, "action": "rate_high"} for line in ANSWERS])),
        ["30 of 30 engagements have actions that the policy does not list: rate_high", "--policy"],
    ),
    "none answered": (
        encoded(in_time(APPS + [{**line, "action": "reject"} for line in ANSWERS])),
        ["none of 40 applications is answered"],
    ),
    "all answered": (
        encoded(in_time(APPS + [engagement(number) for number in range(APPLICATIONS)])),
        ["all 40 applications are answered"],
    ),
    "one id for all": (
        encoded(in_time(APPS + [{**line, "engagement_id": "e"} for line in ANSWERS] + [
            {**line, "event_time_ms": line["event_time_ms"] + 1} for line in APPS
        ])),
        ["(conflict", "refused as conflict", "unique"],
    ),
    "one id for the engagements of a job": (
        encoded(in_time([*APPS * 4, *[{**line, "engagement_id": "e"} for line in ANSWERS]])),
        ["28 of 30 (93%) engagement events have the id of another one"],
    ),
    "a third of the clocks years ahead": (
        encoded([
            {**line, "event_time_ms": line["event_time_ms"] + (n % 3 == 0) * 3650 * DAY_MS}
            for n, line in enumerate(LONG)
        ]),
        ["3650 days at most", "some clocks are wrong: correct their times"],
    ),
    "huge features": (
        encoded(in_time([{**app, "features": {"per_member": [1e7], "per_job": [1]}} for app in APPS]
                        + ANSWERS)),
        ["beyond max_feature (1e+06), the first per_member[0] = 1e+07"],
    ),
    "huge scores": (
        encoded(in_time([{**app, "global_score": 1e7} for app in APPS] + ANSWERS)),
        ["40 of 40 (100%) applications have a global_score beyond max_feature", "1e+07"],
    ),
    "nothing to score": (
        encoded(in_time([{**app, "global_score": None} for app in APPS] + ANSWERS)),
        ["40 of 40 (100%) applications have neither features.global nor global_score"],
    ),
    "broken lines": (
        encoded(GOOD[:5]) + b'{"type": "application"\n' * 60,
        ["log0.jsonl:6:", "60 of 65 (92%) lines are refused as malformed"],
    ),
    "engagements without ids": (
        encoded(in_time([*APPS * 3, *[{**line, "engagement_id": None} for line in ANSWERS]])),
        ["30 of 30 (100%) engagement lines are refused as"],
    ),
    "engagements without a zone": (
        encoded(APPS * 3 + [{**line, "event_time_ms": "2017-04-02T01:00:00"} for line in ANSWERS]),
        ["30 of 30 (100%) engagement lines are refused as invalid_time"],
    ),
    "few engagements, all refused": (
        encoded([*APPS, *[{**line, "engagement_id": None} for line in ANSWERS[:10]]]),
        ["none of 40 applications is answered"],
    ),
    "applications refused for two reasons": (
        encoded(in_time([
            *[{**app, "job_id": None} for app in APPS[:15]], *ANSWERS, *APPS[30:],
        ]) + [{**app, "event_time_ms": "soon"} for app in APPS[15:30]]),
        ["15 of 40 (38%) application lines are refused as invalid_time", "15 of 40 (38%)"],
    ),
    "one microsecond among refused times": (
        encoded([*divided(ANSWERS[:1], 1 / 1000), *APPS]
                + [{**line, "event_time_ms": "then"} for line in ANSWERS[1:]]),
        ["29 of 30 (97%) engagement lines are refused as invalid_time"],
    ),
    "gzip that ends": (
        gzip.compress(encoded(GOOD), mtime=0)[:-40],
        ["the gzip stream is truncated", "what followed is missing"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_log_is_an_error_that_says_what_to_do(kind: str, tmp_path: Path) -> None:
    """Each kind of wrong log is an error in one line: where, an example, what to do."""
    content, wanted = WRONG[kind]
    found = look(tmp_path, content)
    errors = [one.text for one in found if one.level == "error"]
    assert errors, said(found)
    assert all("\n" not in one.text for one in found)
    for part in wanted:
        if part != "(conflict":
            assert any(part in text for text in errors), said(found)


def test_the_contents_of_a_file_among_several_count(tmp_path: Path) -> None:
    """A file of which no line is an event is an error beside good ones; an empty one a warning."""
    found = look(tmp_path, encoded(GOOD), b"nothing\n")
    assert "error: log1.jsonl: none of its 1 lines is an event" in said(found)
    assert said(look(tmp_path, encoded(GOOD), b"")) == "warning: log1.jsonl is empty"


def early(count: int, total: int) -> bytes:
    """So many of so many engagements lie a minute before their application."""
    answers = [engagement(number) for number in range(total)]
    wrong = moved(answers[:count], -HOUR_MS - 60_000)
    apps = [application(number) for number in range(2 * total)]
    return encoded(in_time([*apps, *wrong, *answers[count:]]))


@pytest.mark.parametrize(
    ("count", "total", "level"),
    [(0, 20, ""), (1, 20, "warning"), (10, 20, "warning"), (11, 20, "error"), (19, 19, "warning")],
)
def test_more_than_half_of_twenty_is_an_error(
    count: int, total: int, level: str, tmp_path: Path
) -> None:
    """A share is an error above one half where there are twenty to judge by; else a warning."""
    found = [one for one in look(tmp_path, early(count, total)) if "clock_skew" in one.text]
    assert [one.level for one in found] == ([level] if level else [])


@pytest.mark.parametrize(
    ("content", "level"),
    [
        (encoded(GOOD) + b"{\n", "warning"),
        (encoded([*GOOD, engagement(3, engagement_id="x", action="wink")]), "warning"),
        (encoded([*GOOD, {**GOOD[0], "event_time_ms": START_MS + 1}]), "warning"),
        (encoded(in_time(GOOD * 2)), "warning"),
        (encoded([*LONG[:-1], FAR, LONG[-1]]), "warning"),
        (encoded([*LONG, FAR]), "warning"),
        (encoded([*LONG, application(999)]), "warning"),
        (encoded(in_time([*GOOD, *moved(divided(ANSWERS[:1], 1000), 1)])), "warning"),
    ],
)
def test_a_little_is_a_warning(content: bytes, level: str, tmp_path: Path) -> None:
    """What is ignored of a log that is right for the most part is told and stops nothing."""
    found = look(tmp_path, content)
    assert found
    assert {one.level for one in found} == {level}, said(found)


def test_a_pause_is_no_far_time(tmp_path: Path) -> None:
    """Events after a pause of the log lie far ahead of none that follows."""
    assert look(tmp_path, encoded(GOOD[:60] + moved(GOOD[60:], 90 * DAY_MS))) == []


def test_a_clock_in_another_unit_is_told(tmp_path: Path) -> None:
    """A clock in microseconds is refused, and its unit is named."""
    clock = {"type": "clock", "event_time_ms": (START_MS + DAY_MS) * 1000}
    found = said(look(tmp_path, encoded([*GOOD[:5], clock, *GOOD[5:]])))
    assert (
        "warning: log0.jsonl:6: the times of 1 of 1 (100%) clock events seem to be micro" in found
    )


FORGETS = [
    {"type": "forget", "forget_id": f"f{n}", "member_id": f"x{n}", "event_time_ms": START_MS}
    for n in range(30)
]


@pytest.mark.parametrize("after", [FORGETS, moved(GOOD[50:55], 0)])
def test_what_follows_a_pause_may_lie_before_it(after: list[Line], tmp_path: Path) -> None:
    """Forgets have no place in time, and a few stragglers do not make a pause a wrong clock."""
    lines = encoded([*GOOD[:50], *moved(GOOD[55:], 300 * DAY_MS), *after])
    found = look(tmp_path, lines)
    assert {one.level for one in found} <= {"warning"}, said(found)
    assert "far ahead" not in said(found)


def test_a_far_time_in_one_of_several_files_is_an_error(tmp_path: Path) -> None:
    """It is read last then, and closes windows all the same."""
    found = look(tmp_path, encoded([*APPS[:20], FAR, *APPS[20:]]), encoded(ANSWERS))
    assert said(found).startswith("error: log0.jsonl:21: 1 event(s) far ahead"), said(found)


def test_events_that_move_no_time_are_not_far(tmp_path: Path) -> None:
    """An action that the policy does not list closes no window."""
    wink = engagement(3, engagement_id="x", action="wink", event_time_ms=4_070_908_800_000)
    assert "far ahead" not in said(look(tmp_path, encoded([*GOOD[:30], wink, *GOOD[30:]])))


def test_max_jump_that_leaves_out_a_whole_stretch_is_an_error(tmp_path: Path) -> None:
    """Also where nothing follows: the end of the log after a pause would be lost."""
    pause = encoded([*GOOD[:50], *moved(GOOD[50:], 300 * DAY_MS)])
    found = said(look(tmp_path, pause, max_jump_ms=30 * DAY_MS))
    assert "error: log0.jsonl:51: 20 event(s) far ahead" in found
    assert "are left out by --max-jump" in found


def test_max_jump_makes_a_far_time_a_warning(tmp_path: Path) -> None:
    """What the command is told to leave out is no error any more."""
    found = look(tmp_path, encoded([FAR, *GOOD]), max_jump_ms=30 * DAY_MS)
    assert [one.level for one in found] == ["warning"]
    assert (
        "1 event(s) far ahead of all others, the first at 2099-01-01T00:00:00Z, are left out by"
        in found[0].text
    )


@pytest.mark.parametrize(
    "first",
    [
        {"features": {"per_member": [1.0], "per_job": [1.0]}},
        {"features": {"per_member": {"x": 1.0}, "per_job": {"y": 1.0}}},
    ],
)
def test_a_first_application_unlike_all_others_is_an_error(
    first: dict[str, Any], tmp_path: Path
) -> None:
    """A replay without a model takes its blocks for all: most would be refused in silence."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(encoded([{**GOOD[0], **first}, *GOOD[1:]]))
    _, space = first_look(merge([path]), None)
    survey = Survey(Policy(), space=space)
    survey.read(merge([path]), lambda _: None)
    assert "39 of 40 (98%) applications are refused" in said(problems(survey))[:120]


def test_a_first_application_that_alone_has_a_score_is_an_error(tmp_path: Path) -> None:
    """Without a model, those that bring no score cannot be used, whatever the first one brings."""
    path = tmp_path / "log.jsonl"
    blocks = {"global": [1.0], "per_member": [1.0, 2.0], "per_job": [1.0]}
    rest = [
        {**line, "global_score": None, "features": blocks} if "features" in line else line
        for line in GOOD[1:]
    ]
    path.write_bytes(encoded([GOOD[0], *rest]))
    _, space = first_look(merge([path]), None)
    survey = Survey(Policy(), space=space)
    survey.read(merge([path]), lambda _: None)
    found = said(problems(survey))
    assert "error: log.jsonl:3: 39 of 40 (98%) applications are refused" in found
    assert "--model" in found


def test_one_application_in_1970_changes_nothing_for_orphans(tmp_path: Path) -> None:
    """Answers to what lies before the log are no error, also where one clock is years behind."""
    old = [engagement(n, engagement_id=f"o{n}", application_id=f"o{n}") for n in range(10)]
    lines = in_time([*APPS, *ANSWERS, *old])
    late = application(99, event_time_ms=1_000)
    assert look(tmp_path, encoded(lines)) == []
    found = said(look(tmp_path, encoded([lines[0], late, *lines[1:]])))
    assert "name an application" not in found


def test_what_is_played_may_lack_the_rest(tmp_path: Path) -> None:
    """Played into Kafka, a log without engagements, or of late ones only, is a warning."""
    for lines in (APPS, ANSWERS, in_time(APPS[:1] + ANSWERS)):
        found = look(tmp_path, encoded(lines), whole=False)
        assert {one.level for one in found} <= {"warning"}, said(found)
        assert found


def test_only_the_times_asked_for_count(tmp_path: Path) -> None:
    """Events after --until are not looked at."""
    content = encoded([*GOOD, FAR, *moved(SHUFFLED, 100 * DAY_MS)])
    assert look(tmp_path, content, until_ms=START_MS + 50 * DAY_MS) == []
    found = look(tmp_path, content, until_ms=1)
    assert "error: all" in said(found)


def test_the_policy_decides(tmp_path: Path) -> None:
    """Named actions, a longer window, another skew: what was an error is none any more."""
    actions = LabelPolicy(positive_actions=frozenset({"rate_high"}))
    lines = in_time(APPS + [{**line, "action": "rate_high"} for line in ANSWERS])
    assert look(tmp_path, encoded(lines), policy=Policy(labels=actions)) == []
    window = LabelPolicy(window_ms=30 * DAY_MS)
    late = encoded(in_time(APPS + moved(ANSWERS, 20 * DAY_MS)))
    assert look(tmp_path, late, policy=Policy(labels=window)) == []
    skew = LabelPolicy(clock_skew_ms=HOUR_MS)
    ahead = encoded(in_time(APPS + moved(ANSWERS, -2 * HOUR_MS)))
    assert look(tmp_path, ahead, policy=Policy(labels=skew)) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_simulated_log_has_no_problems(seed: int, tmp_path: Path) -> None:
    """With its repeats, corrections and events out of order there is nothing to tell."""
    lines = simulate(lively(seed=seed, members=60, jobs=80, days=40))
    assert look(tmp_path, b"\n".join(lines)) == []


def test_a_sample_of_ids_finds_the_same_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a log has too many ids to keep, a sample of them tells what all would."""
    from stream.check import joins, tallies

    monkeypatch.setattr(joins, "MOST_KEPT", 64)
    monkeypatch.setattr(tallies, "MOST_KEPT", 64)
    apps = [application(n, event_time_ms=START_MS + n * HOUR_MS) for n in range(2000)]
    answers = [
        engagement(n, event_time_ms=START_MS + n * HOUR_MS + 1000) for n in range(0, 2000, 2)
    ]
    assert look(tmp_path, encoded(in_time(apps + answers))) == []
    wrong = in_time(apps + moved(answers[:700], -10_000) + answers[700:])
    found = look(tmp_path, encoded(wrong))
    assert [one.level for one in found] == ["error"]
    assert "looked at: 1 of" in found[0].text
    share = int(found[0].text.split("(")[1].split("%")[0])
    assert 50 < share < 90  # 70 of 100


@with_contest
def test_the_contest_log_wants_its_policy() -> None:
    """With its policy it has no errors; without, the actions that are not listed are named."""
    policy = load_config(None, {}, CONTEST.parent / "policy.toml").policy
    for given, errors in ((policy, 0), (Policy(), 1)):
        survey = Survey(given)
        survey.read(merge([CONTEST]), lambda _: None)
        found = [one.text for one in problems(survey) if one.level == "error"]
        assert len(found) == errors
        assert all("rate_low, rate_high; name them with --policy" in text for text in found)
