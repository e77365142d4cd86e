"""From an execution to an argument list: what can be put into it, and as whom it runs."""

from __future__ import annotations

import ipaddress
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.commands import arguments
from doorward.config.stanza import Commands, Cycle
from doorward.errors import HelperError
from doorward.values import Execution, IPAddress, Service
from unit.making import stanza

SUDO = Path("/usr/bin/sudo")
SHELL = Commands(None, None, False, None, None, True)  # noqa: FBT003  by name, a linter takes it for a call
SOURCE, ORIGIN, HOST = (ipaddress.ip_address(text) for text in ("192.0.2.7", "198.51.100.9", "2001:db8::1"))
SOMEBODYS = st.ip_addresses().filter(
    lambda ip: (
        not (ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.packed == b"\xff" * 4)
        and not getattr(ip, "ipv4_mapped", None)
    )
)
KNOCK = Execution(3, SOURCE, ORIGIN, HOST, 60, 1_800_000_000, Service.parse("udp/53"), 60)


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("/bin/x $IP", ("/bin/x", "192.0.2.7")),
        ("/bin/x $SRC $PKT_SRC $DST", ("/bin/x", "192.0.2.7", "198.51.100.9", "2001:db8::1")),
        ("/bin/x $PORT/$PROTO", ("/bin/x", "53/17")),
        ("/bin/x $TIMEOUT $CLIENT_TIMEOUT", ("/bin/x", "1800000060", "60")),
        ("/bin/x $IP,$PORT,$PROTO", ("/bin/x", "192.0.2.7,53,17")),
        ("/bin/x '$IP and more' \"$PORT\"", ("/bin/x", "192.0.2.7 and more", "53")),
        ("/bin/x $HOME `id` $(id) ; rm", ("/bin/x", "$HOME", "`id`", "$(id)", ";", "rm")),
    ],
)
def test_what_fwknopd_substitutes_is_substituted_and_no_shell_reads_it(command: str, argv: tuple[str, ...]) -> None:
    assert arguments.of_cycle(command, KNOCK) == argv


@given(
    source=SOMEBODYS,
    origin=SOMEBODYS,
    port=st.integers(1, 65535),
    seconds=st.integers(1, 8_388_608),
    made=st.integers(0, 2**40),
)
def test_no_value_of_an_execution_makes_another_argument(
    source: IPAddress, origin: IPAddress, port: int, seconds: int, made: int
) -> None:
    knock = Execution(1, source, origin, HOST, seconds, made, Service.parse(f"tcp/{port}"))
    names = ("IP", "SRC", "PKT_SRC", "DST", "PORT", "PROTO", "TIMEOUT", "CLIENT_TIMEOUT")
    argv = arguments.of_cycle(" ".join(["/bin/x", *(f"${name}" for name in names)]), knock)
    assert len(argv) == 1 + len(names)
    assert not set("".join(argv[1:])) - set("0123456789abcdef.:")


@pytest.mark.parametrize("command", ["", "   ", "''", "it's", '"', "\\", "/bin/x a\0b", "\0"])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(HelperError):
        arguments.of_client(Commands(), command, SUDO)


def test_a_clients_command_is_split_and_read_by_no_shell_unless_the_stanza_says_so() -> None:
    command = "echo 'a b' $HOME; id"
    assert arguments.of_client(Commands(), command, SUDO) == ("echo", "a b", "$HOME;", "id")
    assert arguments.of_client(SHELL, command, SUDO) == ("/bin/sh", "-c", command)


def test_sudo_never_asks_and_no_command_is_one_of_its_options() -> None:
    chosen = Commands(sudo=True, sudo_user="alice", sudo_group="staff")
    assert arguments.of_client(chosen, "-u root id", SUDO) == (
        "/usr/bin/sudo", "-n", "-u", "alice", "-g", "staff", "--", "-u", "root", "id",
    )  # fmt: skip


def test_nobody_is_root_unless_root_is_written_out() -> None:
    assert arguments.account(None).uid != 0
    assert arguments.account("root").uid == 0
    with pytest.raises(HelperError, match="no user 0"):
        arguments.account("0")
    with pytest.raises(HelperError, match="no user"):
        arguments.account("nobody-has-this-name")
    with pytest.raises(HelperError, match="no group"):
        arguments.account("nobody", "nobody-has-this-name")


def test_root_by_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    root = pwd.getpwuid(0)
    toor = pwd.struct_passwd(("toor", *root[1:]))
    monkeypatch.setattr(pwd, "getpwnam", {"toor": toor, "root": root}.__getitem__)
    with pytest.raises(HelperError, match="root by another name"):
        arguments.account("toor")
    assert arguments.account("root").uid == 0


def test_the_group_is_looked_up_among_groups() -> None:
    assert arguments.account("nobody", "daemon").gid == 1
    assert set(arguments.account("nobody", "daemon").groups) <= {1, pwd.getpwnam("nobody").pw_gid}


def test_nothing_of_our_environment_reaches_a_command() -> None:
    os.environ["DOORWARD_TEST"] = "x"
    found = arguments.environment(KNOCK, arguments.account("nobody"), "open")
    assert found["SPA_SOURCE"] == "192.0.2.7"
    assert (found["SPA_PORT"], found["SPA_PROTO"], found["SPA_ACTION"], found["SPA_STANZA"]) == (
        "53",
        "17",
        "open",
        "3",
    )
    assert not {"DOORWARD_TEST", "LD_PRELOAD", "PYTHONPATH"} & set(found)


def test_a_cycle_runs_as_root_unless_the_stanza_names_somebody() -> None:
    assert arguments.cycle_account(Cycle("/bin/x", None, None)).uid == 0
    assert arguments.cycle_account(Cycle("/bin/x", None, None, "nobody", "daemon")).name == "nobody"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"commands": Commands()}, "not as root"),
        ({"commands": Commands(user="who-is-that")}, "no user who-is-that"),
        ({"cycle": Cycle("/bin/x s3cret it's", None, None)}, "No closing quotation"),
        ({"cycle": Cycle("/bin/x", "/bin/x s3cret it's", 30)}, "No closing quotation"),
    ],
)
def test_what_will_not_run_as_it_is_written_is_said_at_the_start(changes: dict[str, Any], words: str) -> None:
    (problem,) = arguments.problems(stanza(**changes))
    assert words in problem
    assert "s3cret" not in problem, "the log has no words of a configured command"
    assert problem.startswith("access.conf:1: ")


def test_a_stanza_whose_commands_will_run_as_written_has_no_problem() -> None:
    assert not list(arguments.problems(stanza(cycle=Cycle("/bin/x", "/bin/y", 30))))
    assert not list(arguments.problems(stanza(commands=Commands(user="root"))))
