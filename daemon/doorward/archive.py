"""The package as one file for `python3 -I`: the role installs it, and the collection's plugins call it.

Run as `python3 -m doorward.archive OUT`. The same sources make the same bytes, on every machine and at any time.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip file can say
_MAIN: Final = b"from doorward.__main__ import end, main\n\nend(main())\n"


def build(out: Path) -> str:
    """Write the archive to `out` in one step; return its SHA-256 in hex."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(draft, "w") as archive:
            for name, content in _members():
                _add(archive, name, content)
        draft.chmod(0o644)
        digest = hashlib.sha256(draft.read_bytes()).hexdigest()
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return digest


def _members() -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", _MAIN
    package = Path(__file__).parent
    for source in sorted(package.rglob("*.py")):
        yield f"doorward/{source.relative_to(package).as_posix()}", source.read_bytes()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.external_attr = 0o644 << 16
    member.create_system = 3  # Unix, on every build machine
    archive.writestr(member, content, zipfile.ZIP_STORED)  # stored: zlib's versions compress differently


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))  # noqa: T201  the digest is the command's output
