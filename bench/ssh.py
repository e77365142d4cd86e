"""`ssh host true`: plain to an open host, through a knock to a hidden one, and after `fwknop` to one behind fwknopd.

The ways by turns, from the start of the command to its end; a table of medians, and what each way costs more than plain
ssh (the median of the differences within a turn). The hidden host is behind doorwardd and is reached with the three
lines that `doorward ssh-config` prints, in fwknop's format and with key pairs; the other one is behind Debian's fwknopd
in its default mode and is reached by `fwknop -n … && ssh … true`. Each host has the same sshd. Before each way the
open host answers and the hidden one does not; after it that does, or the program ends with an error.

Machines differ, and one machine from hour to hour: so each turn times a Python that imports cryptography and does
nothing, and what the knock costs is said in that, too. A ratio says the same on every machine.

Then comes the time from the exec(2) of the program that knocks to its first packet: from a clock read by a small
program that ssh runs in its place and that then becomes it by exec(2), to the kernel's own time stamp of the packet on
the client's interface (AF_PACKET, SO_TIMESTAMPNS). Both are CLOCK_REALTIME.

Client and hosts share all cores: a client of one's own machine has all of its cores too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import doors
import peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doors import Cost, Host

    from system.netns import Namespace

PLAIN, KNOCK, PAIRS, FWKNOP = "ssh, open host", "ssh, doorwardd", "ssh, doorwardd, key pairs", "fwknop && ssh, fwknopd"
WAYS: Final = (PLAIN, KNOCK, PAIRS, FWKNOP)
SHORT: Final = {PLAIN: "open", KNOCK: "hidden", PAIRS: "pairs", FWKNOP: "other"}
FIRST_PACKET: Final = {KNOCK: "doorward connect", PAIRS: "doorward connect, key pairs", FWKNOP: "fwknop"}
YARDSTICK: Final = (doors.INTERPRETER, "-I", "-c", "from cryptography.hazmat.primitives.ciphers import Cipher")
_STAMP: Final = """\
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
os.write(file, str(time.time_ns()).encode())
os.execvp(sys.argv[2], sys.argv[2:])
"""
_ETH_P_ALL: Final = 0x0003
_TIMESTAMPNS: Final = 35  # SO_TIMESTAMPNS of asm-generic/socket.h, and the type of its message
_TIMESPEC: Final = struct.Struct("@qq")
_FRAME_MAX: Final = 2048


@dataclass(frozen=True)
class Site:
    """The client, what it reaches, and its files."""

    client: Namespace
    hosts: dict[str, Host]
    folder: Path

    def commands(self, config: str = "config") -> dict[str, list[str]]:
        """The command of each way."""
        ssh = f"ssh -F {self.folder}/{config}"
        scripts = {way: f"{ssh} {SHORT[way]} true" for way in WAYS}
        scripts[FWKNOP] = f"{self._stamped('fwknop') if config == 'stamped' else 'fwknop'} -n other && {ssh} other true"
        return {way: ["sh", "-c", script] for way, script in scripts.items()}

    def environment(self) -> dict[str, str]:
        """The client's, with a home of its own."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LOGNAME": "me", "LC_ALL": "C.UTF-8"}

    def run(self, way: str, config: str = "config") -> Cost:
        """Go one way once."""
        return doors.timed(self.client, self.commands(config)[way], self.environment(), self.folder / "said")

    def write_files(self, program: Path) -> None:
        """Write the client's ssh_config, once as people have it and once with the exec(2) stamped, and ~/.fwknoprc."""
        sections = "".join(
            f"[{SHORT[way]}]\nSPA_SERVER {self.hosts[way].address}\nACCESS tcp/22\n{keys}ALLOW_IP {self.client.ipv4}\n"
            for way, keys in ((KNOCK, _keys()), (PAIRS, self._pairs()), (FWKNOP, _keys()))
        )
        (self.folder / ".fwknoprc").write_text(sections)
        (self.folder / ".fwknoprc").chmod(0o600)
        (self.folder / "stamp.py").write_text(_STAMP)
        words = (doors.INTERPRETER, "-I", str(program), "ssh-config", SHORT[KNOCK], SHORT[PAIRS])
        block = self.client.run(*words, env=self.environment()).stdout
        names = "".join(f"Host {SHORT[way]}\n    HostName {self.hosts[way].address}\n" for way in WAYS)
        command = "ProxyCommand "
        stamped = block.replace(command, command + self._stamped(""))
        for file, lines in (("config", block), ("stamped", stamped)):
            (self.folder / file).write_text(lines + names + doors.login(self.folder))

    def _pairs(self) -> str:
        return f"HOST_KEY {doors.public_line(self.folder / 'host.pair')}\nCLIENT_KEY_FILE {self.folder}/client.pair\n"

    def _stamped(self, program: str) -> str:
        return f"{doors.INTERPRETER} -I -S {self.folder}/stamp.py {self.folder}/stamp {program}"

    def stamp(self) -> int:
        """When the program that knocks was begun, in nanoseconds."""
        return int((self.folder / "stamp").read_text())


def _keys() -> str:
    keys = peers.KEYS
    return "".join(
        line + "\n" for line in peers.stanza(keys).splitlines() if line.startswith(("KEY_BASE64", "HMAC_KEY_BASE64"))
    )


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Yield the hosts when each can be reached its way."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dw-")))
        client, *spaces = stack.enter_context(peers.network("client", "open", "hidden", "other"))
        doors.write_keys(folder)
        program = doors.build_archive(folder)
        hosts = {
            PLAIN: stack.enter_context(doors.open_host(spaces[0], folder)),
            KNOCK: stack.enter_context(doors.hidden_host(spaces[1], folder, program, _keys())),
            FWKNOP: stack.enter_context(doors.fwknop_host(spaces[2], folder, _keys())),
        }
        hosts[PAIRS] = hosts[KNOCK]
        hosts[KNOCK].await_listening()
        made = Site(client, hosts, folder)
        made.write_files(program)
        doors.await_ready({way: lambda way=way: made.run(way) for way in WAYS}.values())
        yield made


def turn(made: Site, go: Callable[[str], object]) -> None:
    """Go each way once, from closed doors, and see that it opened them."""
    if not made.hosts[PLAIN].is_open(made.client):
        message = "the open host does not answer"
        raise SystemExit(message)
    for way in WAYS:
        if way != PLAIN:
            made.hosts[way].close()
            if made.hosts[way].is_open(made.client):
                message = f"{way}: the host answers before anybody has knocked"
                raise SystemExit(message)
        go(way)
        if not made.hosts[way].is_open(made.client):
            message = f"{way}: ssh came through, and the port is closed: another host answered"
            raise SystemExit(message)


@dataclass
class Figures:
    """What was measured, a value a turn."""

    costs: dict[str, list[Cost]] = field(default_factory=lambda: {way: [] for way in WAYS})
    packets: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in FIRST_PACKET})
    yardstick: list[float] = field(default_factory=list)
    knocks: int = 0

    def lines(self) -> list[list[str]]:
        """The table."""
        rows = [["", "wall ms", "more", "CPU ms", "more"]]
        for way in WAYS:
            row = [way]
            for name in ("wall_ms", "cpu_ms"):
                row += [f"{self.median(way, name):.1f}", f"{self.more(way, name):+.1f}" if way != PLAIN else ""]
            rows.append(row)
        return rows

    def median(self, way: str, name: str) -> float:
        """The median of one way."""
        return doors.median(self.costs[way], name)

    def more(self, way: str, name: str) -> float:
        """The median of what a way took more than plain ssh in the same turn."""
        return doors.more(self.costs[way], self.costs[PLAIN], name)

    def ratios(self) -> list[str]:
        """What a knock costs, in Pythons that import cryptography."""
        unit = statistics.median(self.yardstick)
        lines = [f"python3 that imports cryptography: {unit:.1f} ms"]
        for way in (KNOCK, PAIRS):
            costs = self.more(way, "wall_ms"), statistics.median(self.packets[way])
            lines.append(
                "{}: {:.2f} of it more than plain ssh, {:.2f} to the first packet".format(
                    way, *(cost / unit for cost in costs)
                )
            )
        return lines

    def as_json(self) -> dict[str, object]:
        """The medians, and every value."""
        names = ("wall_ms", "cpu_ms")
        return {
            "n": len(self.costs[PLAIN]),
            "median": {way: {name: round(self.median(way, name), 2) for name in names} for way in WAYS},
            "more_than_plain": {way: {name: round(self.more(way, name), 2) for name in names} for way in WAYS[1:]},
            "first_packet_ms": {way: round(statistics.median(times), 2) for way, times in self.packets.items()},
            "python_with_cryptography_ms": [round(value, 2) for value in self.yardstick],
            "knocks_of_doorward": self.knocks,
            "values": {way: [[cost.wall_ms, cost.cpu_ms] for cost in costs] for way, costs in self.costs.items()},
            "first_packets": self.packets,
        }


def measure(count: int) -> Figures:
    """Return the figures of `count` turns, and of as many with stamps."""
    figures = Figures()
    with site() as made, contextlib.closing(tap(made.client)) as wire:
        before = made.hosts[KNOCK].knocks
        for _ in range(count):
            turn(made, lambda way: figures.costs[way].append(made.run(way)))
            bare = doors.timed(made.client, YARDSTICK, made.environment(), made.folder / "said")
            figures.yardstick.append(bare.wall_ms)
        figures.knocks = made.hosts[KNOCK].knocks - before

        def stamped(way: str) -> None:
            if way in FIRST_PACKET:
                drain(wire)
                made.run(way, "stamped")
                figures.packets[way].append((first_knock(drain(wire)) - made.stamp()) / 1e6)
            else:
                made.run(way)

        for _ in range(count):
            turn(made, stamped)
    return figures


def tap(client: Namespace) -> socket.socket:
    """A socket that sees all frames of the client, with the kernel's time stamps."""
    with client.inside():
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    made.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
    made.setblocking(False)  # noqa: FBT003  the standard library's
    return made


def drain(wire: socket.socket) -> list[tuple[int, bytes]]:
    """The packets that have come since the last time, each with its time in nanoseconds."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, messages, _flags, _address = wire.recvmsg(_FRAME_MAX, socket.CMSG_SPACE(_TIMESPEC.size))
            seconds, nanoseconds = _TIMESPEC.unpack(messages[0][2][: _TIMESPEC.size])
            found.append((seconds * 1_000_000_000 + nanoseconds, packet))
    return found


def first_knock(packets: list[tuple[int, bytes]]) -> int:
    """The time of the first UDP packet over IPv4 to the port of knocks."""
    for moment, packet in packets:
        header = (packet[0] & 0x0F) * 4 if packet else 0
        is_udp = packet[:1] and packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_UDP  # noqa: PLR2004  IPv4
        if is_udp and int.from_bytes(packet[header + 2 : header + 4], "big") == peers.KNOCK_PORT:
            return moment
    message = "no knock was on the wire"
    raise SystemExit(message)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=40, help="turns (default 40)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    options = parser.parse_args()
    peers.begin()
    figures = measure(options.n)
    print(f"ssh host true, medians of {options.n} turns")
    print(doors.table(figures.lines()))
    for way, program in FIRST_PACKET.items():
        print(f"exec of {program} to its first packet: {statistics.median(figures.packets[way]):.1f} ms")
    print("\n".join(figures.ratios()))
    print(f"knocks at doorwardd: {figures.knocks} for {2 * options.n} connections")
    if options.json:
        options.json.write_text(json.dumps(figures.as_json(), indent=1))


if __name__ == "__main__":
    main()
