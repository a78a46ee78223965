"""What bootstrap refuses before it writes anything, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.bootstrap.load import bootstrap
from stream.bootstrap.target import Settings
from stream.errors import ConfigError, StateError
from stream.events.records import TOPICS
from stream.kafka.embedded import EmbeddedBroker
from stream.policy import LabelPolicy, Policy
from stream.replay.run_folder import METRICS, STATE, RunFolder, load_metrics, states_of
from stream.replay.savepoint import Options
from stream.replay.single import replay
from tests.kit import SPACE, model
from tests.replay.test_single import lines_of
from tests.replay.test_single import market as log


def run_of(path: Path, *, with_model: bool = True, close: bool = False) -> Path:
    """Replay a small log."""
    chosen = model() if with_model else None
    with RunFolder(path) as folder:
        replay(lines_of(log()), folder, Policy(), chosen, SPACE, Options(close=close))
    return path


def settings(run: Path, broker: str = "127.0.0.1:1", data: Path | None = None) -> Settings:
    """Return settings for a new application id."""
    return Settings(run=run, broker=broker, application_id="warm", labels=LabelPolicy(), data=data)


def test_only_a_finished_open_run_of_a_model_is_loaded(tmp_path: Path) -> None:
    """No run, one cut short, one without a model, a closed one: each is refused in words."""
    with pytest.raises(ConfigError, match="is no replay's folder"):
        bootstrap(settings(tmp_path))
    with pytest.raises(ConfigError, match="without a global model"):
        bootstrap(settings(run_of(tmp_path / "plain", with_model=False)))
    with pytest.raises(ConfigError, match="all windows closed"):
        bootstrap(settings(run_of(tmp_path / "closed", close=True)))
    run = run_of(tmp_path / "run")
    with pytest.raises(ConfigError, match="is there already"):
        bootstrap(settings(run, data=tmp_path))
    (run / METRICS).unlink()
    with pytest.raises(ConfigError, match="did not come to its end"):
        bootstrap(settings(run))


def test_the_embedded_broker_is_refused(tmp_path: Path) -> None:
    """It forgets, and it does not abort; nothing is left of the data folder."""
    run = run_of(tmp_path / "run")
    with EmbeddedBroker() as broker:
        broker.create_topics(dict.fromkeys(TOPICS, 2))
        with pytest.raises(ConfigError, match="real Kafka"):
            bootstrap(settings(run, broker.bootstrap_servers, tmp_path / "data"))
    assert not list(tmp_path.glob("data*"))


def test_states_of_one_process_or_several(tmp_path: Path) -> None:
    """A run has one state, or one of each of its processes; metrics say where event time stands."""
    run = run_of(tmp_path / "run")
    assert states_of(run) == [run / STATE]
    told = load_metrics(run)
    assert told.watermark_ms == told.newest_event_ms - LabelPolicy().allowed_lateness_ms
    several = tmp_path / "several" / STATE
    several.mkdir(parents=True)
    (run / STATE).rename(several / "0")
    (run_of(tmp_path / "other") / STATE).rename(several / "1")
    assert states_of(several.parent) == [several / "0", several / "1"]
    with pytest.raises(StateError, match="holds no state"):
        states_of(run)
    (run / METRICS).write_bytes(b"{")
    with pytest.raises(StateError, match="is damaged"):
        load_metrics(run)
