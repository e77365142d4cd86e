# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key text: what `doorward keys` prints and `ansible_spa_key` holds; standard library only.

Two lines of secrets (`KEY_BASE64`, `HMAC_KEY_BASE64`), or for the format doorward 1 a line `HOST_KEY`, with lines
`CLIENT_KEY_FILE` and `PSK_BASE64` where the client's own defaults are not meant.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_BYTES = 32  # AES-256
HMAC_BYTES = 64  # the block of SHA-256: longer keys would be hashed first (RFC 2104, section 2)
_NAMES = ("KEY_BASE64", "HMAC_KEY_BASE64")
NO_PSK = "none"
# Compiled where they are used, since every task imports this.
_BLOCK = r"(?m)^# (host|no key): (.*)$"
_LINE = r"(KEY_BASE64|HMAC_KEY_BASE64):?[ \t]+([A-Za-z0-9+/]+={0,2})"
PUBLIC_FORM = r"doorward1 [A-Za-z0-9+/]{43}=(?: [A-Za-z0-9_.@:+%\[\]-]{1,100})?"
_SHOWN = r"(?:doorward1|ssh-[a-z0-9-]+) "  # what else stands there may be a private half
_PUBLIC_VALUES = {
    "HOST_KEY": PUBLIC_FORM,
    "CLIENT_KEY_FILE": r"\S+",
    "PSK_BASE64": r"[A-Za-z0-9+/]{43}=",
}


class KeyTextError(ValueError):
    """A text that is not the two lines of a key; the message never repeats the text."""


def render(key: bytes, hmac_key: bytes) -> str:
    """Return the two lines of a key."""
    pairs = zip(_NAMES, (key, hmac_key), strict=True)
    return "".join(f"{name}: {base64.b64encode(raw).decode()}\n" for name, raw in pairs)


def parse(text: str) -> dict[str, str]:
    """Return the base64 text of both keys by name.

    Raises:
        KeyTextError: a line is unknown, repeated or missing, is not base64, or both keys are the same.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), start=1):
        match = re.fullmatch(_LINE, line)
        if match is None or match[1] in found:
            msg = f"line {number} of the key is neither `KEY_BASE64: …` nor `HMAC_KEY_BASE64: …`, each once"
            raise KeyTextError(msg)
        found[match[1]] = _canonical(match[2], number)
    missing = [name for name in _NAMES if name not in found]
    if missing:
        msg = f"the key lacks {' and '.join(missing)}"
        raise KeyTextError(msg)
    if found["KEY_BASE64"] == found["HMAC_KEY_BASE64"]:
        msg = "KEY_BASE64 and HMAC_KEY_BASE64 are the same key"
        raise KeyTextError(msg)
    return found


def fingerprint(text: str) -> str:
    """Return `SHA256:…` of both keys, in OpenSSH's spelling: tells keys apart and gives nothing away."""
    keys = parse(text)
    digest = hashlib.sha256(b"\n".join(keys[name].encode() for name in _NAMES)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def public(line: str) -> str:
    """Return a public key, `doorward1 BASE64` with or without a name behind it, as it is written once for all.

    Raises:
        KeyTextError: it is none.
    """
    words = line.split()
    if not re.fullmatch(PUBLIC_FORM, " ".join(words)):
        shown = repr(line.strip()[:70]) if re.match(_SHOWN, line.strip()) else "this text"
        msg = f"{shown} is no public key: doorward1 BASE64 NAME, as `doorward keys show` prints it"
        raise KeyTextError(msg)
    raw = base64.b64decode(words[1])
    if base64.b64encode(raw).decode() != words[1]:
        msg = "the public key is not base64, or was cut"
        raise KeyTextError(msg)
    return " ".join(words)


def of_public(host_key: str, client_key_file: str = "", psk: str = "") -> str:
    """Return the key text of the format doorward 1; empty values are left out."""
    values = {"HOST_KEY": host_key, "CLIENT_KEY_FILE": client_key_file, "PSK_BASE64": psk}
    return "".join(f"{name}: {value}\n" for name, value in values.items() if value)


def is_public(text: str) -> bool:
    """Tell whether a key text is of the format doorward 1."""
    return any(line.split(maxsplit=1)[0].rstrip(":") in _PUBLIC_VALUES for line in text.splitlines() if line.strip())


def host_key(text: str) -> str:
    """Return the host's public key in a key text; empty where it is of the other format."""
    return _parse_public(text)["HOST_KEY"] if is_public(text) else ""


def stanza(text: str, name: str = "default") -> str:
    """Return the key as a stanza of a .fwknoprc file."""
    settings = _parse_public(text) if is_public(text) else parse(text)
    return f"[{name}]\n" + "".join(f"{option} {key}\n" for option, key in settings.items())


def of_hosts(texts: Mapping[str, str]) -> str:
    """Return one text with the key text of each host, by the name that its connection knows it by."""
    return "".join(f"# host: {name}\n{text}" for name, text in texts.items() if text)


def psk(text: str) -> str:
    """Return the pre-shared key in a key text; empty where it has none."""
    return _parse_public(text).get("PSK_BASE64", "") if is_public(text) else ""


def psk_mark(psk: str) -> str:
    """Return the mark that tells a pre-shared key of 32 random bytes from others in an inventory: a hash, no secret."""
    if not psk:
        return NO_PSK
    digest = hashlib.sha256(f"doorward psk {psk}".encode()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def known_psk(mark: str, psk: str, previous: str) -> str:
    """Return the pre-shared key that a host knows by the mark that the inventory has of it; `psk` where it has no mark.

    Raises:
        KeyTextError: it is neither of the two.
    """
    known = {NO_PSK: "", psk_mark(previous): previous, psk_mark(psk): psk, "": psk}
    if mark not in known:
        msg = (
            "knows a pre-shared key of this controller that is neither doorward_psk nor doorward_previous_psk: set the "
            "latter to the key that it knows until it is rolled out"
        )
        raise KeyTextError(msg)
    return known[mark]


def missing(sentence: str) -> str:
    """Return the text that stands for a key that should be there and is not."""
    return f"# no key: {sentence}\n"


def choose(text: str, host: str) -> tuple[str, str]:
    """Return the key text of one host, and else the sentence about its missing key; a text without names is its own."""
    parts = re.split(_BLOCK, text)
    if len(parts) == 1:
        return text, ""
    chosen, is_its_own, sentence = "", False, ""
    for kind, words, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if kind == "host":
            is_its_own = words == host
        elif is_its_own:
            sentence = words
        if is_its_own and rest.strip():
            chosen = rest.lstrip("\n")
    return chosen, sentence


def _parse_public(text: str) -> dict[str, str]:
    """Return the lines of a key text of the format doorward 1 by their names.

    Raises:
        KeyTextError: a line is unknown, repeated or no such value, or the host's key is missing.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), start=1):
        name, _blank, value = line.partition(" ")
        name, value = name.rstrip(":"), value.strip()
        form = _PUBLIC_VALUES.get(name)
        if form is None or name in found or not re.fullmatch(form, value):
            msg = f"line {number} of the key is none of `HOST_KEY: doorward1 …`, CLIENT_KEY_FILE, PSK_BASE64, each once"
            raise KeyTextError(msg)
        found[name] = value
    if "HOST_KEY" not in found:
        msg = "the key lacks HOST_KEY"
        raise KeyTextError(msg)
    return found | {"HOST_KEY": public(found["HOST_KEY"])}


def _canonical(text: str, number: int) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        msg = f"line {number} of the key is not base64"
        raise KeyTextError(msg) from error
    return base64.b64encode(raw).decode()
