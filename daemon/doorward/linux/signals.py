"""Signals as bytes on a socket."""

from __future__ import annotations

import signal
import socket


class Alarm:
    """Signals as bytes on a socket; a parent process may write to it in a signal's place."""

    def __init__(self) -> None:
        """Make the pair of sockets."""
        self.reader, self.writer = socket.socketpair()
        self.reader.settimeout(0)
        self.writer.settimeout(0)

    def catch(self) -> None:
        """Receive HUP, INT and TERM here, and ignore USR1, USR2 and PIPE as fwknopd does."""
        signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # the number comes through the descriptor
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def close(self) -> None:
        """Stop receiving signals and close the sockets."""
        signal.set_wakeup_fd(-1)
        self.reader.close()
        self.writer.close()
