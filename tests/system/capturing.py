"""Taps and the capture that reads them, in one process."""

from __future__ import annotations

from typing import Any

from doorward.capture import packet


class PacketCapture(packet.PacketCapture):
    """A capture with the taps it reads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        taps = packet.Taps(*arguments, **options)
        super().__init__(taps.sockets)
        self.refresh, self.dropped, self.listen = taps.refresh, taps.dropped, taps.listen
