"""Replay: five files, the same bytes every time, prequential scores."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.special import expit

from stream.errors import ConfigError, ModelError
from stream.events.structs import Application, Forget
from stream.events.wire import encode
from stream.logs.files import LogLine, merge
from stream.model.folder import load_model
from stream.model.training import Trainer
from stream.policy import DAY_MS, EffectSettings, FeaturePolicy, Policy
from stream.replay.reader import first_look
from stream.replay.run_folder import FILES, RunFolder, RunMetrics
from stream.replay.savepoint import Options
from stream.replay.single import replay
from tests import kit, oracle
from tests.kit import CONTEST, TestEvent, application, closing, engagement, model, with_contest


def lines_of(events: Sequence[TestEvent | bytes]) -> list[LogLine]:
    """Events as the lines of a log."""
    raw = [event if isinstance(event, bytes) else kit.to_json(event) for event in events]
    return list(starmap(lambda n, line: LogLine("log", n, line), enumerate(raw, 1)))


def run(
    path: Path, events: Sequence[TestEvent | bytes], policy: Policy | None = None, **options: Any
) -> RunMetrics:
    """Replay events into a folder."""
    chosen = options.pop("model", model())
    lines, space = first_look(lines_of(events), chosen)
    with RunFolder(path) as folder:
        return replay(lines, folder, policy or Policy(), chosen, space, Options(**options))


def rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a file."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def market(days: int = 40, jobs: int = 3) -> list[TestEvent]:
    """Return a small log with answers, declines, a closing, repeats and strangers."""
    rng = np.random.default_rng(5)
    events: list[TestEvent] = []
    for number in range(days * 4):
        at = number * DAY_MS // 4
        job = f"j{rng.integers(jobs)}"
        app = application(
            f"a{number:03}", at, job=job, member=f"m{rng.integers(8)}", score=rng.normal()
        )
        events.append(app)
        if rng.random() < 0.5:
            action = str(rng.choice(["message", "reject", "note"]))
            wait = int(rng.exponential(2 * DAY_MS))
            events.append(
                engagement(
                    f"e{number}",
                    app.application_id,
                    at + wait,
                    action,
                    job=job,
                    member=app.member_id,
                )
            )
        if rng.random() < 0.1:
            events.append(app)
    events.append(closing("x", 20 * DAY_MS, job="j0"))
    events.append(engagement("stranger", "nobody", 3 * DAY_MS))
    return sorted(events, key=lambda event: event.event_time_ms)


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    """Replaying twice gives byte-identical files."""
    run(tmp_path / "one", market(), close=True)
    run(tmp_path / "two", market(), close=True)
    for name in FILES:
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert first == second
        assert first


def test_a_prior_for_each_feature_that_is_the_same_changes_no_byte(tmp_path: Path) -> None:
    """Every name with λ = 3 is λ = 3; one with another λ changes scores, and no label."""
    run(tmp_path / "one", market(), close=True)
    for folder, bias in (("two", 3.0), ("three", 30.0)):
        named = {
            "per_member": EffectSettings(prior_precision={"m0": bias, "m1": 3.0}),
            "per_job": EffectSettings(prior_precision={"j0": bias}),
        }
        run(tmp_path / folder, market(), Policy(effects=named), close=True)
    for name in FILES:
        first, second, third = (
            (tmp_path / folder / name).read_bytes() for folder in ("one", "two", "three")
        )
        assert first == second
        assert (first == third) == (name == "dead_letters.jsonl")
    kinds = [
        [(row["application_id"], row["kind"]) for row in rows(tmp_path / folder / "labels.jsonl")]
        for folder in ("one", "three")
    ]
    assert kinds[0] == kinds[1]


def test_labels_are_the_oracles(tmp_path: Path) -> None:
    """A closed replay's last labels equal the brute-force labels of the same events."""
    metrics = run(tmp_path / "run", market(), close=True)
    last = {
        (row["job_id"], row["application_id"]): (
            row["label"],
            row["kind"],
            row["final"],
            row["weight"],
        )
        for row in rows(tmp_path / "run" / "labels.jsonl")
    }
    wanted = oracle.verdicts(market(), window_ms=14 * DAY_MS, watermark_ms=math.inf)
    assert last == wanted
    assert metrics.closed == metrics.applications == len(wanted)
    assert metrics.dead_letters == {"unmatched": 1}


def test_scores_are_prequential_and_offsets_those_of_first_sight(tmp_path: Path) -> None:
    """Each application is scored once, before it is learned; its labels carry those scores."""
    run(tmp_path / "run", market(), close=True)
    scores = {row["application_id"]: row for row in rows(tmp_path / "run" / "scores.jsonl")}
    first = scores["a000"]
    assert (first["member_score"], first["job_score"]) == (0.0, 0.0)
    assert any(row["member_score"] and row["job_score"] for row in scores.values())
    for label in rows(tmp_path / "run" / "labels.jsonl"):
        row = scores[label["application_id"]]
        assert [label[name] for name in ("global_score", "member_score", "job_score")] == [
            row[name] for name in ("global_score", "member_score", "job_score")
        ]
        assert row["score"] == pytest.approx(
            row["global_score"] + row["member_score"] + row["job_score"]
        )


def test_every_score_sees_all_earlier_records(tmp_path: Path) -> None:
    """The score of an application follows from the labels before it, by an independent fit."""
    policy = kit.parse_policy(
        "[effects.per_member]\nhalf_life='off'\ncoupled=false\n[effects.per_job]\nhalf_life='off'"
    )
    events: list[TestEvent] = [
        application("a", 0, member="m", score=0.3),
        engagement("e", "a", 1, member="m"),
        application("b", 2, member="m", score=0.3, job="k"),
    ]
    run(tmp_path / "run", events, policy)
    score = rows(tmp_path / "run" / "scores.jsonl")[1]["member_score"]
    z = np.array([1.0, 0.5])
    # One positive example: θ = c·z with λ·c = 1 − σ(o + c·‖z‖²).
    c = score / (z @ z)
    assert 3.0 * c == pytest.approx(1 - expit(0.3 + c * (z @ z)), abs=1e-6)


def test_dead_letters_say_where_and_why(tmp_path: Path) -> None:
    """Lines that cannot be used are kept with file, line, reason and bytes."""
    good = kit.to_json(application("a", 0))
    metrics = run(tmp_path / "run", [good, b"{", b"\xff\xfe", good.replace(b"0.0", b"0.5")])
    letters = rows(tmp_path / "run" / "dead_letters.jsonl")
    assert [(row["line"], row["reason"]) for row in letters] == [
        (2, "malformed"),
        (3, "malformed"),
        (4, "conflict"),
    ]
    assert letters[0]["value"] == "{"
    assert letters[1]["value_base64"] == "//4="
    assert metrics.dead_letters == {"conflict": 1, "malformed": 2}


def test_a_dead_letter_does_not_move_time(tmp_path: Path) -> None:
    """An event that is refused for its action does not close anybody's window."""
    far = engagement("e", "a", 10**12, "dance")
    metrics = run(tmp_path / "run", [application("a", 0), far, engagement("f", "a", 5)])
    assert metrics.labels == {"positive": 1}


def test_a_single_jump_of_time_closes_nothing(tmp_path: Path) -> None:
    """With a largest jump, one event a year ahead is a dead letter and the rest is unharmed."""
    wild = application("wild", 400 * DAY_MS, job="j9")
    for events in (market(), market(12)):  # more and fewer than it takes to confirm
        plain = run(tmp_path / f"plain-{len(events)}", events, close=True)
        for at in (0, 20, len(events)):
            out = tmp_path / f"run-{len(events)}-{at}"
            spoiled = [*events[:at], wild, *events[at:]]
            metrics = run(out, spoiled, close=True, max_jump_ms=30 * DAY_MS)
            assert metrics.dead_letters == {**plain.dead_letters, "time_jump": 1}
            assert metrics.labels == plain.labels
            assert metrics.events == plain.events
    unguarded = run(tmp_path / "off", [wild, *market()], close=True)
    assert unguarded.ignored["late_applications"] > 100


@pytest.mark.parametrize(
    ("stray", "dead"),
    [
        (b'{"type":"heartbeat","event_time_ms":4070908800000}', "unknown_type"),
        (b'{"type":"application","event_time_ms":4070908800000}', "invalid_id"),
        (b'{"type":"forget","member_id":"nobody","event_time_ms":4070908800000}', None),
        (kit.to_json(engagement("e", "nothing", 4_070_908_800_000)), "unmatched"),
        (kit.to_json(engagement("e", "nothing", 4_070_908_800_000, "dance")), "unknown_action"),
    ],
)
def test_one_far_time_among_several_files_costs_no_label(
    tmp_path: Path, stray: bytes, dead: str | None
) -> None:
    """A line of 2099 among applications in one file and all else in another changes no label."""
    events = market()
    of_files = [
        [kit.to_json(event) for event in events if isinstance(event, Application) is applied]
        for applied in (True, False)
    ]
    found = []
    for name, first in (
        ("plain", of_files[0]),
        ("far", [*of_files[0][:9], stray, *of_files[0][9:]]),
    ):
        paths = [tmp_path / f"{name}-applications.jsonl", tmp_path / f"{name}-others.jsonl"]
        for path, raw in zip(paths, (first, of_files[1]), strict=True):
            path.write_bytes(b"\n".join(raw))
        lines, space = first_look(merge(paths), model())
        with RunFolder(tmp_path / name) as folder:
            found.append(replay(lines, folder, Policy(), model(), space, Options(close=True)))
    plain, far = found
    assert far.labels == plain.labels
    assert plain.labels["positive"] > 10
    more = {} if dead is None else {dead: plain.dead_letters.get(dead, 0) + 1}
    assert far.dead_letters == {**plain.dead_letters, **more}


def test_clocks_close_windows_without_lateness(tmp_path: Path) -> None:
    """A clock sets the watermark itself; one just past A + W closes the window."""
    end = 14 * DAY_MS
    for clock, closed in ((end, 0), (end + 1, 1)):
        raw = [
            kit.to_json(application("a", 0)),
            msgspec.json.encode({"type": "clock", "event_time_ms": clock}),
        ]
        assert run(tmp_path / str(clock), raw).closed == closed


def test_without_a_model_sizes_are_those_of_the_first_application(tmp_path: Path) -> None:
    """Without a model every application must bring its score; others are dead letters."""
    raw = [
        kit.to_json(application("a", 0, score=0.5)),
        kit.to_json(application("b", 1, score=None)),
        kit.to_json(application("c", 2, score=0.5)).replace(b"[1.0,0.5]", b"[1.0]"),
    ]
    metrics = run(tmp_path / "run", raw, model=None)
    assert metrics.dead_letters == {"invalid_features": 1, "no_global_score": 1}
    assert metrics.model_version == "none"


def test_a_log_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Without model or score, or with other feature sizes than the model's: an error at once."""
    bare = kit.to_json(application("a", 0, score=None))
    with pytest.raises(ModelError, match="--model"):
        run(tmp_path / "run", [b"{", bare], model=None)
    with pytest.raises(ModelError, match=r"features.per_member has 1 numbers.*log:2"):
        run(tmp_path / "run", [b"{", bare.replace(b"[1.0,0.5]", b"[1.0]")])
    assert not (tmp_path / "run").exists()


def test_score_from_limits_the_metrics_alone(tmp_path: Path) -> None:
    """Applications before the time are scored and learned but not judged."""
    whole = run(tmp_path / "one", market(), close=True)
    part = run(tmp_path / "two", market(), close=True, score_from_ms=20 * DAY_MS)
    assert part.quality.applications == whole.quality.applications // 2
    for name in FILES[:-1]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_quality_is_that_of_the_written_scores(tmp_path: Path) -> None:
    """AUC, log loss and observed/expected follow from the files, computed independently."""
    metrics = run(tmp_path / "run", market(), close=True)
    truth = {r["application_id"]: r["label"] for r in rows(tmp_path / "run" / "labels.jsonl")}
    scores = rows(tmp_path / "run" / "scores.jsonl")
    y = np.array([truth[row["application_id"]] for row in scores])
    s = np.array([row["score"] for row in scores])
    p = expit(s)
    full = metrics.quality.full
    assert full is not None
    assert full.log_loss == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
    assert full.observed_over_expected == pytest.approx(y.sum() / p.sum())
    pairs = [(a > b) + 0.5 * (a == b) for a in s[y == 1] for b in s[y == 0]]
    assert full.auc == pytest.approx(np.mean(pairs))


def test_a_single_misfit_at_the_start_is_a_dead_letter(tmp_path: Path) -> None:
    """One application of another size does not keep the rest of the log out."""
    misfit = kit.to_json(application("wrong", 0)).replace(b"[1.0,0.5]", b"[1.0]")
    good = [kit.to_json(application(name, 1)) for name in "abc"]
    metrics = run(tmp_path / "run", [misfit, *good])
    assert (metrics.applications, metrics.dead_letters) == (3, {"invalid_features": 1})


def test_features_beyond_the_limit_are_dead_letters(tmp_path: Path) -> None:
    """The limit is the policy's, and holds for the global score too."""
    good = kit.to_json(application("a", 0))
    large = kit.to_json(application("b", 1)).replace(b"[1.0,0.5]", b"[1.0,2e6]")
    scored = kit.to_json(application("c", 2, score=-1e308))
    metrics = run(tmp_path / "run", [large, good, scored])
    assert (metrics.applications, metrics.dead_letters) == (1, {"invalid_features": 2})
    policy = Policy(features=FeaturePolicy(max_feature=1e7))
    metrics = run(tmp_path / "more", [large, good, scored], policy)
    assert (metrics.applications, metrics.dead_letters) == (2, {"invalid_features": 1})


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    """A run never overwrites another."""
    run(tmp_path / "run", market(2))
    with pytest.raises(ConfigError, match="is there already"):
        run(tmp_path / "run", market(2))


@with_contest
def test_contest_log_reaches_its_figures(tmp_path: Path) -> None:
    """On the contest log the full score has AUC ≥ 0.738 and log loss ≤ 0.450."""
    policy = kit.parse_policy((CONTEST.parent / "policy.toml").read_text())
    names = msgspec.json.decode((CONTEST.parent / "features.json").read_bytes())
    with gzip.open(CONTEST) as file:
        events = [msgspec.json.decode(line) for line in file]
    times = [event["event_time_ms"] for event in events if event["type"] == "application"]
    quarter = min(times) + (max(times) - min(times)) // 4
    trainer = Trainer(policy, quarter, names)
    trainer.read(merge([CONTEST]), lambda _: None)
    trainer.fit(tmp_path / "model")
    trained = load_model(tmp_path / "model")
    lines, space = first_look(merge([CONTEST]), trained)
    with RunFolder(tmp_path / "run") as folder:
        options = Options(score_from_ms=quarter, close=True)
        quality = replay(lines, folder, policy, trained, space, options).quality
    assert quality.full is not None
    assert quality.global_ is not None
    assert quality.full.auc is not None
    assert quality.global_.auc is not None
    assert quality.full.auc >= 0.738
    assert quality.full.log_loss <= 0.450
    assert 0.55 < quality.global_.auc < 0.61


def test_entities_leave_a_replay(tmp_path: Path) -> None:
    """Who has not applied for ``entity_ttl`` is not among the coefficients at the end."""
    events: list[TestEvent] = [
        application("a", 0, job="old", member="old"),
        engagement("e", "a", 1, job="old", member="old"),
        application("b", 20 * DAY_MS, job="young", member="young"),
        engagement("f", "b", 20 * DAY_MS + 1, job="young", member="young"),
        closing("x", 57 * DAY_MS, job="young"),
    ]
    run(tmp_path / "kept", events)
    ttl = 'entity_ttl = "56d"'
    policy = kit.parse_policy(f"[effects.per_member]\n{ttl}\n[effects.per_job]\n{ttl}\n")
    run(tmp_path / "left", events, policy)
    found = {
        name: {row["entity_id"] for row in rows(tmp_path / name / "coefficients.jsonl")}
        for name in ("kept", "left")
    }
    assert found == {"kept": {"old", "young"}, "left": {"young"}}
    assert rows(tmp_path / "kept" / "labels.jsonl") == rows(tmp_path / "left" / "labels.jsonl")


def test_a_log_may_ask_to_forget(tmp_path: Path) -> None:
    """What was learned before goes, whatever the time it says; event time does not move."""
    events: list[TestEvent | bytes] = [
        application("a", 0, job="j", member="m"),
        engagement("e", "a", 1, job="j", member="m"),
        encode(Forget(member_id="m", event_time_ms=1_000 * DAY_MS)),
        encode(Forget(job_id="j", event_time_ms=5)),
        application("b", DAY_MS, job="j", member="m"),
        engagement("f", "b", DAY_MS + 1, job="j", member="m"),
    ]
    metrics = run(tmp_path / "run", events)
    assert metrics.events["forget"] == 2
    assert metrics.closed == 0
    left = {row["entity_id"]: row["examples"] for row in rows(tmp_path / "run/coefficients.jsonl")}
    assert left == {"j": 1}
