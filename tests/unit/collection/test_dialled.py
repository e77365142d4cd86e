"""What ssh says it would dial."""

from __future__ import annotations

from unit.collection_plugins import plugin

dialled = plugin("plugin_utils._dialled")
SHOWN = """\
host web
user ops
hostname 192.0.2.1
port 2222
bindaddress 192.0.2.7
identityfile ~/.ssh/a b
identityfile ~/.ssh/c
"""


def test_the_answer_of_ssh_is_read() -> None:
    assert dialled.read(SHOWN) == ("192.0.2.1", 2222, "ops", "192.0.2.7")


def test_a_connection_without_an_address_of_its_own_is_bound_to_none() -> None:
    assert dialled.read(SHOWN.replace("bindaddress", "other")).bind_address == ""
