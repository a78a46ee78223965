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
    "refresh": ("--margin=1",),
}

PATIENCE_S = 120

TRUE_IN_THE_END = (
    'sum(up{job="hearback"}) == 2',
    "sum(hearback_ready) == 2",
    "count(count by (instance) (hearback_partitions > 0)) == 2",
    "sum(hearback_partitions) == 24",
    "sum(hearback_refits_total) > 100",
    *(f'sum(hearback_events_total{{type="{kind}"}}) > 0' for kind in ("application", "label")),
    'sum(hearback_quality_applications{judged="final"}) > 0',
    "sum(hearback_serve_ready) == 1",
    'sum(hearback_serve_requests_total{route="/v1/rank",status="200"}) > 100',
)


@pytest.mark.timeout(900)  # Kafka's jars are fetched once, the kernel is compiled once
def test_the_stack_comes_up_and_ends(tmp_path: Path) -> None:
    """Partitions are shared, a market played, its model refreshed, recruiters served; all end."""
    said: list[str] = []
    stack = Stack(
        tmp_path / "stack", said.append, any_port=True, options=SMALLER, scrape_interval="1s"
    )
    try:
        with stack:
            stack.start()
            assert stack.prometheus is not None
            ask = stack.prometheus.query
            left = set(TRUE_IN_THE_END)
            for _ in range(PATIENCE_S):
                stack.watch(1)
                left -= {query for query in left if ask(query)}
                if not left:
                    break
            assert not left
            while "scores applications from" not in stack.processes["refresh"].log.read_text():
                stack.watch(1)  # until the test's time is over
            health = {rule["health"] for rule in stack.prometheus.rules()}
            assert health == {"ok"}
            assert not ask('ALERTS{alertstate="firing",severity="page"}')
            assert list((tmp_path / "stack" / "kafka").glob("liblz4-*.so"))  # and not in /tmp
            for url in (process.url for process in stack.processes.values() if process.url):
                assert url in stack.addresses()
    except (MissingError, KafkaMissingError) as missing:
        pytest.skip(f"no stack: {missing}")
    for name in ("worker-1", "worker-2", "history", "refresh", "serve", "recruiters"):
        assert stack.processes[name].done(), stack.processes[name].last_words()
    with pytest.raises(OSError, match="refused"):
        stack.prometheus.query("up")
