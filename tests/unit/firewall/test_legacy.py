"""Rules of iptables-legacy, read from the lines of its own listing."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from doorward.firewall.foreign import Rule
from doorward.firewall.legacy import in_use, is_used, read

if TYPE_CHECKING:
    from pathlib import Path

MARK = 0x40000000
OURS = "-m mark --mark 0x40000000/0x40000000 -m comment --comment doorward -j ACCEPT"


def rule(text: str) -> Rule:
    return read(shlex.split(text), MARK)


@pytest.mark.parametrize("target", ["DROP", "REJECT --reject-with icmp-port-unreachable", "QUEUE", "NFQUEUE", "TARPIT"])
def test_a_rule_that_ends_a_packet_drops_whatever_it_matches(target: str) -> None:
    assert rule(f"-j {target}").drops
    assert rule(f"-p tcp -m tcp --dport 22 -j {target}").drops


def test_jumps_and_gotos_name_their_chain() -> None:
    assert rule("-g closed") == Rule(jumps=("closed",), always=True)
    assert rule("-i eth0 -j closed") == Rule(jumps=("closed",))


@pytest.mark.parametrize(
    ("text", "admits"),
    [
        (OURS, True),
        ("-j ACCEPT", True),
        ('-m comment --comment "everything that comes" -j ACCEPT', True),
        (f"-p tcp {OURS}", False),
        (OURS.replace("--mark", "! --mark"), False),
        (OURS.replace("0x40000000/0x40000000", "0x40000000"), False),
        ("-p tcp -m tcp --dport 22 -j ACCEPT", False),
        ("-j LOG", False),
        ("", False),
    ],
)
def test_an_accept_admits_our_mark_only_where_nothing_else_is_asked(text: str, *, admits: bool) -> None:
    assert rule(text).admits is admits
    assert not rule(text).drops


def test_a_rule_is_ours_by_its_comment() -> None:
    assert rule(OURS).ours
    assert not rule(OURS.replace("doorward", "doorwards")).ours


@pytest.mark.parametrize("state", ["-m conntrack --ctstate RELATED,ESTABLISHED", "-m state --state ESTABLISHED"])
def test_a_rule_for_established_connections_asks_for_the_state_and_may_accept(state: str) -> None:
    assert rule(f"{state} -j ACCEPT").sessions
    assert not rule(f"{state} -j DROP").sessions


@pytest.mark.parametrize(
    ("text", "bits"),
    [("-m mark --mark 0x12/0xff -j x", 0x12), ("-j MARK --set-xmark 0x21/0xffffffff", 0x21), ("--mark nonsense", 0)],
)
def test_the_bits_that_a_rule_uses_are_its_values_and_not_its_masks(text: str, bits: int) -> None:
    assert rule(text).uses == bits


def test_only_tables_that_filter_and_are_in_use_are_listed(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("nat\nfilter\nmangle\n")
    assert in_use({"ip": names, "ip6": tmp_path / "missing"}) == (("ip", ("mangle", "filter")),)


def test_a_table_for_nat_alone_is_in_use_too(tmp_path: Path) -> None:
    names = {"ip": tmp_path / "ip", "ip6": tmp_path / "ip6"}
    assert not is_used(names)
    names["ip"].write_text("")
    assert not is_used(names)
    names["ip6"].write_text("nat\n")
    assert is_used(names)
    assert in_use(names) == ()
