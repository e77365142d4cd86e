"""What the listener reads: the captures out of what the helper hands over, one selector, and HTTP taken off."""

from __future__ import annotations

import selectors
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.capture import http, inherited
from doorward.daemon.sources import tapped
from doorward.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doorward.capture import Capture
    from doorward.config.daemon import DaemonSettings
    from doorward.values import Datagram

_TCP: Final = 6


class Captures:
    """All captures of one listener; what a reload does not change goes on where it was."""

    def __init__(self, descriptors: Sequence[int], settings: DaemonSettings) -> None:
        """Take over the first descriptors, before power is given up.

        Raises:
            CaptureError: one of them is nothing that packets come from.
        """
        self._captures = inherited.take_over(descriptors, {}, settings.carriers)
        self._rules = _rules(settings)

    def watch(self, selector: selectors.BaseSelector, take: Callable[[Capture], None]) -> None:
        """Have `take` called by the selector's loop for a capture that has something."""
        for capture in self._captures.values():
            selector.register(capture, selectors.EVENT_READ, partial(take, capture))

    def check(self, settings: DaemonSettings, before: DaemonSettings) -> None:
        """Refuse what follow() could not do any more.

        Raises:
            CaptureError: a capture file that was not read before.
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
        """Read what the helper hands over now, and nothing else.

        Raises:
            CaptureError: one of them is nothing that packets come from; what was read before is read on.
        """
        for capture in self._captures.values():
            selector.unregister(capture)
        try:
            self._captures = inherited.take_over(descriptors, self._captures, None)
            self._rules = _rules(settings)
        finally:
            self.watch(selector, take)

    def receive(self, capture: Capture) -> Datagram | None:
        """Return the next datagram of a capture, out of its HTTP request where it came in one."""
        datagram = capture.receive()
        if datagram is None or self._rules is None or datagram.protocol != _TCP:
            return datagram
        return http.read(datagram, self._rules)

    def close(self) -> None:
        """Give everything back."""
        for capture in self._captures.values():
            capture.close()


def described(settings: DaemonSettings) -> str:
    """Return what is listened to, for the log."""
    if settings.pcap_file is not None:
        return f"{settings.carriers} in {settings.pcap_file}"
    servers = [
        f"{name} {port} (server)" for name, port in (("udp", settings.udp_server), ("tcp", settings.tcp_server)) if port
    ]
    passive = str(tapped(settings)) if settings.capture else ""
    return ", ".join(filter(None, (passive if passive != "nothing" or not servers else "", *servers)))


def _rules(settings: DaemonSettings) -> http.Rules | None:
    if not settings.http:
        return None
    return http.Rules(settings.http_any_agent, settings.proxies if settings.forwarded_for else None)
