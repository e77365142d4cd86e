"""Every error that doorward raises on purpose; anything else that escapes is a bug."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class DoorwardError(Exception):
    """The root of all errors that doorward raises."""


class WireError(DoorwardError):
    """Bytes that are not a packet of the format they are read as."""


class AuthenticationError(DoorwardError):
    """A packet that the given keys did not make: wrong MAC, or not decryptable."""


class FirewallError(DoorwardError):
    """The packet filter refused a change or cannot be reached."""


class HelperError(DoorwardError):
    """The privileged helper is gone or answered out of turn."""


class OverlongError(HelperError):
    """A message that is longer than any may be; the channel itself is whole."""


class RefusedConfigError(DoorwardError):
    """The helper found problems in the configuration; the text has one a line."""


class ReplayError(DoorwardError):
    """The replay store cannot say whether a packet is new; nothing may be granted."""


class CaptureError(DoorwardError):
    """Packets cannot be received from the configured place."""


class OpenPgpError(DoorwardError):
    """gpg is missing, refuses, or its keys do not fit what was asked."""


class ClientError(DoorwardError):
    """The client cannot do what was asked; the text is for the person who asked."""


class RootError(ClientError):
    """The client cannot do what was asked, since only root may."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in one file. `line` counts from 1; 0 stands for the file as a whole."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        """Return `path:line: problem`, or `path: problem` for the file as a whole."""
        return f"{self.path}:{self.line}: {self.text}" if self.line else f"{self.path}: {self.text}"


class ConfigError(DoorwardError):
    """All problems found in one reading of the configuration, in order of file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep the problems; the error's text is one of them a line."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
