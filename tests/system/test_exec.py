"""doorward-exec: clients' commands, command cycles and mail, with real processes and a real daemon."""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from doorward.commands import journal as commands_journal
from doorward.host import commands as console
from doorward.host.here import Host
from doorward.wire.fwknop import MessageType
from system.doorwardd import command, environment, eventually, write
from system.executing import BASE, Trace, children, cycle, executing, knock, order, running

ROLE = Path(__file__).parents[2] / "collections/ansible_collections/doorward/spa/roles/daemon"
UNIT = ROLE / "templates/doorward-exec.service.j2"

if TYPE_CHECKING:
    from collections.abc import Callable

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]


def test_a_cycle_opens_at_once_and_closes_when_its_time_is_over(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    stanza = (
        f"CMD_CYCLE_OPEN {trace.script} open $IP $PORT $PROTO\nCMD_CYCLE_CLOSE {trace.script} close $SRC\n"
        "CMD_CYCLE_TIMER 2\n"
    )
    with executing(host, open_path, stanza) as daemon:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}][22][6]")
        assert "command=cycle" in daemon.wait_for("reason=granted")
        trace.wait_for(f"[open][{client.ipv4}][22][6]", f"[close][{client.ipv4}]")
        assert f"program={trace.script} exit=0" in daemon.wait_for("command=close stanza=1")
        assert eventually(lambda: not list((open_path / "run" / "exec").glob("*.json")))
    assert daemon.process.returncode == 0


def test_no_configured_word_of_a_command_is_in_the_log(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path, f'[ "$1" = open ] || test -e {open_path}/repaired')
    stanza = (
        f"CMD_CYCLE_OPEN {trace.script} open s3cret $IP\nCMD_CYCLE_CLOSE {trace.script} close s3cret\n"
        "CMD_CYCLE_TIMER 1\n"
    )
    with executing(host, open_path, stanza) as daemon:
        knock(host, client)
        assert f"program={trace.script}" in daemon.wait_for("command=open stanza=1")
        assert daemon.wait_for("CLOSING FAILED, IT STAYS OPEN").endswith(f": {trace.script}")
        (open_path / "repaired").touch()
        daemon.wait_for("command=close stanza=1", 2)
        assert trace.lines[0] == f"[open][s3cret][{client.ipv4}]"
    assert not [line for line in daemon.lines if "s3cret" in line]


def test_a_clients_command_runs_without_a_shell_as_nobody(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path, "id -un")
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\n") as daemon:
        daemon.wait_for("without CMD_EXEC_USER commands run as nobody, not as root")
        order(host, client, f"{trace.script} 'a b' $HOME; id")
        trace.wait_for("[a b][$HOME;][id]")
        assert "output=nobody" in daemon.wait_for("command=command stanza=1")


def test_a_second_knock_while_open_moves_the_close_and_opens_nothing_twice(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=300)) as daemon:
        knock(host, client)
        daemon.wait_for("command=open stanza=1")
        (before,) = commands_journal.listed(open_path / "run" / "exec")
        knock(host, client, type=MessageType.ACCESS_TIMEOUT, timeout=299)
        daemon.wait_for("command=renew stanza=1")
        (after,) = commands_journal.listed(open_path / "run" / "exec")
        assert trace.lines == [f"[open][{client.ipv4}]"]
        assert after.at.steady > before.at.steady
        assert after.opened == ((str(trace.script), "open", client.ipv4),)
        assert 299 < after.seconds <= 300, "a shorter wish closes nothing sooner"


def test_what_a_new_knock_would_open_otherwise_is_opened_again(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    stanza = (
        f"CMD_CYCLE_OPEN {trace.script} open $PORT\nCMD_CYCLE_CLOSE {trace.script} close $IP\nCMD_CYCLE_TIMER 300\n"
    )
    with executing(host, open_path, stanza) as daemon:
        for count, port in enumerate((22, 23), 1):
            knock(host, client, f"0.0.0.0,tcp/{port}")
            daemon.wait_for("command=open stanza=1", count)
        knock(host, client)
        daemon.wait_for("command=renew stanza=1")
        assert trace.lines == ["[open][22]", "[open][23]"]


def test_the_clients_timeout_counts_up_to_the_longest_window(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    stanza = f"CMD_CYCLE_OPEN {trace.script} $TIMEOUT $CLIENT_TIMEOUT\nCMD_CYCLE_CLOSE NONE\nMAX_FW_TIMEOUT 200\n"
    with executing(host, open_path, stanza) as daemon:
        made = int(time.time())
        knock(host, client, type=MessageType.ACCESS_TIMEOUT, timeout=250, time=made)
        trace.wait_for(f"[{made + 200}][200]")
        assert not list((open_path / "run" / "exec").glob("*.json")), "what is never closed is in no journal"
        daemon.wait_for("command=open stanza=1")


def test_a_close_that_fails_is_loud_and_tried_again(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path, f'[ "$1" = open ] || test -e {open_path}/repaired')
    with executing(host, open_path, cycle(trace, seconds=1)) as daemon:
        knock(host, client)
        daemon.wait_for("CLOSING FAILED, IT STAYS OPEN")
        (kept,) = commands_journal.listed(open_path / "run" / "exec")
        assert kept.failures == 1
        (open_path / "repaired").touch()
        daemon.wait_for("command=close stanza=1", 2)
        assert eventually(lambda: not commands_journal.listed(open_path / "run" / "exec"))


def test_an_open_that_fails_is_loud_and_another_knock_tries_it_again(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path, '[ "$1" = close ]')
    with executing(host, open_path, cycle(trace, seconds=300)) as daemon:
        for count in (1, 2):
            knock(host, client)
            assert "exit=1" in daemon.wait_for("command=open stanza=1", count)
        assert trace.lines == [f"[open][{client.ipv4}]"] * 2


def test_the_console_shows_and_closes_what_a_command_opened(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=300)) as daemon:
        knock(host, client)
        daemon.wait_for("command=open stanza=1")
        (open_path / "doorwardd.conf").write_text(f"EXEC_DIR {open_path}/run/exec;\nFWKNOP_RUN_DIR {open_path}/run;\n")
        commands = _console(Host(open_path / "doorwardd.conf", open_path / "fw"))
        with host.inside():
            shown = commands("status").splitlines()
            assert any(line.startswith(f"open by command: {client.ipv4} for ") for line in shown), shown
            assert commands("close", "--from", "192.0.2.99")
            time.sleep(1.5)  # longer than it takes to heed it: what was not meant stays open
            assert trace.lines == [f"[open][{client.ipv4}]"]
            assert commands("close", "--from", client.ipv4)
            trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")


def test_a_command_runs_as_the_user_and_group_of_the_stanza(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path, "id -un; id -gn; id -Gn; grep -E 'NoNewPrivs|CapEff' /proc/self/status")
    stanza = "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER daemon\nCMD_EXEC_GROUP mail\n"
    with executing(host, open_path, stanza) as daemon:
        order(host, client, str(trace.script))
        line = daemon.wait_for("command=command stanza=1")
    assert "as=daemon" in line
    assert r'output="daemon\nmail\nmail daemon\n' in line or r'output="daemon\nmail\nmail\n' in line
    assert r"CapEff:\t0000000000000000\nNoNewPrivs:\t1" in line


def test_root_runs_a_clients_command_where_root_is_written_out(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path, "id -u")
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER root\n") as daemon:
        order(host, client, str(trace.script))
        assert "output=0" in daemon.wait_for("command=command stanza=1")


def test_a_shell_reads_a_command_only_where_the_stanza_says_so(pair: Pair, open_path: Path) -> None:
    host, client = pair
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\nCMD_EXEC_SHELL Y\n") as daemon:
        order(host, client, "echo $((6 * 7)); echo $SPA_SOURCE")
        assert rf'output="42\n{client.ipv4}"' in daemon.wait_for("command=command stanza=1")


def test_sudo_decides_what_a_command_run_through_it_may(pair: Pair, open_path: Path) -> None:
    """With the real sudo: it lets nobody do one thing, so the one thing is done and the other is not."""
    host, client = pair
    rules = Path("/etc/sudoers.d/doorward-test")
    rules.write_text("nobody ALL=(daemon) NOPASSWD: /usr/bin/id\n")
    rules.chmod(0o440)
    try:
        stanza = "ENABLE_CMD_EXEC Y\nENABLE_CMD_SUDO_EXEC Y\nCMD_SUDO_EXEC_USER daemon\n"
        with executing(host, open_path, stanza) as daemon:
            order(host, client, "/usr/bin/id -un")
            assert "output=daemon" in daemon.wait_for("command=command stanza=1")
            order(host, client, "/usr/bin/whoami")
            assert "exit=1" in daemon.wait_for("command=command stanza=1", 2)
    finally:
        rules.unlink()


def test_output_is_capped_and_shown_escaped(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path, "printf 'a\\nverdict=granted\\033[2J\\n'; yes | head -c 3000000")
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\n") as daemon:
        order(host, client, str(trace.script))
        line = daemon.wait_for("command=command stanza=1")
    assert "bytes=65536" in line
    assert r"output=\"a\nverdict=granted\u001b[2J\n" in line.replace('"', r"\"")
    assert "exit=0" in line


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(pair: Pair, open_path: Path) -> None:
    host, client = pair
    body = "trap '' TERM\nsetsid sleep 1234 &\nsleep 1235 &\necho $!\nwhile :; do sleep 1; done"
    trace = Trace.make(open_path, body)
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\n", "CMD_EXEC_TIMEOUT 1;\n") as daemon:
        order(host, client, str(trace.script))
        assert eventually(lambda: running("sleep", "1234") and running("sleep", "1235"))
        assert "ended after 1 s" in daemon.wait_for("command=command stanza=1")
        assert not running("sleep", "1234")
        assert not running("sleep", "1235")


def test_what_is_left_behind_is_ended_and_nobody_waits_for_its_output(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path, "setsid sleep 1236 &\nsleep 0.1\necho done")
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\n", "CMD_EXEC_TIMEOUT 60;\n") as daemon:
        order(host, client, str(trace.script))
        assert "output=done" in daemon.wait_for("command=command stanza=1", within=10)
        assert not running("sleep", "1236")


def test_a_command_that_cannot_be_run_is_a_line_and_nothing_else(pair: Pair, open_path: Path) -> None:
    host, client = pair
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\n") as daemon:
        order(host, client, "/nonexistent/command")
        assert "exit=126" in daemon.wait_for("command=command stanza=1")
        order(host, client, "it's")
        assert "No closing quotation" in daemon.wait_for("doorward-exec: refused")
        order(host, client, "/bin/echo still")
        assert "output=still" in daemon.wait_for("command=command stanza=1", 2)


def test_where_nothing_needs_it_doorward_exec_is_not_there(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, "OPEN_PORTS tcp/22\n") as daemon:
        assert len(children(daemon.process.pid)) == 1
        (open_path / "access.conf").write_text(BASE + cycle(trace, seconds=2))
        daemon.signal(signal.SIGHUP)
        assert "systemctl enable --now doorward-exec.socket" in daemon.wait_for(
            "doorward-exec is not running: stanza 1"
        )
        daemon.wait_for("the configuration was read again")
        knock(host, client)
        assert "reason=command" in daemon.wait_for("verdict=denied")
    with executing(host, open_path, cycle(trace, seconds=2)) as daemon:
        assert len(children(daemon.process.pid)) == 2
        knock(host, client)
        daemon.wait_for("command=close stanza=1")


def test_a_changed_configuration_counts_for_doorward_exec_too(pair: Pair, open_path: Path) -> None:
    host, client = pair
    old, new = Trace.make(open_path, name="old"), Trace.make(open_path, name="new")
    with executing(host, open_path, cycle(old, seconds=300)) as daemon:
        (open_path / "access.conf").write_text(BASE + cycle(new, seconds=300))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        knock(host, client)
        new.wait_for(f"[open][{client.ipv4}]")
        assert not old.lines


def test_in_test_mode_nothing_runs(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=1), "", "--test") as daemon:
        knock(host, client)
        daemon.wait_for("reason=granted")
        time.sleep(0.5)
        assert not trace.lines
    with executing(host, open_path, cycle(trace, seconds=1)) as daemon:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")


def test_check_says_what_needs_doorward_exec(open_path: Path) -> None:
    access = write(open_path / "access.conf", BASE + cycle(Trace.make(open_path), seconds=1))
    for settings, words in (("", "stanza 1."), ("ACCESS_ALERTS root@example.org;\n", "stanza 1, ACCESS_ALERTS.")):
        config = write(open_path / "doorwardd.conf", settings)
        argv = command("check", "-c", str(config), "-a", str(access))
        told = subprocess.run(argv, env=environment(), check=True, capture_output=True, text=True).stdout
        assert told.endswith(f"doorward-exec is needed for {words}\n")


def test_check_says_that_what_is_open_needs_doorward_exec(open_path: Path) -> None:
    access = write(open_path / "access.conf", f"{BASE}OPEN_PORTS tcp/22\n")
    config, folder = write(open_path / "doorwardd.conf", ""), open_path / "run" / "exec"
    argv = command("check", "-c", str(config), "-a", str(access), "-r", str(open_path / "run"))

    def told() -> str:
        return subprocess.run(argv, env=environment(), check=True, capture_output=True, text=True).stdout

    journal, now = commands_journal.Journal(folder), commands_journal.Moment.now()
    journal.write(opened := commands_journal.Cycle(1, "192.0.2.7", ("/bin/true",), {}, "root", None, (), now, 60))
    assert told().endswith(f"doorward-exec is needed for what is open in {folder}.\n")
    journal.remove(opened)
    assert "doorward-exec" not in told()


def _console(there: Host) -> Callable[..., str]:
    """Return what runs root's commands on a host and returns what they print."""
    parser = argparse.ArgumentParser()
    console.add_commands(parser.add_subparsers(), there)

    def run(*argv: str) -> str:
        options = parser.parse_args(argv)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert options.run(options) in ((0, 1) if argv == ("status",) else (0,))  # 1: not well, as without a daemon
        return printed.getvalue()

    return run


def test_it_needs_no_more_capabilities_than_its_unit_leaves_it(pair: Pair, open_path: Path) -> None:
    """The unit's CapabilityBoundingSet, read from the unit, on all three processes."""
    host, client = pair
    (line,) = [row for row in UNIT.read_text().splitlines() if row.startswith("CapabilityBoundingSet=")]
    left = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in line.partition("=")[2].split())
    host.run("ipset", "create", "friends", "hash:ip")
    trace = Trace.make(open_path, "trap '' TERM; sleep 1237")
    stanza = (
        "CMD_CYCLE_OPEN /usr/sbin/ipset add friends $IP\nCMD_CYCLE_CLOSE /usr/sbin/ipset del friends $IP\n"
        "CMD_CYCLE_TIMER 2\nENABLE_CMD_EXEC Y\n"
    )
    confined = ("setpriv", f"--bounding-set=-all,{left}")
    with executing(host, open_path, stanza, "CMD_EXEC_TIMEOUT 1;\n", prefix=confined) as daemon:
        knock(host, client)
        assert "exit=0" in daemon.wait_for("command=open")
        order(host, client, str(trace.script))
        assert eventually(lambda: running("sleep", "1237"))
        assert "ended after 1 s" in daemon.wait_for("command=command stanza=1 source=10.77.0.2 as=nobody")
        assert not running("sleep", "1237")
        assert "exit=0" in daemon.wait_for("command=close")
