"""The privileged process: opens grants within its own limits, maintains the table and the packet sources."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import time
from typing import TYPE_CHECKING, Final

from doorward.config.settings import KNOCK_PORT
from doorward.errors import CaptureError, FirewallError, HelperError, NoSocketsError, ReportError
from doorward.firewall import closed_by_hand
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Changes, Nftables
from doorward.firewall.standing import Word, doubtful
from doorward.firewall.wanted import SWITCH_FOLDER
from doorward.helper import hearing
from doorward.helper.admission import Admission
from doorward.helper.gatekeeper import Gatekeeper, SequenceKeeper
from doorward.helper.keeper import Keeper
from doorward.helper.limits import Ledger, Limits
from doorward.helper.messages import RefusedPackets, Way
from doorward.helper.metrics_file import MetricsFile, Table
from doorward.helper.server import Helper
from doorward.helper.sessions import Sessions
from doorward.helper.share import Connector
from doorward.helper.sources import Sources
from doorward.linux import privileges
from doorward.processes import configuration
from doorward.record import audit_file, granted
from doorward.record.granted import Granted
from doorward.record.log import Throttle
from doorward.values import FirewallMode, ForeignFirewall, Protocol, Service

if TYPE_CHECKING:
    import argparse
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from doorward.config.files import Files
    from doorward.helper.handed import Handed
    from doorward.helper.messages import Numbers, Tags
    from doorward.processes.configuration import Configuration
    from doorward.record.log import Log
    from doorward.values import Grant, IPAddress

_REST: Final = 20  # times the duration of a comparison of our table, before the next one
_TICK: Final = 1.0  # seconds between two checks of the interfaces
_SERVED_SECONDS: Final = 5  # how long our servers' ports stay open without us
_EARLIER: Final = frozenset({Service(Protocol.UDP, KNOCK_PORT)})  # a server's port that an earlier helper may have left


class HelperProcess:
    """doorwardd's helper from start to stop. Every operation checks its arguments: the listener is not trusted."""

    def __init__(self, options: argparse.Namespace, log: Log, handed: Handed | None = None) -> None:
        """Read nothing yet: the listener requests the configuration first.

        `handed` are the service manager's sockets.
        """
        self._options = options
        self._log = log
        self._refusals = Throttle(log)
        self._limits = Limits(())
        self._ledger = Ledger()
        self._current: Configuration | None = None
        self._next: Configuration | None = None  # read, and in force only once the listener can use it too
        self._sources = Sources(handed)
        self._shut_out = ""
        self._firewall: Nftables | None = None
        self._gone = ""  # the logged reason why our rules could not be restored
        self._in_doubt = False  # whether our table was changed since it was compared
        self._rest = 0.0  # seconds of time.monotonic() until which it is not compared again
        self._keeper: Keeper | None = None  # of our rule in other firewalls
        self._admission = Admission()
        self._gate: Gatekeeper | None = None
        self._asked: Configuration | None = None  # in force, with what its settings leave open
        self._watcher: hearing.Watcher | None = None
        self._metrics = MetricsFile(log)
        self._sessions = Sessions(log)
        self._opened = 0  # grants
        self._unwritten: list[tuple[Grant, float]] = []  # with the Unix time at which they were opened
        self._unrecorded = ""  # the logged reason why grants are not on record
        self._withdrawn: tuple[tuple[float, IPAddress | None], ...] = ()  # what root closed, as the ledger knows it
        self._sequences: SequenceKeeper | None = None
        self._share = Connector()

    def serve(self, channel: socket.socket, signals: socket.socket | None, forward: Callable[[bytes], None]) -> None:
        """Answer the listener behind `channel` until it is gone or commits a protocol error; forward signals to it."""
        helper = Helper(channel, self)
        with selectors.DefaultSelector() as selector, contextlib.closing(Changes()) as watch:
            selector.register(channel, selectors.EVENT_READ, helper.answer)
            selector.register(watch, selectors.EVENT_READ, lambda: self._notice(watch))
            if signals is not None:
                selector.register(signals, selectors.EVENT_READ, lambda: forward(signals.recv(64)))
            try:
                self._loop(selector)
            except HelperError as error:
                self._refusals.tick(time.monotonic() + 1)
                self._log.info("helper: %s", error)
        if signals is not None and self._keeper is not None:  # without a unit, nothing else would remove our rule
            self._keeper.stop()
        self._end()

    def _loop(self, selector: selectors.BaseSelector) -> None:
        next_tick = time.monotonic()
        while True:
            for key, _ in selector.select(self._patience):
                key.data()
            if self._unwritten:
                self._record()
            now = time.monotonic()
            if self._in_doubt and now >= self._rest:
                self._restore()
            for table in self._tables:
                table.look(now)
            if self._keeper is not None:
                self._keeper.look(now)
            if self._firewall is not None:
                self._sessions.look(now, self._firewall, self._ledger, self._withdraw)
            if self._metrics.is_due(now):
                self._metrics.write(self._known(now), now)
            if now >= next_tick:
                self._refusals.tick(now)
                self._refresh()
                next_tick = now + _TICK

    @property
    def _patience(self) -> float:
        """Seconds after which something is to be done, whatever arrives."""
        patience = _TICK if self._keeper is None else self._keeper.patience
        patience = min([patience, *(table.patience for table in self._tables)])
        return min(patience, max(0, self._rest - time.monotonic())) if self._in_doubt else patience

    @property
    def _tables(self) -> tuple[Gatekeeper | SequenceKeeper, ...]:
        """The keepers of our other tables."""
        return tuple(one for one in (self._gate, self._sequences) if one is not None)

    def configure(self) -> Files:
        """Read and return the files; the old configuration stays in force. Raises DoorwardError."""
        self._next = None
        self._next, files = configuration.load(self._options)
        self._metrics.read(files)
        return files

    def adopt(self) -> tuple[Sequence[int], Way]:
        """Apply the files that were read last, once; return the descriptors of all packet sources, and their way.

        What can fail comes first, and the old configuration is put back where it does. A UDP server that nobody asked
        for by name, and that cannot be had, is no failure; nor is one for which this unit may open no socket.

        Raises:
            FirewallError, CaptureError: the old configuration stays in force.
            HelperError: no files wait for it.
        """
        new, self._next = self._next, None
        if new is None:
            msg = "the listener adopts a configuration that it has not requested"
            raise HelperError(msg)
        way = hearing.way(new, test=self._options.test)
        try:
            self._put_in_force(new, way)
        except CaptureError as error:
            lacks = isinstance(error, NoSocketsError)
            if not (way.server and (lacks or new.settings.automatic)):
                raise
            if lacks:
                self._log.warning("capture: %s: knocks are captured passively", error)
            way = Way(server=False, why=str(error))
            self._put_in_force(new, way)
        before, self._limits = self._limits, Limits(new.access.stanzas, new.settings.permissions)
        self._admission.adopt(new.clients)
        self._metrics.follow(new.settings.metrics_file, new.access)
        self._sessions.follow(new.settings.run_folder, new.access.stanzas)
        self._revoke(before)
        return self._sources.descriptors(), way

    def hear_otherwise(self) -> tuple[Sequence[int], Way]:
        """Capture knocks where something is in the way of the UDP server by now; return what adopt() returns.

        Raises:
            FirewallError, CaptureError: the server stays.
            HelperError: nothing is in its way.
        """
        if self._asked is None or self._watcher is None or not self._watcher.obstacle:
            msg = "the listener wants to hear knocks otherwise, and nothing is in the way"
            raise HelperError(msg)
        way = Way(server=False, why=self._watcher.obstacle)
        self._put_in_force(self._asked, way)
        self._admission.adopt(self._asked.clients)
        return self._sources.descriptors(), way

    def _put_in_force(self, asked: Configuration, way: Way) -> None:
        """Apply a configuration whose knocks are heard in this way."""
        new = asked.heard(server=way.server)
        old, self._current = self._current, new
        try:
            self._adopt(new, (_EARLIER if old is None else old.served) - new.served)
        except (FirewallError, CaptureError):
            self._current = old
            if old is not None:
                self._put_back()
            raise
        self._asked, self._watcher = asked, hearing.Watcher(asked, way)
        self._let_knocks_in()

    def _revoke(self, before: Limits) -> None:
        """Close the live grants of clients that the configuration `before` had and this one has no more."""
        gone = before.keys - self._limits.keys
        closed = self._ledger.revoke(gone, before.names_of(gone), time.monotonic()) if gone else ()
        if self._firewall is None or not closed:
            return
        names = ", ".join(sorted({str(live.name) for live in closed}))
        try:
            self._firewall.end(closed, self._ledger.live(time.monotonic()))
        except FirewallError as error:
            self._log.error("firewall: GRANTS OF REMOVED CLIENTS (%s) STAY OPEN: %s", names, error)
        else:
            self._log.warning("firewall: closed %d grants of removed clients: %s", len(closed), names)

    def let_pass(self, tags: Tags) -> None:
        """Have the kernel pass packets with these tags, once the last of them is here.

        Raises:
            FirewallError, CaptureError: too many, too often, of an epoch that is far off, or the kernel refuses.
        """
        steady = time.monotonic()
        try:
            found = self._admission.take(tags, time.time(), steady)
        except FirewallError as error:
            self._refusals.error(steady, f"helper: refused tags: {error}")
            raise
        if found is None:
            return
        line = self._sources.let_pass(found)
        if line is not None:
            self._log.warning("%s", line)
        if self._gate is not None:
            self._gate.let_pass(found, steady)

    def refused(self) -> RefusedPackets:
        """How many packets the kernel gate refused since this process started, and whether the server is deaf."""
        count = 0 if self._gate is None else self._gate.refused
        return RefusedPackets(count, self._watcher is not None and bool(self._watcher.obstacle))

    def take(self, numbers: Numbers) -> None:
        """Keep what the listener reports for METRICS_FILE; the file is written once the listener has its answer."""
        self._metrics.take(numbers)

    def _known(self, now: float) -> Table | None:
        """What METRICS_FILE says of the firewall."""
        if self._firewall is None:
            return None
        self._withdraw()
        served = frozenset() if self._current is None else self._current.served
        try:
            standing = self._firewall.standing(served, self._firewall.open_to_all())
        except FirewallError as error:
            standing = doubtful(Word.UNKNOWN, str(error))
        kind = "" if self._firewall.intact is None else self._firewall.intact.kind
        return Table(standing, kind, self._opened, self._ledger.count(now), self.refused().count)

    def _adopt(self, new: Configuration, unserved: frozenset[Service]) -> None:
        """Apply a configuration to firewall and sources; `unserved` are ports that lose their server."""
        with self._sources.adopting(  # first: where a port is taken, nothing else changes
            new.settings, new.formats, sequences=bool(new.sequences), magic=new.magic
        ):
            if not self._options.test:
                self._adopt_firewall(new)
            # Before the gate goes, and before the sockets close: a closed port behind an open firewall would answer.
            self._shut(unserved)
            if not self._options.test:
                self._gate = self._gate or Gatekeeper(self._log)
                self._gate.follow(hearing.gate_of(new))
                self._sequences = self._sequences or SequenceKeeper(self._log)
                self._sequences.follow(new.sequences)

    def _adopt_firewall(self, new: Configuration) -> None:
        old, settings = self._firewall, new.settings
        needs = Needs.of(new.access.stanzas, settings.permissions)
        firewall = Nftables(
            settings.firewall_file,
            settings.firewall_mode,
            lambda: self._guarded,
            before=old,
            needs=needs,
            mark=settings.mark,
            switch=SWITCH_FOLDER,
        )
        try:
            made = firewall.prepare()
        except FirewallError:
            firewall.close()
            raise
        self._firewall, self._in_doubt = firewall, not firewall.is_whole
        if made:
            self._log.warning("firewall: %s", made)
        self._warn_of_firewall(firewall, needs)
        self._warn_of_openings(firewall, new)
        self._adopt_others(firewall, settings.foreign_firewall)
        if old is not None:
            old.close()
            return
        if settings.flush_at_start:
            firewall.flush()
        now = time.monotonic()
        for live in firewall.grants():
            if not live.source.is_unspecified and math.isfinite(live.remaining):
                self._ledger.adopt(live, now)

    def _warn_of_firewall(self, firewall: Nftables, needs: Needs) -> None:
        """Log everything that keeps grants from taking effect. Failing to detect it is not fatal."""
        try:
            for lack in filter(None, (*firewall.unserved(), needs.not_forwarding(), firewall.foreign().use_of_mark())):
                self._log.error("firewall: %s", lack)
        except FirewallError as error:
            self._log.error("firewall: whether grants take effect is unknown: %s", error)

    def _warn_of_openings(self, firewall: Nftables, new: Configuration) -> None:
        """Log everything that keeps a host open that should be closed."""
        try:
            found = firewall.standing(new.served)
        except FirewallError as error:
            self._log.error("firewall: whether this host is closed is unknown: %s", error)
            return
        closing = new.settings.firewall_mode is FirewallMode.GUARD or firewall.is_confirmed
        for doubt, sentence in found.doubts:
            if closing or doubt is Word.ENDLESS:
                self._log.error("firewall: NOT AS IT SHOULD BE: %s", sentence)

    def _adopt_others(self, firewall: Nftables, wish: ForeignFirewall) -> None:
        """Make other firewalls accept our mark, or log those that do not."""
        keeper, self._keeper = self._keeper, None
        if wish is ForeignFirewall.ADMIT:
            self._keeper = Keeper(firewall.foreign(), self._log, keeper)
            self._keeper.look(time.monotonic())
            return
        if keeper is not None:
            keeper.stop()
        try:
            for finding in firewall.foreign().findings():
                self._log.warning("firewall: %s", finding)
        except FirewallError as error:
            self._log.error("firewall: whether other firewalls drop granted packets is unknown: %s", error)

    def _put_back(self) -> None:
        """Restore the packet filter of the old configuration: a new one may have failed half way."""
        if self._firewall is None:
            return
        try:
            made = self._firewall.prepare()
            if made:
                count = self._reopen(self._firewall)
                self._log.warning("firewall: as before again: %s, with %d live grants", made, count)
        except FirewallError as error:
            self._log.error("firewall: the old configuration could not be restored: %s", error)
        if self._gate is not None and self._current is not None:
            self._gate.follow(hearing.gate_of(self._current))
        if self._sequences is not None and self._current is not None:
            self._sequences.follow(self._current.sequences)
        self._let_knocks_in()

    @property
    def _guarded(self) -> frozenset[Service]:
        return frozenset() if self._current is None else self._current.guarded

    def open(self, grant: Grant) -> None:
        """Open what some stanza allows, and no more than the ledger allows; else raise FirewallError."""
        if self._firewall is None:
            msg = "no configuration yet"
            raise FirewallError(msg)
        steady = time.monotonic()
        refusal = self._limits.refuses(grant, time.time()) or self._ledger.refuses(grant, steady)
        if refusal:
            services = ",".join(map(str, grant.services))
            self._refusals.error(steady, f"helper: refused {grant.source} {services}: {refusal}")
            raise FirewallError(refusal)
        before = self._firewall.intact
        self._firewall.open(grant)
        self._ledger.record(grant, steady)
        self._opened += 1
        self._unwritten.append((grant, time.time()))
        if self._firewall.intact is not before:  # the table was missing, and was made again for this grant
            count = self._reopen(self._firewall)
            self._log.error("firewall: OUR TABLE WAS REMOVED: made again for a knock, with %d live grants", count)

    def _record(self) -> None:
        """Put new grants on record for `doorward who`, once the listener has its answer."""
        written = [entry for grant, now in self._unwritten for entry in Granted.of(grant, now)]
        self._unwritten = []
        self._sessions.opened(written)
        if self._current is None:
            return
        try:
            granted.append(self._current.settings.run_folder, written)
        except OSError as error:
            if self._unrecorded != str(error):  # once, not for each grant
                self._log.error("grants are not on record, doorward who does not know their clients: %s", error)
            self._unrecorded = str(error)
        else:
            self._unrecorded = ""

    def open_audit(self) -> int:
        """Open AUDIT_FILE of the configuration in force, where nobody else can have put something in its place.

        Raises:
            ReportError: there is none, or it cannot be opened.
        """
        path = None if self._current is None else self._current.settings.audit_file
        if path is None:
            msg = "no AUDIT_FILE is configured"
            raise ReportError(msg)
        return audit_file.of_root(path)

    def open_share(self) -> int:
        """Connect to REPLAY_SHARE of the configuration in force.

        Raises:
            ShareError: there is none, it cannot be reached, or it was asked for a moment ago.
        """
        path = None if self._current is None else self._current.settings.replay_share
        return self._share.connect(path, time.monotonic())

    def _notice(self, watch: Changes) -> None:
        """Have our table compared where it was changed, and other firewalls checked."""
        intact = None if self._firewall is None else self._firewall.intact
        ours, others, gate, sequences = watch.touched(() if intact is None else intact.timed_sets)
        self._in_doubt |= ours
        if gate and self._gate is not None:
            self._gate.doubt()
        if sequences and self._sequences is not None:
            self._sequences.doubt()
        if others and self._keeper is not None:
            self._keeper.expect()
        if (others or ours) and self._watcher is not None:
            self._watcher.expect()

    def _restore(self) -> None:
        """Restore our table where others changed it, with the live grants.

        Others who keep changing it cost no more than a twentieth of our time: knocks go on.
        """
        began = time.monotonic()
        self._in_doubt = self._firewall is not None and not self._restored(self._firewall)
        ended = time.monotonic()
        self._rest = ended + min(_TICK, _REST * (ended - began))

    def _restored(self, firewall: Nftables) -> bool:
        """Whether our table is as it should be now, as far as we know."""
        try:
            made = firewall.prepare()
            count = self._reopen(firewall) if made else 0
        except FirewallError as error:
            if self._gone != str(error):  # once, not every second
                self._log.error("firewall: OUR TABLE IS GONE and cannot be loaded again: %s", error)
            self._gone = str(error)
            return False
        self._gone = ""
        if made:
            self._log.error("firewall: OUR TABLE WAS REMOVED OR CHANGED: %s, with %d live grants", made, count)
        return firewall.is_whole

    def _reopen(self, firewall: Nftables) -> int:
        """Open the live grants of the ledger again, and return their number."""
        self._withdraw()
        live = self._ledger.live(time.monotonic())
        firewall.reopen(live)
        return len(live)

    def _withdraw(self) -> None:
        """Forget the grants that root has closed manually."""
        if self._current is None:
            return
        found = tuple(closed_by_hand.read(self._current.settings.run_folder))
        for moment, source in found if found != self._withdrawn else ():
            self._ledger.withdraw(source, moment)
        self._withdrawn = found

    def _refresh(self) -> None:
        if self._watcher is not None:
            self._watcher.look(time.monotonic())
        for change in self._sources.refresh():
            self._log.warning("%s", change)
        self._let_knocks_in()

    def _let_knocks_in(self) -> None:
        """Keep our servers' ports open a little longer: they close by themselves if this process dies."""
        served = frozenset() if self._current is None else self._current.served
        if self._firewall is None or not served:
            return
        try:
            self._firewall.open_anyone(served, _SERVED_SECONDS)
        except FirewallError as error:
            if self._shut_out != str(error):
                self._log.error("firewall: no knock reaches %s: %s", " ".join(map(str, served)), error)
            self._shut_out = str(error)
        else:
            self._shut_out = ""

    @property
    def _unbound(self) -> Iterable[Service]:
        """The ports of our servers that nobody is bound to without this process.

        A port of the service manager stays open for a moment, behind the kernel gate: knocks wait for the next start.
        """
        if self._current is None:
            return ()
        kept = self._sources.outlast and self._gate is not None and self._gate.stands
        return [one for one in self._current.served if not (kept and one.protocol is Protocol.UDP)]

    def _shut(self, services: Iterable[Service]) -> None:
        """Close ports whose server is gone."""
        if self._firewall is not None:
            with contextlib.suppress(FirewallError):  # then they close by themselves
                self._firewall.close_anyone(services)

    def _end(self) -> None:
        if self._current is not None and self._current.settings.flush_at_exit and self._firewall is not None:
            self._firewall.flush()
        self._shut(self._unbound)
        self._sources.close()
        if self._firewall is not None:
            self._firewall.close()
        if self._gate is not None:
            self._gate.close()
        if self._sequences is not None:
            self._sequences.end()
        self._metrics.close()


def give_up_power() -> None:
    """Keep only the capabilities for the packet filter, capture sockets and, where given, low ports."""
    privileges.keep_only(
        (privileges.CAP_NET_ADMIN, privileges.CAP_NET_RAW), where_given=(privileges.CAP_NET_BIND_SERVICE,)
    )


def exit_code(pid: int) -> int:
    """The exit code of a child, or 128 plus its signal, as in a shell."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
