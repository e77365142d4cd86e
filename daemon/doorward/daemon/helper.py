"""The process that has power: opens grants within its own limits, keeps the table and the taps as they should be."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import time
from typing import TYPE_CHECKING, Final

from doorward import withdrawn
from doorward.capture.packet import Taps
from doorward.daemon import configuration
from doorward.errors import CaptureError, FirewallError, HelperError
from doorward.firewall.nftables import Nftables
from doorward.firewall.watch import TableWatch
from doorward.privsep import privileges
from doorward.privsep.helper import Files, Helper
from doorward.privsep.limits import Ledger, Limits
from doorward.values import LiveGrant

if TYPE_CHECKING:
    import argparse
    import socket
    from collections.abc import Callable, Sequence

    from doorward.daemon.configuration import Configuration
    from doorward.daemon.log import Log
    from doorward.values import Grant, Service

_TICK: Final = 1.0  # seconds between two looks at the interfaces


class HelperProcess:
    """doorwardd's helper from start to stop; the Power behind privsep.helper.Helper."""

    def __init__(self, options: argparse.Namespace, log: Log) -> None:
        """Read nothing yet: the listener asks for the configuration first."""
        self._options = options
        self._log = log
        self._limits = Limits(())
        self._ledger = Ledger()
        self._current: Configuration | None = None
        self._taps: Taps | None = None
        self._firewall: Nftables | None = None

    def serve(self, channel: socket.socket, signals: socket.socket | None, forward: Callable[[bytes], None]) -> None:
        """Answer the listener behind `channel` until it is gone, or strays; signals are forwarded to it."""
        privileges.keep_only((privileges.CAP_NET_ADMIN, privileges.CAP_NET_RAW))
        helper = Helper(channel, self)
        with selectors.DefaultSelector() as selector, contextlib.closing(TableWatch()) as watch:
            selector.register(channel, selectors.EVENT_READ, helper.answer)
            selector.register(watch, selectors.EVENT_READ, lambda: self._restore(watch))
            if signals is not None:
                selector.register(signals, selectors.EVENT_READ, lambda: forward(signals.recv(64)))
            try:
                self._loop(selector)
            except HelperError as error:
                self._log.info("helper: %s", error)
        self._end()

    def _loop(self, selector: selectors.BaseSelector) -> None:
        next_tick = time.monotonic()
        while True:
            for key, _ in selector.select(_TICK):
                key.data()
            now = time.monotonic()
            if now >= next_tick:
                self._refresh()
                next_tick = now + _TICK

    def configure(self) -> tuple[Files, Sequence[int]]:
        """See privsep.helper.Power; what can fail comes first, and the old configuration is put back where it does."""
        new, files = configuration.load(self._options)
        old, self._current = self._current, new
        try:
            further = self._adopt(new)
        except (FirewallError, CaptureError):
            self._current = old
            raise
        self._limits = Limits(new.access.stanzas)
        return files, further

    def _adopt(self, new: Configuration) -> Sequence[int]:
        """Bring firewall and taps in line with a configuration; return descriptors that the listener does not have."""
        if not self._options.test:
            self._adopt_firewall(new)
        ports, interfaces = (new.settings.ports,), new.settings.interfaces
        if self._taps is not None:
            self._taps.listen(ports, interfaces)
            return ()
        self._taps = Taps(ports, interfaces)
        return [tap.fileno() for tap in self._taps.sockets]

    def _adopt_firewall(self, new: Configuration) -> None:
        old, settings = self._firewall, new.settings
        whole = None if old is None else old.whole
        firewall = Nftables(settings.firewall_file, settings.firewall_mode, lambda: self._guarded, whole=whole)
        made = firewall.prepare()
        if made:
            self._log.warning("firewall: %s", made)
        for drop in firewall.foreign_drops():
            self._log.warning("firewall: %s: it drops what a grant lets in", drop)
        self._firewall = firewall
        if old is not None:
            old.close()
            return
        if settings.flush_at_start:
            firewall.flush()
        now = time.monotonic()
        for live in firewall.grants():
            if not live.source.is_unspecified and math.isfinite(live.remaining):
                self._ledger.adopt(live.source, (live.service,), now, now + live.remaining)

    @property
    def _guarded(self) -> frozenset[Service]:
        return frozenset() if self._current is None else self._current.guarded

    def open(self, grant: Grant) -> None:
        """See privsep.helper.Power: only what some stanza allows, and no more than the ledger bears."""
        if self._firewall is None:
            msg = "no configuration yet"
            raise FirewallError(msg)
        steady = time.monotonic()
        refusal = self._limits.refuses(grant, time.time()) or self._ledger.refuses(grant, steady)
        if refusal:
            self._log.error("helper: refused %s %s: %s", grant.source, ",".join(map(str, grant.services)), refusal)
            raise FirewallError(refusal)
        before = self._firewall.whole
        self._firewall.open(grant)
        self._ledger.record(grant, steady)
        if self._firewall.whole is not before:  # the table was gone, and was made again for this grant
            count = self._reopen(self._firewall)
            self._log.error("firewall: OUR TABLE WAS REMOVED: made again for a knock, with %d live grants", count)

    def _restore(self, watch: TableWatch) -> None:
        """Load our table again when somebody else removed it, with what was open."""
        if not watch.saw_something_go() or self._firewall is None:
            return
        try:
            made = self._firewall.prepare()
            if made is None:
                return
            count = self._reopen(self._firewall)
        except FirewallError as error:
            self._log.error("firewall: OUR TABLE IS GONE and cannot be loaded again: %s", error)
        else:
            self._log.error("firewall: OUR TABLE WAS REMOVED: %s, with %d live grants", made, count)

    def _reopen(self, firewall: Nftables) -> int:
        """Open again what the ledger says is open, and return how much that is."""
        if self._current is not None:
            for moment, source in withdrawn.read(self._current.settings.run_folder):
                self._ledger.withdraw(source, moment)
        live = [LiveGrant(*one) for one in self._ledger.live(time.monotonic())]
        firewall.reopen(live)
        return len(live)

    def _refresh(self) -> None:
        change = None if self._taps is None else self._taps.refresh()
        if change:
            self._log.warning("%s", change)

    def _end(self) -> None:
        if self._current is not None and self._current.settings.flush_at_exit and self._firewall is not None:
            self._firewall.flush()
        if self._taps is not None:
            self._taps.close()


def exit_code(pid: int) -> int:
    """Return how a child ended: its exit code, or 128 and its signal, as a shell says it."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
