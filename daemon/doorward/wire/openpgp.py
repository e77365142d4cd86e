"""The frame of the OpenPGP messages that fwknop sends: session keys for recipients, then one encrypted block. Pure.

Nothing else is handed to gpg: no packet that asks for a passphrase (with as many hash rounds as a stranger likes), no
bare signatures, keys or compressed bombs. Source: RFC 4880 §4.2, §5.1, §5.13, and RFC 9580 §4.2.
"""

from __future__ import annotations

from typing import Final

from doorward.errors import WireError

RECIPIENTS_MAX: Final = 2  # fwknop names one; a client's `encrypt-to` adds itself
HIDDEN: Final = "0" * 16  # the key ID of a recipient that is not named
_SESSION_KEY: Final = 1  # public-key encrypted session key
_ENCRYPTED: Final = frozenset({9, 18, 20})  # without and with integrity protection, and GnuPG's AEAD
_VERSION_3: Final = 3
_KEY_ID_END: Final = 9  # version, eight bytes of key ID
_INDETERMINATE: Final = 3  # length type of the old format: up to the end
_UNLIKE: Final = "no OpenPGP message as fwknop sends it"
_ONE_BYTE_MAX, _TWO_BYTES_MAX, _PARTIAL_MAX = 191, 223, 254


def recipients(blob: bytes) -> tuple[str, ...]:
    """Return the key IDs, 16 upper-case hex digits each, that an encrypted message names.

    Raises:
        WireError: this is not one encrypted message and nothing else.
    """
    named: list[str] = []
    place = 0
    while place < len(blob):
        tag, start, end = _header(blob, place)
        if tag in _ENCRYPTED and named:
            if end != len(blob):
                msg = f"{_UNLIKE}: something follows the encrypted block"
                raise WireError(msg)
            return tuple(named)
        if tag != _SESSION_KEY or len(named) == RECIPIENTS_MAX:
            break
        named.append(_recipient(blob[start:end]))
        place = end
    msg = f"{_UNLIKE}: not session keys and one encrypted block"
    raise WireError(msg)


def _recipient(body: bytes) -> str:
    if len(body) <= _KEY_ID_END or body[0] != _VERSION_3:
        msg = f"{_UNLIKE}: a session key of another version"
        raise WireError(msg)
    return body[1:_KEY_ID_END].hex().upper()


def _header(blob: bytes, place: int) -> tuple[int, int, int]:
    """Return tag, start and end of the packet at `place`."""
    first = blob[place]
    if not first & 0x80:
        msg = f"{_UNLIKE}: no packet begins where one should"
        raise WireError(msg)
    tag, (start, end) = (
        (first & 0x3F, _new_length(blob, place + 1))
        if first & 0x40
        else (first >> 2 & 0x0F, _old_length(blob, place + 1, first & 3))
    )
    if end > len(blob):
        msg = f"{_UNLIKE}: a packet is cut off"
        raise WireError(msg)
    return tag, start, end


def _old_length(blob: bytes, place: int, kind: int) -> tuple[int, int]:
    if kind == _INDETERMINATE:
        return place, len(blob)
    size = 1 << kind
    start = place + size
    if start > len(blob):
        msg = f"{_UNLIKE}: a packet is cut off"
        raise WireError(msg)
    return start, start + int.from_bytes(blob[place:start], "big")


def _new_length(blob: bytes, place: int) -> tuple[int, int]:
    """Return start and end of a body; one in parts is walked to its last part, and no key is in parts."""
    while True:
        lead = blob[place : place + 5]
        if not lead:
            msg = f"{_UNLIKE}: a packet is cut off"
            raise WireError(msg)
        if lead[0] <= _ONE_BYTE_MAX:
            length, size = lead[0], 1
        elif lead[0] <= _TWO_BYTES_MAX:
            length, size = int.from_bytes(lead[:2], "big") - (192 << 8) + 192, 2
        elif lead[0] <= _PARTIAL_MAX:
            place += 1 + (1 << (lead[0] & 0x1F))
            continue
        else:
            length, size = int.from_bytes(lead[1:], "big"), 5
        return place + size, place + size + length
