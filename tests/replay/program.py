"""A replay that is to be killed: ``python -m tests.replay.program`` with JSON of its arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from stream.logs.files import merge
from stream.policy import Policy
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.savepoint import Options
from stream.updaters.newton import warm_up


class Arguments(msgspec.Struct, frozen=True):
    """What to replay, and whether to go on."""

    log: str
    out: str
    options: Options
    resume: bool = False


def run(arguments: Arguments) -> None:
    """Replay a log of applications with global scores."""
    log = Path(arguments.log)
    lines, space = first_look(merge([log]), None)
    warm_up()
    replay_into(
        Path(arguments.out), [log], lines, Policy(), None, space, arguments.options,
        resume=arguments.resume, progress=lambda count: print(count, flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=Arguments))
