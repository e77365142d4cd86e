"""The closed set of messages between listener and helper: one SEQPACKET message each.

Anything else ends the process that received it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from doorward.errors import WireError
from doorward.frozen import dataclass
from doorward.linux.codec import Codec, Cut
from doorward.linux.seqpacket import MESSAGE_MAX
from doorward.values import Grant, Reason, check_name  # the codec reads the hints

if TYPE_CHECKING:
    from collections.abc import Iterator

TAG_BYTES: Final = 8
TAGS_MAX: Final = 4096  # in one message: 32 KB
EPOCH_MAX: Final = 1 << 48  # of 64 s each
SERVICES_MAX: Final = 64  # fwknop's longest message names fewer
ROWS_MAX: Final = 400  # in one message: 50 KB where each name has 100 characters
_Text = Annotated[str, Cut(MESSAGE_MAX - 6)]


@dataclass(frozen=True, slots=True)
class Configure:
    """Listener: read the files again and hand them over; nothing changes yet."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Listener: the files that were handed over last can be used; apply them."""


@dataclass(frozen=True, slots=True)
class Open:
    """Listener: open this grant."""

    grant: Grant

    def __post_init__(self) -> None:
        """Refuse more services than a packet can name."""
        if len(self.grant.services) > SERVICES_MAX:
            msg = f"a grant of {len(self.grant.services)} services"
            raise WireError(msg)


@dataclass(frozen=True, slots=True)
class OpenAudit:
    """Listener: open AUDIT_FILE of the configuration in force, or begin it."""


@dataclass(frozen=True, slots=True)
class OpenShare:
    """Listener: connect to REPLAY_SHARE of the configuration in force."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Listener: tags of one epoch of doorward 1, one behind the other.

    All messages up to the `last` one are one refresh: then the kernel passes packets with these tags and no others.
    """

    epoch: int
    tags: bytes
    last: bool

    def __post_init__(self) -> None:
        """Refuse parts of tags, and an epoch before 1970."""
        if len(self.tags) % TAG_BYTES or not 0 <= self.epoch <= EPOCH_MAX:
            msg = f"{len(self.tags)} bytes of tags of epoch {self.epoch}"
            raise WireError(msg)

    @property
    def each(self) -> Iterator[bytes]:
        """The tags."""
        return (self.tags[place : place + TAG_BYTES] for place in range(0, len(self.tags), TAG_BYTES))


@dataclass(frozen=True, slots=True)
class AskRefused:
    """Listener: how many packets did the kernel gate refuse?"""


@dataclass(frozen=True, slots=True)
class HearOtherwise:
    """Listener: knocks cannot be heard as they are any more, as was said; hand over sockets that hear them."""


@dataclass(frozen=True, slots=True)
class Way:
    """How knocks are heard: by a UDP server, or not; and why."""

    server: bool
    why: _Text


@dataclass(frozen=True, slots=True)
class Row:
    """So many verdicts of one reason, of one client or stanza, or with the name None of all packets.

    `last` is the time of the last one in Unix seconds, of grants alone.
    """

    name: str | None
    reason: Reason
    count: int
    last: int

    def __post_init__(self) -> None:
        """Refuse what is no name, and what cannot be counted."""
        if self.name is not None:
            check_name(self.name)
        if self.count < 0 or self.last < 0:
            msg = f"{self.count} verdicts up to {self.last}"
            raise WireError(msg)


@dataclass(frozen=True, slots=True)
class Gauges:
    """What the listener has at this moment: numbers of packets, of orders to doorward-exec; `dropped` since its start.

    `replay` packets are in the replay store, which has room for `replay_room`.
    """

    dropped: int = 0
    replay: int = 0
    replay_room: int = 0
    gnupg: int = 0  # packets in progress
    orders: int = 0  # that wait for room
    share: bool | None = None  # whether the share of two gateways works; None where there is none

    def __post_init__(self) -> None:
        """Refuse what cannot be counted."""
        if min(self.dropped, self.replay, self.replay_room, self.gnupg, self.orders) < 0:
            msg = f"a number below 0 in {self}"
            raise WireError(msg)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Listener: what METRICS_FILE says of it. A row is sent where its count changed.

    All messages up to the `last` one are one report: then the file is written.
    """

    rows: tuple[Row, ...]
    gauges: Gauges
    last: bool

    def __post_init__(self) -> None:
        """Refuse more rows than have room."""
        if len(self.rows) > ROWS_MAX:
            msg = f"{len(self.rows)} rows"
            raise WireError(msg)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Helper: all files in one frozen descriptor."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """Helper: the files are in force; the descriptors are all sockets and files that the listener reads from now on."""

    way: Way


@dataclass(frozen=True, slots=True)
class Done:
    """Helper: the grant is open, or the tags or numbers have arrived."""


@dataclass(frozen=True, slots=True)
class RefusedPackets:
    """Helper: so many, since it started. With `deaf` the UDP server may hear nothing from now on: HearOtherwise."""

    count: int
    deaf: bool


@dataclass(frozen=True, slots=True)
class Audit:
    """Helper: AUDIT_FILE in a descriptor."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Helper: a new connection to REPLAY_SHARE in a descriptor."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Helper: the request is refused, and the reason; of files, whose old ones stay, each problem has a line."""

    text: _Text


Request = Configure | Adopt | Open | OpenAudit | OpenShare | Tags | AskRefused | HearOtherwise | Numbers
Reply = Configuration | Adopted | Done | Refused | Audit | Shared | RefusedPackets
REQUESTS: Final = Codec[Request](b"Q", Request)
REPLIES: Final = Codec[Reply](b"R", Reply)
