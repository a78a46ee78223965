"""What a model is fitted on: closed rows, and all applications as they were known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.cli import main
from stream.events.structs import Application
from stream.labels.delays import default_curve, fitted
from stream.logs.files import LogLine, write_lines
from stream.model.folder import load_model
from stream.model.held_out import Judgement
from stream.model.logistic import fit_logistic
from stream.model.rows import NEVER, Outcomes, Rows
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy
from tests import kit, oracle
from tests.kit import TestEvent, application, closing, engagement

WINDOW_MS = 14 * DAY_MS
CURVE = ("1d:0.25", "4d:0.75", "14d:1")
AT_MS = 30 * DAY_MS


def market(seed: int, applications: int = 300, days: int = 50) -> list[TestEvent]:
    """Return a log in order of time: answers, declines and answers after them, closed jobs."""
    rng = np.random.default_rng(seed)
    events: list[TestEvent] = []
    for number in range(applications):
        name, job = f"a{number}", f"j{rng.integers(20)}"
        time_ms = int(rng.integers(days * DAY_MS))
        events.append(application(name, time_ms, job=job))
        for at, action in enumerate(("reject", "hire", "note")):
            if rng.random() < 0.3:
                late_ms = int(rng.exponential(4 * DAY_MS)) - 3_000
                events.append(
                    engagement(f"e{number}.{at}", name, time_ms + late_ms, action, job=job)
                )
    for number in range(0, 20, 4):
        closed_ms = int(rng.integers(days * DAY_MS))
        events.append(closing(f"c{number}", closed_ms, job=f"j{number}"))
    return sorted(events, key=lambda event: event.event_time_ms)


def trained(events: list[TestEvent], policy: Policy, until_ms: int | None = None) -> Trainer:
    """Read a log."""
    trainer = Trainer(policy, until_ms, None)
    lines = [LogLine("log", n, kit.to_json(event)) for n, event in enumerate(events, 1)]
    trainer.read(lines, lambda _: None)
    return trainer


def by_time(rows: Rows) -> NDArray[np.float64]:
    """Time, target and weight of each row (n, 3), in order of time."""
    table = np.column_stack([rows.times_ms, rows.y, rows.weights])
    return table[np.lexsort(table.T[::-1])]


def policy_with(*, aging: str = "[0.35, 0.7, 0.9]", curve: bool = True) -> Policy:
    """Return a policy with a curve of its own."""
    ages = ", ".join(f'"{point}"' for point in CURVE) if curve else ""
    return kit.parse_policy(f"[labels]\naging = {aging}\ndelay_curve = [{ages}]\n")


@pytest.mark.parametrize("seed", range(5))
def test_aged_rows_are_what_was_known_then(seed: int) -> None:
    """Targets and weights are those of the oracle over the events up to then, silence by F."""
    events = market(seed)
    rows = trained(events, policy_with()).rows(AT_MS, aged=True)
    known = [event for event in events if event.event_time_ms <= AT_MS]
    verdicts = oracle.verdicts(known, window_ms=WINDOW_MS, later_response=False, watermark_ms=AT_MS)
    apps = {event.application_id: event for event in known if isinstance(event, Application)}
    wanted = []
    for (_, name), verdict in verdicts.items():
        time_ms = apps[name].event_time_ms
        age_days = (AT_MS - time_ms) / DAY_MS
        silence = float(np.interp(age_days, [0, 1, 4, 14], [0, 0.25, 0.75, 1]))
        wanted.append((time_ms, verdict[0] if verdict else 0, 1.0 if verdict else silence))
    assert rows.aged
    assert len(wanted) > 150
    assert by_time(rows) == pytest.approx(np.array(sorted(wanted)), abs=1e-12)
    assert 0 < (rows.weights < 1).sum() < len(rows.y)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_after_a_time_is_known_at_it(seed: int) -> None:
    """Rows at a time are those of a log that ends there, learned delays included."""
    events = market(seed)
    policy = policy_with(curve=False)
    whole, short = trained(events, policy), trained(events, policy, AT_MS)
    for aged in (False, True):
        found, wanted = whole.rows(AT_MS, aged=aged), short.rows(AT_MS, aged=aged)
        assert by_time(found) == pytest.approx(by_time(wanted), abs=1e-12)
        assert len(np.unique(found.jobs)) == len(np.unique(wanted.jobs))


def test_closed_rows_weigh_one_and_are_final() -> None:
    """Of the windows that have passed every label is in, early or late."""
    events = market(3)
    rows = trained(events, policy_with()).rows(AT_MS, aged=False)
    final = oracle.verdicts(events, window_ms=WINDOW_MS, watermark_ms=1e18)
    apps = {event.application_id: event for event in events if isinstance(event, Application)}
    wanted = sorted(
        (apps[name].event_time_ms, verdict[0], 1.0)
        for (_, name), verdict in final.items()
        if verdict and apps[name].event_time_ms + WINDOW_MS <= AT_MS
    )
    assert not rows.aged
    assert by_time(rows) == pytest.approx(np.array(wanted))


def test_silence_weighs_by_the_curve_known_then() -> None:
    """With 50 answers and a closed window it is Kaplan and Meier's of then, before the default."""
    rng = np.random.default_rng(1)
    times_ms = rng.integers(0, 40 * DAY_MS, 400)
    delays_ms = rng.exponential(3 * DAY_MS, 400).astype(np.int64)
    answered = (rng.random(400) < 0.4) & (delays_ms <= WINDOW_MS)
    answered_ms = np.where(answered, times_ms + delays_ms, NEVER)
    outcomes = Outcomes(times_ms, answered_ms, np.full(400, NEVER), WINDOW_MS)
    assert outcomes.delays(8 * DAY_MS) is None  # no closed window
    came, silent = [], []
    for time_ms, delay_ms, yes in zip(times_ms, delays_ms, answered, strict=True):
        if yes and time_ms + delay_ms <= AT_MS:
            came.append(int(delay_ms))
        elif time_ms <= AT_MS:
            silent.append(int(min(AT_MS - time_ms, WINDOW_MS)))
    curve = outcomes.delays(AT_MS)
    assert curve == fitted(came, silent, WINDOW_MS)
    y, weights = outcomes.known(AT_MS, default_curve(WINDOW_MS))
    assert y.sum() == len(came)
    young = np.flatnonzero((times_ms < AT_MS) & (times_ms > AT_MS - DAY_MS) & (y == 0))[0]
    age_ms = AT_MS - times_ms[young]
    expected = (1 - np.exp(-age_ms / (2.5 * DAY_MS))) / (1 - np.exp(-14 / 2.5))
    assert weights[young] == pytest.approx(expected, abs=2e-3)
    assert (weights[times_ms >= AT_MS] == 0).all()


def test_few_closed_positives_take_aged_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short log is learned from as it is known, a long one from closed windows; both say so."""
    log = tmp_path / "log.jsonl"
    settings = SimulationSettings(seed=5, members=300, jobs=60, days=60)
    write_lines(log, simulate(settings))
    manifests = {}
    for rows, days in (("aged", 15.5), ("closed", 60)):
        until = settings.start_ms + int(days * DAY_MS)
        command = ["hearback", "train", str(log), "--out", str(tmp_path / rows)]
        monkeypatch.setattr("sys.argv", [*command, "--until", str(until)])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        said = capsys.readouterr().out
        manifest = manifests[rows] = load_model(tmp_path / rows).manifest
        assert manifest.rows == rows
        assert ("silence weighed by age" in said) == (rows == "aged")
        assert ("whose window had closed" in said) == (rows == "closed")
    written = (tmp_path / "aged" / "manifest.json").read_bytes()
    assert msgspec.json.decode(written)["rows"] == "aged"
    assert manifests["aged"].trained_from_ms == manifests["closed"].trained_from_ms


def test_a_model_of_aged_rows_beats_that_of_few_closed_ones() -> None:
    """On the applications to come, three weeks into a market, by log loss."""
    settings = SimulationSettings(seed=2, members=500, jobs=80, days=40)
    lines = [LogLine("log", n, raw) for n, raw in enumerate(simulate(settings), 1)]
    trainer = Trainer(Policy(), None, None)
    trainer.read(lines, lambda _: None)
    at_ms = settings.start_ms + 15 * DAY_MS
    final = trainer.rows(trainer.end_ms, aged=False)
    new = final.times_ms > at_ms
    losses = {}
    for aged in (False, True):
        known = trainer.rows(at_ms, aged=aged)
        beta = fit_logistic(known)[0]
        margins = final.X[new] @ beta
        losses[aged] = float((np.logaddexp(0, margins) - final.y[new] * margins).mean())
    assert losses[True] < losses[False] - 0.005


def test_with_aging_off_only_closed_windows_count() -> None:
    """Where silence is no label it is none for the global model."""
    trainer = trained(market(1), policy_with(aging='"off"'))
    assert not trainer.rows(AT_MS, aged=True).aged
    assert not trainer.rows(AT_MS).aged


def test_the_held_out_judgement_fits_on_what_was_known_before_it() -> None:
    """Of a short log, the fit before the newest fifth has aged rows; final labels judge it."""
    trainer = trained(market(4, applications=2000), policy_with())
    judged = trainer.hold_out()
    assert isinstance(judged, Judgement)
    final = trainer.rows(trainer.end_ms, aged=False)
    newest = final.times_ms >= judged.held_out.from_ms
    assert judged.held_out.applications == newest.sum()
    assert judged.held_out.positives == final.y[newest].sum()
    known = trainer.rows(judged.held_out.from_ms)
    share = np.average(known.y, weights=known.weights)
    y = final.y[newest]
    constant = -(y * np.log(share) + (1 - y) * np.log1p(-share)).mean()
    assert judged.held_out.constant_log_loss == pytest.approx(constant, abs=1e-3)
