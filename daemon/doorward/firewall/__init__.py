"""How grants take effect: one interface, one module a packet filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from doorward.values import Grant, LiveGrant


class Firewall(Protocol):
    """What the daemon asks of a packet filter. Every method raises FirewallError when the filter refuses.

    `needs_watching` says that the kernel does not tell when our rules go, so that somebody has to look.
    """

    @property
    def needs_watching(self) -> bool:
        """Return whether looks_again() is to be called every second."""

    def prepare(self) -> str | None:
        """Make sure that grants can take effect; return a line for the log when something had to be made."""

    def looks_again(self) -> str | None:
        """Do as prepare() does, if it is worth its cost already; for who calls often."""

    def unserved(self) -> tuple[str, ...]:
        """Return one line for each kind of grant that the configuration asks for and that would be refused."""

    def open(self, grant: Grant) -> None:
        """Open `grant` in one transaction, or renew it; the filter closes it by itself."""

    def grants(self) -> tuple[LiveGrant, ...]:
        """Return what is open now, ordered by source and service."""

    def foreign_drops(self) -> tuple[str, ...]:
        """Return one line for each rule of others that drops what our grants let in."""

    def flush(self) -> None:
        """Close every grant at once; established connections live on."""
