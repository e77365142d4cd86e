"""What passes between listener and helper."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.commands.messages import ORDERS, Execute, Report, Reread
from doorward.errors import HelperError, WireError
from doorward.helper.limits import MARK_BYTES
from doorward.helper.messages import (
    EPOCH_MAX,
    REPLIES,
    REQUESTS,
    ROWS_MAX,
    SERVICES_MAX,
    Adopt,
    Adopted,
    AskRefused,
    Audit,
    Configuration,
    Configure,
    Done,
    Gauges,
    HearOtherwise,
    Numbers,
    Open,
    OpenAudit,
    Refused,
    RefusedPackets,
    Row,
    Tags,
    Way,
)
from doorward.linux.seqpacket import MESSAGE_MAX
from doorward.values import (
    COMMAND_MAX,
    GRANT_SECONDS_MAX,
    NAME_MAX,
    Execution,
    Grant,
    Nat,
    Protocol,
    PublicKey,
    Reason,
    Service,
)

if TYPE_CHECKING:
    from doorward.commands.messages import Order
    from doorward.helper.messages import Reply, Request
    from doorward.values import IPAddress

BROADCAST = ipaddress.ip_address("255.255.255.255")
# An IPv4-mapped IPv6 source is no source that any packet can ask for, and has no bytes.
sources = st.ip_addresses().filter(
    lambda ip: (
        not (ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip == BROADCAST)
        and not getattr(ip, "ipv4_mapped", None)
    )
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
        tuple(draw(st.lists(services, min_size=1, max_size=SERVICES_MAX))),
        draw(st.integers(1, GRANT_SECONDS_MAX)),
        draw(st.none() | nats(source.version)),
        draw(st.none() | st.from_regex(r"[A-Za-z0-9@+-]{1,15}", fullmatch=True)),
        draw(st.none() | addresses(source.version)),
        key=draw(st.none() | st.integers(2, 1 << 200).map(lambda number: PublicKey(number.to_bytes(32, "little")))),
    )


grants = drawn_grants()
tags = st.builds(
    Tags,
    st.integers(0, EPOCH_MAX),
    st.lists(st.binary(min_size=8, max_size=8), max_size=9).map(b"".join),
    st.booleans(),
)
natural = st.integers(0, (1 << 63) - 1)
rows = st.builds(
    Row,
    st.none() | st.from_regex(r"[A-Za-z0-9_.@:+%-]{1,100}", fullmatch=True),
    st.sampled_from(Reason),
    natural,
    natural,
)
numbers = st.builds(
    Numbers,
    st.lists(rows, max_size=9).map(tuple),
    st.builds(Gauges, natural, natural, natural, natural, natural),
    st.booleans(),
)
bare = st.sampled_from([Configure(), Adopt(), OpenAudit(), AskRefused(), HearOtherwise()])
requests = bare | st.builds(Open, grants) | tags | numbers
texts = st.text(st.characters(codec="utf-8"), max_size=200)
counts = st.builds(RefusedPackets, st.integers(0, (1 << 63) - 1), st.booleans())
adopted = st.builds(Adopted, st.builds(Way, st.booleans(), texts))
replies = st.sampled_from([Configuration(), Done(), Audit()]) | st.builds(Refused, texts) | counts | adopted


@given(requests)
def test_every_request_survives_the_way_there_and_back(request: Request) -> None:
    assert REQUESTS.decode(REQUESTS.encode(request)) == request


@given(replies)
def test_every_reply_survives_the_way_there_and_back(reply: Reply) -> None:
    assert REPLIES.decode(REPLIES.encode(reply)) == reply


@given(requests, st.binary(min_size=1, max_size=4))
def test_a_request_cut_at_any_byte_or_with_more_behind_it_is_refused(request: Request, more: bytes) -> None:
    content = REQUESTS.encode(request)
    for wrong in (*(content[:length] for length in range(len(content))), content + more):
        with pytest.raises(HelperError):
            REQUESTS.decode(wrong)


@given(requests, st.integers(1, 255), st.data())
def test_a_request_with_a_byte_that_was_changed_is_refused_or_another_one(
    request: Request, flip: int, data: st.DataObject
) -> None:
    content = bytearray(REQUESTS.encode(request))
    content[data.draw(st.integers(0, len(content) - 1))] ^= flip
    try:
        other = REQUESTS.decode(bytes(content))
    except HelperError:
        return
    assert other != request
    assert REQUESTS.encode(other) == content


@given(requests, replies)
def test_no_request_is_a_reply_and_no_reply_a_request(request: Request, reply: Reply) -> None:
    with pytest.raises(HelperError):
        REPLIES.decode(REQUESTS.encode(request))
    with pytest.raises(HelperError):
        REQUESTS.decode(REPLIES.encode(reply))


@pytest.mark.parametrize("sign", ["a", "é", "€", "😀", "\udcff"])
@pytest.mark.parametrize("before", range(4))
def test_a_text_that_is_too_long_is_cut_between_two_characters(sign: str, before: int) -> None:
    content = REPLIES.encode(Refused("x" * before + sign * MESSAGE_MAX))
    assert MESSAGE_MAX - 4 < len(content) <= MESSAGE_MAX
    assert REPLIES.encode(REPLIES.decode(content)) == content


HOME = ipaddress.ip_address("2001:db8::2")
OTHER = ipaddress.ip_address("2001:db8::3")
KNOCK = Execution(1, HOME, OTHER, ipaddress.ip_address("2001:db8::4"), 30, 0, command="x")


@pytest.mark.parametrize("address", ["::", "ff02::1", "::ffff:192.0.2.7", "::ffff:0.0.0.0"])
def test_a_grant_to_an_address_that_is_nobodys_is_refused(address: str) -> None:
    good = REQUESTS.encode(Open(Grant(HOME, (Service(Protocol.TCP, 22),), 1)))
    assert REQUESTS.decode(good)
    with pytest.raises(HelperError):
        REQUESTS.decode(good.replace(HOME.packed, ipaddress.ip_address(address).packed))


def test_a_grant_of_more_services_than_a_packet_can_name_cannot_be_asked_for() -> None:
    with pytest.raises(WireError, match="65 services"):
        Open(Grant(HOME, (Service(Protocol.TCP, 22),) * (SERVICES_MAX + 1), 1))


FULL = Numbers((Row("x" * NAME_MAX, Reason.GRANTED, 1 << 60, 1 << 60),) * ROWS_MAX, Gauges(), last=True)


def test_a_report_of_as_many_rows_as_there_may_be_fits_into_a_message() -> None:
    assert REQUESTS.decode(REQUESTS.encode(FULL)) == FULL
    with pytest.raises(WireError, match="401 rows"):
        replace(FULL, rows=(*FULL.rows, FULL.rows[0]))


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a\n", "a{", "x" * (NAME_MAX + 1)])
def test_a_report_on_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(WireError, match="is no name"):
        Row(name, Reason.GRANTED, 1, 1)


def test_what_cannot_be_counted_is_refused() -> None:
    for count, last in ((-1, 0), (0, -1)):
        with pytest.raises(WireError, match="verdicts up to"):
            Row(None, Reason.GRANTED, count, last)
    for field in ("dropped", "replay", "replay_room", "gnupg", "orders"):
        with pytest.raises(WireError, match="below 0"):
            replace(Gauges(), **{field: -1})  # type: ignore[arg-type]  # one of the numbers


@pytest.mark.parametrize("end", [HOME, OTHER], ids=["source", "origin"])
@pytest.mark.parametrize("address", ["::", "ff02::1", "::ffff:0.0.0.0", "::ffff:224.0.0.1", "::ffff:255.255.255.255"])
def test_an_execution_for_an_address_that_is_nobodys_is_refused(address: str, end: IPAddress) -> None:
    good = ORDERS.encode(Execute(KNOCK, bytes(MARK_BYTES)))
    assert good.count(end.packed) == 1
    assert ORDERS.decode(good)
    with pytest.raises(HelperError):
        ORDERS.decode(good.replace(end.packed, ipaddress.ip_address(address).packed))


def test_a_command_that_no_packet_can_carry_is_refused() -> None:
    long = replace(KNOCK, command="y" * COMMAND_MAX)
    content = ORDERS.encode(Execute(long, bytes(MARK_BYTES)))
    assert ORDERS.decode(content) == Execute(long, bytes(MARK_BYTES))
    length, more = COMMAND_MAX.to_bytes(4, "big"), (COMMAND_MAX + 1).to_bytes(4, "big")
    with pytest.raises(HelperError, match="longer than 255 bytes"):
        ORDERS.decode(content.replace(length + b"y", more + b"yy"))


executions = st.builds(
    Execution,
    st.integers(1, 2**32 - 1),
    sources,
    sources,
    sources,
    st.integers(1, GRANT_SECONDS_MAX),
    st.integers(0, 10**12),
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
marks = st.binary(min_size=MARK_BYTES, max_size=MARK_BYTES)
orders = st.just(Reread()) | st.builds(Report, st.booleans(), texts) | st.builds(Execute, executions, marks)


@given(orders)
def test_every_order_survives_the_way_there(order: Order) -> None:
    assert ORDERS.decode(ORDERS.encode(order)) == order


@given(orders, st.binary(min_size=1, max_size=4))
def test_an_order_that_is_cut_or_has_more_behind_it_is_refused(order: Order, more: bytes) -> None:
    content = ORDERS.encode(order)
    for wrong in (*(content[:length] for length in range(len(content))), content + more):
        with pytest.raises(HelperError):
            ORDERS.decode(wrong)


@given(requests, replies, orders)
def test_no_order_is_a_request_or_a_reply(request: Request, reply: Reply, order: Order) -> None:
    for other in (REQUESTS.encode(request), REPLIES.encode(reply)):
        with pytest.raises(HelperError):
            ORDERS.decode(other)
    with pytest.raises(HelperError):
        REQUESTS.decode(ORDERS.encode(order))
    with pytest.raises(HelperError):
        REPLIES.decode(ORDERS.encode(order))


@given(st.binary(max_size=200))
def test_whatever_bytes_come_an_order_is_made_of_them_or_a_helper_error(content: bytes) -> None:
    for wrong in (content, *(b"O" + bytes([kind]) + content for kind in range(3))):
        try:
            order = ORDERS.decode(wrong)
        except HelperError:
            continue
        assert ORDERS.encode(order) == wrong
