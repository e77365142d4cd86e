"""LOG_FORMAT json: the same facts as the line, for programs."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.denials import ServiceClosed, WrongUser
from doorward.gate import Verdict
from doorward.record.json_line import json_line
from doorward.record.line import Suppressed, line
from doorward.values import Execution, Grant, Nat, Reason, Service
from unit.making import NOW, datagram

PACKET = datagram(b"packet")
SOURCE = ipaddress.ip_address("192.0.2.7")
SSH, WEB = Service.parse("tcp/22"), Service.parse("tcp/443")
GRANT = Grant(SOURCE, (SSH, WEB), 30, name="laptop")
WHEN = {"time": "2027-01-15T08:00:00.250+00:00"}
ORIGIN = {"origin": "192.0.2.7", "origin_port": 40000}


def said(verdict: Verdict | Suppressed, *, test: bool = False) -> dict[str, Any]:
    written = json_line(verdict, NOW + 0.25, test=test)
    assert written.isascii()
    assert written.isprintable()
    read: dict[str, Any] = json.loads(written)
    return read


CASES: dict[str, tuple[Verdict | Suppressed, dict[str, Any]]] = {
    "granted": (
        Verdict(None, PACKET, 1, "alice", GRANT, name="laptop"),
        {"verdict": "granted", "reason": "granted", **ORIGIN, "stanza": 1, "name": "laptop", "user": "alice"}
        | {"source": "192.0.2.7", "services": ["tcp/22", "tcp/443"], "seconds": 30},
    ),
    "denied": (
        Verdict(ServiceClosed(SSH), PACKET, 2),
        {"verdict": "denied", "reason": "services", **ORIGIN, "stanza": 2, "detail": "tcp/22 is not in OPEN_PORTS"},
    ),
    "a ghost service": (
        Verdict(None, PACKET, 1, grant=Grant(SOURCE, (SSH,), 30, Nat(None, 2222), destination=SOURCE)),
        {"verdict": "granted", "reason": "granted", **ORIGIN, "stanza": 1, "source": "192.0.2.7"}
        | {"services": ["tcp/22"], "seconds": 30, "nat": "this-host,2222", "destination": "192.0.2.7"},
    ),
    "a command": (
        Verdict(None, PACKET, 1, execution=Execution(1, SOURCE, SOURCE, SOURCE, 30, 0, command="id")),
        {"verdict": "granted", "reason": "granted", **ORIGIN, "stanza": 1, "source": "192.0.2.7", "command": "id"},
    ),
    "suppressed": (Suppressed(Reason.HMAC, 12), {"verdict": "denied", "reason": "hmac", "suppressed": 12}),
}


@pytest.mark.parametrize(("verdict", "expected"), CASES.values(), ids=CASES)
def test_a_verdict_is_one_object_with_stable_keys(verdict: Verdict | Suppressed, expected: dict[str, Any]) -> None:
    assert said(verdict) == WHEN | expected
    assert list(said(verdict)) == list(WHEN | expected), "their order is stable too"


@pytest.mark.parametrize("verdict", [verdict for verdict, _ in CASES.values()], ids=CASES)
def test_the_line_has_the_same_keys(verdict: Verdict | Suppressed) -> None:
    words = [word.partition("=")[0] for word in line(verdict).split() if "=" in word]
    assert words == [key for key in said(verdict) if key != "time"]


def test_a_daemon_that_opens_nothing_says_so() -> None:
    assert said(CASES["denied"][0], test=True)["test"] is True
    assert "test" not in said(CASES["denied"][0])


@given(st.text(st.characters(), max_size=40))
def test_no_name_breaks_out_whatever_a_packet_says(user: str) -> None:
    read = said(Verdict(WrongUser(user, "alice"), PACKET, 1, user))
    assert read["user"] == user.encode("utf-8", "replace").decode()
    assert set(read) == {"time", "verdict", "reason", *ORIGIN, "stanza", "user", "detail"}
    assert read["verdict"] == "denied"


@pytest.mark.parametrize("user", ["\x00\x1b[2J\x7f\x85\n\u2028", "\udcff", '"}\n{"verdict": "granted"'])
def test_control_characters_and_what_is_no_utf_8_are_escaped_or_replaced(user: str) -> None:
    assert said(Verdict(WrongUser(user, "alice"), PACKET, 1, user))["user"] == user.replace("\udcff", "?")
