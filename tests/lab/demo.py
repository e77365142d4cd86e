"""The demo: two hosts, their owner and an outsider. Every step says what it saw, and a table ends it.

Run again, it finds the hosts as it left them: hidden. The roll-out must then change nothing.
"""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import hosts, outsider, secret_search
from lab.controller import INVENTORY, VISIT, Controller
from lab.plan import CONTROLLER, DEMO, HOSTS, REPOSITORY, STATE, Address, Host
from lab.run import LabError, run, say

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = ("--extra-vars", "ansible_connection=ansible.builtin.ssh", "--timeout", "4")
# Each command its own connection, so that none rides on one that was opened earlier.
UNSHARED = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none"}
ARCHIVE = REPOSITORY / "collections/ansible_collections/doorward/spa/roles/daemon/files/doorward.pyz"
FWKNOP = ("env", f"HOME={STATE}", "fwknop")
"""fwknop's client, which would make files in the caller's home."""
CLOSING = 90.0
"""Seconds after which a window must have closed by itself; the window of the lab is shorter."""


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table."""

    name: str
    passed: bool
    saw: str


def check(*, holds: bool, otherwise: str) -> None:
    """Go on if something holds.

    Raises:
        LabError: it does not.
    """
    if not holds:
        raise LabError(otherwise)


class Demo:
    """The steps, in their order; each returns what it saw or raises LabError."""

    def __init__(self) -> None:
        """Nothing is started before the first step."""
        self.hosts = [HOSTS[name] for name in DEMO]
        self.controller = Controller()
        self.hidden: list[Host] = []
        self.sessions: list[Session] = []

    @property
    def all_hidden(self) -> bool:
        """Whether an earlier run has hidden every host already."""
        return self.hidden == self.hosts

    def start(self) -> str:
        """Two hosts and an outsider are on one network."""
        hosts.up(DEMO)
        self.hidden = [host for host in self.hosts if is_hidden(host)]
        systems = [f"{host.name}: {hosts.inside(host, 'sh', '-c', SYSTEM).strip()}" for host in self.hosts]
        earlier = ", ".join(host.name for host in self.hidden)
        return "\n".join([*systems, f"hidden by an earlier run: {earlier}" if earlier else "both are bare"])

    def scan_before(self) -> str:
        """The outsider finds sshd on both hosts."""
        wait_until_closed(self.hidden)
        views = outsider.scan(self.hosts)
        for view in views:
            ports = [] if view.host in self.hidden else [view.host.ssh_port]
            for seen in (view.ipv4, view.ipv6):
                check(holds=seen.tcp_open == ports, otherwise=f"expected tcp {ports} open, saw {view}")
        earlier = ["(hidden by an earlier run)"] if self.all_hidden else []
        return "\n".join([*map(str, views), *earlier])

    def plain_before(self) -> str:
        """Plain Ansible reaches a host that is not hidden."""
        reached = [host.name for host in self.hosts if host not in self.hidden]
        if not reached:
            return self.plain_fails()
        self.controller.playbook(str(VISIT), *PLAIN, "--limit", ",".join(reached)).check()
        return f"visit.yml ran over plain ssh: {', '.join(reached)}"

    def roll_out(self) -> str:
        """The roll-out hides both hosts."""
        same = self.all_hidden and all(archive_of(host) == archive_here() for host in self.hosts)
        played = self.controller.playbook("doorward.spa.rollout").check()
        for host in self.hosts:
            check(holds=is_hidden(host), otherwise=f"{host.name} is not hidden after the roll-out")
        if same:
            check(holds=played.changed == 0, otherwise=f"the roll-out changed something:\n{played.output[-3000:]}")
        return ", ".join(f"{recap.host}: ok={recap.ok} changed={recap.changed}" for recap in played.hosts)

    def scan_hidden(self) -> str:
        """The outsider gets no answer, on any port, nor to what a kernel answers by itself."""
        wait_until_closed(self.hosts)
        seen = self._scan_nothing()
        provoked = outsider.provoke(self.hosts)
        for one in provoked:
            check(holds=not one.answers, otherwise=f"the outsider got answers: {one}")
        for host in self.hosts:
            states = outsider.nmap_states(host)
            silent = states <= {"filtered", "open|filtered", "no-response"}
            check(holds=silent, otherwise=f"nmap says of {host.name}: {states}")
        said = "\n".join(map(str, provoked))
        return f"{seen}\n{said}\nnmap agrees: every port it tried is filtered"

    def plain_fails(self) -> str:
        """Plain Ansible cannot reach the hosts."""
        wait_until_closed(self.hosts)
        plain = Controller(settings=UNSHARED)
        played = plain.playbook(str(VISIT), *PLAIN)
        check(holds=played.unreachable == set(DEMO), otherwise=f"plain ssh got in:\n{played.output[-3000:]}")
        return "both hosts are unreachable: the connection times out"

    def playbook_runs(self) -> str:
        """The same playbook runs when its connections knock."""
        played = self.controller.playbook(str(VISIT)).check()
        check(holds=len(played.hosts) == len(self.hosts), otherwise=played.output[-3000:])
        return ", ".join(f"{recap.host}: ok={recap.ok} failed={recap.failed}" for recap in played.hosts)

    def fwknop_beside(self) -> str:
        """A client of fwknop, who has a secret key, gets in beside it."""
        wait_until_closed(self.hosts)
        version = run(*FWKNOP, "--version").strip().splitlines()[-1]
        for host in self.hosts:
            check(holds=not hosts.reachable(host), otherwise=f"{host.name} lets plain ssh in before the knock")
            fwknop(host)
            wait_for_grant(host, "neighbour")
            check(holds=hosts.reachable(host), otherwise=f"{host.name} does not let the client of fwknop in")
        return f"{version}: each host granted its knock to `neighbour`, and plain ssh got in"

    def no_secret(self) -> str:
        """No secret is in the inventory."""
        secrets = secret_search.of_the_lab(self.hosts)
        check(
            holds=len(secrets) >= 1 + 3 * len(self.hosts),
            otherwise=f"there are only {len(secrets)} secrets to look for",
        )
        files = secret_search.files_of(INVENTORY)
        public = {file.parent.name for file in files if "doorward_host_key: " in file.read_text(encoding="utf-8")}
        check(holds=public >= {*DEMO}, otherwise=f"public keys are there of {public}")
        found = secret_search.files_with(secrets, INVENTORY)
        check(holds=not found, otherwise=f"secrets are in {found}")
        with tempfile.TemporaryDirectory(prefix="doorward-demo-") as folder:
            copy = Path(folder) / "inventory"
            planted = secret_search.planted(min(secrets), INVENTORY, copy)
            seen = secret_search.files_with(secrets, copy)
            check(holds=seen == [planted], otherwise=f"a secret was planted in {planted}, and found in {seen}")
        return (
            f"none of {len(secrets)} secrets (private keys, keys of fwknop's format) is in its {len(files)} files, "
            f"which have the public keys of {len(public)} hosts; one that was planted in a copy was found"
        )

    def scan_open_window(self) -> str:
        """The outsider still sees nothing while the owner's window is open."""
        for host in self.hosts:
            self._knock(host)
            self.sessions.append(Session(host))
        seen = self._scan_nothing()
        for host in self.hosts:
            check(holds=bool(grants(host)), otherwise=f"{host.name}: the window closed before the scan was over")
        return f"the owner's window is open before and after the scan, plain ssh gets in\n{seen}"

    def window_closes(self) -> str:
        """The windows close by themselves, and an open session lives on."""
        seconds = wait_until_closed(self.hosts)
        for host in self.hosts:
            check(holds=not hosts.reachable(host), otherwise=f"{host.name} still lets plain ssh in")
        for session in self.sessions:
            session.check_alive()
        return f"closed after {seconds:.0f} s more, plain ssh times out; the SSH sessions opened before still answer"

    def second_roll_out(self) -> str:
        """A second roll-out changes nothing."""
        played = self.controller.playbook("doorward.spa.rollout").check()
        check(holds=played.changed == 0, otherwise=f"it changed something:\n{played.output[-3000:]}")
        return ", ".join(f"{recap.host}: ok={recap.ok} changed={recap.changed}" for recap in played.hosts)

    def close(self) -> None:
        """End what still runs."""
        for session in self.sessions:
            session.close()

    def _knock(self, host: Host) -> None:
        self.controller.module(host.name, "doorward.spa.knock").check()
        wait_for_grant(host, "controller")

    def _scan_nothing(self) -> str:
        views = outsider.scan(self.hosts)
        for view in views:
            silent = view.answers + view.ipv4.stray + view.ipv6.stray == 0
            check(holds=silent, otherwise=f"the outsider got answers: {view.ipv4} {view.ipv6}")
        return "\n".join(map(str, views))


SYSTEM = (
    '. /etc/os-release; echo "$PRETTY_NAME, systemd $(systemctl --version | sed -n "1s/systemd \\([0-9]*\\).*/\\1/p")"'
)


class Session:
    """An SSH session through an open window, kept open."""

    def __init__(self, host: Host, place: tuple[str, ...] = ()) -> None:
        """Open it with plain ssh, run through the words of a place: the window must be open already."""
        self.host = host
        self._process = subprocess.Popen(
            [*place, *hosts.ssh_command(host, "-oControlPath=none"), "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.check_alive()

    def check_alive(self) -> None:
        """See that a command run in the session answers.

        Raises:
            LabError: it does not.
        """
        word = f"alive-{time.monotonic_ns()}"
        check(holds=self._ask(f"echo {word}") == f"{word}\n", otherwise=f"the SSH session to {self.host.name} is dead")

    def _ask(self, command: str) -> str:
        """The first line of a command's output, nothing when there is none within ten seconds."""
        writing, reading = self._process.stdin, self._process.stdout
        if writing is None or reading is None:
            return ""
        try:
            writing.write(f"{command}\n")
            writing.flush()
        except BrokenPipeError:
            return ""
        return reading.readline() if select.select([reading], [], [], 10)[0] else ""

    def close(self) -> None:
        """End the session."""
        self._process.kill()
        self._process.communicate()


def archive_here() -> str:
    """The checksum of the archive that a roll-out would put on a host."""
    return hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()


def archive_of(host: Host) -> str:
    """The checksum of the archive on a host."""
    return hosts.inside(host, "sha256sum", "/usr/lib/doorward/doorward.pyz").partition(" ")[0]


def is_hidden(host: Host) -> bool:
    """Whether the host's firewall was closed and confirmed."""
    command = "test -e /etc/doorward/firewall.nft && nft list table inet doorward >/dev/null 2>&1 && echo yes || :"
    return hosts.inside(host, "sh", "-c", command).strip() == "yes"


def grants(host: Host) -> list[dict[str, object]]:
    """The windows that are open on a host, as its own console says."""
    shown: list[dict[str, object]] = hosts.status(host)["grants"]
    return shown


def wait_for_grant(host: Host, client: str) -> None:
    """Return as soon as a window of a client is open.

    Raises:
        LabError: none is within ten seconds.
    """
    end = time.monotonic() + 10
    while not any(grant.get("name") == client for grant in grants(host)):
        check(holds=time.monotonic() < end, otherwise=f"{host.name} granted {client} nothing within 10 s of a knock")
        time.sleep(0.1)


def fwknop(host: Host) -> None:
    """Knock with fwknop's own client, whose key the roll-out made."""
    file = STATE / "neighbour.fwknoprc"
    file.touch(mode=0o600)
    key = (STATE / f"keys/{host.name}/neighbour.key").read_text(encoding="utf-8").replace(":", "")
    file.write_text(f"[default]\nUSE_HMAC Y\n{key}", encoding="utf-8")
    here = Address(CONTROLLER).ipv4
    what = ("-A", f"tcp/{host.ssh_port}", "-a", here, "-D", host.address.ipv4, "--no-save-args")
    run(*FWKNOP, "--rc-file", str(file), *what)


def wait_until_closed(closing: list[Host]) -> float:
    """How long it took until no window was open any more, in seconds.

    Raises:
        LabError: one is still open after more than the longest window.
    """
    begun = time.monotonic()
    for host in closing:
        while grants(host):
            late = time.monotonic() - begun > CLOSING
            check(holds=not late, otherwise=f"{host.name}: a window is still open after {CLOSING:.0f} s")
            time.sleep(0.3)
    return time.monotonic() - begun


def steps(demo: Demo) -> list[Callable[[], str]]:
    """The steps in their order; what a step shows stands in the first line of its docstring."""
    return [
        demo.start,
        demo.scan_before,
        demo.plain_before,
        demo.roll_out,
        demo.scan_hidden,
        demo.plain_fails,
        demo.playbook_runs,
        demo.fwknop_beside,
        demo.no_secret,
        demo.scan_open_window,
        demo.window_closes,
        demo.second_roll_out,
    ]


def title(step: Callable[[], str]) -> str:
    """What a step shows."""
    return (step.__doc__ or "").partition("\n")[0].rstrip(".")


def play(demo: Demo) -> list[Step]:
    """The rows of the table; after a failed step the rest is not tried."""
    rows = []
    for number, step in enumerate(steps(demo), 1):
        say(f"\n--- {number}. {title(step)}")
        try:
            row = Step(title(step), passed=True, saw=step())
        except (LabError, subprocess.TimeoutExpired, OSError) as error:
            row = Step(title(step), passed=False, saw=str(error))
        say("\n".join(f"    {line}" for line in row.saw.splitlines()))
        rows.append(row)
        if not row.passed:
            break
    return rows


def main() -> int:
    """The exit code: 0 when every step passed."""
    if os.geteuid() != 0:
        sys.stderr.write("demo: needs root: it makes network namespaces and system containers\n")
        return 4
    demo = Demo()
    try:
        rows = play(demo)
    finally:
        demo.close()
    missing = [Step(title(step), passed=False, saw="") for step in steps(demo)[len(rows) :]]
    say("\n" + "=" * 78)
    for number, row in enumerate([*rows, *missing], 1):
        verdict = "passed" if row.passed else "FAILED" if row.saw else "not tried"
        say(f"{number:3}. {row.name:66} {verdict}")
    say("=" * 78)
    passed = sum(row.passed for row in rows)
    say(f"{passed} of {len(rows) + len(missing)} steps passed. `make demo-down` removes all of it.")
    return 0 if passed == len(steps(demo)) else 1


if __name__ == "__main__":
    sys.exit(main())
