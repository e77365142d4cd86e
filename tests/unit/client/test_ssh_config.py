from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from doorward.client.ssh_config import stanza
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path


def understood(text: str, host: str, folder: Path) -> dict[str, str]:
    """Return what the real ssh makes of a configuration for a host."""
    (folder / "config").write_text(text)
    command = ["ssh", "-G", "-F", str(folder / "config"), host]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)


def test_ssh_understands_the_stanza_for_its_hosts_and_for_no_other(tmp_path: Path) -> None:
    text = stanza(["*.example.org", "web1"], ["doorward", "connect", "--rc-file", "/a b/100%.rc"])
    for host in ("x.example.org", "web1"):
        settings = understood(text, host, tmp_path)
        assert settings["proxycommand"] == "doorward connect --rc-file '/a b/100%%.rc' %h %p"
        assert settings["proxyusefdpass"] == "yes"
    assert "proxycommand" not in understood(text, "web2", tmp_path)


@pytest.mark.parametrize("host", ["a\nProxyCommand x", "a b", "-x", '"', "a,b", "", "$(x)", "a;b", "é"])
def test_a_host_that_ssh_config_would_read_otherwise_is_refused(host: str) -> None:
    with pytest.raises(ClientError):
        stanza([host], ["doorward", "connect"])
