"""The kernel gate in front of a UDP server: what it lets pass, whose tags it has, and what leaves the host."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doorward.firewall import kernel_gate
from lab import provoke
from system.chaos.scene import listener_of
from system.chaos.test_clock import faked, jump
from system.doorwardd import ACCESS, doorwardd, eventually, is_open, send, used_store, write
from system.two_ends import Ends, acquainted
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

SERVER = "ENABLE_UDP_SERVER Y\n"
TAGGED = 164
PLANTED = b"a reply that is to be seen"
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23  # asm-generic/socket.h, linux/if_packet.h
IPV4, IPV6 = 0x0800, 0x86DD
UNREACHABLE = [(1, 3), (58, 1)]  # protocol and type: ICMP and ICMPv6
NEIGHBOURS = {133, 134, 135, 136}  # discovery; what multicast listeners report begins with an extension header of 0
OPEN = ("inet", "doorward", "open_any")
HARMED = {  # and how many loud lines there are by then
    f"delete table inet {kernel_gate.NAME}": 1,
    f"flush chain inet {kernel_gate.NAME} knock": 2,
    f"insert rule inet {kernel_gate.NAME} knock accept": 3,
    f"flush set inet {kernel_gate.NAME} {kernel_gate.TAG_SET}": 3,
    "flush ruleset": 4,
}


def set_forward(ends: Ends, seconds: int) -> None:
    """Set the clock of both ends: from the tenth second of an epoch so many forward."""
    jump(Path(ends.extra["FAKETIME_TIMESTAMP_FILE"]), f"+{int(ends.extra['FAKED_FROM']) + seconds}s")


@pytest.fixture
def ends(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path, open_path: Path) -> Iterator[Ends]:
    """Both ends, for which an epoch has just begun: it lasts for the test."""
    early = int(10 - time.time()) % 64
    with acquainted(trio, tmp_path) as made:
        used_store(made.folder)
        clocked = replace(made, extra={**faked(open_path / "clock"), "FAKED_FROM": str(early)})
        set_forward(clocked, 0)
        yield clocked


def serving(ends: Ends, access: str | None = None, config: str = "") -> contextlib.AbstractContextManager[Running]:
    """A daemon with a UDP server."""
    prefix = ("env", *(f"{name}={value}" for name, value in ends.extra.items()))
    config = f"{ends.config}{SERVER}ACCESS_FILE {ends.folder}/access.conf\n{config}"
    return doorwardd(ends.host, ends.folder, ends.access if access is None else access, config, prefix=prefix)


def status(ends: Ends) -> dict[str, Any]:
    argv = [sys.executable, "-m", "doorward", "status", "--json", "-c", f"{ends.folder}/doorwardd.conf"]
    done = ends.host.run(*argv, "-r", f"{ends.folder}/run", check=False, env=ends.variables)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(ends: Ends) -> int:
    """How many packets the gate refused, by the kernel's own counter."""
    listed = ends.host.run("nft", "list", "table", "inet", kernel_gate.NAME).stdout
    (count,) = re.findall(r"counter packets (\d+)", listed)
    return int(count)


def tags(ends: Ends) -> set[bytes]:
    """The tags that pass."""
    listed = ends.host.run("nft", "-j", "list", "set", "inet", kernel_gate.NAME, kernel_gate.TAG_SET).stdout
    (found,) = (one["set"] for one in json.loads(listed)["nftables"] if "set" in one)
    return {(int(one["elem"]["val"]) % (1 << 64)).to_bytes(8, "big") for one in found.get("elem", ())}


def reload(ends: Ends, daemon: Running, access: str, count: int = 1) -> None:
    write(ends.folder / "access.conf", access)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("the configuration was read again", count)


def fwknop_knock() -> bytes:
    return payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_only_a_packet_with_a_live_tag_wakes_the_listener(ends: Ends, family: str) -> None:
    address = getattr(ends.host, family)
    with serving(ends) as daemon:
        wrong = [os.urandom(length) for length in (0, 7, 8, 163, TAGGED, 165, 1400)]
        wrong += [tag + bytes(length) for tag in tags(ends) for length in (0, 155, 157)]  # right, of other lengths
        wrong.append(fwknop_knock())
        for packet in wrong:
            send(ends.client, packet, address)
        assert eventually(lambda: refused(ends) == len(wrong))
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted")
        assert is_open(ends.client, ends.host.ipv4)
        live = tags(ends)
        assert len(live) == 3
        for tag in live:
            send(ends.client, tag + bytes(TAGGED - 8), address)
        daemon.wait_for("reason=hmac", 3)
        assert len(daemon.verdicts) == 4, daemon.verdicts
        assert eventually(lambda: status(ends)["packets"].get("refused_in_kernel") == len(wrong))
        assert status(ends)["gate"] == {"tags": 3, "refused": len(wrong)}
        reload(ends, daemon, ends.access + ACCESS)
        send(ends.client, bytes(TAGGED), address)
        send(ends.client, fwknop_knock(), address)
        daemon.wait_for("reason=granted", 2)  # of the kind that was refused before
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 3)
        assert tags(ends) == live
        assert len(daemon.verdicts) == 6, daemon.verdicts
        assert "IS GONE" not in "\n".join(daemon.lines)
        assert "WAS REMOVED OR CHANGED" not in "\n".join(daemon.lines)
    daemon.wait_for(f", refused_in_kernel {len(wrong) + 1}")


def second_client(ends: Ends) -> Ends:
    """A client of the same host in another place, with a pair of its own."""
    home = ends.home.with_name("second")
    home.mkdir()
    write(home / ".fwknoprc", (ends.home / ".fwknoprc").read_text())
    other = replace(ends, client=ends.outsider, outsider=ends.client, home=home)
    line = other.doorward("keys", "generate", "--public", "--comment", "bob@phone").stdout.strip()
    return replace(other, client_line=line)


def test_a_removed_clients_tag_and_grant_are_gone_at_once_and_anothers_stay(ends: Ends) -> None:
    bob = second_client(ends)
    both = f"SOURCE ANY\nCLIENT {ends.client_line}\nCLIENT {bob.client_line}\nOPEN_PORTS tcp/22\nFW_ACCESS_TIMEOUT 60\n"
    left = both.replace(f"CLIENT {ends.client_line}\n", "")
    saved = ends.home / "packet"
    with serving(ends, both) as daemon:
        ends.doorward("knock", "-n", "web1")
        bob.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 2)
        assert is_open(ends.client, ends.host.ipv4)
        assert is_open(bob.client, ends.host.ipv4)
        before, earlier = tags(ends), refused(ends)
        assert len(before) == 6
        ends.doorward("knock", "-n", "web1", "-B", str(saved), "--test")
        reload(ends, daemon, left)
        assert not is_open(ends.client, ends.host.ipv4, within=0.5)
        assert is_open(bob.client, ends.host.ipv4)
        assert len(tags(ends)) == 3
        assert tags(ends) < before
        daemon.wait_for("closed 1 grants of removed clients: alice@laptop")
        fresh = base64.b64decode(saved.read_bytes())
        assert fresh[:8] in before - tags(ends)
        send(ends.client, fresh, ends.host.ipv4)
        assert eventually(lambda: refused(ends) == earlier + 1)
        bob.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 3)
        assert len(daemon.verdicts) == 3
        reload(ends, daemon, both, 2)
        send(ends.client, fresh, ends.host.ipv4)
        daemon.wait_for("name=alice@laptop", 2)


def test_a_grant_that_two_clients_share_stays_for_the_one_that_is_left(ends: Ends) -> None:
    bob = replace(second_client(ends), client=ends.client)
    both = f"SOURCE ANY\nCLIENT {ends.client_line}\nCLIENT {bob.client_line}\nOPEN_PORTS tcp/22\nFW_ACCESS_TIMEOUT 60\n"
    with serving(ends, both) as daemon:
        bob.doorward("knock", "-n", "web1")
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 2)
        reload(ends, daemon, both.replace(f"CLIENT {ends.client_line}\n", ""))
        daemon.wait_for("closed 1 grants of removed clients: alice@laptop")
        assert is_open(ends.client, ends.host.ipv4)
        assert [one["name"] for one in status(ends)["grants"] if one["source"] == ends.client.ipv4] == ["bob@phone"]
        reload(ends, daemon, ACCESS, 2)
        daemon.wait_for("closed 1 grants of removed clients: bob@phone")
        assert not is_open(ends.client, ends.host.ipv4, within=0.5)
        assert ends.host.run("nft", "list", "table", "inet", kernel_gate.NAME, check=False).returncode
        assert status(ends)["gate"] is None


def test_tags_follow_the_epoch_and_a_clock_that_jumps_and_jumps_back(ends: Ends) -> None:
    saved = ends.home / "packet"
    with serving(ends) as daemon:
        first = tags(ends)
        assert len(first) == 3
        ends.doorward("knock", "-n", "web1", "-B", str(saved))
        daemon.wait_for("reason=granted")
        old = base64.b64decode(saved.read_bytes())
        set_forward(ends, 64)
        assert eventually(lambda: len(tags(ends) - first) == 1)
        assert len(tags(ends)) == 3
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 2)
        send(ends.client, old, ends.host.ipv4)
        daemon.wait_for("reason=replay")  # its tag is of the last epoch
        set_forward(ends, 128)
        assert eventually(lambda: len(tags(ends) - first) == 2)
        before = refused(ends)
        send(ends.client, old, ends.host.ipv4)
        assert eventually(lambda: refused(ends) == before + 1)
        set_forward(ends, 3600)
        assert eventually(lambda: len(tags(ends) - first) == 3)
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 3)
        set_forward(ends, 128)
        assert eventually(lambda: len(tags(ends) - first) == 2)
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 4)
        assert len(daemon.verdicts) == 5


def test_a_host_whose_listener_was_killed_is_silent_for_a_good_tag(ends: Ends) -> None:
    observing = "FIREWALL_MODE observe\n"  # nothing but the gate is there to be silent
    with serving(ends, config=observing) as daemon, wire(ends.client) as heard:
        live = tags(ends)
        os.kill(listener_of(daemon), signal.SIGKILL)
        daemon.process.wait(10)
        knocks = [tag + bytes(TAGGED - 8) for tag in live]
        for address in (ends.host.ipv4, ends.host.ipv6):
            for knock in knocks:
                send(ends.client, knock, address)
        assert tags(ends) == live, "they outlive the daemon"
        assert received_before_a_planted_one(heard, ends) == []
        ends.host.nft(f"flush chain inet {kernel_gate.NAME} silence")
        for address in (ends.host.ipv4, ends.host.ipv6):
            send(ends.client, knocks[0], address)
        answers = received_before_a_planted_one(heard, ends)
        assert [kind for kind in answers if kind in UNREACHABLE] == UNREACHABLE, "without the chain it answers"


@contextlib.contextmanager
def wire(client: Namespace) -> Iterator[socket.socket]:
    """A socket that hears every IP packet that arrives at a client."""
    with client.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(provoke.ETH_P_ALL)) as made:
        made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        made.bind(("eth0", provoke.ETH_P_ALL))
        made.settimeout(20)
        yield made


def received_before_a_planted_one(heard: socket.socket, ends: Ends) -> list[tuple[int, int]]:
    """Protocol and type of ICMP of what the client gets from the host before a packet that the host is made to send."""
    send(ends.host, PLANTED, ends.client.ipv4, 9)
    found: list[tuple[int, int]] = []
    while True:
        packet, place = heard.recvfrom(2048)
        if packet.endswith(PLANTED):
            return found
        if place[1] == IPV4:
            found.append((packet[9], packet[20]))
        elif place[1] == IPV6 and packet[6] and packet[40] not in NEIGHBOURS:
            found.append((packet[6], packet[40]))


def has_told(daemon: Running, times: int) -> bool:
    return times == sum("THE KERNEL GATE WAS REMOVED OR CHANGED" in line for line in daemon.lines)


def test_a_gate_that_others_changed_is_as_before_within_a_second(ends: Ends) -> None:
    with serving(ends) as daemon:
        live, intact = tags(ends), rules(ends)
        for harm, loud in HARMED.items():
            ends.host.nft(harm)
            assert eventually(lambda: rules(ends) == intact), harm
            assert eventually(lambda: tags_if_any(ends) == live), harm
            before = refused(ends)
            send(ends.client, os.urandom(TAGGED), ends.host.ipv4)
            assert eventually(partial(has_refused, ends, before + 1)), harm
            assert eventually(partial(has_told, daemon, loud)), harm
        assert eventually(lambda: "17 . 62201" in ends.host.run("nft", "-n", "list", "set", *OPEN).stdout)
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted")
        assert len(daemon.verdicts) == 1
    assert tags(ends) == live
    console = [sys.executable, "-m", "doorward", "firewall", "stop", "-c", f"{ends.folder}/doorwardd.conf"]
    ends.host.run(*console, "-r", f"{ends.folder}/run", env=ends.variables)
    assert ends.host.run("nft", "list", "table", "inet", kernel_gate.NAME, check=False).returncode


def test_a_gate_that_an_earlier_daemon_left_behind_is_replaced(ends: Ends) -> None:
    with serving(ends):
        send(ends.client, os.urandom(TAGGED), ends.host.ipv4)
        assert eventually(partial(has_refused, ends, 1))
    handle = table_handle(ends)
    send(ends.client, os.urandom(TAGGED), ends.host.ipv4)
    assert eventually(partial(has_refused, ends, 2)), "it guards the port while nobody reads it"
    with serving(ends) as daemon:
        assert table_handle(ends) != handle
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted")
        assert status(ends)["gate"] == {"tags": 3, "refused": 0}
        assert eventually(lambda: status(ends)["packets"] == {"granted": 1})
    with serving(ends, ACCESS):
        assert status(ends)["gate"] is None


def has_refused(ends: Ends, count: int) -> bool:
    return refused(ends) == count


def tags_if_any(ends: Ends) -> set[bytes]:
    there = ends.host.run("nft", "list", "table", "inet", kernel_gate.NAME, check=False).returncode == 0
    return tags(ends) if there else set()


def rules(ends: Ends) -> str:
    return ends.host.run("nft", "-s", "list", "chain", "inet", kernel_gate.NAME, "knock", check=False).stdout


def test_a_table_that_is_replaced_and_a_reload_leave_the_gate_alone(ends: Ends) -> None:
    with serving(ends) as daemon:
        live, handle = tags(ends), table_handle(ends)
        ends.host.nft("delete table inet doorward")
        daemon.wait_for("OUR TABLE WAS REMOVED OR CHANGED")
        reload(ends, daemon, ends.access)
        assert (tags(ends), table_handle(ends)) == (live, handle)
        assert status(ends)["closed"] is True, status(ends)["causes"]
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted")
        assert "KERNEL GATE" not in "\n".join(daemon.lines)


def table_handle(ends: Ends) -> int:
    listed = json.loads(ends.host.run("nft", "-j", "list", "tables").stdout)["nftables"]
    (handle,) = (one["table"]["handle"] for one in listed if one.get("table", {}).get("name") == kernel_gate.NAME)
    return int(handle)


def test_a_host_with_fwknops_format_alone_has_no_gate(ends: Ends) -> None:
    with serving(ends, ACCESS) as daemon:
        send(ends.client, fwknop_knock(), ends.host.ipv4)
        daemon.wait_for("reason=granted")
        assert status(ends)["gate"] is None
        reload(ends, daemon, ends.access)
        assert status(ends)["gate"] == {"tags": 3, "refused": 0}


def ticks(pid: int) -> int:
    """What a process has had of the processors, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def asleep(pid: int) -> Iterator[None]:
    """Fail where a process did not sleep in a block; one that never sleeps is measured beside it."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        before, witness = ticks(pid), ticks(busy.pid)
        yield
        used, most = ticks(pid) - before, ticks(busy.pid) - witness
        busy.kill()
    assert most > 20, "a process that never sleeps would be seen"
    assert used < most / 4


def test_a_gate_that_is_gone_is_not_looked_for_all_the_time(ends: Ends) -> None:
    with serving(ends) as daemon:
        assert status(ends)["gate"] is not None
        reload(ends, daemon, ACCESS)
        assert status(ends)["gate"] is None
        with asleep(daemon.process.pid):
            time.sleep(2)
        ends.host.nft(f"add table inet {kernel_gate.NAME}")  # somebody else's, by this name
        with asleep(daemon.process.pid):
            time.sleep(2)


def test_a_daemon_that_opens_nothing_does_not_look_after_tables(ends: Ends) -> None:
    with doorwardd(ends.host, ends.folder, ACCESS, "", "--test") as daemon:
        ends.host.nft("add table inet doorward")
        ends.host.nft("add chain inet doorward input")
        with asleep(daemon.process.pid):
            time.sleep(2)


def test_what_is_forwarded_to_other_hosts_passes_the_gate(ends: Ends) -> None:
    """A gateway with a gate of its own lets knocks through to the hosts behind it."""
    host, client, outsider = ends.host, ends.client, ends.outsider
    host.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    client.run("ip", "route", "add", "10.88.0.0/24", "via", host.ipv4)
    host.run("ip", "route", "add", "10.88.0.0/24", "via", outsider.ipv4)
    outsider.run("ip", "addr", "add", "10.88.0.9/24", "dev", "lo")
    with serving(ends), outsider.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as behind:
        behind.bind(("10.88.0.9", 62201))
        behind.settimeout(20)
        before = refused(ends)
        send(client, b"x" * TAGGED, "10.88.0.9")
        assert behind.recv(2048) == b"x" * TAGGED
        send(client, b"x" * TAGGED, host.ipv4)
        assert eventually(lambda: refused(ends) == before + 1)
