"""`doorward doctor`: what a connection to a host needs, one line each: what holds, what does not, and how to tell.

The steps are those of `doorward connect`, by the same code: one connection with its knocks is all that it sends, beside
one question for the time. Keys are shown as their fingerprint alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import select
import shlex
import socket
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

from doorward import __version__
from doorward.client import clock, nat, proxy, reasons, ssh_settings
from doorward.client.address import from_here, own_address, resolve
from doorward.client.connect import NotConnectedError, Route, connect
from doorward.client.getopt import UsageError
from doorward.client.known_hosts import with_pinned_key
from doorward.client.options import CONNECT, DOCTOR
from doorward.client.packet import PublicKeys, build
from doorward.client.profile import Profile
from doorward.client.request import ENCRYPTION, KeySearch, Saved, request, saved_profile
from doorward.client.sources import Candidates
from doorward.crypto import fingerprint
from doorward.errors import ClientError, ConfigError, DoorwardError
from doorward.findings import NO, OK, UNKNOWN, Finding, hold
from doorward.linux.clock import UNSYNCHRONISED, is_synchronised
from doorward.values import Protocol, Service, SymmetricKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from doorward.client.address import Endpoint
    from doorward.client.connect import DialAttempts
    from doorward.client.packet import Request
    from doorward.client.surroundings import Outside

SECONDS: Final = 6.0  # for the knocks: three rounds
_DIAL_SECONDS: Final = 1.0  # without a knock; what is hidden does not answer
_BANNER_SECONDS: Final = 2.0
_NTP_SECONDS: Final = 1.0
_BANNER_MAX: Final = 80
_SHARED: Final = {row.dest for row in CONNECT.rows} & {row.dest for row in DOCTOR.rows} - {"help", "patience"}
_SET_CLOCK: Final = "timedatectl set-ntp true"
_HOST_SIDE: Final = "on the host: doorwardd check --report; journalctl -u doorwardd | grep verdict | tail"


def run(said: SimpleNamespace, outside: Outside) -> bool:
    """Print a line for each step, as it is done, or one JSON object; return whether all holds."""
    found: list[Finding] = []
    for each in Examination(said, outside).findings():
        found.append(each)
        if not said.json:
            outside.say(str(each))
            outside.out.flush()
    if said.json:
        outside.say(json.dumps({"holds": hold(found), "findings": [each._asdict() for each in found]}))
    return hold(found)


class Examination:
    """The steps for one host; each may need what those before it have found."""

    host: str
    service: Service
    endpoints: tuple[Endpoint, ...]
    saved: Saved
    profile: Profile
    asked: Request
    ways: list[Route]

    def __init__(self, said: SimpleNamespace, outside: Outside) -> None:
        """Examine the host that a command line names."""
        self._said, self._outside = said, outside
        self._name = shlex.quote(said.host)
        self._question: clock.Question | None = None
        self._lacks = ""  # what no later step can do without

    def findings(self) -> Iterator[Finding]:
        """Every step's lines, in their order, up to one without which there is no next one."""
        for step in self._steps():
            yield from step()
            if self._lacks:
                yield Finding(UNKNOWN, "more", f"not tried, since {self._lacks}")
                return

    def _steps(self) -> Iterator[Callable[[], Iterator[Finding]]]:
        """The steps; the first may find the jump hosts, behind which others see what this machine cannot."""
        yield from (self._ssh, self._file, self._key)
        if self._said.jump:
            yield from (self._packet, self._clock, self._jump)
            return
        yield from (self._address, self._route, self._packet, self._source, self._clock)
        if not self._said.no_knock:
            yield from (self._closed, self._knock)

    def _end(self, finding: Finding, lacks: str) -> Finding:
        """The last finding, since something is missing that later steps need."""
        self._lacks = lacks
        return finding

    def _ssh(self) -> Iterator[Finding]:
        """How ssh would go there, and with which words it calls us."""
        said = self._said
        self.host, self.service = said.host, Service(Protocol.TCP, said.dial_port or 22)
        shown = f"ssh -G {self._name}"
        try:
            found = ssh_settings.ask(said.host, said.ssh_config)
            called = found.said
        except (ClientError, UsageError) as error:
            yield Finding(NO if isinstance(error, UsageError) else UNKNOWN, "ssh", str(error), shown)
            return
        self.host = found.host or said.host
        self.service = Service(Protocol.TCP, said.dial_port or found.port)
        if called is not None:
            self._take(called)
            yield Finding(OK, "ssh", f"knocks with doorward connect, at {self.host} port {self.service.port}", shown)
        elif found.jump:
            text = f"goes through {found.jump} (ProxyJump): a knock from here opens for this machine, not for that one"
            yield Finding(NO, "ssh", text, shown)
        else:
            other = f"has another ProxyCommand ({found.proxy[:60]})" if found.proxy else "connects without a knock"
            yield Finding(UNKNOWN, "ssh", other, f"doorward ssh-config {self._name} >> ~/.ssh/config")

    def _take(self, called: SimpleNamespace) -> None:
        """Use the options of the ProxyCommand where the command line has none."""
        for field in sorted(_SHARED):
            if getattr(self._said, field) is None:
                setattr(self._said, field, getattr(called, field))

    def _jump(self) -> Iterator[Finding]:
        """What can be known of a way through jump hosts."""
        from doorward.client.doctor_jump import ThroughJump  # noqa: PLC0415  a jump needs programs that nothing else here needs

        said, file = self._said, self._said.ssh_config
        more = {"host": self.host, "dial_port": self.service.port, "patience": said.patience or SECONDS}
        more["ssh_flags"] = () if file is None else ("-F", str(file))
        through = ThroughJump(SimpleNamespace(**{**vars(said), **more}), self._outside, self.asked)
        if said.no_knock:
            text = f"through {through.names}, where nothing is tried without a knock"
            yield Finding(UNKNOWN, "jump", text, through.command())
        else:
            yield from through.findings(_banner)

    def _address(self) -> Iterator[Finding]:
        shown = f"getent ahosts {shlex.quote(self.host)}"
        try:
            found = resolve(self.host, self.service.port, family=self.profile.family, seconds=SECONDS)
            found = from_here(found, self._said.bind_address, self._said.bind_interface, SECONDS)
        except ClientError as error:
            yield self._end(Finding(NO, "name", str(error), shown), "the host has no address")
            return
        self.endpoints = proxy.of_the_source(found, self.profile.source)
        yield Finding(OK, "name", " ".join(str(each.host) for each in self.endpoints), shown)

    def _route(self) -> Iterator[Finding]:
        """This machine's own address towards each of the host's."""
        reached = []
        for each in self.endpoints:
            shown = f"ip route get {each.host}"
            complaint = proxy.no_route(each)
            if complaint:
                yield Finding(UNKNOWN if len(self.endpoints) > 1 else NO, "route", complaint, shown)
            else:
                reached.append(each)
                yield Finding(OK, "route", f"{each.host} from {own_address(each)}", shown)
        self.endpoints = tuple(reached)
        if not reached:
            self._lacks = "there is no route to the host"

    def _file(self) -> Iterator[Finding]:
        """The file and its sections; the oddities of the file are warnings."""
        warnings = _Lines()
        outside = self._outside._replace(err=warnings)
        try:
            self.saved = saved_profile(outside, self._said.rc_file, self._said.section, self.host, self.service)
            own = Profile.of(self._said).over(self.saved.profile)
            self.profile = with_pinned_key(own, self.host, outside.environ)
        except ConfigError as error:
            yield from (Finding(NO, "file", str(each)) for each in error.problems)
            self._lacks = "a file of this user has mistakes"
            return
        path = self.saved.path
        yield from (Finding(NO, "file", each, f"chmod 600 {shlex.quote(str(path))}") for each in warnings.told)
        if self.saved.sections and not warnings.told:
            read = " over ".join(f"[{each}]" for each in self.saved.sections)
            yield Finding(OK, "file", f"{read} of {path}", _shown(path))

    def _key(self) -> Iterator[Finding]:
        profile, lacks = self.profile, "there is no key to knock with"
        if not profile.can_seal:
            what = "GPG_RECIPIENT" if profile.use_gpg else ENCRYPTION.what
            text = f"no {what} for {self.host}: {self.saved.lacks(ENCRYPTION)}{self._other_section()}"
            yield self._end(Finding(NO, "key", text, "doorward keys generate"), lacks)
            return
        self.profile = profile._replace(server=profile.server or self.host, command=None)
        try:
            self.asked = self._request()
        except DoorwardError as error:
            yield self._end(Finding(NO, "key", "; ".join(str(error).splitlines()), _shown(self.saved.path)), lacks)
        else:
            yield self._fingerprint()

    def _request(self) -> Request:
        """The request of every packet; the port to dial is the outer one where NAT leads elsewhere."""
        wanted = nat.request(self.profile, self.profile.access or (self.service,), self._outside.random_bytes)
        if self.profile.nat_port or wanted.random_port:
            self.service = wanted.services[0]
        search = KeySearch(self.profile.server or "", None, self.saved, self._outside.ask)
        silent = self.profile._replace(one_time_code=None)
        profile = silent if self._said.no_knock else self.profile
        return request(profile, wanted, search, self._outside.environ)

    def _other_section(self) -> str:
        """The section that has the name the user typed, where ssh calls the host otherwise."""
        if self._said.host == self.host or self.saved.path is None or not self.saved.sections:
            return ""
        from doorward.client import fwknoprc  # noqa: PLC0415  only where no key was found

        if not fwknoprc.load(self.saved.path).has(self._said.host):
            return ""
        return (
            f"; [{self._said.host}] is there, and ssh calls the host {self.host}: write SPA_SERVER {self.host} into it"
        )

    def _fingerprint(self) -> Finding:
        keys = self.asked.keys
        same = "on the host: doorwardd check --report says the same"
        if isinstance(keys, PublicKeys):
            from doorward.crypto.doorward import public_key  # noqa: PLC0415  _packet() says what lacks cryptography

            own = fingerprint.of_public(public_key(keys.private))
            told = f"own {own}; the host's {fingerprint.of_public(keys.host)}"
            return Finding(OK, "key", told, "on the host: doorwardd keys fingerprint; doorwardd check --report")
        key = keys.key if isinstance(keys, SymmetricKeys) else None
        if key is None and keys.hmac_key is None:
            return Finding(OK, "key", f"of GnuPG, for {self.profile.gpg_recipient}", "gpg --list-keys --fingerprint")
        told = fingerprint.words(key, keys.hmac_key)
        if keys.hmac_key is None:
            return Finding(UNKNOWN, "key", f"{told}, and no HMAC key: hosts may refuse it", same)
        return Finding(OK, "key", told, same)

    def _packet(self) -> Iterator[Finding]:
        """A packet that is thrown away: what it is made with is there."""
        python = f"Python {'.'.join(map(str, sys.version_info[:3]))}"
        try:
            build(self.asked, None, self._outside.clock(), self._outside.random_bytes)
        except ImportError as error:
            text = f"cannot be made: {sys.executable} lacks {error.name or error}"
            command = f"{sys.executable} -m pip install cryptography"
            yield self._end(Finding(NO, "packet", text, command), "there is no packet")
        except DoorwardError as error:
            yield self._end(Finding(NO, "packet", str(error)), "there is no packet")
        else:
            yield Finding(OK, "packet", f"made by doorward {__version__} with {python}", "doorward --version")

    def _source(self) -> Iterator[Finding]:
        """The address to ask for, as far as this side can know it."""
        try:
            self.ways = list(proxy.routes(self.host, self.asked, list(self.endpoints), SECONDS, self._outside))
        except ClientError as error:
            yield self._end(Finding(NO, "source", f"where the packet goes: {error}"), "the packet has no destination")
            return
        learn = f"ssh {self._name} 'echo $SSH_CONNECTION' | doorward learn {self._name}"
        yield from (self._asks(way, learn) for way in self.ways)
        with contextlib.suppress(OSError):
            self._question = clock.Question(self.ways[0].dial, self._outside)

    def _asks(self, way: Route, learn: str) -> Finding:
        """What will be asked for at one address of the host."""
        asking = way.sources
        if isinstance(asking, Candidates):
            own = asking.doubts().partition("source behind NAT?")[0] or "this machine's own address"
            told = f"{asking.likely}: {own}" if asking.likely else asking.doubts()
            return Finding(OK if asking.likely else UNKNOWN, "source", told, learn)
        rule, own_one = getattr(self.profile.source, "value", self.profile.source), own_address(way.dial)
        told = f"{rule}, as ALLOW_IP or --source has it; this machine's own is {own_one}"
        return Finding(OK if rule == own_one else UNKNOWN, "source", told, learn)

    def _clock(self) -> Iterator[Finding]:
        if self.profile.time_offset:
            text = f"TIME_OFFSET shifts every packet by {self.profile.time_offset} s"
            yield Finding(UNKNOWN, "clock", text, _shown(self.saved.path))
        compare = f"ssh {self._name} date +%s; date +%s"
        ahead = None if self._question is None else self._question.answer(_NTP_SECONDS)
        if ahead is None:
            yield self._own_clock(compare)
        elif abs(ahead) >= clock.OFF:
            yield Finding(NO, "clock", reasons.difference(ahead, self.host), _SET_CLOCK)
        else:
            yield Finding(OK, "clock", f"agrees with the NTP of {self.host} ({ahead:+.1f} s)", compare)

    @staticmethod
    def _own_clock(compare: str) -> Finding:
        """What this machine says of its own clock."""
        right = is_synchronised()
        if right:
            return Finding(OK, "clock", "something keeps this machine's clock right; the host's is not known", compare)
        if right is None:
            return Finding(UNKNOWN, "clock", "nobody says whether this machine's clock is right", compare)
        return Finding(UNKNOWN, "clock", UNSYNCHRONISED, _SET_CLOCK)

    def _closed(self) -> Iterator[Finding]:
        """Whether the service answers before the knock."""
        port = self.service
        prove = f"nc -zvw1 {shlex.quote(self.host)} {port.port}"
        try:
            _dialled(self.ways[0].dial, _DIAL_SECONDS).close()
        except TimeoutError:
            yield Finding(OK, "closed", f"{port} does not answer before the knock", prove)
        except OSError as error:
            yield Finding(UNKNOWN, "closed", f"{port} answers before the knock: {error.strerror or error}", prove)
        else:
            yield Finding(
                UNKNOWN, "closed", f"{port} is open before the knock: not hidden, or by an earlier knock", prove
            )

    def _knock(self) -> Iterator[Finding]:
        """Knock and dial, as `doorward connect` does."""
        deadline = self._outside.monotonic() + (self._said.patience or SECONDS)
        try:
            connection = connect(self.ways, deadline, self._outside.monotonic)
        except NotConnectedError as error:
            yield from self._in_vain(error.attempts)
        else:
            with connection:
                yield Finding(OK, "knock", f"sent{_words(self.ways)}", _HOST_SIDE)
                yield Finding(OK, "port", f"{self.service} opened{_banner(connection)}", f"ssh {self._name} true")
        finally:
            for sender in (sender for way in self.ways for sender in way.senders):
                sender.close()

    def _in_vain(self, attempts: Sequence[DialAttempts]) -> Iterator[Finding]:
        """What became of knocks after which nothing opened."""
        refused = reasons.refusals_of(attempts)
        yield from (Finding(NO, "knock", text, _HOST_SIDE) for text in refused.values())
        if not reasons.knocks(attempts):
            yield Finding(NO, "knock", reasons.unsent(attempts), "nft list ruleset")
        elif not refused:
            yield Finding(
                UNKNOWN, "knock", f"sent{_words(self.ways)}, and nothing comes back, as it should", _HOST_SIDE
            )
        ends = "; ".join(reasons.ends(attempts))
        told = ends or f"{self.service} does not answer after the knock{'' if refused else ': key? clock? source?'}"
        yield Finding(NO, "port", told, _HOST_SIDE)


class _Lines(io.StringIO):
    """A standard error whose lines are kept for findings."""

    @property
    def told(self) -> list[str]:
        """The lines, without the program's name."""
        return [line.removeprefix("doorward: ") for line in self.getvalue().splitlines()]


def _shown(path: Path | None) -> str:
    """The command that shows a file."""
    return f"less {shlex.quote(str(path))}"


def _words(ways: Sequence[Route]) -> str:
    """As whom the ways asked."""
    asked = dict.fromkeys(way.sources.words() for way in ways if way.sources is not None)
    return f" as {' and '.join(filter(None, asked))}"


def _dialled(to: Endpoint, seconds: float) -> socket.socket:
    made = to.open(socket.SOCK_STREAM)
    made.settimeout(seconds)
    try:
        made.connect(to.sockaddr)
    except OSError:
        made.close()
        raise
    return made


def _banner(connection: socket.socket) -> str:
    """What the service says first, where it says something; characters of terminals are not shown."""
    if not select.select([connection], [], [], _BANNER_SECONDS)[0]:
        return ""
    try:
        line = connection.recv(_BANNER_MAX).partition(b"\n")[0].decode("ascii", "replace").strip()
    except OSError as error:
        return f", and hung up: {error.strerror or error}"
    return f": {''.join(each for each in line if each.isprintable())}" if line else ", and hung up"
