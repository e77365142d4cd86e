"""The images of the lab's hosts: a minimal Debian with systemd and sshd, made by mmdebstrap.

A host has no network beyond the lab. What the roles install lies in ``/srv/packages``, a local apt repository, so
that it is really installed by apt during the roll-out and not there from the start.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from lab.containers import podman, podman_try
from lab.plan import RELEASES, STORE
from lab.run import run, say

PRESENT = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "python3",
    "python3-apt",  # the apt module of Ansible needs it on the host
    "iproute2",
    "procps",
    "ca-certificates",
)
"""What a host has from the start: what any Debian that Ansible manages has."""

INSTALLABLE = ("python3-cryptography", "nftables", "libnftables1")
"""What the roles install, with all it depends on."""

FIRST_START = """[Unit]
Description=Host keys of this host, made at its first start
Before=ssh.service ssh.socket
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
DefaultDependencies=no
After=local-fs.target

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
"""

MASKED = (
    "console-getty.service",
    "getty.target",  # a privileged container would take the consoles of the machine
    "systemd-modules-load.service",  # modules are the machine's affair
    "systemd-networkd-wait-online.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
)

HOOK = """set -eu
root="$1"
mkdir -p "$root/srv/packages"
rm -f "$root"/var/cache/apt/archives/*.deb
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q -y --no-install-recommends --download-only \\
  install {installable}
mv "$root"/var/cache/apt/archives/*.deb "$root/srv/packages/"
"{python}" -I "{index}" "$root/srv/packages"
rm -rf "$root"/etc/apt/sources.list* "$root"/var/lib/apt/lists/* "$root"/etc/apt/apt.conf.d/99mmdebstrap
mkdir -p "$root/etc/apt/sources.list.d"
echo 'deb [trusted=yes] file:/srv/packages ./' > "$root/etc/apt/sources.list"
chroot "$root" apt-get -q update
chroot "$root" apt-get -q clean
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/resolv.conf
: > "$root/etc/machine-id"
cp "{unit}" "$root/etc/systemd/system/first-start-keys.service"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../first-start-keys.service "$root/etc/systemd/system/multi-user.target.wants/"
for unit in {masked}; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
"""


def sources(release: str) -> list[str]:
    """The apt sources of an image: the machine's own Debian mirror, or none for mmdebstrap's default."""
    form = "$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)"
    targets = run("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines()
    lines = []
    for target in targets:
        origin, uri, suite, component = target.split("|")
        base, _, pocket = suite.partition("-")
        if origin == "Debian" and base in RELEASES.values() and component == "main":
            lines.append(f"deb {uri} {release}{pocket and '-' + pocket} main")
    return list(dict.fromkeys(lines))


def apt_options() -> list[str]:
    """The machine's own settings of how apt fetches (a proxy, a mirror with old dates)."""
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
    lines = run("apt-config", "dump").splitlines()
    return [line for line in lines if line.startswith(wanted) and '""' not in line]


def recipe(release: str) -> str:
    """The stamp of an image: another one as soon as anything it is made from changes."""
    here = Path(__file__).parent
    parts = [release, (here / "images.py").read_text(), (here / "package_index.py").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def tag(system: str) -> str:
    """The name of a system's image."""
    return f"localhost/doorward-lab/{system}:{recipe(RELEASES[system])}"


def build(system: str) -> str:
    """The name of the system's image, which is made first where it is missing."""
    name = tag(system)
    if podman_try("image", "exists", name).returncode == 0:
        return name
    say(f"lab: building the image of {system} (once)")
    release = RELEASES[system]
    work = STORE / "build" / release
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    archive = work / "root.tar"
    _bootstrap(release, work, archive)
    podman("import", "--change", 'CMD ["/sbin/init"]', str(archive), name)
    shutil.rmtree(work)
    return name


def _bootstrap(release: str, work: Path, archive: Path) -> None:
    unit, hook = work / "first-start-keys.service", work / "hook.sh"
    unit.write_text(FIRST_START, encoding="utf-8")
    text = HOOK.format(
        installable=" ".join(INSTALLABLE),
        python=sys.executable,
        index=Path(__file__).with_name("package_index.py"),
        unit=unit,
        masked=" ".join(MASKED),
    )
    hook.write_text(text, encoding="utf-8")
    options = [f"--aptopt={option}" for option in apt_options()]
    run(
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(PRESENT)}",
        "--skip=cleanup/apt",
        *options,
        f'--customize-hook=sh "{hook}" "$1"',
        release,
        str(archive),
        *sources(release),
    )
