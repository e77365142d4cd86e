"""Packets and stanzas for tests, made the way the client makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from doorward.config.stanza import Stanza
from doorward.crypto import symmetric
from doorward.values import ANYWHERE, Datagram, Secret, SymmetricKeys
from doorward.wire import fwknop
from doorward.wire.fwknop import Message, MessageType

if TYPE_CHECKING:
    from doorward.errors import FirewallError, ReplayError
    from doorward.values import Grant

NOW = 1_800_000_000.0
ORIGIN = bytes([192, 0, 2, 7])
ORIGIN6 = bytes.fromhex("20010db8000000000000000000000007")
HOST = bytes([198, 51, 100, 1])
KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
OTHER_KEYS = SymmetricKeys(Secret(b"K" * 32), Secret(b"H" * 64))
MESSAGE = Message("0123456789012345", "alice", int(NOW), fwknop.VERSION, MessageType.ACCESS, "192.0.2.7,tcp/22")
_SALTS = iter(range(1 << 62))


def message(**changes: Any) -> Message:
    return replace(MESSAGE, **changes)


def payload(made: Message = MESSAGE, keys: SymmetricKeys = KEYS, salt: bytes | None = None) -> bytes:
    chosen = next(_SALTS).to_bytes(8, "big") if salt is None else salt
    return symmetric.seal(fwknop.serialize(made), keys, chosen)


def datagram(content: bytes, origin: bytes = ORIGIN) -> Datagram:
    return Datagram(content, origin, HOST, 40000, 62201)


def stanza(number: int = 1, **changes: Any) -> Stanza:
    return replace(Stanza(number, "access.conf", number, ANYWHERE, KEYS), **changes)


class Memory:
    """A replay memory in memory, which can be told to fail."""

    def __init__(self, error: ReplayError | None = None) -> None:
        self.kept: dict[bytes, int] = {}
        self.steps: dict[bytes, int] = {}
        self._error = error

    def remember(self, packet: bytes, made: int, until: int, *, client: bytes = b"") -> bool:
        assert made <= until
        assert packet.startswith(client)
        if self._error is not None:
            raise self._error
        new = packet not in self.kept
        self.kept[packet] = until
        return new

    def use_step(self, name: bytes, step: int) -> bool:
        if self._error is not None:
            raise self._error
        new = step > self.steps.get(name, -1)
        self.steps[name] = max(step, self.steps.get(name, -1))
        return new


class Door:
    """What was opened, and an error to raise instead."""

    def __init__(self, error: FirewallError | None = None) -> None:
        self.grants: list[Grant] = []
        self._error = error

    def open(self, grant: Grant) -> None:
        if self._error is not None:
            raise self._error
        self.grants.append(grant)
