"""`doorward knock`: one packet to each family of the host, or only shown; with key pairs each of them is for both."""

from __future__ import annotations

import binascii
import contextlib
import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from doorward import portable
from doorward.client import nat, seen
from doorward.client.address import Endpoint, own_address, resolve
from doorward.client.packet import PublicKeys, build, parts
from doorward.client.profile import Carrier, SourceRule
from doorward.client.request import PORT, KeySearch, Saved, request
from doorward.client.send import http_request, send, unsent
from doorward.client.sources import Candidates, Named, beside
from doorward.errors import ClientError, RootError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    from doorward.client.packet import Packet, Request
    from doorward.client.profile import Profile
    from doorward.client.surroundings import Outside
    from doorward.values import IPAddress


def knock(
    profile: Profile, outside: Outside, arguments: SimpleNamespace, saved: Saved, ready: Callable[[], None]
) -> None:
    """Send a packet to the first reachable address of each family of the host; in a test show and send nothing.

    Both families, because the connection afterwards may use either, and one of the packets may get lost. `arguments`
    has the command line's test, save_packet and save_packet_append; `saved` is the file's part of the profile.
    `ready` is called once nothing is missing for a packet, and before one is sent.

    Raises:
        ClientError: a setting is missing, or no packet could be sent.
    """
    if profile.sequence is not None:
        from doorward.client import sequence  # noqa: PLC0415  other knocks are packets

        ready()
        sequence.knock(profile, outside, arguments)
        return
    check(profile, test=arguments.test)
    none = profile.command is not None
    wanted = nat.NatRequest(()) if none else nat.request(profile, profile.access or (), outside.random_bytes)
    search = KeySearch(profile.server or "", outside.ask, saved, outside.ask)
    asked = request(profile, wanted, search, outside.environ)
    ready()
    if not asked.is_authenticated:
        outside.warn("warning: no HMAC key: the packet is not authenticated")
    if wanted.random_port is not None:
        outside.say(f"[+] {_random(wanted)}")
    if arguments.jump and not arguments.test:
        from doorward.client import jump  # noqa: PLC0415  a jump needs programs that nothing else here needs

        jump.knock(asked, arguments, outside)
        return
    found = ways(profile, outside, test=arguments.test)
    if isinstance(asked.keys, PublicKeys) and (profile.command is not None or asked.code is not None):
        failures = _to_first(found, asked, outside, arguments)
    else:
        others = [] if _is_of_one_family(asked) else _asking(found, asked.profile, outside)
        failures = [_to_one(way, asked, outside, arguments, others) for way in found]
    if None not in failures:
        raise ClientError("; ".join(text for text in failures if text))


def check(profile: Profile, *, test: bool) -> None:
    """Refuse a profile without a service or a host.

    Raises:
        ClientError: the missing setting.
    """
    if profile.access is None and profile.command is None and profile.host_key is None:
        msg = "name a service to open: -A tcp/22 (ACCESS in the section of -n)"
        raise ClientError(msg)
    if profile.server is None and not test:
        msg = "name the host to knock at: -D HOST (SPA_SERVER in the section of -n)"
        raise ClientError(msg)


def _random(wanted: nat.NatRequest) -> str:
    """The line of fwknop's that names the random port, which the user needs to connect."""
    services = ",".join(map(str, wanted.services))
    target = f" will grant access to: '{wanted.target}'" if wanted.target is not None else ""
    return f"Randomly assigned port '{wanted.random_port}' on: '{services}'{target}"


class Way(NamedTuple):
    """A packet's destination: `host` is asked, `to` receives the packet (a proxy or the host). None is unknown."""

    host: Endpoint | None
    to: Endpoint | None
    port: int = PORT


def ways(profile: Profile, outside: Outside, *, test: bool) -> list[Way]:
    """The endpoints to knock at: the first of each family, or of an explicit source's family.

    Raises:
        ClientError: a name has no address.
    """
    port = spa_port(profile, outside)
    if profile.server is None or (
        test and profile.source not in {None, SourceRule.AUTO, SourceRule.NAMED, SourceRule.RESOLVE}
    ):
        return [Way(None, None, port)]  # a test sends nothing, and the source is known
    proxy = profile.http_proxy
    passing = resolve(proxy.host, proxy.port or port, family=profile.family) if proxy is not None and not test else ()
    try:
        hosts = _firsts(resolve(profile.server, port, family=profile.family), profile)
    except ClientError:
        if not passing and not test:
            raise
        hosts = [None]  # the proxy may know the name, and a test sends nothing
    return [Way(host, passing[0] if passing else host, port) for host in hosts]


def spa_port(profile: Profile, outside: Outside) -> int:
    """The port to knock at; a random one is another one at each call."""
    return nat.random_port(outside.random_bytes) if profile.rand_port else profile.port or PORT


def _firsts(endpoints: tuple[Endpoint, ...], profile: Profile) -> list[Endpoint | None]:
    firsts = {endpoint.host.version: endpoint for endpoint in reversed(endpoints)}
    for told in (profile.spoofed, profile.source):
        if told is not None and not isinstance(told, SourceRule):
            return [firsts.get(told.version, endpoints[0])]
    return [endpoint for endpoint in endpoints if firsts[endpoint.host.version] is endpoint]


def _to_first(found: list[Way], asked: Request, outside: Outside, arguments: SimpleNamespace) -> list[str | None]:
    """Knock with one packet, where a second one would run a command again, or have no code that counts.

    A knock for services names a source of each family, where there are two and nothing is forwarded.
    """
    failures: list[str | None] = []
    for way in found:
        others = [] if _is_of_one_family(asked) else [other for other in found if other is not way]
        second = next((each for other in others for each in _first_sources(other, asked, outside)), None)
        try:
            for source in _sources(way, asked, outside)[:1]:
                for part in parts(asked, source):
                    _ask_for(source, way, part, outside, arguments, second=second if source else None)
        except RootError:
            raise
        except (ClientError, OSError) as error:
            failures.append(_reason(error, way, asked))
        else:
            return [None]
    return failures


def _first_sources(way: Way, asked: Request, outside: Outside) -> list[IPAddress]:
    """The first source of another family that has a name, if any."""
    try:
        return [each for each in _sources(way, asked, outside)[:1] if each is not None]
    except (ClientError, OSError):
        return []


def _sources(way: Way, asked: Request, outside: Outside) -> list[IPAddress | None]:
    asking = sources(asked.profile, source_rule(asked.profile), way, outside)
    return asking.at_once() if isinstance(asking, Candidates) else asking.next_round()


def _reason(error: ClientError | OSError, way: Way, asked: Request) -> str:
    if isinstance(error, ClientError):
        return str(error)
    return f"{way.host.host if way.host else asked.profile.server}: {error.strerror or error}"


def _is_of_one_family(asked: Request) -> bool:
    """Whether a packet lets in one source: of fwknop's format, for a command, or forwarded to one inner address."""
    return not isinstance(asked.keys, PublicKeys) or asked.profile.command is not None or asked.nat.target is not None


def _asking(found: list[Way], profile: Profile, outside: Outside) -> list[Named | Candidates]:
    """The sources of each way that there is."""
    asking = []
    for way in found:
        with contextlib.suppress(OSError):
            asking.append(sources(profile, source_rule(profile), way, outside))
    return asking


def _to_one(
    way: Way, asked: Request, outside: Outside, arguments: SimpleNamespace, others: list[Named | Candidates]
) -> str | None:
    """Knock at one endpoint, for each source and one of the other family; return the reason of a failure, or None."""
    try:
        for source in _sources(way, asked, outside):
            second = beside(source, others)
            for part in parts(asked, source):
                _ask_for(source, way, part, outside, arguments, second=second)
                arguments.save_packet_append = True  # the next packet goes to the same file
    except RootError:
        raise
    except (ClientError, OSError) as error:
        return _reason(error, way, asked)
    return None


def _ask_for(  # noqa: PLR0913  what a packet is made of, each named
    source: IPAddress | None,
    way: Way,
    asked: Request,
    outside: Outside,
    arguments: SimpleNamespace,
    *,
    second: IPAddress | None = None,
) -> None:
    """Send one packet; in a test show it."""
    profile = asked.profile
    packet = build(asked, source, outside.clock(), outside.random_bytes, second)
    if profile.verbose or arguments.test:
        from doorward.client import describe_packet  # noqa: PLC0415  `doorward connect` never shows packets

        outside.say(f"{describe_packet.dump(packet)}\n{describe_packet.destination(way.to, way.port, profile)}")
    if arguments.save_packet is not None:
        save(packet, arguments.save_packet, append=arguments.save_packet_append)
    if arguments.test or way.to is None:
        _end_test(packet, profile, outside)
        return
    sent = _sent(packet, way.to, profile)
    if profile.verbose:
        outside.say(f"send_spa_packet: bytes sent: {sent}")


def _sent(packet: Packet, to: Endpoint, profile: Profile) -> int:
    try:
        return send(packet.payload, to, profile)
    except OSError as error:
        raise ClientError(unsent(error, to, profile)) from error


def _end_test(packet: Packet, profile: Profile, outside: Outside) -> None:
    if profile.transport is Carrier.HTTP and profile.verbose:
        outside.say(http_request(packet.payload, profile).decode("ascii").replace("\r", ""))
    outside.say("test mode enabled, SPA packet not actually sent.")


def source_rule(profile: Profile) -> SourceRule | IPAddress:
    """The rule for the source; naming a site or a server to ask implies RESOLVE, unless a source is named."""
    if profile.source is not None:
        return profile.source
    return SourceRule.RESOLVE if profile.resolve_urls or profile.resolve_dns else SourceRule.AUTO


def sources(profile: Profile, rule: SourceRule | IPAddress, way: Way, outside: Outside) -> Named | Candidates:
    """The sources to ask for.

    Raises:
        OSError: there is no route.
    """
    if not isinstance(rule, SourceRule):
        return Named(lambda: rule)
    if rule is SourceRule.RESOLVE:
        return Named(partial(_ask_outside, profile, way, outside))
    if way.host is None or rule is SourceRule.PACKET:
        return Named(lambda: None)
    own, host, now = own_address(way.host), way.host.host, outside.clock()
    entries, complaint = seen.load(seen.path(outside.environ, outside.home))
    known = [each for each in seen.known(entries, seen.way(own, host), host, now) if each.address != own]
    found = Candidates(own, host, known, now, leaves_open=rule is SourceRule.AUTO)
    found.note(complaint)
    if profile.resolve_urls or profile.resolve_dns:
        found.may_ask(partial(_ask_outside, profile, way, outside))
    return found


def _ask_outside(profile: Profile, way: Way, outside: Outside) -> IPAddress:
    from doorward.client import external_address  # noqa: PLC0415  TLS and HTTP, only where a site is asked

    return external_address.address(profile, way.host, outside)


def _line(packet: Packet) -> bytes:
    """The payload as text: fwknop's is text, that of doorward 1 becomes base64."""
    return binascii.b2a_base64(packet.payload, newline=False) if isinstance(packet.keys, PublicKeys) else packet.payload


def save(packet: Packet, path: Path, *, append: bool) -> None:
    """Write a packet's payload as a line of a file of mode 0600: the first to send it is let in.

    Raises:
        ClientError: it cannot be written.
    """
    where = os.O_APPEND if append else os.O_TRUNC
    flags = os.O_WRONLY | os.O_CREAT | where | portable.flags("O_CLOEXEC", "O_NOFOLLOW")
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) and hasattr(os, "fchmod"):
                os.fchmod(stream.fileno(), 0o600)
            stream.write(_line(packet) + b"\n")
    except OSError as error:
        why = "it is a link, and links are not followed" if error.errno == errno.ELOOP else error.strerror or error
        msg = f"{path}: the packet cannot be saved: {why}"
        raise ClientError(msg) from error
