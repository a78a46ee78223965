"""The stores of one worker: thrown away whole, not kept for ever, and nobody else's to read."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from stream.errors import DamagedStateError, StateError
from stream.worker.changelog import TOO_OLD_MS
from stream.worker.data_folder import ASIDE_MS, CheckpointFolder, DataFolder, partition_ids_in


def test_a_store_that_cannot_be_removed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    """What is left of it would be read over."""
    data = DataFolder(tmp_path / "data", "test")
    data.store(("job", 0)).write({b"k": b"v"})
    with (
        patch.object(Path, "rename", side_effect=PermissionError(13, "Permission denied")),
        pytest.raises(StateError, match="cannot be removed: Permission denied"),
    ):
        data.renew(("job", 0))
    assert data.store(("job", 0)).get(b"k") == b"v"
    assert data.renew(("job", 0)).get(b"k") is None
    data.release()


def test_copies_of_what_went_elsewhere_leave_in_the_end(tmp_path: Path) -> None:
    """As soon as they would be begun anew; until then the partition may come back."""
    data = DataFolder(tmp_path / "data", "test")
    for number in range(3):
        data.store(("member", number)).write({b"k": b"v"})
    data.keep_only([("member", 0)])
    old = time.time() - TOO_OLD_MS / 1000 - 60
    for number in (0, 1):
        for path in (tmp_path / "data" / f"member-{number}").iterdir():
            os.utime(path, (old, old))
    data.keep_only([("member", 0)])
    assert partition_ids_in(tmp_path / "data") == [("member", 0), ("member", 2)]
    data.release()


def test_a_data_folder_is_closed_to_others(tmp_path: Path) -> None:
    """A new one, and one that an earlier release or an administrator has left open."""
    for mode in (None, 0o755, 0o777, 0o700):
        path = tmp_path / f"data-{mode}"
        if mode is not None:
            path.mkdir()
            path.chmod(mode)
        data = DataFolder(path, "test")
        assert path.stat().st_mode & 0o777 == 0o700
        assert not data.exposed
        data.release()


def test_a_folder_of_somebody_else_that_is_open_is_told(tmp_path: Path) -> None:
    """Its mode cannot be changed: the worker says so, and works."""
    tmp_path.chmod(0o777)
    with patch.object(Path, "chmod", side_effect=PermissionError(1, "not the owner")):
        data = DataFolder(tmp_path, "test")
    assert data.exposed
    data.release()


def test_a_checkpoint_is_closed_to_others(tmp_path: Path) -> None:
    """As the folder that it is a copy of."""
    data = DataFolder(tmp_path / "data", "test")
    copy = CheckpointFolder(tmp_path / "copy", "test")
    copy.add(("job", 0), data.store(("job", 0)))
    copy.finish()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
    data.release()


def test_a_damaged_store_is_put_aside_for_a_week(tmp_path: Path) -> None:
    """Only the newest of a partition; then it goes, with those who were forgotten since."""
    path = tmp_path / "data"
    data = DataFolder(path, "test")
    for value in (b"one", b"two"):
        data.store(("job", 0)).write({b"k": value})
        data.close(("job", 0))
        (manifest,) = (path / "job-0").glob("MANIFEST-*")
        manifest.write_bytes(manifest.read_bytes()[:20])
        assert data.store(("job", 0)).get(b"k") is None
    data.store(("job", 30)).write({b"k": b"v"})
    data.set_aside(("job", 30), DamagedStateError("a block cannot be read"))
    assert data.store(("job", 30)).get(b"k") is None
    assert data.damaged_stores == 2
    assert len(data.damaged) == 3
    (aside,) = path.glob("damaged-job-0-*")
    assert b"two" in b"".join(each.read_bytes() for each in aside.glob("*.[sl]*"))
    (path / "damaged-by-hand").mkdir()
    (path / "removed-job-7-1").mkdir()
    old = time.time_ns() - ASIDE_MS * 1_000_000
    aside.rename(path / f"damaged-job-0-{old - 1}")
    data.tidy()
    left = {each.name.rpartition("-")[0] for each in path.glob("*-*") if "d-" in each.name}
    assert left == {"damaged-by", "damaged-job-30"}
    assert data.damaged_stores == 1
    data.release()


def test_a_worker_that_goes_on_for_months_keeps_no_old_copies(tmp_path: Path) -> None:
    """They go without a rebalance, too; before the first one, all may be wanted."""
    data = DataFolder(tmp_path / "data", "test")
    for number in range(2):
        data.store(("member", number)).write({b"k": b"v"})
        data.close(("member", number))
    old = time.time() - TOO_OLD_MS / 1000 - 60

    def age() -> None:
        for each in (tmp_path / "data").glob("member-*/*"):
            os.utime(each, (old, old))

    age()
    data.tidy()
    assert partition_ids_in(tmp_path / "data") == [("member", 0), ("member", 1)]
    for each in (tmp_path / "data").glob("member-*/*"):
        each.touch()
    data.keep_only([("member", 0)])
    assert partition_ids_in(tmp_path / "data") == [("member", 0), ("member", 1)]
    age()
    data.tidy()
    assert partition_ids_in(tmp_path / "data") == [("member", 0)]
    data.release()
