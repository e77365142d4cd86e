"""The process that starts commands: one thread, and it reads nothing. Each command gets a warden that ends it.

doorward-exec has a thread for its log, so it forks no commands itself: it sends a Job and three descriptors here. The
warden that is forked for it adopts whatever the command leaves behind (PR_SET_CHILD_SUBREAPER), ends all of it when
the time is over, when doorward-exec is gone, or when the command itself has ended, and says how it went.
Source: prctl(2), pidfd_open(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from doorward.daemon import mail
from doorward.errors import HelperError, OverlongError
from doorward.privsep import channel as wire
from doorward.privsep.messages import MESSAGE_MAX

if TYPE_CHECKING:
    import socket

LAST_WORDS: Final = 2.0  # seconds between SIGTERM and SIGKILL
_SWEEP: Final = 5.0  # seconds in which what a command left behind has to be gone
_NOT_STARTED: Final = 126  # as a shell says it
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER, _PR_SET_DUMPABLE = 1, 38, 36, 4
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_MIB: Final = 1 << 20
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),  # what it works with goes into no file
    (resource.RLIMIT_NOFILE, 256),
    (resource.RLIMIT_AS, 2048 * _MIB),
)
_LIMITS_UNLESS_ROOT: Final = (
    (resource.RLIMIT_NPROC, 256),  # of its user
    (resource.RLIMIT_FSIZE, 64 * _MIB),  # it does not fill the disk with one file
)
_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Job:
    """What is run, as whom, for at most how many seconds.

    `may_gain` leaves set-user-ID programs (sudo, sendmail) their power. With `server` nothing is run: what is on
    standard input is mailed through that SMTP server.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    uid: int
    gid: int
    groups: tuple[int, ...]
    seconds: float
    may_gain: bool = False
    server: str | None = None

    def encode(self) -> bytes:
        """Return it as bytes.

        Raises:
            HelperError: the spawner would not take that many.
        """
        content = json.dumps(asdict(self)).encode()
        if len(content) > MESSAGE_MAX:
            msg = f"a command and its environment of {len(content)} bytes, more than {MESSAGE_MAX}"
            raise HelperError(msg)
        return content

    @classmethod
    def decode(cls, content: bytes) -> Job:
        """Return what encode() made."""
        fields = json.loads(content)
        return cls(**fields | {"argv": tuple(fields["argv"]), "groups": tuple(fields["groups"])})


def begin() -> None:
    """Make this process the spawner: it ends with its channel, and by no signal that is meant for doorward-exec."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens are nobody's zombies
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def serve(channel: socket.socket) -> None:
    """Start what `channel` asks for until it is closed. What is no job starts nothing; its descriptors are closed."""
    while True:
        try:
            content, descriptors = wire.receive(channel)
        except OverlongError:
            continue
        except HelperError:
            return
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # the descriptors are closed without a word, which says it
        if not pid:
            try:
                channel.close()
                _guard(Job.decode(content), *descriptors)
            finally:
                os._exit(_NOT_STARTED)  # a child never returns into its parent's code
        for descriptor in descriptors:
            os.close(descriptor)


def _guard(job: Job, stdin: int, output: int, report: int) -> NoReturn:
    """Be the warden of one command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pid = os.fork()
    if not pid:
        _become(job, stdin, output)
    os.close(stdin)
    os.close(output)
    in_time = _wait(pid, report, job.seconds)
    if not in_time:
        _signal(pid, signal.SIGTERM)
        _wait(pid, None, LAST_WORDS)
    status = _sweep(pid)
    with suppress(OSError):
        os.write(report, json.dumps({"status": status, "in_time": in_time}).encode())
    os._exit(0)


def _wait(pid: int, report: int | None, seconds: float) -> bool:
    """Return whether a process ended in time; not to wait any longer when nobody reads the report is a no."""
    poll = select.poll()
    descriptor = os.pidfd_open(pid)
    poll.register(descriptor, select.POLLIN)
    if report is not None:
        poll.register(report, 0)  # POLLERR comes unasked, once the reader is gone
    found = dict(poll.poll(seconds * 1000))
    os.close(descriptor)
    return descriptor in found


def _sweep(pid: int) -> int | None:
    """End a command's group and everything it left behind; return how the command ended, None where it did not."""
    _signal(pid, signal.SIGKILL)  # before it is reaped: its number is nobody else's
    status = None
    deadline = time.monotonic() + _SWEEP
    while time.monotonic() < deadline:
        for child in _children():
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)
        try:
            ended, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if ended == pid:
            status = os.waitstatus_to_exitcode(code)
        if not ended:
            time.sleep(0.002)
    return status


def _children() -> list[int]:
    """Return the processes that are this one's children now; its orphaned grandchildren become them."""
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children", encoding="ascii") as file:  # noqa: PTH123  nothing is imported in a warden
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    """Signal the group that a command leads, or itself as long as it leads none."""
    with suppress(OSError):
        os.kill(pid, number)
    with suppress(OSError):
        os.killpg(pid, number)


def _become(job: Job, stdin: int, output: int) -> NoReturn:
    """Be the command. What goes wrong before it runs is its output."""
    code = _NOT_STARTED
    try:
        os.setsid()
        for source, target in ((stdin, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        _give_up(job)
        if job.server is not None:
            code = mail.deliver(job.server, job.argv, job.seconds)
        else:
            os.execvpe(job.argv[0], list(job.argv), job.environment)  # noqa: S606  no shell, which is the point
    except BaseException as error:  # noqa: BLE001  a child never returns into its parent's code
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    os._exit(code)


def _give_up(job: Job) -> None:
    """Take the account, the limits and the clean slate that a command starts with."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    os.chdir("/")
    for kind, most in (*_LIMITS, *(_LIMITS_UNLESS_ROOT if job.uid else ())):
        _limit(kind, most)
    _limit(resource.RLIMIT_CPU, int(job.seconds) + 5)
    os.setgroups(job.groups)
    os.setresgid(job.gid, job.gid, job.gid)
    os.setresuid(job.uid, job.uid, job.uid)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of account has taken it off
    if not job.may_gain and _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        msg = "no_new_privs is refused"
        raise HelperError(msg)


def _limit(kind: int, most: int) -> None:
    """Lower a limit to `most`; one that is lower stays."""
    hard = resource.getrlimit(kind)[1]
    chosen = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (chosen, chosen))
