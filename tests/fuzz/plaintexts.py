"""Generated plaintexts behind the crypto: what somebody with good keys can send, field by field, most of it wrong.

What is read as a message is decided by stanzas of every kind, with NAT and commands enabled; what that comes to must be
allowed by the other process too, and survive the way to it.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from random import Random
from typing import TYPE_CHECKING, Final

from doorward import policy
from doorward.commands.messages import ORDERS, Execute
from doorward.config.stanza import Commands, Cycle, Forwarding, Target
from doorward.denials import Denial
from doorward.errors import WireError
from doorward.helper import limits
from doorward.helper.messages import REQUESTS, Open
from doorward.policy import Facts
from doorward.values import DigestType, Execution, Grant, Networks, Permissions, Protocol, Service, address
from doorward.wire import fwknop
from doorward.wire.wish import Kind
from unit.making import HOST, ORIGIN, ORIGIN6, stanza

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.config.stanza import Stanza

_PRINTABLE: Final = bytes(range(0x20, 0x7F))
_HOSTS: Final = ("0.0.0.0", "192.0.2.7", "2001:db8::7", "::", "::ffff:1.2.3.4", "fe80::1%lo", "010.0.0.1", "1.2.3", "")  # noqa: S104  texts, nothing is bound
_PORTS: Final = ("22", "0", "65535", "65536", "00022", "000022", "-1", "+1", " 22", "2_2", "\u0662\u0662", "9" * 40, "")
_NUMBERS: Final = ("0", "1", "6", "7", "00", "01", "010", "65536", "65537", "1800000000", "9" * 12, "9" * 13, "", "-1")
_VERSIONS: Final = ("3.0.0", "2.0.2", "1.9.12", "", " ", "12345678", "123456789")
_USERS: Final = ("alice", "", "a/b", "u" * 48, "u" * 49, "é", "a b", "\x00", "\n", "root;id", "a" * 300)
PARTS: Final = 4  # each with a seed of its own
_COMMANDS: Final = ("id", "", ",", "a,b", "id > /tmp/x; id", "$(id)", " ", "'", "x" * 240, "x" * 250, "\x00", "é", "-")
_NAMES: Final = (*_HOSTS, "127.0.0.1", "::1", "10.0.0.5", "0", "255.255.255.255", "224.0.0.1", "web1", "WEB1", "x" * 70)
_NOW: Final = 1_800_000_000.0
_BOUND: Final = frozenset({Service(Protocol.TCP, 22), Service(Protocol.UDP, 22)})
_INSIDE: Final = ipaddress.ip_address("10.0.0.5")
_TARGETS: Final = (
    Target(Networks.of([ipaddress.ip_network("10.0.0.0/24")]), 22),
    Target(Networks.of([]), None, "web1", (_INSIDE, ipaddress.ip_address("2001:db8::5"))),
)
STANZAS: Final[tuple[Stanza, ...]] = (
    stanza(1, commands=Commands()),
    stanza(2, open_ports=_BOUND, restrict_ports=frozenset({Service(Protocol.UDP, 22)}), require_username="alice"),
    stanza(3, source=Networks.of([ipaddress.ip_network("192.0.2.0/24")]), require_source_address=True),
    stanza(4, cycle=Cycle("open $SRC $PORT", "close", 30), commands=Commands("nobody")),
    stanza(5, cycle=Cycle("open", None, None), open_ports=_BOUND),
    stanza(6, forwarding=Forwarding(targets=_TARGETS, masquerade=True), open_ports=_BOUND),
    stanza(7, forwarding=Forwarding(force=(_INSIDE, 22), snat=ipaddress.ip_address("10.0.0.1"))),
    stanza(8, forwarding=Forwarding(force=(_INSIDE, 22), everything=True, rewrite=False)),
    stanza(9, forwarding=Forwarding(force=(ipaddress.ip_address("127.0.0.1"), 22))),
    stanza(10, require_os="Linux", max_fw_timeout=5),
)
PERMISSIONS: Final = (
    Permissions(),
    Permissions(forwarding=True, local_nat=True),
    Permissions(forwarding=True, snat=True, snat_source=ipaddress.ip_address("192.0.2.1"), destination_rule=True),
)


def report(count: int, seed: int = 0, jobs: int = 1) -> str:
    """Return one line a kind of outcome of `count` plaintexts; any exception but WireError goes through.

    The same seed gives the same plaintexts, whatever the number of processes is.
    """
    chosen = seed or secrets.randbits(32)
    shares = [(count * part // PARTS - count * (part - 1) // PARTS, chosen + part) for part in range(1, PARTS + 1)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        found = sum(pool.map(counted, *zip(*shares, strict=True)), Counter[str]())
    lines = [f"{number:10}  {text}\n" for text, number in found.most_common()]
    return f"{count} plaintexts behind the crypto, seed {chosen}:\n{''.join(lines)}"


def counted(count: int, seed: int) -> Counter[str]:
    """Return how often each outcome came."""
    random = Random(seed)  # noqa: S311  to be repeated, no secret
    return Counter(text for plaintext in generated(count, random) for text in outcomes(plaintext, random))


def outcomes(plaintext: bytes, random: Random) -> Iterator[str]:
    """Yield `read` and what is decided for a plaintext that is a message, else why it is none."""
    try:
        message = fwknop.parse(plaintext)
    except WireError as error:
        yield f"refused: {_kind(str(error))}"
        return
    assert fwknop.parse(fwknop.serialize(message)) == message
    yield "read"
    origin, forwarded = random.choice((ORIGIN, ORIGIN6)), random.choice((None, None, ORIGIN, ORIGIN6))
    for number, one in enumerate(STANZAS):
        permissions = PERMISSIONS[(number + plaintext[0]) % len(PERMISSIONS)]
        facts = Facts(
            one, fwknop.wish(message), address(origin), address(HOST), _NOW, random.choice((None, 120)), permissions
        )
        if forwarded is not None:
            facts = replace(facts, forwarded=address(forwarded))
        yield f"decided: {decided(facts)}"


def decided(facts: Facts) -> str:
    """Return what one stanza makes of a message, after the test that the other process comes to the same."""
    decision = policy.decide(facts)
    if isinstance(decision, Denial):
        return str(decision.reason)
    if isinstance(decision, Grant):
        assert limits.Limits((facts.stanza,), facts.permissions).refuses(decision, facts.now) is None, decision
        assert REQUESTS.decode(REQUESTS.encode(Open(decision))) == Open(decision)
        return "granted" if decision.nat is None else "granted with NAT"
    return _executed(facts, decision)


def _executed(facts: Facts, execution: Execution) -> str:
    assert limits.refused_execution(facts.stanza, execution, facts.now, facts.max_age) is None, execution
    order = Execute(execution, limits.mark(facts.stanza))
    assert ORDERS.decode(ORDERS.encode(order)) == order
    assert (execution.command is None) == (facts.wish.kind is not Kind.COMMAND)
    return "a cycle runs" if execution.command is None else "a command runs"


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
        _field(random, _command(random) if kind == "0" and random.random() < 0.9 else _text(random)),
    ]
    if kind in {"2", "4", "5", "6"} or random.random() < 0.05:
        fields.append(_field(random, _nat(random)))
    if random.random() < 0.1:
        fields.append(_field(random, "server auth"))
    if kind in {"3", "4", "6"} or random.random() < 0.05:
        fields.append(_mostly(random, "30", _NUMBERS))
    return ":".join(fields)


def _nat(random: Random) -> str:
    return f"{_mostly(random, '10.0.0.5', _NAMES, 0.5)},{_mostly(random, '22', _PORTS, 0.5)}"


def _command(random: Random) -> str:
    return f"{_mostly(random, '192.0.2.7', _HOSTS)},{random.choice(_COMMANDS)}"


def _text(random: Random) -> str:
    services = (
        f"{_mostly(random, 'tcp', ('udp', 'TCP', 'icmp', ''))}/{_mostly(random, '22', _PORTS)}"
        for _ in range(random.choice((1, 1, 1, 2, 5, 30)))
    )
    return ",".join([_mostly(random, "192.0.2.7", _HOSTS), *services])


def _mostly(random: Random, good: str, others: tuple[str, ...], share: float = 0.9) -> str:
    return good if random.random() < share else random.choice(others)


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
