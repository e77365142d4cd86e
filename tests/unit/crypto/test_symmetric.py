"""The symmetric envelope: what it refuses to seal and to open."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from doorward.crypto import ciphers, keys, symmetric
from doorward.errors import AuthenticationError, WireError
from doorward.values import DigestType, EncryptionMode, Secret, SymmetricKeys
from doorward.wire import fwknop
from unit.making import KEYS, MESSAGE, payload

PLAINTEXT = fwknop.serialize(MESSAGE)
SALT = b"saltsalt"


@pytest.mark.parametrize("mode", list(EncryptionMode))
@pytest.mark.parametrize("digest", [None, *DigestType])
def test_what_is_sealed_is_opened_by_the_same_keys_alone(mode: EncryptionMode, digest: DigestType | None) -> None:
    hmac_key = None if digest is None else Secret(b"h" * 40)
    pair = SymmetricKeys(Secret(b"k" * 20), hmac_key, digest or DigestType.SHA256, mode)
    other = SymmetricKeys(Secret(b"K" * 20), hmac_key, digest or DigestType.SHA256, mode)
    sealed = symmetric.seal(PLAINTEXT, pair, SALT)
    assert symmetric.unseal(sealed, pair) == PLAINTEXT
    with pytest.raises(AuthenticationError):
        symmetric.unseal(sealed, other)


def test_a_wrong_hmac_key_is_noticed_before_anything_is_decrypted() -> None:
    with pytest.raises(AuthenticationError, match="HMAC"):
        symmetric.unseal(payload(), SymmetricKeys(KEYS.key, Secret(b"other")))


@pytest.mark.parametrize("salt", [b"", b"1234567", b"123456789"])
def test_a_salt_of_another_length_is_refused(salt: bytes) -> None:
    with pytest.raises(WireError, match="salt"):
        symmetric.seal(PLAINTEXT, KEYS, salt)


def test_a_message_that_would_be_taken_for_openpgp_is_refused() -> None:
    with pytest.raises(WireError, match="too long"):
        symmetric.seal(b"x" * 300, KEYS, SALT)


@pytest.mark.parametrize("blob", [b"Salted__" + b"s" * 24, b"Salted_x" + b"s" * 56, b"Salted__" + b"s" * 57])
def test_a_blob_that_is_not_salted_whole_blocks_is_refused(blob: bytes) -> None:
    with pytest.raises(WireError):
        symmetric.decode(fwknop.encode_blob(blob))


def test_made_keys_are_in_fwknops_spelling_and_named_without_being_told() -> None:
    made = keys.generate(lambda count: b"\xaa" * count)
    assert made == f"KEY_BASE64: {'qqqq' * 10}qqo=\nHMAC_KEY_BASE64: {'qqqq' * 21}qg==\n"
    assert keys.fingerprint(made) == keys.fingerprint(made.replace("\n", "  \r\n"))
    assert keys.fingerprint(made) != keys.fingerprint(made.lower())
    assert keys.fingerprint(made).startswith("SHA256:")


@pytest.mark.parametrize(("key_bytes", "hmac_bytes"), [(0, 64), (33, 64), (32, 0), (32, 129)])
def test_key_lengths_that_fwknop_cannot_use_are_refused(key_bytes: int, hmac_bytes: int) -> None:
    with pytest.raises(WireError):
        keys.generate(bytes, key_bytes, hmac_bytes)


def test_an_older_cryptography_has_the_modes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.decrepit.ciphers.modes", None)
    older = ModuleType("cryptography.hazmat.primitives.ciphers.modes")
    here = {mode.name: ciphers._MODES[mode] for mode in (EncryptionMode.CFB, EncryptionMode.OFB)}  # noqa: SLF001  both
    vars(older).update(here)
    monkeypatch.setitem(sys.modules, older.__name__, older)
    described = importlib.util.spec_from_file_location("ciphers_of_old", ciphers.__file__)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    assert {name: getattr(module, name) for name in here} == here


@pytest.mark.parametrize(("version", "good"), [("3.3.2", False), ("3.4", True), ("3.10rc1", True), ("42.0.1", True)])
def test_a_cryptography_before_3_4_counts_as_missing(version: str, good: bool) -> None:  # noqa: FBT001  a parameter
    if good:
        ciphers.require(version)
        return
    with pytest.raises(ImportError, match="older than") as raised:
        ciphers.require(version)
    assert raised.value.name == "cryptography"
