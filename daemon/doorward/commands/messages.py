"""The messages from the listener to doorward-exec and from doorward-exec to its spawner, each a SEQPACKET message."""

from __future__ import annotations

from typing import Annotated, Final

from doorward.errors import WireError
from doorward.frozen import dataclass
from doorward.helper.limits import MARK_BYTES
from doorward.linux.codec import Codec, Cut
from doorward.linux.seqpacket import MESSAGE_MAX
from doorward.values import Execution  # noqa: TC001  the codec reads the hints


@dataclass(frozen=True, slots=True)
class Execute:
    """Listener: do this; `mark` is the stanza as the listener read it (limits.mark)."""

    execution: Execution
    mark: bytes

    def __post_init__(self) -> None:
        """Refuse a mark of another length."""
        if len(self.mark) != MARK_BYTES:
            msg = f"a mark of {len(self.mark)} bytes"
            raise WireError(msg)


@dataclass(frozen=True, slots=True)
class Report:
    """Listener: mail this line to the administrator."""

    granted: bool
    line: Annotated[str, Cut(MESSAGE_MAX - 7)]


@dataclass(frozen=True, slots=True)
class Reread:
    """Listener: the files have changed, read them again."""


@dataclass(frozen=True, slots=True)
class Job:
    """doorward-exec to the spawner: a command, its account, and its time limit in seconds.

    `may_gain` leaves set-user-ID programs (sudo, sendmail) their privileges.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    uid: int
    gid: int
    groups: tuple[int, ...]
    seconds: int
    may_gain: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """Warden to doorward-exec: the exit code (None: unknown), and whether the command ended in time."""

    status: int | None
    in_time: bool

    @property
    def well(self) -> bool:
        """Whether the command succeeded."""
        return self.in_time and self.status == 0


Order = Execute | Report | Reread
ORDERS: Final = Codec[Order](b"O", Order)
JOBS: Final = Codec[Job](b"J", Job)
ENDS: Final = Codec[Ended](b"E", Ended)
