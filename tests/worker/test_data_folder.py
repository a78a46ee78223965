"""The stores of one worker: thrown away whole, not kept for ever, and nobody else's to read."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from stream.errors import StateError
from stream.worker.changelog import TOO_OLD_MS
from stream.worker.data_folder import CheckpointFolder, DataFolder, partition_ids_in


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
