"""What the controller remembers of revoked clients, from several processes at once and from damaged files."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

from unit.collection_plugins import plugin

if TYPE_CHECKING:
    from pathlib import Path

revocations = plugin("plugin_utils._revocations")
AnsibleError = revocations.AnsibleError

KEY = "doorward1 AAAA"
NOW = "2026-11-29T14:00Z"


def test_nobody_is_revoked_at_first(tmp_path: Path) -> None:
    assert revocations.read(str(tmp_path / "keys")) == ()
    assert not (tmp_path / "keys").exists()


def test_keys_and_hosts_add_up_and_the_first_moment_stays(tmp_path: Path) -> None:
    revocations.note(str(tmp_path), "alice", NOW, [KEY], ["web"])
    revocations.note(str(tmp_path), "alice", "later", ["SHA256:x"], ["db"])
    assert revocations.read(str(tmp_path)) == (("alice", NOW, frozenset({KEY, "SHA256:x"}), frozenset({"web", "db"})),)
    assert (tmp_path / ".revoked.json").stat().st_mode & 0o777 == 0o600


def test_a_host_that_is_done_waits_no_more_and_its_keys_stay_revoked(tmp_path: Path) -> None:
    revocations.note(str(tmp_path), "alice", NOW, [], ["web", "db"])
    assert revocations.done(str(tmp_path), "web", "alice", [KEY])
    assert not revocations.done(str(tmp_path), "web", "alice", [KEY])
    [alice] = revocations.read(str(tmp_path))
    assert (alice.keys, alice.waiting) == ({KEY}, {"db"})
    assert alice.accepts("web", "somebody", KEY), "by key on every host"
    assert not alice.accepts("web", "alice", "doorward1 BBBB"), "a new key of that name is another client"
    assert alice.accepts("db", "alice", "doorward1 BBBB"), "by name where nobody has looked yet"


def test_a_roll_out_of_a_host_is_the_end_of_waiting_for_all(tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        revocations.note(str(tmp_path), name, NOW, [KEY], ["web", "db"])
    revocations.done(str(tmp_path), "web")
    assert [each.waiting for each in revocations.read(str(tmp_path))] == [{"db"}, {"db"}]
    revocations.forget(str(tmp_path), "bob")
    assert [each.name for each in revocations.read(str(tmp_path))] == ["alice"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"revoked": [{"name": "alice"}]}'])
def test_a_damaged_file_stops_whoever_reads_it(tmp_path: Path, text: str) -> None:
    (tmp_path / ".revoked.json").write_text(text)
    with pytest.raises(AnsibleError, match=r"\.revoked\.json says which clients are revoked, and cannot be read"):
        revocations.read(str(tmp_path))


def test_forks_that_are_done_at_once_lose_nothing(tmp_path: Path) -> None:
    hosts = [f"host{number}" for number in range(20)]
    revocations.note(str(tmp_path), "alice", NOW, [], hosts)
    workers = [
        multiprocessing.get_context("fork").Process(
            target=revocations.done, args=(str(tmp_path), host, "alice", [f"key of {host}"])
        )
        for host in hosts
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    [alice] = revocations.read(str(tmp_path))
    assert (len(alice.keys), alice.waiting) == (len(hosts), frozenset())
