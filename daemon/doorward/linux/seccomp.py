"""System call filters: lists of the calls that a process may make, by name, for every processor libseccomp knows.

Other calls fail with EPERM, and clone3(2) with ENOSYS: glibc then uses clone(2), whose flags a filter can see.
A call through another architecture's numbers kills the process. No filter can be taken off, and all threads get it.
Source: seccomp(2), seccomp_rule_add(3), seccomp_export_bpf(3), linux/sched.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import termios
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.errors import HelperError
from doorward.linux import privileges

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARY: Final = "libseccomp.so.2"


class Check(NamedTuple):
    """A condition on one argument of a call: its bits in `mask` are `value`."""

    place: int
    value: int
    mask: int = 0xFFFFFFFF  # an int: the kernel does not look at the upper half


Alternatives = tuple[tuple[Check, ...], ...]  # a call is allowed where all checks of one alternative hold
_FREELY: Final[Alternatives] = ((),)


def _one_of(place: int, *values: int) -> Alternatives:
    return tuple((Check(place, value),) for value in values)


_CLONE_THREAD: Final = 0x10000  # a thread cannot outlive its process or enter other namespaces
_CLONE_NAMESPACES: Final = 0x7E020080
_AF_UNIX: Final = 1
_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15
_NO_EXEC: Final = (Check(2, 0, mmap.PROT_EXEC),)
_NO_WRITE: Final = (Check(2, 0, mmap.PROT_WRITE),)

# The names that 32-bit and older processors have for a call stand beside that of the 64-bit ones.
_RUNTIME: Final = (
    "brk", "munmap", "mremap", "madvise", "futex", "futex_time64", "membarrier", "sched_yield", "getrandom",
    "clock_gettime", "clock_gettime64", "clock_getres", "clock_getres_time64", "gettimeofday", "time",
    "clock_nanosleep", "clock_nanosleep_time64", "nanosleep", "restart_syscall",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "exit", "exit_group",
    "read", "fstat", "fstat64", "recv", "recvfrom", "getsockname", "getsockopt",
    "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
)  # fmt: skip
_THREADS: Final = ("set_robust_list", "rseq", "gettid", "sched_getaffinity")
_PROCESSES: Final = (
    "getpid", "getppid", "getuid", "getuid32", "geteuid", "geteuid32", "getgid", "getgid32", "getegid", "getegid32",
    "wait4", "waitid", "waitpid", "uname", "getrusage",
)  # fmt: skip
_FILES: Final = (
    "open", "openat", "close", "pread64", "write", "writev", "pwrite64", "lseek", "_llseek", "statx", "stat", "stat64",
    "lstat", "lstat64", "newfstatat", "fstatat64", "access", "faccessat", "faccessat2", "getdents64", "readlink",
    "readlinkat", "getcwd", "ftruncate", "ftruncate64", "fallocate", "fsync", "fdatasync", "unlink", "unlinkat",
    "fchmod", "flock", "poll", "ppoll", "ppoll_time64", "select", "_newselect", "pselect6", "pselect6_time64",
    "epoll_create", "epoll_create1", "recvmsg", "getpeername",
    "dup2", "dup3", "chdir",  # a daemon in the background leaves its terminal when it hears knocks
)  # fmt: skip
_PROGRAMS: Final = (
    "fork", "vfork", "execve", "set_tid_address", "arch_prctl", "set_thread_area", "set_tls", "pipe", "pipe2", "dup",
    "close_range", "readv", "umask", "mkdir", "mkdirat", "rmdir", "rename", "renameat",
    "renameat2", "link", "linkat", "chmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "utime", "utimes",
    "utimensat", "utimensat_time64", "getdents", "statfs", "statfs64", "fstatfs", "fstatfs64", "fadvise64",
    "fadvise64_64", "arm_fadvise64_64", "mlock", "mlock2", "munlock", "socketpair", "connect", "bind", "listen",
    "accept", "accept4", "send", "sendto", "sendmsg", "setsockopt", "shutdown", "inotify_init", "inotify_init1",
    "inotify_add_watch", "inotify_rm_watch", "getrlimit", "ugetrlimit", "getresuid", "getresuid32", "getresgid",
    "getresgid32", "getgroups", "getgroups32", "getpgrp", "getpgid", "getsid", "sysinfo", "getcpu", "times", "alarm",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_sigsuspend", "pause", "riscv_flush_icache", "riscv_hwprobe",
    "cacheflush",
)  # fmt: skip
_DESCRIPTORS: Final[Mapping[str, Alternatives]] = {
    "ioctl": _one_of(1, termios.FIONBIO, termios.FIOCLEX, termios.FIONCLEX),
    **dict.fromkeys(
        ("fcntl", "fcntl64"),
        _one_of(
            1, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC,
            fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GET_SEALS,
        ),
    ),
}  # fmt: skip
_OWN_LIMITS: Final[Mapping[str, Alternatives]] = {"prlimit64": _one_of(0, 0)}

LISTENER: Final[Mapping[str, Alternatives]] = {
    **dict.fromkeys((*_RUNTIME, *_THREADS, *_PROCESSES, *_FILES), _FREELY),
    **_DESCRIPTORS,
    **_OWN_LIMITS,
    **dict.fromkeys(("mmap", "mmap2"), (_NO_EXEC, _NO_WRITE)),
    "mprotect": (_NO_EXEC,),
    "clone": ((Check(0, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NAMESPACES),),),
    "prctl": _one_of(0, _PR_SET_NAME),
}
"""Reads packets, keeps its store, writes to what it has. No socket, nothing sent, no process, no signal, no code."""

GNUPG: Final[Mapping[str, Alternatives]] = {
    **dict.fromkeys((*_RUNTIME, *_THREADS, *_PROCESSES, *_FILES, *_PROGRAMS), _FREELY),
    **dict.fromkeys(("mmap", "mmap2", "mprotect"), _FREELY),
    **_DESCRIPTORS,
    **_OWN_LIMITS,
    "setrlimit": _FREELY,
    "clone": ((Check(0, 0, _CLONE_NAMESPACES),),),
    "socket": _one_of(0, _AF_UNIX),  # on i686 and s390x its arguments are in memory, where no filter sees them
    "kill": _one_of(0, 0),  # the caller's own process group
    "prctl": (*_one_of(0, _PR_SET_NAME), (Check(0, _PR_SET_DUMPABLE), Check(1, 0))),
}
"""Runs gpg and its agents: programs and local sockets; no network, and no other process's memory, limits or signals."""


def reader(channel: int) -> Mapping[str, Alternatives]:
    """Rules of a process that accepts and reads connections, and writes to the descriptor `channel` (below 256) alone.

    It cannot close that one either, so its number never becomes another's.
    """
    return {
        **dict.fromkeys((*_RUNTIME, "accept4"), _FREELY),
        **dict.fromkeys(("mmap", "mmap2"), (_NO_EXEC,)),
        "write": _one_of(0, channel),
        "close": tuple((Check(0, ~channel & bit, bit),) for bit in (1 << place for place in range(8))),
    }


def require() -> None:
    """Check that processes can be confined: a start that cannot changes nothing.

    Raises:
        HelperError: libseccomp is missing, or the kernel takes no filter.
    """
    number = _library().seccomp_syscall_resolve_name(b"seccomp")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, _GET_ACTION_AVAILABLE, 0, ctypes.byref(ctypes.c_uint32(_KILL_PROCESS))):
        why = os.strerror(ctypes.get_errno())
        msg = f"no process can be confined here ({why}): the kernel, and the container around it, must allow seccomp(2)"
        raise HelperError(msg)


def install(rules: Mapping[str, Alternatives]) -> None:
    """Put a filter on all threads of this process and on every program it starts.

    Raises:
        HelperError: libseccomp is missing, or the kernel does not take the filter.
    """
    library, libc = _library(), ctypes.CDLL(None, use_errno=True)
    content = program(rules)
    steps = ctypes.create_string_buffer(content, len(content))
    frame = ctypes.create_string_buffer(struct.pack("@HP", len(content) // _STEP_BYTES, ctypes.addressof(steps)))
    seccomp = library.seccomp_syscall_resolve_name(b"seccomp")
    privileges.gain_nothing()
    if libc.syscall(seccomp, _SET_MODE_FILTER, _EVERY_THREAD, frame):
        msg = f"the system call filter is refused: {os.strerror(ctypes.get_errno())}"
        raise HelperError(msg)


_STEP_BYTES: Final = 8  # struct sock_filter
_SET_MODE_FILTER, _EVERY_THREAD = 1, 1
_GET_ACTION_AVAILABLE: Final = 2  # since Linux 4.14
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000
_ACTION_FOR_OTHER_ARCHITECTURES: Final = 2  # enum scmp_filter_attr
_MASKED_EQUAL: Final = 7  # enum scmp_compare
_UNKNOWN: Final = -1  # __NR_SCMP_ERROR
_NATIVE: Final = 0
_S390: Final = (0x16, 0x80000016)  # AUDIT_ARCH_S390, AUDIT_ARCH_S390X


class _Comparison(ctypes.Structure):
    """A struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def program(rules: Mapping[str, Alternatives], architecture: int = _NATIVE) -> bytes:
    """Compile rules to a filter: struct sock_filter after struct sock_filter.

    `architecture` is an AUDIT_ARCH_… of linux/audit.h. A name that this libseccomp does not know is left out.

    Raises:
        HelperError: libseccomp is missing.
    """
    library = _library()
    context = ctypes.c_void_p(library.seccomp_init(_ERRNO | errno.EPERM))
    try:
        if architecture != _NATIVE:
            _checked("seccomp_arch_remove", library.seccomp_arch_remove(context, _NATIVE))
            _checked("seccomp_arch_add", library.seccomp_arch_add(context, architecture))
        _checked("seccomp_attr_set", library.seccomp_attr_set(context, _ACTION_FOR_OTHER_ARCHITECTURES, _KILL_PROCESS))
        _add(library, context, "clone3", _ERRNO | errno.ENOSYS, ())
        s390 = (architecture or library.seccomp_arch_native()) in _S390
        for name, alternatives in rules.items():
            for checks in _on_s390(name, alternatives) if s390 else alternatives:
                _add(library, context, name, _ALLOW, checks)
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _on_s390(name: str, alternatives: Alternatives) -> Alternatives:
    """Move the flags of clone to its second argument; those of mmap are in memory, where no filter sees them."""
    if name == "clone":
        return tuple(tuple(check._replace(place=check.place + 1) for check in checks) for checks in alternatives)
    return _FREELY if name == "mmap" else alternatives


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, name: str, action: int, checks: tuple[Check, ...]) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN:
        return
    comparisons = (_Comparison * len(checks))(
        *(_Comparison(one.place, _MASKED_EQUAL, one.mask, one.value) for one in checks)
    )
    _checked(name, library.seccomp_rule_add_array(context, action, number, len(checks), comparisons))


def _exported(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    """The filter of a context, through a pipe: the limits of the TCP reader allow no file."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        with os.fdopen(writer, "wb"):
            _checked("seccomp_export_bpf", library.seccomp_export_bpf(context, writer))
        return file.read()


def _checked(what: str, code: int) -> None:
    if code:
        msg = f"no system call filter: {what}: {os.strerror(-code)}"
        raise HelperError(msg)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        msg = f"{LIBRARY} is missing (Debian: package libseccomp2): no process can be confined without it"
        raise HelperError(msg) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_arch_native.restype = ctypes.c_uint32
    return library
