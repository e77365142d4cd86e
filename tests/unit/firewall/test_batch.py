"""The bytes of the transaction that opens a plain grant, taken apart again."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from doorward.firewall import batch
from doorward.linux import netlink
from doorward.values import NAME_MAX, Grant, Nat, Protocol, Service

SSH, DNS = Service(Protocol.TCP, 22), Service(Protocol.UDP, 53)
V4, V6 = ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::7")
HERE4, HERE6 = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")
MAPPED = ipaddress.ip_address("::ffff:192.0.2.7")
NEW, DELETE, BEGIN, END = 0xA0C, 0xA0E, 16, 17
NESTED, ACKNOWLEDGE = 1 << 15, 4


def attributes(content: bytes) -> dict[int, bytes]:
    """Return what stands under which number; every length has to fit."""
    found = {}
    while content:
        length, kind = struct.unpack_from("=HH", content)
        assert 4 <= length <= len(content)
        found[kind] = content[4:length]
        content = content[length + -length % 4 :]
    return found


def messages(transaction: bytes) -> list[tuple[int, int, bytes]]:
    """Return kind, flags and what follows the two headers of each message."""
    found = []
    while transaction:
        length, kind, flags, number, port = struct.unpack_from("=IHHII", transaction)
        assert 20 <= length <= len(transaction)
        assert (number, port) == (netlink.NUMBER, 0)
        found.append((kind, flags, transaction[20:length]))
        transaction = transaction[length:]
    return found


def element(body: bytes) -> tuple[str, bytes, int | None]:
    """Return set, key and seconds of the one element of a message."""
    outer = attributes(body)
    assert outer[1] == b"doorward\0"
    inner = attributes(attributes(outer[3 | NESTED])[1 | NESTED])
    (key,) = attributes(inner[1 | NESTED]).values()
    seconds = int.from_bytes(inner[4], "big") // 1000 if 4 in inner else None
    return outer[2].decode().rstrip("\0"), key, seconds


@pytest.mark.parametrize(
    ("source", "destination", "name", "place"),
    [
        (V4, None, "open4", V4.packed),
        (V6, None, "open6", V6.packed),
        (MAPPED, None, "open4", V4.packed),
        (V4, HERE4, "open_at4", V4.packed + HERE4.packed),
        (V6, HERE6, "open_at6", V6.packed + HERE6.packed),
    ],
)
@pytest.mark.parametrize("services", [(SSH,), (SSH, DNS), (SSH, DNS, SSH)])
def test_each_service_is_added_deleted_and_added(
    source: ipaddress.IPv4Address,
    destination: ipaddress.IPv4Address | None,
    name: str,
    place: bytes,
    services: tuple[Service, ...],
) -> None:
    made = batch.renewal(Grant(source, services, 30, destination=destination))
    assert made is not None
    first, *between, last = messages(made)
    assert (first[0], last[0]) == (BEGIN, END)
    wanted = [
        (kind, (name, place + key, seconds))
        for key in (b"\6\0\0\0\0\x16\0\0", b"\x11\0\0\0\0\x35\0\0")[: len(set(services))]
        for kind, seconds in ((NEW, 30), (DELETE, None), (NEW, 30))
    ]
    assert [(kind, element(body)) for kind, _, body in between] == wanted
    assert [bool(flags & ACKNOWLEDGE) for _, flags, _ in between] == [False] * (len(wanted) - 1) + [True]


@pytest.mark.parametrize(
    "grant",
    [
        Grant(V4, (SSH,), 30, Nat(None, 8022)),
        Grant(V4, (SSH,), 30, os="Linux"),
        Grant(ipaddress.ip_address("2001:db8::1%eth0"), (SSH,), 30),
        Grant(V6, (SSH,), 30, destination=ipaddress.ip_address("fe80::1%eth0")),
    ],
)
def test_what_is_not_plain_is_left_to_libnftables(grant: Grant) -> None:
    assert batch.renewal(grant) is None


@pytest.mark.parametrize("name", ["a", "laptop", "x" * NAME_MAX])
def test_an_elements_comment_is_the_name_and_the_rest_is_as_without_one(name: str) -> None:
    bare, named = (batch.renewal(Grant(V4, (SSH, DNS), 30, name=one)) for one in (None, name))
    assert bare is not None
    assert named is not None
    assert len(named) % 4 == 0
    for (kind, flags, body), (other, also, longer) in zip(messages(bare), messages(named), strict=True):
        assert (kind, flags) == (other, also)
        if kind in {NEW, DELETE}:
            assert element(body) == element(longer)
            said = attributes(attributes(attributes(longer)[3 | NESTED])[1 | NESTED]).get(6)
            assert said == (bytes((0, len(name) + 1)) + name.encode() + b"\0" if kind == NEW else None)


def test_a_window_of_97_days_fits() -> None:
    made = batch.renewal(Grant(V4, (SSH,), 8_388_608))
    assert made is not None
    assert element(messages(made)[1][2])[2] == 8_388_608
