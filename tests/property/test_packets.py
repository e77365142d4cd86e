"""What nobody's bytes may do, whatever they are."""

from __future__ import annotations

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doorward.crypto import symmetric
from doorward.errors import AuthenticationError, WireError
from doorward.gate import Gate
from doorward.values import DigestType, Reason
from doorward.wire import fwknop
from doorward.wire.fwknop import Message, MessageType
from unit.making import KEYS, NOW, Door, Memory, datagram, payload, stanza

BASE64 = string.ascii_letters + string.digits + "+/"
GOOD = payload()

users = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=48)
ports = st.integers(1, 65535)
services = st.builds("{}/{}".format, st.sampled_from(["tcp", "udp"]), ports)
sources = st.ip_addresses(v=4).map(str)
bodies = st.builds(
    lambda source, wanted: ",".join([source, *wanted]), sources, st.lists(services, min_size=1, max_size=8)
)
targets = st.builds("{},{}".format, st.ip_addresses(v=4).map(str), ports)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(MessageType))
    text = (
        draw(bodies)
        if kind
        else draw(st.builds("{},{}".format, sources, st.text(string.printable[:95], min_size=1, max_size=40)))
    )
    return Message(
        random="".join(draw(st.lists(st.sampled_from("0123456789"), min_size=16, max_size=16))),
        user=draw(users),
        time=draw(st.integers(0, 10**12 - 1)),
        version=fwknop.VERSION,
        type=kind,
        text=text,
        nat_access=draw(targets) if kind in fwknop.WITH_NAT else None,
        timeout=draw(st.integers(0, 65536)) if kind in fwknop.WITH_TIMEOUT else None,
        digest=draw(st.sampled_from(DigestType)),
    )


@given(messages())
def test_every_message_survives_the_way_there_and_back(made: Message) -> None:
    assert fwknop.parse(fwknop.serialize(made)) == made


@given(st.binary(max_size=400))
def test_any_bytes_as_plaintext_raise_nothing_but_wire_error(plaintext: bytes) -> None:
    with pytest.raises(WireError):
        fwknop.parse(plaintext)


@given(st.text(BASE64 + ":,./= ", max_size=300))
def test_any_fields_behind_a_good_digest_raise_nothing_but_wire_error(text: str) -> None:
    body = ("0123456789012345:" + text).encode()
    plaintext = body + b":" + fwknop.digest_text(DigestType.SHA256, body)
    try:
        made = fwknop.parse(plaintext)
    except WireError:
        return
    assert fwknop.parse(fwknop.serialize(made)) == made


@given(st.binary(max_size=1600))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_payload_gets_a_verdict_and_opens_nothing(content: bytes) -> None:
    door = Door()
    verdict = Gate((stanza(),), Memory(), door.open, 120).judge(datagram(content), NOW)
    assert not door.grants
    assert verdict.reason in {Reason.MALFORMED, Reason.HMAC}


@given(st.text(BASE64, min_size=140, max_size=1500))
def test_any_base64_gets_a_verdict_and_opens_nothing(content: str) -> None:
    door = Door()
    verdict = Gate((stanza(),), Memory(), door.open, 120).judge(datagram(content.encode()), NOW)
    assert not door.grants
    assert verdict.reason in {Reason.MALFORMED, Reason.HMAC}


@given(st.text(BASE64, min_size=140, max_size=390))
def test_any_base64_under_a_stanza_without_hmac_opens_nothing(content: str) -> None:
    bare = type(KEYS)(KEYS.key, None)
    door = Door()
    verdict = Gate((stanza(keys=bare),), Memory(), door.open, 120).judge(datagram(content.encode()), NOW)
    assert not door.grants
    assert verdict.reason in {Reason.MALFORMED, Reason.DECRYPTION}


def test_every_truncation_of_a_good_packet_is_refused() -> None:
    for length in range(len(GOOD)):
        for cut in (GOOD[:length], GOOD[length + 1 :]):
            door = Door()
            assert not Gate((stanza(),), Memory(), door.open, 120).judge(datagram(cut), NOW).granted
            assert not door.grants
    assert Gate((stanza(),), Memory(), Door().open, 120).judge(datagram(GOOD), NOW).granted


def test_every_change_of_one_character_is_refused() -> None:
    gate = Gate((stanza(),), Memory(), Door().open, 120)
    assert gate.judge(datagram(GOOD), NOW).granted
    for place in range(len(GOOD)):
        for other in BASE64.encode() + b"=-_ \n\x00\xff":
            changed = GOOD[:place] + bytes([other]) + GOOD[place + 1 :]
            verdict = gate.judge(datagram(changed), NOW)
            assert verdict.reason is (Reason.REPLAY if changed == GOOD else verdict.reason)
            assert not verdict.granted


def test_every_other_spelling_of_a_packet_without_hmac_is_refused() -> None:
    """Unused bits of the last character are a second spelling; a store keyed on text would miss it."""
    bare = type(KEYS)(KEYS.key, None)
    good = payload(keys=bare)
    assert len(good + fwknop.PREFIX) % 4, "the case needs unused bits"
    gate = Gate((stanza(keys=bare),), Memory(), Door().open, 120)
    assert gate.judge(datagram(good), NOW).granted
    for last in BASE64.encode():
        verdict = gate.judge(datagram(good[:-1] + bytes([last])), NOW)
        assert not verdict.granted


@given(st.binary(max_size=500))
def test_unseal_raises_only_its_two_errors(content: bytes) -> None:
    with pytest.raises((WireError, AuthenticationError)):
        symmetric.unseal(content, KEYS)
