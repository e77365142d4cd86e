"""The keys of a copied keyring under a new passphrase, from which gpg-agent makes the key in no time.

gpg-agent keeps passphrases, not keys: it hashes the passphrase anew for every packet, for about 0.1 s by design, and
several times that on a busy host. The copy gets 256 random bits instead, which need no slow hash.
Source: GnuPG doc/DETAILS (grp), agent/command.c (PASSWD), agent/protect.c, the Assuan manual (client requests).
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes

from doorward.errors import OpenPgpError
from doorward.values import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import BufferedRWPair
    from pathlib import Path

S2K_COUNT: Final = 65536  # bytes to hash for a passphrase: the least that gpg-agent takes
_BYTES: Final = 32
_SECONDS: Final = 8.0  # an unlocking on a busy host
_LINE_MAX: Final = 1002  # Assuan's
_BAD_PASSPHRASE: Final = 11  # GPG_ERR_BAD_PASSPHRASE
_CODE: Final = 0xFFFF  # of an error; above it is its source


def relock(home: Path, keygrips: Iterable[str], password: Secret) -> Secret:
    """Give the keys of `home` a new passphrase and return it; where no key took it, `password` still is the one.

    An agent with `--s2k-count` of S2K_COUNT listens there.

    Raises:
        OpenPgpError: `password` is not the passphrase of these keys, or the agent does not answer.
    """
    here = [keygrip for keygrip in keygrips if (home / "private-keys-v1.d" / f"{keygrip}.key").exists()]
    new = Secret(secrets.token_hex(_BYTES).encode())
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as agent:
            agent.settimeout(_SECONDS)
            agent.connect(str(home / "S.gpg-agent"))
            with agent.makefile("rwb") as stream:
                _answer(stream, {})
                _ask(stream, "OPTION pinentry-mode=loopback", {})
                told = {"PASSPHRASE": password, "NEW_PASSPHRASE": new}
                errors = [_ask(stream, f"PASSWD {keygrip}", told) for keygrip in here]
    except OSError as error:
        msg = f"gpg-agent does not take a passphrase: {error}"
        raise OpenPgpError(msg) from error
    if 0 in errors:
        return new
    if _BAD_PASSPHRASE in errors:
        msg = "the passphrase does not open the key"
        raise OpenPgpError(msg)
    return password  # keys on a card, or in another place


def _ask(stream: BufferedRWPair, command: str, told: dict[str, Secret]) -> int:
    """The code of the error that a command ends with, 0 for none."""
    _say(stream, command)
    return _answer(stream, told)


def _answer(stream: BufferedRWPair, told: dict[str, Secret]) -> int:
    """The code of the agent's answer; its inquiries are answered from `told`."""
    while line := stream.readline(_LINE_MAX):
        word, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
        if word == "OK":
            return 0
        if word == "ERR":
            return int(rest.split(" ")[0]) & _CODE
        if word == "INQUIRE":
            asked = told.get(rest.split(" ")[0])
            if asked is not None:
                _say(stream, f"D {quote_from_bytes(asked.reveal(), safe='')}")
            _say(stream, "CAN" if asked is None else "END")
    msg = "it ended"
    raise OSError(msg)


def _say(stream: BufferedRWPair, line: str) -> None:
    stream.write(f"{line}\n".encode())
    stream.flush()
