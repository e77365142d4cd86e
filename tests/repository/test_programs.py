"""Every program that tests, lab, bench and the package run is known, and its package is installed by .ci/bootstrap."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import programs
from programs import INDIRECT, NO_PROGRAMS, OF_HOSTS, OURS, PACKAGES, called, called_by_shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDERS = ("tests", "bench", "daemon")
BOOTSTRAP = (programs.REPOSITORY / ".ci/bootstrap").read_text("utf-8")
ESSENTIAL = {"apt", "bash", "coreutils", "dash", "dpkg", "sed"}  # of every Debian, beside util-linux and mount
KNOWN = {*PACKAGES, *OURS, *OF_HOSTS, *NO_PROGRAMS}


def sources() -> Iterator[Path]:
    """Every source that may run a program, but not this table and its tests."""
    for folder in FOLDERS:
        for file in sorted((programs.REPOSITORY / folder).rglob("*")):
            if file.suffix in {".py", ".sh"} and not file.match("*programs.py"):
                yield file


def words(file: Path) -> dict[str, str]:
    """The programs of a source, each with a place where it is run."""
    found = (called if file.suffix == ".py" else called_by_shell)(file.read_text("utf-8"))
    return {word if word.startswith("iptables-") else word.rpartition("/")[2]: f"{file}:{line}" for line, word in found}


ALL = {word: place for file in sources() for word, place in words(file).items()}


def installed_by_bootstrap() -> set[str]:
    found = re.search(r'^PACKAGES="([^"]*)"', BOOTSTRAP, re.MULTILINE)
    assert found
    return {*found[1].replace("\\\n", " ").split()}


def test_every_program_that_is_run_is_known() -> None:
    # An X stands where a name is put together at run time.
    unknown = {word: place for word, place in ALL.items() if word not in KNOWN and "X" not in word}
    assert not unknown, "add it to PACKAGES in tests/programs.py, with its Debian package (or to what is no program)"


def test_every_known_program_is_run() -> None:
    assert set(PACKAGES) - set(ALL) == set(INDIRECT), "what is not run any more goes out of tests/programs.py"


def test_every_package_is_installed_by_bootstrap() -> None:
    assert not set(PACKAGES.values()) - installed_by_bootstrap() - ESSENTIAL


PLANTED = {
    "a call": 'host.run("frobnicate", "-c1")',
    "a list": 'subprocess.run(["frobnicate", "x"])',
    "a list with options": 'command = ["frobnicate", "-n", *more]',
    "in a namespace": 'run("ip", "netns", "exec", name, "frobnicate")',
    "behind a wrapper": 'attempt("nsenter", "--net=x", "--", "frobnicate", "-x")',
    "a script": 'run("sh", "-c", "true && frobnicate x")',
    "a script of its own name": 'SCRIPT = """set -e\n  frobnicate\n"""\nrun(*apart, "sh", "-euc", SCRIPT)',
}


@pytest.mark.parametrize("source", PLANTED.values(), ids=PLANTED)
def test_an_unknown_program_is_found(source: str) -> None:
    assert "frobnicate" in {word for _, word in called(source)}


@pytest.mark.parametrize(
    "line", ["frobnicate", "a=1 frobnicate x", 'x=$(frobnicate "$1")', "true | frobnicate", "if ! frobnicate"]
)
def test_an_unknown_program_of_a_script_is_found(line: str) -> None:
    assert "frobnicate" in {word for _, word in called_by_shell(f"#!/bin/sh\n# a word\n{line}\n")}
