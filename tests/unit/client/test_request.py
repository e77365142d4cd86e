from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.client import request
from doorward.client.nat import NatRequest
from doorward.client.profile import Profile
from doorward.errors import ClientError, ConfigError
from doorward.values import EncryptionMode, Secret, Service, SymmetricKeys

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.client.packet import Request

LED = NatRequest((Service.parse("tcp/22"),))


def asked(profile: Profile, host: str = "web1", **typed: str) -> Request:
    answers = {f"Enter {what.replace('_', ' ')}: ": text for what, text in typed.items()}
    search = request.KeySearch(host, answers.__getitem__ if typed else None)
    return request.request(profile, LED, search, {"LOGNAME": "alice"})


def keys(made: Request) -> SymmetricKeys:
    assert isinstance(made.keys, SymmetricKeys)
    return made.keys


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"SPOOF_USER": "s", "LOGNAME": "l", "USER": "u"}, "s"),
        ({"LOGNAME": "l", "USER": "u"}, "l"),
        ({"LOGNAME": "", "USER": "u"}, "root"),
        ({}, "root"),
    ],
)
def test_the_user_comes_from_where_fwknop_takes_it(environ: dict[str, str], name: str) -> None:
    assert request.user_name(environ, "root") == name


@pytest.mark.parametrize(("environ", "name"), [({"USER": "u"}, "u"), ({}, "NO_USER")])
def test_a_user_without_an_account_has_the_environments_name(environ: dict[str, str], name: str) -> None:
    assert request.user_name(environ, None) == name


def test_a_configured_user_wins() -> None:
    assert asked(Profile(key=Secret(b"k"), user="bob")).user == "bob"


def test_an_hmac_key_alone_turns_the_hmac_on() -> None:
    both, one = (asked(Profile(key=Secret(b"k"), hmac_key=key)) for key in (Secret(b"h"), None))
    assert both.keys == SymmetricKeys(Secret(b"k"), Secret(b"h"))
    assert one.keys == SymmetricKeys(Secret(b"k"), None)
    assert (both.is_authenticated, one.is_authenticated) == (True, False)


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("web1: secret", b"secret"),
        ("web1:secret", b"secret"),
        ("# web1: no\nweb2: other\n  = web1: secret", b"secret"),
        ("web1: old\nweb1: secret", b"secret"),
        ("web1: = secret with blanks\t", b"secret with blanks"),
    ],
)
def test_a_key_file_names_the_key_for_the_host(tmp_path: Path, lines: str, key: bytes) -> None:
    path = tmp_path / "keys"
    path.write_text(lines + "\n")
    assert keys(asked(Profile(key_file=path))).key == Secret(key)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("web2: other", "has no line 'web1: KEY'"),
        ("web11: other", "has no line 'web1: KEY'"),
        ("xweb1: other", "has no line 'web1: KEY'"),
        ("web1:", "has no line 'web1: KEY'"),
        (f"web1: {'hunter2' * 5}", ":1: the key has 35 bytes, more than 32"),
    ],
)
def test_a_key_file_without_a_good_key_for_the_host_is_a_problem(tmp_path: Path, lines: str, complaint: str) -> None:
    path = tmp_path / "keys"
    path.write_text(lines + "\n")
    with pytest.raises(ConfigError) as caught:
        asked(Profile(key_file=path))
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_person_is_asked_for_what_is_missing() -> None:
    made = asked(Profile(use_hmac=True), encryption_key="one", HMAC_key="two")
    assert (keys(made).key, keys(made).hmac_key) == (Secret(b"one"), Secret(b"two"))


@pytest.mark.parametrize(
    ("profile", "complaint"),
    [
        (Profile(), "no encryption key: no file was read"),
        (Profile(key=Secret(b"k"), use_hmac=True), "no HMAC key: no file was read"),
        (Profile(key=Secret(b"k"), hmac_key=Secret(b"k")), "the encryption key and the HMAC key are the same"),
        (
            Profile(key=Secret(b"k"), hmac_key=Secret(b"h"), mode=EncryptionMode.LEGACY),
            "legacy encryption mode excludes an HMAC",
        ),
    ],
)
def test_a_request_that_cannot_work_is_refused(profile: Profile, complaint: str) -> None:
    with pytest.raises(ClientError, match=complaint):
        asked(profile)


def test_a_typed_key_that_is_too_long_is_refused_without_being_repeated() -> None:
    with pytest.raises(ClientError, match="encryption key: the key has 35 bytes") as caught:
        asked(Profile(), encryption_key="hunter2" * 5)
    assert "hunter2" not in str(caught.value)
