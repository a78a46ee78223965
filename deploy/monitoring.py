"""A Prometheus as a process of this machine, and what to ask of it.

Its program comes from the system: Debian's package ``prometheus`` has it, with ``promtool``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stream.cli.patience import Patience

CONFIG = Path("deploy/prometheus/prometheus.yml")
TOKEN = CONFIG.with_name("token")
"""Of the stack's service: everybody knows it."""

HOW_TO_GET = "Debian: apt-get install --no-install-recommends prometheus"

_DOWN_S = 10.0


class MissingError(Exception):
    """There is no such program here; says where it comes from."""


def program(name: str = "prometheus") -> str:
    """Return the path of ``prometheus`` or ``promtool``.

    Raises:
        MissingError: it is not installed.

    """
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"there is no {name} on this machine ({HOW_TO_GET})")
    return found


def config_for(addresses: Mapping[str, str], interval: str | None = None) -> dict[str, Any]:
    """Return the stack's configuration of Prometheus, with other targets.

    Args:
        addresses: where each target of the stack's file, ``worker-1:9464``, is here; those that
            are not named are left out.
        interval: how often to scrape and to evaluate the rules, instead of what the file says.

    """
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    if interval is not None:
        config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    config["rule_files"] = [str((CONFIG.parent / name).absolute()) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        if "authorization" in job:
            token = CONFIG.parent / job["authorization"]["credentials_file"]
            job["authorization"] = {"credentials_file": str(token.absolute())}
        for group in job["static_configs"]:
            group["targets"] = [addresses[one] for one in group["targets"] if one in addresses]
    return config


class Prometheus:
    """One Prometheus on localhost, with its data in a folder.

    Args:
        folder: its configuration, data and log.
        port: where it listens; it has to be free.
        config: see :func:`config_for`.

    """

    def __init__(self, folder: Path, port: int, config: Mapping[str, Any]) -> None:
        self._program = program()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: it does not get so far.

        """
        log = self._folder / "prometheus.log"
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for who started it
            )
        patience = Patience(self._process.pid, lambda: log.stat().st_size)
        while not self._answers("/-/ready"):
            if self._process.poll() is not None or patience.is_over():
                self.stop()
                raise RuntimeError(f"Prometheus does not start: see {log}")
            time.sleep(0.1)

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    @property
    def alerts(self) -> str:
        """Address of its page of alerts: Debian's has its pages elsewhere."""
        paths = ("/alerts", "/classic/alerts")
        return self.url + next((path for path in paths if self._answers(path)), "/api/v1/alerts")

    def stop(self) -> None:
        """End it; its data stays."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_DOWN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query: ``metric`` and ``value`` of each."""
        found = self._ask("query", {"query": expr})["result"]
        return found if isinstance(found, list) else []

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their health."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped, with its health."""
        return list(self._ask("targets")["activeTargets"])

    def _ask(self, what: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters or {})}"
        with urllib.request.urlopen(address, timeout=10) as page:  # noqa: S310 - localhost
            answer: dict[str, Any] = json.load(page)
        return dict(answer["data"])

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=2):  # noqa: S310 - localhost
                return True
        except OSError:
            return False
