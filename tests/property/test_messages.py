"""What passes between listener and helper."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import HelperError
from doorward.privsep import messages
from doorward.privsep.messages import MESSAGE_MAX, Configuration, Configure, Done, Open, Problems, Refused
from doorward.values import GRANT_SECONDS_MAX, Grant, Protocol, Service

if TYPE_CHECKING:
    from doorward.privsep.messages import Reply, Request

# An IPv4-mapped IPv6 source is no source that any packet can ask for; on this wire it is the IPv4 address itself.
sources = st.ip_addresses().filter(lambda ip: not ip.is_unspecified and not getattr(ip, "ipv4_mapped", None))
services = st.builds(Service, st.sampled_from(Protocol), st.integers(1, 65535))
grants = st.builds(
    Grant,
    sources,
    st.lists(services, min_size=1, max_size=messages.SERVICES_MAX).map(tuple),
    st.integers(1, GRANT_SECONDS_MAX),
)
requests = st.just(Configure()) | st.builds(Open, grants)
texts = st.text(st.characters(codec="utf-8"), max_size=200)
replies = st.sampled_from([Configuration(), Done()]) | st.builds(Problems, texts) | st.builds(Refused, texts)


@given(requests)
def test_every_request_survives_the_way_there_and_back(request: Request) -> None:
    assert messages.decode_request(messages.encode(request)) == request


@given(replies)
def test_every_reply_survives_the_way_there_and_back(reply: Reply) -> None:
    assert messages.decode_reply(messages.encode(reply)) == reply


@given(grants, st.binary(min_size=1, max_size=4))
def test_a_request_cut_at_any_byte_or_with_more_behind_it_is_refused(grant: Grant, more: bytes) -> None:
    content = messages.encode(Open(grant))
    for wrong in (*(content[:length] for length in range(len(content))), content + more, b"C" + more):
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
