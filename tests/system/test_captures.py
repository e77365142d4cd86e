"""Every way a knock may come by, with Debian's fwknop client, a real doorwardd and a real door."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.firewall import ruleset
from interop.test_fwknop_client_against_doorwardd import knock
from system import netns, taken_over_reader
from system.doorwardd import ACCESS, doorwardd, eventually, is_open, listener, send, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

Pair = tuple["Namespace", "Namespace"]
UDP = "ENABLE_UDP_SERVER Y"
TCP = "ENABLE_TCP_SERVER Y"
HTTP = f"{TCP}\nENABLE_SPA_OVER_HTTP Y"
PROXY = f"{HTTP}\nENABLE_X_FORWARDED_FOR Y\nTRUSTED_PROXIES 10.77.0.3/32"

CARRIERS = {
    "udp, passive": ("", ("-P", "udp")),
    "udp, server": (UDP, ("-P", "udp")),
    "udp, server on another port": (f"{UDP}\nUDPSERV_PORT 53", ("-P", "udp", "-p", "53")),
    "udp, a range of ports": ("PCAP_FILTER udp dst portrange 10000-65535", ("-P", "udp", "-r")),
    "tcp, server": (TCP, ("-P", "tcp")),
    "tcp, server on another port": (f"{TCP}\nTCPSERV_PORT 443", ("-P", "tcp", "-p", "443")),
    "http, server": (HTTP, ("-P", "http")),
    "udp, raw": ("", ("-P", "udpraw")),
    "udp, raw, spoofed": ("", ("-P", "udpraw", "-Q", "198.51.100.9")),
    "udp, raw, server": (UDP, ("-P", "udpraw")),
    "tcp, raw": ("PCAP_FILTER tcp port 62201", ("-P", "tcpraw")),
    "tcp, raw, spoofed": ("PCAP_FILTER tcp port 62201", ("-P", "tcpraw", "-Q", "198.51.100.9")),
    "tcp, raw, to the server's port": (f"{TCP}\nPCAP_FILTER tcp port 62201", ("-P", "tcpraw")),
    "icmp": ("PCAP_FILTER icmp", ("-P", "icmp")),
    "icmp, spoofed": ("PCAP_FILTER icmp", ("-P", "icmp", "-Q", "198.51.100.9")),
    "icmp, another type": (
        "PCAP_FILTER udp port 62201 or icmp",
        ("-P", "icmp", "--icmp-type", "13", "--icmp-code", "1"),
    ),
    "icmp echo": ("ENABLE_SPA_OVER_ICMP Y", ("-P", "icmp", "--icmp-type", "8", "--icmp-code", "0")),
    "icmp echo reply": ("ENABLE_SPA_OVER_ICMP Y", ("-P", "icmp")),
}


@pytest.fixture(scope="module")
def road() -> Iterator[Pair]:
    with netns.network("host", "client") as (host, client):
        yield host, client


@pytest.mark.parametrize("carrier", CARRIERS)
def test_fwknops_client_opens_the_door_by(road: Pair, tmp_path: Path, carrier: str) -> None:
    host, client = road
    config, arguments = CARRIERS[carrier]
    with listener(host), doorwardd(host, tmp_path, ACCESS, f"{config}\n") as daemon:
        host.nft("flush set inet doorward open4")
        assert not is_open(client, host.ipv4, within=0.3)
        knock(client, host, tmp_path, "-a", client.ipv4, *arguments)
        line = daemon.wait_for("verdict=")
        assert "reason=granted" in line
        assert f"origin={'198.51.100.9' if '-Q' in arguments else client.ipv4} " in line
        assert is_open(client, host.ipv4)
    assert len(daemon.verdicts) == 1, "a knock that came twice"


@pytest.mark.parametrize("carrier", ["tcp", "icmp"])
def test_what_is_not_asked_for_is_not_heard(road: Pair, tmp_path: Path, carrier: str) -> None:
    host, client = road
    with doorwardd(host, tmp_path) as daemon:
        knock(client, host, tmp_path, "-a", client.ipv4, "-P", f"{carrier}raw" if carrier == "tcp" else carrier)
        knock(client, host, tmp_path, "-a", client.ipv4)
        daemon.wait_for("reason=granted")
    assert len(daemon.verdicts) == 1


def good(source: str = "0.0.0.0") -> bytes:  # noqa: S104  the format's "origin of the packet"
    return payload(message(text=f"{source},tcp/22", time=int(time.time())), KEYS)


@contextlib.contextmanager
def dialled(client: Namespace, address: str, port: int = 62201) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.inside(), socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(10)
        one.connect((address, port))
        yield one


def say(client: Namespace, address: str, content: bytes, port: int = 62201) -> bytes:
    """Send bytes over TCP and return what came back before the end."""
    with dialled(client, address, port) as one:
        with contextlib.suppress(OSError):  # the other side may have read enough before we are done
            one.sendall(content)
            one.shutdown(socket.SHUT_WR)
        return heard(one)


def heard(one: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := one.recv(4096):
            answer += part
    return answer


def request(packet: bytes, *fields: str) -> bytes:
    target = packet.replace(b"+", b"-").replace(b"/", b"_")
    return b"GET /" + target + "\r\n".join([" HTTP/1.1", "User-Agent: Fwknop/2.6.11", *fields, "", ""]).encode()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_server_knows_the_address_that_was_knocked_at(pair: Pair, tmp_path: Path, kind: str, family: int) -> None:
    host, client = pair
    first, second = ("10.77.0.1", "10.77.0.100") if family == 4 else ("fd77::1", "fd77::100")
    host.run(
        "ip", "addr", "add", f"{second}/{24 if family == 4 else 64}", "dev", "eth0", *(["nodad"] if family == 6 else [])
    )
    rules = ACCESS + f"DESTINATION {second}\n" if family == 4 else ACCESS + f"DESTINATION {second}/128\n"
    with doorwardd(host, tmp_path, rules, f"{UDP if kind == 'udp' else TCP}\n") as daemon:
        for address in (first, second):
            if kind == "udp":
                send(client, good(), address)
            else:
                say(client, address, good())
            daemon.wait_for("verdict=", 1 if address == first else 2)
    assert ["no_stanza" in line for line in daemon.verdicts] == [True, False]
    assert "reason=granted" in daemon.verdicts[1]


def test_a_udp_server_is_the_only_capture_unless_a_filter_is_written(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, f"{UDP}\nUDPSERV_PORT 5000\n") as daemon:
        send(client, good(), host.ipv4)
        send(client, good(), host.ipv4, 5000)
        daemon.wait_for("reason=granted")
        assert len(daemon.verdicts) == 1
    folder = tmp_path / "both"
    folder.mkdir()
    with doorwardd(
        host, folder, ACCESS, f"{UDP}\nUDPSERV_PORT 5000\nPCAP_FILTER udp dst portrange 4999-5001\n"
    ) as daemon:
        for port in (4999, 5000, 5001):
            send(client, good(), host.ipv4, port)
        daemon.wait_for("reason=granted", 3)
    assert len(daemon.verdicts) == 3


def answers(client: Namespace, host: Namespace, port: int) -> bool:
    """Say whether a datagram to the port, or a SYN, is answered with anything."""
    with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.5)
        one.connect((host.ipv4, port))
        one.send(b"x" * 150)
        try:
            one.recv(10)
        except TimeoutError:
            pass
        except ConnectionRefusedError:
            return True
    try:
        is_open(client, host.ipv4, port, within=0.5)
    except ConnectionRefusedError:
        return True
    return False


def test_a_server_is_silent_and_its_port_too_once_it_has_ended(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, f"{UDP}\n{TCP}\n") as daemon:
        assert say(client, host.ipv4, good()) == b""
        daemon.wait_for("reason=granted")
        send(client, b"x" * 150, host.ipv4)
        daemon.wait_for("reason=hmac")
        with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.settimeout(0.5)
            one.connect((host.ipv4, 62201))
            one.send(good())
            with pytest.raises(TimeoutError):
                one.recv(10)
    assert answers(client, host, 9999), "an answer would have been seen"
    assert not answers(client, host, 62201)


def test_the_port_closes_by_itself_when_the_daemon_is_killed(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, f"{UDP}\n{TCP}\n") as daemon:
        say(client, host.ipv4, good())
        daemon.wait_for("reason=granted")
        daemon.signal(signal.SIGKILL)
        daemon.process.wait(10)
        assert eventually(lambda: not answers(client, host, 62201))
        assert answers(client, host, 9999)
        assert "62201" not in host.run("ss", "-Hltnu").stdout


def test_a_grant_through_a_proxy_is_for_whom_it_speaks_for_where_the_packet_names_nobody(
    trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path
) -> None:
    host, client, proxy = trio
    with doorwardd(host, tmp_path, ACCESS, f"{PROXY}\n") as daemon:
        for packet in (good(), good("10.77.0.2")):
            say(proxy, host.ipv4, request(packet, "X-Forwarded-For: 198.51.100.7"))
        daemon.wait_for("verdict=", 2)
        say(client, host.ipv4, request(good(), "X-Forwarded-For: 198.51.100.7"))
        daemon.wait_for("verdict=", 3)
        say(proxy, host.ipv4, request(good(), "X-Forwarded-For: 198.51.100.7, 203.0.113.1"))
        daemon.wait_for("verdict=", 4)
    sources = [line.split("source=")[1].split()[0] for line in daemon.verdicts]
    assert sources == ["198.51.100.7", "10.77.0.2", "10.77.0.2", "203.0.113.1"]
    assert all("origin=10.77.0.3 " in line for line in (daemon.verdicts[0], daemon.verdicts[3]))


def test_a_proxy_cannot_speak_for_somebody_outside_the_stanzas_source(
    trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path
) -> None:
    host, _, proxy = trio
    rules = ACCESS.replace("SOURCE ANY", "SOURCE 10.77.0.0/24")
    with doorwardd(host, tmp_path, rules, f"{PROXY}\n") as daemon:
        say(proxy, host.ipv4, request(good(), "X-Forwarded-For: 198.51.100.7"))
        assert "reason=source " in daemon.wait_for("verdict=")
        say(proxy, host.ipv4, request(good(), "X-Forwarded-For: 10.77.0.2"))
        assert "source=10.77.0.2" in daemon.wait_for("reason=granted")


def test_http_is_read_only_where_it_is_enabled(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon:
        say(client, host.ipv4, request(good()))
        assert "reason=malformed" in daemon.wait_for("verdict=")


def test_a_request_that_somebody_elses_server_takes_is_heard_in_passing(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    config = "PCAP_FILTER tcp port 80\nENABLE_SPA_OVER_HTTP Y\n"
    with (
        listener(host, 80),
        doorwardd(host, tmp_path, ACCESS, config) as daemon,
        dialled(client, host.ipv4, 80) as one,
    ):
        one.sendall(request(good()))
        assert "reason=granted" in daemon.wait_for("verdict=")
    assert len(daemon.verdicts) == 1


def test_a_connection_that_stays_open_is_read_at_its_deadline(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon, dialled(client, host.ipv4) as one:
        packet = good()
        one.sendall(packet[:100])
        time.sleep(0.2)
        one.sendall(packet[100:])
        assert "reason=granted" in daemon.wait_for("verdict=")
        assert heard(one) == b""


def knocks_by_udp_and_tcp(client: Namespace, host: Namespace, daemon: Running, count: int) -> None:
    """Knock both ways while others do their worst; both open."""
    say(client, host.ipv4, good())
    daemon.wait_for("reason=granted", count)
    send(client, good(), host.ipv4)
    daemon.wait_for("reason=granted", count + 1)


def test_silent_connections_keep_nobody_out(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> None:
    host, client, outsider = trio
    for number in range(20, 60):
        outsider.run("ip", "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
    with doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon, outsider.inside(), contextlib.ExitStack() as held:
        for number in range(300):
            one = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            one.bind((f"10.77.0.{20 + number % 40}", 0))
            one.setblocking(False)  # noqa: FBT003  the argument's meaning is the method's name
            one.connect_ex((host.ipv4, 62201))
            with contextlib.suppress(OSError):
                one.send(b"GET /")
        knocks_by_udp_and_tcp(client, host, daemon, 1)
    assert len(daemon.verdicts) == 2


def test_dripping_connections_keep_nobody_out(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> None:
    host, client, outsider = trio
    script = (
        "import socket,time\n"
        "s=[]\n"
        "while True:\n"
        "  while len(s)<200:\n"
        "    try: s.append(socket.create_connection(('10.77.0.1',62201),1))\n"
        "    except OSError: break\n"
        "  for one in list(s):\n"
        "    try: one.send(b'G')\n"
        "    except OSError: s.remove(one)\n"
        "  time.sleep(.01)\n"
    )
    with doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon, outsider.process("python3", "-c", script):
        assert eventually(lambda: "ESTAB" in host.run("ss", "-Htn").stdout)
        for count in range(1, 10, 2):
            knocks_by_udp_and_tcp(client, host, daemon, count)


def test_a_flood_of_whole_connections_keeps_nobody_out(
    trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path
) -> None:
    host, client, outsider = trio
    script = (
        "import socket\n"
        "while True:\n"
        "  try:\n"
        "    with socket.create_connection(('10.77.0.1',62201),1) as one: one.send(b'A'*200)\n"
        "  except OSError: pass\n"
    )
    with contextlib.ExitStack() as floods, doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon:
        for _ in range(3):
            floods.enter_context(outsider.process("python3", "-c", script))
        daemon.wait_for("reason=hmac", 50)
        for count in range(1, 10, 2):
            knocks_by_udp_and_tcp(client, host, daemon, count)


def test_http_that_nothing_can_carry_is_named_at_the_start(pair: Pair, tmp_path: Path) -> None:
    with doorwardd(pair[0], tmp_path, ACCESS, "ENABLE_SPA_OVER_HTTP Y\n") as daemon:
        daemon.wait_for("ENABLE_SPA_OVER_HTTP has no effect without ENABLE_TCP_SERVER")


def test_half_open_connections_keep_nobody_out(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> None:
    host, client, outsider = trio
    script = (
        "from scapy.all import IP,TCP,send,conf\n"
        "import random,socket\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_RAW)\n"
        "ends=dict(dst='10.77.0.1')\n"
        "p=[bytes(IP(src=f'198.51.100.{i%250+1}',**ends)/TCP(sport=1024+i,dport=62201)) for i in range(2000)]\n"
        "while True:\n"
        "  for one in p: s.sendto(one,('10.77.0.1',0))\n"
    )
    host.run("ip", "route", "add", "default", "via", outsider.ipv4)
    with doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon, outsider.process(sys.executable, "-c", script):
        assert eventually(lambda: host.run("ss", "-Htn", "state", "syn-recv").stdout.count("\n") > 5)
        for count in range(1, 6, 2):
            knocks_by_udp_and_tcp(client, host, daemon, count)


def test_a_megabyte_is_cut_off_and_makes_no_line(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, f"{HTTP}\n") as daemon:
        assert say(client, host.ipv4, b"A" * 1_000_000) == b""
        assert say(client, host.ipv4, b"GET /" + b"A" * 1_000_000) == b""
        assert say(client, host.ipv4, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000) == b""
        say(client, host.ipv4, request(good()))
        daemon.wait_for("reason=granted")
    assert len(daemon.verdicts) == 1


def readers(daemon: Running) -> list[int]:
    """Return the processes that read TCP connections for a daemon."""
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"capture.tcp_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_reader_of_connections_that_is_killed_is_started_again_and_loses_nobody(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon:
        assert eventually(lambda: bool(readers(daemon)))
        (pid,) = readers(daemon)
        assert eventually(lambda: "Seccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text())
        powers = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "Cap" in line]
        assert {
            name: int(mask, 16) for name, mask in powers if name in {"CapEff:", "CapPrm:", "CapInh:", "CapAmb:"}
        } == {
            "CapEff:": 0,
            "CapPrm:": 0,
            "CapInh:": 0,
            "CapAmb:": 0,
        }
        os.kill(pid, signal.SIGKILL)
        with dialled(client, host.ipv4) as one:
            one.sendall(good())
            one.shutdown(socket.SHUT_WR)
            daemon.wait_for("was started again")
            daemon.wait_for("reason=granted")
        assert pid not in readers(daemon)
        last = readers(daemon)
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in last))


def test_a_reload_follows_other_servers_and_filters(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    settings = f"FIREWALL_FILE {tmp_path}/firewall.nft;\n"
    with doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon:
        say(client, host.ipv4, good())
        daemon.wait_for("reason=granted")
        write(tmp_path / "doorwardd.conf", f"{settings}{TCP}\nTCPSERV_PORT 5000\n{UDP}\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        say(client, host.ipv4, good(), 5000)
        daemon.wait_for("reason=granted", 2)
        send(client, good(), host.ipv4)
        daemon.wait_for("reason=granted", 3)
        write(tmp_path / "doorwardd.conf", f"{settings}PCAP_FILTER icmp\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again", 2)
        assert eventually(lambda: not readers(daemon))
        assert host.run("ss", "-Hltnu").stdout == ""
        send(client, good(), host.ipv4)
        knock(client, host, tmp_path, "-a", client.ipv4, "-P", "icmp")
        daemon.wait_for("reason=granted", 4)
    assert len(daemon.verdicts) == 4


def test_a_port_that_is_taken_is_a_clear_error_and_a_reload_that_wants_it_changes_nothing(
    pair: Pair, tmp_path: Path
) -> None:
    host, client = pair
    settings = f"FIREWALL_FILE {tmp_path}/firewall.nft;\n"
    with listener(host, 5000), doorwardd(host, tmp_path, ACCESS, f"{TCP}\n") as daemon:
        write(tmp_path / "doorwardd.conf", f"{settings}{TCP}\nTCPSERV_PORT 5000\n")
        daemon.signal(signal.SIGHUP)
        assert "no TCP server on port 5000: Address already in use" in daemon.wait_for("port 5000")
        daemon.wait_for("the old one stays")
        say(client, host.ipv4, good())
        daemon.wait_for("reason=granted")


def test_a_reload_that_the_packet_filter_refuses_leaves_the_servers_as_they_were(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    settings = f"FIREWALL_FILE {tmp_path}/firewall.nft;\n"
    with doorwardd(host, tmp_path, ACCESS, f"{TCP}\n{UDP}\n") as daemon:
        others = f"{TCP}\nTCPSERV_PORT 5000\n{UDP}\nUDPSERV_PORT 5001\n"
        write(tmp_path / "doorwardd.conf", f"{settings}{others}")
        write(tmp_path / "access.conf", f"{ACCESS}REQUIRE_OS Nonsense\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("REQUIRE_OS")
        daemon.wait_for("the old one stays")
        say(client, host.ipv4, good())
        daemon.wait_for("reason=granted")
        send(client, good(), host.ipv4)
        daemon.wait_for("reason=granted", 2)
        assert ":5000 " not in (listed := host.run("ss", "-Hltnu").stdout)
        assert listed.count(":62201 ") == 4, "both families of both servers, and nothing twice"
        write(tmp_path / "access.conf", ACCESS)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        say(client, host.ipv4, good(), 5000)
        daemon.wait_for("reason=granted", 3)


def test_a_reader_of_connections_that_was_taken_over_gets_no_byte_out() -> None:
    outcomes = taken_over_reader.report()
    assert outcomes.pop("what the peer heard") == ""
    assert outcomes.pop("write to the channel") == outcomes.pop("read") == "done"
    assert outcomes.pop("start a thread") == "RuntimeError"
    assert len(outcomes) > 20
    assert set(outcomes.values()) == {"PermissionError"}, outcomes


def test_a_server_hears_knocks_through_a_table_that_drops_everything(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    table = (
        ruleset.guard(())
        .replace("policy accept", "policy drop", 1)
        .replace('iif "lo" accept', "meta l4proto 58 accept")
    )
    host.nft(table)
    assert not is_open(client, host.ipv4, within=0.3)
    with listener(host), doorwardd(host, tmp_path, ACCESS, f"{UDP}\n{HTTP}\n") as daemon:
        send(client, good(), host.ipv6)
        daemon.wait_for("reason=granted")
        say(client, host.ipv4, request(good()))
        daemon.wait_for("reason=granted", 2)
        assert is_open(client, host.ipv4)
    assert "62201" not in host.nft("list set inet doorward open_any")
