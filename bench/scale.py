"""What many clients and many live grants cost: doorwardd with both formats and Debian's fwknopd, in one run, by turns.

One JSON object a line, and on standard error the same as tables. With 10, 100, 1 000 and 10 000 stanzas, each of them
for any source and with one client's keys, all daemons run at a time, and what they take is measured in turn. Medians:

    start_s       from the start of the process to the first door that opens
    pss_mib       memory then, of all processes, shared pages by their share; private_mib is what no other process has
    good_us       CPU time of the daemon for a knock with the last stanza's keys, with the firewall's part and the
                  children that it has reaped (these in clock ticks: 1 250 µs a knock)
    bad_us        for a stranger's packet, as long as a knock
    right_tag_us  for one with the present tag of the last client and random bytes, in the format doorward 1
    epoch_ms      for the change to the next epoch, with the most clients: new tags, and the kernel is told
    p50_ms        from knock to open

With 0, 100 and 10 000 live grants: knock to open, and the round trip of a new flow to the guarded echo from a source
whose grant came last (`round_trip_us`). These grants are put where the daemon puts them, by the packet filter's own
tools: knocking 10 000 times would take fwknopd, which starts several processes for each, longer than a grant lives.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import select
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import latency
import peers

from doorward.crypto import doorward as public
from doorward.values import Secret, SymmetricKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from system.netns import Namespace

SYSTEMS = (*peers.PEERS, *peers.GATED)
STANZAS = (10, 100, 1_000, 10_000)
GRANTS = (0, 100, 10_000)
ROUNDS = 5  # each daemon in turn; the figures are medians over them
GOOD_KNOCKS = 8  # a round
BAD_PACKETS = {10: 400, 100: 200, 1_000: 50, 10_000: 4}  # a round, by the number of stanzas, where each costs an HMAC
TAGGED_PACKETS = 400  # a round, in the format doorward 1
BURST, BURST_INTERVAL = 50, 0.1  # packets that fit every daemon's receive buffer; seconds
ROUND_TRIPS = 300
IDLE_SECONDS = 1.0
WINDOW_SECONDS = 300
START_SECONDS = 120.0  # for the most stanzas
KNOCK_INTERVAL = 0.2  # seconds, where the first knocks may wait in a queue, each for many HMACs
EPOCH_SECONDS, EPOCH_MARGIN = 64, 1.5  # of the format doorward 1; its change is over by then


def keys(number: int) -> SymmetricKeys:
    """Return the keys of one stanza of fwknop's format."""
    key, hmac_key = (Secret(hashlib.sha256(f"{kind}{number}".encode()).digest()) for kind in ("key", "hmac"))
    return SymmetricKeys(key, hmac_key)


def private_key(number: int) -> Secret:
    """Return the private key of the client in one stanza of the format doorward 1."""
    return Secret(hashlib.sha256(f"client{number}".encode()).digest())


@functools.cache
def access(count: int, *, public_keys: bool) -> str:
    """Return the text of so many stanzas."""
    if public_keys:
        return "".join(peers.client_stanza(WINDOW_SECONDS, private_key(number)) for number in range(count))
    return "".join(peers.stanza(keys(number), WINDOW_SECONDS) for number in range(count))


@dataclass
class Bench:
    """One running daemon and who knocks at it: the client of the last stanza, from sources without a grant."""

    peer: peers.Peer
    client: Namespace
    host: Namespace
    sources: Iterator[str]
    stanzas: int
    daemon: int = 0
    idle: float = 0.0  # CPU seconds a second
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    knocks: int = 0

    @functools.cached_property
    def pair(self) -> public.Pair:
        """What the last client and the host share."""
        return public.Pair.of_client(private_key(self.stanzas - 1), public.public_key(peers.HOST_KEY))

    @property
    def knock(self) -> Callable[[str], bytes]:
        """What makes a fresh packet for a source."""
        if self.peer.public_keys:
            return partial(peers.tagged_knock, pair=self.pair)
        return partial(peers.knock, keys=keys(self.stanzas - 1))

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """Start the daemon, on a core of its own, and wait until it opens."""
        with peers.running(
            self.peer, self.host, folder, access(self.stanzas, public_keys=self.peer.public_keys)
        ) as pid:
            start = time.perf_counter()
            peers.pin(pid, peers.DAEMON_CORE)
            self.daemon = pid
            self._await(KNOCK_INTERVAL)
            self.figures["start_s"].append(time.perf_counter() - start)
            for name in ("pss_mib", "private_mib"):
                self.figures[name].append(peers.memory_mib(pid)[name])
            yield

    def round(self) -> None:
        """Measure a good knock and each kind of bad packet once more."""
        alone = self._spent(lambda: self._send([]), peers.own_cpu_seconds)
        self._bad("bad_us", self.peer.garbage, alone)
        if self.peer.public_keys:
            self._bad("right_tag_us", lambda: peers.right_tag(self.pair), alone)
        self.good()

    def _bad(self, name: str, made: Callable[[], bytes], alone: float) -> None:
        """Measure one bad packet; the knock behind them takes `alone` seconds.

        Left out are the processes that fwknopd starts from time to time to look for expired rules: in UDP-server mode
        another 60 µs for each packet, but measured in clock ticks only.
        """
        count = TAGGED_PACKETS if self.peer.public_keys else BAD_PACKETS.get(self.stanzas, BAD_PACKETS[100])
        garbage = [made() for _ in range(count)]
        spent = self._spent(lambda: self._send(garbage), peers.own_cpu_seconds)
        self.figures[name].append(max(0.0, spent - alone) / count * 1e6)

    def good(self) -> None:
        """Measure GOOD_KNOCKS, and how long each took to open."""
        sources = [next(self.sources) for _ in range(GOOD_KNOCKS)]
        times: list[float | None] = []

        def work() -> None:
            times.extend(latency.knock_to_open(self.client, self.host, source, self.knock) for source in sources)

        spent = self._spent(work, peers.cpu_seconds)
        self.knocks += len(sources)
        self.figures["good_us"].append(spent / len(sources) * 1e6)
        self.figures["ms"] += [value for value in times if value is not None]

    def round_trips(self) -> None:
        """Measure round trips to the echo, each a flow of its own."""
        source = next(self.sources)
        latency.knock_to_open(self.client, self.host, source, self.knock)
        self.figures["round_trip_us"] += [_round_trip(self.client, self.host, source) for _ in range(ROUND_TRIPS)]

    def result(self, **what: object) -> dict[str, object]:
        """Return the result line: the medians, behind what was measured."""
        figures = {name: round(statistics.median(found), 2) for name, found in self.figures.items() if name != "ms"}
        times = self.figures["ms"]
        opened = {"knocks": self.knocks, "granted": len(times), "p50_ms": round(statistics.median(times or [0]), 3)}
        return {"system": self.peer.name, **what, **figures, **opened}

    def _spent(self, work: Callable[[], None], read: Callable[[int], float]) -> float:
        """Return the CPU seconds that the daemon took for some work beyond what it takes when idle."""
        start, before = time.perf_counter(), read(self.daemon)
        work()
        spent, took = read(self.daemon) - before, time.perf_counter() - start
        return max(0.0, spent - self.idle * took)

    def _send(self, garbage: list[bytes]) -> None:
        """Send in bursts, and wait until a knock that came behind them has opened: all of them have been read."""
        with peers.open_socket(self.client, next(self.sources), (self.host.ipv4, peers.KNOCK_PORT)) as door:
            for number, packet in enumerate(garbage):
                with contextlib.suppress(ConnectionRefusedError):
                    door.send(packet)
                if number % BURST == BURST - 1:
                    time.sleep(BURST_INTERVAL)
        self._await(START_SECONDS)

    def _await(self, interval: float) -> None:
        """Wait until a knock opens; the next one comes after `interval` seconds."""
        source = next(self.sources)
        peers.await_ready(self.client, self.host, source, made=self.knock, interval=interval, patience=START_SECONDS)


def _round_trip(client: Namespace, host: Namespace, source: str) -> float:
    with peers.open_socket(client, source, (host.ipv4, peers.ECHO_PORT)) as probe:
        start = time.perf_counter()
        probe.send(b"?")
        if not select.select([probe], [], [], 1)[0]:
            message = f"{host.name} does not answer {source}, which was let in"
            raise SystemExit(message)
        probe.recv(64)
        return (time.perf_counter() - start) * 1e6


def measure_idle(benches: list[Bench]) -> None:
    """Note what each daemon takes when nothing comes, once all have done what came."""
    time.sleep(IDLE_SECONDS)
    before = [peers.own_cpu_seconds(each.daemon) for each in benches]
    time.sleep(IDLE_SECONDS)
    for each, earlier in zip(benches, before, strict=True):
        each.idle = (peers.own_cpu_seconds(each.daemon) - earlier) / IDLE_SECONDS


def measure_epoch(benches: list[Bench]) -> None:
    """Wait for the change to the next epoch, and note what it takes."""
    tagged = [each for each in benches if each.peer.public_keys]
    if not tagged:
        return
    time.sleep(max(0.0, EPOCH_SECONDS - time.time() % EPOCH_SECONDS - EPOCH_MARGIN))
    before, start = [peers.own_cpu_seconds(each.daemon) for each in tagged], time.perf_counter()
    time.sleep(EPOCH_SECONDS - time.time() % EPOCH_SECONDS + EPOCH_MARGIN)
    took = time.perf_counter() - start
    for each, earlier in zip(tagged, before, strict=True):
        spent = peers.own_cpu_seconds(each.daemon) - earlier - each.idle * took
        each.figures["epoch_ms"].append(spent * 1000)


@contextlib.contextmanager
def all_running(chosen: tuple[peers.Peer, ...], stanzas: int, knocks: int) -> Iterator[list[Bench]]:
    """Yield all daemons with so many stanzas, on a network of their own: nothing of those before is left.

    Each has sources for so many knocks.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client, *hosts = stack.enter_context(peers.network("client", *(peer.name[-12:] for peer in chosen)))
        peers.routes(*hosts)
        sources = peers.add_sources(client, knocks)
        benches = [Bench(peer, client, host, iter(sources), stanzas) for peer, host in zip(chosen, hosts, strict=True)]
        for each in benches:
            stack.enter_context(each.running(folder / each.peer.name))
        measure_idle(benches)
        yield benches


def with_stanzas(chosen: tuple[peers.Peer, ...], count: int, *, most: bool) -> list[dict[str, object]]:
    """Return the result lines of all daemons with `count` stanzas; the change of epochs is waited for with the most."""
    with all_running(chosen, count, 1 + ROUNDS * (6 + GOOD_KNOCKS)) as benches:
        if most:
            measure_epoch(benches)
        for _ in range(ROUNDS):
            for each in benches:
                each.round()
        return [each.result(stanzas=count) for each in benches]


def with_grants(chosen: tuple[peers.Peer, ...], count: int) -> list[dict[str, object]]:
    """Return the result lines of all daemons with `count` live grants and one stanza."""
    with all_running(chosen, 1, 2 + ROUNDS * GOOD_KNOCKS) as benches:
        for each in benches:
            _fill(each, count)
        for _ in range(ROUNDS):
            for each in benches:
                each.good()
        for each in benches:
            each.round_trips()
        return [each.result(grants=count) for each in benches]


def _fill(bench: Bench, count: int) -> None:
    """Let so many other addresses in."""
    addresses = [f"10.79.{number // 250}.{1 + number % 250}" for number in range(count)]
    if not addresses:
        return
    if bench.peer.name.startswith("doorwardd"):
        elements = ", ".join(f"{address} . 17 . {peers.ECHO_PORT} timeout {WINDOW_SECONDS}s" for address in addresses)
        bench.host.nft(f"add element inet doorward open4 {{ {elements} }}\n")
        return
    end = int(time.time()) + WINDOW_SECONDS
    rules = "".join(
        f"-A FWKNOP_INPUT -s {address}/32 -p udp -m udp --dport {peers.ECHO_PORT}"
        f' -m comment --comment "_exp_{end}" -j ACCEPT\n'
        for address in addresses
    )
    bench.host.run("iptables-restore", "--noflush", input=f"*filter\n{rules}COMMIT\n")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default="all", help=f"of {', '.join(peer.name for peer in SYSTEMS)}")
    parser.add_argument("--stanzas", type=_numbers, default=list(STANZAS))
    parser.add_argument("--grants", type=_numbers, default=list(GRANTS))
    options = parser.parse_args()
    chosen = peers.chosen(options.systems, SYSTEMS)
    peers.begin(peers.WORLD_CORE)  # with all that is started from here; only the daemons are moved
    report(with_stanzas(chosen, count, most=count == max(options.stanzas)) for count in options.stanzas)
    of_fwknop = tuple(one for one in chosen if not one.public_keys)
    report(with_grants(of_fwknop, count) for count in options.grants if of_fwknop)


def report(results: Iterable[list[dict[str, object]]]) -> None:
    """Print the lines as they come, and at the end a table of them."""
    lines: list[dict[str, object]] = []
    for found in results:
        print("\n".join(map(json.dumps, found)), flush=True)
        lines += found
    if lines:
        print(peers.table(sorted(lines, key=lambda line: str(line["system"]))), file=sys.stderr)


if __name__ == "__main__":
    main()
