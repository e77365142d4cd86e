"""One value, one spelling: base64, services, durations."""

from __future__ import annotations

import argparse
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.crypto import symmetric
from doorward.errors import AuthenticationError, WireError
from doorward.host import here
from doorward.values import GRANT_SECONDS_MAX, EncryptionMode, Protocol, Service, SymmetricKeys
from doorward.wire import fwknop
from unit.making import KEYS

ALPHABET = (string.ascii_letters + string.digits + "+/").encode()


@given(st.binary(max_size=200))
def test_bytes_survive_base64_and_no_other_last_character_means_them(blob: bytes) -> None:
    text = fwknop.encode_blob(blob)
    assert fwknop.decode_blob(text) == blob
    others = {text[:-1] + bytes([last]) for last in ALPHABET if text} - {text}
    assert blob not in map(decoded, others)


def decoded(text: bytes) -> bytes | None:
    try:
        return fwknop.decode_blob(text)
    except WireError:
        return None


@given(st.binary(max_size=60), st.integers(0, 80), st.sampled_from([b"=", b" ", b"\n", b"-", b"_", b"\0", b"\xff"]))
def test_base64_with_anything_put_in_is_refused(blob: bytes, place: int, sign: bytes) -> None:
    text = fwknop.encode_blob(blob)
    with pytest.raises(WireError):
        fwknop.decode_blob(text[:place] + sign + text[place:])


@given(st.binary(max_size=220), st.binary(min_size=8, max_size=8), st.sampled_from(EncryptionMode))
def test_what_is_sealed_comes_out_of_the_blob_again_and_one_changed_character_does_not_pass(
    body: bytes, salt: bytes, mode: EncryptionMode
) -> None:
    keys = SymmetricKeys(KEYS.key, KEYS.hmac_key, mode=mode)
    plaintext = b"0123456789012345:" + body.ljust(60, b"x")
    payload = symmetric.seal(plaintext, keys, salt)
    assert symmetric.unseal(payload, keys) == plaintext
    for place in range(0, len(payload), 17):
        changed = payload[:place] + (b"A" if payload[place : place + 1] != b"A" else b"B") + payload[place + 1 :]
        with pytest.raises((WireError, AuthenticationError)):
            symmetric.unseal(changed, keys)


@given(st.sampled_from(Protocol), st.integers(-10, 70_000))
def test_a_service_is_read_within_its_ports_alone(protocol: Protocol, port: int) -> None:
    text = f"{protocol}/{port}"
    if 1 <= port <= 65535:
        assert str(Service.parse(text)) == text
    else:
        with pytest.raises(WireError):
            Service.parse(text)


@given(st.integers(0, 10**10), st.sampled_from(["", "s", "m", "h"]))
def test_a_duration_is_its_seconds_or_refused(number: int, unit: str) -> None:
    seconds = number * {"": 1, "s": 1, "m": 60, "h": 3600}[unit]
    if 1 <= seconds <= GRANT_SECONDS_MAX:
        assert here.duration(f"{number}{unit}") == seconds
    else:
        with pytest.raises(argparse.ArgumentTypeError):
            here.duration(f"{number}{unit}")


@given(st.text(max_size=12).filter(lambda text: not text.isascii() or not text.strip().isalnum()))
def test_a_duration_of_any_other_text_is_refused(text: str) -> None:
    for read in (here.duration, here.deadline):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)
