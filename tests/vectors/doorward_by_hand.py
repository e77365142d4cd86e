"""The format `doorward 1` a second time, in plain Python without cryptography and without any code of the package.

For the tests alone: nothing here takes the same time for every key. Source: RFC 7748 §5, RFC 8439 §2, RFC 2104.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import NamedTuple

P = 2**255 - 19


def x25519(scalar: bytes, point: bytes) -> bytes:
    """The Montgomery ladder of RFC 7748 §5."""
    k = int.from_bytes(scalar, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    u = int.from_bytes(point, "little") % (1 << 255) % P
    x1, x2, z2, x3, z3 = u, 1, 0, u, 1
    for place in reversed(range(255)):
        bit = k >> place & 1
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = pow(da + cb, 2, P), x1 * pow(da - cb, 2, P) % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public(private: bytes) -> bytes:
    return x25519(private, (9).to_bytes(32, "little"))


def keys(shared: bytes, psk: bytes, client: bytes, host: bytes, epoch: int) -> tuple[bytes, bytes]:
    """The key of the tag and the key of the seal (docs/packet-formats.md)."""
    prk = hmac.new(b"doorward 1", shared + psk, hashlib.sha256).digest()
    tag = hmac.new(prk, b"tag" + client + host + b"\1", hashlib.sha256).digest()
    seal = hmac.new(prk, b"seal" + client + host + struct.pack(">Q", epoch) + b"\1", hashlib.sha256).digest()
    return tag, seal


class Ends(NamedTuple):
    """A client's private key, a host's public one, and the key that they share before, or zeros."""

    client: bytes
    host: bytes
    psk: bytes = bytes(32)


def packet(ends: Ends, time: int, nonce: bytes, plaintext: bytes) -> bytes:
    epoch = time // 64000
    tag_key, seal_key = keys(x25519(ends.client, ends.host), ends.psk, public(ends.client), ends.host, epoch)
    tag = hmac.new(tag_key, struct.pack(">Q", epoch), hashlib.sha256).digest()[:8]
    return tag + nonce + sealed(seal_key, nonce, plaintext, tag)


def sealed(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """The construction of RFC 8439 §2.8."""
    one_time = _chacha20(key, 0, nonce)[:32]
    blocks = b"".join(_chacha20(key, 1 + place, nonce) for place in range(-(-len(plaintext) // 64)))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, blocks, strict=False))
    lengths = struct.pack("<QQ", len(aad), len(ciphertext))
    return ciphertext + _poly1305(one_time, _padded(aad) + _padded(ciphertext) + lengths)


def _padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % 16)


def _chacha20(key: bytes, counter: int, nonce: bytes) -> bytes:
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter]
    start += struct.unpack("<3I", nonce)
    state = list(start)
    columns = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
    diagonals = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
    for _ in range(10):
        for places in (*columns, *diagonals):
            _quarter(state, *places)
    return struct.pack("<16I", *((one + other) & 0xFFFFFFFF for one, other in zip(state, start, strict=True)))


def _quarter(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for one, other, third, left in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[one] = (state[one] + state[other]) & 0xFFFFFFFF
        turned = state[third] ^ state[one]
        state[third] = (turned << left | turned >> (32 - left)) & 0xFFFFFFFF


def _poly1305(key: bytes, text: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for place in range(0, len(text), 16):
        total = (total + int.from_bytes(text[place : place + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    return ((total + int.from_bytes(key[16:], "little")) % (1 << 128)).to_bytes(16, "little")
