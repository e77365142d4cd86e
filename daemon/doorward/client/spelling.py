"""The words of a command line as getopt_long(3) and fwknop 1.9's users spell them, in one spelling of ours.

Long options may be cut short where that is clear, short ones stand together, words between options are allowed. Where a
letter means something else in 1.9 than in 2.x, 2.x wins unless only the old reading fits: `-k HOST` beside -A is where
to knock, and -w without a command asks a web site.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.client.fwknop_options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

OLD_LOCAL_PORT: Final = "55000"  # where 1.9 puts a local service that names no port

_NAMES: Final = {name: option for option in OPTIONS for name in (*option.names, *option.old)}
_TAKES_VALUE: Final = {name: option.metavar is not None for name, option in _NAMES.items()}
# 1.9's NAT: the port beside the host is the outer one, in 2.x the inner one
_OLD_TARGET: Final = "--NAT-access"
_OLD_LOCAL: Final = "--NAT-local"
_OLD_RANDOM: Final = "--NAT-rand-port"
_DNS: Final = "--resolve-dns"
_TAKES_VALUE.update({_OLD_TARGET: True, "--Forward-access": True, "-F": True, _OLD_LOCAL: False, _OLD_RANDOM: False})
_TAKES_VALUE.update({"-h": False, "--help": False, "--HTTP": False, "--TCP-sock": False, "--quiet": False})
_MODERN: Final = [name for option in OPTIONS for name in option.names if name.startswith("--")]


@dataclass(frozen=True, slots=True)
class Word:
    """An option under the name that stands for it, with its value; `name` is empty for a word that is no option."""

    name: str
    value: str | None = None

    def __str__(self) -> str:
        """Return the form that no parser misreads."""
        return self.name if self.value is None else f"{self.name}={self.value}"


def read(words: Sequence[str]) -> list[Word]:
    """Return the options of a command line, 1.9's as 2.x's.

    Raises:
        ValueError: an option that there is not, or one without its value; the text says which.
    """
    found = _with_old_nat(_with_old_letters(list(_walk(words))))
    stray = next((word.value for word in found if not word.name), None)
    if stray is not None:
        msg = f"{stray[:40]!r} belongs to no option"
        raise ValueError(msg)
    return found


def without_keys(words: Iterable[Word]) -> list[Word]:
    """Return the options with those that carry a key replaced by those that ask for it."""
    kept: list[Word] = []
    for word in words:
        instead = _NAMES[word.name].instead if word.name in _NAMES else None
        if instead is None:
            kept.append(word)
        elif Word(instead) not in kept:
            kept.append(Word(instead))
    return kept


def _walk(words: Sequence[str]) -> Iterator[Word]:
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if word == "--":
            yield from (Word("", stray) for stray in rest)
            return
        if word.startswith("--"):
            yield _long(word, rest)
        elif word.startswith("-") and word != "-":
            yield from _short(word[1:], rest)
        else:
            yield Word("", word)


def _long(word: str, rest: deque[str]) -> Word:
    given, separator, value = word.partition("=")
    name = _in_full(given)
    if not _TAKES_VALUE[name]:
        if separator:
            msg = f"{name} takes no value"
            raise ValueError(msg)
        return Word(_canonical(name))
    if name == _DNS and not separator and (not rest or rest[0].startswith("-")):
        return Word(_DNS, "default")
    return Word(_canonical(name), value if separator else _next(name, rest))


def _in_full(given: str) -> str:
    if given in _TAKES_VALUE:
        return given
    for names in (_MODERN, list(_TAKES_VALUE)):
        fitting = {_canonical(name): name for name in names if name.startswith(given)}
        if len(fitting) == 1:
            return next(iter(fitting.values()))
        if fitting:
            msg = f"{given} may be {', '.join(sorted(fitting))}"
            raise ValueError(msg)
    msg = f"unrecognized option {given}"
    raise ValueError(msg)


def _short(letters: str, rest: deque[str]) -> Iterator[Word]:
    for place, letter in enumerate(letters):
        name = f"-{letter}"
        if name not in _TAKES_VALUE:
            msg = f"unrecognized option {name}"
            raise ValueError(msg)
        if not _TAKES_VALUE[name]:
            yield Word(_canonical(name))
            continue
        value: str | None = letters[place + 1 :]
        if not value:
            asks = name == "-w" and (not rest or rest[0].startswith("-"))
            value = None if asks else _next(name, rest)
        yield Word(_canonical(name), value)
        return


def _next(name: str, rest: deque[str]) -> str:
    if not rest:
        msg = f"{name} needs a value"
        raise ValueError(msg)
    return rest.popleft()


def _canonical(name: str) -> str:
    option = _NAMES.get(name)
    if option is not None:
        return option.name
    return _OLD_TARGET if name in {"--Forward-access", "-F"} else name


def _with_old_letters(words: list[Word]) -> list[Word]:
    """Return -k HOST beside -A as where to knock, -w alone as -R, and 1.9's names of carriers."""
    asks = any(word.name == "--access" for word in words)
    out: list[Word] = []
    for word in words:
        if asks and not word.name and out and out[-1] == Word("--key-gen"):
            out[-1] = Word("--destination", word.value)
        elif word == Word("--wget-cmd"):
            out.append(Word("--resolve-ip-https"))
        elif word.name in {"--HTTP", "--TCP-sock"}:
            out.append(Word("--server-proto", "http" if word.name == "--HTTP" else "tcp"))
        elif word.name not in {"-h", "--quiet"}:
            out.append(word)
        elif word.name == "-h":
            out.append(Word("--help"))
    return out


def _with_old_nat(words: list[Word]) -> list[Word]:
    """Return 1.9's NAT options as 2.x's: `--NAT-access HOST:OUTER` is `-N HOST --nat-port OUTER`."""
    names = {word.name for word in words}
    out: list[Word] = []
    for word in words:
        if word.name == _OLD_TARGET:
            host, outer = _split(word.value or "")
            out.append(Word("--nat-access", host))
            if outer and _OLD_RANDOM not in names:
                out.append(Word("--nat-port", outer))
        elif word.name == _OLD_LOCAL:
            out.append(Word("--nat-local"))
            if not names & {_OLD_TARGET, _OLD_RANDOM, "--nat-access", "--nat-port", "--nat-rand-port"}:
                out.append(Word("--nat-port", OLD_LOCAL_PORT))
        elif word.name == _OLD_RANDOM:
            out.append(Word("--nat-rand-port"))
        else:
            out.append(word)
    return out


def _split(target: str) -> tuple[str, str]:
    """Return host and port of `HOST:PORT`, `HOST,PORT`, `[IPv6]:PORT`."""
    host, _, port = target.rpartition("," if "," in target else ":")
    if host and (":" not in host or host.startswith("[")):
        return host, port
    return target, ""
