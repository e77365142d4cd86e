"""What some systems lack: flags of open(2), numbers of users, rights in a file's mode. Windows has none of them."""

from __future__ import annotations

import os
import stat

HOSTS_RUN_HERE = hasattr(os, "memfd_create")  # a host is Linux; a person's machine need not be
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def flags(*names: str) -> int:
    """The flags of open(2) that this system has, without the others: `O_NOFOLLOW` and its like."""
    found = 0
    for name in names:
        found |= int(getattr(os, name, 0))
    return found


def user() -> int | None:
    """The number of the effective user; None where users have no numbers."""
    number = getattr(os, "geteuid", None)
    return None if number is None else int(number())


def is_own(status: os.stat_result) -> bool:
    """Whether a file is this user's."""
    return user() in {None, status.st_uid}


def others_write(status: os.stat_result) -> bool:
    """Whether others than root and this user can write a file, as far as owner and mode say it."""
    mine = user()
    return mine is not None and (status.st_uid not in {0, mine} or bool(status.st_mode & _OTHERS_WRITE))


def mode(status: os.stat_result) -> int:
    """The rights in a file's mode; those of its owner alone where a mode says nothing about others."""
    return stat.S_IMODE(status.st_mode) & (0o777 if user() is not None else 0o700)


def login() -> str | None:
    """The name of this process's user among the system's accounts."""
    try:
        import pwd  # noqa: PLC0415  Windows has none

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return None
