"""The processes that run gpg: a supervisor that keeps the deadlines, and a worker with gpg and its agents.

The listener starts the supervisor as a new interpreter before its system call filter forbids it to start anything, so
none of the listener's other keys are in its memory. The worker leads a session of its own: where a packet takes
too long, or the worker ends, the whole group is killed by its id and another one starts with new copies of the
keyrings. The copies lie in RUN_FOLDER, in memory, and are removed at the end, or at the next start.
Source: prctl(2), setrlimit(2), setsid(2), gpg-agent(1) (--supervised), sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.crypto import openpgp
from doorward.denials import Fit
from doorward.errors import DoorwardError, HelperError, OpenPgpError
from doorward.gnupg import messages
from doorward.gnupg.messages import KEYRINGS, REPLIES, REQUESTS, Answer, Keyring, Missed, Packet, Ready, Unusable
from doorward.gnupg.worker import work
from doorward.linux import interpreter, privileges, seqpacket

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from doorward.gnupg.messages import Outcome, Reply

BACKOFF_MAX: Final = 30.0  # seconds between two workers that end by themselves
_IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def start(channel: socket.socket) -> subprocess.Popen[bytes]:
    """Start the supervisor at the other end of a listener's channel. It drops its privileges by itself.

    Raises:
        OpenPgpError: it cannot be started.
    """
    try:
        return interpreter.start(__name__, channel.fileno())
    except OSError as error:
        msg = f"the process that runs gpg cannot be started: {error}"
        raise OpenPgpError(msg) from error


def main(_parent: int, descriptor: int) -> None:
    """Run as the supervisor of the listener behind a channel."""
    for number in _IGNORED:  # of a terminal, or of a service manager: it ends with the listener
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OpenPgpError):  # a worker reports it
        openpgp.load()
    privileges.become(privileges.account())  # with everything imported: it may lie where only root reads
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    try:
        with own_folder(messages.RUN_FOLDER) as folder:
            Supervisor(channel, folder).serve()
    except (OSError, DoorwardError) as error:
        with contextlib.suppress(OSError):
            os.write(channel.fileno(), REPLIES.encode(Unusable(f"{messages.RUN_FOLDER}: {error}")))


@contextlib.contextmanager
def own_folder(base: Path) -> Iterator[Path]:
    """Make a private folder in `base` and remove it at the end; folders of dead supervisors are removed first.

    Raises:
        OSError: `base` is missing, or belongs to another user.
    """
    with contextlib.ExitStack() as stack:
        with _locked(base, fcntl.LOCK_EX):
            for entry in base.iterdir():
                _sweep(entry)
            folder = Path(tempfile.mkdtemp(prefix="", dir=base))
            stack.enter_context(_locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock on a folder, of the kind `how` (flock(2)), within the block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove the folder of a supervisor that was killed."""
    with contextlib.suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder, ignore_errors=True)


class Supervisor:
    """Hands packets to the worker one at a time, and ends it at the deadline."""

    def __init__(self, channel: socket.socket, folder: Path) -> None:
        """Serve the listener behind `channel`; workers get folders in `folder`."""
        channel.settimeout(0)
        self._channel = channel
        self._folder = folder
        self._queue: deque[Packet] = deque()
        self._current: Packet | None = None
        self._deadline = 0.0  # of the current packet
        self._keyrings: tuple[Keyring, ...] = ()
        self._arriving = bytearray()  # of new ones
        self._worker: _Worker | None = None
        self._count = 0
        self._failures = 0
        self._not_before = 0.0  # when the next worker may begin

    def serve(self) -> None:
        """Serve until the listener is gone."""
        try:
            while True:
                self._step()
        except HelperError:  # it is gone, or committed a protocol error
            return
        finally:
            self._end_worker()

    def _step(self) -> None:
        now = time.monotonic()
        self._begin_again(now)
        self._dispatch(now)
        wakes = [self._deadline] if self._current else []
        wakes += [self._not_before] if self._worker is None and self._keyrings else []
        timeout = max(0.0, min(wakes) - now) if wakes else None
        channels = [self._channel] if self._worker is None else [self._worker.channel, self._channel]
        ready = select.select(channels, [], [], timeout)[0]
        if ready and ready[0] is not self._channel:  # the other one is served in the next step
            self._take_outcome()
        elif ready:
            self._take_request()
        elif self._current is not None and time.monotonic() >= self._deadline:
            self._finish(messages.Refusal(f"gpg took longer than {self._current.seconds:g} s", Fit.KEY))
            self._end_worker()

    def _dispatch(self, now: float) -> None:
        while self._queue and self._worker is None:
            self._answer(self._queue.popleft().number, Missed("the process that runs gpg has ended"))
        if self._queue and self._current is None and self._worker is not None:
            self._current = self._queue.popleft()
            self._deadline = now + self._current.seconds
            try:
                seqpacket.send(self._worker.channel, REQUESTS.encode(self._current))
            except HelperError:
                self._fail("the process that runs gpg has ended")

    def _take_request(self) -> None:
        match REQUESTS.decode(seqpacket.hear(self._channel)):
            case Packet() as packet:
                self._queue.append(packet)
                if len(self._queue) > messages.QUEUE_MAX or packet.keyring >= len(self._keyrings):
                    msg = "more packets, or another keyring, than there can be"
                    raise HelperError(msg)
            case messages.Piece() as piece:
                self._gather(piece)

    def _gather(self, piece: messages.Piece) -> None:
        self._arriving += piece.content
        if len(self._arriving) > messages.KEYRINGS_MAX:
            msg = "keyrings that are too large"
            raise HelperError(msg)
        if piece.last:
            content, self._arriving = bytes(self._arriving), bytearray()
            self._adopt(KEYRINGS.decode(content))

    def _adopt(self, keyrings: tuple[Keyring, ...]) -> None:
        """Use new keyrings where a worker starts with them, else keep the old ones."""
        while self._queue:
            self._answer(self._queue.popleft().number, Missed("the configuration was read again"))
        new = self._start(keyrings)
        if isinstance(new, Unusable):
            self._say(new)
            return
        self._finish(Missed("the configuration was read again"))
        self._end_worker()
        self._keyrings = tuple(replace(one, signers=()) for one in keyrings)  # their doubts are reported once
        self._worker, self._failures = new, 0
        self._say(new.ready)

    def _start(self, keyrings: tuple[Keyring, ...]) -> _Worker | Unusable:
        """Start a worker; the reason where that fails."""
        self._count += 1
        return _Worker.start(keyrings, self._folder / str(self._count), self._channel)

    def _begin_again(self, now: float) -> None:
        if self._worker is not None or not self._keyrings or now < self._not_before:
            return
        new = self._start(self._keyrings)
        if isinstance(new, Unusable):
            self._fail(new.text)
        else:
            self._worker = new

    def _take_outcome(self) -> None:
        assert self._worker is not None  # noqa: S101  called only while there is a worker
        try:
            said = REPLIES.decode(seqpacket.hear(self._worker.channel))
        except HelperError:
            self._fail("the process that runs gpg has ended")
            return
        self._failures = 0
        if self._current is None or not isinstance(said, Answer) or said.number != self._current.number:
            self._fail("protocol error of the process that runs gpg")
        else:
            self._finish(said.outcome)

    def _fail(self, text: str) -> None:
        """End the worker; the pause before the next one doubles while workers fail at once."""
        self._finish(Missed(text))
        self._end_worker()
        pause = 0.0 if not self._failures else min(BACKOFF_MAX, 0.25 * 2**self._failures)
        self._failures += 1
        self._not_before = time.monotonic() + pause
        self._say(messages.Trouble(f"{text}; another one begins" + (f" in {pause:g} s" if pause else "")))

    def _finish(self, outcome: Outcome) -> None:
        if self._current is not None:
            self._answer(self._current.number, outcome)
            self._current = None

    def _answer(self, number: int, outcome: Outcome) -> None:
        self._say(Answer(number, outcome))

    def _say(self, reply: Reply) -> None:
        """Send to the listener; one that does not read its answers commits a protocol error."""
        seqpacket.send(self._channel, REPLIES.encode(reply))

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _Worker:
    """A worker, seen from its supervisor."""

    def __init__(self, pid: int, channel: socket.socket, folder: Path) -> None:
        """Take over a process that was just started."""
        self.ready = Ready()  # its first message
        self._pid = pid
        self.channel = channel
        self._folder = folder

    @classmethod
    def start(cls, keyrings: tuple[Keyring, ...], folder: Path, inherited: socket.socket) -> _Worker | Unusable:
        """Start a worker, which closes `inherited`; the reason where that fails."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            ours.close()
            inherited.close()
            work(theirs, keyrings, folder)
        theirs.close()
        worker = cls(pid, ours, folder)
        ours.settimeout(messages.START_SECONDS)
        try:
            said = REPLIES.decode(seqpacket.hear(ours))
        except HelperError as error:
            late = isinstance(error.__cause__, TimeoutError)
            end = "gpg and its agents do not start in time" if late else "the process that runs gpg ends as it starts"
            said = Unusable(end)
        if isinstance(said, Ready):
            ours.settimeout(0)
            worker.ready = said
            return worker
        worker.end()
        return said if isinstance(said, Unusable) else Unusable("protocol error of the process that runs gpg")

    def end(self) -> None:
        """Kill the whole group before its leader is reaped: until then the number is its own."""
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self.channel.close()
        shutil.rmtree(self._folder, ignore_errors=True)
