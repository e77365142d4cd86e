"""Packages and Pythons in the versions that tests ask for; what is fetched stays in build/versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
KEPT: Final = REPOSITORY / "build/versions"


def package(name: str, version: str) -> Path:
    """Return a folder with one version of a package, and nothing that it needs."""
    folder = KEPT / f"{name}-{version}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        wheel = ("--no-deps", "--only-binary=:all:", f"{name}=={version}")
        pip(Path(sys.executable), "--target", str(folder), *wheel)
        (folder / "complete").touch()
    return folder


def python(minor: int) -> Path | None:
    """Return the interpreter 3.MINOR of this machine that can make environments; None where there is none."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    system = Path(f"/usr/bin/python3.{minor}")
    places = [*sorted(root.glob(f"versions/3.{minor}.*/bin/python")), system]
    able = (place for place in places if place.exists() and _can_make_environments(place))
    return next(able, None)


def _can_make_environments(python: Path) -> bool:
    return not subprocess.run([python, "-c", "import venv, ensurepip"], check=False, capture_output=True).returncode


def made(name: str, interpreter: Path, *requirements: str) -> Path:
    """Return the folder of an environment with these requirements, made where it is missing."""
    folder = KEPT / name
    stamp = folder / "complete"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", folder], check=True, capture_output=True)
        pip(folder / "bin/python", *requirements)
        stamp.touch()
    return folder


def pip(python: Path, *arguments: str) -> None:
    """Install packages for an interpreter."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
