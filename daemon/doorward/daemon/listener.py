"""The process that reads strangers' bytes: one selectors loop over packets, signals and a slow clock.

It starts with what it needs (configuration and capture sockets from the helper, its state, its log), gives up
everything else for good, and only then looks at the first packet.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, Final

from doorward import audit, replay
from doorward.capture.packet import PacketCapture
from doorward.daemon import configuration
from doorward.daemon.audit_file import AuditFile
from doorward.errors import (
    CaptureError,
    ConfigError,
    DoorwardError,
    FirewallError,
    HelperError,
    RefusedConfigError,
    ReplayError,
)
from doorward.gate import Gate
from doorward.metrics import Counters
from doorward.privsep import privileges, seccomp
from doorward.privsep.listener import RemotePower
from doorward.replay import ReplayStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from doorward.capture import Capture
    from doorward.daemon.log import Log
    from doorward.daemon.notify import Notifier
    from doorward.gate import Verdict
    from doorward.values import Grant

_BATCH: Final = 64  # datagrams between two looks at signals and clock
_TICK: Final = 1.0  # seconds between two looks at watchdog and suppressed lines
_PRUNE: Final = 60.0  # seconds between two prunings of the replay store
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

    def __init__(
        self, channel: socket.socket, options: argparse.Namespace, *, log: Log, notify: Notifier, alarm: Alarm
    ) -> None:
        """Take the configuration and the capture sockets from the helper behind `channel`.

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
        files, descriptors = self._power.configure()
        self._configuration = configuration.parse(options, files)
        self._capture: Capture = PacketCapture([socket.socket(fileno=descriptor) for descriptor in descriptors])
        self._replay = self._open_replay()
        self._audit_file = self._open_audit_file()
        self._gate = self._make_gate()
        self._report()

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal or the packet limit ends it; `ready` is called once knocks are heard.

        Raises:
            HelperError: the helper is gone.
        """
        self._confine()
        with selectors.DefaultSelector() as selector:
            selector.register(self._alarm.reader, selectors.EVENT_READ, self._take_signals)
            selector.register(self._capture, selectors.EVENT_READ, self._take_packets)
            selector.register(self._channel, selectors.EVENT_READ, self._lose_helper)
            self._log.info("listening for knocks on udp %s", _ports(self._configuration.settings.ports))
            ready()
            self._notify("READY=1\nSTATUS=listening")
            self._serve(selector)
        self._notify("STOPPING=1")
        self._stop()

    def _confine(self) -> None:
        """Give up what is left of power."""
        self._alarm.catch()
        privileges.become(privileges.account())
        seccomp.install()

    def _serve(self, selector: selectors.BaseSelector) -> None:
        next_tick = next_prune = time.monotonic()
        while self._running:
            for key, _ in selector.select(_TICK):
                key.data()
            now = time.monotonic()
            if now >= next_tick:
                self._tick()
                next_tick = now + _TICK
            if now >= next_prune:
                self._prune()
                next_prune = now + _PRUNE

    def _take_packets(self) -> None:
        for _ in range(_BATCH):
            try:
                datagram = self._capture.receive()
            except CaptureError as error:
                self._log.error("capture: %s", error)
                return
            if datagram is None:
                return
            self._publish(self._gate.judge(datagram, time.time()))
            if self._lost is not None:
                raise self._lost
            if self._counters.total == self._options.packet_limit:
                self._log.info("packet limit of %d reached", self._options.packet_limit)
                self._running = False
                return

    def _publish(self, verdict: Verdict) -> None:
        self._counters.count(verdict.reason)
        if self._limiter.admits(verdict.reason):
            self._log.info("%s%s", "test=yes " if self._options.test else "", audit.line(verdict))

    def _tick(self) -> None:
        for line in self._limiter.summary():
            self._log.warning("%s", line)
        lost = self._log.take_lost()
        if lost:
            self._log.warning("%d lines were lost: the log is slower than what happens", lost)
        if self._audit_file is not None and self._audit_file.failed:
            self._log.error("%d lines could not be written to AUDIT_FILE", self._audit_file.failed)
            self._audit_file.failed = 0
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

    def _make_gate(self) -> Gate:
        chosen = self._configuration
        return Gate(chosen.access.stanzas, self._replay, self._open_grant, chosen.settings.max_age)

    def _report(self) -> None:
        for warning in self._configuration.warnings:
            self._log.warning("%s", warning)
        count = len(self._configuration.access.stanzas)
        self._log.info("%d stanzas from %s", count, self._configuration.settings.access_file)

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
            files, descriptors = self._power.configure()
            for descriptor in descriptors:
                os.close(descriptor)
            self._configuration = configuration.parse(self._options, files)
        except (RefusedConfigError, ConfigError) as error:
            for problem in str(error).splitlines():
                self._log.error("%s", problem)
            self._log.error("the configuration is refused, the old one stays")
        else:
            self._gate = self._make_gate()
            self._reopen_audit_file()
            self._report()
            self._log.info("the configuration was read again")
        self._notify("READY=1\nSTATUS=listening")

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
        self._capture.close()
        self._replay.close()
        self._alarm.close()
        self._log.info("stopped after %d packets: %s", self._counters.total, _counts(self._counters))


def _ports(ports: range) -> str:
    return str(ports.start) if len(ports) == 1 else f"{ports.start}-{ports.stop - 1}"


def _counts(counters: Counters) -> str:
    seen = {word: count for word, count in counters.snapshot().items() if count}
    return ", ".join(f"{word} {count}" for word, count in seen.items()) or "none"
