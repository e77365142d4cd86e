"""The oldest and the newest of what doorward runs on: cryptography, python-gnupg, and Python where it is installed.

What is fetched stays in build/versions, so only the first run needs a package index. Other Pythons than the present one
are taken where pyenv or the system has them; where there are none, the present one runs with the declared packages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from versions.environments import KEPT, REPOSITORY, package, pip, python

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = REPOSITORY / "requirements-dev.lock"
DECLARED = ("cryptography", "python-gnupg", "dnspython", "segno")
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "prometheus_client", "scapy")
OLDEST = "3.4"
DEBIAN_12 = "38.0.4"
# Of Ubuntu 22.04, which uses what Python has deprecated since, and of Debian 12.
PYTHON_GNUPG = {"0.4.8": ("-W", "ignore:setDaemon:DeprecationWarning"), "0.4.9": ()}
MINORS = (10, 13)  # the oldest, and the newest that this machine may have; what fails in between fails on one of them
# The collection needs ansible-core, whose releases choose their Pythons.
UNIT = ("tests/unit", "tests/vectors", "--ignore=tests/unit/collection")
OPENPGP = ("tests/system/test_client_gnupg.py",)
CRYPTO = ("tests/vectors", "tests/unit/crypto/test_symmetric.py")


def newest() -> str:
    """Return the version of cryptography that development uses."""
    found = re.search(r"^cryptography==(\S+)$", LOCK.read_text(), re.MULTILINE)
    assert found
    return found[1]


def pythons() -> dict[str, Path]:
    """Return the other interpreters of this machine by their version, one of each minor version."""
    here = sys.version_info.minor
    found = {f"3.{minor}": python(minor) for minor in MINORS if minor != here}
    there = {version: path for version, path in found.items() if path}
    # The present one has run them all already; alone on its machine it does so once more, with less around it.
    return there or {f"3.{here}": Path(sys.executable)}


def environment(version: str, python: Path) -> Path:
    """Return the interpreter of an environment with what doorward declares and what its tests need."""
    folder = KEPT / f"python-{version}"
    stamp, content = folder / "complete.lock", LOCK.read_bytes() + " ".join((*DECLARED, *TOOLS)).encode()
    if not stamp.exists() or stamp.read_bytes() != content:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
        # The lock is made on 3.11, and some of what it names has left 3.10 behind.
        locked = () if version == "3.10" else ("--constraint", str(LOCK))
        pip(folder / "bin/python", *locked, *DECLARED, *TOOLS)
        stamp.write_bytes(content)
    return folder / "bin/python"


def run(python: Path, *arguments: str, first: Path | None = None) -> str:
    """Return what a run of Python prints, every warning an error; packages in `first` come before all others."""
    places = [*([first] if first else []), REPOSITORY / "daemon", REPOSITORY / "tests"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    variables["DOORWARD_PROPERTIES"] = "short"  # another version goes wrong at once, or not at all
    done = subprocess.run(
        [str(python), "-W", "error", *arguments],
        cwd=REPOSITORY,
        env=variables,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    return done.stdout


def passed(output: str) -> int:
    """Return the number of tests that passed; fails where anything else happened."""
    found = re.search(r"^(\d+) passed in ", output, re.MULTILINE)
    assert found, output[-2000:]
    return int(found[1])


@pytest.mark.parametrize("version", [OLDEST, DEBIAN_12, newest()])
def test_every_recorded_packet_passes_without_a_warning_on_this_cryptography(version: str) -> None:
    folder = package("cryptography", version)
    said = run(Path(sys.executable), "-c", "import cryptography as c; print(c.__version__, c.__file__)", first=folder)
    assert said.split() == [version, str(folder / "cryptography/__init__.py")]
    assert passed(run(Path(sys.executable), "-m", "pytest", "-q", *CRYPTO, first=folder)) > 100


@pytest.mark.parametrize("version", PYTHON_GNUPG)
def test_gnupg_packets_are_made_and_read_with_this_python_gnupg(version: str) -> None:
    folder = package("python-gnupg", version)
    said = run(Path(sys.executable), "-c", "import gnupg as g; print(g.__version__, g.__file__)", first=folder)
    assert said.split() == [version, str(folder / "gnupg.py")]
    bearing = PYTHON_GNUPG[version]
    assert passed(run(Path(sys.executable), "-m", "pytest", "-q", *bearing, *OPENPGP, first=folder)) > 5


@pytest.fixture(scope="module")
def unit_tests() -> Iterator[dict[str, Future[int]]]:
    """The runs of the unit tests, a Python each, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {version: pool.submit(run_unit_tests, version, python) for version, python in pythons().items()}


def run_unit_tests(version: str, python: Path) -> int:
    """Return how many unit tests passed on a Python."""
    made = environment(version, python)
    assert run(made, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip() == version
    return passed(run(made, "-m", "pytest", "-q", *UNIT))


@pytest.mark.timeout(1500)  # at the lowest priority, beside all other suites on two cores
@pytest.mark.parametrize("version", list(pythons()))
def test_every_unit_test_passes_on_this_python_with_the_declared_packages_alone(
    version: str, unit_tests: dict[str, Future[int]]
) -> None:
    assert unit_tests[version].result() > 1000


def test_a_warning_would_have_been_seen() -> None:
    """The newest cryptography warns where CFB is taken from its old place, or has it there no more."""
    folder = package("cryptography", newest())
    with pytest.raises(AssertionError, match=r"CFB has been moved|cannot import name 'CFB'|no attribute 'CFB'"):
        run(
            Path(sys.executable),
            "-c",
            "from cryptography.hazmat.primitives.ciphers.modes import CFB",
            first=folder,
        )


def test_the_clients_tests_pass_where_no_name_of_linux_alone_is_there() -> None:
    words = ("tests/other_systems.py", "darwin", "pytest", "-q", "tests/unit/client", "tests/unit/crypto")
    output = run(Path(sys.executable), *words)
    found = re.search(r"^(\d+) passed, 3 skipped in ", output, re.MULTILINE)  # skipped: what only a host has
    assert found, output[-2000:]
    assert int(found[1]) > 1000
