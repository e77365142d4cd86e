"""Starting doorwardd for the first time: by systemd, with a unit where there is none, or manually."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import doorward
from doorward.errors import FirewallError
from doorward.firewall import tools
from doorward.host.running import holder
from doorward.linux.files import create

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doorward.config.settings import DaemonSettings

NAME: Final = "doorwardd.service"
FOLDER: Final = Path("/etc/systemd/system")
_SECONDS: Final = 60.0
UNIT: Final = """\
# Written by `doorward init`, because there was no {name}.
[Unit]
Description=doorwardd, decides who may come in
# After a reboot sshd starts once its port is closed. With the default dependencies ssh.socket would be in a circle.
DefaultDependencies=no
Requires=sysinit.target
After=sysinit.target
Conflicts=shutdown.target
Before=shutdown.target ssh.service sshd.service ssh.socket

[Service]
Type=notify
NotifyAccess=all
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


class Service(Protocol):
    """Starts doorwardd, and takes the start back."""

    def start(self, undo: Callable[[str, Callable[[], object]], object]) -> str:
        """Start it and say how; `undo` takes what takes each step back, with a word for it.

        Raises:
            FirewallError: it does not start.
        """

    def reload(self) -> None:
        """Have it read its files again.

        Raises:
            FirewallError: it cannot be told to.
        """


class Systemd:
    """By a unit that starts at boot."""

    def __init__(self, options: Sequence[str], folder: Path = FOLDER) -> None:
        """Use `options` of doorwardd in a new unit, which goes into `folder`."""
        self._options, self._folder = options, folder

    def start(self, undo: Callable[[str, Callable[[], object]], object]) -> str:
        """See Service. A unit that exists is used as it is."""
        written = ""
        if not _knows(NAME):
            file = self._folder / NAME
            create(file, UNIT.format(name=NAME, command=_quoted([*command(), "-f", *self._options])).encode())
            file.chmod(0o644)
            undo(f"{file} is removed", lambda: _remove_unit(file))
            written = f"{file} is written, and "
            tools.run(["systemctl", "daemon-reload"], _SECONDS)
        undo(f"{NAME} is stopped", lambda: tools.run(["systemctl", "disable", "--now", NAME], _SECONDS))
        tools.run(["systemctl", "enable", "--now", NAME], _SECONDS)
        return f"{written}{NAME} runs, now and after a reboot"

    def reload(self) -> None:
        """See Service."""
        tools.run(["systemctl", "reload", NAME], _SECONDS)


class Manual:
    """By its own command line, where no systemd runs."""

    def __init__(self, options: Sequence[str], settings: Callable[[], DaemonSettings]) -> None:
        """Use these options; `settings` name the PID file."""
        self._options, self._settings = options, settings

    def start(self, undo: Callable[[str, Callable[[], object]], object]) -> str:
        """See Service."""
        undo("doorwardd is stopped", lambda: end(self._settings()))
        tools.run([*command(), *self._options], _SECONDS)
        return "doorwardd runs until the next boot: no systemd is here to start it then"

    def reload(self) -> None:
        """See Service."""
        process = holder(self._settings().pid_file)
        if process is not None:
            os.kill(process, signal.SIGHUP)


def command() -> list[str]:
    """The words that start doorwardd as this program was started: from the archive, a script or the package."""
    archive = Path(doorward.__file__).parents[1]
    if archive.is_file():
        return [sys.executable, "-I", str(archive), "doorwardd"]
    script = shutil.which("doorwardd", path=f"{Path(sys.argv[0]).resolve().parent}:{tools.PATH}")
    return [script] if script else [sys.executable, "-c", _START.format(str(archive))]


_START: Final = "import sys; sys.path.insert(0, {!r}); from doorward.daemon import main; sys.exit(main())"


def end(settings: DaemonSettings) -> None:
    """End the running daemon, and wait for it.

    Raises:
        FirewallError: it does not end.
    """
    process, until = holder(settings.pid_file), time.monotonic() + _SECONDS
    if process is not None:
        os.kill(process, signal.SIGTERM)
    while holder(settings.pid_file) is not None:
        if time.monotonic() > until:
            msg = f"doorwardd, PID {process}, does not end"
            raise FirewallError(msg)
        time.sleep(0.05)


def _knows(unit: str) -> bool:
    try:
        tools.run(["systemctl", "cat", unit], _SECONDS)
    except FirewallError:
        return False
    return True


def _remove_unit(file: Path) -> None:
    file.unlink()
    tools.run(["systemctl", "daemon-reload"], _SECONDS)


def _quoted(words: Sequence[str]) -> str:
    """A command line of a unit (systemd.service(5))."""
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") for word in words)
    return " ".join(f'"{word}"' if " " in word or ";" in word else word for word in escaped)
