"""A real sshd in a network namespace, with a configuration of its own."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace


@contextlib.contextmanager
def sshd(ns: Namespace, folder: Path, *ports: int) -> Iterator[subprocess.Popen[str]]:
    """Run sshd on these ports, all addresses; nobody can log in."""
    key, settings = folder / "ssh_host_key", folder / "sshd_config"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    lines = [f"Port {port}" for port in ports]
    settings.write_text("\n".join([*lines, f"HostKey {key}", "UsePAM no", f"PidFile {folder}/sshd.pid", ""]))
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own chroot for its unprivileged part
    command = ("/usr/sbin/sshd", "-D", "-e", "-f", str(settings))
    with ns.process(*command, stderr=subprocess.DEVNULL) as server:
        end = time.monotonic() + 30
        while len(_listening(ns)) < len(ports):
            assert time.monotonic() < end, "sshd does not listen"
            time.sleep(0.02)
        yield server


def _listening(ns: Namespace) -> set[str]:
    rows = ns.run("cat", "/proc/net/tcp").stdout.splitlines()[1:]
    return {row.split()[1] for row in rows if row.split()[3] == "0A"}
