"""`doorward connect`: the ProxyCommand. Knock, dial, hand the connection over, or say in one line why not."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from doorward.client import deliver
from doorward.client.address import Endpoint, own_address, resolve, source_to_ask
from doorward.client.connect import Closed, Route, connect
from doorward.client.packet import build
from doorward.client.request import PORT, request, saved_profile
from doorward.client.send import send
from doorward.config.fwknoprc import Profile, SourceRule
from doorward.errors import ClientError, DoorwardError
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doorward.client.outside import Outside
    from doorward.client.packet import Request
    from doorward.values import IPAddress


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be reached, and what the command line says about the knock. `timeout` in seconds, for all of it."""

    host: str
    port: int
    timeout: float
    said: Profile
    rc_file: Path | None = None
    stanza: str | None = None
    status: Path | None = None


def run(order: Order, outside: Outside, stdin: int, stdout: int) -> None:
    """Carry out an order; the reason of a failure also goes into the status file.

    Raises:
        DoorwardError: why there is no connection.
    """
    try:
        connection = _connection(order, outside)
        if deliver.wants_descriptor(stdin, stdout):
            deliver.pass_descriptor(connection, stdout)
        else:
            deliver.relay(connection, stdin, stdout)
    except (DoorwardError, OSError) as error:
        reason = " ".join(str(error).split())
        _leave(reason, order.status, outside)
        if isinstance(error, DoorwardError):
            raise
        raise ClientError(reason) from error


def _leave(reason: str, status: Path | None, outside: Outside) -> None:
    """Write the reason where another program can read it: ssh hides a ProxyCommand's stderr under ControlPersist."""
    if status is None:
        return
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(status, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(f"{reason}\n")
    except OSError as error:
        outside.warn(f"{status}: {error.strerror or error}")
