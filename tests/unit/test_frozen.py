"""Frozen values behave as those of `dataclasses` do, whose work `frozen` does in less time."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from doorward import frozen


def classes() -> list[Any]:
    """The same class, made by `dataclasses` and by us."""
    made = []
    for decorate in (dataclasses.dataclass, frozen.dataclass):

        @decorate(frozen=True, slots=True, order=True)
        class Pair:
            """Two numbers."""

            left: int
            right: int = 7

            def __post_init__(self) -> None:
                if self.left < 0:
                    msg = "below 0"
                    raise ValueError(msg)

            @property
            def total(self) -> int:
                return self.left + self.right

        made.append(Pair)
    return made


def odd_ones(decorate: Any) -> tuple[Any, Any]:
    """A class without fields, and one that knows something beside its field."""

    @decorate(frozen=True, slots=True)
    class Nothing:
        reason: ClassVar = "why"

    @decorate(frozen=True, slots=True)
    class Something:
        reason: ClassVar[str] = "why"
        text: str

    return Nothing, Something


def test_what_a_class_knows_is_no_field_and_a_class_may_have_none() -> None:
    made = []
    for nothing, something in map(odd_ones, (dataclasses.dataclass, frozen.dataclass)):
        made.append(
            [
                [nothing.reason, nothing() == nothing(), hash(nothing()) == hash(nothing()), nothing.__match_args__],
                [something("a").reason, something("a") == something("a"), something.__slots__],
                [nothing() == something(""), repr(something("a")), repr(nothing())],
                [[field.name for field in dataclasses.fields(one)] for one in (nothing, something)],
                dataclasses.replace(something("a"), text="b").text,
            ]
        )
    assert made[0] == made[1]


def facts(pair: Any) -> list[object]:
    """All that can be seen of a class."""
    one, same, more = pair(1), pair(left=1, right=7), pair(2, 0)
    return [
        [repr(each) for each in (one, more, dataclasses.replace(one, right=3))],
        [one == same, one == more, one != same, one == (1, 7), hash(one) == hash(same), len({one, same, more})],
        [one < more, one <= same, one > more, more >= one, sorted([more, one]) == [one, more]],
        [one.total, pair.__doc__, pair.__name__, pair.__slots__, pair.__match_args__, hasattr(one, "__dict__")],
        [(field.name, field.init, field.default) for field in dataclasses.fields(pair)][1:],
        [dataclasses.asdict(one), dataclasses.astuple(more), dataclasses.is_dataclass(pair)],
    ]


def test_a_class_looks_as_one_of_dataclasses_does() -> None:
    theirs, ours = classes()
    assert facts(ours) == facts(theirs)


@pytest.mark.parametrize("pair", classes(), ids=["dataclasses", "frozen"])
def test_what_is_wrong_is_refused(pair: Any) -> None:
    with pytest.raises(ValueError, match="below 0"):
        pair(-1)
    with pytest.raises(TypeError):
        pair()
    with pytest.raises(TypeError):
        pair(1, 2, 3)
    with pytest.raises(TypeError):
        pair(1, other=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair(1).left = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del pair(1).left
    with pytest.raises(TypeError):
        assert pair(1) < (1, 7)


def test_values_that_can_change_are_not_made() -> None:
    make: Any = frozen.dataclass
    with pytest.raises(TypeError):
        make(frozen=False, slots=True)


def test_a_connection_loads_neither_dataclasses_nor_cryptography() -> None:
    """What a connection loads is what every ssh waits for; `knock --help` loads more and shows it."""
    lists = [
        loaded("from doorward.client import cli, proxy"),
        loaded("from doorward.client import usage, raw, describe_packet, doctor; import dataclasses"),
    ]
    slow = {"dataclasses", "inspect", "argparse", "cryptography", "subprocess", "ssl", "logging"}
    slow |= {f"doorward.client.{name}" for name in ("reasons", "refusals", "clock", "doctor", "ssh_settings")}
    assert lists[0] & slow == set()
    assert {"dataclasses", "subprocess", "doorward.client.reasons"} <= lists[1] & slow


def loaded(imports: str) -> set[str]:
    code = f"{imports}\nimport sys\nprint(*sys.modules)"
    environ = {"PYTHONPATH": str(Path(frozen.__file__).parents[1])}
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout.split())


def test_the_fields_are_made_once_however_often_a_value_is_replaced() -> None:
    ours = classes()[1]
    fields = dataclasses.fields(ours(1))
    assert all(one is other for one, other in zip(dataclasses.fields(ours(2)), fields, strict=True))
