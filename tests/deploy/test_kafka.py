"""The Kafka of ``make kafka``: what is printed is an address that answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy import kafka
from deploy.kafka import MissingError
from stream.kafka.embedded import EmbeddedBroker


@pytest.fixture
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the Kafka that an earlier call has left; no other can be started."""

    def missing() -> Path:
        raise MissingError("not in this test")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kafka, "jars", missing)
    folder = tmp_path / ".kafka"
    folder.mkdir()
    return folder


def test_one_that_runs_is_taken(standing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its address is printed again."""
    with EmbeddedBroker() as broker:
        (standing / "address").write_text(f"{broker.bootstrap_servers}\n")
        assert kafka.main("start") == 0
        assert capsys.readouterr().out == f"{broker.bootstrap_servers}\n"


def test_one_that_has_died_is_replaced(standing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its address is not printed, and its folder goes; another program with its number stays."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with EmbeddedBroker() as broker:
            (standing / "address").write_text(f"{broker.bootstrap_servers}\n")
        (standing / "pid").write_text(str(other.pid))
        assert kafka.main("start") == 1
        told = capsys.readouterr()
        assert (told.out, told.err) == ("", "no Kafka: not in this test\n")
        assert not standing.exists()
        assert other.poll() is None
