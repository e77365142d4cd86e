"""The table of the firewall role: what the kernel makes of it, and how tables are compared."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import jinja2
import pytest

from doorward.firewall import ruleset
from doorward.firewall.ruleset import Part
from unit.collection_plugins import COLLECTION, plugin

listing = plugin("plugin_utils._listing")

DEFAULTS: dict[str, Any] = {
    "doorward_firewall_mode": "drop",
    "doorward_fallback_sources": [],
    "doorward_public_services": [],
    "doorward_firewall_rules": [],
    "doorward_dhcpv6": True,
    "doorward_firewall_nat": False,
    "doorward_firewall_systems": False,
    "doorward_hidden_networks": [],
    "doorward_hidden_from": [],
    "firewall_services": ["tcp/22"],
}


def render(**variables: object) -> str:
    folder = COLLECTION / "roles" / "firewall" / "templates"
    # ansible's own settings of jinja
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), trim_blocks=True, autoescape=False)  # noqa: S701  nft, not HTML
    environment.filters["bool"] = bool  # ansible's own; the values here are no texts
    return environment.get_template("firewall.nft.j2").render(DEFAULTS | variables) + "\n"


def load(text: str) -> str:
    """Load a table into an empty network namespace of its own and return the kernel's listing."""
    command = "nft -f - && nft -s list table inet doorward"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", command], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"doorward_firewall_mode": "guard"},
        {"doorward_firewall_mode": "guard", "firewall_services": ["tcp/22", "udp/53", "tcp/22"]},
        {"doorward_fallback_sources": ["192.0.2.0/24", "192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "fd00::1"]},
        {"doorward_public_services": ["tcp/443", "udp/443", "tcp/80"]},
        {"doorward_firewall_rules": ["tcp dport 22 counter drop"], "doorward_dhcpv6": False},
        {"doorward_firewall_nat": True, "doorward_firewall_systems": True},
        {"doorward_firewall_nat": True, "doorward_firewall_mode": "guard", "doorward_hidden_networks": ["10.0.0.0/8"]},
        {"doorward_hidden_networks": ["10.0.0.0/8", "fd00::/8"], "doorward_hidden_from": ["eth0", "wg0"]},
        {"doorward_hidden_from": ["eth0"]},
        {"firewall_failure": True, "doorward_firewall_nat": True, "doorward_firewall_systems": True},
        {"firewall_failure": True},
        {"firewall_failure": True, "doorward_firewall_mode": "guard", "firewall_services": []},
    ],
)
def test_the_kernel_takes_every_table_and_the_host_commands_do(variables: dict[str, Any]) -> None:
    text = render(**variables)
    ruleset.refuse_foreign(text)
    shown = load(text)
    assert load(text + text) == shown  # the text replaces the table, whatever was there
    assert load(ruleset.restoration(shown)) == shown, "a roll-back restores a listing"


@pytest.mark.parametrize("variables", [{}, {"doorward_firewall_mode": "guard"}, {"firewall_failure": True}])
@pytest.mark.parametrize("parts", [(), (Part.NAT,), (Part.SYSTEMS,), (Part.WIDE,), (Part.NAT, Part.WIDE, Part.SYSTEMS)])
def test_every_table_has_the_same_sets_and_nat_chains(variables: dict[str, Any], parts: tuple[Part, ...]) -> None:
    wished = {"doorward_firewall_nat": Part.NAT in parts, "doorward_firewall_systems": Part.SYSTEMS in parts}
    wished["doorward_firewall_networks"] = Part.WIDE in parts
    texts = (render(**variables, **wished), ruleset.guard([], parts), ruleset.observe(parts))
    of_the_role, guard, observe = (pieces(load(text)) for text in texts)
    marking = observe.pop("chain observe").splitlines()
    closing, open_to_all = guard.pop("chain published").splitlines(), observe.pop("chain published").splitlines()
    assert [line for line in closing if "@guarded drop" not in line] == open_to_all
    assert set(open_to_all) <= set(of_the_role["chain published"].splitlines())
    named = {name: text for name, text in guard.items() if name.split()[1] not in {"guarded", "guard"}}
    assert observe == named
    assert {name: sorted(text.splitlines()) for name, text in of_the_role.items() if name in named} == {
        name: sorted(text.splitlines()) for name, text in named.items()
    }
    wanted = {name for part in (Part.GRANTS, Part.DESTINATION, *parts) for name in ruleset.SHAPES[part]}
    assert wanted <= {name.split()[1] for name in named}
    marks = ("@open", "@ghost", "@through", "osf")
    allowed = [line for line in guard["chain guard"].splitlines() if any(mark in line for mark in marks)]
    assert [line for line in marking if "@" in line] == allowed, "observing marks what grants let in, as closing does"
    its_own = of_the_role.get("chain guard") or of_the_role["chain input"]
    assert [line for line in its_own.splitlines() if line in allowed] == allowed


def pieces(shown: str) -> dict[str, str]:
    """Return the sets, maps and chains of a listing by kind and name."""
    found = re.findall(r"^\t((?:set|map|chain) \S+) \{\n(.*?)^\t\}", shown, re.MULTILINE | re.DOTALL)
    return dict(found)


def test_a_gateway_hides_what_is_behind_it_from_those_it_names() -> None:
    def drops(**variables: object) -> list[str]:
        chain = pieces(load(render(**variables))).get("chain forward", "")
        found = [line.strip() for line in chain.splitlines() if line.endswith("drop")]
        return [line for line in found if "@ended" not in line]

    assert drops() == []
    assert drops(doorward_firewall_nat=True) == []
    assert drops(doorward_hidden_networks=["10.0.0.0/8", "fd00::/8"]) == [
        "ip daddr 10.0.0.0/8 drop",
        "ip6 daddr fd00::/8 drop",
    ]
    assert drops(doorward_hidden_from=["eth0"]) == ['iifname "eth0" drop']
    assert drops(doorward_hidden_from=["eth0"], doorward_hidden_networks=["10.0.0.0/8"]) == [
        'iifname "eth0" ip daddr 10.0.0.0/8 drop'
    ]


def test_only_what_is_named_comes_in() -> None:
    shown = load(render(doorward_public_services=["tcp/443"]))
    assert "policy drop;" in shown
    accepts = [line.strip() for line in shown.splitlines() if line.endswith("accept")]
    unconditional = [line for line in accepts if line in {"accept", "ct state new accept"}]
    assert unconditional == []
    assert "meta l4proto . th dport @public accept" in accepts
    assert re.search(r"elements = \{ (tcp|\"tcp\") \. 443 \}", pieces(shown)["set public"])
    assert not any("echo-request" in line for line in accepts)


def test_a_live_grant_is_no_difference_and_a_fallback_source_is() -> None:
    text = render(doorward_fallback_sources=["192.0.2.7"])
    quiet = listing.without_grants(load(text))
    grant = "add element inet doorward open4 { 192.0.2.1 . tcp . 22 timeout 30s, 192.0.2.2 . tcp . 22 timeout 30s }\n"
    granted = load(text + grant)
    assert "192.0.2.1" in granted
    assert listing.without_grants(granted) == quiet
    assert quiet != listing.without_grants(load(render(doorward_fallback_sources=["192.0.2.8"])))


def test_what_a_static_set_holds_is_a_difference() -> None:
    tables = [f"table inet doorward {{ set s {{ type ipv4_addr; elements = {{ 192.0.2.{n} }}; }}\n}}" for n in (1, 2)]
    first, second = (listing.without_grants(load(table)) for table in tables)
    assert first != second
