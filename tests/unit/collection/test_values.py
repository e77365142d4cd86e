"""Values of the roles' variables that no host can be given: each is refused with its variable and its cause."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from unit.collection_plugins import COLLECTION, plugin

values = plugin("plugin_utils._values")

ALICE = "doorward1 h/yozOJfYSSFS2rMzgmR1+OYr9xOBcVsxPwCOUpLpGM="
KNOWN = frozenset({"doorward_services", "doorward_window", "doorward_psk"})
DEFAULTS = {
    name: value
    for file in COLLECTION.glob("roles/*/defaults/main.yml")
    for name, value in yaml.safe_load(file.read_text("utf-8")).items()
    if "{{" not in str(value)
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a protocol that is no protocol": (
        {"doorward_public_services": ["tpc/443"]},
        "doorward_public_services: 'tpc/443' is no service, which is tcp/PORT or udp/PORT: tcp/443?",
    ),
    "another protocol": ({"doorward_services": ["sctp/443"]}, "doorward_services: 'sctp/443' is no service"),
    "a port beyond the last": ({"doorward_services": ["tcp/65536"]}, "doorward_services: 'tcp/65536' is no service"),
    "a port of a number": ({"doorward_services": [22]}, "doorward_services: '22' is no service"),
    "the text of -e": (
        {"doorward_services": "tcp/22"},
        "doorward_services: 'tcp/22' is a text, and a list is needed, such as [tcp/22]; with -e write it as JSON",
    ),
    "a mapping for a list": ({"doorward_interfaces": {"eth0": 1}}, "doorward_interfaces: \"{'eth0': 1}\" is no list"),
    "a name for an interface": ({"doorward_interfaces": [0]}, "doorward_interfaces: '0' is no text"),
    "half of IPv4": (
        {"doorward_fallback_sources": ["128.0.0.0/2"]},
        "doorward_fallback_sources: '128.0.0.0/2' lets in a part of the Internet without a knock: the widest network",
    ),
    "all of IPv4": ({"doorward_fallback_sources": ["0.0.0.0/0"]}, "doorward_fallback_sources: '0.0.0.0/0' lets in"),
    "all of IPv6": ({"doorward_fallback_sources": ["2000::/3"]}, "doorward_fallback_sources: '2000::/3' lets in"),
    "a name for a network": (
        {"doorward_fallback_sources": ["gw.example.org"]},
        "doorward_fallback_sources: 'gw.example.org' is no address or network",
    ),
    "a typo in a network": ({"doorward_sources": ["192.0.2.0/33"]}, "doorward_sources: '192.0.2.0/33' is no address"),
    "fallback without sources": (
        {"doorward_failure_policy": "fallback", "doorward_fallback_sources": []},
        "doorward_failure_policy: fallback lets in doorward_fallback_sources, and there are none",
    ),
    "a window of nothing": ({"doorward_window": "0"}, "doorward_window: '0' is no number from 1 to 8388608"),
    "a port of words": ({"doorward_port": "http"}, "doorward_port: 'http' is no number from 1 to 65535"),
    "an age of a day and more": ({"doorward_max_age": 100_001}, "doorward_max_age: '100001' is no number"),
    "a Python without its folder": (
        {"doorward_python": "python3"},
        "doorward_python: 'python3' is no path of a program",
    ),
    "a Python of two words": ({"doorward_python": "/x -I"}, "doorward_python: '/x -I' is no path of a program"),
    "options of a text": ({"doorward_options": "VERBOSE 1"}, "doorward_options: 'VERBOSE 1' is no mapping"),
    "a client twice": (
        {"doorward_clients": [{"name": "a"}, {"name": "b"}, {"name": "a"}]},
        "doorward_clients: a is there twice: give each client a name of its own",
    ),
    "a key twice": (
        {"doorward_clients": [{"name": "a", "public_key": f"{ALICE} a@x"}, {"name": "b", "public_key": ALICE}]},
        "doorward_clients: b: it has the public_key of a: give each client a key pair of its own",
    ),
    "a key that was cut": (
        {"doorward_clients": [{"name": "a", "public_key": ALICE[:-4]}]},
        f"doorward_clients: a: public_key: '{ALICE[:-4]}' is no public key",
    ),
    "a key with bits to spare": (
        {"doorward_clients": [{"name": "a", "public_key": ALICE.replace("GM=", "GN=")}]},
        "doorward_clients: a: public_key: the public key is not base64, or was cut",
    ),
    "the private half": (
        {"doorward_clients": [{"name": "a", "public_key": ALICE.replace("doorward1", "doorward1-private")}]},
        "doorward_clients: a: public_key: this text is no public key: doorward1 BASE64 NAME, as `doorward keys show`",
    ),
    "a client without a name": ({"doorward_clients": [{"public_key": ALICE}]}, "doorward_clients: '' is no name"),
    "a name of two words": ({"doorward_clients": [{"name": "a b"}]}, "doorward_clients: 'a b' is no name"),
    "clients of a text": ({"doorward_clients": "alice"}, "doorward_clients: 'alice' is no list of clients"),
    "a client of a text": ({"doorward_clients": ["alice"]}, "doorward_clients: \"['alice']\" is no list of clients"),
    "a client's service": (
        {"doorward_clients": [{"name": "a", "services": ["ucp/53"]}]},
        "doorward_clients: a: services: 'ucp/53' is no service, which is tcp/PORT or udp/PORT: tcp/53?",
    ),
    "a client's services as text": (
        {"doorward_clients": [{"name": "a", "services": "tcp/22"}]},
        "doorward_clients: a: services: 'tcp/22' is a text",
    ),
    "a range the wrong way round": (
        {"doorward_clients": [{"name": "a", "services": ["udp/60010-60000"]}]},
        "doorward_clients: a: services: 'udp/60010-60000' is no range of at most 1024 ports, the lower one first",
    ),
    "a service twice": ({"doorward_services": ["tcp/22", "tcp/22"]}, "doorward_services: 'tcp/22' is there twice"),
    "a range for the table": ({"doorward_services": ["udp/1-2"]}, "doorward_services: 'udp/1-2' is no service"),
    "a day that is none": (
        {"doorward_clients": [{"name": "a", "expires": "13/45/2030"}]},
        "doorward_clients: a: expires: '13/45/2030' is no day, which is MM/DD/YYYY",
    ),
    "a misspelt name": (
        {"doorward_servcies": []},
        "doorward_servcies: no role reads a variable of this name, and doorward_services is nearly the same",
    ),
    "a letter too few": ({"doorward_windo": 1}, "doorward_windo: no role reads a variable of this name"),
}
TAKEN: dict[str, dict[str, Any]] = {
    "the defaults": DEFAULTS,
    "numbers as texts": {"doorward_window": "60", "doorward_port": "62201", "doorward_firewall_deadline": "0"},
    "networks": {"doorward_fallback_sources": ["10.0.0.0/8", "192.0.2.7", "fc00::/7", "2001:db8::/32", "fe80::1"]},
    "anywhere": {"doorward_sources": ["ANY", "192.0.2.0/255.255.255.0"]},
    "fallback with sources": {"doorward_failure_policy": "fallback", "doorward_fallback_sources": ["192.0.2.7"]},
    "clients": {
        "doorward_clients": [
            {"name": "a", "public_key": f"{ALICE} a@x", "services": ["udp/53"], "expires": "1/2/30", "window": "60"},
            {"name": "b", "format": "fwknop", "sources": ["ANY"], "services": ["tcp/22", "udp/60000-60010"]},
        ]
    },
    "names of the inventory's own": {
        "doorward_services_web": [],
        "doorward_services_x": [],
        "doorward_site": 1,
        "my_servcies": 1,
    },
}


def sentences(variables: dict[str, Any]) -> list[str]:
    return [f"{one.variable}: {one.cause}" for one in values.problems(variables, KNOWN | set(DEFAULTS))]


@pytest.mark.parametrize("case", REFUSED)
def test_a_value_that_no_host_can_be_given_is_refused_with_its_cause(case: str) -> None:
    variables, expected = REFUSED[case]
    (said,) = sentences(variables)
    assert said.startswith(expected)


@pytest.mark.parametrize("case", TAKEN)
def test_a_value_that_a_host_can_be_given_is_taken(case: str) -> None:
    assert sentences(TAKEN[case]) == []


def test_a_private_half_is_not_repeated() -> None:
    (said,) = sentences(REFUSED["the private half"][0])
    assert ALICE.split()[1] not in said


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert (
        len(sentences({"doorward_servcies": [], "doorward_services": ["tpc/1", "tcp/2", "x"], "doorward_port": 0})) == 4
    )


@pytest.mark.parametrize(
    ("word", "meant"),
    [("tpc", "tcp"), ("tc", "tcp"), ("ttcp", "tcp"), ("udo", "udp"), ("upd", "udp"), ("sctpx", ""), ("", "")],
)
def test_a_word_is_near_another_one_that_two_letters_make_of_it(word: str, meant: str) -> None:
    assert values.near(word, ("tcp", "udp")) == (meant if word else "")
