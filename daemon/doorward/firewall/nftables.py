"""Grants as timed elements of nftables sets, in a table of our own: the default packet filter."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from doorward.errors import FirewallError
from doorward.firewall import batch, elements, ruleset
from doorward.firewall.elements import ANYONE, Element, Listing
from doorward.firewall.libnftables import Libnftables, Output
from doorward.firewall.needs import Needs
from doorward.firewall.netlink import Netlink
from doorward.firewall.ruleset import Part, Shape
from doorward.values import FirewallMode, Grant, IPAddress, LiveGrant, Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

FAILURE_FILE: Final = "failure.nft"  # beside the confirmed file; the firewall role writes both
FILE_BYTES_MAX: Final = 1 << 20  # a rendered table is some 3 KB
TRIES: Final = 5  # at a table that others change in the same moment
_HOOKS: Final = frozenset({"input", "prerouting", "ingress"})  # a drop in any of them is final
_INERT: Final = frozenset({"counter", "log", "comment"})  # what may stand before a plain drop
_PROTOCOLS: Final = {
    name: protocol for protocol in Protocol for name in (str(protocol), int(protocol), str(int(protocol)))
}
_TYPE_OF_NAMES: Final = {"typeof": {"osf": {"key": "name"}}}
NO_NEEDS: Final = Needs()
__all__ = ["ANYONE", "Nftables", "Table", "describe", "foreign_tables", "read_table", "table_text"]


@dataclass(frozen=True, slots=True)
class Table:
    """Our table as the kernel has it. A table that was made again has another handle.

    `kind` is `drop`, `guard` or `observe`; `timed_sets` are those whose elements expire; `serves` are the kinds of
    grants that it has sets for, `plain` those whose sets hold no ranges; `parts` are its sets, chains and rules, each
    as text.
    """

    handle: int
    kind: str
    sets: frozenset[str]
    chains: frozenset[str]
    timed_sets: tuple[str, ...]
    serves: frozenset[Part]
    plain: frozenset[Part]
    parts: frozenset[str]

    @property
    def serves_grants(self) -> bool:
        """Whether it has what plain grants need."""
        return Part.GRANTS in self.serves

    def lacks(self, before: Table | None) -> bool:
        """Say whether this is the table `before` with something taken away. Another table, made by a swap, is not."""
        return before is not None and before.handle == self.handle and not before.parts <= self.parts


class Nftables:
    """The packet filter behind firewall.Firewall; needs CAP_NET_ADMIN in its network namespace."""

    needs_watching: Final = False

    def __init__(  # noqa: PLR0913  what a table is made from, each named
        self,
        file: Path,
        mode: FirewallMode,
        guarded: Callable[[], Iterable[Service]],
        library: Libnftables | None = None,
        *,
        whole: Table | None = None,
        needs: Needs = NO_NEEDS,
    ) -> None:
        """Keep what prepare() needs: `guarded` is asked each time, so that a reload counts.

        `whole` is the table as an earlier object of this class left it, `needs` what grants will ask of it.

        Raises:
            FirewallError: libnftables is missing, or no netlink.
        """
        self._file = file
        self._mode = mode
        self._guarded = guarded
        self._nft = library or Libnftables()
        self._netlink = Netlink()
        self._needs = needs
        self.whole = whole

    def prepare(self) -> str | None:
        """See firewall.Firewall; a table that serves grants is used as it is, but a guard follows `guarded`.

        One that was whole before and lacks something now is loaded again: without its rules it lets everybody in. One
        that doorwardd made for an earlier configuration, or an older doorwardd, is given what it lacks.
        """
        impossible = self._needs.impossible()
        if impossible:
            raise FirewallError(impossible)
        if self._needs.systems:
            self._nft.check(ruleset.FINGERPRINTING)  # nft gives the kernel its file of fingerprints when it reads this
        table = read_table(self._nft)
        if table is not None and table.lacks(self.whole):
            return f"something was taken out of it: {self._load(None)}"
        if table is None or not table.serves_grants:
            self.whole = None  # what is there is not what it was
            return self._load(table)
        if self._may_be_widened(table):
            return self._widen(table)
        self.whole = table
        return self._keep(table)

    def _make(self, commands: Callable[[], str]) -> Table | None:
        """Make our table what it is to be in one transaction; return it as it is then, and keep it as the `whole` one.

        What others left of it must not pass for whole. Where another transaction than ours came between two looks at
        their number, ours is run again; where others never rest, what is there at last has to do.
        """
        for _ in range(TRIES):
            before = self._netlink.generation()
            self._nft.run(commands())
            self.whole = read_table(self._nft)
            if self._netlink.generation() == before + 1:
                break
        return self.whole

    def looks_again(self) -> str | None:
        """See firewall.Firewall."""
        return self.prepare()

    def _keep(self, table: Table) -> str | None:
        """Leave a table as it is, but for what a guard table guards."""
        if table.kind == "guard" and self._mode is FirewallMode.GUARD and ruleset.GUARDED_SET in table.sets:
            return self._follow()
        return None

    def unserved(self) -> tuple[str, ...]:
        """See firewall.Firewall: the table of a confirmed file may be older than what the configuration asks for."""
        table = read_table(self._nft)
        return () if table is None else tuple(_lack(part) for part in _sorted(self._needs.parts - table.serves))

    def open(self, grant: Grant) -> None:
        """See firewall.Firewall; a table that vanished is made again once."""
        if not self._open_plainly(grant):
            self._open(grant)

    def _open_plainly(self, grant: Grant) -> bool:
        """Open what every table has a set for without libnftables, and say whether that was possible.

        The kernel compares lengths where libnftables compares types: the sets must be known to be what they should be.
        In a set of ranges an element has an end, which libnftables writes.
        """
        part = Part.GRANTS if grant.destination is None else Part.DESTINATION
        if self.whole is None or part not in self.whole.plain:
            return False
        transaction = batch.renewal(grant)
        if transaction is None:
            return False
        try:
            self._netlink.run(transaction)
        except FirewallError:  # libnftables says why, or overcomes it
            return False
        return True

    def _open(self, grant: Grant) -> None:
        """Open any grant by libnftables."""
        opened = [element for live in LiveGrant.of(grant) for element in elements.of(live)]
        names = "" if grant.os is None else elements.system(grant.os).added_for_good()
        commands = names + "".join(element.renewed(grant.seconds) for element in opened)
        try:
            self._nft.run(commands)
        except FirewallError as error:
            self._overcome(error, grant, opened)
            self._nft.run(commands)
        self._delete(element.rival for element in opened)

    def _delete(self, unwanted: Iterable[Element | None]) -> None:
        """Delete elements of maps that may be there: a connection is led to one place only, the last knock's."""
        for element in unwanted:
            if element is not None:
                with contextlib.suppress(FirewallError):
                    self._nft.run(element.deleted())

    def _overcome(self, error: FirewallError, grant: Grant, opened: Iterable[Element]) -> None:
        """Take away what kept a grant from being opened, or raise why it cannot be."""
        table = read_table(self._nft)
        if table is None or not table.serves_grants:
            self.prepare()
            return
        part = elements.part(LiveGrant.of(grant)[0])
        if part not in table.serves:
            raise FirewallError(_lack(part)) from error
        if os.strerror(errno.EEXIST) not in str(error):
            raise _in_our_words(error) from error
        self._delete(element for element in opened if element.value)

    def reopen(self, live: Iterable[LiveGrant]) -> None:
        """Open what was open before in a table that was just made, each for what remains of it: one transaction.

        What the table has no sets for stays closed.
        """
        table = read_table(self._nft)
        served = [grant for grant in live if table is not None and elements.part(grant) in table.serves]
        places: dict[str, list[str]] = {}
        for grant in served:
            seconds = max(1, math.ceil(grant.remaining))
            for element in elements.of(grant):
                places.setdefault(element.place, []).append(element.timed(seconds))
        systems = {grant.os for grant in served if grant.os is not None}
        names = [elements.system(name).added_for_good() for name in sorted(systems)]
        added = [f"add element {ruleset.TABLE} {place} {{ {', '.join(some)} }}\n" for place, some in places.items()]
        if added:
            self._nft.run("".join([*names, *added]))

    def open_anyone(self, services: Iterable[Service], seconds: int) -> None:
        """Open `services` for every address: the console's word alone, never the network's."""
        services = tuple(services)
        if not services or seconds < 1:
            msg = "nothing to open"
            raise FirewallError(msg)
        opened = [Element(ruleset.ANYONE_SET, ruleset.service_element(service)) for service in services]
        self._nft.run("".join(element.renewed(seconds) for element in opened))

    def close_anyone(self, services: Iterable[Service]) -> None:
        """Close for every address what open_anyone() opened."""
        opened = [Element(ruleset.ANYONE_SET, ruleset.service_element(service)) for service in services]
        if opened:
            self._nft.run("".join(element.removed() for element in opened))

    def grants(self) -> tuple[LiveGrant, ...]:
        """See firewall.Firewall. An element without an end remains infinitely; ANYONE is the source of any."""
        return self._listing().grants()

    def _listing(self) -> Listing:
        """Return the elements of our table; none where there is no table."""
        if read_table(self._nft) is None:
            return Listing(())
        return Listing(self._nft.objects(f"list table {ruleset.TABLE}", Output.NUMERIC_PROTO))

    def flush(self) -> None:
        """See firewall.Firewall; without a table nothing is open, and nothing is done."""
        table = read_table(self._nft)
        flushes = [
            f"flush {kind} {ruleset.TABLE} {name}\n"
            for name, kind in ruleset.GRANT_KINDS.items()
            if table is not None and name in table.sets
        ]
        if flushes:
            self._nft.run("".join(flushes))

    def withdraw(self, source: IPAddress) -> int:
        """Close every grant of `source` now and return how many there were."""
        listing = self._listing()
        removed = [element.removed() for element in listing.of_source(source)]
        if removed:
            self._nft.run("".join(removed))
        written = source.ipv4_mapped or source if isinstance(source, ipaddress.IPv6Address) else source
        return sum(live.source == written for live in listing.grants())

    def foreign_drops(self) -> tuple[str, ...]:
        """Return one line for every other table's chain that drops what our grants let in.

        An accept of ours does not override a later drop (nft(8), "accept"). Drops of iptables-legacy do not show here.
        """
        entries = self._nft.objects("list ruleset", Output.TERSE)
        hooks = _HOOKS | {"forward"} if self._needs.forwarding else _HOOKS
        chains = {_chain_key(chain): chain for chain in _others(entries, "chain") if chain.get("hook") in hooks}
        dropping = {key: "policy drop" for key, chain in chains.items() if chain.get("policy") == "drop"}
        for rule in _others(entries, "rule"):
            key = (rule["family"], rule["table"], rule["chain"])
            if key in chains and _drops_plainly(rule.get("expr", [])):
                dropping.setdefault(key, "a rule that drops everything")
        return tuple(
            f"table {family} {table}, chain {chain}: {why}" for (family, table, chain), why in dropping.items()
        )

    def close(self) -> None:
        """Free libnftables; grants and table stay."""
        self._nft.close()
        self._netlink.close()

    def _load(self, present: Table | None) -> str:
        """Put the confirmed file's table, or the mode's, into the kernel and return what was done.

        A file that is there means a host that was closed: it is not left open, whatever the mode.
        """
        if self._file.exists():
            return self._load_confirmed()
        if present is not None:
            msg = f"table {ruleset.TABLE} has no sets for grants; `doorward firewall stop` removes it"
            raise FirewallError(msg)
        guarding = self._mode is FirewallMode.GUARD
        text = ruleset.swap(self._guard() if guarding else ruleset.observe(self._needs.parts))
        self._make(lambda: text)
        return f"table {ruleset.TABLE} was not there: made the {self._mode} table"

    def _guard(self) -> str:
        return ruleset.guard(self._guarded(), self._needs.parts)

    def _may_be_widened(self, table: Table) -> bool:
        """Return whether a table lacks what is needed, and is one that doorwardd made: no file says what it holds."""
        guarding = table.kind == "guard" and ruleset.GUARDED_SET in table.sets  # the role's guard names its services
        known = table.chains <= set(ruleset.OUR_CHAINS) and (guarding or table.kind == "observe")
        made_here = known and not self._file.exists()
        return made_here and not self._needs.parts <= table.serves

    def _widen(self, table: Table) -> str:
        """Give a table what it lacks; live grants stay."""
        text = self._guard() if table.kind == "guard" else ruleset.observe(self._needs.parts | table.serves)
        lacking = " and ".join(map(str, _sorted(self._needs.parts - table.serves)))
        self._make(lambda: ruleset.widened(text, sorted((read_table(self._nft) or table).chains)))
        return f"table {ruleset.TABLE} had nothing for grants with {lacking}: it has now"

    def _load_confirmed(self) -> str:
        """Load the confirmed table; or else the failure policy's beside it; or else guard what OPEN_PORTS names."""
        failure = self._file.with_name(FAILURE_FILE)
        error = self._complaint_loading(self._file)
        if error is None:
            return f"table {ruleset.TABLE} was not there: loaded {self._file}"
        if failure.exists() and self._complaint_loading(failure) is None:
            return f"{self._file} does not load ({error}): the failure policy's {failure} is in force"
        text = ruleset.swap(self._guard())
        self._make(lambda: text)
        return f"{self._file} does not load ({error}): the services of OPEN_PORTS are guarded instead"

    def _complaint_loading(self, file: Path) -> str | None:
        """Load a file and return None, or why it does not do; an empty file loads and closes nothing."""
        try:
            text = ruleset.swap(table_text(file))
            table = self._make(lambda: text)
        except FirewallError as error:
            return str(error)
        return None if table is not None and table.serves_grants else "it makes no table that serves grants"

    def _follow(self) -> str | None:
        """Make an existing guard table guard what is to be guarded now."""
        wanted = set(self._guarded())
        listed = self._nft.objects(f"list set {ruleset.TABLE} {ruleset.GUARDED_SET}", Output.NUMERIC_PROTO)
        present = {_service(*pair["concat"]) for entry in listed for pair in entry.get("set", {}).get("elem", ())}
        if wanted == present:
            return None
        self._nft.run(ruleset.regard(wanted))
        return f"guarding {' '.join(map(str, sorted(wanted))) or 'nothing'}"


def read_table(nft: Libnftables) -> Table | None:
    """Return our table as the kernel has it, or None where there is none.

    All inet tables are listed: for one table nft 1.0.6 fetches every element even for a terse listing, which takes
    60 ms at 10 000 grants; this takes 0.2 ms.
    """
    return describe(nft.objects("list ruleset inet", Output.TERSE | Output.STATELESS))


def describe(entries: list[dict[str, Any]]) -> Table | None:
    """Return our table out of listed objects, or None where it is not among them."""
    ours = [entry["table"] for entry in entries if _is_ours(entry.get("table", {}))]
    if not ours:
        return None
    sets = {listed["name"]: listed for kind in ("set", "map") for listed in _inside(entries, kind)}
    chains = list(_inside(entries, "chain"))
    hooked = [listed for listed in chains if "hook" in listed]
    serves = _serves(sets, hooked)
    parts = frozenset(part for kind in ("set", "map", "chain", "rule") for part in _parts(entries, kind))
    return Table(
        ours[0]["handle"],
        _kind(hooked),
        frozenset(sets),
        frozenset(listed["name"] for listed in chains),
        _timed(sets),
        serves,
        frozenset(part for part in serves if not _holds_ranges(part, sets)),
        parts,
    )


def foreign_tables(entries: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the names of the listed tables that are not ours."""
    tables = [entry["table"] for entry in entries if "table" in entry]
    return tuple(f"{table['family']} {table['name']}" for table in tables if not _is_ours(table))


def table_text(file: Path) -> str:
    """Return the text of a firewall file.

    Raises:
        FirewallError: unreadable, too long, no text, or it defines anything but our table.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(FILE_BYTES_MAX + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file}: {error}"
        raise FirewallError(msg) from error
    if len(text) > FILE_BYTES_MAX:
        msg = f"{file}: longer than {FILE_BYTES_MAX} bytes"
        raise FirewallError(msg)
    ruleset.refuse_foreign(text)
    return text


def _is_ours(table: dict[str, Any]) -> bool:
    """Return whether a listed table is the one of our name."""
    return f"{table.get('family')} {table.get('name')}" == ruleset.TABLE


def _kind(base_chains: list[dict[str, Any]]) -> str:
    """Return what a table with these base chains does to packets that no grant covers."""
    inputs = [chain for chain in base_chains if chain["hook"] == "input"]
    if any(chain.get("policy") == "drop" for chain in inputs):
        return "drop"
    return "guard" if inputs else "observe"


def _timed(sets: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Return the names of the sets whose elements expire."""
    return tuple(sorted(name for name, described in sets.items() if "timeout" in _flags(described)))


def _holds_ranges(part: Part, sets: dict[str, dict[str, Any]]) -> bool:
    """Return whether one of a part's sets may hold ranges."""
    return any("interval" in _flags(sets[name]) for name in ruleset.SHAPES[part])


def _flags(listed: dict[str, Any]) -> Collection[str]:
    """Return the flags of a listed set; a single one may be listed as its word."""
    flags: str | list[str] = listed.get("flags", ())
    return (flags,) if isinstance(flags, str) else flags


def _serves(sets: dict[str, dict[str, Any]], hooked: list[dict[str, Any]]) -> frozenset[Part]:
    """Return the parts whose sets are there in the shape that open() writes to; NAT needs chains of that type too."""
    timed = _timed(sets)
    leading = {chain["hook"] for chain in hooked if chain["type"] == "nat"}
    return frozenset(
        part
        for part, shapes in ruleset.SHAPES.items()
        if all(name in timed and _has_shape(sets[name], shape) for name, shape in shapes.items())
        and (part is not Part.NAT or {"prerouting", "postrouting"} <= leading)
    )


def _has_shape(listed: dict[str, Any], shape: Shape) -> bool:
    """Return whether a listed set or map is made of what `shape` says; nft 1.1 says of a name where it is from."""
    kind = "string" if listed["type"] == _TYPE_OF_NAMES else listed["type"]
    key = kind if isinstance(kind, list) else [kind]
    value = listed.get("map", [])
    value = value if isinstance(value, list) else value.split(" . ")
    return (tuple(key), tuple(value)) == (shape.key, shape.value)


def _sorted(parts: Iterable[Part]) -> list[Part]:
    return [part for part in Part if part in set(parts)]


def _lack(part: Part) -> str:
    return (
        f"table {ruleset.TABLE} has nothing for grants with {part}, which are refused: "
        "run the role doorward.spa.firewall again, which writes the table anew"
    )


def _in_our_words(error: FirewallError) -> FirewallError:
    """Return an error whose cause the system's words would hide: ENFILE stands for a full set."""
    full = os.strerror(errno.ENFILE) in str(error)
    return FirewallError("the set is full: as many grants are live as it holds" if full else str(error))


def _service(protocol: str | int, port: int) -> Service:
    """Return the service that nft lists with these two."""
    return Service(_PROTOCOLS[protocol], port)


def _inside(entries: list[dict[str, Any]], kind: str) -> Iterable[dict[str, Any]]:
    """Yield the listed objects of one kind inside our table."""
    listed = (entry[kind] for entry in entries if kind in entry)
    return (entry for entry in listed if f"{entry['family']} {entry['table']}" == ruleset.TABLE)


def _parts(entries: list[dict[str, Any]], kind: str) -> Iterable[str]:
    """Yield the listed objects of one kind inside our table as texts, without handle and elements."""
    for entry in _inside(entries, kind):
        yield json.dumps([kind, {name: value for name, value in entry.items() if name not in {"handle", "elem"}}])


def _others(entries: list[dict[str, Any]], kind: str) -> Iterable[dict[str, Any]]:
    """Yield the listed objects of one kind outside our table."""
    listed = (entry[kind] for entry in entries if kind in entry)
    return (entry for entry in listed if f"{entry['family']} {entry['table']}" != ruleset.TABLE)


def _chain_key(chain: dict[str, Any]) -> tuple[str, str, str]:
    """Return what names a chain: family, table, name."""
    return chain["family"], chain["table"], chain["name"]


def _drops_plainly(expressions: list[dict[str, Any]]) -> bool:
    """Return whether a rule drops or rejects whatever reaches it."""
    telling = [expression for expression in expressions if not _INERT.intersection(expression)]
    if len(telling) != 1:
        return False
    target = telling[0].get("xt") or {}
    return bool({"drop", "reject"}.intersection(telling[0])) or target.get("name") in {"REJECT", "DROP"}
