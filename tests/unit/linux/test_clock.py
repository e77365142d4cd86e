"""Whether the kernel keeps its clock right: its own words, read another way."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from doorward.linux import clock

STA_UNSYNC = 0x40  # sys/timex.h
_ROOM = 208  # bytes of Linux's struct timex


class Timex(ctypes.Structure):
    """The first fields of struct timex, and room for the others."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        ("more", ctypes.c_char * 400),
    )


def test_the_answer_is_the_kernels() -> None:
    state = Timex()
    assert ctypes.CDLL(None).adjtimex(ctypes.byref(state)) >= 0
    assert clock.is_synchronised() is not bool(state.status & STA_UNSYNC)


@pytest.mark.parametrize(("state", "found"), [(5, "False"), (0, "True"), (-1, "None")])
def test_each_state_of_the_kernel_has_its_meaning(monkeypatch: pytest.MonkeyPatch, state: int, found: str) -> None:
    """A test cannot put the kernel's clock into each of them."""
    library = SimpleNamespace(ntp_adjtime=lambda timex: state if len(timex) >= _ROOM else 9)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert str(clock.is_synchronised()) == found


def test_a_system_that_does_not_say_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_CALLS", ("no_such_call",))
    assert clock.is_synchronised() is None


def test_a_system_whose_libraries_have_names_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def windows(_name: object) -> None:
        raise TypeError

    monkeypatch.setattr(ctypes, "CDLL", windows)
    assert clock.is_synchronised() is None
