"""How doorward-exec ends: asked for its place, or told to; and that what is open is closed all the same."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from doorward.commands import arguments, lock
from doorward.commands import journal as commands_journal
from doorward.commands import process as commands_process
from doorward.commands.loop import Executor
from doorward.commands.messages import ORDERS, Execute
from doorward.commands.tasks import RUNNING_MAX, Task, Tasks
from doorward.config import access
from doorward.errors import HelperError
from doorward.helper.limits import mark
from doorward.processes import configuration
from doorward.processes.options import parser
from doorward.record.log import Log
from system.doorwardd import doorwardd, eventually, write
from system.executing import BASE, Trace, children, cycle, exec_pid, executing, knock
from system.test_exec_chaos import allowed, supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.doorwardd import Running
    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]


# ---- asked for its place


@contextlib.contextmanager
def staying(pair: Pair, folder: Path, trace: Trace) -> Iterator[tuple[Running, int]]:
    """Yield a daemon that has ended, and the PID of its doorward-exec, which stays for what is open for six seconds."""
    host, client = pair
    with doorwardd(host, folder, BASE + cycle(trace, seconds=6)) as daemon:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}]")
        daemon.wait_for("command=open")
        stays = exec_pid(daemon)
        daemon.process.terminate()
        daemon.wait_for("stays until they are closed")
        try:
            yield daemon, stays
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stays, signal.SIGTERM)


def test_who_takes_its_question_back_finds_the_earlier_one_closing_what_is_open(pair: Pair, open_path: Path) -> None:
    """Asked while it stands still, so that it never sees the question."""
    trace = Trace.make(open_path)
    journal = open_path / "run" / "exec"
    with staying(pair, open_path, trace) as (daemon, stays):
        os.kill(stays, signal.SIGSTOP)
        wanted = iter((True, False))
        with pytest.raises(HelperError, match=f"PID {stays}"), lock.alone(journal, lambda: next(wanted)):
            pass
        os.kill(stays, signal.SIGCONT)
        trace.wait_for(f"[open][{pair[1].ipv4}]", f"[close][{pair[1].ipv4}]")
        assert not any("takes over" in line for line in daemon.lines)


def test_who_takes_its_question_back_too_late_has_to_close_what_is_open(pair: Pair, open_path: Path) -> None:
    journal = open_path / "run" / "exec"
    with staying(pair, open_path, Trace.make(open_path)) as (daemon, _):

        def until_it_is_gone() -> bool:
            return not any("another one takes over" in line for line in daemon.lines)

        with lock.alone(journal, until_it_is_gone):
            assert len(commands_journal.listed(journal)) == 1
            assert not lock.is_left_open(journal)
        assert lock.is_left_open(journal)


# ---- told to end


def test_a_closing_that_has_ended_when_sigterm_comes_is_not_run_again(pair: Pair, open_path: Path) -> None:
    """It ends, and the signal comes, while doorward-exec stands still."""
    host, client = pair
    trace = Trace.make(open_path, f'while [ "$1" = close ] && [ ! -e {open_path}/go ]; do sleep 0.05; done')
    with executing(host, open_path, cycle(trace, seconds=1)) as daemon:
        knock(host, client)
        trace.wait_for(f"[open][{client.ipv4}]", f"[close][{client.ipv4}]")
        worker = exec_pid(daemon)
        (spawner,) = children(worker)
        assert children(spawner)
        os.kill(worker, signal.SIGSTOP)
        write(open_path / "go", "")
        assert eventually(lambda: not children(spawner))
        assert commands_journal.listed(open_path / "run" / "exec")
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)
        daemon.wait_for("SIGTERM: stopping, 0 cycles stay open")
        assert not commands_journal.listed(open_path / "run" / "exec")


def test_sigterm_ends_it_though_its_process_ends_otherwise(pair: Pair, open_path: Path) -> None:
    host, _ = pair
    with executing(host, open_path, cycle(Trace.make(open_path), seconds=1)) as daemon:
        worker = exec_pid(daemon)
        parent = supervisor(daemon)
        os.kill(worker, signal.SIGSTOP)
        os.kill(parent, signal.SIGTERM)
        os.kill(worker, signal.SIGKILL)
        daemon.wait_for("doorward-exec is gone")


@dataclass
class Made:
    """An executor that does not run yet, where signals are sent to it, and its listener's end."""

    executor: Executor
    signals: socket.socket
    listener: socket.socket
    channel: socket.socket


@contextlib.contextmanager
def executor(folder: Path, stanzas: str) -> Iterator[Made]:
    """Yield an executor in this process."""
    files = write(folder / "doorwardd.conf", ""), write(folder / "access.conf", stanzas)
    options = parser().parse_args(["-c", str(files[0]), "-a", str(files[1]), "-r", str(folder / "run")])
    with contextlib.ExitStack() as stack:
        signals, theirs = map(stack.enter_context, socket.socketpair())
        listener, channel = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        spawn = stack.enter_context(commands_process.spawning((signals, theirs, listener, channel)))
        theirs.settimeout(0)
        with a_log(folder) as lines:
            made = Executor(options, configuration.settings(options), lines, spawn, theirs)
            made.adopt()
            yield Made(made, signals, listener, channel)


@contextlib.contextmanager
def a_log(folder: Path) -> Iterator[Log]:
    """Yield a log into a file."""
    logger = logging.getLogger(str(folder))
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = logging.FileHandler(folder / "log")
    lines = Log(logger, handler)
    yield lines
    lines.close()
    handler.close()


def test_after_sigterm_nothing_is_begun_and_the_next_one_closes_what_is_due(open_path: Path) -> None:
    older, newer = Trace.make(open_path, name="older"), Trace.make(open_path, name="newer")
    close = (str(older.script), "close")
    due = commands_journal.Cycle(
        1, "192.0.2.7", close, {"PATH": "/usr/bin:/bin"}, "root", None, (), commands_journal.Moment.now(), 0
    )
    commands_journal.Journal(open_path / "run" / "exec").write(due)
    for is_told_to_end in (True, False):
        with executor(open_path, BASE + cycle(newer, seconds=1)) as made:
            (stanza,) = access.load(open_path / "access.conf").stanzas
            made.listener.send(ORDERS.encode(Execute(allowed(seconds=1), mark(stanza))))
            if is_told_to_end:
                made.signals.send(bytes([signal.SIGTERM]))
            else:
                made.listener.close()
            made.executor.run((made.channel,))
        if is_told_to_end:
            assert "SIGTERM: stopping, 1 cycles stay open" in (open_path / "log").read_text()
            assert not older.lines
            assert not newer.lines
    assert older.lines == ["[close]"]
    assert newer.lines == ["[open][192.0.2.7]", "[close][192.0.2.7]"]


@dataclass
class Started:
    """Tasks, the selector that serves them, and what has been done."""

    tasks: Tasks
    selector: selectors.BaseSelector
    done: list[bool] = field(default_factory=list)

    def put(self, *argv: str) -> None:
        """Have a command run."""
        user = arguments.account("root")
        job = self.tasks.job(argv, arguments.clean(user), user)
        self.tasks.put(Task("command", (("stanza", "1"),), job, self.done.append))

    def of_one_batch(self) -> list[selectors.SelectorKey]:
        """Return what the only command has to say, in one batch: its output, and how it ended."""
        found: list[selectors.SelectorKey] = []

        def are_both_there() -> bool:
            found[:] = [key for key, _ in self.selector.select(0)]
            return len(found) == 2

        assert eventually(are_both_there)
        output, report = self.tasks.running[0].descriptors
        return sorted(found, key=lambda key: [report, output].index(key.fd))


@pytest.fixture
def started(open_path: Path) -> Iterator[Started]:
    with commands_process.spawning(()) as spawn, a_log(open_path) as lines, selectors.DefaultSelector() as selector:
        yield Started(Tasks(spawn, selector, lines, 10, lambda: None), selector)


def test_what_a_batch_holds_of_a_command_that_is_over_is_passed_over(started: Started) -> None:
    started.put("/bin/echo", "one")
    report, output = started.of_one_batch()

    def is_over() -> bool:  # its end comes after its result, when the warden has ended
        report.data()
        return bool(started.done)

    assert eventually(is_over)
    for key in (report, output):
        key.data()
    assert started.done == [True]


def test_what_a_batch_holds_of_commands_that_a_stop_has_ended_is_passed_over(started: Started) -> None:
    started.put("/bin/echo", "one")
    batch = started.of_one_batch()
    started.tasks.stop()
    for key in batch:
        key.data()
    assert started.done == [True]  # it had ended well before


def test_each_command_that_a_stop_keeps_from_running_has_its_line(started: Started, open_path: Path) -> None:
    for number in range(RUNNING_MAX + 2):
        started.put("/bin/sleep", f"12{number}")
    started.tasks.stop()
    assert not started.done
    assert eventually(lambda: (open_path / "log").read_text().count("\n") == RUNNING_MAX + 2)
    told = (open_path / "log").read_text().splitlines()
    assert [line for line in told if "was not run" in line] == [
        f'command=command stanza=1 argv="/bin/sleep 12{number}" was not run: doorward-exec stops'
        for number in (RUNNING_MAX, RUNNING_MAX + 1)
    ]
