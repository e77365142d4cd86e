"""The SELinux policy module: built against Debian's policy, linked with its base, and asked what it allows.

No kernel of the machines that run these tests has SELinux in force, so nothing here is enforced.
"""

from __future__ import annotations

import bz2
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[2]
ROLE: Final = REPOSITORY / "collections/ansible_collections/doorward/spa/roles/daemon"
PACKAGE: Final = (
    "selinux-policy-default"  # taken apart, not installed: it would build a store of its own on this machine
)
BASE: Final = "usr/share/selinux/default/base.pp.bz2"
DOMAINS: Final = {
    "doorwardd": "doorward_listener_t",
    "doorward-helper": "doorward_helper_t",
    "doorward-exec": "doorward_commands_t",
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's base policy with our module, in the form that a kernel loads."""
    folder = tmp_path_factory.mktemp("selinux")
    for source in (ROLE / "files/confinement/selinux").iterdir():
        shutil.copy(source, folder)
    _run(["make", "-f", "/usr/share/selinux/devel/Makefile", "doorward.pp"], folder)
    _run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", PACKAGE], folder)
    (archive,) = folder.glob(f"{PACKAGE}_*.deb")
    _run(["dpkg-deb", "--extract", str(archive), "extracted"], folder)
    (folder / "base.pp").write_bytes(bz2.decompress((folder / "extracted" / BASE).read_bytes()))
    _run(["semodule_link", "-o", "linked.mod", "base.pp", "doorward.pp"], folder)
    _run(["semodule_expand", "linked.mod", "policy"], folder)
    return folder / "policy"


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules(policy: Path, source: str, kind: str, permission: str) -> list[str]:
    """The rules by which a domain, or any one, may do something, by its attributes too; not those behind a boolean."""
    of = ["--source", source] if source else []
    command = ["sesearch", "--allow", *of, "--class", kind, "--perms", permission, str(policy)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line.startswith("allow") and "]:" not in line]


def targets(policy: Path, source: str, kind: str, permission: str) -> set[str]:
    """The types that a domain may do something to."""
    return {line.split()[2].partition(":")[0] for line in rules(policy, source, kind, permission)}


@pytest.mark.parametrize("unit", DOMAINS)
def test_a_unit_names_a_domain_of_the_module(policy: Path, unit: str) -> None:
    text = (ROLE / f"templates/{unit}.service.j2").read_text("utf-8")
    assert f"\nSELinuxContext=-system_u:system_r:{DOMAINS[unit]}:s0\n" in text
    assert targets(policy, "init_t", "process", "transition") >= {"doorward_domain"}
    assert "bin_t" in targets(policy, DOMAINS[unit], "file", "entrypoint"), "the distribution's Python"


@pytest.mark.parametrize(
    ("kind", "permission", "has_it"),
    [
        ("tcp_socket", "create", "doorward_helper_t"),
        ("tcp_socket", "name_connect", "doorward_commands_t"),
        ("udp_socket", "create", "doorward_helper_t"),
        ("packet_socket", "create", "doorward_helper_t"),
        ("netlink_netfilter_socket", "create", "doorward_helper_t"),
        ("capability", "net_admin", "doorward_helper_t"),
        ("file", "execute_no_trans", "doorward_helper_t"),
    ],
)
def test_the_listener_has_no_rule_for_what_its_helpers_do(
    policy: Path, kind: str, permission: str, has_it: str
) -> None:
    assert rules(policy, has_it, kind, permission)
    assert rules(policy, "doorward_listener_t", kind, permission) == []


def test_the_listener_writes_no_file_but_its_state_its_log_and_keyrings_in_memory(policy: Path) -> None:
    written = targets(policy, "doorward_listener_t", "file", "write")
    assert written == {"doorward_var_lib_t", "doorward_gnupg_t", "doorward_listener_t", "tmpfs_t"}
    appended = targets(policy, "doorward_listener_t", "file", "append")
    assert appended == written | {"doorward_log_t"}
    assert targets(policy, "doorward_listener_t", "file", "create") == {"doorward_var_lib_t", "doorward_gnupg_t"}


def test_only_the_listener_reads_its_state_and_it_reads_no_configuration(policy: Path) -> None:
    may = {domain: targets(policy, domain, "file", "read") for domain in DOMAINS.values()}
    assert {domain for domain, types in may.items() if "doorward_var_lib_t" in types} == {"doorward_listener_t"}
    assert {domain for domain, types in may.items() if "doorward_conf_t" in types} == {
        "doorward_helper_t",
        "doorward_commands_t",
    }


@pytest.mark.parametrize(
    ("kind", "permission"),
    [
        ("system", "module_load"),
        ("filesystem", "mount"),
        ("process", "ptrace"),
        ("capability", "sys_admin"),
        ("capability", "dac_override"),
    ],
)
def test_no_domain_has_roots_other_powers_as_some_of_the_policy_do(policy: Path, kind: str, permission: str) -> None:
    assert rules(policy, "", kind, permission)
    assert [rule for domain in DOMAINS.values() for rule in rules(policy, domain, kind, permission)] == []
