"""Inputs beside the global features go where a model is worse with them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.backtest.tuning import trainer
from stream.cli import main
from stream.logs.files import merge, write_lines
from stream.model.folder import load_model
from stream.model.held_out import Judgement
from stream.model.inputs import helpful
from stream.policy import DAY_MS, FeaturePolicy, Policy

SETTINGS = SimulationSettings(
    seed=4, members=300, jobs=30, days=40, applications_per_member=8, terms_share=0.0
)


def test_a_block_goes_where_the_model_is_worse_with_it_by_more_than_chance() -> None:
    """What is better or the same stays; so does what cannot be judged."""
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.01, 400)
    noise = np.tile([-0.05, 0.05], 200)
    costs = {"good": noise - 0.1, "bad": noise + 0.1, "same": noise}
    asked: list[tuple[str, ...]] = []

    def losses(kept: tuple[str, ...]) -> NDArray[np.float64]:
        asked.append(kept)
        return base + sum(costs[name] for name in kept)

    kept, dropped = helpful(["good", "bad", "same"], losses)
    assert kept == ("good", "same")
    assert [each.block for each in dropped] == ["bad"]
    assert dropped[0].loss == pytest.approx(0.1)
    assert dropped[0].error == pytest.approx(0.05 / 20)
    assert len(asked) == 4
    assert helpful(["bad"], lambda _: np.empty(0)) == (("bad",), [])
    assert helpful([], losses) == ((), [])


def test_preferences_must_pay() -> None:
    """They go where the model is not better with them by more than chance, or nobody can tell."""
    base, noise = np.full(400, 0.5), np.tile([-0.05, 0.05], 200)
    for gain, stays in ((-0.1, False), (0.0, False), (0.002, False), (0.003, True)):
        found = {(): base, ("preferences",): base + noise - gain}
        kept, dropped = helpful(["preferences"], found.__getitem__)
        assert (kept == ("preferences",), not dropped) == (stays, stays)
    kept, dropped = helpful(["history", "preferences"], lambda _: np.empty(0))
    assert (kept, [each.block for each in dropped]) == (("history",), ["preferences"])
    assert "too little to tell" in dropped[0].in_words()


def test_train_says_which_inputs_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Histories that make a small market's model worse are in neither model nor comparison."""
    log = tmp_path / "log.jsonl"
    write_lines(log, simulate(SETTINGS))
    until_ms = SETTINGS.start_ms + 30 * DAY_MS
    given = ["train", log, "--kind", "boosted", "--until", until_ms, "--out", tmp_path / "model"]
    monkeypatch.setattr("sys.argv", ["hearback", *map(str, given)])
    said = io.StringIO()
    with redirect_stdout(said), pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    manifest = load_model(tmp_path / "model").manifest
    (dropped,) = manifest.dropped
    assert dropped.block == "history"
    assert dropped.loss is not None
    assert dropped.error is not None
    assert dropped.loss > dropped.error > 0
    assert dropped.in_words() in said.getvalue()
    assert (manifest.inputs, "history" in manifest.features) == (("global",), False)
    without = trainer(
        Policy(features=FeaturePolicy(histories=False)), until_ms, None, None, "boosted"
    )
    without.read(merge([log]), lambda _: None)
    judged = without.hold_out()
    assert isinstance(judged, Judgement)
    assert judged.held_out == manifest.held_out
    assert without.model().manifest.sha256 == manifest.sha256
