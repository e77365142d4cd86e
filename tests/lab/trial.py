"""A host under test, as its own console sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab import hosts

if TYPE_CHECKING:
    from lab.plan import Host


@dataclass(frozen=True, slots=True)
class Trial:
    """One host under test."""

    host: Host

    def console(self, *command: str) -> str:
        """What a command prints on the host's console, as root."""
        return hosts.inside(self.host, *command)

    def grants(self) -> list[dict[str, object]]:
        """The windows that are open now."""
        shown: list[dict[str, object]] = hosts.status(self.host)["grants"]
        return shown

    def close(self) -> None:
        """Close every window now, where a test is not about how they close by themselves."""
        self.console("doorward", "close")

    def wait_until_closed(self) -> None:
        """Return as soon as no window is open any more."""
        hosts.wait_until_closed(self.host)

    def granted(self) -> int:
        """How many knocks the daemon has granted so far, by its own audit lines."""
        journal = self.console("journalctl", "--unit=doorwardd", "--output=cat", "--no-pager")
        return sum("verdict=granted" in line for line in journal.splitlines())

    def ruleset(self) -> str:
        """Every nft table of the host."""
        return self.console("nft", "list", "tables")
