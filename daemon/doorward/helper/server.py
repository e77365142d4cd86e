"""The helper's side of the channel: one answer to each request; a protocol error ends the process."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Protocol

from doorward.errors import CaptureError, DoorwardError, FirewallError, HelperError, ReportError, ShareError
from doorward.helper.messages import (
    REPLIES,
    REQUESTS,
    Adopt,
    Adopted,
    AskRefused,
    Audit,
    Configuration,
    Configure,
    Done,
    HearOtherwise,
    Numbers,
    Open,
    OpenAudit,
    OpenShare,
    Refused,
    RefusedPackets,
    Shared,
    Tags,
)
from doorward.linux import seqpacket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from doorward.config.files import Files
    from doorward.helper.messages import Reply, Request, Way
    from doorward.values import Grant


class Power(Protocol):
    """The privileged operations; process.HelperProcess has them."""

    def configure(self) -> Files:
        """Read and return the files."""

    def adopt(self) -> tuple[Sequence[int], Way]:
        """Apply the files that were read last; return the descriptors of all packet sources, and their way."""

    def hear_otherwise(self) -> tuple[Sequence[int], Way]:
        """Open sockets that hear knocks where the UDP server does not; return what adopt() returns."""

    def open(self, grant: Grant) -> None:
        """Open a grant."""

    def open_audit(self) -> int:
        """Open AUDIT_FILE; return its descriptor."""

    def open_share(self) -> int:
        """Connect to REPLAY_SHARE; return the connection's descriptor."""

    def let_pass(self, tags: Tags) -> None:
        """Have the kernel pass packets with these tags."""

    def refused(self) -> RefusedPackets:
        """How many packets the kernel gate refused, and whether the UDP server still hears knocks."""

    def take(self, numbers: Numbers) -> None:
        """Take what METRICS_FILE says of the listener."""


class Helper:
    """Serves one listener until it is gone."""

    def __init__(self, channel: socket.socket, power: Power) -> None:
        """Answer on `channel` with `power`. A listener that does not read its answers commits a protocol error."""
        channel.settimeout(0)
        self._channel = channel
        self._power = power
        self._gone = select.poll()
        self._gone.register(channel, select.POLLRDHUP)

    def answer(self) -> None:
        """Receive one request and answer it.

        Raises:
            HelperError: the listener is gone, or committed a protocol error; the helper must end.
        """
        self._answer(self._received())

    def _answer(self, request: Request) -> None:
        match request:
            case Open(grant=grant):
                self._do(lambda: self._power.open(grant))
            case Configure():
                self._configure()
            case Adopt():
                self._hand_over(self._power.adopt)
            case HearOtherwise():
                self._hand_over(self._power.hear_otherwise)
            case OpenAudit():
                self._hand_on(self._power.open_audit, Audit())
            case OpenShare():
                self._hand_on(self._power.open_share, Shared())
            case Tags() as tags:
                self._do(lambda: self._power.let_pass(tags))
            case Numbers() as numbers:
                self._do(lambda: self._power.take(numbers))
            case AskRefused():
                self._reply(self._power.refused())

    def _received(self) -> Request:
        if self._gone.poll(0):
            msg = "the listener is gone"  # its last requests are dropped
            raise HelperError(msg)
        content, descriptors = seqpacket.receive(self._channel)
        for descriptor in descriptors:
            os.close(descriptor)
        if descriptors:
            msg = "a descriptor from the listener"
            raise HelperError(msg)
        return REQUESTS.decode(content)

    def _do(self, change: Callable[[], None]) -> None:
        try:
            change()
        except (FirewallError, CaptureError) as error:
            self._reply(Refused(str(error)))
        else:
            self._reply(Done())

    def _configure(self) -> None:
        try:
            files = self._power.configure()
        except DoorwardError as error:
            self._reply(Refused(str(error)))
            return
        frozen = seqpacket.freeze("doorward configuration", files.encode())
        try:
            self._reply(Configuration(), [frozen])
        finally:
            os.close(frozen)

    def _hand_over(self, adopt: Callable[[], tuple[Sequence[int], Way]]) -> None:
        try:
            descriptors, way = adopt()
        except (FirewallError, CaptureError) as error:
            self._reply(Refused(str(error)))
        else:
            self._reply(Adopted(way), descriptors)

    def _hand_on(self, opener: Callable[[], int], reply: Reply) -> None:
        try:
            descriptor = opener()
        except (ReportError, ShareError) as error:
            self._reply(Refused(str(error)))
            return
        try:
            self._reply(reply, [descriptor])
        finally:
            os.close(descriptor)

    def _reply(self, reply: Reply, descriptors: Sequence[int] = ()) -> None:
        seqpacket.send(self._channel, REPLIES.encode(reply), descriptors)
