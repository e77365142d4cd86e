"""Sets of the kernel whose elements expire, over netlink in process: no program is started for a knock.

Source: linux/netfilter/ipset/ip_set.h, linux/netfilter/nfnetlink.h, netlink(7); ipset(8) shows the same sets.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import ipaddress
import itertools
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.values import IPAddress

SIZE: Final = 65536  # elements of a set; the kernel refuses more, it evicts none
SECONDS_MAX: Final = (1 << 31) // 1000  # the kernel keeps milliseconds in 31 bits, and cuts what is more
NAME_MAX: Final = 31
_DEADLINE: Final = 2.0  # seconds until the kernel has answered
_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 6 << 8  # NFNL_SUBSYS_IPSET
_CREATE, _DESTROY, _FLUSH, _LIST, _ADD, _DELETE = 2, 3, 4, 7, 9, 10
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_NESTED, _NET_ORDER = 0x8000, 0x4000
_PROTOCOL_NUMBER: Final = 6  # what kernels before 4.20 speak, and later ones still take
# attributes of a command; of an element
_PROTOCOL, _SETNAME, _TYPENAME, _REVISION, _FAMILY, _FLAGS, _DATA, _ADT = 1, 2, 3, 4, 5, 6, 7, 8
_IP, _CIDR, _PORT, _TIMEOUT, _PROTO, _MAXELEM, _IP2 = 1, 3, 4, 6, 7, 19, 20
_NAMES_ONLY: Final = 2  # IPSET_FLAG_LIST_SETNAME
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct("=BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_LARGEST: Final = 1 << 17
_FULL: Final = 4352  # IPSET_ERR_HASH_FULL
_WORDS: Final = {
    _FULL: "the set is full: as many grants are live as it holds",
    errno.EEXIST: "a set of that name is there, and is of another kind",
    errno.EPERM: "this process lacks CAP_NET_ADMIN",
    4098: "this kernel lacks the kind of set (module ip_set_hash_*)",
    4099: "the kernel holds no more sets",
    4100: "the set is in use by a rule",
}
_GONE: Final = frozenset({errno.ENOENT, 4103})  # no such set, no such element


class Kind(enum.Enum):
    """What the elements of a set are made of: ipset's name of the kind."""

    SOURCE_SERVICE = "hash:ip,port"
    SOURCE_SERVICE_ADDRESS = "hash:ip,port,ip"
    NETWORK_SERVICE = "hash:net,port"
    SOURCE = "hash:ip"


@dataclass(frozen=True, slots=True)
class Entry:
    """One element. `prefix` is that of a network; `remaining` in seconds, None without an end."""

    address: IPAddress
    service: Service | None = None
    other: IPAddress | None = None
    prefix: int | None = None
    remaining: float | None = None


class IpSetError(FirewallError):
    """The kernel refused; `number` is its errno, or one of ipset's own from 4096."""

    def __init__(self, what: str, number: int) -> None:
        """Put the kernel's number into words."""
        super().__init__(f"{what}: {_WORDS.get(number) or os.strerror(number)}")
        self.number = number

    @property
    def is_absence(self) -> bool:
        """Whether the set, or the element, is not there."""
        return self.number in _GONE


class IpSets:
    """A netlink socket to the sets of this network namespace; needs CAP_NET_ADMIN.

    Every method raises IpSetError when the kernel refuses, and FirewallError when it does not answer.
    """

    def __init__(self) -> None:
        """Open the socket."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.settimeout(_DEADLINE)
        self._socket.bind((0, 0))
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Give the socket back; sets and elements stay."""
        self._socket.close()

    def create(self, name: str, kind: Kind, family: int) -> None:
        """Make a set whose elements expire; one of that name and kind stays as it is. `family` 4 or 6."""
        described = (
            _text(_SETNAME, name)
            + _text(_TYPENAME, kind.value)
            + _attribute(_REVISION, b"\1")  # the oldest that ipset(8) shows
            + _attribute(_FAMILY, bytes([_af(family)]))
            + _nested(_DATA, _number(_TIMEOUT, 0) + _number(_MAXELEM, SIZE))
        )
        self._ask(_CREATE, described, _af(family), f"set {name}")

    def destroy(self, name: str) -> None:
        """Remove a set that no rule refers to; none is no error."""
        with _absent_is_fine():
            self._ask(_DESTROY, _text(_SETNAME, name), 0, f"set {name}")

    def flush(self, name: str) -> None:
        """Remove every element of a set; no set is no error."""
        with _absent_is_fine():
            self._ask(_FLUSH, _text(_SETNAME, name), 0, f"set {name}")

    def add(self, name: str, entry: Entry, seconds: int) -> None:
        """Add an element for so many seconds from now, or renew it.

        Raises:
            FirewallError: no seconds, which the kernel would take for no end.
        """
        if not 1 <= seconds <= SECONDS_MAX:
            msg = f"a window of {seconds} s is outside 1 to {SECONDS_MAX}, which is as long as an ipset keeps anything"
            raise FirewallError(msg)
        self._ask(_ADD, _element(name, entry, seconds), _af(entry.address.version), f"set {name}")

    def delete(self, name: str, entry: Entry) -> None:
        """Remove an element; none is no error."""
        with _absent_is_fine():
            self._ask(_DELETE, _element(name, entry, None), _af(entry.address.version), f"set {name}")

    def entries(self, name: str) -> tuple[Entry, ...]:
        """Return the elements of a set; none where there is no set."""
        try:
            return tuple(entry for message in self._dump(_text(_SETNAME, name)) for entry in _entries(message))
        except IpSetError as error:
            if error.is_absence:
                return ()
            raise

    def names(self) -> frozenset[str]:
        """Return the names of all sets of this network namespace."""
        messages = self._dump(_number(_FLAGS, _NAMES_ONLY))
        return frozenset(content[:-1].decode("utf-8", "replace") for one in messages for content in _all(one, _SETNAME))

    def _ask(self, command: int, attributes: bytes, family: int, what: str) -> None:
        number = self._send(command, attributes, family, _REQUEST | _ACK)
        for kind, content in self._answers(number):
            if kind == _ERROR:
                code = -struct.unpack_from("=i", content)[0]
                if code:
                    raise IpSetError(what, code)
                return

    def _dump(self, attributes: bytes) -> Iterator[bytes]:
        """Yield the attributes of every message of a listing."""
        number = self._send(_LIST, attributes, 0, _REQUEST | _ACK | _DUMP)
        for kind, content in self._answers(number):
            code = -struct.unpack_from("=i", content)[0] if kind in {_ERROR, _DONE} and len(content) >= 4 else 0  # noqa: PLR2004  an int
            if code:
                what = "sets of the kernel"
                raise IpSetError(what, code)
            if kind in {_ERROR, _DONE}:
                return
            yield content[_GENERIC.size :]

    def _send(self, command: int, attributes: bytes, family: int, flags: int) -> int:
        number = next(self._numbers) & 0xFFFFFFFF
        body = _GENERIC.pack(family, 0, 0) + _attribute(_PROTOCOL, bytes([_PROTOCOL_NUMBER])) + attributes
        try:
            self._socket.send(_HEADER.pack(_HEADER.size + len(body), _SUBSYSTEM | command, flags, number, 0) + body)
        except OSError as error:
            msg = f"sets of the kernel: {error.strerror or error}"
            raise FirewallError(msg) from error
        return number

    def _answers(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Yield kind and content of what the kernel answers to one question; late answers to others are dropped."""
        while True:
            try:
                heard = self._socket.recv(_LARGEST)
            except OSError as error:
                msg = f"sets of the kernel: {error.strerror or 'no answer in time'}"
                raise FirewallError(msg) from error
            for kind, about, content in _messages(heard):
                if about == number:
                    yield kind, content


@contextlib.contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except IpSetError as error:
        if not error.is_absence:
            raise


def _af(family: int) -> int:
    return int(socket.AF_INET6 if family == 6 else socket.AF_INET)  # noqa: PLR2004  the version of IP


def _attribute(kind: int, content: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)


def _nested(kind: int, content: bytes) -> bytes:
    return _attribute(kind | _NESTED, content)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode("ascii") + b"\0")


def _number(kind: int, number: int) -> bytes:
    return _attribute(kind | _NET_ORDER, struct.pack(">I", number))


def _address(kind: int, address: IPAddress) -> bytes:
    return _nested(kind, _attribute((1 if address.version == 4 else 2) | _NET_ORDER, address.packed))  # noqa: PLR2004


def _element(name: str, entry: Entry, seconds: int | None) -> bytes:
    parts = [_address(_IP, entry.address)]
    if entry.prefix is not None:
        parts.append(_attribute(_CIDR, bytes([entry.prefix])))
    if entry.service is not None:
        parts.append(_attribute(_PORT | _NET_ORDER, struct.pack(">H", entry.service.port)))
        parts.append(_attribute(_PROTO, bytes([entry.service.protocol])))
    if entry.other is not None:
        parts.append(_address(_IP2, entry.other))
    if seconds is not None:
        parts.append(_number(_TIMEOUT, seconds))
    return _text(_SETNAME, name) + _nested(_DATA, b"".join(parts))


def _messages(heard: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield kind, number and content of every message in what was received."""
    offset = 0
    while offset + _HEADER.size <= len(heard):
        length, kind, _, number, _ = _HEADER.unpack_from(heard, offset)
        if length < _HEADER.size:
            return
        yield kind, number, heard[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of every attribute."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, content[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _all(content: bytes, wanted: int) -> Iterator[bytes]:
    return (inner for kind, inner in _attributes(content) if kind == wanted)


def _entries(message: bytes) -> Iterator[Entry]:
    """Yield the elements that one message of a listing holds; of protocols that no grant has, none."""
    for adt in _all(message, _ADT):
        for element in _all(adt, _DATA):
            found = dict(_attributes(element))
            if _IP in found and found.get(_PROTO, b"\6")[0] in set(Protocol):
                yield _entry(found)


def _entry(found: dict[int, bytes]) -> Entry:
    port = int.from_bytes(found.get(_PORT, b""), "big")
    seconds = int.from_bytes(found.get(_TIMEOUT, b""), "big")
    return Entry(
        _inner(found[_IP]),
        Service(Protocol(found[_PROTO][0]), port) if _PROTO in found and port else None,
        _inner(found[_IP2]) if _IP2 in found else None,
        found[_CIDR][0] if _CIDR in found else None,
        seconds or None,
    )


def _inner(content: bytes) -> IPAddress:
    """Return the address in a nested attribute."""
    return next(ipaddress.ip_address(packed) for _, packed in _attributes(content))
