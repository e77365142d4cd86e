"""The iptables backend on a real kernel, with both flavours of iptables."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import ipaddress
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.client import host as console_host
from doorward.config.daemon import DaemonSettings
from doorward.errors import FirewallError
from doorward.firewall import backends, xtables
from doorward.firewall.ipset import Entry, IpSets, Kind
from doorward.firewall.iptables import Iptables
from doorward.values import FirewallMode, Grant, LiveGrant, Nat, Protocol, Service
from doorward.wire.fwknop import MessageType
from system.doorwardd import ACCESS, command, doorwardd, environment, eventually, is_open, listener, send
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]
    Trio = tuple[Namespace, Namespace, Namespace]

SSH = Service(Protocol.TCP, 22)
WEB = Service(Protocol.TCP, 80)
ALICE = ipaddress.ip_address("10.77.0.2")
LOCK = Path("/run/xtables.lock")


def knock(text: str = "0.0.0.0,tcp/22", **changes: object) -> bytes:
    return payload(message(text=text, time=int(time.time()), **changes), KEYS)


@pytest.fixture(params=["nft", "legacy"])
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config(flavour: str, *further: str) -> str:
    return "\n".join(["FIREWALL_BACKEND iptables", f"FIREWALL_EXE /usr/sbin/iptables-{flavour}", *further, ""])


@contextlib.contextmanager
def daemon(host: Namespace, folder: Path, flavour: str, access: str = ACCESS, *further: str) -> Iterator[Running]:
    with doorwardd(host, folder, access, config(flavour, *further)) as running:
        yield running


@contextlib.contextmanager
def backend(host: Namespace, flavour: str, *nats: Nat, mode: FirewallMode = FirewallMode.GUARD) -> Iterator[Iptables]:
    with host.inside():
        made = Iptables(mode, lambda: [SSH], xtables.find(Path(f"/usr/sbin/iptables-{flavour}")), nats=nats)
        with contextlib.closing(made):
            yield made


def rules(host: Namespace, flavour: str, family: str = "ip") -> list[str]:
    saved = host.run(f"{family}tables-{flavour}-save").stdout.splitlines()
    return [line for line in saved if line.startswith("-A")]


def came_from(accepting: socket.socket) -> str:
    """Return the address of the first connection that waits; none that waits is an error."""
    accepting.settimeout(0)
    accepted, peer = accepting.accept()
    accepted.close()
    return str(peer[0]).removeprefix("::ffff:")


def members(host: Namespace, name: str) -> list[str]:
    listed = host.run("ipset", "list", name).stdout.partition("Members:\n")[2]
    return listed.splitlines()


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_knock_opens_the_door_for_its_source_alone_and_the_kernel_closes_it(
    trio: Trio, tmp_path: Path, flavour: str, family: str
) -> None:
    host, client, outsider = trio
    address = getattr(host, family)
    with listener(host):
        assert is_open(client, address), "open before the daemon runs"
        with daemon(host, tmp_path, flavour, ACCESS + "FW_ACCESS_TIMEOUT 2\n") as running:
            assert not is_open(client, address, within=0.5)
            before = rules(host, flavour), rules(host, flavour, "ip6")
            send(client, knock(), address)
            running.wait_for("reason=granted")
            assert is_open(client, address)
            assert not is_open(outsider, address, within=0.5)
            assert (rules(host, flavour), rules(host, flavour, "ip6")) == before, "a knock touches no rule"
            assert eventually(lambda: not members(host, f"doorward{family[-1]}"))
            assert not is_open(client, address, within=0.5)


def test_a_killed_daemon_leaves_the_closing_to_the_kernel(pair: Pair, tmp_path: Path, flavour: str) -> None:
    host, client = pair
    with listener(host), daemon(host, tmp_path, flavour, ACCESS + "FW_ACCESS_TIMEOUT 3\n") as running:
        send(client, knock(), host.ipv4)
        running.wait_for("reason=granted")
        running.signal(signal.SIGKILL)
        running.process.wait(10)
        assert is_open(client, host.ipv4)
        assert eventually(lambda: not members(host, "doorward4"))
        assert not is_open(client, host.ipv4, within=0.5)


def test_a_second_knock_renews(pair: Pair, flavour: str) -> None:
    host, _ = pair
    with backend(host, flavour) as firewall:
        firewall.prepare()
        firewall.open(Grant(ALICE, (SSH,), 100))
        firewall.open(Grant(ALICE, (SSH,), 1000))
        assert [round(live.remaining, -2) for live in firewall.grants()] == [1000]
        firewall.open(Grant(ALICE, (SSH,), 10))
        assert [live.remaining <= 10 for live in firewall.grants()] == [True]


@pytest.mark.parametrize(
    "harm",
    [
        ("-F",),
        ("-D", "INPUT", "1"),
        ("-D", "DOORWARD_INPUT", "1"),
        ("-I", "INPUT", "-j", "DROP"),
    ],
)
def test_what_others_take_away_comes_back_with_the_live_grants(
    trio: Trio, tmp_path: Path, flavour: str, harm: tuple[str, ...]
) -> None:
    host, client, outsider = trio
    with listener(host), daemon(host, tmp_path, flavour) as running:
        send(client, knock(), host.ipv4)
        running.wait_for("reason=granted")
        host.run(f"iptables-{flavour}", *harm)
        running.wait_for("OUR TABLE WAS REMOVED")
        assert is_open(client, host.ipv4)
        assert not is_open(outsider, host.ipv4, within=0.5)
        time.sleep(1.2)
        assert len([line for line in running.lines if "REMOVED" in line]) == 1, "it is content with what it made"


def test_even_sets_that_were_destroyed_come_back_with_the_live_grants(pair: Pair, tmp_path: Path, flavour: str) -> None:
    host, client = pair
    with listener(host), daemon(host, tmp_path, flavour) as running:
        send(client, knock(), host.ipv4)
        running.wait_for("reason=granted")
        host.run("sh", "-c", f"iptables-{flavour} -F && ip6tables-{flavour} -F && ipset destroy doorward4")
        running.wait_for("with 1 live grants")
        assert [one.split()[0] for one in members(host, "doorward4")] == [f"{client.ipv4},tcp:22"]


def test_preparing_twice_changes_nothing_and_keeps_the_grants(ns: Namespace, flavour: str) -> None:
    ns.run(f"iptables-{flavour}", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
    with backend(ns, flavour) as firewall:
        assert firewall.prepare() is not None
        firewall.open(Grant(ALICE, (SSH,), 100))
        before = rules(ns, flavour)
        assert firewall.prepare() is None
        assert rules(ns, flavour) == before
        assert "-A INPUT -s 192.0.2.1/32 -j DROP" in before
    with backend(ns, flavour) as another:
        assert another.prepare() is None, "what another process left is taken as it is"
        assert [str(live.source) for live in another.grants()] == [str(ALICE)]


def test_a_change_of_what_is_guarded_changes_the_rules_and_no_grant(ns: Namespace, flavour: str) -> None:
    guarded = [SSH]
    with ns.inside():
        tools = xtables.find(Path(f"/usr/sbin/iptables-{flavour}"))
        with contextlib.closing(Iptables(FirewallMode.GUARD, lambda: guarded, tools)) as firewall:
            firewall.prepare()
            firewall.open(Grant(ALICE, (SSH,), 100))
            guarded.append(WEB)
            assert "had other rules" in (firewall.prepare() or "")
            assert len(firewall.grants()) == 1
            dropped = [line for line in rules(ns, flavour) if line.endswith("DROP")]
            assert [line.split("--dport ")[1] for line in dropped] == ["22 -j DROP", "80 -j DROP"]


def test_observing_closes_nothing_and_records(pair: Pair, flavour: str) -> None:
    host, client = pair
    with listener(host), backend(host, flavour, mode=FirewallMode.OBSERVE) as firewall:
        firewall.prepare()
        assert is_open(client, host.ipv4)
        host.run(f"iptables-{flavour}", "-P", "INPUT", "DROP")
        assert not is_open(client, host.ipv4, within=0.5)
        firewall.open(Grant(ipaddress.ip_address(client.ipv4), (SSH,), 100))
        assert is_open(client, host.ipv4)
        assert any("established connections" in line for line in firewall.foreign_drops())
        host.run(f"iptables-{flavour}", "-A", "INPUT", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT")
        assert not [line for line in firewall.foreign_drops() if "ip6" not in line]


def test_drops_that_we_cannot_overrule_are_named(ns: Namespace, flavour: str) -> None:
    other = {"nft": "legacy", "legacy": "nft"}[flavour]
    with backend(ns, flavour) as firewall:
        firewall.prepare()
        assert firewall.foreign_drops() == ()
        ns.run(f"iptables-{flavour}", "-t", "raw", "-A", "PREROUTING", "-j", "DROP")
        ns.run(f"iptables-{other}", "-P", "INPUT", "DROP")
        named = "\n".join(firewall.foreign_drops())
        assert "table raw, chain PREROUTING" in named
        assert "table filter, chain INPUT" in named


def test_a_grant_with_a_destination_opens_that_address_alone(pair: Pair, flavour: str) -> None:
    host, client = pair
    host.run("ip", "addr", "add", "10.77.0.100/24", "dev", "eth0")
    with listener(host), backend(host, flavour) as firewall:
        firewall.prepare()
        source, here = ipaddress.ip_address(client.ipv4), ipaddress.ip_address("10.77.0.100")
        firewall.open(Grant(source, (SSH,), 100, destination=here))
        assert is_open(client, "10.77.0.100")
        assert not is_open(client, host.ipv4, within=0.5)
        assert [live.destination for live in firewall.grants()] == [here]


def test_a_full_set_refuses_in_plain_words_and_evicts_nobody(ns: Namespace, flavour: str) -> None:
    with backend(ns, flavour) as firewall, contextlib.closing(IpSets()) as sets:
        firewall.prepare()
        first = Grant(ALICE, (SSH,), 1000)
        firewall.open(first)
        one_too_many = _fill(sets)
        with pytest.raises(FirewallError, match="the set is full"):
            firewall.open(Grant(one_too_many, (SSH,), 100))
        firewall.open(first)
        assert firewall.withdraw(ALICE) == 1


def _fill(sets: IpSets) -> ipaddress.IPv4Address:
    """Fill the set and return the address that had no place in it; the kernel counts in several parts."""
    for number in range(70_000):
        address = ipaddress.IPv4Address((11 << 24) + number)
        try:
            sets.add("doorward4", Entry(address, SSH), 1000)
        except FirewallError:
            return address
    message = "the set took more than it holds"
    raise AssertionError(message)


def test_a_grant_that_fails_halfway_opens_nothing(ns: Namespace, flavour: str) -> None:
    with backend(ns, flavour) as firewall:
        firewall.prepare()
        with pytest.raises(FirewallError, match="as long as an ipset keeps"):
            firewall.open(Grant(ALICE, (SSH,), 8_000_000))
        with pytest.raises(FirewallError, match="scope"):
            firewall.open(Grant(ipaddress.ip_address("fe80::1%eth0"), (SSH,), 100))
        assert firewall.grants() == ()


def test_a_set_of_another_kind_under_our_name_is_an_error(ns: Namespace, flavour: str) -> None:
    ns.run("ipset", "create", "doorward4", "hash:ip")
    with backend(ns, flavour) as firewall, pytest.raises(FirewallError, match="of another kind"):
        firewall.prepare()


def test_a_lock_that_is_held_is_a_clear_error_and_the_rules_follow_when_it_is_free(ns: Namespace) -> None:
    with backend(ns, "legacy") as firewall, LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FirewallError, match="lock"):
            firewall.prepare()
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert firewall.prepare() is not None


def test_grants_come_back_although_an_error_came_between(ns: Namespace, tmp_path: Path, flavour: str) -> None:
    with ns.inside():
        four, six = xtables.find(Path(f"/usr/sbin/iptables-{flavour}"))
        failing = tmp_path / "ip6tables-save"
        failing.write_text(f'#!/bin/sh\n[ -e {tmp_path}/works ] || exit 1\nexec {six.save} "$@"\n')
        failing.chmod(0o755)
        tools = (four, xtables.Tools(6, failing, six.restore))
        with contextlib.closing(Iptables(FirewallMode.GUARD, lambda: [SSH], tools)) as firewall:
            with pytest.raises(FirewallError, match="exit 1"):
                firewall.prepare()
            assert firewall.whole is None
            (tmp_path / "works").touch()
            assert "DOORWARD_INPUT was not there" in (firewall.prepare() or "")
            ns.run(f"iptables-{flavour}", "-F")
            (tmp_path / "works").unlink()
            with pytest.raises(FirewallError, match="exit 1"):
                firewall.prepare()
            (tmp_path / "works").touch()
            assert "had other rules" in (firewall.prepare() or ""), "so that the helper opens the grants again"
            assert firewall.prepare() is None


def test_a_missing_program_is_an_error_that_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(FirewallError, match="needs the package iptables"):
        xtables.find(folders=[tmp_path])
    with pytest.raises(FirewallError, match="by a name that begins with it"):
        xtables.find(Path("/usr/bin/firewall-cmd"))


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("sleep 60", "took longer"),
        ("exec >&-; exec 2>&-; sleep 60", "took longer"),
        ("yes", "printed more"),
        ("echo broken >&2; exit 3", "broken"),
    ],
)
def test_a_program_that_hangs_babbles_or_fails_is_ended_with_an_error(
    tmp_path: Path, script: str, complaint: str
) -> None:
    program = tmp_path / "iptables-save"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(FirewallError, match=complaint):
        xtables.run([str(program)], deadline=0.5 if "sleep" in script else 20)


def test_closed_by_nftables_is_refused_at_start(ns: Namespace, tmp_path: Path, flavour: str) -> None:
    tools = xtables.find(Path(f"/usr/sbin/iptables-{flavour}"))
    with ns.inside():
        ns.nft("table inet doorward { chain input { type filter hook input priority 0; policy drop; }; }")
        with contextlib.closing(Iptables(FirewallMode.GUARD, tuple, tools)) as firewall:
            with pytest.raises(FirewallError, match="nft delete table inet doorward"):
                firewall.prepare()
            ns.nft("delete table inet doorward")
            assert firewall.prepare() is not None
        (tmp_path / "firewall.nft").touch()
        with (
            contextlib.closing(
                Iptables(FirewallMode.GUARD, tuple, tools, closed_by=tmp_path / "firewall.nft")
            ) as firewall,
            pytest.raises(FirewallError, match="closes this host by nftables"),
        ):
            firewall.prepare()


def console(host: Namespace, folder: Path, *arguments: str) -> None:
    parser = argparse.ArgumentParser()
    console_host.add_commands(parser.add_subparsers(), console_host.Host(folder / "doorwardd.conf", folder / "switch"))
    options = parser.parse_args(arguments)
    with host.inside():
        options.run(options)


def test_the_console_opens_lists_and_closes(
    trio: Trio, tmp_path: Path, flavour: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host, client, outsider = trio
    # the console finds the PID file by the settings' file alone
    further = f"FWKNOP_RUN_DIR {tmp_path}/run"
    with listener(host), daemon(host, tmp_path, flavour, ACCESS, further):
        console(host, tmp_path, "open", "tcp/22", "--from", client.ipv4, "--for", "1h")
        assert is_open(client, host.ipv4)
        assert not is_open(outsider, host.ipv4, within=0.5)
        console(host, tmp_path, "open", "tcp/22", "--for", "1h")
        assert is_open(outsider, host.ipv4)
        assert is_open(outsider, host.ipv6)
        capsys.readouterr()
        console(host, tmp_path, "status", "--json")
        found = json.loads(capsys.readouterr().out)
        assert (found["backend"], found["table"], found["running"]) == ("iptables", "guard", True)
        assert [grant["source"] for grant in found["grants"]] == ["any", client.ipv4]
        listed = subprocess.run(
            host.command(*command("--fw-list", "-c", str(tmp_path / "doorwardd.conf"))),
            check=True, capture_output=True, text=True, env=environment(),
        ).stdout  # fmt: skip
        assert f"{client.ipv4} tcp/22" in listed
        console(host, tmp_path, "close", "--from", client.ipv4)
        assert is_open(client, host.ipv4), "still open for everybody"
        console(host, tmp_path, "close")
        assert not is_open(client, host.ipv4, within=0.5)
        with pytest.raises(FirewallError, match="end it first"):
            console(host, tmp_path, "firewall", "stop")
        with pytest.raises(FirewallError, match="works on nftables alone"):
            console(host, tmp_path, "firewall", "show")
    console(host, tmp_path, "firewall", "stop")
    assert not rules(host, flavour)
    assert "doorward" not in host.run("ipset", "list", "-n").stdout


def test_a_ghost_service_is_reached_through_another_port_by_its_source_alone(
    trio: Trio, tmp_path: Path, flavour: str
) -> None:
    host, client, outsider = trio
    access = ACCESS.replace("tcp/22, udp/7777", "tcp/22, tcp/110")
    further = ("ENABLE_IPT_LOCAL_NAT Y", "FIREWALL_MODE observe")
    with listener(host, 22) as ssh, listener(host, 110) as pop:  # noqa: SIM117  two things
        with daemon(host, tmp_path, flavour, access, *further) as running:
            for address in (host.ipv4, host.ipv6):
                content = knock("0.0.0.0,tcp/110", type=MessageType.LOCAL_NAT, nat_access="127.0.0.1,22")
                send(client, content, address)
            running.wait_for("reason=granted", count=2)
            for family in ("ipv4", "ipv6"):
                assert is_open(client, getattr(host, family), 110)
                assert came_from(ssh) == getattr(client, family)
                assert is_open(outsider, getattr(host, family), 110)
                assert came_from(pop) == getattr(outsider, family)


def test_a_gateway_leads_to_the_inner_host_that_the_stanza_forces(trio: Trio, tmp_path: Path, flavour: str) -> None:
    host, client, inner = trio
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    access = ACCESS.replace("tcp/22, udp/7777", "tcp/2222") + f"FORCE_NAT {inner.ipv4} 22\nFORCE_MASQUERADE Y\n"
    further = "ENABLE_IPT_FORWARDING Y"
    with listener(inner, 22) as ssh, daemon(host, tmp_path, flavour, access, further) as running:
        host.run(f"iptables-{flavour}", "-P", "FORWARD", "DROP")
        host.run(f"iptables-{flavour}", "-A", "FORWARD", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT")
        with pytest.raises(ConnectionRefusedError):
            is_open(client, host.ipv4, 2222)
        send(client, knock("0.0.0.0,tcp/2222"), host.ipv4)
        running.wait_for("reason=granted")
        assert is_open(client, host.ipv4, 2222)
        assert came_from(ssh) == host.ipv4, "under this host's address"
        host.run(f"iptables-{flavour}", "-t", "nat", "-F")
        running.wait_for("OUR TABLE WAS REMOVED")
        assert is_open(client, host.ipv4, 2222)


NATS = (
    Nat(None, 22),
    Nat(ipaddress.ip_address("10.77.0.3"), 22),
    Nat(ipaddress.ip_address("10.77.0.3"), 25, rewrite=False),
    Nat(ipaddress.ip_address("10.77.0.4"), None, everything=True, masquerade=True),
    Nat(ipaddress.ip_address("10.77.0.5"), port=None, everything=True, rewrite=False),
    Nat(ipaddress.ip_address("10.77.0.6"), 22, snat=ipaddress.ip_address("10.77.0.1")),
    Nat(ipaddress.ip_address("fd77::3"), 22, masquerade=True),
)


def test_every_way_has_rules_that_stand_and_its_grants_are_listed_as_they_were_opened(
    ns: Namespace, flavour: str
) -> None:
    with backend(ns, flavour, *NATS) as firewall:
        firewall.prepare()
        assert firewall.prepare() is None
        for nat in NATS:
            number = 2 if nat.target is None or nat.target.version == 4 else 0
            source = ALICE if number else ipaddress.ip_address("fd77::2")
            firewall.flush()
            firewall.open(Grant(source, (WEB,), 100, nat))
            assert [(live.source, live.service, live.nat) for live in firewall.grants()] == [
                (source, None if nat.everything else WEB, nat)
            ]
        with pytest.raises(FirewallError, match="needs to know every target"):
            firewall.open(Grant(ALICE, (WEB,), 100, Nat(ipaddress.ip_address("10.9.9.9"), 22)))
    with backend(ns, flavour) as without:
        assert without.prepare() is not None
        assert not [line for line in rules(ns, flavour) if "FORWARD" in line or "ROUTING" in line]
        assert without.prepare() is None
        assert "_to_" not in ns.run("ipset", "list", "-n").stdout


def test_the_last_knock_says_where_a_service_leads(ns: Namespace, flavour: str) -> None:
    with backend(ns, flavour, *NATS) as firewall:
        firewall.prepare()
        for nat in (NATS[0], NATS[1], NATS[0]):
            firewall.open(Grant(ALICE, (WEB,), 100, nat))
            assert [live.nat for live in firewall.grants()] == [nat]
        live = [LiveGrant(ALICE, WEB, 50.0, NATS[1])]
        firewall.flush()
        firewall.reopen(live)
        assert [one.nat for one in firewall.grants()] == [NATS[1]]


def test_the_sets_are_those_that_ipset_shows(ns: Namespace) -> None:
    with ns.inside(), contextlib.closing(IpSets()) as sets:
        for kind in Kind:
            sets.create(kind.name.lower(), kind, 6)
        source, other = ipaddress.ip_address("fd77::2"), ipaddress.ip_address("fd77::1")
        wanted = {
            "source_service": Entry(source, SSH),
            "source_service_address": Entry(source, SSH, other),
            "network_service": Entry(ipaddress.ip_address("fd77::"), SSH, prefix=64),
            "source": Entry(source),
        }
        for name, entry in wanted.items():
            sets.add(name, entry, 100)
            assert sets.entries(name)[0].address == entry.address
        assert members(ns, "source_service")[0].split()[0] == "fd77::2,tcp:22"
        assert members(ns, "source_service_address")[0].split()[0] == "fd77::2,tcp:22,fd77::1"
        assert members(ns, "network_service")[0].split()[0] == "fd77::/64,tcp:22"
        assert members(ns, "source")[0].split()[0] == "fd77::2"


def test_a_reload_to_another_packet_filter_is_refused_and_the_old_one_stays(
    pair: Pair, tmp_path: Path, flavour: str
) -> None:
    host, client = pair
    with listener(host), daemon(host, tmp_path, flavour) as running:
        kept = (tmp_path / "doorwardd.conf").read_text()
        (tmp_path / "doorwardd.conf").write_text(kept.replace("iptables\n", "nftables\n"))
        running.signal(signal.SIGHUP)
        running.wait_for("FIREWALL_BACKEND is another one now")
        send(client, knock(), host.ipv4)
        running.wait_for("reason=granted")
        assert is_open(client, host.ipv4)


def test_rules_that_iptables_left_are_refused_at_a_start_with_nftables(ns: Namespace, flavour: str) -> None:
    with backend(ns, flavour) as firewall:
        settings = DaemonSettings()
        backends.of(settings, tuple).close()
        firewall.prepare()
        with pytest.raises(FirewallError, match="still has doorward's rules"):
            backends.of(settings, tuple)
        firewall.remove()
        backends.of(settings, tuple).close()


def test_what_iptables_cannot_serve_is_refused_at_start_with_its_line(ns: Namespace, tmp_path: Path) -> None:
    (tmp_path / "access.conf").write_text(f"{ACCESS}REQUIRE_OS Linux\n")
    (tmp_path / "access.conf").chmod(0o600)
    (tmp_path / "doorwardd.conf").write_text(config("nft"))
    files = ("-c", str(tmp_path / "doorwardd.conf"), "-a", str(tmp_path / "access.conf"), "-r", str(tmp_path / "run"))
    started = subprocess.run(
        ns.command(*command("-f", *files)), check=False, capture_output=True, text=True, env=environment(), timeout=60
    )
    assert started.returncode == 1
    assert f"{tmp_path}/access.conf:1: FIREWALL_BACKEND iptables cannot serve REQUIRE_OS" in started.stderr
    assert not rules(ns, "nft")
