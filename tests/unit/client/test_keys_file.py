from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from doorward.client import keys
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "KEY_BASE64: x\nHMAC_KEY_BASE64: y\n"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("force", [False, True])
def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int, *, force: bool) -> None:
    before = os.umask(umask)
    try:
        keys.write(TEXT, tmp_path / "key", force=force)
    finally:
        os.umask(before)
    assert (tmp_path / "key").read_text() == TEXT
    assert mode(tmp_path / "key") == 0o600


def test_an_existing_file_is_never_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old")
    with pytest.raises(ClientError, match="exists"):
        keys.write(TEXT, tmp_path / "key")
    assert (tmp_path / "key").read_text() == "old"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClientError, match="exists"):
        keys.write(TEXT, tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()


def test_force_replaces_a_file_or_a_link_by_a_new_private_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    keys.write(TEXT, tmp_path / "key", force=True)
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert (tmp_path / "key").read_text() == TEXT
    assert mode(tmp_path / "key") == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "key"]


@pytest.mark.parametrize("force", [False, True])
def test_a_write_that_fails_half_way_leaves_no_half_file(tmp_path: Path, *, force: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(ClientError, match="File too large"):
            keys.write(TEXT, tmp_path / "key", force=force)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_does_not_exist_is_told(tmp_path: Path, *, force: bool) -> None:
    with pytest.raises(ClientError, match="No such file or directory"):
        keys.write(TEXT, tmp_path / "missing" / "key", force=force)
