"""podman with a storage of its own, so that neither its images nor its settings touch the machine's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from lab.plan import RUN, STORE
from lab.run import LabError, attempt

if TYPE_CHECKING:
    import subprocess

# runc: crun of Debian 12 refuses the hybrid cgroups of some machines. cgroupfs: the machine may run no systemd.
SETTINGS = """[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"

[containers]
log_driver = "k8s-file"
"""


@cache
def _prefix() -> tuple[str, ...]:
    STORE.mkdir(parents=True, exist_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    settings = RUN / "containers.conf"
    settings.write_text(SETTINGS, encoding="utf-8")
    return (
        "env",
        f"CONTAINERS_CONF={settings}",
        "podman",
        f"--root={STORE / 'storage'}",
        f"--runroot={RUN / 'storage'}",
        f"--tmpdir={RUN / 'libpod'}",
        f"--storage-driver={_driver()}",
    )


def _driver() -> str:
    """``overlay`` where the kernel can stack the store, ``vfs`` (slow and large) where it lies on an overlay itself."""
    kind = attempt("stat", "--file-system", "--format=%T", str(STORE)).stdout.strip()
    return "vfs" if kind in ("overlayfs", "tmpfs") else "overlay"


def words(*arguments: str) -> list[str]:
    """The command line of a podman command, for those who run it themselves."""
    return [*_prefix(), *arguments]


def podman_try(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """The result of a podman command that may fail."""
    return attempt(*_prefix(), *arguments, stdin=stdin)


def podman(*arguments: str, stdin: str | None = None) -> str:
    """What a podman command printed.

    Raises:
        LabError: podman failed.
    """
    result = podman_try(*arguments, stdin=stdin)
    if result.returncode != 0:
        text = f"podman {' '.join(arguments)}\n  ended with {result.returncode}: {result.stderr.strip()[-2000:]}"
        raise LabError(text)
    return result.stdout
