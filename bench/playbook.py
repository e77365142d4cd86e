"""A play with facts and 20 tasks over 1, 10 and 30 hosts: ansible.builtin.ssh and doorward.spa.ssh, by turns.

Each host has one sshd on two ports; doorwardd hides one of them. The plain play goes to the open port with the
connection plugin of ansible-core, the other one to the hidden port with doorward.spa.ssh as the collection's README
has it, with the same tasks and the defaults of ansible-core for all else (forks, ControlPersist, pipelining). Every
play makes its connections anew, one a host, and they stay for its tasks.

For each number of hosts the medians of the plays' wall time and of the controller's CPU time (ansible-playbook and all
that came of it, the ssh processes of ControlPersist included), and the medians of the differences within a turn. A warm
task's CPU time is what a play with 100 tasks more takes, for each of them. The knocks are the lines of doorwardd's log:
before anything is measured each host gets one knock, which must be seen there; a plain play must leave none, and one
through doorward.spa.ssh exactly one at each host, or the program ends with an error.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import doors
import peers
import yaml

from doorward import archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from doors import Cost, Host

    from system.netns import Namespace

PLAIN, KNOCK = "ansible.builtin.ssh", "doorward.spa.ssh"
CONNECTIONS: Final = (PLAIN, KNOCK)
TASKS, MORE_TASKS = 20, 100
COLLECTIONS: Final = peers.ROOT / "collections"
ARCHIVE: Final = COLLECTIONS / "ansible_collections/doorward/spa/roles/daemon/files/doorward.pyz"
_PLAYBOOK: Final = str(Path(sys.executable).parent / "ansible-playbook")
_SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER (prctl(2))
_LOG_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Site:
    """The controller, the hosts and the controller's files."""

    controller: Namespace
    hosts: list[Host]
    folder: Path

    def write_files(self) -> None:
        """Write the plays and an inventory for each number of hosts and each connection."""
        for tasks in (TASKS, TASKS + MORE_TASKS):
            commands = [{"ansible.builtin.command": "true", "changed_when": False}] * tasks
            play = [{"hosts": "all", "gather_facts": True, "tasks": commands}]
            (self.folder / f"{tasks}.yml").write_text(_yaml(play))
        (self.folder / "ssh_config").write_text(doors.login(self.folder))

    def inventory(self, connection: str, hosts: Sequence[Host]) -> str:
        """The inventory file for some hosts."""
        common = {
            "ansible_connection": connection,
            "ansible_python_interpreter": doors.INTERPRETER,
            "ansible_port": doors.OPEN_PORT if connection == PLAIN else doors.SSH_PORT,
            "ansible_ssh_common_args": f"-F {self.folder}/ssh_config",
        }
        if connection == KNOCK:
            common["ansible_spa_key"] = "{{ lookup('doorward.spa.key') }}"
            common["doorward_keys_dir"] = f"{self.folder}/keys"
        named = {name(host): {"ansible_host": host.address} for host in hosts}
        file = self.folder / f"{connection}-{len(hosts)}.yml"
        file.write_text(_yaml({"all": {"hosts": named, "vars": common}}))
        return str(file)

    def environment(self) -> dict[str, str]:
        """The controller's, with a home of its own and a new folder for its shared connections."""
        sockets = tempfile.mkdtemp(dir=self.folder, prefix="c")
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_HOME": str(self.folder / "a"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_NOCOLOR": "1",
        }

    def play(self, connection: str, hosts: Sequence[Host], tasks: int = TASKS) -> Cost:
        """Run a play from closed doors, and see that it left the knocks that it has to leave."""
        for host in hosts:
            host.close()
            if host.is_open(self.controller):
                message = f"{name(host)} answers before anybody has knocked"
                raise SystemExit(message)
        before = [host.knocks for host in hosts]
        argv = [_PLAYBOOK, "-i", self.inventory(connection, hosts), f"{self.folder}/{tasks}.yml"]
        cost = run_whole(self.controller, argv, self.environment(), self.folder / "said")
        wanted = 1 if connection == KNOCK else 0
        seen = [_settled(host, count, wanted) - count for host, count in zip(hosts, before, strict=True)]
        complaint = wrong_knocks(dict(zip(map(name, hosts), seen, strict=True)), wanted)
        if complaint:
            message = f"{connection}: {complaint}"
            raise SystemExit(message)
        return cost

    def see_a_knock(self, program: Path) -> None:
        """Knock at every host by hand until it hears; each knock that it heard must be in its log."""
        for host in self.hosts:
            host.await_listening()
            end = time.monotonic() + doors.READY_SECONDS
            rc_file = self.folder / f"{name(host)}.fwknoprc"
            rc_file.write_text(f"[default]\n{_keys(host.namespace)}")
            rc_file.chmod(0o600)
            words = (doors.INTERPRETER, "-I", str(program), "knock", "--rc-file", str(rc_file), "-A", "tcp/22")
            while not host.is_open(self.controller):
                if time.monotonic() > end:
                    message = f"{name(host)} does not open: {host.log.read_text()}"
                    raise SystemExit(message)
                self.controller.run(*words, "-D", host.address, env={"HOME": str(self.folder), "LOGNAME": "me"})
                time.sleep(0.2)
            if not _settled(host, 0, 1):
                message = f"{name(host)} has opened, and no knock was counted"
                raise SystemExit(message)


def name(host: Host) -> str:
    """The name in the inventory."""
    return f"web{host.namespace.number}"


def _yaml(value: object) -> str:
    return str(yaml.safe_dump(value, sort_keys=False))


def _settled(host: Host, before: int, wanted: int) -> int:
    """The knocks at a host, once there are as many as wanted, or none has come for long enough."""
    end = time.monotonic() + _LOG_SECONDS
    while host.knocks - before < wanted and time.monotonic() < end:
        time.sleep(0.02)
    return host.knocks


def wrong_knocks(seen: dict[str, int], wanted: int) -> str:
    """What is wrong with the knocks that each host has seen; nothing where there are `wanted` at each."""
    wrong = {host: count for host, count in seen.items() if count != wanted}
    listed = ", ".join(f"{host} {count}" for host, count in wrong.items())
    return f"knocks, where {wanted} a host is right: {listed}" if wrong else ""


def run_whole(controller: Namespace, argv: list[str], environment: dict[str, str], log: Path) -> Cost:
    """Run a command, and count the CPU time of all its descendants: of those too that outlive it.

    A process of our own adopts them (PR_SET_CHILD_SUBREAPER), and ends them after the command.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        try:
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
            cost = doors.timed(controller, argv, environment, log)
            _end_children()
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            os.write(writing, f"{cost.wall_ms} {(usage.ru_utime + usage.ru_stime) * 1000}".encode())
            os._exit(0)
        except SystemExit as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as answer:
        words = answer.read().split()
    os.waitpid(process, 0)
    if not words:
        message = f"a play failed: {log.read_text(errors='replace')[-4000:]}"
        raise SystemExit(message)
    return doors.Cost(*map(float, words))


def _end_children() -> None:
    for member in peers.family(os.getpid())[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _keys(host: Namespace) -> str:
    """The keys of a host: two lines of a stanza, each host's own."""
    lines = peers.stanza(peers.keys_of(host.number)).splitlines()
    return "".join(line + "\n" for line in lines if line.startswith(("KEY_BASE64", "HMAC_KEY_BASE64")))


@contextlib.contextmanager
def site(count: int) -> Iterator[Site]:
    """Yield so many hosts, each of which has been seen to hear a knock."""
    archive.build(ARCHIVE)  # of these sources
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dw-")))
        controller, *spaces = stack.enter_context(peers.network("controller", *["host"] * count))
        doors.write_keys(folder)
        program = doors.build_archive(folder)
        hosts = []
        for space in spaces:
            host = stack.enter_context(doors.hidden_host(space, folder, program, _keys(space)))
            file = folder / "keys" / name(host) / "controller.key"
            file.parent.mkdir(mode=0o700, parents=True)
            file.write_text(_keys(space).replace(" ", ": "))
            file.chmod(0o600)
            hosts.append(host)
        made_site = Site(controller, hosts, folder)
        made_site.write_files()
        made_site.see_a_knock(program)
        yield made_site


@dataclass
class Figures:
    """What some plays of both connections took, a value a turn."""

    costs: dict[str, list[Cost]] = field(default_factory=lambda: {connection: [] for connection in CONNECTIONS})

    def median(self, connection: str, unit: str) -> float:
        """The median of one connection."""
        return doors.median(self.costs[connection], unit)

    def more(self, unit: str) -> float:
        """The median of what doorward.spa.ssh took more within a turn."""
        return doors.more(self.costs[KNOCK], self.costs[PLAIN], unit)

    def as_json(self) -> dict[str, object]:
        """Every value."""
        return {key: [[cost.wall_ms, cost.cpu_ms] for cost in costs] for key, costs in self.costs.items()}


def take_turns(made: Site, hosts: Sequence[Host], turns: int, tasks: int = TASKS) -> Figures:
    """Run both plays by turns; each goes first in every other turn."""
    figures = Figures()
    for turn in range(turns):
        for connection in CONNECTIONS if turn % 2 else reversed(CONNECTIONS):
            figures.costs[connection].append(made.play(connection, hosts, tasks))
    return figures


def row(hosts: int, figures: Figures) -> list[str]:
    """One line of the table."""
    words = [str(hosts)]
    for unit in ("wall_ms", "cpu_ms"):
        plain = figures.median(PLAIN, unit)
        words += [f"{plain / 1000:.2f}", f"{figures.median(KNOCK, unit) / 1000:.2f}"]
        words.append(f"{figures.more(unit) / plain:+.1%}")
    return [*words, str(hosts)]


def warm(few: Figures, many: Figures) -> dict[str, float]:
    """The CPU milliseconds of a task on a warm connection."""
    return {each: (many.median(each, "cpu_ms") - few.median(each, "cpu_ms")) / MORE_TASKS for each in CONNECTIONS}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1,10,30", help="numbers of hosts, with commas between (default 1,10,30)")
    parser.add_argument("-n", type=int, default=5, help="turns for one host; fewer for more (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    options = parser.parse_args()
    numbers = sorted(map(int, options.hosts.split(",")))
    peers.begin()
    rows = [["hosts", "plain s", "knock s", "wall", "plain CPU s", "knock CPU s", "CPU", "knocks a play"]]
    values: dict[str, object] = {}
    with site(numbers[-1]) as made:
        made.play(KNOCK, made.hosts)  # every cache is warm from here on
        for number in numbers:
            figures = take_turns(made, made.hosts[:number], turns_for(number, options.n))
            rows.append(row(number, figures))
            print(doors.table([rows[0], rows[-1]]), file=sys.stderr, flush=True)  # 30 hosts take long
            values[str(number)] = figures.as_json()
        one = made.hosts[:1]
        few, many = (take_turns(made, one, options.n, tasks) for tasks in (TASKS, TASKS + MORE_TASKS))
    print(f"facts and {TASKS} tasks, medians")
    print(doors.table(rows))
    costs = warm(few, many)
    more = costs[KNOCK] - costs[PLAIN]
    print(f"CPU of a warm task: plain {costs[PLAIN]:.1f} ms, knock {costs[KNOCK]:.1f} ms: {more:+.1f} ms")
    if options.json:
        options.json.write_text(json.dumps({**values, "warm_task_cpu_ms": costs}, indent=1))


def turns_for(hosts: int, turns: int) -> int:
    """Fewer turns for more hosts, whose plays are many in one; three at least, where that many are wanted."""
    return max(min(turns, 3), round(turns / math.sqrt(hosts)))


if __name__ == "__main__":
    main()
