"""The text of one stanza: by the role's own template, read by the daemon, and refused where it would be another one."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from doorward.config import access
from doorward.config.files import Disk
from unit.collection_plugins import plugin

pytestmark = pytest.mark.ansible
stanza_text = plugin("plugin_utils._stanza_text")
key_text = plugin("plugin_utils._key_text")
options_of = plugin("action.access").OPTIONS

ALICE = "doorward1 " + base64.b64encode(b"a" * 32).decode()
PSK = base64.b64encode(b"p" * 32).decode()
CODE = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
KEY = key_text.render(b"k" * 32, b"h" * 64)


def options(**given: object) -> dict[str, Any]:
    """The options of a task as the action has them."""
    usual = {name: about.get("default") for name, about in options_of.items()}
    rest = {name: value for name, value in usual.items() if name not in {"state", "folder", "deadline"}}
    return rest | {"name": "alice", "services": ["tcp/22"]} | given


def read(**given: object) -> Any:
    """The stanza as the daemon reads it."""
    chosen = options(**given)
    assert list(stanza_text.problems(chosen)) == []
    (stanza,) = access.parse(Path("alice.conf"), stanza_text.text(chosen).encode(), None, Disk()).stanzas
    return stanza


def test_a_public_key_and_all_that_goes_with_it_is_read_as_it_was_meant() -> None:
    stanza = read(
        public_key=f"{ALICE} somebody@else",
        psk=PSK,
        one_time_code=CODE,
        services=["tcp/22", "udp/60000-60001"],
        sources=["192.0.2.0/24", "2001:db8::/32"],
        window=60,
        max_window=120,
        expires="12/31/2030",
        require_source=False,
        max_prefix4=24,
        max_prefix6=64,
        session_max=3600,
        forward_to="192.168.7.5 22",
        nat_targets=["10.0.0.0/24:443", "web1:80"],
        commands={"restart": "/usr/bin/systemctl restart nginx", "list": "/bin/ls -l"},
        command_user="root",
        command_group="root",
    )
    (client,) = stanza.clients
    assert (str(client.key), client.name, stanza.name) == (ALICE, "alice", "alice")
    assert stanza.psk.reveal() == b"p" * 32
    assert stanza.one_time_code.reveal() == base64.b32decode(CODE)
    assert sorted(map(str, stanza.open_ports)) == ["tcp/22", "udp/60000", "udp/60001"]
    assert str(stanza.source) == "192.0.2.0/24, 2001:db8::/32"
    assert (stanza.fw_access_timeout, stanza.max_fw_timeout, stanza.session_max) == (60, 120, 3600)
    assert stanza.expires == 1924905600
    assert not stanza.require_source_address
    assert (stanza.max_prefix4, stanza.max_prefix6) == (24, 64)
    assert str(stanza.forwarding.force[0]) == "192.168.7.5"
    assert [(each.name, each.port) for each in stanza.forwarding.targets] == [(None, 443), ("web1", 80)]
    assert dict(stanza.named.texts) == {"restart": "/usr/bin/systemctl restart nginx", "list": "/bin/ls -l"}
    assert (stanza.named.user, stanza.named.group) == ("root", "root")


def test_what_is_not_said_is_as_the_role_has_it() -> None:
    stanza = read(public_key=ALICE)
    assert (str(stanza.source), stanza.fw_access_timeout, stanza.require_source_address) == ("ANY", 30, True)
    assert not stanza.keep_while_used
    assert read(public_key=ALICE, keep_while_used=True).keep_while_used


def test_a_key_of_fwknops_format_is_read_too() -> None:
    stanza = read(key=KEY)
    assert (stanza.keys.key.reveal(), stanza.keys.hmac_key.reveal()) == (b"k" * 32, b"h" * 64)
    assert (stanza.name, stanza.clients) == ("alice", ())
    assert stanza_text.key(options(key=KEY)) == key_text.fingerprint(KEY)
    assert stanza_text.key(options(public_key=f"{ALICE}  x")) == ALICE


def test_a_client_of_commands_alone_opens_nothing() -> None:
    assert read(public_key=ALICE, services=[], commands={"list": "/bin/ls"}).open_ports == frozenset()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "two words"}, "name: 'two words' is no name"),
        ({"name": "../../passwd"}, "name: '../../passwd' is no name"),
        ({"name": ".alice"}, "name: begins with a dot"),
        ({"name": "a" * 101}, "name: has more than 100 characters"),
        ({"key": KEY}, "public_key or key: a stanza has one of them"),
        ({"public_key": None}, "public_key or key: a stanza has one of them"),
        ({"public_key": ALICE[:-3]}, "public_key: "),
        ({"public_key": None, "key": "KEY_BASE64: x"}, "key: line 1 of the key is not base64"),
        ({"services": ["tcp/22", "tpc/80"]}, "services: 'tpc/80' is no service"),
        ({"services": []}, "services: none of them would be every service"),
        ({"sources": ["gw.example"]}, "sources: 'gw.example' is no address"),
        ({"window": 0}, "window: '0' is no number"),
        ({"expires": "2030-12-31"}, "expires: '2030-12-31' is no day"),
        ({"psk": f"{PSK}\nOPEN_PORTS tcp/1"}, "psk: a line break"),
        ({"commands": {"a": "/bin/ls; /bin/rm"}}, "commands: a line break"),
        ({"commands": {"a\nSOURCE ANY": "/bin/ls"}}, "commands: a line break"),
        ({"nat_targets": ["10.0.0.1:22\nFORWARD_ALL Y"]}, "nat_targets: a line break"),
    ],
)
def test_what_no_host_has_to_be_asked_about_is_refused_without_a_secret(given: dict[str, object], words: str) -> None:
    said = list(stanza_text.problems(options(public_key=ALICE) | given))
    assert len([each for each in said if each.startswith(words)]) == 1, said
    assert not [secret for secret in (PSK, "KEY_BASE64: x") if secret in " ".join(said)]
