"""The walk through the chains of other firewalls: which of them can drop what a grant lets in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from doorward.errors import FirewallError
from doorward.firewall.foreign import Foreign, Rule
from doorward.firewall.kernel import Chain

if TYPE_CHECKING:
    from collections.abc import Iterable

MARK = 0x40000000
INPUT = Chain("inet", "filter", "input", hook="input")
CLOSED = Chain("inet", "filter", "input", hook="input", drops=True)
OURS = Rule(admits=True, ours=True, uses=MARK)
ACCEPT = Rule(admits=True, always=True)
DROP, DROP_SOME = Rule(drops=True, always=True), Rule(drops=True)
SESSIONS = Rule(sessions=True)


def jump(*names: str, always: bool = False) -> Rule:
    return Rule(jumps=names, always=always)


@dataclass
class Filter:
    """A packet filter of one base chain and of chains that its jumps reach."""

    base: Chain
    held: dict[str, list[Rule]] = field(default_factory=dict)
    is_owned: bool = False

    def chains(self) -> Iterable[Chain]:
        return [self.base]

    def rules(self, chain: Chain) -> Iterable[Rule]:
        return self.held.get(chain.name, [])

    def insert(self, chain: Chain) -> None:
        if self.is_owned:
            msg = "flag owner"
            raise FirewallError(msg)
        self.held.setdefault(chain.name, []).insert(0, OURS)

    def delete(self, chain: Chain) -> int:
        kept = [rule for rule in self.held.get(chain.name, []) if not rule.ours]
        count = len(self.held.get(chain.name, [])) - len(kept)
        self.held[chain.name] = kept
        return count

    def remedy(self, chain: Chain) -> str:
        return f"a rule for {chain.name}"


def foreign(*filters: Filter, forwarding: bool = False) -> Foreign:
    return Foreign(lambda: filters, MARK, forwarding=forwarding)


CAN_DROP = {
    "by its policy": Filter(CLOSED),
    "by a rule": Filter(INPUT, {"input": [DROP_SOME]}),
    "behind a jump": Filter(INPUT, {"input": [jump("one")], "one": [DROP_SOME]}),
    "behind three jumps": Filter(INPUT, {"input": [jump("a")], "a": [jump("b")], "b": [jump("c")], "c": [DROP]}),
    "behind a jump that was taken before": Filter(
        INPUT, {"input": [jump("a"), jump("b")], "a": [jump("c")], "b": [jump("c"), DROP_SOME]}
    ),
    "behind an accept of something": Filter(INPUT, {"input": [Rule(), SESSIONS, DROP]}),
    "before our rule": Filter(INPUT, {"input": [DROP_SOME, OURS]}),
    "before our rule, behind a jump": Filter(INPUT, {"input": [jump("a"), OURS], "a": [DROP_SOME]}),
    "by its policy, our rule behind a jump that not every packet takes": Filter(
        CLOSED, {"input": [jump("a")], "a": [OURS]}
    ),
    "by its policy, with jumps in a circle": Filter(CLOSED, {"input": [jump("a")], "a": [jump("b")], "b": [jump("a")]}),
    "in the second chain of a map": Filter(INPUT, {"input": [jump("a", "b")], "b": [DROP_SOME]}),
    "by its policy, behind a chain that is not there": Filter(CLOSED, {"input": [jump("gone")]}),
}
CANNOT = {
    "an empty chain": Filter(INPUT),
    "our rule at the head": Filter(CLOSED, {"input": [OURS, DROP]}),
    "our rule behind rules that end nothing": Filter(CLOSED, {"input": [Rule(), SESSIONS, OURS, DROP]}),
    "everything is accepted first": Filter(CLOSED, {"input": [ACCEPT, DROP]}),
    "our rule behind a jump that every packet takes": Filter(
        CLOSED, {"input": [jump("a", always=True), DROP], "a": [OURS]}
    ),
    "jumps in a circle": Filter(INPUT, {"input": [jump("a")], "a": [jump("input")]}),
    "a drop in a chain that nothing reaches": Filter(INPUT, {"input": [Rule()], "other": [DROP]}),
    "another hook": Filter(Chain("inet", "filter", "output", hook="output", drops=True)),
    "forward, where nothing is forwarded": Filter(Chain("inet", "filter", "forward", hook="forward", drops=True)),
    "arp": Filter(Chain("arp", "filter", "input", hook="input", drops=True)),
}


@pytest.mark.parametrize("name", CAN_DROP)
def test_a_chain_that_can_drop_is_named_once_until_our_rule_is_at_its_head(name: str) -> None:
    one = CAN_DROP[name]
    found = Filter(one.base, {chain: list(rules) for chain, rules in one.held.items()})
    walked = foreign(found)
    assert walked.findings() == (
        "table inet filter, chain input can drop what a grant lets in; this lets it through: a rule for input",
    )
    assert walked.admit() == (("table inet filter, chain input",), ())
    assert walked.findings() == ()
    assert walked.admit() == ((), ()), "no second one"


@pytest.mark.parametrize("name", CANNOT)
def test_a_chain_that_cannot_drop_a_grant_is_left_alone(name: str) -> None:
    walked = foreign(CANNOT[name])
    assert walked.findings() == ()
    assert walked.admit() == ((), ())


def test_the_forward_hook_counts_where_grants_forward() -> None:
    closed = Filter(Chain("ip", "filter", "FORWARD", hook="forward", drops=True))
    (line,) = foreign(closed, forwarding=True).findings()
    assert line.startswith("table ip filter, chain FORWARD can drop")


@pytest.mark.parametrize(
    "chain",
    [
        Chain("inet", "t", "c", hook="prerouting", drops=True),
        Chain("inet", "t", "c", hook="input", priority=-2000, drops=True),
        Chain("netdev", "t", "c", hook="ingress", drops=True),
        Chain("bridge", "t", "c", hook="input", drops=True),
    ],
)
def test_a_chain_before_our_mark_is_named_until_a_rule_there_has_our_comment(chain: Chain) -> None:
    (line,) = foreign(Filter(chain)).findings()
    assert line.startswith(f"{chain} drops everything before a grant is looked up")
    assert foreign(Filter(chain)).admit() == ((), ()), "our mark is not there yet"
    assert foreign(Filter(chain, {"c": [Rule(ours=True)]})).findings() == ()


def test_a_firewall_that_refuses_our_rule_is_reported_and_keeps_none_of_the_others_from_it() -> None:
    owned, other = Filter(CLOSED, is_owned=True), Filter(Chain("ip", "filter", "INPUT", hook="input", drops=True))
    made, refused = foreign(owned, other).admit()
    assert made == ("table ip filter, chain INPUT",)
    (line,) = refused
    assert line.startswith("table inet filter, chain input can drop")
    assert line.endswith("flag owner")


def test_remove_takes_out_every_rule_of_ours_and_counts_them() -> None:
    one = Filter(CLOSED, {"input": [OURS, DROP_SOME, OURS]})
    assert foreign(one, Filter(INPUT)).remove() == 2
    assert one.held["input"] == [DROP_SOME]


def test_a_chain_without_a_rule_for_established_connections_is_named_where_it_can_drop() -> None:
    (line,) = foreign(Filter(CLOSED, {"input": [OURS]})).without_sessions()
    assert "no rule for established connections" in line
    assert foreign(Filter(CLOSED, {"input": [jump("a")], "a": [SESSIONS]})).without_sessions() == ()
    assert foreign(Filter(INPUT, {"input": [Rule()]})).without_sessions() == ()
    circle = {"input": [jump("a")], "a": [jump("input"), DROP_SOME]}
    assert len(foreign(Filter(INPUT, circle)).without_sessions()) == 1


def test_a_rule_that_uses_our_bit_is_named_and_our_own_is_not() -> None:
    assert foreign(Filter(INPUT, {"input": [OURS, Rule(uses=1)]})).use_of_mark() is None
    used = foreign(Filter(INPUT, {"input": [jump("a")], "a": [Rule(uses=MARK | 1)]})).use_of_mark()
    assert used is not None
    assert used.startswith("table inet filter, chain a uses the bit 0x40000000 of the mark too")


RAW = Chain("ip", "raw", "PREROUTING", hook="prerouting", priority=-300)


@pytest.mark.parametrize(
    ("base", "held"),
    [
        (CLOSED, {}),
        (CLOSED, {"input": [OURS]}),  # a reload of that firewall takes our rule out for a moment
        (INPUT, {"input": [jump("some")], "some": [DROP_SOME]}),
        (RAW, {"PREROUTING": [DROP_SOME]}),
        (Chain("ip6", "mangle", "PREROUTING", hook="prerouting", drops=True), {}),
    ],
)
def test_a_chain_on_the_way_to_a_socket_that_can_drop_is_in_the_way_of_a_server(
    base: Chain, held: dict[str, list[Rule]]
) -> None:
    assert foreign(Filter(base, held)).before_a_server() == str(base)


@pytest.mark.parametrize(
    ("base", "held"),
    [
        (INPUT, {}),
        (INPUT, {"input": [ACCEPT, SESSIONS, jump("some")], "some": [ACCEPT], "unused": [DROP]}),
        (Chain("inet", "filter", "forward", hook="forward", drops=True), {}),
        (Chain("inet", "filter", "output", hook="output", drops=True), {}),
        (Chain("netdev", "early", "ingress", hook="ingress", drops=True), {}),  # passive capture hears no more
        (Chain("bridge", "filter", "input", hook="input", drops=True), {}),
    ],
)
def test_what_a_server_hears_no_less_of_than_passive_capture_is_not_in_its_way(
    base: Chain, held: dict[str, list[Rule]]
) -> None:
    assert foreign(Filter(base, held)).before_a_server() is None
