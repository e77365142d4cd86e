"""What the library behind hashlib makes: the same bytes as cryptography's, or none at all."""

from __future__ import annotations

import _hashlib
import ctypes
import os
import sys
from types import ModuleType

import pytest

from doorward.crypto import ciphers, curve, libcrypto, sealing, symmetric
from doorward.crypto.doorward import Pair, public_key
from doorward.values import EncryptionMode, PublicKey, Secret
from unit.making import KEYS


@pytest.mark.parametrize("blocks", [0, 1, 2, 15, 24])
def test_its_bytes_are_those_of_cryptography(blocks: int) -> None:
    key, iv, text = os.urandom(32), os.urandom(16), os.urandom(16 * blocks)
    assert libcrypto.encrypt_cbc(key, iv, text) == ciphers.encrypt(EncryptionMode.CBC, key, iv, text)


@pytest.mark.parametrize("sizes", [(31, 16, 16), (32, 15, 16), (32, 16, 17), (0, 16, 16), (32, 0, 16)])
def test_sizes_that_would_be_read_beyond_their_end_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="AES-256-CBC"):
        libcrypto.encrypt_cbc(*(bytes(size) for size in sizes))


@pytest.mark.parametrize(("text", "data"), [(0, 0), (1, 8), (128, 8), (1000, 0)])
def test_its_sealed_bytes_are_those_of_cryptography(text: int, data: int) -> None:
    given = os.urandom(32), os.urandom(12), os.urandom(text), os.urandom(data)
    made = libcrypto.encrypt_chacha20_poly1305(*given)
    assert made == curve.encrypt(*given)
    assert made is not None
    assert curve.decrypt(curve.box(given[0]), given[1], made, given[3]) == given[2]


def test_its_public_keys_and_shared_secrets_are_those_of_cryptography() -> None:
    one, other = os.urandom(32), os.urandom(32)
    public = libcrypto.x25519_public(other)
    assert public is not None
    assert public == curve.public(other)
    shared = libcrypto.x25519(one, public)
    assert shared is not None
    assert shared == curve.exchange(one, PublicKey(public)) == curve.exchange(other, PublicKey(curve.public(one)))


def test_a_secret_that_everybody_would_share_is_none() -> None:
    assert libcrypto.x25519(os.urandom(32), bytes(32)) is None


@pytest.mark.parametrize("sizes", [(31, 12), (33, 12), (32, 11), (32, 13), (0, 0)])
def test_other_sizes_of_keys_and_nonces_are_refused(sizes: tuple[int, int]) -> None:
    key, other = map(bytes, sizes)
    with pytest.raises(ValueError, match="ChaCha20-Poly1305"):
        libcrypto.encrypt_chacha20_poly1305(key, other, b"", b"")
    with pytest.raises(ValueError, match="X25519"):
        libcrypto.x25519(key, other)
    with pytest.raises(ValueError, match="X25519"):
        libcrypto.x25519_public(other)


def without_the_module(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "_hashlib", None)


def built_into_python(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "_hashlib", ModuleType("_hashlib"))


def of_another_library(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_hashlib, "__file__", ctypes.__file__)


def that_refuses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(libcrypto, "_encrypted", lambda *_: None)


@pytest.mark.parametrize("change", [without_the_module, built_into_python, of_another_library, that_refuses])
def test_where_it_cannot_be_had_cryptography_seals(change: object, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = sealing.seal(b"1" * 40, KEYS, b"saltsalt")
    assert callable(change)
    change(monkeypatch)
    assert libcrypto.encrypt_cbc(bytes(32), bytes(16), bytes(16)) is None
    assert sealing.seal(b"1" * 40, KEYS, b"saltsalt") == usual
    assert symmetric.verify(usual, KEYS) is not None


CALLS = ("EVP_PKEY_new_raw_private_key", "EVP_PKEY_CTX_new", "EVP_PKEY_derive_init", "EVP_PKEY_derive_set_peer")


@pytest.mark.parametrize("change", [without_the_module, built_into_python, of_another_library])
def test_where_it_cannot_be_had_cryptography_makes_the_packets_of_key_pairs(
    change: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, host = Secret(b"c" * 32), public_key(Secret(b"h" * 32))
    usual = Pair.of_client(client, host).seal(bytes(128), 7, bytes(12))
    assert callable(change)
    change(monkeypatch)
    assert libcrypto.x25519_public(b"c" * 32) is None
    assert libcrypto.x25519(b"c" * 32, host.raw) is None
    assert libcrypto.encrypt_chacha20_poly1305(bytes(32), bytes(12), b"", b"") is None
    assert Pair.of_client(client, host).seal(bytes(128), 7, bytes(12)) == usual
    assert public_key(Secret(b"h" * 32)) == host


@pytest.mark.parametrize("call", ["EVP_CIPHER_CTX_new", "EVP_EncryptFinal_ex", "EVP_CIPHER_CTX_ctrl", *CALLS])
def test_a_library_that_refuses_one_step_makes_no_packet_of_a_key_pair(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = libcrypto._library()  # noqa: SLF001  as below
    assert library is not None
    monkeypatch.setattr(libcrypto, "_library", lambda: library)

    def made() -> list[bytes | None]:
        sealed = libcrypto.encrypt_chacha20_poly1305(bytes(32), bytes(12), b"", b"")
        return [sealed, libcrypto.x25519(b"c" * 32, curve.public(b"h" * 32)), libcrypto.x25519_public(b"c" * 32)]

    assert None not in made()
    monkeypatch.setattr(library, call, lambda *_: None)
    assert None in made()


def test_a_library_that_fails_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL refuses a cipher by answering 0, as where a policy forbids it."""
    library = libcrypto._library()  # noqa: SLF001  to take a part of it away
    assert library is not None
    assert libcrypto.encrypt_cbc(bytes(32), bytes(16), bytes(16)) is not None
    monkeypatch.setattr(libcrypto, "_library", lambda: library)
    monkeypatch.setattr(library, "EVP_EncryptInit_ex", lambda *_: 0)
    assert libcrypto.encrypt_cbc(bytes(32), bytes(16), bytes(16)) is None
    monkeypatch.setattr(library, "EVP_CIPHER_CTX_new", lambda: None)
    assert libcrypto.encrypt_cbc(bytes(32), bytes(16), bytes(16)) is None
