"""A host and a client that know each other's public keys, for tests of the format doorward 1."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from system.doorwardd import command, environment, listener, write

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace


@dataclass(frozen=True, slots=True)
class Ends:
    """A host and a client that know each other's public keys; `folder` has the host's files, `home` the client's."""

    host: Namespace
    client: Namespace
    folder: Path
    home: Path
    host_line: str
    client_line: str
    sshd: socket.socket
    outsider: Namespace
    extra: dict[str, str] = field(default_factory=dict)  # variables of the environment, for both

    @property
    def config(self) -> str:
        return f"HOST_KEY_FILE {self.folder}/host.key\n"

    @property
    def access(self) -> str:
        return f"SOURCE ANY\nCLIENT {self.client_line}\nOPEN_PORTS tcp/22\nFW_ACCESS_TIMEOUT 3\n"

    @property
    def variables(self) -> dict[str, str]:
        return environment() | {"HOME": str(self.home), "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""} | self.extra

    def doorward(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "doorward", *words]
        done = self.client.run(*argv, check=False, env=self.variables)
        assert not check or done.returncode == 0, done.stderr
        return done

    def doorwardd(self, *words: str, check: bool = True, stdin: bytes = b"") -> str:
        argv = self.host.command(*command(*words))
        done = subprocess.run(argv, check=False, input=stdin, capture_output=True, env=environment(), timeout=60)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()


@contextlib.contextmanager
def acquainted(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> Iterator[Ends]:
    """Yield the ends, with a server on port 22 of the host."""
    host, client, outsider = trio
    folder, home = tmp_path / "host", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    with listener(host) as sshd:
        bare = Ends(host, client, folder, home, "", "", sshd, outsider)
        host_line = bare.doorwardd("keys", "generate", "--file", f"{folder}/host.key", "--comment", "web1")
        client_line = bare.doorward("keys", "generate", "--public", "--comment", "alice@laptop").stdout.strip()
        write(home / ".fwknoprc", f"[web1]\nSPA_SERVER {host.ipv4}\nHOST_KEY {host_line}\n")
        yield replace(bare, host_line=host_line, client_line=client_line)
