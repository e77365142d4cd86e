"""Sequences of ports, which knock before there is a packet to send (SEQUENCE). Pure. Source: knockd(1)."""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import TYPE_CHECKING, Final

from doorward.config import reader
from doorward.errors import Problem, WireError
from doorward.frozen import dataclass
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STEPS: Final = range(3, 17)  # how many a sequence may have
SECONDS_DEFAULT: Final = 10  # for each step after the one before
SECONDS_MAX: Final = 300
SEQUENCES_MAX: Final = 64  # of one configuration: the kernel looks each of them up for a source that has begun one
_STEP: Final = re.compile(r"((?:tcp|udp)/\d{1,5})(?::(\d{1,3}))?", re.ASCII)
_KNOCKD_STEP: Final = re.compile(r"(\d{1,5})(?::(tcp|udp))?", re.ASCII | re.IGNORECASE)
_FLAG: Final = re.compile(r"(!?)(fin|syn|rst|psh|ack|urg)", re.ASCII)
_BITS: Final = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}  # RFC 9293


@dataclass(frozen=True, slots=True)
class Flags:
    """Flags of TCP: a packet is a step where its flags under `mask` are `value`."""

    mask: int
    value: int

    def __str__(self) -> str:
        """The form that flags() reads."""
        named = (f"{'' if self.value & bit else '!'}{name}" for name, bit in _BITS.items() if self.mask & bit)
        return ",".join(named)


SYN: Final = Flags(0b010111, _BITS["syn"])  # the first packet of a connection


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a packet to this port, at most `seconds` after the step before; 0 for the first one."""

    service: Service
    seconds: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """Steps in their order, all within `seconds`; `where` is the file and line that has them."""

    steps: tuple[Step, ...]
    seconds: int
    flags: Flags = SYN
    where: str = ""

    @property
    def services(self) -> tuple[Service, ...]:
        """The ports of the steps."""
        return tuple(step.service for step in self.steps)

    @property
    def mark(self) -> bytes:
        """A word that stands for the steps and their flags; the kernel says it of a sequence that is complete."""
        return hashlib.sha256(f"{self} {self.flags}".encode()).hexdigest()[:16].encode()

    def has(self, other: Sequence) -> bool:
        """Whether one who sends this sequence sends the other one too."""
        ours, theirs = self.services, other.services
        return any(ours[place : place + len(theirs)] == theirs for place in range(len(ours) - len(theirs) + 1))

    def __str__(self) -> str:
        """The form that steps() reads."""
        first, *rest = self.steps
        return " ".join([str(first.service), *(f"{step.service}:{step.seconds}" for step in rest)])


def steps(text: str) -> tuple[Step, ...]:
    """Read `tcp/7000 udp/8000:5 tcp/9000`: a port and the seconds it may come after the one before.

    Raises:
        ValueError, WireError: something else, or steps that strangers send by themselves.
    """
    found: list[Step] = []
    for word in text.split():
        match = _STEP.fullmatch(word)
        if match is None:
            msg = f"{word[:40]!r} is not tcp/PORT or udp/PORT, with or without :SECONDS"
            raise ValueError(msg)
        seconds = SECONDS_DEFAULT if match[2] is None else int(match[2])
        if not 1 <= seconds <= SECONDS_MAX:
            msg = f"{word[:40]!r}: a step has 1 to {SECONDS_MAX} seconds"
            raise ValueError(msg)
        if not found and match[2] is not None:
            msg = f"{word[:40]!r}: the first step comes after none, and has no time"
            raise ValueError(msg)
        found.append(Step(Service.parse(match[1]), seconds if found else 0))
    return checked(tuple(found))


def checked(found: tuple[Step, ...]) -> tuple[Step, ...]:
    """Refuse steps that a scan, or a packet that is sent again, would make.

    Raises:
        ValueError: they are so.
    """
    if len(found) not in STEPS:
        msg = f"{len(found)} steps: a sequence has {STEPS.start} to {STEPS.stop - 1}"
        raise ValueError(msg)
    pairs = [(one.service, other.service) for one, other in itertools.pairwise(found)]
    twice = next((one for one, other in pairs if one == other), None)
    if twice is not None:
        msg = f"{twice} twice in a row: a packet that the network repeats would count as both"
        raise ValueError(msg)
    if all(abs(one.port - other.port) <= 1 for one, other in pairs):
        msg = "neighbouring ports in their order: a scan of all ports would open it"
        raise ValueError(msg)
    return found


def flags(text: str) -> Flags:
    """Read `syn,!ack`: the flags that a TCP packet must have, and with `!` those that it must not have.

    Raises:
        ValueError: something else.
    """
    mask = value = 0
    for word in text.lower().replace(" ", "").split(","):
        match = _FLAG.fullmatch(word)
        if match is None or mask & _BITS[match[2]]:
            msg = f"{word[:20]!r} is none of {', '.join(_BITS)}, with or without `!`, each once"
            raise ValueError(msg)
        mask |= _BITS[match[2]]
        value |= 0 if match[1] else _BITS[match[2]]
    return Flags(mask, value)


def knockd_steps(text: str, seconds: int) -> tuple[Step, ...]:
    """Read knockd's spelling, `7000,8000:udp,9000`, with the same time for each step.

    Raises:
        ValueError, WireError: something else, or steps that strangers send by themselves.
    """
    found: list[Step] = []
    for word in text.replace(" ", "").replace("\t", "").split(","):
        match = _KNOCKD_STEP.fullmatch(word)
        if match is None:
            msg = f"{word[:40]!r} is not PORT, PORT:tcp or PORT:udp"
            raise ValueError(msg)
        protocol = Protocol[(match[2] or "tcp").upper()]
        found.append(Step(Service(protocol, int(match[1])), seconds if found else 0))
    return checked(tuple(found))


def one_time(path: str, content: bytes, within: int | None, chosen: Flags) -> tuple[list[Sequence], list[Problem]]:
    """The sequences of a file, one a line, in our spelling or knockd's; `#` begins a comment, or one that was used."""
    found: list[Sequence] = []
    problems: list[Problem] = []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        text, complaint = reader.text_of(raw)
        if complaint is None and text and not text.startswith("#"):
            try:
                of_line = (
                    steps(text) if "/" in text else knockd_steps(text, min(within or SECONDS_DEFAULT, SECONDS_MAX))
                )
                found.append(Sequence(of_line, whole(of_line, within), chosen, f"{path}:{number}"))
            except (ValueError, WireError) as error:
                complaint = str(error)
        if complaint is not None:
            problems.append(Problem(path, number, complaint))
        if len(problems) >= reader.PROBLEMS_MAX or len(found) > SEQUENCES_MAX:
            break
    return found, problems


def whole(found: Iterable[Step], within: int | None) -> int:
    """The seconds that a sequence may take: those of its steps, or less."""
    most = sum(step.seconds for step in found)
    return most if within is None else min(most, within)


def overlaps(sequences: Iterable[Sequence]) -> Iterator[tuple[Sequence, Sequence]]:
    """Yield a sequence and one before it, where one who sends one of them sends the other one too."""
    before: list[Sequence] = []
    for sequence in sequences:
        yield from ((sequence, other) for other in before if sequence.has(other) or other.has(sequence))
        before.append(sequence)
