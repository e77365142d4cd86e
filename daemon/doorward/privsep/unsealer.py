"""The processes that run gpg: a supervisor with the deadlines, and under it a worker with gpg and its agents.

The listener starts the supervisor as a new interpreter before its system call filter forbids it to start anything, so
none of the listener's other keys are in its memory. The worker leads a process group of its own: where a packet takes
too long, or the worker ends, the whole group is killed by its id and another one begins with new copies of the
keyrings. What gpg works on lies in RUN_FOLDER, in memory, and is removed at the end, or at the next start.
Source: prctl(2), setrlimit(2), setpgid(2), gpg-agent(1) (--supervised), sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import resource
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import doorward
from doorward.crypto import openpgp
from doorward.crypto.openpgp import Decryptor
from doorward.errors import AuthenticationError, DoorwardError, HelperError, OpenPgpError, WireError
from doorward.privsep import privileges, seccomp
from doorward.privsep import unsealing as wire
from doorward.privsep.unsealing import Answer, Keyring, Missed, Packet, Ready, Refusal, Trouble, Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from doorward.config.stanza import OpenPgp
    from doorward.privsep.unsealing import Outcome, Reply

DOUBTS_MAX: Final = 50  # lines about signers
_READY: Final = b"ready"
BACKOFF_MAX: Final = 30.0  # seconds between two workers that end by themselves
_MIB: Final = 1 << 20
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_AS, 512 * _MIB),
    (resource.RLIMIT_FSIZE, 32 * _MIB),
    (resource.RLIMIT_NOFILE, 128),
    (resource.RLIMIT_NPROC, 256),  # of the account, whose other processes count
)  # no RLIMIT_CPU: agents live long, and the deadline ends whoever computes too long
_AGENT: Final = "gpg-agent"
_AGENT_ARGUMENTS: Final = (
    "--supervised", "--quiet", "--no-options", "--no-allow-external-cache", "--pinentry-program", "/bin/false",
    "--disable-scdaemon",
)  # fmt: skip
_LISTEN_FDS_START: Final = 3  # sd_listen_fds(3)
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_PLACE: Final = Path(doorward.__file__).parents[1]  # the package's folder, or the archive that holds it
_START: Final = "import sys; sys.path.insert(0, sys.argv[1]); from doorward.privsep.unsealer import main; main()"
_IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def start(channel: socket.socket) -> subprocess.Popen[bytes]:
    """Start the supervisor at the other end of a listener's channel. It gives up by itself what power it is given.

    Raises:
        OpenPgpError: it cannot be started.
    """
    argv = [sys.executable, "-I", "-c", _START, str(_PLACE)]
    try:
        return subprocess.Popen(  # noqa: S603  this interpreter and this package
            argv, stdin=channel.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}, cwd="/"
        )
    except OSError as error:
        msg = f"the process that runs gpg cannot be started: {error}"
        raise OpenPgpError(msg) from error


def main() -> None:
    """Be the supervisor; the channel is standard input."""
    for number in _IGNORED:  # of a terminal, or of a service manager: it ends with the listener
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OpenPgpError):  # a worker says it, to somebody who listens
        openpgp.load()
    privileges.become(privileges.account())  # with everything imported: it may lie where only root reads
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  a descriptor is all that is wanted
        os.dup2(nothing.fileno(), 0)
    try:
        with own_folder(wire.RUN_FOLDER) as folder:
            Supervisor(channel, folder).serve()
    except (OSError, DoorwardError) as error:
        with contextlib.suppress(OSError):
            os.write(channel.fileno(), wire.encode_reply(Unusable(f"{wire.RUN_FOLDER}: {error}")))


@contextlib.contextmanager
def own_folder(base: Path) -> Iterator[Path]:
    """Make a folder of one's own in `base`, and remove it at the end; those whose owners are gone are removed first.

    Raises:
        OSError: `base` is not there, or somebody else's.
    """
    with _locked(base, fcntl.LOCK_EX) as _:
        for entry in base.iterdir():
            _sweep(entry)
        folder = Path(tempfile.mkdtemp(prefix="", dir=base))
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what a supervisor left behind that was killed."""
    with contextlib.suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder, ignore_errors=True)


class Supervisor:
    """Takes packets one at a time to the worker, and ends it where it takes too long."""

    def __init__(self, channel: socket.socket, folder: Path) -> None:
        """Serve the listener behind `channel`; workers get folders within `folder`."""
        channel.settimeout(0)
        self._channel = channel
        self._folder = folder
        self._queue: deque[Packet] = deque()
        self._current: Packet | None = None
        self._deadline = 0.0  # of the current packet
        self._keyrings: tuple[Keyring, ...] = ()
        self._arriving: bytearray | None = None
        self._size = 0
        self._worker: _Worker | None = None
        self._count = 0
        self._failures = 0
        self._not_before = 0.0  # when the next worker may begin

    def serve(self) -> None:
        """Serve until the listener is gone."""
        try:
            while True:
                self._step()
        except HelperError:  # it is gone, or strays
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
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ, self._take_request)
            if self._worker is not None:
                selector.register(self._worker.channel, selectors.EVENT_READ, self._take_outcome)
            ready = [key.data for key, _ in selector.select(timeout)]
        for act in ready[:1]:  # the other one is still there in the next step
            act()
        if self._current is not None and time.monotonic() >= self._deadline and self._take_outcome not in ready:
            self._finish(Refusal(f"gpg took longer than {wire.DEADLINE:g} s"))
            self._end_worker()

    def _dispatch(self, now: float) -> None:
        while self._queue and self._worker is None:
            self._answer(self._queue.popleft().number, Missed("the process that runs gpg has ended"))
        if self._queue and self._current is None and self._worker is not None:
            self._current = self._queue.popleft()
            self._deadline = now + wire.DEADLINE
            if not self._worker.ask(self._current):
                self._fail("the process that runs gpg has ended")

    def _take_request(self) -> None:
        content = _receive(self._channel)
        match wire.decode_request(content):
            case Packet() as packet:
                self._queue.append(packet)
                if len(self._queue) > wire.QUEUE_MAX or packet.keyring >= len(self._keyrings):
                    msg = "more packets, or another keyring, than there can be"
                    raise HelperError(msg)
            case wire.Announce(size=size):
                if size > wire.KEYRINGS_MAX:
                    msg = "keyrings that are too large"
                    raise HelperError(msg)
                self._arriving, self._size = bytearray(), size
            case wire.Piece(content=piece):
                self._gather(piece)

    def _gather(self, piece: bytes) -> None:
        if self._arriving is None or len(self._arriving) + len(piece) > self._size or not piece:
            msg = "keyrings that were not announced"
            raise HelperError(msg)
        self._arriving += piece
        if len(self._arriving) == self._size:
            content, self._arriving = bytes(self._arriving), None
            self._adopt(wire.decode_keyrings(content))

    def _adopt(self, keyrings: tuple[Keyring, ...]) -> None:
        """Go on with new keyrings where a worker can begin with them, or else with the old ones."""
        while self._queue:
            self._answer(self._queue.popleft().number, Missed("the configuration was read again"))
        new = self._start(keyrings)
        if isinstance(new, str):
            self._say(Unusable(new))
            return
        self._finish(Missed("the configuration was read again"))
        self._end_worker()
        self._keyrings = tuple(
            replace(one, signers=()) for one in keyrings
        )  # what there is to say of them is said once
        self._worker, self._failures = new, 0
        for doubt in new.doubts:
            self._say(Trouble(doubt))
        self._say(Ready())

    def _start(self, keyrings: tuple[Keyring, ...]) -> _Worker | str:
        """Return a worker that is ready, or why there is none."""
        self._count += 1
        return _Worker.start(keyrings, self._folder / str(self._count), self._channel)

    def _begin_again(self, now: float) -> None:
        if self._worker is not None or not self._keyrings or now < self._not_before:
            return
        new = self._start(self._keyrings)
        if isinstance(new, str):
            self._fail(new)
        else:
            self._worker = new

    def _take_outcome(self) -> None:
        assert self._worker is not None  # noqa: S101  it is read only where it is there
        try:
            outcome = wire.decode_outcome(_receive(self._worker.channel))
        except HelperError:
            self._fail("the process that runs gpg has ended")
            return
        self._failures = 0
        if self._current is None:
            self._fail("the process that runs gpg strays")
        else:
            self._finish(outcome)

    def _fail(self, text: str) -> None:
        """Give the worker up, and wait longer before the next one each time that it happens at once."""
        self._finish(Missed(text))
        self._end_worker()
        pause = 0.0 if not self._failures else min(BACKOFF_MAX, 0.25 * 2**self._failures)
        self._failures += 1
        self._not_before = time.monotonic() + pause
        self._say(Trouble(f"{text}; another one begins" + (f" in {pause:g} s" if pause else "")))

    def _finish(self, outcome: Outcome) -> None:
        if self._current is not None:
            self._answer(self._current.number, outcome)
            self._current = None

    def _answer(self, number: int, outcome: Outcome) -> None:
        self._say(Answer(number, outcome))

    def _say(self, reply: Reply) -> None:
        """Tell the listener; one that does not take its answers strays."""
        try:
            os.write(self._channel.fileno(), wire.encode_reply(reply))
        except OSError as error:
            msg = f"the listener does not listen: {error}"
            raise HelperError(msg) from error

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _Worker:
    """A worker as its supervisor sees it."""

    def __init__(self, pid: int, channel: socket.socket, folder: Path) -> None:
        """Know a process that was just started."""
        self.doubts: list[str] = []  # about the keyrings
        self._pid = pid
        self.channel = channel
        self._folder = folder

    @classmethod
    def start(cls, keyrings: tuple[Keyring, ...], folder: Path, inherited: socket.socket) -> _Worker | str:
        """Return a worker that is ready, or why there is none. It does not keep what is `inherited`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            ours.close()
            inherited.close()
            _work(theirs, keyrings, folder)
        theirs.close()
        worker = cls(pid, ours, folder)
        with contextlib.suppress(OSError):  # the child does the same: whoever comes first
            os.setpgid(pid, pid)
        ours.settimeout(wire.START_SECONDS)
        try:
            said = ours.recv(wire.MESSAGE_MAX)
        except OSError:
            said = b"gpg and its agents do not start in time"
        if said.startswith(_READY):
            ours.settimeout(0)
            worker.doubts = said[len(_READY) :].decode("utf-8", "replace").splitlines()
            return worker
        worker.end()
        return said.decode("utf-8", "replace") or "the process that runs gpg ends as it starts"

    def ask(self, packet: Packet) -> bool:
        """Hand over a packet and say whether it was taken."""
        try:
            os.write(self.channel.fileno(), wire.encode_request(packet))
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Kill the whole group; its leader is not reaped before, so its number is nobody else's."""
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self.channel.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _receive(channel: socket.socket) -> bytes:
    """Return one message.

    Raises:
        HelperError: the other side is gone.
    """
    try:
        content = channel.recv(wire.MESSAGE_MAX)
    except OSError as error:
        msg = f"the other process cannot be heard: {error}"
        raise HelperError(msg) from error
    if not content:
        msg = "the other process is gone"
        raise HelperError(msg)
    return content


def _work(channel: socket.socket, keyrings: tuple[Keyring, ...], folder: Path) -> NoReturn:
    """Be the worker."""
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        _confine()
        threading.Thread(target=_die_with, args=(channel,), daemon=True).start()
        with contextlib.ExitStack() as stack:
            opened = _open(keyrings, folder, channel, stack)
            if opened is not None:
                _serve(channel, opened)
    except BaseException:  # noqa: BLE001  a child never returns into its parent's code
        os._exit(1)
    os._exit(0)


def _open(
    keyrings: tuple[Keyring, ...], folder: Path, channel: socket.socket, stack: contextlib.ExitStack
) -> list[Decryptor] | None:
    try:
        folder.mkdir(mode=0o700)
        opened = [stack.enter_context(keyring(one, folder / str(number))) for number, one in enumerate(keyrings)]
        doubts = [line for one, ring in zip(opened, keyrings, strict=True) for line in _doubts(one, ring)]
    except (OSError, DoorwardError) as error:
        os.write(channel.fileno(), str(error).encode()[:1000])
        return None
    more = [f"{len(doubts) - DOUBTS_MAX} more signers are doubtful"] if len(doubts) > DOUBTS_MAX else []
    os.write(channel.fileno(), _READY + "\n".join([*doubts[:DOUBTS_MAX], *more]).encode())
    return opened


def _doubts(decryptor: Decryptor, ring: Keyring) -> Iterator[str]:
    """Yield a line for every signer that a stanza names and whose signature would be refused."""
    doubted = dict(decryptor.doubts(name for name, _ in ring.signers))
    for name, place in ring.signers:
        if name in doubted:
            yield f"{place[:300]}: {doubted[name]}: what it signs is refused"


def _confine() -> None:
    """Take the limits, and a filter under which nothing but local sockets and programs is left."""
    privileges.hide()
    for kind, most in _LIMITS:
        hard = resource.getrlimit(kind)[1]
        chosen = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(OSError):  # a unit's system call filter may not have it, and has its own limits
            resource.setrlimit(kind, (chosen, chosen))
    os.environ.clear()
    os.environ.update(PATH=_PATH, LC_ALL="C.UTF-8", HOME="/nonexistent")
    seccomp.install_for_gnupg()


def _die_with(channel: socket.socket) -> None:
    """End the whole group when the supervisor is gone: gpg may hang, and would stay behind."""
    poll = select.poll()
    poll.register(channel, 0)  # POLLHUP comes unasked
    poll.poll()
    os.kill(0, signal.SIGKILL)


def _serve(channel: socket.socket, keyrings: list[Decryptor]) -> None:
    while True:
        content = channel.recv(wire.MESSAGE_MAX)
        if not content:
            return
        packet = wire.decode_request(content)
        assert isinstance(packet, Packet)  # noqa: S101  the supervisor sends nothing else
        os.write(channel.fileno(), wire.encode_outcome(_outcome(keyrings[packet.keyring], packet.blob)))


def _outcome(decryptor: Decryptor, blob: bytes) -> Outcome:
    try:
        return decryptor.unseal(blob)
    except (AuthenticationError, WireError, OpenPgpError) as error:
        return Refusal(str(error))


class LocalUnsealer:
    """Has gpg look at a message while the caller waits: for explain, which has the time."""

    def __init__(self, homes: Mapping[Path, bytes], folder: Path) -> None:
        """Use the keyrings of `homes`, in copies within `folder`."""
        self._homes = homes
        self._folder = folder
        self._answers: list[tuple[int, Outcome]] = []
        self._count = 0

    def submit(self, how: OpenPgp, blob: bytes, *, authentic: bool) -> int:  # noqa: ARG002  the interface of Unsealer
        """See gate.Unsealer."""
        self._count += 1
        one = Keyring(self._homes[how.home], None if how.exe is None else str(how.exe), how.password, how.decrypt_id)
        try:
            with keyring(one, self._folder / str(self._count)) as decryptor:
                outcome = _outcome(decryptor, blob)
        except (OSError, OpenPgpError) as error:
            outcome = Refusal(str(error))
        self._answers.append((self._count, outcome))
        return self._count

    def receive(self) -> tuple[int, Outcome]:
        """Return the next answer."""
        return self._answers.pop(0)


@contextlib.contextmanager
def keyring(one: Keyring, home: Path) -> Iterator[Decryptor]:
    """Give gpg a copy of a keyring in the new folder `home`, with an agent that ends with the block.

    Raises:
        OpenPgpError: gpg or python-gnupg is missing, or the keyring is none.
        OSError: the folder cannot be made.
    """
    home.mkdir(mode=0o700)
    _extract(one.archive, home)
    with _agent(home):
        yield Decryptor(home, None if one.exe is None else Path(one.exe), one.password, one.decrypt_id)


def _extract(archive: bytes, home: Path) -> None:
    """Write the files of an archive, which has no folders but one, and nothing but files."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            content = members.extractfile(member)
            parts = Path(member.name).parts
            if content is None or not 1 <= len(parts) <= 2 or ".." in parts or parts[0] == "/":  # noqa: PLR2004
                msg = f"a keyring with {member.name!r}"
                raise OpenPgpError(msg)
            place = home.joinpath(*parts)
            place.parent.mkdir(mode=0o700, exist_ok=True)
            place.write_bytes(content.read())
            place.chmod(0o600)


@contextlib.contextmanager
def _agent(home: Path) -> Iterator[None]:
    """Run gpg-agent for a home, on a socket that is there before it is."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(home / "S.gpg-agent"))
    listening.listen(8)
    high = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD_CLOEXEC, _LISTEN_FDS_START + 1)
    listening.close()  # it may have had that number itself
    spare = os.dup(_LISTEN_FDS_START) if _is_open(_LISTEN_FDS_START) else None
    os.dup2(high, _LISTEN_FDS_START)
    os.close(high)
    try:
        process = subprocess.Popen(  # noqa: S603  gpg's own agent
            [_AGENT, "--homedir", str(home), *_AGENT_ARGUMENTS],
            pass_fds=(_LISTEN_FDS_START,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": _PATH, "LISTEN_FDS": "1", "HOME": str(home), "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        msg = f"{_AGENT} cannot be started (Debian: package gpg-agent): {error.strerror}"
        raise OpenPgpError(msg) from error
    finally:
        os.close(_LISTEN_FDS_START)
        if spare is not None:
            os.dup2(spare, _LISTEN_FDS_START, inheritable=False)
            os.close(spare)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):  # a worker may not: its agents are killed with its group
            process.kill()
            process.wait()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
