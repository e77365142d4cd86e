"""What the lab is made of: the hosts, their addresses and where everything is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STATE = REPOSITORY / ".lab"
"""Keys, passwords and pinned host keys of the running lab: what the inventory reads."""

STORE = Path(os.environ.get("DOORWARD_LAB_STORE", "/var/lib/doorward-lab"))
"""Images and containers, apart from the storage of the machine's own podman."""

RUN = Path("/run/doorward-lab")

# RFC 5737 and RFC 3849: addresses that no real network uses, so the lab hides none.
IPV4_NETWORK = "198.51.100.{}/24"
IPV6_NETWORK = "2001:db8:d00::{:x}/64"

NETWORK = "doorward-lab"
"""The network namespace that holds the bridge: the machine's own firewall does not see its frames."""

CONTROLLER_LINK = "doorward0"
CONTROLLER = 1
OUTSIDER = "doorward-outsider"
OUTSIDER_ADDRESS = 66
WITNESS = "doorward-witness"
"""A place that answers everything: every scan that finds nothing elsewhere must find all of it there."""
WITNESS_ADDRESS = 67

RELEASES = {"debian-12": "bookworm", "debian-13": "trixie"}


@dataclass(frozen=True, slots=True)
class Address:
    """One place on the lab's network, in both families."""

    number: int

    @property
    def ipv4(self) -> str:
        """The IPv4 address as text."""
        return self.ipv4_interface.partition("/")[0]

    @property
    def ipv6(self) -> str:
        """The IPv6 address as text."""
        return self.ipv6_interface.partition("/")[0]

    @property
    def hardware(self) -> str:
        """The link-layer address, locally administered."""
        return f"02:d0:0d:00:00:{self.number:02x}"

    @property
    def ipv4_interface(self) -> str:
        """The IPv4 address with its prefix length."""
        return IPV4_NETWORK.format(self.number)

    @property
    def ipv6_interface(self) -> str:
        """The IPv6 address with its prefix length."""
        return IPV6_NETWORK.format(self.number)


@dataclass(frozen=True, slots=True)
class Host:
    """One system container: which system it runs and how its owner reaches it."""

    name: str
    system: str
    number: int
    user: str = "root"
    ssh_port: int = 22
    socket_activated: bool = False
    by_ipv6: bool = False

    @property
    def address(self) -> Address:
        """Where the host is on the lab's network."""
        return Address(self.number)

    @property
    def way_in(self) -> str:
        """The address by which its owner reaches it."""
        return self.address.ipv6 if self.by_ipv6 else self.address.ipv4

    @property
    def container(self) -> str:
        """The name of its container."""
        return f"doorward-lab-{self.name}"

    @property
    def password_file(self) -> Path:
        """Where the sudo password of its user is kept; root has none."""
        return STATE / f"{self.name}.sudo"


HOSTS = {
    host.name: host
    for host in (
        Host("web", "debian-12", 10),
        Host("db", "debian-13", 20, user="ops", ssh_port=2222, socket_activated=True),
        Host("molecule-12", "debian-12", 30),
        Host("molecule-13", "debian-13", 31, user="ops", ssh_port=2222, socket_activated=True, by_ipv6=True),
        Host("trial-12", "debian-12", 40),
        Host("trial-13", "debian-13", 41, user="ops", ssh_port=2222, socket_activated=True),
        Host("change-12", "debian-12", 50),
        Host("change-13", "debian-13", 51, user="ops", ssh_port=2222, socket_activated=True),
    )
}
DEMO = ("web", "db")
