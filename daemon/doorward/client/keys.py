"""`doorward keys generate`: a new pair of keys, printed or put into a file that nobody else can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.client.files import create, replace_file
from doorward.crypto.keys import HMAC_KEY_BYTES, KEY_BYTES, generate
from doorward.errors import ClientError
from doorward.values import DigestType

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# lib/fko_funcs.c fko_key_gen(): as long as the hash's block, for the two short hashes as its output
_HMAC_BYTES: Final = {DigestType.MD5: 16, DigestType.SHA1: 20, DigestType.SHA384: 128, DigestType.SHA512: 128}


def new(
    random_bytes: Callable[[int], bytes],
    key_bytes: int | None = None,
    hmac_bytes: int | None = None,
    hmac_digest: DigestType | None = None,
) -> str:
    """Return the two lines that `fwknop --key-gen` prints; without a length the HMAC key is as long as fwknop's.

    Raises:
        WireError: a length that fwknop cannot use.
    """
    default = HMAC_KEY_BYTES if hmac_digest is None else _HMAC_BYTES.get(hmac_digest, HMAC_KEY_BYTES)
    return generate(random_bytes, key_bytes or KEY_BYTES, hmac_bytes or default)


def write(text: str, path: Path, *, force: bool = False, instead: str = "--force replaces it") -> None:
    """Write a key text to a new file of mode 0600; with `force` replace what stands there in one step.

    `instead` says for the error what would replace it.

    Raises:
        ClientError: the file exists, or cannot be written.
    """
    content = text.encode("ascii")
    try:
        if force:
            replace_file(path, content)
        else:
            create(path, content)
    except FileExistsError as error:
        msg = f"{path}: exists, and keys are never overwritten unasked: name another file ({instead})"
        raise ClientError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror or error}"
        raise ClientError(msg) from error
