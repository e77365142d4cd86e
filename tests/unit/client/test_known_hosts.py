"""The file of hosts' public keys: what is read from it, what is written, and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from doorward.client import known_hosts
from doorward.client.profile import Profile
from doorward.config import convert
from doorward.crypto.doorward import public_key
from doorward.errors import ClientError, ConfigError, DoorwardError
from doorward.values import Secret

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = (public_key(Secret(bytes([number]) * 32)) for number in (1, 2))


def file(folder: Path, text: str) -> Path:
    """A file of known hosts in a user's folder for configuration."""
    made = known_hosts.path({"XDG_CONFIG_HOME": str(folder)})
    made.parent.mkdir(exist_ok=True)
    made.write_text(text, "utf-8")
    made.chmod(0o600)
    return made


def completed(folder: Path, profile: Profile, host: str | None = "web1") -> Profile:
    """A profile with what the file in a folder adds."""
    return known_hosts.with_pinned_key(profile, host, {"XDG_CONFIG_HOME": str(folder)})


def test_a_host_is_knocked_at_with_its_pinned_key_by_each_of_its_names(tmp_path: Path) -> None:
    made = file(tmp_path, f"# mine\n\nweb1,192.0.2.7\t{ONE} web1\nweb2 {OTHER}\n")
    assert completed(tmp_path, Profile()).host_key == ONE
    assert completed(tmp_path, Profile(), "WEB1").host_key == ONE
    assert completed(tmp_path, Profile(), "192.0.2.7").host_key == ONE
    assert completed(tmp_path, Profile(server="web2")).host_key == OTHER, "who gets the packet has the key"
    assert completed(tmp_path, Profile(), "web3") == Profile()
    assert completed(tmp_path, Profile(), None) == Profile()
    made.unlink()
    assert completed(tmp_path, Profile()) == Profile()


def test_a_key_that_is_named_elsewhere_wins(tmp_path: Path) -> None:
    file(tmp_path, f"web1 {ONE}\n")
    key = convert.key_text("k" * 32)
    for named in (Profile(host_key=OTHER), Profile(key=key), Profile(key_command=("pass",)), Profile(use_gpg=True)):
        assert completed(tmp_path, named) == named


def test_a_key_is_kept_once_and_gets_further_names(tmp_path: Path) -> None:
    made = known_hosts.path({"XDG_CONFIG_HOME": str(tmp_path / "new")})
    assert known_hosts.pin(made, ["web1"], f"{ONE} web1", force=False) == 1
    assert known_hosts.pin(made, ["web2"], str(OTHER), force=False) == 2
    assert known_hosts.pin(made, ["Web1", "192.0.2.7"], f"{ONE} web1", force=False) == 2
    assert made.read_text() == f"web2 {OTHER}\nweb1,192.0.2.7 {ONE} web1\n"
    assert made.stat().st_mode & 0o777 == 0o600


def test_another_key_is_refused_by_file_and_line_and_nothing_is_changed(tmp_path: Path) -> None:
    text = f"# mine\nweb2 {OTHER}\nweb1,192.0.2.7 {ONE}\n"
    made = file(tmp_path, text)
    with pytest.raises(ClientError) as caught:
        known_hosts.pin(made, ["web1"], str(OTHER), force=False)
    assert str(caught.value).startswith(f"{made}:3: web1 has another key here than the host shows now. Nothing was")
    assert made.read_text() == text
    known_hosts.pin(made, ["web1"], str(OTHER), force=True)
    assert made.read_text() == f"# mine\nweb2 {OTHER}\n192.0.2.7 {ONE}\nweb1 {OTHER}\n", "the other name keeps its key"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("web2 x\nweb1 doorward1 AAA\n", ":2: the public key is not base64, or was cut"),
        (f"web1 {ONE}\nweb1 {OTHER}\n", ":2: web1 has another key on line 1: remove one of the lines"),
        ("web1 doorward1 " + "A" * 43 + "=\n", ":1: the public key is of low order: everybody would share its secret"),
        (f"web1 {ONE} a b\n", ":1: the comment behind a public key is one word, such as alice@laptop"),
        ("web1\n", ":1: the line is not NAME doorward1 BASE64"),
        (f"web1 {ONE}\x1b[2J\n", ":1: the line has a control character"),
        (f"{'w' * 5000}\n", ":1: the line has 5000 bytes, more than 4096"),
        ("#" * 4000 + "\n" + "#" * (1 << 20), ": the file exceeds 1048576 bytes"),
    ],
)
def test_a_damaged_line_is_named_and_no_key_is_guessed(tmp_path: Path, text: str, problem: str) -> None:
    made = file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        completed(tmp_path, Profile())
    assert str(caught.value) == f"{made}{problem}"
    with pytest.raises(DoorwardError):
        known_hosts.pin(made, ["web1"], str(ONE), force=False)
    assert made.read_text() == text


def test_a_key_of_another_host_that_was_cut_harms_that_host_alone(tmp_path: Path) -> None:
    file(tmp_path, f"web2 doorward1 AAA\nweb1 {ONE}\n")
    assert completed(tmp_path, Profile()).host_key == ONE
    with pytest.raises(ConfigError, match=r"known_hosts:1: the public key is not base64, or was cut"):
        completed(tmp_path, Profile(), "web2")


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    made = file(tmp_path, f"web1 {ONE}\n")
    made.chmod(0o644)
    assert completed(tmp_path, Profile()).host_key == ONE, "it is no secret"
    made.chmod(0o662)
    with pytest.raises(ConfigError, match=r"known_hosts: other users can write it \(mode 0662\)"):
        completed(tmp_path, Profile())


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    made = known_hosts.path({"XDG_CONFIG_HOME": str(tmp_path)})
    made.mkdir(parents=True)
    with pytest.raises(ConfigError, match="known_hosts: cannot be read: Is a directory"):
        completed(tmp_path, Profile())
    nowhere = known_hosts.path({"XDG_CONFIG_HOME": os.devnull})
    with pytest.raises(ClientError, match=r"/dev/null/doorward/known_hosts: .*; nothing was changed"):
        known_hosts.pin(nowhere, ["web1"], str(ONE), force=False)
