# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that a port is silent, which can fail: what cannot be told is no silence. Standard library only."""

from __future__ import annotations

import enum
import errno
import socket
from typing import NamedTuple

SECONDS = 1.5  # in which an open port would have answered; a lost SYN is repeated after one


class Answer(enum.Enum):
    """What one address of a host does with a SYN."""

    OPEN = "answers"
    REFUSED = "answers with a refusal"
    SILENT = "is silent"
    UNKNOWN = "cannot be asked"


class Probe(NamedTuple):
    """What came of one address; `words` are the system's."""

    place: str
    answer: Answer
    words: str = ""

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.place} {self.answer.value}" + (f" ({self.words})" if self.words else "")


def probe(host: str, port: int, bind_address: str = "", seconds: float = SECONDS) -> list[Probe]:
    """Dial every address of a host once, and tell what each does; sshd is met only where it is open."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [Probe(f"{host} port {port}", Answer.UNKNOWN, str(error))]
    places = dict.fromkeys((family, address) for family, _kind, _protocol, _name, address in found)
    return [_dial(family, address, bind_address, seconds) for family, address in places]


def broken(probes: list[Probe]) -> str:
    """Return what speaks against the silence of a host, in words; empty where it is silent."""
    answering = [each for each in probes if each.answer in {Answer.OPEN, Answer.REFUSED}]
    silent = [each for each in probes if each.answer is Answer.SILENT]
    return "" if silent and not answering else "; ".join(map(str, answering or probes))


def is_open(probes: list[Probe]) -> bool:
    """Tell whether an address of the host accepts connections."""
    return any(each.answer is Answer.OPEN for each in probes)


def _dial(family: int, address: tuple, bind_address: str, seconds: float) -> Probe:
    place = f"{address[0]} port {address[1]}"
    with socket.socket(family, socket.SOCK_STREAM) as dialler:
        dialler.settimeout(seconds)
        try:
            if bind_address:
                dialler.bind((bind_address, 0))
            dialler.connect(address)
        except OSError as error:
            return Probe(place, *_judged(error))
    return Probe(place, Answer.OPEN)


def _judged(error: OSError) -> tuple[Answer, str]:
    """Tell silence from a refusal, and from a failure on the way that hides both."""
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return Answer.SILENT, ""
    if error.errno in {errno.ECONNREFUSED, errno.ECONNRESET}:
        return Answer.REFUSED, ""
    return Answer.UNKNOWN, error.strerror or str(error)
