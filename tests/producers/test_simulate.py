"""The simulated marketplace: reproducible, true to its truth, and shaped like a real one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from producers.drift import Preferences, truth_over_time
from producers.simulate import (
    ACTIONS,
    START_MS,
    SimulationSettings,
    Truth,
    draw_truth,
    job_id,
    lively,
    member_id,
    simulate,
)
from stream.errors import ConfigError
from stream.policy import LabelPolicy

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SMALL = SimulationSettings(members=100, jobs=60, days=6, applications_per_member=5)
POLICY = LabelPolicy()


class Log:
    """A simulated log, looked up in every way that the tests need."""

    def __init__(self, settings: SimulationSettings) -> None:
        self.lines = list(simulate(settings))
        self.events: list[dict[str, Any]] = [json.loads(line) for line in self.lines]
        self.applications: dict[str, dict[str, Any]] = {}
        self.engagements: dict[str, dict[str, Any]] = {}
        self.closings: dict[str, dict[str, Any]] = {}
        for event in self.events:
            if event["type"] == "application":
                self.applications[event["application_id"]] = event
            elif event["type"] == "engagement":
                self.engagements[event["engagement_id"]] = event
            else:
                self.closings[event["job_id"]] = event

    def age_ms(self, engagement: dict[str, Any]) -> int:
        """Tell how long after its application an engagement came."""
        applied: int = self.applications[engagement["application_id"]]["event_time_ms"]
        time_ms: int = engagement["event_time_ms"]
        return time_ms - applied

    def first(self, actions: frozenset[str]) -> dict[str, int]:
        """Tell the age of the first of these actions, by application."""
        found: dict[str, int] = {}
        for engagement in self.engagements.values():
            if engagement["action"] in actions:
                application = engagement["application_id"]
                age = self.age_ms(engagement)
                found[application] = min(age, found.get(application, age))
        return found


@pytest.fixture(scope="module")
def settings() -> SimulationSettings:
    """Describe a marketplace of some twenty thousand events."""
    return SimulationSettings(members=600, jobs=150, days=20)


@pytest.fixture(scope="module")
def log(settings: SimulationSettings) -> Log:
    """Simulate it once."""
    return Log(settings)


@pytest.fixture(scope="module")
def truth(settings: SimulationSettings) -> Truth:
    """Draw its truth."""
    return draw_truth(settings)


def digest(settings: SimulationSettings) -> str:
    """Hash a whole log."""
    return hashlib.sha256(b"\n".join(simulate(settings))).hexdigest()


def test_the_same_seed_gives_the_same_bytes() -> None:
    """The same settings give the same log and truth; another seed gives others."""
    other = msgspec.structs.replace(SMALL, seed=2)
    assert digest(SMALL) == digest(SMALL) != digest(other)
    assert draw_truth(SMALL).to_json() == draw_truth(SMALL).to_json() != draw_truth(other).to_json()


def test_ids_and_fields_are_those_of_the_contract(log: Log) -> None:
    """Events have the fields of the wire formats, known actions, and readable ids."""
    application = log.applications["a0000000"]
    assert (
        {"type", "application_id", "member_id", "job_id", "event_time_ms", "features"}
        <= set(application)
        <= {*application, "channel", "terms"}
    )
    assert list(application["features"]) == ["global", "per_member", "per_job"]
    assert {"e0000000", "e0000001"} <= set(log.engagements)
    actions = {engagement["action"] for engagement in log.engagements.values()}
    assert actions == set(ACTIONS)
    assert actions == POLICY.positive_actions | POLICY.negative_actions | POLICY.neutral_actions
    assert {closing["action"] for closing in log.closings.values()} == {"closed"}
    assert log.closings
    assert all(closing["job_event_id"][0] == "x" for closing in log.closings.values())


def test_engagements_belong_to_their_applications(log: Log) -> None:
    """Every engagement names its application's member and job, and comes after it."""
    for engagement in log.engagements.values():
        application = log.applications[engagement["application_id"]]
        assert engagement["member_id"] == application["member_id"]
        assert engagement["job_id"] == application["job_id"]
        assert log.age_ms(engagement) > 0


def test_every_block_begins_with_a_constant(log: Log, settings: SimulationSettings) -> None:
    """Blocks are lists of the sizes asked for, and the first number is 1."""
    sizes = {
        "global": settings.d_global,
        "per_member": settings.d_member,
        "per_job": settings.d_job,
    }
    for application in log.applications.values():
        assert {name: len(block) for name, block in application["features"].items()} == sizes
        assert all(block[0] == 1.0 for block in application["features"].values())


def test_members_apply_to_a_job_once_while_it_is_open(
    log: Log, settings: SimulationSettings
) -> None:
    """No member applies twice to a job, nobody after its closing or after the last day."""
    pairs = Counter((a["member_id"], a["job_id"]) for a in log.applications.values())
    assert max(pairs.values()) == 1
    for application in log.applications.values():
        closing = log.closings.get(application["job_id"])
        assert closing is None or application["event_time_ms"] < closing["event_time_ms"]
        assert 0 <= application["event_time_ms"] - START_MS < settings.days * DAY_MS


def test_members_and_jobs_have_as_much_to_do_as_asked(
    log: Log, settings: SimulationSettings
) -> None:
    """Members apply about as often as asked, in bursts; hardly any job stays alone."""
    expected = settings.members * settings.applications_per_member
    assert len(log.applications) == pytest.approx(expected, rel=0.1)
    by_member = Counter(a["member_id"] for a in log.applications.values())
    days = Counter(
        (a["member_id"], (a["event_time_ms"] - START_MS) // DAY_MS)
        for a in log.applications.values()
    )
    assert len(by_member) > 0.85 * settings.members
    assert np.mean(list(days.values())) > 2.5
    by_job = Counter(a["job_id"] for a in log.applications.values())
    assert np.median(list(by_job.values())) > 30


def test_first_answers_take_from_hours_to_two_weeks(log: Log) -> None:
    """About a third of the first answers come within a day, all of them within the window."""
    ages = np.array(list(log.first(POLICY.positive_actions | POLICY.negative_actions).values()))
    assert 0.25 < np.mean(ages < DAY_MS) < 0.42
    assert np.mean(ages > 7 * DAY_MS) > 0.1
    assert ages.max() <= 14 * DAY_MS


def test_recruiters_answer_many_applicants_in_one_sitting(log: Log) -> None:
    """Most answers of a busy job share their hour with another answer of that job."""
    hours = Counter((e["job_id"], e["event_time_ms"] // HOUR_MS) for e in log.engagements.values())
    shared = sum(count for count in hours.values() if count > 1)
    assert shared > 0.5 * len(log.engagements)


def test_some_declines_are_taken_back_in_time(log: Log) -> None:
    """Some are declined first and answered later, within the window; most declines stand."""
    positive = log.first(POLICY.positive_actions)
    negative = log.first(POLICY.negative_actions)
    corrected = [key for key in negative if key in positive]
    assert 0.04 < len(corrected) / len(positive) < 0.14
    assert all(negative[key] < positive[key] <= POLICY.window_ms for key in corrected)
    assert len(negative) > 3 * len(corrected)


def test_events_arrive_late_but_never_too_late(log: Log, settings: SimulationSettings) -> None:
    """Some events arrive out of order, none (at first) behind the allowed lateness."""
    latest, behind, seen = 0, 0, set()
    for line, event in zip(log.lines, log.events, strict=True):
        time_ms = event["event_time_ms"]
        if line not in seen:
            assert time_ms > latest - POLICY.allowed_lateness_ms
            behind += time_ms < latest
        seen.add(line)
        latest = max(latest, time_ms)
    assert 0.03 < behind / len(log.lines) < 2 * settings.out_of_order_share


def test_repeats_are_identical_and_later(log: Log, settings: SimulationSettings) -> None:
    """Some events come twice, word for word; no id ever has two contents."""
    different = len(set(log.lines))
    assert different == len(log.applications) + len(log.engagements) + len(log.closings)
    repeats = len(log.lines) - different
    assert repeats == pytest.approx(settings.repeat_share * different, rel=0.4)


def test_outcomes_follow_the_truth(log: Log, truth: Truth, settings: SimulationSettings) -> None:
    """Recomputed from the features sent and the truth written, the chances are calibrated."""
    applications = list(log.applications.values())
    document = json.loads(truth.to_json())

    def score(application: dict[str, Any]) -> tuple[float, float]:
        features = application["features"]
        fixed = float(np.dot(features["global"], document["global"]))
        member = np.dot(features["per_member"], document["per_member"][application["member_id"]])
        job = np.dot(features["per_job"], document["per_job"][application["job_id"]])
        return fixed, fixed + float(member + job)

    fixed, full = np.array([score(application) for application in applications]).T
    positive = log.first(POLICY.positive_actions)
    answered = np.array([float(a["application_id"] in positive) for a in applications])
    chance = 1 / (1 + np.exp(-full))
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.8), (0.8, 1.0)):
        within = (chance >= low) & (chance < high)
        spread = np.sqrt(np.sum(chance[within] * (1 - chance[within])))
        assert abs(np.sum(answered[within] - chance[within])) < 4 * spread
    assert 0.6 < roc_auc_score(answered, fixed) < 0.7
    assert roc_auc_score(answered, full) > 0.8
    assert np.mean(answered) == pytest.approx(settings.answer_rate, abs=0.06)


@pytest.fixture(scope="module")
def market() -> SimulationSettings:
    """Describe a lively marketplace whose preferences change within its time."""
    return lively(members=700, jobs=200, days=50, drift_member_ms=10 * DAY_MS, seed=7)


@pytest.fixture(scope="module")
def lively_log(market: SimulationSettings) -> Log:
    """Simulate it once."""
    return Log(market)


def test_members_search_for_weeks_and_jobs_live_for_days(
    lively_log: Log, market: SimulationSettings
) -> None:
    """In the lively market hardly any member applies all the time, and no job is open for long."""
    times: dict[str, dict[str, list[int]]] = {"member_id": {}, "job_id": {}}
    for application in lively_log.applications.values():
        for key, seen in times.items():
            seen.setdefault(application[key], []).append(application["event_time_ms"])
    spans = {
        key: np.array([max(when) - min(when) for when in seen.values() if len(when) > 5]) / DAY_MS
        for key, seen in times.items()
    }
    assert 10 < np.median(spans["member_id"]) < 35
    assert 6 < np.median(spans["job_id"]) < 14
    days = Counter(
        (a["event_time_ms"] - START_MS) // DAY_MS for a in lively_log.applications.values()
    )
    weeks = [sum(days[day] for day in range(week * 7, week * 7 + 7)) for week in range(7)]
    assert min(weeks) > 0.8 * max(weeks)


def test_recruiters_have_habits(lively_log: Log) -> None:
    """Recruiters rest on Sundays and at night, differ in how they decline, and take days.

    About 30 % of the first answers come within a day, as published.
    """
    first = lively_log.first(POLICY.positive_actions | POLICY.negative_actions)
    ages = np.array(list(first.values()))
    assert 0.25 < np.mean(ages < DAY_MS) < 0.36
    assert ages.max() <= 14 * DAY_MS
    when = [
        (lively_log.applications[application]["event_time_ms"] + age) // HOUR_MS
        for application, age in first.items()
    ]
    at_night = np.mean([hour % 24 < 7 or hour % 24 > 19 for hour in when])
    on_sundays = np.mean([(hour // 24 + 3) % 7 == 6 for hour in when])
    assert at_night < 0.05
    assert on_sundays < 0.05
    declined = lively_log.first(POLICY.negative_actions)
    by_job: dict[str, list[bool]] = {}
    for application in lively_log.applications.values():
        by_job.setdefault(application["job_id"], []).append(
            application["application_id"] in declined
        )
    shares = np.array([np.mean(some) for some in by_job.values() if len(some) > 20])
    assert np.std(shares) > 0.12


def test_outcomes_follow_the_truth_of_their_day(
    lively_log: Log, market: SimulationSettings
) -> None:
    """Chances recomputed with each day's truth are calibrated; with the first day's, they err."""
    preferences = Preferences(market)
    start = preferences.today
    positive = lively_log.first(POLICY.positive_actions)
    by_day: dict[int, list[dict[str, Any]]] = {}
    for application in lively_log.applications.values():
        day = (application["event_time_ms"] - START_MS) // DAY_MS
        by_day.setdefault(day, []).append(application)
    chances: list[float] = []
    stale: list[float] = []
    answered: list[float] = []
    for day, applications in sorted(by_day.items()):
        for truth, scores in ((preferences.go_to(day), chances), (start, stale)):
            for application in applications:
                features = application["features"]
                member, job = int(application["member_id"][1:]), int(application["job_id"][1:])
                score = np.dot(features["global"], truth.beta)
                score += np.dot(features["per_member"], truth.per_member[member])
                scores.append(score + np.dot(features["per_job"], truth.per_job[job]))
        answered += [float(a["application_id"] in positive) for a in applications]
    chance, y = 1 / (1 + np.exp(-np.array(chances))), np.array(answered)
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.8), (0.8, 1.0)):
        within = (chance >= low) & (chance < high)
        spread = np.sqrt(np.sum(chance[within] * (1 - chance[within])))
        assert abs(np.sum(y[within] - chance[within])) < 4 * spread
    assert roc_auc_score(y, chances) > roc_auc_score(y, stale) + 0.05


def test_preferences_drift_with_their_half_life() -> None:
    """After a half-life coefficients correlate by ½ with what they were, and spread as ever."""
    settings = lively(
        members=3000, jobs=3000, days=90, drift_member_ms=60 * DAY_MS, drift_job_ms=None
    )
    start = draw_truth(settings)
    later = Preferences(settings).go_to(60)
    assert np.corrcoef(start.per_member.ravel(), later.per_member.ravel())[0, 1] == pytest.approx(
        0.5, abs=0.03
    )
    assert np.std(later.per_member) == pytest.approx(np.std(start.per_member), rel=0.05)
    assert np.array_equal(start.per_job, later.per_job)


def test_the_truth_over_time_is_written(market: SimulationSettings) -> None:
    """The truth file of a market that drifts has that of every week, and of the last day."""
    document = json.loads(truth_over_time(market))
    weeks = document["over_time"]
    assert [week["day"] for week in weeks] == [0, 7, 14, 21, 28, 35, 42, 49]
    assert weeks[1]["from_ms"] == START_MS + 7 * DAY_MS
    assert weeks[0]["per_member"]["m000005"] == draw_truth(market).per_member[5].tolist()
    last = Preferences(market).go_to(49)
    assert document["per_job"]["j00042"] == last.per_job[42].tolist()
    assert weeks[7]["per_member"] == document["per_member"]
    assert json.loads(truth_over_time(SMALL)) == json.loads(draw_truth(SMALL).to_json())


def test_the_truth_file_names_every_entity_and_feature(truth: Truth) -> None:
    """The truth has the settings, the features' names, and coefficients of every entity."""
    document = json.loads(truth.to_json())
    settings = truth.settings
    assert msgspec.convert(document["settings"], SimulationSettings) == settings
    names = document["feature_names"]
    assert [len(names[block]) for block in ("global", "per_member", "per_job")] == [
        settings.d_global,
        settings.d_member,
        settings.d_job,
    ]
    assert all(block[0] == "intercept" for block in names.values())
    assert list(document["per_member"]) == [member_id(k) for k in range(settings.members)]
    assert list(document["per_job"]) == [job_id(k) for k in range(settings.jobs)]
    assert document["per_job"]["j00042"] == truth.per_job[42].tolist()
    spread = np.std(truth.per_member)
    assert spread == pytest.approx(settings.precision_member**-0.5, rel=0.1)


def test_features_can_be_sent_by_name() -> None:
    """With named features the blocks are objects of the same numbers under the truth's names."""
    named = msgspec.structs.replace(SMALL, named_features=True)
    names = draw_truth(named).feature_names
    for plain, by_name in zip(simulate(SMALL), simulate(named), strict=True):
        event, other = json.loads(plain), json.loads(by_name)
        if event["type"] == "application":
            for block, values in event["features"].items():
                assert other["features"][block] == dict(zip(names[block], values, strict=True))
            del event["features"], other["features"]
        assert event == other


def test_the_global_score_can_be_sent_along() -> None:
    """With a global score, each application carries the true fixed effect's log-odds."""
    beta = draw_truth(SMALL).beta
    scored = 0
    for line in simulate(msgspec.structs.replace(SMALL, global_score=True)):
        event = json.loads(line)
        if event["type"] == "application":
            expected = float(np.dot(beta, event["features"]["global"]))
            assert event["global_score"] == pytest.approx(expected, abs=1e-6)
            scored += 1
    assert scored > 100


@pytest.mark.parametrize("size", [1, 2, 9])
def test_blocks_may_have_any_size(size: int) -> None:
    """Blocks of one number (the constant alone) and large ones work, in any combination."""
    for d_global, d_member, d_job in ((size, 1, 1), (1, size, 1), (1, 1, size), (size, size, size)):
        settings = msgspec.structs.replace(SMALL, d_global=d_global, d_member=d_member, d_job=d_job)
        names = draw_truth(settings).feature_names
        assert [len(block) for block in names.values()] == [d_global, d_member, d_job]
        assert all(len(set(block)) == len(block) for block in names.values())
        assert len(list(simulate(settings))) > 300


def test_a_tiny_marketplace_works() -> None:
    """One member, two jobs and one day give a log, possibly a short one."""
    settings = SimulationSettings(members=1, jobs=2, days=1, applications_per_member=1.0)
    for line in simulate(settings):
        assert json.loads(line)["type"] in {"application", "engagement", "job"}


def test_a_long_log_starts_at_once() -> None:
    """Lines come before the whole log is drawn: a year's first day costs no year."""
    settings = SimulationSettings(days=365, applications_per_member=200.0, jobs=4_000)
    assert len(list(islice(simulate(settings), 1_000))) == 1_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"members": 0}, "members must be at least 1"),
        ({"d_job": 0}, "d_job must be at least 1"),
        ({"answer_rate": 0.0}, "answer_rate"),
        ({"repeat_share": 1.5}, "repeat_share must lie between 0 and 1"),
        ({"reject_share": float("nan")}, "reject_share must lie between 0 and 1"),
        ({"global_sd": float("inf")}, "global_sd must be a positive number"),
        ({"precision_job": 0.0}, "precision_job must be a positive number"),
        ({"max_lateness_ms": HOUR_MS}, "shorter than 1h"),
        ({"search_ms": 0}, "search must be at least 1h"),
        ({"drift_job_ms": 1}, "drift_job must be at least 1h"),
        ({"jobs_per_recruiter": 0.0}, "jobs_per_recruiter must be a positive number"),
        ({"jobs": 30}, "30 jobs are too few for 20 applications per member"),
        ({"seed": -1}, "seed must not be negative"),
        ({"attributes": True, "d_job": 5}, "attributes make 8 global, 4 member and 4 job features"),
        ({"start_ms": -1}, "between 1970 and 2100"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    """Each setting out of its range is a configuration error that names it."""
    with pytest.raises(ConfigError, match=message):
        SimulationSettings(**wrong)


def test_profiles_are_preferred_as_the_truth_says() -> None:
    """Outcomes follow the weights of the job and the channel; as many are answered as asked."""
    settings = SimulationSettings(
        members=1_500,
        jobs=40,
        days=30,
        applications_per_member=15,
        preference_sd=2.0,
        terms_share=1.0,
    )
    log = Log(settings)
    weights = json.loads(truth_over_time(settings))["preferences"]
    answered = log.first(POLICY.positive_actions)
    added, outcome, likes = [], [], Counter[str]()
    for name, app in log.applications.items():
        of_job = weights[app["job_id"]][app.get("channel", "")]
        added.append(
            sum(of_job[kind][term] for kind, terms in app["terms"].items() for term in terms)
        )
        outcome.append(name in answered)
        assert len(app["terms"]["title"]) == 1
        assert 2 <= len(set(app["terms"]["skill"])) <= 4
        likes.update(app["terms"]["skill"])
    assert np.mean(outcome) == pytest.approx(settings.answer_rate, abs=0.06)
    assert roc_auc_score(outcome, added) > 0.75
    assert max(likes.values()) < 1.3 * min(likes.values())


def test_without_preferences_profiles_say_nothing() -> None:
    """The truth has none, and the log is that of a market that knows no preferences."""
    assert "preferences" not in json.loads(truth_over_time(SMALL))


@pytest.fixture(scope="module")
def attributed() -> Log:
    """Simulate a market whose applications carry attributes."""
    return Log(SimulationSettings(members=300, jobs=120, days=20, attributes=True))


def test_features_follow_from_attributes(attributed: Log) -> None:
    """Who has the attributes alone finds what an application's features say of job and member."""
    for app in attributed.applications.values():
        member, job = app["member"], app["job"]
        pay, same_city, age = app["features"]["per_member"][1:]
        years, asked_for, same_title = app["features"]["per_job"][1:]
        days = app["event_time_ms"] / DAY_MS - np.datetime64(job["posted"], "D").astype(int)
        assert age == pytest.approx((np.log1p(days) - 2.2) / 0.8, abs=1e-4)
        logs = (np.log(job["pay"] / 45_000) / 0.35) if "pay" in job else 0.0
        assert pay == pytest.approx(logs, abs=1e-4)
        said = (np.log1p(member["years"]) - 1.9) / 0.7 if "years" in member else 0.0
        assert years == pytest.approx(said, abs=1e-4)
        same = "city" in member and member.get("city") == job.get("city")
        assert same_city == pytest.approx(2.0 if same else -0.5)
        share = len(set(member["skills"]) & set(job["skills"])) / len(job["skills"])
        assert asked_for == pytest.approx((share - 0.39) / 0.25, abs=1e-4)
        assert (same_title > 0.0) == (member["title"] == job["title"])
        assert app["context"]["device"] in {"phone", "laptop", "tablet"}
        assert "terms" not in app


def test_features_of_both_follow_from_attributes(attributed: Log) -> None:
    """A sum over skills, a number for each city, and a difference: each is a function of them."""
    apps = attributed.applications.values()
    skills = sorted({skill for app in apps for skill in app["member"]["skills"]})
    has = np.array([[skill in app["member"]["skills"] for skill in skills] for app in apps])
    worth, demand, beyond = np.array([app["features"]["global"][5:] for app in apps]).T
    with_constant = np.column_stack([has, np.ones(len(has))])
    fitted = with_constant @ np.linalg.lstsq(with_constant, worth, rcond=None)[0]
    assert fitted == pytest.approx(worth, abs=1e-3)
    by_city: dict[str | None, set[float]] = {}
    for app, one in zip(apps, demand, strict=True):
        by_city.setdefault(app["member"].get("city"), set()).add(one)
    assert by_city.pop(None) == {0.0}
    assert sorted(map(len, by_city.values())) == [1] * 8
    for app, one in zip(apps, beyond, strict=True):
        told = "years" in app["member"] and "years" in app["job"]
        gap = app["member"]["years"] - app["job"]["years"] - 3.0 if told else 0.0
        assert one == pytest.approx(gap / 5.7, abs=1e-4)


def test_some_attributes_are_missing(attributed: Log) -> None:
    """Of years, cities and pay a few are not said, and then not there."""
    apps = list(attributed.applications.values())
    for side, name in (("member", "years"), ("member", "city"), ("job", "pay")):
        missing = np.mean([name not in app[side] for app in apps])
        assert 0.0 < missing < 0.12
        assert None not in [value for app in apps for value in app[side].values()]


def test_attributes_say_what_recruiters_prefer() -> None:
    """With preferences, the terms of an application are the title and the skills of its member."""
    settings = SimulationSettings(
        members=60,
        jobs=40,
        days=6,
        applications_per_member=5,
        attributes=True,
        preference_sd=1.0,
        terms_share=1.0,
    )
    for app in Log(settings).applications.values():
        member = app["member"]
        assert app["terms"] == {"title": [member["title"]], "skill": sorted(member["skills"])}
