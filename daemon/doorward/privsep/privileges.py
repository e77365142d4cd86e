"""Giving up power for good: user, groups, capabilities. Source: capabilities(7), prctl(2)."""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
from typing import TYPE_CHECKING, Final

from doorward.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Iterable

CAP_NET_BIND_SERVICE: Final = 10  # linux/capability.h
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
USERS: Final = ("doorward", "nobody")  # the first that exists; the role and the package make the first
_CAP_LAST: Final = 63
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_KEEPCAPS, _PR_SET_DUMPABLE = 24, 38, 8, 4
_VERSION_3: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_SETS: Final = struct.Struct("=6I")  # struct __user_cap_data_struct twice: effective, permitted, inheritable
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def account() -> pwd.struct_passwd:
    """Return the account that the listener runs as.

    Raises:
        HelperError: this system has none of them.
    """
    known = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_name in USERS}
    for name in USERS:
        if name in known:
            return known[name]
    msg = f"this system has none of the users {', '.join(USERS)}"
    raise HelperError(msg)


def become(user: pwd.struct_passwd) -> None:
    """Become a user without groups and without a way back, and hide from others of the same user."""
    keep_capabilities(())
    if os.geteuid() != user.pw_uid:
        os.setgroups([])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    _limit(())
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def keep_only(capabilities: Iterable[int], where_given: Iterable[int] = ()) -> None:
    """Keep these capabilities and no others, for this process and all it starts.

    Those of `where_given` are kept where this process has them; a unit may have left them out.
    """
    permitted = _sets()[1]
    chosen = (*capabilities, *(number for number in where_given if permitted >> number & 1))
    keep_capabilities(chosen)
    _limit(chosen)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)  # it holds the keys too: none of them goes into a core file


def hide() -> None:
    """Keep this process from being looked into, and its keys out of core files."""
    _prctl(_PR_SET_DUMPABLE, 0)


def keep_capabilities(capabilities: Iterable[int]) -> None:
    """Take the others out of the bounding set, where that is still allowed."""
    chosen = set(capabilities)
    for number in range(_CAP_LAST + 1):
        if number not in chosen:
            _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # refused without CAP_SETPCAP: then there is nothing to drop


def _limit(capabilities: Iterable[int]) -> None:
    """Set effective and permitted to exactly these, inheritable to none (capset(2)).

    A service manager may have done it already, and have forbidden the call.
    """
    mask = sum(1 << number for number in capabilities)
    if _sets() == (mask, mask, 0):
        return
    low, high = mask & 0xFFFFFFFF, mask >> 32
    sets = ctypes.create_string_buffer(_SETS.pack(low, low, 0, high, high, 0), _SETS.size)
    if _LIBC.capset(_header(), sets):
        msg = f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}"
        raise HelperError(msg)


def _sets() -> tuple[int, int, int]:
    """Return effective, permitted and inheritable as masks (capget(2))."""
    sets = ctypes.create_string_buffer(_SETS.size)
    if _LIBC.capget(_header(), sets):
        msg = f"capabilities cannot be read: {os.strerror(ctypes.get_errno())}"
        raise HelperError(msg)
    low, high = _SETS.unpack(sets.raw)[:3], _SETS.unpack(sets.raw)[3:]
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _header() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0):
        msg = f"prctl {option} is refused: {os.strerror(ctypes.get_errno())}"
        raise HelperError(msg)
