"""The programs that tests run are there, of the packages that bootstrap installs, and a missing one is named."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import programs
from programs import PACKAGES, MissingProgramError
from system import netns

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_every_program_is_there() -> None:
    for program in PACKAGES:
        programs.require(program)


def test_every_program_is_of_the_package_that_the_table_names() -> None:
    shown = ["dpkg-query", "-W", "-f", "${Package} ${Depends}\n", *set(PACKAGES.values())]
    lines = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.splitlines()
    providers = {line.partition(" ")[0]: set(re.findall(r"[a-z0-9.+-]+", line)) for line in lines}
    owned = owners()
    assert not [name for name, package in PACKAGES.items() if not owned[name] & providers[package]]


def owners() -> dict[str, set[str]]:
    """The packages that each program's file belongs to, under each of its names."""
    names = {name: {*_spellings(name)} for name in PACKAGES}
    command = ["dpkg-query", "-S", *set().union(*names.values())]
    lines = subprocess.run(command, check=False, capture_output=True, text=True).stdout.splitlines()
    owner = {path: package for package, _, path in (line.partition(": ") for line in lines)}
    return {name: {owner[path] for path in paths if path in owner} for name, paths in names.items()}


def _spellings(program: str) -> Iterator[str]:
    for path in (Path("/usr/bin", program), Path("/usr/sbin", program)):
        for place in (path, path.resolve()) if path.exists() else ():
            yield from (str(place), str(place).removeprefix("/usr"))


def test_a_missing_program_is_an_error_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "frobnicate", "frobnicate-tools")
    namespace = netns.Namespace("none", 1)
    with pytest.raises(MissingProgramError, match="frobnicate is not installed: apt-get install frobnicate-tools"):
        namespace.run("frobnicate", "-c1", check=False)
    with pytest.raises(MissingProgramError, match=r"tests/programs\.py does not know it"):
        programs.require_all(["ip", "netns", "exec", "host", "nobody-knows-this"])
    programs.require_all(["ip", "netns", "exec", "host", "sh", "-c", "true"])
