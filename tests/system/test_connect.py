"""`doorward connect` under the real ssh, against a real sshd behind a real default-drop table.

The door keeper here is small on purpose: it can lose packets and stay silent at will. What it opens is the kernel's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.client import connect
from doorward.client.address import resolve
from doorward.crypto.symmetric import unseal
from doorward.errors import DoorwardError
from doorward.firewall import ruleset
from doorward.linux import clock
from doorward.values import Secret, SymmetricKeys, address, unmap
from doorward.wire import fwknop
from system import doorwardd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from system.netns import Namespace

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
RC_FILE = f"[default]\nKEY {'k' * 32}\nHMAC_KEY {'h' * 64}\n"
WRONG_RC_FILE = f"[default]\nKEY {'k' * 32}\nHMAC_KEY {'x' * 64}\n"
NO_KEY_RC_FILE = "[default]\nSPA_SERVER_PORT 62201\n"
UNSYNCHRONISED = f"; {clock.UNSYNCHRONISED}" * (clock.is_synchronised() is False)
QUESTIONS = f"key? clock? source behind NAT?{UNSYNCHRONISED}"
DROP = f"""\
table inet doorward {{
{ruleset.SETS}
    chain input {{
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state established accept
        ip6 nexthdr icmpv6 accept
        udp dport 62201 accept
        ip saddr . meta l4proto . th dport @open4 accept
        ip6 saddr . meta l4proto . th dport @open6 accept
    }}
}}
"""


@dataclass(slots=True)
class Door:
    """Opens the kernel's sets for good packets. `lose` packets are dropped first; `families` are those that open."""

    host: Namespace
    lose: int = 0
    families: tuple[int, ...] = (4, 6)
    seen: list[str] = field(default_factory=list)  # the messages, or why a packet was none
    payloads: list[bytes] = field(default_factory=list)

    @contextlib.contextmanager
    def kept(self) -> Iterator[Door]:
        """Keep the door while the block runs."""
        over = threading.Event()
        with contextlib.closing(self._listen()) as inbox:
            keeper = threading.Thread(target=self._keep, args=(inbox, over))
            keeper.start()
            try:
                yield self
            finally:
                over.set()
                keeper.join()

    def _listen(self) -> socket.socket:
        with self.host.inside():
            listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 62201))
        return listener

    def _keep(self, inbox: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            if select.select([inbox], [], [], 0.02)[0]:
                payload, origin = inbox.recvfrom(2048)
                self._judge(payload, unmap(socket.inet_pton(socket.AF_INET6, origin[0])))

    def _judge(self, payload: bytes, origin: bytes) -> None:
        self.payloads.append(payload)
        try:
            message = fwknop.parse(unseal(payload, KEYS))
            access = fwknop.parse_access(message.text)
        except DoorwardError as error:
            self.seen.append(str(error))
            return
        self.seen.append(message.text)
        source = access.source or address(origin)
        if len(self.seen) <= self.lose or source.version not in self.families:
            return
        for service in access.services:
            element = f"{source} . {service.protocol} . {service.port} timeout 30s"
            self.host.nft(f"add element inet doorward open{source.version} {{ {element} }}")


@dataclass(frozen=True, slots=True)
class Site:
    """A host with a door and an sshd, a client with a file of keys, and an outsider."""

    host: Namespace
    client: Namespace
    outsider: Namespace
    folder: Path

    def rc_file(self, text: str = RC_FILE) -> str:
        path = self.folder / "fwknoprc"
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def connect_words(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "doorward", "connect", *options]

    def connect(self, *options: str, text: bool = True, **more: object) -> subprocess.CompletedProcess[str]:
        """Run `doorward connect` at the client; standard input is empty where nothing else is said."""
        words = self.client.command(*self.connect_words("--rc-file", str(self.folder / "fwknoprc"), *options))
        settings = {"stdin": subprocess.DEVNULL, "timeout": 60, **more}
        return subprocess.run(words, check=False, capture_output=True, text=text, env=ENVIRONMENT, **settings)  # type: ignore[call-overload, no-any-return]

    def ssh(self, proxy: list[str], *words: str, to: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command at the host through the real ssh with a ProxyCommand."""
        options = [
            "BatchMode=yes",
            "ProxyUseFdpass=yes",
            f"ProxyCommand={' '.join(proxy)} %h %p",
            f"IdentityFile={self.folder}/client_key",
            f"UserKnownHostsFile={self.folder}/known_hosts",
            "StrictHostKeyChecking=yes",
        ]
        flags = [flag for option in options for flag in ("-o", option)]
        command = ["ssh", "-F", "none", *flags, to or self.host.ipv4, *words]
        return self.client.run(*command, env=ENVIRONMENT, check=check)

    def answers(self, who: Namespace, port: int = 22, family: int = 4) -> bool:
        """Say whether the host answers a connection within a second, be it with a refusal."""
        with who.inside():
            probe = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
        with probe:
            probe.settimeout(1)
            try:
                probe.connect((self.host.ipv4 if family == 4 else self.host.ipv6, port))
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
            return True


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(DAEMON), "LOGNAME": "alice"}


@pytest.fixture(scope="module")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"10.77.0.1,10.78.0.1,fd77::1,web1 {public}")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPidFile none\nLogLevel DEBUG1\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own chroot for its unprivileged part
    return folder


@pytest.fixture
def site(key_folder: Path, trio: tuple[Namespace, Namespace, Namespace]) -> Site:
    host, client, outsider = trio
    made = Site(host, client, outsider, key_folder)
    made.rc_file()
    return made


@pytest.fixture
def sshd(site: Site) -> Iterator[Path]:
    """A real sshd on port 22 of the host; yields its log."""
    log = site.folder / f"sshd-{site.host.name}.log"
    with log.open("w") as stream:
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(site.folder / "sshd_config")]
        with site.host.process(*command, stdout=stream, stderr=stream):
            _until(lambda: "Server listening on ::" in log.read_text())
            yield log


def _visits(log: Path) -> int:
    """Count the connections from the client's addresses that sshd accepted."""
    return len(re.findall(r"^Connection from (?:10\.7[78]\.0\.2|fd77::2) ", log.read_text(), re.MULTILINE))


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_ssh_gets_in_with_one_knock_where_an_outsider_sees_nothing(site: Site, sshd: Path) -> None:
    assert site.answers(site.outsider)
    site.host.nft(DROP)
    assert not site.answers(site.outsider)
    with Door(site.host).kept() as door:
        done = site.ssh(site.connect_words("--rc-file", site.rc_file()), "echo", "inside")
        assert not site.answers(site.outsider)
    assert done.stdout == "inside\n"
    assert door.seen == [f"{site.client.ipv4},tcp/22"]
    assert _visits(sshd) == 1


def test_ssh_gets_in_over_ipv6_and_the_packet_names_the_ipv6_source(site: Site, sshd: Path) -> None:
    site.host.nft(DROP)
    with Door(site.host).kept() as door:
        done = site.ssh(site.connect_words("--rc-file", site.rc_file()), "echo", "inside", to=site.host.ipv6)
    assert done.stdout == "inside\n"
    assert door.seen == [f"{site.client.ipv6},tcp/22"]
    assert "Connection from fd77::2" in sshd.read_text()


@pytest.mark.parametrize("family", [4, 6])
def test_ssh_gets_in_through_the_daemon_itself(site: Site, sshd: Path, tmp_path: Path, family: int) -> None:
    there, source = [(site.host.ipv4, site.client.ipv4), (site.host.ipv6, site.client.ipv6)][family == 6]
    assert site.answers(site.outsider, family=family)
    rc_file = site.rc_file(f"[default]\n{doorwardd.KEY}\n{doorwardd.HMAC_KEY}\n")
    with doorwardd.doorwardd(site.host, tmp_path) as daemon:
        assert not site.answers(site.outsider, family=family)
        done = site.ssh(site.connect_words("--rc-file", rc_file), "echo", "inside", to=there)
        assert not site.answers(site.outsider, family=family)
    assert done.stdout == "inside\n"
    (verdict,) = daemon.verdicts
    assert "reason=granted" in verdict
    assert f"source={source} " in verdict
    assert _visits(sshd) == 1


def test_sftp_moves_a_large_file_over_the_passed_descriptor(site: Site, sshd: Path, tmp_path: Path) -> None:
    site.host.nft(DROP)
    (tmp_path / "sent").write_bytes(os.urandom(5_000_000))
    proxy = " ".join(site.connect_words("--rc-file", site.rc_file()))
    options = [
        f"ProxyCommand={proxy} %h %p",
        "ProxyUseFdpass=yes",
        f"IdentityFile={site.folder}/client_key",
        f"UserKnownHostsFile={site.folder}/known_hosts",
    ]
    flags = [flag for option in options for flag in ("-o", option)]
    with Door(site.host).kept():
        command = ["scp", "-q", "-F", "none", *flags, str(tmp_path / "sent"), f"{site.host.ipv4}:{tmp_path}/got"]
        site.client.run(*command, env=ENVIRONMENT)
    assert (tmp_path / "got").read_bytes() == (tmp_path / "sent").read_bytes()
    assert "Connection from" in sshd.read_text()


def test_a_lost_first_packet_is_followed_by_a_fresh_one(site: Site, sshd: Path) -> None:
    site.host.nft(DROP)
    with Door(site.host, lose=1).kept() as door:
        done = site.ssh(site.connect_words("--rc-file", site.rc_file()), "echo", "inside")
    assert done.stdout == "inside\n"
    assert len(door.seen) == 2
    assert len(set(door.payloads)) == 2
    assert _visits(sshd) == 1


def test_a_closed_door_is_told_in_words_with_the_number_of_knocks(site: Site, sshd: Path, tmp_path: Path) -> None:
    site.host.nft(DROP)
    status = tmp_path / "status"
    with Door(site.host).kept() as door:
        site.rc_file(WRONG_RC_FILE)
        done = site.connect("--timeout", "4", "--status", str(status), site.host.ipv4, "22")
        assert done.returncode == 1
        assert done.stdout == ""
        reason = f"closed after 2 knocks as 10.77.0.2: {QUESTIONS}; try: doorward doctor 10.77.0.1\n"
        assert done.stderr == f"doorward: 10.77.0.1 port 22: {reason}"
        assert status.read_text() == reason
        assert status.stat().st_mode & 0o777 == 0o600
        assert door.seen == ["the HMAC does not fit"] * 2
        site.rc_file()
        good = site.ssh(site.connect_words("--rc-file", site.rc_file()), "echo", "inside")
    assert good.stdout == "inside\n"
    assert _visits(sshd) == 1


def test_a_knock_that_this_machine_cannot_send_is_told(site: Site) -> None:
    site.host.nft(DROP)
    site.client.nft("table inet t { chain c { type filter hook output priority 0; udp dport 62201 drop; }; }")
    done = site.connect("--timeout", "1", site.host.ipv4, "22")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "closed, and no knock could be sent: 10.77.0.1 port 62201 over udp: Operation not permitted: "
        "this machine's own packet filter forbids it\n"
    )


def test_a_closed_host_without_a_key_is_told_with_where_the_key_was_looked_for(site: Site) -> None:
    site.host.nft(DROP)
    path = site.rc_file(NO_KEY_RC_FILE)
    done = site.connect("--timeout", "1", site.host.ipv4, "22")
    assert done.stderr == (
        f"doorward: 10.77.0.1 port 22: no answer, and no encryption key to knock with: [default] of {path} has none\n"
    )


def test_never_more_than_a_few_dials_are_half_open(site: Site) -> None:
    site.host.nft(DROP)
    words = site.connect_words("--rc-file", site.rc_file(), "--timeout", "4", site.host.ipv4, "22")
    counts = []
    with site.client.process(*words, env=ENVIRONMENT, stdin=subprocess.DEVNULL) as dialling:
        while dialling.poll() is None:
            shown = site.client.run("ss", "-Htn", "state", "syn-sent").stdout
            counts.append(len(shown.splitlines()))
            time.sleep(0.05)
    assert max(counts) == 5


def test_the_reason_reaches_the_status_file_where_ssh_hides_it(site: Site, tmp_path: Path) -> None:
    site.host.nft(DROP)
    status = tmp_path / "status"
    words = site.connect_words("--rc-file", site.rc_file(), "--timeout", "1", "--status", str(status))
    done = _ssh_with_control_persist(site, words, tmp_path)
    assert done.returncode == 255
    assert "closed after" not in done.stderr
    refused = "10.77.0.1 refuses udp/62201 (does doorwardd run, at this port?)"
    told = f"closed after 1 knock as 10.77.0.2: {refused}; {QUESTIONS}; try: doorward doctor 10.77.0.1\n"
    assert status.read_text() == told


def _ssh_with_control_persist(site: Site, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    options = [
        "BatchMode=yes",
        "ControlMaster=auto",
        "ControlPersist=5",
        f"ControlPath={folder}/mux",
        "ProxyUseFdpass=yes",
        f"ProxyCommand={' '.join(words)} %h %p",
    ]
    flags = [flag for option in options for flag in ("-o", option)]
    command = ["ssh", "-F", "none", *flags, site.host.ipv4, "true"]
    return site.client.run(*command, env=ENVIRONMENT, check=False)


def test_a_host_that_refuses_is_told_apart_from_a_closed_one(site: Site) -> None:
    site.host.nft(DROP)
    with Door(site.host).kept() as door:
        done = site.connect(site.host.ipv4, "22")
    assert done.returncode == 1
    assert "refused: the host answers, but nothing listens on this port; knocked once as 10.77.0.2\n" in done.stderr
    assert door.seen == [f"{site.client.ipv4},tcp/22"]


def test_a_refusal_from_before_the_grant_does_not_end_the_attempt(site: Site, sshd: Path) -> None:
    site.host.nft(DROP.replace("}\n}\n", "    reject with tcp reset\n    }\n}\n"))
    with Door(site.host).kept():
        assert site.answers(site.outsider)  # it refuses
        done = site.ssh(site.connect_words("--rc-file", site.rc_file()), "echo", "inside")
    assert done.stdout == "inside\n"
    assert _visits(sshd) == 1


def test_a_machine_without_a_route_says_so_at_once(site: Site) -> None:
    done = site.connect("198.51.100.1", "22")
    assert done.returncode == 1
    assert done.stderr == ("doorward: 198.51.100.1 port 22: no route to 198.51.100.1: Network is unreachable\n")


def test_a_host_without_a_key_is_dialled_without_a_knock(site: Site, sshd: Path) -> None:
    site.host.nft(DROP.replace("policy drop", "policy accept"))
    with Door(site.host).kept() as door:
        without = site.ssh(site.connect_words("--rc-file", site.rc_file(NO_KEY_RC_FILE)), "echo", "plain")
        assert without.stdout == "plain\n"
        assert door.seen == []
        with_key = site.ssh(site.connect_words("--rc-file", site.rc_file()), "echo", "knocked")
        _until(lambda: len(door.seen) == 1)
    assert with_key.stdout == "knocked\n"
    assert _visits(sshd) == 2


def test_a_host_that_is_open_and_far_away_sees_one_connection_only(site: Site, sshd: Path) -> None:
    with _far_away(site, 0.06) as address_there:
        done = site.ssh(site.connect_words("--rc-file", site.rc_file()), "echo", "far", to=address_there)
        time.sleep(0.5)  # a second connection would have been logged by now
    assert done.stdout == "far\n"
    assert _visits(sshd) == 1


@pytest.mark.parametrize("held_back", [True, False])
def test_a_client_that_is_slow_to_close_its_other_dials_is_one_connection_to_the_host(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, held_back: bool
) -> None:
    """Three dials are answered before the client looks; a client that holds none back shows that it would be seen."""
    look = connect._decided  # noqa: SLF001  the moment at which the client looks is what this is about

    def late(dialled: Sequence[socket.socket], seconds: float) -> set[int]:
        return look(dialled if len(dialled) == 3 else [], seconds)

    monkeypatch.setattr(connect, "_decided", late)
    if not held_back:
        monkeypatch.setattr(connect, "_QUICKACK", None)
    with site.host.inside():
        listener = socket.create_server(("", 22))
    (to,) = resolve(site.host.ipv4, 22)
    with (
        listener,
        site.client.inside(),
        connect.connect([connect.Route(to, lambda: 1)], time.monotonic() + 60, time.monotonic) as connection,
    ):
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == bytes(8)
        connection.sendall(b"hello")
        visits = list(_visitors(listener))
    assert [visit for visit in visits if visit] == [b"hello"]
    assert len(visits) == (1 if held_back else 3)


def _visitors(listener: socket.socket) -> Iterator[bytes]:
    """What each connection says; those that are there are all in the queue, as the kernel makes them."""
    listener.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            with listener.accept()[0] as visitor:
                yield visitor.recv(99)


def test_several_dials_are_on_the_way_to_a_host_that_is_far_away(site: Site) -> None:
    """The test above would mean nothing if the first dial came back before the second went out."""
    site.host.nft(
        "table inet t { chain c { type filter hook input priority 0; tcp dport 22 tcp flags syn counter; }; }"
    )
    with _far_away(site, 0.06) as address_there, _listening(site.host, lambda connection: connection.sendall(b"hello")):
        done = site.connect(address_there, "22")
    assert done.stdout == "hello"
    counted = re.search(r"counter packets (\d+)", site.host.nft("list table inet t"))
    assert counted
    assert int(counted[1]) >= 3


@contextlib.contextmanager
def _far_away(site: Site, delay: float) -> Iterator[str]:
    """Join client and host by a second line that holds every packet for `delay` seconds; yield the host's address."""
    over = threading.Event()
    ends = [_tunnel(site.host, "10.78.0.1/30"), _tunnel(site.client, "10.78.0.2/30")]
    line = threading.Thread(target=_hold, args=(ends, delay, over))
    line.start()
    try:
        yield "10.78.0.1"
    finally:
        over.set()
        line.join()
        for end in ends:
            os.close(end)


def _tunnel(member: Namespace, address_there: str) -> int:
    """Return a new tun device of a namespace, up and addressed (linux/if_tun.h)."""
    with member.inside():
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(end, 0x400454CA, struct.pack("16sH22x", b"far0", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    member.run("ip", "addr", "add", address_there, "dev", "far0")
    member.run("ip", "link", "set", "far0", "up")
    return end


def _hold(ends: list[int], delay: float, over: threading.Event) -> None:
    waiting: deque[tuple[float, int, bytes]] = deque()
    while not over.is_set():
        for end in select.select(ends, [], [], 0.001)[0]:
            waiting.append((time.monotonic() + delay, ends[end == ends[0]], os.read(end, 2048)))
        while waiting and waiting[0][0] <= time.monotonic():
            _, other, packet = waiting.popleft()
            os.write(other, packet)


def test_a_name_with_a_dead_ipv6_address_is_reached_over_ipv4(site: Site, sshd: Path) -> None:
    site.host.nft(DROP)
    with (
        _names(site.client, f"{site.host.ipv6} web1\n{site.host.ipv4} web1\n"),
        Door(site.host, families=(4,)).kept() as door,
    ):
        done = site.ssh(site.connect_words("--rc-file", site.rc_file()), "echo", "inside", to="web1")
    assert done.stdout == "inside\n"
    assert set(door.seen) == {f"{site.client.ipv6},tcp/22", f"{site.client.ipv4},tcp/22"}
    assert "Connection from 10.77.0.2" in sshd.read_text()


@contextlib.contextmanager
def _names(client: Namespace, hosts: str) -> Iterator[None]:
    """Give a namespace a hosts file of its own (ip-netns(8))."""
    folder = Path("/etc/netns") / client.name
    folder.mkdir(parents=True)
    try:
        (folder / "hosts").write_text(hosts)
        yield
    finally:
        shutil.rmtree(folder)


def test_the_knock_goes_to_another_host_and_asks_for_another_service_where_the_profile_says_so(
    site: Site, sshd: Path
) -> None:
    site.host.nft(DROP)
    profile = f"{RC_FILE}[web1]\nSPA_SERVER {site.host.ipv4}\nACCESS tcp/22,tcp/2222\nALLOW_IP source\nFW_TIMEOUT 9\n"
    with _names(site.client, f"{site.host.ipv4} web1\n"), Door(site.host).kept() as door:
        done = site.ssh(site.connect_words("--rc-file", site.rc_file(profile)), "echo", "inside", to="web1")
    assert done.stdout == "inside\n"
    assert door.seen == ["0.0.0.0,tcp/22,tcp/2222"]
    assert "Connection from" in sshd.read_text()


def test_a_dial_that_meets_itself_is_a_refusal(site: Site) -> None:
    site.client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40000")
    with site.client.inside():
        mirror = socket.socket()
    with mirror:
        mirror.connect(("127.0.0.1", 40000))  # the trap is real: nobody listens, and yet this connects
        assert mirror.getsockname() == mirror.getpeername()
        mirror.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    site.rc_file(NO_KEY_RC_FILE)
    done = site.connect("127.0.0.1", "40000")
    assert done.returncode == 1
    assert "refused" in done.stderr


@contextlib.contextmanager
def _listening(host: Namespace, serve: Callable[[socket.socket], None], port: int = 22) -> Iterator[None]:
    """Serve one connection in the host's namespace."""
    with host.inside():
        listener = socket.create_server(("", port))
    listener.settimeout(30)

    def once() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            serve(connection)

    with listener:
        server = threading.Thread(target=once)
        server.start()
        try:
            yield
        finally:
            server.join()


def _echo(connection: socket.socket) -> None:
    while chunk := connection.recv(1 << 16):
        connection.sendall(chunk)


def test_without_a_socket_the_bytes_are_relayed_both_ways_at_once(site: Site, tmp_path: Path) -> None:
    site.host.nft(DROP)
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(20_000_000))
    with (
        Door(site.host).kept(),
        _listening(site.host, _echo),
        sent.open("rb") as stdin,
        (tmp_path / "got").open("wb") as out,
    ):
        words = site.connect_words("--rc-file", site.rc_file(), site.host.ipv4, "22")
        done = subprocess.run(
            site.client.command(*words), check=False, stdin=stdin, stdout=out, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
    assert done.returncode == 0, done.stderr
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("sent", "got")}
    assert len(digests) == 1


def test_the_relay_delivers_what_the_host_says_after_our_end(site: Site) -> None:
    def answer_after_the_end(connection: socket.socket) -> None:
        question = b"".join(iter(lambda: connection.recv(1000), b""))
        connection.sendall(question[::-1] * 1000)

    with _listening(site.host, answer_after_the_end):
        site.rc_file(NO_KEY_RC_FILE)
        done = site.connect(site.host.ipv4, "22", stdin=None, input="olleh")
    assert done.returncode == 0
    assert done.stdout == "hello" * 1000


def test_the_relay_sends_what_we_say_after_the_hosts_end(site: Site) -> None:
    heard: list[bytes] = []

    def hang_up_and_listen(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        heard.extend(iter(lambda: connection.recv(1000), b""))

    site.rc_file(NO_KEY_RC_FILE)
    words = site.client.command(*site.connect_words("--rc-file", str(site.folder / "fwknoprc"), site.host.ipv4, "22"))
    with (
        _listening(site.host, hang_up_and_listen),
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as relay,
    ):
        assert relay.stdin is not None
        assert relay.stdout is not None
        assert relay.stdout.read() == b"bye"  # to the end: the host's end has come through
        relay.stdin.write(b"still here")
        relay.stdin.close()
        assert relay.wait(30) == 0
    assert b"".join(heard) == b"still here"


def test_a_relay_whose_reader_is_gone_ends(site: Site) -> None:
    def flood(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(bytes(1 << 16))

    site.rc_file(NO_KEY_RC_FILE)
    words = site.client.command(*site.connect_words("--rc-file", str(site.folder / "fwknoprc"), site.host.ipv4, "22"))
    with (
        _listening(site.host, flood),
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as relay,
    ):
        assert relay.stdout is not None
        assert relay.stdout.read(10) == bytes(10)
        relay.stdout.close()
        assert relay.wait(30) == 0


def test_many_clients_at_once_all_get_in(site: Site, sshd: Path) -> None:
    site.host.nft(DROP)
    site.rc_file()
    words = site.client.command(*site.connect_words("--rc-file", str(site.folder / "fwknoprc"), site.host.ipv4, "22"))
    with Door(site.host).kept() as door:
        started = [
            subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=ENVIRONMENT) for _ in range(8)
        ]
        banners = [client.communicate(timeout=60)[0] for client in started]
    assert all(re.match(rb"SSH-2.0-OpenSSH", banner) for banner in banners)
    assert set(door.seen) == {f"{site.client.ipv4},tcp/22"}
    assert "Connection from" in sshd.read_text()
