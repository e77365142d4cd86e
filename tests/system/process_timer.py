"""A timer for the dead man's switch where no systemd runs: a real process that outlives the one that armed it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Like the service of systemd, it runs the command again until it succeeds.
_WAIT = """
import subprocess, sys, time
time.sleep(float(sys.argv[1]))
while subprocess.run(sys.argv[2:]).returncode:
    time.sleep(0.1)
"""


@dataclass(frozen=True)
class ProcessTimer:
    """See deadman.Timer; `folder` keeps the process id."""

    folder: Path

    @property
    def _file(self) -> Path:
        return self.folder / "timer.pid"

    def arm(self, seconds: float, command: Sequence[str]) -> None:
        """Start the process that waits."""
        waiting = subprocess.Popen(
            ["setsid", "--fork", "sh", "-c", 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec "$@"', str(self._file),
             sys.executable, "-c", _WAIT, str(seconds), *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        waiting.wait(10)
        while not self._file.exists():
            pass

    def disarm(self) -> None:
        """End the process that waits, if it still does."""
        if self._file.exists():
            process = int(self._file.read_text())
            self._file.unlink()
            if self.alive(process):
                os.kill(process, signal.SIGTERM)

    def armed(self) -> bool:
        """Return whether the process still waits."""
        return self._file.exists() and self.alive(int(self._file.read_text()))

    @staticmethod
    def alive(process: int) -> bool:
        """Return whether a process id is one of ours and no zombie."""
        try:
            with open(f"/proc/{process}/cmdline", "rb") as stream:  # noqa: PTH123  a file of the kernel's
                return _WAIT.encode() in stream.read()
        except OSError:
            return False
