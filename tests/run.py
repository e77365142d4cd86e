"""Runs the suites and adds up what they counted.

``run.py check`` is the fast part, ``run.py all`` nearly everything, ``run.py whole`` also what takes minutes and has a
relative in ``all``, which names it. The last line is ``N passed, N failed, N skipped``.
Network tests mostly wait, so lanes run side by side: suites shown at once, the checkers of style and types, suites that
need the lab, with some precedence since they take longest, suites that start programs of other versions and then roll
out to hosts of their own, and one that only computes, at the lowest priority. More lanes would not end sooner: two
processors are busy all the time, and tests of a host that answers within a second begin to fail.
"""

from __future__ import annotations

import contextlib
import enum
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future

REPOSITORY = Path(__file__).resolve().parents[1]
COLLECTION = REPOSITORY / "collections/ansible_collections/doorward/spa"
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Counts:
    """Test counts of one or several suites."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        """The sum of both."""
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        """The closing line of a run."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


class Lane(enum.Enum):
    """Suites of one lane run one after the other; lanes run side by side."""

    SHOWN = "shown"
    STYLE = "style"
    LAB = "lab"
    OTHERS = "others"
    COMPUTING = "computing"


PRIORITY = {Lane.LAB: "-5", Lane.OTHERS: "5", Lane.COMPUTING: "19"}


@dataclass(frozen=True, slots=True)
class Suite:
    """A program to run. With ``report`` it writes a JUnit file, otherwise it counts as one.

    The suites of a lane run one after the other. Those of the first are shown at once, others in their place.
    """

    name: str
    command: tuple[str, ...]
    folder: Path = REPOSITORY
    report: bool = False
    lane: Lane = Lane.SHOWN


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a suite, the time that it took, and that of the processors for what it waited for.

    ``printed`` is its output, empty where it was shown at once.
    """

    counts: Counts
    seconds: float
    busy: float
    printed: bytes


def tool(name: str, *arguments: str, folder: Path = REPOSITORY) -> Suite:
    """A checker of the virtual environment."""
    # Some of them call others.
    variables = [f"PATH={BIN}:{os.environ['PATH']}"]
    if folder != COLLECTION:  # whose ansible.cfg says it, as for everybody who works there
        variables.append(f"ANSIBLE_COLLECTIONS_PATH={REPOSITORY / 'collections'}")
    command = ("env", *variables, str(BIN / name), *arguments)
    return Suite(" ".join((name, *arguments[:1])), command, folder, lane=Lane.STYLE)


def tests(*folders: str, options: tuple[str, ...]) -> Suite:
    """The tests of some folders."""
    paths = [str(REPOSITORY / "tests" / folder) for folder in folders]
    command = (sys.executable, "-m", "pytest", "-q", "--durations=10", *options, *paths)
    return Suite(" ".join(folders), command, report=True)


def _without(command: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    """A command without some words that follow each other."""
    for place in range(len(command)):
        if command[place : place + len(words)] == words:
            return command[:place] + command[place + len(words) :]
    return command


SPREAD = ("--numprocesses=2", "--dist=worksteal")
ALONE = ("--numprocesses=0",)
NOT_WHOLE = ("-m", "not whole")
PART = (*ALONE, *NOT_WHOLE)


CHECK = (
    tool("ruff", "check", "."),
    tool("ruff", "format", "--check", "."),
    Suite("markdown", (sys.executable, str(REPOSITORY / "tests/markdown.py"), "--check"), lane=Lane.STYLE),
    tool("mypy"),
    tool("lint-imports"),
    tool("ansible-lint", "--offline", "-q", folder=COLLECTION),
    tool("antsibull-changelog", "lint", folder=COLLECTION),
    tests("repository", "unit", "property", "vectors", options=(*SPREAD, "-m", "not ansible")),
)
ANTSIBULL_DOCS = tool(
    "antsibull-docs", "lint-collection-docs", "--plugin-docs", "--disallow-unknown-collection-refs", str(COLLECTION)
)
COVER = Suite("covered tests", (sys.executable, str(REPOSITORY / "tests/cover.py")), report=True)
ALL = (
    *CHECK[:-1],
    ANTSIBULL_DOCS,
    COVER,
    tests("repository", "property", options=SPREAD),  # with COVER, the same tests as the last suite of CHECK
    tests("system", options=(*SPREAD, *NOT_WHOLE)),
    tests("interop", "tutorial", options=ALONE),
    replace(tests("unit/collection", options=(*ALONE, "-m", "ansible")), lane=Lane.OTHERS),
    replace(tests("package", options=ALONE), lane=Lane.OTHERS),
    replace(tests("versions", options=ALONE), lane=Lane.OTHERS),
    replace(tests("rollouts", options=PART), lane=Lane.OTHERS),
    # One seed: the same commit gives the same answer. `make fuzz` takes a new one each time.
    Suite(
        "fuzz",
        (sys.executable, "tests/fuzz/run.py", "--seconds", "15", "--plaintexts", "100000", "--seed", "1"),
        lane=Lane.COMPUTING,
    ),
    Suite("ansible-test sanity", (sys.executable, str(REPOSITORY / "tests/sanity.py")), lane=Lane.COMPUTING),
    Suite("molecule", (sys.executable, str(REPOSITORY / "tests/run_molecule.py")), report=True, lane=Lane.LAB),
    replace(tests("playbooks", options=PART), lane=Lane.LAB),
)
WHOLE = tuple(replace(suite, command=_without(suite.command, NOT_WHOLE)) for suite in ALL)


def run(suite: Suite) -> Outcome:
    """Run a suite; a failure without a failed test counts as one."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="doorward-report-") as folder:
        report = Path(folder) / "report.xml"
        command = [*suite.command, *([f"--junitxml={report}"] if suite.report else [])]
        if suite.lane in PRIORITY:
            command = ["nice", "-n", PRIORITY[suite.lane], *command]
        # The output goes through a file and not a pipe, so that wait4(2) can tell what the suite cost.
        with tempfile.TemporaryFile() as kept:
            output, errors = (None, None) if suite.lane is Lane.SHOWN else (kept, subprocess.STDOUT)
            process = subprocess.Popen(command, cwd=suite.folder, stdout=output, stderr=errors)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            kept.seek(0)
            printed = kept.read()
        counts = read(report) if report.exists() else Counts()
    if not suite.report and process.returncode == 0:
        counts = Counts(passed=1)
    elif process.returncode != 0 and counts.failed == 0:
        counts += Counts(failed=1)
    return Outcome(counts, time.monotonic() - begun, used.ru_utime + used.ru_stime, printed)


def read(report: Path) -> Counts:
    """The counts of a JUnit file."""
    # Written a moment ago by our own test runner, in a folder only we can write.
    root = ET.parse(report).getroot()  # noqa: S314  our own file
    suites = list(root.iter("testsuite"))

    def total(name: str) -> int:
        return sum(int(suite.get(name, "0")) for suite in suites)

    failed, skipped = total("failures") + total("errors"), total("skipped")
    return Counts(total("tests") - failed - skipped, failed, skipped)


def show(outcome: Future[Outcome]) -> Outcome:
    """The outcome of a suite that ran beside the others, after showing its output."""
    sys.stdout.buffer.write(outcome.result().printed)
    sys.stdout.flush()
    return outcome.result()


def only_in_whole() -> list[str]:
    """The names of the tests that only ``run.py whole`` runs."""
    command = (sys.executable, "-m", "pytest", "-q", "--collect-only", "--numprocesses=0", "-m", "whole")
    folders = [str(REPOSITORY / "tests" / folder) for folder in ("system", "rollouts", "playbooks")]
    shown = subprocess.run([*command, *folders], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return [line for line in shown.splitlines() if "::" in line]


def main(arguments: list[str]) -> int:
    """The exit code: 0 when nothing failed."""
    chosen = {"check": CHECK, "all": ALL, "whole": WHOLE}[arguments[0] if arguments else "all"]
    lines, sum_ = [], Counts()
    with contextlib.ExitStack() as stack:
        lanes = {lane: stack.enter_context(ThreadPoolExecutor(1)) for lane in Lane if lane is not Lane.SHOWN}
        beside = {suite: lanes[suite.lane].submit(run, suite) for suite in chosen if suite.lane in lanes}
        for suite in chosen:
            sys.stdout.write(f"\n=== {suite.name}\n")
            sys.stdout.flush()
            outcome = show(beside[suite]) if suite in beside else run(suite)
            sum_ += outcome.counts
            lines.append(f"{suite.name:32} {outcome.seconds:7.1f} s {outcome.busy:7.1f} s of CPU   {outcome.counts}")
    if chosen is ALL:
        lines += ["", "Not run, but by `make test-all`:", *only_in_whole()]
    sys.stdout.write("\n" + "\n".join(lines) + f"\n\n{sum_}\n")
    return 1 if sum_.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
