"""The pytest plugin: options that name hidden hosts, and the fixture `hidden_host`, once for each of them."""

from __future__ import annotations

import shlex
from typing import Final

import pytest

# What it takes is loaded by the fixture alone: pytest loads this file in every project of an environment.
_LACKING: Final = (
    "no hidden host is named: give --hidden-host=HOST[:PORT], or a fixture hidden_host of your own that returns a "
    "doorward_pytest.HiddenHost"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("doorward", "hidden hosts (doorward)")
    group.addoption(
        "--hidden-host", action="append", default=[], metavar="HOST[:PORT]", help="host of the fixture hidden_host"
    )
    group.addoption(
        "--hidden-host-profile", default="", metavar="FILE[#STANZA]", help=".fwknoprc file; {host} is the host's name"
    )
    group.addoption("--hidden-host-knock-port", type=int, default=62201, metavar="PORT", help="UDP port of knocks")
    group.addoption(
        "--hidden-host-outsider", default="", metavar="WORDS", help="what runs a command at a place that never knocks"
    )
    group.addoption(
        "--hidden-host-witness", default="", metavar="HOST:PORT", help="what has to be seen from there, as a control"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of hidden_host once for each host of the options."""
    named = metafunc.config.getoption("--hidden-host")
    if named and "hidden_host" in metafunc.fixturenames:
        metafunc.parametrize("hidden_host", named, indirect=True)


@pytest.fixture
def hidden_host(request: pytest.FixtureRequest) -> object:
    """A `doorward_pytest.HiddenHost` that --hidden-host names."""
    from doorward_pytest import HiddenHost  # noqa: PLC0415  see above

    option = request.config.getoption
    named = getattr(request, "param", None)
    if named is None:
        pytest.fail(_LACKING)
    host, port = _place(named, 22)
    witness = option("--hidden-host-witness")
    return HiddenHost(
        host,
        port,
        option("--hidden-host-profile").replace("{host}", host),
        option("--hidden-host-knock-port"),
        tuple(shlex.split(option("--hidden-host-outsider"))),
        _place(witness, 22) if witness else None,
    )


def _place(text: str, usual: int) -> tuple[str, int]:
    """The host and port of `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `IPV6`.

    Raises:
        pytest.UsageError: the port is no number.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return text.strip("[]"), usual
    if not port.isdecimal():
        msg = f"{text!r} is not HOST:PORT"
        raise pytest.UsageError(msg)
    return host.strip("[]"), int(port)
