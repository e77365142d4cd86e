"""How ssh would reach a host: what `ssh -G` says of ssh_config."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.client import getopt
from doorward.client.options import CONNECT
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

_SECONDS: Final = 10
_NONE: Final = "none"


class SshSettings(NamedTuple):
    """The host and port that ssh connects to, and through what."""

    host: str
    port: int
    jump: str = ""
    proxy: str = ""  # the command, as ssh_config has it

    @property
    def said(self) -> SimpleNamespace | None:
        """The command line of the `doorward connect` that is the proxy; None where it is something else.

        Raises:
            UsageError: it takes no such options.
        """
        try:
            words = shlex.split(self.proxy)
        except ValueError:
            return None
        for place, word in enumerate(words[:-1]):
            if word.rpartition("/")[2].startswith("doorward") and words[place + 1] == "connect":
                return getopt.parse(CONNECT, [self._expanded(each) for each in words[place + 2 :]])
        return None

    def _expanded(self, word: str) -> str:
        for token, text in (("%h", self.host), ("%p", str(self.port))):
            word = word.replace(token, text)
        return word.replace("%%", "%")


def ask(host: str, config: Path | None = None) -> SshSettings:
    """The settings for a host, of the user's ssh_config or another; a `Match exec` there is run, as ssh runs it.

    Raises:
        ClientError: ssh does not say.
    """
    program = shutil.which("ssh")
    if program is None:
        msg = "there is no ssh here"
        raise ClientError(msg)
    command = [program, "-G", *(["-F", str(config)] if config is not None else []), host]
    try:
        done = subprocess.run(  # noqa: S603  a list without a shell; the host was checked and begins with no dash
            command, capture_output=True, text=True, check=False, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        msg = f"ssh -G {host}: {getattr(error, 'strerror', None) or error}"
        raise ClientError(msg) from error
    if done.returncode:
        msg = f"ssh -G {host}: {' '.join(done.stderr.split())[:200]}"
        raise ClientError(msg)
    return read(done.stdout)


def read(text: str) -> SshSettings:
    """The settings in what `ssh -G` prints."""
    found = dict(line.split(" ", 1) for line in reversed(text.splitlines()) if " " in line)
    jump, proxy = (found.get(name, _NONE) for name in ("proxyjump", "proxycommand"))
    port = found.get("port", "")
    return SshSettings(
        found.get("hostname", ""),
        int(port) if port.isdecimal() else 22,
        "" if jump == _NONE else jump,
        "" if proxy == _NONE else proxy,
    )
