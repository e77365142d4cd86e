"""What may be restored of a table, and how its services are written."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import FirewallError
from doorward.firewall import ruleset
from doorward.values import Protocol, Service

services = st.builds(Service, st.sampled_from(Protocol), st.integers(1, 65535))


@st.composite
def listed_sets(draw: st.DrawFn) -> tuple[bool, str]:
    """Draw whether a set's elements expire, and the set as `nft -s list table` writes it."""
    timed = draw(st.booleans())
    flags = draw(st.permutations(["interval", "timeout"] if timed else ["interval", "constant"]))
    flags = flags if timed else flags[:1]
    ends = " timeout 30s" if timed else ""
    elements = [f"10.0.{draw(st.integers(0, 255))}.1{ends}" for _ in range(draw(st.integers(0, 6)))]
    separator = draw(st.sampled_from([",\n\t\t\t     ", ", "]))
    lines = [f"\t{draw(st.sampled_from(['set', 'map']))} s{draw(st.integers(0, 99))} {{", "\t\ttype ipv4_addr"]
    lines += [f"\t\tflags {','.join(flags)}", *draw(st.sampled_from([[], ["\t\tsize 65536"]]))]
    lines += [f"\t\telements = {{ {separator.join(elements)} }}"] if elements else []
    return timed, "\n".join([*lines, "\t}\n"])


@given(st.lists(listed_sets(), max_size=5))
def test_a_listing_keeps_every_fixed_element_and_loses_every_one_that_expires(sets: list[tuple[bool, str]]) -> None:
    listing = "table inet doorward {\n" + "\n".join(text for _, text in sets) + "}\n"
    normal = ruleset.normalised(listing)
    assert " timeout 30s" not in normal
    assert ruleset.normalised(normal) == normal
    assert normal.count("{") == normal.count("}")
    fixed = [text for timed, text in sets if not timed]
    assert all(text in normal for text in fixed)
    assert re.findall(r"10\.0\.\d+\.1", normal) == [
        found for text in fixed for found in re.findall(r"10\.0\.\d+\.1", text)
    ]
    ruleset.refuse_foreign(ruleset.restoration(listing))


@given(st.lists(services, max_size=8))
def test_a_guard_table_names_each_service_once_and_is_allowed(wanted: list[Service]) -> None:
    text = ruleset.guard(wanted)
    named = re.search(r"elements = \{ (.*?) \}", text)
    entries = named[1].split(", ") if named else []
    assert entries == [f"{service.protocol:d} . {service.port}" for service in sorted(set(wanted))]
    ruleset.refuse_foreign(ruleset.swap(text))


@given(st.lists(st.sampled_from(['"', "\n", "{", "}", ";", "#", "a", " ", "\\"]), max_size=12).map("".join))
def test_whatever_stands_in_a_quoted_text_hides_no_statement_behind_the_table(noise: str) -> None:
    quoted = noise.replace('"', "")
    text = f'table inet doorward {{ set a {{ type ipv4_addr; comment "{quoted}"; }}\n}}\n'
    ruleset.refuse_foreign(text)
    for foreign in ("flush ruleset", "delete table ip x", 'include "y"'):
        assert refused(f"{text}{foreign}\n")
        assert refused(f"{foreign}\n{text}")


def refused(text: str) -> bool:
    try:
        ruleset.refuse_foreign(text)
    except FirewallError:
        return True
    return False
