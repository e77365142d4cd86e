"""Files that root opens for a process with fewer rights: no other user can have chosen which file it is.

A link, a folder or a second name of another user's making would lead root's rights to a file of that user's choice.
Source: path_resolution(7), openat(2), acl(5).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS_MAX: Final = 40  # as the kernel's
_ACL: Final = "system.posix_acl_access"


def open_regular(path: Path | str, flags: int, folder: int | None = None) -> int:
    """Open a regular file that has one name, or begin it for its owner alone: no link is followed, no pipe waited for.

    Raises:
        OSError: it cannot be opened, or is no such file.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=folder)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it has another name" if stat.S_ISREG(found.st_mode) else "it is no regular file")


def open_roots(path: Path, flags: int, groups: Collection[int]) -> int:
    """Open a file of root's as open_regular(); every step that leads to it is root's too, links included.

    A folder that everybody or one of these groups can write must have the sticky bit, as /tmp has it: then nobody can
    put what is root's in the place of something else of root's.

    Raises:
        OSError: it cannot be opened, or another user could have chosen which file it is.
    """
    with ExitStack() as opened:
        folder = _folder(path.parent, groups, opened)
        descriptor = open_regular(path.name, flags, folder)
        if os.fstat(descriptor).st_uid == 0:
            return descriptor
        os.close(descriptor)
        raise _anothers(path)


def _folder(path: Path, groups: Collection[int], opened: ExitStack) -> int | None:
    """A descriptor of a folder, made step by step; `opened` closes it."""
    steps, links, folder = [*reversed(path.parts)], 0, None
    while steps:
        step = os.open(name := steps.pop(), _STEP, dir_fd=folder)
        opened.callback(os.close, step)
        found = os.fstat(step)
        if found.st_uid != 0 or _others_can_replace(step, found, groups):
            raise _anothers(name)
        if not stat.S_ISLNK(found.st_mode):
            folder = step
        elif (links := links + 1) > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        else:
            steps += reversed(PurePath(os.readlink("", dir_fd=step)).parts)
    return folder


def _others_can_replace(step: int, found: os.stat_result, groups: Collection[int]) -> bool:
    """Whether another user can replace what is in a folder; of a link, whether one can have made this name of it."""
    if not stat.S_ISDIR(found.st_mode):
        return found.st_nlink > 1
    if found.st_mode & stat.S_ISVTX:
        return False
    if found.st_mode & stat.S_IWOTH:
        return True
    by_group = bool(found.st_mode & stat.S_IWGRP)  # with an ACL: by anybody whom it names
    return by_group and (found.st_gid in groups or _ACL in os.listxattr(f"/proc/self/fd/{step}"))


def _anothers(step: Path | str) -> OSError:
    return PermissionError(errno.EPERM, f"others than root can replace {step}")
