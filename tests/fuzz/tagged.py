"""The format doorward 1 as fuzz targets: what strangers send, and what an authentic but hostile client can say."""

from __future__ import annotations

import ipaddress
from typing import Final

from doorward.config.stanza import Client, NamedCommands, Stanza
from doorward.crypto.doorward import Pair, public_key
from doorward.errors import WireError
from doorward.gate import Gate
from doorward.values import ANYWHERE, Permissions, Protocol, Reason, Secret, Service
from doorward.wire import doorward
from fuzz.target import Target
from unit.making import NOW, Door, Memory, datagram
from vectors.doorward_1 import MESSAGES

LAPTOP, HOST = Secret(b"l" * 32), Secret(b"h" * 32)
EPOCH: Final = doorward.epoch_of(int(NOW * 1000))
PAIR: Final = Pair.of_client(LAPTOP, public_key(HOST))
SSH: Final = Service(Protocol.TCP, 22)
STANZA: Final = Stanza(
    1,
    "access.conf",
    1,
    ANYWHERE,
    None,
    clients=(Client(public_key(LAPTOP), "laptop"),),
    open_ports=frozenset({SSH}),
    origin_window=10,
    max_prefix4=16,
    max_prefix6=48,
    named=NamedCommands((("restart-web", "/usr/bin/true"),)),
)
SERVED: Final = Permissions(forwarding=True, local_nat=True)
NEVER_AUTHENTIC: Final = frozenset({Reason.MALFORMED, Reason.TAG, Reason.HMAC})
_TIME: Final = slice(4, 12)  # of a plaintext


def any_tagged(content: bytes) -> None:
    """Whatever arrives gets a verdict, alone and behind a live tag, and without the keys nothing opens."""
    for sent in (content, PAIR.tag(EPOCH) + content.ljust(doorward.PACKET - 8, b"\0")[: doorward.PACKET - 8]):
        door = Door()
        verdict = _gate(door).judge(datagram(sent), NOW)
        assert not door.grants
        assert verdict.reason in NEVER_AUTHENTIC, verdict


def any_message(content: bytes) -> None:
    """A plaintext raises WireError or is the only spelling of its message.

    With the present time it is judged: nothing opens but the stanza's port, for networks as wide as it allows at most.
    """
    _comes_back(content)
    if len(content) != doorward.PLAINTEXT:
        return
    timely = content[: _TIME.start] + int(NOW * 1000).to_bytes(8, "big") + content[_TIME.stop :]
    door = Door()
    verdict = _gate(door).judge(datagram(PAIR.seal(timely, EPOCH, bytes(12))), NOW)
    assert verdict.reason not in {Reason.INTERNAL, *NEVER_AUTHENTIC}, verdict
    assert _comes_back(timely) or verdict.reason is Reason.DECODE
    for grant in door.grants:
        assert set(grant.services) <= {SSH}
        bits = grant.source.max_prefixlen if grant.prefix is None else grant.prefix
        assert bits >= {4: 16, 6: 48}[grant.source.version]
        ipaddress.ip_network((grant.source, bits))  # an error where bits behind the prefix are set


def _comes_back(content: bytes) -> bool:
    try:
        message = doorward.parse(content)
    except WireError:
        return False
    assert doorward.serialize(message) == content
    doorward.wish(message)
    return True


def _gate(door: Door) -> Gate:
    made = Gate((STANZA,), Memory(), door.open, 120, permissions=SERVED, execute=lambda _: None, host_key=HOST)
    made.follow(NOW)
    return made


_OTHERS: Final = Pair.of_client(HOST, public_key(LAPTOP))  # the other direction, which this host never takes
_PLAINTEXTS: Final = tuple(map(doorward.serialize, MESSAGES.values()))
TARGETS: Final = {
    "tagged": Target(any_tagged, tuple(_OTHERS.seal(each, EPOCH, bytes(12)) for each in _PLAINTEXTS)),
    "message": Target(any_message, _PLAINTEXTS),
}
