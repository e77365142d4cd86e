"""The question for the time, against a server of the tests on the loopback."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from doorward.client import cli, clock
from doorward.client.address import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH = 2_208_988_800
LOOPBACK = Endpoint(ipaddress.ip_address("127.0.0.1"), 22)


def answer(asked: bytes, now: float, first: int = 0x24, stratum: int = 2) -> bytes:
    seconds = (now + EPOCH) % (1 << 32)
    stamp = struct.pack("!II", int(seconds), int(seconds % 1 * (1 << 32)))
    return struct.pack("!BBBb", first, stratum, 6, -20) + bytes(20) + asked[40:48] + stamp + stamp


def told(monkeypatch: pytest.MonkeyPatch, reply: Callable[[bytes], bytes], ours: float | None = None) -> float | None:
    """Ask a server that replies so, with a clock of ours."""
    outside = cli._outside()._replace(clock=time.time if ours is None else lambda: ours)  # noqa: SLF001  its own
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(clock, "NTP_PORT", server.getsockname()[1])
        question = clock.Question(LOOPBACK, outside)

        def serve() -> None:
            asked, peer = server.recvfrom(100)
            assert len(asked) == 48
            assert asked[:40] == b"\x23" + bytes(39)
            server.sendto(reply(asked), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        return question.answer(5)


@pytest.mark.parametrize("ahead", [0.0, 3600.0, -3600.0, 86_400.0 * 365])
def test_the_answer_is_how_far_the_host_is_ahead(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    found = told(monkeypatch, lambda asked: answer(asked, 1_800_000_000 + ahead), 1_800_000_000)
    assert found == pytest.approx(ahead, abs=0.01)


def test_the_counter_of_seconds_may_run_over_in_2036(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = (1 << 32) - EPOCH - 5.0
    assert told(monkeypatch, lambda asked: answer(asked, ours + 10), ours) == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize(
    "reply",
    [
        lambda _: answer(os.urandom(48), time.time()),
        lambda asked: answer(asked, time.time())[:47],
        lambda asked: answer(asked, time.time(), first=0x23),
        lambda asked: answer(asked, time.time(), stratum=0),
        lambda asked: answer(asked, time.time(), stratum=16),
        lambda _: b"",
    ],
    ids=["forged", "short", "no server", "kiss of death", "no time", "empty"],
)
def test_what_is_no_answer_tells_nothing(monkeypatch: pytest.MonkeyPatch, reply: Callable[[bytes], bytes]) -> None:
    assert told(monkeypatch, lambda asked: answer(asked, time.time())) == pytest.approx(0, abs=5)
    assert told(monkeypatch, reply) is None


def test_a_host_without_ntp_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(clock, "NTP_PORT", server.getsockname()[1])
        assert clock.Question(LOOPBACK, cli._outside()).answer() is None  # noqa: SLF001  its own
    assert clock.Question(LOOPBACK, cli._outside()).answer(1) is None  # noqa: SLF001  its own


def test_a_question_that_cannot_be_sent_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match=r"."):
        clock.Question(Endpoint(ipaddress.ip_address("255.255.255.255"), 22), cli._outside())  # noqa: SLF001  its own
