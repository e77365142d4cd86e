from __future__ import annotations

import pytest

from doorward.errors import FirewallError
from doorward.firewall import ruleset
from doorward.values import Protocol, Service

SSH = Service(Protocol.TCP, 22)
DNS = Service(Protocol.UDP, 53)
TABLE = "table inet doorward { set a { type ipv4_addr; }; }\n"


@pytest.mark.parametrize(
    "text",
    [
        ruleset.observe(),
        ruleset.guard([SSH, DNS]),
        ruleset.guard([]),
        ruleset.swap(ruleset.observe()),
        f"#!/usr/sbin/nft -f\n# a comment; flush ruleset\n{TABLE}",
        f"define ours = {{ 192.0.2.0/24,\n 198.51.100.0/24 }}\n{TABLE}",
        f'define name = "table ip x {{ }}"; {TABLE}',
        f"add {TABLE}",
        "table inet doorward",
        "",
    ],
)
def test_a_text_that_defines_only_our_table_is_allowed(text: str) -> None:
    ruleset.refuse_foreign(text)


@pytest.mark.parametrize(
    "statement",
    [
        "flush ruleset",
        "table inet filter { }",
        "table ip doorward { }",
        "table doorward { }",
        "delete table inet filter",
        "destroy table inet filter",
        "add table inet x; delete table inet x",
        "flush table inet doorward",
        "add rule inet filter input accept",
        "table inet doorward2 { }",
        "table inet doorward x { }",
        'include "/etc/nftables.conf"',
        "include /etc/nftables.conf",
        "list ruleset",
        "reset counters",
        "define a = 1; flush ruleset",
        "table \\\n inet \\\n filter { }",
        "}; flush ruleset",
    ],
)
@pytest.mark.parametrize("place", ["{1}\n{0}", "{0}\n{1}", "{0}; {1}", "{0} # x\n{1}", "{0}\n\n{1} # x"])
def test_a_statement_beside_our_table_is_refused(statement: str, place: str) -> None:
    with pytest.raises(FirewallError, match=r"^line \d+: "):
        ruleset.refuse_foreign(place.format(TABLE.strip(), statement))


def test_an_include_inside_our_table_is_refused() -> None:
    with pytest.raises(FirewallError, match=r"^line 2: include"):
        ruleset.refuse_foreign('table inet doorward {\n include "/tmp/x"\n}\n')


def test_the_line_of_the_refused_statement_is_named() -> None:
    with pytest.raises(FirewallError, match=r"^line 6: 'flush ruleset'"):
        ruleset.refuse_foreign("# one\n\ntable inet doorward {\n\n}\nflush ruleset\n")


def test_a_swap_of_a_swap_is_the_same_swap() -> None:
    once = ruleset.swap(TABLE)
    assert once == f"add table inet doorward\ndelete table inet doorward\n{TABLE}"
    assert ruleset.swap(once) == once


def test_the_restoration_of_no_table_is_its_removal() -> None:
    assert ruleset.restoration("") == ruleset.REMOVE


def test_the_restoration_of_a_table_keeps_static_elements_and_no_live_grant() -> None:
    text = ruleset.restoration(LISTING)
    assert "10.0.0.0/8" in text
    assert "1.2.3." not in text
    assert "flush" not in text, "nft 1.1.3 dies of a set that one transaction defines with elements and flushes"


def test_services_are_written_as_numbers_once_and_in_order() -> None:
    assert "elements = { 6 . 22, 17 . 53 };" in ruleset.guard([DNS, SSH, DNS])
    assert "elements" not in ruleset.guard([])
    assert ruleset.regard([]) == "flush set inet doorward guarded\n"


LISTING = """\
table inet doorward {
        set open4 {
                type ipv4_addr . inet_proto . inet_service
                size 65536
                flags timeout
                elements = { 1.2.3.4 . tcp . 22 timeout 30s,
                             1.2.3.5 . tcp . 22 timeout 30s }
        }

        set fallback4 {
                type ipv4_addr
                flags interval
                elements = { 10.0.0.0/8,
                             192.168.0.0/16 }
        }

        set both {
                type ipv4_addr
                flags interval,timeout
                elements = { 10.0.0.0/8 timeout 1s }
        }

        chain input {
                type filter hook input priority filter; policy drop;
        }
}
"""


def test_a_normalised_listing_keeps_fixed_elements_and_loses_those_that_expire() -> None:
    normal = ruleset.normalised(LISTING)
    assert "10.0.0.0/8,\n                             192.168.0.0/16 }" in normal
    assert "timeout 30s" not in normal
    assert "timeout 1s" not in normal
    assert normal.count("{") == normal.count("}")
    assert ruleset.normalised(normal) == normal


@pytest.mark.parametrize("statement", ["flags dormant;", 'comment "x"; flags dormant;', "\n    flags owner\n"])
def test_flags_of_our_table_are_refused_and_those_of_a_set_are_not(statement: str) -> None:
    ruleset.refuse_foreign(f"table inet doorward {{ {ruleset.SETS} }}")
    with pytest.raises(FirewallError, match="can have no flags"):
        ruleset.refuse_foreign(f"table inet doorward {{ {statement} }}")


DORMANT = {
    "table inet doorward { set a { } }": "table inet it { flags dormant; set a { } }",
    "table inet doorward {}\ntable inet doorward {\n}": (
        "table inet it { flags dormant;}\ntable inet it { flags dormant;\n}\n"
    ),
    "add table inet doorward\ndelete table inet doorward\n": (
        "add table inet it { flags dormant; }\ndelete table inet it\n"
    ),
    "table inet doorward # {": "table inet it   { flags dormant; }\n",
    "add table\\\ninet doorward": "add table inet it { flags dormant; }\n",
    'table inet doorward { comment "table inet doorward {"; }': (
        'table inet it { flags dormant; comment "table inet doorward {"; }'
    ),
}


@pytest.mark.parametrize("text", DORMANT)
def test_the_copy_of_a_text_for_a_comparison_is_dormant_and_has_another_name(text: str) -> None:
    assert ruleset.dormant(text, "it").strip() == DORMANT[text].strip()


def test_the_table_of_a_host_that_root_opened_says_so_and_closes_nothing() -> None:
    assert f"chain {ruleset.STOPPED_CHAIN} {{ }}" in ruleset.stopped()
    assert "policy drop" not in ruleset.stopped()
