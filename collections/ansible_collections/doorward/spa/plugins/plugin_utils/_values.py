# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of the roles' variables that no host can be given, each with its cause; standard library only."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.doorward.spa.plugins.plugin_utils import _key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Check = Callable[[object], Iterator[str]]

PREFIX = "doorward_"
_TYPOS = 2  # letters by which a misspelt name differs; a name of the inventory's own differs by more
_SERVICE = re.compile(r"(?:tcp|udp)/(\d{1,5})", re.ASCII)
_RANGE = re.compile(r"(?:tcp|udp)/(\d{1,5})-(\d{1,5})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.@:+%\[\]-]+", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9_.+-]+)+", re.ASCII)  # as units and shell scripts take it unquoted
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})", re.ASCII)
_PORT_MAX = 65535
_RANGE_MAX = 1024  # services of a stanza
_WINDOW_MAX = 8_388_608  # seconds, of fwknop and of doorwardd
_AGE_MAX = 100_000  # seconds, of fwknop and of doorwardd
_DEADLINE_MAX = 86_400  # seconds
_WIDEST = {4: 8, 6: 16}  # prefixes; what is wider is no site's network
_PRIVATE = ipaddress.ip_network("fc00::/7")


class Problem(NamedTuple):
    """A variable, or the keyword or option that stands for one, and what is wrong with it."""

    variable: str
    cause: str


def problems(variables: Mapping[str, object], known: Iterable[str]) -> Iterator[Problem]:
    """Yield what is wrong with the values of variables, and with names that are nearly those of `known` variables."""
    yield from _misspelt(variables, frozenset(known))
    for name, check in _CHECKS.items():
        if name in variables:
            yield from (Problem(name, cause) for cause in check(variables[name]))
    if variables.get("doorward_failure_policy") == "fallback" and not variables.get("doorward_fallback_sources"):
        cause = "fallback lets in doorward_fallback_sources, and there are none"
        yield Problem("doorward_failure_policy", cause)


def near(word: str, known: Iterable[str]) -> str:
    """Return the known word that another one is probably meant to be; empty where there is none."""
    return min(
        (each for each in known if _distance(word, each) <= _TYPOS), key=lambda each: _distance(word, each), default=""
    )


def _misspelt(variables: Mapping[str, object], known: frozenset[str]) -> Iterator[Problem]:
    for name in sorted(set(variables) - known):
        is_part = any(name.startswith(f"{each}_") for each in known)  # of a value that the lookup merged makes
        meant = near(name, known) if name.startswith(PREFIX) and not is_part else ""
        if meant:
            yield Problem(name, f"no role reads a variable of this name, and {meant} is nearly the same: correct it")


def _distance(one: str, other: str) -> int:
    """Return how many letters differ: left out, put in, changed, or two swapped; beyond _TYPOS some larger number."""
    if abs(len(one) - len(other)) > _TYPOS:
        return _TYPOS + 1
    before, row = [], list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        older, before, row = before, row, [i]
        for j, against in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != against))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == against:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _listed(value: object, example: str) -> Iterator[str]:
    """Yield what keeps a value from being a list of texts; `-e name=a` and an INI inventory bring a text."""
    if isinstance(value, str):
        yield f"{value[:60]!r} is a text, and a list is needed, such as [{example}]; with -e write it as JSON"
    elif not isinstance(value, (list, tuple)):
        yield f"{str(value)[:60]!r} is no list, such as [{example}]"


def _each(check: Check, example: str) -> Check:
    """Return the check of a list whose items pass another one."""

    def checked(value: object) -> Iterator[str]:
        wrong = list(_listed(value, example))
        yield from wrong
        for item in () if wrong else value:
            yield from check(item)

    return checked


def _text(value: object) -> Iterator[str]:
    if not isinstance(value, str) or not value:
        yield f"{str(value)[:60]!r} is no text"


def service(value: object) -> Iterator[str]:
    """Yield what keeps a value from being a service, with the one that was probably meant."""
    match = _SERVICE.fullmatch(str(value))
    if match and 1 <= int(match[1]) <= _PORT_MAX:
        return
    protocol, _slash, port = str(value)[:40].partition("/")
    meant = near(protocol, ("tcp", "udp")) if not match and _SERVICE.fullmatch(f"tcp/{port}") else ""
    yield f"{str(value)[:40]!r} is no service, which is tcp/PORT or udp/PORT" + (f": {meant}/{port}?" if meant else "")


def _services(check: Check) -> Check:
    """Return the check of a list of services, none of them twice: access.conf takes none twice."""
    listed = _each(check, "tcp/22")

    def checked(value: object) -> Iterator[str]:
        wrong = list(listed(value))
        yield from wrong
        yield from (
            () if wrong else (f"{one!r} is there twice" for one in sorted({x for x in value if value.count(x) > 1}))
        )

    return checked


def _program(value: object) -> Iterator[str]:
    if not _PATH.fullmatch(str(value)):
        yield f"{str(value)[:60]!r} is no path of a program, such as /usr/bin/python3.11"


def _service_or_range(value: object) -> Iterator[str]:
    """Yield what keeps a value from being a service, or a range of ports as OPEN_PORTS takes it."""
    match = _RANGE.fullmatch(str(value))
    if match is None:
        yield from service(value)
    elif not 1 <= int(match[1]) < int(match[2]) <= _PORT_MAX or int(match[2]) - int(match[1]) >= _RANGE_MAX:
        yield f"{str(value)!r} is no range of at most {_RANGE_MAX} ports, the lower one first"


def _number(least: int, most: int) -> Check:
    def checked(value: object) -> Iterator[str]:
        if not re.fullmatch(r"\d{1,9}", str(value), re.ASCII) or not least <= int(str(value)) <= most:
            yield f"{str(value)[:40]!r} is no number from {least} to {most}"

    return checked


def _network(value: object) -> Iterator[str]:
    try:
        ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        yield f"{str(value)[:60]!r} is no address or network, such as 192.0.2.0/24"


def _source(value: object) -> Iterator[str]:
    if str(value).upper() != "ANY":
        yield from _network(value)


def _let_in(value: object) -> Iterator[str]:
    """Yield what keeps a network from being let in without a knock."""
    wrong = list(_network(value))
    yield from wrong
    network = None if wrong else ipaddress.ip_network(str(value), strict=False)
    if network is None or (network.version == _PRIVATE.version and network.subnet_of(_PRIVATE)):
        return
    if network.prefixlen < _WIDEST[network.version]:
        yield (
            f"{str(value)!r} lets in a part of the Internet without a knock: the widest network is a "
            f"/{_WIDEST[network.version]}; services for everybody stand in doorward_public_services"
        )


def _mapping(value: object) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{str(value)[:60]!r} is no mapping of names to values; with -e write it as JSON"


def _expires(value: object) -> Iterator[str]:
    match = _DATE.fullmatch(str(value))
    try:
        month, day, year = map(int, match.groups()) if match else (0, 0, 0)
        dt.date(year + (2000 if year < 100 else 0), month, day)  # noqa: PLR2004  two digits
    except ValueError:
        yield f"{str(value)[:40]!r} is no day, which is MM/DD/YYYY"


_OF_A_CLIENT: dict[str, Check] = {
    "services": _services(_service_or_range),
    "sources": _each(_source, "192.0.2.0/24"),
    "window": _number(1, _WINDOW_MAX),
    "expires": _expires,
}


def name(value: str) -> Iterator[str]:
    """Yield what keeps a value from being a client's name."""
    if not _NAME.fullmatch(value):
        yield f"{value[:60]!r} is no name, which is letters, digits and _.@:+%[]-"


def rights(client: Mapping) -> Iterator[str]:
    """Yield what is wrong with what a client may: services, sources, window and the day of its end."""
    for option, check in _OF_A_CLIENT.items():
        if client.get(option) is not None:
            yield from (f"{option}: {cause}" for cause in check(client[option]))


def _clients(value: object) -> Iterator[str]:
    """Yield what is wrong with the clients of a host."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, dict) for each in value):
        yield f"{str(value)[:60]!r} is no list of clients, such as [{{name: controller}}]; with -e write it as JSON"
        return
    names: set[str] = set()
    keys: dict[str, str] = {}
    for client in value:
        called = str(client.get("name") or "")
        wrong = list(name(called))
        yield from wrong
        if called in names and not wrong:
            yield f"{called} is there twice: give each client a name of its own"
        names.add(called)
        yield from (f"{called}: {cause}" for cause in _of_a_client(client, called, keys))


def _of_a_client(client: dict, name: str, keys: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with one client; `keys` are the public keys so far, with their clients."""
    yield from rights(client)
    if not client.get("public_key"):
        return
    try:
        key = _key_text.public(str(client["public_key"])).split()[1]
    except _key_text.KeyTextError as error:
        yield f"public_key: {error}"
        return
    if key in keys:
        yield f"it has the public_key of {keys[key]}: give each client a key pair of its own"
    keys.setdefault(key, name)


_CHECKS: dict[str, Check] = {
    "doorward_clients": _clients,
    "doorward_services": _services(service),
    "doorward_public_services": _each(service, "tcp/443"),
    "doorward_sources": _each(_source, "192.0.2.0/24"),
    "doorward_fallback_sources": _each(_let_in, "192.0.2.0/24"),
    "doorward_hidden_networks": _each(_network, "10.0.0.0/8"),
    "doorward_hidden_from": _each(_text, "eth0"),
    "doorward_interfaces": _each(_text, "eth0"),
    "doorward_firewall_rules": _each(_text, '"tcp dport 80 accept"'),
    "doorward_python": _program,
    "doorward_options": _mapping,
    "doorward_port": _number(1, _PORT_MAX),
    "doorward_window": _number(1, _WINDOW_MAX),
    "doorward_max_age": _number(1, _AGE_MAX),
    "doorward_change_deadline": _number(0, _DEADLINE_MAX),
    "doorward_firewall_deadline": _number(0, _DEADLINE_MAX),
}
CHECKED = (*_CHECKS, "doorward_failure_policy")
