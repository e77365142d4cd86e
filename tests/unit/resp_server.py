"""A server of three commands of Valkey, on one end of a socket pair: what a share is to two listeners."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from doorward.errors import ShareError
from doorward.listener.share import Share
from doorward.values import ShareFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.record.log import Log


class Server:
    """Names that are set, with their expiries, and one stream. `script` replies in its place, where it replies."""

    def __init__(self) -> None:
        self.names: dict[bytes, int | None] = {}
        self.entries: list[bytes] = []
        self.asked: list[list[bytes]] = []
        self.script: Callable[[list[bytes]], bytes | None] = lambda _words: None
        self.down = ""
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._shares: list[Share] = []

    def share(self, lines: Log, policy: ShareFailure = ShareFailure.REFUSE) -> Share:
        """A listener's connection to this server."""
        made = Share(Path("/run/valkey.sock"), self.connect, lines)
        made.policy = policy
        made.revive()
        self._shares.append(made)
        return made

    def close(self) -> None:
        """End everything."""
        for share in self._shares:
            share.close()
        self.stop("ended")
        for thread in self._threads:
            thread.join(20)

    def connect(self) -> int:
        """A new connection, or the reason why there is none."""
        if self.down:
            raise ShareError(self.down)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ends.append(ours)
        self._threads.append(threading.Thread(target=self._serve, args=(ours,), daemon=True))
        self._threads[-1].start()
        return theirs.detach()

    def stop(self, why: str) -> None:
        """End all connections and accept none."""
        self.down = why
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def say(self, content: bytes) -> None:
        """Say something unasked on the newest connection."""
        self._ends[-1].sendall(content)

    def _serve(self, end: socket.socket) -> None:
        with end, contextlib.suppress(OSError):
            while content := end.recv(1 << 16):
                words = self._words(content)
                self.asked.append(words)
                reply = self.script(words)
                end.sendall(self._reply(words) if reply is None else reply)

    @staticmethod
    def _words(content: bytes) -> list[bytes]:
        """The words of a command, by their lengths: a sealed record may have a line's end in it."""
        head, _, rest = content.partition(b"\r\n")
        words = []
        for _ in range(int(head[1:])):
            length, _, rest = rest.partition(b"\r\n")
            size = int(length[1:])
            words.append(rest[:size])
            rest = rest[size + 2 :]
        return words

    def _reply(self, words: list[bytes]) -> bytes:
        if words[0] == b"SET":
            if words[1] in self.names:
                return b"$-1\r\n"
            self.names[words[1]] = int(words[5]) if len(words) > 5 else None
            return b"+OK\r\n"
        if words[0] == b"XADD":
            return self.add(words[-1])
        after = int(words[-1].partition(b"-")[0])
        rows = [
            b"*2\r\n$%d\r\n%d-0\r\n*2\r\n$1\r\ng\r\n$%d\r\n%b\r\n" % (len(str(number)) + 2, number, len(one), one)
            for number, one in enumerate(self.entries, 1)
            if number > after
        ][:64]
        name = words[-2]
        head = b"*1\r\n*2\r\n$%d\r\n%b\r\n*%d\r\n" % (len(name), name, len(rows))
        return head + b"".join(rows) if rows else b"*-1\r\n"

    def add(self, record: bytes) -> bytes:
        """Append an entry."""
        self.entries.append(record)
        name = b"%d-0" % len(self.entries)
        return b"$%d\r\n%b\r\n" % (len(name), name)
