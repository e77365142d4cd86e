"""The process that has power: opens grants within its own limits, keeps the table and the taps as they should be."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import time
from typing import TYPE_CHECKING, Final

from doorward import withdrawn
from doorward.daemon import configuration
from doorward.daemon.sources import Sources
from doorward.errors import CaptureError, FirewallError, HelperError
from doorward.firewall import backends
from doorward.firewall.needs import Needs
from doorward.firewall.watch import TableWatch
from doorward.privsep import privileges
from doorward.privsep.helper import Helper
from doorward.privsep.limits import Ledger, Limits

if TYPE_CHECKING:
    import argparse
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from doorward.config.files import Files
    from doorward.daemon.configuration import Configuration
    from doorward.daemon.log import Log
    from doorward.firewall.backends import Backend
    from doorward.values import Grant, Service

_TICK: Final = 1.0  # seconds between two looks at the interfaces
_SERVED_SECONDS: Final = 5  # how long our servers' ports stay open without us


class HelperProcess:
    """doorwardd's helper from start to stop; the Power behind privsep.helper.Helper."""

    def __init__(self, options: argparse.Namespace, log: Log) -> None:
        """Read nothing yet: the listener asks for the configuration first."""
        self._options = options
        self._log = log
        self._limits = Limits(())
        self._ledger = Ledger()
        self._current: Configuration | None = None
        self._next: Configuration | None = None  # read, and not in force before the listener can use it too
        self._sources = Sources()
        self._shut_out = ""
        self._firewall: Backend | None = None
        self._gone = ""  # why our rules could not be put back, as it was logged

    def serve(self, channel: socket.socket, signals: socket.socket | None, forward: Callable[[bytes], None]) -> None:
        """Answer the listener behind `channel` until it is gone, or strays; signals are forwarded to it."""
        privileges.keep_only(
            (privileges.CAP_NET_ADMIN, privileges.CAP_NET_RAW), where_given=(privileges.CAP_NET_BIND_SERVICE,)
        )
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

    def configure(self) -> Files:
        """See privsep.helper.Power."""
        self._next = None
        self._next, files = configuration.load(self._options)
        return files

    def adopt(self) -> Sequence[int]:
        """See privsep.helper.Power; what can fail comes first, and the old configuration is put back where it does."""
        new, self._next = self._next, None
        if new is None:
            msg = "the listener would have a configuration adopted that it has not asked for"
            raise HelperError(msg)
        old, self._current = self._current, new
        try:
            self._adopt(new, frozenset() if old is None else old.served - new.served)
        except (FirewallError, CaptureError):
            self._current = old
            if old is not None:
                self._put_back()
            raise
        self._let_knocks_in()
        self._limits = Limits(new.access.stanzas, new.abilities)
        return self._sources.descriptors()

    def _adopt(self, new: Configuration, unserved: frozenset[Service]) -> None:
        """Bring firewall and sources in line with a configuration; `unserved` are ports that lose their server."""
        with self._sources.adopting(new.settings):  # first: where a port is taken, the firewall stays as it was
            if not self._options.test:
                self._adopt_firewall(new)
            self._shut(unserved)  # while the sockets are there: a closed one behind an open port would answer

    def _adopt_firewall(self, new: Configuration) -> None:
        old, settings = self._firewall, new.settings
        needs = _needs(new)
        firewall = backends.of(settings, lambda: self._guarded, needs=needs, nats=new.nats, before=old)
        try:
            made = firewall.prepare()
        except FirewallError:
            firewall.close()
            raise
        self._firewall = firewall
        if made:
            self._log.warning("firewall: %s", made)
        self._warn_of_firewall(firewall, needs)
        if old is not None:
            old.close()
            return
        if settings.flush_at_start:
            firewall.flush()
        now = time.monotonic()
        for live in firewall.grants():
            if not live.source.is_unspecified and math.isfinite(live.remaining):
                self._ledger.adopt(live, now)

    def _warn_of_firewall(self, firewall: Backend, needs: Needs) -> None:
        """Log what keeps grants from being of use; not to know it is no reason to refuse what is in force already."""
        try:
            for drop in firewall.foreign_drops():
                self._log.warning("firewall: %s: it drops what a grant lets in", drop)
            for lack in filter(None, (*firewall.unserved(), needs.not_forwarding())):
                self._log.error("firewall: %s", lack)
        except FirewallError as error:
            self._log.error("firewall: nobody knows what else drops what a grant lets in: %s", error)

    def _put_back(self) -> None:
        """Have the packet filter follow the old configuration again: a new one may have failed half way."""
        if self._firewall is None:
            return
        try:
            made = self._firewall.prepare()
            if made:
                count = self._reopen(self._firewall)
                self._log.warning("firewall: as before again: %s, with %d live grants", made, count)
        except FirewallError as error:
            self._log.error("firewall: it is not as the old configuration has it: %s", error)
        self._let_knocks_in()

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
        if watch.saw_something_go():
            self._mend()

    def _mend(self) -> None:
        """Put back what somebody else took away of our rules."""
        if self._firewall is None:
            return
        try:
            made = self._firewall.looks_again()
            if made is None:
                return
            count = self._reopen(self._firewall)
        except FirewallError as error:
            if self._gone != str(error):  # once, not every second
                self._log.error("firewall: OUR TABLE IS GONE and cannot be loaded again: %s", error)
            self._gone = str(error)
        else:
            self._gone = ""
            self._log.error("firewall: OUR TABLE WAS REMOVED: %s, with %d live grants", made, count)

    def _reopen(self, firewall: Backend) -> int:
        """Open again what the ledger says is open, and return how much that is."""
        if self._current is not None:
            for moment, source in withdrawn.read(self._current.settings.run_folder):
                self._ledger.withdraw(source, moment)
        live = self._ledger.live(time.monotonic())
        firewall.reopen(live)
        return len(live)

    def _refresh(self) -> None:
        for change in self._sources.refresh():
            self._log.warning("%s", change)
        if self._firewall is not None and self._firewall.needs_watching:
            self._mend()
        self._let_knocks_in()

    def _let_knocks_in(self) -> None:
        """Keep our servers' ports open a little longer: where this process dies, they close by themselves."""
        served = frozenset() if self._current is None else self._current.served
        if self._firewall is None or not served:
            return
        try:
            self._firewall.open_anyone(served, _SERVED_SECONDS)
        except FirewallError as error:
            if self._shut_out != str(error):
                self._log.error("firewall: nobody's knock reaches %s: %s", " ".join(map(str, served)), error)
            self._shut_out = str(error)
        else:
            self._shut_out = ""

    def _shut(self, services: Iterable[Service]) -> None:
        """Close ports that no server of ours has any more."""
        if self._firewall is not None:
            with contextlib.suppress(FirewallError):  # then they close by themselves
                self._firewall.close_anyone(services)

    def _end(self) -> None:
        if self._current is not None and self._current.settings.flush_at_exit and self._firewall is not None:
            self._firewall.flush()
        self._shut(frozenset() if self._current is None else self._current.served)
        self._sources.close()
        if self._firewall is not None:
            self._firewall.close()


def _needs(chosen: Configuration) -> Needs:
    """Return what a configuration asks of the packet filter."""
    abilities = chosen.abilities
    return Needs.of(
        chosen.access.stanzas,
        nat=abilities.local_nat,
        forwarding=abilities.forwarding,
        destination=abilities.destination_rule,
    )


def exit_code(pid: int) -> int:
    """Return how a child ended: its exit code, or 128 and its signal, as a shell says it."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
