"""Keeping our other tables as our first one is kept: a change is noticed, undone and logged.

A table that cannot be had ends nothing. Without the kernel gate every packet of a knock's length reaches the listener,
as in fwknop's format; without the table of the sequences no sequence opens.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from doorward.config.sequence import Sequence
from doorward.errors import FirewallError
from doorward.firewall.kernel_gate import KernelGate, Wanted
from doorward.firewall.libnftables import Libnftables
from doorward.firewall.sequences import Sequences

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doorward.record.log import Log

_EVERY: Final = 1.0  # seconds: a table that others changed is put right within them
_REST: Final = 20  # times the duration of a look, before the next one
_Wish = TypeVar("_Wish")
_Wish_contra = TypeVar("_Wish_contra", contravariant=True)


class _Kept(Protocol[_Wish_contra]):
    """A table of ours. Its methods but close() raise FirewallError; `now` in seconds of time.monotonic()."""

    def follow(self, wanted: _Wish_contra, now: float) -> None:
        """Have the table that is wanted, or none."""

    def restore(self, now: float) -> str | None:
        """Load the table again where others changed it; return a line for the log."""

    def close(self) -> None:
        """Give the socket back; the table stays."""


class _Tablekeeper(Generic[_Wish]):
    """A table of the configuration in force. Logs all events."""

    def __init__(self, log: Log, nft: Libnftables, table: _Kept[_Wish], without: str) -> None:
        """Have no table before follow(); `without` says in the log what its absence means."""
        self._log = log
        self._nft = nft
        self._table = table
        self._without = without
        self._there = False
        self._in_doubt = False
        self._rest = 0.0  # seconds of time.monotonic() until which it is not looked at again
        self._failed = ""

    @property
    def patience(self) -> float:
        """Seconds after which look() is to be called again."""
        looks = self._there and self._in_doubt
        return min(_EVERY, max(0.0, self._rest - time.monotonic())) if looks else _EVERY

    @property
    def stands(self) -> bool:
        """Whether the table is there, as far as we know."""
        return self._there

    def follow(self, wanted: _Wish) -> None:
        """Have the table of a configuration, or none. Raises nothing."""
        self._there = False
        try:
            self._table.follow(wanted, time.monotonic())
        except FirewallError as error:
            self._fail(error)
        else:
            self._there, self._failed = bool(wanted), ""

    def doubt(self) -> None:
        """Look at the table: it was changed."""
        self._in_doubt = True

    def look(self, now: float) -> None:
        """Undo what others did to the table, if something changed and the last look is long enough ago."""
        if not self._there or not self._in_doubt or now < self._rest:
            return
        try:
            line = self._table.restore(now)
        except FirewallError as error:
            self._fail(error)
        else:
            self._in_doubt, self._failed = False, ""
            if line is not None:
                self._log.error("firewall: %s", line)
        ended = time.monotonic()
        self._rest = ended + min(_EVERY, _REST * (ended - now))

    def close(self) -> None:
        """Give libnftables and the socket back; the table stays until the next start."""
        self._table.close()
        self._nft.close()

    def _fail(self, error: FirewallError) -> None:
        if self._failed != str(error):  # once, not every second
            self._log.error("firewall: %s: %s", self._without, error)
        self._failed = str(error)


class Gatekeeper(_Tablekeeper[Wanted | None]):
    """The kernel gate of the configuration in force. Logs all events."""

    def __init__(self, log: Log) -> None:
        """Have no gate before follow().

        Raises:
            FirewallError: libnftables is missing, or no netlink.
        """
        nft = Libnftables()
        self._gate = KernelGate(nft)
        super().__init__(log, nft, self._gate, "no kernel gate, strangers' packets reach doorwardd")

    def let_pass(self, tags: Mapping[bytes, float], now: float) -> None:
        """See KernelGate.let_pass(); without a gate everything passes.

        Raises:
            FirewallError: the kernel refuses.
        """
        if self._there:
            self._gate.let_pass(tags, now)

    @property
    def refused(self) -> int:
        """How many packets the gate refused since this object was made."""
        try:
            return self._gate.refused
        except FirewallError:
            return 0


class SequenceKeeper(_Tablekeeper[tuple[Sequence, ...]]):
    """The table that counts the sequences of the configuration in force. Logs all events."""

    def __init__(self, log: Log) -> None:
        """Have no table before follow().

        Raises:
            FirewallError: libnftables is missing, or no netlink.
        """
        nft = Libnftables()
        super().__init__(log, nft, Sequences(nft), "NO SEQUENCE OF PORTS OPENS ANYTHING, the kernel counts none")

    def end(self) -> None:
        """Remove the table, of which nobody hears any more. Raises nothing."""
        self.follow(())
        self.close()
