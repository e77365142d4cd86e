"""The folder of keys on the controller."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from unit.collection_plugins import plugin

store = plugin("plugin_utils._key_store")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "a\nb", "-rf", "x" * 201, "ä"]
)
@pytest.mark.parametrize("place", ["host", "client"])
def test_a_name_that_could_leave_the_folder_is_refused(name: str, place: str) -> None:
    names = {"host": "web", "client": "alice", place: name}
    with pytest.raises(Exception, match="cannot be the name"):
        store.path("/keys", names["host"], names["client"])


@pytest.mark.parametrize("name", ["web1.example.org", "2001:db8::1", "[fe80::1%eth0]:2222", "a_b-c+d@e"])
def test_every_name_an_inventory_uses_is_good(name: str) -> None:
    assert store.path("/keys", name, name) == Path("/keys") / name / f"{name}.key"


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    file = store.path(str(tmp_path / "keys"), "web", "alice")
    assert store.create(file, "first")
    assert not store.create(file, "second")
    assert file.read_text(encoding="utf-8") == "first"
    assert [entry.name for entry in file.parent.iterdir()] == ["alice.key"]


def test_of_many_runs_at_once_one_makes_the_key(tmp_path: Path) -> None:
    file = store.path(str(tmp_path / "keys"), "web", "alice")
    start, made = threading.Barrier(8), []

    def make(number: int) -> None:
        start.wait()
        if store.create(file, f"key {number}"):
            made.append(f"key {number}")

    runs = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert made == [file.read_text(encoding="utf-8")]


def test_nobody_else_can_read_a_new_key_or_its_folder(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        file = store.path(str(tmp_path / "keys"), "web", "alice")
        store.create(file, "key")
    finally:
        os.umask(old)
    modes = [place.stat().st_mode & 0o777 for place in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


class Loader:
    """A loader that knows no vault."""

    def get_real_file(self, path: str) -> str:
        return path

    def cleanup_tmp_file(self, path: str) -> None: ...


@pytest.mark.parametrize(("mode", "good"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False)])
def test_a_plain_key_that_others_may_read_is_refused(tmp_path: Path, mode: int, *, good: bool) -> None:
    file = tmp_path / "x.key"
    file.write_text("key", encoding="utf-8")
    file.chmod(mode)
    loader: Any = Loader()
    if good:
        assert store.read(file, loader) == "key"
    else:
        with pytest.raises(Exception, match="others may read"):
            store.read(file, loader)


def test_no_key_is_no_error(tmp_path: Path) -> None:
    assert store.read(tmp_path / "x.key", Loader()) is None
