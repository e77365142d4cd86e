"""Values that cannot be invalid, and secrets that do not show."""

from __future__ import annotations

import contextlib
import copy
import ipaddress
import pickle
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doorward.errors import WireError
from doorward.values import (
    ANYWHERE,
    Execution,
    Grant,
    Nat,
    Networks,
    Protocol,
    Reason,
    Secret,
    Service,
    SymmetricKeys,
    is_link_local,
    refuse_nobody,
    unmap,
)

if TYPE_CHECKING:
    from doorward.values import IPAddress

SSH = Service(Protocol.TCP, 22)
HOME = ipaddress.ip_address("192.0.2.7")
PLANTED = b"planted-secret"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, lambda secret: str([secret])])
def test_a_secret_does_not_show_itself(show: object) -> None:
    assert callable(show)
    assert "planted" in show("planted")
    assert "planted" not in show(Secret(PLANTED))
    assert "planted" not in show(SymmetricKeys(Secret(PLANTED), Secret(PLANTED + b"2")))


def test_a_secret_is_neither_pickled_nor_hashed() -> None:
    for act in (pickle.dumps, hash, copy.copy):
        with pytest.raises(TypeError):
            act(Secret(PLANTED))


def test_secrets_are_compared_by_their_bytes() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"
    assert (len(Secret(b"abc")), Secret(b"abc").reveal()) == (3, b"abc")


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_outside_its_range_is_no_service(port: int) -> None:
    with pytest.raises(WireError):
        Service(Protocol.TCP, port)


@pytest.mark.parametrize(
    ("source", "services", "seconds"),
    [(HOME, (), 30), (HOME, (SSH,), 0), (HOME, (SSH,), 8_388_609), (ipaddress.ip_address("::"), (SSH,), 30)],
)
def test_a_grant_that_no_firewall_could_express_cannot_be_made(
    source: ipaddress.IPv4Address, services: tuple[Service, ...], seconds: int
) -> None:
    with pytest.raises(WireError):
        Grant(source, services, seconds)


NOBODYS = ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:224.0.0.1")  # noqa: S104  nothing is bound


@pytest.mark.parametrize("text", NOBODYS)
def test_an_address_that_is_nobodys_gets_no_grant_and_no_execution(text: str) -> None:
    nobody = ipaddress.ip_address(text)
    for source, origin in ((nobody, HOME), (HOME, nobody)):
        with pytest.raises(WireError, match="come from"):
            Execution(1, source, origin, HOME, 30, 0, SSH)
    with pytest.raises(WireError, match="come from"):
        Grant(nobody, (SSH,), 30)


@pytest.mark.parametrize("text", ["fe80::1", "febf:ffff::1", "169.254.0.1", "169.254.255.255", "fe80::1%lo"])
def test_an_address_of_a_single_link_gets_no_grant_and_no_execution(text: str) -> None:
    source = ipaddress.ip_address(text)
    with pytest.raises(WireError, match="on each link"):
        Grant(source, (SSH,), 30)
    with pytest.raises(WireError, match="on each link"):
        Execution(1, source, HOME, HOME, 30, 0, SSH)


@given(st.ip_addresses())
@example(ipaddress.ip_address("fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
@example(ipaddress.ip_address("fec0::"))
@example(ipaddress.ip_address("169.253.255.255"))
@example(ipaddress.ip_address("169.255.0.0"))
def test_link_local_addresses_are_those_that_pythons_library_says(one: IPAddress) -> None:
    assert is_link_local(one) is one.is_link_local


@given(st.ip_addresses() | st.ip_addresses(v=4).map(lambda v4: ipaddress.IPv6Address(f"::ffff:{v4}")))
@example(ipaddress.ip_address("223.255.255.255"))
@example(ipaddress.ip_address("224.0.0.0"))
@example(ipaddress.ip_address("239.255.255.255"))
@example(ipaddress.ip_address("240.0.0.0"))
@example(ipaddress.ip_address("255.255.255.254"))
@example(ipaddress.ip_address("feff::"))
@example(ipaddress.ip_address("ff00::"))
@example(ipaddress.ip_address("ffff::"))
@example(ipaddress.ip_address("::1"))
def test_nobodys_addresses_are_those_that_pythons_library_says(source: IPAddress) -> None:
    plain = getattr(source, "ipv4_mapped", None) or source
    nobodys = plain.is_unspecified or plain.is_multicast or plain == ipaddress.ip_address("255.255.255.255")
    with pytest.raises(WireError) if nobodys else contextlib.nullcontext():
        refuse_nobody(source)


def test_a_command_has_at_most_as_many_bytes_as_a_packet_carries() -> None:
    assert Execution(1, HOME, HOME, HOME, 30, 0, command="é" * 127 + "x").command
    with pytest.raises(WireError, match="longer"):
        Execution(1, HOME, HOME, HOME, 30, 0, command="é" * 128)


@pytest.mark.parametrize("keys", [(b"", None), (b"k" * 33, None), (b"k", b""), (b"k", b"h" * 129)])
def test_keys_of_a_length_that_fwknop_cannot_use_are_refused(keys: tuple[bytes, bytes | None]) -> None:
    key, hmac_key = keys
    with pytest.raises(WireError):
        SymmetricKeys(Secret(key), None if hmac_key is None else Secret(hmac_key))


def test_membership_follows_the_mask_in_both_families() -> None:
    chosen = Networks.of(map(ipaddress.ip_network, ["192.0.2.0/25", "198.51.100.9", "2001:db8::/33"]))
    for inside in ("192.0.2.127", "198.51.100.9", "2001:db8:7fff::1"):
        assert ipaddress.ip_address(inside).packed in chosen
        assert ipaddress.ip_address(inside).packed in ANYWHERE
    for outside in ("192.0.2.128", "198.51.100.8", "2001:db8:8000::1", "::c000:207f"):
        assert ipaddress.ip_address(outside).packed not in chosen
    assert (str(chosen), str(ANYWHERE)) == ("192.0.2.0/25, 198.51.100.9/32, 2001:db8::/33", "ANY")


def test_a_protocol_is_written_as_its_name_or_as_its_number() -> None:
    assert (f"{Protocol.TCP}", f"{Protocol.TCP:d}", str(Protocol.UDP)) == ("tcp", "6", "udp")


@pytest.mark.parametrize("target", ["::ffff:192.0.2.7", "fe80::1%eth0", "ff02::1", "224.0.0.1", "::"])
def test_nat_leads_to_no_address_that_has_another_spelling_or_is_no_hosts(target: str) -> None:
    """The helper would read another address than the listener wrote, take that for an attack, and end."""
    with pytest.raises(WireError):
        Nat(ipaddress.ip_address(target), 22)
    assert Nat(ipaddress.ip_address("2001:db8::7"), 22).port == 22


def test_a_mapped_address_is_the_ipv4_address_it_stands_for() -> None:
    assert unmap(ipaddress.ip_address("::ffff:192.0.2.7").packed) == HOME.packed
    for other in (HOME.packed, ipaddress.ip_address("2001:db8::1").packed):
        assert unmap(other) == other


def test_a_reason_is_its_word() -> None:
    assert str(Reason.REPLAY) == "replay"
