"""The listener's side of the channel to gpg's supervisor."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from doorward.errors import HelperError, OpenPgpError
from doorward.gnupg import messages
from doorward.gnupg.messages import KEYRINGS, REPLIES, REQUESTS, Answer, Keyring, Missed, Packet, Ready, Unusable
from doorward.linux import seqpacket

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from doorward.config.stanza import OpenPgp, Stanza
    from doorward.gnupg.messages import Outcome, Reply, Request

Ring = tuple[str, str, bytes, str]  # folder, gpg, passphrase, GPG_DECRYPT_ID
_PATIENCE: Final = messages.START_SECONDS + 2.0  # seconds for new keyrings to be in use
_BUFFER: Final = 1 << 18  # bytes; QUEUE_MAX packets never fill it


def prepare_folder(account: pwd.struct_passwd) -> None:
    """Make gpg's working folder for its account; under systemd the unit has made it already.

    Raises:
        OpenPgpError: it cannot be made, or belongs to another account.
    """
    folder = messages.RUN_FOLDER
    try:
        if not os.geteuid():
            folder.mkdir(mode=0o700, exist_ok=True)
            os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)
        found = folder.lstat()
    except OSError as error:
        msg = f"GnuPG stanzas need {folder} ({error.strerror}); doorwardd.service needs RuntimeDirectory={folder.name}"
        raise OpenPgpError(msg) from error
    if found.st_uid != account.pw_uid or found.st_mode != stat.S_IFDIR | 0o700:
        msg = f"{folder} is not a folder of {account.pw_name} alone"
        raise OpenPgpError(msg)


def keyrings(stanzas: Iterable[Stanza], homes: Mapping[Path, bytes]) -> dict[Ring, Keyring]:
    """The keyrings that stanzas need, each once."""
    found: dict[Ring, Keyring] = {}
    for stanza in stanzas:
        if stanza.openpgp is not None:
            one = _keyring(stanza, stanza.openpgp, homes)
            before = found.get(ring(stanza.openpgp))
            found[ring(stanza.openpgp)] = replace(one, signers=(() if before is None else before.signers) + one.signers)
    return found


def _keyring(stanza: Stanza, how: OpenPgp, homes: Mapping[Path, bytes]) -> Keyring:
    """The keyring of one stanza."""
    exe = None if how.exe is None else str(how.exe)
    return Keyring(homes[how.home], exe, how.password, how.decrypt_id, tuple(_signers(stanza, how)))


def _signers(stanza: Stanza, how: OpenPgp) -> Iterator[tuple[str, str]]:
    """The accepted signers, each with its place in the configuration; none where signatures are not checked."""
    if how.require_signature and not how.ignore_signature_errors:
        for variable, names in (("GPG_FINGERPRINT_ID", how.fingerprints), ("GPG_REMOTE_ID", how.remote_ids)):
            yield from ((name, f"{stanza.path}:{stanza.line}: {variable} {name}") for name in sorted(names))


def ring(how: OpenPgp) -> Ring:
    """The name of the keyring that a stanza needs."""
    return str(how.home), str(how.exe), b"" if how.password is None else how.password.reveal(), how.decrypt_id


class RemoteUnsealer:
    """Has packets decrypted by gpg's worker; only configure() waits for gpg."""

    def __init__(self) -> None:
        """Start the process; it has no keyrings yet.

        Raises:
            OpenPgpError: it does not start.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._channel = ours
        self._places: dict[Ring, int] = {}
        self._open: dict[int, bool] = {}  # packets in progress, and whether strangers can have made them
        self._noted: list[tuple[int, Outcome]] = []  # answers that came during configure()
        self._last = 0
        self.gone = False  # whether the process has ended
        self.troubles: list[str] = []
        from doorward.gnupg import supervisor  # noqa: PLC0415  a large import, for GnuPG alone

        try:
            self._process: subprocess.Popen[bytes] = supervisor.start(theirs)
        finally:
            theirs.close()

    def fileno(self) -> int:
        """The descriptor that becomes readable with answers."""
        return self._channel.fileno()

    @property
    def waiting(self) -> bool:
        """Whether answers are expected."""
        return bool(self._open)

    @property
    def in_progress(self) -> int:
        """The number of packets that have no answer yet."""
        return len(self._open)

    def configure(self, needed: Mapping[Ring, Keyring]) -> None:
        """Have other keyrings used. Afterwards, or after an error, noted() has the answers that came meanwhile.

        Raises:
            OpenPgpError: they cannot be used; the previous ones stay.
        """
        try:
            content = KEYRINGS.encode(tuple(needed.values()))
        except HelperError as error:
            msg = f"the GnuPG keyrings: {error}"
            raise OpenPgpError(msg) from error
        self._channel.settimeout(_PATIENCE)
        try:
            for place in range(0, len(content), messages.PIECE_MAX):
                end = place + messages.PIECE_MAX
                self._say(messages.Piece(content[place:end], last=end >= len(content)))
            reply = self._hear()
            while not isinstance(reply, (Ready, Unusable)):
                self._noted += self._note(reply)
                reply = self._hear()
        except (OSError, HelperError) as error:
            msg = f"the process that runs gpg does not answer: {error}"
            raise OpenPgpError(msg) from error
        finally:
            self._channel.settimeout(0)
        if isinstance(reply, Unusable):
            raise OpenPgpError(reply.text)
        self.troubles += reply.doubts
        self._places = {one: place for place, one in enumerate(needed)}

    def noted(self) -> list[tuple[int, Outcome]]:
        """The answers that came during configure(), each once; the descriptor does not become readable for them."""
        answers, self._noted = self._noted, []
        return answers

    def submit(self, how: OpenPgp, blob: bytes, *, authentic: bool) -> int | None:
        """Have a message decrypted; return the number of its answer, or None where that is impossible now.

        Messages without an HMAC, which strangers can make, get a part of the queue only.
        """
        strangers, place = sum(self._open.values()), self._places.get(ring(how))
        full = len(self._open) >= messages.QUEUE_MAX or (not authentic and strangers >= messages.STRANGERS_MAX)
        if self.gone or full or place is None:
            return None
        self._last = (self._last + 1) % (1 << 32)
        try:
            self._say(Packet(self._last, place, blob, authentic))
        except OSError:
            return None
        self._open[self._last] = not authentic
        return self._last

    def receive(self) -> list[tuple[int, Outcome]]:
        """The answers that have come; one for every packet in progress where the process is gone."""
        answers: list[tuple[int, Outcome]] = []
        try:
            while True:
                answers += self._note(self._hear())
        except HelperError as error:
            if isinstance(error.__cause__, BlockingIOError):
                return answers
            self.gone = True
            self.troubles.append(f"the process that runs gpg is gone: {error}; GnuPG knocks wait for a new start")
            answers += [(number, Missed("the process that runs gpg is gone")) for number in self._open]
            self._open.clear()
            return answers

    def close(self) -> None:
        """Close the channel, which ends the process and everything it started."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is starting a worker, and ends after that
            self._process.wait(5)

    def _note(self, reply: Reply) -> list[tuple[int, Outcome]]:
        match reply:
            case Answer(number=number, outcome=outcome) if number in self._open:
                del self._open[number]
                return [(number, outcome)]
            case messages.Trouble(text=text):
                self.troubles.append(text)
                return []
            case _:
                msg = f"it answers out of turn: {type(reply).__name__}"
                raise HelperError(msg)

    def _say(self, request: Request) -> None:
        """Write one message; write(2), since the listener may not call send(2)."""
        content = REQUESTS.encode(request)
        timeout = self._channel.gettimeout()
        if timeout:
            self._wait_for_room(timeout)
        os.write(self._channel.fileno(), content)

    def _wait_for_room(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLOUT)
        if not poll.poll(seconds * 1000):
            raise TimeoutError

    def _hear(self) -> Reply:
        return REPLIES.decode(seqpacket.hear(self._channel))
