"""Every parser under any bytes, and under good input that was cut, changed, doubled or mixed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.targets import TARGETS


@st.composite
def changed(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Draw a seed with a piece taken out and another put in."""
    seed = draw(st.sampled_from(seeds))
    start = draw(st.integers(0, len(seed)))
    end = draw(st.integers(start, min(len(seed), start + 8)))
    return seed[:start] + draw(st.binary(max_size=8)) + seed[end:]


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_a_parser_keeps_its_promise_under_any_bytes(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    target.run(data.draw(st.binary(max_size=400) | changed(target.seeds)))


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_keeps_its_promise_under_a_seed_cut_at_every_byte(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds[:2]:
        for length in range(min(len(seed), 300) + 1):
            target.run(seed[:length])
            target.run(seed[length:] if length else b"")
