"""The listener's side of the process that runs gpg."""

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
from doorward.privsep import unsealing as wire
from doorward.privsep.unsealing import Answer, Keyring, Missed, Packet, Ready, Trouble, Unusable

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from doorward.config.stanza import OpenPgp, Stanza
    from doorward.privsep.unsealing import Outcome, Reply, Request

Ring = tuple[str, str, bytes, str]  # folder, gpg, passphrase, GPG_DECRYPT_ID
_PATIENCE: Final = wire.START_SECONDS + 2.0  # seconds for new keyrings to be in use
_BUFFER: Final = 1 << 18  # bytes, so that what is under way never fills it


def prepare_folder(account: pwd.struct_passwd) -> None:
    """Make the folder that gpg works in, for the account that it runs as; a unit has made it already.

    Raises:
        OpenPgpError: it cannot be made, or is not that account's.
    """
    folder = wire.RUN_FOLDER
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
    """Return the keyrings that stanzas need, each once."""
    found: dict[Ring, Keyring] = {}
    for stanza in stanzas:
        if stanza.openpgp is not None:
            one = _keyring(stanza, stanza.openpgp, homes)
            before = found.get(_ring(stanza.openpgp))
            found[_ring(stanza.openpgp)] = replace(
                one, signers=(() if before is None else before.signers) + one.signers
            )
    return found


def _keyring(stanza: Stanza, how: OpenPgp, homes: Mapping[Path, bytes]) -> Keyring:
    """Return the keyring of one stanza."""
    exe = None if how.exe is None else str(how.exe)
    return Keyring(homes[how.home], exe, how.password, how.decrypt_id, tuple(_signers(stanza, how)))


def _signers(stanza: Stanza, how: OpenPgp) -> Iterator[tuple[str, str]]:
    """Yield whose signatures are to count, with the place that says it; none where gpg's word does not matter."""
    if how.require_signature and not how.ignore_signature_errors:
        for variable, names in (("GPG_FINGERPRINT_ID", how.fingerprints), ("GPG_REMOTE_ID", how.remote_ids)):
            yield from ((name, f"{stanza.path}:{stanza.line}: {variable} {name}") for name in sorted(names))


def _ring(how: OpenPgp) -> Ring:
    return str(how.home), str(how.exe), b"" if how.password is None else how.password.reveal(), how.decrypt_id


class RemoteUnsealer:
    """Has packets decrypted elsewhere; nothing here waits for gpg but configure()."""

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
        self._open: dict[int, bool] = {}  # packets under way, and whether strangers can have made them
        self._noted: list[tuple[int, Outcome]] = []  # answers that came while another one was waited for
        self._last = 0
        self._gone = False
        self.troubles: list[str] = []
        from doorward.privsep import unsealer  # noqa: PLC0415  for GnuPG alone; it brings much with it

        try:
            self._process: subprocess.Popen[bytes] = unsealer.start(theirs)
        finally:
            theirs.close()

    def fileno(self) -> int:
        """Return what becomes readable with answers."""
        return self._channel.fileno()

    @property
    def waiting(self) -> bool:
        """Whether answers will come."""
        return bool(self._open)

    @property
    def gone(self) -> bool:
        """Whether nothing will ever come from it any more."""
        return self._gone

    def configure(self, needed: Mapping[Ring, Keyring]) -> None:
        """Have other keyrings used from now on. Whether or not they are, noted() has the answers that came meanwhile.

        Raises:
            OpenPgpError: they cannot be used, and the ones before stay.
        """
        content = wire.encode_keyrings(tuple(needed.values()))
        if len(content) > wire.KEYRINGS_MAX:
            msg = f"the GnuPG keyrings have more than {wire.KEYRINGS_MAX * 3 // 4} bytes"
            raise OpenPgpError(msg)
        self._channel.settimeout(_PATIENCE)
        try:
            self._say(wire.Announce(len(content)))
            for place in range(0, len(content), wire.PIECE_MAX):
                self._say(wire.Piece(content[place : place + wire.PIECE_MAX]))
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
        self._places = {ring: place for place, ring in enumerate(needed)}

    def noted(self) -> list[tuple[int, Outcome]]:
        """Return the answers that came during configure(), each once: nothing becomes readable for them any more."""
        answers, self._noted = self._noted, []
        return answers

    def submit(self, how: OpenPgp, blob: bytes, *, authentic: bool) -> int | None:
        """Have a message decrypted; return the number that the answer will have, or None where it cannot be now.

        What strangers can have made, since no HMAC says otherwise, gets a part of the places only.
        """
        strangers, place = sum(self._open.values()), self._places.get(_ring(how))
        full = len(self._open) >= wire.QUEUE_MAX or (not authentic and strangers >= wire.STRANGERS_MAX)
        if self._gone or full or place is None:
            return None
        self._last = (self._last + 1) % (1 << 32)
        try:
            self._say(Packet(self._last, place, blob))
        except OSError:
            return None
        self._open[self._last] = not authentic
        return self._last

    def receive(self) -> list[tuple[int, Outcome]]:
        """Return the answers that have come; where the process is gone, one to each packet that had none."""
        answers: list[tuple[int, Outcome]] = []
        try:
            while True:
                answers += self._note(self._hear())
        except BlockingIOError:
            return answers
        except (OSError, HelperError) as error:
            self._gone = True
            self.troubles.append(f"the process that runs gpg is gone: {error}; GnuPG knocks wait for a new start")
            answers += [(number, Missed("the process that runs gpg is gone")) for number in self._open]
            self._open.clear()
            return answers

    def close(self) -> None:
        """Let the process go, which ends it and whatever it started."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is in the middle of a start, and ends after that
            self._process.wait(5)

    def _note(self, reply: Reply) -> list[tuple[int, Outcome]]:
        match reply:
            case Answer(number=number, outcome=outcome) if number in self._open:
                del self._open[number]
                return [(number, outcome)]
            case Trouble(text=text):
                self.troubles.append(text)
                return []
            case _:
                msg = f"it answers out of turn: {type(reply).__name__}"
                raise HelperError(msg)

    def _say(self, request: Request) -> None:
        """Write one message; write(2), since the listener may not call send(2)."""
        content = wire.encode_request(request)
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
        content = self._channel.recv(wire.MESSAGE_MAX)
        if not content:
            msg = "it has ended"
            raise HelperError(msg)
        return wire.decode_reply(content)
