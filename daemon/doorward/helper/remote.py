"""The listener's side of the channel to the helper."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from doorward.config.files import ENCODED_MAX, Files
from doorward.errors import FirewallError, HelperError, RefusedConfigError, ShareError
from doorward.helper.messages import (
    REPLIES,
    REQUESTS,
    TAGS_MAX,
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
    from collections.abc import Iterable, Mapping, Sequence

    from doorward.errors import DoorwardError
    from doorward.helper.messages import Reply, Request, Way
    from doorward.values import Grant

_LONGER = 4  # times; a configuration lists the whole ruleset, which takes seconds with 50 000 foreign rules


class RemotePower:
    """The helper as the listener calls it. Every method raises HelperError on a protocol error or a dead helper."""

    def __init__(self, channel: socket.socket, patience: float) -> None:
        """Ask on `channel`; after `patience` seconds without an answer the helper counts as gone."""
        channel.settimeout(patience)
        self._channel = channel
        self._patience = patience

    def open(self, grant: Grant) -> None:
        """Open a grant, or raise FirewallError with the helper's reason."""
        self._do(Open(grant))

    def configure(self) -> Files:
        """Read all files; the helper applies them at adopt().

        Raises:
            RefusedConfigError: the files have problems; the old configuration stays.
        """
        reply, descriptors = self._ask_for_change(Configure())
        if not isinstance(reply, Configuration) or len(descriptors) != 1:
            _close(descriptors)
            raise _protocol_error(reply)
        return Files.decode(seqpacket.read_frozen(descriptors[0], ENCODED_MAX))

    def adopt(self) -> tuple[list[int], Way]:
        """Have the helper apply the files of configure(); return the descriptors of all packet sources, and their way.

        Raises:
            RefusedConfigError: it cannot; the old configuration stays.
        """
        return self._take_over(Adopt())

    def hear_otherwise(self) -> tuple[list[int], Way]:
        """Have the helper open sockets that hear knocks where the UDP server does not; return what adopt() returns.

        Raises:
            RefusedConfigError: it cannot; the server stays.
        """
        return self._take_over(HearOtherwise())

    def _take_over(self, request: Request) -> tuple[list[int], Way]:
        reply, descriptors = self._ask_for_change(request)
        if not isinstance(reply, Adopted):
            _close(descriptors)
            raise _protocol_error(reply)
        return descriptors, reply.way

    def open_audit(self) -> int:
        """Open AUDIT_FILE of the configuration in force; return its descriptor.

        Raises:
            RefusedConfigError: the helper cannot open it.
        """
        return self._descriptor(OpenAudit(), Audit, RefusedConfigError)

    def open_share(self) -> int:
        """Connect to REPLAY_SHARE of the configuration in force; return the connection's descriptor.

        Raises:
            ShareError: the helper cannot connect.
        """
        return self._descriptor(OpenShare(), Shared, ShareError)

    def _descriptor(self, request: Request, expected: type[Reply], refusal: type[DoorwardError]) -> int:
        """The one descriptor that the helper answers a request with."""
        reply, descriptors = self._ask(request)
        if isinstance(reply, Refused):
            _close(descriptors)
            raise refusal(reply.text)
        if not isinstance(reply, expected) or len(descriptors) != 1:
            _close(descriptors)
            raise _protocol_error(reply)
        return descriptors[0]

    def let_pass(self, tags: Mapping[int, Sequence[bytes]]) -> None:
        """Have the kernel pass packets of doorward 1 with these tags, by their epochs, and with no others.

        Raises:
            FirewallError: the helper refuses them.
        """
        parts = [
            (epoch, b"".join(some[place : place + TAGS_MAX]))
            for epoch, some in tags.items()
            for place in range(0, len(some), TAGS_MAX)
        ] or [(0, b"")]
        for place, (epoch, joined) in enumerate(parts, 1):
            self._do(Tags(epoch, joined, last=place == len(parts)))

    def refused(self) -> RefusedPackets:
        """How many packets the kernel gate refused since the helper started, and whether the server is deaf."""
        reply, descriptors = self._ask(AskRefused())
        _close(descriptors)
        if not isinstance(reply, RefusedPackets):
            raise _protocol_error(reply)
        return reply

    def report(self, numbers: Iterable[Numbers]) -> None:
        """Have METRICS_FILE written."""
        for part in numbers:
            self._do(part)

    def _do(self, request: Request) -> None:
        reply, descriptors = self._ask(request)
        _close(descriptors)
        if isinstance(reply, Refused):
            raise FirewallError(reply.text)
        if not isinstance(reply, Done):
            raise _protocol_error(reply)

    def _ask_for_change(self, request: Request) -> tuple[Reply, list[int]]:
        self._channel.settimeout(_LONGER * self._patience)
        try:
            reply, descriptors = self._ask(request)
        finally:
            self._channel.settimeout(self._patience)
        if isinstance(reply, Refused):
            _close(descriptors)
            raise RefusedConfigError(reply.text)
        return reply, descriptors

    def _ask(self, request: Request) -> tuple[Reply, list[int]]:
        seqpacket.send(self._channel, REQUESTS.encode(request))
        content, descriptors = seqpacket.receive(self._channel)
        try:
            return REPLIES.decode(content), descriptors
        except HelperError:
            _close(descriptors)
            raise


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _protocol_error(reply: Reply) -> HelperError:
    return HelperError(f"the helper answered out of turn: {type(reply).__name__}")
