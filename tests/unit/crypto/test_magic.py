"""The MAC of the magic packet."""

from __future__ import annotations

import pytest

from doorward.crypto import magic
from doorward.values import Secret
from doorward.wire.magic import parse

PASSWORD = Secret(b"correct horse battery")
# printf 18000000000f0e0d0c0b0a09080706050403020100 | openssl dgst -sha256 -hmac "correct horse battery"
TIME, NONCE = 1_800_000_000, bytes(range(15, -1, -1))


def test_a_packet_is_of_the_password_that_made_it_and_of_no_other() -> None:
    packet = magic.seal(PASSWORD, TIME, NONCE)
    assert len(packet) == 106
    assert packet[64:] == b"18000000000f0e0d0c0b0a09080706050403020100"
    assert magic.is_of(parse(packet), PASSWORD)
    for other in (b"correct horse batterz", b"correct horse batter", b"", b"x" * 64):
        assert not magic.is_of(parse(packet), Secret(other))


@pytest.mark.parametrize("place", range(106))
def test_a_packet_with_another_digit_is_of_no_password(place: int) -> None:
    packet = bytearray(magic.seal(PASSWORD, TIME, NONCE))
    packet[place] = ord("0") if packet[place] != ord("0") else ord("1")
    assert not magic.is_of(parse(bytes(packet)), PASSWORD)


@pytest.mark.parametrize("nonce", [b"\x12" * 16, bytes.fromhex("00") * 4 + b"\x12" * 8 + bytes(4)])
def test_a_packet_that_shows_its_password_is_refused(nonce: bytes) -> None:
    shown, other = Secret(b"12" * 8), Secret(b"13" * 8)
    assert not magic.is_of(parse(magic.seal(shown, TIME, nonce)), shown)
    assert magic.is_of(parse(magic.seal(other, TIME, nonce)), other)
