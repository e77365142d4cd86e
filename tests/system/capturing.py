"""Taps and the capture that reads them, in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doorward.capture import packet
from doorward.values import Carriers

if TYPE_CHECKING:
    from collections.abc import Sequence


class PacketCapture(packet.PacketCapture):
    """A capture with the taps it reads."""

    def __init__(self, carriers: Carriers | Sequence[range], *arguments: Any, **options: Any) -> None:
        wanted = carriers if isinstance(carriers, Carriers) else Carriers(udp=tuple(carriers))
        taps = packet.Taps(wanted, *arguments, **options)
        super().__init__(taps.sockets)
        self.refresh, self.listen, self.end = taps.refresh, taps.listen, taps.close
