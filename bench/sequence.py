"""What a sequence of ports costs its daemon while packets pass by: the kernel counts the steps, the daemon sleeps.

doorwardd has one stanza with SEQUENCE and a core of its own; a generator sends from another. One JSON object a line:
`pps_seen` is what the host's interface received a second, `daemon_cpu_s` the CPU time of all of the daemon's processes
over `seconds`. Each line ends with the sequence itself, which must be granted, so that no line is about a daemon that
hears nothing. The kinds:

    none   nothing: what the daemon takes by itself
    other  to ports that are no step, from a thousand sources
    scan   to all ports in ascending order, from one source
    first  to the first step, from a thousand sources, which stay in the middle of the sequence
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import flood
import peers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

STEPS = (7000, 8000, 9000)
STANZA = (
    f"SOURCE ANY\nSEQUENCE {' '.join(f'udp/{port}' for port in STEPS)}\nOPEN_PORTS udp/{peers.ECHO_PORT}\n"
    f"FW_ACCESS_TIMEOUT {peers.WINDOW_SECONDS}\n"
)
LEAD_SECONDS = 0.5
SCANNED = range(1, 65_536)
RATES = (100_000, math.inf)


def frames(wire: flood.Wire, kind: str) -> list[str]:
    """Return the frames of a kind, in the order in which they are sent."""
    if kind == "scan":
        return [wire.frame(flood.strange_address(0), b"\0", port) for port in SCANNED]
    ports = {"none": STEPS[0], "first": STEPS[0], "other": 20_000}
    return [wire.frame(flood.strange_address(n), b"\0", ports[kind]) for n in range(flood.FRAMES)]


def opens(client: Namespace, host: Namespace, source: str) -> bool:
    """Send the sequence from a source and say whether it is let in, once the daemon had time for it."""
    for port in STEPS:
        with peers.open_socket(client, source, (host.ipv4, port)) as step:
            step.send(b"\0")
        time.sleep(0.05)
    with peers.open_socket(client, source, (host.ipv4, peers.ECHO_PORT)) as probe:
        probe.settimeout(0.05)
        for _ in range(60):
            try:
                probe.send(b"?")
                probe.recv(64)
            except (TimeoutError, ConnectionRefusedError):
                continue
            return True
    return False


def play(kinds: list[str], seconds: float) -> Iterator[dict[str, object]]:
    """Yield one result line after the other, each of a daemon of its own."""
    cells = [(kind, rate) for kind in kinds for rate in ((0.0,) if kind == "none" else RATES)]
    peers.begin(peers.WORLD_CORE)
    with tempfile.TemporaryDirectory() as made, peers.network("client", "stranger", "host") as members:
        client, stranger, host = members
        peers.routes(host)
        sources = peers.add_sources(client, 2 * len(cells))
        wire = flood.Wire.between(stranger, host)
        for number, (kind, rate) in enumerate(cells):
            before, after = sources[2 * number :][:2]
            with peers.running(peers.PEERS[0], host, Path(made) / str(number), STANZA) as daemon:
                end = time.monotonic() + peers.READY_SECONDS
                while not opens(client, host, before):
                    if time.monotonic() > end:
                        message = "doorwardd opens to no sequence"
                        raise SystemExit(message)
                peers.pin(daemon, peers.DAEMON_CORE)
                order: dict[str, object] = {
                    "garbage": frames(wire, kind),
                    "knocks": [],
                    "rate": rate,
                    "lead": 0,
                    "interval": 1,
                }
                order |= {"interface": "eth0", "seconds": 2 * LEAD_SECONDS + seconds}
                with flood.generating(stranger, order) as generator:
                    time.sleep(LEAD_SECONDS)
                    first = flood.readings(host, daemon)
                    time.sleep(seconds)
                    last = flood.readings(host, daemon)
                    generator.communicate(timeout=30)
                if not opens(client, host, after):
                    message = f"after {kind} doorwardd opens to no sequence any more"
                    raise SystemExit(message)
            seen, cpu, _core, lasted = (late - early for early, late in zip(first, last, strict=True))
            yield {
                "kind": kind,
                "pps": rate if rate < math.inf else "max",
                "pps_seen": round(seen / lasted),
                "daemon_cpu_s": round(cpu, 3),
                "seconds": round(lasted, 1),
            }


def main() -> None:
    """Send and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="none,other,scan,first", help="of none, other, scan, first")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each line (default 10)")
    options = parser.parse_args()
    for line in play(options.kinds.split(","), options.seconds):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
