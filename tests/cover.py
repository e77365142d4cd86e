"""Branch coverage of the package by its unit tests and vectors: a table by room.

The rooms of ``WHOLE`` decide who gets in: each of their lines and branches is tested, or the exit code is 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = REPOSITORY / "daemon/doorward"
WHOLE: Final = ("wire", "crypto", "gate", "policy", "config")
TESTS: Final = ("unit", "vectors")


@dataclass(slots=True)
class Room:
    """Counts of one folder of the package, or of one module beside them."""

    name: str
    statements: int = 0
    statements_missing: int = 0
    branches: int = 0
    branches_missing: int = 0

    def add(self, summary: dict[str, int]) -> None:
        """Count a file."""
        self.statements += summary["num_statements"]
        self.statements_missing += summary["missing_lines"]
        self.branches += summary["num_branches"]
        self.branches_missing += summary["missing_branches"]

    @property
    def percent(self) -> float:
        """The part of statements and branches that ran, at most 99.9 where one did not."""
        of = self.statements + self.branches
        missing = self.statements_missing + self.branches_missing
        return 100.0 if not missing else min(99.9, round(100 * (of - missing) / of, 1))

    def __str__(self) -> str:
        """The line of the table."""
        required = "100 required" if self.name in WHOLE else ""
        return (
            f"{self.name:12} {self.statements:6} {self.statements_missing:8} {self.branches:8} "
            f"{self.branches_missing:8} {self.percent:7.1f} %  {required}"
        ).rstrip()


def room_of(file: str) -> str:
    """The room of a file of the package: its folder, or its own name."""
    parts = Path(file).parts
    below = parts[parts.index("doorward") + 1 :]
    return below[0].removesuffix(".py")


def rooms(report: dict[str, Any]) -> list[Room]:
    """The rooms of coverage's JSON report, and their sum at the end."""
    found: dict[str, Room] = {}
    total = Room("total")
    for file, described in sorted(report["files"].items()):
        for room in (found.setdefault(room_of(file), Room(room_of(file))), total):
            room.add(described["summary"])
    return [*found.values(), total]


def missing(report: dict[str, Any]) -> list[str]:
    """The lines and branches that no test reaches in the rooms that are to be whole."""
    lines = []
    for file, described in sorted(report["files"].items()):
        if room_of(file) in WHOLE:
            lines += [f"{file}:{line}: no test runs this line" for line in described["missing_lines"]]
            lines += [f"{file}:{start}: no test goes on at {end}" for start, end in described["missing_branches"]]
    return lines


def main(arguments: list[str]) -> int:
    """The exit code: 1 where a test fails, or a room that is to be whole is not."""
    with tempfile.TemporaryDirectory(prefix="doorward-cover-") as folder:
        report = Path(folder) / "coverage.json"
        options = ["--cov", "--cov-branch", f"--cov-report=json:{report}", "--numprocesses=2", "--dist=worksteal"]
        options += ["-m", "not ansible"]  # which tests nothing of the package
        tests = [str(REPOSITORY / "tests" / name) for name in TESTS]
        command = [sys.executable, "-m", "pytest", "-q", *options, *arguments, *tests]
        environment = {**os.environ, "COVERAGE_FILE": str(Path(folder) / "coverage")}
        code = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode
        if not report.exists():
            return code or 1
        found = json.loads(report.read_text("utf-8"))
    sys.stdout.write(f"\n{'room':12} {'lines':>6} {'missing':>8} {'branches':>8} {'missing':>8} {'covered':>9}\n")
    sys.stdout.write("\n".join(map(str, rooms(found))) + "\n")
    gaps = missing(found)
    sys.stdout.write("".join(f"{gap}\n" for gap in gaps))
    return code or (1 if gaps else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
