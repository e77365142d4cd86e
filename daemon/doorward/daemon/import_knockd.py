"""`doorwardd import-knockd`: stanzas for access.conf from a knockd.conf. Source: knockd(1) of knockd 0.8.

What a stanza does not do is named with its line of the file: on standard error, and nothing is left out in silence.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.config import convert, reader, sequence
from doorward.config.sequence import SECONDS_MAX, Sequence
from doorward.errors import ConfigError, Problem, WireError
from doorward.values import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT: Final = Path("/etc/knockd.conf")
_SEQUENCE_SECONDS: Final = 25  # knockd's own, where the file has none
_COMMAND_SECONDS: Final = 10
_OPTIONS: Final = {
    "USESYSLOG": "doorwardd logs to its service's journal, and to syslog with LOG_STYLE and SYSLOG_FACILITY",
    "LOGFILE": "lines of verdicts go to AUDIT_FILE in doorwardd.conf",
    "PIDFILE": "write FWKNOP_PID_FILE in doorwardd.conf",
    "INTERFACE": "sequences count on every interface: write DESTINATION for one address of this host",
}
_ALIASES: Final = {"COMMAND": "START_COMMAND", "COMMAND_6": "START_COMMAND_6", "TIMEOUT": "SEQ_TIMEOUT"}
_DOOR: Final = frozenset(
    {"SEQUENCE", "ONE_TIME_SEQUENCES", "SEQ_TIMEOUT", "TCPFLAGS", "TARGET", "CMD_TIMEOUT"}
    | {"START_COMMAND", "START_COMMAND_6", "STOP_COMMAND", "STOP_COMMAND_6"}
)
_FOR_IPV6: Final = {"START_COMMAND_6": "START_COMMAND", "STOP_COMMAND_6": "STOP_COMMAND"}  # and for IPv4
_IPV4: Final = "0.0.0.0/1, 128.0.0.0/1"  # SOURCE has no /0
_FOR_A_SHELL: Final = re.compile(r"[|&<>()`*?\[\]{}~\n]|\$(?!SRC\b)")


@dataclass(frozen=True, slots=True)
class _Said:
    """A value of the file and its line."""

    text: str
    line: int


@dataclass(slots=True)
class _Door:
    """A section while it is read."""

    name: str
    line: int
    said: dict[str, _Said] = field(default_factory=dict)


class Import:
    """One file as stanzas. `notes` are what they do otherwise, `problems` the doors that have none."""

    def __init__(self, path: Path, content: bytes) -> None:
        """Read the bytes of the file; `path` names it."""
        self._path = str(path)
        self.notes: list[Problem] = []
        self.problems: list[Problem] = []
        self._before: list[Sequence] = []
        self.stanzas = [text for door in self._doors(content) if (text := self._stanza(door)) is not None]

    def _note(self, line: int, text: str) -> None:
        self.notes.append(Problem(self._path, line, text))

    def _doors(self, content: bytes) -> list[_Door]:
        doors: list[_Door] = []
        door: _Door | None = None
        for number, raw in enumerate(content.split(b"\n"), start=1):
            text, complaint = reader.text_of(raw)
            if complaint is not None:
                self.problems.append(Problem(self._path, number, complaint))
            elif text.startswith("[") and text.endswith("]"):
                door = _Door(text[1:-1].strip(), number)
                if door.name.lower() != "options":
                    doors.append(door)
            elif text and not text.startswith("#"):
                self._line(door, number, text)
        return doors

    def _line(self, door: _Door | None, number: int, text: str) -> None:
        """Read `NAME = value` of a section."""
        shown, _, value = (part.strip() for part in text.partition("="))
        name = shown.upper().replace(" ", "")
        name = _ALIASES.get(name, name)
        known = _DOOR if door is not None and door.name.lower() != "options" else _OPTIONS
        if door is None:
            self.problems.append(Problem(self._path, number, f"{shown[:40]} stands before the first section"))
        elif name not in known:
            self.problems.append(Problem(self._path, number, f"{shown[:40]} is no setting of knockd's here"))
        elif name in _OPTIONS:
            self._note(number, f"{shown} is not used: {_OPTIONS[name]}")
        elif name in door.said:
            self.problems.append(Problem(self._path, number, f"{shown}: already set in line {door.said[name].line}"))
        else:
            door.said[name] = _Said(value, number)

    def _stanza(self, door: _Door) -> str | None:
        """The stanza of a door, or None and its problems."""
        before = len(self.problems)
        lines = [f"# [{door.name}] of {self._path}:{door.line}", f"SOURCE {self._source(door)}"]
        lines += [*self._name(door), *self._sequence(door), *self._flags(door), *self._target(door)]
        lines += self._commands(door)
        return None if len(self.problems) > before else "".join(f"{line}\n" for line in lines)

    def _source(self, door: _Door) -> str:
        """Who may knock: where IPv6 has commands of its own, which a stanza cannot have, IPv4 alone."""
        others = [
            said
            for name, usual in _FOR_IPV6.items()
            if (said := door.said.get(name)) is not None and said.text != door.said.get(usual, _Said("", 0)).text
        ]
        for said in others:
            self._note(said.line, "it is not used, and the stanza takes IPv4 alone: write another one for IPv6")
        return _IPV4 if others else "ANY"

    def _refuse(self, door: _Door, name: str, text: object) -> None:
        said = door.said.get(name)
        line = door.line if said is None else said.line
        self.problems.append(Problem(self._path, line, f"[{door.name[:40]}] has no stanza: {name}: {text}"))

    def _name(self, door: _Door) -> Iterator[str]:
        try:
            yield f"NAME {check_name(door.name)}"
        except WireError:
            self._note(door.line, f"the stanza has no NAME: [{door.name[:40]}] is none")

    def _seconds(self, door: _Door, name: str, default: int, most: int) -> int:
        said = door.said.get(name)
        if said is None:
            return default
        try:
            seconds = convert.number(1, 10**9)(said.text)
        except ValueError as error:
            self._refuse(door, name, error)
            return default
        if seconds > most:
            self._note(said.line, f"{name} {seconds}: {most} s are the most")
        return min(seconds, most)

    def _sequence(self, door: _Door) -> Iterator[str]:
        whole = self._seconds(door, "SEQ_TIMEOUT", _SEQUENCE_SECONDS, SECONDS_MAX)
        both = {"SEQUENCE", "ONE_TIME_SEQUENCES"} & door.said.keys()
        if len(both) != 1:
            self._refuse(door, "SEQUENCE", "a door has SEQUENCE or ONE_TIME_SEQUENCES")
        elif "SEQUENCE" in both:
            yield from self._fixed(door, whole)
        else:
            said = door.said["ONE_TIME_SEQUENCES"]
            self._note(said.line, "doorwardd does not write into this file: it remembers which sequences were used")
            yield f"SEQUENCE_FILE {said.text}"
        yield f"SEQUENCE_TIMEOUT {whole}"

    def _fixed(self, door: _Door, whole: int) -> Iterator[str]:
        said = door.said["SEQUENCE"]
        try:
            steps = sequence.knockd_steps(said.text, whole)
        except (ValueError, WireError) as error:
            self._refuse(door, "SEQUENCE", error)
            return
        made = Sequence(steps, whole, where=f"{self._path}:{said.line}")
        for other in self._before:
            if made.has(other) or other.has(made):
                self._refuse(door, "SEQUENCE", f"one who sends it or that of {other.where} sends the other one too")
        self._before.append(made)
        yield f"SEQUENCE {made}"

    def _flags(self, door: _Door) -> Iterator[str]:
        said = door.said.get("TCPFLAGS")
        if said is None:
            self._note(door.line, "no TCPFlags: a step over TCP is the first packet of a connection, no other one")
            return
        try:
            yield f"SEQUENCE_FLAGS {sequence.flags(said.text)}"
        except ValueError as error:
            self._refuse(door, "TCPFLAGS", error)

    def _target(self, door: _Door) -> Iterator[str]:
        said = door.said.get("TARGET")
        if said is not None:
            try:
                yield f"DESTINATION {convert.address(said.text)}"
                self._note(said.line, "Target counts where it is an address of this host: knocks to others pass")
            except (ValueError, WireError) as error:
                self._refuse(door, "TARGET", error)

    def _commands(self, door: _Door) -> Iterator[str]:
        """The command cycle; knockd too runs it as root."""
        opens, closes = self._command(door, "START_COMMAND"), self._command(door, "STOP_COMMAND")
        if opens is None:
            if "START_COMMAND" not in door.said:
                self._refuse(door, "START_COMMAND", "it is missing: write OPEN_PORTS for what doorwardd opens itself")
            return
        yield f"CMD_CYCLE_OPEN {opens}"
        yield f"CMD_CYCLE_CLOSE {closes or 'NONE'}"
        seconds = self._seconds(door, "CMD_TIMEOUT", _COMMAND_SECONDS, SECONDS_MAX * 1000)
        if closes is not None:
            yield f"CMD_CYCLE_TIMER {seconds}"

    def _command(self, door: _Door, name: str) -> str | None:
        """A command as a stanza has it; a shell reads those that need one, as in knockd."""
        said = door.said.get(name)
        if said is None:
            return None
        command = said.text.replace("%IP%", "$SRC")
        if ";" in command:
            self._refuse(door, name, "a value ends at `;`: write the commands into a script, and its path here")
            return None
        if _FOR_A_SHELL.search(command):
            self._note(said.line, f"{name} needs a shell: /bin/sh -c reads it")
            return f"/bin/sh -c {shlex.quote(command)}"
        try:
            shlex.split(command)
        except ValueError as error:
            self._refuse(door, name, error)
        return command


def main(argv: list[str]) -> int:
    """Print the stanzas; 1 where a door has none."""
    options = command_line().parse_args(argv)
    try:
        found = Import(options.file, reader.content(options.file, secret=False))
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  why the command failed
        return 1
    print("\n".join(found.stanzas), end="")  # noqa: T201  the command's output
    for one in sorted((*found.notes, *found.problems), key=lambda each: each.line):
        print(one, file=sys.stderr)  # noqa: T201  the command's output
    return 1 if found.problems else 0


def command_line() -> argparse.ArgumentParser:
    """The parser of `doorwardd import-knockd`."""
    made = argparse.ArgumentParser(
        prog="doorwardd import-knockd",
        description="Print stanzas for access.conf that do what a knockd.conf says; what they do otherwise is named.",
    )
    made.add_argument("file", type=Path, nargs="?", default=DEFAULT, metavar="FILE", help=f"(default {DEFAULT})")
    return made
