"""The Debian packages on a fresh Debian 12 and 13 with systemd, from the installation to the purge.

`make fresh-deb` runs it (root). The two machines are joined by a cable: one is the host, the other one its client, and
then the other way round. They reach nothing else: what the packages depend on comes from a folder of the image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

import doorward
from doorward.host import service
from fresh.machines import NEXT, NUMBERS, Machine, listen_for_ssh, sshd_began_closed, started
from lab.run import attempt, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCESS: Final = "SOURCE ANY\nNAME client\n{keys}OPEN_PORTS tcp/22\nREQUIRE_SOURCE_ADDRESS Y\nMAX_FW_TIMEOUT 3600\n"
RC: Final = "[host]\nSPA_SERVER {address}\nACCESS tcp/22\nALLOW_IP auto\n{keys}"
STATE: Final = ("/etc/doorward", "/var/lib/doorward", "/var/lib/doorward-exec", "/var/cache/doorward", "/run/doorward")


def join(machines: dict[str, Machine]) -> None:
    """Put the cable between both."""
    processes = {each: each.process() for each in machines.values()}
    for process in processes.values():
        attempt("nsenter", "--target", process, "--net", "ip", "link", "delete", "eth0")
    first, second = processes.values()
    run("ip", "link", "add", "doorwarddeb", "type", "veth", "peer", "name", "eth0", "netns", second)
    run("ip", "link", "set", "doorwarddeb", "netns", first, "name", "eth0")
    for machine, process in processes.items():
        inside = ("nsenter", "--target", process, "--net", "ip")
        run(*inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, Machine]]:
    names = {system: f"doorward-deb-{number}" for system, number in NUMBERS.items()}
    made = {each: Machine(each, f"198.18.5.{NUMBERS[each]}", name, name) for each, name in names.items()}
    with started(*made.values()):
        join(made)
        yield made


@dataclass(frozen=True)
class Pair:
    """A host that hides its sshd, and a client that may knock; both have the packages. `said` is what apt said."""

    host: Machine
    client: Machine
    said: str

    def dial(self) -> str:
        return self.client.dial(self.host.address)

    def knock(self, seconds: int = 30) -> None:
        """Knock from the client, and wait until the host shows the grant."""
        self.client(f"doorward -n host -f {seconds}")
        self.host(f"until doorward status | grep -q 'open: {self.client.address} tcp/22'; do sleep 0.05; done")


@pytest.fixture(scope="module", params=NUMBERS)
def pair(request: pytest.FixtureRequest, machines: dict[str, Machine], packages: dict[str, Path]) -> Pair:
    host = machines[request.param]
    (client,) = (each for each in machines.values() if each is not host)
    for each in machines.values():
        each("dpkg --purge doorward-daemon doorward 2>&1; rm -rf /root/.fwknoprc")
    listen_for_ssh(host)
    said = host.install(packages[doorward.__version__])
    client.install(packages[doorward.__version__])
    return Pair(host, client, said)


def configure(pair: Pair) -> None:
    keys = pair.host("doorward keys generate")
    pair.host("umask 077; cat > /etc/doorward/access.conf", ACCESS.format(keys=keys))
    pair.client("umask 077; cat > /root/.fwknoprc", RC.format(keys=keys, address=pair.host.address))


def test_installing_closes_nothing_and_says_what_comes_next(pair: Pair) -> None:
    assert pair.dial() == "open"
    assert "nothing is closed. Write /etc/doorward/access.conf" in pair.said
    assert pair.host("nft list tables") == ""
    assert pair.host("systemctl is-active doorwardd || :").strip() == "inactive"
    assert pair.host("systemctl is-enabled doorwardd || :").strip() == "disabled"
    assert pair.host("getent passwd doorward").rstrip().endswith(":/nonexistent:/usr/sbin/nologin")
    assert pair.host("doorwardd -V").split() == ["doorwardd", doorward.__version__]


def test_a_knock_from_the_installed_client_opens_the_installed_host(pair: Pair) -> None:
    configure(pair)
    assert "1 stanzas" in pair.host("doorwardd check")
    pair.host("systemctl enable --now doorwardd 2>&1")
    assert pair.dial() == "silence"
    pair.knock()
    assert pair.dial() == "open"
    pair.host("doorward close")
    assert pair.dial() == "silence"
    banner = pair.client(f"sleep 2 | doorward connect -n host {pair.host.address} 22")
    assert banner.startswith("SSH-2.0-OpenSSH")
    assert pair.host("ps -o user= -p $(systemctl show --value -p MainPID doorwardd)").strip() == "doorward"


def test_an_upgrade_restarts_the_daemon_and_keeps_live_grants(pair: Pair, packages: dict[str, Path]) -> None:
    pair.host("doorward close")
    pair.knock(seconds=900)
    before = pair.host.pid()
    pair.host.install(packages[NEXT])
    assert pair.host("dpkg-query -W -f '${Version}' doorward-daemon") == NEXT
    assert pair.host.pid() not in ("0", before)
    assert pair.dial() == "open"
    assert re.search(rf"open: {pair.client.address} tcp/22 for 8\d\d s", pair.host("doorward status"))
    pair.host("doorward close")
    assert pair.dial() == "silence", "the grant was what let the client in"


def test_an_upgrade_that_would_not_start_leaves_the_running_daemon_alone(pair: Pair) -> None:
    pair.host("cp -p /etc/doorward/access.conf /root/; echo NONSENSE 1 >> /etc/doorward/access.conf")
    before = pair.host.pid()
    said = pair.host.fails("dpkg -i /root/new/*.deb")
    assert "access.conf:8: unknown name 'NONSENSE'" in said
    assert "doorwardd was not restarted" in said
    assert pair.host.pid() == before
    pair.knock()
    assert pair.dial() == "open"
    pair.host("doorward close; cp -p /root/access.conf /etc/doorward/")
    pair.host("dpkg --configure -a 2>&1")
    assert pair.host.pid() != before


def test_after_a_reboot_the_host_is_closed_and_opens_to_a_knock(pair: Pair, machines: dict[str, Machine]) -> None:
    pair.host.stop()
    pair.host.start()
    join(machines)
    pair.host("until systemctl -q is-active doorwardd; do sleep 0.1; done")
    assert pair.dial() == "silence"
    assert sshd_began_closed(pair.host)
    pair.knock()
    assert pair.dial() == "open"


def test_a_removed_daemon_opens_the_host_and_keeps_its_files(pair: Pair) -> None:
    pair.host("doorward close")
    assert pair.dial() == "silence"
    said = pair.host("apt-get -qy remove doorward-daemon 2>&1")
    assert "doorward-daemon: THE HOST IS OPEN" in said
    assert pair.dial() == "open"
    assert pair.host("nft list tables") == ""
    pair.host("test -s /etc/doorward/access.conf; test -s /var/lib/doorward/replay.db")
    assert pair.host("ps ax | grep -c '[d]oorward.pyz' || :").strip() == "0"


def test_an_installation_after_it_finds_its_files_and_a_purge_leaves_nothing_and_the_host_open(
    pair: Pair, packages: dict[str, Path]
) -> None:
    pair.host.install(packages[NEXT])
    pair.host("systemctl start doorwardd; doorward close")
    assert pair.dial() == "silence"
    pair.knock()
    assert pair.dial() == "open"
    said = pair.host("doorward close; apt-get -qy purge doorward-daemon doorward 2>&1")
    assert "THE HOST IS OPEN" in said
    assert pair.dial() == "open"
    for path in STATE:
        pair.host(f"test ! -e {path}")
    assert pair.host("find /etc /lib/systemd /usr /var/lib/systemd -xdev -name '*doorward*'") == ""
    assert pair.host("systemctl list-units --plain --no-legend 'doorward*'") == ""


def test_a_table_that_cannot_be_removed_keeps_the_package_and_its_daemon(pair: Pair, packages: dict[str, Path]) -> None:
    pair.host.install(packages[NEXT])
    configure(pair)
    pair.host("systemctl start doorwardd")
    assert pair.dial() == "silence"
    pair.host("mount --bind /bin/false /usr/sbin/nft; mount --bind /bin/false /usr/bin/doorward")
    said = pair.host.fails("apt-get -qy remove doorward-daemon")
    pair.host("umount /usr/sbin/nft /usr/bin/doorward")
    assert "cannot be removed, so the package stays" in said
    assert pair.host("dpkg-query -W -f '${db:Status-Status}' doorward-daemon") == "installed"
    assert pair.dial() == "silence"
    pair.knock()
    assert pair.dial() == "open"


def test_the_unit_for_a_manual_start_makes_no_circle_with_sshs_socket(machines: dict[str, Machine]) -> None:
    unit = service.UNIT.format(name="by-hand", command="/usr/sbin/doorwardd -f")
    circular = re.sub(r"^DefaultDependencies=no\n", "", unit, flags=re.MULTILINE)
    assert circular != unit
    host = machines["debian-13"]
    host("systemctl disable ssh.service; systemctl enable ssh.socket")
    check = (
        "cat > /etc/systemd/system/by-hand.service; systemctl enable by-hand;"
        "systemd-analyze verify --man=no multi-user.target 2>&1 | grep -c 'ordering cycle' || :;"
        "systemctl disable by-hand; rm /etc/systemd/system/by-hand.service"
    )
    assert host(check, stdin=unit).strip() == "0"
    assert host(check, stdin=circular).strip() != "0"
