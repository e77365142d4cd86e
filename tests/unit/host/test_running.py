"""The PID file: a lock that nobody but root can take."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from doorward.errors import DoorwardError
from doorward.host.running import PidFile, holder

NOBODY = 65534


def _locker(file: Path) -> subprocess.Popen[str]:
    """Return a process of another user that takes the lock of `file` as soon as it can, and keeps it."""
    argv = ["flock", str(file), "sh", "-c", "echo locked; cat"]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, user=NOBODY, group=NOBODY, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("left_over", [False, True])
def test_another_user_cannot_keep_the_daemon_from_starting_again(left_over: bool) -> None:  # noqa: FBT001  a parameter of a test
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # pytest's own folder is root's alone
        Path(folder).chmod(0o755)
        path = Path(folder, "doorwardd.pid")
        if left_over:
            path.touch()
            path.chmod(0o644)
        before = os.umask(0o022)
        first = PidFile(path)
        os.umask(before)
        assert holder(path) == os.getpid()
        with _locker(path) as other:
            said, complaint = other.communicate("", timeout=20)
        assert (said, "Permission denied" in complaint) == ("", True)
        first.close()
        PidFile(path).close()


def test_whoever_could_open_the_pid_file_would_keep_the_daemon_from_starting() -> None:
    """What the test above shows the absence of can be seen."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "doorwardd.pid")
        first = PidFile(path)
        path.chmod(0o644)
        with _locker(path) as other:
            assert other.stdout is not None
            first.close()
            assert other.stdout.readline() == "locked\n"
            with pytest.raises(DoorwardError, match="running already"):
                PidFile(path)
            other.communicate("", timeout=20)
