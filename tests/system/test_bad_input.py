"""What the format doorward 1 endures on a real host: clocks that move, odd origins, a crowd; and its silence."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from doorward.client import identity
from doorward.config import convert
from doorward.crypto.doorward import Pair
from doorward.values import PublicKey
from doorward.wire.doorward import Kind, Message, epoch_of, serialize
from system.chaos.scene import ended, listener_of
from system.chaos.test_clock import faked
from system.doorwardd import doorwardd, eventually, is_open, send, used_store
from system.test_hearing import PASSIVE, SERVER, opens, status
from system.test_kernel_gate import (
    UNREACHABLE,
    fwknop_knock,
    received_before_a_planted_one,
    set_forward,
    wire,
)
from system.two_ends import Ends, acquainted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from system.doorwardd import Running
    from system.netns import Namespace

WAYS = {SERVER: "", PASSIVE: "PCAP_FILTER udp port 62201\n"}
TAGGED = 164
HOUR = 3600
OBSERVER = 4000  # the port of an observer's socket


@pytest.fixture
def ends(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> Iterator[Ends]:
    with acquainted(trio, tmp_path) as made:
        used_store(made.folder)
        yield made


@pytest.fixture
def clocked(ends: Ends, open_path: Path) -> Ends:
    """Both ends, for which an epoch has just begun, and whose clock can be set."""
    early = int(10 - time.time()) % 64
    made = replace(ends, extra={**faked(open_path / "clock"), "FAKED_FROM": str(early)})
    set_forward(made, 0)
    return made


def serving(
    ends: Ends, way: str, access: str | None = None, config: str = ""
) -> contextlib.AbstractContextManager[Running]:
    """A daemon that hears knocks in this way, by the clock of the ends."""
    prefix = ("env", *(f"{name}={value}" for name, value in ends.extra.items())) if ends.extra else ()
    return doorwardd(ends.host, ends.folder, access or ends.access, ends.config + WAYS[way] + config, prefix=prefix)


def knock(ends: Ends) -> bytes:
    """Send a knock and return its packet."""
    saved = ends.home / "packet"
    ends.doorward("knock", "-n", "web1", "-A", "tcp/22", "-B", str(saved))
    return base64.b64decode(saved.read_bytes())


def granted(daemon: Running) -> int:
    return sum("verdict=granted" in line for line in daemon.verdicts)


@pytest.mark.parametrize("way", WAYS)
def test_no_replay_passes_whatever_the_clock_does_and_every_good_knock_does(clocked: Ends, way: str) -> None:
    """An hour behind, back, an hour ahead, back; then ahead over a restart, which forgets old packets, and back."""
    sent: list[bytes] = []
    with serving(clocked, way) as daemon:
        assert way in daemon.wait_for("listening for knocks")
        for seconds in (0, -HOUR, 1, HOUR, 2):
            moves(clocked, daemon, seconds, sent)
    set_forward(clocked, HOUR - 200)
    with serving(clocked, way) as daemon:
        for seconds in (HOUR - 199, 3):
            moves(clocked, daemon, seconds, sent)


def moves(ends: Ends, daemon: Running, seconds: int, sent: list[bytes]) -> None:
    """Set the clock; knocks are granted within a second from then on, and what was granted before never is again."""
    before = granted(daemon)
    set_forward(ends, seconds)
    assert eventually(lambda: is_granted(ends, daemon, before, sent)), (seconds, daemon.lines)
    with ends.client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as observer:
        observer.bind(("", OBSERVER))
        for packet in sent:
            observer.sendto(packet, (ends.host.ipv4, 62201))
    before = granted(daemon)
    sent.append(knock(ends))
    daemon.wait_for("verdict=granted", before + 1)
    assert not [line for line in daemon.verdicts if f"origin_port={OBSERVER} " in line and "granted" in line]


def is_granted(ends: Ends, daemon: Running, before: int, sent: list[bytes]) -> bool:
    """Whether a fresh knock is granted; the kernel has the tags of a clock that was set within a second.

    One before that ends in the kernel: it never arrived, and a copy of it that arrives in time would be the first.
    """
    made = knock(ends)
    if not eventually(lambda: granted(daemon) > before, 1.5):
        return False
    sent.append(made)
    return True


@pytest.mark.parametrize("way", WAYS)
def test_good_knocks_pass_before_at_and_after_the_change_of_an_epoch(clocked: Ends, way: str) -> None:
    with serving(clocked, way) as daemon:
        shown = time.time() + int(clocked.extra["FAKED_FROM"])
        forward = int((62 - shown) % 64)  # a second or two before the change
        set_forward(clocked, forward)
        first, count, until = epoch_in(clocked, forward), 0, time.monotonic() + 60
        while time.monotonic() < until and not (epoch_in(clocked, forward) > first and count > 6):
            knock(clocked)
            count += 1
        assert epoch_in(clocked, forward) > first
        daemon.wait_for("verdict=granted", count)
        assert len(daemon.verdicts) == count, daemon.verdicts


def epoch_in(ends: Ends, forward: int) -> int:
    return int(time.time() + int(ends.extra["FAKED_FROM"]) + forward) // 64


def pair_of(ends: Ends) -> Pair:
    """The client's pair with the host, to make packets that no client makes."""
    key = identity.load(ends.home / ".config/doorward/client.key")
    return Pair.of_client(key.private, convert.public_line(ends.host_line)[0], None)


def authentic(ends: Ends, source: str, at: int = 12) -> bytes:
    """An authentic packet with these 16 bytes as a source, whatever they mean."""
    pair = pair_of(ends)
    message = Message(Kind.ACCESS, int(time.time() * 1000))
    plaintext = bytearray(serialize(message))
    plaintext[at : at + 16] = socket.inet_pton(socket.AF_INET6, source)
    return pair.seal(bytes(plaintext), epoch_of(message.time), os.urandom(12))


NO_SOURCES = ("::ffff:0.0.0.0", "::ffff:224.0.0.1", "::ffff:255.255.255.255", "::ffff:127.0.0.1", "::ffff:169.254.1.1",
              "::1", "::192.0.2.7", "ff02::1", "fe80::1")  # fmt: skip  # a list of addresses reads better in few lines


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_cannot_arrive_from_elsewhere_opens_nothing(ends: Ends, way: str) -> None:
    access = f"{ends.access}REQUIRE_SOURCE_ADDRESS N\n"
    with serving(ends, way, access) as daemon:
        for number, source in enumerate(NO_SOURCES, 1):
            send(ends.client, authentic(ends, source), ends.host.ipv4)
            daemon.wait_for("reason=decode", number)
        assert ends.host.run("nft", "list", "set", "inet", "doorward", "open4").stdout.count("expires") == 0
        assert ends.host.run("nft", "list", "set", "inet", "doorward", "open6").stdout.count("expires") == 0
        send(ends.client, authentic(ends, f"::ffff:{ends.client.ipv4}"), ends.host.ipv4)
        daemon.wait_for("reason=granted")
        assert is_open(ends.client, ends.host.ipv4), "made in the same way, of an address that can"


@pytest.mark.parametrize("way", WAYS)
def test_a_packet_from_a_link_local_address_lets_in_nobody_who_is_not_named(ends: Ends, way: str) -> None:
    assert eventually(lambda: all(has_settled(one) for one in (ends.host, ends.client))), "duplicates are looked for"
    local = next(
        word.partition("/")[0]
        for word in ends.host.run("ip", "-6", "-o", "addr", "show", "dev", "eth0").stdout.split()
        if word.startswith("fe80:")
    )
    with serving(ends, way, f"{ends.access}REQUIRE_SOURCE_ADDRESS N\n") as daemon, ends.client.inside():
        scope = socket.if_nametoindex("eth0")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.sendto(authentic(ends, "::"), (local, 62201, 0, scope))
            assert " origin=fe80:" in daemon.wait_for("reason=source")
            sender.sendto(authentic(ends, ends.client.ipv6), (local, 62201, 0, scope))
            daemon.wait_for("reason=granted")
    assert len(daemon.verdicts) == 2


def has_settled(member: Namespace) -> bool:
    return "tentative" not in member.run("ip", "-6", "addr", "show", "dev", "eth0").stdout


def test_ten_thousand_clients_are_served_and_a_stranger_ends_in_the_kernel(ends: Ends) -> None:
    keys = (PublicKey(number.to_bytes(2, "big") + b"\5" * 30) for number in range(10_000))
    crowd = "".join(f"CLIENT {key} crowd{number}\n" for number, key in enumerate(keys))
    with serving(ends, SERVER, ends.access + crowd) as daemon:
        assert SERVER in daemon.wait_for("listening for knocks")
        assert status(ends)["gate"]["tags"] == 30_003
        opens(ends, daemon)
        send(ends.client, os.urandom(TAGGED), ends.host.ipv4)
        assert eventually(lambda: status(ends)["packets"].get("refused_in_kernel") == 1)
        assert len(daemon.verdicts) == 1


def strange(pair: Pair, good: bytes) -> Iterator[bytes]:
    """Packets of strangers and observers: of every kind of length, of the other format, good ones again and changed."""
    live = pair.tag(epoch_of(int(time.time() * 1000)))
    yield from (os.urandom(length) for length in (0, 1, 8, 163, 165, 1400))
    yield from (os.urandom(TAGGED), good, good[:-1] + bytes([good[-1] ^ 1]), live + os.urandom(TAGGED - 8))
    yield fwknop_knock()


@contextlib.contextmanager
def unceasing(ends: Ends, packets: Callable[[], Iterator[bytes]]) -> Iterator[None]:
    """Send packets to both addresses of the host again and again during the block."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            for packet in packets():
                for address in (ends.host.ipv4, ends.host.ipv6):
                    send(ends.client, packet, address)
            over.wait(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


UNTRACKED = "table inet theirs { chain pre { type filter hook prerouting priority -400; udp dport 62201 notrack; }; }"


@pytest.mark.parametrize(
    ("way", "mode", "theirs"),
    [(SERVER, "guard", ""), (SERVER, "observe", ""), (SERVER, "observe", UNTRACKED), (PASSIVE, "guard", "")],
)
def test_the_host_sends_no_byte_back_running_restarting_or_killed(ends: Ends, way: str, mode: str, theirs: str) -> None:
    """Packets come all the time; `observe` closes nothing, so that only the gate is there to be silent."""
    ends.host.nft(theirs)
    config = f"FIREWALL_MODE {mode}\n"
    with wire(ends.client) as heard, serving(ends, way, config=config) as daemon:
        good, pair = knock(ends), pair_of(ends)
        daemon.wait_for("reason=granted")
        with unceasing(ends, lambda: strange(pair, good)):
            daemon.wait_for("verdict=denied", 10)
            daemon.process.terminate()
            daemon.process.wait(10)
            time.sleep(1)
            with serving(ends, way, config=config) as again:
                again.wait_for("verdict=denied", 10)
                os.kill(listener_of(again), signal.SIGKILL)
                again.process.wait(10)
                time.sleep(1)
                with serving(ends, way, config=config) as last:
                    last.wait_for("verdict=denied", 10)
                    listener = listener_of(last)
                    os.kill(last.process.pid, signal.SIGKILL)
                    last.process.wait(10)
                    assert eventually(lambda: ended(listener))
                    time.sleep(6)  # until the port of a server is closed again
        assert received_before_a_planted_one(heard, ends) == []
        ends.host.nft("flush ruleset")
        answers: set[tuple[int, int]] = set()
        assert eventually(lambda: answered(ends, heard, good, answers)), "a host without tables answers"


def answered(ends: Ends, heard: socket.socket, packet: bytes, answers: set[tuple[int, int]]) -> bool:
    """Send a packet to both addresses, and say whether both have answered by now."""
    for address in (ends.host.ipv4, ends.host.ipv6):
        send(ends.client, packet, address)
    answers.update(received_before_a_planted_one(heard, ends))
    return answers >= set(UNREACHABLE)
