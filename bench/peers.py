"""The daemons that are measured side by side, each in a namespace of its own with the same guarded echo service."""

from __future__ import annotations

import atexit
import base64
import contextlib
import ipaddress
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "daemon"), str(ROOT / "tests")]

from doorward import archive  # noqa: E402
from doorward.config import private_key  # noqa: E402
from doorward.config.private_key import KeyPair  # noqa: E402
from doorward.crypto import doorward as public  # noqa: E402
from doorward.crypto import symmetric  # noqa: E402
from doorward.firewall import ruleset  # noqa: E402
from doorward.values import Protocol, Secret, Service, SymmetricKeys  # noqa: E402
from doorward.wire import doorward as message  # noqa: E402
from doorward.wire import fwknop  # noqa: E402
from doorward.wire.fwknop import Message, MessageType  # noqa: E402
from system import netns  # noqa: E402  the paths come first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from system.netns import Namespace

DAEMON_CORE, WORLD_CORE = 0, 1
KNOCK_PORT = 62201
ECHO_PORT = 7777
KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
HOST_KEY, CLIENT_KEY = Secret(b"h" * 32), Secret(b"c" * 32)  # of the format doorward 1
PAIR = public.Pair.of_client(CLIENT_KEY, public.public_key(HOST_KEY))
WINDOW_SECONDS = 30
READY_SECONDS = 15.0  # from the start of a daemon to the first door it opens
ENDING_SECONDS = 5.0
_NICE = -15
_ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", {ECHO_PORT}))
while True:
    s.sendto(*s.recvfrom(64))
"""
_INTERPRETER = "/usr/bin/python3"  # with the distribution's python3-cryptography: what the role installs on
# Every host is closed before its daemon starts. Behind fwknopd it has the same rules as in doorwardd's own table.
_GUARD = (
    "iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"
    f" && iptables -A INPUT -p udp --dport {ECHO_PORT} -j DROP"
)
_SILENT = f"iptables -A INPUT -p udp --dport {KNOCK_PORT} -j DROP"  # with a tap nothing listens on the port


@dataclass(frozen=True)
class Peer:
    """One daemon and how it is started in a namespace with a text of access.conf; `start` returns its process.

    With `public_keys` its knocks are of the format doorward 1, else of fwknop's.
    """

    name: str
    start: Callable[[Namespace, Path, str], subprocess.Popen[bytes]]
    public_keys: bool = False

    def knock(self, source: str) -> bytes:
        """Return a fresh packet that asks for the echo service for `source`."""
        return tagged_knock(source) if self.public_keys else knock(source)

    def garbage(self) -> bytes:
        """Return a packet of a stranger, as long as a knock."""
        return os.urandom(message.PACKET) if self.public_keys else shaped()

    @property
    def access(self) -> str:
        """The stanza for these packets."""
        return client_stanza() if self.public_keys else stanza()


def client_stanza(window: int = WINDOW_SECONDS, private: Secret = CLIENT_KEY) -> str:
    """Return the text of the stanza for one client, as stanza() has it for symmetric keys."""
    client = public.public_key(private)
    return f"SOURCE ANY\nCLIENT {client} bench\nOPEN_PORTS udp/{ECHO_PORT}\nFW_ACCESS_TIMEOUT {window}\n"


def tagged_knock(source: str, pair: public.Pair = PAIR) -> bytes:
    """Return a fresh packet of the format doorward 1 that asks for the echo service for `source`."""
    now = time.time_ns() // 1_000_000
    echo = message.ranges((Service(Protocol.UDP, ECHO_PORT),))
    asked = message.Message(message.Kind.ACCESS, now, ipaddress.ip_address(source), echo)
    return pair.seal(message.serialize(asked), message.epoch_of(now), os.urandom(public.NONCE_BYTES))


def right_tag(pair: public.Pair) -> bytes:
    """Return a packet with the present tag of a pair, and random bytes."""
    tag = pair.tag(message.epoch_of(time.time_ns() // 1_000_000))
    return tag + os.urandom(message.PACKET - len(tag))


def stanza(keys: SymmetricKeys = KEYS, window: int = WINDOW_SECONDS) -> str:
    """Return the text of one stanza that lets anybody with these keys have the echo service for `window` seconds."""
    return (
        f"SOURCE ANY\nKEY_BASE64 {_text(keys.key)}\nHMAC_KEY_BASE64 {_text(keys.hmac_key)}\n"
        f"OPEN_PORTS udp/{ECHO_PORT}\nFW_ACCESS_TIMEOUT {window}\n"
    )


def _text(secret: Secret | None) -> str:
    return base64.b64encode(secret.reveal() if secret else b"").decode()


def keys_of(number: int) -> SymmetricKeys:
    """Return the keys of one of several hosts."""
    return SymmetricKeys(Secret(bytes([number]) * 32), Secret(bytes([number]) * 64))


def knock(source: str, keys: SymmetricKeys = KEYS) -> bytes:
    """Return a fresh packet that asks for the echo service for `source`."""
    digits = "".join(str(byte % 10) for byte in os.urandom(16))
    text = f"{source},udp/{ECHO_PORT}"
    message = Message(digits, "bench", int(time.time()), fwknop.VERSION, MessageType.ACCESS, text)
    return symmetric.seal(fwknop.serialize(message), keys, os.urandom(8))


def shaped() -> bytes:
    """Return a packet of a stranger: as long as a knock, good in everything that is tested before the MAC."""
    length = len(knock("10.77.100.100"))
    return base64.b64encode(os.urandom(length))[:length]


def _write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def _doorwardd(host: Namespace, folder: Path, access: str, extra: str = "") -> subprocess.Popen[bytes]:
    host.nft(ruleset.swap(ruleset.guard((Service(Protocol.UDP, ECHO_PORT), Service(Protocol.UDP, KNOCK_PORT)))))
    config = _write(folder / "doorwardd.conf", f"FIREWALL_FILE {folder}/none.nft;\n{extra}")
    access_file = _write(folder / "access.conf", access)
    installed = folder / "doorward.pyz"
    archive.build(installed)
    argv = [_INTERPRETER, "-I", str(installed), "doorwardd", "-f", "-c", config, "-a", access_file]
    return _start(host, folder, [*argv, "-r", str(folder / "run")])


def _doorwardd_public(host: Namespace, folder: Path, access: str, extra: str = "") -> subprocess.Popen[bytes]:
    pair = KeyPair(HOST_KEY, public.public_key(HOST_KEY))
    file = _write(folder / "host.key", private_key.text(pair))
    return _doorwardd(host, folder, access, f"HOST_KEY_FILE {file};\n{extra}")


def _doorwardd_bpf(host: Namespace, folder: Path, access: str) -> subprocess.Popen[bytes]:
    return _doorwardd_public(host, folder, access, "ENABLE_UDP_SERVER N;\n")


def _doorwardd_nft(host: Namespace, folder: Path, access: str) -> subprocess.Popen[bytes]:
    return _doorwardd_public(host, folder, access, f"ENABLE_UDP_SERVER Y;\nUDPSERV_PORT {KNOCK_PORT};\n")


def _fwknopd(host: Namespace, folder: Path, access: str, extra: str) -> subprocess.Popen[bytes]:
    config = _write(folder / "fwknopd.conf", f"PCAP_INTF eth0;\nFWKNOP_RUN_DIR {folder}/run;\n{extra}")
    access_file = _write(folder / "access.conf", access)
    return _start(host, folder, ["fwknopd", "-f", "-c", config, "-a", access_file])


def _fwknopd_default(host: Namespace, folder: Path, access: str) -> subprocess.Popen[bytes]:
    host.run("sh", "-c", f"iptables -F INPUT && {_GUARD} && {_SILENT}")
    return _fwknopd(host, folder, access, "")


def _fwknopd_udp(host: Namespace, folder: Path, access: str) -> subprocess.Popen[bytes]:
    host.run("sh", "-c", f"iptables -F INPUT && {_GUARD}")
    return _fwknopd(host, folder, access, f"ENABLE_UDP_SERVER Y;\nUDPSERV_PORT {KNOCK_PORT};\n")


def _start(host: Namespace, folder: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(host.command(*argv), stdout=log, stderr=log)


PEERS = (
    Peer("doorwardd", _doorwardd),
    Peer("fwknopd", _fwknopd_default),
    Peer("fwknopd-udp-server", _fwknopd_udp),
)

GATED = (  # the format doorward 1 behind each of its gates in the kernel
    Peer("doorwardd-public-nft", _doorwardd_nft, public_keys=True),
    Peer("doorwardd-public-bpf", _doorwardd_bpf, public_keys=True),
)


def chosen(names: str, among: tuple[Peer, ...] = PEERS) -> tuple[Peer, ...]:
    """Return the peers of a list of names with commas between; `all` are all of them."""
    wanted = [peer.name for peer in among] if names == "all" else names.split(",")
    return tuple(next(peer for peer in among if peer.name == name) for name in wanted)


@contextlib.contextmanager
def running(peer: Peer, host: Namespace, folder: Path, access: str = "") -> Iterator[int]:
    """Yield the PID of a peer with its echo service, both ended with the block. Not ready yet: see await_ready()."""
    echo = subprocess.Popen(host.command(sys.executable, "-S", "-c", _ECHO))
    try:
        daemon = peer.start(host, folder, access or peer.access)
        try:
            yield daemon.pid
        finally:
            _end(daemon)
    finally:
        _end(echo)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_ready(  # noqa: PLR0913  who knocks where, how and for how long
    client: Namespace,
    host: Namespace,
    source: str,
    *,
    made: Callable[[str], bytes] = knock,
    interval: float = 0.05,
    patience: float = READY_SECONDS,
) -> None:
    """Knock every `interval` seconds until the echo answers `source`; the only word of readiness all peers share.

    `made` makes the knocks.
    """
    with (
        open_socket(client, source, (host.ipv4, KNOCK_PORT)) as door,
        open_socket(client, source, (host.ipv4, ECHO_PORT)) as probe,
    ):
        start = next_knock = time.monotonic()
        while (now := time.monotonic()) < start + patience:
            if now >= next_knock:
                with contextlib.suppress(ConnectionRefusedError):
                    door.send(made(source))
                next_knock = now + interval
            with contextlib.suppress(ConnectionRefusedError):  # the echo service itself is not there yet
                probe.send(b"?")
            if select.select([probe], [], [], 0.002)[0]:
                with contextlib.suppress(ConnectionRefusedError):
                    probe.recv(64)
                    return
    message = f"nobody in {host.name} opened within {patience} s"
    raise SystemExit(message)


def table(lines: Sequence[Mapping[str, object]]) -> str:
    """Return result lines as a table: a row a line, a column for each name that one of them has."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    rows = [names, *([str(line.get(name, "")) for name in names] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = [pid]
    for member in found:
        found += parents.get(member, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a daemon took so far: all its processes, and the children they have reaped."""
    return own_cpu_seconds(pid) + sum(map(_reaped_cpu_seconds, family(pid)))


def own_cpu_seconds(pid: int) -> float:
    """Return the CPU time that a daemon's living processes took so far, to the nanosecond (schedstat)."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{member}/task").glob("*/schedstat")
            total += sum(int(task.read_text().split()[0]) for task in tasks)
    return total / 1e9


def _reaped_cpu_seconds(member: int) -> float:
    """Return the CPU time of the children that a process has reaped, to a clock tick of 10 ms."""
    try:
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _smaps(pid: int) -> list[str]:
    """Return the memory sums of a process; none of one that has ended meanwhile, as fwknopd's iptables do."""
    try:
        return Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return []


def memory_mib(pid: int) -> dict[str, float]:
    """Return the memory of a daemon's processes together, in MiB: proportional, private and resident.

    Proportional (PSS) counts a shared page by its share, and the bench itself shares Python's; private pages are the
    lower bound of what the daemon takes, resident ones, which count shared pages once for each process, the upper.
    """
    sums = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0, "Rss": 0}
    for member in family(pid):
        for line in _smaps(member):
            name, kib = line.split()[:2]
            if name[:-1] in sums:
                sums[name[:-1]] += int(kib)
    private = sums["Private_Clean"] + sums["Private_Dirty"]
    named = {"pss_mib": sums["Pss"], "private_mib": private, "rss_mib": sums["Rss"]}
    return {name: round(kib / 1024, 1) for name, kib in named.items()}


def begin(core: int | None = None) -> None:
    """Let this process and all it starts go before what else this machine does, on one core if any is named.

    It ends on TERM as on INT.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    autogroup = Path("/proc/self/autogroup")  # where there is one, nice(2) counts only within a session (sched(7))
    if autogroup.exists():
        autogroup.write_text(str(_NICE))
        atexit.register(autogroup.write_text, "0")
    else:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with everything that was started


def pin(pid: int, core: int) -> None:
    """Bind a daemon's processes, and whatever they start from here on, to one core."""
    for member in family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(member, {core})


@contextlib.contextmanager
def network(*labels: str) -> Iterator[tuple[Namespace, ...]]:
    """Yield namespaces as system.netns.network() does, on a switch whose frames pass no packet filter on their way."""
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(netns.namespace("switch"))
        switch.run("ip", "link", "add", "br0", "up", "type", "bridge", "mcast_snooping", "0", "stp_state", "0")
        switch.run("sysctl", "-w", "net.bridge.bridge-nf-call-iptables=0", check=False)  # only where the module is
        members = tuple(stack.enter_context(netns.namespace(label, n)) for n, label in enumerate(labels, 1))
        for member in members:
            netns.plug(member, switch)
        yield members


def add_sources(client: Namespace, count: int) -> list[str]:
    """Give `client` so many addresses of its own and return them."""
    sources = [f"10.77.{1 + number // 250}.{1 + number % 250}" for number in range(count)]
    commands = "".join(f"addr add {source}/16 dev eth0\n" for source in sources)
    client.run("ip", "-batch", "-", input=commands)
    return sources


def routes(*hosts: Namespace) -> None:
    """Let the hosts answer to the sources of add_sources(), all by way of the client's own address.

    One neighbour, then, however many sources: else the first answer to each would wait for its ARP.
    """
    for host in hosts:
        host.run("ip", "route", "add", "10.77.0.0/16", "via", "10.77.0.1")
        host.run("ping", "-c1", "-W2", "10.77.0.1")


def open_socket(client: Namespace, source: str, target: tuple[str, int]) -> socket.socket:
    """Return a connected UDP socket of a namespace, bound to one of its addresses."""
    with client.inside():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((source, 0))
    made.connect(target)
    made.settimeout(0)
    return made
