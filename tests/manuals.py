"""The manual pages in docs/man, generated from the tables of the code and docs/configuration.md by `make docs`.

The pages of files that fwknop reads too begin with `doorward-`: access.conf(5) is PAM's on every Debian, and the name
fwknoprc belongs to fwknop.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import documented
from doorward import __version__, console
from doorward.client import cli
from doorward.client.options import COMMANDS, KEYS, RC_ROWS
from doorward.daemon import explain, host_key, import_knockd
from doorward.processes import options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doorward.client.cli import Subparsers
    from doorward.client.options import Command

FOLDER: Final = Path(__file__).parents[1] / "docs/man"
FIRST_AID: Final = (
    Path(__file__).parents[1] / "collections/ansible_collections/doorward/spa/roles/firewall/files/first-aid"
)
DATE: Final = "2026-11-28"  # when the pages last took another form
_WIDTH: Final = 78
_SYMBOLS: Final = {"\\": "\\e", "-": "\\-", "…": "...", "\u2013": "\\(en", "→": "\\(->", "'": "\\(aq", "`": "\\(ga"}
_INLINE: Final = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>[^*]+)\*\*|\[(?P<text>[^\]]+)\]\((?P<target>[^)]+)\)")
_IDLE_PARAGRAPH: Final = re.compile(r"^(\.S[HS] .*\n)\.PP\n", re.MULTILINE)  # a section begins one by itself
_ALSO: Final = {
    "doorward(1)": "the client, and root's commands on a host",
    "doorwardd(8)": "the daemon",
    "doorward-first-aid(8)": "the way back in, without Python and the archive",
    "doorward-access.conf(5)": "who may open what",
    "doorwardd.conf(5)": "settings of the daemon",
    "doorward-fwknoprc(5)": "keys and hosts of a client",
}


class Page(NamedTuple):
    """A manual page: what it says in one line, and its sections."""

    title: str
    section: int
    summary: str
    sections: Callable[[], Iterator[str]]

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.title}.{self.section}"

    def text(self) -> str:
        """The page as man(7) has it."""
        name = f"{self.title}({self.section})"
        also = ",\n".join(f".BR {one[:-3]} ({one[-2]})" for one in sorted(set(_ALSO) - {name})).replace(",\n", " ,\n")
        lines = [
            '.\\" made by `make docs` from the tables of the code',
            f'.TH "{self.title.upper()}" {self.section} {DATE} "doorward {__version__}" "doorward"',
            ".nh",
            ".SH NAME",
            f"{escaped(self.title)} \\- {escaped(self.summary)}",
            *self.sections(),
            ".SH SEE ALSO",
            also,
        ]
        return _IDLE_PARAGRAPH.sub(r"\1", "\n".join(lines) + "\n")


# --- roff -------------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """A text whose every character stands for itself."""
    return "".join(_SYMBOLS.get(character, character) for character in text)


def inline(text: str) -> str:
    """The marks of a line of Markdown as fonts; a link is its text, or the section that it leads to."""
    out, end = "", 0
    for found in _INLINE.finditer(text):
        out += escaped(text[end : found.start()])
        said = found["code"] or found["bold"] or found["text"]
        out += escaped(said) if found["text"] else f"\\fB{escaped(said)}\\fR"
        end = found.end()
    return out + escaped(text[end:])


def filled(text: str) -> str:
    """Lines of roff; none of them begins with what would be a request."""
    rows = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{row}" if row.startswith((".", "'")) else row for row in rows)


def literal(text: str) -> Iterator[str]:
    """Lines as they stand."""
    yield from (
        ".PP",
        ".nf",
        *(
            escaped(row).replace(".", "\\&.", 1) if row[:1] == "." else escaped(row)
            for row in text.rstrip().splitlines()
        ),
        ".fi",
    )


def tagged(tag: str, text: str) -> Iterator[str]:
    """A term and its meaning."""
    yield ".TP"
    yield f"\\fB{escaped(tag)}\\fR"
    yield filled(inline(text)) if text.strip() else "\\&"


def prose(text: str) -> Iterator[str]:
    """Paragraphs of Markdown, with tables as terms and their meaning."""
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.startswith("|"):
            yield from _table(part)
        elif part.startswith("```"):
            yield from literal("\n".join(part.splitlines()[1:-1]))
        else:
            yield from (".PP", filled(inline(" ".join(part.split()))))


def _table(part: str) -> Iterator[str]:
    head, _, *rows = (re.split(r"(?<!\\)\|", row)[1:-1] for row in part.splitlines())
    is_default = head[1].strip() == "default"
    for row in rows:
        name, value, *meaning = (cell.strip().replace("\\|", "|") for cell in row)
        said = f"default {value}" if is_default else value
        yield from tagged(name.replace("`", ""), ": ".join(filter(None, (said, *meaning))))


# --- the pages --------------------------------------------------------------------------------------------------------


def _section_of_configuration(heading: str) -> str:
    text = documented.DOCUMENT.read_text("utf-8").partition(documented.BEGIN)[0]
    found = re.search(rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        msg = f"{documented.DOCUMENT} has no section {heading!r}"
        raise ValueError(msg)
    return found[1]


def _states(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for names, state in rows:
        yield from tagged(names.replace("`", ""), state)


def _access() -> Iterator[str]:
    yield ".SH DESCRIPTION"
    yield from prose("The stanzas of clients: who may open what, and with which keys. The format is that of fwknopd.")
    yield from prose("The file is `/etc/doorward/access.conf`, and holds keys: only root may read it (mode 0600).")
    yield from prose(_how_lines_are_read())
    yield from prose(_section_of_configuration("access.conf"))
    yield ".SH EVERY NAME, AND HOW IT DIFFERS FROM FWKNOPD"
    yield from _states(documented.access_states())


def _how_lines_are_read() -> str:
    text = documented.DOCUMENT.read_text("utf-8").partition("\n## ")[0]
    return text.partition("\n")[2]


def _settings() -> Iterator[str]:
    yield ".SH DESCRIPTION"
    yield from prose("The settings of `doorwardd`. Every one has a default; the file may be missing or empty.")
    yield from prose("The file is `/etc/doorward/doorwardd.conf`.")
    yield from prose(_how_lines_are_read())
    yield from prose(_section_of_configuration("doorwardd.conf"))
    yield ".SH EVERY NAME, AND HOW IT DIFFERS FROM FWKNOPD"
    yield from _states(documented.daemon_states())


_RC: Final = """\
Hosts and keys of a client, in the format of fwknop: `~/.fwknoprc`. It holds keys: only its owner may read it (mode
0600).

Lines are `NAME value` or `NAME: value`; a value ends at a blank, `;` or `#`. Lines that begin with `#` or `;` are
comments. A heading `[web1]` begins a section. `[default]`, and lines above the first heading, hold for every section;
the lines of a section override them, and options of the command line override both.

`doorward knock -n web1` takes the section web1. `doorward connect` takes the section that is named like the host or
has it as its SPA_SERVER.
"""
_RC_EXAMPLE: Final = """\
[web1]
SPA_SERVER 192.0.2.10
ACCESS tcp/22
ALLOW_IP auto
KEY_BASE64 ...
HMAC_KEY_BASE64 ...
"""


def _fwknoprc() -> Iterator[str]:
    yield ".SH DESCRIPTION"
    yield from prose(_RC)
    yield ".SH NAMES"
    yield from _states(_rc_rows())
    yield ".SH EXAMPLES"
    yield from literal(_RC_EXAMPLE)
    yield from prose("`doorward keys generate` prints the lines with the keys.")


def _rc_rows() -> Iterator[tuple[str, str]]:
    for name, row in sorted(RC_ROWS.items()):
        option = f" (`{row.name}`)" if row.names else ""
        differs = documented.CLIENT_DIFFERS.get(name)
        yield name, f"{row.help}{option}" + (f". Differs from fwknop: {differs}" if differs else "")


def _client() -> Iterator[str]:
    commands = argparse.ArgumentParser("doorward").add_subparsers()
    cli.add_commands(commands, console.add_commands)
    theirs = {parser: said for parser, said in _leaves(commands) if parser.prog.split()[1] not in COMMANDS}
    yield ".SH SYNOPSIS"
    yield from literal("\n".join([f"{each.name} {each.usage}" for each in _ours()] + [_usage(each) for each in theirs]))
    yield ".SH DESCRIPTION"
    yield from prose("Single Packet Authorization: ask a hidden host to open a service for a while.")
    yield from prose("`doorward -A tcp/22 -D HOST ...`, without a command, is `doorward knock` with fwknop's options.")
    for command in _ours():
        yield from _client_command(command)
    for parser, summary in theirs.items():
        yield from _argparse_command(parser, summary)
    yield ".SH EXIT STATUS"
    yield from prose("0 done, 1 failed, 2 usage, 3 mistake in a configuration file, 4 root is needed.")
    yield ".SH FILES"
    yield from tagged("~/.fwknoprc", "keys and hosts, see doorward-fwknoprc(5)")
    yield from tagged(
        "/etc/doorward/", "on a host: doorwardd.conf(5), doorward-access.conf(5), and the confirmed table"
    )


def _ours() -> list[Command]:
    """The client's commands, those of `doorward keys` one by one."""
    return [each for name, command in COMMANDS.items() for each in (KEYS.values() if name == "keys" else (command,))]


def _client_command(command: Command) -> Iterator[str]:
    yield f'.SH "{escaped(command.name.upper())}"'
    yield from prose(command.about)
    for heading, rows in command.groups.items():
        yield f'.SS "{escaped(heading)}"'
        for row in (row for row in rows if row.names):
            yield from tagged(f"{', '.join(row.names)} {row.metavar}".strip(), row.help)
    if command.examples:
        yield '.SS "examples and notes"'
        yield from literal(command.examples)


def _leaves(commands: Subparsers) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The commands that have no commands below them, with what the list of their kind says of them."""
    summaries = {each.dest: each.help or "" for each in commands._choices_actions}  # noqa: SLF001  argparse has no other list
    for name, parser in commands.choices.items():
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001  as above
        if not inner:
            yield parser, summaries.get(name, "")
        for each in inner:
            yield from _leaves(each)


def _usage(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def _argparse_command(parser: argparse.ArgumentParser, summary: str) -> Iterator[str]:
    yield f'.SH "{escaped(parser.prog.upper())}"'
    yield from _argparse_body(parser, summary)


def _argparse_body(parser: argparse.ArgumentParser, summary: str) -> Iterator[str]:
    yield from prose(parser.description or f"{summary[:1].upper()}{summary[1:]}.")
    for group in parser._action_groups:  # noqa: SLF001  as above
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]  # noqa: SLF001  as above
        if shown:
            yield f'.SS "{escaped(group.title or "options")}"'
        for action in shown:
            yield from tagged(_spelled(action), action.help or "")
    if parser.epilog:
        yield '.SS "examples and notes"'
        yield from literal(parser.epilog)


def _spelled(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else str(action.metavar or "|".join(action.choices or ()) or action.dest.upper())
    return f"{', '.join(action.option_strings)} {value}".strip()


def _daemon() -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield from literal(
        "doorwardd [options]\n"
        + "\n".join(
            _usage(parser)
            for parser in (
                options.parser(check=True),
                explain.command_line(),
                host_key.command_line(),
                import_knockd.command_line(),
            )
        )
    )
    yield ".SH DESCRIPTION"
    yield from _argparse_body(options.parser(), "")
    yield '.SH "DOORWARDD CHECK"'
    yield from prose(options.parser(check=True).description or "")
    yield from _argparse_command(explain.command_line(), "")
    yield from _argparse_command(host_key.command_line(), "")
    yield from _argparse_command(import_knockd.command_line(), "")
    yield ".SH FILES"
    for file, text in _DAEMON_FILES.items():
        yield from tagged(file, text)


_DAEMON_FILES: Final = {
    "/etc/doorward/access.conf": "stanzas of clients, see doorward-access.conf(5)",
    "/etc/doorward/doorwardd.conf": "settings, see doorwardd.conf(5)",
    "/etc/doorward/firewall.nft": "the confirmed table, where there is one",
    "/var/lib/doorward/": "the replay store",
    "/var/lib/doorward-exec/": "the journal of open command cycles",
    "/var/cache/doorward/": "the compiled code of the program, which can be removed at any time",
    "/run/doorward/": "the PID file, the sockets between the processes, a change that waits for its confirmation",
}
_AID: Final = """\
For root at the console of a host that doorward keeps closed. It reads no configuration, and works without Python and
the archive of doorward. `doorward open --for 15m` and `doorward firewall stop` do the same where they run.

It opens the ports at which sshd listens, or systemd for it; else those that `sshd -T` prints; else 22.

The failure policy is the word in `/etc/doorward/failure-policy`: `closed` (without the file), `fallback` or `open_ssh`.
It takes effect when no doorwardd.service has answered knocks for half a minute, whatever the reason is, and ends when
one does.
"""


def _first_aid() -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield from literal(FIRST_AID.read_text("utf-8").partition("<<'END'\n")[2].partition("END\n")[0])
    yield ".SH DESCRIPTION"
    yield from prose(_AID)
    yield ".SH FILES"
    yield from tagged("/etc/doorward/failure-policy", "the failure policy")


PAGES: Final = (
    Page("doorward", 1, "open services of hidden hosts by Single Packet Authorization", _client),
    Page("doorwardd", 8, "open the firewall for authentic knocks", _daemon),
    Page("doorward-first-aid", 8, "open a host that doorward keeps closed", _first_aid),
    Page("doorward-access.conf", 5, "access.conf of doorwardd: who may open what", _access),
    Page("doorwardd.conf", 5, "settings of doorwardd", _settings),
    Page("doorward-fwknoprc", 5, "~/.fwknoprc: keys and hosts of the client doorward", _fwknoprc),
)


def main() -> int:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for page in PAGES:
        (FOLDER / page.file).write_text(page.text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
