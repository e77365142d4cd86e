"""One-time codes, by the RFC's own examples, and what bounds guesses at them."""

from __future__ import annotations

import pytest

from doorward.crypto.one_time_code import (
    FORGIVEN,
    FORGOTTEN_AFTER,
    GUESSES_MAX,
    Codes,
    code,
    name_of,
    step_of,
    step_of_code,
)
from doorward.denials import CodeFault
from doorward.errors import ReplayError
from doorward.values import Secret
from unit.making import NOW, Memory

SECRET = Secret(b"12345678901234567890")  # RFC 6238, appendix B
CLIENT = b"c" * 32
STEP = step_of(NOW)


@pytest.mark.parametrize(
    ("time", "digits"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_codes_are_the_last_six_digits_of_rfc_6238s_examples(time: int, digits: str) -> None:
    assert code(SECRET, step_of(time)) == int(digits[-6:])


def test_a_code_is_of_the_last_this_or_the_next_step() -> None:
    for step in range(STEP - 3, STEP + 4):
        expected = step if abs(step - STEP) <= 1 else None
        assert step_of_code(SECRET, code(SECRET, step), NOW) == expected
    assert step_of_code(SECRET, code(SECRET, 0), 0.0) == 0, "1970 has no step before its first"


def test_a_code_of_two_steps_counts_as_the_later_one() -> None:
    secret, step = next(
        (secret, step)
        for secret in [Secret(number.to_bytes(20, "big")) for number in range(1)]
        for step in range(2_000_000)
        if code(secret, step) == code(secret, step + 1)
    )
    assert step_of_code(secret, code(secret, step), step * 30.0) == step + 1


def test_the_name_of_a_clients_codes_tells_nothing_and_differs_by_client_and_secret() -> None:
    names = {name_of(secret, client) for secret in (SECRET, Secret(b"x" * 20)) for client in (CLIENT, b"d" * 32)}
    assert len(names) == 4
    assert all(SECRET.reveal() not in name and CLIENT not in name for name in names)


class Asked:
    """A client that is asked for codes, with what the host counts."""

    def __init__(self) -> None:
        self.codes, self.memory = Codes(), Memory()

    def gives(self, given: int | None, now: float = NOW) -> CodeFault | None:
        refused = self.codes.refuses(SECRET, CLIENT, given, now, self.memory)
        return None if refused is None else refused.fault

    def guesses(self, count: int, now: float = NOW) -> set[CodeFault | None]:
        valid = {code(SECRET, step_of(now) + shift) for shift in (-1, 0, 1)}
        wrong = [number for number in range(count + len(valid)) if number not in valid][:count]
        return {self.gives(number, now) for number in wrong}


def test_a_step_counts_once_and_no_earlier_one_after_it() -> None:
    asked = Asked()
    assert asked.gives(None) is CodeFault.MISSING
    assert asked.gives(code(SECRET, STEP)) is None
    assert asked.gives(code(SECRET, STEP)) is CodeFault.USED
    assert asked.gives(code(SECRET, STEP - 1)) is CodeFault.USED
    assert asked.gives(code(SECRET, STEP + 1)) is None
    assert asked.gives(code(SECRET, STEP + 1), NOW - 3600) is CodeFault.WRONG, "a clock that stepped back"
    assert asked.gives(code(SECRET, step_of(NOW - 3600)), NOW - 3600) is CodeFault.USED


def test_a_few_wrong_codes_are_forgiven_and_use_up_nothing() -> None:
    asked = Asked()
    assert asked.guesses(FORGIVEN) == {CodeFault.WRONG}
    assert asked.gives(code(SECRET, STEP)) is None
    assert asked.guesses(FORGIVEN) == {CodeFault.WRONG}
    assert asked.gives(code(SECRET, STEP + 1)) is None, "a knock that opened begins the count again"


def test_after_more_of_them_it_takes_two_codes_of_different_steps() -> None:
    asked = Asked()
    asked.guesses(FORGIVEN + 1)
    assert asked.gives(code(SECRET, STEP)) is CodeFault.FIRST_OF_TWO
    assert asked.gives(code(SECRET, STEP)) is CodeFault.USED
    assert asked.guesses(5, NOW + 30) == {CodeFault.WRONG}, "guesses in between do not matter"
    assert asked.gives(code(SECRET, STEP + 1), NOW + 30) is None
    assert asked.gives(code(SECRET, STEP + 2), NOW + 60) is None


def test_two_codes_that_lie_far_apart_are_two_first_ones() -> None:
    asked = Asked()
    asked.guesses(FORGIVEN + 1)
    assert asked.gives(code(SECRET, STEP)) is CodeFault.FIRST_OF_TWO
    assert asked.gives(code(SECRET, STEP + 5), NOW + 150) is CodeFault.FIRST_OF_TWO
    assert asked.gives(code(SECRET, STEP + 9), NOW + 270) is None


def test_wrong_codes_are_forgotten_after_a_day() -> None:
    later = NOW + FORGOTTEN_AFTER
    asked = Asked()
    asked.guesses(FORGIVEN + 1)
    assert asked.gives(code(SECRET, step_of(later)), later) is None
    asked = Asked()
    asked.guesses(FORGIVEN)
    asked.guesses(1, later)
    assert asked.gives(code(SECRET, step_of(later)), later) is None


def test_a_thousand_guesses_are_bounded_and_the_owner_still_gets_in() -> None:
    asked = Asked()
    assert asked.guesses(GUESSES_MAX) == {CodeFault.WRONG}
    assert asked.guesses(1000 - GUESSES_MAX) == {CodeFault.TOO_MANY}
    assert asked.gives(code(SECRET, STEP)) is CodeFault.TOO_MANY, "even the right one, in this step"
    asked.guesses(GUESSES_MAX - 1, NOW + 30)
    assert asked.gives(code(SECRET, STEP + 1), NOW + 30) is CodeFault.FIRST_OF_TWO, "while the guesses go on"
    asked.guesses(GUESSES_MAX - 1, NOW + 60)
    assert asked.gives(code(SECRET, STEP + 2), NOW + 60) is None


def test_a_code_whose_use_cannot_be_remembered_opens_nothing() -> None:
    with pytest.raises(ReplayError):
        Codes().refuses(SECRET, CLIENT, code(SECRET, STEP), NOW, Memory(ReplayError("full")))
