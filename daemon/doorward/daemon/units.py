"""What the units of systemd on this host say of the UDP server: `doorwardd check` compares it with the settings."""

from __future__ import annotations

from typing import Final

from doorward.errors import FirewallError
from doorward.firewall import tools
from doorward.helper import handed

_HELPER: Final = "doorward-helper.service"
_SECONDS: Final = 10.0
_SHOW: Final = ("systemctl", "show", "--property")


def warnings(port: int | None) -> tuple[str, ...]:
    """Why knocks to a UDP server on this port are captured instead where systemd starts doorwardd."""
    if port is None:
        return ()
    try:
        families = tools.run([*_SHOW, "RestrictAddressFamilies", _HELPER], _SECONDS)
        listed = tools.run([*_SHOW, "Listen", handed.UNIT], _SECONDS)
    except FirewallError:  # no systemd
        return ()
    return mismatch(port, families, listed)


def mismatch(port: int, families: str, listed: str) -> tuple[str, ...]:
    """The same by the words of systemctl: the families of the helper's sockets, and where our socket unit listens.

    Both are empty where a unit is not there.
    """
    ports = [line.rpartition(":")[2].split()[0] for line in listed.splitlines() if line.startswith("Listen=")]
    restricted = families.startswith("RestrictAddressFamilies=AF_")
    if not ports or str(port) in ports or not restricted or "AF_INET" in families.partition("=")[2].split():
        return ()
    said = f"the UDP server's port is {port}, and {handed.UNIT} is for {', '.join(dict.fromkeys(ports))}"
    remedy = f"systemctl edit {handed.UNIT}; systemctl stop {handed.UNIT}; systemctl restart doorwardd"
    return (f"{said}: as a unit doorwardd captures knocks passively ({remedy})",)
