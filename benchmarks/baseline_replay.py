"""lambda-learner on the labels of a replay; runs in the baselines' environment.

``python baseline_replay.py WORK.jsonl`` does what a user of lambda-learner would write to have the
replay's job done: reads the log, and for each label of ``labels.jsonl`` (the labelling is a present
to it) updates the member's and the job's model, one label a batch, full Hessian, the models in a
dictionary in memory. Prints the seconds, all but the imports. Imports nothing of hearback.

Each line of the input is a log line or a label.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from baseline_methods import LambdaLearner  # type: ignore[import-not-found]


def main() -> None:
    """Work through the lines."""
    lines = Path(sys.argv[1]).read_bytes().splitlines()
    decode = msgspec.json.Decoder().decode
    models: dict[tuple[str, str], Any] = {}
    begin = time.perf_counter()
    for line in lines:
        event = decode(line)
        if event["type"] != "label":
            continue
        for effect, entity, other in (
            ("per_member", event["member_id"], event["job_score"]),
            ("per_job", event["job_id"], event["member_score"]),
        ):
            z = np.array(event["features"][effect])
            model = models.get((effect, entity))
            if model is None:
                model = models[effect, entity] = LambdaLearner(len(z), precision=3.0, delta=1.0)
            model.learn(z, event["label"], event["global_score"] + other)
    print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
