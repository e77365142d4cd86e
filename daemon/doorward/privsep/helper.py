"""The helper's side of the channel: one answer to each request, and an end to anything else."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Protocol

from doorward.errors import CaptureError, DoorwardError, FirewallError, HelperError
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
    decode_request,
    encode,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from doorward.config.files import Files
    from doorward.values import Grant


class Power(Protocol):
    """What the helper can do. Every method checks for itself: the listener is not trusted."""

    def configure(self) -> Files:
        """Read the files and return them, with the old configuration still in force; or raise DoorwardError."""

    def adopt(self) -> Sequence[int]:
        """Act on the files that were read last, once; return the descriptors of all that the listener reads.

        Raises FirewallError or CaptureError, with the old configuration still in force, and HelperError where no files
        wait for it.
        """

    def open(self, grant: Grant) -> None:
        """Open a grant, or raise FirewallError."""


class Helper:
    """Serves one listener until it is gone."""

    def __init__(self, channel: socket.socket, power: Power) -> None:
        """Answer on `channel` with `power`. A listener that does not take its answers strays: nobody waits for it."""
        channel.settimeout(0)
        self._channel = channel
        self._power = power
        self._gone = select.poll()
        self._gone.register(channel, select.POLLRDHUP)

    def answer(self) -> None:
        """Take one request and answer it.

        Raises:
            HelperError: the listener is gone, or sent what is no request; the helper must end.
        """
        if self._gone.poll(0):
            msg = "the listener is gone"  # and what it still asked for it has given up
            raise HelperError(msg)
        content, descriptors = wire.receive(self._channel)
        for descriptor in descriptors:
            os.close(descriptor)
        if descriptors:
            msg = "a descriptor from the listener"
            raise HelperError(msg)
        match decode_request(content):
            case Open(grant=grant):
                self._open(grant)
            case Configure():
                self._configure()
            case Adopt():
                self._adopt()

    def _open(self, grant: Grant) -> None:
        try:
            self._power.open(grant)
        except FirewallError as error:
            wire.send(self._channel, encode(Refused(str(error))))
        else:
            wire.send(self._channel, encode(Done()))

    def _configure(self) -> None:
        try:
            files = self._power.configure()
        except DoorwardError as error:
            wire.send(self._channel, encode(Problems(str(error))))
            return
        sealed = wire.seal("doorward configuration", files.encode())
        try:
            wire.send(self._channel, encode(Configuration()), [sealed])
        finally:
            os.close(sealed)

    def _adopt(self) -> None:
        try:
            descriptors = self._power.adopt()
        except (FirewallError, CaptureError) as error:
            wire.send(self._channel, encode(Problems(str(error))))
        else:
            wire.send(self._channel, encode(Adopted()), descriptors)
