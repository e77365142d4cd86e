"""AES-256-CBC by the OpenSSL library that Python's own hashlib has loaded.

cryptography does the same with the same library, but takes 30 to 70 ms to load, and `doorward connect` encrypts one
message before every ssh. None where the library cannot be reached: hashlib without OpenSSL, or linked into Python.
"""

from __future__ import annotations

import ctypes
from typing import Final

_KEY_BYTES: Final = 32
_IV_BYTES: Final = 16
_DONE: Final = 1
_POINTER: Final = ctypes.c_void_p
_SIGNATURES: Final = {  # openssl/evp.h
    "EVP_aes_256_cbc": (_POINTER,),
    "EVP_CIPHER_CTX_new": (_POINTER,),
    "EVP_CIPHER_CTX_free": (None, _POINTER),
    "EVP_CIPHER_CTX_set_padding": (ctypes.c_int, _POINTER, ctypes.c_int),
    "EVP_EncryptInit_ex": (ctypes.c_int, _POINTER, _POINTER, _POINTER, ctypes.c_char_p, ctypes.c_char_p),
    "EVP_EncryptUpdate": (ctypes.c_int, _POINTER, _POINTER, _POINTER, ctypes.c_char_p, ctypes.c_int),
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

        library = ctypes.CDLL(_hashlib.__file__)
        for name, (result, *arguments) in _SIGNATURES.items():
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
    except (ImportError, AttributeError, OSError):  # built into Python: no file; on Windows no names of its libraries
        return None
    return library
