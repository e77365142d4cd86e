"""The words of a command line, as getopt_long(3) and fwknop 1.9's users spell them, as options of the table.

Long options may be abbreviated where that is unambiguous, short ones may be joined, operands may stand between options.
Where a letter differs between 1.9 and 2.x, 2.x wins unless only the old reading fits: `-k HOST` beside -A names the
host to knock at, and -w without a command asks a web site.
"""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from doorward.client.options import KNOCK, OLD, RC_ROWS, Row
from doorward.client.profile import VERBOSITY_MAX
from doorward.errors import DoorwardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from doorward.client.options import Command

OLD_LOCAL_PORT: Final = "55000"  # where 1.9 puts a local service without a port

_OPERAND: Final = Row("", "")
_ALONE: Final = {"--resolve-dns": "default", "-w": None}  # what these mean without a value
_SHOWN: Final = frozenset({"--help", "--version"})


class UsageError(DoorwardError, ValueError):
    """A command line that the command does not take; the text names the option."""


class Said(NamedTuple):
    """An option as a command line gives it, with the text behind it; an operand is a row without a name."""

    option: Row
    text: str | None = None

    @property
    def name(self) -> str:
        """The option's canonical name."""
        return self.option.name

    @property
    def value(self) -> str:
        """The text as ~/.fwknoprc spells it; a flag has one too."""
        return self.option.flag if self.text is None else self.option.spell(self.text)

    def __str__(self) -> str:
        """The form that every getopt reads alike."""
        return self.name if self.text is None else f"{self.name}={self.text}"


def read(words: Sequence[str]) -> list[Said]:
    """The options of fwknop's command line, 1.9's as 2.x's.

    Raises:
        UsageError: an unknown option, or one without its value.
    """
    typed = list(_walk(words, _KNOCK))
    names = {each.name for each in typed}
    out: list[Said] = []
    for each in typed:
        if each.option is not _OPERAND:
            out += _modern(each, names)
        elif "--access" in names and out and out[-1].name == "--key-gen":
            out[-1] = _said("--destination", each.text)
        else:
            raise _no_operand(each)
    return out


def parse(command: Command, words: Sequence[str]) -> SimpleNamespace:
    """The values of a command line of doorward's own; operands are not required beside --help.

    Raises:
        UsageError: the words do not fit.
    """
    said = list(_walk(words, _spellings(command.rows)))
    found = values(command, [each for each in said if each.option is not _OPERAND])
    if not found.help:
        _operands(command, [each.text or "" for each in said if each.option is _OPERAND], found)
    return found


def values(command: Command, said: Sequence[Said]) -> SimpleNamespace:
    """The value of each field of a command; None is not given.

    Raises:
        UsageError: a text that an option cannot have.
    """
    found: dict[str, Any] = dict.fromkeys(row.dest for row in command.rows)
    asked = next((each.option for each in said if each.name in _SHOWN), None)
    if asked is not None:  # whatever the other options are
        return SimpleNamespace(**{**found, asked.dest: True})
    weak: list[tuple[Row, str]] = []
    for row, text in each_once(said):
        if row.implies:
            name, _, value = row.implies.partition(" ")
            weak.append((RC_ROWS[name], value))
        if row.is_weak:
            weak.append((row, text))
        else:
            found[row.dest] = _value(row, text)
    for row, text in weak:
        if found[row.dest] is None:
            found[row.dest] = _value(row, text)
    return SimpleNamespace(**found)


def each_once(said: Iterable[Said]) -> Iterator[tuple[Row, str]]:
    """Each option once, with its text: the last one, or all of them where the option may be repeated."""
    found: dict[Row, str] = {}
    for each in said:
        before, text = found.pop(each.option, None), each.value
        if before is not None and each.option.repeats == "list":
            text = f"{before},{text}"
        elif before is not None and each.option.repeats == "count":
            text = str(min((int(before) if before.isdecimal() else 1) + 1, VERBOSITY_MAX))
        found[each.option] = text
    yield from found.items()


def without_keys(said: Iterable[Said]) -> list[Said]:
    """The options; those that carry a key are replaced by those that ask for it."""
    kept: list[Said] = []
    for each in said:
        asking = _instead(each.option) if each.option.instead else each
        if asking is each or asking not in kept:
            kept.append(asking)
    return kept


def _instead(row: Row) -> Said:
    name, given, text = row.instead.partition("=")
    return _said(name, text if given else None)


def _spellings(rows: Iterable[Row]) -> dict[str, Row]:
    return {name: row for row in rows for name in (*row.names, *row.old_names)}


_KNOCK: Final = _spellings((*KNOCK.rows, *OLD))


def _value(row: Row, text: str) -> Any:  # noqa: ANN401  a converter returns any type
    try:
        return row.read(text)
    except (ValueError, DoorwardError) as error:  # neither repeats a key
        msg = f"{row.name}: {error}"
        raise UsageError(msg) from error


def _operands(command: Command, given: list[str], found: SimpleNamespace) -> None:
    """Put the operands into the namespace; the last one of the table takes all that follow if it may be repeated."""
    for row in command.operands:
        taken, given = (given, []) if row.repeats else (given[:1], given[1:])
        if not taken and row.repeats != "any":
            msg = f"{row.name} is required"
            raise UsageError(msg)
        read_all = [_value(row, text) for text in taken]
        setattr(found, row.dest, read_all if row.repeats else read_all[0])
    if given:
        raise _no_operand(Said(_OPERAND, given[0]))


def _no_operand(each: Said) -> UsageError:
    msg = f"{(each.text or '')[:40]!r} belongs to no option"
    return UsageError(msg)


def _walk(words: Sequence[str], spellings: dict[str, Row]) -> Iterator[Said]:
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if word == "--":
            yield from (Said(_OPERAND, operand) for operand in rest)
            return
        if word.startswith("--"):
            yield _long(word, rest, spellings)
        elif word.startswith("-") and word != "-":
            yield from _short(word[1:], rest, spellings)
        else:
            yield Said(_OPERAND, word)


def _long(word: str, rest: deque[str], spellings: dict[str, Row]) -> Said:
    given, separator, value = word.partition("=")
    name = _in_full(given, spellings)
    row = spellings[name]
    if row.metavar:
        return Said(row, value if separator else _next(row, name, rest))
    if separator:
        msg = f"{name} takes no value"
        raise UsageError(msg)
    return Said(row)


def _in_full(given: str, spellings: dict[str, Row]) -> str:
    """The spelling that an abbreviation stands for; 2.x's come before 1.9's."""
    if given in spellings:
        return given
    for names in ([name for name, row in spellings.items() if name in row.names], spellings):
        fitting = {spellings[name].name: name for name in names if name.startswith(given)}
        if len(fitting) == 1:
            return next(iter(fitting.values()))
        if fitting:
            msg = f"{given} may be {', '.join(sorted(fitting))}"
            raise UsageError(msg)
    msg = f"unrecognized option {given}"
    raise UsageError(msg)


def _short(letters: str, rest: deque[str], spellings: dict[str, Row]) -> Iterator[Said]:
    for place, letter in enumerate(letters):
        name = f"-{letter}"
        row = spellings.get(name)
        if row is None:
            msg = f"unrecognized option {name}"
            raise UsageError(msg)
        if row.metavar:
            yield Said(row, letters[place + 1 :] or _next(row, name, rest))
            return
        yield Said(row)


def _next(row: Row, name: str, rest: deque[str]) -> str | None:
    alone = name if name == "-w" else row.name
    if alone in _ALONE and (not rest or rest[0].startswith("-")):
        return _ALONE[alone]
    if not rest:
        msg = f"{name} needs a value"
        raise UsageError(msg)
    return rest.popleft()


def _said(name: str, text: str | None = None) -> Said:
    return Said(_KNOCK[name], text)


def _modern(each: Said, names: set[str]) -> list[Said]:
    """An option of 1.9 as those of 2.x; `--NAT-access HOST:OUTER` is `-N HOST --nat-port OUTER`."""
    if each.name == "--wget-cmd" and each.text is None:
        return [_said("--resolve-ip-https")]
    if each.option in OLD and each.option.instead:
        name, _, text = each.option.instead.partition("=")
        return [_said(name, text or None)]
    if each.name == "--NAT-access":
        host, outer = _split(each.text or "")
        drawn = not outer or "--NAT-rand-port" in names
        return [_said("--nat-access", host), *([] if drawn else [_said("--nat-port", outer)])]
    if each.name == "--NAT-local":
        named = names & {"--NAT-access", "--NAT-rand-port", "--nat-access", "--nat-port", "--nat-rand-port"}
        return [_said("--nat-local"), *([] if named else [_said("--nat-port", OLD_LOCAL_PORT)])]
    return [] if each.name == "--quiet" else [each]


def _split(target: str) -> tuple[str, str]:
    """Host and port of `HOST:PORT`, `HOST,PORT`, `[IPv6]:PORT`."""
    host, _, port = target.rpartition("," if "," in target else ":")
    if host and (":" not in host or host.startswith("[")):
        return host, port
    return target, ""
