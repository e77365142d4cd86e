"""What two gateways have seen, in a Valkey or Redis that both can ask; and the store of this host behind it.

The listener gets a connected socket and can make none itself. Whatever is no expected reply, or comes late, ends the
connection: a late reply would answer the next question.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import math
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Final, TypeVar

from doorward.errors import ReplayError, ShareError, WireError
from doorward.values import ShareFailure
from doorward.wire import resp
from doorward.wire.doorward import CODE_STEP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doorward.gate import Memory
    from doorward.record.log import Log
    from doorward.wire.resp import Entry, Reply

    T = TypeVar("T")

PATIENCE: Final = 0.02  # seconds for a question and its reply
APART: Final = 600  # seconds; what is shared is kept so much longer, for clocks that are apart
UNTOLD_MAX: Final = 10_000  # names, some 2 MB, that the share has not been told
TELLING: Final = 0.05  # seconds for what the share was not told, in one tick
_LONGEST: Final = 1 << 40  # milliseconds, some 34 years: a packet may say any time
_STREAM: Final = b"doorward:grants"
_STREAM_MAX: Final = 4096  # entries, a megabyte
_SEEN: Final = b"doorward:seen:"
_PROBE: Final = b"doorward:probe"
_CHUNK: Final = 1 << 16
_CONSEQUENCES: Final = {
    ShareFailure.REFUSE: "no knock opens anything (SHARE_FAILURE refuse)",
    ShareFailure.LOCAL: "knocks that the other gateway has seen OPEN HERE TOO (SHARE_FAILURE local)",
}
_REPLICA: Final = "READONLY"  # how the error of a replica begins


class _About(enum.Enum):
    """What fails."""

    CONNECTION = enum.auto()
    WRITING = enum.auto()
    READING = enum.auto()


class Share:
    """The connection to the share. Every question raises ShareError where there is no expected reply in time."""

    def __init__(self, path: Path, connect: Callable[[], int], log: Log) -> None:
        """Ask at the socket that `connect` has connected, which raises ShareError; `path` is for people."""
        self.path = path
        self.policy = ShareFailure.REFUSE
        self._connect = connect
        self._log = log
        self._socket: socket.socket | None = None
        self._after = resp.FIRST  # the last entry of the stream that was read
        self._troubles: dict[_About, str] = {}

    def revive(self) -> None:
        """Connect where there is no connection; called once a second at most."""
        if self._socket is not None:
            return
        try:
            self._socket = socket.socket(fileno=self._connect())
        except ShareError as error:
            self._fail(_About.CONNECTION, str(error))
            return
        self._socket.settimeout(0)
        self._after = resp.FIRST  # another server may have other entries under these names

    def probe(self) -> None:
        """Find out whether the share can be written again, where it could not."""
        if _About.WRITING in self._troubles:
            with contextlib.suppress(ShareError):
                self.claim(_PROBE, 1)

    @property
    def state(self) -> str:
        """The state in one sentence."""
        return f"{self.path}: {'FAILS: ' + self._why if self._troubles else 'works'}"

    @property
    def works(self) -> bool:
        """Whether nothing fails."""
        return not self._troubles

    @property
    def refuses_all(self) -> bool:
        """Whether no knock opens anything for want of it. A replica is one of a pair that waits: that is as it is."""
        unwritten = self._troubles.get(_About.WRITING, _REPLICA)
        failing = _About.CONNECTION in self._troubles or not unwritten.startswith(_REPLICA)
        return failing and self.policy is ShareFailure.REFUSE

    @property
    def _why(self) -> str:
        return next(iter(self._troubles.values()))

    def claim(self, name: bytes, milliseconds: int | None) -> bool:
        """Whether nobody has claimed a name before; it stays claimed for so long, or with None for ever."""
        return self._ask(resp.claim(name, milliseconds), resp.was_new, _About.WRITING)

    def append(self, record: bytes) -> None:
        """Append a record, for the other gateway."""
        self._ask(resp.append(_STREAM, record, _STREAM_MAX), resp.appended, _About.WRITING)

    def read(self) -> tuple[Entry, ...]:
        """The next records, our own among them; at most ENTRIES_MAX."""
        after = self._after
        found = self._ask(resp.read(_STREAM, after), lambda reply: resp.entries(reply, _STREAM, after), _About.READING)
        self._after = found[-1].name if found else after
        return found

    def _ask(self, question: bytes, take: Callable[[Reply], T], about: _About) -> T:
        if self._socket is None:
            raise ShareError(self._troubles.get(_About.CONNECTION, "it was not asked for yet"))
        try:
            reply = _asked(self._socket, question)
            found = None if isinstance(reply, resp.Refusal) else take(reply)
        except (OSError, WireError, ShareError) as error:
            self.close()
            raise self._fail(_About.CONNECTION, str(error)) from error
        self._succeed(_About.CONNECTION)
        if isinstance(reply, resp.Refusal):
            raise self._fail(about, reply.text)
        self._succeed(about)
        assert found is not None  # noqa: S101  no reply is taken for None
        return found

    def _fail(self, about: _About, why: str) -> ShareError:
        """Keep what fails, and log it once."""
        if about not in self._troubles:
            reading = about is _About.READING
            lost = "grants of the other gateway are not carried over" if reading else _CONSEQUENCES[self.policy]
            self._log.error("share %s: FAILS: %s: %s", self.path, why, lost)
        self._troubles[about] = why
        return ShareError(why)

    def _succeed(self, about: _About) -> None:
        if self._troubles and self._troubles.pop(about, None) is not None:
            self._log.warning("share %s: %s again", self.path, _AGAIN[about])

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


_AGAIN: Final = {
    _About.CONNECTION: "it answers",
    _About.WRITING: "it is written",
    _About.READING: "grants are read",
}


def _asked(connection: socket.socket, question: bytes) -> Reply:
    """The reply to a question."""
    _refuse_unasked(connection)
    if os.write(connection.fileno(), question) != len(question):  # the filter of system calls leaves write(2) alone
        msg = "it takes no question"
        raise ShareError(msg)
    deadline, content = time.monotonic() + PATIENCE, b""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while (found := resp.parse(content)) is None:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(math.ceil(left * 1000)):
            msg = f"no reply within {PATIENCE * 1000:.0f} ms"
            raise ShareError(msg)
        content += _received(connection)
    reply, length = found
    if length != len(content):
        msg = "it says more than it was asked"
        raise ShareError(msg)
    return reply


def _received(connection: socket.socket) -> bytes:
    part = connection.recv(_CHUNK)
    if not part:
        msg = "it has ended the connection"
        raise ShareError(msg)
    return part


def _refuse_unasked(connection: socket.socket) -> None:
    """Check that nothing is there yet: it would be taken for the reply."""
    try:
        _received(connection)
    except BlockingIOError:
        return
    msg = "it says what it was not asked"
    raise ShareError(msg)


def ask_once(descriptor: int) -> None:
    """Ask a share by a connected descriptor, which is closed then, and change nothing in it.

    Raises:
        ShareError: it does not answer as it should.
    """
    with socket.socket(fileno=descriptor) as connection:
        connection.settimeout(0)
        try:
            reply = _asked(connection, resp.read(_STREAM, resp.FIRST))
            if not isinstance(reply, resp.Refusal):
                resp.entries(reply, _STREAM, resp.FIRST)
                return
        except (OSError, WireError) as error:
            raise ShareError(str(error)) from error
    raise ShareError(reply.text)


class SharedMemory:
    """Where packets are remembered: the share is asked first, and then the store of this host, which knows them all."""

    def __init__(self, store: Memory, share: Share) -> None:
        """Remember in both."""
        self._store = store
        self._share = share
        self._untold: dict[
            bytes, int | None
        ] = {}  # names that the share does not know, and until when, in Unix seconds

    def remember(self, packet: bytes, made: int, until: int, *, client: bytes = b"") -> bool:
        """Keep a packet; return whether it is new to both gateways.

        Raises:
            ReplayError: nobody can say.
        """
        return self._both(
            _name(b"packet", packet), until, lambda: self._store.remember(packet, made, until, client=client)
        )

    def use_step(self, name: bytes, step: int) -> bool:
        """Keep a step of a one-time code as used; return whether no gateway has used it.

        Step 0 is that of a sequence which opens once and never again.

        Raises:
            ReplayError: nobody can say.
        """
        until = (step + 2) * CODE_STEP if step else None
        shared = _name(b"step", name + step.to_bytes(8, "big"))
        return self._both(shared, until, lambda: self._store.use_step(name, step))

    def _both(self, name: bytes, until: int | None, here: Callable[[], bool]) -> bool:
        """Claim a name in the share, and whatever comes of it in the store of this host too."""
        why = ""
        try:
            new_there = self._share.claim(name, _milliseconds(until, time.time()))
        except ShareError as error:
            new_there, why = True, str(error)
            self._keep(name, until)
        new_here = here()
        if why and self._share.policy is ShareFailure.REFUSE:
            msg = f"the share cannot say whether it is new: {why}"
            raise ReplayError(msg)
        return new_there and new_here

    def _keep(self, name: bytes, until: int | None) -> None:
        """Keep a name, to tell the share once it answers: else the other gateway would take the packet for new."""
        if len(self._untold) >= UNTOLD_MAX:
            msg = f"the share has not been told of {UNTOLD_MAX} packets: {self._share.state}"
            raise ReplayError(msg)
        self._untold[name] = until

    def tell(self, now: float) -> None:
        """Tell the share what it does not know yet, at `now` (Unix seconds); a slow one is told the rest later."""
        deadline = time.monotonic() + TELLING
        while self._untold and time.monotonic() < deadline:
            name, until = next(iter(self._untold.items()))
            if until is None or until + APART > now:
                try:
                    self._share.claim(name, _milliseconds(until, now))
                except ShareError:
                    return
            del self._untold[name]


def _name(kind: bytes, name: bytes) -> bytes:
    """The name in the share: whose packet it is, it does not say."""
    return _SEEN + hashlib.sha256(kind + name).hexdigest().encode("ascii")


def _milliseconds(until: int | None, now: float) -> int | None:
    """How long a name is kept. The clock of the other gateway may be behind."""
    return None if until is None else min(_LONGEST, int(1000 * (max(0.0, until - now) + APART)))
