"""The transaction that opens a plain grant, in the bytes that the kernel takes. Pure.

libnftables lists tables, chains, sets, flow tables and objects again before it writes an element, since our own last
grant changed them: five dumps for one knock (docs/decisions/0009). What it sends after that is this.

Source: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h; what nft 1.0.6 sends, by `nft --debug=netlink,mnl`.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Final

from doorward.firewall import ruleset
from doorward.firewall.netlink import ACKNOWLEDGE, GENERIC, HEADER, NUMBER, REQUEST, SUBSYSTEM
from doorward.values import unmap

if TYPE_CHECKING:
    from doorward.values import Grant

_BEGIN, _END = 16, 17  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
_NEW, _DELETE = SUBSYSTEM << 8 | 12, SUBSYSTEM << 8 | 14  # NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM
_CREATE: Final = 0x400  # NLM_F_CREATE
_INET: Final = 1  # NFPROTO_INET
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_ELEMENT: Final = 1  # NFTA_LIST_ELEM
_KEY, _TIMEOUT = 1, 4  # NFTA_SET_ELEM_*
_VALUE: Final = 1  # NFTA_DATA_VALUE
_NESTED: Final = 1 << 15  # NLA_F_NESTED
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, kind
_SERVICE: Final = struct.Struct("!BxxxHxx")  # each field of a key begins at a register of 32 bits
_IPV4: Final = 4  # bytes


def renewal(grant: Grant) -> bytes | None:
    """Return the transaction that opens a plain grant or renews it, None for any other kind.

    Each element is added, deleted and added: the only way that renews one on every kernel (before 6.13 adding one that
    is there leaves it as it is).
    """
    if grant.nat is not None or grant.os is not None:
        return None
    place, name = unmap(grant.source.packed), "open"
    family = "4" if len(place) == _IPV4 else "6"
    if grant.destination is not None:
        place, name = place + unmap(grant.destination.packed), "open_at"
    if family == "6" and _has_scope(grant):
        return None
    added, last, deleted = _heads(name + family, len(place) + _SERVICE.size)
    until = _TIMEOUT_HEAD + (grant.seconds * 1000).to_bytes(8, "big")
    parts = [_FIRST]
    for service in dict.fromkeys(grant.services):
        key = place + _SERVICE.pack(service.protocol, service.port)
        parts += added, key, until, deleted, key, added, key, until
    parts[-3] = last
    parts.append(_LAST)
    return b"".join(parts)


def _has_scope(grant: Grant) -> bool:
    """Say whether an address is one of a single link, which no set could express."""
    return any(getattr(address, "scope_id", None) for address in (grant.source, grant.destination))


@functools.cache
def _heads(name: str, key: int) -> tuple[bytes, bytes, bytes]:
    """Return what stands before a key of so many bytes: to add it, to add it as the last one, to delete it."""
    timeout = len(_TIMEOUT_HEAD) + 8
    add = functools.partial(_head, _NEW, name=name, key=key, behind=timeout)
    return add(_CREATE), add(_CREATE | ACKNOWLEDGE), _head(_DELETE, 0, name=name, key=key, behind=0)


def _head(kind: int, flags: int, *, name: str, key: int, behind: int) -> bytes:
    """Return a message up to its key, which so many bytes follow."""
    value = _ATTRIBUTE.pack(_ATTRIBUTE.size + key, _VALUE)
    value = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value) + key, _KEY | _NESTED) + value
    for around in (_ELEMENT, _ELEMENTS):
        value = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value) + key + behind, around | _NESTED) + value
    table = ruleset.TABLE.split()[1]
    body = GENERIC.pack(_INET, 0, 0) + _text(_TABLE, table) + _text(_SET, name) + value
    return HEADER.pack(HEADER.size + len(body) + key + behind, kind, REQUEST | flags, NUMBER, 0) + body


def _text(kind: int, text: str) -> bytes:
    """Return an attribute that is a text."""
    value = text.encode() + b"\0"
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _frame(kind: int) -> bytes:
    """Return the message that begins or ends a transaction."""
    body = GENERIC.pack(0, 0, SUBSYSTEM)
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST, NUMBER, 0) + body


_TIMEOUT_HEAD: Final = _ATTRIBUTE.pack(_ATTRIBUTE.size + 8, _TIMEOUT)  # before the milliseconds
_FIRST, _LAST = _frame(_BEGIN), _frame(_END)
