"""The listener's packet sources, which the helper opens and hands over."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from doorward.capture import tcp, tcp_process, udp
from doorward.capture.bpf import Formats
from doorward.capture.packet import FWKNOP, Taps
from doorward.errors import CaptureError, NoSocketsError
from doorward.helper.handed import Handed
from doorward.linux import netfilter_log
from doorward.values import Carriers

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator

    from doorward.config.settings import DaemonSettings


NOTHING: Final = Carriers()
_MAGIC: Final = Formats(fwknop=False, magic=True)


class Sources:
    """The helper's taps, servers and files; sources that a reload does not change stay open and lose no packet."""

    def __init__(self, handed: Handed | None = None) -> None:
        """Open nothing yet; `handed` are the service manager's sockets, which this owns."""
        self._handed = Handed() if handed is None else handed
        self._taps: Taps | None = None
        self._udp: _UdpServer | None = None
        self._tcp: _TcpServer | None = None
        self._file: _File | None = None
        self._sequences: _Sequences | None = None
        self._magic: Taps | None = None

    @contextlib.contextmanager
    def adopting(
        self,
        settings: DaemonSettings,
        formats: Formats = FWKNOP,
        *,
        sequences: bool = False,
        magic: Carriers = NOTHING,
    ) -> Iterator[None]:
        """Open the sources of these settings for packets of these formats, and after the block close all others.

        With `sequences` also the one that hears of sequences of ports; magic packets come by the carriers `magic`.

        Where the block fails nothing changes: no source of the listener has been closed.

        Raises:
            CaptureError: a source cannot be opened; nothing has changed.
        """
        with contextlib.ExitStack() as stack:  # new sources are closed again on a later failure
            file = _next(_File, self._file, settings.pcap_file, stack)
            udp_server = _next(partial(_UdpServer, self._handed), self._udp, settings.udp_server, stack)
            tcp_server = _next(_TcpServer, self._tcp, settings.tcp_server, stack)
            wish = netfilter_log.GROUP if sequences else None
            of_sequences = _next(_Sequences, self._sequences, wish, stack)
            wanted = settings.capture and (formats.fwknop or formats.doorward)
            taps = _next_taps(self._taps, tapped(settings) if wanted else NOTHING, settings, formats, stack)
            of_magic = _next_taps(self._magic, magic, settings, _MAGIC, stack)
            yield
            stack.pop_all()
        before = (self._file, self._udp, self._tcp, self._sequences, self._taps, self._magic)
        after = (file, udp_server, tcp_server, of_sequences, taps, of_magic)
        self._file, self._udp, self._tcp, self._sequences, self._taps, self._magic = after
        for old in before:
            if old is not None and not any(old is new for new in after):
                old.close()
        if not self.outlast:
            self._handed.rest()

    @property
    def outlast(self) -> bool:
        """Whether the UDP server's port stays bound when this process ends."""
        return self._udp is not None and self._udp.is_handed

    def descriptors(self) -> list[int]:
        """All descriptors that the listener reads from now on."""
        taps = [tap.fileno() for each in (self._taps, self._magic) if each is not None for tap in each.sockets]
        servers = [] if self._udp is None else [one.fileno() for one in self._udp.sockets]
        channel = [] if self._tcp is None else [self._tcp.listeners_end.fileno()]
        sequences = [] if self._sequences is None else [self._sequences.opened.fileno()]
        return [*taps, *servers, *channel, *sequences, *([] if self._file is None else [self._file.descriptor])]

    def let_pass(self, tags: Iterable[bytes]) -> str | None:
        """See Taps.let_pass(); servers are behind the kernel gate."""
        return None if self._taps is None else self._taps.let_pass(tags)

    def refresh(self) -> Iterator[str]:
        """Maintain all sources; yield one line on each change."""
        changes = [each.refresh() for each in (self._taps, self._magic) if each is not None]
        yield from dict.fromkeys(change for change in changes if change)
        if self._tcp is not None and self._tcp.revive():
            yield "capture: the reader of TCP connections has ended and was started again"

    def close(self) -> None:
        """Close all sources."""
        for one in (self._taps, self._magic, self._udp, self._tcp, self._sequences, self._file):
            if one is not None:
                one.close()
        self._handed.close()


class _UdpServer:
    """A bound UDP port: the service manager's, or else our own. The former keeps what arrives until the next start."""

    def __init__(self, handed: Handed, port: int) -> None:
        self.asked_for = port
        sockets = handed.serve(port)
        self.is_handed = bool(sockets)
        try:
            self.sockets = sockets or udp.serve(port)
        except NoSocketsError as error:
            msg = f"no UDP server on port {port}: {handed.lack(port)}"
            raise NoSocketsError(msg) from error

    def close(self) -> None:
        for one in () if self.is_handed else self.sockets:
            one.close()


class _TcpServer:
    """A listening TCP port, its reader process, and both ends of the channel between reader and listener."""

    def __init__(self, port: int) -> None:
        self.asked_for = port
        self._sockets = tcp.serve(port)
        self._readers_end, self.listeners_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process: subprocess.Popen[bytes] = tcp_process.start(self._sockets, self._readers_end)
        except CaptureError:
            self._close_sockets()
            raise

    def revive(self) -> bool:
        """Restart the process if it has ended, and return whether it had; connections waited meanwhile."""
        if self._process.poll() is None:
            return False
        with contextlib.suppress(CaptureError):  # the next call tries again
            self._process = tcp_process.start(self._sockets, self._readers_end)
        return True

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for one in (*self._sockets, self._readers_end, self.listeners_end):
            one.close()


class _Sequences:
    """The netfilter group that hears of sequences of ports."""

    def __init__(self, group: int) -> None:
        self.asked_for = group
        self.opened = netfilter_log.bound(group)

    def close(self) -> None:
        self.opened.close()


class _File:
    """An open capture file."""

    def __init__(self, path: Path) -> None:
        self.asked_for = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise CaptureError(msg) from error
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            os.close(self.descriptor)
            msg = f"{path}: not a regular file"
            raise CaptureError(msg)

    def close(self) -> None:
        os.close(self.descriptor)


_Source = TypeVar("_Source", _UdpServer, _TcpServer, _Sequences, _File)
_Wish = TypeVar("_Wish", int, Path)


def _next(
    kind: Callable[[_Wish], _Source], current: _Source | None, wish: _Wish | None, stack: contextlib.ExitStack
) -> _Source | None:
    """The source of this kind for a port or a path: the current one where it is the same."""
    if wish is None:
        return None
    if current is not None and current.asked_for == wish:
        return current
    return stack.enter_context(contextlib.closing(kind(wish)))


def _next_taps(
    current: Taps | None, carriers: Carriers, settings: DaemonSettings, formats: Formats, stack: contextlib.ExitStack
) -> Taps | None:
    """The capture of these carriers, the current one where there is one."""
    if settings.pcap_file is not None or carriers == NOTHING:
        return None
    if current is None:
        taps = Taps(carriers, settings.interfaces, promiscuous=settings.promiscuous, formats=formats)
        return stack.enter_context(contextlib.closing(taps))
    stack.callback(current.listening())
    current.listen(carriers, settings.interfaces, promiscuous=settings.promiscuous, formats=formats)
    return current


def tapped(settings: DaemonSettings) -> Carriers:
    """The carriers of passive capture, without the ports of our own servers: each knock would come twice.

    On a TCP server's port first segments with a payload remain (fwknop's tcpraw): no server ever sees that payload.
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
    """The ranges without one port."""
    if port is None:
        return ports
    below = (range(span.start, min(span.stop, port)) for span in ports)
    above = (range(max(span.start, port + 1), span.stop) for span in ports)
    return tuple(part for part in (*below, *above) if part)
