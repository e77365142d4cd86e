"""The pytest plugin against a real daemon: another project's tests pass with it, and fail without it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from system.doorwardd import ACCESS, HMAC_KEY, KEY, doorwardd, listener, write
from system.netns import network

if TYPE_CHECKING:
    from system.netns import Namespace

PACKAGE = Path(__file__).parents[2] / "daemon"
TESTS = """
import pytest
from doorward_pytest import NotProvenError

def test_it_is_dark_and_opens_to_a_knock(hidden_host):
    assert hidden_host.is_dark()
    hidden_host.knock()
    assert hidden_host.opens()
    assert hidden_host.is_dark(22, 80), "to others it stays dark"
"""
RC = f"[web]\n{KEY}\n{HMAC_KEY}\n".replace(":", "")


def others_tests(client: Namespace, folder: Path, *options: str) -> str:
    """What a pytest in the client prints about another project's tests."""
    (folder / "project").mkdir(exist_ok=True)
    (folder / "project/test_host.py").write_text(TESTS)
    profile = write(folder / "fwknoprc", RC)
    words = ["-m", "pytest", "-p", "doorward_pytest.plugin", "-p", "no:cacheprovider", str(folder / "project")]
    options = (f"--hidden-host-profile={profile}#web", *options)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "HOME": str(folder)}
    done = client.run(sys.executable, *words, *options, check=False, env=environment, cwd=folder / "project")
    return f"{done.stdout}{done.stderr}"


def test_a_projects_tests_pass_on_a_hidden_host_and_fail_on_an_open_one(tmp_path: Path) -> None:
    with network("host", "client", "outsider") as (host, client, outsider), listener(host), listener(outsider):
        options = (
            f"--hidden-host={host.ipv4}",
            f"--hidden-host=[{host.ipv6}]:22",
            f"--hidden-host-outsider={' '.join(outsider.command())}",
            f"--hidden-host-witness={outsider.ipv4}",
        )
        opened = others_tests(client, tmp_path, *options)
        assert "2 failed" in opened, opened
        assert "tcp/22 of 10.77.0.1 (10.77.0.1) accepts connections" in opened
        (tmp_path / "daemon").mkdir()
        with doorwardd(host, tmp_path / "daemon", ACCESS.replace("udp/7777", "tcp/80")):
            hidden = others_tests(client, tmp_path, *options)
            assert "2 passed" in hidden, hidden
            from_here = others_tests(client, tmp_path, options[0])
            assert "1 failed" in from_here, "who knocked before sees the window that is left of it"
            assert "assert <tcp/22 of 10.77.0.1 (10.77.0.1) accepts connections" in from_here, from_here
            blind = others_tests(client, tmp_path, *options[:3], f"--hidden-host-witness={outsider.ipv4}:1")
            assert "NotProvenError: nothing is proven, since the witness is not seen" in blind, blind
