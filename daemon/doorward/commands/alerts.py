"""Mail to the administrator: the lines of verdicts, a limited number an hour."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from email.message import EmailMessage
from email.policy import SMTP
from typing import TYPE_CHECKING, Final

from doorward.commands import arguments
from doorward.commands.tasks import Task
from doorward.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doorward.commands.tasks import Tasks
    from doorward.config.settings import Alerts
    from doorward.record.log import Log

MAILS_MAX: Final = 32  # waiting; one is sent at a time, and a hanging mailer delays no command
_MAIL_SECONDS: Final = 30
LINE_MAX: Final = 2000  # characters of one verdict
HOUR: Final = 3600.0  # seconds
_ROW_MAX: Final = 900  # characters; RFC 5321 section 4.5.3.1.6 has 998


class Rate:
    """A limit of mails an hour; lines beyond it are counted and summed up after the hour. Times in seconds."""

    def __init__(self, per_hour: int) -> None:
        """Begin with nothing sent."""
        self.per_hour = per_hour
        self._began = float("-inf")
        self._sent = 0
        self.left_out = {True: 0, False: 0}  # granted or not → how many

    def admits(self, now: float, *, granted: bool) -> bool:
        """Count one line; whether it is mailed."""
        if self._sent >= self.per_hour and now < self._began + HOUR:
            self.left_out[granted] += 1
            return False
        if now >= self._began + HOUR:
            self._began, self._sent = now, 0
        self._sent += 1
        return True

    def summary(self, now: float) -> str | None:
        """The line that sums up the lines left out, after the hour; then the count begins again."""
        granted, denied = self.left_out[True], self.left_out[False]
        if now < self._began + HOUR or not granted + denied:
            return None
        self.left_out = {True: 0, False: 0}
        self._began, self._sent = now, 1
        return f"not mailed in the last hour, for being more than {self.per_hour}: granted {granted}, denied {denied}"


def compose(sender: str, recipients: Sequence[str], subject: str, line: str) -> bytes:
    """A message with `line` as its body: printable ASCII, in lines as long as SMTP allows."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Auto-Submitted"] = "auto-generated"
    shown = "".join(char if char.isascii() and char.isprintable() else "?" for char in line[:LINE_MAX])
    rows = [shown[place : place + _ROW_MAX] for place in range(0, len(shown), _ROW_MAX)]
    message.set_content("".join(f"{row}\n" for row in rows), charset="us-ascii", cte="7bit")
    return message.as_bytes()


class Mailing:
    """Sends mail to the administrator."""

    def __init__(self, log: Log, tasks: Tasks) -> None:
        """Send no mail before follow()."""
        self._log = log
        self._tasks = tasks
        self._alerts: Alerts | None = None
        self._rate = Rate(0)

    def follow(self, alerts: Alerts | None) -> None:
        """Use the current settings; the count of the hour continues while its limit is the same."""
        self._alerts = alerts
        if alerts is not None and alerts.per_hour != self._rate.per_hour:
            self._rate = Rate(alerts.per_hour)

    def report(self, line: str, *, granted: bool) -> None:
        """Mail a verdict's line, where the settings ask for it."""
        alerts = self._alerts
        if alerts is None or not (alerts.granted if granted else alerts.denied):
            return
        if self._rate.admits(time.monotonic(), granted=granted):
            self._send("granted" if granted else "denied", line)

    def tick(self) -> None:
        """Mail the sum of lines left out, after the hour."""
        line = self._rate.summary(time.monotonic())
        if line is not None:
            self._send("more", line)

    def _send(self, word: str, line: str) -> None:
        """Mail one line; a failure is logged, and nothing waits for it."""
        alerts = self._alerts
        if alerts is None:
            return
        if len(self._tasks.mails) >= MAILS_MAX:
            self._log.error("doorward-exec: a mail was not sent: %d earlier ones have not gone yet", MAILS_MAX)
            return
        try:
            user = arguments.account(None)
        except HelperError as error:
            self._log.error("doorward-exec: a mail was not sent: %s", error)
            return
        host = socket.gethostname()
        sender = alerts.sender or f"doorward@{host}"
        content = compose(sender, alerts.addresses, f"doorward {host}: {word}", line)
        argv = (str(alerts.sendmail), "-i", "-f", sender, *alerts.addresses)
        job = replace(self._tasks.job(argv, arguments.clean(user), user, may_gain=True), seconds=_MAIL_SECONDS)
        self._tasks.put(Task("mail", (("to", ",".join(alerts.addresses)),), job, lambda _: None, stdin=content))
