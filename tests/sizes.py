"""The size of the package by room: lines that hold code, without blank lines, comments and docstrings.

``sizes.py`` counts the work tree, ``sizes.py REVISION`` a commit. A body line is a line of code of a function, without
its head and decorators; the lines of a function within another one count for both.
"""

from __future__ import annotations

import ast
import io
import statistics
import subprocess
import sys
import tarfile
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REPOSITORY: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = "daemon/doorward"
# The rooms on the way of one knock through the daemon.
CORE: Final = frozenset(
    {"capture", "config", "crypto", "firewall", "gate", "helper", "linux", "listener", "policy", "processes"}
    | {"record", "replay", "wire"}
)
# Modules in these rooms that a plain knock does not pass: each is a feature beside its way.
BESIDE: Final = frozenset(
    {"capture/http.py", "capture/pcap.py", "capture/tcp.py", "capture/tcp_process.py"}  # other carriers
    | {"crypto/openpgp.py", "wire/openpgp.py", "linux/interpreter.py"}  # GnuPG, and what runs in other interpreters
    | {"firewall/foreign.py", "firewall/legacy.py", "firewall/rules.py", "helper/keeper.py"}  # other firewalls
    | {"firewall/deadman.py", "firewall/closed_by_hand.py", "linux/sessions.py"}  # root's console
    | {"listener/alerting.py", "record/audit_file.py", "record/chain.py", "record/fwknop.py"}  # other records
    | {"helper/metrics_file.py", "listener/numbers.py", "linux/published.py", "record/openmetrics.py"}  # METRICS_FILE
    | {"linux/trusted_files.py", "record/granted.py", "record/json_line.py"}
)
_LAYOUT: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


@dataclass(frozen=True, slots=True)
class Function:
    """A function, where it stands, and how many lines of code its body has."""

    place: str
    lines: int


@dataclass(slots=True)
class Sizes:
    """Lines by room, and the functions."""

    rooms: dict[str, int] = field(default_factory=dict)
    beside: int = 0
    functions: list[Function] = field(default_factory=list)

    def add(self, name: str, source: str) -> None:
        """Count a module; `name` is its path below the package."""
        tree = ast.parse(source)
        lines = code_lines(source, tree)
        room = room_of(name)
        self.rooms[room] = self.rooms.get(room, 0) + len(lines)
        self.beside += len(lines) if name in BESIDE else 0
        self.functions += [Function(f"{name} {node.name}", len(body_of(node) & lines)) for node in _functions(tree)]


def room_of(name: str) -> str:
    """The room of a module: its folder, or its own name."""
    return name.partition("/")[0].removesuffix(".py")


def code_lines(source: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines that hold code."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            found |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _docstring(node):
            first = node.body[0]
            found -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def body_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    """The numbers of the lines of a function's body."""
    return set(range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1))


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def count(modules: Iterable[tuple[str, str]]) -> Sizes:
    """The sizes of modules, each with its path below the package and its source."""
    sizes = Sizes()
    for name, source in modules:
        sizes.add(name, source)
    return sizes


def of_work_tree() -> Iterator[tuple[str, str]]:
    """The modules as they are now."""
    package = REPOSITORY / PACKAGE
    for file in sorted(package.rglob("*.py")):
        yield str(file.relative_to(package)), file.read_text("utf-8")


def of_commit(revision: str) -> Iterator[tuple[str, str]]:
    """The modules of a commit."""
    command = ["git", "archive", "--format=tar", revision, PACKAGE]
    packed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            opened = archive.extractfile(member) if member.name.endswith(".py") else None
            if opened is not None:
                yield member.name.removeprefix(f"{PACKAGE}/"), opened.read().decode()


def table(sizes: Sizes) -> str:
    """The sizes as text."""
    rows = [f"{room:14}{'core' if room in CORE else '':6}{lines:7}" for room, lines in sorted(sizes.rooms.items())]
    lines = sorted(function.lines for function in sizes.functions)
    longest = max(sizes.functions, key=lambda function: function.lines)
    core = sum(sizes.rooms.get(room, 0) for room in CORE)
    sums = {"total": sum(sizes.rooms.values()), "core": core, "a plain knock's way": core - sizes.beside}
    rows += [f"{name:20}{total:7}" for name, total in sums.items()]
    most = f"90 % at most {lines[len(lines) * 9 // 10]}, longest {longest.lines} ({longest.place})"
    rows += [f"{len(lines)} functions; lines of a body: median {statistics.median_low(lines)}, {most}"]
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Print the table of the work tree, or of the commit that is named."""
    sys.stdout.write(table(count(of_commit(arguments[0]) if arguments else of_work_tree())) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
