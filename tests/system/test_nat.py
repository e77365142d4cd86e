"""Grants that lead connections elsewhere, with real hosts: strangers, a gateway that knows knocks, a host behind it."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.errors import FirewallError
from doorward.firewall import closed_by_hand, deadman, ruleset
from doorward.firewall.kernel import read_table
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Nftables
from doorward.firewall.ruleset import Part
from doorward.linux.netlink import Netlink
from doorward.values import FirewallMode, Grant, IPAddress, LiveGrant, Nat, Service
from doorward.wire.fwknop import WITH_TIMEOUT, MessageType
from system import netns
from system.doorwardd import ACCESS, HMAC_KEY, KEY, command, doorwardd, environment, eventually, send, write
from unit.collection_plugins import plugin
from unit.making import message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

without_grants = plugin("plugin_utils._listing").without_grants
WEB, SSH, MAIL, DNS = map(Service.parse, ("tcp/80", "tcp/22", "tcp/110", "udp/53"))
FAMILIES = pytest.mark.parametrize("family", ["ipv4", "ipv6"])
NAT = Needs(frozenset({Part.NAT}), forwarding=True)
NO_FILE = Path("/nonexistent/firewall.nft")
HIDING = """
add chain inet doorward forward
add rule inet doorward forward ct state established accept
add rule inet doorward forward iifname "eth0" drop
"""


@dataclass(frozen=True)
class Site:
    """Two hosts outside, a gateway between, one inside; `family` is what they speak in this test."""

    client: Namespace
    outsider: Namespace
    gateway: Namespace
    inner: Namespace
    family: str

    def address(self, host: Namespace) -> str:
        """The address of a host outside, or of the gateway towards them."""
        return str(getattr(host, self.family))

    def ip(self, host: Namespace) -> IPAddress:
        """The same as an object."""
        return ipaddress.ip_address(self.address(host))

    @property
    def target(self) -> IPAddress:
        """The inner host's address."""
        return ipaddress.ip_address("10.78.0.2" if self.family == "ipv4" else "fd78::2")

    @property
    def inside(self) -> IPAddress:
        """The gateway's address towards the inner host."""
        return ipaddress.ip_address("10.78.0.1" if self.family == "ipv4" else "fd78::1")

    @property
    def anywhere(self) -> str:
        """The destination that stands for every address."""
        return "0.0.0.0/0" if self.family == "ipv4" else "::/0"


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Namespace, Namespace, Namespace, Namespace]]:
    """Two hosts outside, a gateway and one inside, who know their neighbours; made once, since that takes seconds."""
    with (
        netns.network("client", "outsider", "gateway") as (client, outsider, gateway),
        netns.namespace("inner") as inner,
    ):
        _ip(gateway, "link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", inner.name)
        for host, device, number in ((gateway, "eth1", 1), (inner, "eth0", 2)):
            _ip(host, "addr", "add", f"10.78.0.{number}/24", "dev", device)
            _ip(host, "addr", "add", f"fd78::{number}/64", "dev", device, "nodad")
            _ip(host, "link", "set", device, "up")
        _ip(inner, "route", "add", "10.77.0.0/24", "via", "10.78.0.1")
        _ip(inner, "-6", "route", "add", "fd77::/64", "via", "fd78::1")
        for outside in (client, outsider):
            _ip(outside, "route", "add", "10.78.0.0/24", "via", gateway.ipv4)
            _ip(outside, "-6", "route", "add", "fd78::/64", "via", gateway.ipv6)
        gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for address in (gateway.ipv4, gateway.ipv6, "10.78.0.2", "fd78::2"):  # neighbours know each other
            for outside in (client, outsider):
                assert eventually(lambda: not outside.run("ping", "-c1", "-W1", address, check=False).returncode)  # noqa: B023
        yield client, outsider, gateway, inner


@pytest.fixture
def site(hosts: tuple[Namespace, Namespace, Namespace, Namespace], family: str) -> Iterator[Site]:
    made = Site(*hosts, family)
    yield made
    made.gateway.nft("flush ruleset")
    made.gateway.run("conntrack", "-F")


@contextlib.contextmanager
def second_address(site: Site) -> Iterator[str]:
    """Give the gateway one more address towards the hosts outside."""
    address, network = ("10.77.0.99", "10.77.0.99/24") if site.family == "ipv4" else ("fd77::99", "fd77::99/64")
    _ip(site.gateway, "addr", "add", network, "dev", "eth0", *(["nodad"] if site.family == "ipv6" else []))
    yield address
    _ip(site.gateway, "addr", "del", network, "dev", "eth0")


def _ip(host: Namespace, *argv: str) -> None:
    subprocess.run(["ip", "-n", host.name, *argv], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def firewall(  # noqa: PLR0913  the inputs of a table, each named
    host: Namespace,
    guarded: tuple[Service, ...] = (SSH,),
    *,
    needs: Needs = NAT,
    mode: FirewallMode = FirewallMode.GUARD,
    file: Path = NO_FILE,
    switch: Path | None = None,
) -> Iterator[Nftables]:
    with host.inside():
        made = Nftables(file, mode, lambda: guarded, needs=needs, switch=switch)
    made.prepare()
    yield made
    made.close()


@contextlib.contextmanager
def saying(host: Namespace, port: int, word: str, address: str = "") -> Iterator[list[str]]:
    """Serve TCP: `word` to everyone who connects. Yields the sources that it saw."""
    with host.inside():
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.create_server((address, port), family=family)
        else:
            server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    seen: list[str] = []
    thread = threading.Thread(target=_serve, args=(server, word, seen))
    thread.start()
    try:
        yield seen
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def _serve(server: socket.socket, word: str, seen: list[str]) -> None:
    while True:
        try:
            accepted, peer = server.accept()
        except OSError:
            return
        with accepted:
            seen.append(str(peer[0]).removeprefix("::ffff:"))
            accepted.sendall(word.encode())


def heard(host: Namespace, address: object, port: int, within: float = 0.3) -> str:
    """Return what is said to `host` at an address and port; `silence` or `refused` where nothing is."""
    with host.inside():
        connection = socket.socket(socket.AF_INET6 if ":" in str(address) else socket.AF_INET)
    with connection:
        connection.settimeout(within)
        try:
            connection.connect((str(address), port))
            connection.settimeout(5)
            return connection.recv(99).decode()
        except TimeoutError:
            return "silence"
        except ConnectionRefusedError:
            return "refused"


def ghost(site: Site, outer: Service = WEB, inner: int = 22, seconds: int = 60) -> Grant:
    return Grant(site.ip(site.client), (outer,), seconds, Nat(None, inner))


def led(site: Site, outer: Service = MAIL, port: int = 22, seconds: int = 60, **how: object) -> Grant:
    return Grant(site.ip(site.client), (outer,), seconds, Nat(site.target, port, **how))  # type: ignore[arg-type]


@FAMILIES
def test_a_ghost_service_is_reached_by_another_ports_number_and_everyone_else_sees_what_is_there(site: Site) -> None:
    door = site.address(site.gateway)
    with firewall(site.gateway) as made, saying(site.gateway, 22, "ssh"), saying(site.gateway, 80, "web"):
        assert heard(site.client, door, 80) == "web"
        made.open(ghost(site))
        assert heard(site.client, door, 80) == "ssh"
        assert heard(site.client, door, 22) == "silence"
        assert heard(site.outsider, door, 80) == "web"
        assert heard(site.outsider, door, 22) == "silence"
        assert made.withdraw(site.ip(site.client)) == 1
        assert heard(site.client, door, 80) == "web"
        assert made.grants() == ()


@FAMILIES
def test_a_ghost_service_appears_where_nothing_is_bound(site: Site) -> None:
    door = site.address(site.gateway)
    with firewall(site.gateway) as made, saying(site.gateway, 22, "ssh"):
        assert heard(site.client, door, 110) == "refused"
        made.open(ghost(site, MAIL))
        assert heard(site.client, door, 110) == "ssh"
        assert heard(site.outsider, door, 110) == "refused"


@FAMILIES
def test_a_connection_to_a_ghost_service_outlives_its_grant_which_ends_by_itself(site: Site) -> None:
    door = site.address(site.gateway)
    with firewall(site.gateway) as made, saying(site.gateway, 80, "web"):
        made.open(ghost(site, seconds=1))
        with site.gateway.inside():
            server = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)
        with site.client.inside():
            connection = socket.create_connection((door, 80), 5)
        with server, connection:
            accepted, _ = server.accept()
            with accepted:
                while made.grants():
                    time.sleep(0.05)
                assert heard(site.client, door, 80) == "web"
                connection.sendall(b"still here")
                accepted.settimeout(5)
                assert accepted.recv(99) == b"still here"


@FAMILIES
def test_a_ghost_service_keeps_the_address_that_was_asked_for(site: Site) -> None:
    with (
        second_address(site) as second,
        firewall(site.gateway) as made,
        saying(site.gateway, 22, "second", second),
    ):
        made.open(ghost(site))
        assert heard(site.client, second, 80) == "second"
        assert heard(site.client, site.address(site.gateway), 80) == "refused"


@FAMILIES
def test_a_service_on_an_address_that_nobody_routes_here_is_reached_by_a_grant_only(site: Site) -> None:
    hidden, network = ("10.99.0.1", "10.99.0.1/32") if site.family == "ipv4" else ("fd99::1", "fd99::1/128")
    _ip(site.gateway, "addr", "add", network, "dev", "lo")
    _ip(site.client, "route", "add", network, "via", site.address(site.gateway))  # as a neighbour could
    door, at = site.address(site.gateway), ipaddress.ip_address(hidden)
    with firewall(site.gateway) as made, saying(site.gateway, 22, "hidden", hidden):
        assert heard(site.client, door, 110) == "refused"
        made.open(Grant(site.ip(site.client), (MAIL,), 60, Nat(at, 22)))
        assert heard(site.client, door, 110) == "hidden"
        assert heard(site.client, hidden, 22) == "silence"
        assert heard(site.outsider, door, 110) == "refused"
    _ip(site.gateway, "addr", "del", network, "dev", "lo")
    _ip(site.client, "route", "del", network)


@FAMILIES
def test_the_last_knock_says_where_a_port_leads(site: Site) -> None:
    door = site.address(site.gateway)
    with (
        firewall(site.gateway) as made,
        saying(site.gateway, 22, "ssh"),
        saying(site.gateway, 23, "telnet"),
        saying(site.inner, 22, "inner"),
    ):
        for grant, word in ((ghost(site), "ssh"), (ghost(site, inner=23, seconds=30), "telnet"), (ghost(site), "ssh")):
            made.open(grant)
            assert heard(site.client, door, 80) == word
            (live,) = made.grants()
            assert grant.seconds - 5 < live.remaining <= grant.seconds
        for grant, word in ((led(site, WEB), "inner"), (ghost(site), "ssh"), (led(site, WEB, seconds=30), "inner")):
            made.open(grant)
            assert heard(site.client, door, 80) == word
            assert [live.nat for live in made.grants() if live.nat and live.nat.rewrite] == [grant.nat]


@FAMILIES
def test_a_forwarded_connection_goes_to_its_target_and_to_no_other(site: Site) -> None:
    door = site.address(site.gateway)
    with (
        firewall(site.gateway) as made,
        saying(site.gateway, 110, "mail"),
        saying(site.inner, 22, "inner") as seen,
        saying(site.inner, 80, "inner web"),
    ):
        site.gateway.nft(HIDING)
        assert heard(site.client, site.target, 22) == "silence"
        made.open(led(site))
        assert heard(site.client, door, 110) == "inner"
        assert seen == [site.address(site.client)]
        assert heard(site.client, site.target, 80) == "silence"
        assert heard(site.outsider, door, 110) == "mail"
        assert heard(site.outsider, site.target, 22) == "silence"
        assert [live.nat for live in made.grants()] == [Nat(site.target, 22)]
        made.flush()
        assert heard(site.client, door, 110) == "mail"


@FAMILIES
def test_a_forwarded_connection_outlives_its_grant_which_ends_by_itself(site: Site) -> None:
    door = site.address(site.gateway)
    with site.inner.inside():
        server = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)
    with firewall(site.gateway) as made, server:
        site.gateway.nft(HIDING)
        made.open(led(site, seconds=1))
        with site.client.inside():
            connection = socket.create_connection((door, 110), 5)
        accepted, _ = server.accept()
        with connection, accepted:
            while made.grants():
                time.sleep(0.05)
            assert heard(site.client, door, 110) == "refused"
            connection.sendall(b"still here")
            accepted.settimeout(5)
            assert accepted.recv(99) == b"still here"


@FAMILIES
@pytest.mark.parametrize("how", ["snat", "masquerade"])
@pytest.mark.parametrize("everything", [False, True])
def test_a_forwarded_connection_gets_another_source(site: Site, how: str, *, everything: bool) -> None:
    chosen = {"snat": site.inside} if how == "snat" else {"masquerade": True}
    nat = Nat(site.target, None if everything else 22, everything=everything, **chosen)
    outer = SSH if everything else MAIL
    with firewall(site.gateway) as made, saying(site.inner, 22, "inner") as seen:
        made.open(Grant(site.ip(site.client), (outer,), 60, nat))
        assert [live.nat for live in made.grants()] == [nat]
        assert heard(site.client, site.address(site.gateway), outer.port) == "inner"
        assert seen == [str(site.inside)]
        assert made.withdraw(site.ip(site.client)) == 1
        assert heard(site.client, site.target, 22) == "inner"  # routed, since nothing hides it here
        assert seen == [str(site.inside), site.address(site.client)]


@FAMILIES
def test_everything_of_one_source_is_led_to_one_target(site: Site) -> None:
    door = site.address(site.gateway)
    with firewall(site.gateway) as made, saying(site.inner, 22, "inner"), saying(site.inner, 8080, "proxy"):
        site.gateway.nft(HIDING)
        made.open(Grant(site.ip(site.client), (SSH,), 60, Nat(site.target, None, everything=True)))
        assert [heard(site.client, door, port) for port in (22, 8080)] == ["inner", "proxy"]
        assert site.client.run("ping", "-c1", "-W2", door).returncode == 0
        assert heard(site.outsider, door, 8080) == "refused"
        assert [(live.service, live.nat) for live in made.grants()] == [(None, Nat(site.target, None, everything=True))]
        made.flush()
        assert heard(site.client, door, 8080) == "refused"


@FAMILIES
@pytest.mark.parametrize("everything", [False, True])
def test_without_dnat_only_what_is_addressed_to_the_target_comes_through(site: Site, *, everything: bool) -> None:
    nat = Nat(site.target, None if everything else 22, everything=everything, rewrite=False)
    door = site.address(site.gateway)
    with firewall(site.gateway) as made, saying(site.inner, 22, "inner"), saying(site.inner, 80, "web"):
        site.gateway.nft(HIDING)
        made.open(Grant(site.ip(site.client), (SSH,), 60, nat))
        assert [live.nat for live in made.grants()] == [nat]
        assert heard(site.client, door, 22) == "silence"
        assert heard(site.client, site.target, 22) == "inner"
        assert heard(site.client, site.target, 80) == ("web" if everything else "silence")
        assert heard(site.outsider, site.target, 22) == "silence"


@FAMILIES
@pytest.mark.parametrize("how", ["unchanged", "snat", "masquerade"])
def test_everything_of_one_source_passes_to_everywhere(site: Site, how: str) -> None:
    client, door = site.ip(site.client), site.address(site.gateway)
    snat = site.inside if how == "snat" else None
    nat = Nat.to_everywhere(client.version, snat=snat, masquerade=how == "masquerade")
    with (
        firewall(site.gateway) as made,
        saying(site.gateway, 22, "ssh of the gateway"),
        saying(site.inner, 22, "inner") as seen,
        saying(site.inner, 80, "web"),
    ):
        site.gateway.nft(HIDING)
        assert heard(site.client, site.target, 22) == "silence"
        made.open(Grant(client, (SSH,), 60, nat))
        assert [(live.source, live.service, live.nat) for live in made.grants()] == [(client, None, nat)]
        assert [heard(site.client, site.target, port) for port in (22, 80)] == ["inner", "web"]
        assert set(seen) == {site.address(site.client) if how == "unchanged" else str(site.inside)}
        assert site.client.run("ping", "-c1", "-W2", str(site.target)).returncode == 0
        assert heard(site.client, door, 22) == "silence"
        assert heard(site.outsider, site.target, 22) == "silence"
        made.reopen(made.grants())
        assert made.withdraw(client) == 1
        assert heard(site.client, site.target, 22) == "silence"


@pytest.mark.parametrize("family", ["ipv4"])
def test_everywhere_is_not_where_the_gateways_own_links_lead(site: Site) -> None:
    inner = "169.254.7.7"
    _ip(site.inner, "addr", "add", f"{inner}/32", "dev", "lo")
    _ip(site.gateway, "route", "add", inner, "via", "10.78.0.2")
    _ip(site.client, "route", "add", inner, "via", site.gateway.ipv4)
    try:
        with firewall(site.gateway) as made, saying(site.inner, 22, "metadata"):
            assert heard(site.client, inner, 22) == "metadata", "the kernel routes it"
            site.gateway.nft(HIDING)
            made.open(Grant(site.ip(site.client), (SSH,), 60, Nat.to_everywhere(4)))
            assert heard(site.client, site.target, 22) == "metadata"
            assert heard(site.client, inner, 22) == "silence"
    finally:
        _ip(site.inner, "addr", "del", f"{inner}/32", "dev", "lo")
        _ip(site.gateway, "route", "del", inner)
        _ip(site.client, "route", "del", inner)


@FAMILIES
def test_what_only_passes_through_the_gateway_is_not_led_elsewhere(site: Site) -> None:
    with (
        firewall(site.gateway) as made,
        saying(site.gateway, 22, "ssh"),
        saying(site.inner, 80, "inner web"),
        saying(site.inner, 22, "inner"),
    ):
        made.open(ghost(site))
        made.open(Grant(site.ip(site.client), (MAIL,), 60, Nat(site.target, 22)))
        assert heard(site.client, site.target, 80) == "inner web"
        assert heard(site.client, site.address(site.gateway), 80) == "ssh"


@FAMILIES
def test_a_destination_binds_a_grant_to_one_address_of_the_host(site: Site) -> None:
    first, client = site.address(site.gateway), site.ip(site.client)
    here = ipaddress.ip_address(first)
    needs = Needs(frozenset({Part.NAT, Part.DESTINATION}))
    with (
        second_address(site) as second,
        firewall(site.gateway, needs=needs) as made,
        saying(site.gateway, 22, "ssh"),
        saying(site.inner, 22, "inner"),
        saying(site.inner, 25, "all"),
    ):
        grants = {
            (22, "ssh"): Grant(client, (SSH,), 60, destination=here),
            (80, "ssh"): Grant(client, (WEB,), 60, Nat(None, 22), destination=here),
            (110, "inner"): Grant(client, (MAIL,), 60, Nat(site.target, 22), destination=here),
            (25, "all"): Grant(client, (MAIL,), 60, Nat(site.target, None, everything=True), destination=here),
        }
        for (port, word), grant in grants.items():
            assert heard(site.client, first, port) != word
            made.open(grant)
            assert [(live.nat, live.destination) for live in made.grants()] == [(grant.nat, here)]
            assert heard(site.client, first, port) == word
            assert heard(site.client, second, port) != word
            made.flush()


@pytest.mark.parametrize("family", ["ipv4"])
def test_a_ghost_service_is_reached_over_udp_too(site: Site) -> None:
    with firewall(site.gateway, (DNS,)) as made:
        with site.gateway.inside():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with site.client.inside():
            asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with server, asker:
            server.bind(("", 53))
            made.open(Grant(site.ip(site.client), (Service.parse("udp/5353"),), 60, Nat(None, 53)))
            asker.settimeout(5)
            asker.connect((site.gateway.ipv4, 5353))
            asker.send(b"?")
            question, peer = server.recvfrom(99)
            server.sendto(b"!", peer)
            assert (question, asker.recv(99)) == (b"?", b"!")


@FAMILIES
def test_grants_are_opened_again_as_they_were(site: Site) -> None:
    client, here = site.ip(site.client), site.ip(site.gateway)
    grants = (
        ghost(site),
        led(site, masquerade=True),
        Grant(client, (SSH,), 60, destination=here),
        Grant(client, (WEB,), 60, Nat(site.target, 8080, snat=site.inside), destination=here),
        Grant(client, (DNS,), 60, Nat(site.target, None, everything=True)),
        Grant(site.ip(site.outsider), (DNS,), 60, Nat(site.target, 53, rewrite=False)),
    )
    with firewall(site.gateway) as made:
        for grant in grants:
            made.open(grant)
        before = made.grants()
        assert {as_opened(live) for live in before} == {
            as_opened(one) for grant in grants for one in LiveGrant.of(grant)
        }
        site.gateway.nft("delete table inet doorward")
        made.prepare()
        assert made.grants() == ()
        made.reopen(before)
        assert [as_opened(live) for live in made.grants()] == [as_opened(live) for live in before]
        assert made.withdraw(client) == 5
        assert [live.source for live in made.grants()] == [site.ip(site.outsider)]


def as_opened(live: LiveGrant) -> tuple[object, ...]:
    return live.source, live.service, live.nat, live.os, live.destination


@pytest.mark.parametrize("mode", list(FirewallMode))
def test_a_table_of_an_earlier_configuration_is_given_what_it_lacks_and_keeps_its_grants(
    ns: Namespace, mode: FirewallMode
) -> None:
    plain, source = Needs(), ipaddress.ip_address("192.0.2.7")
    with firewall(ns, needs=plain, mode=mode) as made:
        made.open(Grant(source, (SSH,), 60))
        with pytest.raises(FirewallError, match="nothing for grants with nat, which are refused: run the role"):
            made.open(Grant(source, (WEB,), 60, Nat(None, 22)))
        handle = table_handle(ns)
    with firewall(ns, mode=mode) as made:
        assert made.unserved() == ()
        assert made.prepare() is None
        made.open(Grant(source, (WEB,), 60, Nat(None, 22)))
        assert [live.service for live in made.grants()] == [SSH, WEB]
        assert table_handle(ns) == handle
    with firewall(ns, needs=plain, mode=mode) as made:  # and back: what is there does no harm
        assert len(made.grants()) == 2


def table_handle(ns: Namespace) -> int:
    with ns.inside():
        table = read_table(Netlink())
    assert table is not None
    return table.handle


@pytest.mark.parametrize("lost", ["prerouting", "forward", "guard"])
def test_a_nat_chain_that_somebody_empties_is_loaded_again(ns: Namespace, lost: str) -> None:
    with firewall(ns) as made:
        made.open(Grant(ipaddress.ip_address("192.0.2.7"), (WEB,), 60, Nat(None, 22)))
        before = ns.nft("list table inet doorward")
        ns.nft(f"flush chain inet doorward {lost}")
        assert "parts of it were removed" in (made.prepare() or "")
        kept = [line for line in before.splitlines() if "elements" not in line and "192.0.2.7" not in line]
        after = [line for line in ns.nft("list table inet doorward").splitlines() if "elements" not in line]
        assert after == kept


def test_a_confirmed_table_without_nat_serves_plain_grants_and_refuses_others(ns: Namespace, tmp_path: Path) -> None:
    file = tmp_path / "firewall.nft"
    older = ruleset.SETS[: ruleset.SETS.index("    set open_at4")]
    file.write_text(
        f"table inet doorward {{ {older} chain input {{ type filter hook input priority 0; policy drop; "
        "ip saddr . meta l4proto . th dport @open4 accept; }; }\n"
    )
    source = ipaddress.ip_address("192.0.2.7")
    with firewall(ns, file=file, needs=Needs(frozenset({Part.NAT, Part.DESTINATION}))) as made:
        assert [line.split(",")[0] for line in made.unserved()] == [
            "table inet doorward has nothing for grants with destination",
            "table inet doorward has nothing for grants with nat",
            f"table inet doorward {PASSING}; run the role doorward.spa.firewall again",
            f"table inet doorward {UNMARKED}; run the role doorward.spa.firewall again",
        ]
        made.open(Grant(source, (SSH,), 60))
        with pytest.raises(FirewallError, match="with nat, which are refused"):
            made.open(Grant(source, (WEB,), 60, Nat(None, 22)))
        with pytest.raises(FirewallError, match="with destination, which are refused"):
            made.open(Grant(source, (WEB,), 60, destination=ipaddress.ip_address("192.0.2.1")))
        assert [live.service for live in made.grants()] == [SSH]
        made.reopen([*made.grants(), LiveGrant(source, WEB, 60, Nat(None, 22))])
        assert [live.service for live in made.grants()] == [SSH]


def test_nothing_is_led_from_one_family_of_addresses_to_the_other(ns: Namespace) -> None:
    mapped, six = ipaddress.ip_address("::ffff:192.0.2.7"), ipaddress.ip_address("2001:db8::1")
    with firewall(ns) as made:
        with pytest.raises(FirewallError, match="has another address family than the connection"):
            made.open(Grant(mapped, (WEB,), 60, Nat(six, 22)))
        with pytest.raises(FirewallError, match="another address family"):
            made.open(Grant(mapped, (WEB,), 60, destination=six))
        assert made.grants() == ()


def test_a_drop_of_forwarded_packets_is_reported_where_something_is_forwarded(ns: Namespace) -> None:
    ns.nft("table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }")
    with firewall(ns) as made:
        (line,) = made.foreign().findings()
        assert line.startswith("table inet filter, chain forward can drop what a grant lets in")
    with firewall(ns, needs=Needs(frozenset({Part.NAT}))) as made:
        assert made.foreign().findings() == ()


def test_a_host_that_does_not_forward_is_told_so(ns: Namespace) -> None:
    for four, six, said in ((0, 0, "no IPv4 and no IPv6"), (1, 0, "no IPv6"), (0, 1, "no IPv4"), (1, 1, "")):
        ns.run("sysctl", "-qw", f"net.ipv4.ip_forward={four}", f"net.ipv6.conf.all.forwarding={six}")
        with ns.inside():
            found = NAT.not_forwarding() or ""
            assert Needs().not_forwarding() is None
        assert found.startswith(f"this host forwards {said}, and" if said else "")
        assert bool(found) == bool(said)
    assert NAT.not_forwarding(lambda _: None) is None  # a kernel that does not say


KNOCKING = "ENABLE_IPT_LOCAL_NAT Y;\nENABLE_IPT_FORWARDING Y;\n"
PORTS = itertools.count()
MANY_PORTS = ACCESS.replace("OPEN_PORTS tcp/22, udp/7777", "OPEN_PORTS tcp/22, tcp/80, tcp/110")


PASSING = "does not close ports that other programs forward (Docker's published ports)"
UNMARKED = "does not mark granted packets with 0x40000000 (FIREWALL_MARK) for other firewalls"


def confirmed(folder: Path, needs: Needs = NAT) -> None:
    """Write the firewall file of a host whose table guards ssh alone, and hides what is behind it."""
    text = ruleset.guard([], needs.parts)
    hidden = f"{ruleset.forward_rules()}        ct state established accept\n        iifname eth0 drop\n"
    text = text.replace("@guarded drop", "{ 6 . 22 } drop").replace(ruleset.forward_rules(), hidden)
    text = text.replace("    set guarded { type inet_proto . inet_service; }\n", "")
    (folder / "firewall.nft").write_text(text)


def knock(site: Site, kind: MessageType, where: str, service: Service = WEB) -> None:
    """Send what fwknop's client sends for NAT; for the kinds that say how long, two seconds."""
    text = f"{site.address(site.client)},{service}"
    timeout = 2 if kind in WITH_TIMEOUT else None
    made = message(type=kind, text=text, nat_access=where, time=int(time.time()), timeout=timeout)
    send(site.client, payload(made), site.address(site.gateway))


@FAMILIES
def test_a_knock_for_a_ghost_service_leads_its_source_there_and_nobody_else(site: Site, tmp_path: Path) -> None:
    door = site.address(site.gateway)
    confirmed(tmp_path)
    with (
        doorwardd(site.gateway, tmp_path, MANY_PORTS, KNOCKING) as daemon,
        saying(site.gateway, 22, "ssh"),
        saying(site.gateway, 80, "web"),
    ):
        assert (heard(site.client, door, 80), heard(site.client, door, 22)) == ("web", "silence")
        knock(site, MessageType.LOCAL_NAT_TIMEOUT, "127.0.0.1,22")
        daemon.wait_for("verdict=granted")
        assert heard(site.client, door, 80) == "ssh"
        assert heard(site.client, door, 22) == "silence"
        assert (heard(site.outsider, door, 80), heard(site.outsider, door, 22)) == ("web", "silence")
        assert eventually(lambda: heard(site.client, door, 80) == "web")


@FAMILIES
def test_a_knock_at_a_gateway_leads_its_source_to_the_inner_host(site: Site, tmp_path: Path) -> None:
    door = site.address(site.gateway)
    confirmed(tmp_path)
    with (
        doorwardd(site.gateway, tmp_path, MANY_PORTS, f"{KNOCKING}ENABLE_IPT_SNAT Y;\n") as daemon,
        saying(site.inner, 22, "inner") as seen,
    ):
        assert heard(site.client, site.target, 22) == "silence"
        knock(site, MessageType.NAT_TIMEOUT, f"{site.target},22", MAIL)
        daemon.wait_for("verdict=granted")
        assert heard(site.client, door, 110) == "inner"
        assert seen == [str(site.inside)]
        assert heard(site.outsider, door, 110) == "refused"
        assert eventually(lambda: heard(site.client, door, 110) == "refused")


@FAMILIES
def test_a_knock_under_forward_all_lets_its_source_through_to_everywhere(site: Site, tmp_path: Path) -> None:
    door = site.address(site.gateway)
    confirmed(tmp_path)
    access = f"{MANY_PORTS}FORWARD_ALL Y\nFORCE_MASQUERADE Y\nDISABLE_DNAT Y\n"
    with (
        doorwardd(site.gateway, tmp_path, access, KNOCKING) as daemon,
        saying(site.gateway, 22, "ssh"),
        saying(site.inner, 22, "inner") as seen,
        saying(site.inner, 8080, "proxy"),
    ):
        assert heard(site.client, site.target, 8080) == "silence"
        text = f"{site.address(site.client)},tcp/22"
        made = message(type=MessageType.ACCESS_TIMEOUT, text=text, time=int(time.time()), timeout=2)
        send(site.client, payload(made), door)
        assert "nat=everywhere,*" in daemon.wait_for("verdict=granted")
        assert heard(site.client, site.target, 8080) == "proxy"
        assert heard(site.client, site.target, 22) == "inner"
        assert set(seen) == {str(site.inside)}
        assert heard(site.client, door, 22) == "silence"
        assert heard(site.outsider, site.target, 22) == "silence"
        assert eventually(lambda: heard(site.client, site.target, 22) == "silence")


@pytest.mark.parametrize("family", ["ipv4"])
def test_what_is_not_to_be_led_is_denied_and_opens_nothing(site: Site, tmp_path: Path) -> None:
    confirmed(tmp_path)
    denied = [
        (MessageType.NAT, f"{site.target},23", WEB, "target"),  # not in OPEN_PORTS
        (MessageType.NAT, "[fd78::2],22", WEB, "target"),
        (MessageType.NAT, "fd78::2,22", WEB, "target"),  # of the other family
        (MessageType.NAT, "inner.example,22", WEB, "target"),
        (MessageType.NAT, "0.0.0.0,22", WEB, "target"),
        (MessageType.NAT, "224.0.0.1,22", WEB, "target"),
        (MessageType.LOCAL_NAT, "127.0.0.1,25", WEB, "target"),
        (MessageType.LOCAL_NAT, "127.0.0.1,22", DNS, "services"),
    ]
    with doorwardd(site.gateway, tmp_path, MANY_PORTS, KNOCKING) as daemon:
        before = site.gateway.nft("list table inet doorward")
        for number, (kind, where, service, reason) in enumerate(denied, 1):
            knock(site, kind, where, service)
            line = daemon.wait_for("verdict=denied", number)
            assert f"reason={reason}" in line, line
        assert site.gateway.nft("list table inet doorward") == before
        knock(site, MessageType.NAT, f"{site.target},22")
        daemon.wait_for("verdict=granted")
        assert site.gateway.nft("list table inet doorward") != before


FINGERPRINTS = Path("/usr/share/doc/nftables/examples/pf.os")


def with_fingerprints(file: Path) -> tuple[str, ...]:
    """Return what runs a command on a host whose nftables has a file of fingerprints."""
    script = (
        "mount -t tmpfs none /mnt && mkdir /mnt/upper /mnt/work && "
        "mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /etc && "
        'mkdir -p /etc/nftables/osf && cp "$0" /etc/nftables/osf/pf.os && exec "$@"'
    )
    return ("unshare", "-m", "sh", "-c", script, str(file))


def looking_like_windows(site: Site, port: int) -> bool:
    """Send the first packet of TCP as Windows 2000 made it, and say whether it was answered."""
    from scapy.layers.inet import IP, TCP  # noqa: PLC0415  slow to load

    options = [("MSS", 1460), ("NOP", None), ("NOP", None), ("SAckOK", b"")]
    own = 20_000 + next(PORTS)
    syn = IP(src=site.client.ipv4, dst=site.gateway.ipv4, ttl=128, flags="DF") / TCP(
        sport=own, dport=port, seq=1, window=65535, options=options
    )
    with site.client.inside():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        raw.sendto(bytes(syn), (site.gateway.ipv4, 0))
        until = time.monotonic() + 1
        while (left := until - time.monotonic()) > 0:
            raw.settimeout(left)
            with contextlib.suppress(TimeoutError):
                answer = TCP(raw.recv(2048)[20:])
                if (answer.sport, answer.dport) == (port, own):
                    return str(answer.flags) == "SA"
    return False


# Opens ssh for one system, in a process that sees the fingerprints.
OPENING = """
import ipaddress, sys
from pathlib import Path
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Nftables
from doorward.firewall.ruleset import Part
from doorward.values import FirewallMode, Grant, Service
file, system, source, *destination = sys.argv[1:]
ssh = Service.parse("tcp/22")
needs = Needs(frozenset({Part.SYSTEMS}), systems=frozenset({system}))
made = Nftables(Path(file), FirewallMode.GUARD, lambda: {ssh}, needs=needs)
made.prepare()
at = ipaddress.ip_address(destination[0]) if destination else None
made.open(Grant(ipaddress.ip_address(source), (ssh,), 60, os=system, destination=at))
"""


@pytest.mark.parametrize("family", ["ipv4"])
@pytest.mark.parametrize(
    ("table", "system", "at"),
    [
        ("made", "Linux", ""),
        ("confirmed", "Windows", ""),
        ("made", "Windows", "10.77.0.3"),
        ("confirmed", "Linux", "10.77.0.3"),
        ("made", "Linux", "10.77.0.99"),
    ],
)
def test_a_grant_for_one_operating_system_is_none_for_another(
    site: Site, tmp_path: Path, table: str, system: str, at: str
) -> None:
    if table == "confirmed":
        confirmed(tmp_path, Needs(frozenset({Part.SYSTEMS})))
    else:
        site.gateway.nft(ruleset.guard([SSH]))
    file, door = tmp_path / "firewall.nft", site.gateway.ipv4
    arguments = [str(file), system, site.client.ipv4, *([at] if at else [])]
    with saying(site.gateway, 22, "ssh"), firewall(site.gateway, needs=Needs(), file=file) as made:
        assert heard(site.client, door, 22) == "silence"
        assert not looking_like_windows(site, 22)
        argv = (*with_fingerprints(FINGERPRINTS), sys.executable, "-c", OPENING, *arguments)
        site.gateway.run(*argv, env=environment())
        here = at in {"", door}
        assert (heard(site.client, door, 22) == "ssh") == (here and system == "Linux")
        assert looking_like_windows(site, 22) == (here and system == "Windows")
        (live,) = before = made.grants()
        assert (str(live.source), live.service, live.os, str(live.destination or "")) == (
            site.client.ipv4,
            SSH,
            system,
            at,
        )
        made.flush()
        assert made.grants() == ()
        made.reopen(before)
        assert [as_opened(one) for one in made.grants()] == [as_opened(live)]
        assert made.withdraw(site.ip(site.client)) == 1
        assert made.grants() == ()


def test_a_system_is_asked_for_only_where_it_can_be_told(ns: Namespace, tmp_path: Path) -> None:
    file = tmp_path / "pf.os"
    needs = Needs(frozenset({Part.SYSTEMS}), systems=frozenset({"Linux", "TOS/360"}))
    assert f"needs the fingerprints in {file} (No such file" in (needs.unknown_systems(file) or "")
    file.write_text(FINGERPRINTS.read_text())
    assert (needs.unknown_systems(file) or "").startswith(f"REQUIRE_OS TOS/360: {file} knows only ")
    assert replace(needs, systems=frozenset({"Linux", "OpenBSD"})).unknown_systems(file) is None
    with ns.inside():
        made = Nftables(NO_FILE, FirewallMode.GUARD, tuple, needs=needs)
    with pytest.raises(FirewallError, match="REQUIRE_OS needs the fingerprints in /etc/nftables"):
        made.prepare()
    assert ns.nft("list ruleset") == ""
    made.close()


def test_a_grant_for_one_system_is_refused_where_none_can_be_told(ns: Namespace) -> None:
    four, six = map(ipaddress.ip_address, ("192.0.2.7", "2001:db8::7"))
    ns.nft(ruleset.guard([], {Part.SYSTEMS, Part.NAT}))
    with firewall(ns, needs=Needs()) as made:
        for grant in (
            Grant(six, (SSH,), 60, os="Linux"),
            Grant(four, (DNS,), 60, os="Linux"),
            Grant(four, (SSH, DNS), 60, os="Linux"),
            Grant(four, (WEB,), 60, Nat(None, 22), os="Linux"),
        ):
            with pytest.raises(FirewallError):
                made.open(grant)
        assert made.grants() == ()
        made.open(Grant(four, (SSH,), 60, os="Linux"))
        assert [live.os for live in made.grants()] == ["Linux"]


FORCED = ACCESS.replace("OPEN_PORTS tcp/22, udp/7777", "OPEN_PORTS tcp/80\nFORCE_NAT 127.0.0.1 22")


@pytest.mark.parametrize("family", ["ipv4"])
def test_a_forced_ghost_service_closes_its_own_port_and_leaves_the_other_to_everyone(
    site: Site, tmp_path: Path
) -> None:
    door = site.gateway.ipv4
    with (
        doorwardd(site.gateway, tmp_path, FORCED, "ENABLE_IPT_LOCAL_NAT Y;\n") as daemon,
        saying(site.gateway, 22, "ssh"),
        saying(site.gateway, 80, "web"),
    ):
        assert (heard(site.client, door, 80), heard(site.client, door, 22)) == ("web", "silence")
        send(site.client, payload(message(text=f"{site.client.ipv4},tcp/80", time=int(time.time()))), door)
        daemon.wait_for("verdict=granted")
        assert (heard(site.client, door, 80), heard(site.outsider, door, 80)) == ("ssh", "web")


@FAMILIES
def test_grants_with_nat_outlive_the_daemon_and_the_loss_of_their_table_but_not_their_withdrawal(
    site: Site, tmp_path: Path
) -> None:
    door = site.address(site.gateway)
    confirmed(tmp_path)
    with saying(site.gateway, 22, "ssh"), saying(site.gateway, 80, "web"), saying(site.inner, 22, "inner"):
        with doorwardd(site.gateway, tmp_path, MANY_PORTS, KNOCKING) as daemon:
            knock(site, MessageType.LOCAL_NAT, "127.0.0.1,22")
            daemon.wait_for("verdict=granted")
            knock(site, MessageType.NAT, f"{site.target},22", MAIL)
            daemon.wait_for("verdict=granted", 2)
            site.gateway.nft("delete table inet doorward")
            assert "with 2 live grants" in daemon.wait_for("OUR TABLE WAS REMOVED")
            assert (heard(site.client, door, 80), heard(site.client, door, 110)) == ("ssh", "inner")
        with doorwardd(site.gateway, tmp_path, MANY_PORTS, KNOCKING) as daemon:
            site.gateway.nft("flush ruleset")
            assert "with 2 live grants" in daemon.wait_for("OUR TABLE WAS REMOVED")
            assert (heard(site.client, door, 80), heard(site.client, door, 110)) == ("ssh", "inner")
            closed_by_hand.record(tmp_path / "run", site.ip(site.client), time.monotonic())
            with firewall(site.gateway, file=tmp_path / "firewall.nft") as console:
                assert console.withdraw(site.ip(site.client)) == 2
            assert (heard(site.client, door, 80), heard(site.client, door, 110)) == ("web", "refused")
            site.gateway.nft("delete table inet doorward")
            assert "with 0 live grants" in daemon.wait_for("OUR TABLE WAS REMOVED", 2)
            assert (heard(site.client, door, 80), heard(site.client, door, 110)) == ("web", "refused")


@pytest.mark.parametrize("family", ["ipv4"])
def test_a_daemon_that_may_forward_on_a_host_that_does_not_says_so(site: Site, tmp_path: Path) -> None:
    with netns.namespace() as alone, doorwardd(alone, tmp_path, MANY_PORTS, KNOCKING) as daemon:
        daemon.wait_for("this host forwards no IPv4 and no IPv6, and grants through it lead nowhere: set net.ipv4.ip_")
    with doorwardd(site.gateway, tmp_path, MANY_PORTS, KNOCKING) as daemon:
        assert not [line for line in daemon.lines if "forwards no" in line]


def test_a_confirmed_table_without_nat_is_told_of_at_start(ns: Namespace, tmp_path: Path) -> None:
    confirmed(tmp_path, Needs())
    with doorwardd(ns, tmp_path, MANY_PORTS, KNOCKING) as daemon:
        daemon.wait_for("nothing for grants with nat, which are refused: run the role doorward.spa.firewall again")


def test_a_full_map_refuses_a_grant_whole(ns: Namespace) -> None:
    text = ruleset.guard([SSH], {Part.NAT})
    ns.nft(text.replace("size 16384", "size 2"))
    with firewall(ns) as made:
        for last in (1, 2):
            made.open(Grant(ipaddress.ip_address(f"192.0.2.{last}"), (WEB,), 60, Nat(None, 22)))
        before = ns.nft("list table inet doorward")
        with pytest.raises(FirewallError, match="the set is full"):
            made.open(Grant(ipaddress.ip_address("192.0.2.3"), (WEB,), 60, Nat(None, 22)))
        assert "192.0.2.3" not in ns.nft("list table inet doorward")
        assert len(made.grants()) == 2
        assert before.count("192.0.2.") == 4


def test_a_table_of_the_roles_guard_mode_is_not_rewritten_while_it_waits(ns: Namespace, tmp_path: Path) -> None:
    """While it waits for its confirmation there is no file that says whose table it is, but that of the switch."""
    text = ruleset.guard([]).replace("@guarded drop", "{ 6 . 22 } drop")
    text = text.replace("    set guarded { type inet_proto . inet_service; }\n", "")
    ns.nft(text)
    before = ns.nft("list ruleset")
    (tmp_path / "candidate.nft").write_text(ruleset.swap(text))
    (tmp_path / "pending").write_text("token")
    with firewall(ns, switch=tmp_path) as made:
        assert len(made.unserved()) == 1
        assert ns.nft("list ruleset") == before
        (tmp_path / "pending").unlink()
        assert "made the guard table" in (made.prepare() or ""), "nobody vouches for it any more"


def test_what_root_put_into_the_maps_by_hand_disturbs_nobody(ns: Namespace) -> None:
    with firewall(ns) as made:
        made.open(Grant(ipaddress.ip_address("192.0.2.7"), (WEB,), 60, Nat(None, 22)))
        for element in (
            "open4 { 192.0.2.1 . 132 . 22 timeout 60s }",
            "open4 { 192.0.2.1 . 6 . 0 timeout 60s }",
            "ghost4 { 192.0.2.1 . 6 . 22 timeout 60s : 0 }",
            "lead4 { 192.0.2.1 . 6 . 22 timeout 60s : 224.0.0.1 . 22 }",
            "lead4 { 192.0.2.1 . 6 . 23 timeout 60s : 10.0.0.5 . 0 }",
            "lead_all4 { 192.0.2.1 : 0.0.0.0 }",
            "through4 { 192.0.2.1 . 255.255.255.255 . 1 . 8 timeout 60s }",
        ):
            ns.nft(f"add element inet doorward {element}\n")
        assert [live.nat for live in made.grants()] == [Nat(None, 22)]
        assert made.withdraw(ipaddress.ip_address("192.0.2.1")) == 0
        assert "192.0.2.1 " not in ns.nft("list table inet doorward")


def test_a_file_with_nat_chains_is_examined_as_the_kernel_will_have_it(ns: Namespace, tmp_path: Path) -> None:
    confirmed(tmp_path, Needs(frozenset({Part.NAT, Part.SYSTEMS})))
    candidate = deadman.examine(tmp_path / "firewall.nft")
    ns.nft(candidate.text)
    with firewall(ns, file=tmp_path / "firewall.nft") as made:
        made.open(Grant(ipaddress.ip_address("192.0.2.7"), (WEB,), 60, Nat(None, 22)))
        made.open(Grant(ipaddress.ip_address("192.0.2.7"), (SSH,), 60, os="Linux"))
    listed = ns.run("nft", "-s", "list", "table", "inet", "doorward").stdout
    assert "192.0.2.7" in listed
    assert ruleset.normalised(listed) == candidate.normalised
    assert without_grants(listed) == candidate.normalised


def test_a_rollback_restores_the_nat_chains_without_live_grants(ns: Namespace) -> None:
    ns.nft(ruleset.guard([SSH], {Part.NAT, Part.SYSTEMS}))
    empty = ns.nft("list table inet doorward")
    source = ipaddress.ip_address("192.0.2.7")
    with firewall(ns) as made:
        for port in range(1, 9):
            made.open(Grant(source, (Service.parse(f"tcp/{port}"),), 60, Nat(None, 22)))
            made.open(
                Grant(ipaddress.ip_address(f"2001:db8::{port}"), (SSH,), 60, Nat(ipaddress.ip_address("fd00::1"), 22))
            )
        made.open(Grant(source, (SSH,), 60, os="Linux"))
        full = ns.run("nft", "-s", "list", "table", "inet", "doorward").stdout
        assert "2001:db8::8" in full
        ns.nft(ruleset.restoration(full))
        assert ns.nft("list table inet doorward") == empty


KEYS = ("--key-base64-rijndael", KEY.split()[1], "--key-base64-hmac", HMAC_KEY.split()[1])
CLIENTS = {"doorward": (sys.executable, "-m", "doorward", "knock"), "fwknop": ("fwknop", "--no-save-args")}


@pytest.mark.parametrize("family", ["ipv4"])
@pytest.mark.parametrize("client", CLIENTS)
def test_the_commands_of_the_documentation_do_what_it_says(site: Site, tmp_path: Path, client: str) -> None:
    confirmed(tmp_path)
    door = site.gateway.ipv4
    listed = f"{MANY_PORTS}NAT_TARGETS {site.target}:22, 10.78.0.9:*\n"
    environ = {**environment(), "HOME": str(tmp_path), "PYTHONWARNINGS": "default"}

    def run(*options: str) -> None:
        site.client.run(*CLIENTS[client], *options, *KEYS, "-a", site.client.ipv4, "-D", door, env=environ)

    with (
        doorwardd(site.gateway, tmp_path, listed, KNOCKING) as daemon,
        saying(site.gateway, 22, "ssh"),
        saying(site.inner, 22, "inner"),
    ):
        run("-A", "tcp/22", "--nat-local", "--nat-port", "110")
        daemon.wait_for("verdict=granted")
        assert (heard(site.client, door, 110), heard(site.outsider, door, 110)) == ("ssh", "refused")
        run("-A", "tcp/22", "-N", f"{site.target}:22", "--nat-port", "80")
        daemon.wait_for("verdict=granted", 2)
        assert (heard(site.client, door, 80), heard(site.outsider, door, 80)) == ("inner", "refused")
        run("-A", "tcp/80", "-N", f"{site.target}:80", "--nat-port", "22")
        assert "reason=target" in daemon.wait_for("verdict=denied")


@pytest.mark.parametrize("family", ["ipv4"])
@pytest.mark.parametrize(("system", "answers"), [("Windows", (False, True)), ("Linux", (True, False))])
def test_a_stanza_for_one_operating_system_lets_in_that_one_only(
    site: Site, tmp_path: Path, system: str, answers: tuple[bool, bool]
) -> None:
    door, prefix = site.gateway.ipv4, with_fingerprints(FINGERPRINTS)
    access = f"{MANY_PORTS}REQUIRE_OS {system}\n"
    with doorwardd(site.gateway, tmp_path, access, prefix=prefix) as daemon, saying(site.gateway, 22, "ssh"):
        send(site.client, payload(message(text=f"{site.client.ipv4},tcp/22", time=int(time.time()))), door)
        daemon.wait_for("verdict=granted")
        assert (heard(site.client, door, 22) == "ssh", looking_like_windows(site, 22)) == answers


@pytest.mark.parametrize(
    ("stanza", "words"),
    [
        ("REQUIRE_OS Linux\n", "REQUIRE_OS needs the fingerprints in /etc/nftables/osf/pf.os"),
        ("REQUIRE_OS Linux\nFORCE_NAT 10.0.0.5 22\n", "REQUIRE_OS and FORCE_NAT or FORWARD_ALL do not go together"),
        ("REQUIRE_OS Linux\nOPEN_PORTS udp/53\n", "access.conf:1: REQUIRE_OS: an operating system is recognised by"),
    ],
)
def test_what_cannot_be_had_with_an_operating_system_is_refused_at_start(
    ns: Namespace, tmp_path: Path, stanza: str, words: str
) -> None:
    access = f"SOURCE ANY\n{KEY}\n{HMAC_KEY}\n{stanza}"
    write(tmp_path / "access.conf", access)
    write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\nENABLE_IPT_FORWARDING Y;\n")
    files = ("-c", f"{tmp_path}/doorwardd.conf", "-a", f"{tmp_path}/access.conf", "-r", f"{tmp_path}/run")
    ended = ns.run(*command("-f", *files), env=environment(), check=False)
    assert ended.returncode != 0
    assert words in ended.stderr
    assert ns.nft("list ruleset") == ""
