"""The process that reads strangers' bytes: one selectors loop over packets, signals and a slow clock.

It starts with what it needs (configuration and capture sockets from the helper, its state, its log), gives up
everything else for good, and only then looks at the first packet.
"""

from __future__ import annotations

import select
import selectors
import signal
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward import audit, replay
from doorward.daemon import configuration, fwknop_log
from doorward.daemon.alerting import Alerting
from doorward.daemon.audit_file import AuditFile
from doorward.daemon.captures import Captures, described
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
from doorward.metrics import Counters
from doorward.privsep import privileges, remote_unsealer, seccomp, unsealing
from doorward.privsep.listener import RemotePower
from doorward.privsep.orders import Orders
from doorward.privsep.remote_unsealer import RemoteUnsealer
from doorward.replay import ReplayStore
from doorward.values import LogStyle

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from doorward.capture import Capture
    from doorward.daemon.configuration import Configuration
    from doorward.daemon.log import Log
    from doorward.daemon.notify import Notifier
    from doorward.gate import Verdict
    from doorward.privsep.unsealing import Keyring, Outcome
    from doorward.values import Execution, Grant

_BATCH: Final = 64  # datagrams between two looks at signals and clock
_TICK: Final = 1.0  # seconds between two looks at watchdog and suppressed lines
_PRUNE: Final = 60.0  # seconds between two prunings of the replay store
_UNTIL: Final = (
    "until doorwardd is started anew (under systemd: systemctl enable --now doorward-exec.socket "
    "doorward-exec.service; systemctl restart doorwardd)"
)
PATIENCE: Final = 5.0  # seconds the helper may take; it answers in well under a millisecond


class Alarm:
    """Signals as bytes on a socket; a parent process may write to it in a signal's place."""

    def __init__(self) -> None:
        """Make the pair of sockets."""
        self.reader, self.writer = socket.socketpair()
        self.reader.settimeout(0)
        self.writer.settimeout(0)

    def catch(self) -> None:
        """Let HUP, INT and TERM of this process arrive here; ignore the others that fwknopd ignores."""
        signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # the number arrives through the descriptor
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def close(self) -> None:
        """Stop catching and give the sockets back."""
        signal.set_wakeup_fd(-1)
        self.reader.close()
        self.writer.close()


class Listener:
    """doorwardd's listener from start to stop."""

    def __init__(  # noqa: PLR0913  what it is given by whoever started it, each named
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
            DoorwardError: the configuration has problems, or a part cannot be had.
        """
        self._channel = channel
        self._options = options
        self._log = log
        self._notify = notify
        self._alarm = alarm
        self._counters = Counters()
        self._limiter = audit.Limiter()
        self._running = True
        self._lost: HelperError | None = None
        self._power = RemotePower(channel, PATIENCE)
        self._orders = Orders(orders)
        self._configuration = configuration.parse(options, self._power.configure())
        self._captures = Captures(self._power.adopt(), self._configuration.settings)
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._replay = self._open_replay()
        self._audit_file = self._open_audit_file()
        self._unsealer: RemoteUnsealer | None = None
        self._gate = self._make_gate(None)
        self._alerting = self._make_alerting()
        self._report()

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal or the packet limit ends it; `ready` is called once knocks are heard.

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
            self._log.info("listening for knocks on %s", described(self._configuration.settings))
            ready()
            self._notify("READY=1\nSTATUS=listening")
            self._serve(selector)
        self._notify("STOPPING=1")
        self._stop()

    def _confine(self) -> None:
        """Give up what is left of power. What runs gpg is started as the last thing that can be started."""
        self._alarm.catch()
        account, keyrings = privileges.account(), self._keyrings()
        if keyrings:
            remote_unsealer.prepare_folder(account)
            self._unsealer = RemoteUnsealer()
        privileges.become(account)
        if self._unsealer is not None:
            self._unsealer.configure(keyrings)
            self._report_unsealer()
            self._gate = self._make_gate(self._unsealer)
            if account.pw_name != privileges.USERS[0]:
                self._log.warning("gnupg: copies of the keyrings belong to %s: make a user doorward", account.pw_name)
        seccomp.install()

    def _keyrings(self) -> dict[remote_unsealer.Ring, Keyring]:
        access = self._configuration.access
        return remote_unsealer.keyrings(access.stanzas, access.homes)

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
        """Judge a bounded number of datagrams, so that every capture has its turn."""
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
            self._settle(self._gate.take(datagram, time.time()))
            if self._configuration.settings.pcap_file is not None:
                self._await_answers()
            if not self._running:
                return

    def _await_answers(self) -> None:
        """Wait for gpg: a file's packets have the time, and its end would come before their verdicts."""
        while self._unsealer is not None and self._unsealer.waiting:
            select.select([self._unsealer], [], [])
            self._take_answers()

    def _take_answers(self) -> None:
        """Go on with the packets whose plaintexts have come, or of which is known that they have none."""
        assert self._unsealer is not None  # noqa: S101  it is watched only where it is there
        self._resume(self._unsealer.receive())
        self._report_unsealer()
        if self._unsealer.gone:
            self._selector.unregister(self._unsealer)
            if self._options.listener:  # its service manager starts both anew; by hand, the other knocks go on
                msg = "the process that runs gpg is gone"
                raise HelperError(msg)

    def _resume(self, answers: Iterable[tuple[int, Outcome]]) -> None:
        for number, outcome in answers:
            self._settle(self._gate.resume(number, unsealing.answer(outcome)))

    def _report_unsealer(self) -> None:
        if self._unsealer is not None:
            for text in self._unsealer.troubles:
                self._log.error("gnupg: %s", text)
            self._unsealer.troubles.clear()

    def _settle(self, verdict: Verdict | None) -> None:
        """Publish the verdict of a packet that does not wait any longer."""
        if verdict is None:
            return
        self._publish(verdict)
        if self._lost is not None:
            raise self._lost
        if self._counters.total == self._options.packet_limit:
            self._log.info("packet limit of %d reached", self._options.packet_limit)
            self._running = False

    def _send_orders(self, selector: selectors.BaseSelector) -> None:
        """Have the loop woken when there is room for orders that wait."""
        if self._orders.channel is None:
            return
        self._orders.flush()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._orders.waiting else 0)
        key = selector.get_key(self._orders.channel)
        if key.events != events:
            selector.modify(self._orders.channel, events, key.data)

    def _follow_orders(self, selector: selectors.BaseSelector) -> None:
        """See whether doorward-exec is still there. Without it knocks for commands are refused, and others go on."""
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
        """Return what does not work without doorward-exec, and what helps."""
        return f"{', '.join(self._configuration.for_exec) or 'nothing'} cannot be served {_UNTIL}"

    def _publish(self, verdict: Verdict) -> None:
        self._counters.count(verdict.reason)
        self._alerting.tell(verdict.reason, partial(audit.line, verdict))
        if not self._limiter.admits(verdict.reason):
            return
        told = self._fwknopd_lines(verdict)
        for entry in told:
            self._log.write(entry.severity, entry.text)
        hidden = bool(told) and self._configuration.settings.log_style is LogStyle.FWKNOP
        line = ("test=yes " if self._options.test else "") + audit.line(verdict)
        self._log.info("%s", line, extra={"hidden": hidden})  # AUDIT_FILE has it all the same

    def _fwknopd_lines(self, verdict: Verdict) -> tuple[fwknop_log.Entry, ...]:
        if self._configuration.settings.log_style is LogStyle.DOORWARD:
            return ()
        stanzas, number = self._configuration.access.stanzas, verdict.stanza
        stanza = stanzas[number - 1] if number is not None and number <= len(stanzas) else None
        return fwknop_log.entries(verdict, time.time(), stanza, test=self._options.test)

    def _tick(self) -> None:
        for line in self._limiter.summary():
            self._log.warning("%s", line)
        lost = self._log.take_lost()
        if lost:
            self._log.warning("%d lines were lost: the log is slower than what happens", lost)
        if self._audit_file is not None and self._audit_file.failed:
            self._log.error("%d lines could not be written to AUDIT_FILE", self._audit_file.failed)
            self._audit_file.failed = 0
        self._alerting.tick(time.monotonic())
        if self._orders.dropped:
            self._log.warning("%d lines were not mailed: doorward-exec does not keep up", self._orders.dropped)
            self._orders.dropped = 0
        self._notify("WATCHDOG=1")

    def _prune(self) -> None:
        try:
            self._replay.prune(time.time())
        except ReplayError as error:
            self._log.error("%s", error)

    def _open_grant(self, grant: Grant) -> None:
        """Have a grant opened. A helper that is gone ends the listener too, after the verdict has its line."""
        if self._options.test:
            return
        try:
            self._power.open(grant)
        except HelperError as error:
            self._lost = error
            raise FirewallError(str(error)) from error

    def _execute(self, execution: Execution) -> None:
        """Have a stanza's commands run, by whoever may."""
        if self._options.test:
            return
        stanza = next(one for one in self._configuration.access.stanzas if one.number == execution.stanza)
        self._orders.execute(execution, stanza)

    def _make_alerting(self) -> Alerting:
        return Alerting(self._configuration.settings.alerts, self._orders, time.monotonic())

    def _open_replay(self) -> ReplayStore:
        """Open the store; one that somebody removed while its lock stayed has forgotten what must not come again."""
        settings = self._configuration.settings
        folder = settings.replay_file.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replay.acting_as_owner(folder):
                lost = replay.was_removed(settings.replay_file)
                store = ReplayStore(settings.replay_file)
        except OSError as error:
            msg = f"{folder} cannot be used: {error.strerror}"
            raise DoorwardError(msg) from error
        if lost:
            age = settings.max_age or 0
            store.raise_floor(int(time.time()) + age)
            self._log.error("%s WAS REMOVED: knocks are refused for %d s", settings.replay_file, age)
        return store

    def _open_audit_file(self) -> AuditFile | None:
        path = self._configuration.settings.audit_file
        if path is None:
            return None
        handler = AuditFile(path)
        self._log.write_also(handler)
        return handler

    def _make_gate(self, unsealer: RemoteUnsealer | None) -> Gate:
        chosen = self._configuration
        return Gate(
            chosen.access.stanzas,
            self._replay,
            self._open_grant,
            chosen.settings.max_age,
            abilities=chosen.abilities,
            execute=self._execute,
            unsealer=unsealer,
        )

    def _report(self) -> None:
        for warning in self._configuration.warnings:
            self._log.warning("%s", warning)
        count = len(self._configuration.access.stanzas)
        self._log.info("%d stanzas from %s", count, self._configuration.settings.access_file)
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
        """End: the helper speaks only when it is asked, so this is its end, or it strays."""
        msg = "the helper is gone"
        raise HelperError(msg)

    def _reload(self) -> None:
        """Take over a new configuration as a whole, or keep the old one as a whole."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            new = configuration.parse(self._options, self._power.configure())
            descriptors = self._adopt(new)
        except (RefusedConfigError, ConfigError, CaptureError, OpenPgpError) as error:
            for problem in str(error).splitlines():
                self._log.error("%s", problem)
            self._log.error("the configuration is refused, the old one stays")
        else:  # what fails from here on ends the listener: the helper acts on the new one already
            self._configuration = new
            self._captures.follow(descriptors, new.settings, self._selector, self._take_packets)
            self._replace_gate(self._unsealer)
            self._orders.reread()
            self._alerting = self._make_alerting()
            self._reopen_audit_file()
            self._report()
            self._log.info("the configuration was read again")
        self._notify("READY=1\nSTATUS=listening")

    def _adopt(self, new: Configuration) -> list[int]:
        """Have a new configuration adopted by all who may refuse it, the helper last: what it adopts is in force.

        Returns the descriptors of all that is read from now on.

        Raises:
            CaptureError, OpenPgpError, RefusedConfigError: somebody refuses it, and nothing has changed.
        """
        self._captures.check(new.settings, self._configuration.settings)
        self._reconfigure_unsealer(new)
        try:
            return self._power.adopt()
        except RefusedConfigError:
            self._take_keyrings_back()
            raise

    def _take_keyrings_back(self) -> None:
        """Have the keyrings of the old configuration used again, or none: the old stanzas never meet the new ones."""
        if self._unsealer is None:
            return
        try:
            self._reconfigure_unsealer(self._configuration)
        except OpenPgpError as error:
            self._log.error("gnupg: no knocks before the next reload, the old keyrings cannot be used again: %s", error)
            self._replace_gate(None)

    def _replace_gate(self, unsealer: RemoteUnsealer | None) -> None:
        for verdict in self._gate.give_up():
            self._publish(verdict)
        gate = self._make_gate(unsealer)
        gate.go_on_from(self._gate)
        self._gate = gate

    def _reconfigure_unsealer(self, new: Configuration) -> None:
        """Have the keyrings of a new configuration used.

        Raises:
            OpenPgpError: they cannot be used.
        """
        needed = remote_unsealer.keyrings(new.access.stanzas, new.access.homes)
        if self._unsealer is not None and self._unsealer.gone:  # the rest of the new configuration must not wait for it
            self._log.error("gnupg: the process that runs gpg is gone: no GnuPG knocks until doorwardd is started anew")
        elif self._unsealer is not None:
            try:
                self._unsealer.configure(needed)
            except OpenPgpError:
                self._resume(self._unsealer.noted())  # the keyrings are those that the stanzas mean
                raise
            finally:
                self._report_unsealer()
            for number, _ in self._unsealer.noted():
                self._settle(self._gate.resume(number, None))
        elif needed:
            self._log.error("gnupg: the first stanzas of its kind: doorwardd serves them once it is started anew")

    def _reopen_audit_file(self) -> None:
        """Go on in the file that the configuration names now, which may be another, a new one, or none."""
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
        self._captures.close()
        self._replay.close()
        self._alarm.close()
        self._log.info("stopped after %d packets: %s", self._counters.total, _counts(self._counters))


def _counts(counters: Counters) -> str:
    seen = {word: count for word, count in counters.snapshot().items() if count}
    return ", ".join(f"{word} {count}" for word, count in seen.items()) or "none"
