"""The listener: one selectors loop over packets, signals and a slow clock.

It takes configuration and capture sockets from the helper, opens its state and its log, gives up all other power for
good, and only then reads the first packet.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward import replay
from doorward.commands.remote import ExecClient
from doorward.config.settings import STATE_FOLDER
from doorward.denials import NotExamined
from doorward.errors import (
    CaptureError,
    ConfigError,
    DoorwardError,
    FirewallError,
    HelperError,
    OpenPgpError,
    RefusedConfigError,
    ReplayError,
)
from doorward.gate import Gate
from doorward.gnupg import messages, remote
from doorward.gnupg.remote import RemoteUnsealer
from doorward.helper.messages import Gauges
from doorward.helper.remote import RemotePower
from doorward.linux import privileges, seccomp, systemd
from doorward.listener.alerting import Alerting
from doorward.listener.captures import Captures, described
from doorward.listener.copies import Copies
from doorward.listener.numbers import Tally
from doorward.listener.sharing import Sharing
from doorward.listener.tags import Tags
from doorward.processes import configuration
from doorward.record import fwknop
from doorward.record import line as record_line
from doorward.record.audit_file import VERDICT, AuditFile, of_either
from doorward.record.counters import Counters, Published, counters_beside
from doorward.record.json_line import json_line
from doorward.replay import Past, ReplayStore
from doorward.values import LogFormat, LogStyle, Reason
from doorward.wire.doorward import SKEW_SECONDS

if TYPE_CHECKING:
    import argparse
    import socket
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from doorward.capture import Capture
    from doorward.config.settings import DaemonSettings
    from doorward.config.stanza import Stanza
    from doorward.crypto.doorward import Pair
    from doorward.gate import Memory, PairKey, Verdict
    from doorward.gnupg.messages import Keyring, Outcome
    from doorward.helper.messages import Way
    from doorward.linux.signals import Alarm
    from doorward.linux.systemd import Notifier
    from doorward.processes.configuration import Configuration
    from doorward.record.line import Carried, Suppressed
    from doorward.record.log import Log
    from doorward.values import Datagram, Execution, Grant

_BEFORE_REPLAY: Final = frozenset(record_line.CHEAP) - {Reason.REPLAY}  # of packets that are not kept in mind
_BATCH: Final = 64  # datagrams between two checks of signals and clock
_TICK: Final = 1.0  # seconds between two updates of watchdog, counters and suppressed lines
_USUAL_STORE: Final = STATE_FOLDER / "replay.db"
_FWKNOPD_RUN: Final = Path("/run/fwknop")
_FWKNOPD_STORES: Final = ("digest.cache", "digest_db.cache")  # fwknop server/config_init.c
_PRUNE: Final = 60.0  # seconds between two prunings of the replay store
_UNTIL: Final = (
    "until doorwardd is restarted (under systemd: systemctl enable --now doorward-exec.socket "
    "doorward-exec.service; systemctl restart doorwardd)"
)
# StatusErrno of the unit (sd_notify(3)); 5 is EIO.
_WHOLE: Final = 0, ""
_FAILING: Final = 5, ", and the replay store cannot be written: no knock opens anything"
_UNSHARED: Final = 5, ", and REPLAY_SHARE cannot be asked: no knock opens anything"
PATIENCE: Final = 5.0  # seconds the helper may take; it answers in well under a millisecond


class Listener:
    """The listener from start to stop."""

    def __init__(  # noqa: PLR0913  its parts, each named
        self,
        channel: socket.socket,
        options: argparse.Namespace,
        *,
        log: Log,
        notify: Notifier,
        alarm: Alarm,
        orders: socket.socket | None = None,
    ) -> None:
        """Take the configuration and the capture sockets from the helper behind `channel`; `orders` is doorward-exec's.

        Raises:
            DoorwardError: the configuration has problems, or a part cannot be opened.
        """
        self._channel = channel
        self._options = options
        self._log = log
        self._notify = notify
        self._alarm = alarm
        self._counters = Counters()
        self._remembers = True
        self._health = _WHOLE
        self._reading = "", ""  # what became of the configuration, and when
        self._limiter = record_line.Limiter()
        self._copies = Copies()
        self._running = True
        self._lost: HelperError | None = None
        self._deaf = ""  # the logged reason why knocks are not heard otherwise
        self._power = RemotePower(channel, PATIENCE)
        self._orders = ExecClient(orders)
        self._asked = configuration.parse(options, self._power.configure())  # with what its settings leave open
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._unsealer: RemoteUnsealer | None = None
        with contextlib.ExitStack() as opened:  # a start that fails closes it
            opened.callback(self._selector.close)
            descriptors, self._way = self._power.adopt()
            self._configuration = self._asked.heard(server=self._way.server)
            self._captures = Captures(descriptors, self._configuration.settings)
            opened.callback(self._captures.close)
            self._begun = self._begin()
            self._replay = self._open_replay()
            opened.callback(self._replay.close)
            self._wait_for_new_knocks()
            self._sharing = self._make_sharing(None)
            self._published = self._open_counters()
            opened.callback(self._published.close)
            self._audit_file = self._open_audit_file()
            opened.pop_all()
        self._gate = self._make_gate(None)
        self._tags = Tags(self._power, log)
        self._tags.follow(self._gate, time.time())
        self._alerting = self._make_alerting()
        self._tally = self._make_tally(None)
        self._report()

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal or the packet limit; `ready` is called as soon as knocks are heard.

        Raises:
            HelperError: the helper is gone.
        """
        self._confine()
        with self._selector as selector:
            selector.register(self._alarm.reader, selectors.EVENT_READ, self._take_signals)
            self._captures.watch(selector, self._take_packets)
            selector.register(self._channel, selectors.EVENT_READ, self._lose_helper)
            if self._orders.channel is not None:
                selector.register(self._orders.channel, selectors.EVENT_READ, lambda: self._follow_orders(selector))
            if self._unsealer is not None:
                selector.register(self._unsealer, selectors.EVENT_READ, self._take_answers)
            self._report_way()
            ready()
            self._tell_ready("listening")
            self._serve(selector)
        self._notify("STOPPING=1")
        self._stop()

    def _confine(self) -> None:
        """Give up all power. The process that runs gpg is started before: afterwards nothing can be."""
        self._alarm.catch()
        account, keyrings = privileges.account(), _keyrings(self._configuration)
        if keyrings:
            remote.prepare_folder(account)
            self._unsealer = RemoteUnsealer()
        privileges.become(account)
        if self._unsealer is not None:
            self._unsealer.configure(keyrings)
            self._report_unsealer()
            self._gate = self._make_gate(self._unsealer, self._gate.pairs)
            if account.pw_name != privileges.USERS[0]:
                self._log.warning("gnupg: copies of the keyrings belong to %s: make a user doorward", account.pw_name)
        seccomp.install(seccomp.LISTENER)

    def _serve(self, selector: selectors.BaseSelector) -> None:
        next_tick = next_prune = time.monotonic()
        while self._running:
            for key, _ in selector.select(_TICK):
                key.data()
            self._send_orders(selector)
            now = time.monotonic()
            if now >= next_tick:
                self._tick()
                next_tick = now + _TICK
            if now >= next_prune:
                self._prune()
                next_prune = now + _PRUNE

    def _take_packets(self, capture: Capture) -> None:
        """Decide on a bounded number of datagrams, so that every capture has its turn."""
        for _ in range(_BATCH):
            try:
                datagram = self._captures.receive(capture)
            except CaptureError as error:
                if capture.ended:
                    raise
                self._log.error("capture: %s", error)
                return
            if datagram is None:
                self._running = self._running and not capture.ended
                return
            verdict = self._gate.take(datagram, time.time())
            if not self._is_copy(datagram, verdict):
                self._settle(verdict)
            if self._configuration.settings.pcap_file is not None:
                self._await_answers()
            if not self._running:
                return

    def _is_copy(self, datagram: Datagram, verdict: Verdict | None) -> bool:
        """Whether a packet is one that the kernel has just shown already: it is counted, and has no line."""
        if verdict is not None and verdict.reason in _BEFORE_REPLAY:  # first: nearly every packet of a flood
            return False
        if self._configuration.settings.pcap_file is not None:
            return False
        now = time.monotonic()
        if verdict is None or verdict.reason is not Reason.REPLAY:
            self._copies.note(datagram, now)
            return False
        copy = self._copies.is_one(datagram, now)
        self._counters.duplicates += copy
        return copy

    def _await_answers(self) -> None:
        """Wait for gpg: a capture file must not end before its packets have verdicts."""
        while self._unsealer is not None and self._unsealer.waiting:
            select.select([self._unsealer], [], [])
            self._take_answers()

    def _take_answers(self) -> None:
        """Decide on the packets for which gpg has answered, with a plaintext or a refusal."""
        assert self._unsealer is not None  # noqa: S101  it is watched only where it is there
        self._resume(self._unsealer.receive())
        self._report_unsealer()
        if self._unsealer.gone:
            self._selector.unregister(self._unsealer)
            if self._options.listener:  # its service manager restarts both; else it serves the other knocks
                msg = "the process that runs gpg is gone"
                raise HelperError(msg)

    def _resume(self, answers: Iterable[tuple[int, Outcome]]) -> None:
        for number, outcome in answers:
            self._settle(self._gate.resume(number, messages.answer(outcome)))

    def _report_unsealer(self) -> None:
        if self._unsealer is not None:
            for text in self._unsealer.troubles:
                self._log.error("gnupg: %s", text)
            self._unsealer.troubles.clear()

    def _settle(self, verdict: Verdict | None) -> None:
        """Publish a verdict; None is a packet that waits for gpg."""
        if verdict is None:
            return
        self._publish(verdict)
        if self._lost is not None:
            raise self._lost
        if self._sharing is not None:
            self._sharing.post(self._stanza(verdict), verdict, time.time())
        if self._counters.total == self._options.packet_limit:
            self._log.info("packet limit of %d reached", self._options.packet_limit)
            self._running = False

    def _send_orders(self, selector: selectors.BaseSelector) -> None:
        """Send waiting orders, and have the loop woken when there is room for the rest."""
        if self._orders.channel is None:
            return
        self._orders.flush()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._orders.waiting else 0)
        key = selector.get_key(self._orders.channel)
        if key.events != events:
            selector.modify(self._orders.channel, events, key.data)

    def _follow_orders(self, selector: selectors.BaseSelector) -> None:
        """Check that doorward-exec is still there. Without it, knocks for commands are refused and others served."""
        channel = self._orders.channel
        if channel is None:
            return
        try:
            if channel.recv(1):
                return
        except BlockingIOError:  # there is room again
            return
        except OSError:
            pass
        selector.unregister(channel)
        self._orders.close()
        if self._configuration.for_exec:
            self._log.error("doorward-exec is gone: %s", self._without_exec())
        else:
            self._log.info("doorward-exec is gone, and nothing needs it")

    def _without_exec(self) -> str:
        """The stanzas that need doorward-exec, and how to get it back."""
        return f"{', '.join(self._configuration.for_exec) or 'nothing'} cannot be served {_UNTIL}"

    def _publish(self, verdict: Verdict) -> None:
        stanza = self._stanza(verdict)
        cheap = record_line.is_cheap(verdict.reason, stanza)
        self._counters.count(verdict.reason)
        if self._tally is not None:
            self._tally.count(verdict.name, verdict.reason, time.time)
        self._alerting.tell(verdict.reason, partial(record_line.line, verdict), cheap=cheap)
        if not self._limiter.admits(verdict.reason, cheap=cheap):
            return
        told = self._fwknopd_lines(verdict, stanza)
        for entry in told:
            self._log.write(entry.severity, entry.text)
        hidden = bool(told) and self._configuration.settings.log_style is LogStyle.FWKNOP
        # AUDIT_FILE has it all the same
        self._log.info("%s", self._line(verdict), extra={"hidden": hidden, VERDICT: verdict})

    def _publish_carried(self, carried: Carried) -> None:
        """Log what came of a grant that the other one of two gateways told of."""
        level = self._log.info if carried.opened else self._log.warning
        level("%s", self._line(carried), extra={VERDICT: carried})

    def _line(self, verdict: Verdict | Suppressed | Carried) -> str:
        """Our own line of a verdict, in the format of the log."""
        if self._configuration.settings.log_format is LogFormat.JSON:
            return json_line(verdict, time.time(), test=self._options.test)
        return record_line.line(verdict, test=self._options.test)

    def _stanza(self, verdict: Verdict) -> Stanza | None:
        """The stanza that decided; a packet that waited during a reload may have the number of one that is gone."""
        stanzas, number = self._configuration.access.stanzas, verdict.stanza
        return stanzas[number - 1] if number is not None and number <= len(stanzas) else None

    def _fwknopd_lines(self, verdict: Verdict, stanza: Stanza | None) -> tuple[fwknop.Entry, ...]:
        if self._configuration.settings.log_style is LogStyle.DOORWARD:
            return ()
        return fwknop.entries(verdict, time.time(), stanza, test=self._options.test)

    def _tick(self) -> None:
        self._tags.follow(self._gate, time.time())
        for suppressed in self._limiter.summary():
            self._log.warning("%s", self._line(suppressed), extra={VERDICT: suppressed})
        if self._count_refused():
            self._hear_otherwise()
        self._count_dropped()
        lost = self._log.take_lost()
        if lost:
            self._log.warning("%d lines were lost: the log does not keep up", lost)
        if self._audit_file is not None and self._audit_file.failed:
            lost, why = self._audit_file.failed, self._audit_file.why
            self._log.error("%d lines could not be written to AUDIT_FILE: %s", lost, why)
            self._audit_file.failed = 0
        self._alerting.tick(time.monotonic())
        if self._tally is not None:
            self._tally.tick(time.monotonic(), self._counters.by_reason, self._gauges)
        if self._orders.dropped:
            self._log.warning("%d lines were not mailed: doorward-exec does not keep up", self._orders.dropped)
            self._orders.dropped = 0
        if self._sharing is not None:
            self._sharing.tick(time.time())
        if self._lost is not None:
            raise self._lost
        self._say_whether_it_remembers()
        self._notify("WATCHDOG=1")

    def _say_whether_it_remembers(self) -> None:
        """Tell the service manager, and so the failure policy (doorward-watch.service), of a store that fails."""
        whole = self._replay.is_whole()
        unshared = self._sharing is not None and self._sharing.refuses_all
        before, self._health = self._health, _UNSHARED if unshared and whole else _WHOLE if whole else _FAILING
        if self._health is not before:
            self._notify(self._status)
        if whole is not self._remembers:
            self._remembers = whole
            self._log.error("the replay store %s", "is written again" if whole else "FAILS: no knock opens anything")

    def _count_dropped(self) -> None:
        """Log the packets that the kernel dropped, and publish the counters for `doorward status`."""
        dropped = self._captures.take_dropped()
        if dropped:
            self._counters.dropped += dropped
            self._log.warning("%d packets were dropped by the kernel: the receive buffer had no room", dropped)
        self._published.write(self._counters, self._heard, "" if self._sharing is None else self._sharing.state)

    def _count_refused(self) -> bool:
        """Ask how many packets the kernel gate refused, where there is one; return whether the UDP server is deaf."""
        if not self._configuration.clients or self._configuration.settings.udp_server is None:
            return False
        refused = self._power.refused()
        self._counters.refused = refused.count
        return refused.deaf

    def _hear_otherwise(self) -> None:
        """Hear knocks that the UDP server does not hear any more, as the helper has found out."""
        try:
            descriptors, self._way = self._power.hear_otherwise()
        except RefusedConfigError as error:
            if self._deaf != str(error):  # once, not every second
                self._log.error("capture: KNOCKS MAY NOT BE HEARD: %s", error)
            self._deaf = str(error)
            return
        self._configuration = self._asked.heard(server=self._way.server)
        self._take_up(descriptors)
        self._report_way()

    def _take_up(self, descriptors: Sequence[int]) -> None:
        """Read these sources of packets from now on; the kernel is told all tags again, since its gate may be new."""
        self._captures.follow(descriptors, self._configuration.settings, self._selector, self._take_packets)
        self._tags = Tags(self._power, self._log)

    @property
    def _heard(self) -> str:
        """How knocks are heard, and why, for the log and `doorward status`."""
        return f"{described(self._configuration)}: {self._way.why}"

    def _report_way(self) -> None:
        self._log.info("listening for knocks on %s", self._heard)

    def _gauges(self) -> Gauges:
        """What METRICS_FILE says of this moment."""
        return Gauges(
            self._counters.dropped,
            self._replay.size,
            self._replay.room,
            0 if self._unsealer is None else self._unsealer.in_progress,
            len(self._orders.waiting),
            None if self._sharing is None else self._sharing.works,
        )

    def _prune(self) -> None:
        try:
            self._replay.prune(time.time())
        except ReplayError as error:
            self._log.error("%s", error)

    def _open_grant(self, grant: Grant) -> None:
        """Have a grant opened. Without its helper the listener ends, but only after it has logged the verdict."""
        if self._options.test:
            return
        try:
            self._power.open(grant)
        except HelperError as error:
            self._lost = error
            raise FirewallError(str(error)) from error

    def _execute(self, execution: Execution) -> None:
        """Have a stanza's commands run by doorward-exec."""
        if self._options.test:
            return
        stanza = next(one for one in self._configuration.access.stanzas if one.number == execution.stanza)
        self._orders.execute(execution, stanza)

    def _make_alerting(self) -> Alerting:
        return Alerting(self._configuration.settings.alerts, self._orders, time.monotonic())

    def _make_tally(self, before: Tally | None) -> Tally | None:
        """Count for METRICS_FILE where there is one; a reload goes on from `before`."""
        if self._configuration.settings.metrics_file is None:
            return None
        if before is not None:
            before.tell_all_again()
        return before or Tally(self._power.report)

    def _open_replay(self) -> ReplayStore:
        """Open the replay store. One that may have forgotten packets refuses all until they are too old."""
        settings = self._configuration.settings
        skew = SKEW_SECONDS if any(one.clients for one in self._configuration.access.stanzas) else 0
        file, age, now = settings.replay_file, max(settings.max_age or 0, skew), time.time()
        begin = -1 if settings.pcap_file is not None else max(int(now), _last_heard(settings, now) + age)
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replay.acting_as_owner(file.parent):
                store = ReplayStore(file, if_new=begin, if_lost=int(now) + age)
        except OSError as error:
            msg = f"{file.parent} cannot be used: {error.strerror}"
            raise DoorwardError(msg) from error
        if store.past is Past.LOST:
            self._log.error("%s WAS REMOVED, REPLACED OR NOT WRITTEN: knocks are refused for %d s", file, age)
        elif store.past is Past.NONE and begin >= 0:
            self._log.info(
                "%s is new: packets made up to %s are refused", file, time.strftime("%H:%M:%S UTC", time.gmtime(begin))
            )
        return store

    def _make_sharing(self, before: Sharing | None) -> Sharing | None:
        """What is shared with another gateway; a reload goes on with `before` where it is the same.

        A daemon that opens nothing takes nobody's packets from the pair; those of a file are no knocks.
        """
        settings = self._configuration.settings
        path = None if self._options.test or settings.pcap_file is not None else settings.replay_share
        if before is not None and before.path != path:
            before.close()
            before = None
        if path is None:
            return None
        sharing = before or Sharing(
            path,
            self._replay,
            connect=self._power.open_share,
            open_grant=self._open_grant,
            publish=self._publish_carried,
            log=self._log,
        )
        sharing.follow(self._configuration)
        return sharing

    @property
    def _memory(self) -> Memory:
        """Where packets are remembered."""
        return self._replay if self._sharing is None else self._sharing.memory

    def _begin(self) -> int:
        """The Unix second up to which packets that gpg gets from anybody may have been seen; -1 for none."""
        chosen = self._configuration
        strangers = any(one.openpgp is not None and one.openpgp.hmac_key is None for one in chosen.access.stanzas)
        return int(time.time()) if strangers and chosen.settings.pcap_file is None else -1

    def _wait_for_new_knocks(self) -> None:
        """Wait for the next second, where a knock of this one would be refused: knocks have whole seconds."""
        now = time.time()
        floors = [floor for floor in (self._replay.floor, self._begun) if floor <= now]
        # A second at most, whatever the clock does meanwhile.
        select.select([], [], [], min(1.0, max(0.0, max(floors, default=-1) + 1 - now)))

    def _open_counters(self) -> Published:
        file = counters_beside(self._configuration.settings.replay_file)
        with replay.acting_as_owner(file.parent):
            return Published(file)

    def _open_audit_file(self) -> AuditFile | None:
        path = self._configuration.settings.audit_file
        if path is None:
            return None
        handler = AuditFile(path, partial(of_either, path, self._power.open_audit), test=self._options.test)
        self._log.write_also(handler)
        return handler

    def _make_gate(self, unsealer: RemoteUnsealer | None, pairs: Mapping[PairKey, Pair] | None = None) -> Gate:
        chosen = self._configuration
        return Gate(
            chosen.access.stanzas,
            self._memory,
            self._open_grant,
            chosen.settings.max_age,
            permissions=chosen.settings.permissions,
            execute=self._execute,
            unsealer=unsealer,
            begun=self._begun,
            host_key=chosen.access.host_key,
            pairs=pairs,
        )

    def _report(self) -> None:
        for warning in self._configuration.warnings:
            self._log.warning("%s", warning)
        count = len(self._configuration.access.stanzas)
        self._log.info("%d stanzas from %s", count, self._configuration.settings.access_file)
        if self._sharing is not None:
            self._log.info("what is seen here is shared at %s", self._sharing.path)
        if self._configuration.for_exec and self._orders.channel is None:
            self._log.error("doorward-exec is not running: %s", self._without_exec())

    def _take_signals(self) -> None:
        for number in set(self._alarm.reader.recv(64)):
            if number == signal.SIGHUP:
                self._reload()
            else:
                self._log.info("%s: stopping", signal.Signals(number).name)
                self._running = False

    def _lose_helper(self) -> None:
        """End. The helper only answers, so a readable channel means that it is gone or breaks the protocol."""
        msg = "the helper is gone"
        raise HelperError(msg)

    def _reload(self) -> None:
        """Adopt a new configuration completely, or keep the old one completely."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        status = "listening"
        try:
            new = configuration.parse(self._options, self._power.configure())
            descriptors, way = self._adopt(new)
        except (RefusedConfigError, ConfigError, CaptureError, OpenPgpError) as error:
            for problem in str(error).splitlines():
                self._log.error("%s", problem)
            self._log.error("the configuration is refused, the old one stays")
            self._reopen_audit_file()
            status = f"{systemd.REFUSED}: the configuration from before stays"
        else:  # a failure from here on ends the listener: the helper uses the new one already
            heard, self._way, self._asked = self._heard, way, new
            self._configuration = new.heard(server=way.server)
            self._take_up(descriptors)
            self._sharing = self._make_sharing(self._sharing)
            self._replace_gate(self._unsealer)
            self._tags.follow(self._gate, time.time())
            self._orders.reread()
            self._alerting = self._make_alerting()
            self._tally = self._make_tally(self._tally)
            self._reopen_audit_file()
            self._report()
            if self._heard != heard:
                self._report_way()
            self._log.info("the configuration was read again")
        self._tell_ready(status)

    def _tell_ready(self, reading: str) -> None:
        """Tell the service manager what became of the configuration, and when: by it a reload is seen to have ended."""
        now = time.time()
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
        self._reading = reading, f"{moment}.{int(now % 1 * 1e6):06d} UTC"
        self._notify(f"READY=1\n{self._status}")

    @property
    def _status(self) -> str:
        """The status for the service manager (sd_notify(3))."""
        number, store = self._health
        reading, moment = self._reading
        return f"ERRNO={number}\nSTATUS={reading}{store}{systemd.AS_OF}{moment}"

    def _adopt(self, new: Configuration) -> tuple[list[int], Way]:
        """Have every part adopt a new configuration, the helper last: its answer puts it in force.

        Returns the descriptors of all sources of packets, and how they hear knocks.

        Raises:
            CaptureError, OpenPgpError, RefusedConfigError: a part refuses it, and nothing has changed.
        """
        self._captures.check(new.settings, self._configuration.settings)
        self._reconfigure_unsealer(new)
        try:
            return self._power.adopt()
        except RefusedConfigError:
            self._take_keyrings_back()
            raise

    def _take_keyrings_back(self) -> None:
        """Go back to the keyrings of the old configuration, or to none: old stanzas never use new keyrings."""
        if self._unsealer is None:
            return
        try:
            self._reconfigure_unsealer(self._configuration)
        except OpenPgpError as error:
            self._log.error("gnupg: no GnuPG knocks until the next reload, the old keyrings are unusable: %s", error)
            self._replace_gate(None)

    def _replace_gate(self, unsealer: RemoteUnsealer | None) -> None:
        for verdict in self._gate.give_up():
            self._publish(verdict)
        gate = self._make_gate(unsealer, self._gate.pairs)
        gate.go_on_from(self._gate)
        self._gate = gate

    def _reconfigure_unsealer(self, new: Configuration) -> None:
        """Use the keyrings of a new configuration.

        Raises:
            OpenPgpError: they cannot be used.
        """
        needed = _keyrings(new)
        if self._unsealer is not None and self._unsealer.gone:  # no reason to refuse the rest of the configuration
            self._log.error("gnupg: the process that runs gpg is gone: no GnuPG knocks until doorwardd is restarted")
        elif self._unsealer is not None:
            try:
                self._unsealer.configure(needed)
            except OpenPgpError:
                self._resume(self._unsealer.noted())  # their keyrings are still those of the stanzas
                raise
            finally:
                self._report_unsealer()
            for number, _ in self._unsealer.noted():
                self._settle(self._gate.resume(number, NotExamined("its keyring was replaced")))
        elif needed:
            self._log.error("gnupg: the first GnuPG stanzas: doorwardd serves them once it is restarted")

    def _reopen_audit_file(self) -> None:
        """Go on in the file that the configuration names now: the same, another, or none."""
        current = self._audit_file
        try:
            if current is not None and current.path == self._configuration.settings.audit_file:
                current.reopen()
                return
            self._audit_file = self._open_audit_file()
        except DoorwardError as error:
            self._log.error("%s", error)
            return
        if current is not None:
            self._log.write_no_more(current)

    def _stop(self) -> None:
        for verdict in self._gate.give_up():
            self._publish(verdict)
        if self._unsealer is not None:
            self._unsealer.close()
        with contextlib.suppress(HelperError):  # it may have been stopped a moment earlier
            self._count_refused()
        self._count_dropped()
        self._captures.close()
        if self._sharing is not None:
            self._sharing.close()
        self._replay.close()
        self._published.close()
        self._alarm.close()
        seen = ", ".join(f"{word} {count}" for word, count in self._counters.seen().items())
        self._log.info("stopped after %d packets: %s", self._counters.total, seen or "none")


def _keyrings(found: Configuration) -> dict[remote.Ring, Keyring]:
    return remote.keyrings(found.access.stanzas, found.access.homes)


def _last_heard(settings: DaemonSettings, now: float) -> int:
    """When a predecessor last heard a knock, in Unix seconds up to `now`; 0 where none shows.

    fwknopd and a doorwardd with the usual DIGEST_DB_FILE know packets that a new store does not.
    """
    stores = [folder / name for folder in {settings.run_folder, _FWKNOPD_RUN} for name in _FWKNOPD_STORES]
    if settings.replay_file != _USUAL_STORE:
        stores.append(replay.lock_file(_USUAL_STORE))
    times = [0.0]
    for store in stores:
        with contextlib.suppress(OSError):
            times.append(store.stat().st_mtime)
    return int(min(now, max(times)))
