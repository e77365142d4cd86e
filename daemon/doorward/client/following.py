"""What the ssh that runs a ProxyCommand was told: it passes neither -4, -6, -b, -B nor a jump on.

The words of the parent process are asked of ssh itself (`ssh -G`), which reads its files too. Where there is no /proc,
or the parent is no ssh, nothing is known.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.client import profile
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import SimpleNamespace

_ANSWER_MAX: Final = 1 << 20
_OURS: Final = ("proxycommand", "proxyusefdpass")
_VALUED: Final = "BbcDEeFIiJLlmOoPpQRSWw"  # ssh's letters with a value
_FAMILIES: Final = {"inet": "ipv4_only", "inet6": "ipv6_only"}


class Asked(NamedTuple):
    """A question to ssh: the process that answers, the descriptor for it, and the words of the ssh that it is about."""

    process: int
    answer: int
    words: list[str]


def follower(parent: int, said: SimpleNamespace) -> Callable[[], None]:
    """Ask at once; the call waits for the answer and completes what a command line said."""
    asked = ask(parent)

    def complete() -> None:
        if asked is not None:
            apply(answer(asked), said)
            file = configuration(asked.words)
            said.ssh_flags = ("-F", file) if file else ()

    return complete


def ask(parent: int) -> Asked | None:
    """Ask ssh how the parent process would connect; None where that is no ssh."""
    try:
        program = Path(f"/proc/{parent}/exe").readlink()
        words = os.fsdecode(Path(f"/proc/{parent}/cmdline").read_bytes()).split("\0")[1:-1]
    except OSError:
        return None
    if program.name != "ssh":
        return None
    return Asked(*_start([str(program), "-G", *without_proxy(words)]), words)


def without_proxy(words: Sequence[str]) -> list[str]:
    """The words of an ssh command line without the option that names this program."""
    kept: list[str] = []
    for word in words:
        if word.partition("=")[0].lower() in _OURS and kept[-1:] == ["-o"]:
            kept.pop()
        else:
            kept.append(word)
    return kept


def configuration(words: Sequence[str]) -> str | None:
    """The file that -F names; a remote command may have a -F of its own."""
    return next((value for letter, value in _options(deque(words)) if letter == "F"), None)


def _options(rest: deque[str]) -> Iterator[tuple[str, str]]:
    """The options of ssh that have a value, up to the remote command."""
    operands = 0
    while rest and operands <= 1:
        word = rest.popleft()
        if word == "--" or not word.startswith("-"):
            operands += 1
            continue
        for place, letter in enumerate(word[1:], 2):
            if letter in _VALUED:
                yield letter, word[place:] or (rest.popleft() if rest else "")
                break


def _start(command: list[str]) -> tuple[int, int]:
    """Run a program with its standard output in a pipe; subprocess takes longer to load than ssh to answer."""
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in ((null, 0), (writing, 1), (null, 2))]
    try:
        process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    finally:
        os.close(writing)
        os.close(null)
    return process, reading


def answer(asked: Asked) -> dict[str, str]:
    """The settings of an answer, each with its last value."""
    with os.fdopen(asked.answer, encoding="utf-8", errors="replace") as stream:
        lines = stream.read(_ANSWER_MAX).splitlines()
    os.waitpid(asked.process, 0)
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def apply(found: dict[str, str], said: SimpleNamespace) -> None:
    """Put ssh's settings into the values of a command line, whose own words win.

    Raises:
        ClientError: ssh's jump is not in a form that is understood here.
    """
    family = _FAMILIES.get(found.get("addressfamily", ""))
    if family is not None and not (said.ipv4_only or said.ipv6_only):
        setattr(said, family, True)
    if said.bind_address is None and said.bind_interface is None:
        said.bind_address, said.bind_interface = found.get("bindaddress"), found.get("bindinterface")
    if said.jump is None and "proxyjump" in found:
        try:
            said.jump = profile.hops(found["proxyjump"])
        except ValueError as error:
            msg = f"ssh's ProxyJump: {error}"
            raise ClientError(msg) from error
