"""AES-256 in fwknop's modes, by the package cryptography."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import cryptography
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from doorward.values import EncryptionMode

if TYPE_CHECKING:
    from collections.abc import Callable

try:  # CFB and OFB live here since cryptography 47, which warns where they are taken from their old place
    from cryptography.hazmat.decrepit.ciphers.modes import CFB, OFB
except ImportError:
    from cryptography.hazmat.primitives.ciphers.modes import CFB, OFB

_OLDEST: Final = (3, 4)  # pyproject.toml has it too; earlier ones want a backend in every call


def require(version: str) -> None:
    """Refuse a cryptography that is too old.

    Raises:
        ImportError: it is; a missing one has raised this already.
    """
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST:
        msg = f"version {version} is older than {'.'.join(map(str, _OLDEST))}"
        raise ImportError(msg, name=cryptography.__name__)


require(cryptography.__version__)

# the type of a mode differs between the versions of cryptography, so it is Any here
_MODES: Final[dict[EncryptionMode, Callable[[bytes], Any]]] = {
    EncryptionMode.CBC: modes.CBC,
    EncryptionMode.LEGACY: modes.CBC,
    EncryptionMode.ECB: lambda _iv: modes.ECB(),  # noqa: S305  fwknop offers it; the salt makes the key fresh each time
    EncryptionMode.CFB: CFB,
    EncryptionMode.OFB: OFB,
    EncryptionMode.CTR: modes.CTR,
}


def encrypt(mode: EncryptionMode, key: bytes, iv: bytes, padded: bytes) -> bytes:
    """The ciphertext of whole blocks."""
    encryptor = Cipher(AES(key), _MODES[mode](iv)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def decrypt(mode: EncryptionMode, key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """The plaintext of whole blocks, with its padding."""
    decryptor = Cipher(AES(key), _MODES[mode](iv)).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()
