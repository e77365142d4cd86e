"""The UDP server on sockets of the service manager: the helper of a unit can open none itself."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system.doorwardd import ACCESS, Running, eventually, is_open, send, write
from system.test_hearing import made_by
from system.test_kernel_gate import received_before_a_planted_one, tags, wire
from system.two_ends import Ends, acquainted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

SCRIPT = Path(__file__).with_name("handing.py")
SERVER, PASSIVE = "udp 62201 (server): ", "udp 62201 (passive): "
BOTH = ("0.0.0.0/62201", "::/62201")
TAGGED = 164
EXPLICIT = "ENABLE_UDP_SERVER Y\nUDPSERV_PORT 5000\n"


@dataclass
class Manager(Running):
    """The service manager, with what helper and listener log."""

    def order(self, word: str) -> None:
        """Have it do something, and wait until it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == word


@pytest.fixture
def ends(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> Iterator[Ends]:
    with acquainted(trio, tmp_path) as made:
        yield made


@contextlib.contextmanager
def manager(ends: Ends, *sockets: str, config: str = "", access: str = "") -> Iterator[Manager]:
    """A service manager that has opened these sockets and started nothing."""
    folder = ends.folder
    write(folder / "access.conf", access or ends.access)
    write(folder / "doorwardd.conf", f"FIREWALL_FILE {folder}/firewall.nft\n{ends.config}{config}")
    files = ("-c", f"{folder}/doorwardd.conf", "-a", f"{folder}/access.conf")
    argv = ("unshare", "-m", sys.executable, str(SCRIPT), *files, "--", *sockets)
    tests = str(SCRIPT.parents[1])
    variables = ends.variables | {"PYTHONPATH": f"{ends.variables['PYTHONPATH']}:{tests}"}
    with ends.host.process(*argv, env=variables, stdin=-1) as process:
        made = Manager(process, folder)
        assert process.stdout is not None
        reader = threading.Thread(target=made.take, daemon=True)
        reader.start()
        assert process.stdout.readline() == "ready\n", made.lines
        yield made
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
        reader.join(10)


@contextlib.contextmanager
def heard(ends: Ends, way: str, *sockets: str, config: str = "") -> Iterator[Manager]:
    """The same with a daemon that hears knocks in this way."""
    with manager(ends, *sockets, config=config) as made:
        made.order("start")
        assert f"listening for knocks on {way}" in made.wait_for("listening for knocks")
        yield made


def opens(ends: Ends, made: Manager, count: int = 1, *words: str) -> None:
    ends.doorward("knock", "-n", "web1", "-A", "tcp/22", *words)
    made.wait_for("reason=granted", count)
    assert is_open(ends.client, ends.host.ipv4)


def waiting(ends: Ends, port: int = 62201) -> list[int]:
    """The bytes that wait in the sockets of a port."""
    lines = ends.host.run("ss", "-Hlnu").stdout.splitlines()
    return [int(line.split()[1]) for line in lines if f":{port} " in line]


def test_a_helper_that_can_open_no_ip_socket_serves_on_those_of_the_service_manager(ends: Ends) -> None:
    with heard(ends, SERVER, *BOTH) as made:
        opens(ends, made)
        ends.doorward("knock", "-n", "web1", "-D", ends.host.ipv6, "-A", "tcp/22")
        made.wait_for("reason=granted", 2)
        send(ends.client, os.urandom(TAGGED), ends.host.ipv4)
        opens(ends, made, 3)
        assert len(made.verdicts) == 3, "the kernel gate is there"
        assert len(waiting(ends)) == 2


def test_a_knock_that_arrives_while_the_daemon_is_started_again_opens_and_a_copy_does_not(ends: Ends) -> None:
    """What waits has passed the gate: nothing of strangers. Nothing leaves the host, since the port stays bound."""
    with heard(ends, SERVER, *BOTH) as made, wire(ends.client) as replies:
        send(ends.client, seen := made_by(ends, "doorward1"), ends.host.ipv4)
        made.wait_for("reason=granted")
        made.order("kill")
        received_before_a_planted_one(replies, ends)
        assert len(waiting(ends)) == 2
        send(ends.client, os.urandom(TAGGED), ends.host.ipv4)
        send(ends.client, seen, ends.host.ipv4)
        ends.doorward("knock", "-n", "web1", "-A", "tcp/22")
        assert eventually(lambda: sum(waiting(ends)) > 0)
        assert received_before_a_planted_one(replies, ends) == []
        made.order("start")
        made.wait_for("reason=replay")
        made.wait_for("reason=granted", 2)
        assert is_open(ends.client, ends.host.ipv4)
        opens(ends, made, 3)
        assert len(made.verdicts) == 4


def test_nothing_answers_on_the_port_of_a_daemon_that_was_stopped(ends: Ends) -> None:
    """The table lets the port in for some seconds more, and the gate keeps it silent."""
    with heard(ends, SERVER, *BOTH) as made, wire(ends.client) as replies:
        live = tags(ends)
        made.order("kill")
        made.order("close")
        assert waiting(ends) == []
        received_before_a_planted_one(replies, ends)
        for tag in live:
            send(ends.client, tag + bytes(TAGGED - 8), ends.host.ipv4)
        assert received_before_a_planted_one(replies, ends) == []
        ends.host.nft("delete table inet doorward_gate")
        ends.host.nft("delete table inet doorward")
        send(ends.client, live.pop() + bytes(TAGGED - 8), ends.host.ipv4)
        assert received_before_a_planted_one(replies, ends) != [], "an answer would be seen"


def test_what_has_waited_since_before_there_was_a_gate_is_dropped(ends: Ends) -> None:
    with manager(ends, *BOTH) as made:
        send(ends.client, bytes(TAGGED), ends.host.ipv4)
        assert eventually(lambda: sum(waiting(ends)) > 0)
        made.order("start")
        assert SERVER in made.wait_for("listening for knocks")
        send(ends.client, tags(ends).pop() + bytes(TAGGED - 8), ends.host.ipv4)
        made.wait_for("reason=hmac")
        assert len(made.verdicts) == 1


@pytest.mark.parametrize(
    ("sockets", "why"),
    [
        ((), "doorward-udp.socket has opened no port"),
        (("0.0.0.0/5000", "::/5000"), "doorward-udp.socket is for UDP port 5000, not 62201"),
        (("0.0.0.0/62201",), "doorward-udp.socket is not for every address of this host"),
        (("127.0.0.1/62201", "::/62201"), "doorward-udp.socket is not for every address of this host"),
        (("::/62201/both",), "doorward-udp.socket is not for every address of this host"),
    ],
)
def test_where_the_sockets_do_not_fit_knocks_are_captured_and_a_warning_says_so(
    ends: Ends, sockets: tuple[str, ...], why: str
) -> None:
    with heard(ends, PASSIVE, *sockets) as made:
        assert why in made.wait_for("knocks are captured passively")
        assert why in made.wait_for("listening for knocks")
        opens(ends, made)
        assert sum(waiting(ends) + waiting(ends, 5000)) == 0


def test_a_server_that_was_asked_for_by_name_is_captured_too_on_its_own_port(ends: Ends) -> None:
    with heard(ends, "udp 5000 (passive): ", *BOTH, config=EXPLICIT) as made:
        made.wait_for("is for UDP port 62201, not 5000 (systemctl edit doorward-udp.socket)")
        opens(ends, made, 1, "-p", "5000")


def test_a_server_that_was_asked_for_by_name_has_the_sockets_of_its_port(ends: Ends) -> None:
    with heard(ends, "udp 5000 (server): ", "0.0.0.0/5000", "::/5000", config=EXPLICIT) as made:
        opens(ends, made, 1, "-p", "5000")


def test_while_knocks_are_captured_nothing_waits_and_a_reload_serves_again(ends: Ends) -> None:
    with heard(ends, SERVER, *BOTH) as made:
        for count, (access, way) in enumerate(((ends.access + ACCESS, PASSIVE), (ends.access, SERVER)), 2):
            write(ends.folder / "access.conf", access)
            made.order("hup")
            assert way in made.wait_for("listening for knocks", count)
            opens(ends, made, count - 1)
            assert waiting(ends) == [0, 0]
