"""Grants as timed elements of nftables sets, in a table of our own: the default packet filter."""

from __future__ import annotations

import errno
import ipaddress
import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from doorward.errors import FirewallError
from doorward.firewall import ruleset
from doorward.firewall.libnftables import Libnftables, Output
from doorward.values import FirewallMode, Grant, IPAddress, LiveGrant, Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

FAILURE_FILE: Final = "failure.nft"  # beside the confirmed file; the firewall role writes both
FILE_BYTES_MAX: Final = 1 << 20  # a rendered table is some 3 KB
# The unspecified address stands for anybody: no grant from the network can have it (values.Grant refuses it).
ANYONE: Final = ipaddress.IPv4Address(0)
_HOOKS: Final = frozenset({"input", "prerouting", "ingress"})  # a drop in any of them is final
_INERT: Final = frozenset({"counter", "log", "comment"})  # what may stand before a plain drop
_PROTOCOLS: Final = {
    name: protocol for protocol in Protocol for name in (str(protocol), int(protocol), str(int(protocol)))
}


@dataclass(frozen=True, slots=True)
class Table:
    """Our table as the kernel has it. A table that was made again has another handle.

    `kind` is `drop`, `guard` or `observe`; `timed_sets` are those whose elements expire; `parts` are its sets, chains
    and rules, each as text.
    """

    handle: int
    kind: str
    sets: frozenset[str]
    timed_sets: tuple[str, ...]
    serves_grants: bool
    parts: frozenset[str]

    def lacks(self, before: Table | None) -> bool:
        """Say whether this is the table `before` with something taken away. Another table, made by a swap, is not."""
        return before is not None and before.handle == self.handle and not before.parts <= self.parts


class Nftables:
    """The packet filter behind firewall.Firewall; needs CAP_NET_ADMIN in its network namespace."""

    def __init__(
        self,
        file: Path,
        mode: FirewallMode,
        guarded: Callable[[], Iterable[Service]],
        library: Libnftables | None = None,
        whole: Table | None = None,
    ) -> None:
        """Keep what prepare() needs: `guarded` is asked each time, so that a reload counts.

        `whole` is the table as an earlier object of this class left it.

        Raises:
            FirewallError: libnftables is missing.
        """
        self._file = file
        self._mode = mode
        self._guarded = guarded
        self._nft = library or Libnftables()
        self.whole = whole

    def prepare(self) -> str | None:
        """See firewall.Firewall; a table that serves grants is used as it is, but a guard follows `guarded`.

        One that was whole before and lacks something now is loaded again: without its rules it lets everybody in.
        """
        table = read_table(self._nft)
        if table is not None and table.lacks(self.whole):
            made = f"something was taken out of it: {self._load(None)}"
        elif table is None or not table.serves_grants:
            made = self._load(table)
        else:
            self.whole = table
            return self._keep(table)
        self.whole = read_table(self._nft)
        return made

    def _keep(self, table: Table) -> str | None:
        """Leave a table as it is, but for what a guard table guards."""
        if table.kind == "guard" and self._mode is FirewallMode.GUARD and ruleset.GUARDED_SET in table.sets:
            return self._follow()
        return None

    def open(self, grant: Grant) -> None:
        """See firewall.Firewall; a table that vanished is made again once."""
        commands = _open_commands(grant)
        try:
            self._nft.run(commands)
        except FirewallError as error:
            table = read_table(self._nft)
            if table is not None and table.serves_grants:
                raise _in_our_words(error) from error
            self.prepare()
            self._nft.run(commands)

    def reopen(self, live: Iterable[LiveGrant]) -> None:
        """Open what was open before in a table that was just made, each for what remains of it: one transaction."""
        elements: dict[str, list[str]] = {}
        for grant in live:
            name, written = _place(grant.source)
            seconds = max(1, math.ceil(grant.remaining))
            element = f"{written} . {ruleset.service_element(grant.service)} timeout {seconds:d}s"
            elements.setdefault(name, []).append(element)
        commands = [f"add element {ruleset.TABLE} {name} {{ {', '.join(some)} }}\n" for name, some in elements.items()]
        if commands:
            self._nft.run("".join(commands))

    def open_anyone(self, services: Iterable[Service], seconds: int) -> None:
        """Open `services` for every address: the console's word alone, never the network's."""
        services = tuple(services)
        if not services or seconds < 1:
            msg = "nothing to open"
            raise FirewallError(msg)
        elements = map(ruleset.service_element, services)
        self._nft.run("".join(_renewal(ruleset.ANYONE_SET, element, seconds) for element in elements))

    def grants(self) -> tuple[LiveGrant, ...]:
        """See firewall.Firewall. An element without an end remains infinitely; ANYONE is the source of any."""
        table = read_table(self._nft)
        names = [*ruleset.GRANT_SETS, ruleset.ANYONE_SET]
        live = [
            _live_grant(element)
            for name in names
            if table is not None and name in table.sets
            for entry in self._nft.objects(f"list set {ruleset.TABLE} {name}", Output.NUMERIC_PROTO)
            for element in entry.get("set", {}).get("elem", ())
        ]
        return tuple(sorted(live, key=lambda grant: (grant.source.version, grant.source, grant.service)))

    def flush(self) -> None:
        """See firewall.Firewall; without a table nothing is open, and nothing is done."""
        table = read_table(self._nft)
        names = [*ruleset.GRANT_SETS, ruleset.ANYONE_SET]
        flushes = [f"flush set {ruleset.TABLE} {name}\n" for name in names if table is not None and name in table.sets]
        if flushes:
            self._nft.run("".join(flushes))

    def withdraw(self, source: IPAddress) -> int:
        """Close every grant of `source` now and return how many there were."""
        name, written = _place(source)
        services = [grant.service for grant in self.grants() if str(grant.source) == written]
        elements = [f"{written} . {ruleset.service_element(service)}" for service in services]
        if elements:
            self._nft.run("".join(_removal(name, element) for element in elements))
        return len(elements)

    def foreign_drops(self) -> tuple[str, ...]:
        """Return one line for every other table's chain that drops what our grants let in.

        An accept of ours does not override a later drop (nft(8), "accept"). Drops of iptables-legacy do not show here.
        """
        entries = self._nft.objects("list ruleset", Output.TERSE)
        chains = {_chain_key(chain): chain for chain in _others(entries, "chain") if chain.get("hook") in _HOOKS}
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
        self._nft.run(ruleset.swap(ruleset.guard(self._guarded()) if guarding else ruleset.observe()))
        return f"table {ruleset.TABLE} was not there: made the {self._mode} table"

    def _load_confirmed(self) -> str:
        """Load the confirmed table; or else the failure policy's beside it; or else guard what OPEN_PORTS names."""
        failure = self._file.with_name(FAILURE_FILE)
        error = self._complaint_loading(self._file)
        if error is None:
            return f"table {ruleset.TABLE} was not there: loaded {self._file}"
        if failure.exists() and self._complaint_loading(failure) is None:
            return f"{self._file} does not load ({error}): the failure policy's {failure} is in force"
        self._nft.run(ruleset.swap(ruleset.guard(self._guarded())))
        return f"{self._file} does not load ({error}): the services of OPEN_PORTS are guarded instead"

    def _complaint_loading(self, file: Path) -> str | None:
        """Load a file and return None, or why it does not do; an empty file loads and closes nothing."""
        try:
            self._nft.run(ruleset.swap(table_text(file)))
        except FirewallError as error:
            return str(error)
        table = read_table(self._nft)
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
    sets = {listed["name"]: listed for listed in _inside(entries, "set")}
    chains = [listed for listed in _inside(entries, "chain") if "hook" in listed]
    parts = frozenset(part for kind in ("set", "map", "chain", "rule") for part in _parts(entries, kind))
    return Table(ours[0]["handle"], _kind(chains), frozenset(sets), _timed(sets), _serves_grants(sets), parts)


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
    return tuple(sorted(name for name, described in sets.items() if "timeout" in described.get("flags", ())))


def _serves_grants(sets: dict[str, dict[str, Any]]) -> bool:
    """Return whether both grant sets are there in the shape that open() writes to."""
    return all(
        name in _timed(sets) and tuple(sets[name]["type"]) == shape for name, shape in ruleset.GRANT_SETS.items()
    )


def _place(source: IPAddress) -> tuple[str, str]:
    """Return the set for `source` and the address as it is written there.

    Raises:
        FirewallError: an address with a scope, which no set could express.
    """
    if isinstance(source, ipaddress.IPv4Address):
        return "open4", str(source)
    if source.ipv4_mapped is not None:  # such a packet arrives as IPv4 and never matches an IPv6 set
        return "open4", str(source.ipv4_mapped)
    if source.scope_id is not None:
        msg = f"{source}: an address with a scope cannot be granted"
        raise FirewallError(msg)
    return "open6", str(source)


def _open_commands(grant: Grant) -> str:
    """Return the one transaction that opens or renews `grant`."""
    name, written = _place(grant.source)
    elements = [f"{written} . {ruleset.service_element(service)}" for service in dict.fromkeys(grant.services)]
    return "".join(_renewal(name, element, grant.seconds) for element in elements)


def _in_our_words(error: FirewallError) -> FirewallError:
    """Return an error whose cause the system's words would hide: ENFILE stands for a full set."""
    full = os.strerror(errno.ENFILE) in str(error)
    return FirewallError("the set is full: as many grants are live as it holds" if full else str(error))


def _renewal(name: str, element: str, seconds: int) -> str:
    """Return add, delete, add: the only way that renews an element on every kernel (before 6.13 add leaves it)."""
    timed = f"add element {ruleset.TABLE} {name} {{ {element} timeout {seconds:d}s }}\n"
    return f"{timed}delete element {ruleset.TABLE} {name} {{ {element} }}\n{timed}"


def _removal(name: str, element: str) -> str:
    """Return add, delete: no error where the element expired a moment ago."""
    return (
        f"add element {ruleset.TABLE} {name} {{ {element} timeout 1s }}\n"
        f"delete element {ruleset.TABLE} {name} {{ {element} }}\n"
    )


def _service(protocol: str | int, port: int) -> Service:
    """Return the service that nft lists with these two."""
    return Service(_PROTOCOLS[protocol], port)


def _live_grant(listed: dict[str, Any]) -> LiveGrant:
    """Return the grant of one listed element; one without an end is listed as its bare value."""
    element = listed.get("elem", listed)
    *address, protocol, port = element.get("val", element)["concat"]
    source = ipaddress.ip_address(address[0]) if address else ANYONE
    return LiveGrant(source, _service(protocol, port), float(element.get("expires", math.inf)))


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
