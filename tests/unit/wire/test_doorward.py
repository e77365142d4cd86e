"""The plaintext of the format `doorward 1`."""

from __future__ import annotations

import random
import socket
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from doorward.crypto import sealing
from doorward.values import DigestType, EncryptionMode, Protocol, Secret, Service, SymmetricKeys
from doorward.wire import doorward, fwknop
from doorward.wire.doorward import Forward, Kind, Message, Ports, parse, serialize, wish
from doorward.wire.fwknop import Field, FieldError
from doorward.wire.wish import Kind as Wished
from doorward.wire.wish import NatTarget

NOW = 1_800_000_000_123
V4, V6 = ip_address("192.0.2.7"), ip_address("2001:db8::7")
SSH = Ports(Protocol.TCP, 22, 22)
MOSH = Ports(Protocol.UDP, 60000, 60010)
PLAIN = Message(Kind.ACCESS, NOW, V4, (SSH,))
RUN = Message(Kind.COMMAND, NOW, V4, command="restart-web-1")
MESSAGES = {
    "plain": PLAIN,
    "all that is open": Message(Kind.ACCESS, NOW),
    "both families": replace(PLAIN, second=V6),
    "the other way round": replace(PLAIN, source=V6, second=V4),
    "a range": replace(PLAIN, services=(MOSH, SSH)),
    "eight services": replace(PLAIN, services=tuple(Ports(Protocol.TCP, port, port) for port in range(1, 9))),
    "the widest range": replace(PLAIN, services=(Ports(Protocol.UDP, 65280, 65535),)),
    "the longest window": replace(PLAIN, seconds=65535),
    "forwarding": replace(PLAIN, nat=Forward(ip_address("10.0.0.5"), 2222)),
    "forwarding of IPv6": replace(PLAIN, nat=Forward(ip_address("fd00::5"), 65535)),
    "another port": replace(PLAIN, nat=Forward(None, 1)),
    "networks": replace(
        PLAIN, source=ip_address("192.0.2.0"), prefix=24, second=ip_address("2001:db8::"), second_prefix=64
    ),
    "the shortest prefixes": replace(
        PLAIN, source=ip_address("10.0.0.0"), prefix=8, second=ip_address("2001:db8::"), second_prefix=32
    ),
    "the longest prefixes": replace(
        PLAIN, source=ip_address("192.0.2.6"), prefix=31, second=ip_address("2001:db8::6"), second_prefix=127
    ),
    "code 0": replace(PLAIN, code=0),
    "the last code": replace(PLAIN, code=999_999),
    "a command": RUN,
    "a command with a code, for the origin": replace(RUN, source=None, code=123_456),
    "the longest command": replace(RUN, command="a" * 16),
    "the first moment": replace(PLAIN, time=0),
    "the last moment": replace(PLAIN, time=(1 << 64) - 1),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_comes_back_from_its_128_bytes(name: str) -> None:
    plaintext = serialize(MESSAGES[name])
    assert len(plaintext) == 128
    assert parse(plaintext) == MESSAGES[name]


def test_the_bytes_lie_where_the_specification_has_them() -> None:
    plaintext = serialize(replace(MESSAGES["networks"], seconds=0x1234, code=7, nat=Forward(None, 0x0102)))
    assert plaintext[:4].hex() == "01001234"
    assert int.from_bytes(plaintext[4:12], "big") == NOW
    assert plaintext[12:28].hex() == "00000000000000000000ffffc0000200"
    assert plaintext[28:44].hex() == "20010db8000000000000000000000000"
    assert plaintext[44:48].hex() == "06000016"
    assert plaintext[76:80].hex() == "02000102"
    assert plaintext[112:128].hex() == "18400000000800000000000000000000"
    assert serialize(RUN)[96:112] == b"restart-web-1\0\0\0"
    assert serialize(MESSAGES["a range"])[44:52].hex() == "110aea6006000016"


# Places that must be zero, whatever the message; the command's are those of a request for services.
ZERO = {
    1: "flags",
    77: "NAT's second byte",
    **dict.fromkeys(range(96, 112), "command"),
    **dict.fromkeys(range(118, 128), "end"),
}


@pytest.mark.parametrize("place", ZERO)
def test_a_byte_without_a_meaning_is_zero(place: int) -> None:
    plaintext = serialize(PLAIN)
    for bit in range(8):
        with pytest.raises(FieldError):
            parse(plaintext[:place] + bytes([plaintext[place] ^ 1 << bit]) + plaintext[place + 1 :])


def test_every_plaintext_that_is_read_is_the_only_one_of_its_message() -> None:
    """Every single bit of every message above, and 20 000 random changes: read and made again it is the same."""
    chance = random.Random(1)  # noqa: S311  to be repeated, no secret
    read = refused = 0
    for message in MESSAGES.values():
        plaintext = serialize(message)
        changed = [int.from_bytes(plaintext, "big") ^ 1 << bit for bit in range(1024)]
        changed += [changed[chance.randrange(1024)] ^ 1 << chance.randrange(1024) for _ in range(200)]
        for number in changed:
            content = number.to_bytes(128, "big")
            try:
                assert serialize(parse(content)) == content
                read += 1
            except FieldError:
                refused += 1
    assert read > 1000
    assert refused > 1000


WRONG: list[tuple[dict[str, Any], Field]] = [
    ({"time": -1}, Field.TIME),
    ({"time": 1 << 64}, Field.TIME),
    ({"seconds": -1}, Field.TIMEOUT),
    ({"seconds": 65536}, Field.TIMEOUT),
    ({"code": -1}, Field.MESSAGE),
    ({"code": 1_000_000}, Field.MESSAGE),
    ({"command": "reboot"}, Field.MESSAGE),
    ({"services": (SSH,) * 2}, Field.MESSAGE),
    ({"services": (MOSH, Ports(Protocol.UDP, 60010, 60010))}, Field.MESSAGE),
    ({"services": tuple(Ports(Protocol.TCP, port, port) for port in range(1, 10))}, Field.MESSAGE),
    ({"services": (Ports(Protocol.TCP, 0, 0),)}, Field.MESSAGE),
    ({"services": (Ports(Protocol.TCP, 65535, 65536),)}, Field.MESSAGE),
    ({"services": (Ports(Protocol.TCP, 2, 1),)}, Field.MESSAGE),
    ({"services": (Ports(Protocol.TCP, 1, 257),)}, Field.MESSAGE),
    ({"second": ip_address("192.0.2.8")}, Field.MESSAGE),
    ({"source": None, "second": V6}, Field.MESSAGE),
    ({"source": None, "prefix": 24}, Field.MESSAGE),
    ({"second_prefix": 64}, Field.MESSAGE),
    ({"prefix": 24}, Field.MESSAGE),
    ({"prefix": 32}, Field.MESSAGE),
    ({"source": ip_address("0.0.0.0"), "prefix": 8}, Field.MESSAGE),  # noqa: S104  nothing is bound
    ({"source": ip_address("10.0.0.0"), "prefix": 7}, Field.MESSAGE),
    ({"source": V6, "prefix": 64}, Field.MESSAGE),
    ({"source": ip_address("2001:db8::"), "prefix": 31}, Field.MESSAGE),
    ({"source": V6, "prefix": 128}, Field.MESSAGE),
    ({"nat": Forward(None, 0)}, Field.NAT_ACCESS),
    ({"nat": Forward(V4, 65536)}, Field.NAT_ACCESS),
    ({"nat": Forward(ip_address("0.0.0.0"), 1)}, Field.NAT_ACCESS),  # noqa: S104  nothing is bound
    ({"nat": Forward(ip_address("::ffff:10.0.0.5"), 1)}, Field.NAT_ACCESS),
    ({"nat": Forward(V4, 1), "services": ()}, Field.NAT_ACCESS),
    ({"nat": Forward(V4, 1), "services": (MOSH,)}, Field.NAT_ACCESS),
    ({"nat": Forward(V4, 1), "services": (SSH, MOSH)}, Field.NAT_ACCESS),
    ({"kind": Kind.COMMAND}, Field.MESSAGE),
    *(
        ({"source": ip_address(text)}, Field.MESSAGE)
        for text in (
            "0.0.0.0", # noqa: S104  nothing is bound
            "255.255.255.255", "224.0.0.1", "127.0.0.1", "169.254.1.1", "::", "::1", "::ffff:192.0.2.7",
            "::ffff:0.0.0.0", "::192.0.2.7", "ff02::1", "fe80::1", "2001:db8::7%eth0",
        )
    ),
]  # fmt: skip  # a list of addresses reads better in lines of many


@pytest.mark.parametrize(("changes", "field"), WRONG, ids=map(str, range(len(WRONG))))
def test_a_message_that_the_format_cannot_carry_cannot_be_made(changes: dict[str, Any], field: Field) -> None:
    with pytest.raises(FieldError) as refused:
        replace(PLAIN, **changes)
    assert refused.value.field is field


@pytest.mark.parametrize(
    "changes",
    [
        {"command": None}, {"command": "Reboot"}, {"command": "a" * 17}, {"command": ""}, {"command": "a b"},
        {"services": (SSH,)}, {"seconds": 5}, {"source": ip_address("192.0.2.0"), "prefix": 24},
        {"nat": Forward(None, 22)},
    ],
)  # fmt: skip  # short cases
def test_a_command_is_a_name_and_comes_alone(changes: dict[str, Any]) -> None:
    with pytest.raises(FieldError):
        replace(RUN, **changes)


def changed(place: int, content: bytes, message: Message = PLAIN) -> bytes:
    plaintext = serialize(message)
    return plaintext[:place] + content + plaintext[place + len(content) :]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", Field.PLAINTEXT),
        (bytes(127), Field.PLAINTEXT),
        (bytes(129), Field.PLAINTEXT),
        (changed(0, b"\0"), Field.TYPE),
        (changed(0, b"\3"), Field.TYPE),
        (changed(12, bytes(10) + b"\xff\xff" + bytes(4)), Field.MESSAGE),  # the unspecified address, mapped
        (changed(44, b"\1\0\0\x16"), Field.MESSAGE),  # ICMP
        (changed(44, bytes(4) + b"\6\0\0\x16"), Field.PLAINTEXT),  # a gap before the service
        (changed(76, b"\3\0\0\x16"), Field.NAT_ACCESS),
        (changed(76, b"\1\0\0\x16"), Field.NAT_ACCESS),  # forwarding to nowhere
        (changed(76, b"\2\0\0\x16" + bytes(10) + b"\xff\xff\1\2\3\4"), Field.NAT_ACCESS),  # local with an address
        (changed(78, b"\0\x16"), Field.PLAINTEXT),  # a port of no NAT
        (changed(96, b"a\0b", RUN), Field.MESSAGE),
        (changed(96, "é".encode("latin-1"), RUN), Field.MESSAGE),
        (changed(114, (1_000_001).to_bytes(4, "big")), Field.MESSAGE),
    ],
)
def test_a_plaintext_with_a_mistake_is_refused_by_its_field(content: bytes, field: Field) -> None:
    with pytest.raises(FieldError) as refused:
        parse(content)
    assert refused.value.field is field


NO_SOURCES = ("::ffff:0.0.0.0", "::ffff:224.0.0.1", "::ffff:239.1.2.3", "::ffff:255.255.255.255", "::ffff:127.0.0.1",
              "::ffff:169.254.1.1", "::1", "::192.0.2.7", "ff02::1", "ff0e::1", "fe80::1", "febf::1")  # fmt: skip


@pytest.mark.parametrize("source", NO_SOURCES)
def test_bytes_of_a_source_that_cannot_arrive_from_elsewhere_are_refused(source: str) -> None:
    """Mapped, multicast, broadcast, loopback, link-local, IPv4-compatible; a zone has no place in the bytes."""
    content = socket.inet_pton(socket.AF_INET6, source)
    for place, message in ((12, PLAIN), (28, PLAIN), (28, replace(PLAIN, source=V6))):
        with pytest.raises(FieldError) as refused:
            parse(changed(place, content, message))
        assert refused.value.field is Field.MESSAGE
    assert parse(changed(12, socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.9"))).source == ip_address("192.0.2.9")


def test_services_become_ranges_in_order() -> None:
    named = [Service(Protocol.UDP, port) for port in range(60000, 60300)]
    named += [
        Service(Protocol.TCP, 22),
        Service(Protocol.TCP, 23),
        Service(Protocol.TCP, 25),
        Service(Protocol.TCP, 22),
    ]
    assert list(map(str, doorward.ranges(tuple(named)))) == [
        "tcp/22-23",
        "tcp/25",
        "udp/60000-60255",
        "udp/60256-60299",
    ]
    assert doorward.ranges(()) == ()


def test_a_wish_says_what_the_message_asks_for() -> None:
    plain = wish(replace(PLAIN, second=V6, seconds=9, services=(Ports(Protocol.TCP, 22, 23),)))
    assert (plain.kind, plain.made, plain.source, plain.second) == (Wished.ACCESS, NOW / 1000, V4, V6)
    assert (plain.services, plain.seconds) == ((Service(Protocol.TCP, 22), Service(Protocol.TCP, 23)), 9)
    assert (plain.exact, plain.user, plain.prefix, plain.target) == (True, None, None, None)
    assert wish(MESSAGES["all that is open"]).services is None
    assert wish(MESSAGES["networks"]).prefix == 24
    forward, local, command = (wish(MESSAGES[name]) for name in ("forwarding", "another port", "a command"))
    assert (forward.kind, forward.target) == (Wished.FORWARD, NatTarget("10.0.0.5", 2222))
    assert (local.kind, local.target) == (Wished.LOCAL_NAT, NatTarget("", 1))
    assert (command.kind, command.command, command.services) == (Wished.NAMED_COMMAND, "restart-web-1", ())


def test_epochs_change_every_64_seconds() -> None:
    assert [doorward.epoch_of(time) for time in (0, 63_999, 64_000, NOW)] == [0, 0, 1, NOW // 64_000]


def test_no_packet_of_fwknop_has_the_length_of_this_one() -> None:
    """Of no HMAC and no length of a message; OpenPGP begins at 400 characters."""
    lengths = set()
    for digest in (None, *DigestType):
        keys = SymmetricKeys(Secret(b"k" * 32), None if digest is None else Secret(b"h"), digest or DigestType.MD5)
        for mode in EncryptionMode:
            chosen = replace(keys, mode=mode)
            lengths |= {len(sealing.seal(b"x" * length, chosen, bytes(8))) for length in range(1, 260, 4)}
    assert doorward.PACKET not in lengths
    assert {162, 167} <= lengths, "the neighbours are there"
    assert fwknop.SYMMETRIC_MAX > doorward.PACKET
