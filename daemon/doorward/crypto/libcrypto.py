"""AES-256-CBC, ChaCha20-Poly1305 and X25519 by the OpenSSL library that Python's own hashlib has loaded.

cryptography does the same with the same library, but takes 30 to 70 ms to load, and `doorward connect` encrypts one
message before every ssh. None where the library cannot be reached (hashlib without OpenSSL, or linked into Python), or
refuses. Every length is checked before the library sees it: one in C would read beyond an end.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY_BYTES: Final = 32
_IV_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_MAC_BYTES: Final = 16
_DONE: Final = 1
_X25519: Final = 1034  # NID_X25519, openssl/obj_mac.h
_GET_TAG: Final = 0x10  # EVP_CTRL_AEAD_GET_TAG, openssl/evp.h
_POINTER: Final = ctypes.c_void_p
_SIGNATURES: Final = {  # openssl/evp.h
    "EVP_aes_256_cbc": (_POINTER,),
    "EVP_CIPHER_CTX_new": (_POINTER,),
    "EVP_CIPHER_CTX_free": (None, _POINTER),
    "EVP_CIPHER_CTX_set_padding": (ctypes.c_int, _POINTER, ctypes.c_int),
    "EVP_EncryptInit_ex": (ctypes.c_int, _POINTER, _POINTER, _POINTER, ctypes.c_char_p, ctypes.c_char_p),
    "EVP_EncryptUpdate": (ctypes.c_int, _POINTER, _POINTER, _POINTER, ctypes.c_char_p, ctypes.c_int),
    "EVP_EncryptFinal_ex": (ctypes.c_int, _POINTER, _POINTER, _POINTER),
    "EVP_CIPHER_CTX_ctrl": (ctypes.c_int, _POINTER, ctypes.c_int, ctypes.c_int, _POINTER),
    "EVP_chacha20_poly1305": (_POINTER,),
    "EVP_PKEY_new_raw_private_key": (_POINTER, ctypes.c_int, _POINTER, ctypes.c_char_p, ctypes.c_size_t),
    "EVP_PKEY_new_raw_public_key": (_POINTER, ctypes.c_int, _POINTER, ctypes.c_char_p, ctypes.c_size_t),
    "EVP_PKEY_get_raw_public_key": (ctypes.c_int, _POINTER, _POINTER, _POINTER),
    "EVP_PKEY_free": (None, _POINTER),
    "EVP_PKEY_CTX_new": (_POINTER, _POINTER, _POINTER),
    "EVP_PKEY_CTX_free": (None, _POINTER),
    "EVP_PKEY_derive_init": (ctypes.c_int, _POINTER),
    "EVP_PKEY_derive_set_peer": (ctypes.c_int, _POINTER, _POINTER),
    "EVP_PKEY_derive": (ctypes.c_int, _POINTER, _POINTER, _POINTER),
}


def encrypt_cbc(key: bytes, iv: bytes, padded: bytes) -> bytes | None:
    """The ciphertext of whole blocks, or None where the library cannot be reached or refuses.

    Raises:
        ValueError: key, IV or text have another size; a library in C would read beyond their end.
    """
    if len(key) != _KEY_BYTES or len(iv) != _IV_BYTES or len(padded) % _IV_BYTES:
        msg = f"AES-256-CBC takes no key of {len(key)}, IV of {len(iv)} and text of {len(padded)} bytes"
        raise ValueError(msg)
    library = _library()
    context = None if library is None else library.EVP_CIPHER_CTX_new()
    if library is None or context is None:
        return None
    try:
        return _encrypted(library, context, (key, iv, padded))
    finally:
        library.EVP_CIPHER_CTX_free(context)  # wipes the key's schedule


def encrypt_chacha20_poly1305(key: bytes, nonce: bytes, plaintext: bytes, data: bytes) -> bytes | None:
    """The ciphertext with its tag of 16 bytes (RFC 8439), or None as above; `data` is authenticated too.

    Raises:
        ValueError: key or nonce have another size.
    """
    _check("ChaCha20-Poly1305", key, nonce, (_KEY_BYTES, _NONCE_BYTES))
    library = _library()
    context = None if library is None else library.EVP_CIPHER_CTX_new()
    if library is None or context is None:
        return None
    length, mac = ctypes.c_int(), ctypes.create_string_buffer(_MAC_BYTES)
    out = ctypes.create_string_buffer(len(plaintext) + _IV_BYTES)
    size = ctypes.byref(length)
    try:
        done = (
            library.EVP_EncryptInit_ex(context, library.EVP_chacha20_poly1305(), None, key, nonce) == _DONE
            and library.EVP_EncryptUpdate(context, None, size, data, len(data)) == _DONE
            and library.EVP_EncryptUpdate(context, out, size, plaintext, len(plaintext)) == _DONE
            and length.value == len(plaintext)
            and library.EVP_EncryptFinal_ex(context, ctypes.byref(out, len(plaintext)), size) == _DONE
            and library.EVP_CIPHER_CTX_ctrl(context, _GET_TAG, _MAC_BYTES, mac) == _DONE
        )
    finally:
        library.EVP_CIPHER_CTX_free(context)
    return out.raw[: len(plaintext)] + mac.raw if done else None


def x25519_public(private: bytes) -> bytes | None:
    """The public half of a private key (RFC 7748), or None as above.

    Raises:
        ValueError: the key has another size.
    """
    _check("X25519", private, private, (_KEY_BYTES, _KEY_BYTES))
    library = _library()
    key = None if library is None else library.EVP_PKEY_new_raw_private_key(_X25519, None, private, _KEY_BYTES)
    if library is None or key is None:
        return None
    try:
        return _filled(lambda out, size: library.EVP_PKEY_get_raw_public_key(key, out, size))
    finally:
        library.EVP_PKEY_free(key)


def x25519(private: bytes, public: bytes) -> bytes | None:
    """The secret that two keys share, or None as above, also where it would be zero.

    Raises:
        ValueError: a key has another size.
    """
    _check("X25519", private, public, (_KEY_BYTES, _KEY_BYTES))
    library = _library()
    if library is None:
        return None
    own = library.EVP_PKEY_new_raw_private_key(_X25519, None, private, _KEY_BYTES)
    other = library.EVP_PKEY_new_raw_public_key(_X25519, None, public, _KEY_BYTES)
    context = library.EVP_PKEY_CTX_new(own, None) if own and other else None
    try:
        if context is None or library.EVP_PKEY_derive_init(context) != _DONE:
            return None
        if library.EVP_PKEY_derive_set_peer(context, other) != _DONE:
            return None
        return _filled(lambda out, size: library.EVP_PKEY_derive(context, out, size))
    finally:  # each takes a null pointer
        library.EVP_PKEY_CTX_free(context)
        library.EVP_PKEY_free(other)
        library.EVP_PKEY_free(own)


def _check(name: str, key: bytes, other: bytes, sizes: tuple[int, int]) -> None:
    if (len(key), len(other)) != sizes:
        msg = f"{name} takes no values of {len(key)} and {len(other)} bytes"
        raise ValueError(msg)


def _filled(fill: Callable[[Any, Any], int]) -> bytes | None:
    """A key's worth of bytes, as a call of the library writes them."""
    out, size = ctypes.create_string_buffer(_KEY_BYTES), ctypes.c_size_t(_KEY_BYTES)
    return out.raw if fill(out, ctypes.byref(size)) == _DONE and size.value == _KEY_BYTES else None


def _encrypted(library: ctypes.CDLL, context: int, given: tuple[bytes, bytes, bytes]) -> bytes | None:
    key, iv, padded = given
    out = ctypes.create_string_buffer(len(padded) + _IV_BYTES)
    length = ctypes.c_int()
    if (
        library.EVP_EncryptInit_ex(context, library.EVP_aes_256_cbc(), None, key, iv) != _DONE
        or library.EVP_CIPHER_CTX_set_padding(context, 0) != _DONE
        or library.EVP_EncryptUpdate(context, out, ctypes.byref(length), padded, len(padded)) != _DONE
        or length.value != len(padded)
    ):
        return None
    return out.raw[: length.value]


def _library() -> ctypes.CDLL | None:
    """The library, looked up through the extension module that is linked with it: no name of a file is guessed."""
    try:
        import _hashlib  # noqa: PLC0415  a Python without OpenSSL has none

        return _loaded(_hashlib.__file__)
    except (ImportError, AttributeError, OSError):  # built into Python: no file; on Windows no names of its libraries
        return None


@functools.cache
def _loaded(file: str) -> ctypes.CDLL:
    """The library that a module is linked with, with its calls declared: once, since a packet needs it three times."""
    library = ctypes.CDLL(file)
    for name, (result, *arguments) in _SIGNATURES.items():
        call = getattr(library, name)
        call.restype, call.argtypes = result, arguments
    return library
