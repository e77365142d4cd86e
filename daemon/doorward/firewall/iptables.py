"""Grants as timed elements of ipsets that a few iptables rules look into, for hosts that live on iptables.

The rules stand all the time, in chains of our own that are jumped to from the first place; a knock adds an element and
touches no rule. What the mechanism cannot do is said when the configuration is read (firewall/abilities.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import ruleset, xtables
from doorward.firewall.elements import ANYONE
from doorward.firewall.ipset import Entry, IpSetError, IpSets, Kind
from doorward.firewall.libnftables import Libnftables
from doorward.firewall.nftables import read_table
from doorward.values import FirewallMode, LiveGrant, Nat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from doorward.firewall.xtables import Chain, Tables, Tools
    from doorward.values import Grant, IPAddress, Service

PREFIX: Final = "doorward"  # of all our sets
OPEN, AT, ANY, GHOST, THROUGH = PREFIX, f"{PREFIX}_at", f"{PREFIX}_any", f"{PREFIX}_ghost", f"{PREFIX}_through"
_COMMENT: Final = f"{PREFIX}:"
_REST: Final = 20  # parts of the time; looking at the rules takes one of them at most
_REST_MAX: Final = 5.0  # seconds
_HALVES: Final[Mapping[int, tuple[IPAddress, ...]]] = {
    4: (ipaddress.IPv4Address(0), ipaddress.IPv4Address(1 << 31)),
    6: (ipaddress.IPv6Address(0), ipaddress.IPv6Address(1 << 127)),
}  # a set of networks takes no /0, but both halves of it
_BUILT_IN_DROPS: Final = {"raw": ("PREROUTING",), "mangle": ("PREROUTING", "INPUT"), "filter": ("INPUT",)}


@dataclass(frozen=True, slots=True)
class Hook:
    """One of our chains, and from where packets come to it."""

    table: str
    built_in: str
    chain: str
    only: str = ""  # which packets

    @property
    def jump(self) -> str:
        """The rule of the built-in chain, as it is listed without its `-A NAME`."""
        return f"{self.only}-j {self.chain}"


INPUT: Final = Hook("filter", "INPUT", "DOORWARD_INPUT")
FORWARD: Final = Hook("filter", "FORWARD", "DOORWARD_FORWARD")
PREROUTING: Final = Hook("nat", "PREROUTING", "DOORWARD_PREROUTING", "-m addrtype --dst-type LOCAL ")
POSTROUTING: Final = Hook("nat", "POSTROUTING", "DOORWARD_POSTROUTING")
HOOKS: Final = (INPUT, FORWARD, PREROUTING, POSTROUTING)
Rules = dict[Hook, tuple[str, ...]]


class Iptables:
    """The packet filter behind firewall.Firewall; needs CAP_NET_ADMIN and CAP_NET_RAW in its network namespace."""

    needs_watching: Final = True

    def __init__(  # noqa: PLR0913  what the rules are made from, each named
        self,
        mode: FirewallMode,
        guarded: Callable[[], Iterable[Service]],
        tools: Sequence[Tools],
        *,
        closed_by: Path | None = None,
        nats: Collection[Nat] = (),
        whole: object = None,
    ) -> None:
        """Keep what prepare() needs: `guarded` is asked each time, so that a reload counts.

        `closed_by` is the nftables file that must not be there; `nats` are the ways that a grant may lead, each with
        rules of its own; `whole` is what an earlier object of this class left.

        Raises:
            FirewallError: no netlink here.
        """
        self._mode = mode
        self._guarded = guarded
        self._tools = tuple(tools)
        self._closed_by = closed_by
        self._nats = tuple(dict.fromkeys(nats))
        self.whole = whole
        self._as_listed: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._rested_until = 0.0
        self._made: list[str] = []
        try:
            self._sets = IpSets()
        except OSError as error:
            msg = f"sets of the kernel: {error.strerror}"
            raise FirewallError(msg) from error

    def prepare(self) -> str | None:
        """See firewall.Firewall: make what lacks, or stands differently, or not in the first place."""
        if self.whole is None:
            self._refuse_beside_nftables()
        began = time.monotonic()
        try:
            for tools in self._tools:
                made = self._prepare(tools)
                self._made += [made] if made else []
        finally:
            ended = time.monotonic()
            self._rested_until = ended + min(_REST_MAX, _REST * (ended - began))
        if not self._made:
            self.whole = self.whole or object()
            return None
        # what was made before an error counts too: whoever is told opens the grants again
        made, self._made = "; ".join(dict.fromkeys(self._made)), []
        self.whole = object()
        return made

    def _refuse_beside_nftables(self) -> None:
        """Refuse a host that our other packet filter closes: its drop would be the last word."""
        if self._closed_by is not None and self._closed_by.exists():
            msg = (
                f"{self._closed_by} closes this host by nftables at every boot, whatever iptables lets in: "
                "use FIREWALL_BACKEND nftables, or remove the file and then the table"
            )
            raise FirewallError(msg)
        if _nftables_closes():
            msg = (
                f"nftables has a table {ruleset.TABLE} that drops what iptables lets in: use FIREWALL_BACKEND "
                f"nftables, or remove it with `nft delete table {ruleset.TABLE}`"
            )
            raise FirewallError(msg)

    def looks_again(self) -> str | None:
        """See firewall.Firewall; where there are many rules looking costs much, and is not done each time."""
        return None if time.monotonic() < self._rested_until else self.prepare()

    def _prepare(self, tools: Tools) -> str | None:
        wanted, family = self._rules(tools.family), tools.family
        for name, kind in _sets(family, self._nats).items():
            self._sets.create(name, kind, family)
        tables = tools.tables()
        wrong = self._wrong(wanted, tables)
        if wrong is None:
            return None
        tools.apply(transaction(wanted, tables))
        self._learn(wanted, tools.tables())
        self._forget_sets(family)
        return f"{wrong}: made the {self._mode} rules"

    def _wrong(self, wanted: Rules, tables: Tables) -> str | None:
        """Return what is not as it should be, or None."""
        for hook in HOOKS:
            chain, base = _chain(tables, hook.table, hook.chain), _chain(tables, hook.table, hook.built_in)
            if hook not in wanted:
                if chain is not None:
                    return f"chain {hook.chain} is not needed any more"
                continue
            if chain is None:
                return f"chain {hook.chain} was not there"
            if chain.rules != self._as_listed.get(wanted[hook], wanted[hook]):
                return f"chain {hook.chain} had other rules"
            if base is None or base.rules[:1] != (hook.jump,) or base.rules.count(hook.jump) != 1:
                return f"{hook.chain} was not in the first place of {hook.built_in}"
        return None

    def _learn(self, wanted: Rules, tables: Tables) -> None:
        """Keep how the rules that were just set are listed: not every version writes them alike.

        Raises:
            FirewallError: they are not there, so that setting them again and again would pile them up.
        """
        for hook, rules in wanted.items():
            chain = _chain(tables, hook.table, hook.chain)
            if chain is None or len(chain.rules) != len(rules):
                msg = f"iptables took the rules of {hook.chain} but does not show them: does it see all of /proc?"
                raise FirewallError(msg)
            self._as_listed[rules] = chain.rules
        wrong = self._wrong(wanted, tables)
        if wrong is not None:
            msg = f"somebody else sets rules at the same moment: {wrong}"
            raise FirewallError(msg)

    def _forget_sets(self, family: int) -> None:
        """Remove sets of ours that no rule needs any more: the ways of an earlier configuration."""
        wanted = _sets(family, self._nats)
        for name in self._sets.names():
            if name.startswith(f"{PREFIX}_to_") and name.endswith(str(family)) and name not in wanted:
                with contextlib.suppress(IpSetError):  # in use by somebody's own rule
                    self._sets.destroy(name)

    def unserved(self) -> tuple[str, ...]:
        """See firewall.Firewall: what cannot be served was refused when the configuration was read."""
        return ()

    def open(self, grant: Grant) -> None:
        """See firewall.Firewall; sets that vanished are made again once."""
        try:
            self._open(grant)
        except IpSetError as error:
            if not error.is_absence:
                raise
            self.prepare()
            self._open(grant)

    def _open(self, grant: Grant) -> None:
        """Add all elements of a grant, or none."""
        if grant.nat is not None and grant.nat not in self._nats:
            msg = f"no rules lead to {_words(grant.nat)}: iptables needs to know every target when it starts"
            raise FirewallError(msg)
        added: list[tuple[str, Entry]] = []
        try:
            for live in LiveGrant.of(grant):
                self._leave_other_ways(live)
                for name, entry in elements(live):
                    self._sets.add(name, entry, grant.seconds)
                    added.append((name, entry))
        except FirewallError:
            for name, entry in added:
                self._sets.delete(name, entry)
            raise

    def _leave_other_ways(self, live: LiveGrant) -> None:
        """Let a source's service lead to one place only: the last knock's."""
        if live.nat is None:
            return
        for other in self._nats:
            if other != live.nat and other.everything == live.nat.everything:
                moved = LiveGrant(live.source, live.service, live.remaining, other)
                for name, entry in _lead(moved, other):
                    self._sets.delete(name, entry)

    def reopen(self, live: Iterable[LiveGrant]) -> None:
        """Open what was open before, each for what remains of it; what has no rules any more stays closed."""
        for grant in live:
            if grant.nat is None or grant.nat in self._nats:
                for name, entry in elements(grant):
                    self._sets.add(name, entry, max(1, math.ceil(grant.remaining)))

    def open_anyone(self, services: Iterable[Service], seconds: int) -> None:
        """Open `services` for every address: the console's word alone, never the network's."""
        services = tuple(services)
        if not services:
            msg = "nothing to open"
            raise FirewallError(msg)
        for family in self._families:
            for service in services:
                for half in _HALVES[family]:
                    self._sets.add(f"{ANY}{family}", Entry(half, service, prefix=1), seconds)

    def close_anyone(self, services: Iterable[Service]) -> None:
        """Close for every address what open_anyone() opened."""
        for family in self._families:
            for service in services:
                for half in _HALVES[family]:
                    self._sets.delete(f"{ANY}{family}", Entry(half, service, prefix=1))

    @property
    def _families(self) -> tuple[int, ...]:
        return tuple(tools.family for tools in self._tools)

    def grants(self) -> tuple[LiveGrant, ...]:
        """See firewall.Firewall. An element without an end remains infinitely; ANYONE is the source of any."""
        return tuple(sorted(self._grants(), key=_order))

    def _grants(self) -> Iterator[LiveGrant]:
        first = self._families[0]
        for entry in self._sets.entries(f"{ANY}{first}"):
            if int(entry.address) == 0:
                yield LiveGrant(ANYONE, entry.service, _remaining(entry))
        names = self._sets.names()
        for tools in self._tools:
            for name in (f"{OPEN}{tools.family}", f"{AT}{tools.family}"):
                for entry in self._sets.entries(name):
                    yield LiveGrant(entry.address, entry.service, _remaining(entry), None, None, entry.other)
            if any(name.startswith(f"{PREFIX}_to_") for name in names):
                for name, nat in ways(tools.tables()).items():
                    for entry in self._sets.entries(name):
                        yield LiveGrant(entry.address, entry.service, _remaining(entry), nat)

    def flush(self) -> None:
        """See firewall.Firewall; without sets nothing is open, and nothing is done."""
        for name in self._own_sets():
            self._sets.flush(name)

    def withdraw(self, source: IPAddress) -> int:
        """Close every grant of `source` now and return how many there were."""
        written = _written(source)
        count = sum(live.source == written for live in self.grants())
        for name in self._own_sets():
            if not name.startswith(ANY):
                for entry in self._sets.entries(name):
                    if entry.address == written:
                        self._sets.delete(name, entry)
        return count

    def _own_sets(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self._sets.names() if _is_ours(name)))

    def state(self) -> str:
        """Return `guard` or `observe` as the rules stand, `broken` where something of them lacks, or `absent`."""
        found = [_state(tools.tables()) for tools in self._tools]
        return found[0] if len(set(found)) == 1 else "broken"

    def remove(self) -> None:
        """Take all of it away: rules, sets and with them every grant. What our rules kept closed is open then."""
        for tools in self._tools:
            text = transaction({}, tools.tables())
            if text:
                tools.apply(text)
        for name in self._own_sets():
            self._sets.destroy(name)

    def foreign_drops(self) -> tuple[str, ...]:
        """Return one line for each rule of others that drops what our grants let in, or what follows.

        Our accept is the last word in its table alone: raw and mangle come before, the other flavour of iptables and
        tables of nft decide by themselves, and of the latter nothing shows here.
        """
        lines = [line for tools in self._tools for line in _drops(tools, tools.tables())]
        for tools in xtables.other_flavours(self._tools):
            with contextlib.suppress(FirewallError):  # a kernel that has only one flavour
                lines += _drops(tools, tools.tables(), first=("filter", "mangle", "raw"))
        return tuple(lines)

    def close(self) -> None:
        """Give the socket back; rules, sets and grants stay."""
        self._sets.close()

    def _rules(self, family: int) -> Rules:
        """Return the rules of each of our chains, in the words in which they are listed."""
        nats = [nat for nat in self._nats if _speaks(nat, family)]
        rules: Rules = {INPUT: (*_accepts(family, nats), *self._guard())}
        if nats:
            rules[PREROUTING] = tuple(rule for nat in nats for rule in _leads(nat, family))
            rules[FORWARD] = tuple(_lets_through(family, nats))
            rules[POSTROUTING] = tuple(rule for nat in nats for rule in _gives_a_source(nat, family))
        return {hook: some for hook, some in rules.items() if some}

    def _guard(self) -> Iterator[str]:
        """Yield what closes: new connections to what is guarded, and nothing else."""
        if self._mode is FirewallMode.GUARD:
            yield "-i lo -j RETURN"
            yield "-m conntrack --ctstate ESTABLISHED -j RETURN"
            for service in sorted(set(self._guarded())):
                yield f"-p {service.protocol} -m {service.protocol} --dport {service.port} -j DROP"


def _nftables_closes() -> bool:
    """Say whether our own table of nftables drops anything; where libnftables lacks, nobody has loaded one."""
    try:
        with contextlib.closing(Libnftables()) as nft:
            table = read_table(nft)
    except FirewallError:
        return False
    return table is not None and table.kind != "observe"


def transaction(wanted: Rules, tables: Tables) -> str:
    """Return what iptables-restore makes of the present rules into what is wanted; others' stay as they are."""
    return "".join(_table_transaction(table, wanted, tables) for table in ("filter", "nat"))


def _table_transaction(table: str, wanted: Rules, tables: Tables) -> str:
    chains: list[str] = []
    lines: list[str] = []
    for hook in HOOKS:
        base = _chain(tables, table, hook.built_in)
        if hook.table != table or (hook not in wanted and _chain(tables, table, hook.chain) is None):
            continue
        chains.append(f":{hook.chain} - [0:0]")  # makes it, or empties it
        lines += [f"-D {hook.built_in} {hook.jump}"] * (base.rules.count(hook.jump) if base else 0)
        if hook in wanted:
            lines += [f"-A {hook.chain} {rule}" for rule in wanted[hook]]
            lines.append(f"-I {hook.built_in} 1 {hook.jump}")
        else:
            lines.append(f"-X {hook.chain}")
    return "\n".join([f"*{table}", *chains, *lines, "COMMIT", ""]) if chains else ""


def elements(live: LiveGrant) -> tuple[tuple[str, Entry], ...]:
    """Return set and element for each thing that one service of a grant asks for.

    Raises:
        FirewallError: no element could express it.
    """
    source = _written(live.source)
    family = source.version
    if live.os is not None or (live.nat is not None and live.destination is not None):
        msg = "iptables tells no systems apart, and leads elsewhere only what comes to any address of this host"
        raise FirewallError(msg)
    if live.nat is not None:
        return (*_lead(live, live.nat), *_let_in(live, live.nat))
    if live.destination is None:
        return ((f"{OPEN}{family}", Entry(source, live.service)),)
    destination = _written(live.destination)
    if destination.version != family:
        msg = f"{destination} is not of the family of addresses that the connection has"
        raise FirewallError(msg)
    return ((f"{AT}{family}", Entry(source, live.service, destination)),)


def _lead(live: LiveGrant, nat: Nat) -> tuple[tuple[str, Entry], ...]:
    source = _written(live.source)
    return ((_way(nat, source.version), Entry(source, None if nat.everything else live.service)),)


def _let_in(live: LiveGrant, nat: Nat) -> Iterator[tuple[str, Entry]]:
    source = _written(live.source)
    if nat.everything or live.service is None or nat.port is None:
        return
    inner = type(live.service)(live.service.protocol, nat.port)
    if nat.target is None:
        yield f"{GHOST}{source.version}", Entry(source, inner)
    else:
        yield f"{THROUGH}{source.version}", Entry(source, inner, _written(nat.target))


def ways(tables: Tables) -> dict[str, Nat]:
    """Return where each of our sets leads, as the rules in the kernel say it."""
    chain = _chain(tables, PREROUTING.table, PREROUTING.chain)
    found = {}
    for words in (rule.replace('"', "").split() for rule in (chain.rules if chain else ())):
        comments = [word for word in words if word.startswith(_COMMENT)]
        if comments and "--match-set" in words:
            found[words[words.index("--match-set") + 1]] = _nat(comments[0].removeprefix(_COMMENT))
    return found


def _accepts(family: int, nats: Sequence[Nat]) -> Iterator[str]:
    yield f"-m set --match-set {OPEN}{family} src,dst -j ACCEPT"
    yield f"-m set --match-set {AT}{family} src,dst,dst -j ACCEPT"
    yield f"-m set --match-set {ANY}{family} src,dst -j ACCEPT"
    if any(nat.target is None for nat in nats):
        yield f"-m conntrack --ctstate DNAT -m set --match-set {GHOST}{family} src,dst -j ACCEPT"


def _leads(nat: Nat, family: int) -> Iterator[str]:
    """Yield what leads the first packet of a connection; without rewriting, what only names the way."""
    name, said = _way(nat, family), f'-m comment --comment "{_COMMENT}{_words(nat)}"'
    if nat.everything:
        goal = f"DNAT --to-destination {nat.target}" if nat.rewrite else "RETURN"
        yield f"-m set --match-set {name} src {said} -j {goal}"
        return
    host = "" if nat.target is None else str(nat.target) if nat.target.version == 4 else f"[{nat.target}]"  # noqa: PLR2004
    goal = f"DNAT --to-destination {host}:{nat.port}" if nat.rewrite else "RETURN"
    for protocol in ("tcp", "udp"):
        yield f"-p {protocol} -m set --match-set {name} src,dst {said} -j {goal}"


def _lets_through(family: int, nats: Sequence[Nat]) -> Iterator[str]:
    if any(nat.target is not None and not nat.everything for nat in nats):
        yield f"-m set --match-set {THROUGH}{family} src,dst,dst -j ACCEPT"
    for nat in nats:
        if nat.everything:
            yield f"-d {_network(nat)} -m set --match-set {_way(nat, family)} src -j ACCEPT"


def _gives_a_source(nat: Nat, family: int) -> Iterator[str]:
    if nat.snat is None and not nat.masquerade:
        return
    goal = "MASQUERADE" if nat.snat is None else f"SNAT --to-source {nat.snat}"
    if nat.everything:
        yield f"-d {_network(nat)} -m set --match-set {_way(nat, family)} src -j {goal}"
        return
    for protocol in ("tcp", "udp"):
        seen = f"-d {_network(nat)} -p {protocol} -m {protocol} --dport {nat.port}"
        yield f"{seen} -m set --match-set {THROUGH}{family} src,dst,dst -j {goal}"


def _sets(family: int, nats: Iterable[Nat]) -> dict[str, Kind]:
    """Return the sets that the rules of one family look into."""
    chosen = [nat for nat in nats if _speaks(nat, family)]
    made = {
        f"{OPEN}{family}": Kind.SOURCE_SERVICE,
        f"{AT}{family}": Kind.SOURCE_SERVICE_ADDRESS,
        f"{ANY}{family}": Kind.NETWORK_SERVICE,
    }
    if chosen:
        made[f"{GHOST}{family}"] = Kind.SOURCE_SERVICE
        made[f"{THROUGH}{family}"] = Kind.SOURCE_SERVICE_ADDRESS
    return made | {_way(nat, family): Kind.SOURCE if nat.everything else Kind.SOURCE_SERVICE for nat in chosen}


def _way(nat: Nat, family: int) -> str:
    """Return the name of the set of those who are led one way."""
    return f"{PREFIX}_to_{hashlib.sha256(_words(nat).encode()).hexdigest()[:12]}_{family}"


def _is_ours(name: str) -> bool:
    return name.rstrip("46") in {OPEN, AT, ANY, GHOST, THROUGH} or name.startswith(f"{PREFIX}_to_")


def _words(nat: Nat) -> str:
    """Return a way in one word, which a rule keeps as its comment."""
    source = "masquerade" if nat.masquerade else str(nat.snat or "")
    return f"{nat.target or ''},{nat.port or ''},{'' if nat.rewrite else 'as-is'},{source}"


def _nat(words: str) -> Nat:
    target, port, as_is, source = words.split(",")
    masquerade = source == "masquerade"
    return Nat(
        ipaddress.ip_address(target) if target else None,
        int(port) if port else None,
        everything=not port,
        rewrite=not as_is,
        snat=ipaddress.ip_address(source) if source and not masquerade else None,
        masquerade=masquerade,
    )


def _network(nat: Nat) -> str:
    return f"{nat.target}/{nat.target.max_prefixlen if nat.target else 0}"


def _speaks(nat: Nat, family: int) -> bool:
    return nat.target is None or nat.target.version == family


def _written(address: IPAddress) -> IPAddress:
    """Return an address as the set has it; a mapped one arrives as IPv4.

    Raises:
        FirewallError: an address with a scope, which no set could express.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.scope_id is not None:
        msg = f"{address}: an address with a scope cannot be granted"
        raise FirewallError(msg)
    return address.ipv4_mapped or address


def _chain(tables: Tables, table: str, name: str) -> Chain | None:
    return tables.get(table, {}).get(name)


def _state(tables: Tables) -> str:
    chain, base = _chain(tables, INPUT.table, INPUT.chain), _chain(tables, INPUT.table, INPUT.built_in)
    if chain is None or base is None:
        return "absent"
    if INPUT.jump not in base.rules or not any(OPEN in rule for rule in chain.rules):
        return "broken"
    return "guard" if any(rule.endswith("-j DROP") for rule in chain.rules) else "observe"


def _drops(tools: Tools, tables: Tables, first: Sequence[str] = ("mangle", "raw")) -> Iterator[str]:
    """Yield what drops before our accept can speak, and where established connections would be dropped."""
    name = tools.save.name.removesuffix("-save")
    for table in first:
        for built_in in _BUILT_IN_DROPS[table]:
            chain = _chain(tables, table, built_in)
            if chain is not None and _drops_all(chain):
                yield f"{name}, table {table}, chain {built_in}: drops everything"
    chain = _chain(tables, "filter", "INPUT")
    if "filter" not in first and chain is not None and _drops_all(chain) and not _keeps_established(tables, chain):
        yield f"{name}, chain INPUT: no rule lets established connections live on, so they end with their window"


def _drops_all(chain: Chain) -> bool:
    return chain.policy == "DROP" or any(rule.startswith(("-j DROP", "-j REJECT")) for rule in chain.rules)


def _keeps_established(tables: Tables, chain: Chain) -> bool:
    """Say whether a rule for established connections is reached; chains that are jumped to count too (ufw)."""
    rules = [*chain.rules]
    for rule in chain.rules:
        jumped = _chain(tables, "filter", rule.rsplit(" ", 1)[-1])
        rules += jumped.rules if jumped is not None and not rule.endswith(INPUT.chain) else ()
    return any("ESTABLISHED" in rule and rule.endswith("-j ACCEPT") for rule in rules)


def _remaining(entry: Entry) -> float:
    return math.inf if entry.remaining is None else entry.remaining


def _order(grant: LiveGrant) -> tuple[int, IPAddress, tuple[int, int], bool, str]:
    service = (int(grant.service.protocol), grant.service.port) if grant.service else (0, 0)
    return grant.source.version, grant.source, service, grant.nat is not None, str(grant.destination)
