"""The running daemon: one selectors loop over packets, signals and a slow clock."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward import audit
from doorward.capture.packet import PacketCapture, Taps
from doorward.config import access
from doorward.daemon.notify import notify
from doorward.errors import CaptureError, ConfigError, FirewallError, ReplayError
from doorward.firewall.nftables import Nftables
from doorward.gate import Gate
from doorward.metrics import Counters
from doorward.replay import ReplayStore
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from doorward.capture import Capture
    from doorward.config.access import Access
    from doorward.config.daemon import DaemonSettings
    from doorward.firewall import Firewall
    from doorward.gate import Verdict
    from doorward.values import Grant

_BATCH: Final = 256  # datagrams between two looks at signals and clock
_TICK: Final = 1.0  # seconds between two looks at interfaces and watchdog
_PRUNE: Final = 60.0  # seconds between two prunings of the replay store


@dataclass(frozen=True, slots=True)
class Configuration:
    """Both files as they were read together; `warnings` are for the log."""

    settings: DaemonSettings
    access: Access
    warnings: tuple[str, ...]


def guarded(configuration: Configuration) -> frozenset[Service]:
    """Return what a guard table closes: the services that stanzas name, and the knock port.

    Nothing listens on the knock port, and without a drop the kernel would answer every knock with port unreachable.
    A range of knock ports stays as it is: other programs may use some of them.
    """
    named = (stanza.open_ports or frozenset() for stanza in configuration.access.stanzas)
    ports = configuration.settings.ports
    silent = {Service(Protocol.UDP, ports.start)} if len(ports) == 1 else set()
    return frozenset().union(*named, silent)


class Daemon:
    """doorwardd from start to stop."""

    def __init__(
        self,
        load: Callable[[], Configuration],
        log: logging.Logger,
        *,
        ready: Callable[[], None],
        dry: bool = False,
        packet_limit: int = 0,
    ) -> None:
        """Read the configuration through `load`, at start and at every reload.

        `ready` is called once knocks are heard. `dry` decides and logs without effect; `packet_limit` ends the loop
        after so many datagrams, 0 never.

        Raises:
            ConfigError: the configuration has problems.
            ReplayError, FirewallError, CaptureError: a part cannot be had.
        """
        self._load = load
        self._log = log
        self._ready = ready
        self._dry = dry
        self._packet_limit = packet_limit
        self._counters = Counters()
        self._running = True
        self._configuration = load()
        self._report()
        settings = self._configuration.settings
        self._replay = _open_replay(settings)
        self._firewall: Firewall = self._make_firewall()
        self._prepare_firewall()
        if settings.flush_at_start and not dry:
            self._firewall.flush()
        self._gate = self._make_gate()
        self._taps = Taps((settings.ports,), settings.interfaces)
        self._capture: Capture = PacketCapture(self._taps.sockets)
        self._wakeup, self._alarm = socket.socketpair()
        self._wakeup.settimeout(0)
        self._alarm.settimeout(0)
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until a signal or the packet limit ends it."""
        self._catch_signals()
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._take_signals)
        self._selector.register(self._capture, selectors.EVENT_READ, self._take_packets)
        ports = self._configuration.settings.ports
        self._log.info("listening for knocks on udp %s", _ports(ports))
        self._ready()
        notify(os.environ, "READY=1\nSTATUS=listening")
        self._serve()
        notify(os.environ, "STOPPING=1")
        self._stop()

    def _serve(self) -> None:
        next_tick = next_prune = time.monotonic()
        while self._running:
            for key, _ in self._selector.select(_TICK):
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
            if self._counters.total == self._packet_limit:
                self._log.info("packet limit of %d reached", self._packet_limit)
                self._running = False
                return

    def _publish(self, verdict: Verdict) -> None:
        self._counters.count(verdict.reason)
        self._log.info("%s%s", "test=yes " if self._dry else "", audit.line(verdict))

    def _tick(self) -> None:
        change = self._taps.refresh()
        if change:
            self._log.warning("%s", change)
        notify(os.environ, "WATCHDOG=1")

    def _prune(self) -> None:
        try:
            self._replay.prune(time.time())
        except ReplayError as error:
            self._log.error("%s", error)

    def _open_grant(self, grant: Grant) -> None:
        if not self._dry:
            self._firewall.open(grant)

    def _prepare_firewall(self) -> None:
        if self._dry:
            return
        made = self._firewall.prepare()
        if made:
            self._log.warning("firewall: %s", made)
        for drop in self._firewall.foreign_drops():
            self._log.warning("firewall: %s: it drops what a grant lets in", drop)

    def _make_gate(self) -> Gate:
        stanzas, settings = self._configuration.access.stanzas, self._configuration.settings
        return Gate(stanzas, self._replay, self._open_grant, settings.max_age)

    def _make_firewall(self) -> Firewall:
        settings = self._configuration.settings
        return Nftables(settings.firewall_file, settings.firewall_mode, lambda: guarded(self._configuration))

    def _report(self) -> None:
        for warning in self._configuration.warnings:
            self._log.warning("%s", warning)
        count = len(self._configuration.access.stanzas)
        self._log.info("%d stanzas from %s", count, self._configuration.settings.access_file)

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # the number arrives through the descriptor
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def _take_signals(self) -> None:
        for number in set(self._wakeup.recv(64)):
            if number == signal.SIGHUP:
                self._reload()
            else:
                self._log.info("%s: stopping", signal.Signals(number).name)
                self._running = False

    def _reload(self) -> None:
        """Take over a new configuration as a whole, or keep the old one as a whole."""
        notify(os.environ, f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._adopt(self._load())
        except ConfigError as error:
            for problem in error.problems:
                self._log.error("%s", problem)
            self._log.error("the configuration is refused, the old one stays")
        except (CaptureError, FirewallError, ReplayError) as error:
            self._log.error("%s; the old configuration stays", error)
        notify(os.environ, "READY=1\nSTATUS=listening")

    def _adopt(self, new: Configuration) -> None:
        """Switch to a configuration; live grants stay. What can fail comes first."""
        old, previous = self._configuration.settings, self._configuration
        if (new.settings.ports, new.settings.interfaces) != (old.ports, old.interfaces):
            self._taps.listen((new.settings.ports,), new.settings.interfaces)
        self._configuration = new
        try:
            firewall = self._make_firewall()
            firewall.prepare()
        except FirewallError:
            self._configuration = previous
            raise
        self._firewall = firewall
        self._gate = self._make_gate()
        self._report()
        self._log.info("the configuration was read again")

    def _stop(self) -> None:
        if self._configuration.settings.flush_at_exit and not self._dry:
            self._firewall.flush()
        self._capture.close()
        self._replay.close()
        self._selector.close()
        signal.set_wakeup_fd(-1)
        self._wakeup.close()
        self._alarm.close()
        self._log.info("stopped after %d packets: %s", self._counters.total, _counts(self._counters))


def load(settings: Callable[[], tuple[DaemonSettings, tuple[str, ...]]]) -> Configuration:
    """Return both files as one configuration.

    Raises:
        ConfigError: every problem of both.
    """
    chosen, warnings = settings()
    read = access.load(chosen.access_file)
    return Configuration(chosen, read, warnings + read.warnings)


def _open_replay(settings: DaemonSettings) -> ReplayStore:
    settings.replay_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ReplayStore(settings.replay_file)


def _ports(ports: range) -> str:
    return str(ports.start) if len(ports) == 1 else f"{ports.start}-{ports.stop - 1}"


def _counts(counters: Counters) -> str:
    seen = {word: count for word, count in counters.snapshot().items() if count}
    return ", ".join(f"{word} {count}" for word, count in seen.items()) or "none"
