"""The warning of `doorwardd check` about a socket unit with another port."""

from __future__ import annotations

import pytest

from doorward.daemon import units

OURS = "RestrictAddressFamilies=AF_NETLINK AF_PACKET AF_UNIX\n"
LISTED = "Listen=0.0.0.0:62201 (Datagram)\nListen=[::]:62201 (Datagram)\n"


@pytest.mark.parametrize(
    ("families", "listed"),
    [
        (OURS, LISTED.replace("62201", "5000")),
        (OURS, ""),  # no such unit
        ("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n", LISTED),  # a drop-in lets the helper open its own
        ("RestrictAddressFamilies=~\n", LISTED),  # no restriction
        ("RestrictAddressFamilies=\n", LISTED),
    ],
)
def test_units_that_serve_the_port_are_no_reason_for_a_warning(families: str, listed: str) -> None:
    assert units.mismatch(5000, families, listed) == ()


def test_a_socket_unit_for_another_port_is_named_with_what_to_do() -> None:
    (said,) = units.mismatch(5000, OURS, LISTED)
    assert said.startswith("the UDP server's port is 5000, and doorward-udp.socket is for 62201: as a unit doorwardd")
    assert "systemctl edit doorward-udp.socket" in said


def test_without_a_server_nothing_is_asked() -> None:
    assert units.warnings(None) == ()
