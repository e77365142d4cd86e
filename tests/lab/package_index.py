"""The index of a folder of Debian packages, so that apt can install from it without a network.

A lab host is bare: what the collection's roles install comes out of this folder, through apt, as on any host.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path


def entry(package: Path) -> str:
    """The index entry of one package file."""
    control = subprocess.run(["dpkg-deb", "--field", str(package)], capture_output=True, text=True, check=True).stdout
    content = package.read_bytes()
    return (
        f"{control.rstrip()}\nFilename: ./{package.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n\n"
    )


def write(folder: Path) -> None:
    """Write the file ``Packages`` into the folder."""
    packages = sorted(folder.glob("*.deb"))
    (folder / "Packages").write_text("".join(entry(package) for package in packages), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
