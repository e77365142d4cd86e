"""What the listener tells the helper of the tags of its gate."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from doorward.config.stanza import Client
from doorward.crypto import doorward
from doorward.errors import FirewallError
from doorward.gate import Gate
from doorward.listener.tags import Tags
from doorward.values import Secret
from doorward.wire.doorward import epoch_of
from unit.making import NOW, Door, Memory, stanza

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from doorward.helper.remote import RemotePower
    from doorward.record.log import Log

HOST_KEY = Secret(b"h" * 32)
KEYS = tuple(doorward.public_key(Secret(bytes([number]) * 32)) for number in (1, 2))


class Power:
    """A helper that refuses so many times."""

    def __init__(self, refusing: int = 0) -> None:
        self.told: list[Mapping[int, Sequence[bytes]]] = []
        self._refusing = refusing

    def let_pass(self, tags: Mapping[int, Sequence[bytes]]) -> None:
        if self._refusing:
            self._refusing -= 1
            msg = "too often"
            raise FirewallError(msg)
        self.told.append(tags)


def gate(clients: int) -> Gate:
    named = tuple(Client(key) for key in KEYS[:clients])
    stanzas = (stanza(keys=None, clients=named),) if clients else (stanza(),)
    return Gate(stanzas, Memory(), Door().open, 120, host_key=HOST_KEY if clients else None)


def keeper(power: Power) -> Tags:
    log: Log = logging.getLogger("tags")  # type: ignore[assignment]
    helper: RemotePower = power  # type: ignore[assignment]
    return Tags(helper, log)


def test_the_helper_is_told_of_each_epoch_once() -> None:
    power, one = Power(), gate(2)
    tags = keeper(power)
    for seconds in (0, 1, 64, 65, 64, 0):
        tags.follow(one, NOW + seconds)
    present = epoch_of(int(NOW * 1000))
    assert [sorted(told) for told in power.told] == [
        [present - 1 + later, present + later, present + 1 + later] for later in (0, 1, 0)
    ]
    assert all(len(some) == 2 for told in power.told for some in told.values())


def test_a_new_gate_with_the_same_clients_is_not_told_again_and_one_with_fewer_is() -> None:
    power = Power()
    tags = keeper(power)
    for clients in (2, 2, 1, 0, 0):
        tags.follow(gate(clients), NOW)
    assert [sum(map(len, told.values())) for told in power.told] == [6, 3, 0]


def test_what_is_refused_is_told_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    power, one = Power(refusing=2), gate(1)
    tags = keeper(power)
    for _ in range(4):
        tags.follow(one, NOW)
    assert len(power.told) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "tags: knocks of doorward 1 may not be heard: too often"
    ]
