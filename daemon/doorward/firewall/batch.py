"""The transaction that opens a plain grant, in the bytes that the kernel takes. Pure.

libnftables lists tables, chains, sets, flow tables and objects again before it writes an element, since our own last
grant changed them: five dumps for one knock (docs/decisions/0009). Then it sends this transaction.

Source: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h; the output of `nft --debug=netlink,mnl`, nft 1.0.6.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Final

from doorward.firewall import ruleset
from doorward.linux.netlink import (
    ACKNOWLEDGE,
    ATTRIBUTE,
    CREATE,
    DELETE_ELEMENT,
    FIRST,
    GENERIC,
    HEADER,
    LAST,
    NESTED,
    NEW_ELEMENT,
    NUMBER,
    REQUEST,
    SUBSYSTEM,
    text,
)
from doorward.values import unmap

if TYPE_CHECKING:
    from doorward.values import Grant

_INET: Final = 1  # NFPROTO_INET
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_ELEMENT: Final = 1  # NFTA_LIST_ELEM
_KEY, _TIMEOUT, _USERDATA = 1, 4, 6  # NFTA_SET_ELEM_*
_COMMENT: Final = 0  # NFTNL_UDATA_SET_ELEM_COMMENT of libnftnl/udata.h: a byte of type, a byte of length, the text
_VALUE: Final = 1  # NFTA_DATA_VALUE
_SERVICE: Final = struct.Struct("!BxxxHxx")  # each field of a key begins at a register of 32 bits
_IPV4: Final = 4  # bytes


def renewal(grant: Grant) -> bytes | None:
    """The transaction that opens a plain grant or renews it, None for any other kind.

    Each element is added, deleted and added, which renews it on every kernel: before 6.13 adding an existing element
    does not change it.
    """
    if grant.nat is not None or grant.os is not None or grant.prefix is not None:
        return None
    place, name = unmap(grant.source.packed), "open"
    family = "4" if len(place) == _IPV4 else "6"
    if grant.destination is not None:
        place, name = place + unmap(grant.destination.packed), "open_at"
    if family == "6" and _has_scope(grant):
        return None
    until = _TIMEOUT_HEAD + (grant.seconds * 1000).to_bytes(8, "big") + _comment(grant.name)
    added, last, deleted = _heads(name + family, len(place) + _SERVICE.size, len(until))
    parts = [FIRST]
    for service in dict.fromkeys(grant.services):
        key = place + _SERVICE.pack(service.protocol, service.port)
        parts += added, key, until, deleted, key, added, key, until
    parts[-3] = last
    parts.append(LAST)
    return b"".join(parts)


def _has_scope(grant: Grant) -> bool:
    """Whether an address has a scope, which no set can express."""
    return any(getattr(address, "scope_id", None) for address in (grant.source, grant.destination))


def _comment(name: str | None) -> bytes:
    """The comment of an element, as nft reads it."""
    if name is None:
        return b""
    said = name.encode("ascii") + b"\0"
    userdata = bytes((_COMMENT, len(said))) + said
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(userdata), _USERDATA) + userdata + bytes(-len(userdata) % 4)


@functools.cache
def _heads(name: str, key: int, behind: int) -> tuple[bytes, bytes, bytes]:
    """The bytes before a key of this length: to add it, to add it as the last one, to delete it.

    `behind` bytes follow a key that is added.
    """
    add = functools.partial(_head, NEW_ELEMENT, name=name, key=key, behind=behind)
    return add(CREATE), add(CREATE | ACKNOWLEDGE), _head(DELETE_ELEMENT, 0, name=name, key=key, behind=0)


def _head(kind: int, flags: int, *, name: str, key: int, behind: int) -> bytes:
    """A message up to its key, which `key` and `behind` bytes follow."""
    value = ATTRIBUTE.pack(ATTRIBUTE.size + key, _VALUE)
    value = ATTRIBUTE.pack(ATTRIBUTE.size + len(value) + key, _KEY | NESTED) + value
    for around in (_ELEMENT, _ELEMENTS):
        value = ATTRIBUTE.pack(ATTRIBUTE.size + len(value) + key + behind, around | NESTED) + value
    table = ruleset.TABLE.split()[1]
    body = GENERIC.pack(_INET, 0, 0) + text(_TABLE, table) + text(_SET, name) + value
    return HEADER.pack(HEADER.size + len(body) + key + behind, SUBSYSTEM << 8 | kind, REQUEST | flags, NUMBER, 0) + body


_TIMEOUT_HEAD: Final = ATTRIBUTE.pack(ATTRIBUTE.size + 8, _TIMEOUT)  # before the milliseconds
