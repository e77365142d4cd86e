"""Passive capture: AF_PACKET sockets behind a BPF filter. No port is bound, so no port scan can find one.

One socket for IPv4, one for IPv6 and one for frames with two VLAN tags, not one for all: a tap for all protocols also
gets the packets that the host sends, and gets a packet once for the bridge port or VLAN's parent and once more for the
interface above it. The kernel removes one tag itself, and both where the VLANs have interfaces here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.capture import PASSED_OVER_MAX, Capture, bpf, frames
from doorward.capture.room import Drops
from doorward.errors import CaptureError
from doorward.linux.bpf import INSTRUCTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from doorward.values import Carriers, Datagram

RECEIVE_BUFFER: Final = 8 << 20  # bytes a socket; some 5 000 packets in the kernel's own counting
TURN: Final = 64  # datagrams of one family before the other has its turn

_ETH_P_8021Q: Final = 0x8100
_ETH_P = (0x0800, 0x86DD, _ETH_P_8021Q)  # linux/if_ether.h: IP, IPv6, and the inner of two VLAN tags
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET: Final = 263  # linux/socket.h
_PACKET_ADD_MEMBERSHIP, _PACKET_DROP_MEMBERSHIP, _PACKET_MR_PROMISC = 1, 2, 1
_PACKET_MREQ: Final = struct.Struct("=iHH8x")  # interface, kind, length of an address that this kind does not have
_SOCKADDR_LL: Final = struct.Struct("=HHiHBB8s")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
LONGEST: Final = 2048  # bytes: an IPv4 header with options and the longest payload fit


FWKNOP: Final = bpf.Formats()


class NoRoomError(CaptureError):
    """The kernel has no room for a socket's filter (net.core.optmem_max)."""


class Taps:
    """The capture sockets and their filters. Making them needs privileges, reading them does not.

    Making them needs CAP_NET_RAW; a buffer of more than net.core.rmem_max needs CAP_NET_ADMIN.
    """

    def __init__(
        self,
        carriers: Carriers,
        interfaces: Sequence[str] = (),
        *,
        promiscuous: bool = False,
        receive_buffer: int = RECEIVE_BUFFER,
        formats: bpf.Formats = FWKNOP,
    ) -> None:
        """Open the sockets. `interfaces` empty means all; refresh() waits for a missing one and names it.

        `promiscuous` also hears packets to other hardware addresses, on later interfaces too. Packets of doorward 1
        pass whatever their tag until let_pass() names tags.

        Raises:
            CaptureError: no capability, no AF_PACKET in this kernel, or a filter that it refuses.
        """
        self._carriers = carriers
        self._interfaces = tuple(interfaces)
        self._promiscuous = promiscuous
        self._formats = formats
        self._tags: tuple[bytes, ...] | None = None
        self._refused_tags = ""
        self._overhearing: frozenset[int] = frozenset()
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

    def listen(
        self,
        carriers: Carriers,
        interfaces: Sequence[str] = (),
        *,
        promiscuous: bool = False,
        formats: bpf.Formats = FWKNOP,
    ) -> None:
        """Listen for other knocks or on other interfaces from now on; the sockets stay the same.

        Raises:
            CaptureError: the kernel refuses the filter; the old one stays.
        """
        before = self._carriers, self._interfaces, self._indexes, self._promiscuous, self._formats
        self._carriers, self._interfaces, self._promiscuous = carriers, tuple(interfaces), promiscuous
        self._formats, self._indexes = formats, self._resolve()
        try:
            self._swap_filters()
        except CaptureError:
            self._carriers, self._interfaces, self._indexes, self._promiscuous, self._formats = before
            self._swap_filters()
            raise
        self._overhear()
        self._unreported = True

    def listening(self) -> Callable[[], None]:
        """A function that restores the present state of listening."""
        return partial(
            self.listen, self._carriers, self._interfaces, promiscuous=self._promiscuous, formats=self._formats
        )

    def let_pass(self, tags: Iterable[bytes]) -> str | None:
        """Let packets of doorward 1 pass only with one of these tags from now on.

        Where the filter has no room for the tags (BPF_MAXINSNS, net.core.optmem_max) every tag passes, as before the
        first call; return a line when that begins or ends.

        Raises:
            CaptureError: the kernel refuses the filter for another reason.
        """
        self._tags = tuple(tags)
        before, self._refused_tags = self._refused_tags, ""
        self._swap_filters()
        if self._refused_tags == before:
            return None
        if not self._refused_tags:
            return "capture: the filter has room for the tags again"
        return f"capture: {self._refused_tags}: packets of {bpf.TAGGED} bytes pass whatever their tag"

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

    def close(self) -> None:
        """Give the sockets back."""
        for opened in self.sockets:
            opened.close()

    def _resolve(self) -> tuple[int, ...]:
        """The index of every named interface, 0 for a missing one."""
        return tuple(map(_index, self._interfaces))

    def _program(self, kind: int, tags: Collection[bytes] | None = None) -> bytes:
        """A socket's filter for the present interfaces; without names it accepts every interface."""
        indexes = [index for index in self._indexes if index] if self._interfaces else None
        payload, tagged = self._formats.payload, kind == _ETH_P_8021Q
        return bpf.program(self._carriers, indexes, payload, promiscuous=self._promiscuous, tagged=tagged, tags=tags)

    def _overhear(self) -> None:
        """Make exactly the wanted interfaces promiscuous; the kernel counts the users of each."""
        there = {index for index, name in socket.if_nameindex() if name != "lo"}
        named = {index for index in self._indexes if index} if self._interfaces else there
        wanted = frozenset(named if self._promiscuous else ())
        for index in self._overhearing & there - wanted:
            self._membership(_PACKET_DROP_MEMBERSHIP, index)
        for index in wanted - self._overhearing:
            self._membership(_PACKET_ADD_MEMBERSHIP, index)
        self._overhearing = wanted

    def _membership(self, change: int, index: int) -> None:
        """Change one interface; one that has just gone is ignored."""
        with contextlib.suppress(OSError):
            self.sockets[0].setsockopt(_SOL_PACKET, change, _PACKET_MREQ.pack(index, _PACKET_MR_PROMISC, 0))

    def _swap_filters(self) -> None:
        """Replace the filters; each change is atomic, no packet passes between old and new."""
        if self._formats.doorward and self._tags is not None:
            self._swap_to_tags(self._tags)
        else:
            self._attach([self._program(kind) for kind in _ETH_P])

    def _swap_to_tags(self, tags: tuple[bytes, ...]) -> None:
        """Compare tags in the filters, or pass them all where there is no room.

        The kernel counts old and new filter together: the small one goes between two large ones.
        """
        try:
            programs = [self._program(kind, tags) for kind in _ETH_P]
        except CaptureError as error:
            self._refused_tags = str(error)
            self._attach([self._program(kind) for kind in _ETH_P])
            return
        try:
            self._attach(programs)
        except NoRoomError:
            self._attach([self._program(kind) for kind in _ETH_P])
            try:
                self._attach(programs)
            except NoRoomError:
                self._refused_tags = f"the filter of {len(tags)} tags is more than net.core.optmem_max has room for"
                self._attach([self._program(kind) for kind in _ETH_P])

    def _attach(self, programs: Sequence[bytes]) -> None:
        try:
            for opened, program in zip(self.sockets, programs, strict=True):
                attach(opened, program)
        except OSError as error:
            msg = f"cannot change the capture filter: {error}"
            raise (NoRoomError if error.errno == errno.ENOMEM else CaptureError)(msg) from error


class PacketCapture(Capture):
    """See capture.Capture: reads the sockets of Taps, in any process, and changes nothing about them."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        """Take over these non-blocking sockets.

        Raises:
            CaptureError: no epoll descriptor can be had.
        """
        self._sockets = tuple(sockets)
        self._waiting = deque(_reading(one) for one in sockets)
        self._read = self._waiting[0]
        self._turn = TURN
        try:
            self._drops = tuple(map(Drops, sockets))
            self._epoll = select.epoll()
            for one in sockets:
                self._epoll.register(one, select.EPOLLIN)
        except OSError as error:
            msg = f"cannot wait for packets: {error}"
            raise CaptureError(msg) from error

    def fileno(self) -> int:
        """The epoll descriptor that stands for all sockets."""
        return self._epoll.fileno()

    def receive(self) -> Datagram | None:
        """See capture.Capture. None also after PASSED_OVER_MAX malformed frames, though more may wait."""
        for _ in range(PASSED_OVER_MAX):
            packet = self._next_packet()
            if not packet:
                return None
            datagram = frames.parse(packet)
            if datagram is not None:
                return datagram
        return None

    def take_dropped(self) -> int:
        """See capture.Capture."""
        return sum(one.take() for one in self._drops)

    def close(self) -> None:
        """See capture.Capture."""
        self._epoll.close()
        for one in self._sockets:
            one.close()

    def _next_packet(self) -> bytes:
        """The next packet of any socket, or b""; the sockets take turns, so none starves."""
        self._turn -= 1
        if not self._turn:
            self._change_over()
        for _ in self._sockets:
            try:
                return self._read(LONGEST)
            except BlockingIOError:  # noqa: PERF203  of three sockets
                self._change_over()
            except OSError as error:
                raise CaptureError(str(error)) from error
        return b""

    def _change_over(self) -> None:
        """Give the next socket its turn."""
        self._waiting.rotate(-1)
        self._read = self._waiting[0]
        self._turn = TURN


def _reading(opened: socket.socket) -> Callable[[int], bytes]:
    """A function that reads one packet of a socket, from the IP header on."""
    if opened.getsockname()[1] != _ETH_P_8021Q:
        return opened.recv
    return lambda longest: opened.recv(longest)[bpf.VLAN_TAG :]


def _index(interface: str) -> int:
    """The index of an interface, 0 if there is none of this name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def _open(ethertype: int, program: bytes, receive_buffer: int) -> socket.socket:
    """A cooked socket that never received a packet without the filter.

    Made for no protocol it receives nothing; bind() names the protocol after the filter is attached.
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
    """Bind to a protocol on every interface, which socket.bind() cannot express (packet(7), struct sockaddr_ll)."""
    place = _SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(ethertype), 0, 0, 0, 0, b"")
    if _LIBC.bind(opened.fileno(), place, len(place)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def attach(opened: socket.socket, program: bytes) -> None:
    """Make `program` the socket's filter (struct sock_fprog: count, pointer; the kernel copies it)."""
    steps = ctypes.create_string_buffer(program, len(program))
    count = len(program) // INSTRUCTION_BYTES
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(steps)))


def enlarge(opened: socket.socket, receive_buffer: int) -> None:
    """Ask for a large receive buffer: beyond net.core.rmem_max if that is allowed, else up to it."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
