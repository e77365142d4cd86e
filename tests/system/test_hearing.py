"""How knocks of doorward 1 are heard where the settings leave it open, on hosts of every kind; and that it is said."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from doorward.firewall import kernel_gate
from doorward.listener.copies import COPIES_MAX, MOMENT
from system import netns
from system.chaos.scene import ended, listener_of
from system.doorwardd import (
    ACCESS,
    command,
    doorwardd,
    environment,
    eventually,
    files,
    is_open,
    send,
    used_store,
    write,
)
from system.other_firewalls import ADMIT, OTHERS, shell
from system.test_kernel_gate import received_before_a_planted_one, tags, wire
from system.two_ends import Ends, acquainted
from thirds import a_third
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from system.doorwardd import Running
    from system.netns import Namespace

SERVER, PASSIVE = "udp 62201 (server): ", "udp 62201 (passive): "
TAGGED = 164
DROPS = "table inet other { chain input { type filter hook input priority 0; udp dport 62201 drop; }; }"


@pytest.fixture
def ends(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> Iterator[Ends]:
    with acquainted(trio, tmp_path) as made:
        used_store(made.folder)
        yield made


@contextlib.contextmanager
def heard(ends: Ends, way: str, access: str | None = None, config: str = "", *words: str) -> Iterator[Running]:
    """A daemon that hears knocks in this way; a knock opens the door, and the console says the way too."""
    with doorwardd(ends.host, ends.folder, access or ends.access, f"{ends.config}{config}", *words) as daemon:
        assert f"listening for knocks on {way}" in daemon.wait_for("listening for knocks")
        opens(ends, daemon)
        assert eventually(lambda: way in str(status(ends)["heard"]))
        assert f"knocks: {way}" in console(ends, "status")
        yield daemon


def opens(ends: Ends, daemon: Running, count: int = 1) -> None:
    ends.doorward("knock", "-n", "web1", "-A", "tcp/22")
    daemon.wait_for("reason=granted", count)
    assert is_open(ends.client, ends.host.ipv4)


def console(ends: Ends, *words: str) -> str:
    argv = [sys.executable, "-m", "doorward", *words, *files(ends.folder)]
    return ends.host.run(*argv, check=False, env=ends.variables).stdout


def status(ends: Ends) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(console(ends, "status", "--json"))
    return found


def checked(ends: Ends) -> str:
    argv = ends.host.command(*command("check", *files(ends.folder)))
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["guard", "observe"])
def test_a_host_with_nothing_in_the_way_has_a_server_behind_the_kernel_gate(ends: Ends, mode: str) -> None:
    with heard(ends, SERVER, config=f"FIREWALL_MODE {mode}\n") as daemon:
        assert "Knocks are heard on udp 62201 (server): every stanza names clients" in checked(ends)
        assert "every stanza names clients" in daemon.wait_for("listening for knocks")
        send(ends.client, os.urandom(TAGGED), ends.host.ipv4)
        assert eventually(lambda: status(ends)["packets"].get("refused_in_kernel") == 1)
        assert status(ends)["gate"]["tags"] == 3
        assert eventually(lambda: not status(ends)["grants"]), "the server's port is no opening"
        assert len(daemon.verdicts) == 1


def test_a_stanza_with_magic_packets_is_heard_passively_with_all_others(ends: Ends) -> None:
    magic = "\nSOURCE ANY\nMAGIC udp/62290\nHMAC_KEY a-password-of-20-char\nOPEN_PORTS tcp/22\nNAME camera\n"
    with doorwardd(ends.host, ends.folder, f"{ends.access}{magic}", ends.config) as daemon:
        line = daemon.wait_for("listening for knocks")
        assert "udp 62201 (passive), udp 62290 (magic packets): magic packets are heard passively" in line
        opens(ends, daemon)


@pytest.mark.parametrize("name", a_third(OTHERS))
@pytest.mark.parametrize("admit", ["", ADMIT])
def test_a_host_with_another_firewall_captures(ends: Ends, name: str, admit: str) -> None:
    other = OTHERS[name]
    shell(ends.host, other.load)
    with doorwardd(ends.host, ends.folder, ends.access, f"{ends.config}{admit}") as daemon:
        line = daemon.wait_for("listening for knocks")
        assert PASSIVE in line
        assert "can drop packets to a server" in line or "iptables-legacy" in line
        assert line.partition(PASSIVE)[2] in checked(ends)
        ends.doorward("knock", "-n", "web1", "-A", "tcp/22")
        daemon.wait_for("reason=granted")


@pytest.mark.parametrize(
    ("way", "more", "config", "why"),
    [
        (PASSIVE, ACCESS, "", "not every stanza names clients by public keys"),
        (PASSIVE, "", "PCAP_FILTER udp port 62201\n", "as the settings say"),
        (PASSIVE, "", "ENABLE_UDP_SERVER N\n", "as the settings say"),
        (PASSIVE, "", "PCAP_INTF eth0\n", "as the settings say"),
        (SERVER, ACCESS, "ENABLE_UDP_SERVER Y\n", "as the settings say"),
        (PASSIVE, "", "ENABLE_IPT_FORWARDING Y\n", "connections are forwarded"),
    ],
)
def test_what_the_files_say_decides_first(ends: Ends, way: str, more: str, config: str, why: str) -> None:
    with heard(ends, way, ends.access + more, config) as daemon:
        assert why in daemon.wait_for("listening for knocks")
        assert f"{way}{why}" in checked(ends)


def test_a_server_of_another_program_on_the_port_is_no_mistake(ends: Ends) -> None:
    with ends.host.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 62201))
        with heard(ends, PASSIVE) as daemon:
            assert "Address already in use" in daemon.wait_for("listening for knocks")


def test_a_port_that_others_forward_is_captured(ends: Ends) -> None:
    ends.host.nft(
        "table ip theirs { chain pre { type nat hook prerouting priority dstnat; udp dport 62201 redirect to :9; }; }"
    )
    with heard(ends, PASSIVE) as daemon:
        assert "may forward packets to this host port 9" in daemon.wait_for("listening for knocks")


def test_where_there_is_a_vrf_knocks_are_captured_from_then_on(ends: Ends, tmp_path: Path) -> None:
    """The kernels of some test machines have none: what it writes into /sys of one lies in a folder in its place."""
    shown = tmp_path / "net"
    (shown / "eth0").mkdir(parents=True)
    (shown / "eth0/uevent").write_text("INTERFACE=eth0\nIFINDEX=2\n")
    covered = ("unshare", "-m", "sh", "-c", f'mount --bind {shown} /sys/class/net && exec "$@"', "-")
    with doorwardd(ends.host, ends.folder, ends.access, ends.config, prefix=covered) as daemon:
        assert SERVER in daemon.wait_for("listening for knocks")
        opens(ends, daemon)
        (shown / "blue").mkdir()
        (shown / "blue/uevent").write_text("DEVTYPE=vrf\nINTERFACE=blue\nIFINDEX=9\n")
        ends.host.run("ip", "link", "add", "blue", "type", "veth", "peer", "name", "red")
        assert f"{PASSIVE}blue is a VRF" in daemon.wait_for("listening for knocks", 2)
        opens(ends, daemon, 2)


def test_a_daemon_that_opens_nothing_captures(ends: Ends) -> None:
    with doorwardd(ends.host, ends.folder, ends.access, ends.config, "--test") as daemon:
        assert "without a firewall there is no kernel gate" in daemon.wait_for(f"knocks on {PASSIVE}")
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted")


def test_a_firewall_that_turns_up_later_deafens_nobody(ends: Ends) -> None:
    """It drops the knocks' port: the daemon captures them within seconds, and its files are not read again."""
    with heard(ends, SERVER) as daemon:
        write(ends.folder / "access.conf", "this is no stanza\n")
        ends.host.nft(DROPS)
        line = daemon.wait_for("listening for knocks", 2)
        assert f"{PASSIVE}table inet other, chain input can drop packets to a server" in line
        opens(ends, daemon, 2)
        assert ends.host.run("nft", "list", "table", "inet", kernel_gate.NAME, check=False).returncode
        assert eventually(lambda: PASSIVE in str(status(ends)["heard"]))
        write(ends.folder / "access.conf", ends.access)
        ends.host.nft("delete table inet other")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        assert SERVER in daemon.wait_for("listening for knocks", 3)
        opens(ends, daemon, 3)
        assert len(daemon.verdicts) == 3


def test_a_reload_changes_the_way_with_the_stanzas_and_loses_no_grant(ends: Ends) -> None:
    with heard(ends, SERVER) as daemon:
        for count, (access, way) in enumerate(((ends.access + ACCESS, PASSIVE), (ends.access, SERVER)), 2):
            write(ends.folder / "access.conf", access)
            daemon.signal(signal.SIGHUP)
            assert way in daemon.wait_for("listening for knocks", count)
            opens(ends, daemon, count)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again", 3)
        assert sum("listening for knocks" in line for line in daemon.lines) == 3, "what stays is not said again"


def test_a_server_that_was_killed_leaves_no_port_behind_for_a_daemon_that_captures(ends: Ends) -> None:
    """The port is open for seconds without a server, and the gate that keeps it silent goes with the next start."""
    with heard(ends, SERVER) as daemon, wire(ends.client) as replies:
        live, listener = tags(ends), listener_of(daemon)
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait(10)
        assert eventually(lambda: ended(listener))
        with doorwardd(ends.host, ends.folder, ends.access, f"{ends.config}PCAP_FILTER udp port 62201\n") as next_one:
            assert PASSIVE in next_one.wait_for("listening for knocks")
            received_before_a_planted_one(replies, ends)
            for tag in live:
                send(ends.client, tag + bytes(TAGGED - 8), ends.host.ipv4)
            next_one.wait_for("reason=hmac", 2)  # an epoch may have begun
            assert received_before_a_planted_one(replies, ends) == []


@pytest.fixture
def twice(tmp_path: Path) -> Iterator[tuple[Ends, str]]:
    """Ends on a switch that learns nothing, with a second interface of the host: it hears each packet another time."""
    with contextlib.ExitStack() as stack:
        names = ("switch", "host", "client", "outsider")
        switch, *members = (stack.enter_context(netns.namespace(one, at)) for at, one in enumerate(names))
        switch.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0")
        switch.run("ip", "link", "set", "br0", "type", "bridge", "ageing_time", "0")
        switch.run("ip", "link", "set", "br0", "up")
        for member in members:
            netns.plug(member, switch)
        host = members[0]
        host.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "p1-eth1", "netns", switch.name)
        switch.run("ip", "link", "set", "p1-eth1", "master", "br0", "up")
        host.run("ip", "link", "set", "eth1", "up")
        ends = stack.enter_context(acquainted((host, members[1], members[2]), tmp_path))
        used_store(ends.folder)
        yield ends, "ENABLE_PCAP_PROMISC Y\n"


def made_by(ends: Ends, kind: str) -> bytes:
    """A good packet of a format that was not sent yet."""
    if kind == "fwknop":
        return payload(message(text=f"{ends.client.ipv4},tcp/22", time=int(time.time())), KEYS)
    saved = ends.home / "packet"
    ends.doorward("knock", "-n", "web1", "-A", "tcp/22", "-B", str(saved), "--test")
    return base64.b64decode(saved.read_bytes())


@contextlib.contextmanager
def sending(ends: Ends) -> Iterator[Callable[[bytes], object]]:
    """A function that sends packets from one port."""
    with ends.client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((ends.host.ipv4, 62201))
        yield sender.send


def duplicates(ends: Ends) -> int:
    count: int = (status(ends)["packets"] or {}).get("duplicates", 0)
    return count


@pytest.mark.parametrize("kind", ["doorward1", "fwknop"])
def test_a_packet_that_two_interfaces_hear_is_one_knock_and_no_attack(twice: tuple[Ends, str], kind: str) -> None:
    ends, config = twice
    with doorwardd(ends.host, ends.folder, ends.access + ACCESS, f"{ends.config}{config}") as daemon:
        with sending(ends) as sent:
            good = made_by(ends, kind)
            sent(good)
            daemon.wait_for("reason=granted")
            assert eventually(lambda: duplicates(ends) == 1)
            time.sleep(MOMENT)
            sent(good)
            daemon.wait_for("reason=replay", 2)  # the attacker's own packet is heard twice too
        assert duplicates(ends) == 1
        send(ends.client, made := made_by(ends, kind), ends.host.ipv4)
        daemon.wait_for("reason=granted", 2)
        send(ends.client, made, ends.host.ipv4)
        daemon.wait_for("reason=replay", 4)
        assert len([line for line in daemon.verdicts if "granted" in line]) == 2


@pytest.mark.parametrize(("kind", "way"), [("doorward1", SERVER), ("doorward1", PASSIVE), ("fwknop", PASSIVE)])
def test_a_few_copies_at_once_are_no_attack_and_many_are(ends: Ends, kind: str, way: str) -> None:
    config = "ENABLE_UDP_SERVER Y\n" if way == SERVER else ""
    with doorwardd(ends.host, ends.folder, ends.access + ACCESS, f"{ends.config}{config}") as daemon:
        assert way in daemon.wait_for("listening for knocks")
        with sending(ends) as sent:
            good = made_by(ends, kind)
            for _ in range(1 + COPIES_MAX):
                sent(good)
            daemon.wait_for("reason=granted")
            assert eventually(lambda: duplicates(ends) == COPIES_MAX)
            assert len(daemon.verdicts) == 1
            for _ in range(5):
                sent(good)
            daemon.wait_for("reason=replay", 5)
        assert eventually(lambda: status(ends)["packets"].get("replay") == 5)
        assert status(ends)["packets"]["granted"] == 1
