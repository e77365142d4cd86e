from __future__ import annotations

import fcntl
import itertools
import os
import select
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.inet6 import IPv6ExtHdrFragment as FragmentHeader
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from doorward.capture import udp
from doorward.errors import CaptureError
from doorward.values import Carriers
from system import netns
from system.capturing import PacketCapture
from system.doorwardd import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scapy.packet import Packet

    from doorward.values import Datagram
    from system.netns import Namespace

Pair = tuple["Namespace", "Namespace"]
PORT = 62201
KNOCK = bytes(range(200))
LAST = b"the last one, so that everything before it has been looked at".ljust(160)


@pytest.fixture(autouse=True)
def one_processor() -> Iterator[None]:
    """Send from one processor: each has a queue of its own for what arrives, and LAST could overtake others."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    yield
    os.sched_setaffinity(0, processors)


@pytest.fixture
def capture(pair: Pair) -> Iterator[PacketCapture]:
    with pair[0].inside():
        opened = PacketCapture([range(PORT, PORT + 1)])
    yield opened
    opened.close()


def send(client: Namespace, host: Namespace, payload: bytes, port: int = PORT, family: int = 4) -> None:
    kind, address = (socket.AF_INET, host.ipv4) if family == 4 else (socket.AF_INET6, host.ipv6)
    with client.inside(), socket.socket(kind, socket.SOCK_DGRAM) as sender:
        sender.bind(("", 40000))
        sender.sendto(payload, (address, port))


def mac(ns: Namespace) -> str:
    return ns.run("cat", "/sys/class/net/eth0/address").stdout.strip()


def send_raw(client: Namespace, *frames: bytes) -> None:
    with client.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind(("eth0", 0))
        for frame in frames:
            sender.send(frame)


def ethernet(client: Namespace, host: Namespace, packet: Packet) -> bytes:
    return bytes(Ether(src=mac(client), dst=mac(host)) / packet)


def wait_until_reachable(client: Namespace, host: Namespace) -> None:
    """Wait until a switch forwards to an interface that has just come up: what is sent before comes late or never."""
    assert eventually(lambda: not client.run("ping", "-c1", "-W1", host.ipv4, check=False).returncode)


def until_last(capture: PacketCapture, seconds: float = 10) -> list[Datagram]:
    """Return all datagrams before the one that carries LAST."""
    seen: list[Datagram] = []
    while not seen or seen[-1].payload != LAST:
        assert select.select([capture], [], [], seconds)[0], f"LAST never came, only {seen}"
        datagram = capture.receive()
        if datagram is not None:
            seen.append(datagram)
    return seen[:-1]


@pytest.mark.parametrize("family", [4, 6])
def test_a_knock_to_a_port_where_nobody_listens_is_received(pair: Pair, capture: PacketCapture, family: int) -> None:
    host, client = pair
    send(client, host, KNOCK, family=family)
    send(client, host, LAST, family=family)
    (datagram,) = until_last(capture)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    origin, destination = (client.ipv4, host.ipv4) if family == 4 else (client.ipv6, host.ipv6)
    assert datagram == (
        KNOCK,
        socket.inet_pton(kind, origin),
        socket.inet_pton(kind, destination),
        40000,
        PORT,
        17,
        None,
    )
    assert capture.receive() is None


def test_a_knock_through_a_drop_everything_firewall_is_received(pair: Pair, capture: PacketCapture) -> None:
    host, client = pair
    host.nft("table inet t { chain c { type filter hook input priority 0; policy drop; }; }")
    host.nft("add chain inet t raw { type filter hook prerouting priority raw; policy drop; }")
    client.run("ip", "neigh", "replace", host.ipv6, "lladdr", mac(host), "dev", "eth0")
    for family in (4, 6):
        send(client, host, KNOCK, family=family)
    send(client, host, LAST, family=6)
    assert sorted(len(datagram.origin) for datagram in until_last(capture)) == [4, 16]


@pytest.mark.parametrize(("length", "seen"), [(139, 0), (140, 1), (164, 1), (1472, 1)])
def test_only_payloads_of_sane_length_are_seen(pair: Pair, capture: PacketCapture, length: int, seen: int) -> None:
    host, client = pair
    send(client, host, bytes(length))
    send(client, host, LAST)
    assert [len(datagram.payload) for datagram in until_last(capture)] == [length] * seen


def test_a_jumbo_payload_is_seen_up_to_1500_bytes() -> None:
    with netns.network("host", "client", mtu=9000) as (host, client), host.inside():
        capture = PacketCapture([range(PORT, PORT + 1)])
        for length in (1500, 1501):
            send(client, host, bytes(length))
        send(client, host, LAST)
        assert [len(datagram.payload) for datagram in until_last(capture)] == [1500]
        capture.close()


def test_every_port_of_every_range_is_seen_and_no_neighbour(pair: Pair) -> None:
    host, client = pair
    with host.inside():
        capture = PacketCapture([range(62201, 62202), range(1, 3), range(65534, 65536), range(500, 510)])
    wanted = [1, 2, 500, 505, 509, 62201, 65534, 65535]
    for port in (*wanted, 3, 499, 510, 62200, 62202, 65533):
        send(client, host, KNOCK, port)
    send(client, host, LAST)
    assert sorted(datagram.destination_port for datagram in until_last(capture)) == wanted
    capture.close()


def test_a_thousand_single_ports_fit_into_the_filter(pair: Pair) -> None:
    host, client = pair
    with host.inside():
        capture = PacketCapture([range(port, port + 1) for port in (*range(1001, 4000, 2), PORT)])
    for port in (1001, 2001, 3999, 2000):
        send(client, host, KNOCK, port)
    send(client, host, LAST)
    assert [datagram.destination_port for datagram in until_last(capture)] == [1001, 2001, 3999]
    capture.close()


def test_more_ports_than_the_kernel_takes_are_an_error_and_no_open_socket() -> None:
    with pytest.raises(CaptureError, match="more than one BPF program holds"):
        PacketCapture([range(port, port + 1) for port in range(1, 10000, 2)])


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(CaptureError, match=f"port {port} is outside"):
        PacketCapture([range(port, port + 1)])


def test_what_the_host_sends_itself_is_not_seen_but_its_own_loopback_is(pair: Pair, capture: PacketCapture) -> None:
    host, client = pair
    send(host, client, KNOCK)
    send(host, host, KNOCK)
    send(client, host, LAST)
    assert [datagram.origin for datagram in until_last(capture)] == [socket.inet_aton(host.ipv4)]


def test_a_knock_to_another_hardware_address_is_not_seen(pair: Pair, capture: PacketCapture) -> None:
    host, client = pair
    host.run("ip", "link", "set", "eth0", "promisc", "on")
    packet = IP(src=client.ipv4, dst=host.ipv4) / UDP(sport=1, dport=PORT) / Raw(KNOCK)
    others = bytes(Ether(src=mac(client), dst="02:00:00:00:00:01") / packet)
    everybodys = bytes(Ether(src=mac(client), dst="ff:ff:ff:ff:ff:ff") / packet)
    send_raw(client, others, everybodys, ethernet(client, host, packet))
    send(client, host, LAST)
    assert [datagram.payload for datagram in until_last(capture)] == [KNOCK]


def ipv4_cases(client: Namespace, host: Namespace) -> Iterator[tuple[str, Packet, int]]:
    """Yield what it is, the packet, and how often it must be seen."""
    source: dict[str, Any] = {"src": client.ipv4, "dst": host.ipv4}
    udp = UDP(sport=40000, dport=PORT) / Raw(KNOCK)
    whole = len(KNOCK) + 8
    yield "plain", IP(**source) / udp, 1
    yield "options", IP(**source, options=[IPOption_NOP()] * 40) / udp, 1
    yield "four bytes of options", IP(**source, options=[IPOption_NOP()] * 4) / udp, 1
    yield "wrong UDP checksum", IP(**source) / UDP(sport=40000, dport=PORT, chksum=1) / Raw(KNOCK), 1
    padded = UDP(sport=40000, dport=PORT, len=whole) / Raw(KNOCK + b"link padding")
    yield "link padding", IP(**source, len=20 + whole) / padded, 1
    yield "a UDP length that counts the link padding", IP(**source, len=20 + whole) / udp / Raw(b"padding"), 0
    yield "do not fragment", IP(**source, flags="DF") / udp, 1
    yield "first fragment", IP(**source, flags="MF") / udp, 0
    yield "last fragment", IP(**source, frag=1) / udp, 0
    yield "far fragment", IP(**source, frag=0x1FFF) / udp, 0
    yield "header length below 20", IP(**source, ihl=4) / udp, 0
    yield "header length beyond the packet", IP(**source, ihl=15) / udp, 0
    yield "version 6 in an IPv4 frame", IP(**source, version=6) / udp, 0
    yield "TCP's number", IP(**source, proto=6) / udp, 0
    yield "UDP length one more", IP(**source) / UDP(sport=40000, dport=PORT, len=whole + 1) / Raw(KNOCK), 0
    yield "UDP length one less", IP(**source) / UDP(sport=40000, dport=PORT, len=whole - 1) / Raw(KNOCK), 0
    yield "UDP length 0", IP(**source) / UDP(sport=40000, dport=PORT, len=0) / Raw(KNOCK), 0
    yield "UDP length 65535", IP(**source) / UDP(sport=40000, dport=PORT, len=65535) / Raw(KNOCK), 0
    yield "IP length one more", IP(**source, len=21 + whole) / udp, 0
    yield "IP length 0", IP(**source, len=0) / udp, 0


def test_an_ipv4_frame_that_lies_is_not_seen(pair: Pair, capture: PacketCapture) -> None:
    host, client = pair
    for what, packet, times in ipv4_cases(client, host):
        send_raw(client, ethernet(client, host, packet))
        send(client, host, LAST)
        seen = [datagram.payload for datagram in until_last(capture)]
        assert seen == [KNOCK] * times, what


def ipv6_cases(client: Namespace, host: Namespace) -> Iterator[tuple[str, Packet, int]]:
    source: dict[str, Any] = {"src": client.ipv6, "dst": host.ipv6}
    header: Any = IPv6(**source)
    udp = UDP(sport=40000, dport=PORT) / Raw(KNOCK)
    whole = len(KNOCK) + 8
    yield "plain", IPv6(**source) / udp, 1
    yield "traffic class and flow label", IPv6(**source, tc=255, fl=0xFFFFF) / udp, 1
    yield "destination options", header / IPv6ExtHdrDestOpt() / udp, 0
    yield "atomic fragment", header / FragmentHeader(nh=17) / udp, 0
    yield "first fragment", header / FragmentHeader(nh=17, m=1) / udp, 0
    yield "payload length one more", IPv6(**source, plen=whole + 1) / udp, 0
    yield "payload length one less", IPv6(**source, plen=whole - 1) / udp, 0
    yield "payload length 0", IPv6(**source, plen=0) / udp, 0
    yield "version 4 in an IPv6 frame", IPv6(**source, version=4) / udp, 0
    yield "mapped origin", IPv6(src="::ffff:10.77.0.2", dst=host.ipv6) / udp, 0


def test_an_ipv6_frame_that_lies_is_not_seen(pair: Pair, capture: PacketCapture) -> None:
    host, client = pair
    for what, packet, times in ipv6_cases(client, host):
        send_raw(client, ethernet(client, host, packet))
        send(client, host, LAST, family=6)
        seen = [datagram.payload for datagram in until_last(capture)]
        assert seen == [KNOCK] * times, what


def test_a_frame_truncated_at_any_byte_is_not_seen(pair: Pair, capture: PacketCapture) -> None:
    host, client = pair
    for family, packet in (
        (4, IP(src=client.ipv4, dst=host.ipv4) / UDP(sport=40000, dport=PORT) / Raw(KNOCK)),
        (6, IPv6(src=client.ipv6, dst=host.ipv6) / UDP(sport=40000, dport=PORT) / Raw(KNOCK)),
    ):
        frame = ethernet(client, host, packet)
        send_raw(client, *(frame[:length] for length in range(14, len(frame))), frame)
        send(client, host, LAST, family=family)
        assert [datagram.payload for datagram in until_last(capture)] == [KNOCK]


def test_a_vlan_or_bridge_above_the_interface_shows_a_knock_once(pair: Pair) -> None:
    host, client = pair
    host.run("sh", "-ec", "ip link add br9 type bridge; ip link set br9 address $(cat /sys/class/net/eth0/address);"
             "ip link set eth0 master br9; ip link set br9 up")  # fmt: skip
    host.run("ip", "addr", "flush", "dev", "eth0")
    host.run("ip", "addr", "add", f"{host.ipv4}/24", "dev", "br9")
    with host.inside():
        capture = PacketCapture([range(PORT, PORT + 1)])
    send(client, host, KNOCK)
    send(client, host, LAST)
    assert [datagram.payload for datagram in until_last(capture)] == [KNOCK]
    capture.close()


def test_a_promiscuous_capture_hears_knocks_to_other_hardware_and_unknown_vlans(pair: Pair) -> None:
    host, client = pair
    packet = IP(src=client.ipv4, dst=host.ipv4) / UDP(sport=1, dport=PORT) / Raw(KNOCK)
    packet6 = IPv6(src=client.ipv6, dst=host.ipv6) / UDP(sport=1, dport=PORT) / Raw(KNOCK)
    ours, others = (Ether(src=mac(client), dst=address) for address in (mac(host), "02:00:00:00:00:01"))
    frames = {
        "another host's": others / packet,
        "a VLAN without an interface": ours / Dot1Q(vlan=5) / packet,
        "a VLAN without an interface, IPv6": ours / Dot1Q(vlan=5) / packet6,
        "two VLANs": ours / Dot1AD(vlan=6) / Dot1Q(vlan=5) / packet,
        "two VLANs, IPv6": ours / Dot1Q(vlan=6) / Dot1Q(vlan=5) / packet6,
    }
    with host.inside():
        captures = [PacketCapture([range(PORT, PORT + 1)], promiscuous=promiscuous) for promiscuous in (False, True)]
    for what, frame in frames.items():
        send_raw(client, bytes(frame))
        send(client, host, LAST)
        # LAST comes through another socket, and may be read before what waits already
        heard = [[one.payload for one in (*until_last(capture), *iter(capture.receive, None))] for capture in captures]
        assert heard == [[], [KNOCK]], what
    for capture in captures:
        capture.close()


def test_a_priority_tag_is_no_vlan(pair: Pair, capture: PacketCapture) -> None:
    host, client = pair
    packet = IP(src=client.ipv4, dst=host.ipv4) / UDP(sport=1, dport=PORT) / Raw(KNOCK)
    send_raw(client, bytes(Ether(src=mac(client), dst=mac(host)) / Dot1Q(vlan=0, prio=5) / packet))
    send(client, host, LAST)
    assert [datagram.payload for datagram in until_last(capture)] == [KNOCK]


def promiscuity(host: Namespace, device: str) -> int:
    return int(host.run("ip", "-d", "link", "show", device).stdout.partition("promiscuity ")[2].split()[0])


@pytest.mark.parametrize("interfaces", [[], ["eth0", "eth7"]])
def test_interfaces_become_promiscuous_when_they_come_and_no_longer_are_when_it_is_over(
    pair: Pair, interfaces: list[str]
) -> None:
    host, _ = pair
    before = promiscuity(host, "eth0")
    with host.inside():
        capture = PacketCapture([range(PORT, PORT + 1)], interfaces, promiscuous=True)
        assert promiscuity(host, "eth0") == before + 1
        host.run("ip", "link", "add", "eth7", "type", "veth", "peer", "name", "other")
        capture.refresh()
        assert promiscuity(host, "eth7") == 1
        assert promiscuity(host, "other") == (0 if interfaces else 1)
        host.run("ip", "link", "del", "eth7")
        capture.refresh()
        capture.listen(Carriers(udp=(range(PORT, PORT + 1),)), interfaces)
        assert promiscuity(host, "eth0") == before
        capture.listen(Carriers(udp=(range(PORT, PORT + 1),)), interfaces, promiscuous=True)
        assert promiscuity(host, "eth0") == before + 1
        capture.close()
        capture.end()
        assert promiscuity(host, "eth0") == before


def test_a_knock_through_a_tunnel_without_a_link_header_is_received(ns: Namespace) -> None:
    with ns.inside(), Path("/dev/net/tun").open("r+b", buffering=0) as tunnel:
        fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))  # TUNSETIFF: IFF_TUN, IFF_NO_PI
        ns.run("ip", "addr", "add", "10.99.0.1/24", "dev", "tun0")
        ns.run("ip", "link", "set", "tun0", "up")
        every, named = (PacketCapture([range(PORT, PORT + 1)], interfaces) for interfaces in ([], ["tun0"]))
        header = IP(src="10.99.0.2", dst="10.99.0.1") / UDP(sport=1, dport=PORT)
        tunnel.write(bytes(header / Raw(KNOCK)))
        tunnel.write(bytes(header / Raw(LAST)))
        for capture in (every, named):
            assert [datagram.payload for datagram in until_last(capture)] == [KNOCK]
            capture.close()


def test_two_named_interfaces_are_heard_at_once(pair: Pair) -> None:
    host, client = pair
    with host.inside():
        capture = PacketCapture([range(PORT, PORT + 1)], ["lo", "eth0"])
    send(host, host, KNOCK)
    send(client, host, LAST)
    assert [datagram.payload for datagram in until_last(capture)] == [KNOCK]
    capture.close()


def test_only_named_interfaces_are_heard(pair: Pair) -> None:
    host, client = pair
    with host.inside():
        capture = PacketCapture([range(PORT, PORT + 1)], ["eth0"])
        assert capture.refresh() is None
    send(host, host, KNOCK)  # through lo
    send(client, host, LAST)
    assert until_last(capture) == []
    capture.close()


def test_a_named_interface_that_is_missing_is_said_once_and_nothing_is_heard_until_it_comes(pair: Pair) -> None:
    host, client = pair
    with host.inside():
        named = PacketCapture([range(PORT, PORT + 1)], ["eth9"])
        every = PacketCapture([range(PORT, PORT + 1)])
        assert named.refresh() == "capture: eth9 is not there: waiting for it"
        assert named.refresh() is None
        send(client, host, LAST)
        assert until_last(every) == []
        assert named.receive() is None
        host.run("ip", "link", "set", "eth0", "down")
        host.run("ip", "link", "set", "eth0", "name", "eth9")
        host.run("ip", "link", "set", "eth9", "up")
        wait_until_reachable(client, host)
        assert (named.refresh() or "").startswith("capture: eth9 is there with index")
        send(client, host, LAST)
        assert until_last(named) == []
    named.close()
    every.close()


def test_an_interface_that_goes_and_comes_back_with_a_new_index_is_heard_again() -> None:
    with (
        netns.namespace("switch") as switch,
        netns.namespace("host", 1) as host,
        netns.namespace("client", 2) as client,
    ):
        switch.run("ip", "link", "add", "br0", "type", "bridge")
        switch.run("ip", "link", "set", "br0", "up")
        netns.plug(host, switch)
        netns.plug(client, switch)
        with host.inside():
            capture = PacketCapture([range(PORT, PORT + 1)], ["eth0"])
            host.run("ip", "link", "del", "eth0")
            assert capture.refresh() == "capture: eth0 is not there: waiting for it"
            host.run("ip", "link", "add", "br7", "type", "bridge")  # takes an index, so that eth0 gets another
            netns.plug(host, switch)
            wait_until_reachable(client, host)
            send(client, host, KNOCK)
            assert capture.receive() is None
            assert (capture.refresh() or "").startswith("capture: eth0 is there with index")
            assert capture.refresh() is None
        send(client, host, LAST)
        assert until_last(capture) == []
        capture.close()


def test_a_flood_of_one_family_does_not_starve_the_other(pair: Pair, capture: PacketCapture) -> None:
    host, client = pair
    for _ in range(500):
        send(client, host, KNOCK)
    send(client, host, LAST, family=6)
    received = itertools.takewhile(lambda datagram: datagram is not None, iter(capture.receive, None))
    places = [number for number, datagram in enumerate(received) if datagram and datagram.payload == LAST]
    assert places
    assert places[0] < 200


def test_packets_that_nobody_fetched_in_time_are_counted(pair: Pair) -> None:
    host, client = pair
    with host.inside():
        capture = PacketCapture([range(PORT, PORT + 1)], receive_buffer=4096)
    assert capture.take_dropped() == 0
    for _ in range(100):
        send(client, host, KNOCK)
    received = len(list(iter(capture.receive, None)))
    dropped = capture.take_dropped()
    assert received + dropped == 100
    assert dropped > 0
    assert capture.take_dropped() == 0
    capture.close()


def flood(client: Namespace, host: Namespace, payload: bytes, port: int, count: int) -> None:
    with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(payload, (host.ipv4, port))


def test_a_udp_server_counts_what_it_had_no_room_for_and_not_what_its_filter_refused(pair: Pair) -> None:
    host, client = pair
    with host.inside():
        (opened,) = udp.serve(PORT, addresses=["0.0.0.0"])  # noqa: S104  a namespace of the test's own
    capture = udp.UdpCapture(opened)
    flood(client, host, b"too short for a knock", PORT, 1000)
    assert capture.receive() is None
    assert capture.take_dropped() == 0
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    flood(client, host, KNOCK, PORT, 100)
    received = len(list(iter(capture.receive, None)))
    assert capture.receive() is None
    dropped = capture.take_dropped()
    assert received + dropped == 100
    assert dropped > 0
    assert capture.take_dropped() == 0
    capture.close()


def test_nothing_that_the_filter_would_drop_is_ever_queued(pair: Pair) -> None:
    host, client = pair
    flood = struct.pack("!HHHH", 1, 9, 208, 0) + KNOCK
    script = (
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_RAW,17)\n"
        f"while 1: s.sendto({flood!r},('{host.ipv4}',0))"
    )
    with client.process("python3", "-c", script), host.inside():
        for _ in range(50):
            with_one = PacketCapture([range(9, 10)])
            assert select.select([with_one], [], [], 10)[0]  # the flood is there, and would be seen
            without = PacketCapture([range(PORT, PORT + 1)])
            assert without.receive() is None
            with_one.close()
            without.close()
