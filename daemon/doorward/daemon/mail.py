"""Mail to the administrator: verdict lines, a few an hour, through sendmail or an SMTP server."""

from __future__ import annotations

import encodings.idna  # for smtplib, which finds nothing any more once the power to read files is gone
import smtplib
import sys
from email.message import EmailMessage
from email.policy import SMTP
from typing import TYPE_CHECKING, Final

_ = encodings.idna

if TYPE_CHECKING:
    from collections.abc import Sequence

LINE_MAX: Final = 2000  # characters of one verdict
HOUR: Final = 3600.0  # seconds
_ROW_MAX: Final = 900  # characters; RFC 5321 section 4.5.3.1.6 has 998
_SMTP_PORT: Final = 25
_REFUSED: Final = 69  # EX_UNAVAILABLE


class Rate:
    """So many mails an hour; what was left out is counted, and named once the hour is over. Times in seconds."""

    def __init__(self, per_hour: int) -> None:
        """Begin with nothing sent."""
        self.per_hour = per_hour
        self._began = float("-inf")
        self._sent = 0
        self.left_out = {True: 0, False: 0}  # granted or not → how many

    def admits(self, now: float, *, granted: bool) -> bool:
        """Count one line and say whether it is mailed."""
        if self._sent >= self.per_hour and now < self._began + HOUR:
            self.left_out[granted] += 1
            return False
        if now >= self._began + HOUR:
            self._began, self._sent = now, 0
        self._sent += 1
        return True

    def summary(self, now: float) -> str | None:
        """Return one line for what was left out, once the hour is over; then begin anew."""
        granted, denied = self.left_out[True], self.left_out[False]
        if now < self._began + HOUR or not granted + denied:
            return None
        self.left_out = {True: 0, False: 0}
        self._began, self._sent = now, 1
        return f"not mailed in the last hour, for being more than {self.per_hour}: granted {granted}, denied {denied}"


def compose(sender: str, recipients: Sequence[str], subject: str, line: str) -> bytes:
    """Return a message; `line` is its body, in which nothing but printable ASCII is left, as long as SMTP has lines."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Auto-Submitted"] = "auto-generated"
    shown = "".join(char if char.isascii() and char.isprintable() else "?" for char in line[:LINE_MAX])
    rows = [shown[place : place + _ROW_MAX] for place in range(0, len(shown), _ROW_MAX)]
    message.set_content("".join(f"{row}\n" for row in rows), charset="us-ascii", cte="7bit")
    return message.as_bytes()


def deliver(server: str, envelope: Sequence[str], seconds: float) -> int:
    """Mail what is on standard input through `host[:port]`; the envelope is the sender and then the recipients.

    Returns an exit code: 0 where every recipient was accepted.
    """
    host, port = split(server)
    content = sys.stdin.buffer.read()
    with smtplib.SMTP(host, port, timeout=seconds) as connection:
        refused = connection.sendmail(envelope[0], list(envelope[1:]), content)
    for recipient, (code, _) in refused.items():
        print(f"{recipient} was refused with {code}")  # noqa: T201  it is the command's output, which is logged
    sys.stdout.flush()
    return _REFUSED if refused else 0


def split(server: str) -> tuple[str, int]:
    """Return host and port of `host`, `host:port` or `[address]:port`."""
    if server.startswith("["):
        host, _, rest = server[1:].partition("]")
        return host, int(rest[1:] or _SMTP_PORT)
    host, colon, port = server.partition(":")
    return (host, int(port)) if colon and ":" not in port else (server, _SMTP_PORT)
