"""Connections that a first table must not cut."""

from __future__ import annotations

from unit.collection.test_firewall_table import load, render
from unit.collection_plugins import plugin

inherited = plugin("plugin_utils._inherited")

LISTING = """\
0      0         192.0.2.2:22       198.51.100.7:50112
0      36  [2001:db8::2]:22     [2001:db8::7]:50113
0      0   [::ffff:192.0.2.2]:22 [::ffff:198.51.100.8]:50114
0      0   [fe80::2]%eth0:22     [fe80::7]:50115
0      0         127.0.0.1:5432        127.0.0.1:50116
Cannot open netlink socket: Protocol not supported
Shared connection to 192.0.2.2 closed.
"""


def test_each_older_connection_is_let_in_by_its_four_numbers() -> None:
    table = load(render() + inherited.elements(LISTING))
    for ends in (
        "198.51.100.7 . 50112 . 192.0.2.2 . 22",
        "198.51.100.8 . 50114 . 192.0.2.2 . 22",
        "2001:db8::7 . 50113 . 2001:db8::2 . 22",
        "fe80::7 . 50115 . fe80::2 . 22",
    ):
        assert ends in table
    assert "127.0.0.1" not in table


def test_nothing_to_inherit_is_no_command() -> None:
    assert inherited.elements("") == ""
    assert inherited.elements("ss: not found\n") == ""
