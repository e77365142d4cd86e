"""No value in any fact of a denial can make up a line, hide another value or get lost on its way to a log."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import typing
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from doorward import denials
from doorward.denials import CodeFault, Denial, Fit, Unserved, WrongUser
from doorward.gate import Verdict
from doorward.record import chain, fwknop
from doorward.record.audit_file import VERDICT, AuditFile
from doorward.record.line import line
from doorward.values import Datagram, IPAddress, Reason, Service
from doorward.wire.fwknop import Field

if TYPE_CHECKING:
    from pathlib import Path

DATAGRAM = Datagram(b"A" * 200, bytes([192, 0, 2, 9]), bytes(4), 40000, 62201)
# What breaks texts that are read back, quoted or split; and what lines are made of.
ODD = ["'", '"', "\\", ":", "(", ")", "[", "]", "=", " ", "\n", "\r", "\t", "\0", "\x1b", "\x85", "\u2028", "ä", "%s"]
LURES = ["' is not '", ", which GPG_REMOTE_ID", "made 1 s", "verdict=granted", " chain=", "digest", "command"]
TEXTS = st.lists(st.one_of(st.sampled_from([*ODD, *LURES]), st.text(max_size=5)), max_size=12).map("".join)
FACTS: tuple[type[Any], ...] = typing.get_args(Denial)
NAMES = {**vars(denials), "IPAddress": IPAddress, "Service": Service, "Field": Field}
SIMPLE: dict[object, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    Service: st.sampled_from([Service.parse("tcp/22"), Service.parse("udp/53")]),
    ipaddress.IPv4Address: st.ip_addresses(v=4),
    ipaddress.IPv6Address: st.ip_addresses(v=6),
    Field: st.sampled_from(Field),
    Unserved: st.sampled_from(Unserved),
    CodeFault: st.sampled_from(CodeFault),
    Fit: st.sampled_from(Fit),
}


def made(hint: Any) -> st.SearchStrategy[Any]:
    """Return what makes any value of a type."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_args(hint):
        return st.one_of(*map(made, typing.get_args(hint)))
    hints = typing.get_type_hints(hint, NAMES)
    return st.builds(hint, **{name: made(hints[name]) for name in hint.__match_args__})


ANY_DENIAL: st.SearchStrategy[Denial] = made(Denial)


def values(text: str) -> dict[str, str]:
    """Return the pairs of a line, read as its documentation says: JSON where a value begins with a quote."""
    found: dict[str, str] = {}
    while text:
        key, _, rest = text.partition("=")
        assert key.isidentifier(), text
        assert key not in found, text
        if rest.startswith('"'):
            found[key], end = json.JSONDecoder().raw_decode(rest)
        else:
            end = len(rest.partition(" ")[0])
            found[key] = rest[:end]
        assert rest[end : end + 1] in {"", " "}, text
        text = rest[end + 1 :]
    return found


def test_every_reason_but_the_grant_has_a_fact() -> None:
    assert {kind.reason for kind in FACTS} == set(Reason) - {Reason.GRANTED}


@given(ANY_DENIAL, TEXTS)
def test_our_line_is_one_line_whose_pairs_can_be_read_back(denial: Denial, user: str) -> None:
    text = line(Verdict(denial, DATAGRAM, 2, user))
    assert text.isprintable()
    assert text.isascii()
    found = values(text)
    assert (found["verdict"], found["reason"], found["user"]) == ("denied", denial.reason, user)
    assert set(found) <= {"verdict", "reason", "origin", "origin_port", "stanza", "user", "detail"}


@given(ANY_DENIAL)
def test_fwknops_words_for_a_fact_are_one_line_of_its_kind(denial: Denial) -> None:
    for entry in fwknop.entries(Verdict(denial, DATAGRAM, 2), 0.0):
        assert entry.text.isprintable()
        assert entry.text.startswith(("[192.0.2.9] ", "(stanza #2) ", "No access", "Replay detected")), entry


@given(TEXTS, TEXTS)
def test_fwknops_words_name_both_users_whatever_they_are_called(sent: str, required: str) -> None:
    told = fwknop.entries(Verdict(WrongUser(sent, required), DATAGRAM, 2), 0.0)[1].text
    shown = [
        "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in one)
        for one in (sent, required)
    ]
    assert f"({shown[0]}) does not match required username: {shown[1]}" in told


def test_the_audit_file_has_one_sealed_line_a_verdict_and_nothing_of_other_lines(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    handler = AuditFile(file, lambda: os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600))

    @given(ANY_DENIAL)
    def written(denial: Denial) -> None:
        before = file.read_text().count("\n")
        verdict = Verdict(denial, DATAGRAM, 2)
        for extra in ({VERDICT: verdict}, {}):
            record = logging.makeLogRecord({"msg": "verdict=granted " + line(verdict), **extra})
            handler.emit(record)
        lines = file.read_text().splitlines()
        assert len(lines) - before == (2 if before == 0 else 1)
        assert f" {line(verdict)} chain=" in lines[-1]

    written()
    handler.close()
    count, _, broken = chain.verify(file.read_text().splitlines())
    assert broken is None
    assert count > 1
