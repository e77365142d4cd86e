"""Good knocks in a flood of garbage: doorwardd with both formats and Debian's fwknopd in both modes, in one run.

Every 100 ms a knock comes from a source that has no grant, amid the garbage that a generator sends from a core of its
own. The daemon has the other core; the echo service, and whoever looks at the doors, run beside the generator, as the
rest of the world would. One JSON object a line: `garbage_pps_seen` is what the host's interface received, `granted`
counts the doors that opened within PATIENCE_SECONDS, `daemon_cpu_s` is the CPU time of the daemon's processes over
`seconds`, `others_cpu_s` what anything else took of its core meanwhile: a line where that is much says little. All of
this runs at a high priority, for the same reason. The kinds:

    none      no garbage: shows that every knock is granted where nothing disturbs
    random    as long as a knock, random bytes
    shaped    as long as a knock, and as good as a stranger can make it. Of fwknop's format: base64, passing every test
              before the MAC. Of doorward 1: with a tag of its client, of an epoch that is over
    replayed  good packets that were used before, and may not be used again
    right_tag of doorward 1 alone: a tag of the present epoch, and random bytes; who has seen a knock can make it

`doorwardd-public-nft` has the format doorward 1 at a UDP server behind the kernel gate, `doorwardd-public-bpf` with
passive capture.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import peers

from doorward.wire.doorward import epoch_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

GENERATOR = Path(__file__).with_name("generator.py")
KINDS = ("random", "shaped", "replayed", "right_tag")
SYSTEMS = (*peers.PEERS, *peers.GATED)
RATES = (1_000, 5_000, 20_000, 100_000, math.inf)  # packets/s; the last is the generator's own maximum
KNOCK_INTERVAL = 0.1  # seconds
PATIENCE_SECONDS = 1.0  # a knock that took longer is one that its user has given up
LEAD_SECONDS = 0.5  # of garbage before the first knock: the queues are full by then
FRAMES = 1024  # different ones, each from another address
USED_PACKETS = 32
PAST = -10  # epochs: a tag that is out of the gate, and stays out
PROBE_SECONDS, LATE_PROBE_SECONDS = 0.0005, 0.005  # between two looks at a door in its first 20 ms, and later
PROBED_OFTEN_SECONDS = 0.02


@dataclass
class _Door:
    """A door that somebody is to knock at: from which source, and from when to look at it."""

    source: str
    due: float
    next_probe: float


@dataclass
class Watcher:
    """Looks at the doors of a host: probes its echo service from every source that knocks, until it answers."""

    client: Namespace
    host: Namespace
    opened: dict[str, float] = field(default_factory=dict)  # source: time of perf_counter()
    _doors: dict[socket.socket, _Door] = field(default_factory=dict)

    def run(self, sources: list[str], start: float) -> None:
        """Watch for the sources, which knock KNOCK_INTERVAL apart from `start` on, until they have or gave up."""
        for number, source in enumerate(sources):
            due = start + number * KNOCK_INTERVAL
            self._watch(due)
            probe = peers.open_socket(self.client, source, (self.host.ipv4, peers.ECHO_PORT))
            self._doors[probe] = _Door(source, due, due)
        while self._doors:
            self._watch(time.perf_counter() + PROBE_SECONDS)

    def _watch(self, until: float) -> None:
        """Probe and take answers until `until`."""
        while (now := time.perf_counter()) < until:
            for probe, door in list(self._doors.items()):
                if now - door.due > PATIENCE_SECONDS:
                    self._forget(probe)
                elif now >= door.next_probe:
                    self._probe(probe, door, now)
            wake = min([until, *(door.next_probe for door in self._doors.values())])
            for probe in select.select(self._doors, [], [], max(0.0, wake - time.perf_counter()))[0]:
                self._take(probe)

    def _probe(self, probe: socket.socket, door: _Door, now: float) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            probe.send(b"?")
        door.next_probe = now + (PROBE_SECONDS if now - door.due < PROBED_OFTEN_SECONDS else LATE_PROBE_SECONDS)

    def _take(self, probe: socket.socket) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            probe.recv(64)
            self.opened[self._doors[probe].source] = time.perf_counter()
            self._forget(probe)

    def _forget(self, probe: socket.socket) -> None:
        del self._doors[probe]
        probe.close()


def payloads(peer: peers.Peer, kind: str, used: list[bytes]) -> list[bytes]:
    """Return FRAMES payloads of a kind of garbage; `used` are good packets that were."""
    if kind == "replayed":
        return [used[number % len(used)] for number in range(FRAMES)]
    if kind == "random":
        return [os.urandom(len(used[0])) for _ in range(FRAMES)]
    if not peer.public_keys:
        return [peers.shaped() for _ in range(FRAMES)]
    # The host passes a tag of the next epoch, too: a flood may go on for a second of that one.
    epoch = epoch_of(time.time_ns() // 1_000_000) + (PAST if kind == "shaped" else 0)
    tag = peers.PAIR.tag(epoch)
    return [tag + os.urandom(len(used[0]) - len(tag)) for _ in range(FRAMES)]


def plays(peer: peers.Peer, kind: str) -> bool:
    """Say whether a kind of garbage can be made for a peer."""
    return peer.public_keys or kind != "right_tag"


def strange_address(number: int) -> str:
    """Return one of the addresses that garbage comes from."""
    return f"10.78.{number // 250}.{1 + number % 250}"


@dataclass(frozen=True)
class Wire:
    """Makes Ethernet frames from one namespace to another's knock port."""

    hardware: bytes  # the header of every frame: to, from, IPv4
    target: bytes

    @classmethod
    def between(cls, sender: Namespace, host: Namespace) -> Wire:
        """Return the wire from `sender` to `host`."""
        return cls(_hardware(host) + _hardware(sender) + b"\x08\x00", socket.inet_aton(host.ipv4))

    def frame(self, origin: str, payload: bytes, port: int = peers.KNOCK_PORT) -> str:
        """Return a frame in hexadecimal that carries `payload` to a UDP port as if from `origin`."""
        length = 28 + len(payload)
        words = struct.pack("!BBHHHBB", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_UDP)
        addresses = socket.inet_aton(origin) + self.target
        checksum = struct.pack("!H", _checksum(words + b"\0\0" + addresses))
        udp = struct.pack("!HHHH", 20_000, port, length - 20, 0)  # 0: no checksum (RFC 768)
        return (self.hardware + words + checksum + addresses + udp + payload).hex()


def _checksum(header: bytes) -> int:
    """Return the Internet checksum of an IP header (RFC 1071)."""
    total: int = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _hardware(member: Namespace) -> bytes:
    """Return the Ethernet address of a namespace's interface."""
    (link,) = json.loads(member.run("ip", "-j", "link", "show", "eth0").stdout)
    return bytes.fromhex(link["address"].replace(":", ""))


def received(host: Namespace) -> int:
    """Return how many packets the interface of a host has received so far."""
    (link,) = json.loads(host.run("ip", "-s", "-j", "link", "show", "eth0").stdout)
    count: int = link["stats64"]["rx"]["packets"]
    return count


def core_seconds(core: int) -> float:
    """Return how long a core has been busy so far, or was kept from us by the machine's own host (proc(5), stat)."""
    line = Path("/proc/stat").read_text().splitlines()[1 + core].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def readings(host: Namespace, daemon: int) -> tuple[float, ...]:
    """Return packets received, CPU time of the daemon and of its core, and the time, each so far."""
    return received(host), peers.cpu_seconds(daemon), core_seconds(peers.DAEMON_CORE), time.perf_counter()


@contextlib.contextmanager
def generating(stranger: Namespace, order: dict[str, object]) -> Iterator[subprocess.Popen[str]]:
    """Yield the generator in a namespace, which has just begun with its order."""
    argv = (sys.executable, "-S", str(GENERATOR))
    with stranger.process(*argv, stdin=subprocess.PIPE) as generator:
        if generator.stdin is None or generator.stdout is None:
            raise AssertionError
        generator.stdin.write(json.dumps(order) + "\n")
        generator.stdin.flush()
        if generator.stdout.readline() != "ready\n":
            message = "the generator did not start"
            raise SystemExit(message)
        generator.stdin.write("\n")
        generator.stdin.flush()
        yield generator


@dataclass(frozen=True)
class Scene:
    """One host, one daemon, and how long the knocks go on."""

    client: Namespace
    stranger: Namespace
    host: Namespace
    folder: Path
    seconds: float

    def play(self, peer: peers.Peer, kind: str, rate: float, sources: list[str]) -> dict[str, object]:
        """Return the result line of one daemon under one kind of garbage at one rate; the first two sources prepare."""
        with peers.running(peer, self.host, self.folder) as daemon:
            peers.await_ready(self.client, self.host, sources[0], made=peer.knock)
            used = self._use(peer, sources[0])
            # whatever came before has been read
            peers.await_ready(self.client, self.host, sources[1], interval=0.5, made=peer.knock)
            peers.pin(daemon, peers.DAEMON_CORE)
            garbage = payloads(peer, kind, used)
            wire = Wire.between(self.stranger, self.host)
            order = {
                "garbage": [wire.frame(strange_address(n), payload) for n, payload in enumerate(garbage)],
                "knocks": [wire.frame(source, peer.knock(source)) for source in sources[2:]],
                "rate": rate,
                "seconds": LEAD_SECONDS + self.seconds + PATIENCE_SECONDS,
            }
            figures = self._flood(daemon, order, sources[2:])
        return {"system": peer.name, "kind": kind, "garbage_pps": rate if rate < math.inf else "max", **figures}

    def _use(self, peer: peers.Peer, source: str) -> list[bytes]:
        """Return USED_PACKETS good packets that the daemon has been sent, each once."""
        packets = [peer.knock(source) for _ in range(USED_PACKETS)]
        with peers.open_socket(self.client, source, (self.host.ipv4, peers.KNOCK_PORT)) as door:
            for packet in packets:
                with contextlib.suppress(ConnectionRefusedError):
                    door.send(packet)
                time.sleep(0.01)
        return packets

    def _flood(self, daemon: int, order: dict[str, object], sources: list[str]) -> dict[str, object]:
        """Return the figures of one flood."""
        order |= {"interface": "eth0", "lead": LEAD_SECONDS, "interval": KNOCK_INTERVAL}
        watcher = Watcher(self.client, self.host)
        with generating(self.stranger, order) as generator:
            start = time.perf_counter()
            time.sleep(LEAD_SECONDS / 2)
            before = readings(self.host, daemon)
            watcher.run(sources, start + LEAD_SECONDS)
            after = readings(self.host, daemon)
            knocked = json.loads(generator.communicate(timeout=30)[0])["knocked"]
        seen, cpu, core, seconds = (late - early for early, late in zip(before, after, strict=True))
        sent = dict(zip(sources, knocked, strict=False))
        times = [(opened - sent[source]) * 1000 for source, opened in watcher.opened.items()]
        return {
            "garbage_pps_seen": round(seen / seconds) if order["rate"] else 0,
            "knocks": len(knocked),
            "granted": len(times),
            "p50_ms": round(statistics.median(times), 3) if times else None,
            "max_ms": round(max(times), 3) if times else None,
            "daemon_cpu_s": round(cpu, 3),
            "others_cpu_s": round(max(0.0, core - cpu), 2),
            "seconds": round(seconds, 2),
        }


def play(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield one result line after the other: kind by kind, rate by rate, the daemons in turn."""
    chosen = peers.chosen(options.systems, SYSTEMS)
    per_line = 2 + round(options.seconds / KNOCK_INTERVAL)
    cells = [("none", 0.0), *((kind, rate) for kind in options.kinds.split(",") for rate in options.rates)]
    peers.begin(peers.WORLD_CORE)  # with all that is started from here; only the daemon is moved
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        labels = [peer.name[-12:] for peer in chosen]
        client, stranger, *hosts = stack.enter_context(peers.network("client", "stranger", *labels))
        peers.routes(*hosts)
        sources = peers.add_sources(client, len(cells) * per_line)
        for number, (kind, rate) in enumerate(cells):
            own = sources[number * per_line :][:per_line]
            for peer, host in zip(chosen, hosts, strict=True):
                if not plays(peer, kind):
                    continue
                scene = Scene(client, stranger, host, folder / f"{number}{peer.name}", options.seconds)
                yield scene.play(peer, kind, rate, own)


def _rates(text: str) -> list[float]:
    return [math.inf if word == "max" else int(word) for word in text.split(",")]


def main() -> None:
    """Flood and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default="all", help=f"of {', '.join(peer.name for peer in SYSTEMS)}")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--rates", type=_rates, default=list(RATES), help="packets/s, `max` for the maximum")
    parser.add_argument("--seconds", type=float, default=3.0, help="of knocks for each line (default 3)")
    for line in play(parser.parse_args()):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
