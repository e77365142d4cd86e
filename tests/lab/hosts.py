"""The lab's hosts: started, given an owner, pinned, restarted and taken down."""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lab import images, network
from lab.containers import podman, podman_try
from lab.plan import HOSTS, RUN, STATE, STORE, Host
from lab.run import LabError, attempt, run, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OWNER_KEY = STATE / "id_ed25519"
KNOWN_HOSTS = STATE / "known_hosts"

# The machine may not be allowed to raise limits; these are below what any machine gives.
LIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")

OWNER = """set -eu
home=/root
if [ "$1" != root ]; then
  useradd --create-home --shell /bin/bash --groups sudo "$1"
  home="/home/$1"
  read -r password
  printf '%s:%s\\n' "$1" "$password" | chpasswd
fi
read -r key
install -d -m 0700 -o "$1" -g "$1" "$home/.ssh"
printf '%s\\n' "$key" > "$home/.ssh/authorized_keys"
chown "$1:$1" "$home/.ssh/authorized_keys"
chmod 0600 "$home/.ssh/authorized_keys"
"""

SOCKET_ACTIVATION = """set -eu
systemctl disable --now ssh.service
mkdir -p /etc/systemd/system/ssh.socket.d
printf '[Socket]\\nListenStream=\\nListenStream=%s\\n' "$1" > /etc/systemd/system/ssh.socket.d/port.conf
systemctl daemon-reload
systemctl enable --now ssh.socket
"""


def up(names: Iterable[str]) -> None:
    """Start the hosts named and pin their SSH host keys.

    Several processes may each start hosts of their own; what all share is made by one at a time.
    """
    hosts = [HOSTS[name] for name in names]
    STATE.mkdir(mode=0o700, exist_ok=True)
    with _alone():
        _owner_key()
        for host in hosts:
            images.build(host.system)  # before the network is up: nothing of it can be in the way of a mirror
        network.up()
    for host in hosts:
        start(host)
    with _alone():
        pin(hosts)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes from what all hosts of the lab share."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start(host: Host) -> None:
    """Start one host, which is made first where it does not exist, and join it to the network."""
    made = _exists(host)
    if not made:
        image = images.build(host.system)
        say(f"lab: starting {host.name} ({host.system}, {host.address.ipv4}, {host.address.ipv6})")
        options = ("--network=none", "--privileged", "--systemd=always", "--hostname", host.name, *LIMITS)
        podman("run", "--detach", "--name", host.container, *options, image, "/sbin/init")
    elif not running(host):
        podman("start", host.container)
    _wait_for_boot(host)
    if not made:
        _give_owner(host)
    attach(host)


def attach(host: Host) -> None:
    """Join a running host to the lab's network."""
    process = int(podman("inspect", "--format", "{{.State.Pid}}", host.container))
    network.attach(process, host.name, host.address)


def restart(host: Host) -> None:
    """Stop and start a host: its processes, its network namespace and with it every nft table are new."""
    stop(host)
    start(host)


def stop(host: Host) -> None:
    """Stop a host; its file system stays."""
    podman("stop", "--time", "15", host.container)


def inside(host: Host, *command: str, stdin: str | None = None) -> str:
    """What a command printed that was run on the host's console, as root.

    Raises:
        LabError: the command failed.
    """
    return podman("exec", "--interactive", host.container, *command, stdin=stdin)


def status(host: Host) -> dict[str, Any]:
    """What `doorward status` knows of a host; it ends with 1 where the host is not closed and well.

    Raises:
        LabError: it knows nothing.
    """
    shown: dict[str, Any] = json.loads(inside(host, "sh", "-c", "doorward status --json || [ $? = 1 ]"))
    return shown


def remove(host: Host) -> None:
    """Remove a host with its file system, and what the controller knows of it: the next one is another host."""
    podman_try("rm", "--force", "--time", "5", host.container)
    host.password_file.unlink(missing_ok=True)
    for known in ("keys", "host_vars"):
        shutil.rmtree(STATE / known / host.name, ignore_errors=True)


def running(host: Host) -> bool:
    """Whether the host's container runs."""
    shown = podman_try("inspect", "--format", "{{.State.Running}}", host.container)
    return shown.stdout.strip() == "true"


def wait_until_closed(host: Host) -> None:
    """Return as soon as no window is open any more. A host that is asked all the time does nothing else.

    Raises:
        LabError: one is still open after a minute and a half.
    """
    end = time.monotonic() + 90
    while grants := status(host)["grants"]:
        if time.monotonic() > end:
            text = f"{host.name}: a window does not close"
            raise LabError(text)
        time.sleep(min(10, max(grant["remaining"] or 0 for grant in grants)) + 0.1)


def pin(hosts: Iterable[Host]) -> None:
    """Write the hosts' SSH host keys, read on their consoles, into the known_hosts file; others keep their lines."""
    pinned = {_places(host): _keys(host) for host in hosts}
    lines = KNOWN_HOSTS.read_text(encoding="utf-8").splitlines() if KNOWN_HOSTS.exists() else []
    lines = [line for line in lines if line.partition(" ")[0] not in pinned]
    lines += [f"{places} {key}" for places, keys in pinned.items() for key in keys]
    # Others may be reading it.
    written = KNOWN_HOSTS.with_suffix(".new")
    written.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    written.replace(KNOWN_HOSTS)


def down() -> None:
    """Remove everything the lab made on this machine."""
    for host in HOSTS.values():
        remove(host)
    network.down()
    # Not `podman system reset`: it also removes networks and machines that are not the lab's.
    podman_try("rm", "--all", "--force", "--time", "5")
    podman_try("rmi", "--all", "--force")
    attempt("umount", str(STORE / "storage/overlay"))
    for folder in (STATE, STORE, RUN):
        shutil.rmtree(folder, ignore_errors=True)
    left = [str(folder) for folder in (STATE, STORE, RUN) if folder.exists()]
    if left:
        text = f"these could not be removed: {', '.join(left)}"
        raise LabError(text)


def _exists(host: Host) -> bool:
    return podman_try("container", "exists", host.container).returncode == 0


def _wait_for_boot(host: Host, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    state = ""
    while time.monotonic() < end:
        state = podman_try("exec", host.container, "systemctl", "is-system-running").stdout.strip()
        if state in ("running", "degraded"):
            return
        time.sleep(0.2)
    text = f"{host.name} did not start within {seconds:.0f} s: systemd says {state or 'nothing'}"
    raise LabError(text)


def _give_owner(host: Host) -> None:
    lines = [OWNER_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip()]
    if host.user != "root":
        password = secrets.token_urlsafe(12)
        host.password_file.touch(mode=0o600)
        host.password_file.write_text(password, encoding="utf-8")
        lines.insert(0, password)
    inside(host, "sh", "-c", OWNER, "sh", host.user, stdin="".join(f"{line}\n" for line in lines))
    if host.socket_activated:
        inside(host, "sh", "-c", SOCKET_ACTIVATION, "sh", str(host.ssh_port))


def _owner_key() -> None:
    if not OWNER_KEY.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab owner", "-f", str(OWNER_KEY))


def _places(host: Host) -> str:
    places = [host.address.ipv4, host.address.ipv6]
    return ",".join(f"[{place}]:{host.ssh_port}" if host.ssh_port != 22 else place for place in places)


def _keys(host: Host) -> list[str]:
    keys = inside(host, "sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub").splitlines()
    return [" ".join(key.split()[:2]) for key in keys]


def reachable(host: Host) -> bool:
    """Whether plain ssh gets in from the controller, with the pinned key and without a knock."""
    return attempt(*ssh_command(host), "true").returncode == 0


def ssh_command(host: Host, *options: str) -> tuple[str, ...]:
    """A plain ssh command line to the host."""
    return (
        "ssh",
        "-F/dev/null",
        "-oBatchMode=yes",
        "-oConnectTimeout=3",
        "-oStrictHostKeyChecking=yes",
        f"-oUserKnownHostsFile={KNOWN_HOSTS}",
        "-oIdentitiesOnly=yes",
        f"-i{OWNER_KEY}",
        f"-p{host.ssh_port}",
        *options,
        f"{host.user}@{host.way_in}",
    )
