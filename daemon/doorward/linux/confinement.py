"""The kernel's security modules: which of AppArmor and SELinux is in force, and what it makes of a process.

Source: proc_pid_attr(5), selinux(8), apparmor(7).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

APPARMOR: Final = "AppArmor"
SELINUX: Final = "SELinux"
_ROOT: Final = Path("/")
_UNCONFINED: Final = "unconfined"


class Label(NamedTuple):
    """What a security module makes of a process: its profile or domain, and whether that forbids anything."""

    module: str
    name: str
    is_enforced: bool


def modules(root: Path = _ROOT) -> tuple[str, ...]:
    """The modules of both that are in force; a container is asked for those of its machine."""
    found = []
    if _text(root / "sys/module/apparmor/parameters/enabled") == "Y":
        found.append(APPARMOR)
    if (root / "sys/fs/selinux/enforce").exists():
        found.append(SELINUX)
    return tuple(found)


def labels(pid: int, root: Path = _ROOT) -> tuple[Label, ...]:
    """What the modules in force make of a process; none of a module that leaves it unconfined, or does not say."""
    read = {APPARMOR: _profile, SELINUX: _domain}
    found = (read[module](root, root / f"proc/{pid}/attr") for module in modules(root))
    return tuple(label for label in found if label is not None)


def _profile(_root: Path, folder: Path) -> Label | None:
    """A profile is `name (mode)`; kernels before 5.1 have no folder for it."""
    said = _text(folder / "apparmor/current") or _text(folder / "current")
    name, _, mode = said.partition(" (")
    return None if name in {"", _UNCONFINED} else Label(APPARMOR, name, mode == "enforce)")


def _domain(root: Path, folder: Path) -> Label | None:
    """A domain is the third field of user:role:type:level; those that the module does not bound are unconfined_…_t."""
    fields = _text(folder / "current").split(":")
    if len(fields) < 3 or fields[2].startswith(_UNCONFINED):  # noqa: PLR2004  user, role, type
        return None
    return Label(SELINUX, fields[2], _text(root / "sys/fs/selinux/enforce") == "1")


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace").strip("\n\0 ")
    except OSError:
        return ""
