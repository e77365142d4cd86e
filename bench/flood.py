"""Good knocks in a flood of garbage: doorwardd and Debian's fwknopd in both modes, the same work in one run.

Every 100 ms a knock comes from a source that has no grant, while a generator on a core of its own sends garbage. The
daemon has the other core for itself: the knocks and the echo service run beside the generator, as the rest of the world
would. One JSON object a line. `garbage_pps_seen` is what the host's interface received, `granted` counts the doors that
opened within PATIENCE_SECONDS, `daemon_cpu_s` is the CPU time of the daemon's processes over `seconds`. The kinds:

    none      no garbage: shows that every knock is granted where nothing disturbs
    random    as long as a knock, random bytes
    shaped    as long as a knock, base64, passing every test that comes before the MAC
    replayed  good packets that were used before, and may not be used again
"""

from __future__ import annotations

import argparse
import contextlib
import json
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

GENERATOR = Path(__file__).with_name("generator.py")
KINDS = ("random", "shaped", "replayed")
RATES = (1_000, 5_000, 20_000, 100_000, 0)  # packets/s; 0 is the generator's maximum
KNOCK_INTERVAL = 0.1  # seconds
PATIENCE_SECONDS = 1.0  # a knock that took longer is one that its user has given up
LEAD_SECONDS = 0.3  # of garbage before the first knock: the queues are full by then
FRAMES = 1024  # different ones, each from another address
USED_PACKETS = 32
PROBE_SECONDS, LATE_PROBE_SECONDS = 0.0005, 0.005  # between two looks at a door in its first 20 ms, and later
PROBED_OFTEN_SECONDS = 0.02
DAEMON_CORE, WORLD_CORE = 0, 1


@dataclass
class _Knock:
    """A knock whose door is being looked at."""

    sent: float
    next_probe: float


@dataclass
class Knocker:
    """Knocks at a host at a steady pace, whether or not the doors before have opened."""

    client: Namespace
    host: Namespace
    times: list[float] = field(default_factory=list)  # milliseconds from knock to open
    _waiting: dict[socket.socket, _Knock] = field(default_factory=dict)

    def run(self, sources: list[str]) -> None:
        """Knock once from every source, then wait for the doors that have time left."""
        start = time.perf_counter()
        for number, source in enumerate(sources):
            self._watch(start + number * KNOCK_INTERVAL)
            self._knock(source)
        while self._waiting:
            self._watch(time.perf_counter() + PROBE_SECONDS)

    def _knock(self, source: str) -> None:
        payload = peers.knock(source)
        probe = peers.open_socket(self.client, source, (self.host.ipv4, peers.ECHO_PORT))
        with peers.open_socket(self.client, source, (self.host.ipv4, peers.KNOCK_PORT)) as door:
            now = time.perf_counter()
            door.send(payload)
        self._waiting[probe] = _Knock(now, now)

    def _watch(self, until: float) -> None:
        """Probe the doors and take answers until `until`, a time of perf_counter()."""
        while (now := time.perf_counter()) < until:
            for probe, knock in list(self._waiting.items()):
                if now - knock.sent > PATIENCE_SECONDS:
                    self._forget(probe)
                elif now >= knock.next_probe:
                    self._probe(probe, knock, now)
            wake = min([until, *(knock.next_probe for knock in self._waiting.values())])
            for probe in select.select(self._waiting, [], [], max(0.0, wake - time.perf_counter()))[0]:
                self._take(probe)

    def _probe(self, probe: socket.socket, knock: _Knock, now: float) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            probe.send(b"?")
        often = now - knock.sent < PROBED_OFTEN_SECONDS
        knock.next_probe = now + (PROBE_SECONDS if often else LATE_PROBE_SECONDS)

    def _take(self, probe: socket.socket) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            probe.recv(64)
            self.times.append((time.perf_counter() - self._waiting[probe].sent) * 1000)
            self._forget(probe)

    def _forget(self, probe: socket.socket) -> None:
        del self._waiting[probe]
        probe.close()


def payloads(kind: str, used: list[bytes]) -> list[bytes]:
    """Return the garbage of a kind: FRAMES payloads of one length."""
    makers = {
        "random": lambda number: os.urandom(len(used[number % len(used)])),
        "shaped": lambda _: peers.shaped(),
        "replayed": lambda number: used[number % len(used)],
    }
    made = [makers[kind](number) for number in range(FRAMES)]
    return [payload for payload in made if len(payload) == len(made[0])]


def frames(host: Namespace, stranger: Namespace, garbage: list[bytes]) -> bytes:
    """Return Ethernet frames to the knock port, each payload from another address in 10.78.0.0/16."""
    ethernet = _hardware(host) + _hardware(stranger) + b"\x08\x00"
    target = socket.inet_aton(host.ipv4)
    made = b""
    for number, payload in enumerate(garbage):
        length = 28 + len(payload)
        origin = bytes((10, 78, *divmod(number, 250)))
        words = struct.pack("!BBHHHBB", 0x45, 0, length, number, 0, 64, socket.IPPROTO_UDP)
        checksum = struct.pack("!H", _checksum(words + b"\0\0" + origin + target))
        udp = struct.pack("!HHHH", 20_000 + number, peers.KNOCK_PORT, length - 20, 0)  # 0: no checksum (RFC 768)
        made += ethernet + words + checksum + origin + target + udp + payload
    return made


def _checksum(header: bytes) -> int:
    """Return the Internet checksum of an IP header (RFC 1071)."""
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _hardware(member: Namespace) -> bytes:
    """Return the Ethernet address of a namespace's interface."""
    (link,) = json.loads(member.run("ip", "-j", "link", "show", "eth0").stdout)
    return bytes.fromhex(link["address"].replace(":", ""))


def received(host: Namespace) -> int:
    """Return how many packets the interface of a host has received so far."""
    (link,) = json.loads(host.run("ip", "-s", "-j", "link", "show", "eth0").stdout)
    return int(link["stats64"]["rx"]["packets"])


@contextlib.contextmanager
def flooding(stranger: Namespace, file: Path, frame_bytes: int, rate: int, seconds: float) -> Iterator[None]:
    """Let the generator run during the block, for `seconds` at the most."""
    argv = (sys.executable, "-S", str(GENERATOR), "eth0", str(file), str(frame_bytes), str(rate), str(seconds))
    with stranger.process(*argv, stdin=subprocess.PIPE) as generator:
        os.sched_setaffinity(generator.pid, {WORLD_CORE})
        if generator.stdin is None or generator.stdout is None or generator.stdout.readline() != "ready\n":
            message = "the generator did not start"
            raise SystemExit(message)
        generator.stdin.write("\n")
        generator.stdin.flush()
        yield


@dataclass(frozen=True)
class Scene:
    """Where it happens, and how long each part lasts."""

    client: Namespace
    stranger: Namespace
    host: Namespace
    folder: Path
    seconds: float

    def use(self, source: str) -> list[bytes]:
        """Return USED_PACKETS good packets that the daemon has taken, each only once."""
        packets = [peers.knock(source) for _ in range(USED_PACKETS)]
        with peers.open_socket(self.client, source, (self.host.ipv4, peers.KNOCK_PORT)) as door:
            for packet in packets:
                with contextlib.suppress(ConnectionRefusedError):
                    door.send(packet)
                time.sleep(0.01)
        return packets

    def play(self, peer: peers.Peer, kind: str, rate: int, sources: list[str]) -> dict[str, object]:
        """Return the result line of one daemon under one kind of garbage at one rate; the first two sources prepare."""
        with peers.running(peer, self.host, self.folder) as daemon:
            peers.await_ready(self.client, self.host, sources[0])
            used = self.use(sources[0])
            peers.await_ready(self.client, self.host, sources[1], interval=0.5)  # whatever came before has been read
            peers.pin(daemon, DAEMON_CORE)
            knocker = Knocker(self.client, self.host)
            with self._garbage(kind, rate, used) if kind != "none" else contextlib.nullcontext():
                seen, cpu, start = received(self.host), peers.cpu_seconds(daemon), time.perf_counter()
                knocker.run(sources[2:])
                took = time.perf_counter() - start
                cpu, seen = peers.cpu_seconds(daemon) - cpu, received(self.host) - seen
        return {
            "system": peer.name,
            "kind": kind,
            "garbage_pps": rate or ("max" if kind != "none" else 0),
            "garbage_pps_seen": round(seen / took) if kind != "none" else 0,
            "knocks": len(sources) - 2,
            "granted": len(knocker.times),
            "p50_ms": round(statistics.median(knocker.times), 3) if knocker.times else None,
            "max_ms": round(max(knocker.times), 3) if knocker.times else None,
            "daemon_cpu_s": round(cpu, 3),
            "seconds": round(took, 2),
        }

    @contextlib.contextmanager
    def _garbage(self, kind: str, rate: int, used: list[bytes]) -> Iterator[None]:
        garbage = payloads(kind, used)
        made = frames(self.host, self.stranger, garbage)
        file = self.folder / "frames"
        file.write_bytes(made)
        seconds = LEAD_SECONDS + self.seconds + 2 * PATIENCE_SECONDS
        with flooding(self.stranger, file, len(made) // len(garbage), rate, seconds):
            time.sleep(LEAD_SECONDS)
            yield


def play(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield one result line after the other: kind by kind, rate by rate, the daemons in turn."""
    chosen = peers.chosen(options.systems)
    knocks = round(options.seconds / KNOCK_INTERVAL)
    cells = [("none", 0), *((kind, rate) for kind in options.kinds.split(",") for rate in options.rates)]
    os.sched_setaffinity(0, {WORLD_CORE})  # and all that is started from here; only the daemon is moved
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        labels = [peer.name[-12:] for peer in chosen]
        client, stranger, *hosts = stack.enter_context(peers.network("client", "stranger", *labels))
        peers.routes(*hosts)
        sources = peers.add_sources(client, len(cells) * (knocks + 2))
        for number, (kind, rate) in enumerate(cells):
            own = sources[number * (knocks + 2) :][: knocks + 2]
            for peer, host in zip(chosen, hosts, strict=True):
                scene = Scene(client, stranger, host, folder / f"{number}{peer.name}", options.seconds)
                yield scene.play(peer, kind, rate, own)


def _rates(text: str) -> list[int]:
    return [0 if word == "max" else int(word) for word in text.split(",")]


def main() -> None:
    """Flood and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default="all", help=f"of {', '.join(peer.name for peer in peers.PEERS)}")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--rates", type=_rates, default=list(RATES), help="packets/s, `max` for the maximum")
    parser.add_argument("--seconds", type=float, default=3.0, help="of knocks for each line (default 3)")
    for line in play(parser.parse_args()):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
