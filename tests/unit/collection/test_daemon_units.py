"""The units of the role `daemon` as systemd reads them."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest

COLLECTION = Path(__file__).parents[3] / "collections/ansible_collections/doorward/spa"
UNITS = sorted((COLLECTION / "roles/daemon/templates").glob("*.service.j2"))
SOCKETS = sorted((COLLECTION / "roles/daemon/templates").glob("*.socket.j2"))


def setting(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_journal_has_a_units_lines_under_its_name(unit: Path) -> None:
    assert setting(unit, "SyslogIdentifier") == [unit.name.removesuffix(".service.j2")]


@pytest.mark.parametrize("unit", [*UNITS, *SOCKETS], ids=lambda unit: unit.name)
def test_a_unit_points_to_our_own_documentation(unit: Path) -> None:
    galaxy = (COLLECTION / "galaxy.yml").read_text(encoding="utf-8")
    assert setting(unit, "Documentation") == re.findall(r"^repository: (.*)$", galaxy, re.MULTILINE)


@pytest.mark.parametrize("name", ["doorwardd", "doorward-helper"])
def test_a_unit_allows_its_processes_the_filters_that_they_put_on_themselves(name: str) -> None:
    (unit,) = (one for one in UNITS if one.name == f"{name}.service.j2")
    assert "seccomp" in setting(unit, "SystemCallFilter")[0].split()


def helper(**options: str) -> str:
    """The helper's unit under these doorward_options."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)  # noqa: S701  no HTML
    environment.filters["intersect"] = lambda one, other: [each for each in one if each in other]  # Ansible's
    (unit,) = (one for one in UNITS if one.name == "doorward-helper.service.j2")
    return environment.from_string(unit.read_text(encoding="utf-8")).render(
        doorward_options=options, doorward_python="/usr/bin/python3"
    )


@pytest.mark.parametrize(
    ("file", "writes"),
    [
        ("/var/log/doorward/audit.log", ["-/var/log/doorward"]),
        ("/srv/100% of it/audit.log", ["-/srv/100%% of it"]),
        ("/var/lib/doorward/audit.log", []),  # the listener's own, which the helper does not see
        ("/var/lib/doorward/audit/audit.log", []),
        ("/var/lib/doorward-audit/audit.log", ["-/var/lib/doorward-audit"]),
        ("/audit.log", []),  # else it could write everywhere
    ],
)
def test_the_helper_can_write_to_the_folder_of_audit_file_and_to_nothing_else(file: str, writes: list[str]) -> None:
    unit = helper(AUDIT_FILE=file)
    assert re.findall(r'^ReadWritePaths="(.*)"$', unit, re.MULTILINE) == writes
    assert "ProtectSystem=strict\n" in unit


def test_the_helper_can_write_to_the_folder_of_metrics_file_too() -> None:
    unit = helper(METRICS_FILE="/srv/100%/doorward.prom", AUDIT_FILE="/var/log/doorward/audit.log")
    folders = ["-/var/log/doorward", "-/srv/100%%"]
    assert re.findall(r'^ReadWritePaths="(.*)"$', unit, re.MULTILINE) == folders
    assert "ReadWritePaths" not in helper(METRICS_FILE="/doorward.prom"), "else it could write everywhere"


def test_without_audit_file_the_helper_can_write_nothing() -> None:
    assert "ReadWritePaths" not in helper()
    assert "CAP_NET_BIND_SERVICE" in helper(ENABLE_UDP_SERVER="Y"), "options are seen"
