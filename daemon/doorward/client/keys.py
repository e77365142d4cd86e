"""`doorward keys generate`: a new pair of keys, printed or written to a file of mode 0600."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.crypto.keys import HMAC_KEY_BYTES, KEY_BYTES, generate
from doorward.errors import ClientError
from doorward.linux.files import create, replace_file
from doorward.values import DigestType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# lib/fko_funcs.c fko_key_gen(): as long as the hash's block, for the two short hashes as its output
_HMAC_BYTES: Final = {DigestType.MD5: 16, DigestType.SHA1: 20, DigestType.SHA384: 128, DigestType.SHA512: 128}


def new(
    random_bytes: Callable[[int], bytes],
    key_bytes: int | None = None,
    hmac_bytes: int | None = None,
    hmac_digest: DigestType | None = None,
) -> str:
    """The two lines that `fwknop --key-gen` prints; by default the HMAC key is as long as fwknop's.

    Raises:
        WireError: a length that fwknop cannot use.
    """
    default = HMAC_KEY_BYTES if hmac_digest is None else _HMAC_BYTES.get(hmac_digest, HMAC_KEY_BYTES)
    return generate(random_bytes, key_bytes or KEY_BYTES, hmac_bytes or default)


def key_file(environ: Mapping[str, str]) -> Path:
    """This user's key pair of the format doorward 1, in the folder for configuration (XDG base directories)."""
    home = environ.get("HOME") or environ.get("USERPROFILE") or "/"
    return Path(environ.get("XDG_CONFIG_HOME") or Path(home) / ".config") / "doorward/client.key"


def write(text: str, path: Path, *, force: bool = False, instead: str = "--force replaces it") -> None:
    """Write a key text to a new file of mode 0600; with `force` replace an old file in one step.

    `instead` is the error's advice on how to replace the file.

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
        msg = f"{path}: exists, and keys are not overwritten by default: name another file ({instead})"
        raise ClientError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror or error}"
        raise ClientError(msg) from error
