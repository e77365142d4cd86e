"""The AppArmor profiles allow what the daemons and the client do, as strace(1) sees it, and no more than they name.

The last test asks the kernel: one with AppArmor has to enforce the listener's profile, another one has to be told of by
`doorwardd check --report`. The SELinux module is tests/package/test_selinux.py's.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from doorward.linux import confinement
from system import apparmor_rules, as_units, netns
from system.doorwardd import HMAC_KEY, KEY, command, doorwardd, environment, eventually, files, listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from system.apparmor_rules import Profile
    from system.as_units import Host
    from system.netns import Namespace

CONFINEMENT: Final = as_units.ROLE / "files/confinement/apparmor"
DAEMONS: Final = ("doorward-listener", "doorward-helper", "doorward-exec")
CLIENT: Final = "doorward-client"
SETTINGS: Final = """\
AUDIT_FILE /var/log/doorward/audit.log;
METRICS_FILE /var/lib/prometheus/node-exporter/doorward.prom;
ENABLE_TCP_SERVER Y;
TCPSERV_PORT 62201;
"""
OTHER_KEY: Final = KEY.replace("a2tra2", "bGtra2")
COMMANDS: Final = f"SOURCE ANY\nNAME commands\n{OTHER_KEY}\n{HMAC_KEY}\nENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody\n\n"
PORTS: Final = f"SOURCE ANY\nNAME laptop\n{KEY}\n{HMAC_KEY}\nOPEN_PORTS tcp/22\nREQUIRE_SOURCE_ADDRESS N\n\n"
METRICS: Final = "var/lib/prometheus/node-exporter/doorward.prom"
COMMAND: Final = ("doorward", "knock", "-n", "commands", "--server-cmd", "id")
PLANTED: Final = {
    "reads": "open('/etc/shadow').close()",
    "writes": "open('/etc/passwd', 'a').close()",
    "runs": "import os; os.execv('/usr/bin/true', ['true'])",
    "dials": "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()",
}


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    return {name: profile for file in CONFINEMENT.iterdir() for name, profile in apparmor_rules.profiles(file).items()}


def test_there_is_a_profile_for_each_process_and_each_unit_names_its_own(profiles: dict[str, Profile]) -> None:
    assert set(profiles) == {*DAEMONS, CLIENT}
    named = {}
    for unit in (as_units.ROLE / "templates").glob("*.service.j2"):
        named[unit.name] = unit.read_text("utf-8").partition("\nAppArmorProfile=-")[2].partition("\n")[0]
    assert named == {
        "doorwardd.service.j2": "doorward-listener",
        "doorward-helper.service.j2": "doorward-helper",
        "doorward-exec.service.j2": "doorward-exec",
    }
    assert f"'exec {CLIENT}'" in (as_units.ROLE / "templates/launcher.j2").read_text("utf-8")


@pytest.fixture(scope="module")
def traced() -> Iterator[Host]:
    """What the processes did from their start to their end: knocks for a port and for a command, a reload."""
    with tempfile.TemporaryDirectory(prefix="doorward-") as folder, netns.network("host", "client") as (host, client):
        Path(folder).chmod(0o711)
        with as_units.host(host, Path(folder)) as on, listener(host) as accepting:
            sections = (("ports", "ACCESS tcp/22", KEY), ("commands", "", OTHER_KEY))
            rc = "".join(_section(name, host.ipv4, access, key) for name, access, key in sections)
            on.write("/home/ann/.fwknoprc", rc, owner=as_units.GUEST)
            with as_units.daemons(on, PORTS + COMMANDS, SETTINGS) as process:
                until(on, "name=laptop", lambda: on.person(client, "doorward", "knock", "-n", "ports"))
                until(on, "name=commands", lambda: on.person(client, *COMMAND))
                os.kill(process, signal.SIGHUP)
                on.wait_for("doorward-listener", "stanzas from /etc/doorward/access.conf", count=2)
                assert eventually((on.root / METRICS).exists, 60)
            threading.Thread(target=_accept, args=(accepting,), daemon=True).start()
            on.person(client, "doorward", "connect", host.ipv4, "22", name="connect")
            for name, code in PLANTED.items():
                on.planted(name, code)
            yield on


def _accept(accepting: socket.socket) -> None:
    accepting.accept()[0].close()


def _section(name: str, address: str, access: str, key: str) -> str:
    keys = "\n".join(line.replace(":", " ") for line in (key, HMAC_KEY))
    return f"[{name}]\nSPA_SERVER {address}\nALLOW_IP source\nUSE_HMAC Y\n{access}\n{keys}\n"


def until(on: Host, words: str, knock: Callable[[], object]) -> None:
    """Knock until the listener has said it: a new store refuses packets of the second of the start."""
    for _ in range(10):
        knock()
        with contextlib.suppress(AssertionError):
            on.wait_for("doorward-listener", words, within=20)
            return
    raise AssertionError(on.log("doorward-listener"))


def test_the_profiles_allow_what_the_processes_do(profiles: dict[str, Profile], traced: Host) -> None:
    for name in (*DAEMONS, CLIENT):
        needed = traced.accesses(name)
        assert len(needed) > 50, "a trace of a whole Python"
        assert apparmor_rules.missing(profiles[name], needed) == []
    assert apparmor_rules.missing(profiles[CLIENT], traced.accesses("connect")) == []


def test_an_access_that_a_profile_does_not_name_is_found(profiles: dict[str, Profile], traced: Host) -> None:
    listener_has = profiles["doorward-listener"]
    found = {name: apparmor_rules.missing(listener_has, traced.accesses(name)) for name in PLANTED}
    assert found == {
        "reads": ["/etc/shadow r"],
        "writes": ["/etc/passwd w"],
        "runs": ["/usr/bin/true m", "/usr/bin/true r", "/usr/bin/true x"],
        "dials": ["inet stream network"],
    }


def test_the_kernel_enforces_the_profile_or_check_says_that_it_cannot(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    if confinement.APPARMOR in confinement.modules():
        assert denied(tmp_path) == set(PLANTED)
        return
    host, _ = pair
    with doorwardd(host, tmp_path):
        said = host.run(*command("check", *files(tmp_path), "--report"), env=environment(), check=False).stdout
    assert re.search(r"^ok +daemon +runs, PID", said, re.MULTILINE)
    assert confinement.SELINUX in confinement.modules() or "no profile can be" in said, said


def denied(folder: Path) -> set[str]:
    """What an enforced copy of the listener's profile, loaded under another name, refuses of PLANTED."""
    text = (CONFINEMENT / "doorwardd").read_text("utf-8").partition("\n# The helper")[0]
    copy = folder / "copy"
    copy.write_text(text.replace(", complain", "").replace("doorward-listener", "doorward-tested"), "utf-8")
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache", str(copy)], check=True)
    try:
        return {name for name, code in PLANTED.items() if "PermissionError" in _under_it(code)}
    finally:
        subprocess.run(["apparmor_parser", "--remove", str(copy)], check=True)


def _under_it(code: str) -> str:
    words = ["aa-exec", "--profile", "doorward-tested", "--", "/usr/bin/python3", "-I", "-c"]
    assert subprocess.run([*words, "print(1)"], check=True, capture_output=True, text=True).stdout == "1\n"
    return subprocess.run([*words, code], check=False, capture_output=True, text=True).stderr
