"""Where an authentic message may lead connections: decisions alone, without a packet filter."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from doorward import policy
from doorward.config.stanza import Cycle, Forwarding, Target
from doorward.denials import Denial, Inexpressible, LinkLocalSource, NotServed, Unserved, WrongTarget
from doorward.helper.limits import Limits
from doorward.policy import Facts
from doorward.values import Execution, Grant, Nat, Networks, Permissions, Protocol, Reason, Service
from doorward.wire.fwknop import WITH_TIMEOUT, MessageType, wish
from unit.making import NOW, message, stanza

if TYPE_CHECKING:
    from doorward.config.stanza import Stanza

INNER, OTHER, GATEWAY, ORIGIN = map(ipaddress.ip_address, ("10.0.0.5", "10.0.0.6", "198.51.100.1", "192.0.2.7"))
PORTS = frozenset(map(Service.parse, ("tcp/22", "tcp/80")))
BOTH = Permissions(forwarding=True, local_nat=True)
LISTED = Forwarding(targets=(Target(Networks.of([ipaddress.ip_network("10.0.0.5/32")]), 22),))
NAMED = Forwarding(targets=(Target(Networks(everywhere=False), 22, "web1", (INNER,)),))
EVERYWHERE = Forwarding(everything=True)
FORWARDING = Permissions(forwarding=True)
ALL = Forwarding(targets=(Target(Networks.of([ipaddress.ip_network("10.0.0.5/32")]), None),), everything=True)


def decided(
    kind: MessageType, nat_access: str | None = None, permissions: Permissions = BOTH, **changes: Any
) -> tuple[Stanza, Grant | Denial]:
    chosen = stanza(open_ports=PORTS, **changes)
    timeout = 5 if kind in WITH_TIMEOUT else None
    made = message(type=kind, text="192.0.2.7,tcp/80", nat_access=nat_access, timeout=timeout)
    decision = policy.decide(Facts(chosen, wish(made), ORIGIN, GATEWAY, NOW, 120, permissions))
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
        (MessageType.NAT, "10.0.0.5,22", {"permissions": Permissions()}, Reason.UNSUPPORTED),
        (MessageType.NAT, "10.0.0.5,22", {"permissions": Permissions(local_nat=True)}, Reason.UNSUPPORTED),
        (MessageType.LOCAL_NAT, "127.0.0.1,22", {"permissions": Permissions(forwarding=True)}, Reason.UNSUPPORTED),
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


PLAIN = pytest.mark.parametrize("kind", [MessageType.ACCESS, MessageType.ACCESS_TIMEOUT])
PORT = Grant(ORIGIN, (Service.parse("tcp/80"),), 30)  # of the gateway itself


@PLAIN
def test_forward_all_with_targets_denies_a_packet_that_names_none(kind: MessageType) -> None:
    chosen, decision = decided(kind, forwarding=ALL)
    assert decision == NotServed(Unserved.NO_TARGET)
    assert Limits((chosen,), BOTH).refuses(PORT, NOW)
    assert Limits((chosen,), BOTH).refuses(replace(PORT, nat=Nat.to_everywhere(4)), NOW)
    forced = replace(ALL, force=(INNER, 9))
    assert isinstance(decided(kind, forwarding=forced)[1], Grant)


@PLAIN
@pytest.mark.parametrize(
    ("forwarding", "permissions", "nat"),
    [
        (EVERYWHERE, BOTH, Nat.to_everywhere(4)),
        (replace(EVERYWHERE, rewrite=False, only=True), FORWARDING, Nat.to_everywhere(4)),
        (replace(EVERYWHERE, snat=OTHER), BOTH, Nat.to_everywhere(4, snat=OTHER)),
        (replace(EVERYWHERE, masquerade=True), BOTH, Nat.to_everywhere(4, masquerade=True)),
        (EVERYWHERE, replace(BOTH, snat=True, snat_source=OTHER), Nat.to_everywhere(4, snat=OTHER)),
    ],
)
def test_forward_all_alone_forwards_to_everywhere_and_opens_no_port_of_the_gateway(
    kind: MessageType, forwarding: Forwarding, permissions: Permissions, nat: Nat
) -> None:
    chosen, decision = decided(kind, permissions=permissions, forwarding=forwarding)
    assert isinstance(decision, Grant)
    assert decision.nat == nat
    limits = Limits((chosen,), permissions)
    assert limits.refuses(decision, NOW) is None
    assert limits.refuses(PORT, NOW), "the helper opens no port of the gateway either"
    other = replace(decision, nat=Nat.to_everywhere(4, snat=ORIGIN))
    assert limits.refuses(other, NOW), "nor gives connections a source that nobody chose"


@PLAIN
@pytest.mark.parametrize(
    ("forwarding", "permissions", "request_"),
    [
        (EVERYWHERE, Permissions(local_nat=True), Unserved.FORWARDING),
        (replace(EVERYWHERE, only=False), BOTH, Unserved.NO_FORWARDING),
    ],
)
def test_what_may_not_forward_forwards_not_to_everywhere(
    kind: MessageType, forwarding: Forwarding, permissions: Permissions, request_: Unserved
) -> None:
    chosen, decision = decided(kind, permissions=permissions, forwarding=forwarding)
    assert decision == NotServed(request_)
    assert Limits((chosen,), permissions).refuses(replace(PORT, nat=Nat.to_everywhere(4)), NOW)


@pytest.mark.parametrize("forwarding", [EVERYWHERE, replace(EVERYWHERE, rewrite=False), Forwarding(rewrite=False)])
def test_no_packet_names_everywhere_as_its_target(forwarding: Forwarding) -> None:
    _, decision = decided(MessageType.NAT, "0.0.0.0,22", forwarding=forwarding)
    assert isinstance(decision, WrongTarget)


def test_a_command_cycle_runs_beside_forward_all() -> None:
    chosen = stanza(forwarding=ALL, cycle=Cycle("/bin/open", None, None))
    assert isinstance(policy.decide(Facts(chosen, wish(message()), ORIGIN, GATEWAY, NOW, 120, BOTH)), Execution)


def test_a_forced_target_of_the_other_family_is_denied_in_words() -> None:
    other = Forwarding(force=(ipaddress.ip_address("2001:db8::5"), 22))
    _, decision = decided(MessageType.ACCESS, forwarding=other)
    assert decision == Inexpressible("source, destination and NAT target are of one family of addresses")


def test_everything_is_led_only_where_every_port_is_allowed() -> None:
    one_port = Forwarding(targets=LISTED.targets, everything=True)
    _, decision = decided(MessageType.NAT, "10.0.0.5,22", forwarding=one_port)
    assert decision == WrongTarget(ipaddress.ip_address("10.0.0.5"), None)
    assert isinstance(decided(MessageType.NAT, "10.0.0.5,22", forwarding=ALL)[1], Grant)


LINKS = ("169.254.169.254", "169.254.0.1", "255.255.255.255", "fe80::1", "febf::1")


@pytest.mark.parametrize("host", LINKS)
@pytest.mark.parametrize("everything", [False, True])
def test_a_client_reaches_the_gateways_own_links_only_where_nat_targets_names_them(
    host: str,
    everything: bool,  # noqa: FBT001  a case
) -> None:
    target = ipaddress.ip_address(host)
    named = Target(Networks.of([ipaddress.ip_network(target)]), None)
    text = "2001:db8::7" if target.version == 6 else "192.0.2.7"
    made = message(type=MessageType.NAT, text=f"{text},tcp/80", nat_access=f"{host},80")
    for targets in (None, (named,)):
        chosen = stanza(open_ports=None, forwarding=Forwarding(targets=targets, everything=everything))
        decision = policy.decide(Facts(chosen, wish(made), ORIGIN, GATEWAY, NOW, 120, BOTH))
        port = None if everything else 80
        if targets is None:
            assert decision == WrongTarget(target, port)
            assert policy.refused_target(chosen, target, port, Protocol.TCP) == decision, "the helper asks it again"
        else:
            assert isinstance(decision, Grant)


@pytest.mark.parametrize("text", ["169.254.7.7", "fe80::7"])
def test_a_knock_from_a_single_link_lets_nobody_in_on_the_others(text: str) -> None:
    origin, unnamed, named = (
        ipaddress.ip_address(text),
        message(text="0.0.0.0,tcp/80"),
        message(text="192.0.2.7,tcp/80"),
    )
    assert policy.decide(Facts(stanza(), wish(unnamed), origin, GATEWAY, NOW, 120, BOTH)) == LinkLocalSource(origin)
    forwarded = Facts(stanza(), wish(unnamed), ORIGIN, GATEWAY, NOW, 120, BOTH, forwarded=origin)
    assert policy.decide(forwarded) == LinkLocalSource(origin)
    assert isinstance(policy.decide(Facts(stanza(), wish(named), origin, GATEWAY, NOW, 120, BOTH)), Grant)
