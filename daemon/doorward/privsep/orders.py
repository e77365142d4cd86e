"""The listener's side of the channel to doorward-exec: it tells, is never told, and never waits."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from doorward.errors import HelperError
from doorward.privsep.limits import mark
from doorward.privsep.messages import Execute, Report, Reread, encode_order

if TYPE_CHECKING:
    from doorward.config.stanza import Stanza
    from doorward.privsep.messages import Order
    from doorward.values import Execution

SOCKET: Final = "/run/doorward/exec.sock"
WAITING_MAX: Final = 256  # orders beyond those that the kernel keeps for the socket
REPORTS_MAX: Final = 128  # of them lines to mail: an execution finds room behind any number of these


def connect(path: str = SOCKET) -> socket.socket | None:
    """Return a connection to doorward-exec, or None where its unit is not enabled."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.connect(path)
    except OSError:
        channel.close()
        return None
    return channel


class Orders:
    """What doorward-exec is told. Where there is none, an execution is refused and a report is dropped."""

    def __init__(self, channel: socket.socket | None) -> None:
        """Write to `channel`, which is given back with close()."""
        if channel is not None:
            channel.settimeout(0)
        self.channel = channel
        self._waiting: deque[bytes] = deque()
        self.dropped = 0  # reports

    @property
    def waiting(self) -> bool:
        """Whether orders wait for room in the channel."""
        return bool(self._waiting)

    def execute(self, execution: Execution, stanza: Stanza) -> None:
        """Have an execution done.

        Raises:
            HelperError: nobody takes it.
        """
        if self.channel is None:
            msg = f"doorward-exec is not running, and stanza {execution.stanza} needs it"
            raise HelperError(msg)
        if not self._put(Execute(execution, mark(stanza)), WAITING_MAX):
            msg = "doorward-exec does not keep up"
            raise HelperError(msg)

    def report(self, line: str, *, granted: bool) -> None:
        """Have a line mailed; it is counted instead where that would be too much."""
        if self.channel is None or not self._put(Report(granted, line), REPORTS_MAX):
            self.dropped += 1

    def reread(self) -> None:
        """Have the files read again; an execution has them read again too, where the stanza is another one."""
        if self.channel is not None:
            self._put(Reread(), WAITING_MAX)

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        while self._waiting and self._write(self._waiting[0]):
            self._waiting.popleft()

    def close(self) -> None:
        """Give the channel back; what waited is lost."""
        if self.channel is not None:
            self.channel.close()
        self.channel = None
        self._waiting.clear()

    def _put(self, order: Order, most: int) -> bool:
        """Write an order or let it wait; return False where too many wait already."""
        content = encode_order(order)
        self.flush()
        if not self._waiting and self._write(content):
            return True
        if len(self._waiting) >= most:
            return False
        self._waiting.append(content)
        return True

    def _write(self, content: bytes) -> bool:
        """Return whether there was room; a channel that is broken is noticed by whoever reads it."""
        if self.channel is None:
            return False
        try:
            os.write(self.channel.fileno(), content)
        except OSError:
            return False
        return True
