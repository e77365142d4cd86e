"""The Debian packages of `make deb`: built, searched by lintian, unpacked. tests/fresh/test_deb.py installs them."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import doorward
import manuals

REPOSITORY: Final = Path(__file__).parents[2]
ROLES: Final = REPOSITORY / "collections/ansible_collections/doorward/spa/roles"
PROGRAM: Final = REPOSITORY / "daemon/debian/build.py"
PACKAGES: Final = ("doorward", "doorward-daemon")
# Owned by PAM and by fwknop, on hosts where all of us are installed.
OTHERS: Final = ("libpam-modules", "fwknop-client", "fwknop-server")


def build(out: Path) -> Path:
    subprocess.run([sys.executable, PROGRAM, "--out", out], check=True)  # what it says belongs to a failure
    return out


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def root(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages, unpacked over each other."""
    folder = tmp_path_factory.mktemp("root")
    for package in PACKAGES:
        subprocess.run(["dpkg-deb", "-x", deb(built, package), folder], check=True)
    return folder


def deb(folder: Path, package: str) -> Path:
    return folder / f"{package}_{doorward.__version__}_all.deb"


def lintian(file: Path) -> str:
    command = ["lintian", "--allow-root", "--fail-on", "none", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_lintian_finds_neither_errors_nor_warnings_and_nothing_is_overridden(built: Path, root: Path) -> None:
    (changes,) = built.glob("*.changes")
    assert lintian(changes) == ""
    assert not list(root.glob("usr/share/lintian/**/*"))


def test_lintian_would_have_seen_a_fault(built: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-R", deb(built, "doorward"), tmp_path / "x"], check=True)
    (tmp_path / "x/usr/bin/doorward").chmod(0o644)
    faulty = deb(tmp_path, "doorward")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tmp_path / "x", faulty], check=True, capture_output=True)
    assert "executable" in lintian(faulty) or "permission" in lintian(faulty)


def test_the_same_sources_make_the_same_packages(built: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    for package in PACKAGES:
        first, second = (hashlib.sha256(deb(folder, package).read_bytes()).hexdigest() for folder in (built, again))
        assert first == second


def test_both_programs_run_from_where_the_package_puts_them(root: Path) -> None:
    archive = root / "usr/lib/doorward/doorward.pyz"
    for name, launcher in (("doorward", "usr/bin/doorward"), ("doorwardd", "usr/sbin/doorwardd")):
        text = (root / launcher).read_text().replace("/usr/lib/doorward/doorward.pyz", str(archive))
        text = text.replace("/usr/bin/python3", sys.executable)
        said = subprocess.run(["sh", "-s", "-", "-V"], input=text, check=True, capture_output=True, text=True).stdout
        assert said.split() == [name, doorward.__version__]


PLAY: Final = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: ["{roles}/daemon/defaults/main.yml", "{roles}/firewall/defaults/main.yml"]
  vars:
    firewall_policy_words: {{closed: and nothing but a knock opens the host}}
  tasks:
    - ansible.builtin.template: {{src: "{{{{ item }}}}.j2", dest: "{out}/{{{{ item | basename }}}}"}}
      loop: {templates}
"""


def rendered_by_ansible(folder: Path) -> dict[str, str]:
    """The units of both roles as the roles write them with their defaults."""
    wanted = [*ROLES.glob("daemon/templates/*.service.j2"), *ROLES.glob("daemon/templates/*.socket.j2")]
    wanted += ROLES.glob("firewall/templates/*.service.j2")
    play, out = folder / "play.yml", folder / "out"
    out.mkdir()
    play.write_text(PLAY.format(roles=ROLES, out=out, templates=[str(path.with_suffix("")) for path in wanted]))
    ansible = Path(sys.executable).with_name("ansible-playbook")
    subprocess.run(
        [ansible, "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}", play],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    return {path.name: path.read_text() for path in out.iterdir()}


def test_the_units_are_those_that_the_roles_write(root: Path, tmp_path: Path) -> None:
    units = root / "lib/systemd/system"
    packaged = {path.name: path.read_text() for path in units.iterdir() if path.is_file()}
    assert len(packaged) == 9
    assert packaged == rendered_by_ansible(tmp_path)


def test_nothing_that_holds_keys_is_in_the_package_and_settings_are_a_conffile(built: Path, root: Path) -> None:
    assert {path.name for path in (root / "etc/doorward").iterdir()} == {"doorwardd.conf"}
    shown = subprocess.run(
        ["dpkg-deb", "-I", deb(built, "doorward-daemon"), "conffiles"], check=True, capture_output=True, text=True
    )
    assert shown.stdout.split() == ["/etc/apparmor.d/doorwardd", "/etc/doorward/doorwardd.conf"]


def test_the_alert_rules_and_the_dashboard_lie_where_their_page_says(root: Path) -> None:
    page = (REPOSITORY / "docs/monitoring/README.md").read_text("utf-8")
    place = "/usr/share/doc/doorward-daemon/examples/monitoring"
    assert f"{place}." in page
    for name in ("doorward.rules.yml", "dashboard.json"):
        packaged = root / place.lstrip("/") / name
        assert packaged.read_bytes() == (REPOSITORY / "docs/monitoring" / name).read_bytes()


def test_the_packaged_settings_change_no_default(root: Path) -> None:
    text = (root / "etc/doorward/doorwardd.conf").read_text()
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []


def test_every_manual_page_is_found_by_man(root: Path) -> None:
    for page in manuals.PAGES:
        command = ["man", "-M", str(root / "usr/share/man"), "-w", str(page.section), page.title]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert Path(found.strip()).name == f"{page.file}.gz"


def test_no_file_of_ours_is_also_one_of_pam_or_of_fwknop(root: Path) -> None:
    ours = {f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file()}
    listed = subprocess.run(["dpkg", "-L", *OTHERS], check=True, capture_output=True, text=True).stdout.split("\n")
    theirs = {name for name in listed if not Path(name).is_dir()}
    assert any(name.endswith("/access.conf.5.gz") for name in theirs), "PAM's page, for which ours has another name"
    assert not ours & theirs


def test_completions_lie_where_each_shell_looks(root: Path) -> None:
    for name in ("doorward", "doorwardd"):
        assert (root / "usr/share/bash-completion/completions" / name).read_text().startswith("_doorward")
        assert (
            (root / f"usr/share/fish/vendor_completions.d/{name}.fish").read_text().startswith("complete -c doorward")
        )
    assert (root / "usr/share/zsh/vendor-completions/_doorward").read_text().startswith("#compdef doorward doorwardd\n")


def test_the_apparmor_profiles_can_be_parsed_and_the_units_and_the_launcher_name_no_other(root: Path) -> None:
    parse = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--names"]
    files = [root / "etc/apparmor.d" / name for name in ("doorwardd", "doorward")]
    names = subprocess.run([*parse, *files], check=True, capture_output=True, text=True).stdout.split()
    units = [path.read_text() for path in (root / "lib/systemd/system").glob("*.service")]
    wanted = {found for text in units for found in re.findall("^AppArmorProfile=-(.*)$", text, re.MULTILINE)}
    wanted |= set(re.findall("'exec (.*)'", (root / "usr/bin/doorward").read_text()))
    assert wanted == set(names) == {"doorward-listener", "doorward-helper", "doorward-exec", "doorward-client"}
    broken = files[0].read_text().replace("capability net_admin", "capability no_such")
    assert subprocess.run(parse, input=broken, text=True, check=False, capture_output=True).returncode


def test_both_ways_of_installing_have_the_same_profiles_and_they_complain(root: Path) -> None:
    for name in ("doorwardd", "doorward"):
        text = (root / "etc/apparmor.d" / name).read_text()
        assert text == (ROLES / "daemon/files/confinement/apparmor" / name).read_text()
        flags = re.findall(r"^profile .* flags=\((.*)\) {$", text, re.MULTILINE)
        assert flags
        assert set(flags) == {"attach_disconnected, complain"}


def test_the_selinux_module_is_in_the_package(root: Path) -> None:
    module = (root / "usr/share/selinux/packages/doorward.pp").read_bytes()
    assert all(domain in module for domain in (b"doorward_listener_t", b"doorward_helper_t", b"doorward_commands_t"))
