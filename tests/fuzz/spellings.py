"""Other spellings of good packets, of every mode, digest and HMAC: what is not the packet itself opens nothing.

A spelling is the packet with something put in, left out, doubled, swapped, turned into the other case or into another
alphabet of base64, cut, framed, or mixed with another good packet. Each is judged by a gate of its own, which opens
everything to whoever has the keys; then the packet itself opens, which shows that it would have been seen.
"""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from random import Random
from typing import TYPE_CHECKING, Final

from doorward.gate import Gate
from doorward.values import DigestType, EncryptionMode, Reason, SymmetricKeys
from unit.making import KEYS, NOW, Door, Memory, datagram, message, payload, stanza

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doorward.config.stanza import Stanza

PARTS: Final = 4  # each with a seed of its own
_OTHERS: Final = b"=-_ +/\n\r\t\0\x7f\xff\xc3\xa9aZ09:,%&"
_KEYS: Final = tuple(
    SymmetricKeys(KEYS.key, KEYS.hmac_key if digest else None, digest or DigestType.SHA256, mode)
    for digest, mode in itertools.product((None, *DigestType), EncryptionMode)
)


@dataclass(frozen=True, slots=True)
class Good:
    """Two good packets of one stanza."""

    stanza: Stanza
    packet: bytes
    other: bytes


def goods() -> Iterator[Good]:
    """Yield two packets for every mode, HMAC and digest."""
    for keys, digest in itertools.product(_KEYS, DigestType):
        made = (payload(message(digest=digest, random=f"{number:016}"), keys) for number in (1, 2))
        yield Good(stanza(keys=keys), *made)


def _place(packet: bytes, random: Random) -> int:
    return random.randrange(len(packet))


def _put(packet: bytes, _: bytes, random: Random) -> bytes:
    at = random.randrange(len(packet) + 1)
    return packet[:at] + bytes(random.choices(_OTHERS, k=random.randint(1, 4))) + packet[at:]


def _left_out(packet: bytes, _: bytes, random: Random) -> bytes:
    at = _place(packet, random)
    return packet[:at] + packet[at + random.randint(1, 8) :]


def _doubled(packet: bytes, _: bytes, random: Random) -> bytes:
    at, size = _place(packet, random), random.randint(1, 64)
    return packet[: at + size] + packet[at:]


def _swapped(packet: bytes, _: bytes, random: Random) -> bytes:
    one, two = sorted(random.sample(range(len(packet)), 2))
    return packet[:one] + packet[two : two + 1] + packet[one + 1 : two] + packet[one : one + 1] + packet[two + 1 :]


def _other_case(packet: bytes, _: bytes, random: Random) -> bytes:
    at = _place(packet, random)
    return packet[:at] + packet[at : at + 1].swapcase() + packet[at + 1 :]


def _other_alphabet(packet: bytes, _: bytes, random: Random) -> bytes:
    return packet.translate(random.choice((bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"+", b" "))))


def _bit(packet: bytes, _: bytes, random: Random) -> bytes:
    at = _place(packet, random)
    return packet[:at] + bytes([packet[at] ^ 1 << random.randrange(8)]) + packet[at + 1 :]


def _several(packet: bytes, _: bytes, random: Random) -> bytes:
    changed = bytearray(packet)
    for at in random.choices(range(len(packet)), k=random.randint(2, 6)):
        changed[at] = random.choice(_OTHERS)
    return bytes(changed)


def _cut(packet: bytes, _: bytes, random: Random) -> bytes:
    at = _place(packet, random)
    return random.choice((packet[:at], packet[at + 1 :]))


def _framed(packet: bytes, _: bytes, random: Random) -> bytes:
    before, behind = random.choice(
        ((b"U2FsdGVkX1", b""), (b"hQ", b""), (b"GET /", b" HTTP/1.0"), (b"", b"=" * random.randint(1, 4)), (b'"', b'"'))
    )
    return before + packet + behind


def _last_character(packet: bytes, _: bytes, random: Random) -> bytes:
    return packet[:-1] + bytes([random.randrange(256)])


def _mixed(packet: bytes, other: bytes, random: Random) -> bytes:
    at = _place(packet, random)
    return random.choice((packet[:at] + other[at:], packet[:-43] + other[-43:], packet + other))


WAYS: Final[dict[str, Callable[[bytes, bytes, Random], bytes]]] = {
    "something put in": _put,
    "something left out": _left_out,
    "a piece doubled": _doubled,
    "two characters swapped": _swapped,
    "a letter of the other case": _other_case,
    "another alphabet of base64": _other_alphabet,
    "a bit": _bit,
    "several characters": _several,
    "cut": _cut,
    "framed": _framed,
    "another last character": _last_character,
    "mixed with another packet": _mixed,
}


def report(count: int, seed: int = 0, jobs: int = 1) -> str:
    """Return one line a way and reason of `count` spellings; what opens something raises."""
    chosen = seed or secrets.randbits(32)
    shares = [(count * part // PARTS - count * (part - 1) // PARTS, chosen + part) for part in range(1, PARTS + 1)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        found = sum(pool.map(counted, *zip(*shares, strict=True)), Counter[str]())
    lines = [f"{number:10}  {text}\n" for text, number in sorted(found.items())]
    return f"{found.total()} other spellings of good packets, seed {chosen}:\n{''.join(lines)}"


def counted(count: int, seed: int) -> Counter[str]:
    """Return how often each way came to each reason."""
    random = Random(seed)  # noqa: S311  to be repeated, no secret
    kinds, ways, found = list(goods()), itertools.cycle(WAYS.items()), Counter[str]()
    while (left := count - found.total()) > 0:
        good = random.choice(kinds)
        spelt = list(itertools.islice(_spellings(good, ways, random), min(left, 50)))
        found.update(f"{name}: {reason}" for name, reason in _judged(good, spelt))
    return found


def _spellings(
    good: Good, ways: Iterator[tuple[str, Callable[[bytes, bytes, Random], bytes]]], random: Random
) -> Iterator[tuple[str, bytes]]:
    """Yield what differs from both packets: one of base64 may have nothing to be spelt otherwise."""
    for name, way in ways:
        made = way(good.packet, good.other, random)
        if made not in {good.packet, good.other}:
            yield name, made


def _judged(good: Good, spelt: list[tuple[str, bytes]]) -> Iterator[tuple[str, Reason]]:
    """Yield the reason of each refusal; the packets themselves open before the first one, or after the last."""
    door = Door()
    gate = Gate((replace(good.stanza, open_ports=None),), Memory(), door.open, 120)
    for name, made in spelt:
        verdict = gate.judge(datagram(made), NOW)
        assert not verdict.granted, (name, good, made)
        yield name, verdict.reason
    assert not door.grants
    assert gate.judge(datagram(good.packet), NOW).granted, "the packet itself"
    for name, made in spelt:
        assert not gate.judge(datagram(made), NOW).granted, (name, good, made)
    assert len(door.grants) == 1
