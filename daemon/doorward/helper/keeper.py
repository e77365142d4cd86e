"""Keeping our rule in other firewalls, like our own table: a removal is logged and undone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import legacy

if TYPE_CHECKING:
    from doorward.firewall.foreign import Foreign
    from doorward.record.log import Log

_EVERY: Final = 1.0  # seconds between two checks
_REST: Final = 20  # times the duration of a check, before the next one
_REST_MAX: Final = 30.0  # seconds
_SOON: Final = 0.25  # seconds


class Keeper:
    """Our rule in every other chain that can drop a grant. Logs all events, and raises nothing."""

    def __init__(self, foreign: Foreign, log: Log, before: Keeper | None = None) -> None:
        """Keep the rule in `foreign`; `before` is the keeper of the previous configuration."""
        self._foreign = foreign
        self._log = log
        self._had: set[str] = set() if before is None else before._had  # noqa: SLF001  of this class
        self._expects = True
        self._next = 0.0
        self._refused: set[str] = set()

    @property
    def patience(self) -> float:
        """Seconds after which look() is to be called again."""
        return _SOON if self._expects else _EVERY

    def expect(self) -> None:
        """Check again: rules of another firewall changed."""
        self._expects = True

    def look(self, now: float) -> None:
        """Insert our rule where it is missing, if something changed and the last check is long enough ago.

        `now` in seconds of time.monotonic(). nftables reports changes; iptables-legacy does not and is always checked.
        """
        if now < self._next or not (self._expects or legacy.in_use()):
            return
        self._expects = False
        self._put_in()
        ended = time.monotonic()
        self._next = ended + max(_EVERY, min(_REST_MAX, _REST * (ended - now)))

    def _put_in(self) -> None:
        made: tuple[str, ...] = ()
        try:
            made, refused = self._foreign.admit()
        except FirewallError as error:
            refused = (str(error),)
        for chain in made:
            if chain in self._had:
                self._log.error("firewall: OUR RULE WAS TAKEN OUT of %s: it is back", chain)
            else:
                self._log.warning("firewall: %s can drop what a grant lets in: our rule accepts it there", chain)
        self._had.update(made)
        for refusal in set(refused) - self._refused:  # once, not every second
            self._log.error("firewall: %s", refusal)
        self._refused = set(refused)

    def stop(self) -> None:
        """Take our rule out of all chains."""
        try:
            self._foreign.remove()
        except FirewallError as error:
            self._log.error("firewall: our rule stays in other firewalls: %s", error)
