"""Generated plaintexts behind the crypto: what somebody with good keys can send, field by field, most of it wrong."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Final

from doorward.errors import WireError
from doorward.values import DigestType
from doorward.wire import fwknop

if TYPE_CHECKING:
    from collections.abc import Iterator

_PRINTABLE: Final = bytes(range(0x20, 0x7F))
_HOSTS: Final = ("0.0.0.0", "192.0.2.7", "2001:db8::7", "::", "::ffff:1.2.3.4", "fe80::1%lo", "010.0.0.1", "1.2.3", "")  # noqa: S104  texts, nothing is bound
_PORTS: Final = ("22", "0", "65535", "65536", "00022", "000022", "-1", "+1", " 22", "2_2", "\u0662\u0662", "9" * 40, "")
_NUMBERS: Final = ("0", "1", "6", "7", "00", "01", "010", "65536", "65537", "1800000000", "9" * 12, "9" * 13, "", "-1")
_VERSIONS: Final = ("3.0.0", "2.0.2", "1.9.12", "", " ", "12345678", "123456789")
_USERS: Final = ("alice", "", "a/b", "u" * 48, "u" * 49, "é", "a b", "\x00", "\n", "root;id", "a" * 300)


def report(count: int, seed: int = 0) -> str:
    """Return one line a kind of outcome of `count` plaintexts; any exception but WireError goes through."""
    chosen = seed or secrets.randbits(32)
    outcomes = Counter(map(outcome, generated(count, Random(chosen))))  # noqa: S311  to be repeated, no secret
    lines = [f"{number:10}  {text}\n" for text, number in outcomes.most_common()]
    return f"{sum(outcomes.values())} plaintexts behind the crypto, seed {chosen}:\n{''.join(lines)}"


def outcome(plaintext: bytes) -> str:
    """Return `read` for a plaintext that is a message, else why it is none."""
    try:
        message = fwknop.parse(plaintext)
    except WireError as error:
        return f"refused: {_kind(str(error))}"
    assert fwknop.parse(fwknop.serialize(message)) == message
    return "read"


def _kind(text: str) -> str:
    """Return an error's text without what it quotes and counts."""
    return re.sub(r"message type \d+", "message type N", re.sub(r"^(['\"]).*\1", "…", text))


def generated(count: int, random: Random) -> Iterator[bytes]:
    """Yield plaintexts: fields mostly of the right kind, sometimes not, the digest nearly always fitting."""
    for _ in range(count):
        body = _changed(_body(random).encode("utf-8", "surrogatepass"), random)
        digest = fwknop.digest_text(random.choice(tuple(DigestType)), body)
        yield body + b":" + (digest if random.random() < 0.98 else _changed(digest, random))


def _body(random: Random) -> str:
    kind = random.choice((*(str(number) for number in range(7)), random.choice(_NUMBERS)))
    fields = [
        _mostly(random, f"{random.randrange(10**16):016d}", ("1" * 15, "1" * 17, "\u0660" * 16, "")),
        _field(random, _mostly(random, "alice", _USERS)),
        _mostly(random, "1800000000", _NUMBERS),
        _mostly(random, "3.0.0", _VERSIONS),
        kind,
        _field(random, _text(random)),
    ]
    if kind in {"2", "4", "5", "6"} or random.random() < 0.05:
        fields.append(_field(random, f"{random.choice(_HOSTS)},{random.choice(_PORTS)}"))
    if random.random() < 0.1:
        fields.append(_field(random, "server auth"))
    if kind in {"3", "4", "6"} or random.random() < 0.05:
        fields.append(_mostly(random, "30", _NUMBERS))
    return ":".join(fields)


def _text(random: Random) -> str:
    services = (
        f"{_mostly(random, 'tcp', ('udp', 'TCP', 'icmp', ''))}/{_mostly(random, '22', _PORTS)}"
        for _ in range(random.choice((1, 1, 1, 2, 5, 30)))
    )
    return ",".join([_mostly(random, "192.0.2.7", _HOSTS), *services])


def _mostly(random: Random, good: str, others: tuple[str, ...]) -> str:
    return good if random.random() < 0.9 else random.choice(others)


def _field(random: Random, text: str) -> str:
    """Return base64 of a text, sometimes with padding or a broken end."""
    encoded = fwknop.encode_blob(text.encode("utf-8")).decode("ascii")
    return encoded if random.random() < 0.95 else encoded + random.choice(("=", "==", "=x", "A", "*", " ", "\n"))


def _changed(content: bytes, random: Random) -> bytes:
    """Return the content, one time in ten with some of its bytes changed, lost or doubled."""
    if random.random() < 0.9 or not content:
        return content
    place = random.randrange(len(content))
    piece = bytes(random.choice(_PRINTABLE) for _ in range(random.randrange(4)))
    piece = piece if random.random() < 0.9 else random.randbytes(3)
    return content[:place] + piece + content[place + random.randrange(4) :]
