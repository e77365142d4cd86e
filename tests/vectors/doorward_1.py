"""The vectors of the format `doorward 1`: fixed keys, nonces and messages, and their bytes.

``python -m vectors.doorward_1`` made doorward-1.jsonl, once. The tests compare it with the package and with
doorward_by_hand.py.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.crypto.doorward import Pair, public_key
from doorward.values import Protocol, PublicKey, Secret
from doorward.wire.doorward import Forward, Kind, Message, Ports, epoch_of, serialize

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE: Final = Path(__file__).with_name("doorward-1.jsonl")
CLIENTS: Final = (Secret(bytes(range(32))), Secret(bytes(range(100, 132))))
HOSTS: Final = (Secret(bytes(range(32, 64))), Secret(bytes(range(200, 232))))
PSKS: Final = (None, Secret(bytes(range(64, 96))))
_SSH: Final = Ports(Protocol.TCP, 22, 22)
_PLAIN: Final = Message(Kind.ACCESS, 1_800_000_000_123, ip_address("192.0.2.7"), (_SSH,))
MESSAGES: Final = {
    "ssh for an IPv4 address": _PLAIN,
    "ssh for the packet's origin": replace(_PLAIN, source=None),
    "all of OPEN_PORTS for both families": replace(_PLAIN, services=(), second=ip_address("2001:db8::7")),
    "a range and a window": replace(_PLAIN, services=(_SSH, Ports(Protocol.UDP, 60000, 60010)), seconds=300),
    "forwarding": replace(_PLAIN, nat=Forward(ip_address("10.0.0.5"), 2222)),
    "local NAT for an IPv6 address": replace(_PLAIN, source=ip_address("2001:db8::7"), nat=Forward(None, 2222)),
    "networks and a code": replace(_PLAIN, source=ip_address("192.0.2.0"), prefix=24, code=123_456),
    "a command": Message(Kind.COMMAND, _PLAIN.time, ip_address("192.0.2.7"), command="restart-web"),
    "the first moment of an epoch": replace(_PLAIN, time=1_800_000_000_000),
    "the last moment of an epoch": replace(_PLAIN, time=1_800_000_063_999),
    "the year 1970": replace(_PLAIN, time=0),
}


class Vector(NamedTuple):
    """One packet with all that made it; bytes in hex."""

    name: str
    client_private: str
    client_public: str
    host_private: str
    host_public: str
    psk: str
    time: int
    nonce: str
    plaintext: str
    packet: str

    @property
    def pair(self) -> Pair:
        """The client's side."""
        psk = Secret(bytes.fromhex(self.psk)) if self.psk else None
        host = PublicKey(bytes.fromhex(self.host_public))
        return Pair.of_client(Secret(bytes.fromhex(self.client_private)), host, psk)


def made() -> Iterator[Vector]:
    """The vectors by the package."""
    for number, (name, message) in enumerate(MESSAGES.items()):
        client, host, psk = CLIENTS[number % 2], HOSTS[number % 2], PSKS[number % 2]
        nonce, plaintext = bytes(range(number, number + 12)), serialize(message)
        packet = Pair.of_client(client, public_key(host), psk).seal(plaintext, epoch_of(message.time), nonce)
        yield Vector(
            name,
            client.reveal().hex(),
            public_key(client).raw.hex(),
            host.reveal().hex(),
            public_key(host).raw.hex(),
            "" if psk is None else psk.reveal().hex(),
            message.time,
            nonce.hex(),
            plaintext.hex(),
            packet.hex(),
        )


def recorded() -> tuple[Vector, ...]:
    """The vectors of the file."""
    return tuple(Vector(**json.loads(line)) for line in FILE.read_text("ascii").splitlines())


if __name__ == "__main__":
    sys.stdout.write("".join(f"{json.dumps(one._asdict())}\n" for one in made()))
