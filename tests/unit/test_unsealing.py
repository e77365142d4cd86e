"""What passes between the listener and the process that runs gpg."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.crypto.openpgp import Signature, Status, Unsealed
from doorward.errors import HelperError
from doorward.privsep import unsealing
from doorward.privsep.unsealing import (
    Announce,
    Answer,
    Keyring,
    Missed,
    Packet,
    Piece,
    Ready,
    Refusal,
    Trouble,
    Unusable,
)
from doorward.values import Secret

REQUESTS = (Announce(70_000), Piece(b"abc"), Piece(bytes(unsealing.PIECE_MAX)), Packet(7, 1, b"\x85" + bytes(1124)))
SIGNED = Unsealed(b"plain", Signature(Status.EXPIRED, "A" * 40, "B" * 40))
REPLIES = (
    Ready(),
    Unusable("no gpg"),
    Trouble("it ended"),
    Answer(1, Refusal("why")),
    Answer(2**32 - 1, Missed("gone")),
    Answer(3, Unsealed(b"plain", None)),
    Answer(4, SIGNED),
    Answer(5, Unsealed(b"", Signature(Status.MISSING_KEY, "0123456789ABCDEF", "0123456789ABCDEF"))),
)


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_arrives_as_it_was_sent(request_: unsealing.Request) -> None:
    encoded = unsealing.encode_request(request_)
    assert len(encoded) <= unsealing.MESSAGE_MAX
    assert unsealing.decode_request(encoded) == request_


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_arrives_as_it_was_sent(reply: unsealing.Reply) -> None:
    assert unsealing.decode_reply(unsealing.encode_reply(reply)) == reply


def test_keyrings_arrive_as_they_were_sent() -> None:
    sent = (
        Keyring(b"\0tar", None, None, "A" * 40),
        Keyring(b"", "/usr/bin/gpg", Secret(b"p\xff"), "host", (("AB" * 20, "access.conf:1: GPG_FINGERPRINT_ID"),)),
    )
    assert unsealing.decode_keyrings(unsealing.encode_keyrings(sent)) == sent


def test_a_text_that_is_too_long_is_cut() -> None:
    long = unsealing.decode_reply(unsealing.encode_reply(Trouble("x" * 100_000)))
    assert isinstance(long, Trouble)
    assert 0 < len(long.text) <= 1000


@pytest.mark.parametrize(
    "content",
    [
        b"", b"?", b"A", b"A\0\0\0\1", b"A\0\0\0\1x", b"RR", b"A\0\0\0\1u\0\0", b"A\0\0\0\1u\7\1\1AB",
        b"A\0\0\0\1u\1\0\0", b"A\0\0\0\1u\0\1\1AB", b"A\0\0\0\1u\1\1\1A\n", b"A\0\0\0\1u\1\1\1\xc3\xa9",
        b"A\0\0\0\1u\0\0\0" + bytes(1501),
    ],
)  # fmt: skip
def test_anything_else_is_no_reply(content: bytes) -> None:
    with pytest.raises(HelperError):
        unsealing.decode_reply(content)


@pytest.mark.parametrize("content", [b"", b"K", b"K\0\0\0\0\0", b"P", b"P\0\0\0\1\0\0", b"P\0\0\0\1\0\0" + bytes(1501)])
def test_anything_else_is_no_request(content: bytes) -> None:
    with pytest.raises(HelperError):
        unsealing.decode_request(content)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_none(content: bytes) -> None:
    for decode in (unsealing.decode_reply, unsealing.decode_request, unsealing.decode_outcome):
        with contextlib.suppress(HelperError):
            decode(content)
