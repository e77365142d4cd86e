"""Knock and dial until the port opens: the base of every ssh connection.

A SYN that comes before the grant is dropped, and the kernel repeats it only after a second; so fresh sockets are
dialled on a schedule of our own. The first that connects wins, and the others are closed at once. To the host they must
not be connections that nobody uses (sshd counts those against us: PerSourcePenalties): Linux is asked to acknowledge no
host's answer by itself for a fifth of a second (tcp(7), TCP_QUICKACK), and a dial that is closed resets.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from doorward.client.address import Endpoint
    from doorward.client.sources import Sources

FIRST_DIALS: Final = (0.003, 0.01, 0.03, 0.1)  # seconds after a knock
DIAL_EVERY: Final = 0.25
KNOCK_AGAIN: Final = 1.5  # seconds after the first knock, which may have been lost or asked for an old address
KNOCK_EVERY: Final = 2.5
WORD_AFTER: Final = 2.0  # seconds without an answer, after which the user hears of it
NEXT_ADDRESS_AFTER: Final = 0.25  # RFC 8305's connection attempt delay
PATIENCE: Final = 1.0  # during this time after the first knock a refusal may predate the grant
HALF_OPEN_MAX: Final = 5  # per address; the oldest has then had over a second
ADDRESSES_MAX: Final = 4

_RESET: Final = struct.pack("@ii", 1, 0)  # struct linger: close() throws away what is left, at once
_LEAVE: Final = struct.pack("@ii", 0, 0)  # it sends what is left, in its own time
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux
_UNDER_WAY: Final = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK})  # the last one is Windows'
_AT_ONCE_HOPELESS: Final = frozenset(
    {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM, errno.EINVAL}
)


class NotConnectedError(ClientError):
    """No address opened; reasons.py finds the words, which nobody needs while connections come up."""

    def __init__(self, attempts: Sequence[DialAttempts]) -> None:
        """Keep the attempts at each address."""
        super().__init__("no connection")
        self.attempts = attempts


class Route(NamedTuple):
    """One address to dial; `knock` sends fresh packets for it and may raise OSError; None dials without knocking.

    `knock` returns the number of packets, one for each of `sources` at the time. `keyless` is the reason for not
    knocking. `door` is where the packets go. `senders` are the sockets of those that were sent: a refusal that the
    network answered with is in them.
    """

    dial: Endpoint
    knock: Callable[[], int] | None
    keyless: str = "no key for this host to knock with"
    sources: Sources | None = None
    door: Endpoint | None = None
    senders: Sequence[socket.socket] = ()


def connect(
    routes: Sequence[Route],
    deadline: float,
    monotonic: Callable[[], float],
    tell: Callable[[Sequence[DialAttempts]], None] = lambda _: None,
) -> socket.socket:
    """A connected socket for the first route that opens; `deadline` in `monotonic`'s seconds.

    `tell` hears once that there was no answer yet.

    Raises:
        NotConnectedError: no address opened in time, or every address refused.
    """
    start = monotonic()
    attempts = [DialAttempts(route, start + i * NEXT_ADDRESS_AFTER) for i, route in enumerate(routes[:ADDRESSES_MAX])]
    word_due = start + WORD_AFTER
    try:
        while monotonic() < deadline and any(not each.end for each in attempts):
            for each in attempts:
                each.step(monotonic())
            if monotonic() >= word_due:
                tell(attempts)
                word_due = float("inf")
            due = min([deadline, *(each.due for each in attempts if not each.end)])
            connection = _first_open(attempts, due - monotonic(), monotonic)
            if connection is not None:
                return connection
    finally:
        for each in attempts:
            each.close()
    raise NotConnectedError(attempts)


class DialAttempts:
    """The attempts at one address. `end` is the errno for giving up; 0 until then."""

    def __init__(self, route: Route, begin: float) -> None:
        """Plan the first step for `begin`."""
        self.route, self.begin = route, begin
        self.knocks = 0
        self.end, self.unsent = 0, ""
        self.sockets: list[socket.socket] = []
        self._next_knock = self._next_dial = begin
        self._dials: Iterator[float] = iter(())

    @property
    def due(self) -> float:
        """The next time at which step() acts."""
        return min(self._next_knock, self._next_dial)

    def step(self, now: float) -> None:
        """Knock and dial if their time has come; a new address to ask for does not wait."""
        sources = self.route.sources
        if not self.end and (now >= self._next_knock or (sources is not None and sources.has_news)):
            self._knock(now)
        if not self.end and now >= self._next_dial:
            self._dial(now)

    def failed(self, number: int, now: float) -> None:
        """Record a failed dial. A refusal may predate the grant, so it does not end the attempts at once."""
        hopeful = self.route.knock is not None and now - self.begin < PATIENCE
        if number in _AT_ONCE_HOPELESS or not (hopeful or number == errno.ETIMEDOUT):
            self.end = number

    def close(self) -> None:
        """Close every dialled socket that is still open."""
        while self.sockets:
            self.sockets.pop().close()

    def _knock(self, now: float) -> None:
        self._next_knock = now + (KNOCK_EVERY if self.knocks else KNOCK_AGAIN)
        if self.route.knock is None:
            self._next_knock, self._dials, self._next_dial = float("inf"), iter(()), now
            return
        try:
            self.knocks += self.route.knock() > 0
        except OSError as error:
            self.unsent = error.strerror or str(error)
        self._dials = _schedule(now)
        self._next_dial = next(self._dials)

    def _dial(self, now: float) -> None:
        self._next_dial = next((moment for moment in self._dials if moment > now), float("inf"))
        if len(self.sockets) >= HALF_OPEN_MAX:
            self.sockets.pop(0).close()
        try:
            fresh = self.route.dial.open(socket.SOCK_STREAM)
        except OSError as error:
            self.failed(error.errno or errno.EADDRNOTAVAIL, now)
            return
        fresh.settimeout(0)
        _hold_back(fresh, held=True)
        number = fresh.connect_ex(self.route.dial.sockaddr)
        if number in _UNDER_WAY:
            self.sockets.append(fresh)
            return
        fresh.close()
        self.failed(number, now)


def _hold_back(dialled: socket.socket, *, held: bool) -> None:
    """Let a dial be a connection to the host only once it has won."""
    if _QUICKACK is None:
        return
    with suppress(OSError):  # a system that refuses it has one line more in sshd's log
        dialled.setsockopt(socket.IPPROTO_TCP, _QUICKACK, not held)
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if held else _LEAVE)


def _schedule(knocked: float) -> Iterator[float]:
    """The endless series of times to dial after a knock."""
    yield from (knocked + offset for offset in FIRST_DIALS)
    moment = knocked + FIRST_DIALS[-1]
    while True:
        moment += DIAL_EVERY
        yield moment


def _first_open(
    attempts: Sequence[DialAttempts], seconds: float, monotonic: Callable[[], float]
) -> socket.socket | None:
    """Wait until a connect succeeds or fails, at most `seconds`; return the first that succeeded."""
    decided = _decided([dialled for each in attempts for dialled in each.sockets], max(seconds, 0))
    for each in attempts:
        for dialled in [each for each in each.sockets if each.fileno() in decided]:
            each.sockets.remove(dialled)
            number = _outcome(dialled)
            if number == 0:
                _hold_back(dialled, held=False)
                return dialled
            dialled.close()
            each.failed(number, monotonic())
    return None


def _decided(dialled: Sequence[socket.socket], seconds: float) -> set[int]:
    """The descriptors of the dials that have ended, waiting at most `seconds` for one."""
    if hasattr(select, "poll"):
        poller = select.poll()
        for each in dialled:
            poller.register(each, select.POLLOUT)
        return {descriptor for descriptor, _ in poller.poll(seconds * 1000)}
    if not dialled:  # Windows, which waits for nothing without a socket
        time.sleep(seconds)
        return set()
    _, succeeded, failed = select.select([], dialled, dialled, seconds)
    return {each.fileno() for each in (*succeeded, *failed)}


def _outcome(dialled: socket.socket) -> int:
    """The errno of a finished connect, 0 for success.

    A dial to a free local port can connect to itself (TCP's simultaneous open): it counts as a refusal.
    """
    number = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        return number
    try:
        return errno.ECONNREFUSED if dialled.getsockname() == dialled.getpeername() else 0
    except OSError as error:
        return error.errno or errno.ECONNREFUSED
