"""An interrupted replay, resumed, ends with the bytes of one that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.cli import PROGRAM
from stream.errors import ConfigError
from stream.events.structs import DeadLetter
from stream.logs.files import LogLine, merge, write_lines
from stream.policy import DAY_MS, Policy
from stream.replay import single, stages
from stream.replay.reader import Reader, first_look
from stream.replay.resumable import replay_into
from stream.replay.run_folder import CHECKPOINT, FILES
from stream.replay.savepoint import Options
from tests.kit import parse_policy
from tests.replay.program import Arguments

MARKET = SimulationSettings(
    seed=7, members=300, jobs=60, days=20, global_score=True, applications_per_member=15
)
EVERY = 2500  # lines between checkpoints: several in this log
KILLS = 3


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated log with a jump of time that nothing confirms, and a broken line."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    lines = list(simulate(MARKET))
    jump = lines[10].replace(b'"event_time_ms":1', b'"event_time_ms":2')
    write_lines(path, [*lines[:900], b"{", jump, *lines[900:]])
    return path


def options(workers: int) -> Options:
    """Return how the log is replayed here."""
    return Options(
        close=True,
        max_jump_ms=100 * DAY_MS,
        workers=workers,
        flush_every=1024,
        checkpoint_every=EVERY,
    )


def replayed(
    log: Path,
    out: Path,
    chosen: Options,
    *,
    policy: Policy | None = None,
    resume: bool = False,
    stop_at: int | None = None,
) -> None:
    """Replay a log in this process; ``stop_at`` so many lines Ctrl-C comes."""

    def progress(count: int) -> None:
        if stop_at is not None and count >= stop_at:
            raise KeyboardInterrupt

    lines, space = first_look(merge([log]), None)
    replay_into(
        out, [log], lines, policy or Policy(), None, space, chosen, resume=resume, progress=progress
    )


def same_files(one: Path, other: Path) -> None:
    """Fail unless two runs wrote the same bytes."""
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def whole(log: Path) -> dict[int, Path]:
    """Return the uninterrupted runs of one process and of two."""
    runs = {workers: log.parent / f"whole-{workers}" for workers in (1, 2)}
    for workers, out in runs.items():
        replayed(log, out, options(workers))
    return runs


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments(log: Path, whole: dict[int, Path], workers: int) -> None:
    """Killed hard again and again, and resumed, a replay writes what it writes in one go."""
    out = log.parent / f"killed-{workers}"
    moments = random.Random(workers)
    kills = 0
    resume = False
    while True:
        arguments = Arguments(str(log), str(out), options(workers), resume)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.replay.program", msgspec.json.encode(arguments).decode()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if kills < KILLS:
            process.stdout.readline()  # the kernel is loaded, lines are being read
            time.sleep(moments.uniform(0.0, 1.0))
            process.kill()
            kills += 1
            process.communicate()
        else:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said
            break
        if (out / "metrics.json").exists() and not (out / CHECKPOINT).exists():
            break  # it was quicker
        resume = True
    same_files(whole[workers], out)
    assert not (out / CHECKPOINT).exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_what_can_be_resumed(log: Path, whole: dict[int, Path], workers: int) -> None:
    """After Ctrl-C, between two checkpoints, the replay goes on to the same bytes."""
    out = log.parent / f"stopped-{workers}"
    with pytest.raises(KeyboardInterrupt):
        replayed(log, out, options(workers), stop_at=EVERY * 2 + 600)
    assert any((out / CHECKPOINT).glob("[0-9]/progress.json"))
    shutil.copytree(out, log.parent / f"copy-{workers}")
    replayed(log, out, options(workers), resume=True)
    same_files(whole[workers], out)


def test_without_a_checkpoint_it_begins_anew(log: Path, whole: dict[int, Path]) -> None:
    """Interrupted before the first checkpoint, the same command still ends alike."""
    out = log.parent / "early"
    with pytest.raises(KeyboardInterrupt):
        replayed(log, out, options(1), stop_at=1)
    replayed(log, out, options(1), resume=True)
    same_files(whole[1], out)


def test_a_full_memory_flushes_at_the_same_lines(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what is held decides when to flush, a resumed replay flushes where the other did."""
    flushed: list[int] = []
    flush = single._Run.flush

    def counted(self: single._Run) -> None:
        flushed.append(self.reader.lines)
        flush(self)

    monkeypatch.setattr(stages, "MOST_HELD", 100)
    monkeypatch.setattr(single._Run, "flush", counted)
    chosen = Options(close=True, flush_every=1 << 20, checkpoint_every=EVERY)
    replayed(log, log.parent / "full", chosen)
    whole = list(flushed)
    assert len(whole) > 4
    with pytest.raises(KeyboardInterrupt):
        replayed(log, log.parent / "full-again", chosen, stop_at=EVERY * 2)
    flushed.clear()
    replayed(log, log.parent / "full-again", chosen, resume=True)
    assert flushed == whole[-len(flushed) :]
    same_files(log.parent / "full", log.parent / "full-again")


@pytest.mark.parametrize("read", [0, 1, 50, 101, 150])
def test_a_reader_goes_on_before_its_log_has_begun(log: Path, read: int) -> None:
    """A reader that waits for the first events to say where the log begins can be resumed too."""
    begun = list(islice(merge([log]), 300))
    jump = begun[10].raw.replace(b'"event_time_ms":1', b'"event_time_ms":2')
    lines = [LogLine("log", 0, jump), *begun]
    _, space = first_look(begun, None)
    whole, first, second = (
        Reader(space, Policy(), scored=False, max_jump_ms=100 * DAY_MS) for _ in range(3)
    )
    expected = [ready for line in lines for ready in whole.line(line)] + list(whole.end())
    found = [ready for line in lines[:read] for ready in first.line(line)]
    rest = iter(lines)
    second.skip(rest, first.state())
    found += [ready for line in rest for ready in second.line(line)]
    found += second.end()
    assert found == expected
    assert len(expected) == len(lines)
    assert isinstance(expected[-1], DeadLetter)


def test_another_replay_is_refused(log: Path, whole: dict[int, Path]) -> None:
    """Another log, policy or setting than the interrupted run's is refused in one line."""
    out = log.parent / "other"
    with pytest.raises(KeyboardInterrupt):
        replayed(log, out, options(1), stop_at=EVERY * 2)
    kept = {path: path.read_bytes() for path in out.glob("*.jsonl")}
    longer = log.parent / "longer" / log.name
    longer.parent.mkdir()
    longer.write_bytes(log.read_bytes() + b"{}\n")
    other = parse_policy("[effects.per_job]\nprior_precision = 2.0")
    for match, chosen, policy, path in (
        ("another log", options(1), None, longer),
        ("another --policy", options(1), other, log),
        ("another --workers", options(2), None, log),
        ("another --score-from", Options(close=True, score_from_ms=5, flush_every=1024), None, log),
    ):
        with pytest.raises(ConfigError, match=match):
            replayed(path, out, chosen, policy=policy, resume=True)
    changed = log.parent / "changed" / log.name
    changed.parent.mkdir()
    first, second, rest = log.read_bytes().split(b"\n", 2)
    changed.write_bytes(b"\n".join([second, first, rest]))
    assert {path: path.read_bytes() for path in out.glob("*.jsonl")} == kept
    with pytest.raises(ConfigError, match="its first 3,072 lines differ"):
        replayed(changed, out, options(1), resume=True)
    replayed(log, out, options(1), resume=True)
    same_files(whole[1], out)


def test_nothing_to_resume(log: Path, whole: dict[int, Path]) -> None:
    """A folder that holds no interrupted replay is refused, and so is a complete one."""
    with pytest.raises(ConfigError, match="holds no interrupted replay"):
        replayed(log, log.parent / "nowhere", options(1), resume=True)
    with pytest.raises(ConfigError, match="is complete"):
        replayed(log, whole[1], options(1), resume=True)
    assert not (log.parent / "nowhere").exists()


def test_who_is_killed_while_the_checkpoints_go_is_done(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the last thing of a replay is cut short it is complete, and what is left goes later."""
    out = log.parent / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # it is killed before
        replayed(log, out, options(1))
    assert (out / f"{CHECKPOINT}.removed").is_dir()
    with pytest.raises(ConfigError, match="is complete"):
        replayed(log, out, options(1), resume=True)
    assert not list(out.glob(f"{CHECKPOINT}*"))


def test_ctrl_c_says_how_to_go_on(log: Path) -> None:
    """Ctrl-C ends the command with exit code 130 and one line that says how to resume."""
    out = log.parent / "command"
    process = subprocess.Popen(
        [*PROGRAM, "replay", log, "--out", out, "--workers", "2", "--max-jump", "100d"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (out / "state" / "1").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.strip().splitlines()[-1].startswith("hearback: interrupted: the same command with")
    assert "Traceback" not in said
