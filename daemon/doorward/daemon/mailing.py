"""What doorward-exec mails, and to whom: verdicts' lines, so many an hour."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from doorward.daemon import commands, mail
from doorward.daemon.tasks import Task
from doorward.errors import HelperError

if TYPE_CHECKING:
    from doorward.config.daemon import Alerts
    from doorward.daemon.log import Log
    from doorward.daemon.tasks import Tasks

MAILS_MAX: Final = 32  # that wait: one goes at a time, and a server that hangs hinders no command
_MAIL_SECONDS: Final = 30.0


class Mailing:
    """Mails to the administrator."""

    def __init__(self, log: Log, tasks: Tasks) -> None:
        """Mail nobody yet."""
        self._log = log
        self._tasks = tasks
        self._alerts: Alerts | None = None
        self._rate = mail.Rate(0)

    def follow(self, alerts: Alerts | None) -> None:
        """Mail as the configuration says now; the hour's count goes on where its bound is the same."""
        self._alerts = alerts
        if alerts is not None and alerts.per_hour != self._rate.per_hour:
            self._rate = mail.Rate(alerts.per_hour)

    def report(self, line: str, *, granted: bool) -> None:
        """Mail a verdict's line, where somebody wants to know."""
        alerts = self._alerts
        if alerts is None or not (alerts.granted if granted else alerts.denied):
            return
        if self._rate.admits(time.monotonic(), granted=granted):
            self._send("granted" if granted else "denied", line)

    def tick(self) -> None:
        """Mail what was left out, once the hour is over."""
        line = self._rate.summary(time.monotonic())
        if line is not None:
            self._send("more", line)

    def _send(self, word: str, line: str) -> None:
        """Mail one line; that it could not be mailed is a line in the log, and nothing waits for it."""
        alerts = self._alerts
        if alerts is None:
            return
        if self._tasks.mails >= MAILS_MAX:
            self._log.error("doorward-exec: a mail was not sent: %d earlier ones have not gone yet", MAILS_MAX)
            return
        try:
            user = commands.account(None)
        except HelperError as error:
            self._log.error("doorward-exec: a mail was not sent: %s", error)
            return
        host = socket.gethostname()
        sender = alerts.sender or f"doorward@{host}"
        content = mail.compose(sender, alerts.addresses, f"doorward {host}: {word}", line)
        argv = (sender, *alerts.addresses)
        if alerts.smtp_server is None:
            argv = (str(alerts.sendmail), "-i", "-f", sender, *alerts.addresses)
        job = self._tasks.job(argv, commands.clean(user), user, may_gain=True)
        job = replace(job, seconds=_MAIL_SECONDS, server=alerts.smtp_server)
        self._tasks.put(Task("mail", (("to", ",".join(alerts.addresses)),), job, lambda _: None, stdin=content))
