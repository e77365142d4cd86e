"""Memory, start and store: doorwardd and Debian's fwknopd in both modes, the same work in one run.

One JSON object a line. For each daemon, medians over some starts: `cold_start_s` from the start of the process to the
first door that opens to somebody who knocks every 10 ms (fwknopd's first look at its tap included), then the memory of
all its processes in MiB after 30 knocks. Then what the replay store costs with each way of writing:
`full` waits for the disk at every knock, as doorwardd does; `normal` would lose the last knocks in a power cut.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import peers

from doorward.replay import ReplayStore

KNOCKS = 30
KNOCK_INTERVAL = 0.01  # seconds
REMEMBERED = 500


def start_once(peer: peers.Peer) -> dict[str, float]:
    """Return the figures of one start, on a network of its own."""
    with peers.network("client", peer.name[-12:]) as (client, host), tempfile.TemporaryDirectory() as folder:
        peers.routes(host)
        source, *sources = peers.add_sources(client, 1 + KNOCKS)
        with peers.running(peer, host, Path(folder)) as daemon:
            start = time.perf_counter()
            peers.await_ready(client, host, source, interval=KNOCK_INTERVAL)
            took = time.perf_counter() - start
            for knocker in sources:
                with peers.open_socket(client, knocker, (host.ipv4, peers.KNOCK_PORT)) as door:
                    door.send(peers.knock(knocker))
                time.sleep(KNOCK_INTERVAL)
            peers.await_ready(client, host, sources[-1], interval=peers.READY_SECONDS)
            return {"cold_start_s": took, "processes": len(peers.family(daemon)), **peers.memory_mib(daemon)}


def starts(peer: peers.Peer, count: int) -> dict[str, object]:
    """Return the result line of one daemon."""
    figures = [start_once(peer) for _ in range(count)]
    medians = {name: round(statistics.median(one[name] for one in figures), 3) for name in figures[0]}
    return {"system": peer.name, "starts": count, **medians}


def store(synchronous: str, folder: Path) -> dict[str, object]:
    """Return the result line of one way of writing the replay store, on the disk that holds `folder`."""
    made = ReplayStore(folder / f"{synchronous}.db")
    made._database.execute(f"PRAGMA synchronous = {synchronous}")  # noqa: SLF001  the product offers no other way
    times = []
    for number in range(REMEMBERED):
        start = time.perf_counter()
        made.remember(number.to_bytes(32, "big"), 2**39, 2**40)
        times.append((time.perf_counter() - start) * 1e6)
    made.close()
    p99 = sorted(times)[int(REMEMBERED * 0.99)]
    return {
        "store": synchronous,
        "n": REMEMBERED,
        "p50_us": round(statistics.median(times), 1),
        "p99_us": round(p99, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default="all", help=f"of {', '.join(peer.name for peer in peers.PEERS)}")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="where the store is tried (not a tmpfs)")  # noqa: S108  a folder of its own in it
    options = parser.parse_args()
    for peer in peers.chosen(options.systems):
        print(json.dumps(starts(peer, options.starts)), flush=True)
    with tempfile.TemporaryDirectory(dir=options.disk) as folder:
        for synchronous in ("full", "normal"):
            print(json.dumps(store(synchronous, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
