"""Grants as timed elements of nftables sets, in a table of our own."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import math
import os
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import batch, elements, forwards, kernel, kernel_gate, layout, legacy, ruleset, sequences, wide
from doorward.firewall.elements import Element, Listing
from doorward.firewall.foreign import Foreign
from doorward.firewall.kernel import TRIES, Table, read_table
from doorward.firewall.legacy import Legacy
from doorward.firewall.libnftables import Libnftables, Output
from doorward.firewall.live import put_back, taken
from doorward.firewall.needs import Needs
from doorward.firewall.rules import Nft
from doorward.firewall.ruleset import Part
from doorward.firewall.standing import Standing, Word, doubtful, with_grants
from doorward.firewall.wanted import Files, Text
from doorward.linux import netlink
from doorward.linux.netlink import Netlink, Watch
from doorward.values import MARK, FirewallMode, Grant, IPAddress, LiveGrant, Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from doorward.firewall.foreign import Flavour
    from doorward.firewall.forwards import Forward
    from doorward.firewall.kernel_gate import Seen, Wanted
    from doorward.firewall.layout import Layout

NO_NEEDS: Final = Needs()
_CHANGED: Final = frozenset(
    {netlink.NEW_TABLE, netlink.NEW_CHAIN, netlink.DELETE_CHAIN, netlink.NEW_RULE, netlink.DELETE_RULE}
)
_PARTS: Final = _CHANGED | {netlink.DELETE_TABLE, netlink.NEW_SET, netlink.DELETE_SET}  # they never expire
_ELEMENTS: Final = frozenset({netlink.NEW_ELEMENT, netlink.DELETE_ELEMENT})
_RENEWAL: Final = "run the role doorward.spa.firewall again, which writes the table again"


class Nftables:
    """Our table. Needs CAP_NET_ADMIN in its network namespace; methods raise FirewallError when the kernel refuses."""

    def __init__(  # noqa: PLR0913  the inputs of a table, each named
        self,
        file: Path,
        mode: FirewallMode,
        guarded: Callable[[], Iterable[Service]],
        library: Libnftables | None = None,
        *,
        before: Nftables | None = None,
        needs: Needs = NO_NEEDS,
        mark: int = MARK,
        switch: Path | None = None,
    ) -> None:
        """Keep the inputs of prepare(): `guarded` is called each time, so that a reload takes effect.

        `before` is an earlier object of this class, `needs` the requirements of grants, `mark` the bit of granted
        packets, `switch` the folder of the dead man's switch.

        Raises:
            FirewallError: libnftables is missing, or no netlink.
        """
        self._file = file
        self._mode = mode
        self._guarded = guarded
        self._nft = library or Libnftables()
        self._kernel = Netlink()
        self._needs = needs
        self._mark = mark
        good = None if before is None else before._files.good  # noqa: SLF001  of this class
        self._files: Files = Files(file, switch, self._nft, self._kernel, good)
        self.intact: Table | None = None if before is None else before.intact
        self.is_whole = True  # as far as the last prepare() could make it so
        self._kernel.generation()  # fails without nf_tables, before anything is changed

    def table(self) -> Table | None:
        """Our table as the kernel has it."""
        return read_table(self._kernel)

    def gate(self) -> Seen | None:
        """The kernel gate as it is now, or None where there is none."""
        return kernel_gate.seen(self._kernel)

    def obstacle(self, gate: Wanted) -> str | None:
        """Why packets to a UDP server of ours, behind this gate, may not arrive; None where nothing is in their way.

        Raises:
            FirewallError: a firewall cannot be read.
        """
        table = read_table(self._kernel)
        if table is not None and ruleset.STOPPED_CHAIN not in table.chains and self._is_anothers(table):
            return f"table {ruleset.TABLE} is of another's making"
        chain = self.foreign().before_a_server()
        if chain is not None:
            return f"{chain} can drop packets to a server"
        port = Service(Protocol.UDP, gate.port)
        for forward, _ in self.forwarded():
            if forward.service in {None, port}:
                return f"{forward.place} may forward packets to {forward.target}"
        try:
            self._nft.check(kernel_gate.REMOVE + gate.text)
        except FirewallError as error:
            return f"the kernel gate does not load: {error}"
        return None

    def foreign(self) -> Foreign:
        """The other firewalls of this network namespace."""
        return Foreign(self._flavours, self._mark, forwarding=self._needs.forwarding)

    def forwarded(self) -> tuple[tuple[Forward, bool], ...]:
        """Each rule of others that forwards connections to this host, and whether our table closes what it forwards.

        Raises:
            FirewallError: a firewall cannot be read.
        """
        legacy_ = (one for program, text in legacy.nat_listed() for one in forwards.of_legacy(program, text))
        found = [*forwards.of_nft(self._kernel), *legacy_]
        closes = self._closing() if found else None
        return tuple((one, closes is not None and closes(one.service)) for one in found)

    def _closing(self) -> Callable[[Service | None], bool]:
        """Whether our table closes a service that others forward; None stands for all that a rule matches."""
        table = self.table()
        if table is None or not table.closes_forwarded:
            return lambda _: False
        held = (ruleset.PUBLIC_SET, ruleset.NAMED_SET, ruleset.GUARDED_SET)
        named = {one for name in held if name in table.sets for one in self._services(name)}
        drops = table.kind == "drop"
        return lambda service: (service not in named) if drops else (service in named)

    def _services(self, name: str) -> set[Service]:
        """The services in a set of our table."""
        listed = self._nft.objects(f"list set {ruleset.TABLE} {name}", Output.NUMERIC_PROTO)
        found = (pair["concat"] for entry in listed for pair in entry.get("set", {}).get("elem", ()))
        return {elements.listed_service(*one) for one in found if elements.is_service(*one)}

    def _flavours(self) -> Iterator[Flavour]:
        yield Nft(self._mark, self._kernel)
        yield from (Legacy(family, tables, self._mark) for family, tables in legacy.in_use())

    def prepare(self) -> str | None:
        """Make sure that grants can take effect; return a line for the log when something had to be made.

        The table is compared with what the confirmed file, or our own text, loads to. One that differs is loaded again,
        with its live elements: without its rules it lets everybody in. So is one that doorwardd made for an earlier
        configuration, or an older doorwardd. A guard follows `guarded`.
        """
        self._require()
        table, self.is_whole = read_table(self._kernel), True
        if table is not None and ruleset.STOPPED_CHAIN in table.chains:
            self.intact = table
            return None
        lacking = table is not None and table.lacks(self.intact)
        if table is None or lacking or not table.serves_grants:
            return self._load(table, self._replacing(table, lacking=lacking))
        if self._is_anothers(table):
            self.intact = table
            return None
        said = self._widen(table) if self._may_be_widened(table) else self._keep(table)
        return self._corrected() or said

    def _require(self) -> None:
        """Raise the FirewallError of what no table can serve."""
        impossible = self._needs.impossible()
        if impossible:
            raise FirewallError(impossible)
        if self._needs.systems:
            self._nft.check(ruleset.FINGERPRINTING)  # makes nft load its fingerprints into the kernel

    def _replacing(self, table: Table | None, *, lacking: bool) -> str:
        """Why a table is loaded in the place of one that cannot serve.

        Raises:
            FirewallError: it may be of another's making.
        """
        self.intact = None  # the present table is another one
        if table is None:
            return f"table {ruleset.TABLE} was not there"
        if not lacking and not self._files.is_confirmed:
            msg = f"table {ruleset.TABLE} has no sets for grants; `doorward firewall stop` removes it"
            raise FirewallError(msg)
        return "parts of it were removed" if lacking else f"table {ruleset.TABLE} had no sets for grants"

    def _corrected(self) -> str | None:
        """Load the table again where it is none of those that it may be; return a line for the log."""
        table = read_table(self._kernel)
        found, differences = self._compared(table)
        if found is None and differences:
            return self._load(table, f"it was changed ({', '.join(differences)})")
        self.intact = table
        return None

    def _compared(self, table: Table | None) -> tuple[Text | None, tuple[str, ...]]:
        """The text that our table has, or None and the differences from the one that it should have.

        No text and no differences: they cannot be compared.
        """
        texts, held = self._texts(table), layout.read(self._kernel)
        known = [self._files.known(text.content) for text in texts]
        if held is None or known[0] is None:
            return None, ()
        equal = (text for text, one in zip(texts, known, strict=True) if one is not None and one.layout == held)
        return next(equal, None), held.differences(known[0].layout)

    def _texts(self, table: Table | None) -> tuple[Text, ...]:
        """The texts that our table may have; the first is loaded in the place of any other."""
        return (*self._files.pending(), self._lasting(table))

    def _lasting(self, table: Table | None) -> Text:
        """The text of a table that nobody has to confirm any more.

        An existing file, or the mark of one that was lost, means that the host was closed: it is not left open,
        whatever the mode.
        """
        if not self._files.is_confirmed:
            return self._own(table)
        try:
            return self._files.confirmed()
        except FirewallError as error:
            words = f"{self._file} does not load ({error}): the services of OPEN_PORTS are guarded instead"
            return self._files.at_failure(error) or Text(self._guard(table, self._guarded()), words, words)

    def _own(self, table: Table | None) -> Text:
        """Our own text; a guard stays one, whatever the mode, and more services in it do no harm."""
        guards, guarding = self._guards(table), self._mode is FirewallMode.GUARD
        if guarding or (table is not None and ruleset.GUARDED_SET in table.sets):
            services = guards.union(self._guarded() if guarding else ())
            return Text(self._guard(table, services), "made the guard table")
        return Text(ruleset.observe(self._parts(table), self._mark), "made the observe table")

    def _guard(self, table: Table | None, services: Iterable[Service]) -> str:
        return ruleset.guard(services, self._parts(table), self._mark)

    def _parts(self, table: Table | None) -> frozenset[Part]:
        return self._needs.parts | (table.serves if table is not None else frozenset())

    @property
    def is_confirmed(self) -> bool:
        """Whether this host was ever closed by a confirmed table."""
        return self._files.is_confirmed

    def standing(self, served: Collection[Service] = (), grants: Iterable[LiveGrant] | None = None) -> Standing:
        """Whether our table closes this host; `served` are the ports of our own servers, open to everybody.

        `grants` are the live ones, where they have been read already.

        Raises:
            FirewallError: the kernel does not say it.
        """
        table = read_table(self._kernel)
        if table is None:
            return doubtful(Word.ABSENT, f"there is no table {ruleset.TABLE}: the host is open")
        if table.dormant:
            return doubtful(Word.DORMANT, f"table {ruleset.TABLE} is dormant and filters nothing: the host is open")
        return with_grants(self._standing(table), self.grants() if grants is None else grants, served)

    def _standing(self, table: Table) -> Standing:
        """The same of a table that filters, without its grants."""
        name = f"table {ruleset.TABLE}"
        if ruleset.STOPPED_CHAIN in table.chains:
            return doubtful(Word.OBSERVE, "root opened this host until the next boot (doorward firewall stop)")
        if self._is_anothers(table):
            return doubtful(Word.UNKNOWN, f"{name} is of another's making, and no file says what must be in it")
        try:
            text, differences = self._compared(table)
        except FirewallError as error:
            return doubtful(Word.UNKNOWN, f"what must be in {name} is unknown: {error}")
        return _of_text(table, text, differences)

    def _is_anothers(self, table: Table) -> bool:
        """Whether a table is of another's making, and no file says what is in it."""
        made_here = {ruleset.GUARD_CHAIN, ruleset.OBSERVE_CHAIN} & table.chains or ruleset.GUARDED_SET in table.sets
        files = self._files
        return not (made_here or files.is_confirmed or files.is_pending or table.hooked <= set(ruleset.OUR_CHAINS))

    def _make(self, commands: Callable[[], str], wanted: Layout | None = None) -> Table | None:
        """Change our table in one transaction, and record the result as the intact one; live elements stay.

        A table that was modified concurrently must not be recorded. Where its layout is not the one that is wanted, or
        the generation shows another transaction, ours is run again; after the last try the table is recorded as it is.
        """
        for _ in range(TRIES):
            held, before = taken(self._kernel), self._kernel.generation()
            self._nft.run(commands())
            own = 1 + put_back(self._kernel, held)
            self.intact = read_table(self._kernel)
            undisturbed = self._kernel.generation() == before + own
            self.is_whole = undisturbed if wanted is None else layout.read(self._kernel) == wanted
            if self.is_whole:
                break
        return self.intact

    def _keep(self, table: Table) -> str | None:
        """Keep a table unchanged, except for the services of a guard table."""
        if table.kind == "guard" and self._mode is FirewallMode.GUARD and ruleset.GUARDED_SET in table.sets:
            return self._follow(table)
        return None

    def unserved(self) -> tuple[str, ...]:
        """One line for each feature that the configuration needs and the table, from a confirmed file, lacks."""
        table = read_table(self._kernel)
        if table is None:
            return ()
        lacks = tuple(_lack(part) for part in _sorted(self._needs.parts - table.serves))
        if ruleset.PUBLISHED_CHAIN not in table.chains:
            open_ = f"table {ruleset.TABLE} does not close ports that other programs forward (Docker's published ports)"
            lacks = (*lacks, f"{open_}; {_RENEWAL}")
        if table.marks & self._mark:
            return lacks
        unmarked = f"does not mark granted packets with {self._mark:#x} (FIREWALL_MARK) for other firewalls"
        return (*lacks, f"table {ruleset.TABLE} {unmarked}; {_RENEWAL}")

    def open(self, grant: Grant) -> None:
        """Open or renew `grant` in one transaction; the kernel closes it.

        A missing table is made again once.
        """
        if not self._open_plainly(grant):
            self._open(grant)

    def _open_plainly(self, grant: Grant) -> bool:
        """Open a plain grant without libnftables; return whether that was possible.

        The kernel compares lengths where libnftables compares types: the sets must have been checked. In a set of
        ranges an element has an end, which only libnftables writes.
        """
        part = Part.GRANTS if grant.destination is None else Part.DESTINATION
        if self.intact is None or part not in self.intact.plain:
            return False
        transaction = batch.renewal(grant)
        if transaction is None:
            return False
        try:
            self._kernel.run(transaction)
        except FirewallError:  # libnftables reports or resolves it
            return False
        return True

    def _open(self, grant: Grant) -> None:
        """Open any grant through libnftables."""
        if grant.prefix is not None:
            for live in LiveGrant.of(grant):
                self._open_network(live)
            return
        opened = [element for live in LiveGrant.of(grant) for element in elements.of(live)]
        names = "" if grant.os is None else elements.system(grant.os).added_for_good()
        commands = names + "".join(element.renewed(grant.seconds) for element in opened)
        try:
            self._nft.run(commands)
        except FirewallError as error:
            self._overcome(error, grant, opened)
            self._nft.run(commands)
        self._delete(element.rival for element in opened)

    def _open_network(self, live: LiveGrant) -> None:
        """Open a network; one that overlaps another is written in parts, since the kernel refuses overlaps."""
        try:
            self._nft.run(wide.commands(self._listing().wide(), live))
        except FirewallError as error:
            table = read_table(self._kernel)
            if table is None or not table.serves_grants:
                self.prepare()
                self._nft.run(wide.commands((), live))
            elif Part.WIDE not in table.serves:
                raise FirewallError(_lack(Part.WIDE)) from error
            else:
                raise _in_our_words(error) from error

    def _delete(self, unwanted: Iterable[Element | None]) -> None:
        """Delete elements of maps, if they exist: a connection is forwarded to the target of the last knock only."""
        for element in unwanted:
            if element is not None:
                with contextlib.suppress(FirewallError):
                    self._nft.run(element.deleted())

    def _overcome(self, error: FirewallError, grant: Grant, opened: Iterable[Element]) -> None:
        """Remove the cause of a failed open, or raise the reason."""
        table = read_table(self._kernel)
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
        """Open grants again in a new table, each for its remaining time, in one transaction.

        Grants that the table has no sets for stay closed.
        """
        table = read_table(self._kernel)
        served = [grant for grant in live if table is not None and elements.part(grant) in table.serves]
        places: dict[str, list[str]] = {}
        for grant in served:
            if grant.prefix is not None:
                continue
            seconds = max(1, math.ceil(grant.remaining))
            for element in elements.of(grant):
                places.setdefault(element.place, []).append(element.timed(seconds))
        systems = {grant.os for grant in served if grant.os is not None}
        names = [elements.system(name).added_for_good() for name in sorted(systems)]
        added = [f"add element {ruleset.TABLE} {place} {{ {', '.join(some)} }}\n" for place, some in places.items()]
        if added:
            self._nft.run("".join([*names, *added]))
        for grant in served:
            if grant.prefix is not None:
                self._open_network(grant)

    def prolong(self, live: Collection[LiveGrant]) -> None:
        """Renew live grants for their remaining time."""
        plain = [grant for grant in live if grant.prefix is None]
        commands = [element.renewed(math.ceil(one.remaining)) for one in plain for element in elements.of(one)]
        if commands:
            self._nft.run("".join(commands))
        for grant in live:
            if grant.prefix is not None:
                self._open_network(grant)

    def open_anyone(self, services: Iterable[Service], seconds: int) -> None:
        """Open `services` for every address; only for the console and our own servers, never for a knock."""
        services = tuple(services)
        if not services or seconds < 1:
            msg = "nothing to open"
            raise FirewallError(msg)
        opened = [Element(ruleset.ANYONE_SET, ruleset.service_element(service)) for service in services]
        self._nft.run("".join(element.renewed(seconds) for element in opened))

    def close_anyone(self, services: Iterable[Service]) -> None:
        """Close `services` that open_anyone() opened."""
        opened = [Element(ruleset.ANYONE_SET, ruleset.service_element(service)) for service in services]
        if opened:
            self._nft.run("".join(element.removed() for element in opened))

    def open_to_all(self) -> tuple[LiveGrant, ...]:
        """The services that are open to every address, our own servers' too; none where no set is there for them."""
        try:
            listed = self._nft.objects(f"list set {ruleset.TABLE} {ruleset.ANYONE_SET}", Output.NUMERIC_PROTO)
        except FirewallError:
            return ()
        return Listing(listed).grants()

    def grants(self) -> tuple[LiveGrant, ...]:
        """The open grants, by source and service; permanent ones remain infinitely. ANYONE stands for any source."""
        return self._listing().grants()

    def _listing(self) -> Listing:
        """The elements of our table, if it exists."""
        if read_table(self._kernel) is None:
            return Listing(())
        return Listing(self._nft.objects(f"list table {ruleset.TABLE}", Output.NUMERIC_PROTO))

    def end(self, closed: Iterable[LiveGrant], kept: Iterable[LiveGrant]) -> None:
        """Close some grants in one transaction; elements that they share with grants that are kept stay for those."""
        held, ending = list(kept), list(closed)
        closed, kept = ([live for live in some if live.prefix is None] for some in (ending, held))
        gone = {element.of_any_time: element for live in closed for element in elements.of(live)}
        shared = {
            element.of_any_time: element.renewed(max(1, math.ceil(live.remaining)))
            for live in sorted(kept, key=lambda one: one.remaining)
            for element in elements.of(live)
            if element.of_any_time in gone
        }
        removed = [element.removed() for place, element in gone.items() if place not in shared]
        networks, others = ([live for live in some if live.prefix is not None] for some in (ending, held))
        wider = wide.ended(self._listing().wide(), networks, others) if networks else ""
        commands = "".join([*removed, *shared.values(), wider])
        if commands:
            self._nft.run(commands)

    def flush(self) -> None:
        """Close every grant; established connections live on. Without a table nothing is open."""
        table = read_table(self._kernel)
        flushes = [
            f"flush {kind} {ruleset.TABLE} {name}\n"
            for name, kind in ruleset.GRANT_KINDS.items()
            if table is not None and name in table.sets
        ]
        if flushes:
            self._nft.run("".join(flushes))

    def withdraw(self, source: IPAddress) -> int:
        """Close every grant of `source` and return their number."""
        listing = self._listing()
        removed = [element.removed() for element in listing.of_source(source)]
        if removed:
            self._nft.run("".join(removed))
        written = source.ipv4_mapped or source if isinstance(source, ipaddress.IPv6Address) else source
        return sum(written in live.network for live in listing.grants())

    def keep_ended(self, flows: Iterable[tuple[IPAddress, Service]]) -> None:
        """Stop services of this host from sending to an address outside flows that the address began.

        Tables of an older role have no sets for it.
        """
        held = self.table()
        places = [(f"ended{source.version}", source, service) for source, service in flows]
        added = [
            Element(place, f"{source} . {ruleset.service_element(service)}").renewed(ruleset.ENDED_SECONDS)
            for place, source, service in places
            if held is not None and place in held.sets
        ]
        if added:
            self._nft.run("".join(added))

    def close(self) -> None:
        """Free libnftables; grants and table stay."""
        self._nft.close()
        self._kernel.close()

    def _load(self, table: Table | None, why: str) -> str:
        """Load the table that we should have and return a line for the log.

        Raises:
            FirewallError: it does not load.
        """
        text = self._texts(table)[0]
        try:
            self._swap(text)
        except FirewallError as error:
            failure = self._files.at_failure(error) if self._files.is_confirmed and not text.failure else None
            if failure is None:
                raise
            text = failure
            self._swap(text)
        return f"{why}: {text.done}{'' if self.is_whole else ', AND OTHERS KEEP CHANGING IT'}"

    def _swap(self, text: Text) -> None:
        known = self._files.known(text.content)
        commands = ruleset.swap(text.content)
        self._make(lambda: commands, None if known is None else known.layout)

    def _may_be_widened(self, table: Table) -> bool:
        """Whether a table lacks parts and was made by doorwardd, not from a file."""
        guarding = table.kind == "guard" and ruleset.GUARDED_SET in table.sets  # the role's guard names its services
        known = table.chains <= set(ruleset.OUR_CHAINS) and (guarding or table.kind == "observe")
        made_here = known and not self._files.is_confirmed and not self._files.is_pending
        return made_here and bool(self._lacking(table))

    def _lacking(self, table: Table) -> list[str]:
        parts = [f"nothing for grants with {part}" for part in _sorted(self._needs.parts - table.serves)]
        its_own = {ruleset.GUARD_CHAIN, ruleset.OBSERVE_CHAIN} & table.chains
        if its_own and ruleset.PUBLISHED_CHAIN not in table.chains:
            parts.append("nothing for ports that other programs forward")
        marks = bool(table.marks & self._mark) or not its_own
        return parts if marks else [*parts, f"no rules that mark with {self._mark:#x}"]

    def _widen(self, table: Table) -> str:
        """Add missing parts to a table; live grants stay."""
        text = self._own(table).content
        self._make(lambda: ruleset.widened(text, sorted((read_table(self._kernel) or table).chains)))
        return f"table {ruleset.TABLE} had {' and '.join(self._lacking(table))}: it has now"

    def _follow(self, table: Table) -> str | None:
        """Update the guarded services of an existing guard table."""
        wanted = set(self._guarded())
        if wanted == self._guards(table):
            return None
        self._nft.run(ruleset.regard(wanted))
        return f"guarding {' '.join(map(str, sorted(wanted))) or 'nothing'}"

    def _guards(self, table: Table | None) -> set[Service]:
        """The services of the guarded set in the kernel."""
        if table is None or ruleset.GUARDED_SET not in table.sets:
            return set()
        return self._services(ruleset.GUARDED_SET)


class Changes(Watch):
    """Every change of nftables, sorted by table before anything is listed."""

    def touched(self, timed: Collection[str] = ()) -> tuple[bool, bool, bool, bool]:
        """Whether our table, chains or rules of another one, our gate, and our table of sequences changed.

        Elements of `timed` sets of our table do not count.
        Every renewed grant changes elements of those sets, every epoch adds tags to the gate. Missed changes count as
        all of these.
        """
        heard = self.heard()
        if heard is None:
            return True, True, True, True
        ours = others = gate = steps = False
        for kind, family, found in heard:
            table = kernel.words(found.get(kernel.TABLE, b"")) if family == kernel.INET else ""
            if table == kernel.NAME:
                fixed = kernel.words(found.get(kernel.ELEMENTS_SET, b"")) not in timed
                ours |= kind in _PARTS or (kind in _ELEMENTS and fixed)
            elif table == kernel_gate.NAME:
                gate |= kind in _PARTS or kind == netlink.DELETE_ELEMENT
            elif table == sequences.NAME:
                steps |= kind in _PARTS
            else:
                others |= kind in _CHANGED
        return ours, others, gate, steps


def _of_text(table: Table, text: Text | None, differences: tuple[str, ...]) -> Standing:
    """The standing of a host whose table was compared."""
    name = f"table {ruleset.TABLE}"
    if text is None and differences:
        return doubtful(Word.CHANGED, f"{name} was changed: {', '.join(differences)}")
    if text is None:
        return doubtful(Word.UNKNOWN, f"{name} cannot be compared with its file")
    if text.failure:
        return doubtful(Word.FAILURE, text.failure)
    if table.kind == "observe":
        return doubtful(Word.OBSERVE, f"{name} only records grants: the host is open")
    return Standing()


def _sorted(parts: Iterable[Part]) -> list[Part]:
    return [part for part in Part if part in set(parts)]


def _lack(part: Part) -> str:
    return f"table {ruleset.TABLE} has nothing for grants with {part}, which are refused: {_RENEWAL}"


def _in_our_words(error: FirewallError) -> FirewallError:
    """The error with a clear text where errno is misleading: ENFILE stands for a full set."""
    full = os.strerror(errno.ENFILE) in str(error)
    return FirewallError("the set is full: as many grants are live as it holds" if full else str(error))
