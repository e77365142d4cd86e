"""What `doorward doctor` can know of a way through jump hosts: what they see of the host, and what becomes of a knock.

Each step is a session over the one connection to the last jump host, by the code of `doorward connect --jump`.
"""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

from doorward.client.jump import Dial, Knocks, Road, refuse_carriers
from doorward.client.profile import HostPort
from doorward.errors import ClientError
from doorward.findings import NO, OK, UNKNOWN, Finding

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from doorward.client.packet import Request
    from doorward.client.surroundings import Outside

_DIAL_SECONDS: Final = 2.0  # without a knock; what is hidden does not answer


class ThroughJump:
    """The steps for one host; `said` has the host, the port to dial, the jump hosts and the time to take."""

    def __init__(self, said: SimpleNamespace, outside: Outside, asked: Request) -> None:
        """Nothing is connected yet."""
        self._said, self._outside, self._asked = said, outside, asked
        self._hop = said.jump[-1]
        self.names = ",".join(map(str, said.jump))
        self._port = f"tcp/{said.dial_port}"

    def command(self) -> str:
        """The command that goes the same way."""
        words = ["doorward", "connect", "-v", "--jump", self.names, self._said.host, str(self._said.dial_port)]
        return shlex.join(words)

    def findings(self, greeting: Callable[[socket.socket], str]) -> Iterator[Finding]:
        """Every step's lines; `greeting` reads what a service says first."""
        try:
            refuse_carriers(self._asked.profile)
            with Road(self._said, self._outside) as road, road.alone():
                knocks = Knocks(road, self._asked, self._said, self._outside)
        except ClientError as error:
            yield Finding(NO, "jump", str(error), f"doorward doctor {shlex.quote(str(self._said.jump[0].host))}")
            return
        there = f"through {self.names}, which reaches the host at {knocks.ends.host}"
        yield Finding(OK, "jump", there, self.command())
        yield self._source(knocks)
        yield self._closed(HostPort(str(knocks.ends.host), knocks.port))
        yield from self._knock(greeting)

    def _source(self, knocks: Knocks) -> Finding:
        """The address that will be asked for."""
        if knocks.source is None:
            told = f"the packet's origin: {self._hop} has {knocks.ends.own} towards the host, behind NAT?"
            return Finding(UNKNOWN, "source", told)
        if knocks.source != knocks.ends.own:
            own = f"{self._hop} has {knocks.ends.own} towards the host"
            told = f"{knocks.source}, as ALLOW_IP or --source has it; {own}"
            return Finding(UNKNOWN, "source", told)
        return Finding(OK, "source", f"{knocks.source}: the address that {self._hop} has towards the host")

    def _closed(self, place: HostPort) -> Finding:
        """Whether the service answers the jump host before the knock."""
        brief = SimpleNamespace(**{**vars(self._said), "patience": _DIAL_SECONDS})
        with Road(brief, self._outside) as road:
            try:
                Dial(road, place, self._outside).first().close()
            except ClientError as error:
                if self._outside.monotonic() >= road.deadline:
                    return Finding(OK, "closed", f"{self._port} does not answer {self._hop} before the knock")
                return Finding(UNKNOWN, "closed", str(error))
        return Finding(UNKNOWN, "closed", f"{self._port} is open before the knock: not hidden, or by an earlier knock")

    def _knock(self, greeting: Callable[[socket.socket], str]) -> Iterator[Finding]:
        """Knock and dial, as `doorward connect` does."""
        try:
            with Road(self._said, self._outside) as road:
                knocks = Knocks(road, self._asked, self._said, self._outside)
                place = HostPort(str(knocks.ends.host), knocks.port)
                connection = Dial(road, place, self._outside, knocks).first()
        except ClientError as error:
            yield Finding(NO, "port", str(error), "on the host: doorwardd check --report")
            return
        with connection:
            yield Finding(OK, "knock", f"sent from {self._hop}")
            yield Finding(OK, "port", f"{self._port} opened{greeting(connection)}", self.command())
