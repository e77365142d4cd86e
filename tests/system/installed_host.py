"""A hidden host with doorward where the role installs it, which a controller with Ansible enters by knocks.

The host has folders of its own over those of this machine: /etc, /run, /usr/bin, /usr/sbin, /usr/lib and /var/lib. Its
sshd, doorwardd, packet filter and dead man's switch are real; in the place of systemd it has service_manager.py.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward import archive
from doorward.replay import ReplayStore
from system import ansible_site, doorwardd, netns, service_manager
from system.ansible_site import PYTHON, Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME: Final = "web"
_HOME: Final = Path("etc/doorward")
_FOLDERS: Final = "etc usr/bin usr/sbin usr/lib var/lib"
# Over this machine's folders, in a mount namespace: what the host changes lies in $1/rooms.
_OVER: Final = f"""
set -e
folder=$1
shift
mkdir "$folder/rooms"
mount -t tmpfs none "$folder/rooms"
for each in {_FOLDERS}; do
    room="$folder/rooms/$each"
    mkdir -p "$room/up" "$room/work"
    [ ! -e "$folder/root/$each" ] || cp -a "$folder/root/$each/." "$room/up"
    mount -t overlay none -o "lowerdir=/$each,upperdir=$room/up,workdir=$room/work" "/$each"
done
mount -t tmpfs none /run
mkdir -p /run/sshd /run/systemd/system /run/doorward
/usr/sbin/sshd -D -e -f "$folder/sshd_config" 2>"$folder/sshd.log" &
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """The host, by the process that has its mount namespace, and the controller's site."""

    site: Site
    process: int

    def run(self, *argv: str) -> str:
        """What a command prints that root runs on the host."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.process), "-m", "-n", *argv],
            check=True, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/sbin:/usr/bin"},
        )  # fmt: skip
        return done.stdout

    def files(self) -> dict[str, tuple[str, str]]:
        """Mode and content of every file of the configuration, but for the switch's own."""
        names = self.run("find", f"/{_HOME}", "-type", "f", "-not", "-path", "*/change/*").split()
        return {name: (self.run("stat", "-c", "%a %U", name).strip(), self.run("cat", name)) for name in sorted(names)}

    def verdicts(self) -> list[str]:
        """The daemon's line of each knock so far."""
        log = (self.site.folder / "daemon.log").read_text()
        return [line for line in log.splitlines() if line.startswith("verdict=")]

    def task(self, module: str, *options: str, **arguments: object) -> str:
        """What a play with one task prints, run at the controller."""
        return self.play([{f"doorward.spa.{module}": arguments}], *options)

    def play(self, tasks: Sequence[object], *options: str) -> str:
        """What a play at the controller prints; a machine of any speed has the time to confirm."""
        slow = {f"doorward.spa.{module}": {"deadline": 600} for module in ("access", "change", "revoke")}
        play = {"hosts": NAME, "gather_facts": False, "module_defaults": slow, "tasks": list(tasks)}
        shared = f"-F {self.site.folder}/ssh_config -o ControlMaster=auto -o ControlPersist=20s"
        host = {"ansible_host": self.site.one.ipv4, "doorward_python": PYTHON, "ansible_ssh_args": shared}
        host |= {"ansible_python_interpreter": "/usr/bin/python3"}
        return self.site.play({NAME: host}, [play], *options)


@contextlib.contextmanager
def installed(access: str, more: dict[str, str] | None = None, config: str = "") -> Iterator[Installed]:
    """Yield a host with these stanzas, {own} standing for the controller's public key, and further files."""
    with (
        tempfile.TemporaryDirectory(prefix="dw-") as made,
        netns.network("host", "controller") as (host, controller),
    ):
        folder = Path(made)
        site = Site(host, host, host, controller, folder)
        ansible_site.ssh_files(site)
        own = ansible_site.own_pair(site)
        _install(folder / "root", {"access.conf": access, "doorwardd.conf": config, **(more or {})}, own)
        key = str(folder / "root" / _HOME / "host.key")
        site.pairs["one"] = ansible_site.printed(*doorwardd.command("keys", "generate", "--file", key))
        site.know(NAME, "one", "doorward1")
        _systemd(folder)
        manager = [PYTHON, service_manager.__file__, made, "/usr/sbin/doorwardd", "-f"]
        command = ["unshare", "-m", "sh", "-c", _OVER, "sh", made, *manager]
        with (folder / "manager.log").open("w") as log, host.process(*command, stdout=log, stderr=log) as process:
            try:
                assert doorwardd.eventually((folder / "serves").exists), _said(folder)
                yield Installed(site, process.pid)
            finally:
                _end(process.pid)


def _install(root: Path, files: dict[str, str], own: str) -> None:
    """Write what the role writes."""
    for name, text in files.items():
        path = root / _HOME / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        doorwardd.write(path, text.replace("{own}", own))
    (root / "usr/lib/doorward").mkdir(parents=True)
    (root / "var/cache/doorward").mkdir(parents=True)
    archive.build(root / "usr/lib/doorward/doorward.pyz")
    store = root / "var/lib/doorward"
    store.mkdir(parents=True)
    ReplayStore(store / "replay.db").close()  # of a daemon that has run for long
    for name, words in (("bin/doorward", ""), ("sbin/doorwardd", "doorwardd ")):
        (root / "usr" / name).parent.mkdir(parents=True, exist_ok=True)
        text = f'#!/bin/sh\nexec {PYTHON} -I /usr/lib/doorward/doorward.pyz {words}"$@"\n'
        doorwardd.write(root / "usr" / name, text, 0o755)


def _systemd(folder: Path) -> None:
    """Put programs of systemd's names where the host has its own."""
    for name in ("systemctl", "systemd-run"):
        text = f'#!/bin/sh\nexec {PYTHON} -I {folder}/client.py {folder}/manager {name} "$@"\n'
        doorwardd.write(folder / "root/usr/bin" / name, text, 0o755)
    doorwardd.write(folder / "client.py", service_manager.CLIENT)


def _said(folder: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(folder.glob("*.log")))


def _end(process: int) -> None:
    """End sshd and what else runs in the host's mount namespace."""
    with contextlib.suppress(OSError):
        space = Path(f"/proc/{process}/ns/mnt").readlink()
        for each in Path("/proc").glob("[0-9]*/ns/mnt"):
            with contextlib.suppress(OSError):
                if each.readlink() == space and int(each.parts[2]) != process:
                    os.kill(int(each.parts[2]), 15)
