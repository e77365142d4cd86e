"""What a packet asks for, whatever its format: every format is translated into this before anything is decided."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from doorward.frozen import dataclass

if TYPE_CHECKING:
    from doorward.values import IPAddress, Service


class Kind(enum.Enum):
    """The kind of request."""

    ACCESS = enum.auto()  # open services of this host
    FORWARD = enum.auto()  # forward their connections to another host
    LOCAL_NAT = enum.auto()  # forward them to another port of this host
    COMMAND = enum.auto()  # a command of the client's for a shell or an exec
    NAMED_COMMAND = enum.auto()  # a command by a name that this host's files define


class NatTarget(NamedTuple):
    """Where a NAT request wants to go: an address or a name, and a port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Wish:
    """One request. `made` in Unix seconds; `seconds` is the window asked for, 0 the stanza's own.

    `source` None is the packet's origin, `second` a source of the other family. `services` None is all that the
    stanza's OPEN_PORTS names, `services` of a command are none. `user` None is a format without user names. `exact` is
    a format whose window is denied where it is too long, not shortened. `prefix` is the length of a network that is to
    be let in, None an address; `second_prefix` that of the second source. `code` is a one-time code of six digits.
    """

    kind: Kind
    made: float
    source: IPAddress | None
    services: tuple[Service, ...] | None = ()
    seconds: int = 0
    target: NatTarget | None = None
    command: str | None = None
    user: str | None = None
    second: IPAddress | None = None
    exact: bool = False
    prefix: int | None = None
    second_prefix: int | None = None
    code: int | None = None
