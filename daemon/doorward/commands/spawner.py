"""The process that starts commands: one thread, no files. Each command gets a warden that ends it.

doorward-exec has a thread for its log, so it forks no commands itself: it sends a Job and three descriptors here. The
warden that is forked for it adopts whatever the command leaves behind (PR_SET_CHILD_SUBREAPER), ends all of it when
the time is over, when doorward-exec is gone, or when the command itself has ended, and says how it went.
Source: prctl(2), pidfd_open(2), setrlimit(2).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from doorward.commands.messages import ENDS, JOBS, Ended
from doorward.errors import HelperError, OverlongError
from doorward.linux import privileges, seqpacket

if TYPE_CHECKING:
    import socket

    from doorward.commands.messages import Job

LAST_WORDS: Final = 2.0  # seconds between SIGTERM and SIGKILL
_SWEEP: Final = 5.0  # seconds in which the processes that a command left behind must end
_NOT_STARTED: Final = 126  # as a shell says it
_MIB: Final = 1 << 20
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),  # no core files: they would hold its data
    (resource.RLIMIT_NOFILE, 256),
    (resource.RLIMIT_AS, 2048 * _MIB),
)
_LIMITS_UNLESS_ROOT: Final = (
    (resource.RLIMIT_NPROC, 256),  # of its user
    (resource.RLIMIT_FSIZE, 64 * _MIB),  # one file does not fill the disk
)
_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)


def begin() -> None:
    """Prepare the spawner: it ends with its channel, and ignores signals that are meant for doorward-exec."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens leave no zombies
    privileges.hide()


def serve(channel: socket.socket) -> None:
    """Start the jobs from `channel` until it is closed; of other messages the descriptors are closed."""
    while True:
        try:
            content, descriptors = seqpacket.receive(channel)
        except OverlongError:
            continue
        except HelperError:
            return
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # the closed descriptors report the failure
        if not pid:
            try:
                channel.close()
                _guard(JOBS.decode(content), *descriptors)
            finally:
                os._exit(_NOT_STARTED)  # a child never returns into its parent's code
        for descriptor in descriptors:
            os.close(descriptor)


def _guard(job: Job, stdin: int, output: int, report: int) -> NoReturn:
    """Run as the warden of one command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    privileges.adopt_orphans()
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
        os.write(report, ENDS.encode(Ended(status, in_time)))
    os._exit(0)


def _wait(pid: int, report: int | None, seconds: float) -> bool:
    """Whether a process ended in time; False also where the reader of the report is gone."""
    poll = select.poll()
    descriptor = os.pidfd_open(pid)
    poll.register(descriptor, select.POLLIN)
    if report is not None:
        poll.register(report, 0)  # POLLERR comes unasked, once the reader is gone
    found = dict(poll.poll(seconds * 1000))
    os.close(descriptor)
    return descriptor in found


def _sweep(pid: int) -> int | None:
    """End a command's group and everything it left behind; return its exit code, None where it did not end."""
    _signal(pid, signal.SIGKILL)  # before it is reaped: its number is still its own
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
    """The current children of this process; orphaned grandchildren become children."""
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children", encoding="ascii") as file:  # noqa: PTH123  nothing is imported in a warden
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    """Signal a command and the group that it leads."""
    with suppress(OSError):
        os.kill(pid, number)
    with suppress(OSError):
        os.killpg(pid, number)


def _become(job: Job, stdin: int, output: int) -> NoReturn:
    """Become the command. Errors before it runs become its output."""
    try:
        os.setsid()
        for source, target in ((stdin, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        _give_up(job)
        os.execvpe(job.argv[0], job.argv, dict(job.environment))  # noqa: S606  no shell, which is the point
    except BaseException as error:  # noqa: BLE001  a child never returns into its parent's code
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    os._exit(_NOT_STARTED)


def _give_up(job: Job) -> None:
    """Take the account, the limits and the signal handlers of a command."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    os.chdir("/")
    privileges.limit((*_LIMITS, *(_LIMITS_UNLESS_ROOT if job.uid else ()), (resource.RLIMIT_CPU, int(job.seconds) + 5)))
    os.setgroups(job.groups)
    os.setresgid(job.gid, job.gid, job.gid)
    os.setresuid(job.uid, job.uid, job.uid)
    privileges.die_with_parent()  # after the change of account
    if not job.may_gain:
        privileges.gain_nothing()
