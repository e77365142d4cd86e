"""A capture file as a source of packets, read with scapy: pcap and pcapng, every link type that scapy brings to IP.

The file is not trusted: the unprivileged process reads it record by record.
"""

from __future__ import annotations

import importlib
import io
import os
from typing import TYPE_CHECKING, Any, Final

from doorward.capture import PASSED_OVER_MAX, Capture, bpf, frames
from doorward.errors import CaptureError

if TYPE_CHECKING:
    from doorward.values import Carriers, Datagram

RECORD_MAX: Final = 1 << 18  # bytes; tcpdump's longest snapshot
_PCAP_HEADER: Final = 24  # bytes; a shorter file has no packet and is no capture file
_LAYERS: Final = ("utils", "config", "layers.l2", "layers.inet", "layers.inet6", "layers.ppp")


class FileCapture(Capture):
    """See capture.Capture: the knocks in a file, then `ended`."""

    def __init__(self, descriptor: int, carriers: Carriers) -> None:
        """Take over an open file; packets that no carrier fits are skipped.

        Raises:
            CaptureError: scapy is not there, or this is no capture file.
        """
        self._carriers = carriers
        self._scapy = _import_scapy()
        self._ready = os.eventfd(1)  # epoll refuses files, which are always readable: this takes the file's place
        self._file = _Bounded(io.FileIO(descriptor))
        self._size = os.fstat(descriptor).st_size
        self._known = 0  # bytes in complete records so far
        try:
            self._records = self._scapy["utils"].RawPcapReader(self._file)
        except Exception as error:
            self.close()
            msg = f"the capture file is damaged: {error}"
            raise CaptureError(msg) from error

    def fileno(self) -> int:
        """A descriptor that is always readable."""
        return self._ready

    def receive(self) -> Datagram | None:
        """See capture.Capture; None and `ended` at the end of the file."""
        for _ in range(PASSED_OVER_MAX):
            packet = None if self.ended else self._next_packet()
            if packet is None:
                return None
            datagram = frames.parse(packet)
            if datagram is not None and bpf.admits(self._carriers, datagram):
                return datagram
        return None

    def close(self) -> None:
        """See capture.Capture."""
        self._file.close()
        os.close(self._ready)

    def _next_packet(self) -> bytes | None:
        """The next record's IP packet, b"" if it has none, or None at the end of the file."""
        try:
            content, about = next(self._records)
        except StopIteration:
            self._end()
            return None
        except Exception as error:  # scapy's own, struct's, and others caused by a damaged length
            self.ended = True
            msg = f"the capture file is damaged after {self._known} bytes: {error}"
            raise CaptureError(msg) from error
        if len(content) == getattr(about, "caplen", len(content)):  # else the record is cut short
            self._known = self._file.tell()
        link = getattr(about, "linktype", None)
        return self._ip(content, self._records.linktype if link is None else link)

    def _end(self) -> None:
        """Tell the end of a file from a file that is cut short."""
        self.ended = True
        is_pcap = type(self._records).__name__ == "RawPcapReader"  # pcapng ends with blocks that are no packets
        if is_pcap and self._size not in {self._known, _PCAP_HEADER}:
            msg = f"the capture file is cut short after {self._known} bytes"
            raise CaptureError(msg)

    def _ip(self, content: bytes, link: int) -> bytes:
        """The IP packet in a record, or b""."""
        kind = self._scapy["config"].conf.l2types.num2layer.get(link)
        if kind is None:
            return b""
        try:
            packet = kind(content)
        except Exception:  # noqa: BLE001  a record that scapy cannot dissect carries no knock
            return b""
        while packet:
            if packet.name in {"IP", "IPv6"}:
                return bytes(packet.original)
            packet = packet.payload
        return b""


class _Bounded(io.BufferedReader):
    """A file of which a wrong length never makes more than one record be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes; more than a record can have is an error."""
        if size is None or not 0 <= size <= 2 * RECORD_MAX:
            msg = f"a record of {size} bytes"
            raise ValueError(msg)
        return super().read(size)


def _import_scapy() -> dict[str, Any]:
    """Scapy's modules: loaded here alone, since they take most of a second and 80 MB."""
    try:
        return {name: importlib.import_module(f"scapy.{name}") for name in _LAYERS}
    except ImportError as error:
        msg = f"reading a capture file needs scapy (Debian's package python3-scapy): {error}"
        raise CaptureError(msg) from error
