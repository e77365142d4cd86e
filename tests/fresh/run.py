"""Runs `make demo` twice, `make test` and `make check` in a fresh minimal Debian 12, and prints what that system was.

The system holds only apt, mount, make and git. `--part` runs one of the three alone; `make check` runs in a clone of
its own, where nothing else was made before.

The system is a root file system of its own (mmdebstrap) with process and mount namespaces of its own. It shares the
machine's network, to reach its package mirrors, and takes over the machine's settings of how to reach them: mirrors,
proxies, certificates. It takes nothing else: no Python environment, no caches, no images.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab import images
from lab.plan import CONTROLLER_LINK, REPOSITORY
from lab.run import LabError, attempt, run, say

FRESH = Path(os.environ.get("DOORWARD_FRESH", "/var/lib/doorward-fresh"))
ROOT = FRESH / "root"
RELEASE = "bookworm"
PRESENT = "apt,make,git,ca-certificates,mount"

# How this machine reaches its mirrors: copied as it is, and empty on most machines.
SETTINGS = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/root/.config/pip/pip.conf",
    "/etc/ssl/certs/ca-certificates.crt",
)
VARIABLES = ("proxy", "pip_", "ssl_cert", "ca_bundle")

# pivot_root, not chroot alone: under a mere chroot, a container inside would get the machine's root as its own.
ENTER = """set -eu
root="$1"; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
for folder in "$@"; do
  mkdir -p "$root$folder"
  mount --bind -o ro "$folder" "$root$folder"
done
cd "$root"
mkdir old-root
pivot_root . old-root
exec chroot . /bin/sh -euc 'umount -l /old-root; rmdir /old-root; exec /bin/sh -eu /root/what-is-done'
"""

BEGIN = """cd /root/doorward
echo "--- what this is"
. /etc/os-release
echo "$PRETTY_NAME, $(dpkg-query -W -f '.' | wc -c) packages, $(uname -sr)"
for name in podman pip python3 nft ansible fwknop runc ping; do
  printf '%s: %s\\n' "$name" "$(command -v "$name" || echo none)"
done
ls -d /root/.cache /root/.pyenv /var/lib/containers /root/doorward/.venv 2>/dev/null || echo "no caches"
git log -1 --format='commit %h %s'
failed=
timed() {
  echo "--- $1"
  shift
  begun=$(date +%s)
  "$@" || failed="$failed $*"
  echo "--- $(($(date +%s) - begun)) s: $*"
}
"""
PARTS = {
    "demo": """timed "the demo, the first time" make demo
timed "the demo, the second time" make demo
make demo-down
""",
    "test": """timed "every test" make test
""",
    "check": """git clone --quiet /root/doorward /root/clone
cd /root/clone
timed "the fast tests in a fresh clone, with its environment made" make check
timed "the same again" make check
cd /root/doorward
""",
}
END = """[ -z "$failed" ] || { echo "--- failed:$failed"; exit 1; }
"""


def build() -> None:
    """Make the system, as new."""
    shutil.rmtree(FRESH, ignore_errors=True)
    ROOT.parent.mkdir(parents=True)
    say(f"fresh: building a minimal {RELEASE} in {ROOT}")
    options = [f"--aptopt={option}" for option in images.apt_options()]
    target = ("--variant=minbase", f"--include={PRESENT}", *options, RELEASE, str(ROOT))
    run("mmdebstrap", *target, *images.sources(RELEASE))
    # mmdebstrap leaves its own apt options behind; they are those of the machine.
    for name in SETTINGS:
        source, copy = Path(name), ROOT / name.lstrip("/")
        if source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def put_source(*, work_tree: bool) -> None:
    """Put the sources in place: a clone of the last commit, or the files of the work tree as they are."""
    target = ROOT / "root/doorward"
    run("git", "clone", "--quiet", "--no-local", str(REPOSITORY), str(target))
    if work_tree:
        for path in target.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        listed = run("git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in sorted(filter(None, set(listed.split("\0")))):
            source, copy = REPOSITORY / name, target / name
            if source.exists() or source.is_symlink():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy, follow_symlinks=False)


def local_indexes() -> list[str]:
    """Folders of packages on this machine that pip's settings name; they are its mirrors."""
    shown = attempt(sys.executable, "-m", "pip", "config", "list").stdout
    words = [word.strip("'\"") for line in shown.splitlines() for word in line.partition("=")[2].split()]
    paths = {Path(word.removeprefix("file://")) for word in words if word.startswith(("/", "file://"))}
    folders = {path.parent if path.name == "simple" else path for path in paths}
    return sorted(str(folder) for folder in folders if folder.is_dir())


def play(parts: list[str]) -> int:
    """Run the parts inside; the exit code is 0 when all succeeded."""
    done = ROOT / "root/what-is-done"
    done.write_text(BEGIN + "".join(PARTS[part] for part in parts) + END, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name.lower().startswith(VARIABLES)}
    kept |= {name: value for name, value in os.environ.items() if name.lower().endswith(VARIABLES)}
    environment = {**kept, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc")
    command = (*apart, "sh", "-c", ENTER, "sh", str(ROOT), *local_indexes())
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


def main() -> int:
    """Build the system, run the parts in it, remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="what to do inside (default: all of it)")
    parser.add_argument("--work-tree", action="store_true", help="take the files as they are, not the last commit")
    chosen = parser.parse_args()
    parts = chosen.part or list(PARTS)
    if parts != ["check"] and attempt("ip", "link", "show", CONTROLLER_LINK).returncode == 0:
        sys.stderr.write("fresh: the lab of this machine is up and would be in the way: `make demo-down` first\n")
        return 1
    try:
        build()
        put_source(work_tree=chosen.work_tree)
        return play(parts)
    except LabError as error:
        sys.stderr.write(f"fresh: {error}\n")
        return 1
    finally:
        shutil.rmtree(FRESH, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
