from __future__ import annotations

import ipaddress
import itertools
import secrets

import pytest

from doorward.client import show
from doorward.client.address import Endpoint
from doorward.client.packet import Request, build
from doorward.client.send import Transport
from doorward.crypto.symmetric import unseal
from doorward.errors import WireError
from doorward.values import DigestType, Secret, Service, SymmetricKeys
from doorward.wire import fwknop
from doorward.wire.fwknop import MessageType

KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
ASKED = Request((Service.parse("tcp/22"), Service.parse("udp/53")), "alice", KEYS)


def zeros(count: int) -> bytes:
    return bytes(count)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (None, "0.0.0.0,tcp/22,udp/53"),
        ("192.0.2.1", "192.0.2.1,tcp/22,udp/53"),
        ("2001:db8::1", "2001:db8::1,tcp/22,udp/53"),
    ],
)
def test_the_receiver_reads_what_was_asked(source: str | None, text: str) -> None:
    packet = build(ASKED, ipaddress.ip_address(source) if source else None, 1_800_000_000.9, secrets.token_bytes)
    message = fwknop.parse(unseal(packet.payload, KEYS))
    assert message == packet.message
    assert (message.text, message.user, message.time, message.version) == (text, "alice", 1_800_000_000, "3.0.0")
    assert message.type is MessageType.ACCESS
    assert message.timeout is None


def test_a_window_makes_the_message_one_with_a_timeout() -> None:
    asked = Request(ASKED.services, "alice", KEYS, timeout=45)
    message = fwknop.parse(unseal(build(asked, None, 1.8e9, secrets.token_bytes).payload, KEYS))
    assert (message.type, message.timeout) == (MessageType.ACCESS_TIMEOUT, 45)


def test_the_time_offset_moves_the_time() -> None:
    asked = Request(ASKED.services, "alice", KEYS, time_offset=-300)
    assert build(asked, None, 1_800_000_000, secrets.token_bytes).message.time == 1_799_999_700


def test_two_packets_for_one_request_have_nothing_in_common() -> None:
    one, two = (build(ASKED, None, 1.8e9, secrets.token_bytes) for _ in range(2))
    assert one.message.random != two.message.random
    assert one.payload[:11] != two.payload[:11]  # the salt's characters


def test_the_random_value_has_sixteen_digits_even_when_it_is_small() -> None:
    assert build(ASKED, None, 1.8e9, zeros).message.random == "0" * 16


@pytest.mark.parametrize("user", ["a/b", "a:b", "é", ""])
def test_a_user_that_no_receiver_takes_is_refused(user: str) -> None:
    with pytest.raises(WireError, match="user name"):
        build(Request(ASKED.services, user, KEYS), None, 1.8e9, zeros)


def test_too_many_services_are_refused_before_anything_is_sent() -> None:
    services = tuple(Service.parse(f"tcp/{port}") for port in range(10000, 10030))
    with pytest.raises(WireError):
        build(Request(services, "alice", KEYS), None, 1.8e9, zeros)


LABELS = [
    "Random Value",
    "Username",
    "Timestamp",
    "FKO Version",
    "Message Type",
    "Message String",
    "Nat Access",
    "Server Auth",
    "Client Timeout",
    "Digest Type",
    "HMAC Type",
    "Encryption Type",
    "Encryption Mode",
    "Encoded Data",
    "SPA Data Digest",
    "HMAC",
    "Final SPA Data",
]


@pytest.mark.parametrize(("hmac", "digest"), list(itertools.product([None, *DigestType], DigestType)))
def test_the_dump_has_fwknops_labels_in_its_order_and_the_parts_of_the_payload(
    hmac: DigestType | None, digest: DigestType
) -> None:
    keys = SymmetricKeys(Secret(b"k"), Secret(b"h") if hmac else None, hmac or DigestType.SHA256)
    packet = build(Request(ASKED.services, "alice", keys, digest=digest), None, 1.8e9, secrets.token_bytes)
    fields = dict(show.fields(packet))
    assert list(fields) == LABELS
    assert f"{fields['Encoded Data']}:{fields['SPA Data Digest']}".encode() == packet.plaintext
    assert fields["Final SPA Data"] == packet.payload.decode()
    assert fields["HMAC Type"] == (f"{hmac.value} ({hmac.name})" if hmac else "0 (None)")
    assert fields["HMAC"] == "<NULL>" or packet.payload.decode().endswith(fields["HMAC"])
    assert f"Final SPA Data: {packet.payload.decode()}\n" in show.dump(packet)


def test_the_dump_never_shows_a_key() -> None:
    keys = SymmetricKeys(Secret(b"hunter2"), Secret(b"hunter3"))
    packet = build(Request(ASKED.services, "alice", keys), None, 1.8e9, secrets.token_bytes)
    shown = (
        show.dump(packet)
        + show.destination(Endpoint(ipaddress.ip_address("::1"), 62201), 1, Transport(source_port=53))
        + repr(packet)
    )
    assert "hunter" not in shown
    assert "destination port: 62201" in shown
    assert "source port: 53" in shown
