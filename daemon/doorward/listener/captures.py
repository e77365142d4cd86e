"""The captures that the listener reads, made of the descriptors from the helper; HTTP requests are unwrapped."""

from __future__ import annotations

import selectors
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.capture import http, inherited
from doorward.errors import CaptureError
from doorward.helper.sources import tapped
from doorward.values import Carriers, Completed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doorward.capture import Capture
    from doorward.config.settings import DaemonSettings
    from doorward.processes.configuration import Configuration
    from doorward.values import Datagram

_TCP: Final = 6


class Captures:
    """All captures of one listener. A reload keeps the captures that it does not change."""

    def __init__(self, descriptors: Sequence[int], settings: DaemonSettings) -> None:
        """Take over the first descriptors, before power is given up.

        Raises:
            CaptureError: one of them is no source of packets.
        """
        self._captures = inherited.take_over(descriptors, {}, settings.carriers)
        self._rules = _rules(settings)

    def watch(self, selector: selectors.BaseSelector, take: Callable[[Capture], None]) -> None:
        """Register all captures: the selector's loop calls `take` with a capture that is readable."""
        for capture in self._captures.values():
            selector.register(capture, selectors.EVENT_READ, partial(take, capture))

    def check(self, settings: DaemonSettings, before: DaemonSettings) -> None:
        """Refuse settings that follow() cannot apply.

        Raises:
            CaptureError: they name another capture file.
        """
        if settings.pcap_file is not None and settings.pcap_file != before.pcap_file:
            msg = f"{settings.pcap_file}: a capture file is read from the start on only: restart"
            raise CaptureError(msg)

    def follow(
        self,
        descriptors: Sequence[int],
        settings: DaemonSettings,
        selector: selectors.BaseSelector,
        take: Callable[[Capture], None],
    ) -> None:
        """Read these descriptors from now on, and no others.

        Raises:
            CaptureError: one of them is no source of packets; the captures stay as they were.
        """
        for capture in self._captures.values():
            selector.unregister(capture)
        try:
            self._captures = inherited.take_over(descriptors, self._captures, None)
            self._rules = _rules(settings)
        finally:
            self.watch(selector, take)

    def receive(self, capture: Capture) -> Datagram | None:
        """The next datagram of a capture, unwrapped from its HTTP request where there is one."""
        datagram = capture.receive()
        if datagram is None or self._rules is None or datagram.protocol != _TCP or isinstance(datagram, Completed):
            return datagram
        return http.read(datagram, self._rules)

    def take_dropped(self) -> int:
        """The number of packets that the kernel dropped for lack of buffer space since the last call."""
        return sum(one.take_dropped() for one in self._captures.values())

    def close(self) -> None:
        """Close all captures."""
        for capture in self._captures.values():
            capture.close()


def described(chosen: Configuration) -> str:
    """The carriers and ports of knocks, for the log."""
    settings = chosen.settings
    if settings.pcap_file is not None:
        return f"{settings.carriers} in {settings.pcap_file}"
    servers = [
        f"{name} {port} (server)" for name, port in (("udp", settings.udp_server), ("tcp", settings.tcp_server)) if port
    ]
    packets = chosen.formats.fwknop or chosen.formats.doorward
    passive = str(tapped(settings)) if settings.capture and packets else ""
    others = [f"{carriers} (magic packets)" for carriers in (chosen.magic,) if carriers != Carriers()]
    others += ["sequences of ports"] if chosen.sequences else []
    heard = f"{passive} (passive)" if passive not in {"", "nothing"} else ""
    return ", ".join(filter(None, (heard, *servers, *others))) or "nothing"


def _rules(settings: DaemonSettings) -> http.Rules | None:
    if not settings.http:
        return None
    return http.Rules(settings.http_any_agent, settings.proxies if settings.forwarded_for else None)
