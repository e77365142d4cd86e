from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from doorward import portable


def status(uid: int, mode: int) -> os.stat_result:
    return cast("os.stat_result", SimpleNamespace(st_uid=uid, st_mode=0o100000 | mode))


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "geteuid")


def test_the_flags_that_a_system_lacks_are_left_out() -> None:
    assert portable.flags("O_NOFOLLOW", "O_OF_NO_SYSTEM", "O_CLOEXEC") == os.O_NOFOLLOW | os.O_CLOEXEC
    assert portable.flags("O_OF_NO_SYSTEM") == 0


@pytest.mark.parametrize(
    ("uid", "mode", "loose"),
    [
        (os.geteuid(), 0o600, False),
        (os.geteuid(), 0o644, False),
        (0, 0o755, False),
        (os.geteuid(), 0o620, True),
        (os.geteuid(), 0o602, True),
        (4711, 0o600, True),
    ],
)
def test_a_file_is_loose_where_its_owner_or_its_mode_lets_others_write(uid: int, mode: int, *, loose: bool) -> None:
    assert portable.others_write(status(uid, mode)) is loose


@pytest.mark.usefixtures("windows")
def test_where_users_have_no_numbers_neither_owner_nor_mode_says_anything() -> None:
    assert portable.user() is None
    assert not portable.others_write(status(4711, 0o666))
    assert portable.is_own(status(4711, 0o666))
    assert portable.mode(status(4711, 0o666)) == 0o600


def test_where_they_have_both_say_what_they_say() -> None:
    assert portable.user() == os.geteuid()
    assert portable.is_own(status(os.geteuid(), 0o600))
    assert not portable.is_own(status(4711, 0o600))
    assert portable.mode(status(0, 0o4664)) == 0o664


def test_the_login_is_the_accounts_name() -> None:
    assert portable.login() == Path.home().owner()


def test_a_user_without_an_account_has_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 987_654_321)
    assert portable.login() is None
