"""The words of a pair of keys: the same on both sides, and others for other keys."""

from __future__ import annotations

import hashlib
import re

import pytest

from doorward.crypto import fingerprint
from doorward.crypto.doorward import public_key
from doorward.values import Secret

KEY, HMAC_KEY = Secret(b"k" * 32), Secret(b"h" * 64)
WORDS = fingerprint.words(KEY, HMAC_KEY)


def test_the_words_never_change() -> None:
    """The other side may be another version."""
    assert WORDS == "57B3-3WKD (five seven bravo three, three whiskey kilo delta)"


def test_the_words_of_a_public_key_never_change_either() -> None:
    told = "HPNW-6ULC-WD6L (hotel papa november whiskey, six uniform lima charlie, whiskey delta six lima)"
    assert fingerprint.of_public(public_key(Secret(b"h" * 32))) == told
    assert fingerprint.of_public(public_key(Secret(b"i" * 32))) != told


def test_the_letters_are_spelled_in_their_order() -> None:
    letters, spelled = WORDS.rstrip(")").split(" (")
    assert re.fullmatch(r"[A-Z2-7]{4}-[A-Z2-7]{4}", letters)
    firsts = [word[0].upper() for word in re.split(r",? ", spelled)]
    digits = dict(zip(("two", "three", "four", "five", "six", "seven"), "234567", strict=True))
    told = "".join(digits.get(word, first) for word, first in zip(re.split(r",? ", spelled), firsts, strict=True))
    assert told == letters.replace("-", "")


@pytest.mark.parametrize(
    "pair",
    [
        (Secret(b"k" * 31 + b"l"), HMAC_KEY),
        (KEY, Secret(b"h" * 63 + b"i")),
        (HMAC_KEY, KEY),
        (Secret(b"k" * 31), Secret(b"k" + b"h" * 64)),
        (KEY, None),
        (None, HMAC_KEY),
    ],
    ids=["key", "HMAC key", "swapped", "moved", "no HMAC key", "GnuPG"],
)
def test_other_keys_have_other_words(pair: tuple[Secret | None, Secret | None]) -> None:
    assert fingerprint.words(*pair) != WORDS


def test_a_python_without_scrypt_says_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hashlib, "scrypt")
    assert fingerprint.words(KEY, HMAC_KEY) == WORDS
