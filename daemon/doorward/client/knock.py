"""`doorward knock`: one packet to each family of the host, or only shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.client import show
from doorward.client.address import ANY_FAMILY, Endpoint, own_address, resolve, source_to_ask
from doorward.client.packet import build
from doorward.client.request import PORT, request
from doorward.client.send import send
from doorward.config.fwknoprc import SourceRule, load
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.client.outside import Outside
    from doorward.client.packet import Request
    from doorward.config.fwknoprc import Profile
    from doorward.values import IPAddress


def knock(profile: Profile, outside: Outside, *, family: int = ANY_FAMILY, test: bool = False) -> None:
    """Send a packet to the first reachable address of each family of the host; with `test` show and send nothing.

    Both families, because whoever connects afterwards may use either, and the packet names one source.

    Raises:
        ClientError: something is missing, or nothing could be sent.
    """
    if profile.access is None:
        msg = "name what to open: -A tcp/22"
        raise ClientError(msg)
    if profile.server is None and not test:
        msg = "name the host to knock at: -D HOST"
        raise ClientError(msg)
    asked = request(profile, profile.access, profile.server or "", outside.environ, outside.ask)
    if asked.keys.hmac_key is None:
        outside.warn("warning: no HMAC key: the packet is not authenticated")
    failures = [_to_one(to, asked, profile, outside, test) for to in _targets(profile, family)]
    if None not in failures:
        raise ClientError("; ".join(text for text in failures if text))


def stanza_names(outside: Outside, rc_file: Path | None) -> tuple[str, ...]:
    """Return the names of the stanzas in the client's file.

    Raises:
        ConfigError: the file cannot be read.
    """
    return load(rc_file or outside.home / ".fwknoprc").names


def _targets(profile: Profile, family: int) -> list[Endpoint | None]:
    """Return the endpoints to knock at: of each family the first, of an explicit source's family if there is one."""
    if profile.server is None:
        return [None]
    endpoints = resolve(profile.server, profile.port or PORT, family=family)
    firsts = {endpoint.host.version: endpoint for endpoint in reversed(endpoints)}
    if profile.source is not None and not isinstance(profile.source, SourceRule):
        return [firsts.get(profile.source.version, endpoints[0])]
    return [endpoint for endpoint in endpoints if firsts[endpoint.host.version] is endpoint]


def _to_one(to: Endpoint | None, asked: Request, profile: Profile, outside: Outside, test: bool) -> str | None:  # noqa: FBT001  private, called once
    """Knock at one endpoint; return why it did not work, or None."""
    try:
        packet = build(asked, _source(profile, to), outside.clock(), outside.random_bytes)
        if profile.verbose or test:
            outside.say(f"{show.dump(packet)}\n{show.destination(to, profile.source_port)}")
        if test or to is None:
            outside.say("test mode enabled, SPA packet not actually sent.")
            return None
        sent = send(packet.payload, to, profile.source_port)
    except OSError as error:
        return f"{to.host if to else ''}: {error.strerror or error}"
    if profile.verbose:
        outside.say(f"send_spa_packet: bytes sent: {sent}")
    return None


def _source(profile: Profile, to: Endpoint | None) -> IPAddress | None:
    rule = profile.source or SourceRule.AUTO
    if not isinstance(rule, SourceRule):
        return rule
    return None if to is None or rule is SourceRule.PACKET else source_to_ask(rule, own_address(to), to.host)
