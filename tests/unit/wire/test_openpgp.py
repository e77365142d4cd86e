"""The frame of OpenPGP messages: what is handed to gpg, and what is not."""

from __future__ import annotations

import pytest

from doorward.errors import WireError
from doorward.wire import openpgp

KEY_ID = "0123456789ABCDEF"
OTHER = "FEDCBA9876543210"


def session_key(key_id: str = KEY_ID, version: int = 3) -> bytes:
    return bytes([version]) + bytes.fromhex(key_id) + b"\x01" + bytes(258)


def old(tag: int, body: bytes) -> bytes:
    return bytes([0x81 | tag << 2]) + len(body).to_bytes(2, "big") + body


def new(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


KEY = old(1, session_key())
BLOCK = b"\x01" + bytes(150)
MESSAGES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "as gpg writes it": (KEY + b"\xd2\x97" + BLOCK, (KEY_ID,)),
    "with a header of one byte": (old(1, session_key()) + b"\xd2\x40" + bytes(64), (KEY_ID,)),
    "with a header of two bytes": (KEY + b"\xd2\xc0\x08" + bytes(200), (KEY_ID,)),
    "with a header of five bytes": (KEY + new(18, BLOCK), (KEY_ID,)),
    "with GnuPG's AEAD": (KEY + new(20, BLOCK), (KEY_ID,)),
    "in parts": (KEY + b"\xd2\xe9" + bytes(512) + b"\xe0\x01\x28" + bytes(40), (KEY_ID,)),
    "for two": (KEY + old(1, session_key(OTHER)) + new(18, BLOCK), (KEY_ID, OTHER)),
    "with a session key in the new format": (new(1, session_key()) + new(18, BLOCK), (KEY_ID,)),
    "for somebody who is not named": (old(1, session_key("0" * 16)) + new(18, BLOCK), ("0" * 16,)),
}
REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello",
    "a session key alone": KEY,
    "a block without a session key": new(18, BLOCK),
    "three session keys": 3 * KEY + new(18, BLOCK),
    "a passphrase": KEY + b"\xc3\x0d\x04\x09\x03\x0aSALTSALT\xff" + new(18, BLOCK),
    "a signature": KEY + new(2, BLOCK),
    "something compressed": KEY + new(8, BLOCK),
    "a block that strangers can change": KEY + new(9, BLOCK),
    "such a block up to the end": KEY + b"\xa7" + BLOCK,
    "something behind the block": KEY + new(18, BLOCK) + new(18, BLOCK),
    "a marker before it": b"\xca\x03PGP" + KEY + new(18, BLOCK),
    "a session key of another version": old(1, session_key(version=6)) + new(18, BLOCK),
    "a session key without a key ID": old(1, b"\x03" + bytes(8)) + new(18, BLOCK),
    "a session key in parts": b"\xc1\xe8" + session_key()[:256] + b"\x0c" + bytes(12) + new(18, BLOCK),
    "a length that lies": KEY + b"\xd2\xff\xff\xff\xff\xff" + BLOCK,
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_names_its_recipients(name: str) -> None:
    message, recipients = MESSAGES[name]
    assert openpgp.parse(message).recipients == recipients


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_message_for_recipients_is_refused(name: str) -> None:
    with pytest.raises(WireError, match="no OpenPGP message"):
        openpgp.parse(REFUSED[name])


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_that_is_cut_off_anywhere_is_refused(name: str) -> None:
    message, _ = MESSAGES[name]
    for length in range(len(message)):
        with pytest.raises(WireError):
            openpgp.parse(message[:length])


def test_a_message_has_the_same_block_in_every_frame() -> None:
    body = bytes(range(256)) + bytes(344)
    frames = [
        KEY + b"\xd2" + (len(body) - 192 + (192 << 8)).to_bytes(2, "big") + body,
        KEY + new(18, body),
        KEY + b"\xd2\xe9" + body[:512] + b"\x58" + body[512:],
        KEY + b"\xd2\xe8" + body[:256] + b"\xe6" + body[256:320] + b"\xff" + (280).to_bytes(4, "big") + body[320:],
        new(1, session_key()) + new(18, body),
        old(1, session_key(OTHER)) + KEY + new(18, body),
    ]
    assert {openpgp.parse(frame).block for frame in frames} == {body}
