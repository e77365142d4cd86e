from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import sys
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.errors import FirewallError
from doorward.firewall import batch, ruleset
from doorward.firewall.elements import ANYONE
from doorward.firewall.kernel import TRIES, read_table
from doorward.firewall.libnftables import Libnftables, Output
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Nftables
from doorward.firewall.ruleset import Part
from doorward.linux.netlink import Netlink
from doorward.values import FirewallMode, Grant, Nat, Protocol, Service
from system.doorwardd import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.values import IPAddress
    from system.netns import Namespace

SSH = Service(Protocol.TCP, 22)
WEB = Service(Protocol.TCP, 80)
DNS = Service(Protocol.UDP, 53)
V4 = ipaddress.ip_address("192.0.2.7")
V6 = ipaddress.ip_address("2001:db8::7")
NO_FILE = Path("/nonexistent/firewall.nft")


@contextlib.contextmanager
def firewall(
    ns: Namespace, mode: FirewallMode = FirewallMode.OBSERVE, guarded: set[Service] | None = None, file: Path = NO_FILE
) -> Iterator[Nftables]:
    with ns.inside():
        made = Nftables(file, mode, lambda: guarded or {SSH})
    yield made
    made.close()


def live(made: Nftables) -> list[tuple[str, str]]:
    return [(str(grant.source), str(grant.service)) for grant in made.grants()]


@contextlib.contextmanager
def listening(ns: Namespace, port: int) -> Iterator[None]:
    with ns.inside():
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    with server:
        yield


def connects(ns: Namespace, address: str, port: int) -> bool:
    """Return whether a connection is made; a dropped SYN is the only other possibility."""
    with ns.inside():
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(0.3)
        try:
            connection.connect((address, port))
        except TimeoutError:
            return False
        return True


def test_a_missing_libnftables_names_the_package() -> None:
    with pytest.raises(FirewallError, match="install the package libnftables1"):
        Libnftables("libnftables-that-is-not-there.so.1")
    with pytest.raises(FirewallError, match="cannot be used"):
        Libnftables("libc.so.6")  # there, but another library


def test_errors_are_nfts_own_words_and_change_nothing(ns: Namespace) -> None:
    with ns.inside():
        nft = Libnftables()
    with pytest.raises(FirewallError, match="syntax error"):
        nft.run("table inet doorward { }\nnonsense\n")
    with pytest.raises(FirewallError, match="No such file"):
        nft.run("add table inet x\nadd element inet doorward open4 { 1 }\n")
    with pytest.raises(FirewallError, match="NUL"):
        nft.run("add table inet x\0")
    nft.check("add table inet x")
    assert ns.nft("list ruleset") == ""
    nft.run("add table inet x")
    assert ns.nft("list ruleset") != ""
    nft.close()


@pytest.mark.parametrize("mode", list(FirewallMode))
def test_prepare_makes_the_modes_table_once(ns: Namespace, mode: FirewallMode) -> None:
    with firewall(ns, mode) as made:
        assert made.prepare() == f"table inet doorward was not there: made the {mode} table"
        assert made.prepare() is None


def test_prepare_uses_a_table_with_the_sets_as_it_is(ns: Namespace) -> None:
    ns.nft(
        f"table inet doorward {{ {ruleset.SETS} chain mine {{ type filter hook input priority 0; policy drop; }}; }}"
    )
    before = ns.nft("list ruleset")
    with firewall(ns, FirewallMode.GUARD) as made:
        made.open(Grant(V4, (SSH,), 60))
        assert made.prepare() is None
        assert live(made) == [("192.0.2.7", "tcp/22")]
        made.flush()
    assert ns.nft("list ruleset") == before


def test_prepare_refuses_a_table_of_our_name_without_the_sets(ns: Namespace) -> None:
    ns.nft("table inet doorward { set open4 { type ipv4_addr; }; }")
    with firewall(ns) as made, pytest.raises(FirewallError, match="has no sets for grants"):
        made.prepare()


def test_prepare_loads_the_confirmed_file(ns: Namespace, tmp_path: Path) -> None:
    file = tmp_path / "firewall.nft"
    file.write_text(f"table inet doorward {{ {ruleset.SETS} chain c {{ type filter hook input priority 0; }}; }}\n")
    with firewall(ns, file=file) as made:
        assert made.prepare() == f"table inet doorward was not there: loaded {file}"
    assert "chain c" in ns.nft("list ruleset")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "table inet doorward { }",
        "nonsense",
        "flush ruleset",
        "\xff",
        "x" * (1 << 21),
        "table ip x { }",
    ],
)
def test_a_confirmed_file_that_does_not_load_still_means_a_guard(ns: Namespace, tmp_path: Path, text: str) -> None:
    file = tmp_path / "firewall.nft"
    file.write_bytes(text.encode("latin-1"))
    ns.nft("table ip other { }")
    with firewall(ns, FirewallMode.OBSERVE, file=file) as made:
        said = made.prepare()
        assert said is not None
        assert "does not load" in said
        with ns.inside():
            table = read_table(Netlink())
        assert table is not None
        assert table.kind == "guard"
    assert "table ip other" in ns.nft("list ruleset")


@pytest.mark.parametrize("text", ["", "nonsense"])
def test_a_confirmed_file_that_does_not_load_means_the_failure_policys_table(
    ns: Namespace, tmp_path: Path, text: str
) -> None:
    file, failure = tmp_path / "firewall.nft", tmp_path / "failure.nft"
    file.write_text(text)
    failure.write_text(f"table inet doorward {{ {ruleset.SETS} chain policy_of_failure {{ }}; }}\n")
    with firewall(ns, FirewallMode.GUARD, file=file) as made:
        assert f"the failure policy's {failure} is in force" in (made.prepare() or "")
    assert "chain policy_of_failure" in ns.nft("list ruleset")
    ns.nft("flush ruleset")
    failure.write_text(text)
    with firewall(ns, FirewallMode.OBSERVE, file=file) as made:
        assert "guarded instead" in (made.prepare() or "")


def test_a_guard_follows_what_is_to_be_guarded_and_keeps_live_grants(ns: Namespace) -> None:
    guarded = {SSH}
    with firewall(ns, FirewallMode.GUARD, guarded) as made:
        made.prepare()
        made.open(Grant(V4, (SSH,), 60))
        guarded |= {DNS, WEB}
        assert made.prepare() == "guarding tcp/22 tcp/80 udp/53"
        assert made.prepare() is None
        assert live(made) == [("192.0.2.7", "tcp/22")]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_guard_drops_new_connections_unless_granted_and_touches_nothing_else(
    trio: tuple[Namespace, Namespace, Namespace], family: str
) -> None:
    host, client, outsider = trio
    target: str = getattr(host, family)
    with firewall(host, FirewallMode.GUARD) as made, listening(host, 22), listening(host, 80):
        assert connects(client, target, 22)
        made.prepare()
        assert not connects(client, target, 22)
        assert connects(client, target, 80)
        assert connects(host, target, 22)  # loopback
        made.open(Grant(ipaddress.ip_address(getattr(client, family)), (SSH,), 60))
        assert connects(client, target, 22)
        assert not connects(outsider, target, 22)
        made.flush()
        assert not connects(client, target, 22)
        made.open_anyone([SSH], 60)
        assert connects(client, target, 22)
        assert connects(outsider, target, 22)


def test_an_established_connection_outlives_its_grant(pair: tuple[Namespace, Namespace]) -> None:
    host, client = pair
    with firewall(host, FirewallMode.GUARD) as made:
        made.prepare()
        made.open(Grant(ipaddress.ip_address(client.ipv4), (SSH,), 60))
        with host.inside():
            server = socket.create_server((host.ipv4, 22))
        with client.inside():
            connection = socket.create_connection((host.ipv4, 22), 5)
        accepted, _ = server.accept()
        with server, connection, accepted:
            made.flush()
            connection.sendall(b"still here")
            accepted.settimeout(5)
            assert accepted.recv(99) == b"still here"
            assert not connects(client, host.ipv4, 22)


def test_a_granted_service_closes_by_itself(pair: tuple[Namespace, Namespace]) -> None:
    host, client = pair
    with firewall(host, FirewallMode.GUARD) as made, listening(host, 22):
        made.prepare()
        made.open(Grant(ipaddress.ip_address(client.ipv4), (SSH,), 1))
        assert connects(client, host.ipv4, 22)
        while made.grants():
            pass
        assert not connects(client, host.ipv4, 22)


def test_grants_are_listed_by_source_and_service_with_their_rest(ns: Namespace) -> None:
    with firewall(ns) as made:
        made.prepare()
        made.open(Grant(V6, (SSH,), 3600))
        made.open(Grant(V4, (DNS, SSH, SSH), 60))
        made.open_anyone([WEB], 60)
        ns.nft("add element inet doorward open4 { 192.0.2.9 . tcp . 22 timeout 0s }")
        assert live(made) == [
            (str(ANYONE), "tcp/80"),
            ("192.0.2.7", "tcp/22"),
            ("192.0.2.7", "udp/53"),
            ("192.0.2.9", "tcp/22"),
            ("2001:db8::7", "tcp/22"),
        ]
        rests = {str(grant.source): grant.remaining for grant in made.grants()}
        assert 3500 < rests["2001:db8::7"] <= 3600
        assert 0 < rests["192.0.2.7"] <= 60
        assert rests["192.0.2.9"] == float("inf")


def test_a_second_knock_renews_and_a_shorter_one_shortens(ns: Namespace) -> None:
    with firewall(ns) as made:
        made.prepare()
        for seconds in (10, 1000, 20):
            made.open(Grant(V4, (SSH,), seconds))
            (grant,) = made.grants()
            assert seconds - 5 < grant.remaining <= seconds


def test_a_mapped_address_is_granted_as_the_ipv4_address_it_is(ns: Namespace) -> None:
    with firewall(ns) as made:
        made.prepare()
        made.open(Grant(ipaddress.ip_address("::ffff:192.0.2.7"), (SSH,), 60))
        assert live(made) == [("192.0.2.7", "tcp/22")]


def test_an_address_with_a_scope_is_refused(ns: Namespace) -> None:
    with firewall(ns) as made:
        made.prepare()
        with pytest.raises(FirewallError, match="scope"):
            made.open(Grant(ipaddress.ip_address("2001:db8::1%lo"), (SSH,), 60))
        assert made.grants() == ()


def test_a_full_set_refuses_new_grants_whole_and_still_renews(ns: Namespace) -> None:
    ns.nft(f"table inet doorward {{ {ruleset.SETS.replace('65536', '3')} }}")
    with firewall(ns) as made:
        for last in (1, 2, 3):
            made.open(Grant(ipaddress.ip_address(f"192.0.2.{last}"), (SSH,), 60))
        with pytest.raises(FirewallError, match="the set is full"):
            made.open(Grant(ipaddress.ip_address("192.0.2.4"), (SSH,), 60))
        made.open(Grant(ipaddress.ip_address("192.0.2.2"), (SSH,), 600))
        assert len(made.grants()) == 3
        assert max(grant.remaining for grant in made.grants()) > 500
        assert made.withdraw(ipaddress.ip_address("192.0.2.1")) == 1
        with pytest.raises(FirewallError):
            made.open(Grant(V4, (SSH, DNS), 60))  # room for one of the two
        assert len(made.grants()) == 2


def test_withdraw_closes_the_grants_of_one_address_only(ns: Namespace) -> None:
    with firewall(ns) as made:
        made.prepare()
        made.open(Grant(V4, (SSH, DNS), 60))
        made.open(Grant(V6, (SSH,), 60))
        assert made.withdraw(V4) == 2
        assert made.withdraw(V4) == 0
        assert live(made) == [("2001:db8::7", "tcp/22")]


def test_open_makes_a_vanished_table_again(ns: Namespace) -> None:
    with firewall(ns, FirewallMode.GUARD) as made:
        made.prepare()
        for destruction in (
            "delete table inet doorward",
            "flush ruleset",
            "delete table inet doorward; add table ip x",
        ):
            ns.nft(destruction)
            assert made.grants() == ()
            made.flush()
            made.open(Grant(V4, (SSH,), 60))
            assert live(made) == [("192.0.2.7", "tcp/22")]
            assert made.prepare() is None


class Counting(Libnftables):
    """nft, and how often it was asked to change elements."""

    changes = 0

    def run(self, commands: str, output: Output = Output(0)) -> str:  # noqa: B008  an immutable flag
        self.changes += commands.startswith("add element")
        return super().run(commands, output)


HERE = {4: ipaddress.ip_address("192.0.2.1"), 6: ipaddress.ip_address("2001:db8::1")}
MANY = tuple(Service(protocol, port) for protocol in Protocol for port in range(1, 33))
PLAIN = [
    Grant(source, services, 600, destination=HERE[source.version] if bound else None)
    for source in (V4, V6)
    for services in ((SSH,), (SSH, DNS), MANY)
    for bound in (False, True)
]


@contextlib.contextmanager
def counting(ns: Namespace) -> Iterator[tuple[Nftables, Counting]]:
    with ns.inside():
        nft = Counting()
        made = Nftables(NO_FILE, FirewallMode.GUARD, lambda: {SSH}, nft, needs=Needs(frozenset({Part.NAT})))
    with contextlib.closing(made):
        made.prepare()
        yield made, nft


def test_a_plain_grant_is_what_libnftables_would_have_made_of_it(pair: tuple[Namespace, Namespace]) -> None:
    listed = []
    for ns, opens, asked in zip(pair, (Nftables.open, Nftables._open), (0, len(PLAIN)), strict=True):  # noqa: SLF001  the other way
        with counting(ns) as (made, nft):
            for grant in PLAIN:
                opens(made, grant)
            assert nft.changes == asked
            listed.append([(*astuple(one)[:2], round(one.remaining, -2), one.destination) for one in made.grants()])
    assert listed[0] == listed[1]
    assert len(listed[0]) == 2 * 2 * len({SSH, DNS, *MANY})


def test_what_is_not_plain_goes_through_libnftables(ns: Namespace) -> None:
    with counting(ns) as (made, nft):
        made.open(Grant(V4, (SSH,), 60, Nat(None, 8022)))
        assert nft.changes
        assert [grant.nat for grant in made.grants()] == [Nat(None, 8022)]


def test_a_set_of_another_type_but_the_same_length_is_not_written_to(ns: Namespace) -> None:
    with counting(ns) as (made, _):
        marks = ruleset.SETS.replace("ipv4_addr . inet_proto", "mark . inet_proto")
        ns.nft(f"{ruleset.REMOVE}table inet doorward {{ {marks} }}")
        for refused in (made.prepare, lambda: made.open(Grant(V4, (SSH,), 60))):
            with pytest.raises(FirewallError, match="has no sets for grants"):
                refused()
        assert "elements" not in ns.nft("list table inet doorward")


def test_a_transaction_that_fails_changes_nothing_and_leaves_no_answer_behind(ns: Namespace) -> None:
    ns.nft(f"table inet doorward {{ {ruleset.SETS.replace('65536', '1')} }}")
    with ns.inside():
        nftables = Netlink()
    with contextlib.closing(nftables):
        before = nftables.generation()
        for services in ((SSH, DNS), MANY):
            with pytest.raises(FirewallError, match="Too many open files in system"):  # ENFILE: the set is full
                nftables.run(renewal(V4, services))
        assert "elements" not in ns.nft("list table inet doorward")
        nftables.run(renewal(V4, (SSH,)))
        assert "192.0.2.7" in ns.nft("list table inet doorward")
        with pytest.raises(FirewallError, match="No such file"):
            nftables.run(renewal(V4, (SSH,)).replace(b"open4\0", b"none4\0"))
        assert nftables.generation() == before + 1


RANGES = "flags interval, timeout"


def test_a_set_of_ranges_is_written_by_libnftables_and_listed_element_by_element(ns: Namespace) -> None:
    chain = "chain mine { type filter hook input priority 0; policy drop; };"
    ns.nft(f"table inet doorward {{ {ruleset.SETS.replace('flags timeout', RANGES)} {chain} }}")
    three = [ipaddress.ip_address(f"192.0.2.{last}") for last in (7, 8, 9)]
    with ns.inside():
        nft = Counting()
        made = Nftables(NO_FILE, FirewallMode.GUARD, lambda: {SSH}, nft)
    with contextlib.closing(made):
        made.prepare()
        for source in (three[0], three[2]):
            made.open(Grant(source, (SSH,), 60))
        assert nft.changes == 2
        assert [grant.source for grant in made.grants()] == [three[0], three[2]]
        ns.nft("add element inet doorward open4 { 192.0.2.64/26 . 6 . 22-23 timeout 60s }")  # no grant could make it
        assert [grant.source for grant in made.grants()] == [three[0], three[2]]
        assert made.withdraw(three[0]) == 1
        assert [grant.source for grant in made.grants()] == [three[2]]


def test_what_an_answer_said_before_is_not_taken_for_the_next_one(ns: Namespace) -> None:
    ns.nft(f"table inet doorward {{ {ruleset.SETS} }}")
    with ns.inside():
        nftables = Netlink()
    with contextlib.closing(nftables):
        deaf(nftables)
        with pytest.raises(FirewallError, match="nftables cannot be told"):
            nftables.run(renewal(V4, (SSH,)))  # done, and the acknowledgement waits
        ns.nft("delete table inet doorward")
        with pytest.raises(FirewallError, match="No such file"):
            nftables.run(renewal(V4, (SSH,)))


def test_answers_for_which_there_is_no_room_do_not_hinder_what_comes_next(ns: Namespace) -> None:
    with counting(ns) as (made, _):
        made._kernel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # noqa: SLF001  as on a host with a low rmem_default
        ns.nft("delete table inet doorward")
        made.open(Grant(V4, MANY, 60))
        assert len(made.grants()) == len(MANY)


def deaf(nftables: Netlink) -> None:
    """Have the next word of the kernel lost as it is where there is no memory for it: what waits stays."""
    hear = nftables._next_answer  # noqa: SLF001  no fault of memory can be had otherwise

    def lose() -> bytes:
        nftables._next_answer = hear  # type: ignore[method-assign]  # noqa: SLF001  once
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    nftables._next_answer = lose  # type: ignore[method-assign]  # noqa: SLF001  as above


def test_a_transaction_of_somebody_without_power_is_refused(ns: Namespace) -> None:
    ns.nft(f"table inet doorward {{ {ruleset.SETS} }}")
    code = (
        "import ipaddress as i; from doorward.firewall import batch; from doorward.linux import netlink\n"
        "from doorward.values import *\n"
        "grant = Grant(i.ip_address('192.0.2.7'), (Service(Protocol.TCP, 22),), 60)\n"
        "netlink.Netlink().run(batch.renewal(grant))"
    )
    asked = [sys.executable, "-c", code]
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # our code may lie in /root
    ended = ns.run("setpriv", "--reuid=65534", "--clear-groups", *reading, *asked, env=environment(), check=False)
    assert "FirewallError: nftables: Operation not permitted" in ended.stderr
    assert "elements" not in ns.nft("list table inet doorward")
    ns.run(*asked, env=environment())
    assert "192.0.2.7" in ns.nft("list table inet doorward")


def renewal(source: IPAddress, services: tuple[Service, ...]) -> bytes:
    made = batch.renewal(Grant(source, services, 60))
    assert made is not None
    return made


class Raced(Libnftables):
    """nft in a world where somebody else flushes our chains right after each load of the table, so many times."""

    races = 1

    def run(self, commands: str, output: Output = Output(0)) -> str:  # noqa: B008  an immutable flag
        said = super().run(commands, output)
        if self.races and commands.startswith((ruleset.REMOVE, "flush chain")):
            self.races -= 1
            super().run(f"flush table {ruleset.TABLE}")
        return said


def rules(ns: Namespace) -> int:
    return ns.nft("list table inet doorward").count(" drop")


def test_a_table_that_others_flush_as_it_is_loaded_does_not_pass_for_whole(ns: Namespace) -> None:
    with ns.inside():
        raced = Raced()
        made = Nftables(NO_FILE, FirewallMode.GUARD, lambda: {SSH}, raced)
    with contextlib.closing(made):
        assert made.prepare() == "table inet doorward was not there: made the guard table"
        assert not raced.races, "it was flushed"
        assert rules(ns)
        ns.nft("flush table inet doorward")
        assert not rules(ns)
        raced.races = 1
        assert "parts of it were removed" in (made.prepare() or "")
        assert rules(ns)
        assert made.prepare() is None


def test_a_table_that_others_never_leave_alone_ends_the_tries(ns: Namespace) -> None:
    with ns.inside():
        raced = Raced()
        made = Nftables(NO_FILE, FirewallMode.GUARD, lambda: {SSH}, raced)
    raced.races = 1000
    with contextlib.closing(made):
        assert made.prepare() is not None
    assert raced.races == 1000 - TRIES


def test_open_works_on_after_another_process_swapped_the_table(ns: Namespace) -> None:
    with firewall(ns) as made:
        made.prepare()
        for _ in range(20):
            ns.nft(ruleset.swap(ruleset.guard([SSH])))
            assert made.grants() == ()
            made.open(Grant(V4, (SSH,), 60))
            assert live(made) == [("192.0.2.7", "tcp/22")]


CAN, FIRST = "can drop what a grant lets in", "drops everything before a grant"
FOREIGN = {
    "table inet filter": ("type filter hook input priority 0; policy drop;", CAN),
    "table ip filter": ("type filter hook input priority 0; counter drop;", CAN),
    "table ip6 filter": ("type filter hook input priority 0; tcp dport 22 drop;", CAN),
    "table inet invalid": ("type filter hook input priority 0; ct state invalid drop;", CAN),
    "table inet firewalld": ("type filter hook input priority 10; reject with icmpx admin-prohibited;", CAN),
    "table inet early": ("type filter hook prerouting priority -300; policy drop;", FIRST),
    "table inet first": ("type filter hook input priority -2000; drop;", FIRST),
    "table bridge b": ("type filter hook input priority 0; policy drop;", FIRST),
}


@pytest.mark.parametrize("table", FOREIGN)
def test_a_drop_in_another_table_is_reported(ns: Namespace, table: str) -> None:
    with firewall(ns, FirewallMode.GUARD) as made:
        made.prepare()
        assert made.foreign().findings() == ()
        chain, why = FOREIGN[table]
        ns.nft(f"{table} {{ chain c {{ {chain} }}; }}")
        (line,) = made.foreign().findings()
        assert line.startswith(f"{table}, chain c {why}")


@pytest.mark.parametrize("target", ["DROP", "REJECT"])
def test_a_drop_of_iptables_nft_is_reported(ns: Namespace, target: str) -> None:
    with firewall(ns) as made:
        ns.run("iptables-nft", "-A", "INPUT", "-p", "icmp", "-j", "ACCEPT")
        assert made.foreign().findings() == ()
        ns.run("iptables-nft", "-A", "INPUT", "-p", "udp", "-j", target)
        assert len(made.foreign().findings()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "table inet filter { chain input { type filter hook input priority 0; ct state invalid accept; }; }",
        "table inet filter { chain input { type filter hook input priority 0; accept; drop; }; }",
        "table inet filter { chain early { type filter hook prerouting priority -300; ct state invalid drop; }; }",
        "table inet filter { flags dormant; chain input { type filter hook input priority 0; drop; }; }",
        "table arp filter { chain input { type filter hook input priority 0; policy drop; }; }",
        "table inet filter { chain output { type filter hook output priority 0; policy drop; }; }",
        "table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }",
        "table inet filter { chain unhooked { drop; }; }",
    ],
)
def test_what_does_not_stop_grants_is_not_reported(ns: Namespace, text: str) -> None:
    ns.nft(text)
    with firewall(ns) as made:
        assert made.foreign().findings() == ()


def test_the_table_needs_no_etc_protocols(ns: Namespace, tmp_path: Path) -> None:
    empty = tmp_path / "protocols"
    empty.touch()
    script = (
        "import ipaddress, pathlib\n"
        "from doorward.firewall.nftables import Nftables\n"
        "from doorward.values import *\n"
        "made = Nftables(pathlib.Path('/nonexistent'), FirewallMode.GUARD, lambda: {Service(Protocol.TCP, 22)})\n"
        "made.prepare()\n"
        "made.open(Grant(ipaddress.ip_address('192.0.2.7'), (Service(Protocol.TCP, 22),), 60))\n"
        "print(made.grants()[0].service, made.prepare())\n"
    )
    shell = f'mount --bind {empty} /etc/protocols && exec python3 -c "$0"'
    daemon = str(Path(__file__).parents[2] / "daemon")
    done = ns.run("env", f"PYTHONPATH={daemon}", "unshare", "-m", "sh", "-ec", shell, script)
    assert done.stdout.split() == ["tcp/22", "None"]
