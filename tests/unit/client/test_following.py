"""What the ssh that runs a ProxyCommand was told, as the real ssh says it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from doorward.client import following
from doorward.client.profile import Hop
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path


def nothing_said() -> SimpleNamespace:
    fields = ("ipv4_only", "ipv6_only", "bind_address", "bind_interface", "jump", "ssh")
    return SimpleNamespace(**dict.fromkeys(fields))


def told(folder: Path, *options: str) -> dict[str, str]:
    """Return what a ProxyCommand of the real ssh is told."""
    code = (
        "import json, os, sys; from doorward.client import following as f; a = f.ask(os.getppid()); "
        "json.dump({**f.answer(a), 'F': f.configuration(a.words)}, open(sys.argv[1], 'w'))"
    )
    proxy = shlex.join([sys.executable, "-c", code, str(folder / "told")])
    words = ["ssh", *options, "-o", "ProxyUseFdpass=no", "-o", f"ProxyCommand={proxy}", "alice@web1", "grep", "-F", "x"]
    subprocess.run(words, check=False, capture_output=True)
    return dict(json.loads((folder / "told").read_text()))


def test_a_proxy_command_learns_what_ssh_was_told_by_words_and_by_files(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("Host web1\n    AddressFamily inet6\n    ProxyJump bob@gw:2222\n")
    found = told(tmp_path, "-F", str(file), "-b", "192.0.2.7")
    assert (found["addressfamily"], found["bindaddress"]) == ("inet6", "192.0.2.7")
    assert found["proxyjump"] == "bob@gw:2222"
    assert found["F"] == str(file)
    said = nothing_said()
    following.apply(found, said)
    assert (said.ipv4_only, said.ipv6_only, said.bind_address) == (None, True, "192.0.2.7")
    assert said.jump == (Hop("gw", "bob", 2222),)


def test_where_ssh_was_told_nothing_nothing_changes(tmp_path: Path) -> None:
    said = nothing_said()
    following.apply(told(tmp_path, "-F", "none"), said)
    assert said == nothing_said()


def test_what_the_command_line_says_wins() -> None:
    said = nothing_said()
    said.ipv4_only, said.bind_interface, said.jump = True, "eth0", ()
    before = SimpleNamespace(**vars(said))
    following.apply({"addressfamily": "inet6", "bindaddress": "192.0.2.7", "proxyjump": "gw"}, said)
    assert said == before


def test_a_jump_that_no_host_can_have_is_told() -> None:
    with pytest.raises(ClientError, match="ssh's ProxyJump"):
        following.apply({"proxyjump": "$(x)"}, nothing_said())


def test_another_parent_says_nothing() -> None:
    assert following.ask(os.getpid()) is None
    assert following.ask(1 << 30) is None
    said = nothing_said()
    following.follower(os.getpid(), said)()
    assert said == nothing_said()


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("-F a web1", "a"),
        ("-4Fa web1", "a"),
        ("web1 -F a ls", "a"),
        ("-o User=F web1", None),
        ("web1 grep -F a", None),
        ("-- web1 grep -F a", None),
        ("-l -F web1", None),
        ("-F", ""),
    ],
)
def test_the_file_is_the_one_of_ssh_and_not_of_the_remote_command(words: str, file: str | None) -> None:
    assert following.configuration(words.split()) == file


def test_the_own_proxy_command_is_left_out_of_the_question() -> None:
    words = ["-4", "-o", "ProxyUseFdpass=yes", "-o", "ProxyCommand=x y", "-o", "User=a", "web1"]
    assert following.without_proxy(words) == ["-4", "-o", "User=a", "web1"]
