"""`doorward keys pin`: a host's public key over a real sshd, kept, used for knocks, and refused once it is another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from system.first_host import TESTS, machines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.first_host import Machine

KNOWN: Final = "/root/.config/doorward/known_hosts"


@pytest.fixture
def pair(open_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with machines(open_path) as made:
        yield made


def acquaint(host: Machine, laptop: Machine) -> str:
    """Make both key pairs, and let the laptop's in; return the host's public line."""
    line = laptop.run("doorward keys generate --public --comment alice@laptop").strip()
    assert line.startswith("doorward1 "), line
    made = host.run("mkdir -p /etc/doorward && doorwardd keys generate --comment web1").strip()
    assert made.startswith("doorward1 "), made
    access = f"SOURCE ANY\\nCLIENT {line}\\nOPEN_PORTS tcp/22\\nFW_ACCESS_TIMEOUT 3\\n"
    assert host.run(f"umask 077; printf '{access}' > /etc/doorward/access.conf") == ""
    return made


def renew(host: Machine) -> str:
    """Give the host another pair, and return its public line."""
    return host.run("mv /etc/doorward/host.key /root/ && doorwardd keys generate --comment web1").strip()


def test_a_pinned_host_is_entered_by_a_knock_and_no_file_names_its_key(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    line = acquaint(host, laptop)
    pinned = laptop.run("doorward keys pin web1")
    words = host.run("doorwardd keys fingerprint").strip()
    assert pinned == f"web1: {words}\n{KNOWN}:1: knocks at web1 use this key\n"
    assert laptop.run(f"cat {KNOWN}; stat -c %a {KNOWN}") == f"web1 {line}\n600\n"
    laptop.run("ssh web1 'echo $SSH_CONNECTION' | doorward learn web1")  # it is behind NAT
    host.run("doorwardd")
    for _ in range(100):
        if "reachable" not in laptop.run("timeout 0.5 bash -c '</dev/tcp/web1/22' && echo reachable"):
            break
    else:
        pytest.fail("the host is still open")
    laptop.run("doorward ssh-config web1 >> ~/.ssh/config")
    assert laptop.run("ssh web1 echo inside") == "inside\n"
    assert "web1: knocked at with the key that `doorward keys pin` keeps" in laptop.run("doorward status --me")
    assert "  key" in laptop.run("doorward doctor --no-knock web1").replace("ok", "  ")
    time.sleep(4)  # the window of 3 s
    laptop.run(f"mv {KNOWN} {KNOWN}.away")
    assert "no encryption key to knock with" in laptop.run("doorward connect --timeout 3 web1 22 < /dev/null")
    laptop.run(f"mv {KNOWN}.away {KNOWN}")
    assert laptop.run("doorward connect web1 22 < /dev/null").startswith("SSH-2.0-")


def test_another_key_is_refused_with_file_and_line_until_it_is_forced(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    acquaint(host, laptop)
    laptop.run(f"echo '# mine' > {KNOWN}")
    assert f"{KNOWN}:2: knocks at web1" in laptop.run("doorward keys pin web1")
    kept = laptop.run(f"cat {KNOWN}")
    assert f"{KNOWN}:2: knocks at web1" in laptop.run("doorward keys pin web1; echo code $?"), "the same key again"
    line = renew(host)
    refused = laptop.run("doorward keys pin web1; echo code $?")
    assert f"{KNOWN}:2: web1 has another key here than the host shows now. Nothing was changed." in refused
    assert refused.endswith("\ncode 1\n")
    assert laptop.run(f"cat {KNOWN}") == kept
    assert f"{KNOWN}:2: knocks at web1" in laptop.run("doorward keys pin --force web1")
    assert laptop.run(f"cat {KNOWN}") == f"# mine\nweb1 {line}\n"


def test_a_section_that_names_the_key_wins_and_pin_says_so(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    line = acquaint(host, laptop)
    new = renew(host)
    laptop.run(f"umask 077; printf '[web1]\\nHOST_KEY {line}\\n' > ~/.fwknoprc")
    pinned = laptop.run("doorward keys pin web1")
    assert "/root/.fwknoprc names another key for web1, which is used instead" in pinned
    named, kept = (laptop.run(f"doorward keys fingerprint {each}").split()[0] for each in (line, new))
    assert f"the host's {named} " in laptop.run("doorward doctor --no-knock web1")
    laptop.run("rm ~/.fwknoprc")
    assert f"the host's {kept} " in laptop.run("doorward doctor --no-knock web1")


def test_a_host_that_ssh_does_not_know_is_not_pinned(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    acquaint(host, laptop)
    laptop.run("sed 's/UserKnownHostsFile.*/UserKnownHostsFile ~\\/.ssh\\/none/' ~/.ssh/config > ~/.ssh/other")
    laptop.run("echo '    StrictHostKeyChecking no' >> ~/.ssh/other")
    refused = laptop.run("doorward keys pin -F ~/.ssh/other web1; echo code $?")
    assert "Host key verification failed" in refused
    assert refused.endswith("code 1\n")
    assert "No such file" in laptop.run(f"cat {KNOWN}")
    assert "knocks at web1" in laptop.run("doorward keys pin web1"), "with the known host it would have been"


def test_what_pin_needs_is_told_before_anything_is_changed(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    told = laptop.run("doorward keys pin web1")
    assert "there is no /root/.config/doorward/client.key to knock with: `doorward keys generate --public`" in told
    laptop.run("doorward keys generate --public")
    told = laptop.run("doorward keys pin web1; echo code $?")
    assert "/etc/doorward/host.key: cannot be read: No such file or directory" in told, "the host's own words"
    assert told.endswith("code 1\n")
    assert "No such file" in laptop.run(f"cat {KNOWN}")
    acquaint_again = host.run("mkdir -p /etc/doorward && doorwardd keys generate")
    assert acquaint_again.strip() in laptop.run(f"doorward keys pin web1 && cat {KNOWN}")


def test_a_user_of_the_host_shows_its_public_key_and_cannot_read_the_pair(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    line = acquaint(host, laptop)
    assert host.run("stat -c '%a %n' /etc/doorward/host.key*").split() == [
        "600", "/etc/doorward/host.key", "644", "/etc/doorward/host.key.pub",
    ]  # fmt: skip
    program = "import sys; sys.path[:0] = ['/run/as/daemon']; from doorward.daemon import main; sys.exit(main())"
    host.run(
        f"mkdir -p /run/as && cp -r {TESTS.parent}/daemon /run/as && chmod -R a+rX /run/as\n"
        f'cat > /run/as/doorwardd <<"E"\n#!/usr/bin/python3\n{program}\nE\nchmod 755 /run/as/*'
    )
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    assert "Permission denied" in host.run(f"{nobody} cat /etc/doorward/host.key")
    assert host.run(f"{nobody} /run/as/doorwardd keys show").strip() == line
    host.run("mv /etc/doorward/host.key /root/")
    assert "doorward1" not in host.run(f"{nobody} /run/as/doorwardd keys show"), "no key that the host does not have"
    host.run("mv /root/host.key /etc/doorward/ && echo 'doorward1 x' > /etc/doorward/host.key.pub")
    assert "host.key.pub: is no public key" in host.run(f"{nobody} /run/as/doorwardd keys show")
    told = host.run("doorwardd keys show")
    assert line in told
    assert "host.key.pub is not the public half of /etc/doorward/host.key: `doorwardd keys show > " in told


def test_what_a_host_says_in_place_of_a_key_is_refused_and_shown_as_text(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    line = acquaint(host, laptop)
    program = host.programs / "doorwardd"
    launcher = program.read_text()
    for said, complaint in (
        ("true", "web1 shows 0 public keys, where there must be one"),
        ("echo hello", "web1 shows 0 public keys"),
        (f"printf '{line}\\n{line}\\n'", "web1 shows 2 public keys"),
        (f"echo 'doorward1 {'A' * 43}='", "web1 shows no good public key: the public key is of low order"),
        ("echo 'doorward1 AAA'", "web1 shows no good public key: the public key is not base64, or was cut"),
        (f"printf '{line}\\033[2J'", "web1 shows no good public key: "),
        (f"echo '{line} b'", "the comment behind a public key is one word"),
        (f"yes '{line}'", "ssh web1 ended with "),
        (f"echo '{line}'; exit 3", "ssh web1 ended with 3: "),
    ):
        program.write_text(f"#!/bin/sh\n{said}\n")
        told = laptop.run("doorward keys pin web1; echo code $?")
        assert complaint in told, told
        assert told.endswith("code 1\n")
        assert told.replace("\n", "").isprintable()
        assert "No such file" in laptop.run(f"cat {KNOWN}")
    program.write_text(f"#!/bin/sh\necho 'a banner of the shell'\necho '{line}'\n")
    assert laptop.run(f"doorward keys pin web1 > /dev/null; cat {KNOWN}") == f"web1 {line}\n"
    program.write_text(launcher)
