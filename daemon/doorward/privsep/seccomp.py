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


def install(machine: str | None = None) -> None:
    """Put the filter on this process and all it starts; it cannot be taken off. Refused calls fail with EPERM.

    Raises:
        HelperError: the kernel does not take it.
    """
    content = program(machine or platform.machine())
    steps = ctypes.create_string_buffer(content, len(content))
    count = len(content) // _STEP.size
    frame = ctypes.create_string_buffer(struct.pack("@HP", count, ctypes.addressof(steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, frame, 0, 0):
        msg = f"the system call filter is refused: {os.strerror(ctypes.get_errno())}"
        raise HelperError(msg)
