"""A test of the collection that names a host has its twins: by address, by an alias of ssh_config, by `-e`, delegated.

`tests/system/test_ansible_hosts.py` is where hosts are named. Its table has each kind, and each of its tests takes the
table, or stands here with the reason why it is about one kind alone.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).resolve().parents[1] / "system/test_ansible_hosts.py"
ABOUT_ONE_KIND: Final = {
    "test_hosts_of_one_short_name_have_keys_of_their_own_in_delegated_tasks_too": "names alone have short names",
    "test_two_names_of_one_address_have_keys_of_their_own_at_the_same_time": "two names are the case",
    "test_delegation_to_a_host_outside_the_inventory_is_plain_ssh": "it has a table of names outside",
    "test_delegation_to_the_address_of_a_host_in_the_inventory_knocks_with_its_key": "the address is the case",
    "test_only_a_port_that_lets_a_packet_vanish_is_silent": "no inventory is read",
}
KINDS: Final = ("IPv4 address", "IPv6 address", "alias of ssh_config", "-e", "ansible_host")


def functions(source: str) -> dict[str, ast.FunctionDef]:
    """The tests of a file by their names."""
    found = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return {node.name: node for node in found if node.name.startswith("test_")}


def takes_the_table(node: ast.FunctionDef) -> bool:
    """Whether a test runs for each naming of the table and for delegated tasks."""
    text = ast.unparse(node)
    return "parametrize('naming', NAMINGS.values()" in text and "delegate" in text


def test_each_test_that_names_a_host_takes_the_table_and_delegates() -> None:
    source = FILE.read_text("utf-8")
    found = functions(source)
    assert {name for name, node in found.items() if not takes_the_table(node)} == set(ABOUT_ONE_KIND)
    table = source[source.index("NAMINGS = {") : source.index("}\n\n", source.index("NAMINGS = {"))]
    assert all(kind in table for kind in KINDS)


def test_a_test_without_its_twins_is_seen() -> None:
    alone = "def test_a(place): play('web')\n"
    whole = "@pytest.mark.parametrize('naming', NAMINGS.values())\ndef test_b(place, naming): play(delegate_to=1)\n"
    assert {name: takes_the_table(node) for name, node in functions(alone + whole).items()} == {
        "test_a": False,
        "test_b": True,
    }
