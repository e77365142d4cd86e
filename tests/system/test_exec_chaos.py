"""doorward-exec at the worst moment: killed, flooded, lied to, on a full disk, and as systemd runs it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doorward.commands import journal as commands_journal
from doorward.commands import lock
from doorward.commands.messages import ORDERS, Execute, Reread
from doorward.commands.tasks import RUNNING_MAX
from doorward.config import access
from doorward.helper.limits import mark
from doorward.linux import privileges
from doorward.values import Execution, Service
from system.doorwardd import HMAC_KEY, KEY, Running, command, doorwardd, environment, eventually, write
from system.executing import BASE, Trace, children, cycle, end_exec, exec_pid, executing, knock, order, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

HERE = ipaddress.ip_address("198.51.100.1")
SUPPRESSED = re.compile(r"(\d+) more such lines in a second were not written")


# ---- killed


def test_a_doorward_exec_that_is_killed_closes_on_time_what_it_opened(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=3)) as daemon:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}]")
        os.kill(exec_pid(daemon), signal.SIGKILL)
        daemon.wait_for("1 cycles were left open")
        trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")
        knock(host, client)  # and the listener has noticed nothing
        trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]", f"[open][{client.ipv4}]")


def test_what_was_journalled_and_never_opened_is_closed_too(pair: Pair, open_path: Path) -> None:
    """Killed between the journal and the opening command: the process that would start it stands still meanwhile."""
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=3)) as daemon:
        worker = exec_pid(daemon)
        (spawner,) = children(worker)
        os.kill(spawner, signal.SIGSTOP)
        knock(host, client)
        assert eventually(lambda: len(commands_journal.listed(open_path / "run" / "exec")) == 1)
        os.kill(worker, signal.SIGKILL)
        assert not trace.lines
        os.kill(spawner, signal.SIGKILL)
        daemon.wait_for("1 cycles were left open")
        trace.wait_for(f"[close][{client.ipv4}]")


def test_what_is_overdue_at_the_start_is_closed_at_once_though_no_stanza_runs_anything(
    pair: Pair, open_path: Path
) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=2)) as daemon:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}]")
        daemon.wait_for("command=open")
    time.sleep(2)
    assert trace.lines == [f"[open][{client.ipv4}]"]
    with executing(host, open_path, "OPEN_PORTS tcp/22\n") as daemon:
        daemon.wait_for("command=close stanza=1")
        trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")


def test_what_is_closed_is_what_was_journalled_whatever_the_files_say_now(pair: Pair, open_path: Path) -> None:
    host, client = pair
    old, new = Trace.make(open_path, name="old"), Trace.make(open_path, name="new")
    with executing(host, open_path, cycle(old, seconds=3)) as daemon:
        knock(host, client)
        old.wait_for(f"[open][{client.ipv4}]")
        content = (open_path / "access.conf").read_text()
        (open_path / "access.conf").write_text(content.replace(str(old.script), str(new.script)))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        old.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")
        assert not new.lines


def test_one_that_stays_for_what_is_open_hands_over_to_the_next(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=6)) as first:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}]")
        stays = exec_pid(first)
        first.process.terminate()
        first.wait_for("stays until they are closed")
        with executing(host, open_path, cycle(trace, seconds=6)) as second:
            second.wait_for("1 cycles were left open")
            assert exec_pid(second) != stays
            trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")


def test_without_its_doorward_exec_the_daemon_serves_other_knocks(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    second = f"SOURCE ANY\nKEY other\n{HMAC_KEY}\n"
    with executing(host, open_path, f"OPEN_PORTS tcp/22\nENABLE_CMD_EXEC Y\n{second}{cycle(trace, 9)}") as daemon:
        (supervisor,) = [pid for pid in children(daemon.process.pid) if exec_pid(daemon) in children(pid)]
        worker = exec_pid(daemon)
        for pid in (supervisor, worker):
            os.kill(pid, signal.SIGKILL)
        daemon.wait_for("doorward-exec is gone: stanza 1, stanza 2 cannot be served")
        order(host, client, "/bin/true")
        assert "reason=command" in daemon.wait_for("verdict=denied")
        knock(host, client)
        daemon.wait_for("verdict=granted")


def test_on_a_full_disk_nothing_is_opened(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    folder = open_path / "run" / "exec"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "doorward-test", str(folder)], check=True)
    try:
        with executing(host, open_path, cycle(trace, seconds=2)) as daemon:
            exec_pid(daemon)
            with contextlib.suppress(OSError):
                (folder / "filler").write_bytes(bytes(1 << 16))
            knock(host, client)
            assert "No space left" in daemon.wait_for("doorward-exec: refused")
            assert not trace.lines
            (folder / "filler").unlink()
            knock(host, client)
            trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_two_hundred_escaped_processes_end_with_their_command(pair: Pair, open_path: Path) -> None:
    host, client = pair
    body = "for n in $(seq 200); do setsid sleep 4321 & done; sleep 1; sleep 60"
    trace = Trace.make(open_path, body)
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\n", "CMD_EXEC_TIMEOUT 2;\n") as daemon:
        order(host, client, str(trace.script))
        assert eventually(lambda: running("sleep", "4321"))
        assert "ended after 2 s" in daemon.wait_for("command=command")
        assert not running("sleep", "4321")


# ---- it cannot start


@pytest.fixture
def blocked(open_path: Path) -> Path:
    """The journal's folder, in whose place a file is."""
    (open_path / "run").mkdir()
    return write(open_path / "run" / "exec", "")


def test_an_unsafe_folder_ends_it_for_good_with_one_line_and_other_knocks_are_served(
    pair: Pair, open_path: Path
) -> None:
    host, client = pair
    (open_path / "run").mkdir()
    (open_path / "run").chmod(0o777)  # anybody could put another folder there, and have root run what it says
    trace = Trace.make(open_path)
    opens = f"OPEN_PORTS tcp/22\nENABLE_CMD_EXEC Y\nSOURCE ANY\nKEY other\n{HMAC_KEY}\n{cycle(trace, 9)}"
    with executing(host, open_path, opens) as daemon:
        assert "IT IS NOT STARTED" in daemon.wait_for("others than root can write")
        daemon.wait_for("doorward-exec is gone: stanza 1, stanza 2 cannot be served")
        (_,) = [pid for pid in children(daemon.process.pid) if Path(f"/proc/{pid}/cmdline").read_text()]  # the listener
        order(host, client, "/bin/true")
        assert "reason=command" in daemon.wait_for("verdict=denied")
        knock(host, client)
        daemon.wait_for("verdict=granted")
    assert sum("others than root" in line for line in daemon.lines) == 1


def test_what_may_pass_is_tried_again_less_and_less_often_until_it_works(
    pair: Pair, open_path: Path, blocked: Path
) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=300)) as daemon:
        for seconds in ("0.2", "0.4", "0.8", "1.6"):
            daemon.wait_for(f"{blocked} cannot be used: File exists: started again in {seconds} s")
        blocked.unlink()
        knock(host, client)  # it is not lost
        trace.wait_for(f"[open][{client.ipv4}]")
        end_exec(daemon)
        daemon.wait_for("doorward-exec is gone")
    assert sum("cannot be used" in line for line in daemon.lines) == 4


def supervisor(daemon: Running) -> int:
    """Return the PID of what starts the daemon's doorward-exec: the listener's sibling, which is root's."""
    (found,) = [pid for pid in children(daemon.process.pid) if Path(f"/proc/{pid}").stat().st_uid == 0]
    return found


def end_and_wait(daemon: Running) -> None:
    """End a daemon, and fail where something outlives it that could still write to its log."""
    outlives = supervisor(daemon)
    daemon.process.terminate()
    try:
        assert eventually(lambda: daemon.is_silent)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(outlives, signal.SIGKILL)


def test_with_the_daemon_one_ends_that_never_could_start(pair: Pair, open_path: Path, blocked: Path) -> None:
    host, _ = pair
    with executing(host, open_path, "ENABLE_CMD_EXEC Y\n") as daemon:
        daemon.wait_for(f"{blocked} cannot be used: File exists: started again in 1.6 s")
        end_and_wait(daemon)
    assert "it is not needed any more" in daemon.lines[-1]


def test_with_the_daemon_one_ends_that_waits_for_anothers_journal(pair: Pair, open_path: Path) -> None:
    host, _ = pair
    journal = open_path / "run" / "exec"
    journal.mkdir(parents=True)
    with lock.alone(journal), doorwardd(host, open_path, f"{BASE}ENABLE_CMD_EXEC Y\n") as daemon:
        assert eventually(lambda: lock.is_asked_for(journal))
        assert not daemon.is_silent
        end_and_wait(daemon)
    assert "it is not needed any more" in daemon.wait_for(f"another doorward-exec (PID {os.getpid()}) has")


def test_a_daemon_that_cannot_start_is_waited_for_no_longer_than_it_lives(pair: Pair, open_path: Path) -> None:
    """What is open from before keeps its doorward-exec, and nobody's terminal."""
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=300)) as daemon:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}]")
        daemon.wait_for("command=open")
    files = (
        "-c",
        str(open_path / "doorwardd.conf"),
        "-a",
        str(open_path / "access.conf"),
        "-r",
        str(open_path / "run"),
    )
    try:
        ended = host.run(*command(*files, "-d", "/dev/null/replay.db"), env=environment(), check=False)
        assert ended.returncode == 1
        assert commands_journal.listed(open_path / "run" / "exec")
    finally:
        end_exec(daemon)


def test_one_that_is_started_again_while_access_conf_has_a_mistake_closes_what_was_open(
    pair: Pair, open_path: Path
) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, cycle(trace, seconds=3)) as daemon:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}]")
        daemon.wait_for("command=open")
        write(open_path / "access.conf", "SOURCE ANY\nKEYY typo\n")
        os.kill(exec_pid(daemon), signal.SIGKILL)
        daemon.wait_for("access.conf:2: unknown name 'KEYY'")
        trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")


def test_as_a_unit_one_that_starts_while_access_conf_has_a_mistake_closes_what_was_open(open_path: Path) -> None:
    trace = Trace.make(open_path)
    due = (str(trace.script), "close")
    commands_journal.Journal(open_path / "run" / "exec").write(
        commands_journal.Cycle(
            1, "192.0.2.7", due, {"PATH": "/usr/bin:/bin"}, "root", None, (), commands_journal.Moment.now(), 0
        )
    )
    with unit(open_path, "SOURCE ANY\nKEYY typo\n") as made:
        made.running.wait_for("access.conf:2: unknown name 'KEYY'")
        trace.wait_for("[close]")


# ---- lied to, as a unit of systemd


@dataclass
class Unit:
    """A doorward-exec as systemd starts it, and what would be systemd's."""

    running: Running
    path: Path
    notified: socket.socket

    def connect(self, uid: int | None = None) -> socket.socket:
        """Return a connection made as the listener's user, or as another one."""
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.seteuid(privileges.account().pw_uid if uid is None else uid)
        try:
            channel.connect(str(self.path))
        finally:
            os.seteuid(0)
        return channel


@contextlib.contextmanager
def unit(folder: Path, stanzas: str, kept: socket.socket | None = None) -> Iterator[Unit]:
    """Yield a doorward-exec that is handed a listening socket, and a kept connection, as sd_listen_fds(3) says."""
    write(folder / "access.conf", stanzas)
    write(folder / "doorwardd.conf", "")
    path, notify = folder / "exec.sock", folder / "notify.sock"
    for old in (path, notify):
        old.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        accepting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        accepting.bind(str(path))
        accepting.listen()
        path.chmod(0o777)
        notified = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notified.bind(str(notify))
        given = [accepting] if kept is None else [accepting, kept]
        names = "doorward-exec.socket" if kept is None else "doorward-exec.socket:listener"
        moves = " ".join(f"{number}<&{one.fileno()}" for number, one in enumerate(given, 3))
        files = ("-c", f"{folder}/doorwardd.conf", "-a", f"{folder}/access.conf", "-r", f"{folder}/run")
        shell = f'exec {moves}; LISTEN_PID=$$ LISTEN_FDS={len(given)} LISTEN_FDNAMES={names} exec "$@"'
        process = stack.enter_context(
            subprocess.Popen(
                ["bash", "-c", shell, "sh", *command("--exec", *files)],
                env=environment() | {"NOTIFY_SOCKET": str(notify)},
                pass_fds=[one.fileno() for one in given],
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        started = Running(process, folder)
        reader = threading.Thread(target=started.take, daemon=True)
        reader.start()
        notified.settimeout(20)
        assert notified.recv(100) == b"READY=1"
        try:
            yield Unit(started, path, notified)
        finally:
            process.terminate()
            process.wait(20)
            reader.join(10)


def stanzas(trace: Trace) -> str:
    """A stanza with a cycle and limits, and one with commands."""
    head = f"SOURCE 192.0.2.0/24\nDESTINATION 198.51.100.1/32\n{KEY}\n{HMAC_KEY}\n"
    return (
        f"{head}OPEN_PORTS tcp/22\n{cycle(trace, 300)}MAX_FW_TIMEOUT 300\n"
        f"{head}ENABLE_CMD_EXEC Y\n"
        f"{head}OPEN_PORTS tcp/22\n"
        f"{head}ENABLE_CMD_EXEC Y\nACCESS_EXPIRE 01/01/2020\n"
    )


def allowed(**changes: Any) -> Execution:
    source = ipaddress.ip_address("192.0.2.7")
    made = Execution(1, source, source, HERE, 300, int(time.time()), Service.parse("tcp/22"))
    return replace(made, **changes)


LIES: dict[str, dict[str, Any]] = {
    "no stanza of this number": {"stanza": 99},
    "a source outside SOURCE": {"source": ipaddress.ip_address("203.0.113.1")},
    "an origin outside SOURCE": {"origin": ipaddress.ip_address("203.0.113.1")},
    "another destination": {"destination": ipaddress.ip_address("203.0.113.1")},
    "a longer window": {"seconds": 301},
    "a service that is not open": {"service": Service.parse("tcp/23")},
    "made an hour ago": {"made": int(time.time()) - 3600},
    "made in an hour": {"made": int(time.time()) + 3600},
    "a command where only a cycle is": {"service": None, "command": "/bin/touch {}/touched"},
    "a cycle where only commands are": {"stanza": 2},
    "anything where neither is": {"stanza": 3},
    "a command of an expired stanza": {"stanza": 4, "service": None, "command": "/bin/touch {}/touched"},
}


def test_a_listener_that_was_taken_over_gets_what_a_stanza_allows_and_nothing_else(open_path: Path) -> None:
    trace = Trace.make(open_path)
    everybodys = open_path / "everybodys"
    everybodys.mkdir()
    everybodys.chmod(0o777)
    with unit(open_path, stanzas(trace)) as made, made.connect() as channel:
        known = {one.number: one for one in access.load(open_path / "access.conf").stanzas}
        for count, changes in enumerate(LIES.values(), 1):
            lie = allowed(**changes)
            if lie.command is not None:
                lie = replace(lie, command=lie.command.format(everybodys))
            stanza = known.get(lie.stanza, known[1])
            channel.send(ORDERS.encode(Execute(lie, mark(stanza))))
            made.running.wait_for("doorward-exec: refused", count)
        channel.send(ORDERS.encode(Execute(allowed(), bytes(16))))
        made.running.wait_for("is not what the listener read", 2)
        assert not trace.lines
        assert not (everybodys / "touched").exists()
        channel.send(ORDERS.encode(Execute(allowed(), mark(known[1]))))
        trace.wait_for("[open][192.0.2.7]")
        touch = allowed(stanza=2, service=None, command=f"/bin/touch {everybodys}/touched")
        channel.send(ORDERS.encode(Execute(touch, mark(known[2]))))
        assert eventually((everybodys / "touched").exists)


def test_only_the_listeners_user_is_served(open_path: Path) -> None:
    trace = Trace.make(open_path)
    with unit(open_path, stanzas(trace)) as made:
        known = access.load(open_path / "access.conf").stanzas[0]
        with made.connect(uid=0) as stranger:
            with contextlib.suppress(OSError):
                stranger.send(ORDERS.encode(Execute(allowed(), mark(known))))
            made.running.wait_for("a process of uid 0 is not the listener")
        with made.connect(uid=1) as stranger:
            made.running.wait_for("a process of uid 1 is not the listener")
        with made.connect() as channel:
            channel.send(ORDERS.encode(Execute(allowed(), mark(known))))
            trace.wait_for("[open][192.0.2.7]")


@pytest.mark.parametrize("nonsense", [b"\xff" * 100, b"E", b"R" * 2, b"x" * 60_000], ids=len)
def test_nonsense_ends_the_channel_and_the_next_listener_is_served(open_path: Path, nonsense: bytes) -> None:
    trace = Trace.make(open_path)
    with unit(open_path, stanzas(trace)) as made:
        known = access.load(open_path / "access.conf").stanzas[0]
        with made.connect() as channel:
            channel.send(nonsense)
            channel.settimeout(20)
            assert channel.recv(1) == b""
        with made.connect() as channel:
            channel.send(ORDERS.encode(Execute(allowed(), mark(known))))
            trace.wait_for("[open][192.0.2.7]")


def test_systemd_keeps_the_listeners_connection_for_the_next_doorward_exec(open_path: Path) -> None:
    trace = Trace.make(open_path)
    with unit(open_path, stanzas(trace)) as first, first.connect() as channel:
        told, descriptors, _, _ = socket.recv_fds(first.notified, 100, 4)
        assert told == b"FDSTORE=1\nFDNAME=listener"
        known = access.load(open_path / "access.conf").stanzas[0]
        first.running.process.kill()
        first.running.process.wait(10)
        channel.send(ORDERS.encode(Execute(allowed(), mark(known))))  # nobody is there just now, and it is not lost
        with socket.socket(fileno=descriptors[0]) as kept, unit(open_path, stanzas(trace), kept) as second:
            trace.wait_for("[open][192.0.2.7]")
            second.running.wait_for("command=open")


def test_a_thousand_executions_at_once_run_a_few_at_a_time_and_each_is_accounted_for(open_path: Path) -> None:
    trace = Trace.make(open_path, f"sleep 0.02; echo end >> {open_path}/trace.out")
    with unit(open_path, stanzas(trace)) as made, made.connect() as channel:
        known = {one.number: one for one in access.load(open_path / "access.conf").stanzas}
        channel.send(ORDERS.encode(Execute(allowed(seconds=1), mark(known[1]))))
        made.running.wait_for("command=open")
        asked = allowed(stanza=2, service=None, command=str(trace.script))
        for _ in range(1000):
            channel.send(ORDERS.encode(Execute(asked, mark(known[2]))))
        made.running.wait_for("command=close", within=10)  # no flood holds up what has to be closed

        def told() -> int:
            written = sum("command=command" in line or "refused" in line for line in made.running.lines)
            counted = (SUPPRESSED.search(line) for line in made.running.lines)
            return written + sum(int(found[1]) for found in counted if found)

        assert eventually(lambda: told() == 1000, within=60), told()
        ran = sum("command=command" in line for line in made.running.lines)
    assert RUNNING_MAX < ran < 1000, ran
    at_once = most = 0
    for line in trace.lines[2:]:
        at_once += -1 if line == "end" else 1
        most = max(most, at_once)
    assert 1 < most <= RUNNING_MAX + 2  # a closing one besides them, and one that was ended has no last line


def test_a_flood_of_rereads_keeps_it_from_nothing(open_path: Path) -> None:
    trace = Trace.make(open_path)
    with unit(open_path, stanzas(trace)) as made, made.connect() as channel:
        known = access.load(open_path / "access.conf").stanzas[0]
        for _ in range(20_000):
            channel.send(ORDERS.encode(Reread()))
        channel.send(ORDERS.encode(Execute(allowed(), mark(known))))
        trace.wait_for("[open][192.0.2.7]")
