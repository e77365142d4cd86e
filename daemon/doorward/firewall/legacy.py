"""iptables-legacy, whose tables nftables does not list: read and changed by its own programs.

Source: iptables(8), ip_tables.c.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import tools
from doorward.firewall.foreign import COMMENT, Rule
from doorward.firewall.kernel import Chain
from doorward.firewall.rules import TARGETS, xtables_command, xtables_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEADLINE: Final = 5.0  # seconds
NAMES: Final = {  # the tables that are in use in this network namespace
    "ip": Path("/proc/thread-self/net/ip_tables_names"),
    "ip6": Path("/proc/thread-self/net/ip6_tables_names"),
}
_PROGRAMS: Final = {"ip": "iptables-legacy", "ip6": "ip6tables-legacy"}
_HOOKS: Final = {"INPUT": "input", "FORWARD": "forward", "PREROUTING": "prerouting"}
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_MARKS: Final = frozenset({"--mark", "--set-mark", "--set-xmark", "--or-mark"})
_WAIT: Final = ("-w", "1")  # seconds for another program that holds the lock


def in_use(names: dict[str, Path] = NAMES) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Families and their filtering tables that are in use, without loading a module."""
    found = []
    for family, path in names.items():
        try:
            tables = path.read_text("ascii").split()
        except OSError:
            continue
        found.append((family, tuple(table for table in _PRIORITIES if table in tables)))
    return tuple((family, tables) for family, tables in found if tables)


def is_used(names: dict[str, Path] = NAMES) -> bool:
    """Whether any table is in use, one for NAT too; no module is loaded."""
    for path in names.values():
        with contextlib.suppress(OSError):
            if path.read_text("ascii").split():
                return True
    return False


def nat_listed(names: dict[str, Path] = NAMES) -> Iterator[tuple[str, str]]:
    """Program and listing of each nat table that is in use.

    Raises:
        FirewallError: it cannot be read.
    """
    for family, path in names.items():
        with contextlib.suppress(OSError):
            if "nat" in path.read_text("ascii").split():
                yield _PROGRAMS[family], _run(family, "-t", "nat", "-S")


def _run(family: str, *arguments: str) -> str:
    """The output of a family's program.

    Raises:
        FirewallError: it is missing, and the text names its package; it fails or takes too long.
    """
    name = _PROGRAMS[family]
    if shutil.which(name, path=tools.PATH) is None:
        msg = f"tables of {name} are in use, and the program to read them is missing: install the package iptables"
        raise FirewallError(msg)
    return tools.run([name, *arguments], DEADLINE)


class Legacy:
    """The foreign.Flavour of one family of iptables-legacy; its rules are read once."""

    def __init__(self, family: str, tables: Iterable[str], mark: int) -> None:
        """Keep the tables that are in use."""
        self._family, self._tables, self._mark = family, tuple(tables), mark

    @functools.cached_property
    def _listed(self) -> dict[str, list[str]]:
        """The lines of each table."""
        return {table: self._run("-t", table, "-S").splitlines() for table in self._tables}

    def chains(self) -> Iterator[Chain]:
        """See foreign.Flavour."""
        for table, lines in self._listed.items():
            for _, name, policy in (line.split(" ", 2) for line in lines if line.startswith("-P ")):
                yield Chain(
                    self._family,
                    table,
                    name,
                    hook=_HOOKS.get(name, "output"),
                    priority=_PRIORITIES[table],
                    drops=policy == "DROP",
                    flavour=f"{_PROGRAMS[self._family]}, ",
                )

    def rules(self, chain: Chain) -> Iterator[Rule]:
        """See foreign.Flavour."""
        head = f"-A {chain.name} "
        for line in self._listed[chain.table]:
            if line.startswith(head):
                yield read(shlex.split(line)[2:], self._mark)

    def insert(self, chain: Chain) -> None:
        """See foreign.Flavour."""
        self._run(*_WAIT, "-t", chain.table, "-I", chain.name, *xtables_rule(self._mark))

    def delete(self, chain: Chain) -> int:
        """See foreign.Flavour."""
        count = sum(rule.ours and rule.admits for rule in self.rules(chain))
        for _ in range(count):
            self._run(*_WAIT, "-t", chain.table, "-D", chain.name, *xtables_rule(self._mark))
        return count

    def remedy(self, chain: Chain) -> str:
        """See foreign.Flavour."""
        return xtables_command(_PROGRAMS[self._family], chain, self._mark)

    def _run(self, *arguments: str) -> str:
        return _run(self._family, *arguments)


def read(words: list[str], mark: int) -> Rule:
    """The possible effects of a rule, as `iptables -S` prints it without its chain, on a packet with `mark`."""
    target = next((words[at + 1] for at, word in enumerate(words[:-1]) if word in {"-j", "-g"}), "")
    matches = words[: next((at for at, word in enumerate(words) if word in {"-j", "-g"}), len(words))]
    comment = ""
    if "--comment" in matches:
        at = matches.index("--comment")
        comment = matches[at + 1]
        matches = matches[: at - 2] + matches[at + 2 :]
    states = {"--ctstate", "--state"}.intersection(matches)
    return Rule(
        admits=target == "ACCEPT" and matches in ([], xtables_rule(mark)[:4]),
        drops=target in TARGETS,
        jumps=(target,) if target else (),  # other targets have no rules
        always=not matches,
        sessions=bool(states) and target not in TARGETS,
        uses=_used_bits(words),
        ours=comment == COMMENT,
    )


def _used_bits(words: list[str]) -> int:
    """The bits of the mark that a rule sets or matches; masks do not count."""
    used = 0
    for option, said in itertools.pairwise(words):
        if option in _MARKS:
            with contextlib.suppress(ValueError):
                used |= int(said.partition("/")[0], 0)
    return used
