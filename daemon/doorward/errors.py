"""Every error that doorward raises on purpose; anything else that escapes is a bug."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable


class DoorwardError(Exception):
    """The root of all errors that doorward raises."""


class WireError(DoorwardError):
    """Bytes that are not a packet of the format they are read as."""


class AuthenticationError(DoorwardError):
    """A packet that the given keys did not make: wrong MAC, or not decryptable."""


class OtherKeyError(AuthenticationError):
    """A message that names the keys it is for, and the given ones are not among them."""


class FirewallError(DoorwardError):
    """The packet filter refused a change or cannot be reached."""


class HelperError(DoorwardError):
    """The privileged helper is gone, or broke the protocol."""


class OverlongError(HelperError):
    """A message that is too long; the channel itself is intact."""


class RefusedConfigError(DoorwardError):
    """The helper found problems in the configuration; the text has one a line."""


class ReplayError(DoorwardError):
    """The replay store cannot say whether a packet is new; nothing may be granted."""


class ShareError(DoorwardError):
    """What two gateways have seen cannot be asked; the text says why."""


class CaptureError(DoorwardError):
    """Packets cannot be received from the configured place."""


class NoSocketsError(CaptureError):
    """This process can open no IP socket: its unit allows none, or the kernel has neither IPv4 nor IPv6."""


class ReportError(DoorwardError):
    """A file of the record cannot be opened."""


class OpenPgpError(DoorwardError):
    """gpg is missing or refuses, or its keys do not fit the request."""


class ClientError(DoorwardError):
    """The client cannot carry out a request; the text is for the user."""


class RootError(ClientError):
    """The client cannot carry out a request that only root may make."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in one file. `line` counts from 1; 0 stands for the file as a whole."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        """The problem as `path:line: problem`, or `path: problem` for the whole file."""
        return f"{self.path}:{self.line}: {self.text}" if self.line else f"{self.path}: {self.text}"


class ConfigError(DoorwardError):
    """All problems found in one reading of the configuration, in order of file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep the problems; the error's text is one of them a line."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
