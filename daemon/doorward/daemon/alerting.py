"""Which verdicts the administrator is mailed: what authentic packets led to, and strangers' summed up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward import audit
from doorward.values import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.config.daemon import Alerts
    from doorward.privsep.orders import Orders

SUMMARY: Final = 3600.0  # seconds between two lines for strangers' packets


class Alerting:
    """Picks what doorward-exec is to mail. Times in seconds of a clock that never steps."""

    def __init__(self, alerts: Alerts | None, orders: Orders, now: float) -> None:
        """Pick as `alerts` says; None picks nothing."""
        self._alerts = alerts
        self._orders = orders
        self._began = now
        self._strangers = dict.fromkeys(audit.CHEAP, 0)

    def tell(self, reason: Reason, line: Callable[[], str]) -> None:
        """Report a verdict by its line, which is made only then, or count it."""
        alerts, granted = self._alerts, reason is Reason.GRANTED
        if alerts is None or not (alerts.granted if granted else alerts.denied):
            return
        if reason in self._strangers:
            self._strangers[reason] += 1
        else:
            self._orders.report(line(), granted=granted)

    def tick(self, now: float) -> None:
        """Report what was counted, once an hour."""
        if now < self._began + SUMMARY:
            return
        seen = {reason: count for reason, count in self._strangers.items() if count}
        if seen:
            counts = " ".join(f"{reason}={count}" for reason, count in seen.items())
            self._orders.report(f"verdict=denied in the last hour, not one by one: {counts}", granted=False)
        self._began, self._strangers = now, dict.fromkeys(audit.CHEAP, 0)
