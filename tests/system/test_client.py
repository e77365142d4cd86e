"""The client on a real network: every carrier over both families, and its own address from a real site and server."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.dns import DNS, DNSRR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from doorward.crypto.symmetric import unseal
from doorward.errors import DoorwardError
from doorward.values import Secret, SymmetricKeys
from doorward.wire import fwknop
from unit.client.web import certificate, saying, site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
RC_FILE = f"[default]\nKEY {'k' * 32}\nHMAC_KEY {'h' * 64}\nSPOOF_USER alice\n"
ETH_P_ALL = 3
CARRIERS = ["udp", "tcp", "http", "udpraw", "tcpraw", "icmp"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / ".fwknoprc"
    path.write_text(RC_FILE)
    path.chmod(0o600)
    return tmp_path


def doorward(
    client: Namespace, home: Path, *words: str, check: bool = True, user: str | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the client program inside a namespace."""
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # our code may lie in /root
    becoming = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *reading] if user else []
    return client.run(
        *becoming,
        sys.executable,
        "-m",
        "doorward",
        *words,
        check=check,
        env={**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home), **environ},
    )


@contextlib.contextmanager
def sniffing(host: Namespace) -> Iterator[socket.socket]:
    """Yield a socket that sees every frame which arrives at a namespace."""
    with host.inside():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with sniffer:
        sniffer.bind(("eth0", ETH_P_ALL))
        sniffer.settimeout(10)
        yield sniffer


def message_in(payload: bytes) -> fwknop.Message | None:
    """Return the message that a payload carries, bare or in a request."""
    text = payload.partition(b"GET /")[2].partition(b" ")[0].translate(bytes.maketrans(b"-_", b"+/")) or payload
    try:
        return fwknop.parse(unseal(text, KEYS))
    except DoorwardError:
        return None


def first_knock(sniffer: socket.socket) -> tuple[Any, fwknop.Message]:
    """Return the first frame that carries a knock, and its message."""
    while True:
        frame = Ether(sniffer.recv(4096))
        network = frame.getlayer(IP) or frame.getlayer(IPv6)
        if network is None:
            continue
        carried = bytes(network.payload)
        head = {6: (carried[12] >> 4) * 4 if len(carried) > 12 else 0, 17: 8, 1: 8, 58: 8}
        content = carried[head.get(network.proto if isinstance(network, IP) else network.nh, 0) :]
        message = message_in(content)
        if message is not None:
            return network, message


def accept(host: Namespace, address: str, port: int) -> socket.socket:
    """Return a listener inside a namespace; the kernel accepts for it."""
    with host.inside():
        return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_knock_arrives_in_every_carrier(
    pair: tuple[Namespace, Namespace], home: Path, carrier: str, family: str
) -> None:
    host, client = pair
    to, own = getattr(host, family), getattr(client, family)
    with sniffing(host) as sniffer, accept(host, to, 62201):
        doorward(client, home, "-A", "tcp/22", "-D", to, "-P", carrier)
        network, message = first_knock(sniffer)
    assert message.text == f"{own},tcp/22"
    assert message.user == "alice"
    if carrier.endswith("raw") or carrier == "icmp":
        assert (network.ttl if family == "ipv4" else network.hlim) == 255
    if carrier == "tcpraw":
        assert network.payload.flags == "S"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("carrier", ["udpraw", "tcpraw", "icmp"])
def test_a_raw_packet_comes_from_whom_it_is_told_to(
    pair: tuple[Namespace, Namespace], home: Path, carrier: str, family: str
) -> None:
    host, client = pair
    spoofed = {"ipv4": "10.77.0.99", "ipv6": "fd77::99"}[family]
    with sniffing(host) as sniffer:
        doorward(client, home, "-A", "tcp/22", "-s", "-D", getattr(host, family), "-P", carrier, "-Q", spoofed)
        network, message = first_knock(sniffer)
    assert network.src == spoofed
    assert message.text == "0.0.0.0,tcp/22"


@pytest.mark.parametrize("carrier", ["udpraw", "tcpraw", "icmp"])
def test_only_root_makes_headers(pair: tuple[Namespace, Namespace], home: Path, carrier: str) -> None:
    host, client = pair
    home.chmod(0o755)
    words = ["-A", "tcp/22", "-D", host.ipv4, "--no-rc-file", "--no-home-dir", "--key-rijndael", "x"]
    done = doorward(client, home, *words, "-P", carrier, check=False, user="65534")
    assert done.returncode == 4
    assert f"-P {carrier} makes its own headers, which needs root" in done.stderr
    assert doorward(client, home, *words, user="65534").returncode == 0


def test_a_random_port_is_a_high_one_and_another_each_time(pair: tuple[Namespace, Namespace], home: Path) -> None:
    host, client = pair
    ports = set()
    with sniffing(host) as sniffer:
        for _ in range(3):
            doorward(client, home, "-A", "tcp/22", "-D", host.ipv4, "-r")
            ports.add(first_knock(sniffer)[0][UDP].dport)
    assert len(ports) > 1
    assert min(ports) >= 10_000


def test_the_source_port_of_a_raw_packet_can_be_named(pair: tuple[Namespace, Namespace], home: Path) -> None:
    host, client = pair
    with sniffing(host) as sniffer:
        doorward(client, home, "-A", "tcp/22", "-D", host.ipv4, "-P", "tcpraw", "-S", "4242", "-p", "443")
        network, _ = first_knock(sniffer)
    assert (network[TCP].sport, network[TCP].dport) == (4242, 443)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("words", [("-R",), ("-w", "-v"), ()], ids=["-R", "1.9's -w", "the site alone"])
def test_the_own_address_comes_from_a_site_over_tls(
    trio: tuple[Namespace, Namespace, Namespace], home: Path, family: str, words: tuple[str, ...]
) -> None:
    host, client, outsider = trio
    seen = {"ipv4": "10.77.0.200", "ipv6": "fd77::200"}[family]
    pem = certificate(home, outsider.ipv4, outsider.ipv6)
    with sniffing(host) as sniffer, outsider.inside(), site(saying(seen), pem, getattr(outsider, family)) as url:
        knock = ["-A", "tcp/22", *words, "-D", getattr(host, family), "--resolve-url", url]
        doorward(client, home, *knock, SSL_CERT_FILE=str(pem))
        assert first_knock(sniffer)[1].text == f"{seen},tcp/22"
        refused = doorward(client, home, *knock, check=False, SSL_CERT_FILE="/dev/null")
    assert refused.returncode == 1
    assert "certificate verify failed" in refused.stderr


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_own_address_comes_from_a_name_server(
    trio: tuple[Namespace, Namespace, Namespace], home: Path, family: str
) -> None:
    host, client, outsider = trio
    server = getattr(outsider, family)
    kind = {"ipv4": "A", "ipv6": "AAAA"}[family]
    with outsider.inside():
        responder = socket.socket(socket.AF_INET if family == "ipv4" else socket.AF_INET6, socket.SOCK_DGRAM)
        responder.bind((server, 53))
    with responder, sniffing(host) as sniffer:
        responder.settimeout(20)

        def respond() -> None:
            query, asker = responder.recvfrom(2048)
            asked = DNS(query)
            record = DNSRR(rrname=asked.qd[0].qname, type=kind, rdata=asker[0])
            responder.sendto(bytes(DNS(id=asked.id, qr=1, qd=asked.qd, an=[record])), asker)

        answering = threading.Thread(target=respond)
        answering.start()
        name = f"me.example@{server if family == 'ipv4' else f'[{server}]'}"
        doorward(client, home, "-A", "tcp/22", "--resolve-dns", name, "-D", getattr(host, family))
        answering.join()
        assert first_knock(sniffer)[1].text == f"{getattr(client, family)},tcp/22"


@pytest.mark.parametrize("carrier", ["udp", "tcp", "http"])
def test_connect_knocks_in_the_stanzas_carrier_and_dials_its_nat_port(
    pair: tuple[Namespace, Namespace], home: Path, carrier: str
) -> None:
    host, client = pair
    with (home / ".fwknoprc").open("a") as rc_file:
        rc_file.write(f"[gate]\nSPA_SERVER {host.ipv4}\nSPA_SERVER_PROTO {carrier}\nNAT_LOCAL Y\nNAT_PORT 5022\n")
    with sniffing(host) as sniffer, accept(host, host.ipv4, 62201), accept(host, host.ipv4, 5022) as inner:
        inner.settimeout(20)
        words = [sys.executable, "-m", "doorward", "connect", host.ipv4, "22"]
        environ = {**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home)}
        with client.process(*words, env=environ, stdin=subprocess.PIPE) as program:
            connection, _ = inner.accept()
            with connection:
                connection.sendall(b"hello\n")
                assert program.stdout is not None
                assert program.stdout.readline() == "hello\n"
        message = first_knock(sniffer)[1]
    assert message.text == f"{client.ipv4},tcp/5022"
    assert message.nat_access == f"{host.ipv4},22"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("name", ["hidden.invalid", "known"])
def test_a_proxy_gets_the_request_for_a_host_that_only_it_may_know(
    trio: tuple[Namespace, Namespace, Namespace], home: Path, family: str, name: str
) -> None:
    host, client, outsider = trio
    proxy, own = getattr(outsider, family), getattr(client, family)
    to = getattr(host, family) if name == "known" else name
    shown = {"ipv4": "{}", "ipv6": "[{}]"}[family].format
    with accept(outsider, proxy, 3128) as listener, sniffing(host) as sniffer:
        listener.settimeout(20)
        heads = []

        def pass_on() -> None:
            connection, _ = listener.accept()
            with connection:
                heads.append(connection.recv(4096).decode())
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

        passing = threading.Thread(target=pass_on)
        passing.start()
        source = ["-a", own] if name != "known" else []
        doorward(client, home, "-A", "tcp/22", "-D", to, *source, "-H", f"http://{shown(proxy)}:3128")
        passing.join()
        sniffer.settimeout(0)
        arrived = []
        with contextlib.suppress(BlockingIOError):
            while True:
                arrived.append(sniffer.recv(4096))
        assert not any(b"GET /" in frame for frame in arrived)
    lines = heads[0].split("\r\n")
    start = f"GET http://{to if name != 'known' else shown(to)}/"
    assert lines[0].startswith(start)
    assert lines[3] == f"Host: {shown(proxy)}"
    message = message_in(b"GET /" + lines[0].removeprefix(start).encode())
    assert message is not None
    assert message.text == f"{own},tcp/22"


def test_the_saved_packet_is_the_one_that_is_sent_and_nobody_else_can_read_it(
    pair: tuple[Namespace, Namespace], home: Path
) -> None:
    host, client = pair
    kept = home / "packet"
    with sniffing(host) as sniffer:
        for words in (["-B", str(kept)], ["-b", "-B", str(kept)], ["-b", "-B", str(kept)]):
            doorward(client, home, "-A", "tcp/22", "-D", host.ipv4, *words)
        sent: list[bytes] = []
        while len(sent) < 3:
            network, message = first_knock(sniffer)
            sent.append(bytes(network[UDP].payload))
    assert kept.read_bytes().split() == sent
    assert kept.stat().st_mode & 0o777 == 0o600
    doorward(client, home, "-A", "tcp/22", "-D", host.ipv4, "-B", str(kept))
    assert len(kept.read_bytes().split()) == 1
    assert message.time <= time.time()


def test_a_link_named_fwknop_is_fwknops_client(pair: tuple[Namespace, Namespace], home: Path) -> None:
    host, client = pair
    program = home / "doorward"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom doorward.console import main\nsys.exit(main())\n")
    program.chmod(0o755)
    (home / "fwknop").symlink_to(program)
    environ = {**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home)}
    with sniffing(host) as sniffer:
        client.run(str(home / "fwknop"), "-A", "tcp/22", "-s", "-k", host.ipv4, env=environ)
        assert first_knock(sniffer)[1].text == "0.0.0.0,tcp/22"
    assert "FKO protocol version 3.0.0" in client.run(str(home / "fwknop"), "-V", env=environ).stdout
    assert "-A SERVICES" in client.run(str(home / "fwknop"), "--help", env=environ).stdout
    assert "connect" in client.run(str(program), "--help", env=environ).stdout
