"""The two machines of docs/first-host.md: a laptop behind NAT, and a host with sshd, each with files of its own.

They are the lab's namespaces (nat_lab.py) with mount namespaces, so that /etc, /run, /root and /var/lib are their own.
No systemd runs in the host: `doorward init` starts doorwardd manually there, and the timer of the dead man's switch is
a process (process_timer.py). Everything else is what people get.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from system.nat_lab import CARRIER, HOST, lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

TESTS: Final = Path(__file__).parents[1]
_OWN: Final = """\
set -e
own="$1"; name="$2"; address="$3"; shift 3
mount -t tmpfs own "$own"
for folder in /etc /var/lib; do
    mkdir -p "$own$folder/upper" "$own$folder/work"
    mount -t overlay -o "lowerdir=$folder,upperdir=$own$folder/upper,workdir=$own$folder/work" own "$folder"
done
for place in "$@"; do  # what runs, where it lies in /root itself
    mkdir -p "$own/kept$place"
    mount --bind "$place" "$own/kept$place"
done
mount -t tmpfs -o mode=700 own /root
for place in "$@"; do
    mkdir -p "$place"
    mount --bind "$own/kept$place" "$place"
done
mount -t tmpfs own /run
mkdir -p /run/sshd /root/.ssh
echo "$address web1" >> /etc/hosts
hostname "$name"
echo ready
exec sleep 3600
"""
_LAUNCHER: Final = """\
#!{python}
import functools, sys
from pathlib import Path
sys.path[:0] = [{daemon!r}, {tests!r}]
from doorward import console
from doorward.host import commands, here
from system.process_timer import ProcessTimer
commands.Host = functools.partial(here.Host, timer=ProcessTimer(Path("/run")))
sys.exit(console.main())
"""
_DAEMON: Final = """\
#!{python}
import sys
sys.path[:0] = [{daemon!r}]
from doorward.daemon import main
sys.exit(main())
"""


@dataclass
class Machine:
    """A network namespace, and the process whose other namespaces belong to it."""

    ns: Namespace
    keeper: int
    programs: Path

    def words(self, command: str) -> list[str]:
        """The command line that gives a command to the shell of this machine."""
        path = f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["nsenter", "-t", str(self.keeper), "-m", "-u", "-n", "--", "env", "-i", f"PATH={path}", "HOME=/root"]
        return [*inside, "LOGNAME=root", "bash", "-c", f"cd && {command}"]

    def run(self, command: str, told: str = "") -> str:
        """All that a command prints."""
        done = subprocess.run(
            self.words(command), input=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        return done.stdout


@contextlib.contextmanager
def _machine(ns: Namespace, folder: Path, name: str) -> Iterator[Machine]:
    programs, own = folder / name, folder / f"{name}.own"
    for made in (programs, own):
        made.mkdir()
    for program, text in (("doorward", _LAUNCHER), ("doorwardd", _DAEMON)):
        launcher = programs / program
        launcher.write_text(text.format(python=sys.executable, daemon=str(TESTS.parent / "daemon"), tests=str(TESTS)))
        launcher.chmod(0o755)
    shell = ("unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", _OWN, "sh", str(own), name, HOST)
    kept = [str(place) for place in (TESTS.parent, Path(sys.base_prefix)) if place.is_relative_to("/root")]
    with ns.process(*shell, *kept) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield Machine(ns, process.pid, programs)


@contextlib.contextmanager
def machines(folder: Path) -> Iterator[tuple[Machine, Machine]]:
    """Yield the host `web1` and the laptop. sshd of the lab enters the host's namespaces for every session."""
    with lab(folder) as (made, _), contextlib.ExitStack() as stack:
        made.host.run("ip", "route", "add", "default", "via", CARRIER)
        host = stack.enter_context(_machine(made.host, folder, "web1"))
        laptop = stack.enter_context(_machine(made.client, folder, "laptop"))
        key = (folder / "client_key.pub").read_text()
        enter = " ".join(host.words("")[:-3])
        (folder / "authorized_keys").write_text(
            f'command="SSH_WAS=$SSH_CONNECTION; {enter} SSH_CONNECTION=\\"$SSH_WAS\\" bash -c \\"cd && '
            f'$SSH_ORIGINAL_COMMAND\\"" {key}'
        )
        config = (
            f"Host web1\\n    User root\\n    IdentityFile {folder}/client_key\\n    BatchMode yes\\n"
            f"    HostKeyAlias {HOST}\\n    UserKnownHostsFile {folder}/known\\n"
        )
        laptop.run(f"umask 077; printf '{config}' > ~/.ssh/config")
        try:
            yield host, laptop
        finally:
            host.run("doorwardd -K")
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                timer = host.run("cat /run/timer.pid 2>/dev/null").strip()
                if timer.isdigit():
                    os.kill(int(timer), 15)
