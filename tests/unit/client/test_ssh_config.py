from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from doorward.client import getopt
from doorward.client.options import CONNECT, SSH_CONFIG
from doorward.client.ssh_config import block, program, proxy_command, route_words
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path


def understood(text: str, host: str, folder: Path) -> dict[str, str]:
    """Return what the real ssh makes of a configuration for a host."""
    (folder / "config").write_text(text)
    command = ["ssh", "-G", "-F", str(folder / "config"), host]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)


def test_ssh_understands_the_block_for_its_hosts_and_for_no_other(tmp_path: Path) -> None:
    text = block(["*.example.org", "web1"], ["doorward", "connect", "--rc-file", "/a b/100%.rc"])
    for host in ("x.example.org", "web1"):
        settings = understood(text, host, tmp_path)
        assert settings["proxycommand"] == "doorward connect --rc-file '/a b/100%%.rc' -- '%h' '%p'"
        assert settings["proxyusefdpass"] == "yes"
    assert "proxycommand" not in understood(text, "web2", tmp_path)


def test_the_block_holds_for_the_name_that_is_typed_whatever_hostname_makes_of_it(tmp_path: Path) -> None:
    text = "Host web1\n    HostName web1.example.org\n" + block(["web1"], ["doorward", "connect"])
    settings = understood(text, "web1", tmp_path)
    assert settings["hostname"] == "web1.example.org"
    assert settings["proxycommand"] == "doorward connect -- '%h' '%p'"


def test_without_fdpass_ssh_is_told_so_whatever_a_later_line_says(tmp_path: Path) -> None:
    text = block(["web1"], ["doorward"], fdpass=False) + "Host *\n    ProxyUseFdpass yes\n"
    assert understood(text, "web1", tmp_path)["proxyusefdpass"] == "no"


@pytest.mark.parametrize("host", ["a\nProxyCommand x", "a b", "-x", '"', "a,b", "", "$(x)", "a;b", "é"])
def test_a_host_that_ssh_config_would_read_otherwise_is_refused(host: str) -> None:
    with pytest.raises(ClientError):
        block([host], ["doorward", "connect"])


@pytest.mark.parametrize("host", ["a b", "$(touch x)", "-oProxyCommand=x", "`id`", "a;b"])
def test_a_host_name_reaches_the_helper_as_one_word_and_never_as_an_option(host: str, tmp_path: Path) -> None:
    show = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "connect"]
    line = proxy_command(show).replace("%h", host).replace("%p", "22").replace("%%", "%")
    words = ["sh", "-c", f"exec {line}"]  # as ssh does it
    shown = subprocess.run(words, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert shown == f"{['connect', '--', host, '22']}\n"
    assert not list(tmp_path.iterdir())
    with pytest.raises(getopt.UsageError, match="is no host name or address"):
        getopt.parse(CONNECT, ["--", host, "22"])


def test_the_options_of_the_way_are_the_ones_that_connect_takes() -> None:
    given = ["-4", "-b", "192.0.2.7", "-B", "eth0", "-J", "alice@gw:2222,[2001:db8::1]", "--ssh", "ssh -F 'a b'"]
    given += ["-N", "[2001:db8::5]:22"]
    said = getopt.parse(SSH_CONFIG, [*given, "web1"])
    again = getopt.parse(CONNECT, [*route_words(said), "web1", "22"])
    for field in ("ipv4_only", "ipv6_only", "bind_address", "bind_interface", "jump", "ssh", "nat_access"):
        assert getattr(again, field) == getattr(said, field)
    assert again.ssh == ("ssh", "-F", "a b")
    assert [str(hop) for hop in again.jump] == ["alice@gw:2222", "[2001:db8::1]"]


def test_no_jump_is_none_as_for_ssh() -> None:
    assert getopt.parse(CONNECT, ["-J", "none", "web1", "22"]).jump == ()


@pytest.mark.parametrize(
    "words",
    [
        ["-J", "-oProxyCommand=x"],
        ["-J", "a b"],
        ["-J", "$(x)"],
        ["-J", "-x@gw"],
        ["-J", "a'b@gw"],
        ["-J", "gw:0"],
        ["-J", ",".join("abcdefghi")],
        ["-B", "-x"],
        ["-b", "a b"],
        ["--ssh", ""],
        ["--ssh", "'"],
    ],
    ids=" ".join,
)
def test_words_that_ssh_would_read_otherwise_are_refused(words: list[str]) -> None:
    with pytest.raises(getopt.UsageError):
        getopt.parse(CONNECT, [*words, "web1", "22"])


def test_the_program_is_named_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "doorward"
    script.touch(0o755)
    monkeypatch.chdir(tmp_path)
    assert program(["python3", "doorward", "a", "b"], ["a", "b"], "/usr/bin/python3") == [str(script)]
    script.chmod(0o644)
    assert program(["python3", "doorward"], [], "/usr/bin/python3") == ["/usr/bin/python3", str(script)]
    isolated = ["python3", "-I", "doorward", "--modules=/x", "connect"]
    python = "/usr/bin/python3"
    assert program(isolated, ["connect"], python) == ["/usr/bin/python3", "-I", str(script), "--modules=/x"]
    assert program(["python3", "-m", "doorward", "x"], ["x"], python) == ["/usr/bin/python3", "-m", "doorward"]
