"""First aid: the script that needs neither Python nor the archive, and the ports of sshd as it and `doorward open` see.

With systemd, whose unit the failure policy watches: tests/playbooks/test_lockouts.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.firewall import deadman, ruleset
from doorward.firewall.libnftables import Libnftables
from doorward.host import sshd as sshd_here
from system import netns
from system.process_timer import ProcessTimer
from system.ssh_server import sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from system.netns import Namespace

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "collections/ansible_collections/doorward/spa/roles/firewall/files/first-aid"
CHAIN = "chain input { type filter hook input priority 0; policy drop; };"
TABLE = f"table inet doorward {{ {ruleset.SETS} {CHAIN} }}\n"
GATE = "table inet doorward_gate { }\n"
MARK = 'comment "failure policy"'
PR_SET_NAME = 15
# With a place for the failure policy that is not the machine's own.
HIDDEN = """
mount -t tmpfs none /etc
mkdir /etc/doorward
[ -z "$1" ] || echo "$1" > /etc/doorward/failure-policy
shift
exec "$@"
"""


def aid(ns: Namespace, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing in its environment."""
    return ns.run("env", "-i", "/bin/sh", str(SCRIPT), *words, check=False, cwd="/")


def by_script(ns: Namespace) -> list[int]:
    return [int(port) for port in aid(ns, "ports").stdout.split()]


def by_python(ns: Namespace) -> list[int]:
    with ns.inside():
        return list(sshd_here.ports())


BOTH = pytest.mark.parametrize("ports", [by_script, by_python])


def opened(ns: Namespace) -> str:
    """The elements of the set for everybody."""
    return ns.run("nft", "list", "set", "inet", "doorward", "open_any", check=False).stdout


@BOTH
def test_the_ports_are_those_at_which_sshd_listens(
    ns: Namespace, tmp_path: Path, ports: Callable[[Namespace], list[int]]
) -> None:
    with sshd(ns, tmp_path, 2222, 7022):
        assert ports(ns) == [2222, 7022]


@BOTH
def test_sshd_of_another_network_and_a_users_process_of_that_name_do_not_count(
    ns: Namespace, tmp_path: Path, ports: Callable[[Namespace], list[int]]
) -> None:
    with (
        netns.namespace("container") as container,
        sshd(container, tmp_path, 4444),
        ns.process(sys.executable, "-c", PRETENDER, "65534", "5555") as pretender,
        ns.process(sys.executable, "-c", PRETENDER, "0", "6666") as root,
    ):
        for process in (pretender, root):
            assert process.stdout is not None
            assert process.stdout.readline() == "listens\n"
        assert ports(ns) == [6666], "root's would have been seen"


PRETENDER = f"""
import ctypes, os, socket, sys, time
user, port = int(sys.argv[1]), int(sys.argv[2])
server = socket.create_server(("0.0.0.0", port))
os.setuid(user)
ctypes.CDLL(None).prctl({PR_SET_NAME}, b"sshd")
print("listens", flush=True)
time.sleep(600)
"""


@BOTH
def test_where_nothing_listens_sshds_configuration_says_it(
    ns: Namespace, ports: Callable[[Namespace], list[int]]
) -> None:
    assert ports(ns) == (sshd_here.configured() or [22])


def test_open_opens_ssh_to_everybody_for_a_while(ns: Namespace, tmp_path: Path) -> None:
    ns.nft(TABLE)
    with sshd(ns, tmp_path, 2222):
        done = aid(ns, "open")
        assert (done.returncode, done.stdout) == (0, "open to everybody for 15m: tcp/2222\n")
        assert "tcp . 2222 timeout 15m expires 14m5" in opened(ns)
        assert aid(ns, "open", "90").returncode == 0
        assert "tcp . 2222 timeout 1m30s" in opened(ns), "renewed"
        assert MARK not in opened(ns)


@pytest.mark.parametrize("time", ["x", "15x", "0", "-1m", "1d", "15m }; flush ruleset", ""])
def test_a_time_that_is_none_opens_nothing(ns: Namespace, time: str) -> None:
    ns.nft(TABLE)
    done = aid(ns, "open", time) if time else aid(ns, "open", "m")
    assert done.returncode == 1
    assert "is not a time" in done.stderr
    assert "expires" not in opened(ns)
    assert "hook input" in ns.run("nft", "list", "ruleset").stdout


def test_without_a_table_there_is_nothing_to_open_and_an_older_one_is_only_removed(ns: Namespace) -> None:
    assert "keeps nothing closed here" in aid(ns, "open").stderr
    ns.nft(TABLE.replace("open_any", "other"))
    done = aid(ns, "open")
    assert done.returncode == 1
    assert "`doorward-first-aid stop` removes the table" in done.stderr


def test_stop_removes_our_tables_and_no_other(ns: Namespace) -> None:
    ns.nft(f"{TABLE}{GATE}table inet other {{ }}\n")
    done = aid(ns, "stop")
    assert done.returncode == 0, done.stderr
    assert "THE HOST IS OPEN" in done.stdout
    assert ns.run("nft", "list", "tables").stdout == "table inet other\n"
    assert aid(ns, "stop").returncode == 0


def test_stop_tells_where_the_table_comes_back(ns: Namespace, tmp_path: Path) -> None:
    (tmp_path / "table.nft").write_text(TABLE)
    again = f"while sleep 0.2; do nft list table inet doorward >/dev/null 2>&1 || nft -f {tmp_path}/table.nft; done"
    with ns.process("sh", "-c", again, stderr=subprocess.DEVNULL):
        done = aid(ns, "stop")
    assert done.returncode == 1
    assert "the table is back" in done.stderr
    assert "OPEN" not in done.stdout


def test_stop_takes_back_what_is_pending_else_its_end_would_close_the_host(ns: Namespace, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    timer = ProcessTimer(tmp_path)
    new = tmp_path / "new.nft"
    new.write_text(TABLE.replace("policy drop", "policy accept"))
    ns.nft(TABLE)
    switch = tmp_path / "fw"
    with ns.inside():
        deadman.DeadMansSwitch(switch, timer, Libnftables(), lambda: "a" * 32).apply(deadman.examine(new), 600)
    script = 'mount -t tmpfs none /run; mkdir /run/doorward; mount --bind "$0" /run/doorward; exec /bin/sh "$@"'
    try:
        done = ns.run("unshare", "--mount", "sh", "-c", script, str(tmp_path), str(SCRIPT), "stop")
    finally:
        timer.disarm()
    assert "THE HOST IS OPEN" in done.stdout
    assert not (switch / "pending").exists()
    assert ns.run("nft", "list", "tables").stdout == ""


def test_without_words_it_says_what_it_can_do(ns: Namespace) -> None:
    assert "doorward-first-aid open [TIME]" in aid(ns).stdout
    assert aid(ns, "nonsense").returncode == 2


# ---- the failure policy, where systemd does not say that doorwardd answers ------------------------------------------


@contextlib.contextmanager
def watched(ns: Namespace, policy: str, log: Path, patience: int = 2) -> Iterator[Callable[[], str]]:
    """Have the failure policy watch; yields what it has said."""
    environment = {**os.environ, "PATIENCE": str(patience)}
    words = ("unshare", "--mount", "sh", "-c", HIDDEN, "sh", policy, "/bin/sh", str(SCRIPT), "watch")
    with log.open("w") as stream, ns.process(*words, stdout=stream, stderr=stream, env=environment):
        yield log.read_text


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def test_with_open_ssh_the_policy_opens_sshd_and_does_so_again_in_a_new_table(ns: Namespace, tmp_path: Path) -> None:
    ns.nft(TABLE)
    log = tmp_path / "log"
    with sshd(ns, tmp_path, 2222), watched(ns, "open_ssh", log) as said:
        assert eventually(lambda: "IS OPEN TO EVERYBODY" in said())
        assert "tcp . 2222 timeout 5m expires 4m5" in opened(ns)
        assert MARK in opened(ns)
        ns.nft(ruleset.swap(TABLE))
        assert eventually(lambda: MARK in opened(ns))
        ns.nft(ruleset.swap(TABLE.replace("open_any", "other")))
        assert eventually(lambda: "tcp/2222 CANNOT BE OPENED" in said())
        ns.nft(ruleset.swap(TABLE))
        assert eventually(lambda: MARK in opened(ns))
        assert eventually(lambda: said().count("IS OPEN TO EVERYBODY") == 2)
    assert len(said().splitlines()) == 3, "one loud line each time"
    assert all(line.startswith("<3>NOBODY ANSWERS KNOCKS (systemd does not answer): ") for line in said().splitlines())


def test_the_policy_leaves_alone_what_was_opened_manually(ns: Namespace, tmp_path: Path) -> None:
    ns.nft(TABLE)
    with sshd(ns, tmp_path, 2222), watched(ns, "open_ssh", tmp_path / "log", patience=6) as said:
        aid(ns, "open", "1h")
        assert eventually(lambda: "IS OPEN" in said())
        assert "timeout 1h" in opened(ns)
        assert MARK not in opened(ns)


@pytest.mark.parametrize("policy", ["closed", "fallback", "", "nonsense"])
def test_other_policies_open_nothing_and_say_so_once(ns: Namespace, tmp_path: Path, policy: str) -> None:
    ns.nft(TABLE)
    with sshd(ns, tmp_path, 2222), watched(ns, policy, tmp_path / "log", patience=0) as said:
        assert eventually(lambda: f"failure policy {'fallback' if policy == 'fallback' else 'closed'}, " in said())
        time.sleep(5)
    assert len(said().splitlines()) == 1
    assert "expires" not in opened(ns)


def test_a_policy_that_is_changed_meanwhile_takes_effect(ns: Namespace, tmp_path: Path) -> None:
    ns.nft(TABLE)
    policy = tmp_path / "failure-policy"
    policy.write_text("open_ssh\n")
    script = tmp_path / "first-aid"
    script.write_text(SCRIPT.read_text().replace("/etc/doorward/failure-policy", str(policy)))
    environment = {**os.environ, "PATIENCE": "0"}
    with sshd(ns, tmp_path, 2222), ns.process("/bin/sh", str(script), "watch", env=environment):
        assert eventually(lambda: MARK in opened(ns))
        policy.write_text("closed\n")
        assert eventually(lambda: MARK not in opened(ns))
        policy.write_text("open_ssh\n")
        assert eventually(lambda: MARK in opened(ns))


@pytest.mark.parametrize("table", ["", ruleset.observe(), f"{TABLE}add table inet doorward {{ flags dormant; }}\n"])
def test_where_nothing_is_closed_the_policy_says_nothing(ns: Namespace, tmp_path: Path, table: str) -> None:
    if table:
        ns.nft(table)
    with sshd(ns, tmp_path, 2222), watched(ns, "open_ssh", tmp_path / "log", patience=0) as said:
        time.sleep(5)
        assert said() == ""
        ns.nft(ruleset.swap(TABLE))
        assert eventually(lambda: "IS OPEN TO EVERYBODY" in said())


def test_the_script_is_plain_sh() -> None:
    subprocess.run(["sh", "-n", str(SCRIPT)], check=True)
    bashisms = re.compile(r"\[\[|\bfunction\b|\blocal\b |<<<|&>")
    assert not bashisms.search(SCRIPT.read_text())
    assert bashisms.search("[[ a ]]")
