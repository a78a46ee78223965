"""``docker-compose.yml`` as data: what its services run, where, and what they wait for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import yaml

FILE = Path("docker-compose.yml")
OWN = "hearback"
"""The program of the services that run on our own image."""

Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]


class Port(NamedTuple):
    """A port that is published: ``host``:``outside`` is ``inside`` of the container."""

    host: str
    outside: int
    inside: int


class Mount(NamedTuple):
    """A folder or file of the container; ``source``: of the repository, or a volume's name."""

    source: str
    target: str
    read_only: bool

    @property
    def is_volume(self) -> bool:
        """Whether the source is a volume."""
        return not self.source.startswith(".")


class Service(msgspec.Struct, frozen=True):
    """One service, as far as somebody else than Docker is interested."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: dict[str, str]
    ports: tuple[Port, ...]
    mounts: tuple[Mount, ...]
    waits_for: dict[str, Condition]
    probe: tuple[str, ...]
    raw: dict[str, Any]
    """All of it, as it is written."""

    @property
    def is_ours(self) -> bool:
        """Whether it is a command of this repository."""
        return self.command[:1] == (OWN,)


def services(file: Path = FILE) -> dict[str, Service]:
    """Read the services, by name, in their order."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {name: _service(name, raw) for name, raw in document["services"].items()}


def in_order(all_of_them: dict[str, Service]) -> Iterator[Service]:
    """Give each service after those that it waits for.

    Raises:
        ValueError: services wait for each other, or for one that is not there.

    """
    given: set[str] = set()
    left = dict(all_of_them)
    while left:
        free = [one for one in left.values() if one.waits_for.keys() <= given]
        if not free:
            raise ValueError(f"nobody can start: {', '.join(left)} wait for each other")
        for one in free:
            yield left.pop(one.name)
            given.add(one.name)


def _service(name: str, raw: dict[str, Any]) -> Service:
    waits = raw.get("depends_on", {})
    return Service(
        name=name,
        image=raw["image"],
        command=tuple(raw.get("command", ())),
        environment=raw.get("environment", {}),
        ports=tuple(_port(text) for text in raw.get("ports", ())),
        mounts=tuple(_mount(text) for text in raw.get("volumes", ())),
        waits_for={other: how["condition"] for other, how in waits.items()},
        probe=tuple(raw.get("healthcheck", {}).get("test", ())),
        raw=raw,
    )


def _port(text: str) -> Port:
    host, outside, inside = text.split(":")
    return Port(host, int(outside), int(inside))


def _mount(text: str) -> Mount:
    source, target, *mode = text.split(":")
    return Mount(source, target, mode == ["ro"])
