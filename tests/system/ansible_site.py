"""Hosts in namespaces that only a knock opens, and a controller with Ansible: real sshd, real doorwardd, real ssh.

Each hidden host has a symmetric key and a key pair of its own, so a knock with another's is refused and seen.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from system import doorwardd, netns
from unit.collection_plugins import COLLECTION, COLLECTIONS, plugin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from system.doorwardd import Running
    from system.netns import Namespace

__all__ = ("COLLECTION", "PYTHON", "Site", "own_pair", "printed", "site", "ssh_files")
PACKAGE: Final = Path(__file__).resolve().parents[2] / "daemon"
PYTHON: Final = sys.executable
key_text = plugin("plugin_utils._key_text")


@dataclass(frozen=True, slots=True)
class Site:
    """One open host, two hidden ones and a controller; the keys of the hidden ones lie where the role puts them.

    `pairs` are the public keys of the hidden ones; `collected` those that are in the inventory, by its names.
    """

    one: Namespace
    two: Namespace
    outside: Namespace
    controller: Namespace
    folder: Path
    daemons: dict[str, Running] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    collected: dict[str, str] = field(default_factory=dict)

    @property
    def own_key(self) -> Path:
        """The controller's own pair."""
        return self.folder / "own.key"

    @property
    def keys(self) -> Path:
        """The folder of the controller's keys, a folder a host."""
        return self.folder / "keys"

    def hold_key(self, name: str, of: str) -> Path:
        """Put the key of a host where the lookup finds it for a name of the inventory."""
        file = self.keys / name / "controller.key"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return doorwardd.write(file, _key(of))

    def know(self, name: str, of: str, keys: str) -> Path:
        """Have a name of the inventory know a host's key of a format; return the file that a knock then takes."""
        if keys == "fwknop":
            return self.hold_key(name, of)
        self.collected[name] = self.pairs[of]
        return self.own_key

    def configure_ssh(self, text: str) -> None:
        """Write the controller's ssh_config; how to log in is at its end."""
        login = f"User root\nIdentityFile {self.folder}/client_key\nUserKnownHostsFile {self.folder}/known_hosts\n"
        doorwardd.write(self.folder / "ssh_config", f"{text}\nHost *\n{login}")

    def environment(self) -> dict[str, str]:
        """The controller's, with a home of its own; the sources stand for an archive where none was made."""
        return {
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPATH": str(PACKAGE),
            "PYTHONPYCACHEPREFIX": str(COLLECTIONS.parent / "build/bytecode"),  # nothing beside the sources
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_HOME": str(self.folder / "a"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }

    def play(self, hosts: Mapping[str, object], play: Sequence[object], *options: str, program: str = "") -> str:
        """Run a play at the controller and return all that it printed; every connection is a new one."""
        common = {
            "ansible_connection": "doorward.spa.ssh",
            "ansible_spa_key": "{{ lookup('doorward.spa.key') }}",
            "ansible_timeout": 4,
            "doorward_keys_dir": str(self.keys),
            "doorward_private_key_file": str(self.own_key),
            "ansible_ssh_args": f"-F {self.folder}/ssh_config -o ControlPath=none",
        }
        keys = {name: {"doorward_host_key": line} for name, line in self.collected.items()}
        known = {
            name: {**(found if isinstance(found, dict) else {}), **keys.get(name, {})} for name, found in hosts.items()
        }
        doorwardd.write(self.folder / "hosts.yml", yaml.safe_dump({"all": {"hosts": known, "vars": common}}))
        doorwardd.write(self.folder / "play.yml", yaml.safe_dump(list(play)))
        words = (program or str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts.yml", "play.yml")
        done = self.controller.run(
            *words, *options, check=False, env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL
        )
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def pre_shared(self, name: str, psk: str) -> Iterator[None]:
        """Have a host accept public keys with a pre-shared key alone, for a while."""
        file, daemon = self.folder / f"d-{name}/access.conf", self.daemons[name]
        before = file.read_text()

        def load(text: str) -> None:
            doorwardd.write(file, text)
            daemon.lines.clear()
            daemon.signal(signal.SIGHUP)
            daemon.wait_for("the configuration was read again")

        load(re.sub(r"^(CLIENT .*)$", rf"\1\nPSK_BASE64 {psk}", before, flags=re.MULTILINE))
        try:
            yield
        finally:
            load(before)

    def verdicts(self, name: str) -> list[str]:
        """Why each packet at a hidden host opened something or nothing, in their order."""
        return [line.partition("reason=")[2].split()[0] for line in self.daemons[name].verdicts]


def _key(of: str) -> str:
    text: str = key_text.render(of.encode().ljust(32, b"k"), of.encode().ljust(64, b"h"))
    return text


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Yield the hosts `one` and `two`, hidden, `outside`, open, and the controller."""
    with contextlib.ExitStack() as stack:
        # Short, since the path of ansible's sockets may have 107 characters; reachable for sshd's children.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dw-")))
        members = stack.enter_context(netns.network("one", "two", "outside", "controller"))
        one, two, outside, controller = members
        made = Site(one, two, outside, controller, folder)
        ssh_files(made)
        own = own_pair(made)
        for name in ("one", "two", "outside"):
            stack.enter_context(_sshd(getattr(made, name), folder))
        for name in ("one", "two"):
            home = folder / f"d-{name}"
            home.mkdir(mode=0o700)
            doorwardd.used_store(home)
            stanza = "SOURCE ANY\n{}OPEN_PORTS tcp/22, tcp/2222\nFW_ACCESS_TIMEOUT 2\nREQUIRE_SOURCE_ADDRESS Y\n"
            made.pairs[name] = printed(
                *doorwardd.command("keys", "generate", "--file", f"{home}/host.key", "--comment", name)
            )
            access = "".join(stanza.format(_key(each)) for each in (name, f"{name}-too"))
            access += stanza.format(f"CLIENT {own}\n")
            config = f"HOST_KEY_FILE {home}/host.key\n"
            made.daemons[name] = stack.enter_context(doorwardd.doorwardd(getattr(made, name), home, access, config))
        yield made


def printed(*command: str) -> str:
    """Return what a program of this checkout prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=doorwardd.environment(), timeout=60)
    return done.stdout.strip()


def own_pair(made: Site) -> str:
    """Make the controller's own pair, and return its public key."""
    generate = ("keys", "generate", "--public", "--comment", "controller", "--output", str(made.own_key))
    return printed(PYTHON, "-m", "doorward", *generate)


def ssh_files(made: Site) -> None:
    """Make the keys of sshd and ssh, and their settings."""
    folder = made.folder
    for name in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
    (folder / "known_hosts").write_text(f"* {(folder / 'host_key.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "Port 22\nPort 2222\nPermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own chroot for its unprivileged part
    made.configure_ssh("")


@contextlib.contextmanager
def _sshd(host: Namespace, folder: Path) -> Iterator[None]:
    log = folder / f"sshd-{host.number}.log"
    with log.open("w") as stream:
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
        with host.process(*command, stdout=stream, stderr=stream):
            assert doorwardd.eventually(lambda: "Server listening on ::" in log.read_text())
            yield
