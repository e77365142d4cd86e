"""What the preflight's script sees over a real ssh: the port of the connection, and the one that sshd has next."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from system.doorwardd import eventually
from system.netns import network
from unit.collection_plugins import plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

facts = plugin("plugin_utils._host_facts")

# sshd with the system's own file, which is this test's in its mount namespace: its title has no -f.
SSHD = 'mount --bind "$0" /etc/ssh/sshd_config && exec /usr/sbin/sshd -D -e'


def configure(folder: Path, *ports: int) -> None:
    """Write sshd's file in its place: it is mounted elsewhere too."""
    (folder / "sshd_config").write_text(
        "".join(f"Port {port}\n" for port in ports)
        + f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/client_key.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPidFile none\n"
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Namespace, Namespace, Path]]:
    for name in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    configure(tmp_path, 2022)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own chroot for its unprivileged part
    log = tmp_path / "log"
    with contextlib.ExitStack() as stack:
        host, client = stack.enter_context(network("host", "client"))
        stream = stack.enter_context(log.open("w"))
        words = ("unshare", "-m", "sh", "-c", SSHD, str(tmp_path / "sshd_config"))
        stack.enter_context(host.process(*words, stdout=stream, stderr=stream))
        assert eventually(lambda: "Server listening on ::" in log.read_text()), log.read_text()
        yield host, client, tmp_path


def asked(host: Namespace, client: Namespace, folder: Path) -> Any:
    """What the host says of itself over ssh."""
    script = shlex.join(["sh", "-c", facts.SCRIPT, "sh", "/usr/bin/python3"])
    options = ("-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    login = ("-i", f"{folder}/client_key", "-p", "2022", f"root@{host.ipv4}")
    return facts.Host.of(client.run("ssh", *options, *login, script).stdout)


def test_the_port_of_the_connection_is_compared_with_the_one_that_sshd_has_next(
    site: tuple[Namespace, Namespace, Path],
) -> None:
    host, client, folder = site
    said = asked(host, client, folder)
    assert (said.first("port"), said.sshd_ports) == ("2022", {2022})
    assert said.first("listener").startswith("sshd: /usr/sbin/sshd -D -e [listener]")
    assert "ansible_port" not in variables(said)
    configure(folder, 2222, 2223)  # another playbook has moved it, and has not restarted it yet
    moved = asked(host, client, folder)
    assert (moved.first("port"), moved.sshd_ports) == ("2022", {2222, 2223})
    assert "ansible_port" in variables(moved)
    configure(folder, 2222, 2022)
    assert "ansible_port" not in variables(asked(host, client, folder))


def variables(said: Any) -> list[str]:
    """The variables about which the preflight has a sentence; this machine may lack more, such as systemd."""
    now = time.time()
    return [one.variable for one in facts.problems(said, facts.Wanted(), now, now)]


def test_the_probe_of_nftables_is_taken_by_this_kernel_and_leaves_nothing(
    site: tuple[Namespace, Namespace, Path],
) -> None:
    host, client, folder = site
    said = asked(host, client, folder)
    assert not said.first("refused"), said.first("refused")
    assert said.first("nft").startswith("nftables v")
    assert host.nft("list ruleset") == ""
    assert {"lo", "eth0"} <= set(said.all("interface"))
