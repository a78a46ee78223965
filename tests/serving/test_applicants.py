"""The applicants that a service holds, against dictionaries and sorted lists."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import StateError
from stream.events.applicants import Applicant, applicants_key, encode_applicant
from stream.events.records import COEFFICIENTS
from stream.events.structs import Control
from stream.events.wire import AllFeatures, coefficients_key
from stream.model.folder import GlobalModel
from stream.policy import DAY_MS, HOUR_MS, ApplicantSettings, Policy
from stream.serving import applicants as applicants_module
from stream.serving.applicants import Applicants
from stream.serving.belief import Belief, mean_score, probability
from stream.serving.messages import JobFound
from stream.serving.rankings import Rankings
from stream.serving.scorer import Scorer
from stream.serving.snapshot import Place, load_snapshot, save_snapshot
from stream.serving.waiting import Waiting
from tests.kit import model
from tests.serving.asking import NOW_MS, Asked
from tests.serving.test_embedded import with_histories
from tests.serving.test_scores import known

HELD = Policy(applicants=ApplicantSettings(enabled=True))
WINDOW_MS = HELD.labels.window_ms
Message = tuple[bytes, bytes | None]


def applicant(
    name: str, time_ms: int, *, job: str = "j", member: str = "", score: float = 0.0, **more: Any
) -> Applicant:
    """An application as the worker publishes it."""
    features = AllFeatures(per_member=[1.0, 0.5], per_job=[2.0])
    fields: dict[str, Any] = {"features": features, "model_version": "test-model"} | more
    return Applicant(
        application_id=name,
        member_id=member or f"m{name}",
        job_id=job,
        application_time_ms=time_ms,
        global_score=score,
        member_score=0.0,
        job_score=0.0,
        **fields,
    )


def published(*applicants: Applicant) -> list[Message]:
    """Messages of ``applicants``."""
    return [
        (applicants_key(each.job_id, each.application_id), encode_applicant(each))
        for each in applicants
    ]


def label(name: str, kind: str, *, job: str = "j", at_ms: int = NOW_MS) -> Message:
    """A message of ``labels``, as far as it counts here."""
    said = {"type": "label", "application_id": name, "member_id": "m", "job_id": job}
    return b"m", msgspec.json.encode(said | {"kind": kind, "label_time_ms": at_ms, "final": True})


class Holding(Asked):
    """A service whose policy has applicants."""

    def __init__(self, global_model: GlobalModel | None = None) -> None:
        super().__init__(global_model or model(), HELD)

    @property
    def held(self) -> Applicants:
        """The store of applicants."""
        assert self.store.applicants is not None
        return self.store.applicants

    def publish(self, *applicants: Applicant) -> None:
        """Take applicants in."""
        self.held.apply(published(*applicants), self.now_ms)

    def get(self, path: str) -> Any:
        """Ask, and return what is answered in JSON."""
        reply = self.ask(f"/v1/jobs{path}")
        assert reply.status == 200, reply
        return reply.json()


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "enter", "answer", "decline", "age", "end", "settle"]),
        st.sampled_from(["j", "k"]),
        st.integers(0, 5),
        st.sampled_from([-1.0, 0.0, 0.5]),
    ),
    max_size=30,
)


@given(actions=ACTIONS, by=st.sampled_from(["probability", "probability_now", "next"]))
def test_a_ranking_is_that_of_the_open_applicants_alone(
    actions: list[tuple[str, str, int, float]], by: str
) -> None:
    """Whatever came in between, in any order: scored as documented, and sorted by the rule.

    What was said of an application that is not there waits for it to come, for a while.
    """
    asked = Holding()
    known(asked, "per_member", "m1", [0.5, -1.0], 0.25)
    known(asked, "per_job", "j", [0.75], 0.5)
    asked.held.decide([label("x", "negative_inferred")], NOW_MS)  # the market is of today
    there: dict[tuple[str, str], tuple[int, float]] = {}
    said: dict[tuple[str, str], str] = {}
    rank = {"": 0, "negative_explicit": 1, "positive": 2}
    for action, job, number, score in actions:
        name = f"a{number}"
        key = (job, name)
        time_ms = NOW_MS - number * 3 * DAY_MS  # the last ones' windows are over
        match action:
            case "enter":
                asked.publish(applicant(name, time_ms, job=job, member=f"m{number}", score=score))
                there[key] = time_ms, score
            case "answer" | "decline" | "age":
                kind = {
                    "answer": "positive",
                    "decline": "negative_explicit",
                    "age": "negative_inferred",
                }[action]
                asked.held.decide([label(name, kind, job=job)], NOW_MS)
                if rank.get(kind, 0) > rank[said.get(key, "")]:
                    said[key] = kind
            case "end":
                asked.held.apply([(applicants_key(job, name), None)], NOW_MS)
                if there.pop(key, None):
                    said.pop(key, None)
            case "settle":
                asked.held.settle()
                asked.held.settle()
                said = {key: kind for key, kind in said.items() if key in there}
    waiting = Waiting(model(), HELD.labels)
    job_belief = Belief.of(asked.store.entity("per_job", "j"), 1, 3.0)
    rows = []
    for (job, name), (time_ms, score) in there.items():
        if job != "j" or (job, name) in said or time_ms < NOW_MS - WINDOW_MS:
            continue
        member_id = f"m{name[1:]}"
        member = Belief.of(asked.store.entity("per_member", member_id), 2, 3.0)
        log_odds = mean_score(score, (member, [1.0, 0.5]), (job_belief, [2.0]))
        age_ms = NOW_MS - time_ms
        later = sum(
            kind == "positive" and key[0] == "j" and key in there and there[key][0] > time_ms
            for key, kind in said.items()
        )
        now = waiting.probability(log_odds, age_ms, later)
        value = {
            "probability": log_odds,
            "probability_now": now,
            "next": waiting.order(log_odds, age_ms, later),
        }[by]
        rows.append((-value, member_id, name, log_odds, now))
    rows.sort()
    found = asked.get(f"/j/applicants?by={by}")
    assert found["of"] == len(rows)
    assert [each["rank"] for each in found["applicants"]] == [*range(1, len(rows) + 1)]
    assert [each["application_id"] for each in found["applicants"]] == [row[2] for row in rows]
    for each, (_, member_id, _, log_odds, now) in zip(found["applicants"], rows, strict=True):
        assert each["member_id"] == member_id
        assert each["log_odds"] == pytest.approx(log_odds, abs=1e-12)
        assert each["probability"] == pytest.approx(probability(log_odds), abs=1e-12)
        assert each["probability_now"] == pytest.approx(now, abs=1e-12)
        assert sum(each["parts"].values()) == pytest.approx(log_odds, abs=1e-12)
        assert each["member_known"] == (member_id == "m1")
    assert len(asked.held) == len(there)
    jobs = {
        each["job_id"]: (each["open"], each["applicants"], each["newest_ms"])
        for each in asked.get("")["jobs"]
    }
    wanted = {}
    for job in {job for job, _ in there}:
        mine = {key: time_ms for key, (time_ms, _) in there.items() if key[0] == job}
        open_ = [
            key for key, at_ms in mine.items() if key not in said and at_ms >= NOW_MS - WINDOW_MS
        ]
        wanted[job] = len(open_), len(mine), max(mine.values())
    assert jobs == wanted


def test_a_member_is_told_where_it_stands_and_why() -> None:
    """As in the ranking, with how many stand no higher, what counts for it and what against."""
    asked = Holding()
    known(asked, "per_member", "mb", [1.0, -3.0], 0.25)
    known(asked, "per_job", "j", [0.25], 0.5)
    asked.publish(*(applicant(name, NOW_MS - HOUR_MS, score=at) for at, name in enumerate("abcd")))
    ranked = asked.get("/j/applicants?top=3")
    assert (ranked["of"], len(ranked["applicants"])) == (4, 3)
    found = asked.get("/j/applicants/b")
    row = next(each for each in asked.get("/j/applicants")["applicants"] if each["rank"] == 3)
    assert {name: found[name] for name in row} == row
    assert (found["rank"], found["of"], found["percentile"]) == (3, 4, 50.0)
    assert found["for"] == [
        {"effect": "global", "feature": "global_score", "contribution": 1.0},
        {"effect": "per_member", "feature": "m0", "contribution": 1.0},
        {"effect": "per_job", "feature": "j0", "contribution": 0.5},
    ]
    assert found["against"] == [
        {"effect": "per_member", "feature": "m1", "contribution": -1.5},
    ]
    assert found["reasons"][0] == found["against"][0]
    told = sum(each["contribution"] for each in found["reasons"])
    assert told == pytest.approx(found["log_odds"])
    assert math.isclose(found["standard_deviation"], math.sqrt(0.25 * 1.25 + 0.5 * 4.0))
    assert (found["job_id"], found["model_version"], found["degraded"]) == ("j", "test-model", [])


def test_what_the_global_model_was_asked_is_among_the_reasons() -> None:
    """By feature name, histories too; of another model's score only the whole is told."""
    asked = Holding(with_histories())
    numbers = [0.0] * 36
    numbers[35] = 2.0
    features = AllFeatures(global_=[-3.0], per_member=[0.0, 0.0], per_job=[0.0], history=numbers)
    score = 3.0 + 2.0
    asked.publish(
        applicant("a", NOW_MS, features=features, score=score),
        applicant("b", NOW_MS, features=features, score=score, model_version="other"),
        applicant("c", NOW_MS, features=features, score=4.5),  # was sent, beside features
    )
    first, second, third = asked.get("/j/applicants")["applicants"]
    names = with_histories().columns
    assert [(each["feature"], each["contribution"]) for each in first["reasons"]] == [
        (names[0], 3.0),
        (names[36], 2.0),
    ]
    assert [(each["feature"], each["contribution"]) for each in second["reasons"]] == [
        ("global_score", 5.0)
    ]
    assert [(each["feature"], each["contribution"]) for each in third["reasons"]] == [
        ("global_score", 4.5)
    ]


def test_who_is_not_open_is_told_of_to_nobody() -> None:
    """404, and in one line why; a job without applicants has none."""
    asked = Holding()
    asked.publish(
        *(applicant(name, NOW_MS) for name in "ab"), applicant("c", NOW_MS - WINDOW_MS - 1)
    )
    asked.held.decide([label("a", "positive"), label("b", "negative_explicit")], NOW_MS)
    for name, why in (("a", "answered"), ("b", "declined"), ("c", "window"), ("d", "no such")):
        reply = asked.ask(f"/v1/jobs/j/applicants/{name}")
        assert (reply.status, reply.json()["reason"]) == (404, "not_open")
        assert why in reply.json()["message"]
        assert "\n" not in reply.json()["message"]
    assert asked.get("/j/applicants")["of"] == 0
    assert asked.get("/nothing/applicants")["applicants"] == []
    assert asked.ask("/v1/jobs/j/what").json()["reason"] == "not_found"


def test_an_application_is_not_decided_by_what_was_said_before_it() -> None:
    """Its id was that of one that is forgotten: a service that begins anew reads its labels too."""
    asked = Holding()
    asked.publish(applicant("a", NOW_MS - 1000), applicant("b", NOW_MS - 1000))
    asked.held.decide([label("a", "positive", at_ms=NOW_MS - 1001)], NOW_MS)
    asked.held.decide([label("b", "negative_explicit", at_ms=NOW_MS - 1000)], NOW_MS)
    assert [each["application_id"] for each in asked.get("/j/applicants")["applicants"]] == ["a"]


def test_a_job_is_found_by_a_part_of_its_id() -> None:
    """Any characters; those with most open applicants first, and no more than are wanted."""
    asked = Holding()
    for count, job in enumerate(("é/1", "é/2", "x"), 1):
        asked.publish(*(applicant(f"a{n}", NOW_MS + n, job=job) for n in range(count)))
    asked.held.decide([label("a0", "positive", job="x")], NOW_MS)
    found = asked.get("?limit=2")["jobs"]
    assert found == [
        {"job_id": "x", "open": 2, "applicants": 3, "newest_ms": NOW_MS + 2},
        {"job_id": "é/2", "open": 2, "applicants": 2, "newest_ms": NOW_MS + 1},
    ]
    assert [each["job_id"] for each in asked.get("?search=%C3%A9/")["jobs"]] == ["é/2", "é/1"]
    assert asked.get("/%C3%A9%2F1/applicants")["of"] == 1


LISTS = st.lists(
    st.tuples(
        st.sampled_from([*["enter"] * 4, "answer", "decline", "end", "search", "search", "clear"]),
        st.sampled_from(["a", "ab", "b", ""]),
        st.integers(0, 4),
        st.integers(0, 6),
    ),
    max_size=40,
)


@given(changes=LISTS, parts=st.sampled_from([1, 3, 1 << 16]))
def test_jobs_are_listed_as_by_looking_at_every_applicant(
    changes: list[tuple[str, str, int, int]], parts: int
) -> None:
    """Whatever came in between, and whether time has gone on since or back."""
    held = Applicants(model().space, HELD)
    step_ms = WINDOW_MS // 2
    oracle: dict[tuple[str, str], list[int]] = {}  # time, whether decided
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applicants_module, "_COUNTED_AT_ONCE", parts)
        for change, job, number, at in changes:
            key, at_ms = (f"j{job}", f"a{number}"), NOW_MS + at * step_ms
            match change:
                case "enter":
                    held.apply(published(applicant(key[1], at_ms, job=key[0])), NOW_MS)
                    oracle[key] = [at_ms, oracle.get(key, [0, 0])[1]]
                case "answer" | "decline":
                    if key not in oracle:  # or it would wait for the application
                        continue
                    kind = "positive" if change == "answer" else "negative_explicit"
                    held.decide(
                        [label(key[1], kind, job=key[0], at_ms=NOW_MS + 9 * WINDOW_MS)], NOW_MS
                    )
                    oracle[key][1] = 1
                case "end":
                    held.apply([(applicants_key(*key), None)], NOW_MS)
                    oracle.pop(key, None)
                case "clear":
                    held.clear()
                    oracle.clear()
                case "search":
                    expected = []
                    for name in {each for each, _ in oracle if job in each}:
                        of = [told for (each, _), told in oracle.items() if each == name]
                        open_ = sum(at_ms - ms <= WINDOW_MS and not decided for ms, decided in of)
                        newest_ms = max(ms for ms, _ in of)
                        expected.append(JobFound(name, open_, len(of), newest_ms))
                    expected.sort(key=lambda each: (-each.open, each.job_id))
                    assert held.search(job, number + 1, at_ms) == expected[: number + 1]


def test_ages_count_in_event_time() -> None:
    """By the wall clock, or, where by it all windows are over, as of the newest event."""
    asked = Holding()
    long_ago_ms = NOW_MS - 400 * DAY_MS
    asked.publish(applicant("a", long_ago_ms), applicant("b", long_ago_ms + 2 * DAY_MS))
    assert asked.get("/j/applicants")["as_of_ms"] == long_ago_ms + 2 * DAY_MS
    asked.held.decide([label("x", "positive", at_ms=long_ago_ms + 3 * DAY_MS)], NOW_MS)
    found = asked.get("/j/applicants?by=probability_now")
    assert (found["as_of_ms"], found["of"]) == (long_ago_ms + 3 * DAY_MS, 2)
    earlier = asked.get(f"/j/applicants?by=probability_now&at_ms={long_ago_ms + 2 * DAY_MS}")
    for before, after in zip(earlier["applicants"], found["applicants"], strict=True):
        assert before["application_id"] == after["application_id"]
        assert before["probability_now"] > after["probability_now"]
    asked.publish(applicant("c", NOW_MS - HOUR_MS))  # one wrong clock is not believed
    assert asked.get("/j/applicants")["as_of_ms"] == long_ago_ms + 3 * DAY_MS
    live = Holding()
    live.publish(applicant("a", NOW_MS - DAY_MS))
    assert live.get("/j/applicants")["as_of_ms"] == NOW_MS


def test_an_answer_counts_at_once_and_so_do_coefficients() -> None:
    """What was scored before is used for as long as nothing of it has changed."""
    asked = Holding()
    asked.publish(applicant("a", NOW_MS), applicant("b", NOW_MS))
    before = asked.get("/j/applicants")
    assert asked.get("/j/applicants") == before
    known(asked, "per_member", "mb", [1.0, 0.0], 0.25)
    assert [each["application_id"] for each in asked.get("/j/applicants")["applicants"]] == [
        *("b", "a")
    ]
    asked.held.decide([label("b", "positive")], NOW_MS)
    assert [each["application_id"] for each in asked.get("/j/applicants")["applicants"]] == ["a"]


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["enter", "end", "answer", "learn", "forget", "shut", "open", "clear"]),
        st.sampled_from(["j", "k"]),
        st.integers(0, 3),
        st.sampled_from([-1.0, 0.0, 0.5]),
    ),
    max_size=12,
)


@given(changes=CHANGES)
def test_what_is_kept_tells_what_a_new_service_would(
    changes: list[tuple[str, str, int, float]],
) -> None:
    """After each change of applicants, coefficients or gates, of this job or another's."""
    asked = Holding()
    asked.publish(*(applicant(f"a{n}", NOW_MS - n, member=f"m{n}") for n in range(4)))
    for change, job, number, value in changes:
        name, key = f"a{number}", applicants_key(job, f"a{number}")
        match change:
            case "enter":
                asked.publish(
                    applicant(name, NOW_MS - number, job=job, member=f"m{number}", score=value)
                )
            case "end":
                asked.held.apply([(key, None)], NOW_MS)
            case "answer":
                asked.held.decide([label(name, "positive", job=job)], NOW_MS)
            case "learn":
                known(asked, "per_member", f"m{number}", [value, 1.0], 0.25)
                known(asked, "per_job", job, [value], 0.5 + number)
            case "forget":
                gone = (("per_member", f"m{number}"), ("per_job", job))
                asked.store.apply([(coefficients_key(*each), None) for each in gone])
            case "shut" | "open":
                asked.store.controls["c"] = Control(
                    effect="per_member",
                    partition=0,
                    models=[],
                    gate="shut" if change == "shut" else "open",
                    prior_precision=[2.0 + number] * 2,
                )
                asked.store.heed_controls()
            case "clear":
                asked.store.clear()
        new = Rankings(Scorer(model(), HELD, asked.store), asked.held)
        for each in "jk":
            answer = new.of_job(each, top=2, by="probability", at_ms=None, now_ms=NOW_MS)
            assert asked.get(f"/{each}/applicants?top=2") == msgspec.to_builtins(answer)


def test_the_best_are_those_of_all_ranked() -> None:
    """Fewer are told in the same order, where many have equal scores too."""
    asked = Holding()
    asked.publish(*(applicant(f"a{n:02}", NOW_MS, score=n % 3) for n in range(40)))
    for by in ("probability", "probability_now", "next"):
        ranked = asked.get(f"/j/applicants?top=100&by={by}")["applicants"]
        for top in (1, 13, 14, 20, 39, 40):
            assert asked.get(f"/j/applicants?top={top}&by={by}")["applicants"] == ranked[:top]


BAD: list[Message] = [
    (b"a", encode_applicant(applicant("a", 1))),
    (applicants_key("j", "b"), encode_applicant(applicant("a", 1))),
    (applicants_key("j", "a"), b"{}"),
    (
        applicants_key("j", "a"),
        encode_applicant(applicant("a", 1, features=AllFeatures(per_member=[1.0], per_job=[1.0]))),
    ),
]


def test_messages_that_cannot_be_used_are_left_out_and_counted() -> None:
    """A key that is none, another's value, no applicant, features of another model."""
    asked = Holding()
    asked.held.apply([*BAD, *published(applicant("z", NOW_MS))], NOW_MS)
    asked.held.decide([(b"m", b"[]"), (b"m", None)], NOW_MS)
    assert asked.get("/j/applicants")["of"] == 1
    assert asked.held.left_out.total() == len(BAD) + 2


QUERIES = ("top=0", "top=x", "by=luck", "at_ms=-1", "what=1", "top=3&", "=", "top", "top=1&top=2")


def test_a_query_that_is_none_is_refused() -> None:
    """422, in words; and where applicants are not held there are none, and that is said."""
    asked = Holding()
    for query in QUERIES:
        reply = asked.ask(f"/v1/jobs/j/applicants?{query}")
        assert (reply.status, reply.json()["reason"]) == (422, "invalid_question"), query
    assert asked.ask("/v1/jobs?limit=0").status == 422
    assert asked.ask("/v1/jobs/j/applicants/a?top=3").status == 422
    reply = Asked(model()).ask("/v1/jobs")
    assert (reply.status, reply.json()["reason"]) == (404, "no_applicants")
    asked.store.stands("starting", ready=False)
    assert asked.ask("/v1/jobs").status == 503


def test_rows_are_taken_over_as_they_are() -> None:
    """What a snapshot has of them makes an equal store; rows of another model make none."""
    asked, other = Holding(), Holding()
    asked.publish(*(applicant(f"a{n}", NOW_MS - n, score=n / 7) for n in range(2000)))
    asked.held.decide([label("a7", "positive"), label("a8", "negative_explicit")], NOW_MS)
    asked.held.decide([label("early", "positive")], NOW_MS)
    rows = list(asked.held.rows())
    other.held.restore(rows, asked.held.newest_ms)
    assert list(other.held.rows()) == rows
    for each in (asked, other):
        each.publish(applicant("early", NOW_MS))
        assert each.ask("/v1/jobs/j/applicants/early").json()["message"] == "it was answered"
    for query in ("", "?by=next"):
        assert other.get(f"/j/applicants{query}") == asked.get(f"/j/applicants{query}")
    with pytest.raises(StateError):
        other.held.restore([msgspec.structs.replace(rows[0], per_job=b"")], None)


def test_a_snapshot_with_a_damaged_applicant_is_refused(tmp_path: Path) -> None:
    """With any byte of the applicants changed, so that the service begins anew."""
    asked, path = Holding(), tmp_path / "snapshot"
    asked.publish(applicant("a", NOW_MS, score=0.5))
    places = {COEFFICIENTS: Place("coefficients", "", [1])}
    save_snapshot(path, asked.store, places, current_ms=NOW_MS)
    whole = path.read_bytes()
    for at in range(len(whole) - 160, len(whole)):
        for flipped in (0x01, 0x80, 0xFF):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flipped]) + whole[at + 1 :])
            with pytest.raises(StateError):
                load_snapshot(path, Holding().store)


def test_metrics_tell_how_many_are_held_and_what_was_not_taken() -> None:
    """Without ids; a service that holds none says 0."""
    asked = Holding()
    asked.publish(applicant("a", NOW_MS), applicant("b", NOW_MS))
    asked.held.apply([(b"no key", b"{")], NOW_MS)
    assert asked.registry.get_sample_value("hearback_serve_applicants") == 2
    left_out = sum(
        sample.value
        for family in asked.registry.collect()
        for sample in family.samples
        if sample.name == "hearback_serve_left_out_total"
    )
    assert left_out == 1
    assert Asked(model()).registry.get_sample_value("hearback_serve_applicants") == 0
