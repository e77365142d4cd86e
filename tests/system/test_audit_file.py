"""AUDIT_FILE on a real daemon: chained over restarts, and a change shows."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from system.doorwardd import ACCESS, doorwardd, environment, eventually, send
from system.test_daemon import knock

if TYPE_CHECKING:
    from pathlib import Path

    from system.netns import Namespace


def verify(*files: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "doorward", "audit", "verify", *map(str, files)]
    return subprocess.run(argv, check=False, capture_output=True, text=True, env=environment())


def test_the_lines_hang_together_over_restarts_and_a_change_is_found(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    file = tmp_path / "audit.log"
    for times in (1, 2):
        with doorwardd(host, tmp_path, ACCESS, f"AUDIT_FILE {file};\n") as daemon:
            send(client, b"A" * 200, host.ipv4)
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted")
        said = verify(file)
        assert (said.returncode, said.stdout.split(" hold")[0]) == (0, f"{3 * times} lines"), said
    text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(text.replace("reason=granted", "reason=replay", 1))
    changed = verify(file)
    assert (changed.returncode, changed.stderr) == (
        1,
        f"{file}:3: the line was changed, or a line before it was left out\n",
    )
    file.write_text(text[:-30])
    assert "carries no hash" in verify(file).stderr


def test_a_rotated_file_is_followed_by_one_that_says_what_it_follows(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    tmp_path.chmod(0o777)  # the listener opens the new file as its own user
    tmp_path.parent.chmod(0o755)
    tmp_path.parent.parent.chmod(0o755)
    file, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    with doorwardd(host, tmp_path, ACCESS, f"AUDIT_FILE {file};\n") as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert eventually(lambda: "granted" in file.read_text())
        file.rename(old)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted", count=2)
    assert verify(old, file).returncode == 0
    assert verify(file, old).returncode == 1
