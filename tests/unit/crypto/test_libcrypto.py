"""AES-256-CBC by the library behind hashlib: the same bytes as cryptography's, or none at all."""

from __future__ import annotations

import _hashlib
import ctypes
import os
import sys
from types import ModuleType

import pytest

from doorward.crypto import ciphers, libcrypto, sealing, symmetric
from doorward.values import EncryptionMode
from unit.making import KEYS


@pytest.mark.parametrize("blocks", [0, 1, 2, 15, 24])
def test_its_bytes_are_those_of_cryptography(blocks: int) -> None:
    key, iv, text = os.urandom(32), os.urandom(16), os.urandom(16 * blocks)
    assert libcrypto.encrypt_cbc(key, iv, text) == ciphers.encrypt(EncryptionMode.CBC, key, iv, text)


@pytest.mark.parametrize("sizes", [(31, 16, 16), (32, 15, 16), (32, 16, 17), (0, 16, 16), (32, 0, 16)])
def test_sizes_that_would_be_read_beyond_their_end_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="AES-256-CBC"):
        libcrypto.encrypt_cbc(*(bytes(size) for size in sizes))


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
