"""The command `doorward audit verify`: whether the lines of an audit file form an unbroken chain."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.record import chain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def add_commands(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command; it sets `run`, which returns the exit code."""
    audit = subparsers.add_parser("audit", help="on a host: the lines of AUDIT_FILE")
    inner = audit.add_subparsers(metavar="COMMAND", required=True)
    verify = inner.add_parser(
        "verify",
        help="check that the lines form an unbroken chain",
        description="Check that no line was changed, removed or moved. Name rotated files oldest first.",
        epilog="Store the printed hash elsewhere: only comparing it shows that lines were cut off at the end.",
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE")
    verify.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    try:
        count, last, broken = chain.verify(text for _, _, text in _lines(options.files))
    except OSError as error:
        print(f"doorward: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201  why it failed
        return 1
    if broken is None:
        print(f"{count} lines hold, the last hash is {last}")  # noqa: T201  the command's output
        return 0
    file, number, _ = next(islice(_lines(options.files), broken.line - 1, None))
    print(f"{file}:{number}: the line {broken.why}", file=sys.stderr)  # noqa: T201  the command's output
    return 1


def _lines(files: list[Path]) -> Iterator[tuple[Path, int, str]]:
    """Yield file, number and text of every line of all files."""
    for file in files:
        with file.open(encoding="utf-8", errors="replace", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                yield file, number, line.removesuffix("\n")
