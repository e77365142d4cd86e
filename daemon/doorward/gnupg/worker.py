"""The confined process that runs gpg on messages of strangers."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import resource
import shutil
import signal
import socket
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from doorward.crypto.openpgp import Decryptor
from doorward.denials import Fit
from doorward.errors import AuthenticationError, DoorwardError, OpenPgpError, OtherKeyError, WireError
from doorward.gnupg.messages import REPLIES, REQUESTS, Answer, Keyring, Packet, Ready, Refusal, Unusable
from doorward.gnupg.relocking import S2K_COUNT, relock
from doorward.linux import privileges, seccomp, seqpacket
from doorward.linux.systemd import LISTEN_FDS_START

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from doorward.config.stanza import OpenPgp
    from doorward.gnupg.messages import Outcome

DOUBTS_MAX: Final = 50  # lines about signers
_MIB: Final = 1 << 20
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_AS, 512 * _MIB),
    (resource.RLIMIT_FSIZE, 32 * _MIB),
    (resource.RLIMIT_NOFILE, 128),
    (resource.RLIMIT_NPROC, 256),  # of the account, other processes included
)  # no RLIMIT_CPU: agents live long, and the deadline ends a long computation
_AGENT: Final = "gpg-agent"
_AGENT_ARGUMENTS: Final = (
    "--supervised", "--quiet", "--no-options", "--no-allow-external-cache", "--pinentry-program", "/bin/false",
    "--disable-scdaemon", "--s2k-count", str(S2K_COUNT),
)  # fmt: skip
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def work(channel: socket.socket, keyrings: tuple[Keyring, ...], folder: Path) -> NoReturn:
    """Run as the worker."""
    try:
        os.setsid()
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
    """Open the keyrings and report to the supervisor; None where they cannot be used."""
    try:
        folder.mkdir(mode=0o700)
        opened = [stack.enter_context(keyring(one, folder / str(number))) for number, one in enumerate(keyrings)]
        doubtful = [line for one, ring in zip(opened, keyrings, strict=True) for line in doubts(one, ring)]
    except (OSError, DoorwardError) as error:
        seqpacket.send(channel, REPLIES.encode(Unusable(str(error))))
        return None
    more = [f"{len(doubtful) - DOUBTS_MAX} more signers are doubtful"] if len(doubtful) > DOUBTS_MAX else []
    seqpacket.send(channel, REPLIES.encode(Ready((*doubtful[:DOUBTS_MAX], *more))))
    return opened


def doubts(decryptor: Decryptor, ring: Keyring) -> Iterator[str]:
    """A line for every signer of a stanza whose signatures would be refused."""
    doubted = dict(decryptor.doubts(name for name, _ in ring.signers))
    for name, place in ring.signers:
        if name in doubted:
            yield f"{place[:300]}: {doubted[name]}: what it signs is refused"


def _confine() -> None:
    """Take the limits and the system call filter."""
    privileges.hide()
    privileges.limit(_LIMITS, where_allowed=True)
    os.environ.clear()
    os.environ.update(PATH=_PATH, LC_ALL="C.UTF-8", HOME="/nonexistent")
    seccomp.install(seccomp.GNUPG)


def _die_with(channel: socket.socket) -> None:
    """End the process group when the supervisor is gone: a hanging gpg would remain."""
    seqpacket.hung_up(channel, None)
    os.kill(0, signal.SIGKILL)


def _serve(channel: socket.socket, keyrings: list[Decryptor]) -> None:
    while True:
        packet = REQUESTS.decode(seqpacket.hear(channel))
        assert isinstance(packet, Packet)  # noqa: S101  the supervisor sends nothing else
        answer = Answer(packet.number, _outcome(keyrings[packet.keyring], packet.blob))
        seqpacket.send(channel, REPLIES.encode(answer))


def _outcome(decryptor: Decryptor, blob: bytes) -> Outcome:
    try:
        return decryptor.unseal(blob)
    except WireError as error:
        return Refusal(str(error), Fit.NOTHING)
    except OtherKeyError as error:
        return Refusal(str(error), Fit.KIND)
    except (AuthenticationError, OpenPgpError) as error:
        return Refusal(str(error), Fit.KEY)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A private folder for copies of keyrings within the block: in memory, where we may write there."""
    with tempfile.TemporaryDirectory(dir="/run" if os.access("/run", os.W_OK) else None) as folder:
        yield Path(folder)


class LocalUnsealer:
    """Decrypts while the caller waits; for explain."""

    def __init__(self, homes: Mapping[Path, bytes], folder: Path) -> None:
        """Use copies of the keyrings of `homes`, in `folder`."""
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
    """Put a copy of a keyring into the new folder `home`, with an agent that ends with the block.

    Raises:
        OpenPgpError: gpg or python-gnupg is missing, this is no keyring, or the passphrase is not that of its key.
        OSError: the folder cannot be made.
    """
    home.mkdir(mode=0o700)
    _extract(one.archive, home)
    with _agent(home):
        decryptor = Decryptor(home, None if one.exe is None else Path(one.exe), one.password, one.decrypt_id)
        if one.password is not None:
            decryptor.password = relock(home, decryptor.keygrips(), one.password)
        yield decryptor


def _extract(archive: bytes, home: Path) -> None:
    """Write the files of an archive: regular files, at most one folder deep."""
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
    """Run gpg-agent for a home, on a socket that listens before the agent starts."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(home / "S.gpg-agent"))
    listening.listen(8)
    with listening:
        agent = _start_agent(home, listening)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):  # refused to a worker: its agents end with its process group
            os.kill(agent, signal.SIGKILL)
            os.waitpid(agent, 0)


def _start_agent(home: Path, listening: socket.socket) -> int:
    """Start gpg-agent with a listening socket as its descriptor 3, and return its process.

    The child alone gets that number: in this process it may be another's, and in use at this moment by a thread.

    Raises:
        OpenPgpError: there is no gpg-agent.
    """
    environ = {"PATH": _PATH, "LISTEN_FDS": "1", "HOME": str(home), "LC_ALL": "C.UTF-8"}
    program = shutil.which(_AGENT, path=_PATH) or f"/usr/bin/{_AGENT}"
    high = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD_CLOEXEC, LISTEN_FDS_START + 1)
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        *((os.POSIX_SPAWN_DUP2, 0, standard) for standard in (1, 2)),
        (os.POSIX_SPAWN_DUP2, high, LISTEN_FDS_START),
    ]
    try:
        return os.posix_spawn(
            program,
            [_AGENT, "--homedir", str(home), *_AGENT_ARGUMENTS],
            environ,
            file_actions=actions,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
        )
    except OSError as error:
        msg = f"{_AGENT} cannot be started (Debian: package gpg-agent): {error.strerror}"
        raise OpenPgpError(msg) from error
    finally:
        os.close(high)
