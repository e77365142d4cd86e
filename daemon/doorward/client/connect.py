"""Knock and dial until the door opens: what stands under every ssh connection.

A SYN that comes before the grant is dropped, and the kernel repeats it only after a second; so fresh sockets are
dialled on a schedule of our own. The first that connects wins, and the others are closed at once, before the host's
answer to them can make a connection that nobody uses (sshd counts those against us: PerSourcePenalties).
"""

from __future__ import annotations

import errno
import os
import select
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from doorward.client.address import Endpoint

FIRST_DIALS: Final = (0.003, 0.01, 0.03, 0.1)  # seconds after a knock
DIAL_EVERY: Final = 0.25
KNOCK_EVERY: Final = 2.5
NEXT_ADDRESS_AFTER: Final = 0.25  # RFC 8305's connection attempt delay
PATIENCE: Final = 1.0  # how long after the first knock a refusal may still come from before the grant
HALF_OPEN_MAX: Final = 5  # a lane; the oldest then had over a second
LANES_MAX: Final = 4

_AT_ONCE_HOPELESS: Final = frozenset(
    {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM, errno.EINVAL}
)
_WORDS: Final = {
    errno.ECONNREFUSED: "refused: the host answers, but nothing listens on this port",
    errno.EHOSTUNREACH: "no route to the host: it is down, or a router or firewall on the way says no",
    errno.ENETUNREACH: "no route: this machine has no way to that network",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One address to dial; `knock` sends one fresh packet for it and may raise OSError; None dials without knocking.

    `keyless` says why there is no knock.
    """

    dial: Endpoint
    knock: Callable[[], None] | None
    keyless: str = "no key for this host to knock with"


class ClosedError(ClientError):
    """No connection: the text says why, in one line."""


def connect(routes: Sequence[Route], deadline: float, monotonic: Callable[[], float]) -> socket.socket:
    """Return a connected socket for the first route that opens; `deadline` in `monotonic`'s seconds.

    Raises:
        ClosedError: nothing opened in time, or every address refused.
    """
    start = monotonic()
    lanes = [Lane(route, start + i * NEXT_ADDRESS_AFTER) for i, route in enumerate(routes[:LANES_MAX])]
    try:
        while monotonic() < deadline and any(not lane.end for lane in lanes):
            for lane in lanes:
                lane.step(monotonic())
            due = min([deadline, *(lane.due for lane in lanes if not lane.end)])
            connection = _first_open(lanes, due - monotonic(), monotonic)
            if connection is not None:
                return connection
    finally:
        for lane in lanes:
            lane.close()
    raise ClosedError(_reason(lanes))


@dataclass(slots=True)
class Lane:
    """The attempts at one address. `end` says why there will be no more; empty while there will."""

    route: Route
    begin: float
    knocks: int = 0
    end: str = ""
    unsent: str = ""
    sockets: list[socket.socket] = field(default_factory=list)
    _next_knock: float = 0.0
    _next_dial: float = 0.0
    _dials: Iterator[float] = field(default_factory=lambda: iter(()))

    def __post_init__(self) -> None:
        """Plan the first step."""
        self._next_knock = self._next_dial = self.begin

    @property
    def due(self) -> float:
        """The next moment at which step() has something to do."""
        return min(self._next_knock, self._next_dial)

    def step(self, now: float) -> None:
        """Knock and dial if their time has come."""
        if not self.end and now >= self._next_knock:
            self._knock(now)
        if not self.end and now >= self._next_dial:
            self._dial(now)

    def failed(self, number: int, now: float) -> None:
        """Take notice of a failed dial; a refusal may stem from before the grant, so it ends nothing at once."""
        hopeful = self.route.knock is not None and now - self.begin < PATIENCE
        if number in _AT_ONCE_HOPELESS or not (hopeful or number == errno.ETIMEDOUT):
            self.end = _WORDS.get(number) or os.strerror(number)

    def close(self) -> None:
        """Close every dialled socket that is still ours."""
        while self.sockets:
            self.sockets.pop().close()

    def _knock(self, now: float) -> None:
        self._next_knock = now + KNOCK_EVERY
        if self.route.knock is None:
            self._next_knock, self._dials, self._next_dial = float("inf"), iter(()), now
            return
        try:
            self.route.knock()
        except OSError as error:
            self.unsent = error.strerror or str(error)
        else:
            self.knocks += 1
        self._dials = _schedule(now)
        self._next_dial = next(self._dials)

    def _dial(self, now: float) -> None:
        self._next_dial = next((moment for moment in self._dials if moment > now), float("inf"))
        if len(self.sockets) >= HALF_OPEN_MAX:
            self.sockets.pop(0).close()
        fresh = socket.socket(self.route.dial.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        number = fresh.connect_ex(self.route.dial.sockaddr)
        if number in {0, errno.EINPROGRESS}:
            self.sockets.append(fresh)
            return
        fresh.close()
        self.failed(number, now)


def _schedule(knocked: float) -> Iterator[float]:
    """Yield the moments to dial after a knock, without end."""
    yield from (knocked + offset for offset in FIRST_DIALS)
    moment = knocked + FIRST_DIALS[-1]
    while True:
        moment += DIAL_EVERY
        yield moment


def _first_open(lanes: Sequence[Lane], seconds: float, monotonic: Callable[[], float]) -> socket.socket | None:
    """Wait until a socket is decided, at most `seconds`; return the first that connected."""
    poller = select.poll()
    for lane in lanes:
        for dialled in lane.sockets:
            poller.register(dialled, select.POLLOUT)
    decided = {descriptor for descriptor, _ in poller.poll(max(seconds, 0) * 1000)}
    for lane in lanes:
        for dialled in [each for each in lane.sockets if each.fileno() in decided]:
            lane.sockets.remove(dialled)
            number = _outcome(dialled)
            if number == 0:
                return dialled
            dialled.close()
            lane.failed(number, monotonic())
    return None


def _outcome(dialled: socket.socket) -> int:
    """Return the errno of a decided connect, 0 for success.

    A dial to a free local port can meet itself (TCP's simultaneous open): nobody else is there, so it is a refusal.
    """
    number = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        return number
    try:
        return errno.ECONNREFUSED if dialled.getsockname() == dialled.getpeername() else 0
    except OSError as error:
        return error.errno or errno.ECONNREFUSED


def _reason(lanes: Sequence[Lane]) -> str:
    ends = list(dict.fromkeys(lane.end for lane in lanes if lane.end))
    if ends and all(lane.end for lane in lanes):
        return "; ".join(ends)
    knocks = sum(lane.knocks for lane in lanes)
    if knocks:
        return f"closed after {knocks} knock{'s' * (knocks > 1)}: key? clock? source behind NAT?"
    unsent = next((lane.unsent for lane in lanes if lane.unsent), "")
    return f"closed, and no knock could be sent: {unsent}" if unsent else f"no answer, and {lanes[0].route.keyless}"
