"""The whole stack as processes, from docker-compose.yml: it comes up, is watched, and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.kafka import MissingError as KafkaMissingError
from deploy.monitoring import MissingError
from deploy.stack import Stack

SMALLER = {
    "simulate": ("--members=150", "--jobs=50", "--days=55"),
    "history": ("--speed=max",),
    "producer": ("--speed=86400x",),
}


@pytest.mark.timeout(900)  # Kafka's jars are fetched once, the kernel is compiled once
def test_the_stack_comes_up_and_ends(tmp_path: Path) -> None:
    """Both workers are scraped and share the partitions, the market is played, all end well."""
    said: list[str] = []
    stack = Stack(
        tmp_path / "stack", said.append, any_port=True, options=SMALLER, scrape_interval="1s"
    )
    try:
        with stack:
            stack.start()
            assert stack.prometheus is not None
            ask = stack.prometheus.query
            for _ in range(60):
                stack.watch(1)
                if ask("sum(hearback_refits_total) > 100"):
                    break
            assert [target["health"] for target in stack.prometheus.targets()] == ["up", "up"]
            owned = {s["metric"]["instance"]: s["value"][1] for s in ask("hearback_partitions")}
            assert len(owned) == 2, owned
            (partitions,) = ask("sum(hearback_partitions)")
            assert partitions["value"][1] == "24"
            assert ask("sum(hearback_refits_total) > 100"), "nothing is learned"
            types = {series["metric"]["type"] for series in ask("hearback_events_total > 0")}
            assert {"application", "engagement", "label"} <= types
            health = {rule["health"] for rule in stack.prometheus.rules()}
            assert health == {"ok"}
            assert not ask('ALERTS{alertstate="firing"}')
            for url in (process.url for process in stack.processes.values() if process.url):
                assert url in stack.addresses()
    except (MissingError, KafkaMissingError) as missing:
        pytest.skip(f"no stack: {missing}")
    for name in ("worker-1", "worker-2", "history"):
        assert stack.processes[name].done(), stack.processes[name].last_words()
    with pytest.raises(OSError, match="refused"):
        stack.prometheus.query("up")
