"""The verdicts that the administrator is mailed: one by one for authentic packets, hourly counts for all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.values import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.commands.remote import ExecClient
    from doorward.config.settings import Alerts

SUMMARY: Final = 3600.0  # seconds between two lines for unauthenticated packets


class Alerting:
    """Reports to doorward-exec, which mails them. Times are seconds of a monotonic clock."""

    def __init__(self, alerts: Alerts | None, orders: ExecClient, now: float) -> None:
        """Report as `alerts` says; None reports nothing."""
        self._alerts = alerts
        self._orders = orders
        self._began = now
        self._strangers = dict.fromkeys(Reason, 0)

    def tell(self, reason: Reason, line: Callable[[], str], *, cheap: bool) -> None:
        """Report a verdict by its line, or count a `cheap` one; a line that is not reported is never made."""
        alerts, granted = self._alerts, reason is Reason.GRANTED
        if alerts is None or not (alerts.granted if granted else alerts.denied):
            return
        if cheap:
            self._strangers[reason] += 1
        else:
            self._orders.report(line(), granted=granted)

    def tick(self, now: float) -> None:
        """Report the counts, once an hour."""
        if now < self._began + SUMMARY:
            return
        seen = {reason: count for reason, count in self._strangers.items() if count}
        if seen:
            counts = " ".join(f"{reason}={count}" for reason, count in seen.items())
            self._orders.report(f"verdict=denied in the last hour, not one by one: {counts}", granted=False)
        self._began, self._strangers = now, dict.fromkeys(Reason, 0)
