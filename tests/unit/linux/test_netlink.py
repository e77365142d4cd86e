"""The words of netlink, and who speaks it."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

import doorward
from doorward.errors import FirewallError
from doorward.linux import netlink

PACKAGE = Path(doorward.__file__).parent


def test_attributes_are_read_as_they_were_written() -> None:
    written = netlink.text(1, "doorward") + netlink.attribute(2 | netlink.NESTED, netlink.attribute(5, b"\1\2\3"))
    assert len(written) % 4 == 0
    read = dict(netlink.attributes(written))
    assert read[1] == b"doorward\0"
    assert dict(netlink.attributes(read[2])) == {5: b"\1\2\3"}


@pytest.mark.parametrize("cut", range(16))
def test_attributes_that_are_cut_off_end_the_reading(cut: int) -> None:
    written = netlink.text(1, "name") + netlink.attribute(2, b"\1\2\3\4")
    assert dict(netlink.attributes(written[:cut])).keys() <= {1, 2}
    assert list(netlink.attributes(struct.pack("=HH", 2, 1) * 3)) == []


def test_a_kernel_without_nf_tables_is_named_with_its_remedy() -> None:
    with pytest.raises(FirewallError, match="no nf_tables: load the module"):
        netlink._opened(31)  # noqa: SLF001  a protocol that no kernel has


def test_nothing_but_linux_names_netlink_sockets() -> None:
    naming = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "AF_NETLINK" in path.read_text() or "NETLINK_" in path.read_text()
    }
    telling_apart = {"capture/inherited.py"}  # what the helper hands over; it opens none
    assert naming == {"linux/netlink.py", "linux/netfilter_log.py"} | telling_apart
    assert socket.AF_NETLINK
