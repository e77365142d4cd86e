from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from doorward.linux.files import create, replace_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    create(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_file_or_a_link_that_exists_is_not_written_through(tmp_path: Path) -> None:
    old, link = tmp_path / "old", tmp_path / "link"
    old.write_bytes(b"old")
    link.symlink_to(tmp_path / "elsewhere")
    for place in (old, link):
        with pytest.raises(FileExistsError):
            create(place, b"new")
    assert old.read_bytes() == b"old"
    assert not (tmp_path / "elsewhere").exists()


def test_a_replaced_file_is_new_and_closed_and_a_link_is_replaced_itself(tmp_path: Path) -> None:
    old, link = tmp_path / "old", tmp_path / "link"
    old.write_bytes(b"old")
    old.chmod(0o644)
    link.symlink_to(old)
    replace_file(link, b"new")
    assert (link.read_bytes(), old.read_bytes()) == (b"new", b"old")
    assert not link.is_symlink()
    with old.open("rb") as reader:
        replace_file(old, b"newer")
        assert reader.read() == b"old"
    assert old.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "old"]


def test_a_file_that_a_killed_process_of_this_number_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / f".f.{os.getpid()}.new"
    left.symlink_to(tmp_path / "elsewhere")
    replace_file(tmp_path / "f", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        replace_file(folder, b"new")
    with pytest.raises(OSError, match="No such file"):
        replace_file(tmp_path / "missing" / "f", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_root_leaves_another_users_file_to_that_user(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")
    os.chown(file, 12345, 12346)
    replace_file(file, b"new")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)
