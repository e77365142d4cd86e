"""The frame of the OpenPGP messages that fwknop sends: session keys for recipients, then one encrypted block. Pure.

Nothing else is handed to gpg: no packet that asks for a passphrase (with as many hash rounds as a stranger likes), no
bare signatures, keys or compressed bombs. Source: RFC 4880 §4.2, §5.1, §5.13, and RFC 9580 §4.2.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from doorward.errors import WireError

RECIPIENTS_MAX: Final = 2  # fwknop names one; a client's `encrypt-to` adds itself
_SESSION_KEY: Final = 1  # public-key encrypted session key
# With integrity protection, and GnuPG's AEAD. Blocks without it (9), which gpg refuses since 2.2.8, can be changed by
# a stranger, and a changed one would be another knock.
_ENCRYPTED: Final = frozenset({18, 20})
_VERSION_3: Final = 3
_KEY_ID_END: Final = 9  # version, eight bytes of key ID
_INDETERMINATE: Final = 3  # length type of the old format: up to the end
_UNLIKE: Final = "no OpenPGP message as fwknop sends it"
_ONE_BYTE_MAX, _TWO_BYTES_MAX, _PARTIAL_MAX = 191, 223, 254


class Parts(NamedTuple):
    """What a message consists of, without its framing."""

    recipients: tuple[str, ...]  # key IDs, 16 upper-case hex digits each
    block: bytes  # the encrypted block. Nobody can change it, nor make another one of the same content


def parse(blob: bytes) -> Parts:
    """The parts of an encrypted message.

    Raises:
        WireError: this is not one encrypted message and nothing else.
    """
    named: list[str] = []
    place = 0
    while place < len(blob):
        tag, pieces = _packet(blob, place)
        place = pieces[-1][1]
        if tag in _ENCRYPTED and named:
            if place != len(blob):
                msg = f"{_UNLIKE}: something follows the encrypted block"
                raise WireError(msg)
            return Parts(tuple(named), b"".join(blob[start:end] for start, end in pieces))
        if tag != _SESSION_KEY or len(named) == RECIPIENTS_MAX:
            break
        if len(pieces) > 1:
            msg = f"{_UNLIKE}: a session key in parts"
            raise WireError(msg)
        named.append(_recipient(blob[pieces[0][0] : place]))
    msg = f"{_UNLIKE}: not session keys and one encrypted block"
    raise WireError(msg)


def _recipient(body: bytes) -> str:
    if len(body) <= _KEY_ID_END or body[0] != _VERSION_3:
        msg = f"{_UNLIKE}: a session key of another version"
        raise WireError(msg)
    return body[1:_KEY_ID_END].hex().upper()


def _packet(blob: bytes, place: int) -> tuple[int, list[tuple[int, int]]]:
    """Tag of the packet at `place`, and start and end of each part of its body."""
    first = blob[place]
    if not first & 0x80:
        msg = f"{_UNLIKE}: no packet begins where one should"
        raise WireError(msg)
    if first & 0x40:
        tag, pieces = first & 0x3F, _new_pieces(blob, place + 1)
    else:
        tag, pieces = first >> 2 & 0x0F, [_old_piece(blob, place + 1, first & 3)]
    if pieces[-1][1] > len(blob):
        msg = f"{_UNLIKE}: a packet is cut off"
        raise WireError(msg)
    return tag, pieces


def _old_piece(blob: bytes, place: int, kind: int) -> tuple[int, int]:
    if kind == _INDETERMINATE:
        return place, len(blob)
    size = 1 << kind
    start = place + size
    if start > len(blob):
        msg = f"{_UNLIKE}: a packet is cut off"
        raise WireError(msg)
    return start, start + int.from_bytes(blob[place:start], "big")


def _new_pieces(blob: bytes, place: int) -> list[tuple[int, int]]:
    pieces = []
    while True:
        lead = blob[place : place + 5]
        if not lead:
            msg = f"{_UNLIKE}: a packet is cut off"
            raise WireError(msg)
        partial = _TWO_BYTES_MAX < lead[0] <= _PARTIAL_MAX
        if partial:
            length, size = 1 << (lead[0] & 0x1F), 1
        elif lead[0] <= _ONE_BYTE_MAX:
            length, size = lead[0], 1
        elif lead[0] <= _TWO_BYTES_MAX:
            length, size = int.from_bytes(lead[:2], "big") - (192 << 8) + 192, 2
        else:
            length, size = int.from_bytes(lead[1:], "big"), 5
        start, place = place + size, place + size + length
        pieces.append((start, place))
        if not partial:
            return pieces
