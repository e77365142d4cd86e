"""The same tags in front of a passive capture, as the filter of its sockets, and what becomes of too many."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING

import pytest

from doorward.capture.bpf import TAGGED, Formats
from doorward.capture.packet import PacketCapture, Taps
from doorward.values import Carriers
from system.doorwardd import ACCESS, doorwardd, send, used_store, write
from system.test_kernel_gate import fwknop_knock
from system.two_ends import Ends, acquainted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

PORT = 62201
TAGS = tuple(number.to_bytes(4, "big") + bytes(4) for number in range(1, 1001))
DOORWARD = Formats(fwknop=False, doorward=True)


@pytest.fixture
def ends(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> Iterator[Ends]:
    with acquainted(trio, tmp_path) as made:
        used_store(made.folder)
        yield made


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_only_what_begins_like_a_live_tag_wakes_the_listener(ends: Ends, family: str) -> None:
    address = getattr(ends.host, family)
    with doorwardd(ends.host, ends.folder, ends.access, f"{ends.config}ENABLE_UDP_SERVER N\n") as daemon:
        for length in (0, 8, 163, 165, 1400, *[TAGGED] * 50):
            send(ends.client, os.urandom(length), address)
        send(ends.client, fwknop_knock(), address)
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted")
        assert len(daemon.verdicts) == 1, daemon.verdicts
        write(ends.folder / "access.conf", ends.access + ACCESS)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        send(ends.client, os.urandom(TAGGED), address)
        send(ends.client, fwknop_knock(), address)
        daemon.wait_for("reason=granted", 2)  # of the kind that was refused before
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 3)
        assert len(daemon.verdicts) == 3, daemon.verdicts
        write(ends.folder / "access.conf", ACCESS)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again", 2)
        send(ends.client, os.urandom(TAGGED), address)
        daemon.wait_for("reason=malformed")  # without clients it is a packet like others


@contextlib.contextmanager
def tapping(host: Namespace, formats: Formats = DOORWARD) -> Iterator[Taps]:
    with host.inside(), contextlib.closing(Taps(Carriers(udp=(range(PORT, PORT + 1),)), formats=formats)) as taps:
        yield taps


def heard(taps: Taps, client: Namespace, host: Namespace) -> tuple[bool, bool]:
    """Whether a packet with one of the tags passes, and one with none of them."""
    found: list[bytes] = []
    capture = PacketCapture([one.dup() for one in taps.sockets])
    with contextlib.closing(capture):
        for packet in (b"stranger".ljust(TAGGED, b"s"), TAGS[7].ljust(TAGGED, b"k")):
            send(client, packet, host.ipv4, PORT)
        while select.select([capture], [], [], 0.5 if found else 10)[0]:
            datagram = capture.receive()
            if datagram is not None:
                found.append(datagram.payload)
    assert all(len(payload) == TAGGED for payload in found)
    return any(payload.startswith(TAGS[7]) for payload in found), any(b"stranger" in payload for payload in found)


def test_tags_for_which_the_kernel_has_no_room_all_pass_and_one_line_says_so(
    pair: tuple[Namespace, Namespace],
) -> None:
    host, client = pair
    with tapping(host) as taps:
        assert heard(taps, client, host) == (True, True), "nobody has named tags"
        host.run("sysctl", "-q", "-w", "net.core.optmem_max=8192")
        line = taps.let_pass(TAGS)
        assert line == (
            "capture: the filter of 1000 tags is more than net.core.optmem_max has room for: packets of 164 bytes pass "
            "whatever their tag"
        )
        assert heard(taps, client, host) == (True, True)
        assert taps.let_pass(TAGS) is None, "once"
        assert taps.let_pass(TAGS[:50]) == "capture: the filter has room for the tags again"
        assert heard(taps, client, host) == (True, False)
        host.run("sysctl", "-q", "-w", "net.core.optmem_max=131072")
        assert taps.let_pass(TAGS) is None
        assert heard(taps, client, host) == (True, False)


def test_a_refresh_needs_room_for_one_filter_and_not_for_two(pair: tuple[Namespace, Namespace]) -> None:
    host, client = pair
    with tapping(host) as taps:
        host.run("sysctl", "-q", "-w", "net.core.optmem_max=20480")
        for first in (0, 1, 2):
            assert taps.let_pass(TAGS[first : 700 + first]) is None
            assert heard(taps, client, host) == (True, False)


def test_more_tags_than_a_program_holds_all_pass(pair: tuple[Namespace, Namespace]) -> None:
    host, client = pair
    with tapping(host) as taps:
        line = taps.let_pass([(number << 8).to_bytes(4, "big") for number in range(4096)])
        assert line is not None
        assert "4096 tags are more than one BPF program holds: packets of 164 bytes pass whatever their tag" in line
        assert heard(taps, client, host) == (True, True)
        assert taps.let_pass(TAGS) == "capture: the filter has room for the tags again"
        assert taps.refresh() is None
        assert heard(taps, client, host) == (True, False)
