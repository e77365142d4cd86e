"""Proxies in ssh's arguments."""

from __future__ import annotations

import pytest

from unit.collection_plugins import plugin

ssh_arguments = plugin("plugin_utils._ssh_arguments")
foreign_proxy = ssh_arguments.foreign_proxy


@pytest.mark.parametrize(
    "arguments",
    [
        "-J bastion",
        "-Jbastion",
        "-4J bastion",
        "-CAJ user@bastion:2222",
        "-o ProxyJump=bastion",
        "-oProxyJump=bastion",
        "-o 'ProxyJump bastion'",
        "-o proxyjump=bastion",
        "-o ProxyCommand='nc %h %p'",
        "-o 'ProxyCommand = nc %h %p'",
        "-C -o ControlMaster=auto -o ProxyCommand=nc",
    ],
)
def test_a_proxy_is_found_in_every_spelling(arguments: str) -> None:
    assert foreign_proxy(["-C", "", arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "-C -o ControlMaster=auto -o ControlPersist=60s",
        "-F /dev/null -o IdentitiesOnly=yes",
        "-o ProxyUseFdpass=yes",
        "-o User=Jim -l Joe -i /home/J/key -o SendEnv=PROXYJUMP",
        "-F J",
        "-J none",
        "-Jnone",
        "-o ProxyJump=none",
        "-o 'ProxyCommand None'",
        "-4oProxyCommand=none",
    ],
)
def test_no_proxy_is_seen_where_there_is_none(arguments: str) -> None:
    assert foreign_proxy([arguments, None]) is None


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("-C -o ProxyCommand=none -4", "-C -4"),
        ("-4oProxyJump=none -C", "-4 -C"),
        ("-J none -C", "-C"),
        ("-CJnone", "-C"),
        ("-CJ none web1", "-C web1"),
        ("-oProxyCommand=none", ""),
        ("-o  'User=a b'", "-o  'User=a b'"),
        ("-J bastion", "-J bastion"),
        ("-o ProxyCommand=none -J gw", "-J gw"),
        ("", ""),
    ],
)
def test_a_proxy_none_is_taken_out_since_ssh_holds_it_against_ours(text: str, left: str) -> None:
    assert ssh_arguments.without_none(text) == left


def test_a_proxy_beside_a_none_is_still_seen() -> None:
    assert foreign_proxy(["-o ProxyCommand=none -J gw"]) == "-J"
