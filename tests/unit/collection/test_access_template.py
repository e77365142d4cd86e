"""The access.conf that the role writes: a stanza for each client and format, and nothing secret in what it shows."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.config import access
from unit.collection_plugins import COLLECTION, ansible, module, plugin

if TYPE_CHECKING:
    from doorward.config.access import Access

pytestmark = pytest.mark.ansible

host_stanza = plugin("plugin_utils._host_stanza")
TEMPLATE = COLLECTION / "roles/daemon/templates/access.conf.j2"
ALICE = "doorward1 " + base64.b64encode(b"a" * 32).decode()
OWN = "doorward1 " + base64.b64encode(b"o" * 32).decode()
PSK, HERS, OLD, HER_OLD = (base64.b64encode(letter * 32).decode() for letter in (b"p", b"q", b"r", b"s"))
CLIENTS = [
    {"name": "controller"},
    {
        "name": "alice",
        "public_key": f"{ALICE} x",
        "psk": HERS,
        "previous_psk": HER_OLD,
        "services": ["tcp/5432"],
        "window": 60,
    },
    {"name": "build", "format": "fwknop", "sources": ["192.0.2.0/24"], "expires": "12/31/2030"},
]
STANZAS = [
    {"client": 0, "name": "controller", "format": "doorward1", "public_key": OWN, "is_own": True, "psk": "present"},
    {"client": 0, "name": "controller", "format": "fwknop", "public_key": "", "is_own": True, "psk": "present"},
    {"client": 1, "name": "alice", "format": "doorward1", "public_key": ALICE, "is_own": False, "psk": "present"},
    {"client": 2, "name": "build", "format": "fwknop", "public_key": "", "is_own": False, "psk": "present"},
]


def rendered(
    folder: Path, *, redacted: str, psk: str = PSK, stanzas: list[dict[str, object]] = STANZAS, more: str = "no"
) -> str:
    """The file as the role writes it."""
    clients = [{"name": "controller", "format": "fwknop"}, {"name": "build", "format": "fwknop"}]
    made = module(folder, "doorward.spa.key", host="localhost", clients=clients, folder="~/keys")
    variables = {
        "doorward_clients": CLIENTS,
        "doorward_sources": [],
        "daemon_services": ["tcp/22"],
        "doorward_window": "30",
        "doorward_require_source": "yes",
        "doorward_psk": psk,
        "doorward_previous_psk": OLD,
        "doorward_keys_dir": "~/keys",
        "daemon_redacted": redacted,
        "daemon_stanzas": stanzas,
        "daemon_has_more": more,
        "keys_made": {"fingerprints": made["fingerprints"]},
    }
    words = ["-c", "local", "-m", "debug", "-a", f"msg={{{{ lookup('template', '{TEMPLATE}') }}}}"]
    shown = ansible(folder, "ansible", "localhost", *words, "-e", json.dumps(variables))
    text: str = json.loads(shown[shown.index("=> {") + 3 : shown.rindex("}") + 1])["msg"]
    return text


def read(text: str) -> Access:
    """The file as the daemon reads it; a public key of these bytes is as good as any."""
    return access.parse(Path("access.conf"), text.encode())


def test_the_daemon_reads_one_stanza_for_each_client_and_format(tmp_path: Path) -> None:
    found = read(rendered(tmp_path, redacted="false")).stanzas
    named = [(each.clients[0].name if each.clients else each.name, bool(each.clients), each.psk) for each in found]
    assert [(name, public) for name, public, _psk in named] == [
        ("controller", True),
        ("controller", False),
        ("alice", True),
        ("build", False),
    ]
    assert [psk and base64.b64encode(psk.reveal()).decode() for *_, psk in named] == [PSK, None, HERS, None]
    assert [str(each.clients[0].key) for each in found if each.clients] == [OWN, ALICE]
    assert [each.fw_access_timeout for each in found] == [30, 30, 60, 30]
    assert all(each.require_source_address for each in found)
    moving = [{**each, "psk": psk} for each in STANZAS for psk in ("present", "previous", "none")]
    found = read(rendered(tmp_path, redacted="false", stanzas=moving)).stanzas
    psks = [base64.b64encode(each.psk.reveal()).decode() if each.psk else "" for each in found if each.clients]
    assert psks == [PSK, OLD, "", HERS, HER_OLD, ""]
    without = read(rendered(tmp_path, redacted="false", psk="")).stanzas
    assert [each.psk is None for each in without] == [True, True, False, True]


@pytest.mark.parametrize("redacted", ["true", "yes"])
def test_what_is_shown_has_public_keys_and_fingerprints_only(tmp_path: Path, redacted: str) -> None:
    text, whole = rendered(tmp_path, redacted=redacted), rendered(tmp_path, redacted="no")
    assert all(secret in whole for secret in (PSK, HERS, "HMAC_KEY_BASE64"))
    assert not [secret for secret in (OLD, HER_OLD) if secret in whole], "no stanza has them"
    assert not [secret for secret in (PSK, HERS, "KEY_BASE64") if secret in text]
    assert f"{ALICE} alice" in text
    assert text.count("# with a pre-shared key") == text.count("# key SHA256:") == 2


def test_stanzas_of_the_action_access_are_included_as_that_action_does_it(tmp_path: Path) -> None:
    without, included = rendered(tmp_path, redacted="false"), rendered(tmp_path, redacted="false", more="yes")
    assert "%include" not in without
    (tmp_path / "access.conf").write_text(f"{without.rstrip()}\n")
    (tmp_path / "wanted").write_text(f"SOURCE ANY\nCLIENT {ALICE} dave\nNAME dave\nOPEN_PORTS tcp/22\n")
    words = host_stanza.words(str(tmp_path), "dave", str(tmp_path / "wanted"), host_stanza.WRITE)
    subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True, timeout=60)
    assert (tmp_path / "access.conf").read_text().split() == included.split()
    (tmp_path / "access.conf").write_text(included)
    (tmp_path / "access.conf").chmod(0o600)
    assert [each.name for each in access.load(tmp_path / "access.conf").stanzas][-1] == "dave"
