"""Packets of doorward 1 that ask for a network, through the gate and past the helper's limits."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from doorward.config.stanza import Cycle, Forwarding
from doorward.denials import Denial, NotServed, PrefixTooWide, Unserved, WrongSource
from doorward.helper.limits import Limits
from doorward.record import fwknop as fwknop_log
from doorward.record import line as record_line
from doorward.values import Grant, Networks, Permissions
from doorward.wire.doorward import Forward
from unit.making import NOW, Door
from unit.test_gate_doorward import SSH, SSH_ONLY, clients, judge, message, packet

V4, V6 = ipaddress.ip_address("192.0.2.0"), ipaddress.ip_address("2001:db8::")
WIDE = clients(max_prefix4=24, max_prefix6=64)
PLAIN = Grant(V4, (SSH,), 30, name="laptop", key=WIDE.clients[0].key)


def test_a_network_is_let_in_where_the_stanza_says_how_wide() -> None:
    door = Door()
    verdict = judge(packet(message(source=V4, prefix=24, second=V6, second_prefix=80)), WIDE, door=door)
    assert [(grant.source, grant.prefix) for grant in door.grants] == [(V4, 24), (V6, 80)]
    assert " source=192.0.2.0/24 second_source=2001:db8::/80 services=tcp/22 " in record_line.line(verdict)
    assert " for 192.0.2.0/24 -> " in fwknop_log.entries(verdict, NOW)[1].text
    assert all(Limits((WIDE,)).refuses(grant, NOW) is None for grant in door.grants)
    door = Door()
    assert judge(packet(message(source=V4, prefix=28, second=V6)), WIDE, door=door).granted
    assert [grant.prefix for grant in door.grants] == [28, None]


def test_a_network_that_is_too_wide_keeps_the_other_source_from_nothing() -> None:
    door = Door()
    verdict = judge(packet(message(source=V4, prefix=24, second=V6, second_prefix=63)), WIDE, door=door)
    assert ([grant.whence for grant in door.grants], verdict.other) == (["192.0.2.0/24"], PrefixTooWide(63, 64))
    assert "the other source is not let in: a network with a prefix of 63" in record_line.line(verdict)


@pytest.mark.parametrize(
    ("asked", "stanza", "denial"),
    [
        ({"prefix": 23}, {}, PrefixTooWide(23, 24)),
        ({"source": V6, "prefix": 63}, {}, PrefixTooWide(63, 64)),
        ({"prefix": 24}, {"max_prefix4": None}, NotServed(Unserved.NETWORK)),
        ({"source": V6, "prefix": 127}, {"max_prefix6": None}, NotServed(Unserved.NETWORK)),
        ({"prefix": 24}, {"source": Networks.of([ipaddress.ip_network("192.0.2.0/25")])}, WrongSource(V4)),
        ({"prefix": 24}, {"cycle": Cycle("/bin/true", None, None)}, NotServed(Unserved.NETWORK_BESIDE)),
        ({"prefix": 24}, {"require_os": "Linux"}, NotServed(Unserved.NETWORK_BESIDE)),
        ({"prefix": 24}, {"forwarding": Forwarding(everything=True)}, NotServed(Unserved.NETWORK_BESIDE)),
        ({"prefix": 24, "nat": Forward(None, 2222)}, {}, NotServed(Unserved.NETWORK_BESIDE)),
        ({"source": ipaddress.ip_address("169.0.0.0"), "prefix": 8}, {"max_prefix4": 8}, None),
    ],
)
def test_any_other_network_is_denied(asked: dict[str, Any], stanza: dict[str, Any], denial: Denial | None) -> None:
    door = Door()
    sent = message(**{"source": V4, "services": SSH_ONLY, **asked})
    verdict = judge(packet(sent), replace(WIDE, **stanza), door=door, permissions=Permissions(local_nat=True))
    assert not verdict.granted
    assert denial is None or verdict.denial == denial
    assert not door.grants
    assert "detail=" in record_line.line(verdict)


def test_a_network_goes_with_no_condition_on_the_destination() -> None:
    verdict = judge(packet(message(source=V4, prefix=24)), WIDE, permissions=Permissions(destination_rule=True))
    assert verdict.denial == NotServed(Unserved.NETWORK_BESIDE)


@pytest.mark.parametrize(
    ("stanza", "prefix", "expected"),
    [
        (WIDE, 24, None),
        (WIDE, 23, "no stanza allows it: source 192.0.2.0/23"),
        (clients(), 31, "no stanza allows it: source 192.0.2.0/31"),
        (
            replace(WIDE, source=Networks.of([ipaddress.ip_network("192.0.2.0/25")])),
            24,
            "no stanza allows it: source 192.0.2.0/24",
        ),
    ],
)
def test_the_helper_asks_its_own_files_how_wide(stanza: Any, prefix: int, expected: str | None) -> None:
    assert Limits((stanza,)).refuses(replace(PLAIN, prefix=prefix), NOW) == expected
