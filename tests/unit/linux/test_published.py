"""A file for others, replaced in one step; no link leads the writer elsewhere."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from doorward.linux.published import publish

if TYPE_CHECKING:
    from pathlib import Path


def refused(path: Path) -> int | None:
    """The error number of a file that cannot be written."""
    with pytest.raises(OSError, match=r".") as raised:
        publish(path, b"new")
    return raised.value.errno


def test_all_can_read_it_whatever_the_umask_is(tmp_path: Path) -> None:
    file, before = tmp_path / "a.prom", os.umask(0o077)
    try:
        for content in (b"one", b"two"):
            publish(file, content)
            assert (file.read_bytes(), file.stat().st_mode & 0o777) == (content, 0o644)
    finally:
        os.umask(before)
    assert [one.name for one in tmp_path.iterdir()] == ["a.prom"]


def test_a_reader_finds_the_old_one_or_the_new_one_and_nothing_between(tmp_path: Path) -> None:
    file, contents, ended = tmp_path / "a.prom", {b"a" * 1_000_000, b"b" * 1_000_000}, threading.Event()
    publish(file, b"a" * 1_000_000)
    found = set()

    def read() -> None:
        while not ended.is_set():
            found.add(file.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(20):
            for content in contents:
                publish(file, content)
    finally:
        ended.set()
        reader.join()
    assert found <= contents
    assert found


def test_a_folder_that_is_a_link_or_missing_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    (real / "link").symlink_to(real / "deep")
    (tmp_path / "file").write_text("")
    for folder in ("link", "link/deep", "real/link", "file"):
        assert refused(tmp_path / folder / "a.prom") == errno.ELOOP
    assert refused(tmp_path / "missing" / "a.prom") == errno.ENOENT
    publish(real / "deep" / "a.prom", b"new")
    assert [one for one in tmp_path.rglob("*.prom") if not one.parent.is_symlink()] == [real / "deep" / "a.prom"]


@pytest.mark.parametrize("name", ["a.prom", ".a.prom.new"])
def test_a_link_of_its_name_is_replaced_and_what_it_names_is_left_alone(tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    other.write_text("another's")
    (tmp_path / name).symlink_to(other)
    publish(tmp_path / "a.prom", b"new")
    assert other.read_text() == "another's"
    assert not (tmp_path / "a.prom").is_symlink()
    assert (tmp_path / "a.prom").read_bytes() == b"new"


def test_what_is_left_of_a_killed_process_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".a.prom.new").write_bytes(b"half of i")
    publish(tmp_path / "a.prom", b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["a.prom"]


def test_a_folder_of_its_name_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.prom").mkdir()
    assert refused(tmp_path / "a.prom") == errno.EISDIR
    assert [one.name for one in tmp_path.iterdir()] == ["a.prom"]
