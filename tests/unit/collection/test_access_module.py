"""The action doorward.spa.access before it asks a host: what it refuses, and that it repeats no secret."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from unit.collection_plugins import ansible, plugin

if TYPE_CHECKING:
    from pathlib import Path

key_text = plugin("plugin_utils._key_text")
ALICE = "doorward1 " + base64.b64encode(b"a" * 32).decode()
KEY = key_text.render(b"k" * 32, b"h" * 64)
SECRETS = [line.split()[1] for line in KEY.splitlines()]
pytestmark = pytest.mark.ansible


def refused(home: Path, **options: object) -> str:
    """What ansible prints, with all that -vvv shows, of a task that fails."""
    words = ("-c", "local", "-vvv", "-m", "doorward.spa.access", "-a", json.dumps(options))
    shown = ansible(home, "ansible", "localhost", *words, check=False)
    assert "localhost | FAILED!" in shown, shown
    assert not [secret for secret in SECRETS if secret in shown]
    return shown


def test_what_is_wrong_is_said_at_once_and_without_the_key(tmp_path: Path) -> None:
    shown = refused(tmp_path, name="two words", key=KEY + KEY, services=["tpc/22"])
    assert "nothing was changed: name: 'two words' is no name" in shown
    assert "key: line 3 of the key is neither" in shown
    assert "services: 'tpc/22' is no service" in shown


@pytest.mark.parametrize(
    ("key", "given"), [(ALICE, {"public_key": f"{ALICE} new@name"}), (key_text.fingerprint(KEY), {"key": KEY})]
)
def test_a_key_that_was_revoked_is_not_written_again(tmp_path: Path, key: str, given: dict[str, str]) -> None:
    noted = {"name": "alice", "since": "2026-01-01 00:00 UTC", "keys": [key], "waiting": []}
    (tmp_path / ".revoked.json").write_text(json.dumps({"revoked": [noted]}))
    shown = refused(tmp_path, name="somebody", folder=str(tmp_path), **given)
    assert f"nothing was changed: alice is revoked, as .revoked.json in {tmp_path} says" in shown
