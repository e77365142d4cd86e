"""A small SMTP server that keeps what it is sent; run as `smtp_sink.py FILE`, it prints the port it listens on.

It is no mail server: it says yes to everything (RFC 5321, the minimum), and appends the envelope and each message.
"""

from __future__ import annotations

import socketserver
import sys
from pathlib import Path


class Sink(socketserver.StreamRequestHandler):
    """One SMTP session."""

    def handle(self) -> None:
        """Answer until QUIT."""
        self._say("220 sink")
        for line in iter(self.rfile.readline, b""):
            verb = line.strip().upper()
            if verb == b"DATA":
                self._say("354 go on")
                self._keep(line + b"".join(iter(self.rfile.readline, b".\r\n")))
                self._say("250 kept")
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            else:
                if verb.startswith((b"MAIL", b"RCPT")):
                    self._keep(line)
                self._say("250 ok")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _keep(self, content: bytes) -> None:
        with Path(sys.argv[1]).open("ab") as file:
            file.write(content)


if __name__ == "__main__":
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sink) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
