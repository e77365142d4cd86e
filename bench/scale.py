"""What many stanzas and many live grants cost: doorwardd and Debian's fwknopd in both modes, the same work in one run.

One JSON object a line. With 1, 10, 100 and 1 000 stanzas, all of them for any source and each with keys of its own:
CPU time of the daemon for a packet that fits none (`bad_us`) and for a knock with the last stanza's keys (`good_us`,
the firewall's part and reaped children included), and knock to open. With 0, 100 and 10 000 live grants: knock to
open, and the round trip of a new flow to the guarded echo from a source whose grant came last (`round_trip_us`).

The grants are put where the daemon puts them, by the packet filter's own tools: knocking 10 000 times would take
fwknopd, which starts several processes for each, longer than a grant lives.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import select
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import latency
import peers

from doorward.values import Secret, SymmetricKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from system.netns import Namespace

STANZAS = (1, 10, 100, 1_000)
GRANTS = (0, 100, 10_000)
BAD_PACKETS = {1: 1_000, 10: 1_000, 100: 300, 1_000: 100}  # by the number of stanzas
BURST, BURST_INTERVAL = 50, 0.1  # packets that fit every daemon's receive buffer; seconds
GOOD_KNOCKS = 20
ROUND_TRIPS = 300
IDLE_SECONDS = 1.0
WINDOW_SECONDS = 300


def keys(number: int) -> SymmetricKeys:
    """Return the keys of one stanza."""
    key, hmac_key = (Secret(hashlib.sha256(f"{kind}{number}".encode()).digest()) for kind in ("key", "hmac"))
    return SymmetricKeys(key, hmac_key)


@dataclass(frozen=True)
class Bench:
    """One running daemon and who knocks at it."""

    client: Namespace
    host: Namespace
    daemon: int
    sources: list[str]
    keys: SymmetricKeys

    def idle(self) -> float:
        """Return the CPU seconds a second that the daemon takes when nothing comes, once it has done what came."""
        time.sleep(IDLE_SECONDS)
        return self._spent(lambda: time.sleep(IDLE_SECONDS), 0.0, peers.own_cpu_seconds) / IDLE_SECONDS

    def bad(self, count: int, idle: float) -> float:
        """Return the CPU seconds for one of `count` packets that fit no stanza.

        Left out are the processes that fwknopd starts from time to time to look for expired rules: in UDP-server mode
        another 60 µs for each packet, but measured in clock ticks only.
        """
        garbage = [peers.shaped() for _ in range(count)]
        return self._spent(lambda: self._send(garbage), idle, peers.own_cpu_seconds) / count

    def good(self, idle: float) -> tuple[float, list[float]]:
        """Return the CPU seconds for a knock, and the milliseconds from knock to open of those that opened."""
        times: list[float | None] = []
        sources = self.sources[2:]

        def work() -> None:
            times.extend(latency.knock_to_open(self.client, self.host, source, self.keys) for source in sources)

        spent = self._spent(work, idle, peers.cpu_seconds) / len(sources)
        return spent, [value for value in times if value is not None]

    def round_trips(self) -> list[float]:
        """Return the microseconds of round trips to the echo, each a flow of its own."""
        return [_round_trip(self.client, self.host, self.sources[-1]) for _ in range(ROUND_TRIPS)]

    def _spent(self, work: Callable[[], None], idle: float, read: Callable[[int], float]) -> float:
        """Return the CPU seconds that the daemon took for some work beyond what it takes when idle."""
        start, before = time.perf_counter(), read(self.daemon)
        work()
        spent, took = read(self.daemon) - before, time.perf_counter() - start
        return max(0.0, spent - idle * took)

    def _send(self, garbage: list[bytes]) -> None:
        """Send in bursts, and wait until a knock that came behind them has opened: all of them have been read."""
        with peers.open_socket(self.client, self.sources[1], (self.host.ipv4, peers.KNOCK_PORT)) as door:
            for number, packet in enumerate(garbage):
                with contextlib.suppress(ConnectionRefusedError):
                    door.send(packet)
                if number % BURST == BURST - 1:
                    time.sleep(BURST_INTERVAL)
        peers.await_ready(self.client, self.host, self.sources[1], self.keys, interval=peers.READY_SECONDS)


def _round_trip(client: Namespace, host: Namespace, source: str) -> float:
    with peers.open_socket(client, source, (host.ipv4, peers.ECHO_PORT)) as probe:
        start = time.perf_counter()
        probe.send(b"?")
        if not select.select([probe], [], [], 1)[0]:
            message = f"{host.name} does not answer {source}, which was let in"
            raise SystemExit(message)
        probe.recv(64)
        return (time.perf_counter() - start) * 1e6


@contextlib.contextmanager
def bench(peer: peers.Peer, stanzas: int) -> Iterator[Bench]:
    """Yield a daemon with so many stanzas, on a network of its own, so that nothing of the one before is left."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client, host = stack.enter_context(peers.network("client", peer.name[-12:]))
        peers.routes(host)
        sources = peers.add_sources(client, 2 + GOOD_KNOCKS)
        access = "".join(peers.stanza(keys(number), WINDOW_SECONDS) for number in range(stanzas))
        daemon = stack.enter_context(peers.running(peer, host, folder, access))
        peers.await_ready(client, host, sources[0], keys(stanzas - 1))
        peers.pin(daemon, peers.DAEMON_CORE)
        yield Bench(client, host, daemon, sources, keys(stanzas - 1))


def with_stanzas(peer: peers.Peer, count: int) -> dict[str, object]:
    """Return the result line of one daemon with `count` stanzas."""
    with bench(peer, count) as made:
        idle = made.idle()
        bad = made.bad(BAD_PACKETS.get(count, 100), idle)
        good, times = made.good(idle)
    return {
        "system": peer.name,
        "stanzas": count,
        "bad_us": round(bad * 1e6, 1),
        "good_us": round(good * 1e6, 1),
        **_opened(times),
    }


def with_grants(peer: peers.Peer, count: int) -> dict[str, object]:
    """Return the result line of one daemon with `count` live grants."""
    with bench(peer, 1) as made:
        _fill(peer, made.host, count)
        good, times = made.good(made.idle())
        trips = made.round_trips()
    return {
        "system": peer.name,
        "grants": count,
        "good_us": round(good * 1e6, 1),
        **_opened(times),
        "round_trip_us": round(statistics.median(trips), 1),
    }


def _opened(times: list[float]) -> dict[str, object]:
    median = round(statistics.median(times), 3) if times else None
    return {"knocks": GOOD_KNOCKS, "granted": len(times), "p50_ms": median}


def _fill(peer: peers.Peer, host: Namespace, count: int) -> None:
    """Let so many other addresses in."""
    addresses = [f"10.79.{number // 250}.{1 + number % 250}" for number in range(count)]
    if not addresses:
        return
    if peer.name == "doorwardd":
        elements = ", ".join(f"{address} . 17 . {peers.ECHO_PORT} timeout {WINDOW_SECONDS}s" for address in addresses)
        host.nft(f"add element inet doorward open4 {{ {elements} }}\n")
        return
    end = int(time.time()) + WINDOW_SECONDS
    rules = "".join(
        f"-A FWKNOP_INPUT -s {address}/32 -p udp -m udp --dport {peers.ECHO_PORT}"
        f' -m comment --comment "_exp_{end}" -j ACCEPT\n'
        for address in addresses
    )
    host.run("iptables-restore", "--noflush", input=f"*filter\n{rules}COMMIT\n")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default="all", help=f"of {', '.join(peer.name for peer in peers.PEERS)}")
    parser.add_argument("--stanzas", type=_numbers, default=list(STANZAS))
    parser.add_argument("--grants", type=_numbers, default=list(GRANTS))
    options = parser.parse_args()
    peers.begin(peers.WORLD_CORE)  # with all that is started from here; only the daemon is moved
    for measure, counts in ((with_stanzas, options.stanzas), (with_grants, options.grants)):
        for count in counts:
            for peer in peers.chosen(options.systems):
                print(json.dumps(measure(peer, count)), flush=True)


if __name__ == "__main__":
    main()
