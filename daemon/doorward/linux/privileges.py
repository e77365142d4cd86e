"""Giving up power for good: user, groups, capabilities, resource limits; and the check of a socket's peer.

Source: capabilities(7), prctl(2), setrlimit(2), unix(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import signal
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CAP_CHOWN: Final = 0  # linux/capability.h
CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
CAP_NET_BIND_SERVICE: Final = 10
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
_NAMES: Final = {
    CAP_CHOWN: "CHOWN",
    CAP_SETGID: "SETGID",
    CAP_SETUID: "SETUID",
    CAP_NET_ADMIN: "NET_ADMIN",
    CAP_NET_RAW: "NET_RAW",
}
_PROCESS: Final = Path("/proc/self")
USERS: Final = ("doorward", "nobody")  # the first that exists; role and package make doorward
_CAP_LAST: Final = 63
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_VERSION_3: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_SETS: Final = struct.Struct("=6I")  # struct __user_cap_data_struct twice: effective, permitted, inheritable
_PEER: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def account() -> pwd.struct_passwd:
    """The account that the listener runs as.

    Raises:
        HelperError: this system has none of them.
    """
    known = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_name in USERS}
    for name in USERS:
        if name in known:
            return known[name]
    msg = f"this system has none of the users {', '.join(USERS)}"
    raise HelperError(msg)


def require(capabilities: Iterable[int]) -> None:
    """Check that this process has capabilities.

    Raises:
        HelperError: it lacks one; the text has the remedy.
    """
    permitted = _sets()[1]
    lacking = [_NAMES[number] for number in capabilities if not permitted >> number & 1]
    if lacking:
        names, options = (
            " and ".join(f"CAP_{name}" for name in lacking),
            " ".join(f"--cap-add={name}" for name in lacking),
        )
        msg = (
            f"{names} missing here: start the container with {options}, or leave it to the unit (CapabilityBoundingSet)"
        )
        raise HelperError(msg)


def require_user(user: pwd.struct_passwd) -> None:
    """Check that this process, with its capabilities, can become a user.

    Raises:
        HelperError: its user namespace does not have the user, or forbids setgroups(2).
    """
    ids = {"uid_map": user.pw_uid, "gid_map": user.pw_gid}
    if all(_is_mapped(number, (_PROCESS / name).read_text("ascii")) for name, number in ids.items()):
        setgroups = _PROCESS / "setgroups"
        if not setgroups.exists() or setgroups.read_text("ascii").strip() == "allow":
            return
    msg = f"the user {user.pw_name} cannot be had in this user namespace: map all of its users (/etc/subuid, --userns)"
    raise HelperError(msg)


def _is_mapped(number: int, table: str) -> bool:
    """Whether a user namespace has an ID (user_namespaces(7): first inside, first outside, count)."""
    spans = (tuple(map(int, line.split())) for line in table.splitlines())
    return any(first <= number < first + count for first, _, count in spans)


def become(user: pwd.struct_passwd) -> None:
    """Become a user for good, without groups, and hide from other processes of that user.

    Raises:
        HelperError: the kernel refuses.
    """
    keep_capabilities(())
    try:
        if os.geteuid() != user.pw_uid:
            os.setgroups([])
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except OSError as error:
        msg = f"the user {user.pw_name} cannot be had: {error.strerror} (CAP_SETUID, CAP_SETGID)"
        raise HelperError(msg) from error
    _hold(())
    gain_nothing()
    hide()


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Act as another user in the block, without groups, where this process is root; else as before.

    Raises:
        OSError: the kernel refuses.
    """
    if os.geteuid() or not uid:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    try:
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def keep_only(capabilities: Iterable[int], where_given: Iterable[int] = ()) -> None:
    """Keep only these capabilities, for this process and its children.

    Those of `where_given` are kept where this process has them; a unit may have left them out.
    """
    capabilities = tuple(capabilities)
    require(capabilities)
    permitted = _sets()[1]
    chosen = (*capabilities, *(number for number in where_given if permitted >> number & 1))
    keep_capabilities(chosen)
    _hold(chosen)
    gain_nothing()
    hide()  # it holds keys


def hide() -> None:
    """Refuse ptrace(2) and core files."""
    _prctl(_PR_SET_DUMPABLE, 0)


def limit(limits: Iterable[tuple[int, int]], *, where_allowed: bool = False) -> None:
    """Lower resource limits, each a RLIMIT_… and its value; a limit that is lower stays.

    `where_allowed` passes over a service manager that forbids setrlimit(2): its unit has limits of its own.
    """
    for kind, most in limits:
        with contextlib.suppress(*((OSError, ValueError) if where_allowed else ())):  # EPERM is a ValueError here
            hard = resource.getrlimit(kind)[1]
            chosen = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (chosen, chosen))


def check_peer(channel: socket.socket) -> int:
    """Check that a connection comes from the listener's user, and return its PID.

    Raises:
        HelperError: it comes from another user.
    """
    pid, uid, _ = _PEER.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid != account().pw_uid:
        msg = f"a process of uid {uid} is not the listener"
        raise HelperError(msg)
    return int(pid)


def die_with_parent() -> None:
    """Have this process killed when its parent ends. A change of account resets this."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parents end."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def gain_nothing() -> None:
    """Gain no power by set-user-ID programs, in this process and its children."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def keep_capabilities(capabilities: Iterable[int]) -> None:
    """Drop the other capabilities from the bounding set, where that is allowed."""
    chosen = set(capabilities)
    for number in range(_CAP_LAST + 1):
        if number not in chosen:
            _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # EPERM without CAP_SETPCAP: there is no power to drop then


def _hold(capabilities: Iterable[int]) -> None:
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
    """The effective, permitted and inheritable capabilities, as masks (capget(2))."""
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
