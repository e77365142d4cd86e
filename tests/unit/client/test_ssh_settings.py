"""What ssh itself says of its ssh_config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.client import ssh_settings
from doorward.client.getopt import UsageError
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path


def asked(folder: Path, *lines: str, host: str = "web1") -> ssh_settings.SshSettings:
    path = folder / "ssh_config"
    path.write_text("Host web1\n" + "".join(f"  {line}\n" for line in lines))
    return ssh_settings.ask(host, path)


def test_host_port_and_jump_are_those_of_ssh_config(tmp_path: Path) -> None:
    found = asked(tmp_path, "HostName 192.0.2.10", "Port 2222", "ProxyJump bastion")
    assert found == ("192.0.2.10", 2222, "bastion", "")
    assert found.said is None
    assert asked(tmp_path, host="web2") == ("web2", 22, "", "")


@pytest.mark.parametrize("line", ["ProxyJump none", "ProxyCommand none"])
def test_none_is_no_proxy(line: str, tmp_path: Path) -> None:
    assert asked(tmp_path, line) == ("web1", 22, "", "")


@pytest.mark.parametrize("program", ["doorward", "/usr/bin/doorward", "python3 '/opt/my spa/doorward.pyz'"])
def test_the_options_of_our_proxy_command_are_read(program: str, tmp_path: Path) -> None:
    found = asked(tmp_path, "HostName 192.0.2.10", f"ProxyCommand {program} connect -n a%%b --spa-port 4000 %h %p")
    assert found.said is not None
    assert (found.said.section, found.said.port) == ("a%b", 4000)
    assert (found.said.host, found.said.dial_port) == ("192.0.2.10", 22)


@pytest.mark.parametrize("command", ["nc %h %p", "doorward knock %h", "sh -c 'unfinished", "doorward"])
def test_another_proxy_command_is_none_of_ours(command: str) -> None:
    assert ssh_settings.read(f"hostname web1\nproxycommand {command}\n").said is None


def test_options_that_connect_does_not_take_are_told() -> None:
    with pytest.raises(UsageError, match="--frob"):
        _ = ssh_settings.read("hostname web1\nproxycommand doorward connect --frob %h %p\n").said


def test_a_mistake_in_ssh_config_and_a_missing_ssh_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClientError, match=r"(?i)bad configuration option"):
        asked(tmp_path, "Frobnicate yes")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClientError, match="there is no ssh here"):
        asked(tmp_path)
