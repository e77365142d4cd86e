"""Proxies in ssh's arguments."""

from __future__ import annotations

import pytest

from unit.collection_plugins import plugin

foreign_proxy = plugin("plugin_utils._ssh_arguments").foreign_proxy


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
        "-4oProxyCommand=none",
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
    ],
)
def test_no_proxy_is_seen_where_there_is_none(arguments: str) -> None:
    assert foreign_proxy([arguments, None]) is None
