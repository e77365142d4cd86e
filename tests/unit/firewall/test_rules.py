"""Rules of other nftables tables, read from the bytes of the kernel's listing."""

from __future__ import annotations

import struct

import pytest

from doorward.firewall.foreign import Rule
from doorward.firewall.kernel import Chain
from doorward.firewall.rules import Nft, read
from doorward.linux import netlink
from doorward.linux.netlink import NESTED, Netlink, attribute, attributes, text

MARK = 0x40000000
DROP, ACCEPT, CONTINUE, JUMP, GOTO, RETURN = 0, 1, -1, -3, -4, -5
XTABLES = "-m mark --mark 0x40000000/0x40000000 -m comment --comment doorward -j ACCEPT"
INPUT = Chain("inet", "filter", "input", hook="input")
IPTABLES = Chain("ip", "filter", "INPUT", hook="input")


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))


def expression(name: str, *content: bytes) -> bytes:
    return attribute(1 | NESTED, text(1, name), attribute(2 | NESTED, *content))


def verdict(code: int, chain: str = "") -> bytes:
    said = attribute(2 | NESTED, number(1, code), *([text(2, chain)] if chain else []))
    return expression("immediate", number(1, 0), attribute(2 | NESTED, said))


def port() -> bytes:
    """`th dport 22`: a payload is loaded and compared."""
    compared = attribute(3 | NESTED, attribute(1, b"\0\x16"))
    return expression("payload", number(1, 1)) + expression("cmp", number(1, 1), number(2, 0), compared)


def match(name: str, info: bytes = b"") -> bytes:
    return expression("match", text(1, name), number(2, 1), attribute(3, info))


def target(name: str, info: bytes = b"") -> bytes:
    return expression("target", text(1, name), number(2, 0), attribute(3, info))


def state() -> bytes:
    return expression("ct", number(1, 1), number(2, 0))


def meta_mark(mask: int, wanted: int, operation: int = 0) -> bytes:
    """`meta mark & MASK == WANTED`; the operation 1 is "not equal"."""
    bits, zero, compared = (attribute(1, struct.pack("=I", one)) for one in (mask, 0, wanted))
    return (
        expression("meta", number(2, 3), number(1, 1))
        + expression("bitwise", number(1, 1), number(2, 1), attribute(4 | NESTED, bits), attribute(5 | NESTED, zero))
        + expression("cmp", number(1, 1), number(2, operation), attribute(3 | NESTED, compared))
    )


def rule(*expressions: bytes, userdata: bytes = b"") -> Rule:
    return read({4: b"".join(expressions), 7: userdata}, MARK)


@pytest.mark.parametrize(
    "ends",
    [
        verdict(DROP),
        expression("reject", number(1, 0)),
        expression("queue", attribute(1, b"\0\1")),
        expression("synproxy"),
        target("REJECT"),
        target("NFQUEUE"),
        target("TARPIT"),
        expression("lookup", text(1, "a map"), number(2, 1), number(3, 0)),
    ],
    ids=["drop", "reject", "queue", "synproxy", "REJECT", "NFQUEUE", "TARPIT", "a verdict map"],
)
@pytest.mark.parametrize("before", [b"", port(), match("tcp"), expression("counter")])
def test_a_rule_that_ends_a_packet_drops_whatever_it_matches(ends: bytes, before: bytes) -> None:
    assert rule(before, ends).drops
    assert not rule(before, ends).admits


@pytest.mark.parametrize(
    "harmless",
    [
        b"",
        expression("counter"),
        expression("log"),
        verdict(CONTINUE),
        verdict(RETURN),
        target("LOG"),
        target("MARK", struct.pack("=II", 1, 1)),
        expression("lookup", text(1, "a set"), number(2, 1)),
        expression("lookup", text(1, "a map of addresses"), number(2, 1), number(3, 1)),
        expression("of a later kernel", number(1, 1)),
    ],
)
def test_other_rules_neither_drop_nor_admit(harmless: bytes) -> None:
    assert not rule(harmless).drops
    assert not rule(harmless).admits


@pytest.mark.parametrize("code", [JUMP, GOTO])
def test_jumps_and_gotos_name_their_chain(code: int) -> None:
    assert rule(verdict(code, "closed")) == Rule(jumps=("closed",), always=True)
    assert rule(port(), verdict(code, "closed")) == Rule(jumps=("closed",))


@pytest.mark.parametrize(
    ("matches", "admits"),
    [
        (b"", True),
        (expression("counter"), True),
        (match("comment", b"everything\0"), True),
        (port(), False),
        (match("tcp"), False),
        (expression("of a later kernel", number(1, 1)), False),
        (meta_mark(MARK, MARK), True),
        (meta_mark(MARK, MARK) + expression("counter"), True),
        (meta_mark(MARK, MARK, operation=1), False),
        (meta_mark(MARK, 0), False),
        (meta_mark(MARK | 1, MARK | 1), False),
        (meta_mark(MARK, MARK) + port(), False),
        (match("mark", struct.pack("=IIB3x", MARK, MARK, 0)), True),
        (match("mark", struct.pack("=IIB3x", MARK, MARK, 1)), False),
        (match("mark", struct.pack("=IIB3x", MARK | 1, MARK | 1, 0)), False),
        (match("mark", struct.pack("=IIB3x", MARK, MARK, 0)) + match("tcp"), False),
        (match("mark"), False),
    ],
)
def test_an_accept_admits_our_mark_only_where_nothing_else_is_asked(matches: bytes, *, admits: bool) -> None:
    assert rule(matches, verdict(ACCEPT)).admits is admits


@pytest.mark.parametrize(
    ("found", "sessions"),
    [
        (state() + verdict(ACCEPT), True),
        (match("conntrack") + verdict(ACCEPT), True),
        (match("state") + verdict(JUMP, "known"), True),
        (state() + expression("lookup", text(1, "states"), number(2, 1), number(3, 0)), True),
        (state() + verdict(DROP), False),
        (expression("ct", number(1, 1), number(2, 1)) + verdict(ACCEPT), False),
        (port() + verdict(ACCEPT), False),
    ],
)
def test_a_rule_for_established_connections_asks_for_the_state_and_may_accept(found: bytes, *, sessions: bool) -> None:
    assert rule(found).sessions is sessions


@pytest.mark.parametrize(
    ("found", "bits"),
    [
        (meta_mark(0xFF, 0x12), 0x12),
        (target("MARK", struct.pack("=II", 0x21, 0xFFFFFFFF)), 0x21),
        (match("connmark", struct.pack("=IIB3x", 0x42, 0xFF, 0)), 0x42),
        (port(), 0),
        (target("MARK"), 0),
    ],
)
def test_the_bits_that_a_rule_uses_are_its_values_and_not_its_masks(found: bytes, bits: int) -> None:
    assert rule(found).uses == bits


def test_a_rule_is_ours_by_its_comment_beside_it_or_in_a_match() -> None:
    assert rule(verdict(ACCEPT), userdata=b"\0\x09doorward\0").ours
    assert rule(verdict(ACCEPT), userdata=b"\5\1x\0\x09doorward\0").ours
    assert rule(match("comment", b"doorward\0" + bytes(247)), verdict(ACCEPT)).ours
    assert not rule(verdict(ACCEPT), userdata=b"\0\x0adoorwards\0").ours
    assert not rule(verdict(ACCEPT), userdata=b"\0").ours
    assert not rule(verdict(ACCEPT)).ours


class Recorder(Netlink):
    """A kernel that only takes down the one rule that it is given."""

    def __init__(self) -> None:
        """Open no socket."""
        self.rule: dict[int, bytes] = {}

    def run(self, transaction: bytes) -> None:
        """Take down the message between the two that frame it."""
        change = transaction.removeprefix(netlink.FIRST).removesuffix(netlink.LAST)
        self.rule = dict(attributes(change[netlink.HEADER.size + netlink.GENERIC.size :]))


@pytest.mark.parametrize(("chain", "spelling"), [(INPUT, b"bitwise"), (IPTABLES, b"match")])
def test_the_rule_that_is_put_in_is_recognised_as_ours(chain: Chain, spelling: bytes) -> None:
    kernel = Recorder()
    Nft(MARK, kernel).insert(chain)
    assert spelling in kernel.rule[4]
    found = read(kernel.rule, MARK)
    assert found == Rule(admits=True, uses=MARK, ours=True)
    assert not read(kernel.rule, MARK >> 1).admits, "with another FIREWALL_MARK it helps no more"


@pytest.mark.parametrize(
    ("chain", "command"),
    [
        (INPUT, "nft 'insert rule inet filter input meta mark & 0x40000000 == 0x40000000 accept comment \"doorward\"'"),
        (
            IPTABLES,
            f"iptables-nft -I INPUT {XTABLES}",
        ),
        (
            Chain("ip6", "mangle", "FORWARD"),
            f"ip6tables-nft -t mangle -I FORWARD {XTABLES}",
        ),
    ],
)
def test_the_command_that_helps_is_in_the_language_of_the_chain(chain: Chain, command: str) -> None:
    assert Nft(MARK, Recorder()).remedy(chain) == command
