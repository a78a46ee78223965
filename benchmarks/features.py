"""What it costs to make the features of one application's attributes.

Thirty attributes, as a company may have them: 20 numbers (half of them as logarithms, each with a
column that says where it is missing), 8 categories and 2 lists of 5 terms, of the member and of the
job in equal parts. Every feature goes to the global block, the job's to the block per member too,
the member's to the block per job. Applications are made one at a time, as a worker reads them; of
``ROUNDS`` the fastest counts, by CPU time.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from stream.features.fitting import SpecFitter
from stream.features.making import Maker
from stream.features.spec import parse_spec

ROUNDS = 7
APPLICATIONS = 3_000
MOST_US = 20.0

_NUMBERS, _CATEGORIES, _LIST = 10, 4, 5
LOGS = ("false", "true")
_SIDES = {"member": '["global", "per_job"]', "job": '["global", "per_member"]'}


def spec() -> str:
    """Write the spec of the thirty attributes."""
    return "\n".join(
        table
        for side, blocks in _SIDES.items()
        for table in (
            *(
                _table(f"{side}.n{at}", "number", blocks, f"missing = true\nlog1p = {LOGS[at % 2]}")
                for at in range(_NUMBERS)
            ),
            *(_table(f"{side}.c{at}", "category", blocks, "") for at in range(_CATEGORIES)),
            _table(f"{side}.terms", "terms", blocks, "hashed = 16"),
        )
    )


def _table(of: str, kind: str, blocks: str, options: str) -> str:
    name = of.replace(".", "_")
    return f'[features.{name}]\nkind = "{kind}"\nof = "{of}"\n{options}\nblocks = {blocks}\n'


def attributes(rng: np.random.Generator) -> dict[str, Any]:
    """Say something of one side."""
    numbers = rng.lognormal(3.0, 1.0, _NUMBERS).round(2).tolist()
    values, terms = rng.integers(0, 30, _CATEGORIES), rng.choice(200, _LIST, replace=False)
    return {
        **{f"n{at}": number for at, number in enumerate(numbers)},
        **{f"c{at}": f"value {value}" for at, value in enumerate(values)},
        "terms": [f"term {term}" for term in terms],
    }


def main() -> None:
    """Measure, and say whether the limit is kept."""
    rng = np.random.default_rng(1)
    rows = [(attributes(rng), attributes(rng)) for _ in range(APPLICATIONS)]
    fitter = SpecFitter(parse_spec(spec()))
    for member, job in rows:
        fitter.add(member, job, {}, 0)
    maker = Maker(fitter.fitted())
    fastest = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        for member, job in rows:
            maker.blocks(member, job, {}, 0)
        fastest = min(fastest, (time.process_time() - begin) / APPLICATIONS * 1e6)
    columns = {block: len(names) for block, names in maker.names.items()}
    print(f"{fastest:.1f} µs per application; columns: {columns}")
    found = {"us_per_application": round(fastest, 2), "limit_us": MOST_US, "columns": columns}
    print(msgspec.json.encode(found).decode())
    if fastest > MOST_US:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
