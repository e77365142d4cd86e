"""The units of the role `daemon` as systemd reads them."""

from __future__ import annotations

import re
from collections import ChainMap
from pathlib import Path

import jinja2
import pytest

from doorward.config import settings
from doorward.helper import handed

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


def rendered(name: str, **variables: object) -> str:
    """A template under these variables."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)  # noqa: S701  no HTML
    environment.filters["combine"] = lambda *each: dict(ChainMap(*reversed(each)))  # Ansible's
    text = (UNITS[0].parent / f"{name}.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(doorward_python="/usr/bin/python3", **variables)


def helper(**options: str) -> str:
    """The helper's unit under these doorward_options."""
    return rendered("doorward-helper.service", doorward_options=options)


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
    assert "CAP_NET_BIND_SERVICE" in helper(ENABLE_TCP_SERVER="Y"), "options are seen"


@pytest.mark.parametrize(
    ("port", "options", "expected"),
    [
        (62201, {}, 62201),
        (5000, {}, 5000),  # where knocks are captured; nothing waits in it
        (62201, {"ENABLE_UDP_SERVER": "Y", "UDPSERV_PORT": "5000"}, 5000),
        (5000, {"ENABLE_UDP_SERVER": "Y"}, 62201),  # what UDPSERV_PORT is where it is not written
        (62201, {"ENABLE_UDP_SERVER": "N", "UDPSERV_PORT": "5000"}, 62201),
    ],
)
def test_the_udp_socket_has_the_port_of_the_settings(port: int, options: dict[str, str], expected: int) -> None:
    unit = rendered("doorward-udp.socket", doorward_port=port, doorward_options=options)
    places = re.findall(r"^ListenDatagram=(.*)$", unit, re.MULTILINE)
    assert places == [f"0.0.0.0:{expected}", f"[::]:{expected}"]


def test_the_udp_socket_lives_as_long_as_the_daemon_and_its_helper_has_it() -> None:
    (udp,) = (one for one in SOCKETS if one.name == "doorward-udp.socket.j2")
    (daemon,) = (one for one in UNITS if one.name == "doorwardd.service.j2")
    assert setting(udp, "StopWhenUnneeded") == ["yes"]
    assert setting(udp, "Service") == ["doorward-helper.service"]
    assert setting(udp, "BindIPv6Only") == ["ipv6-only"]
    assert setting(daemon, "Wants") == [handed.UNIT]
    assert handed.UNIT in setting(daemon, "After")[0].split()
    assert "AF_INET" not in helper(ENABLE_UDP_SERVER="Y"), "the helper needs no leave"
    assert "AF_INET" in helper(ENABLE_TCP_SERVER="Y"), "it would be seen"


@pytest.mark.parametrize(
    ("port", "interfaces", "written"),
    [(62201, [], False), ("62201", [], False), (5000, [], True), (62201, ["eth0"], True)],
)
def test_a_host_chooses_how_it_hears_knocks_unless_the_variables_do(
    port: object, interfaces: list[str], *, written: bool, tmp_path: Path
) -> None:
    variables = {"doorward_max_age": 120, "doorward_daemon_foreign_firewall": "report", "doorward_options": {}}
    text = rendered("doorwardd.conf", doorward_port=port, doorward_interfaces=interfaces, **variables)
    assert ("PCAP_FILTER" in text, "PCAP_INTF" in text) == (written, written)
    found = settings.parse(tmp_path / "doorwardd.conf", text.encode()).settings
    assert found.automatic is not written
    assert found.carriers.udp == (range(int(str(port)), int(str(port)) + 1),)
