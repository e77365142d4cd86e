"""The limits of fwknop's plaintext, field by field."""

from __future__ import annotations

import pytest

from doorward.errors import WireError
from doorward.values import DigestType
from doorward.wire import fwknop
from doorward.wire.fwknop import MessageType
from unit.making import MESSAGE, message

RANDOM, USER, TIME, VERSION, TYPE, TEXT = (
    "0123456789012345",
    "Ym9i",
    "1800000000",
    "3.0.0",
    "1",
    "MTkyLjAuMi43LHRjcC8yMg",
)
HEAD = [RANDOM, USER, TIME, VERSION]


def plaintext(*fields: str, digest: DigestType = DigestType.SHA256) -> bytes:
    body = ":".join(fields).encode("latin-1")
    return body + b":" + fwknop.digest_text(digest, body)


@pytest.mark.parametrize("digest", list(DigestType))
def test_each_digest_is_recognised_by_its_length(digest: DigestType) -> None:
    parsed = fwknop.parse(plaintext(*HEAD, TYPE, TEXT, digest=digest))
    assert (parsed.digest, parsed.user, parsed.text) == (digest, "bob", "192.0.2.7,tcp/22")


@pytest.mark.parametrize(
    "fields",
    [
        ("012345678901234", USER, TIME, VERSION, TYPE, TEXT),
        ("01234567890123456", USER, TIME, VERSION, TYPE, TEXT),
        (RANDOM, "", TIME, VERSION, TYPE, TEXT),
        (RANDOM, "YQ", "-1", VERSION, TYPE, TEXT),
        (RANDOM, USER, "1" * 13, VERSION, TYPE, TEXT),
        (RANDOM, USER, "", VERSION, TYPE, TEXT),
        (RANDOM, USER, TIME, "", TYPE, TEXT),
        (RANDOM, USER, TIME, "123456789", TYPE, TEXT),
        (RANDOM, USER, TIME, VERSION, "7", TEXT),
        (RANDOM, USER, TIME, VERSION, "001", TEXT),
        (RANDOM, USER, TIME, VERSION, "", TEXT),
        (RANDOM, USER, TIME, VERSION, TYPE, ""),
        (RANDOM, USER, TIME, VERSION, TYPE, "MTk%"),
        (RANDOM, USER, TIME, VERSION, TYPE, "MTky/"),
        (RANDOM, "wfjz/w", TIME, VERSION, TYPE, TEXT),
        (RANDOM, "AAEC", TIME, VERSION, TYPE, TEXT),
        (RANDOM, "a" * 68, TIME, VERSION, TYPE, TEXT),
        (RANDOM, USER, TIME, VERSION),
        (RANDOM, USER, TIME, VERSION, TYPE, TEXT, "YQ", "YQ"),
        (RANDOM, USER, TIME, VERSION, TYPE, TEXT, "Y?"),
        (RANDOM, USER, TIME, VERSION, "2", TEXT),
        (RANDOM, USER, TIME, VERSION, "3", TEXT),
        (RANDOM, USER, TIME, VERSION, "3", TEXT, "x"),
        (RANDOM, USER, TIME, VERSION, "3", TEXT, "65537"),
        (RANDOM, USER, TIME, VERSION, "4", TEXT, "MTAuMC4wLjEsMjI", "1", "2", "3"),
        (RANDOM, USER, TIME, VERSION, TYPE, "\xe4"),
    ],
)
def test_a_field_outside_its_limits_is_refused(fields: tuple[str, ...]) -> None:
    with pytest.raises(WireError):
        fwknop.parse(plaintext(*fields))


@pytest.mark.parametrize("text", [b"", b"x", b"1" * 36, b"1" * 1500, plaintext(*HEAD, TYPE, TEXT)[:-1]])
def test_a_plaintext_without_a_digest_that_fits_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        fwknop.parse(text)


def test_the_historic_server_auth_is_passed_over() -> None:
    parsed = fwknop.parse(plaintext(*HEAD, "3", TEXT, "c2VjcmV0", "60"))
    assert (parsed.server_auth, parsed.timeout) == ("c2VjcmV0", 60)
    assert fwknop.parse(fwknop.serialize(parsed)) == parsed


@pytest.mark.parametrize(
    "source", ["::1", "::", "fe80::1", "ff02::1", "::ffff:192.0.2.1", "2001:db8::1%eth0", "x", "010.0.0.1"]
)
def test_a_source_that_cannot_arrive_from_elsewhere_is_refused(source: str) -> None:
    with pytest.raises(WireError):
        fwknop.parse_access(f"{source},tcp/22")


@pytest.mark.parametrize(
    "nat", ["", "h", "h,", "h,0", "h,65536", "h,1,2", "a b,1", "a/b,1", "x" * 71 + ",1", "x" * 127 + ",1"]
)
def test_a_nat_target_outside_its_limits_is_refused(nat: str) -> None:
    with pytest.raises(WireError):
        fwknop.parse_nat(nat)


@pytest.mark.parametrize("text", ["192.0.2.7,touch /tmp/ä✓", "192.0.2.7,x" + "ä" * 90])
def test_a_command_may_have_letters_beyond_ascii(text: str) -> None:
    made = message(type=MessageType.COMMAND, text=text)
    assert fwknop.parse(fwknop.serialize(made)) == made


@pytest.mark.parametrize("text", [b"192.0.2.7,\xff", b"192.0.2.7,a\n", "192.0.2.7,a\u202eb".encode()])
def test_a_command_that_is_no_printable_text_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        fwknop.parse(plaintext(*HEAD, "0", fwknop.encode_blob(text).decode()))


def test_a_command_keeps_its_commas() -> None:
    assert fwknop.parse_command("0.0.0.0,echo a,b").command == "echo a,b"


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "192.0.2.7," + ",".join(["tcp/22"] * 40)},
        {"text": "192.0.2.7," + ",".join(f"tcp/{port}" for port in range(10, 42))},
        {"user": "u" * 49},
        {"user": "a:b"},
        {"nat_access": "h,1"},
        {"type": MessageType.NAT},
        {"timeout": 1},
        {"type": MessageType.ACCESS_TIMEOUT, "timeout": 65537},
        {"type": MessageType.COMMAND, "text": "192.0.2.7,"},
        {"time": 10**12},
        {"version": "3:0"},
        {"random": "x" * 16},
    ],
)
def test_a_message_that_no_receiver_would_take_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(WireError):
        message(**changes)


def test_the_message_of_the_other_tests_is_a_good_one() -> None:
    assert fwknop.parse(fwknop.serialize(MESSAGE)) == MESSAGE


def test_base64_has_one_spelling() -> None:
    assert fwknop.decode_blob(b"QQ") == b"A"
    with pytest.raises(WireError, match=r"^base64 is not canonical$"):
        fwknop.decode_blob(b"QR")
