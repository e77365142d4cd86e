"""`doorward connect`: the ProxyCommand. Knock, dial, hand the connection over; or report the reason in one line."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from doorward import status_file
from doorward.client import fdpass, nat, seen
from doorward.client.address import from_here, own_address, resolve
from doorward.client.connect import NotConnectedError, Route, connect
from doorward.client.knock import Way, sources, spa_port
from doorward.client.known_hosts import with_pinned_key
from doorward.client.options import TIMEOUT_DEFAULT
from doorward.client.packet import PublicKeys, build, parts
from doorward.client.profile import Profile, SourceRule
from doorward.client.request import ENCRYPTION, KeySearch, request, saved_profile
from doorward.client.send import send, unsent
from doorward.client.sources import Candidates, beside
from doorward.errors import ClientError, ConfigError, DoorwardError
from doorward.values import Protocol, Service

ASK_HOST: Final = "seen?"  # of the status file: the host at this address has not said lately where it sees us

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import SimpleNamespace

    from doorward.client.address import Endpoint
    from doorward.client.connect import DialAttempts
    from doorward.client.packet import Packet, Request
    from doorward.client.reasons import Explanation
    from doorward.client.sources import Sources
    from doorward.client.surroundings import Outside
    from doorward.values import IPAddress


def run(
    said: SimpleNamespace, outside: Outside, stdin: int, stdout: int, prepare: Callable[[], None] = lambda: None
) -> None:
    """Connect as a command line says; the reason of a failure also goes to the status file.

    `prepare` completes what was said.

    Raises:
        DoorwardError: there is no connection; the text is the reason.
    """
    try:
        prepare()
        connection = connected(said, outside)
        if fdpass.wants_descriptor(stdin, stdout):
            fdpass.pass_descriptor(connection, stdout)
        else:
            fdpass.relay(connection, stdin, stdout)
    except ConfigError as error:
        _leave(str(error), said.status, outside)
        raise
    except (DoorwardError, OSError) as error:
        _leave(str(error), said.status, outside)
        msg = f"{said.host} port {said.dial_port}: {error}"
        raise ClientError(msg) from error


def _leave(reason: str, status: Path | None, outside: Outside) -> None:
    """Write the reason to the status file, nothing where there is a connection."""
    if status is None:
        return
    try:
        status_file.write(str(status), reason)
    except OSError as error:
        outside.warn(f"{status}: {error.strerror or error}")


def connected(said: SimpleNamespace, outside: Outside) -> socket.socket:
    """The connection that a command line wants, knocked for where there is a key.

    Raises:
        DoorwardError: there is none; the text is the reason.
    """
    if said.jump:
        from doorward.client.jump import connection  # noqa: PLC0415  a jump needs programs that nothing else here needs

        through = connection(said, outside)
        _leave("", said.status, outside)
        return through
    seconds = said.patience or TIMEOUT_DEFAULT
    deadline = outside.monotonic() + seconds
    service = Service(Protocol.TCP, said.dial_port)
    saved = saved_profile(outside, said.rc_file, said.section, said.host, service)
    profile = with_pinned_key(Profile.of(said).over(saved.profile), said.host, outside.environ)
    services = profile.access or (service,)
    wanted = nat.request(profile, services, outside.random_bytes) if profile.can_seal else nat.NatRequest(services)
    port = wanted.services[0].port if profile.nat_port or wanted.random_port else said.dial_port
    endpoints = resolve(said.host, port, family=profile.family, seconds=seconds)
    endpoints = from_here(endpoints, said.bind_address, said.bind_interface, seconds)
    complaints = {each: no_route(each) for each in of_the_source(endpoints, profile.source)}
    reachable = [endpoint for endpoint, complaint in complaints.items() if not complaint]
    if not reachable:
        raise ClientError(complaints.popitem()[1])
    left = max(deadline - outside.monotonic(), 0)
    if not profile.can_seal:
        missing = "GPG_RECIPIENT" if profile.use_gpg else ENCRYPTION.what
        keyless = f"no {missing} to knock with: {saved.lacks(ENCRYPTION)}"
        if profile.verbose:
            outside.warn(f"{said.host}: dialling without a knock: {keyless}")
        return _connected([Route(dial, None, keyless) for dial in reachable], deadline, said, outside)
    profile = profile._replace(server=profile.server or said.host, command=None)
    begun = outside.monotonic()
    asked = request(profile, wanted, KeySearch(profile.server or "", None, saved, outside.ask), outside.environ)
    deadline += outside.monotonic() - begun  # a person may have typed a PIN for KEY_COMMAND, or a code
    ways = list(routes(said.host, asked, reachable, left, outside))
    opened = _connected(ways, deadline, said, outside)
    _remember(ways, opened, said, outside)
    return opened


def _connected(routes: list[Route], deadline: float, said: SimpleNamespace, outside: Outside) -> socket.socket:
    """The connection; the status file, which has the text for an end by a signal, is empty from here on."""
    begun: list[Explanation] = []

    def tell(attempts: Sequence[DialAttempts]) -> None:
        begun.append(_explanation(said, outside))
        _tell(begun[0].begin(attempts), said, outside)

    try:
        connection = connect(routes, deadline, outside.monotonic, tell)
    except NotConnectedError as error:
        explanation = begun[0] if begun else _explanation(said, outside)
        raise ClientError(explanation.reason(error.attempts)) from error
    finally:
        for sender in (sender for route in routes for sender in route.senders):
            sender.close()
    _leave("", said.status, outside)
    return connection


def _explanation(said: SimpleNamespace, outside: Outside) -> Explanation:
    from doorward.client.reasons import Explanation  # noqa: PLC0415  only where no connection comes up

    return Explanation(said.host, outside)


def _tell(text: str, said: SimpleNamespace, outside: Outside) -> None:
    """Tell one who waits; who reads the status file does so at the end, which may be one by a signal."""
    if said.status is None:
        outside.warn(f"{said.host}: {text}")
    else:
        _leave(f"{text}, when a signal ended the helper", said.status, outside)


def _remember(routes: list[Route], connection: socket.socket, said: SimpleNamespace, outside: Outside) -> None:
    """Keep the address that a site told; ask the reader of the status file for the one that the host sees."""
    peer = connection.getpeername()[0].partition("%")[0]
    for route in routes:
        if str(route.dial.host) != peer or not isinstance(route.sources, Candidates):
            continue
        if route.sources.told is not None:
            seen.remember(route.dial, seen.SITE, route.sources.told, outside)
        if said.status is not None and route.sources.is_unsure(route.dial.host):
            _leave(f"{ASK_HOST} {peer}", said.status, outside)


def of_the_source(endpoints: tuple[Endpoint, ...], rule: SourceRule | IPAddress | None) -> tuple[Endpoint, ...]:
    """The endpoints of an explicit source's family, or all if there are none."""
    if rule is None or isinstance(rule, SourceRule):
        return endpoints
    return tuple(each for each in endpoints if each.host.version == rule.version) or endpoints


def no_route(endpoint: Endpoint) -> str:
    """The reason why this machine has no route to an endpoint; empty where it has one."""
    try:
        own_address(endpoint)
    except OSError as error:
        return f"no route to {endpoint.host}: {error.strerror or error}"
    return ""


def routes(host: str, asked: Request, dials: list[Endpoint], seconds: float, outside: Outside) -> Iterator[Route]:
    """The addresses of the host, each with the call that knocks for it: in its own family, if the door has that."""
    profile = asked.profile
    door, port = profile.http_proxy or (profile.server, None)
    port = port or spa_port(profile, outside)
    both = isinstance(asked.keys, PublicKeys) and asked.nat.target is None
    others: list[Sources] = []
    doors = () if door == host else resolve(door or "", port, family=profile.family, seconds=seconds)
    for dial in dials:
        of_its_family = (each for each in doors if each.family is dial.family)
        to = next(of_its_family, doors[0])._replace(here=dial.here) if doors else dial._replace(port=port)
        way = Way(dial, to)
        # standard output may be the connection
        asking = sources(profile, profile.source or SourceRule.AUTO, way, outside._replace(out=outside.err))
        others += [asking] if both else []
        senders: list[socket.socket] = []
        fresh = partial(_fresh, asked, asking, others, outside)
        knock = _knocker(profile, to, fresh, senders, outside)
        yield Route(dial, knock, sources=asking, door=to, senders=senders)


def _fresh(asked: Request, asking: Sources, others: list[Sources], outside: Outside) -> list[Packet]:
    """Packets of the next round; what is known of the `others` by then is let in by each of them."""
    wanted = asking.next_round()
    asks = [(part, named) for named in wanted for part in parts(asked, named)]
    return [build(part, named, outside.clock(), outside.random_bytes, beside(named, others)) for part, named in asks]


def _knocker(
    profile: Profile, door: Endpoint, fresh: Callable[[], list[Packet]], senders: list[socket.socket], outside: Outside
) -> Callable[[], int]:
    def knock() -> int:
        packets = fresh()
        for packet in packets:
            try:
                send(packet.payload, door, profile, senders)
            except OSError as error:
                raise OSError(error.errno, unsent(error, door, profile)) from error
            if profile.verbose:
                outside.warn(f"knocked at {door.host} port {door.port} for {packet.text}")
        return len(packets)

    return knock
