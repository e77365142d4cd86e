"""Passive capture: AF_PACKET sockets behind a BPF filter. Nothing listens, so no port scan can find a port.

One socket for IPv4, one for IPv6 and one for frames with two VLAN tags, not one for everything: a tap for all protocols
also clones whatever the host sends, and sees a packet once for the bridge port or VLAN's parent and once more for the
interface above it. The kernel takes one tag off by itself, and both where the VLANs have interfaces here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.capture import bpf, frames
from doorward.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doorward.values import Carriers, Datagram

RECEIVE_BUFFER: Final = 8 << 20  # bytes a socket; some 5 000 packets in the kernel's own counting
PASSED_OVER_MAX: Final = 64  # frames that one receive() may skip before it lets the loop do something else
TURN: Final = 64  # datagrams of one family before the other has its turn

_ETH_P_8021Q: Final = 0x8100
_ETH_P = (0x0800, 0x86DD, _ETH_P_8021Q)  # linux/if_ether.h: IP, IPv6, and what is left of two VLAN tags
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h
_PACKET_ADD_MEMBERSHIP, _PACKET_DROP_MEMBERSHIP, _PACKET_MR_PROMISC = 1, 2, 1
_PACKET_MREQ: Final = struct.Struct("=iHH8x")  # interface, kind, length of an address that this kind has not
_TPACKET_STATS: Final = struct.Struct("=II")  # packets, drops; reading resets them
_SOCKADDR_LL: Final = struct.Struct("=HHiHBB8s")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LONGEST: Final = 2048  # bytes: an IPv4 header with options and the longest payload fit


class Taps:
    """The capture sockets and their filters: what needs power. Whoever reads them needs none.

    Making them needs CAP_NET_RAW; more than net.core.rmem_max of buffer needs CAP_NET_ADMIN.
    """

    def __init__(
        self,
        carriers: Carriers,
        interfaces: Sequence[str] = (),
        *,
        promiscuous: bool = False,
        payload: tuple[int, int] = (bpf.PAYLOAD_MIN, bpf.PAYLOAD_MAX),
        receive_buffer: int = RECEIVE_BUFFER,
    ) -> None:
        """Open the sockets. `interfaces` empty means all; one that is not there is waited for and named by refresh().

        `promiscuous` hears what is addressed to other hosts' hardware too, on interfaces that come later as well.

        Raises:
            CaptureError: no capability, no AF_PACKET in this kernel, or a filter it does not take.
        """
        self._carriers = carriers
        self._interfaces = tuple(interfaces)
        self._promiscuous = promiscuous
        self._overhearing: frozenset[int] = frozenset()
        self._payload = payload
        self._dropped = 0
        self._unreported = True
        self._indexes = self._resolve()
        programs = {kind: self._program(kind) for kind in _ETH_P}
        with contextlib.ExitStack() as stack:
            try:
                self.sockets = tuple(
                    stack.enter_context(_open(kind, programs[kind], receive_buffer)) for kind in _ETH_P
                )
            except OSError as error:
                msg = f"cannot capture packets: {error}"
                raise CaptureError(msg) from error
            stack.pop_all()
        self._overhear()

    def listen(self, carriers: Carriers, interfaces: Sequence[str] = (), *, promiscuous: bool = False) -> None:
        """Listen for other knocks or on other interfaces from now on; the sockets stay the same.

        Raises:
            CaptureError: the kernel does not take the filter; the old one stays.
        """
        before = self._carriers, self._interfaces, self._indexes, self._promiscuous
        self._carriers, self._interfaces, self._promiscuous = carriers, tuple(interfaces), promiscuous
        self._indexes = self._resolve()
        try:
            self._swap_filters()
        except CaptureError:
            self._carriers, self._interfaces, self._indexes, self._promiscuous = before
            self._swap_filters()
            raise
        self._overhear()
        self._unreported = True

    def listening(self) -> Callable[[], None]:
        """Return what makes them listen again as they do now."""
        return partial(self.listen, self._carriers, self._interfaces, promiscuous=self._promiscuous)

    def refresh(self) -> str | None:
        """Swap the filter when a named interface has another index than before; return one line on a change."""
        indexes = self._resolve()
        before, self._indexes = self._indexes, indexes
        if indexes != before:
            self._swap_filters()
        self._overhear()
        changes = [
            f"{name} is there with index {index}" if index else f"{name} is not there: waiting for it"
            for name, index, old in zip(self._interfaces, indexes, before, strict=True)
            if index != old or (self._unreported and not index)
        ]
        self._unreported = False
        return f"capture: {', '.join(changes)}" if changes else None

    def dropped(self) -> int:
        """Return how many packets the kernel dropped since the start because nobody fetched them in time."""
        for opened in self.sockets:
            statistics = opened.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _TPACKET_STATS.size)
            self._dropped += int(_TPACKET_STATS.unpack(statistics)[1])
        return self._dropped

    def close(self) -> None:
        """Give the sockets back."""
        for opened in self.sockets:
            opened.close()

    def _resolve(self) -> tuple[int, ...]:
        """Return the index of every named interface, 0 where it is not there."""
        return tuple(map(_index, self._interfaces))

    def _program(self, kind: int) -> bytes:
        """Return a socket's filter for the interfaces as they are now; without a name every interface is good."""
        indexes = [index for index in self._indexes if index] if self._interfaces else None
        tagged = kind == _ETH_P_8021Q
        return bpf.program(self._carriers, indexes, self._payload, promiscuous=self._promiscuous, tagged=tagged)

    def _overhear(self) -> None:
        """Make exactly the interfaces promiscuous that are there and shall be; the kernel counts who wants it."""
        there = {index for index, name in socket.if_nameindex() if name != "lo"}
        named = {index for index in self._indexes if index} if self._interfaces else there
        wanted = frozenset(named if self._promiscuous else ())
        for index in self._overhearing & there - wanted:
            self._membership(_PACKET_DROP_MEMBERSHIP, index)
        for index in wanted - self._overhearing:
            self._membership(_PACKET_ADD_MEMBERSHIP, index)
        self._overhearing = wanted

    def _membership(self, change: int, index: int) -> None:
        """Change one interface; one that has just gone has nothing to change."""
        with contextlib.suppress(OSError):
            self.sockets[0].setsockopt(_SOL_PACKET, change, _PACKET_MREQ.pack(index, _PACKET_MR_PROMISC, 0))

    def _swap_filters(self) -> None:
        """Replace the filters; each change is atomic, no packet passes between old and new."""
        programs = [self._program(kind) for kind in _ETH_P]
        try:
            for opened, program in zip(self.sockets, programs, strict=True):
                attach(opened, program)
        except OSError as error:
            msg = f"cannot change the capture filter: {error}"
            raise CaptureError(msg) from error


class PacketCapture:
    """See capture.Capture: reads the sockets of Taps, in whichever process, and does nothing else to them."""

    ended = False

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        """Read these non-blocking sockets, which belong to the capture from here on.

        Raises:
            CaptureError: no epoll descriptor can be had.
        """
        self._sockets = tuple(sockets)
        self._waiting = deque(_reading(one) for one in sockets)
        self._read = self._waiting[0]
        self._turn = TURN
        try:
            self._epoll = select.epoll()
            for one in sockets:
                self._epoll.register(one, select.EPOLLIN)
        except OSError as error:
            msg = f"cannot wait for packets: {error}"
            raise CaptureError(msg) from error

    def fileno(self) -> int:
        """Return the epoll descriptor that stands for all sockets."""
        return self._epoll.fileno()

    def receive(self) -> Datagram | None:
        """See capture.Capture. After PASSED_OVER_MAX frames that lie, None, though more may wait."""
        for _ in range(PASSED_OVER_MAX):
            packet = self._next_packet()
            if not packet:
                return None
            datagram = frames.parse(packet)
            if datagram is not None:
                return datagram
        return None

    def close(self) -> None:
        """See capture.Capture."""
        self._epoll.close()
        for one in self._sockets:
            one.close()

    def _next_packet(self) -> bytes:
        """Return the next packet of any socket, or nothing; the sockets take turns, so that none starves."""
        self._turn -= 1
        if not self._turn:
            self._change_over()
        try:
            return self._read(_LONGEST)
        except BlockingIOError:
            return self._next_of_others()
        except OSError as error:
            raise CaptureError(str(error)) from error

    def _next_of_others(self) -> bytes:
        """Return the next packet where the current socket has none."""
        for _ in self._sockets[1:]:
            self._change_over()
            try:
                return self._read(_LONGEST)
            except BlockingIOError:
                continue
            except OSError as error:
                raise CaptureError(str(error)) from error
        return b""

    def _change_over(self) -> None:
        """Give the next socket its turn."""
        self._waiting.rotate(-1)
        self._read = self._waiting[0]
        self._turn = TURN


def _reading(opened: socket.socket) -> Callable[[int], bytes]:
    """Return what reads one packet of a socket, from the IP header on."""
    if opened.getsockname()[1] != _ETH_P_8021Q:
        return opened.recv
    return lambda longest: opened.recv(longest)[bpf.VLAN_TAG :]


def _index(interface: str) -> int:
    """Return the index of an interface, 0 where there is none of this name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def _open(ethertype: int, program: bytes, receive_buffer: int) -> socket.socket:
    """Return a cooked socket that has only ever seen what the filter lets through.

    Made for no protocol it receives nothing; the filter goes on before bind() names the protocol, for all interfaces.
    """
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    try:
        attach(opened, program)
        enlarge(opened, receive_buffer)
        _bind(opened, ethertype)
    except OSError:
        opened.close()
        raise
    return opened


def _bind(opened: socket.socket, ethertype: int) -> None:
    """Bind to a protocol on every interface, which socket.bind() cannot say (packet(7), struct sockaddr_ll)."""
    place = _SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(ethertype), 0, 0, 0, 0, b"")
    if _LIBC.bind(opened.fileno(), place, len(place)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def attach(opened: socket.socket, program: bytes) -> None:
    """Make `program` the socket's filter (struct sock_fprog: count, pointer; the kernel copies it)."""
    steps = ctypes.create_string_buffer(program, len(program))
    count = len(program) // bpf.INSTRUCTION_BYTES
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(steps)))


def enlarge(opened: socket.socket, receive_buffer: int) -> None:
    """Ask for a large receive buffer: past net.core.rmem_max where that is allowed, else up to it."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
