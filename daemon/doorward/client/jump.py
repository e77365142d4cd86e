"""A connection through jump hosts: the last of them sends the knock, and ssh -W carries the connection.

The packet is sealed here. A tiny program on the jump host tells the address that the hidden host will see, takes the
packet on its standard input and sends it. No key goes there, and nothing secret is in a command line.
"""

from __future__ import annotations

import binascii
import contextlib
import fcntl
import hashlib
import ipaddress
import os
import select
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from doorward import status_file
from doorward.client import nat
from doorward.client.address import fits
from doorward.client.connect import KNOCK_EVERY, PATIENCE
from doorward.client.known_hosts import with_pinned_key
from doorward.client.options import TIMEOUT_DEFAULT
from doorward.client.packet import build, parts
from doorward.client.profile import Carrier, Hop, HostPort, Profile, SourceRule
from doorward.client.request import PORT, KeySearch, request, saved_profile
from doorward.client.ssh_config import program, proxy_command
from doorward.errors import ClientError
from doorward.values import IPAddress, Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from doorward.client.packet import Request
    from doorward.client.surroundings import Outside

_SETTLE: Final = 0.02  # seconds from the knock to the first packet of the connection, which would be lost before
_KNOCKS_MAX: Final = 4
_QUIET: Final = 0.5  # seconds; a service that waits for its client says nothing
_PERSIST: Final = 60  # seconds for which an unused connection to a jump host stays
_FOLDER_MAX: Final = 48  # bytes; the kernel takes 107 for a socket, whose name has 41, and ssh adds 17
_SETTINGS: Final = ("ClearAllForwardings=yes", "RemoteCommand=none", "PermitLocalCommand=no", "RequestTTY=no")
_ANSWER_MAX: Final = 16_384  # bytes that a jump host's login may print before the program runs
_MARK: Final = "doorward-jump"
_SSH_PORT: Final = 22
_FAMILY: Final = {socket.AF_UNSPEC: "0", socket.AF_INET: "s.AF_INET", socket.AF_INET6: "s.AF_INET6"}
_PERL_FAMILY: Final = {socket.AF_UNSPEC: "0", socket.AF_INET: "AF_INET", socket.AF_INET6: "AF_INET6"}
# one line each, since some shells take no more: the ends of the way to the host, then each line of base64 as a datagram
_PYTHON: Final = (
    "import binascii,socket as s,sys;"
    "g=lambda n,p:s.getaddrinfo(n,p,{family},s.SOCK_DGRAM)[0];"
    "h,d,p=sys.argv[1:];"
    "a=g(h,9);v=s.socket(a[0],a[1]);v.connect(a[4]);"
    "b=g(d,p);u=s.socket(b[0],b[1]);"
    'print("{mark}",v.getsockname()[0],v.getpeername()[0],flush=True);'
    "[u.sendto(binascii.a2b_base64(l),b[4])for l in sys.stdin.buffer]"
)
_PERL: Final = (
    "use Socket;use IO::Socket::IP;use MIME::Base64;($h,$d,$p)=@ARGV;"
    "sub f{{IO::Socket::IP->new(PeerHost=>$_[0],PeerPort=>$_[1],Type=>SOCK_DGRAM,Family=>{family})or die $@}}"
    '$v=f($h,9);$u=f($d,$p);$|=1;print join(" ","{mark}",$v->sockhost,$v->peerhost),"\\n";'
    "while($l=<STDIN>){{$m=decode_base64($l);$u->send($m)||$u->send($m)}}"
)


class Ends(NamedTuple):
    """The addresses of a way from a jump host: its own, and the hidden host's."""

    own: IPAddress
    host: IPAddress


def remote_command(host: str, door: str, port: int, family: int) -> str:
    """The command for a jump host's shell, whichever it is: it knocks at `door`, and tells the ends towards `host`."""
    kind = socket.AddressFamily(family)
    python = _PYTHON.format(family=_FAMILY[kind], mark=_MARK)
    perl = _PERL.format(family=_PERL_FAMILY[kind], mark=_MARK)
    place = shlex.join([host, door, str(port)])
    script = (
        f"if command -v python3 >/dev/null 2>&1; then exec python3 -c {shlex.quote(python)} {place}; fi; "
        f"exec perl -e {shlex.quote(perl)} {place}"
    )
    return f"exec sh -c {shlex.quote(script)}"


class Road:
    """ssh's way to the last of the jump hosts; all sessions share one connection to it."""

    def __init__(self, said: SimpleNamespace, outside: Outside) -> None:
        """Prepare ssh's words; nothing is connected yet."""
        self.hop: Hop = said.jump[-1]
        self._seconds = said.patience or TIMEOUT_DEFAULT
        self._monotonic, self.deadline = outside.monotonic, outside.monotonic() + self._seconds
        self._folder = _folder(outside)
        self._scratch = tempfile.TemporaryDirectory(prefix="doorward-")
        self._status = _status(said.ssh or ()) or Path(self._scratch.name) / "status"
        self._words = [*_ssh(said), *_flag("-l", self.hop.user), *_flag("-p", self.hop.port)]
        settings = [*_SETTINGS, f"ConnectTimeout={int(self._seconds) or 1}"]
        if self._folder is not None:
            settings += ["ControlMaster=auto", f"ControlPath={self._folder}/%C", f"ControlPersist={_PERSIST}"]
        self._words += [word for setting in settings for word in ("-o", setting)]
        self._words += self._proxy(said, outside)
        self._told = (Path(self._scratch.name) / "told").open("a+", encoding="utf-8", errors="replace")
        self._agent: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Road:  # noqa: PYI034  typing.Self is younger than Python 3.10
        """Use the road for one connection."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the program on the jump host; what ssh carries goes on, unless there was a failure."""
        if self._agent is not None and self._agent.stdin is not None:
            with contextlib.suppress(OSError):
                self._agent.stdin.close()
        for each in self._started if kind is not None else ():
            each.terminate()
        self._told.close()
        self._scratch.cleanup()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While there is no shared connection yet, let others wait who would make one of their own."""
        with contextlib.ExitStack() as stack:
            if self._folder is not None and not self._is_shared():
                name = hashlib.sha256(self.hop.host.encode()).hexdigest()[:20]
                lock = stack.enter_context((self._folder / f"{name}.lock").open("w", encoding="utf-8"))
                while not _locked(lock) and self._monotonic() < self.deadline:
                    time.sleep(_SETTLE)
            yield

    def _is_shared(self) -> bool:
        words = [*self._words, "-O", "check", self.hop.host]
        left = max(self.deadline - self._monotonic(), 0)
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=left)  # noqa: S603  no shell; a checked word
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def agent(self, command: str) -> Ends:
        """Start the program on the jump host; the ends of its way to the hidden host.

        Raises:
            ClientError: the jump host cannot be reached, or runs no such program.
        """
        self._agent = self._start([str(self.hop.host), command], subprocess.PIPE, subprocess.PIPE)
        assert self._agent.stdout is not None  # noqa: S101  a pipe, see above
        for line in _lines(self._agent.stdout.fileno(), self.deadline, self._monotonic):
            words = line.split()
            if words[:1] == [_MARK]:
                return self._ends(words[1:])
        if self._monotonic() >= self.deadline:
            raise ClientError(self._broken(f"no word from there in {self._seconds:g} s"))
        raise ClientError(self._broken("no knock can be sent from there"))

    def knock(self, payload: bytes) -> None:
        """Have the jump host send one packet.

        Raises:
            ClientError: the session has ended.
        """
        assert self._agent is not None  # noqa: S101  agent() comes first
        assert self._agent.stdin is not None  # noqa: S101  a pipe
        try:
            self._agent.stdin.write(binascii.b2a_base64(payload))
            self._agent.stdin.flush()
        except OSError as error:
            raise ClientError(self._broken("the connection to it has ended")) from error

    def finish(self) -> None:
        """Wait until the program has sent everything.

        Raises:
            ClientError: it failed.
        """
        assert self._agent is not None  # noqa: S101  agent() comes first
        try:
            self._agent.communicate(timeout=max(self.deadline - self._monotonic(), _SETTLE))
        except subprocess.TimeoutExpired as error:
            raise ClientError(self._broken("the knock was not sent in time")) from error
        if self._agent.returncode:
            raise ClientError(self._broken("the knock was not sent"))

    def carry(self, place: HostPort) -> socket.socket:
        """A connection that ssh carries from the jump host to a place; whether it succeeds its first byte will tell."""
        ours, theirs = socket.socketpair()
        host = f"[{place.host}]" if ":" in place.host else place.host
        with theirs:
            self._start(["-W", f"{host}:{place.port}", str(self.hop.host)], theirs.fileno(), theirs.fileno())
        return ours

    def reason(self) -> str:
        """The last words of ssh, and what the helper of the jump host's own knock met."""
        with contextlib.suppress(OSError):
            met = self._status.read_text(encoding="utf-8").strip()
            if met and met != status_file.KILLED and not met.startswith("seen?"):
                return met
        self._told.seek(0)
        lines = [line.strip() for line in self._told.read(_ANSWER_MAX).splitlines() if line.strip()]
        return "".join(each for each in lines[-1].replace("\r", "") if each.isprintable())[:200] if lines else ""

    def _broken(self, what: str) -> str:
        why = self.reason()
        return f"jump host {self.hop}: {what}{f': {why}' if why else ''}"

    def _ends(self, words: list[str]) -> Ends:
        try:
            own, host = (ipaddress.ip_address(word.partition("%")[0]) for word in words)
        except ValueError as error:
            raise ClientError(self._broken("it tells no address of its own")) from error
        return Ends(own, host)

    def _start(self, words: list[str], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        try:
            started = subprocess.Popen([*self._words, *words], stdin=stdin, stdout=stdout, stderr=self._told)  # noqa: S603  no shell; hosts are checked words
        except OSError as error:
            msg = f"{self._words[0]}: {error.strerror or error}"
            raise ClientError(msg) from error
        self._started.append(started)
        return started

    def _proxy(self, said: SimpleNamespace, outside: Outside) -> list[str]:
        """The options that make ssh knock at this jump host, or go through the one before it."""
        before = said.jump[:-1]
        if not before and (said.ssh or not _is_ours_to_knock(self.hop, said, outside)):
            return [*_flag("-b", said.bind_address), *_flag("-B", said.bind_interface)]
        own = program(sys.orig_argv, sys.argv[1:], sys.executable)
        words = [*own, "connect", "--follow-ssh", *_flag("--rc-file", said.rc_file and said.rc_file.absolute())]
        words += ["--timeout", f"{max(self._seconds - 1, 1):g}", "--status", str(self._status)]
        if before:
            words += ["--jump", ",".join(map(str, before)), *_flag("--ssh", said.ssh and shlex.join(said.ssh))]
        words += [*_flag("-b", said.bind_address), *_flag("-B", said.bind_interface)]
        return ["-o", "ProxyUseFdpass=yes", "-o", f"ProxyCommand={proxy_command(words)}"]


def connection(said: SimpleNamespace, outside: Outside) -> socket.socket:
    """A connection through the jump hosts, knocked for from the last of them where there is a key.

    Raises:
        DoorwardError: there is none; the text is the reason.
    """
    quiet = vars(said).get("client_first", False)
    wanted = _request(said, outside)
    with Road(said, outside) as road:
        if wanted is None:
            with road.alone():
                return Dial(road, HostPort(said.host, said.dial_port), outside).first(quiet=quiet)
        with road.alone():
            knocks = Knocks(road, wanted, said, outside)
        return Dial(road, HostPort(str(knocks.ends.host), knocks.port), outside, knocks).first(quiet=quiet)


def knock(asked: Request, said: SimpleNamespace, outside: Outside) -> None:
    """Send one knock from the last of the jump hosts; `said` has the jump, as `doorward knock` takes it.

    Raises:
        DoorwardError: it could not be sent; the text is the reason.
    """
    refuse_carriers(asked.profile)
    place = {"host": asked.profile.server, "dial_port": 0, "patience": None, "bind_address": None}
    one = SimpleNamespace(**{**vars(said), **place, "bind_interface": None})
    with Road(one, outside) as road:
        with road.alone():
            knocks = Knocks(road, asked, one, outside)
        knocks.knock()
        road.finish()


def _request(said: SimpleNamespace, outside: Outside) -> Request | None:
    """The request for the hidden host; None where there is no key."""
    service = Service(Protocol.TCP, said.dial_port)
    saved = saved_profile(outside, said.rc_file, said.section, said.host, service)
    profile = with_pinned_key(Profile.of(said).over(saved.profile), said.host, outside.environ)
    if not profile.can_seal:
        return None
    refuse_carriers(profile)
    profile = profile._replace(server=profile.server or said.host, command=None)
    wanted = nat.request(profile, profile.access or (service,), outside.random_bytes)
    return request(profile, wanted, KeySearch(profile.server or "", None, saved, outside.ask), outside.environ)


def refuse_carriers(profile: Profile) -> None:
    """Refuse what a jump host cannot send.

    Raises:
        ClientError: the profile wants another carrier than UDP.
    """
    if profile.transport is not Carrier.UDP or profile.http_proxy is not None:
        msg = f"a jump host sends knocks over udp, not over {profile.transport.value}"
        raise ClientError(msg)


class Knocks:
    """The knocks of one run from a jump host."""

    def __init__(self, road: Road, asked: Request, said: SimpleNamespace, outside: Outside) -> None:
        """Start the program on the jump host."""
        self._road, self._asked, self._outside = road, asked, outside
        profile = asked.profile
        has_port = profile.nat_port or asked.nat.random_port
        self.port = asked.nat.services[0].port if has_port else said.dial_port
        port = nat.random_port(outside.random_bytes) if profile.rand_port else profile.port or PORT
        command = remote_command(said.host, profile.server or said.host, port, profile.family)
        self.ends = road.agent(command)
        self.source = _source(profile.source, self.ends)
        self.count = 0

    def knock(self) -> None:
        """Send fresh packets."""
        for part in parts(self._asked, self.source):
            packet = build(part, self.source, self._outside.clock(), self._outside.random_bytes)
            self._road.knock(packet.payload)
            if self._asked.profile.verbose:
                self._outside.warn(f"knocked from {self._road.hop} for {packet.text}")
        self.count += 1


def _source(rule: SourceRule | IPAddress | None, ends: Ends) -> IPAddress | None:
    """The address to let in: the jump host's, unless another one is named; None is the packet's origin.

    Raises:
        ClientError: no address can be named.
    """
    if rule is SourceRule.PACKET:
        return None
    if rule is not None and not isinstance(rule, SourceRule):
        return rule
    if rule is SourceRule.RESOLVE:
        msg = "which address a site sees says nothing about a jump host: name its address (--source)"
        raise ClientError(msg)
    if fits(ends.own, ends.host):
        return ends.own
    if rule is SourceRule.NAMED:
        msg = f"the jump host ({ends.own}) is behind NAT: name the address that the host sees (--source)"
        raise ClientError(msg)
    return None


class Dial:
    """Attempts to connect from the jump host, with a knock before each and again while nothing is heard."""

    def __init__(self, road: Road, place: HostPort, outside: Outside, knocks: Knocks | None = None) -> None:
        """Plan for one place."""
        self._road, self._place, self._monotonic, self._knocks = road, place, outside.monotonic, knocks
        self._begin = self._monotonic()

    def first(self, *, quiet: bool = False) -> socket.socket:
        """The connection on which the host has sent a first byte, or that still stands where it may be `quiet`.

        Raises:
            ClientError: there is none.
        """
        while True:
            self._knock()
            ours = self._road.carry(self._place)
            if self._hears(ours, _QUIET if quiet else None):
                return ours
            ours.close()
            now = self._monotonic()
            if self._knocks is None or now - self._begin > PATIENCE or now > self._road.deadline:
                raise ClientError(self._failure())
            time.sleep(_SETTLE)

    def _knock(self) -> None:
        if self._knocks is not None and self._knocks.count < _KNOCKS_MAX:
            self._knocks.knock()
            time.sleep(_SETTLE)

    def _hears(self, ours: socket.socket, quiet: float | None) -> bool:
        """Whether the host says something before the connection ends, or nothing for `quiet` seconds."""
        poller = select.poll()
        poller.register(ours, select.POLLIN)
        while (left := self._road.deadline - self._monotonic()) > 0:
            if poller.poll(min(left, quiet or KNOCK_EVERY) * 1000):
                try:
                    return bool(ours.recv(1, socket.MSG_PEEK))
                except OSError:
                    return False
            if quiet is not None:
                return True
            self._knock()
        return False

    def _failure(self) -> str:
        hop, why = self._road.hop, self._road.reason()
        if self._monotonic() < self._road.deadline:
            place = f"{self._place.host} port {self._place.port}"
            return f"jump host {hop} does not get through to {place}{f': {why}' if why else ''}"
        if self._knocks is None:
            return f"no answer through jump host {hop}, and no key for this host to knock with"
        count, source = self._knocks.count, self._knocks.source or "the packet's origin"
        return f"closed after {count} knock{'s' * (count > 1)} from jump host {hop} as {source}: key? clock?"


def _status(words: Sequence[str]) -> Path | None:
    """The status file of the helper in a command for jump hosts."""
    proxies = [word for word in words if word.lower().startswith("proxycommand=")]
    path = status_file.named(shlex.split(proxies[0])) if proxies else None
    return Path(path) if path else None


def _is_ours_to_knock(hop: Hop, said: SimpleNamespace, outside: Outside) -> bool:
    """Whether there is a key for a jump host, and ssh's own files know no other way to it."""
    port = hop.port or _SSH_PORT
    saved = saved_profile(outside, said.rc_file, None, hop.host, Service(Protocol.TCP, port))
    if not with_pinned_key(saved.profile, hop.host, outside.environ).can_seal:
        return False
    words = [*_ssh(said), "-G", *_flag("-p", hop.port), *_flag("-l", hop.user), hop.host]
    shown = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout  # noqa: S603  no shell; a checked word
    named = {line.partition(" ")[0]: line.partition(" ")[2] for line in shown.splitlines()}
    return all(named.get(name, "none") == "none" for name in ("proxycommand", "proxyjump"))


def _ssh(said: SimpleNamespace) -> list[str]:
    """The command for jump hosts; without one of the user's it reads the files of the ssh that runs this."""
    return [*said.ssh] if said.ssh else ["ssh", *vars(said).get("ssh_flags", ())]


def _flag(option: str, value: object) -> list[str]:
    return [] if value is None else [option, str(value)]


def _folder(outside: Outside) -> Path | None:
    """The folder for sockets of shared connections; None where none can be kept safely."""
    runtime = outside.environ.get("XDG_RUNTIME_DIR", "")
    # not the folder of compiled code, which is pruned
    folder = Path(runtime if runtime.startswith("/") else outside.home / ".cache") / "doorward-ssh"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat(follow_symlinks=False)
    except OSError:
        return None
    private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return folder if private and len(os.fsencode(folder)) <= _FOLDER_MAX and "%" not in str(folder) else None


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lines(descriptor: int, deadline: float, monotonic: Callable[[], float]) -> Iterator[str]:
    """The lines that come until a deadline, within a bound."""
    text = b""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while len(text) < _ANSWER_MAX and poller.poll(max(deadline - monotonic(), 0) * 1000):
        chunk = os.read(descriptor, _ANSWER_MAX)
        if not chunk:
            return
        *whole, rest = (text + chunk).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)
        text = rest
