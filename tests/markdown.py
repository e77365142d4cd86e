"""The Markdown files of the repository in their one form: wrapped at 100 columns, tables and code as they are.

``markdown.py`` writes it, ``markdown.py --check`` names the files that differ. mdformat does the work (.mdformat.toml).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MDFORMAT = Path(sys.executable).parent / "mdformat"


def files() -> list[str]:
    """The Markdown files that git knows, and those that it would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in set(filter(None, listed.split("\0"))) if (REPOSITORY / name).exists())


def formatted(text: str) -> str:
    """A document as `make format` would write it; the generators of documents use it."""
    command = [str(MDFORMAT), "-"]
    return subprocess.run(command, cwd=REPOSITORY, input=text, check=True, capture_output=True, text=True).stdout


def main(arguments: list[str]) -> int:
    """The exit code of mdformat: 1 where a file differs and only a check was asked for."""
    return subprocess.run([str(MDFORMAT), *arguments, *files()], cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
