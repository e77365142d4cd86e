"""Sequences of ports against a real kernel: what opens, what starts over, what lasts, and what a scan does not do."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.capture.sequences import SequenceCapture, completed
from doorward.config import sequence
from doorward.config.sequence import Sequence
from doorward.errors import CaptureError
from doorward.firewall import sequences
from doorward.firewall.sequences import SOURCES_MAX
from doorward.linux import netfilter_log
from doorward.values import Completed
from system import netns
from system.chaos.scene import listener_of
from system.doorwardd import doorwardd, environment, eventually, is_open, listener, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

SEQUENCE = "tcp/7000 udp/8000:5 tcp/9000"
STANZA = f"SOURCE ANY\nSEQUENCE {SEQUENCE}\nOPEN_PORTS tcp/22\nFW_ACCESS_TIMEOUT 60\nNAME old\n"
GRANTED = "verdict=granted"
KNOCKD = """\
[options]
    UseSyslog
[openSSH]
    sequence    = 7000,8000:udp,9000
    seq_timeout = 5
    tcpflags    = syn
    command     = /usr/bin/touch {marker}
"""


def dial(client: Namespace, address: str, *words: str) -> None:
    """Send one packet to each port: a SYN, or a datagram."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.inside():
        for word in words:
            protocol, port = word.split("/")
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            with socket.socket(family, kind) as sender:
                sender.settimeout(0)
                sender.connect_ex((address, int(port)))
                if kind is socket.SOCK_DGRAM:
                    sender.send(b"\0")


def listed(host: Namespace, name: str) -> set[str]:
    """The addresses in a set of the table of the sequences."""
    text = host.run("nft", "-j", "list", "set", "inet", sequences.NAME, name).stdout
    (found,) = (one["set"] for one in json.loads(text)["nftables"] if "set" in one)
    return {str(one["elem"]["val"]) for one in found.get("elem", ())}


def has_table(host: Namespace) -> bool:
    return sequences.NAME in host.run("nft", "list", "tables").stdout


def console(host: Namespace, folder: Path, *words: str) -> str:
    argv = [sys.executable, "-m", "doorward", *words, "-c", f"{folder}/doorwardd.conf", "-r", f"{folder}/run"]
    return host.run(*argv, env=environment()).stdout


def reload(daemon: Running, access: str, count: int = 1) -> None:
    write(daemon.folder / "access.conf", access)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("the configuration was read again", count)


@pytest.fixture
def serving(pair: tuple[Namespace, Namespace], tmp_path: Path) -> Iterator[tuple[Namespace, Namespace, Running]]:
    """A host with a sequence, and a client."""
    host, client = pair
    with doorwardd(host, tmp_path, STANZA, f"ACCESS_FILE {tmp_path}/access.conf\n") as daemon, listener(host):
        yield host, client, daemon


Serving = tuple["Namespace", "Namespace", "Running"]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_sequence_opens_and_its_grant_is_seen_and_closed_like_every_other(serving: Serving, family: str) -> None:
    host, client, daemon = serving
    address, own = getattr(host, family), getattr(client, family)
    assert not is_open(client, address)
    dial(client, address, "tcp/7000", "udp/8000", "tcp/9000")
    line = daemon.wait_for(GRANTED)
    assert f"origin={own} " in line
    assert "stanza=1 name=old" in line
    assert "services=tcp/22 seconds=60" in line
    assert is_open(client, address)
    assert own in console(host, daemon.folder, "status")
    console(host, daemon.folder, "close", "--from", own)
    assert eventually(lambda: not is_open(client, address))


def test_the_client_sends_a_sequence_to_both_families(serving: Serving, tmp_path: Path) -> None:
    host, client, daemon = serving
    rc = write(tmp_path / "rc", f"[web]\nSPA_SERVER {host.ipv4}\nSEQUENCE {SEQUENCE}\n")
    doorward = [sys.executable, "-m", "doorward", "knock", "--no-save-args"]
    variables = {**environment(), "HOME": str(tmp_path)}
    refused = client.run(
        sys.executable, "-m", "doorward", "connect", "-n", "web", "--rc-file", str(rc), host.ipv4, "22",
        check=False, env=variables, input="", timeout=60,
    )  # fmt: skip
    assert refused.returncode
    assert "no answer, and no encryption key to knock with: SEQUENCE makes no packet" in refused.stderr
    client.run(*doorward, "-n", "web", "--rc-file", str(rc), env=variables)
    daemon.wait_for(f"origin={client.ipv4} ")
    client.run(*doorward, "--sequence", "tcp/7000 udp/8000 tcp/9000", "-D", host.ipv6, env=variables)
    daemon.wait_for(f"origin={client.ipv6} ")
    assert is_open(client, host.ipv4)
    assert is_open(client, host.ipv6)
    shown = client.run(*doorward, "-n", "web", "--rc-file", str(rc), "--test", env=variables).stdout
    assert "not actually sent: tcp/7000 udp/8000 tcp/9000" in shown
    assert len([line for line in daemon.verdicts if "granted" in line]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("tcp/7000", "udp/8000", "tcp/9001"),
        ("tcp/7000", "tcp/9000", "udp/8000"),
        ("udp/8000", "tcp/9000", "tcp/7000"),
        ("tcp/7000", "tcp/8000", "tcp/9000"),
        ("udp/7000", "udp/8000", "udp/9000"),
        ("tcp/7000", "tcp/80", "udp/8000", "tcp/9000"),
        ("tcp/7000", "udp/8000", "udp/53", "tcp/9000"),
        ("tcp/7000", "udp/8000", "tcp/7000", "tcp/9000"),
        ("tcp/9000", "tcp/9000", "tcp/9000"),
    ],
)
def test_another_port_or_another_order_starts_it_over(serving: Serving, words: tuple[str, ...]) -> None:
    host, client, daemon = serving
    dial(client, host.ipv4, *words)
    dial(client, host.ipv6, "tcp/7000", "udp/8000", "tcp/9000")
    daemon.wait_for(GRANTED)
    assert len(daemon.verdicts) == 1, "the first was not counted, and a good one was"
    assert not is_open(client, host.ipv4)
    dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
    daemon.wait_for(f"origin={client.ipv4} ")
    assert is_open(client, host.ipv4)


@pytest.mark.parametrize(
    "words",
    [
        ("tcp/7000", "tcp/7000", "udp/8000", "udp/8000", "udp/8000", "tcp/9000", "tcp/9000"),
        ("tcp/7000", "udp/8000", "tcp/9001", "tcp/7000", "udp/8000", "tcp/9000"),
        ("tcp/7000", "udp/8000", "tcp/7000", "udp/8000", "tcp/9000"),
    ],
)
def test_a_packet_that_comes_twice_changes_nothing_and_the_first_port_always_begins(
    serving: Serving, words: tuple[str, ...]
) -> None:
    host, client, daemon = serving
    dial(client, host.ipv4, *words)
    daemon.wait_for(GRANTED)
    assert is_open(client, host.ipv4)
    assert len(daemon.verdicts) == 1


@pytest.mark.parametrize("order", ["ascending", "descending", "in nmap's order"])
def test_a_scan_of_all_ports_does_not_open(serving: Serving, order: str) -> None:
    host, client, daemon = serving
    if order == "in nmap's order":
        client.run("nmap", "-Pn", "-n", "-sS", "-p-", "--max-retries", "1", "--min-rate", "8000", host.ipv4)
    else:
        ports = range(1, 65536) if order == "ascending" else range(65535, 0, -1)
        for protocol in ("tcp", "udp"):
            dial(client, host.ipv4, *(f"{protocol}/{port}" for port in ports))
        dial(client, host.ipv4, *(f"{protocol}/{port}" for port in range(6990, 9010) for protocol in ("tcp", "udp")))
    dial(client, host.ipv6, "tcp/7000", "udp/8000", "tcp/9000")
    daemon.wait_for(GRANTED)
    assert len(daemon.verdicts) == 1, "the scan was heard, as the sequence behind it was"
    assert not is_open(client, host.ipv4)


def test_steps_out_of_time_count_no_more(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    access = "SOURCE ANY\nSEQUENCE tcp/7000 udp/8000:1 tcp/9000:60\nSEQUENCE_TIMEOUT 3\nOPEN_PORTS tcp/22\n"
    with doorwardd(host, tmp_path, access) as daemon, listener(host):
        dial(client, host.ipv4, "tcp/7000")
        assert eventually(lambda: not listed(host, "sequence_0_step_1_4"))
        dial(client, host.ipv4, "udp/8000", "tcp/9000")
        dial(client, host.ipv4, "tcp/7000", "udp/8000")
        assert eventually(lambda: not listed(host, "sequence_0_begun_4"))
        assert listed(host, "sequence_0_step_2_4") == {client.ipv4}, "this step would have time"
        dial(client, host.ipv4, "tcp/9000")
        dial(client, host.ipv6, "tcp/7000", "udp/8000", "tcp/9000")
        daemon.wait_for(GRANTED)
        assert len(daemon.verdicts) == 1
        assert not is_open(client, host.ipv4)


def test_packets_of_a_connection_and_to_others_are_no_steps(serving: Serving) -> None:
    host, client, daemon = serving
    dial(client, host.ipv6, "tcp/7000", "udp/8000", "tcp/9000")
    daemon.wait_for(GRANTED)
    with client.inside():
        session = socket.create_connection((host.ipv6, 22), 5)
    dial(client, host.ipv6, "tcp/7000", "udp/8000")
    session.sendall(b"more")
    session.close()
    dial(client, host.ipv6, "tcp/9000")
    daemon.wait_for(GRANTED, 2)


def test_each_source_has_its_own_steps(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> None:
    host, client, outsider = trio
    with doorwardd(host, tmp_path, STANZA) as daemon, listener(host):
        dial(client, host.ipv4, "tcp/7000")
        dial(outsider, host.ipv4, "udp/8000", "tcp/9000", "tcp/80")
        dial(client, host.ipv4, "udp/8000")
        dial(outsider, host.ipv4, "tcp/9000")
        dial(client, host.ipv4, "tcp/9000")
        assert f"origin={client.ipv4} " in daemon.wait_for(GRANTED)
        assert len(daemon.verdicts) == 1
        assert not is_open(outsider, host.ipv4)


def spoofed(origins: Iterable[int], host: Namespace, port: int) -> Iterator[bytes]:
    """A SYN from each of the addresses 10.0.0.0 + n, as IP packets without checksums, which the loopback needs none."""
    for number in origins:
        ends = (0x0A000000 + number).to_bytes(4, "big") + ipaddress.ip_address(host.ipv4).packed
        tcp = (40000).to_bytes(2, "big") + port.to_bytes(2, "big") + bytes(8) + bytes([0x50, 2, 32, 0]) + bytes(4)
        head = bytes([0x45, 0]) + (40).to_bytes(2, "big") + bytes(4) + bytes([64, 6]) + bytes(2) + ends
        summed = sum(int.from_bytes(head[place : place + 2], "big") for place in range(0, 20, 2))
        summed = (summed & 0xFFFF) + (summed >> 16)
        check = (~((summed & 0xFFFF) + (summed >> 16)) & 0xFFFF).to_bytes(2, "big")
        pseudo = ends + bytes([0, 6]) + len(tcp).to_bytes(2, "big") + tcp
        total = sum(int.from_bytes(pseudo[place : place + 2], "big") for place in range(0, len(pseudo), 2))
        total = (total & 0xFFFF) + (total >> 16)
        tcp = tcp[:16] + (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big") + tcp[18:]
        yield head[:10] + check + head[12:] + tcp


def test_ten_thousand_sources_in_the_middle_are_kept_and_more_are_bounded(serving: Serving) -> None:
    host, client, daemon = serving
    host.run("ip", "route", "add", "10.0.0.0/15", "via", client.ipv4)  # or strict reverse paths drop them
    reload(daemon, STANZA.replace("udp/8000:5", "udp/8000:300"))

    def send(origins: range) -> None:
        with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            for packet in spoofed(origins, host, 7000):
                sender.sendto(packet, (host.ipv4, 0))

    send(range(1, 10_001))
    assert eventually(lambda: len(listed(host, "sequence_0_step_1_4")) == 10_000)
    dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
    daemon.wait_for(GRANTED)
    send(range(10_001, 2 * SOURCES_MAX))
    assert len(listed(host, "sequence_0_step_1_4")) <= SOURCES_MAX
    dial(client, host.ipv6, "tcp/7000", "udp/8000", "tcp/9000")
    daemon.wait_for(GRANTED, 2)


@pytest.mark.parametrize("ports", [(7000,), (7000, 7500)], ids=["they begin", "they begin and go wrong"])
def test_addresses_that_begin_over_and_over_keep_no_other_address_out(serving: Serving, ports: tuple[int, ...]) -> None:
    """What a packet deletes from a set keeps its room, and makes look-ups longer, until the kernel collects it."""
    host, client, daemon = serving
    host.run("ip", "route", "add", "10.0.0.0/15", "via", client.ipv4)  # or strict reverse paths drop them
    reload(daemon, STANZA.replace("udp/8000:5", "udp/8000:300"))
    rounds = 5 * SOURCES_MAX // 500
    flood = [
        each for both in zip(*(spoofed(range(1, 501), host, port) for port in ports), strict=True) for each in both
    ]
    others = list(spoofed(range(70_000, 70_000 + rounds), host, 7000))
    with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for other in others:
            for packet in (*flood, other):
                sender.sendto(packet, (host.ipv4, 0))
    underway = listed(host, "sequence_0_step_1_4")
    assert {str(ipaddress.ip_address(0x0A000000 + number)) for number in range(70_000, 70_000 + rounds)} <= underway
    dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
    assert f"origin={client.ipv4} " in daemon.wait_for(GRANTED)


def test_a_good_sequence_wakes_the_listener_and_a_flood_does_not(serving: Serving) -> None:
    host, client, daemon = serving
    processes = (daemon.process.pid, listener_of(daemon))

    def woken() -> int:
        """How often the processes of the daemon began to wait."""
        texts = (Path(f"/proc/{pid}/status").read_text() for pid in processes)
        return sum(int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)[0]) for text in texts)

    began, at_first = time.monotonic(), woken()
    with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(100_000):
            sender.sendto(b"\0", (host.ipv4, 1024 + number % 60_000))
    seconds = time.monotonic() - began
    flooded = woken() - at_first
    assert flooded < 20 * (seconds + 1), f"{flooded} times in {seconds:.1f} s: each process looks about once a second"
    dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
    daemon.wait_for(GRANTED)


def test_the_table_follows_a_reload_a_restart_and_the_end(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    other = "SOURCE ANY\nSEQUENCE udp/1000 udp/2000 udp/4000\nOPEN_PORTS tcp/23\n"
    with doorwardd(host, tmp_path, STANZA + other) as daemon, listener(host):
        dial(client, host.ipv4, "tcp/7000", "udp/8000")
        reload(daemon, STANZA + other + "# the same\n")
        assert listed(host, "sequence_0_step_2_4") == {client.ipv4}, "who was under way goes on"
        dial(client, host.ipv4, "tcp/9000")
        daemon.wait_for(GRANTED)
        reload(daemon, other, 2)
        dial(client, host.ipv6, "tcp/7000", "udp/8000", "tcp/9000", "udp/1000", "udp/2000", "udp/4000")
        assert "stanza=1 " in daemon.wait_for(f"origin={client.ipv6} ")
        assert is_open(client, host.ipv4), "a grant outlives its stanza, as every grant does"
        reload(daemon, "SOURCE ANY\nKEY abcdefgh\nHMAC_KEY hgfedcba\nOPEN_PORTS tcp/22\n", 3)
        assert not has_table(host)
        write(tmp_path / "access.conf", STANZA + STANZA)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration is refused, the old one stays")
        assert not has_table(host)
        reload(daemon, STANZA, 4)
        assert has_table(host)
    assert not has_table(host)


def test_a_killed_daemon_leaves_a_table_that_opens_nothing_and_the_next_one_takes_over(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    with listener(host):
        with doorwardd(host, tmp_path, STANZA) as daemon:
            daemon.process.kill()
            daemon.process.wait()
            assert eventually(lambda: has_table(host))
            dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
        with doorwardd(host, tmp_path, STANZA) as daemon:
            assert not is_open(client, host.ipv4)
            dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
            daemon.wait_for(GRANTED)
            assert is_open(client, host.ipv4)
    host.nft(f"add table {sequences.TABLE}")
    console(host, tmp_path, "firewall", "stop")
    assert not has_table(host)


@pytest.mark.parametrize(
    "harm",
    [f"delete table {sequences.TABLE}", f"flush chain {sequences.TABLE} sequence_0", "flush ruleset"],
)
def test_a_table_that_others_remove_or_change_is_loaded_again(serving: Serving, harm: str) -> None:
    host, client, daemon = serving
    host.nft(harm)
    daemon.wait_for("THE TABLE OF THE SEQUENCES WAS REMOVED OR CHANGED")
    dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
    daemon.wait_for(GRANTED)


def test_sequences_that_share_ports_count_each_for_itself(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    other = "SOURCE ANY\nSEQUENCE tcp/7000 tcp/9000 udp/8000\nOPEN_PORTS tcp/23\n"
    with doorwardd(host, tmp_path, STANZA + other) as daemon, listener(host), listener(host, 23):
        dial(client, host.ipv4, "tcp/7000", "tcp/9000", "udp/8000")
        assert "stanza=2 " in daemon.wait_for(GRANTED)
        assert is_open(client, host.ipv4, 23)
        assert not is_open(client, host.ipv4, 22)
        dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
        assert "stanza=1 " in daemon.wait_for(GRANTED, 2)


def test_sequences_of_a_file_open_once_also_after_a_restart(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    write(tmp_path / "once", f" {SEQUENCE}\n 1111,2222:udp,3333\n")
    access = f"SOURCE ANY\nSEQUENCE_FILE {tmp_path}/once\nOPEN_PORTS tcp/22\n"
    with doorwardd(host, tmp_path, access) as daemon:
        dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
        daemon.wait_for(GRANTED)
        dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
        daemon.wait_for("reason=replay")
    with doorwardd(host, tmp_path, access) as daemon:
        dial(client, host.ipv6, "tcp/7000", "udp/8000", "tcp/9000")
        daemon.wait_for("reason=replay")
        dial(client, host.ipv6, "tcp/1111", "udp/2222", "tcp/3333")
        daemon.wait_for(GRANTED)


def test_a_sequence_opens_nothing_of_a_stanza_with_keys(serving: Serving) -> None:
    host, client, daemon = serving
    keyed = "SOURCE ANY\nKEY abcdefgh\nHMAC_KEY hgfedcba\nOPEN_PORTS tcp/22, tcp/23\nREQUIRE_SOURCE_ADDRESS Y\n"
    reload(daemon, keyed + STANZA)
    with listener(host, 23):
        dial(client, host.ipv4, "tcp/7000", "udp/8000", "tcp/9000")
        assert "stanza=2 " in daemon.wait_for(GRANTED)
        assert is_open(client, host.ipv4, 22)
        assert not is_open(client, host.ipv4, 23)


def test_debians_knock_opens_by_a_sequence_of_a_knockd_conf(
    pair: tuple[Namespace, Namespace], tmp_path: Path, open_path: Path
) -> None:
    host, client = pair
    marker = open_path / "opened"
    file = tmp_path / "knockd.conf"
    file.write_text(KNOCKD.format(marker=marker))
    argv = [sys.executable, "-m", "doorward", "doorwardd", "import-knockd", str(file)]
    stanza = host.run(*argv, env=environment()).stdout
    run = f"EXEC_DIR {open_path}/exec\n"
    with doorwardd(host, tmp_path, f"{stanza}CMD_EXEC_USER root\n", run) as daemon:
        client.run("knock", "-d", "50", host.ipv4, "7000", "8000", "9000")
        client.run("knock", "-d", "50", host.ipv4, "7000", "8000:udp", "9000")
        assert "command=cycle" in daemon.wait_for(GRANTED)
        assert eventually(marker.exists)
        assert len(daemon.verdicts) == 1
    own = re.sub(r"CMD_.*\n", "", stanza) + "OPEN_PORTS tcp/22\n"
    with doorwardd(host, tmp_path, own) as daemon, listener(host):
        client.run("knock", "-d", "50", host.ipv4, "7000:tcp", "8000:udp", "9000:tcp")
        daemon.wait_for(GRANTED)
        assert is_open(client, host.ipv4)


def test_check_and_the_start_say_that_a_sequence_can_be_replayed(serving: Serving) -> None:
    host, _, daemon = serving
    words = f"{daemon.folder}/access.conf:2: a sequence can be replayed by whoever sees it: use a knock"
    assert any(words in line for line in daemon.lines)
    argv = [sys.executable, "-m", "doorward", "doorwardd", "check", "-c", f"{daemon.folder}/doorwardd.conf"]
    checked = host.run(*argv, env=environment())
    assert words in checked.stderr


def test_a_group_that_another_program_reads_stops_the_start(ns: Namespace, tmp_path: Path) -> None:
    write(tmp_path / "access.conf", STANZA)
    argv = [sys.executable, "-m", "doorward", "doorwardd", "-f", "-a", str(tmp_path / "access.conf")]
    with ns.inside():
        taken = netfilter_log.bound()
    with taken:
        with ns.inside(), pytest.raises(CaptureError, match="another program reads it"):
            netfilter_log.bound()
        done = ns.run(*argv, "-r", str(tmp_path / "run"), check=False, env=environment())
        assert done.returncode
        assert "SEQUENCE: netfilter group 62201 cannot be read" in done.stderr
        assert not has_table(ns)


def test_a_sequence_of_flags_takes_no_other_packets(ns: Namespace) -> None:
    """Packets as bytes, on the loopback of a namespace: no program of ours sends a FIN without a connection."""
    steps = sequence.steps("tcp/7000 tcp/8000 tcp/9000")
    made = Sequence(steps, 20, sequence.flags("fin,!ack,!syn"))
    ns.nft(sequences.text((made,)))
    with ns.inside(), contextlib.closing(SequenceCapture(netfilter_log.bound())) as capture:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            for flags in (2, 0x11, 1):
                for port in (7000, 8000, 9000):
                    packet = next(spoofed([7], ns, port))
                    with_flags = packet[:33] + bytes([flags]) + packet[34:]
                    local = with_flags[:12] + bytes([127, 0, 0, 1, 127, 0, 0, 1]) + with_flags[20:]
                    sender.sendto(local, ("127.0.0.1", 0))
        assert select.select([capture], [], [], 20)[0]
        found = capture.receive()
        assert found is not None
        assert found.payload == made.mark
        assert capture.receive() is None


@pytest.mark.parametrize("length", range(41))
def test_a_logged_packet_that_is_cut_is_none(length: int) -> None:
    whole = next(spoofed([7], netns.Namespace("none", 1), 9000))
    found = completed("doorward 0123", whole[:length])
    assert (found is None) == (length < 20)
    if found is not None:
        assert found[1:3] == (bytes([10, 0, 0, 7]), bytes([10, 77, 0, 1]))
        assert found.destination_port == (9000 if length >= 24 else 0)
    assert completed("another's", whole) is None
    assert isinstance(completed("doorward 0123", whole), Completed)


def test_what_a_socket_received_is_read_to_its_last_whole_message() -> None:
    assert list(netfilter_log.logged(os.urandom(3))) == []
    assert list(netfilter_log.logged(bytes(64))) == []
