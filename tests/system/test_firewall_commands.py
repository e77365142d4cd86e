from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import ipaddress
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doorward.commands.journal import Cycle, Journal, Moment
from doorward.errors import FirewallError
from doorward.firewall import deadman, ruleset
from doorward.firewall.deadman import SystemdTimer
from doorward.firewall.libnftables import Libnftables
from doorward.firewall.nftables import Nftables
from doorward.firewall.standing import Word
from doorward.host import commands as host_commands
from doorward.host import here
from doorward.host.here import Host
from doorward.linux.files import replace_file
from doorward.values import FirewallMode, Grant, Protocol, Service
from system.process_timer import ProcessTimer
from system.ssh_server import sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from system.netns import Namespace

SSH = Service(Protocol.TCP, 22)
KNOCK = Service(Protocol.UDP, 62201)
FALLBACK = "set fallback4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.0.0/16 }; };"
CHAIN = "chain input { type filter hook input priority 0; policy %s; ip saddr @fallback4 accept; };"
OLD = f"table inet doorward {{ {ruleset.SETS} {FALLBACK} {CHAIN % 'accept'} }}\n"
NEW = f"table inet doorward {{ {ruleset.SETS} {FALLBACK} {CHAIN % 'drop'} }}\n"
ROOT = Path(__file__).parents[2]


@dataclass
class Site:
    """One namespace with the commands of a host, on files of its own."""

    ns: Namespace
    folder: Path
    host: Host
    timer: ProcessTimer

    @property
    def persisted(self) -> Path:
        return self.folder / "etc" / "firewall.nft"

    @property
    def pid_file(self) -> Path:
        return self.folder / "doorwardd.pid"

    def run(self, *words: str) -> str:
        """Run `doorward …` and return what it prints; the exit code is 0, of `status` 1 where no daemon runs."""
        code, text = self.run_code(*words)
        assert code in ((0, 1) if words[0] == "status" else (0,))
        return text

    def run_code(self, *words: str) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        host_commands.add_commands(parser.add_subparsers(required=True), self.host)
        arguments = parser.parse_args(words)
        said = io.StringIO()
        with self.ns.inside(), contextlib.redirect_stdout(said):
            code = arguments.run(arguments)
        return code, said.getvalue().strip()

    def apply(self, text: str = NEW, deadline: int = 60) -> str:
        reply = json.loads(self.run("firewall", "apply", str(self.file(text)), "--deadline", str(deadline), "--json"))
        assert reply["deadline"] == deadline
        return str(reply["token"])

    def file(self, text: str) -> Path:
        file = self.folder / "new.nft"
        file.write_text(text)
        return file

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json"))
        return found

    def table(self) -> str:
        return self.ns.run("nft", "-s", "list", "ruleset").stdout

    def grants(self) -> list[str]:
        return [f"{grant['source']} {grant['service']}" for grant in self.status()["grants"]]

    def wait_until_settled(self) -> None:
        """Return once the timer has run and nothing is pending."""
        end = time.monotonic() + 30
        while self.status()["pending"] or self.timer.armed():
            assert time.monotonic() < end, "the rollback never came"
            time.sleep(0.05)


@pytest.fixture
def site(ns: Namespace, tmp_path: Path) -> Iterator[Site]:
    timer = ProcessTimer(tmp_path)
    configuration = tmp_path / "doorwardd.conf"
    configuration.write_text(
        f"FIREWALL_FILE {tmp_path}/etc/firewall.nft;\nFWKNOP_PID_FILE {tmp_path}/doorwardd.pid;\n"
        f"ACCESS_FILE {tmp_path}/access.conf;\n"
    )
    tmp_path.chmod(0o700)
    made = Site(ns, tmp_path, Host(configuration, tmp_path / "fw", timer), timer)
    yield made
    timer.disarm()


def test_a_confirmed_table_stays_and_is_written_for_the_next_boot(site: Site) -> None:
    site.ns.nft(OLD)
    token = site.apply()
    assert site.status()["table"] == "drop"
    assert site.status()["pending"] is True
    assert site.timer.armed()
    assert not site.persisted.exists()
    site.run("firewall", "confirm", token)
    assert site.status()["pending"] is False
    assert not site.timer.armed()
    assert site.persisted.read_text() == ruleset.swap(NEW)
    assert site.persisted.stat().st_mode & 0o777 == 0o600
    before = site.table()
    site.ns.run("nft", "-f", str(site.persisted))
    assert site.table() == before
    with pytest.raises(FirewallError, match="not pending"):
        site.run("firewall", "confirm", token)


def test_without_a_confirmation_the_old_table_is_back_whole_and_nothing_is_written(site: Site) -> None:
    site.ns.nft(OLD)
    before = site.table()
    assert "192.168.0.0/16" in before
    site.ns.nft("add element inet doorward open4 { 192.0.2.7 . tcp . 22 timeout 1h }")
    token = site.apply(deadline=1)
    assert site.status()["table"] == "drop"
    site.wait_until_settled()
    assert site.table() == before  # with its fixed elements, without the grant of then
    assert not site.persisted.exists()
    with pytest.raises(FirewallError, match="not pending"):
        site.run("firewall", "confirm", token)
    assert site.table() == before
    assert not site.persisted.exists()


def test_where_there_was_no_table_there_is_none_again(site: Site) -> None:
    site.ns.nft("table ip other { }")
    site.apply(deadline=1)
    assert site.status()["table"] == "drop"
    site.wait_until_settled()
    assert site.status()["table"] == "absent"
    assert "table ip other" in site.table()


def test_a_second_apply_while_one_is_pending_is_refused_and_changes_nothing(site: Site) -> None:
    token = site.apply()
    before, moment = site.table(), (site.folder / "fw" / "moment").read_text()
    with pytest.raises(FirewallError, match=r"is pending for (60|5\d) s more"):
        site.apply(OLD, deadline=3600)
    assert site.table() == before
    assert (site.folder / "fw" / "moment").read_text() == moment
    assert 50 <= site.status()["pending_seconds"] <= 60
    site.run("firewall", "confirm", token)
    assert site.persisted.read_text() == ruleset.swap(NEW)
    site.apply(OLD)


@pytest.mark.parametrize("token", ["", "0" * 32, "é", "$(id)", "*", "\n"])
def test_a_wrong_token_neither_confirms_nor_rolls_back(site: Site, token: str) -> None:
    right = site.apply()
    before = site.table()
    with pytest.raises(FirewallError, match="not pending"):
        site.run("firewall", "confirm", token)
    if token:
        assert "not pending" in site.run("firewall", "rollback", token)
    assert site.table() == before
    assert site.timer.armed()
    assert not site.persisted.exists()
    site.run("firewall", "confirm", right)


def test_a_rollback_by_hand_restores_at_once_and_ends_the_timer(site: Site) -> None:
    site.ns.nft(OLD)
    before = site.table()
    token = site.apply()
    assert "the previous one is back" in site.run("firewall", "rollback", token)
    assert site.table() == before
    assert not site.timer.armed()
    assert site.run("firewall", "rollback") == "nothing is pending"
    site.apply()
    assert "the previous one is back" in site.run("firewall", "rollback")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        NEW.replace("policy drop", "policy dorp"),
        f"{NEW}flush ruleset\n",
        f"{NEW}table ip other {{ }}\n",
        f'{NEW}include "/etc/hosts"\n',
        "table inet doorward { }\n",
        "table inet doorward { set open4 { type ipv4_addr; flags timeout; }; set open6 { type ipv6_addr; }; }\n",
        NEW.replace("ip saddr @fallback4", 'iif "eth7"'),
        "",
        NEW + "#" * (1 << 20),
    ],
)
def test_a_bad_table_text_is_refused_and_leaves_everything(site: Site, text: str) -> None:
    site.ns.nft(f"{OLD}table ip keep {{ }}")
    before = site.table()
    with pytest.raises(FirewallError, match=r"new\.nft|line \d"):
        site.apply(text)
    assert site.table() == before
    assert not site.timer.armed()
    assert not (site.folder / "fw" / "pending").exists()
    site.apply()  # and the next good one is not in its way


def test_a_file_that_is_not_there_is_an_error(site: Site) -> None:
    with pytest.raises(FirewallError, match="No such file"):
        site.run("firewall", "apply", f"{site.folder}/missing", "--deadline", "60")


@dataclass(frozen=True)
class SabotagedTimer:
    """A timer that arms, then does something."""

    timer: ProcessTimer
    sabotage: Callable[[], None]

    def arm(self, seconds: int, command: Sequence[str]) -> None:
        self.timer.arm(seconds, command)
        self.sabotage()

    def disarm(self) -> None:
        self.timer.disarm()


def sabotaged(site: Site, sabotage: Callable[[], None]) -> None:
    site.host = Host(site.host.configuration, site.host.switch_folder, SabotagedTimer(site.timer, sabotage))


def test_when_arming_fails_nothing_is_applied(site: Site) -> None:
    def fail() -> None:
        site.timer.disarm()
        message = "no timer today"
        raise FirewallError(message)

    site.ns.nft(OLD)
    before = site.table()
    sabotaged(site, fail)
    with pytest.raises(FirewallError, match="no timer today"):
        site.apply()
    assert site.table() == before
    assert site.status()["pending"] is False


def test_without_systemd_arming_is_refused(site: Site) -> None:
    script = "from doorward.firewall.deadman import SystemdTimer; SystemdTimer().arm(60, ['true'])"
    hidden = 'mount -t tmpfs none /run && exec "$0" -c "$1"'
    done = site.ns.run(
        "unshare", "-m", "sh", "-c", hidden, sys.executable, script,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
    )  # fmt: skip
    assert "systemd does not run this host" in done.stderr
    assert done.returncode
    SystemdTimer().disarm()  # nothing to forget is no error


@pytest.mark.parametrize("name", ["pending", "applied.json"])
def test_an_apply_that_fails_after_arming_leaves_the_old_table_and_no_timer(site: Site, name: str) -> None:
    site.ns.nft(OLD)
    before = site.table()
    sabotaged(site, (site.folder / "fw" / f".{name}.{os.getpid()}.new").mkdir)
    with pytest.raises(FirewallError, match=name):
        site.apply()
    assert site.table() == before
    assert not site.timer.armed()
    assert site.status()["pending"] is False


KILLED = """
import os, pathlib, signal, sys
from doorward.firewall import deadman, libnftables
from system.process_timer import ProcessTimer

folder, moment = pathlib.Path(sys.argv[1]), sys.argv[2]

class Nft(libnftables.Libnftables):
    def run(self, commands, output=libnftables.Output(0)):
        swap = "policy drop" in commands and (folder / "fw" / "pending").exists()
        if swap and moment == "before the swap":
            os.kill(os.getpid(), signal.SIGKILL)
        said = super().run(commands, output)
        if swap and moment == "after the swap":
            os.kill(os.getpid(), signal.SIGKILL)
        return said

class Timer(ProcessTimer):
    def arm(self, seconds, command):
        if moment == "before arming":
            os.kill(os.getpid(), signal.SIGKILL)
        super().arm(seconds, command)
        if moment == "after arming":
            os.kill(os.getpid(), signal.SIGKILL)

switch = deadman.DeadMansSwitch(folder / "fw", Timer(folder), Nft(), lambda: "a" * 32)
switch.apply(deadman.examine(folder / "new.nft"), 2)
if moment != "never":
    sys.exit("it was to be killed")
"""


@pytest.mark.parametrize("moment", ["before arming", "after arming", "before the swap", "after the swap", "never"])
def test_an_apply_killed_at_any_moment_ends_in_the_old_table(site: Site, moment: str) -> None:
    site.ns.nft(OLD)
    before = site.table()
    site.file(NEW)
    path = os.pathsep.join((str(ROOT / "daemon"), str(ROOT / "tests")))
    done = site.ns.run(
        sys.executable, "-c", KILLED, str(site.folder), moment, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == (0 if moment == "never" else -9), done.stderr
    swapped = moment in {"after the swap", "never"}
    assert (site.status()["table"] == "drop") is swapped
    site.wait_until_settled()
    assert site.table() == before
    assert not site.persisted.exists()
    site.run("firewall", "confirm", site.apply())


def test_confirm_and_the_timer_at_the_same_moment_end_in_one_of_two_states(site: Site) -> None:
    script = site.folder / "fw" / "rollback.sh"
    chance = random.Random(1)  # noqa: S311  the test's spread, no secret
    outcomes = {True: 0, False: 0}
    for turn in range(40):
        site.ns.nft(ruleset.swap(OLD))
        before = site.table()
        site.persisted.unlink(missing_ok=True)
        token = site.apply()
        site.timer.disarm()  # this test is the timer
        delay = 1 if turn == 0 else chance.uniform(0, 0.02)
        with site.ns.process("sh", "-c", f'sleep {delay:.4f}; exec sh "$0" "$1"', str(script), token) as rollback:
            if turn == 1:
                rollback.wait(10)
            time.sleep(0 if turn == 0 else chance.uniform(0, 0.03))
            try:
                site.run("firewall", "confirm", token)
                confirmed = True
            except FirewallError as error:
                assert "not pending" in str(error)  # noqa: PT017  either outcome is right, and checked below
                confirmed = False
            assert rollback.wait(10) == 0
        outcomes[confirmed] += 1
        assert site.persisted.exists() is confirmed
        assert (site.table() == before) is not confirmed
        assert (site.status()["table"] == "drop") is confirmed
        assert site.status()["pending"] is False
    assert all(outcomes.values()), outcomes


def test_a_previous_table_that_does_not_load_any_more_leaves_no_wall(site: Site) -> None:
    site.ns.nft(OLD)
    site.apply()
    (site.folder / "fw" / "previous.nft").write_text("nonsense\n")
    assert "THE HOST IS OPEN" in site.run("firewall", "rollback")
    assert site.status()["table"] == "absent"
    assert site.status()["pending"] is False


WITHOUT = """
for program in {programs}; do mount --bind /dev/null "$(command -v $program)"; done
exec sh "$0" "$1"
"""


def without(site: Site, token: str, *programs: str) -> subprocess.CompletedProcess[str]:
    """Run the rollback script where these programs cannot be started."""
    script = str(site.folder / "fw" / "rollback.sh")
    words = ("unshare", "--mount", "sh", "-c", WITHOUT.format(programs=" ".join(programs)), script, token)
    return site.ns.run(*words, check=False)


def test_a_rollback_without_nft_does_not_say_that_the_host_is_open_and_stays_pending(site: Site) -> None:
    site.ns.nft(OLD)
    before = site.table()
    token = site.apply()
    failed = without(site, token, "nft")
    assert failed.returncode == 1
    assert "OPEN" not in failed.stdout
    assert "CANNOT BE RESTORED" in failed.stderr
    assert site.status()["pending"] is True
    assert "the previous one is back" in without(site, token).stdout
    assert site.table() == before


@pytest.mark.parametrize("hidden", [["flock"], []], ids=["no flock", "a lock that nobody releases"])
def test_a_rollback_does_not_need_the_lock(site: Site, hidden: list[str]) -> None:
    site.ns.nft(OLD)
    before = site.table()
    token = site.apply()
    with (site.folder / "fw" / "lock").open("r+") as lock:
        if not hidden:
            fcntl.flock(lock, fcntl.LOCK_EX)
        done = without(site, token, *hidden)
    assert "the previous one is back" in done.stdout
    assert site.table() == before


def test_a_rollback_that_fails_is_tried_until_it_holds(site: Site) -> None:
    site.ns.nft(OLD)
    before = site.table()
    site.apply(deadline=1)
    files = [site.folder / "fw" / name for name in ("previous.nft", "absent.nft")]
    good = [file.read_text() for file in files]
    for file in files:
        file.write_text("nonsense\n")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert site.status()["pending"] is True
    assert site.timer.armed(), "it still tries"
    assert site.status()["pending_seconds"] == 0
    # Not the other one: an attempt that just found no previous table would be content with it.
    replace_file(files[0], good[0].encode())
    site.wait_until_settled()
    assert site.table() == before


def test_the_timers_command_runs_at_its_moment_by_the_clock_of_the_boot_or_when_it_is_to_end(tmp_path: Path) -> None:
    def begun(seconds: int, name: str) -> subprocess.Popen[bytes]:
        moment = int(float(Path("/proc/uptime").read_text().split()[0])) + seconds
        return subprocess.Popen(["sh", "-c", deadman.AT, "sh", str(moment), "touch", str(tmp_path / name)])

    with begun(2, "at its moment") as waiting:
        assert not (tmp_path / "at its moment").exists()
        assert waiting.wait(30) == 0
    assert (tmp_path / "at its moment").exists()
    with begun(3600, "told to end") as waiting:
        time.sleep(1)
        assert not (tmp_path / "told to end").exists()
        waiting.terminate()
        assert waiting.wait(30) == 0
    assert (tmp_path / "told to end").exists()


def test_a_folder_that_others_may_write_to_is_refused(site: Site) -> None:
    for folder in (site.folder / "fw", site.folder):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        with pytest.raises(FirewallError, match="belong to root alone"):
            site.apply()
        folder.chmod(0o700)
    assert site.status()["table"] == "absent"
    os.chown(site.folder / "fw", 65534, 65534)
    with pytest.raises(FirewallError, match="belong to root alone"):
        site.apply()


def test_a_table_that_somebody_replaced_meanwhile_is_not_confirmed(site: Site) -> None:
    token = site.apply()
    site.ns.nft(ruleset.swap(OLD))
    with pytest.raises(FirewallError, match="it was replaced meanwhile"):
        site.run("firewall", "confirm", token)
    assert site.timer.armed()
    assert not site.persisted.exists()


def test_a_confirmation_that_cannot_be_written_leaves_the_timer_armed(site: Site) -> None:
    site.persisted.parent.write_text("a file where the folder should be")
    token = site.apply()
    with pytest.raises(FirewallError):
        site.run("firewall", "confirm", token)
    assert site.timer.armed()
    assert site.status()["pending"] is True
    site.persisted.parent.unlink()
    site.run("firewall", "confirm", token)


def test_a_full_disk_leaves_the_old_file_whole(ns: Namespace, tmp_path: Path) -> None:
    script = (
        'mount -t tmpfs -o size=8k none "$1" && echo old > "$1/f" && '
        '(dd if=/dev/zero of="$1/fill" bs=1k count=99 2>/dev/null; :) && '
        '"$0" -c \'import sys, pathlib; from doorward.linux.files import replace_file;'
        'replace_file(pathlib.Path(sys.argv[1]) / "f", bytes(5000))\' "$1"; echo code $?; cat "$1/f"'
    )
    done = ns.run(
        "unshare", "-m", "sh", "-c", script, sys.executable, str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
    )  # fmt: skip
    assert done.stdout == "code 1\nold\n"
    assert "No space left" in done.stderr
    replace_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"


def test_check_tells_what_would_change_and_changes_nothing(site: Site) -> None:
    wanted = str(site.file(NEW))
    reply = json.loads(site.run("firewall", "check", wanted, "--json"))
    assert reply["changed"] is True
    assert "+++ " in reply["diff"]
    assert site.table() == ""
    site.run("firewall", "confirm", site.apply())
    site.run("open", "tcp/22", "--from", "192.0.2.7", "--for", "1h")
    assert json.loads(site.run("firewall", "check", wanted, "--json")) == {"changed": False, "diff": ""}
    assert site.run("firewall", "check", wanted) == "the table is as the file says"
    changed = site.file(NEW.replace("192.168.0.0/16", "172.16.0.0/12"))
    assert "+\t\telements = { 10.0.0.0/8, 172.16.0.0/12 }" in site.run("firewall", "check", str(changed))


def test_show_prints_the_table_without_grants(site: Site) -> None:
    with pytest.raises(FirewallError, match="there is no table"):
        site.run("firewall", "show")
    site.ns.nft(OLD)
    shown = site.run("firewall", "show")
    assert "192.168.0.0/16" in shown
    site.run("open", "tcp/22", "--from", "192.0.2.7", "--for", "1h")
    assert site.grants() == ["192.0.2.7 tcp/22"]
    assert site.run("firewall", "show") == shown


def test_open_and_close_by_hand(site: Site) -> None:
    site.ns.nft(OLD)
    site.run("open", "tcp/22", "udp/53", "--from", "192.0.2.7", "--for", "15m")
    site.run("open", "tcp/22", "--from", "2001:db8::7", "--for", "90s")
    site.run("open", "tcp/22", "--for", "1h")
    assert site.grants() == ["any tcp/22", "192.0.2.7 tcp/22", "192.0.2.7 udp/53", "2001:db8::7 tcp/22"]
    rests = [grant["remaining"] for grant in site.status()["grants"]]
    assert [round(rest, -2) for rest in rests] == [3600, 900, 900, 100]
    assert "open: any tcp/22 for" in site.run("status")
    assert site.run("close", "--from", "192.0.2.7") == "closed 2 of 192.0.2.7"
    assert site.grants() == ["any tcp/22", "2001:db8::7 tcp/22"]
    site.run("close")
    assert site.grants() == []


def test_open_without_a_service_opens_sshds_own_ports_whatever_our_files_say(site: Site) -> None:
    site.ns.nft(OLD)
    (site.folder / "access.conf").write_text("SOURCE ANY\nOPEN_PORTS tcp/4444\nNONSENSE 1\n")
    site.host.configuration.write_text("NONSENSE 1;\n")
    with sshd(site.ns, site.folder, 2222, 2223):
        said = site.run("open", "--for", "15m")
    assert said == "open to everybody for 900 s: tcp/2222 tcp/2223"
    assert site.grants() == ["any tcp/2222", "any tcp/2223"]


def test_open_needs_a_table_and_a_set_for_everybody(site: Site) -> None:
    with pytest.raises(FirewallError, match="there is no table"):
        site.run("open", "tcp/22", "--for", "15m")
    site.ns.nft(OLD.replace("open_any", "other_set"))
    with pytest.raises(FirewallError, match="--from"):
        site.run("open", "tcp/22", "--for", "15m")
    site.run("open", "tcp/22", "--for", "15m", "--from", "192.0.2.7")


@pytest.mark.parametrize(
    "words",
    [
        ["open", "tcp/0", "--for", "15m"],
        ["open", "tcp/65536", "--for", "15m"],
        ["open", "ssh", "--for", "15m"],
        ["open", "tcp/22"],
        ["open", "tcp/22", "--for", "0"],
        ["open", "tcp/22", "--for", "-1m"],
        ["open", "tcp/22", "--for", "1d"],
        ["open", "tcp/22", "--for", "15 m"],
        ["open", "tcp/22", "--for", "999999999h"],
        ["open", "tcp/22", "--for", "15m", "--from", "0.0.0.0"],  # noqa: S104  what is to be refused
        ["open", "tcp/22", "--for", "15m", "--from", "::"],
        ["open", "tcp/22", "--for", "15m", "--from", "255.255.255.255"],
        ["open", "tcp/22", "--for", "15m", "--from", "ff02::1"],
        ["open", "tcp/22", "--for", "15m", "--from", "192.0.2.0/24"],
        ["open", "tcp/22", "--for", "15m", "--from", "1.2.3.4 } ; flush ruleset"],
        ["firewall", "apply", "x", "--deadline", "0"],
        ["firewall", "apply", "x", "--deadline", "25h"],
        ["firewall", "apply", "x"],
    ],
)
def test_a_mistake_on_the_command_line_is_a_usage_error(site: Site, words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        site.run(*words)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("8388608", 8388608)]
)
def test_a_duration_is_read_in_seconds_minutes_or_hours(text: str, seconds: int) -> None:
    assert here.duration(text) == seconds


def test_whoever_is_not_root_gets_exit_code_4(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run_code("status", "--json")[0] == 1
    os.seteuid(65534)
    try:
        codes = [
            site_code(words)
            for words in (["status"], ["close"], ["firewall", "show"], ["firewall", "stop"], ["open", "--for", "1m"])
        ]
    finally:
        os.seteuid(0)
    assert codes == [4] * 5
    assert "must be run as root" in capsys.readouterr().err


def site_code(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    host_commands.add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(words)
    return int(arguments.run(arguments))


def test_status_knows_the_kinds_of_table(site: Site) -> None:
    kinds = []
    for text in ("", ruleset.observe(), ruleset.guard([SSH]), NEW):
        site.ns.nft(ruleset.REMOVE + text)
        kinds.append(site.status()["table"])
    assert kinds == ["absent", "observe", "guard", "drop"]


def test_status_finds_the_running_daemon_by_its_lock(site: Site) -> None:
    assert (site.status()["running"], site.status()["pid"]) == (False, None)
    site.pid_file.write_text("4242\n")
    assert (site.status()["running"], site.status()["pid"]) == (False, None)
    with site.pid_file.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert (site.status()["running"], site.status()["pid"]) == (True, 4242)


def causes(site: Site) -> list[str]:
    """The words of the causes, which every form of `status` agrees on."""
    code, text = site.run_code("status", "--json")
    found = json.loads(text)
    words = [str(one["word"]) for one in found["causes"]]
    plain = site.run_code("status")
    assert (found["well"], code, plain[0]) == (not words, bool(words), bool(words))
    said = [line.split(": ")[1] for line in plain[1].splitlines() if line.startswith("NOT WELL: ")]
    assert said == words
    return words


@pytest.fixture
def running(site: Site) -> Iterator[Site]:
    """A host on which a daemon seems to run."""
    site.pid_file.write_text("4242\n")
    with site.pid_file.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield site


def close(site: Site) -> None:
    """Close a host as one that was confirmed."""
    site.persisted.parent.mkdir(exist_ok=True)
    replace_file(site.persisted, ruleset.swap(NEW).encode())
    site.ns.nft(ruleset.swap(NEW))


def test_status_ends_with_0_only_where_the_host_is_closed_and_well(running: Site) -> None:
    assert causes(running) == ["absent"]
    running.ns.nft(NEW)
    assert causes(running) == ["unknown"], "no file says what must be in it"
    close(running)
    assert causes(running) == []
    running.run("open", "tcp/22", "--from", "192.0.2.7", "--for", "1h")
    assert causes(running) == [], "a grant of one address is how it should be"
    running.run("open", "tcp/22", "--for", "1h")
    assert causes(running) == ["open"]
    running.run("close")
    assert causes(running) == []
    running.ns.nft("add table inet other { chain in { type filter hook input priority 10; policy drop; }; }")
    assert set(causes(running)) == {"foreign"}
    running.ns.nft("delete table inet other")
    running.run("firewall", "confirm", running.apply())
    assert causes(running) == []
    running.apply()
    assert causes(running) == ["pending"]
    running.run("firewall", "rollback")
    running.ns.nft(ruleset.REMOVE + ruleset.guard([SSH]))
    assert causes(running) == ["changed"]
    running.ns.nft(ruleset.REMOVE + ruleset.observe())
    assert causes(running) == ["changed"]
    running.ns.nft("add table inet doorward { flags dormant; }")
    assert causes(running) == ["dormant"]
    running.ns.nft("delete table inet doorward")
    assert causes(running) == ["absent"]
    close(running)
    running.ns.nft("add element inet doorward open4 { 192.0.2.7 . 6 . 22 timeout 0s }")
    assert causes(running) == ["endless"]
    running.persisted.unlink()
    running.persisted.with_name("failure.nft").write_text(NEW)
    running.run("close")
    assert causes(running) == ["failure"]


def test_a_host_that_was_never_confirmed_is_closed_by_a_guard_of_what_access_conf_names(running: Site) -> None:
    running.ns.nft(ruleset.guard([SSH, KNOCK]))
    assert causes(running) == ["unknown"], "access.conf is not there"
    access = running.folder / "access.conf"
    access.write_text(f"SOURCE ANY\nOPEN_PORTS tcp/22\nKEY {'k' * 16}\nHMAC_KEY {'h' * 16}\n")
    access.chmod(0o600)
    assert causes(running) == []
    access.write_text(access.read_text().replace("tcp/22", "tcp/22, tcp/80"))
    assert causes(running) == ["changed"], "tcp/80 is open"
    running.ns.nft(ruleset.REMOVE + ruleset.observe())
    assert causes(running) == ["changed"]
    with running.host.configuration.open("a") as file:
        file.write("FIREWALL_MODE observe;\n")
    assert causes(running) == ["observe"]


def test_a_daemon_that_does_not_run_is_a_cause(site: Site) -> None:
    close(site)
    assert causes(site) == ["down"]


def test_ports_of_our_own_servers_are_no_cause_and_other_open_ones_are(running: Site) -> None:
    with running.host.configuration.open("a") as file:
        file.write("ENABLE_TCP_SERVER Y;\nTCPSERV_PORT 62201;\n")
    close(running)
    running.run("open", "tcp/62201", "--for", "5s")
    assert causes(running) == []
    running.run("open", "udp/62201", "--for", "1m")
    assert causes(running) == ["open"]


def test_a_command_cycle_that_could_not_be_closed_is_a_cause(running: Site) -> None:
    close(running)
    folder = running.folder / "exec"
    with running.host.configuration.open("a") as file:
        file.write(f"EXEC_DIR {folder};\n")
    now = Moment.now()
    cycle = Cycle(1, "192.0.2.7", ("/bin/false",), {}, "root", None, (), now, 60.0)
    Journal(folder).write(cycle)
    assert causes(running) == []
    assert "nothing is open" not in running.run_code("status")[1]
    Journal(folder).write(cycle.failed(now))
    assert causes(running) == ["overdue"]
    Journal(folder).write(replace(cycle, at=replace(now, steady=now.steady - 3600)))
    assert causes(running) == ["overdue"]


@pytest.mark.parametrize("text", ["", ruleset.observe()])
def test_an_open_host_is_never_said_to_have_nothing_open(running: Site, text: str) -> None:
    running.ns.nft(text)
    assert "nothing is open" not in running.run_code("status")[1]
    close(running)
    assert "nothing is open" in running.run_code("status")[1]


def test_the_help_of_status_names_every_cause(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        site_code(["status", "--help"])
    shown = capsys.readouterr().out
    assert [word.value for word in Word if f"  {word.value} " not in shown] == []


def test_status_and_the_way_back_in_work_with_a_broken_configuration(site: Site) -> None:
    site.ns.nft(NEW)
    site.host.configuration.write_text("NONSENSE 1;\n")
    assert site.status()["table"] == "drop"
    site.run("open", "tcp/22", "--for", "15m")
    assert site.grants() == ["any tcp/22"]
    site.run("close")
    site.run("firewall", "stop")
    assert site.status()["table"] != "drop"


def test_stop_opens_the_host_even_while_a_table_is_pending(site: Site) -> None:
    site.ns.nft(NEW)
    site.apply(OLD, deadline=1)
    assert "THE HOST IS OPEN" in site.run("firewall", "stop")
    assert site.status()["table"] == "absent"
    assert not site.timer.armed()
    assert site.status()["pending"] is False
    site.run("firewall", "stop")


def test_stop_under_a_running_daemon_stays_open_at_the_next_knock(site: Site) -> None:
    site.run("firewall", "confirm", site.apply())
    site.pid_file.write_text("4242\n")
    with site.pid_file.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        site.run("firewall", "stop")
    with site.ns.inside():
        daemons = Nftables(site.persisted, FirewallMode.GUARD, lambda: [SSH])
    daemons.open(Grant(ipaddress.ip_address("192.0.2.7"), (SSH,), 60))
    assert site.status()["table"] == "observe"
    assert site.grants() == ["192.0.2.7 tcp/22"]


def test_the_commands_are_there_in_the_command_line(ns: Namespace) -> None:
    path = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    done = ns.run(sys.executable, "-m", "doorward", "status", "--json", env=path, check=False)
    assert (done.returncode, json.loads(done.stdout)["table"]) == (1, "absent")
    done = ns.run(sys.executable, "-m", "doorward", "firewall", "show", env=path, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no table" in done.stderr


def test_the_rollback_script_is_plain_sh_and_says_what_it_did(site: Site) -> None:
    site.ns.nft(OLD)
    before = site.table()
    token = site.apply()
    script = site.folder / "fw" / "rollback.sh"
    subprocess.run(["sh", "-n", str(script)], check=True)
    bare = ("env", "-i", "PATH=/nonexistent", "/bin/sh", str(script))
    silent = site.ns.run(*bare, "wrong", cwd="/")
    assert silent.stdout == ""
    assert site.table() != before
    assert "the previous one is back" in site.ns.run(*bare, token, cwd="/").stdout
    assert site.table() == before
    assert site.ns.run(*bare, token, cwd="/").stdout == ""
    with site.ns.inside():
        Libnftables().run(ruleset.swap(NEW))
    assert site.ns.run(*bare, "", cwd="/").stdout == ""
    assert site.status()["table"] == "drop"
