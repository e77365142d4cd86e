"""doorward.spa.access on a hidden host: one stanza, checked there, swapped in, proven by a knock, or taken back."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from system import doorwardd
from system.ansible_site import PYTHON
from system.installed_host import NAME, installed
from unit.collection_plugins import plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.installed_host import Installed

key_text = plugin("plugin_utils._key_text")
BY_HAND = "# by hand, and it stays\nSOURCE: ANY\nCLIENT {own};\nOPEN_PORTS tcp/22\nFW_ACCESS_TIMEOUT 4\n"
ENDING = "\n# The stanzas of doorward.spa.access.\n%include_folder access.d\n"
OTHER = "SOURCE ANY\nCLIENT doorward1 " + base64.b64encode(b"o" * 32).decode() + " other\nOPEN_PORTS tcp/22\n"
OURS = "# Written by doorward.spa.access.\nSOURCE ANY\nCLIENT {own}\nNAME controller\nOPEN_PORTS tcp/22\n"
ALICE = "doorward1 " + base64.b64encode(b"a" * 32).decode()
PSK, NEW_PSK = (base64.b64encode(letter * 32).decode() for letter in (b"p", b"n"))
CODE = base64.b32encode(b"c" * 20).decode()
KEY = key_text.render(b"k" * 32, b"h" * 64)
FILE = "/etc/doorward/access.d/alice.conf"
pytestmark = [pytest.mark.ansible, pytest.mark.timeout(900)]


@pytest.fixture
def host() -> Iterator[Installed]:
    """A host whose stanzas somebody has written."""
    with installed(BY_HAND) as made:
        yield made


def result(shown: str) -> dict[str, Any]:
    """What the one task of a play came to."""
    assert f": [{NAME}]" in shown, shown
    found: dict[str, Any] = json.JSONDecoder().raw_decode(shown, shown.rindex(" => {") + 4)[0]
    return {**found, "failed": "FAILED!" in shown}


def hidden(shown: str) -> bool:
    """Whether a run, with all that -vvv and --diff print, shows no secret."""
    secrets = (PSK, NEW_PSK, CODE, *(line.split()[1] for line in KEY.splitlines()))
    return not [secret for secret in secrets if secret in shown]


def alices(host: Installed) -> list[str]:
    """The daemon's lines of alice's knocks."""
    return [line for line in host.verdicts() if " name=alice " in line]


def knock(host: Installed, key: str) -> None:
    """Send a knock from the controller with another client's key text."""
    file = doorwardd.write(host.site.folder / "knock.rc", key_text.stanza(key))
    words = ("knock", "--rc-file", str(file), "-D", host.site.one.ipv4, "-A", "tcp/22", "-a", host.site.controller.ipv4)
    host.site.controller.run(PYTHON, "-m", "doorward", *words, env=host.site.environment())


def test_a_stanza_is_written_proven_changed_refused_and_removed(host: Installed) -> None:
    before = host.files()
    wanted = {"name": "alice", "key": KEY, "window": 7}
    planned = host.task("access", "--check", "--diff", "-vvv", **wanted)
    assert result(planned)["changed"], planned
    assert "+KEY_BASE64              (hidden, new)\n+HMAC_KEY_BASE64         (hidden, new)\n" in planned
    assert hidden(planned)
    assert host.files() == before, "check mode writes nothing"
    assert host.run("find", "/run", "-name", "doorward-change*") == ""

    written = host.task("access", "--diff", "-vvv", **wanted)
    assert result(written)["changed"], written
    assert hidden(written)
    after = host.files()
    assert after["/etc/doorward/access.conf"] == ("600 root", before["/etc/doorward/access.conf"][1] + ENDING)
    assert after[FILE][0] == "600 root"
    assert host.run("stat", "-c", "%a", "/etc/doorward/access.d").strip() == "700"
    knock(host, KEY)
    assert doorwardd.eventually(lambda: alices(host) != [])
    assert "reason=granted" in alices(host)[0]
    assert "seconds=7" in alices(host)[0]
    assert "pending" not in host.run("ls", "/etc/doorward/change")
    again = host.task("access", "-v", **wanted)
    assert not result(again)["changed"], again

    wrong = host.task("access", "-v", **wanted, commands={"list": "/bin/ls"}, max_window=5)
    assert result(wrong)["failed"], wrong
    assert re.search(rf"nothing was changed: {FILE}:\d+: COMMANDS without CLIENT", result(wrong)["msg"]), wrong
    clash = result(host.task("access", "-v", name="controller", public_key=ALICE))
    assert clash["failed"]
    assert "/etc/doorward/access.conf:2 has a stanza of controller" in clash["msg"]
    assert host.files() == after
    assert host.run("find", "/run", "-name", "doorward-change.*") == ""

    removed = host.task("access", "-v", name="alice", state="absent")
    assert result(removed)["changed"], removed
    assert host.files() == before, "all else is as it was, byte by byte"
    knock(host, KEY)
    assert not result(host.task("access", "-v", name="alice", state="absent"))["changed"]
    assert len(alices(host)) == 1, "the daemon hears the controller's knock since, and no knock of hers"


def test_a_changed_secret_shows_as_changed_and_not_as_itself(host: Installed) -> None:
    wanted = {"name": "alice", "public_key": ALICE, "one_time_code": CODE}
    assert result(host.task("access", "-v", **wanted, psk=PSK))["changed"]
    shown = host.task("access", "--check", "--diff", "-vvv", **wanted, psk=NEW_PSK)
    assert "-PSK_BASE64              (hidden)\n+PSK_BASE64              (hidden, new)\n" in shown, shown
    assert " ONE_TIME_CODE           (hidden)\n" in shown
    assert hidden(shown)
    assert f"PSK_BASE64              {PSK}\n" in host.files()[FILE][1]


def test_a_stanza_that_shuts_the_controller_out_is_taken_back() -> None:
    with installed(OTHER + ENDING, {"access.d/controller.conf": OURS}) as host:
        before = host.files()
        own = re.findall(r"CLIENT (doorward1 \S+)", before["/etc/doorward/access.d/controller.conf"][1])[0]
        wanted = {"name": "controller", "public_key": own, "deadline": 60}
        lost = result(host.task("access", "-v", **wanted, sources=["203.0.113.0/24"]))
        assert lost["failed"]
        assert "lets this controller in no more, so it was not kept" in lost["msg"]
        assert "no time to confirm" not in lost["msg"]
        assert "put all of its files back" in lost["msg"]
        assert host.files() == before
        kept = host.task("access", "-v", **wanted | {"deadline": 600}, sources=[host.site.controller.ipv4])
        assert result(kept)["changed"], "the same change with the controller's own address is kept"
        assert "203.0.113" not in host.files()["/etc/doorward/access.d/controller.conf"][1]


def test_a_revocation_reaches_the_stanza_and_it_does_not_come_back(host: Installed) -> None:
    before = host.files()
    wanted = {"name": "alice", "public_key": ALICE, "folder": str(host.site.keys)}
    assert result(host.task("access", "-v", **wanted))["changed"]
    noted = {"name": "alice", "since": "2026-01-01 00:00 UTC", "keys": [ALICE], "waiting": [NAME]}
    host.site.keys.mkdir(exist_ok=True)
    doorwardd.write(host.site.keys / ".revoked.json", json.dumps({"revoked": [noted]}))
    gone = result(host.task("revoke", "-v", folder=str(host.site.keys)))
    assert gone["clients"] == ["alice"]
    assert host.files() == before
    refused = result(host.task("access", "-v", **wanted | {"name": "someone"}))
    assert refused["failed"]
    assert "alice is revoked" in refused["msg"]


def role(own: str, **variables: object) -> list[object]:
    """The tasks of the role that write access.conf and put it into force."""
    stanza = {"client": 0, "name": "controller", "format": "doorward1", "public_key": own, "is_own": True}
    given = {
        "doorward_clients": [{"name": "controller"}],
        "daemon_services": ["tcp/22"],
        "daemon_stanzas": [{**stanza, "psk": "present"}],
        "keys_made": {"fingerprints": {}},
        **variables,
    }
    tasks = {"name": "doorward.spa.daemon", "tasks_from": "stanzas"}
    folder = {"folder": "{{ daemon_change.folder }}", "python": "{{ doorward_python }}"}
    return [
        {"doorward.spa.change": {"state": "staged"}, "register": "daemon_change"},
        {"ansible.builtin.include_role": tasks, "vars": given},
        {"doorward.spa.change": {"state": "applied", **folder}},
    ]


def test_the_roles_next_run_keeps_the_stanza(host: Installed) -> None:
    """What the role writes is the rest of access.conf, and neither reports a change after the other."""
    alice = {"doorward.spa.access": {"name": "alice", "public_key": ALICE}}
    own = re.findall(r"CLIENT (doorward1 [^\s;]+)", host.files()["/etc/doorward/access.conf"][1])[0]
    shown = host.play([alice, *role(own)], "-v")
    assert "failed=0" in shown, shown
    files = host.files()
    assert files["/etc/doorward/access.conf"][1].startswith("# Written by the role doorward.spa.daemon.")
    assert files["/etc/doorward/access.conf"][1].endswith(ENDING)
    assert ALICE in files[FILE][1]
    assert "2 stanzas." in host.run("doorwardd", "check")
    shown = host.play([alice, *role(own)], "-v")
    assert "changed=0" in shown, shown
