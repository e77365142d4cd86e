"""Which stanzas a host has, by the formats of its clients and by what its controller knocks with now."""

from __future__ import annotations

from typing import Any

import pytest

from unit.collection_plugins import plugin

stanzas = plugin("plugin_utils._stanzas")
key_text = plugin("plugin_utils._key_text")

PUBLIC = "doorward1 " + "A" * 42 + "E="
OTHER = "doorward1 " + "B" * 42 + "E="
CONTROLLER = {"name": "controller"}
ALICE = {"name": "alice", "public_key": f"{PUBLIC} alice@laptop"}


def planned(*entries: object, usual: str = "doorward1", now: str = "") -> list[tuple[str, str, bool]]:
    found = stanzas.planned([stanzas.client(entry, usual) for entry in entries], "controller", now)
    return [(each.name, each.format, each.leaves) for each in found]


@pytest.mark.parametrize(
    ("entries", "usual", "expected"),
    [
        (["controller"], "fwknop", [("controller", "fwknop")]),
        (["controller"], "doorward1", [("controller", "doorward1")]),
        ([ALICE], "fwknop", [("alice", "doorward1")]),
        ([{"name": "bob", "format": "fwknop"}, ALICE], "doorward1", [("bob", "fwknop"), ("alice", "doorward1")]),
        ([{**ALICE, "format": "both"}], "doorward1", [("alice", "doorward1"), ("alice", "fwknop")]),
    ],
)
def test_a_client_has_a_stanza_for_each_of_its_formats(
    entries: list[object], usual: str, expected: list[tuple[str, str]]
) -> None:
    assert planned(*entries, usual=usual) == [(name, form, False) for name, form in expected]


@pytest.mark.parametrize(
    ("wanted", "now", "leaves"),
    [
        ("doorward1", "", []),
        ("doorward1", "doorward1", []),
        ("doorward1", "fwknop", ["fwknop"]),
        ("fwknop", "doorward1", ["doorward1"]),
        ("fwknop", "fwknop", []),
        ("both", "fwknop", []),
    ],
)
def test_the_stanza_that_connections_knock_by_stays_until_the_other_is_proven(
    wanted: str, now: str, leaves: list[str]
) -> None:
    found = planned({**CONTROLLER, "format": wanted}, ALICE, now=now)
    assert [form for _name, form, leaving in found if leaving] == leaves
    assert [name for name, _form, leaving in found if leaving] == ["controller"] * len(leaves)
    assert {form for name, form, leaving in found if name == "controller" and not leaving} == (
        {"doorward1", "fwknop"} if wanted == "both" else {wanted}
    )


@pytest.mark.parametrize(
    ("wanted", "now", "psk_now", "expected"),
    [
        ("doorward1", "doorward1", "present", [("doorward1", "present", False)]),
        (
            "doorward1",
            "doorward1",
            "previous",
            [("doorward1", "present", False), ("doorward1", "previous", True)],
        ),
        ("doorward1", "doorward1", "none", [("doorward1", "present", False), ("doorward1", "none", True)]),
        ("fwknop", "doorward1", "previous", [("fwknop", "present", False), ("doorward1", "previous", True)]),
        ("doorward1", "fwknop", "present", [("doorward1", "present", False), ("fwknop", "present", True)]),
        (
            "both",
            "doorward1",
            "none",
            [("doorward1", "present", False), ("fwknop", "present", False), ("doorward1", "none", True)],
        ),
    ],
)
def test_the_pre_shared_key_that_connections_use_is_accepted_until_the_new_one_is_proven(
    wanted: str, now: str, psk_now: str, expected: list[tuple[str, str, bool]]
) -> None:
    entries = [stanzas.client({**CONTROLLER, "format": wanted}, "doorward1")]
    found = stanzas.planned(entries, "controller", now, psk_now)
    assert [(each.format, each.psk, each.leaves) for each in found] == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, ["present"]),
        ({"psk": "x"}, ["present"]),
        ({"psk": "x", "previous_psk": "y"}, ["present", "previous"]),
        ({"psk": "x", "previous_psk": "x"}, ["present"]),
        ({"psk": "x", "previous_psk": "none"}, ["present", "none"]),
        ({"previous_psk": "y"}, ["present", "previous"]),
        ({"previous_psk": "none"}, ["present"]),
        ({"psk": "x", "previous_psk": "y", "format": "both"}, ["present", "present", "previous"]),
    ],
)
def test_a_client_is_known_by_its_previous_pre_shared_key_as_long_as_the_inventory_has_it(
    told: dict[str, str], expected: list[str]
) -> None:
    found = stanzas.planned([stanzas.client({**ALICE, **told}, "doorward1")], "controller", "")
    assert [each.psk for each in found] == expected
    assert not [each for each in found if each.leaves]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("alice", "alice has no public_key in doorward_clients: .* or mark it format: fwknop"),
        ({"name": "alice", "format": "both"}, "alice has no public_key"),
        ({"name": "alice", "format": "rsa"}, "the format of alice is 'rsa', and is one of doorward1, fwknop, both"),
        ({**ALICE, "format": "fwknop"}, "alice has a public key, and format: fwknop"),
        ({"name": "alice", "public_key": "ssh-ed25519 AAAA"}, "'ssh-ed25519 AAAA' is no public key"),
        ({"name": "alice", "public_key": PUBLIC[:-2]}, "is no public key"),
        ({"name": "alice", "public_key": f"{PUBLIC} a b"}, "is no public key"),
        ({"name": "alice", "public_key": PUBLIC.replace("E=", "F=")}, "is not base64, or was cut"),
        ({"name": "controller", "psk": "x"}, "controller is this controller, whose pre-shared key is doorward_psk"),
        ({"name": "controller", "previous_psk": "x"}, "controller is this controller, whose pre-shared key is"),
    ],
)
def test_a_client_that_no_stanza_can_be_made_of_is_named(entry: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        planned(entry)


def test_the_controllers_public_key_is_that_of_its_own_pair() -> None:
    [own, alice] = stanzas.planned(
        [stanzas.client(each, "doorward1") for each in (CONTROLLER, ALICE)], "controller", ""
    )
    assert stanzas.with_public_key(own, f"{OTHER} ops@host").public_key == OTHER
    assert stanzas.with_public_key(own, "").public_key == ""  # in check mode it would be made
    assert stanzas.with_public_key(alice, OTHER).public_key == PUBLIC
    [named] = stanzas.planned([stanzas.client({**CONTROLLER, "public_key": PUBLIC}, "fwknop")], "controller", "")
    assert stanzas.with_public_key(named, PUBLIC).public_key == PUBLIC
    with pytest.raises(ValueError, match="is not that of this controller's own pair"):
        stanzas.with_public_key(named, OTHER)
