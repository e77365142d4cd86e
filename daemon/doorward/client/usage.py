"""Help and shell completion, made from the table of options; loaded only for help and for mistakes."""

from __future__ import annotations

import textwrap
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from doorward.client.options import COMMANDS, KEYS, Command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from doorward.client.options import Row

    Offers = dict[str, list["Offer"]]  # by the words of the command in front of them

_COLUMN: Final = 34
_WIDTH: Final = 110
_BASH: Final = """\
_{program}() {{
    local words= first="${{COMP_WORDS[1]}}"
    [ "$COMP_CWORD" -le 2 ] || case "$first ${{COMP_WORDS[2]}}" in
{twos}
    esac
    [ -n "$words" ] || case "$first" in
{ones}
        *) words={other} ;;
    esac
    [ "$COMP_CWORD" -gt 1 ] || words={top}
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _{program} {program}
"""
_ZSH: Final = """\
_doorward_of_{program}() {{
    local -a offers
    (( CURRENT <= 3 )) || case "$words[2] $words[3]" in
{twos}
    esac
    (( $#offers )) || case "$words[2]" in
{ones}
        (*) offers={other} ;;
    esac
    (( CURRENT > 2 )) || offers={top}
    _describe -t offers {program} offers
    [[ $PREFIX == -* ]] || (( CURRENT == 2 )) || _files
}}
"""
# Both as a file in zsh's fpath, which is the body of _doorward the first time, and sourced.
_ZSH_FRAME: Final = """\
#compdef {programs}
{functions}_doorward() {{ _doorward_of_$service }}
if [[ $funcstack[1] == _doorward ]]; then _doorward; else compdef _doorward {programs}; fi
"""
SUPPRESS: Final = "==SUPPRESS=="  # argparse's, which takes 10 ms to load
SHELLS: Final = ("bash", "zsh", "fish")


def line(command: Command) -> str:
    """The line that shows how to call a command."""
    return f"usage: {command.name} {command.usage}\n"


def page(command: Command) -> str:
    """The help of a command."""
    groups = (_group(heading, rows) for heading, rows in command.groups.items())
    return "\n".join(part for part in (line(command), command.about, *groups, command.examples) if part)


def _group(heading: str, rows: Sequence[Row]) -> str:
    return f"{heading}:\n" + "".join(_row(row) for row in rows if row.names)


def _row(row: Row) -> str:
    spelling = f"  {', '.join(row.names)} {row.metavar}".rstrip()
    gap = " " * _COLUMN
    text = textwrap.fill(row.help, _WIDTH, initial_indent=gap, subsequent_indent=gap)
    return (f"{spelling:<{_COLUMN}}{text[_COLUMN:]}" if len(spelling) < _COLUMN else f"{spelling}\n{text}") + "\n"


class Offer(NamedTuple):
    """A command or an option that a shell offers; `takes` is the name of the option's value."""

    names: tuple[str, ...]
    help: str = ""
    takes: str = ""

    @classmethod
    def command(cls, name: str) -> Offer:
        """A command, or a word."""
        return cls((name,))


def offers(parser: argparse.ArgumentParser) -> list[Offer]:
    """The options of an argparse parser, and the words that it takes."""
    found = []
    for action in parser._actions:  # noqa: SLF001  argparse has no other list of them
        text = action.help or ""
        if action.option_strings and text != SUPPRESS:
            takes = "" if action.nargs == 0 else str(action.metavar or action.dest)
            found.append(Offer(tuple(action.option_strings), text, takes))
        elif action.choices:
            inner = {each.dest: each.help or "" for each in getattr(action, "_choices_actions", ())}
            found += [Offer((word,), inner.get(word, "")) for word in action.choices]
    return found


def commands(subparsers: argparse._SubParsersAction[Any]) -> Offers:
    """What `doorward` offers: the client's commands by its tables, the others by their parsers."""
    named = {each.dest: each.help or "" for each in subparsers._choices_actions}  # noqa: SLF001  as above
    knock = _rows(COMMANDS["knock"])
    found = {"": [*(Offer((name,), named.get(name, "")) for name in subparsers.choices), *knock]}
    for name, parser in subparsers.choices.items():
        if name not in COMMANDS:
            found |= _within(name, parser)
    for command in (*COMMANDS.values(), *KEYS.values()):
        first, *rest = command.name.split()[1:]
        found.setdefault(first, _rows(command))
        found[first] += [Offer((word,)) for word in rest if (word,) not in {each.names for each in found[first]}]
        found[" ".join((first, *rest))] = _rows(command)
    return found


def _rows(command: Command) -> list[Offer]:
    return [Offer(tuple(row.names), row.help, row.metavar) for row in command.rows if row.names]


def _within(name: str, parser: argparse.ArgumentParser) -> Offers:
    """The offers of a command and of the commands below it."""
    found = {name: offers(parser)}
    for action in parser._actions:  # noqa: SLF001  as above
        if isinstance(action.choices, dict):
            for word, inner in action.choices.items():
                found |= _within(f"{name} {word}", inner)
    return found


def completion(shell: str, programs: Mapping[str, Offers]) -> str:
    """A shell's completion of programs; each has its offers by the command that stands before them."""
    if shell == "fish":
        return "".join(_fish(program, known) for program, known in programs.items())
    form, spell = (_BASH, _spell_bash) if shell == "bash" else (_ZSH, _spell_zsh)
    functions = "".join(_function(form, spell, program, known) for program, known in programs.items())
    if shell == "bash":
        return functions
    return _ZSH_FRAME.format(programs=" ".join(programs), functions=functions)


def _function(form: str, spell: Callable[[Sequence[Offer]], str], program: str, known: Offers) -> str:
    opening, variable = ("(", "offers") if form is _ZSH else ("", "words")
    spelled = ((words, f"{opening}{quote(words)}) {variable}={spell(each)} ;;") for words, each in known.items())
    cases = {words: " " * 8 + case for words, case in spelled if words}
    return form.format(
        program=program,
        twos="\n".join(case for words, case in cases.items() if " " in words),
        ones="\n".join(case for words, case in cases.items() if " " not in words),
        other=spell([each for each in known[""] if each.names[0].startswith("-")]),
        top=spell(known[""]),
    )


def _spell_bash(known: Sequence[Offer]) -> str:
    return quote(" ".join(name for each in known for name in each.names))


def _spell_zsh(known: Sequence[Offer]) -> str:
    return "(" + " ".join(quote(f"{name}:{each.help}".rstrip(":")) for each in known for name in each.names) + ")"


def _fish(program: str, known: Offers) -> str:
    return f"complete -c {program} -e\n" + "".join(
        f"complete -c {program} -n {quote(_fish_condition(words, known, each))}{_fish_offer(each)}\n"
        for words, each_of in known.items()
        for each in each_of
    )


def _fish_condition(words: str, known: Offers, offer: Offer) -> str:
    """When fish offers what stands behind these words; behind none, commands come first and options anywhere."""
    if not words and not offer.names[0].startswith("-"):
        return "__fish_use_subcommand"
    seen = [f"__fish_seen_subcommand_from {word}" for word in words.split()]
    below = [other.rpartition(" ")[2] for other in known if other and other.rpartition(" ")[0] == words]
    return "; and ".join([*seen, *([f"not __fish_seen_subcommand_from {' '.join(below)}"] if below else [])])


def _fish_offer(offer: Offer) -> str:
    if not offer.names[0].startswith("-"):
        spelled = f" -f -a {offer.names[0]}"
    else:
        spelled = "".join(f" -l {each[2:]}" if each.startswith("--") else f" -s {each[1:]}" for each in offer.names)
    text = offer.help.replace("\\", "\\\\").replace("'", "\\'")
    return spelled + (" -r" if offer.takes else "") + (f" -d '{text}'" if text else "")
