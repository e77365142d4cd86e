"""What AppArmor and SELinux say of a process, from the files that they say it in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doorward.linux.confinement import Label, labels, modules

PID = 7
APPARMOR = {"sys/module/apparmor/parameters/enabled": "Y\n"}
SELINUX = {"sys/fs/selinux/enforce": "1"}


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, ()),
        ({"sys/module/apparmor/parameters/enabled": "N\n"}, ()),
        (APPARMOR, ("AppArmor",)),
        (SELINUX, ("SELinux",)),
        (APPARMOR | SELINUX, ("AppArmor", "SELinux")),
    ],
)
def test_a_module_is_in_force_where_its_file_says_so(
    tmp_path: Path, files: dict[str, str], found: tuple[str, ...]
) -> None:
    assert modules(written(tmp_path, files)) == found


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"apparmor/current": "doorward-listener (enforce)\n"}, ("doorward-listener", True)),
        ({"apparmor/current": "doorward-listener (complain)\n"}, ("doorward-listener", False)),
        ({"current": "doorward-helper (enforce)\n"}, ("doorward-helper", True)),
        ({"apparmor/current": "unconfined\n"}, None),
        ({}, None),
    ],
)
def test_a_profile_of_apparmor_and_whether_it_forbids(
    tmp_path: Path, files: dict[str, str], found: tuple[str, bool] | None
) -> None:
    root = written(tmp_path, APPARMOR | {f"proc/{PID}/attr/{name}": text for name, text in files.items()})
    assert labels(PID, root) == (() if found is None else (Label("AppArmor", *found),))


@pytest.mark.parametrize(
    ("current", "enforce", "found"),
    [
        ("system_u:system_r:doorward_listener_t:s0\0", "1", ("doorward_listener_t", True)),
        ("system_u:system_r:doorward_listener_t:s0\0", "0", ("doorward_listener_t", False)),
        ("system_u:system_r:unconfined_service_t:s0\0", "1", None),
        ("kernel", "1", None),
    ],
)
def test_a_domain_of_selinux_and_whether_it_forbids(
    tmp_path: Path, current: str, enforce: str, found: tuple[str, bool] | None
) -> None:
    root = written(tmp_path, {"sys/fs/selinux/enforce": enforce, f"proc/{PID}/attr/current": current})
    assert labels(PID, root) == (() if found is None else (Label("SELinux", *found),))


def test_this_kernel_says_itself_which_modules_it_runs() -> None:
    file = Path("/sys/kernel/security/lsm")
    running = file.read_text("ascii") if file.exists() else ""
    if running:  # else nobody mounted securityfs, and the files of each module are all there is
        assert {name.lower() for name in modules()} == {"apparmor", "selinux"} & set(running.split(","))
    assert bool(labels(os.getpid())) <= bool(modules())
