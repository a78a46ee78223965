"""How soon what was learned is served: a worker and a service on a real Kafka.

A simulated log is played at a steady 1,000 events a second; a worker learns, a service follows, on
the cores that the broker and the producer use too. What is printed is the service's own metric:
from an event's arrival in Kafka until the coefficients that were learned of it are served, once
everybody has warmed up; and the CPU that worker and service took for an event. The Kafka is that of
``benchmarks.worker``. The last line is one JSON object.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serve import cpu_s
from benchmarks.worker import (
    SETTLING_S,
    STEADY_PER_S,
    STEADY_S,
    Market,
    Worker,
    fresh_topics,
    play,
    real_kafka,
)
from stream.cli import PROGRAM
from stream.metrics.service import SERVED

PARTITIONS = 2


class Service:
    """``hearback serve`` beside a worker."""

    def __init__(self, broker: str, market: Market, application_id: str) -> None:
        self._log = market.folder / "serve.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(*PROGRAM, "serve", "--broker", broker, "--port", "0"),
                    *("--model", str(market.folder / "model"), "--app-id", application_id),
                ],
                stderr=log,
            )

    def url(self) -> str:
        """Wait until it listens; return where."""
        while True:
            found = re.search(r"(http://\S+)/v1/score", self._log.read_text())
            if found:
                return found[1]
            if self.process.poll() is not None:
                sys.exit(self._log.read_text())
            time.sleep(0.1)

    def counts(self) -> np.ndarray:
        """Return how many coefficients were served within each bound of the metric's buckets."""
        with urllib.request.urlopen(f"{self.url()}/metrics", timeout=5) as page:  # noqa: S310
            text = page.read().decode()
        return np.array(
            [
                sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == f"{SERVED.name}_bucket"
            ]
        )


def quantile(counts: np.ndarray, share: float) -> float:
    """Return the quantile (s) of cumulative counts by bound, by straight lines between bounds."""
    bounds = [0.0, *(SERVED.buckets or ()), np.inf]
    return float(np.interp(share * counts[-1], [0.0, *counts], bounds))


def main() -> None:
    """Measure, print."""
    with tempfile.TemporaryDirectory() as name, real_kafka(Path(name) / "kafka") as broker:
        market = Market(Path(name))
        application_id = fresh_topics(broker, PARTITIONS)
        worker = Worker(broker, market, application_id)
        service = Service(broker, market, application_id)
        try:
            worker.wait_for_partitions(PARTITIONS)
            service.url()
            done = threading.Event()
            threading.Thread(target=play, args=(broker, market, done), daemon=True).start()
            time.sleep(SETTLING_S)
            before, began_s = service.counts(), time.perf_counter()
            taken = [worker.cpu_seconds(), cpu_s(service.process.pid)]
            done.wait()
            counts = service.counts() - before
            events = STEADY_PER_S * min(time.perf_counter() - began_s, STEADY_S - SETTLING_S)
            now = [worker.cpu_seconds(), cpu_s(service.process.pid)]
        finally:
            worker.stop()
            service.process.kill()
            service.process.wait()
    worker_us, service_us = (1e6 * (n - t) / events for n, t in zip(now, taken, strict=True))
    within = counts[list(SERVED.buckets or ()).index(1.0)] / counts[-1]
    found = {
        "coefficients": int(counts[-1]),
        "p50_ms": round(1e3 * quantile(counts, 0.5)),
        "p99_ms": round(1e3 * quantile(counts, 0.99)),
        "within_1_s": round(float(within), 4),
        "worker_us": round(worker_us),
        "service_us": round(service_us),
    }
    print(
        f"{found['coefficients']:,} coefficients, {STEADY_PER_S} events/s: p50 {found['p50_ms']}"
        f" ms, p99 {found['p99_ms']} ms, {within:.2%} within a second; CPU of an event: worker"
        f" {worker_us:.0f} µs, service {service_us:.0f} µs"
    )
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
