"""The listener's system call filter: no new socket, nothing sent or changed on the ones it has, no new process.

On top of what a service manager sets, and the only one where there is none. A capture socket can send frames and be
bound anew even without capabilities, and its filter can be taken off; after this filter it can only be read.
Source: seccomp(2), linux/seccomp.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Final

from doorward.errors import HelperError

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_HAS: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; both machines are little endian
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_REFUSE: Final = 0x00050000 | errno.EPERM
_REFUSE_AS_UNKNOWN: Final = 0x00050000 | errno.ENOSYS  # glibc then makes its threads by clone(2)
_CLONE3: Final = 435  # everywhere; its flags are in memory, where no filter sees them
_CLONE_THREAD: Final = 0x10000  # what has it can neither outlive this process nor be in other namespaces
_X32: Final = 0x40000000  # system calls of the x32 ABI, a second door to the same calls
_STEP: Final = struct.Struct("=HBBI")
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2

_CLONE: Final = {"x86_64": 56, "aarch64": 220}
# Numbers per machine: AUDIT_ARCH, then the calls by name (asm/unistd_64.h, asm-generic/unistd.h).
_MACHINES: Final[dict[str, tuple[int, dict[str, int]]]] = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50, "socketpair": 53,
            "setsockopt": 54, "sendmmsg": 307, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "ptrace": 101,
            "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438, "bpf": 321, "io_uring_setup": 425,
            "io_uring_enter": 426, "io_uring_register": 427, "userfaultfd": 323, "keyctl": 250, "add_key": 248,
            "request_key": 249, "unshare": 272, "setns": 308, "mount": 165, "chroot": 161, "open_by_handle_at": 304,
            "perf_event_open": 298, "kexec_load": 246, "init_module": 175, "finit_module": 313, "modify_ldt": 154,
            "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
            "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198, "connect": 203, "sendto": 206, "sendmsg": 211, "bind": 200, "listen": 201, "socketpair": 199,
            "setsockopt": 208, "sendmmsg": 269, "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270,
            "process_vm_writev": 271, "pidfd_getfd": 438, "bpf": 280, "io_uring_setup": 425, "io_uring_enter": 426,
            "io_uring_register": 427, "userfaultfd": 282, "keyctl": 219, "add_key": 217, "request_key": 218,
            "unshare": 97, "setns": 268, "mount": 40, "chroot": 51, "open_by_handle_at": 265, "perf_event_open": 241,
            "kexec_load": 104, "init_module": 105, "finit_module": 273,
            "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
            "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430,
        },
    ),
}  # fmt: skip  # a table of numbers reads better in lines of many

# What gpg and its agent need of what the listener may not call; sockets, signals and clones are looked at more closely.
_FOR_GNUPG: Final = frozenset({
    "socket", "connect", "sendto", "sendmsg", "bind", "listen", "socketpair", "setsockopt", "sendmmsg", "fork", "vfork",
    "execve", "kill",
})  # fmt: skip
_CLONE_NAMESPACES: Final = 0x7E020080  # every CLONE_NEW… of linux/sched.h
_AF_UNIX: Final = 1

# What the reader of TCP connections may call at all; write(2) and close(2) are looked at more closely.
_READER: Final[dict[str, dict[str, int]]] = {
    "x86_64": {
        "read": 0, "fstat": 5, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
        "mremap": 25, "madvise": 28, "recvfrom": 45, "getsockname": 51, "getsockopt": 55, "exit": 60, "futex": 202,
        "clock_gettime": 228, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233, "epoll_pwait": 281,
        "accept4": 288, "getrandom": 318, "restart_syscall": 219,
    },
    "aarch64": {
        "read": 63, "fstat": 80, "munmap": 215, "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135,
        "rt_sigreturn": 139, "mremap": 216, "madvise": 233, "recvfrom": 207, "getsockname": 204, "getsockopt": 209,
        "exit": 93, "futex": 98, "clock_gettime": 113, "exit_group": 94, "epoll_ctl": 21, "epoll_pwait": 22,
        "accept4": 242, "getrandom": 278, "restart_syscall": 128,
    },
}  # fmt: skip  # a table of numbers reads better in lines of many
_WRITE: Final = {"x86_64": 1, "aarch64": 64}
_CLOSE: Final = {"x86_64": 3, "aarch64": 57}
_MMAP: Final = {"x86_64": 9, "aarch64": 222}
_PROTECTION: Final = 32  # offset of the third argument in struct seccomp_data
_PROT_EXEC: Final = 4


def program(machine: str) -> bytes:
    """Return the filter for a machine (`uname -m`): struct sock_filter after struct sock_filter.

    Raises:
        HelperError: this machine's numbers are not known here.
    """
    if machine not in _MACHINES:
        msg = f"no system call filter for {machine}"
        raise HelperError(msg)
    architecture, calls = _MACHINES[machine]
    refused = sorted(calls.values())
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, len(refused) + 6, 0, _X32),
    ]
    steps += [(_EQUAL, len(refused) + 5 - place, 0, number) for place, number in enumerate(refused)]
    steps += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _REFUSE_AS_UNKNOWN)]
    steps += [(_EQUAL, 0, 2, _CLONE[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_HAS, 0, 1, _CLONE_THREAD)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(_STEP.pack(*step) for step in steps)


def reader_program(machine: str, channel: int) -> bytes:
    """Return the filter of a process that accepts and reads connections and writes to the descriptor `channel` alone.

    That one cannot be closed either, so its number never becomes another's.

    Raises:
        HelperError: this machine's numbers are not known here.
    """
    if machine not in _MACHINES:
        msg = f"no system call filter for {machine}"
        raise HelperError(msg)
    allowed = sorted(_READER[machine].values())
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _MACHINES[machine][0]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    steps += [(_EQUAL, len(allowed) + 10 - place, 0, number) for place, number in enumerate(allowed)]
    steps += [(_EQUAL, 0, 3, _WRITE[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 8, 0, channel)]
    steps += [(_RETURN, 0, 0, _REFUSE)]
    steps += [(_EQUAL, 0, 2, _CLOSE[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 3, 4, channel)]
    steps += [(_EQUAL, 0, 2, _MMAP[machine]), (_LOAD, 0, 0, _PROTECTION), (_HAS, 0, 1, _PROT_EXEC)]
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(_STEP.pack(*step) for step in steps)


def gnupg_program(machine: str) -> bytes:
    """Return the filter of whatever runs gpg: programs and local sockets, no network, nobody else's memory or signals.

    kill(2) reaches the caller's own process group alone.

    Raises:
        HelperError: this machine's numbers are not known here.
    """
    if machine not in _MACHINES:
        msg = f"no system call filter for {machine}"
        raise HelperError(msg)
    architecture, calls = _MACHINES[machine]
    refused = sorted(number for name, number in calls.items() if name not in _FOR_GNUPG)
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, len(refused) + 12, 0, _X32),
    ]
    steps += [(_EQUAL, len(refused) + 11 - place, 0, number) for place, number in enumerate(refused)]
    steps += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _REFUSE_AS_UNKNOWN)]
    steps += [(_EQUAL, 0, 2, _CLONE[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_HAS, 7, 6, _CLONE_NAMESPACES)]
    steps += [(_EQUAL, 0, 2, calls["socket"]), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 3, 4, _AF_UNIX)]
    steps += [(_EQUAL, 0, 2, calls["kill"]), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 0, 1, 0)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(_STEP.pack(*step) for step in steps)


def install(machine: str | None = None) -> None:
    """Put the filter on this process and all it starts; it cannot be taken off. Refused calls fail with EPERM.

    Raises:
        HelperError: the kernel does not take it.
    """
    _install(program(machine or platform.machine()))


def install_for_gnupg() -> None:
    """Put the filter of gnupg_program() on this process and all it starts; see install()."""
    _install(gnupg_program(platform.machine()))


def install_reader(channel: int) -> None:
    """Put the filter of reader_program() on this process; see install()."""
    _install(reader_program(platform.machine(), channel))


def _install(content: bytes) -> None:
    steps = ctypes.create_string_buffer(content, len(content))
    count = len(content) // _STEP.size
    frame = ctypes.create_string_buffer(struct.pack("@HP", count, ctypes.addressof(steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, frame, 0, 0):
        msg = f"the system call filter is refused: {os.strerror(ctypes.get_errno())}"
        raise HelperError(msg)
