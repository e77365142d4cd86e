"""Mail to the administrator: what can get into one, and how many there are."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.commands import alerts


@given(st.text(max_size=300))
def test_no_line_gets_out_of_the_body(line: str) -> None:
    content = alerts.compose("doorward@host", ["root@example.org", "b@example.org"], "doorward host: denied", line)
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert set(message.keys()) == {
        "From", "To", "Subject", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert message["To"] == "root@example.org, b@example.org"
    body = message.get_content().rstrip("\r\n")
    assert "\n" not in body
    assert body == "".join(char if char.isascii() and char.isprintable() else "?" for char in line)
    assert not set(content) - set(range(32, 127)) - {10, 13}


@pytest.mark.parametrize(
    "line", ["x\r\nBcc: evil@example.org", "x\n\n.\nMAIL FROM:<a>", "x\r\n.\r\nQUIT", "\u2028Bcc: a"]
)
def test_no_line_makes_a_header_or_ends_the_message(line: str) -> None:
    content = alerts.compose("doorward@host", ["root@example.org"], "doorward host: denied", line)
    assert b"Bcc" not in content.partition(b"\r\n\r\n")[0]
    assert b"\r\n.\r\n" not in content


def test_so_many_an_hour_are_mailed_and_then_one_line_for_the_others() -> None:
    rate = alerts.Rate(3)
    assert [rate.admits(float(second), granted=second % 2 == 0) for second in range(8)] == [True] * 3 + [False] * 5
    assert rate.summary(3599.0) is None
    assert rate.summary(3600.0) == "not mailed in the last hour, for being more than 3: granted 2, denied 3"
    assert rate.summary(3601.0) is None
    assert [rate.admits(3602.0, granted=True) for _ in range(3)] == [True, True, False]


def test_an_hour_with_few_has_no_summary() -> None:
    rate = alerts.Rate(3)
    assert rate.admits(0.0, granted=True)
    assert rate.summary(1e9) is None
