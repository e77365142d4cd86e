"""`doorward learn`: remember the address at which a host sees this machine."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, TextIO

from doorward.client import seen
from doorward.client.address import own_address, plausible, resolve
from doorward.client.request import PORT
from doorward.errors import ClientError

if TYPE_CHECKING:
    from types import SimpleNamespace

    from doorward.client.surroundings import Outside
    from doorward.values import IPAddress

_LINE_MAX: Final = 1024
_RESOLVE_SECONDS: Final = 10.0


def run(said: SimpleNamespace, outside: Outside, stdin: TextIO | None) -> None:
    """Remember what a command line says, or the first word of a line of SSH_CONNECTION on standard input.

    Raises:
        ClientError: there is no address, the host cannot see this machine there, or it cannot be kept.
    """
    told = said.address or _client_address(stdin.readline(_LINE_MAX) if stdin is not None else "")
    fitting = [each for each in resolve(said.host, PORT, seconds=_RESOLVE_SECONDS) if plausible(told, each.host)]
    if not fitting:
        msg = f"{said.host} cannot see this machine at {told}"
        raise ClientError(msg)
    try:
        others = [each for each in fitting if own_address(each) != told]
    except OSError as error:
        msg = f"no route to {said.host}: {error.strerror or error}"
        raise ClientError(msg) from error
    for each in others:
        failure = seen.remember(each, str(each.host), told, outside)
        if failure:
            raise ClientError(failure)
    kind = "behind NAT" if others else "its own address"
    outside.say(f"{said.host} sees this machine at {told}: {kind}")


def _client_address(line: str) -> IPAddress:
    """The first word of SSH_CONNECTION (ssh(1)).

    Raises:
        ClientError: it is no address.
    """
    try:
        return ipaddress.ip_address(line.strip().partition(" ")[0].partition("%")[0])
    except ValueError:
        shown = "".join(char if char.isprintable() else "?" for char in line.strip()[:40])
        msg = f"{shown!r} is no SSH_CONNECTION: `ssh HOST 'echo $SSH_CONNECTION' | doorward learn HOST`"
        raise ClientError(msg) from None
