"""Rules in other nftables tables, including those of iptables-nft: reading them, inserting and deleting ours.

Source: linux/netfilter/nf_tables.h, linux/netfilter/xt_mark.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import kernel, kernel_gate
from doorward.firewall.foreign import COMMENT, Rule
from doorward.firewall.kernel import number, value, words
from doorward.linux import netlink
from doorward.linux.netlink import ACKNOWLEDGE, CREATE, NESTED, attribute, attributes, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.firewall.kernel import Chain
    from doorward.linux.netlink import Netlink

# Chains of these names in these tables belong to iptables. Versions before 1.8.9 cannot read a mark match of nft; every
# version reads that of xtables.
_IPTABLES: Final = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}
_TABLES: Final = frozenset({"raw", "mangle", "filter", "security"})
_DROP, _ACCEPT, _JUMP, _GOTO = 0, 1, -3, -4  # NF_*, NFT_*
_ENDS: Final = frozenset({b"reject", b"queue", b"synproxy"})  # expressions that stop a packet
TARGETS: Final = frozenset(
    {"REJECT", "DROP", "QUEUE", "NFQUEUE", "TARPIT", "SYNPROXY"}
)  # of xtables that stop a packet
_NEUTRAL: Final = frozenset({b"counter", b"log", b"immediate", b"notrack", b"last", b"target"})  # they match everything
_NAME, _INFO = 1, 3  # NFTA_MATCH_*, NFTA_TARGET_*
_DATA, _VERDICT, _CODE, _CHAIN = 2, 2, 1, 2  # NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_*
_LOOKUP_RESULT: Final = 3  # NFTA_LOOKUP_DREG; register 0 holds the verdict
_CT_KEY: Final = 2  # NFTA_CT_KEY; 0 is the state
_CMP_OPERATION, _CMP_DATA = 2, 3  # NFTA_CMP_*; the operation 0 is "equal"
_VALUES: Final = {b"immediate": _DATA, b"cmp": _CMP_DATA, b"bitwise": kernel.BITWISE_XOR}  # where a value stands
_COMMENT: Final = 0  # NFTNL_UDATA_RULE_COMMENT
_MARK: Final = struct.Struct("=I")
_MARK_INFO: Final = struct.Struct("=IIB3x")  # struct xt_mark_mtinfo1: mark, mask, inverted
_INT: Final = struct.Struct("!i")
_EPERM: Final = "Operation not permitted"


class Nft:
    """The foreign.Flavour of all tables of nf_tables but our two."""

    def __init__(self, mark: int, kernel_: Netlink) -> None:
        """Use `kernel_`, and its network namespace."""
        self._mark = mark
        self._kernel = kernel_

    def chains(self) -> Iterator[Chain]:
        """See foreign.Flavour; a dormant table has none."""
        awake = set(kernel.tables(self._kernel))
        for chain in list(kernel.chains(self._kernel)):
            place = chain.family, chain.table
            ours = kernel.is_ours(*place) or " ".join(place) == kernel_gate.TABLE
            if chain.hook and place in awake and not ours:
                yield chain

    def rules(self, chain: Chain) -> Iterator[Rule]:
        """See foreign.Flavour."""
        for rule in kernel.rules(self._kernel, chain.family, chain.table, chain.name):
            yield read(rule, self._mark)

    def insert(self, chain: Chain) -> None:
        """See foreign.Flavour."""
        match = _xtables_match(self._mark) if _is_iptables(chain) else _nft_match(self._mark)
        verdict = attribute(_VERDICT | NESTED, attribute(_CODE, _INT.pack(_ACCEPT)))
        accept = _expression("immediate", attribute(1, _INT.pack(0)), attribute(_DATA | NESTED, verdict))
        comment = COMMENT.encode() + b"\0"
        self._change(
            chain,
            netlink.NEW_RULE,
            attribute(kernel.RULE_EXPRESSIONS | NESTED, match, accept),
            attribute(kernel.RULE_USERDATA, bytes([0, len(comment)]), comment),
            flags=CREATE,
        )

    def delete(self, chain: Chain) -> int:
        """See foreign.Flavour."""
        found = list(kernel.rules(self._kernel, chain.family, chain.table, chain.name))
        ours = [rule for rule in found if read(rule, self._mark).ours]
        for rule in ours:
            self._change(chain, netlink.DELETE_RULE, attribute(kernel.RULE_HANDLE, rule[kernel.RULE_HANDLE]))
        return len(ours)

    def remedy(self, chain: Chain) -> str:
        """See foreign.Flavour."""
        if _is_iptables(chain):
            return xtables_command(_IPTABLES[chain.family], chain, self._mark)
        return (
            f"nft 'insert rule {chain.family} {chain.table} {chain.name} "
            f'meta mark & {self._mark:#x} == {self._mark:#x} accept comment "{COMMENT}"\''
        )

    def _change(self, chain: Chain, kind: int, *body: bytes, flags: int = 0) -> None:
        family = kernel.NUMBERS[chain.family]
        place = text(kernel.TABLE, chain.table), text(kernel.RULE_CHAIN, chain.name)
        change = netlink.message(kind, family, *place, *body, flags=flags | ACKNOWLEDGE)
        try:
            self._kernel.run(netlink.FIRST + change + netlink.LAST)
        except FirewallError as error:
            if _EPERM in str(error):
                msg = f"the table belongs to another program (flag owner), which must insert it: {self.remedy(chain)}"
                raise FirewallError(msg) from error
            raise


def xtables_rule(mark: int) -> list[str]:
    """Our rule as arguments of iptables."""
    return ["-m", "mark", "--mark", f"{mark:#x}/{mark:#x}", "-m", "comment", "--comment", COMMENT, "-j", "ACCEPT"]


def xtables_command(program: str, chain: Chain, mark: int) -> str:
    """The command that puts our rule at the head of a chain of iptables."""
    table = [] if chain.table == "filter" else ["-t", chain.table]
    return " ".join([program, *table, "-I", chain.name, *xtables_rule(mark)])


def read(rule: dict[int, bytes], mark: int) -> Rule:
    """A rule's possible effects on a packet with `mark`."""
    expressions = [(name, dict(attributes(content))) for name, content in kernel.expressions(rule)]
    matches = [one for one in expressions if not _is_neutral(*one)]
    verdicts = [_verdict(found) for name, found in expressions if name == b"immediate"]
    jumps = tuple(words(chain) for code, chain in verdicts if code in {_JUMP, _GOTO})
    accepts = any(code == _ACCEPT for code, _ in verdicts)
    by_map = any(_is_verdict_map(*one) for one in expressions)  # its elements can be any verdict
    return Rule(
        admits=accepts and (not matches or _match_mark(matches, mark)),
        drops=by_map or any(code == _DROP for code, _ in verdicts) or any(_ends(*one) for one in expressions),
        jumps=jumps,
        always=not matches,
        sessions=(accepts or by_map or bool(jumps)) and any(_asks_for_state(*one) for one in matches),
        uses=_used_bits(expressions),
        ours=_comment(rule, expressions) == COMMENT,
    )


def _verdict(found: dict[int, bytes]) -> tuple[int | None, bytes]:
    """Code and chain of a verdict; the code is None where the expression only loads a value."""
    said = dict(attributes(dict(attributes(found[_DATA])).get(_VERDICT, b"")))
    return (_INT.unpack(said[_CODE])[0], said.get(_CHAIN, b"")) if _CODE in said else (None, b"")


def _is_neutral(name: bytes, found: dict[int, bytes]) -> bool:
    """Whether every packet continues with the next expression."""
    return name in _NEUTRAL or (name == b"match" and words(found[_NAME]) == "comment")


def _ends(name: bytes, found: dict[int, bytes]) -> bool:
    return name in _ENDS or (name == b"target" and words(found[_NAME]) in TARGETS)


def _is_verdict_map(name: bytes, found: dict[int, bytes]) -> bool:
    return name == b"lookup" and _LOOKUP_RESULT in found and number(found[_LOOKUP_RESULT]) == 0


def _asks_for_state(name: bytes, found: dict[int, bytes]) -> bool:
    if name == b"match":
        return words(found[_NAME]) in {"conntrack", "state"}
    return name == b"ct" and number(found.get(_CT_KEY)) == 0


def _match_mark(matches: list[tuple[bytes, dict[int, bytes]]], mark: int) -> bool:
    """Whether these equal the output of _nft_match() or _xtables_match() for `mark`, in any registers."""
    bits, found = _MARK.pack(mark), [content for _, content in matches]
    match [name for name, _ in matches]:
        case [b"match"]:
            return words(found[0][_NAME]) == "mark" and found[0].get(_INFO, b"")[:9] == bits + bits + b"\0"
        case [b"meta", b"bitwise", b"cmp"]:
            meta, bitwise, compared = found
            return (
                number(meta.get(kernel.META_KEY)) == kernel.META_MARK
                and value(bitwise.get(kernel.BITWISE_MASK, b"")) == bits
                and value(bitwise.get(kernel.BITWISE_XOR, b"")) == bytes(4)
                and number(compared.get(_CMP_OPERATION)) == 0
                and value(compared.get(_CMP_DATA, b"")) == bits
            )
        case _:
            return False


def _used_bits(expressions: list[tuple[bytes, dict[int, bytes]]]) -> int:
    """The bits of the mark that a rule sets or matches; masks alone do not count."""
    about_mark = any(
        name == b"meta" and number(found.get(kernel.META_KEY)) == kernel.META_MARK for name, found in expressions
    )
    used = 0
    for name, found in expressions:
        said = b""
        if name in {b"match", b"target"} and words(found[_NAME]) in {"mark", "MARK", "connmark", "CONNMARK"}:
            said = found.get(_INFO, b"")[: _MARK.size]
        elif about_mark and name in _VALUES:
            said = value(found.get(_VALUES[name], b""))
        used |= _MARK.unpack(said)[0] if len(said) == _MARK.size else 0
    return used


def _comment(rule: dict[int, bytes], expressions: list[tuple[bytes, dict[int, bytes]]]) -> str:
    """The comment of a rule: in its user data (nft), or in a match (xtables)."""
    for name, found in expressions:
        if name == b"match" and words(found[_NAME]) == "comment":
            return words(found.get(_INFO, b"").split(b"\0")[0])
    beside = rule.get(kernel.RULE_USERDATA, b"")
    while len(beside) > 1:
        kind, length = beside[:2]
        if kind == _COMMENT:
            return words(beside[2 : 2 + length])
        beside = beside[2 + length :]
    return ""


def _expression(name: str, *content: bytes) -> bytes:
    return attribute(1 | NESTED, text(1, name), attribute(2 | NESTED, *content))


def _xtables_match(mark: int) -> bytes:
    revision = attribute(2, _INT.pack(1))
    return _expression("match", text(_NAME, "mark"), revision, attribute(_INFO, _MARK_INFO.pack(mark, mark, 0)))


def _nft_match(mark: int) -> bytes:
    """`meta mark & BIT == BIT`."""
    register, size = _INT.pack(1), attribute(3, _INT.pack(4))
    bits, none = (attribute(kernel.VALUE, _MARK.pack(one)) for one in (mark, 0))
    return b"".join(
        (
            _expression("meta", attribute(kernel.META_KEY, _INT.pack(kernel.META_MARK)), attribute(1, register)),
            _expression(
                "bitwise",
                attribute(1, register),
                attribute(2, register),
                size,
                attribute(kernel.BITWISE_MASK | NESTED, bits),
                attribute(kernel.BITWISE_XOR | NESTED, none),
            ),
            _expression(
                "cmp",
                attribute(1, register),
                attribute(_CMP_OPERATION, _INT.pack(0)),
                attribute(_CMP_DATA | NESTED, bits),
            ),
        )
    )


def _is_iptables(chain: Chain) -> bool:
    return chain.family in _IPTABLES and chain.table in _TABLES and chain.name.isupper()
