"""docs/first-host.md on a fresh Debian 12 and 13 with systemd, from the installation to the way back, as printed.

`make fresh-deb` runs it (root). Only the addresses are others than the page's, since a host sees NAT where its own
address is a public one:

laptop 192.168.1.23 ── 192.168.1.1 home 203.0.114.7 ── host 203.0.114.9
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

import doorward
import transcript
from doorward import archive
from fresh.machines import NEXT, NUMBERS, REPOSITORY, Machine, listen_for_ssh, sshd_began_closed, started
from lab.run import run
from system import netns
from system.doorwardd import eventually
from system.nat_lab import CARRIER, HOME, HOST, MASQUERADE, OWN
from transcript import Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

PAGE: Final = REPOSITORY / "docs/first-host.md"
DEADLINE: Final = 12  # seconds
LAUNCHER: Final = '#!/bin/sh\nexec /usr/bin/python3 -I /opt/doorward/doorward.pyz {} "$@"\n'
STATE: Final = "ls -d /etc/doorward /var/lib/doorward* /run/doorward /etc/systemd/system/doorwardd.service 2>&- || :"


@dataclass(frozen=True)
class Pair:
    """A host, and a laptop behind the router of a home."""

    host: Machine
    laptop: Machine
    home: Namespace

    @property
    def prompts(self) -> dict[str, Machine]:
        return {"web1#": self.host, "laptop$": self.laptop}

    def plug(self, machine: Machine) -> None:
        """Give a machine that has booted its cable to the router."""
        port, gateway = ("outside", CARRIER) if machine is self.host else ("inside", HOME)
        self.home.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", machine.process())
        self.home.run("ip", "address", "add", f"{gateway}/24", "dev", port)
        self.home.run("ip", "link", "set", port, "up")
        there = ("nsenter", "--target", machine.process(), "--net", "ip")
        run(*there, "address", "add", f"{machine.address}/24", "dev", "eth0")
        run(*there, "link", "set", "eth0", "up")
        run(*there, "route", "add", "default", "via", gateway)

    def reboot(self) -> None:
        """Shut the host down and boot it; the kernel has no table of it then."""
        self.host.stop()
        self.host.start()
        self.plug(self.host)

    def dial(self) -> str:
        """What the laptop meets at the host's sshd without a knock: `open`, or `silence`."""
        return self.laptop.dial(HOST)

    def enters(self) -> bool:
        """Whether `ssh web1` knocks and gets in, where all grants were closed before."""
        self.host("doorward close")
        assert self.dial() == "silence"
        return self.laptop.run("ssh web1 hostname") == "web1\n"

    def forget(self) -> None:
        """Take from the laptop what it knows of the host."""
        self.laptop("cd; rm -rf .fwknoprc .local .ssh/config")
        self.host("rm -f /root/laptop.half")

    def begun(self, *options: str) -> tuple[Window, str]:
        """A window in which init has closed the port on trial, and the token of the confirmation."""
        self.forget()
        words = " ".join(("doorward init --client laptop --output laptop.half", *options))
        window = Window(self.host, f"echo $$ > /run/init.pid; exec {words}")
        window.shows_after("Waiting for that knock.\n")
        assert "knocks at" in self.laptop.run("ssh web1 cat laptop.half | doorward import -")
        self.laptop.run("ssh web1 'echo $SSH_CONNECTION' | doorward learn web1")
        assert self.laptop.run("doorward knock -n web1") == ""
        found = window.shows(re.compile(r"(?s:.*) firewall confirm (?P<token>[0-9a-f]{32})\n"))
        return window, found["token"]


@pytest.fixture(scope="module", params=NUMBERS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Nothing of doorward is there, and `ssh web1` gets in."""
    (other,) = (each for each in NUMBERS if each != request.param)
    host = Machine(request.param, HOST, "doorward-first-host", "web1")
    laptop = Machine(other, OWN, "doorward-first-laptop", "laptop")
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(netns.namespace("home"))
        stack.enter_context(started(host, laptop))
        made = Pair(host, laptop, home)
        for machine in (host, laptop):
            made.plug(machine)
        home.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        home.nft(MASQUERADE.format("outside", "masquerade"))
        listen_for_ssh(host)
        laptop(f"echo {HOST} web1 >> /etc/hosts; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        host("umask 077; mkdir -p /root/.ssh; cat > /root/.ssh/authorized_keys", laptop("cat /root/.ssh/*.pub"))
        laptop("ssh-keyscan -t ed25519 web1 > /root/.ssh/known_hosts 2>&1")
        assert laptop.run("ssh web1 hostname") == "web1\n"
        yield made


def here(text: str) -> str:
    """A text of the page with the addresses of this place."""
    return text.replace("192.0.2.10", HOST).replace("198.51.100.7", CARRIER)


def test_step_1_installs_and_closes_nothing(pair: Pair, packages: dict[str, Path]) -> None:
    given = [each for block in transcript.blocks(PAGE, "## 1.", "## 2.") for each in transcript.commands(block)]
    assert {each.prompt for each in given} == set(pair.prompts)
    for prompt, command, _ in given:
        machine = pair.prompts[prompt]
        machine.take(packages[doorward.__version__])
        machine("mv /root/new/*.deb /root")
        machine.run(command, told="y\n")
        assert machine.run("doorward -V") == f"doorward {doorward.__version__}\n"
    assert pair.dial() == "open"
    assert pair.host("nft list tables; systemctl is-active doorwardd || :") == "inactive\n"


def is_as_installed(host: Machine) -> bool:
    """Whether the package is as it came, and nothing of it runs."""
    units = host("systemctl is-active doorwardd || :; systemctl is-enabled doorwardd || :").split()
    files = host("dpkg --verify doorward-daemon; ls /etc/doorward; nft list tables").split()
    return (units, files) == (["inactive", "disabled"], ["doorwardd.conf"])


def test_without_a_knock_everything_is_taken_back(pair: Pair) -> None:
    said = pair.host.run("doorward init --client laptop --wait 1s; echo $?")
    assert "\ndoorwardd.service runs, now and after a reboot\n" in said
    assert "no knock was granted within 1 s, so nothing was closed" in said
    assert said.endswith("\n1\n")
    assert is_as_installed(pair.host)
    assert pair.dial() == "open"


def test_what_nobody_confirms_is_opened_by_the_dead_mans_switch_and_taken_back(pair: Pair) -> None:
    window, _ = pair.begun(f"--deadline {DEADLINE}s")
    pair.host("doorward close; systemctl is-active doorward-fw-rollback.service")
    assert pair.dial() == "silence"
    assert window.ends() == 1
    window.shows_after("nobody has confirmed it in time: the host is open again\n")
    assert pair.dial() == "open"
    assert is_as_installed(pair.host)


def test_the_dead_mans_switch_needs_neither_init_nor_its_session(pair: Pair, packages: dict[str, Path]) -> None:
    window, token = pair.begun(f"--deadline {DEADLINE}s")
    pair.host("doorward close; kill -KILL $(cat /run/init.pid)")
    assert window.ends() != 0
    assert pair.dial() == "silence"
    assert eventually(lambda: pair.dial() == "open", DEADLINE + 30)
    assert "not pending" in pair.host.fails(f"doorward firewall confirm {token}")
    pair.host("dpkg --purge doorward-daemon 2>&1")
    pair.host.install(packages[doorward.__version__])


def test_the_page_leads_to_a_closed_host_that_its_laptop_enters(pair: Pair) -> None:
    pair.forget()
    transcript.follow(transcript.blocks(PAGE, "## 2.", "## What is going on"), pair.prompts, "doorward init", here)
    assert pair.enters()
    assert pair.host("dpkg --verify doorward-daemon; ls /etc/doorward").split() == ["access.conf", "doorwardd.conf"]


def test_a_second_person_gets_in_with_keys_of_her_own_and_is_taken_out_again(pair: Pair) -> None:
    section = (REPOSITORY / "docs/without-ansible.md").read_text().partition("### A second person\n")[2]
    made, _, rest = section.partition("```sh\n")[2].partition("```\n")[0].partition("\n")
    before = pair.host("cat /etc/doorward/access.conf")
    assert pair.host.run(made).count("\n") <= 1
    keys = pair.host("cat /root/anna.key")
    assert "2 stanzas" in pair.host.run(rest)
    assert "No such file" in pair.host.fails("cat /root/anna.key")
    pair.host("doorward close")
    assert pair.dial() == "silence"
    pair.laptop("umask 077; cat > /root/anna.rc", f"[web1]\nSPA_SERVER {HOST}\nACCESS tcp/22\n{keys}")
    assert pair.laptop.run("doorward knock --rc-file anna.rc -n web1") == ""
    assert eventually(lambda: pair.dial() == "open")
    assert "name=anna" in pair.host("journalctl -u doorwardd -o cat -g verdict=granted -n 1")

    pair.host("cat > /etc/doorward/access.conf; systemctl reload doorwardd", before)
    pair.host(f"doorward close --from {CARRIER} --sessions")
    assert pair.laptop.run("doorward knock --rc-file anna.rc -n web1") == ""
    assert eventually(lambda: "verdict=denied" in pair.host("journalctl -u doorwardd -o cat -g verdict= -n 1"))
    assert pair.dial() == "silence"
    assert pair.enters()


def test_it_stays_closed_when_doorwardd_is_restarted(pair: Pair) -> None:
    before = pair.host.pid()
    pair.host("doorward close; systemctl restart doorwardd")
    assert pair.host.pid() not in {"0", before}
    assert pair.dial() == "silence"
    assert pair.enters()


def test_it_stays_closed_over_a_reboot_from_before_sshd_on(pair: Pair) -> None:
    pair.reboot()
    assert pair.dial() == "silence"
    assert sshd_began_closed(pair.host)
    assert pair.enters()


def test_it_stays_closed_over_an_upgrade(pair: Pair, packages: dict[str, Path]) -> None:
    pair.host("doorward close")
    before = pair.host.pid()
    pair.host.install(packages[NEXT])
    assert pair.host("dpkg-query -W -f '${Version}' doorward-daemon") == NEXT
    assert pair.host.pid() not in {"0", before}
    assert pair.dial() == "silence"
    assert pair.enters()


def test_the_steps_back_open_the_host_for_good(pair: Pair) -> None:
    pair.host("doorward close")
    assert pair.dial() == "silence"
    transcript.follow(transcript.blocks(PAGE, "## Back", "## Next"), pair.prompts, "", here)
    assert pair.dial() == "open"
    pair.reboot()
    assert pair.dial() == "open"


def test_an_uninstalled_host_is_open_and_has_nothing_left(pair: Pair) -> None:
    pair.host("systemctl enable --now doorwardd")
    assert pair.enters()
    pair.host("doorward close")
    assert pair.dial() == "silence"
    assert "THE HOST IS OPEN" in pair.host("apt-get -qy purge doorward-daemon doorward 2>&1")
    assert pair.dial() == "open"
    assert pair.host(STATE) == ""


def test_the_unit_that_init_writes_where_there_is_no_package_closes_the_host_at_every_boot(
    pair: Pair, tmp_path: Path
) -> None:
    archive.build(tmp_path / "doorward.pyz")
    (tmp_path / "doorward").write_text(LAUNCHER.format(""))
    (tmp_path / "doorwardd").write_text(LAUNCHER.format("doorwardd"))
    pair.host.take(tmp_path)
    pair.host("install -Dt /usr/local/sbin /root/new/doorward /root/new/doorwardd")
    pair.host("install -Dt /opt/doorward /root/new/doorward.pyz")

    window, token = pair.begun()
    pair.laptop.run("doorward ssh-config -n web1 web1 >> ~/.ssh/config")
    assert "confirmed" in pair.laptop.run(f"ssh web1 doorward firewall confirm {token}")
    assert window.ends() == 0
    assert "doorward.pyz doorwardd -f\n" in pair.host("cat /etc/systemd/system/doorwardd.service")
    assert pair.enters()
    pair.host("doorward close; systemctl restart doorwardd")
    assert pair.dial() == "silence"
    pair.reboot()
    assert pair.dial() == "silence"
    assert sshd_began_closed(pair.host)
    assert pair.enters()

    pair.host("systemctl disable --now doorwardd; doorward firewall stop; rm /etc/systemd/system/doorwardd.service")
    assert pair.dial() == "open"
