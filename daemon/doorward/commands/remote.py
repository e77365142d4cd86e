"""The listener's side of the channel to doorward-exec: it only sends, and never waits."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from doorward.commands.messages import ORDERS, Execute, Report, Reread
from doorward.errors import HelperError
from doorward.helper.limits import mark

if TYPE_CHECKING:
    from doorward.commands.messages import Order
    from doorward.config.stanza import Stanza
    from doorward.values import Execution

SOCKET: Final = "/run/doorward/exec.sock"
WAITING_MAX: Final = 256  # orders beyond those that the kernel keeps for the socket
REPORTS_MAX: Final = 128  # of them lines to mail: an execution finds room behind any number of these


def connect(path: str = SOCKET) -> socket.socket | None:
    """Connect to doorward-exec; None where its unit is not enabled."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.connect(path)
    except OSError:
        channel.close()
        return None
    return channel


class ExecClient:
    """doorward-exec as the listener calls it. Without a channel executions are refused and reports are dropped."""

    def __init__(self, channel: socket.socket | None) -> None:
        """Write to `channel`, which close() closes."""
        if channel is not None:
            channel.settimeout(0)
        self.channel = channel
        self.waiting: deque[bytes] = deque()  # for room in the channel
        self.dropped = 0  # reports

    def execute(self, execution: Execution, stanza: Stanza) -> None:
        """Have an execution done.

        Raises:
            HelperError: doorward-exec does not accept it.
        """
        if self.channel is None:
            msg = f"doorward-exec is not running, and stanza {execution.stanza} needs it"
            raise HelperError(msg)
        if not self._put(Execute(execution, mark(stanza)), WAITING_MAX):
            msg = "doorward-exec does not keep up"
            raise HelperError(msg)

    def report(self, line: str, *, granted: bool) -> None:
        """Have a line mailed; beyond the limit it is only counted."""
        if self.channel is None or not self._put(Report(granted, line), REPORTS_MAX):
            self.dropped += 1

    def reread(self) -> None:
        """Have the files read again; an execution whose stanza differs has the same effect."""
        if self.channel is not None:
            self._put(Reread(), WAITING_MAX)

    def flush(self) -> None:
        """Write waiting orders, as far as there is room."""
        while self.waiting and self._write(self.waiting[0]):
            self.waiting.popleft()

    def close(self) -> None:
        """Close the channel; waiting orders are lost."""
        if self.channel is not None:
            self.channel.close()
        self.channel = None
        self.waiting.clear()

    def _put(self, order: Order, most: int) -> bool:
        """Write or queue an order; False where `most` orders wait already."""
        content = ORDERS.encode(order)
        self.flush()
        if not self.waiting and self._write(content):
            return True
        if len(self.waiting) >= most:
            return False
        self.waiting.append(content)
        return True

    def _write(self, content: bytes) -> bool:
        """Whether there was room; the reader of the channel notices when it is broken."""
        if self.channel is None:
            return False
        try:
            os.write(self.channel.fileno(), content)
        except OSError:
            return False
        return True
