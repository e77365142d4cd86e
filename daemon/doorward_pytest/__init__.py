"""Proofs about hidden hosts for other projects' tests, such as their Molecule scenarios.

With pytest the fixture `hidden_host` gives one, see plugin.py. Nothing here is part of the archive that goes to hosts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward_pytest import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

KNOCK_PORT: Final = 62201
_ENDS_WITHIN: Final = 120  # seconds in which the programs that are run have to end
_AGAIN: Final = 0.3  # seconds between two looks


class NotProvenError(Exception):
    """Nothing can be said: the probe cannot be run, a name has no address, or the witness does not answer."""


class Seen(NamedTuple):
    """Whether it is so, and what was seen, which a failed assertion shows."""

    holds: bool
    words: str

    def __bool__(self) -> bool:
        """Whether it is so."""
        return self.holds

    def __repr__(self) -> str:
        """What was seen."""
        return f"<{self.words}>"


@dataclass(frozen=True, slots=True)
class HiddenHost:
    """A host that opens to a knock only.

    `address` is a name or an address, `port` the TCP port that strangers dial, `profile` a .fwknoprc file, with
    `#STANZA` for one of its stanzas. `outsider` are the words in front of a command that run it at a place that never
    knocks, with a python3 there. `witness` is a host and its TCP port that accepts connections from there: a probe that
    does not see it proves nothing.
    """

    address: str
    port: int = 22
    profile: str = ""
    knock_port: int = KNOCK_PORT
    outsider: tuple[str, ...] = ()
    witness: tuple[str, int] | None = None

    def is_dark(self, *ports: int, within: float = 0) -> Seen:
        """Whether neither the TCP ports (default: its own) nor the port of knocks answer anything, at every address.

        A connection, a refusal and a datagram are answers. Where the host is asked from here, the window of an earlier
        knock is seen as well; it may end `within` so many seconds.

        Raises:
            NotProvenError: the host cannot be asked, or the witness is not seen.
        """
        places = [("tcp", self.address, port) for port in ports or (self.port,)]
        places.append(("udp", self.address, self.knock_port))
        return _eventually(lambda: self._darkness(places), within)

    def knock(self, *services: str, source: str = "") -> None:
        """Knock once from here for services (default: `tcp/` and its port); `source` is an address to be let in.

        Raises:
            NotProvenError: nothing was sent; the words are the client's.
        """
        file, _, stanza = self.profile.partition("#")
        words = ["--rc-file", str(Path(file).expanduser())] if file else []
        words += ["-n", stanza] if stanza else []
        words += ["--no-save-args", "-A", ",".join(services or (f"tcp/{self.port}",))]
        words += ["-D", self.address, "-p", str(self.knock_port), *(["-a", source] if source else [])]
        _run([sys.executable, "-m", "doorward", "knock", *words])

    def opens(self, port: int = 0, *, within: float = 10) -> Seen:
        """Whether a TCP port (default: its own) accepts a connection from here, within some seconds.

        Raises:
            NotProvenError: the host's name has no address.
        """
        places = [("tcp", self.address, port or self.port)]
        return _eventually(lambda: _seen(_ask((), places), any, probe.OPEN), within)

    def _darkness(self, places: Sequence[tuple[str, str, int]]) -> Seen:
        """Whether all places are silent, with a witness before and after."""
        self._require_witness()
        seen = _seen(_ask(self.outsider, places), all, probe.SILENT)
        self._require_witness()
        return seen

    def _require_witness(self) -> None:
        if self.witness is None:
            return
        seen = _seen(_ask(self.outsider, [("tcp", *self.witness)]), all, probe.OPEN)
        if not seen:
            msg = f"nothing is proven, since the witness is not seen: {seen.words}"
            raise NotProvenError(msg)


def _eventually(look: Callable[[], Seen], within: float) -> Seen:
    """The first look that holds, else the last one."""
    until = time.monotonic() + within
    while not (seen := look()) and time.monotonic() < until:
        time.sleep(_AGAIN)
    return seen


def _seen(answers: list[tuple[str, str]], which: Callable[[Iterable[bool]], bool], wanted: str) -> Seen:
    """Whether the answers are the wanted one.

    Raises:
        NotProvenError: a place cannot be asked.
    """
    words = "; ".join(f"{place} {answer}" for place, answer in answers)
    if not answers or any(answer.startswith(probe.UNKNOWN) for _, answer in answers):
        msg = f"nothing is proven: {words or 'no place has an address'}"
        raise NotProvenError(msg)
    return Seen(which(answer == wanted for _, answer in answers), words)


def _ask(place: tuple[str, ...], places: Sequence[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """What the places do, seen from here or from where `place` runs commands."""
    python = [*place, "python3"] if place else [sys.executable]
    text = _run([*python, "-I", "-c", Path(probe.__file__).read_text("utf-8"), json.dumps(places)])
    try:
        return [(name, answer) for name, answer in json.loads(text)]
    except (ValueError, TypeError) as error:
        msg = f"the probe printed no answers: {text[-500:]}"
        raise NotProvenError(msg) from error


def _run(command: Sequence[str]) -> str:
    """The standard output of a program.

    Raises:
        NotProvenError: it cannot be run, does not end, or ends with an error.
    """
    try:
        done = subprocess.run(  # noqa: S603  the words are the test's own
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ENDS_WITHIN, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{command[0]}: {error}"
        raise NotProvenError(msg) from error
    if done.returncode:
        msg = f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-800:]}"
        raise NotProvenError(msg)
    return done.stdout
