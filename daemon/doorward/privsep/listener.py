"""The listener's side of the channel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from doorward.config.files import Files
from doorward.errors import FirewallError, HelperError, RefusedConfigError
from doorward.privsep import channel as wire
from doorward.privsep.messages import (
    Adopt,
    Adopted,
    Configuration,
    Configure,
    Done,
    Open,
    Problems,
    Refused,
    decode_reply,
    encode,
)

if TYPE_CHECKING:
    import socket

    from doorward.privsep.messages import Reply, Request
    from doorward.values import Grant

_LONGER = 4  # times; a configuration has the whole ruleset listed, which takes seconds where others have 50 000 rules


class RemotePower:
    """What the listener asks the helper to do. Every method raises HelperError when the helper is gone or strays."""

    def __init__(self, channel: socket.socket, patience: float) -> None:
        """Ask on `channel`; a helper that has not answered in `patience` seconds is taken for gone."""
        channel.settimeout(patience)
        self._channel = channel
        self._patience = patience

    def open(self, grant: Grant) -> None:
        """Open a grant, or raise FirewallError with the helper's reason."""
        reply, descriptors = self._ask(Open(grant))
        _close(descriptors)
        if isinstance(reply, Refused):
            raise FirewallError(reply.text)
        if not isinstance(reply, Done):
            raise _astray(reply)

    def configure(self) -> Files:
        """Return all files as they are now; the helper does not act on them before adopt().

        Raises:
            RefusedConfigError: the files have problems; the old configuration stays.
        """
        reply, descriptors = self._ask_for_change(Configure())
        if not isinstance(reply, Configuration) or len(descriptors) != 1:
            _close(descriptors)
            raise _astray(reply)
        return Files.decode(wire.unseal(descriptors[0]))

    def adopt(self) -> list[int]:
        """Have the helper act on the files that configure() returned; return the descriptors of all that is to be read.

        Raises:
            RefusedConfigError: it cannot; the old configuration stays.
        """
        reply, descriptors = self._ask_for_change(Adopt())
        if not isinstance(reply, Adopted):
            _close(descriptors)
            raise _astray(reply)
        return descriptors

    def _ask_for_change(self, request: Request) -> tuple[Reply, list[int]]:
        self._channel.settimeout(_LONGER * self._patience)
        try:
            reply, descriptors = self._ask(request)
        finally:
            self._channel.settimeout(self._patience)
        if isinstance(reply, Problems):
            _close(descriptors)
            raise RefusedConfigError(reply.text)
        return reply, descriptors

    def _ask(self, request: Request) -> tuple[Reply, list[int]]:
        wire.send(self._channel, encode(request))
        content, descriptors = wire.receive(self._channel)
        try:
            return decode_reply(content), descriptors
        except HelperError:
            _close(descriptors)
            raise


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _astray(reply: Reply) -> HelperError:
    return HelperError(f"the helper answered out of turn: {type(reply).__name__}")
