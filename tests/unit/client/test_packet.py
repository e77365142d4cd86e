from __future__ import annotations

import ipaddress
import itertools
import secrets

import pytest

from doorward.client import describe_packet
from doorward.client.address import Endpoint
from doorward.client.nat import NatRequest
from doorward.client.packet import PACKETS_MAX, Request, build, parts
from doorward.client.profile import Profile
from doorward.config import convert
from doorward.crypto.symmetric import unseal
from doorward.errors import ClientError, WireError
from doorward.values import DigestType, Secret, Service, SymmetricKeys
from doorward.wire import fwknop
from doorward.wire.fwknop import MessageType

KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
ASKED = Request(Profile(), NatRequest((Service.parse("tcp/22"), Service.parse("udp/53"))), KEYS, "alice")


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
    asked = ASKED._replace(profile=Profile(timeout=45))
    message = fwknop.parse(unseal(build(asked, None, 1.8e9, secrets.token_bytes).payload, KEYS))
    assert (message.type, message.timeout) == (MessageType.ACCESS_TIMEOUT, 45)


def test_the_time_offset_moves_the_time() -> None:
    asked = ASKED._replace(profile=Profile(time_offset=-300))
    assert build(asked, None, 1_800_000_000, secrets.token_bytes).message.time == 1_799_999_700


def test_two_packets_for_one_request_have_nothing_in_common() -> None:
    one, two = (build(ASKED, None, 1.8e9, secrets.token_bytes) for _ in range(2))
    assert one.plaintext[:16] != two.plaintext[:16], "the random digits"
    assert one.payload[:11] != two.payload[:11]  # the salt's characters


def test_the_random_value_has_sixteen_digits_even_when_it_is_small() -> None:
    assert build(ASKED, None, 1.8e9, zeros).plaintext[:17] == b"0" * 16 + b":"


@pytest.mark.parametrize("user", ["a/b", "a:b", "é", ""])
def test_a_user_that_no_receiver_takes_is_refused(user: str) -> None:
    with pytest.raises(WireError, match="user name"):
        build(ASKED._replace(user=user), None, 1.8e9, zeros)


def test_too_many_services_are_refused_before_anything_is_sent() -> None:
    services = tuple(Service.parse(f"tcp/{port}") for port in range(10000, 10030))
    with pytest.raises(WireError):
        build(ASKED._replace(nat=NatRequest(services)), None, 1.8e9, zeros)


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
    packet = build(ASKED._replace(keys=keys, profile=Profile(digest=digest)), None, 1.8e9, secrets.token_bytes)
    fields = dict(describe_packet.fields(packet))
    assert list(fields) == LABELS
    assert f"{fields['Encoded Data']}:{fields['SPA Data Digest']}".encode() == packet.plaintext
    assert fields["Final SPA Data"] == packet.payload.decode()
    assert fields["HMAC Type"] == (f"{hmac.value} ({hmac.name})" if hmac else "0 (None)")
    assert fields["HMAC"] == "<NULL>" or packet.payload.decode().endswith(fields["HMAC"])
    assert f"Final SPA Data: {packet.payload.decode()}\n" in describe_packet.dump(packet)


def test_the_dump_never_shows_a_key() -> None:
    keys = SymmetricKeys(Secret(b"hunter2"), Secret(b"hunter3"))
    packet = build(ASKED._replace(keys=keys), None, 1.8e9, secrets.token_bytes)
    shown = (
        describe_packet.dump(packet)
        + describe_packet.destination(Endpoint(ipaddress.ip_address("::1"), 62201), 1, Profile(source_port=53))
        + repr(packet)
    )
    assert "hunter" not in shown
    assert "destination port: 62201" in shown
    assert "source port: 53" in shown


@pytest.mark.parametrize("source", [None, "192.0.2.1", "2001:db8:1234:5678:9abc:def0:1234:5678"])
@pytest.mark.parametrize(
    ("ports", "user", "profile"),
    [("60000-60030", "alice", Profile()), ("60000-60008", "u" * 24, Profile(digest=DigestType.SHA512, timeout=65536))],
)
def test_a_range_that_no_message_holds_is_asked_for_in_several_packets(
    source: str | None, ports: str, user: str, profile: Profile
) -> None:
    wanted = convert.services(f"tcp/22, udp/{ports}")
    named = ipaddress.ip_address(source) if source else None
    split = parts(ASKED._replace(profile=profile, nat=NatRequest(wanted), user=user), named)
    assert len(split) > 1
    texts = [build(each, named, 1.8e9, secrets.token_bytes).text for each in split]
    assert [each for text in texts for each in fwknop.parse_access(text).services] == list(wanted)


def test_what_a_message_holds_is_one_packet_and_too_much_is_refused() -> None:
    assert parts(ASKED, None) == [ASKED]
    mosh = ASKED._replace(nat=NatRequest(convert.services("tcp/22, udp/60000-60010")))
    assert parts(mosh, ipaddress.ip_address("192.0.2.1")) == [mosh]
    command = ASKED._replace(profile=Profile(command="x"), nat=NatRequest(()))
    assert parts(command, None) == [command]
    many = ASKED._replace(nat=NatRequest(convert.services("udp/60000-60059")))
    with pytest.raises(ClientError, match=f"60 services need 5 packets, and {PACKETS_MAX} are sent"):
        parts(many, None)
