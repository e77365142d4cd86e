"""Keeping the kernel gate as our table is kept: a change is noticed, undone and logged.

A gate that cannot be had is no reason to hear no knocks: without it every packet of a knock's length reaches the
listener, as in fwknop's format.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall.kernel_gate import KernelGate
from doorward.firewall.libnftables import Libnftables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doorward.firewall.kernel_gate import Wanted
    from doorward.record.log import Log

_EVERY: Final = 1.0  # seconds: a gate that others changed is put right within them
_REST: Final = 20  # times the duration of a look, before the next one


class Gatekeeper:
    """The kernel gate of the configuration in force. Logs all events."""

    def __init__(self, log: Log) -> None:
        """Have no gate before follow().

        Raises:
            FirewallError: libnftables is missing, or no netlink.
        """
        self._log = log
        self._nft = Libnftables()
        self._gate = KernelGate(self._nft)
        self._there = False
        self._in_doubt = False
        self._rest = 0.0  # seconds of time.monotonic() until which it is not looked at again
        self._failed = ""

    @property
    def patience(self) -> float:
        """Seconds after which look() is to be called again."""
        return min(_EVERY, max(0.0, self._rest - time.monotonic())) if self._in_doubt else _EVERY

    def follow(self, wanted: Wanted | None) -> None:
        """Have the gate of a configuration, or none. Raises nothing."""
        self._there = False
        try:
            self._gate.follow(wanted, time.monotonic())
        except FirewallError as error:
            self._fail(error)
        else:
            self._there, self._failed = wanted is not None, ""

    def let_pass(self, tags: Mapping[bytes, float], now: float) -> None:
        """See KernelGate.let_pass(); without a gate everything passes.

        Raises:
            FirewallError: the kernel refuses.
        """
        if self._there:
            self._gate.let_pass(tags, now)

    def doubt(self) -> None:
        """Look at the gate: it was changed."""
        self._in_doubt = True

    def look(self, now: float) -> None:
        """Undo what others did to the gate, if something changed and the last look is long enough ago."""
        if not self._there or not self._in_doubt or now < self._rest:
            return
        try:
            line = self._gate.restore(now)
        except FirewallError as error:
            self._fail(error)
        else:
            self._in_doubt, self._failed = False, ""
            if line is not None:
                self._log.error("firewall: %s", line)
        ended = time.monotonic()
        self._rest = ended + min(_EVERY, _REST * (ended - now))

    @property
    def refused(self) -> int:
        """How many packets the gate refused since this object was made."""
        try:
            return self._gate.refused
        except FirewallError:
            return 0

    def close(self) -> None:
        """Give libnftables and the socket back; gate and tags stay until the next start."""
        self._gate.close()
        self._nft.close()

    def _fail(self, error: FirewallError) -> None:
        if self._failed != str(error):  # once, not every second
            self._log.error("firewall: no kernel gate, strangers' packets reach doorwardd: %s", error)
        self._failed = str(error)
