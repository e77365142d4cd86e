"""Knock to open: one packet, then probes every 0.2 ms until a guarded UDP echo answers.

doorwardd and Debian's fwknopd, default and UDP-server mode, on the same work in one run, turn by turn; doorwardd with
fwknop's format, and with public keys behind each of its gates (flood.py says what they are). Every knock comes from a
source that never had a grant. The daemons have one core, whoever knocks and the echo the other, as in scale.py and
flood.py. One JSON object a system, then how many times longer fwknopd's median is than each of doorwardd's; on standard
error the same as a table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import peers

if TYPE_CHECKING:
    from collections.abc import Callable

    from system.netns import Namespace

SYSTEMS = (*peers.PEERS, *peers.GATED)
PROBE_SECONDS = 0.0002
PATIENCE_SECONDS = 3.0


def knock_to_open(client: Namespace, host: Namespace, source: str, made: Callable[[str], bytes]) -> float | None:
    """Return the milliseconds from the knock that `made` makes to the echo's first answer, or None when none came."""
    payload = made(source)
    with (
        peers.open_socket(client, source, (host.ipv4, peers.KNOCK_PORT)) as door,
        peers.open_socket(client, source, (host.ipv4, peers.ECHO_PORT)) as probe,
    ):
        poller = select.poll()
        poller.register(probe, select.POLLIN)
        probe.send(b"?")
        if poller.poll(5):
            message = f"{host.name} answers {source} before it has knocked"
            raise SystemExit(message)
        start = time.perf_counter()
        door.send(payload)
        while (waited := time.perf_counter() - start) < PATIENCE_SECONDS:
            with contextlib.suppress(ConnectionRefusedError):
                probe.send(b"?")
            _until(probe, poller, start + waited + PROBE_SECONDS)
            with contextlib.suppress(BlockingIOError):
                probe.recv(64)
                return (time.perf_counter() - start) * 1000
    return None


def _until(probe: object, poller: select.poll, deadline: float) -> None:
    """Wait for an answer, no longer than to the deadline; poll() knows only whole milliseconds."""
    del probe
    while time.perf_counter() < deadline:
        if poller.poll(0):
            return


def report(system: str, times: list[float | None]) -> dict[str, object]:
    """Return one result line."""
    seen = sorted(value for value in times if value is not None)
    line: dict[str, object] = {"system": system, "n": len(times), "lost": len(times) - len(seen)}
    if seen:
        p95, p99 = (seen[min(len(seen) - 1, int(len(seen) * part))] for part in (0.95, 0.99))
        figures = {"p50_ms": statistics.median(seen), "p95_ms": p95, "p99_ms": p99, "max_ms": seen[-1]}
        line |= {name: round(value, 3) for name, value in figures.items()}
    return line


def measure(count: int) -> dict[str, list[float | None]]:
    """Return the times of every peer, `count` knocks each, turn by turn."""
    labels = [peer.name[-12:] for peer in SYSTEMS]
    times: dict[str, list[float | None]] = {peer.name: [] for peer in SYSTEMS}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client, *hosts = stack.enter_context(peers.network("client", *labels))
        first, *sources = peers.add_sources(client, 1 + count)
        peers.routes(*hosts)
        daemons = [
            stack.enter_context(peers.running(peer, host, folder / peer.name))
            for peer, host in zip(SYSTEMS, hosts, strict=True)
        ]
        for peer, host in zip(SYSTEMS, hosts, strict=True):
            peers.await_ready(client, host, first, made=peer.knock)
        for daemon in daemons:
            peers.pin(daemon, peers.DAEMON_CORE)
        for source in sources:
            for peer, host in zip(SYSTEMS, hosts, strict=True):
                times[peer.name].append(knock_to_open(client, host, source, peer.knock))
    return times


def ratios(lines: list[dict[str, object]]) -> dict[str, float]:
    """Return how many times longer fwknopd's medians are than doorwardd's."""
    medians = {str(line["system"]): float(str(line["p50_ms"])) for line in lines if "p50_ms" in line}
    ours = [name for name in medians if name.startswith("doorwardd")]
    return {
        f"{theirs}/{name}": round(medians[theirs] / medians[name], 1)
        for name in ours
        for theirs in medians
        if theirs not in ours
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=120, help="knocks each (default 120)")
    count = parser.parse_args().n
    peers.begin(peers.WORLD_CORE)  # with all that is started from here; only the daemons are moved
    lines = [report(system, times) for system, times in measure(count).items()]
    for line in lines:
        print(json.dumps(line))
    print(json.dumps({"ratio_of_medians": ratios(lines)}), flush=True)
    print(peers.table(lines), file=sys.stderr)


if __name__ == "__main__":
    main()
