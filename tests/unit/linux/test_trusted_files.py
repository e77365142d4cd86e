"""What root opens for others: a file of root's by a way of root's, whatever other users put there."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.linux.trusted_files import open_regular, open_roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OTHER = 1234
BEGIN = os.O_RDWR | os.O_APPEND | os.O_CREAT
# An ACL that lets OTHER write: version, then tag, permissions and ID of owner, user, group, mask and others (acl(5)).
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 7, 0xFFFFFFFF), (2, 7, OTHER), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of root's in a file system with ACLs; pytest's own may be in another one."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        yield Path(made)


def opened(path: Path) -> str:
    """The name of the file that is opened, or why none is."""
    try:
        descriptor = open_roots(path, BEGIN, {OTHER})
    except OSError as error:
        return str(error.strerror)
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    finally:
        os.close(descriptor)


def given(path: Path, uid: int = OTHER) -> Path:
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


def made(path: Path, mode: int = 0o700, group: int = 0) -> Path:
    path.mkdir()
    os.chown(path, 0, group)
    path.chmod(mode)
    return path


def test_a_file_of_roots_is_begun_for_root_alone_and_opened_again(folder: Path) -> None:
    file = folder / "log"
    assert [opened(file), opened(file)] == [str(file), str(file)]
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 0)


def test_a_way_through_roots_links_and_the_folder_above_is_followed(folder: Path) -> None:
    place = made(folder / "place")
    (folder / "absolute").symlink_to(place)
    (folder / "relative").symlink_to("absolute/../place/.")
    for way in ("absolute", "relative", "place/../relative"):
        assert opened(folder / way / "log") == str(place / "log")


def _link(folder: Path) -> Path:
    (folder / "target").write_text("root's")
    (folder / "log").symlink_to(folder / "target")
    return folder / "log"


def _name(folder: Path) -> Path:
    (folder / "target").write_text("root's")
    (folder / "log").hardlink_to(folder / "target")
    return folder / "log"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "log")
    return folder / "log"


def _subfolder(folder: Path) -> Path:
    return made(folder / "log")


def _anothers_file(folder: Path) -> Path:
    (folder / "log").touch()
    return given(folder / "log")


def _anothers_folder(folder: Path) -> Path:
    return given(made(folder / "place", 0o755)) / "log"


def _below_anothers_folder(folder: Path) -> Path:
    made(folder / "place", 0o755)
    made(folder / "place/roots")
    return given(folder / "place") / "roots/log"


def _anothers_link(folder: Path) -> Path:
    made(folder / "roots")
    (folder / "place").symlink_to(folder / "roots")
    return given(folder / "place") / "log"


def _link_in_anothers_folder(folder: Path) -> Path:
    made(folder / "roots")
    made(folder / "anothers", 0o755)
    (folder / "anothers/place").symlink_to(folder / "roots")
    return given(folder / "anothers") / "place/log"


def _second_name_of_a_link(folder: Path) -> Path:
    made(folder / "roots")
    (folder / "place").symlink_to(folder / "roots")
    os.link(folder / "place", folder / "second", follow_symlinks=False)
    return folder / "second/log"


def _folder_that_everybody_writes(folder: Path) -> Path:
    return made(folder / "place", 0o777) / "log"


def _folder_that_the_group_writes(folder: Path) -> Path:
    return made(folder / "place", 0o770, OTHER) / "log"


def _folder_with_an_acl(folder: Path) -> Path:
    os.setxattr(made(folder / "place"), "system.posix_acl_access", ACL)
    return folder / "place/log"


def _loop(folder: Path) -> Path:
    (folder / "place").symlink_to(folder / "place")
    return folder / "place/log"


def _nothing(folder: Path) -> Path:
    return folder / "place/log"


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (_link, "Too many levels of symbolic links"),
        (_name, "it has another name"),
        (_pipe, "it is no regular file"),
        (_subfolder, "Is a directory"),
        (_anothers_file, "others than root can replace {folder}/log"),
        (_anothers_folder, "others than root can replace place"),
        (_below_anothers_folder, "others than root can replace place"),
        (_anothers_link, "others than root can replace place"),
        (_link_in_anothers_folder, "others than root can replace anothers"),
        (_second_name_of_a_link, "others than root can replace second"),
        (_folder_that_everybody_writes, "others than root can replace place"),
        (_folder_that_the_group_writes, "others than root can replace place"),
        (_folder_with_an_acl, "others than root can replace place"),
        (_loop, "Too many levels of symbolic links"),
        (_nothing, "No such file or directory"),
    ],
)
def test_what_another_user_could_have_chosen_is_not_opened(
    folder: Path, plant: Callable[[Path], Path], why: str
) -> None:
    path = plant(folder)
    assert opened(path) == why.format(folder=folder)
    assert not (folder / "roots/log").exists()
    assert len(list(folder.rglob("log"))) == (path.parent == folder), "nothing was begun"


def test_a_folder_that_others_write_is_good_with_the_sticky_bit_or_where_the_group_is_another(folder: Path) -> None:
    for number, (mode, group) in enumerate(((0o1777, 0), (0o775, OTHER + 1), (0o1770, OTHER))):
        file = made(folder / str(number), mode, group) / "log"
        assert opened(file) == str(file)


def test_a_pipe_is_not_waited_for_and_a_link_not_followed_by_its_owner_either(folder: Path) -> None:
    for plant in (_link, _pipe):
        with pytest.raises(OSError, match=r"symbolic links|no regular file"):
            open_regular(plant(folder), BEGIN)
        (folder / "log").unlink()
    os.close(open_regular(folder / "log", BEGIN))
    assert (folder / "log").stat().st_mode & 0o777 == 0o600


def test_no_descriptor_is_left_open_whether_it_is_opened_or_not(folder: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    opened(folder / "log")
    opened(_anothers_folder(folder))
    opened(folder / "gone/log")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
