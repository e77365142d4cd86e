"""What passes between listener and helper."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import HelperError
from doorward.privsep import messages
from doorward.privsep.messages import (
    MESSAGE_MAX,
    Adopt,
    Adopted,
    Configuration,
    Configure,
    Done,
    Execute,
    Open,
    Problems,
    Refused,
    Report,
    Reread,
)
from doorward.values import COMMAND_MAX, GRANT_SECONDS_MAX, Execution, Grant, Nat, Protocol, Service

if TYPE_CHECKING:
    from doorward.privsep.messages import Order, Reply, Request
    from doorward.values import IPAddress

BROADCAST = ipaddress.ip_address("255.255.255.255")
# An IPv4-mapped IPv6 source is no source that any packet can ask for; on this wire it is the IPv4 address itself.
sources = st.ip_addresses().filter(
    lambda ip: not (ip.is_unspecified or ip.is_multicast or getattr(ip, "ipv4_mapped", None) or ip == BROADCAST)
)
services = st.builds(Service, st.sampled_from(Protocol), st.integers(1, 65535))


def addresses(version: int) -> st.SearchStrategy[IPAddress]:
    """Draw addresses of one family that connections can be led to."""
    drawn = st.ip_addresses(v=4) if version == 4 else st.ip_addresses(v=6)
    unmapped = drawn.filter(lambda ip: not getattr(ip, "ipv4_mapped", None))
    return unmapped.filter(lambda ip: not ip.is_unspecified and not ip.is_multicast)


@st.composite
def nats(draw: st.DrawFn, version: int) -> Nat:
    """Draw where a grant leads, in every way that there is."""
    ports = st.integers(1, 65535)
    if draw(st.booleans()):
        return Nat(None, draw(ports))
    everything, source = draw(st.booleans()), draw(st.sampled_from(["snat", "masquerade", ""]))
    return Nat(
        draw(addresses(version)),
        None if everything else draw(ports),
        everything=everything,
        rewrite=draw(st.booleans()),
        snat=draw(addresses(version)) if source == "snat" else None,
        masquerade=source == "masquerade",
    )


@st.composite
def drawn_grants(draw: st.DrawFn) -> Grant:
    """Draw grants with every condition that one can have."""
    source = draw(sources)
    return Grant(
        source,
        tuple(draw(st.lists(services, min_size=1, max_size=messages.SERVICES_MAX))),
        draw(st.integers(1, GRANT_SECONDS_MAX)),
        draw(st.none() | nats(source.version)),
        draw(st.none() | st.from_regex(r"[A-Za-z0-9@+-]{1,15}", fullmatch=True)),
        draw(st.none() | addresses(source.version)),
    )


grants = drawn_grants()
requests = st.sampled_from([Configure(), Adopt()]) | st.builds(Open, grants)
texts = st.text(st.characters(codec="utf-8"), max_size=200)
replies = st.sampled_from([Configuration(), Adopted(), Done()]) | st.builds(Problems, texts) | st.builds(Refused, texts)


@given(requests)
def test_every_request_survives_the_way_there_and_back(request: Request) -> None:
    assert messages.decode_request(messages.encode(request)) == request


@given(replies)
def test_every_reply_survives_the_way_there_and_back(reply: Reply) -> None:
    assert messages.decode_reply(messages.encode(reply)) == reply


@given(grants, st.binary(min_size=1, max_size=4))
def test_a_request_cut_at_any_byte_or_with_more_behind_it_is_refused(grant: Grant, more: bytes) -> None:
    content = messages.encode(Open(grant))
    for wrong in (*(content[:length] for length in range(len(content))), content + more, b"C" + more, b"A" + more):
        with pytest.raises(HelperError):
            messages.decode_request(wrong)


@given(requests, replies)
def test_no_request_is_a_reply_and_no_reply_a_request(request: Request, reply: Reply) -> None:
    with pytest.raises(HelperError):
        messages.decode_reply(messages.encode(request))
    with pytest.raises(HelperError):
        messages.decode_request(messages.encode(reply))


@pytest.mark.parametrize("sign", ["a", "é", "€", "😀", "\udcff"])
@pytest.mark.parametrize("before", range(4))
def test_a_text_that_is_too_long_is_cut_between_two_characters(sign: str, before: int) -> None:
    content = messages.encode(Problems("x" * before + sign * MESSAGE_MAX))
    assert MESSAGE_MAX - 4 < len(content) <= MESSAGE_MAX
    assert messages.encode(messages.decode_reply(content)) == content
    with pytest.raises(HelperError):
        messages.decode_reply(content + b"x" * 5)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "::ffff:0.0.0.0"])  # noqa: S104  the unspecified address
def test_a_grant_to_the_unspecified_address_is_refused(address: str) -> None:
    good = messages.encode(Open(Grant(ipaddress.ip_address("::2"), (Service(Protocol.TCP, 22),), 1)))
    packed = ipaddress.ip_address(address).packed
    assert messages.decode_request(good)
    with pytest.raises(HelperError):
        messages.decode_request(good[:1] + packed.rjust(16, b"\0") + good[17:])


NOBODYS = ["::ffff:0.0.0.0", "::", "::ffff:224.0.0.1", "ff02::1", "::ffff:255.255.255.255"]
HOME = ipaddress.ip_address("2001:db8::2")
KNOCK = Execution(1, HOME, HOME, HOME, 30, 0, command="x")


@pytest.mark.parametrize("place", [5, 21], ids=["source", "origin"])
@pytest.mark.parametrize("address", NOBODYS)
def test_an_execution_for_an_address_that_is_nobodys_is_refused(address: str, place: int) -> None:
    good = messages.encode_order(Execute(KNOCK, bytes(messages.MARK_BYTES)))
    packed = ipaddress.ip_address(address).packed
    assert good[place : place + 16] == KNOCK.source.packed
    assert messages.decode_order(good)
    with pytest.raises(HelperError):
        messages.decode_order(good[:place] + packed + good[place + 16 :])


def test_a_command_that_no_packet_can_carry_is_refused() -> None:
    good = messages.encode_order(Execute(KNOCK, bytes(messages.MARK_BYTES)))
    longest = messages.decode_order(good + b"y" * (COMMAND_MAX - 1))
    assert isinstance(longest, Execute)
    assert longest.execution.command == "x" + "y" * (COMMAND_MAX - 1)
    for more in (COMMAND_MAX, 50_000):
        with pytest.raises(HelperError):
            messages.decode_order(good + b"y" * more)


executions = st.builds(
    Execution,
    st.integers(1, 2**32 - 1),
    sources,
    sources,
    sources,
    st.integers(1, GRANT_SECONDS_MAX),
    st.integers(0, 2**63),
    services,
    st.integers(0, GRANT_SECONDS_MAX),
) | st.builds(
    Execution,
    st.integers(1, 99),
    sources,
    sources,
    sources,
    st.integers(1, 99),
    st.integers(0, 99),
    command=st.text(st.characters(codec="utf-8"), min_size=1, max_size=COMMAND_MAX).filter(
        lambda text: len(text.encode()) <= COMMAND_MAX
    ),
)
marks = st.binary(min_size=messages.MARK_BYTES, max_size=messages.MARK_BYTES)
orders = st.just(Reread()) | st.builds(Report, st.booleans(), texts) | st.builds(Execute, executions, marks)


@given(orders)
def test_every_order_survives_the_way_there(order: Order) -> None:
    assert messages.decode_order(messages.encode_order(order)) == order


@given(executions, marks, st.binary(min_size=1, max_size=4))
def test_an_execution_that_is_cut_or_has_more_behind_it_is_not_that_execution(
    execution: Execution, mark: bytes, more: bytes
) -> None:
    content = messages.encode_order(Execute(execution, mark))
    for wrong in (*(content[:length] for length in range(len(content))), content + more, b"R" + more):
        try:
            order = messages.decode_order(wrong)
        except HelperError:
            continue
        assert isinstance(order, Execute)
        assert execution.command  # a command has no end but the message's
        assert order.execution.command != execution.command


@given(requests, replies, orders)
def test_no_order_is_a_request_or_a_reply(request: Request, reply: Reply, order: Order) -> None:
    for other in (messages.encode(request), messages.encode(reply)):
        with pytest.raises(HelperError):
            messages.decode_order(other)
    with pytest.raises(HelperError):
        messages.decode_request(messages.encode_order(order))
    with pytest.raises(HelperError):
        messages.decode_reply(messages.encode_order(order))


@given(st.binary(max_size=200))
def test_whatever_bytes_come_an_order_is_made_of_them_or_a_helper_error(content: bytes) -> None:
    for wrong in (content, b"E" + content, b"G" + content, b"D" + content):
        try:
            order = messages.decode_order(wrong)
        except HelperError:
            continue
        assert messages.encode_order(order) == wrong
