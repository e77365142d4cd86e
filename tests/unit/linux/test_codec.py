"""Values to bytes and back: each has one spelling, and whatever bytes come, nothing but a value or one error."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import HelperError
from doorward.linux.codec import Codec, Cut
from doorward.values import IPAddress, Secret, Service


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


@dataclass(frozen=True)
class Inner:
    number: int
    text: str

    def __post_init__(self) -> None:
        if self.number == 13:
            msg = "an unlucky number"
            raise ValueError(msg)


@dataclass(frozen=True)
class Empty:
    pass


@dataclass(frozen=True)
class Value:
    whole: int
    yes: bool
    word: str
    raw: bytes
    colour: Colour
    address: IPAddress | None
    inner: Inner | Empty | None
    rows: tuple[Inner, ...]
    pair: tuple[int, str]
    secret: Secret | None
    said: Annotated[str, Cut(5)]


CODEC = Codec[Value](b"V", Value)
whole = st.integers(-(2**63), 2**63 - 1)
inner = st.builds(Inner, whole.filter(lambda number: number != 13), st.text(st.characters(codec="utf-8"), max_size=9))
values = st.builds(
    Value,
    whole,
    st.booleans(),
    st.text(st.characters(codec="utf-8"), max_size=9),
    st.binary(max_size=9),
    st.sampled_from(Colour),
    st.none() | st.ip_addresses().filter(lambda one: not getattr(one, "ipv4_mapped", None)),
    st.none() | inner | st.just(Empty()),
    st.lists(inner, max_size=3).map(tuple),
    st.tuples(whole, st.text(st.characters(codec="utf-8"), max_size=3)),
    st.none() | st.builds(Secret, st.binary(max_size=9)),
    st.text("abc", max_size=5),
)


@given(values)
def test_every_value_survives_the_way_there_and_back(value: Value) -> None:
    assert CODEC.decode(CODEC.encode(value)) == value


@given(values, st.binary(min_size=1, max_size=3))
def test_bytes_that_are_cut_anywhere_or_have_more_behind_them_are_refused(value: Value, more: bytes) -> None:
    content = CODEC.encode(value)
    for wrong in (*(content[:length] for length in range(len(content))), content + more):
        with pytest.raises(HelperError):
            CODEC.decode(wrong)


@given(values, st.integers(1, 255))
def test_with_any_byte_changed_they_are_refused_or_another_value_that_has_exactly_these_bytes(
    value: Value, flip: int
) -> None:
    content = CODEC.encode(value)
    for place in range(len(content)):
        wrong = bytes([*content[:place], content[place] ^ flip, *content[place + 1 :]])
        try:
            other = CODEC.decode(wrong)
        except HelperError:
            continue
        assert other != value
        assert CODEC.encode(other) == wrong


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_one_error(content: bytes) -> None:
    for some in (content, b"V" + content):
        try:
            value = CODEC.decode(some)
        except HelperError:
            continue
        assert CODEC.encode(value) == some


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 2**63),
        (int, 1.5),
        (str, "\ud800"),
        (IPAddress, ipaddress.ip_address("::ffff:192.0.2.7")),
        (IPAddress, ipaddress.ip_address("fe80::1%eth0")),
        (IPAddress, None),
        (Inner | Empty, 5),
        (tuple[int, ...], (1,) * 65_536),
        (bytes, bytes(60_000)),
    ],
)
def test_what_has_no_bytes_is_an_error_of_the_sender(kind: object, value: Any) -> None:
    with pytest.raises(HelperError):
        Codec[Any](b"X", kind).encode(value)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (bool, b"\2"),
        (Colour, b"\2"),
        (str, b"\0\0\0\1\xff"),
        (str, b"\0\0\0\3\xed\xa0\x80"),
        (str, b"\0\0\0\2\xc1\x81"),
        (IPAddress, b"\1" + ipaddress.ip_address("::ffff:192.0.2.7").packed),
        (IPAddress, b"\2"),
        (Annotated[str, Cut(2)], b"\0\0\0\3abc"),
        (Inner, b"\0\0\0\0\0\0\0\x0d\0\0\0\0"),
        (Service, b"\0" + bytes(8)),
        (tuple[int, ...], b"\xff\xff" + bytes(8)),
        (bytes, b"\xff\xff\xff\xff"),
    ],
)
def test_a_second_spelling_and_what_no_value_has_are_refused(kind: object, content: bytes) -> None:
    with pytest.raises(HelperError):
        Codec[Any](b"X", kind).decode(b"X" + content)


def test_a_text_for_people_is_cut_between_two_characters_and_a_surrogate_becomes_a_question_mark() -> None:
    codec = Codec[str](b"X", Annotated[str, Cut(5)])
    for text, shown in {"abcdef": "abcde", "aé€": "aé", "\udcff": "?", "€€": "€"}.items():
        assert codec.decode(codec.encode(text)) == shown


def test_messages_of_one_channel_are_none_of_another() -> None:
    with pytest.raises(HelperError):
        Codec[int](b"A", int).decode(Codec[int](b"B", int).encode(1))


def test_the_bytes_of_a_union_do_not_hang_on_the_order_in_which_it_is_written() -> None:
    one, other = Codec[Any](b"X", Inner | Empty | None), Codec[Any](b"X", None | Empty | Inner)
    assert all(one.encode(value) == other.encode(value) for value in (Inner(1, ""), Empty(), None))


def test_a_message_is_bounded_both_ways() -> None:
    codec = Codec[bytes](b"X", bytes, 10)
    assert codec.decode(codec.encode(b"12345")) == b"12345"
    with pytest.raises(HelperError, match="11 bytes, more than 10"):
        codec.encode(b"123456")
    with pytest.raises(HelperError):
        codec.decode(Codec[bytes](b"X", bytes).encode(b"123456"))
