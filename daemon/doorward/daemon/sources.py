"""Where the listener's packets come from: everything the helper opens for it and hands over."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from doorward.capture import tcp, udp
from doorward.capture.packet import Taps
from doorward.errors import CaptureError
from doorward.privsep import reader
from doorward.values import Carriers

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from doorward.config.daemon import DaemonSettings


class Sources:
    """The helper's taps, servers and files; what a reload does not change stays open and loses no packet."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._taps: Taps | None = None
        self._udp: _UdpServer | None = None
        self._tcp: _TcpServer | None = None
        self._file: _File | None = None

    @contextlib.contextmanager
    def adopting(self, settings: DaemonSettings) -> Iterator[None]:
        """Open what these settings ask for, and when the block is over close what they do not.

        Where the block fails all is as it was: nothing that the listener reads has been closed.

        Raises:
            CaptureError: something cannot be had; all is as it was.
        """
        with contextlib.ExitStack() as stack:  # what is new is closed again when something after it fails
            file = self._next_file(settings, stack)
            udp_server = _next(_UdpServer, self._udp, settings.udp_server, stack)
            tcp_server = _next(_TcpServer, self._tcp, settings.tcp_server, stack)
            taps = self._next_taps(settings, stack)
            yield
            stack.pop_all()
        before = (self._file, self._udp, self._tcp, self._taps)
        self._file, self._udp, self._tcp, self._taps = after = (file, udp_server, tcp_server, taps)
        for old in before:
            if old is not None and not any(old is new for new in after):
                old.close()

    def descriptors(self) -> list[int]:
        """Return what the listener reads, all of it: whatever it has besides is of no use any more."""
        taps = [] if self._taps is None else [tap.fileno() for tap in self._taps.sockets]
        servers = [] if self._udp is None else [one.fileno() for one in self._udp.sockets]
        channel = [] if self._tcp is None else [self._tcp.listeners_end.fileno()]
        return [*taps, *servers, *channel, *([] if self._file is None else [self._file.descriptor])]

    def refresh(self) -> Iterator[str]:
        """Keep everything as it should be; yield one line on each change."""
        change = None if self._taps is None else self._taps.refresh()
        if change:
            yield change
        if self._tcp is not None and self._tcp.revive():
            yield "capture: the reader of TCP connections has ended and was started again"

    def close(self) -> None:
        """Give everything back."""
        for one in (self._taps, self._udp, self._tcp, self._file):
            if one is not None:
                one.close()

    def _next_file(self, settings: DaemonSettings, stack: contextlib.ExitStack) -> _File | None:
        if settings.pcap_file is None:
            return None
        if self._file is not None and self._file.path == settings.pcap_file:
            return self._file
        return stack.enter_context(contextlib.closing(_File(settings.pcap_file)))

    def _next_taps(self, settings: DaemonSettings, stack: contextlib.ExitStack) -> Taps | None:
        carriers = tapped(settings)
        if not settings.capture or settings.pcap_file is not None or carriers == Carriers():
            return None
        if self._taps is None:
            taps = Taps(carriers, settings.interfaces, promiscuous=settings.promiscuous)
            return stack.enter_context(contextlib.closing(taps))
        stack.callback(self._taps.listening())
        self._taps.listen(carriers, settings.interfaces, promiscuous=settings.promiscuous)
        return self._taps


class _UdpServer:
    """A bound UDP port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sockets = udp.serve(port)

    def close(self) -> None:
        for one in self.sockets:
            one.close()


class _TcpServer:
    """A listening TCP port, the process that reads it, and both ends of the channel between that and the listener."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._sockets = tcp.serve(port)
        self._readers_end, self.listeners_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process: subprocess.Popen[bytes] = reader.start(self._sockets, self._readers_end)
        except CaptureError:
            self._close_sockets()
            raise

    def revive(self) -> bool:
        """Start the process again where it has ended, and return whether it had; connections waited meanwhile."""
        if self._process.poll() is None:
            return False
        with contextlib.suppress(CaptureError):  # the next look tries again
            self._process = reader.start(self._sockets, self._readers_end)
        return True

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for one in (*self._sockets, self._readers_end, self.listeners_end):
            one.close()


_Server = TypeVar("_Server", _UdpServer, _TcpServer)


class _File:
    """A capture file, opened by whoever may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise CaptureError(msg) from error
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            os.close(self.descriptor)
            msg = f"{path}: no regular file"
            raise CaptureError(msg)

    def close(self) -> None:
        os.close(self.descriptor)


def _next(
    kind: type[_Server], current: _Server | None, port: int | None, stack: contextlib.ExitStack
) -> _Server | None:
    """Return the server of this kind for `port`: the current one where it is the same."""
    if port is None:
        return None
    if current is not None and current.port == port:
        return current
    return stack.enter_context(contextlib.closing(kind(port)))


def tapped(settings: DaemonSettings) -> Carriers:
    """Return what passive capture takes: ports that a server of ours reads are left to it, or each knock came twice.

    Of a TCP server's port first segments with a payload remain (fwknop's tcpraw): no server ever sees that payload.
    """
    chosen = settings.carriers
    own_tcp = settings.tcp_server
    return replace(
        chosen,
        udp=_without(chosen.udp, settings.udp_server),
        tcp=_without(chosen.tcp, own_tcp),
        syn=(range(own_tcp, own_tcp + 1),) if own_tcp and any(own_tcp in span for span in chosen.tcp) else (),
        echo=settings.icmp,
    )


def _without(ports: tuple[range, ...], port: int | None) -> tuple[range, ...]:
    """Return the ranges without one port."""
    if port is None:
        return ports
    below = (range(span.start, min(span.stop, port)) for span in ports)
    above = (range(max(span.start, port + 1), span.stop) for span in ports)
    return tuple(part for part in (*below, *above) if part)
