"""Knocks out of a capture file, of every kind of link."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Raw
from scapy.utils import PcapNgWriter

from doorward.capture.pcap import FileCapture
from doorward.errors import CaptureError
from doorward.values import Carriers
from system.doorwardd import ACCESS, command, environment, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from scapy.packet import Packet

    from doorward.values import Datagram
    from system.netns import Namespace

KNOCK = bytes(range(180))
EVERYTHING = Carriers((range(62201, 62202),), (range(62201, 62202),), icmp=True)
HEADER4 = IP(src="192.0.2.1", dst="192.0.2.2")
HEADER6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
UDP4 = HEADER4 / UDP(sport=7, dport=62201) / Raw(KNOCK)
LINKS: dict[str, tuple[int, Packet]] = {
    "Ethernet": (1, ETHER),
    "Ethernet, VLAN": (1, ETHER / Dot1Q(vlan=5)),
    "Ethernet, two VLANs": (1, ETHER / Dot1AD(vlan=6) / Dot1Q(vlan=5)),
    "Ethernet, PPPoE": (1, ETHER / PPPoE(sessionid=1) / PPP()),
    "Linux cooked": (113, CookedLinux()),
    "Linux cooked, version 2": (276, CookedLinuxV2()),
    "BSD loopback": (0, Loopback()),
    "PPP": (9, PPP()),
}


def written(path: Path, link: int, *packets: Packet | bytes) -> Path:
    records = [struct.pack("<IIII", 1, 0, len(bytes(one)), len(bytes(one))) + bytes(one) for one in packets]
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link) + b"".join(records))
    return path


def read(path: Path, carriers: Carriers = EVERYTHING) -> list[Datagram]:
    capture = FileCapture(os.open(path, os.O_RDONLY), carriers)
    found = []
    try:
        while not capture.ended:
            datagram = capture.receive()
            found += [] if datagram is None else [datagram]
    finally:
        capture.close()
    return found


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("header", [HEADER4, HEADER6])
def test_a_knock_is_found_behind(tmp_path: Path, link: str, header: Packet) -> None:
    number, frame = LINKS[link]
    packet = frame / header / UDP(sport=7, dport=62201) / Raw(KNOCK)
    (datagram,) = read(written(tmp_path / "file", number, packet, bytes(packet) + b"\xde\xad\xbe\xef"))[:1]
    origin = ipaddress.ip_address(header.src).packed
    assert datagram == (KNOCK, origin, ipaddress.ip_address(header.dst).packed, 7, 62201, 17, None)


@pytest.mark.parametrize("link", [12, 101, 228, 229])
def test_a_knock_is_found_in_raw_ip(tmp_path: Path, link: int) -> None:
    packet = (HEADER6 if link == 229 else HEADER4) / UDP(sport=7, dport=62201) / Raw(KNOCK)
    assert [datagram.payload for datagram in read(written(tmp_path / "file", link, packet))] == [KNOCK]


def test_every_carrier_is_found_and_nothing_that_the_filter_does_not_name(tmp_path: Path) -> None:
    packets = [UDP4, HEADER4 / TCP(dport=62201) / Raw(KNOCK), HEADER4 / ICMP() / Raw(KNOCK)]
    others = [
        HEADER4 / UDP(dport=53) / Raw(KNOCK),
        HEADER4 / TCP(dport=80) / Raw(KNOCK),
        HEADER4 / UDP(dport=62201) / Raw(b"short"),
    ]
    path = written(tmp_path / "file", 1, *(ETHER / packet for packet in (*packets, *others)), b"", b"x", b"x" * 3000)
    assert [datagram.protocol for datagram in read(path)] == [17, 6, 1]
    assert [datagram.protocol for datagram in read(path, Carriers(udp=(range(62201, 62202),)))] == [17]
    assert [datagram.protocol for datagram in read(path, Carriers(echo=True))] == [1]
    assert read(path, Carriers()) == []


def test_a_pcapng_file_is_read(tmp_path: Path) -> None:
    with PcapNgWriter(str(tmp_path / "file")) as writer:
        for _ in range(3):
            writer.write(ETHER / UDP4)
    assert len(read(tmp_path / "file")) == 3


def test_an_empty_capture_has_no_knock(tmp_path: Path) -> None:
    assert read(written(tmp_path / "file", 1)) == []


def test_a_link_that_scapy_does_not_know_has_no_knock(tmp_path: Path) -> None:
    assert read(written(tmp_path / "file", 147, ETHER / UDP4)) == []


@pytest.mark.parametrize("content", [b"", b"x", b"no capture file at all" * 10, b"\x1f\x8b\x08" + bytes(30)])
def test_what_is_no_capture_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CaptureError, match="the capture file is damaged"):
        read(tmp_path / "file")


def test_a_file_that_is_cut_anywhere_is_an_error_but_between_records(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", 1, ETHER / UDP4, ETHER / UDP4).read_bytes()
    record = (len(whole) - 24) // 2
    for length in range(len(whole)):
        (tmp_path / "file").write_bytes(whole[:length])
        if length in {24, 24 + record}:
            assert len(read(tmp_path / "file")) == (length - 24) // record
            continue
        with pytest.raises(CaptureError, match=r"the capture file is (damaged|cut short)"):
            read(tmp_path / "file")


def test_a_record_that_claims_gigabytes_is_an_error(tmp_path: Path) -> None:
    written(tmp_path / "file", 1)
    with (tmp_path / "file").open("ab") as file:
        file.write(struct.pack("<IIII", 1, 0, 0xFFFFFFF0, 0xFFFFFFF0) + bytes(10_000))
    with pytest.raises(CaptureError, match="the capture file is"):
        read(tmp_path / "file")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_changed_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    kind: Any = data.draw(st.sampled_from(["pcap", "pcapng"]))
    path = tmp_path / "file"
    if kind == "pcap":
        written(path, 1, ETHER / UDP4, ETHER / UDP4)
    else:
        with PcapNgWriter(str(path)) as writer:
            writer.write(ETHER / UDP4)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(CaptureError):
        assert len(read(path)) <= 2


def run(host: Namespace, folder: Path, *arguments: str, config: str = "") -> subprocess.CompletedProcess[str]:
    write(folder / "access.conf", ACCESS)
    write(folder / "doorwardd.conf", f"FIREWALL_FILE {folder}/firewall.nft;\n{config}")
    files = ("-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf"), "-r", str(folder / "run"))
    return host.run(*command("-f", *files, *arguments), env=environment(), check=False)


def knocks(times: Sequence[int]) -> list[Packet]:
    made = [payload(message(text="192.0.2.7,tcp/22", time=moment), KEYS) for moment in times]
    return [ETHER / HEADER4 / UDP(sport=7, dport=62201) / Raw(packet) for packet in made]


@pytest.mark.parametrize("by", ["option", "setting"])
def test_a_file_is_read_to_its_end_and_its_packets_do_not_age(ns: Namespace, tmp_path: Path, by: str) -> None:
    old, new = knocks([1_000_000_000, int(time.time())])
    path = written(tmp_path / "file", 1, old, new, old)
    option = ("--pcap-file", str(path)) if by == "option" else ()
    ended = run(ns, tmp_path, *option, config="" if option else f"PCAP_FILE {path}\n")
    assert ended.returncode == 0, ended.stderr
    verdicts = [line for line in ended.stderr.splitlines() if line.startswith("verdict=")]
    assert [line.split()[1] for line in verdicts] == ["reason=granted", "reason=granted", "reason=replay"]
    assert "192.0.2.7" in ns.run("nft", "list", "set", "inet", "doorward", "open4").stdout


def test_a_damaged_file_is_one_clear_line(ns: Namespace, tmp_path: Path) -> None:
    path = written(tmp_path / "file", 1, *knocks([int(time.time())]))
    with path.open("ab") as file:
        file.write(b"\1\2\3")
    ended = run(ns, tmp_path, "--pcap-file", str(path))
    assert ended.returncode == 1
    assert "reason=granted" in ended.stderr
    assert [line for line in ended.stderr.splitlines() if "capture file" in line and line.startswith("doorwardd:")]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("path", ["/nowhere/file", "/dev/zero", "/"])
def test_a_file_that_is_none_is_a_clear_error(ns: Namespace, tmp_path: Path, path: str) -> None:
    ended = run(ns, tmp_path, "--pcap-file", path)
    assert ended.returncode == 1
    assert path in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_scapy_its_package_is_named(ns: Namespace, tmp_path: Path) -> None:
    path = written(tmp_path / "file", 1, *knocks([int(time.time())]))
    write(tmp_path / "access.conf", ACCESS)
    (tmp_path / "scapy").mkdir()
    (tmp_path / "scapy/__init__.py").write_text("raise ImportError('not here')\n")
    env = environment()
    files = ("-a", str(tmp_path / "access.conf"), "-r", str(tmp_path / "run"))
    ended = ns.run(
        *command("-f", *files, "--pcap-file", str(path)),
        env={**env, "PYTHONPATH": f"{tmp_path}:{env['PYTHONPATH']}"},
        check=False,
    )
    assert ended.returncode == 1
    assert "needs scapy (Debian's package python3-scapy)" in ended.stderr
