"""Builds the Debian packages doorward and doorward-daemon: `make deb`.

The units, the launchers and the archive are those of the role doorward.spa.daemon: its templates are rendered with
the role's defaults. The rest of what debhelper needs lies in this folder. The same commit makes the same packages.
"""  # noqa: INP001  a script beside the files that it works with, no package

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import doorward
from doorward import archive

HERE: Final = Path(__file__).resolve().parent
REPOSITORY: Final = HERE.parents[1]
ROLES: Final = REPOSITORY / "collections/ansible_collections/doorward/spa/roles"
UNITS: Final = {
    "daemon": (
        "doorwardd.service",
        "doorward-helper.socket",
        "doorward-udp.socket",
        "doorward-helper.service",
        "doorward-exec.socket",
        "doorward-exec.service",
    ),
    "firewall": ("doorward-firewall.service", "doorward-firewall-failed.service", "doorward-watch.service"),
}
LAUNCHERS: Final = {"bin/doorward": "", "sbin/doorwardd": "doorwardd "}
FIRST_AID: Final = "sbin/doorward-first-aid"
# Additions to the units that only some hosts need; the role writes them where its host does.
EXAMPLES: Final = (
    "doorwardd-gnupg.conf",
    "doorward-helper-gnupg.conf",
    "doorward-helper-legacy.conf",
    "doorward-legacy-tmpfiles.conf",
)
# They close the host, and so they are before sshd.
CLOSERS: Final = ("doorwardd", "doorward-helper")
# At boot its services are open until doorwardd is ready, unless a table was loaded before. Before ssh.socket is before
# what units wait for by default, so both processes must not wait for it: systemd would leave ssh.socket out.
EARLY: Final = """\
# sshd starts when doorwardd has closed what it guards, also where systemd listens for it.
[Unit]
DefaultDependencies=no
Requires=sysinit.target
After=sysinit.target
Conflicts=shutdown.target
Before=shutdown.target ssh.service ssh.socket
"""
VARIABLES: Final[dict[str, Any]] = {
    "doorward_options": {},
    "doorward_port": 62201,
    "doorward_python": "/usr/bin/python3",
    "doorward_firewall_mode": "drop",
    "doorward_failure_policy": "closed",
    "firewall_policy_words": {"closed": "and nothing but a knock opens the host"},
}
COMPLETIONS: Final = {"bash": "bash/doorward", "zsh": "zsh/_doorward", "fish": "fish/doorward.fish"}
_FOR_DEVELOPERS: Final = ("architecture.md", "releasing.md")
_CHANGELOG: Final = """\
doorward ({version}) unstable; urgency=medium

  * Version {version}. CHANGELOG.md in the sources says what changed.

 -- {maintainer}  {date}
"""


def rendered(role: str, name: str, **more: object) -> str:
    """A template of a role, with the role's defaults."""
    made = Environment(  # noqa: S701  units and shell scripts, no HTML
        loader=FileSystemLoader(ROLES / role / "templates"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return made.get_template(f"{name}.j2").render(**VARIABLES, **more)


def files(version: str) -> dict[str, str]:
    """The texts of the source package that are made, by their path in it."""
    made = {f"units/{name}": rendered(role, name) for role, names in UNITS.items() for name in names}
    made |= {f"units/{unit}.service.d/early.conf": EARLY for unit in CLOSERS}
    for name, arguments in LAUNCHERS.items():
        made[name] = rendered("daemon", "launcher", launcher_arguments=arguments)
    made[FIRST_AID] = (ROLES / "firewall/files/first-aid").read_text("utf-8")
    made |= {f"examples/{name}": rendered("daemon", name) for name in EXAMPLES}
    made |= {f"completion/{name}": _completion(shell) for shell, name in COMPLETIONS.items()}
    made["debian/changelog"] = _changelog(version)
    return made


def _completion(shell: str) -> str:
    command = (sys.executable, "-m", "doorward", "completion", shell)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603  our own program
    return done.stdout


def _changelog(version: str) -> str:
    fields = dict(line.split(": ", 1) for line in (HERE / "control").read_text("utf-8").splitlines() if ": " in line)
    date = format_datetime(datetime.fromtimestamp(_epoch(), timezone.utc))
    return _CHANGELOG.format(version=version, maintainer=fields["Maintainer"], date=date)


def _epoch() -> int:
    """The time of the sources: SOURCE_DATE_EPOCH, or of the last commit; of CHANGELOG.md where there is no git."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        command = ("git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct")
        given = subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()  # noqa: S603  fixed words
    return int(given or (REPOSITORY / "CHANGELOG.md").stat().st_mtime)


def stage(folder: Path, version: str) -> None:
    """Write the source package."""
    kept = shutil.ignore_patterns("*.py", "__pycache__", "examples", "doorwardd.conf")
    shutil.copytree(HERE, folder / "debian", ignore=kept)
    shutil.copytree(HERE / "examples", folder / "examples")
    shutil.copy(HERE / "doorwardd.conf", folder)
    shutil.copytree(ROLES / "daemon/files/confinement", folder / "confinement")
    shutil.copytree(REPOSITORY / "docs/man", folder / "man")
    (folder / "docs").mkdir()
    for page in (path for path in (REPOSITORY / "docs").glob("*.md") if path.name not in _FOR_DEVELOPERS):
        shutil.copy(page, folder / "docs" / ("index.md" if page.name == "README.md" else page.name))
    shutil.copy(REPOSITORY / "README.md", folder)
    for name, text in files(version).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o755 if name in {*LAUNCHERS, FIRST_AID} else 0o644)
    shutil.copytree(ROLES / "daemon/files/fail2ban", folder / "examples/fail2ban")
    shutil.copytree(REPOSITORY / "docs/monitoring", folder / "examples/monitoring")
    archive.build(folder / "doorward.pyz")


def build(out: Path, version: str) -> list[Path]:
    """Build the packages; return their files in `out`.

    Raises:
        subprocess.CalledProcessError: dpkg-buildpackage failed; its output and standard error say why.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="doorward-deb-") as work:
        source = Path(work) / "doorward"
        stage(source, version)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(_epoch())}
        # Nothing is compiled, so that build-essential, which every build is taken to need, is not asked for.
        command = ("dpkg-buildpackage", "--build=binary", "--no-sign", "--no-check-builddeps")
        done = subprocess.run(command, cwd=source, env=environment, check=False, capture_output=True, text=True)  # noqa: S603  fixed words
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        made = [*Path(work).glob("*.deb"), *Path(work).glob("*.changes"), *Path(work).glob("*.buildinfo")]
        return sorted(Path(shutil.copy(path, out)) for path in made)


def main() -> int:
    """Build, and print the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist", metavar="DIR", help="where to (dist)")
    parser.add_argument("--version", default=doorward.__version__, help="of the packages (the sources')")
    chosen = parser.parse_args()
    try:
        made = build(chosen.out, chosen.version)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error.output}{error.stderr}{error}\n")
        return 1
    sys.stdout.writelines(f"{path}\n" for path in made if path.suffix == ".deb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
