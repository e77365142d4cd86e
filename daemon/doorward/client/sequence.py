"""Sending a sequence of ports, as knockd's `knock` does: a SYN or a datagram of one byte to each, in their order."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from doorward.client.address import resolve
from doorward.errors import ClientError
from doorward.values import Protocol

if TYPE_CHECKING:
    from types import SimpleNamespace

    from doorward.client.address import Endpoint
    from doorward.client.profile import Profile
    from doorward.client.surroundings import Outside
    from doorward.values import Service

_PAUSE: Final = 0.1  # seconds between two steps, or the network may change their order
_SENT: Final = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.ECONNREFUSED})  # a SYN is on its way


def knock(profile: Profile, outside: Outside, arguments: SimpleNamespace) -> None:
    """Send the profile's sequence to the first address of each family of the host; in a test show and send nothing.

    Raises:
        ClientError: no host, or the sequence could be sent to none of its addresses.
    """
    steps = profile.sequence or ()
    if profile.server is None:
        msg = "name the host to knock at: -D HOST (SPA_SERVER in the section of -n)"
        raise ClientError(msg)
    if arguments.jump:
        msg = "--jump sends packets, no sequences: write --sequence without it"
        raise ClientError(msg)
    if arguments.test:
        outside.say(f"test mode enabled, sequence not actually sent: {' '.join(map(str, steps))}")
        return
    found = resolve(profile.server, steps[0].port, family=profile.family)
    firsts = {endpoint.host.version: endpoint for endpoint in reversed(found)}
    failures = [_to_one(steps, one, profile, outside) for one in found if firsts[one.host.version] is one]
    if None not in failures:
        raise ClientError("; ".join(text for text in failures if text))


def _to_one(steps: tuple[Service, ...], to: Endpoint, profile: Profile, outside: Outside) -> str | None:
    """Send all steps to one address; return the reason of a failure, or None."""
    for number, step in enumerate(steps):
        if number:
            time.sleep(_PAUSE)
        try:
            _send(step, to._replace(port=step.port))
        except OSError as error:
            return f"{to.host}: {step}: {error.strerror or error}"
        if profile.verbose:
            outside.say(f"{to.host}: {step}")
    return None


def _send(step: Service, to: Endpoint) -> None:
    kind = socket.SOCK_STREAM if step.protocol is Protocol.TCP else socket.SOCK_DGRAM
    with to.open(kind) as sender:
        sender.setblocking(False)  # noqa: FBT003  its only argument
        code = sender.connect_ex(to.sockaddr)
        if code not in _SENT:
            raise OSError(code, os.strerror(code))
        if kind is socket.SOCK_DGRAM:
            sender.send(b"\0")
