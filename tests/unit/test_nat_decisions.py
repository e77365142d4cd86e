"""Where an authentic message may lead connections: decisions alone, without a packet filter."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from doorward import policy
from doorward.config.stanza import Forwarding, Target
from doorward.policy import Abilities, Denial, Facts
from doorward.privsep.limits import Limits
from doorward.values import Grant, Nat, Networks, Reason, Service
from doorward.wire.fwknop import MessageType
from unit.making import NOW, message, stanza

if TYPE_CHECKING:
    from doorward.config.stanza import Stanza

INNER, OTHER, GATEWAY, ORIGIN = map(ipaddress.ip_address, ("10.0.0.5", "10.0.0.6", "198.51.100.1", "192.0.2.7"))
PORTS = frozenset(map(Service.parse, ("tcp/22", "tcp/80")))
BOTH = Abilities(forwarding=True, local_nat=True)
LISTED = Forwarding(targets=(Target(Networks.of([ipaddress.ip_network("10.0.0.5/32")]), 22),))
NAMED = Forwarding(targets=(Target(Networks(everywhere=False), 22, "web1", (INNER,)),))
ALL = Forwarding(targets=(Target(Networks.of([ipaddress.ip_network("10.0.0.5/32")]), None),), everything=True)


def decided(
    kind: MessageType, nat_access: str | None = None, abilities: Abilities = BOTH, **changes: Any
) -> tuple[Stanza, Grant | Denial]:
    chosen = stanza(open_ports=PORTS, **changes)
    made = message(type=kind, text="192.0.2.7,tcp/80", nat_access=nat_access)
    decision = policy.decide(Facts(chosen, made, ORIGIN, GATEWAY, NOW, 120, abilities))
    assert isinstance(decision, (Grant, Denial))
    return chosen, decision


@pytest.mark.parametrize(
    ("kind", "wanted", "forwarding", "nat"),
    [
        (MessageType.LOCAL_NAT, "127.0.0.1,22", Forwarding(), Nat(None, 22)),
        (MessageType.NAT, "127.0.0.1,22", Forwarding(), Nat(None, 22)),
        (MessageType.NAT, "10.0.0.6,22", Forwarding(), Nat(OTHER, 22)),
        (MessageType.NAT, "10.0.0.5,22", LISTED, Nat(INNER, 22)),
        (MessageType.NAT, "WEB1,22", NAMED, Nat(INNER, 22)),
        (MessageType.NAT, "10.0.0.5,9", ALL, Nat(INNER, None, everything=True)),
        (MessageType.ACCESS, None, Forwarding(force=(INNER, 9)), Nat(INNER, 9)),
        (MessageType.NAT, "10.0.0.6,22", Forwarding(force=(INNER, 9)), Nat(INNER, 9)),
        (MessageType.NAT, "10.0.0.5,22", Forwarding(masquerade=True), Nat(INNER, 22, masquerade=True)),
        (MessageType.NAT, "10.0.0.5,22", Forwarding(snat=OTHER), Nat(INNER, 22, snat=OTHER)),
    ],
)
def test_what_is_decided_is_what_the_helper_allows(
    kind: MessageType, wanted: str | None, forwarding: Forwarding, nat: Nat
) -> None:
    chosen, decision = decided(kind, wanted, forwarding=forwarding)
    assert isinstance(decision, Grant), decision
    assert decision.nat == nat
    assert Limits((chosen,), BOTH).refuses(decision, NOW) is None


@pytest.mark.parametrize(
    ("kind", "wanted", "changes", "reason"),
    [
        (MessageType.NAT, "10.0.0.5,22", {"require_os": "Linux"}, Reason.UNSUPPORTED),
        (MessageType.LOCAL_NAT, "127.0.0.1,22", {"require_os": "Linux"}, Reason.UNSUPPORTED),
        (MessageType.NAT, "10.0.0.5,22", {"abilities": Abilities()}, Reason.UNSUPPORTED),
        (MessageType.NAT, "10.0.0.5,22", {"abilities": Abilities(local_nat=True)}, Reason.UNSUPPORTED),
        (MessageType.LOCAL_NAT, "127.0.0.1,22", {"abilities": Abilities(forwarding=True)}, Reason.UNSUPPORTED),
        (MessageType.NAT, "10.0.0.5,23", {}, Reason.TARGET),
        (MessageType.NAT, "10.0.0.6,22", {"forwarding": LISTED}, Reason.TARGET),
        (MessageType.NAT, "web2,22", {"forwarding": NAMED}, Reason.TARGET),
        (MessageType.NAT, "2001:db8::5,22", {}, Reason.TARGET),
        (MessageType.LOCAL_NAT, "127.0.0.1,23", {}, Reason.TARGET),
    ],
)
def test_what_may_not_be_led_there_is_denied(
    kind: MessageType, wanted: str, changes: dict[str, Any], reason: Reason
) -> None:
    _, decision = decided(kind, wanted, **changes)
    assert isinstance(decision, Denial), decision
    assert decision.reason is reason


def test_everything_is_led_only_where_every_port_is_allowed() -> None:
    one_port = Forwarding(targets=LISTED.targets, everything=True)
    _, decision = decided(MessageType.NAT, "10.0.0.5,22", forwarding=one_port)
    assert isinstance(decision, Denial)
    assert "10.0.0.5,* is not in NAT_TARGETS" in decision.detail
    assert isinstance(decided(MessageType.NAT, "10.0.0.5,22", forwarding=ALL)[1], Grant)
