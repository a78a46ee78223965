"""The stack as processes: what is made of the services; it runs in tests/integration."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deploy import stack
from deploy.compose import services
from deploy.monitoring import config_for
from deploy.stack import Stack, StackError, localised, with_options


def test_folders_of_the_container_become_folders_of_the_stack(tmp_path: Path) -> None:
    """Arguments name them, and addresses of this machine; nothing else of the command changes."""
    found = services()
    assert localised(found["worker-1"], tmp_path, {}) == [
        "worker",
        f"--model={tmp_path}/market/model",
        f"--data={tmp_path}/worker-1-data",
    ]
    assert localised(found["history"], tmp_path, {})[:2] == [
        "produce",
        f"{tmp_path}/market/log.jsonl.gz",
    ]
    assert localised(found["recruiters"], tmp_path, {"serve:9465": "127.0.0.1:1"})[3:] == [
        "--url=http://127.0.0.1:1",
        f"--token-file={Path.cwd()}/deploy/prometheus/token",
    ]
    assert (tmp_path / "market").is_dir()
    assert localised(found["topics"], tmp_path, {}) == list(found["topics"].command[1:])


def test_an_option_takes_the_place_of_the_one_of_its_name() -> None:
    """So that a test can run a smaller market."""
    simulate = services()["simulate"]
    command = with_options(simulate, ["--days=3"]).command
    assert [option for option in command if option.startswith("--days")] == ["--days=3"]
    assert len(command) == len(simulate.command)


def test_prometheus_is_given_the_addresses_of_this_machine() -> None:
    """Targets are replaced, rules found by their whole path, the job keeps its name."""
    config = config_for({"worker-2:9464": "127.0.0.1:1"}, "1s")
    workers, service = config["scrape_configs"]
    assert workers == {"job_name": "hearback", "static_configs": [{"targets": ["127.0.0.1:1"]}]}
    assert service["static_configs"] == [{"targets": []}]
    assert Path(service["authorization"]["credentials_file"]).is_absolute()
    assert all(Path(rules).is_file() for rules in config["rule_files"])
    assert set(config["global"].values()) == {"1s"}


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """Only what a stack made is replaced."""
    (tmp_path / "precious").touch()
    with pytest.raises(StackError, match="no stack's"):
        Stack(tmp_path, print, any_port=True).__enter__()
    assert (tmp_path / "precious").exists()


def test_a_port_that_is_taken_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second stack does not talk to the Kafka of the first."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(stack, "free_ports", lambda: (port, port))
        with pytest.raises(StackError, match=f"port {port}"):
            Stack(tmp_path / "new", print, any_port=True).__enter__()
    assert not (tmp_path / "new").exists()


def test_what_waits_for_what_has_failed_is_not_started(tmp_path: Path) -> None:
    """The error names the service and its last words."""
    made = Stack(tmp_path / "new", print, any_port=True)
    made.folder.mkdir()
    found = services()
    wrong = with_options(found["simulate"], ["--days=none"])
    made.processes["simulate"] = stack.Process(wrong, made.folder, "127.0.0.1:1", None, {})
    try:
        with pytest.raises(StackError, match=r"simulate: .*log"):
            made.wait_for("simulate", "service_completed_successfully")
    finally:
        made.processes["simulate"].stop()
