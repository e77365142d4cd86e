"""The filters, interpreted for each processor and tried on this one."""

from __future__ import annotations

import ctypes
import errno
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from doorward.linux import seccomp
from doorward.linux.seccomp import GNUPG, LIBRARY, LISTENER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doorward.linux.seccomp import Alternatives

MACHINES: Final = {  # uname -m, and its AUDIT_ARCH of linux/audit.h
    "x86_64": 0xC000003E,
    "i686": 0x40000003,
    "aarch64": 0xC00000B7,
    "armv7l": 0x40000028,
    "riscv64": 0xC00000F3,
    "ppc64le": 0xC0000015,
    "s390x": 0x80000016,
}
LITTLE: Final = 0x40000000  # __AUDIT_ARCH_LE
READER: Final = seccomp.reader(7)
ALLOWED, REFUSED, UNKNOWN, KILLED = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
F_SETOWN, F_SETSIG, TIOCSTI, TIOCLINUX, SIOCSPGRP = 8, 10, 0x5412, 0x541C, 0x8902
THREAD, NEW_USER = 0x3D0F00, 0x10000000
LIBSECCOMP: Final = ctypes.CDLL(LIBRARY)
LIBSECCOMP.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)


def number(machine: str, name: str) -> int:
    """Return a call's number; a negative one where the machine has no such call, or has it in another (socketcall)."""
    found = int(LIBSECCOMP.seccomp_syscall_resolve_name_arch(MACHINES[machine], name.encode()))
    assert found != -1, f"{name} is no call that libseccomp knows"
    return found


def run(program: bytes, architecture: int, call: int, *arguments: int) -> int:
    """Interpret a filter as the kernel does, with the byte order of `architecture`."""
    order = "<" if architecture & LITTLE else ">"
    values = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack(f"{order}iIQ6Q", call, architecture, 0, *values)
    steps = list(struct.iter_unpack(f"{order}HBBI", program))
    a = place = 0
    while True:
        code, true, false, k = steps[place]
        place += 1
        match code:
            case 0x20:
                (a,) = struct.unpack_from(f"{order}I", data, k)
            case 0x54:
                a &= k
            case 0x05:
                place += k
            case 0x06:
                return int(k)
            case _:
                condition = {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[code]
                place += true if condition else false


def verdict(rules: Mapping[str, Alternatives], machine: str, name: str, *arguments: int) -> int:
    """Return what a filter says of a call."""
    if machine == "s390x" and name == "clone":
        arguments = (0, *arguments)
    return run(seccomp.program(rules, MACHINES[machine]), MACHINES[machine], number(machine, name), *arguments)


CASES: Final = [
    *[(LISTENER, name, (), ALLOWED) for name in ("read", "write", "futex", "exit_group", "pwrite64", "epoll_ctl")],
    *[
        (LISTENER, name, (), REFUSED)
        for name in (
            "socket", "connect", "sendto", "sendmsg", "sendmmsg", "bind", "setsockopt", "socketpair", "accept4",
            "execve", "execveat", "fork", "vfork", "kill", "tgkill", "rt_sigqueueinfo", "pidfd_send_signal", "ptrace",
            "process_vm_readv", "process_vm_writev", "pidfd_getfd", "bpf", "io_uring_setup", "userfaultfd", "keyctl",
            "unshare", "setns", "mount", "chroot", "open_by_handle_at", "perf_event_open", "init_module", "setrlimit",
            "setpriority", "sched_setscheduler", "ioprio_set", "memfd_create", "splice", "vmsplice", "tee",
            "sendfile", "shmat", "msgsnd", "personality", "seccomp", "setuid", "capset", "mq_open",
        )
    ],
    (LISTENER, "ioctl", (0, TIOCSTI, 0), REFUSED),
    (LISTENER, "ioctl", (0, TIOCSTI | 1 << 32, 0), REFUSED),
    (LISTENER, "ioctl", (0, TIOCLINUX, 0), REFUSED),
    (LISTENER, "ioctl", (3, SIOCSPGRP, 0), REFUSED),
    (LISTENER, "ioctl", (3, 0x5421, 0), ALLOWED),  # FIONBIO
    *[
        (rules, name, (3, command, 1), REFUSED)
        for rules in (LISTENER, GNUPG)
        for name in ("fcntl", "fcntl64")
        for command in (F_SETOWN, F_SETSIG, 15)  # 15: F_SETOWN_EX
    ],
    (LISTENER, "fcntl", (3, 1, 0), ALLOWED),
    *[(rules, "prlimit64", (pid, 7, 1, 0), REFUSED) for rules in (LISTENER, GNUPG) for pid in (1, 1 << 31)],
    (LISTENER, "prlimit64", (0, 3, 0, 1), ALLOWED),
    *[(rules, "clone3", (), UNKNOWN) for rules in (LISTENER, GNUPG, READER)],
    (LISTENER, "clone", (THREAD,), ALLOWED),
    (LISTENER, "clone", (17,), REFUSED),
    (LISTENER, "clone", (THREAD | NEW_USER,), REFUSED),
    (GNUPG, "clone", (17,), ALLOWED),
    (GNUPG, "clone", (17 | NEW_USER,), REFUSED),
    (GNUPG, "clone", (17 | 0x80,), REFUSED),  # CLONE_NEWTIME
    (READER, "clone", (THREAD,), REFUSED),
    (LISTENER, "mprotect", (0, 0, 3), ALLOWED),
    (LISTENER, "mprotect", (0, 0, 5), REFUSED),
    (GNUPG, "execve", (), ALLOWED),
    (GNUPG, "kill", (0, 9), ALLOWED),
    (GNUPG, "kill", (1, 9), REFUSED),
    (GNUPG, "kill", (0xFFFFFFFF, 9), REFUSED),
    (GNUPG, "ioctl", (0, TIOCSTI, 0), REFUSED),
    (GNUPG, "prctl", (4, 0), ALLOWED),  # PR_SET_DUMPABLE
    (GNUPG, "prctl", (4, 1), REFUSED),
    *[(GNUPG, name, (), REFUSED) for name in ("ptrace", "tgkill", "bpf", "io_uring_setup", "unshare", "setns")],
    (READER, "write", (7,), ALLOWED),
    (READER, "write", (6,), REFUSED),
    (READER, "write", (7 | 1 << 32,), ALLOWED),  # the kernel sees 7
    (READER, "write", (6 | 1 << 32,), REFUSED),
    (READER, "close", (6,), ALLOWED),
    (READER, "close", (7,), REFUSED),
    (READER, "close", (7 | 1 << 32,), REFUSED),
    (READER, "accept4", (), ALLOWED),
    *[(READER, name, (), REFUSED) for name in ("ioctl", "fcntl", "openat", "sendto", "writev", "prlimit64")],
]  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "rules", "name", "arguments", "expected"),
    [(machine, *case) for machine in MACHINES for case in CASES if number(machine, case[1]) >= 0],
)
def test_a_filter_says_the_same_of_a_call_on_every_processor(
    machine: str, rules: Mapping[str, Alternatives], name: str, arguments: tuple[int, ...], expected: int
) -> None:
    assert verdict(rules, machine, name, *arguments) == expected


@pytest.mark.parametrize("machine", [one for one in MACHINES if one != "s390x"])  # there arguments are in memory
@pytest.mark.parametrize(("protection", "expected"), [(3, ALLOWED), (5, ALLOWED), (7, REFUSED)])
def test_the_listener_gets_no_memory_that_is_both_written_and_run(machine: str, protection: int, expected: int) -> None:
    name = "mmap2" if machine in {"i686", "armv7l"} else "mmap"
    assert verdict(LISTENER, machine, name, 0, 4096, protection) == expected


@pytest.mark.parametrize("machine", ["i686", "s390x"])
@pytest.mark.parametrize(  # SYS_… of linux/net.h
    ("call", "expected"), [(1, REFUSED), (3, REFUSED), (11, REFUSED), (16, REFUSED), (12, ALLOWED)]
)
def test_a_socket_call_by_number_is_judged_as_the_call_that_it_is(machine: str, call: int, expected: int) -> None:
    assert verdict(LISTENER, machine, "socketcall", call, 0x1000) == expected


@pytest.mark.parametrize(("call", "expected"), [(359, REFUSED), (369, REFUSED), (371, ALLOWED)])
def test_the_socket_calls_that_a_processor_has_twice_are_judged_alike(call: int, expected: int) -> None:
    """Socket, sendto and recvfrom of i686, which libseccomp's names resolve to socketcall."""
    machine = MACHINES["i686"]
    assert run(seccomp.program(LISTENER, machine), machine, call, 2, 1) == expected


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("rules", [LISTENER, GNUPG, READER])
def test_a_call_by_another_processors_numbers_kills(machine: str, rules: Mapping[str, Alternatives]) -> None:
    content = seccomp.program(rules, MACHINES[machine])
    for other in set(MACHINES.values()) - {MACHINES[machine]}:
        if other & LITTLE == MACHINES[machine] & LITTLE:
            assert run(content, other, 0) == KILLED


def test_a_call_of_the_x32_abi_kills() -> None:
    assert run(seccomp.program(LISTENER, MACHINES["x86_64"]), MACHINES["x86_64"], 0x40000000) == KILLED


def test_a_name_that_this_libseccomp_does_not_know_is_left_out() -> None:
    assert seccomp.program({"read": ((),), "a_call_of_the_future": ((),)}) == seccomp.program({"read": ((),)})


EARLIER_THREAD = """
import os, threading
from doorward.linux import seccomp
go, done = threading.Event(), []
def late():
    go.wait()
    try:
        done.append(os.fork())
    except PermissionError:
        done.append("refused")
thread = threading.Thread(target=late)
thread.start()
seccomp.install(seccomp.LISTENER)
go.set()
thread.join()
os.write(1, str(done).encode())
"""


def test_a_thread_that_was_there_before_has_the_filter_too() -> None:
    ended = subprocess.run([sys.executable, "-c", EARLIER_THREAD], check=True, capture_output=True, text=True)
    assert ended.stdout == "['refused']"
