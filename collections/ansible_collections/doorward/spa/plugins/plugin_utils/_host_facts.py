# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of itself before anything is changed on it, and what keeps doorward from it.

The host is asked by one shell script, since its Python may be missing or too old. Standard library only.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.doorward.spa.plugins.plugin_utils._values import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PYTHON = "/usr/bin/python3"
_PYTHON = (3, 10)
_KERNEL = (5, 6)  # the first with intervals in concatenated sets (nft_set_pipapo)
_NFT = (0, 9, 4)  # the first that has them
_UNSYNCHRONISED = 16_000_000  # microseconds of largest error, as systemd's ntp_synced() has it
_FAMILIES = {
    "debian": ("debian", "ubuntu"),
    "redhat": ("rhel", "fedora", "centos"),
    "suse": ("suse", "opensuse", "sles"),
    "archlinux": ("arch",),
}

# Python 3.6 can read it. Capabilities are those of the host's container.
_ASK_PYTHON = r"""
import ctypes, re, sys
print("python=%d.%d" % sys.version_info[:2])
bounds = int(re.search(r"CapBnd:\s*(\w+)", open("/proc/self/status").read()).group(1), 16)
for name, bit in ("SETGID", 6), ("SETUID", 7), ("NET_ADMIN", 12), ("NET_RAW", 13):
    if not bounds >> bit & 1:
        print("lacks=" + name)
class Timex(ctypes.Structure):
    _fields_ = [("modes", ctypes.c_uint), ("values", ctypes.c_long * 3), ("rest", ctypes.c_char * 512)]
asked = Timex()
if ctypes.CDLL(None).adjtimex(ctypes.byref(asked)) >= 0:
    print("max_error=%d" % asked.values[2])
"""
# What the role's table is made of; only checked, so nothing of it is loaded.
_PROBE = """
table inet doorward_probe {
    set grants { type ipv4_addr . inet_proto . inet_service; flags timeout; }
    chain dialled {
        meta l4proto 6 ip saddr . meta l4proto . ct original proto-dst @grants accept
    }
    chain in {
        type filter hook input priority -1000
        ct status dnat jump dialled
        ip saddr . meta l4proto . th dport @grants meta mark set meta mark | 0x40000000 accept
    }
    chain pre {
        type filter hook prerouting priority -101
        ct state new meta iifkind "bridge" fib daddr type unicast ct label set 127
    }
}
"""
_FIREWALLS = " ".join(
    f"{name}.service"
    for name in (
        "ufw", "firewalld", "nftables", "iptables", "ip6tables", "netfilter-persistent", "shorewall", "ferm", "csf",
    )
)  # fmt: skip
# $1 is the Python. The listener's title has its arguments; SSH_CONNECTION is the one of the session that asks.
SCRIPT = f"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
echo "uid=$(id -u)"
echo "time=$(date +%s)"
echo "kernel=$(uname -r)"
[ ! -d /run/systemd/system ] || echo systemd=yes
[ ! -e /run/systemd/container ] || echo container=yes
[ ! -e /etc/doorward/firewall.nft ] || echo hidden=yes
( . /etc/os-release && echo "id=$ID" && echo "like=$ID_LIKE" && echo "name=$PRETTY_NAME" ) 2>/dev/null
for interface in /sys/class/net/*; do echo "interface=${{interface##*/}}"; done
"$1" -I -c {shlex.quote(_ASK_PYTHON)} 2>/dev/null || echo python_fails=yes
for minor in 10 11 12 13 14 15 16; do
    [ ! -x "/usr/bin/python3.$minor" ] || echo "other=/usr/bin/python3.$minor"
done
if command -v nft >/dev/null 2>&1; then
    echo "nft=$(nft --version 2>/dev/null)"
    said=$(echo {shlex.quote(_PROBE)} | nft -c -f - 2>&1) || echo "refused=$(echo $said)"
fi
systemctl list-units --plain --no-legend --state=active {_FIREWALLS} 2>/dev/null |
    sed -n 's/^\\([^ ]*\\)\\.service .*/firewall=\\1/p'
port=
process=$$
while [ "${{process:-0}}" -gt 1 ]; do
    title=$(tr '\\0' ' ' < "/proc/$process/cmdline") 2>/dev/null
    case $title in 'sshd: '*'[listener]'*) printf 'listener=%s\\n' "$title"; break ;; esac
    [ -n "$port" ] || port=$(tr '\\0' '\\n' < "/proc/$process/environ" 2>/dev/null | sed -n 's/^SSH_CONNECTION=.* //p')
    process=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$process/status" 2>/dev/null)
done
[ -z "$port" ] || echo "port=$port"
for socket in ssh.socket sshd.socket; do
    ! systemctl is-active --quiet "$socket" 2>/dev/null ||
        systemctl show --property=Listen --value "$socket" | sed -n 's/.*:\\([0-9]*\\) (Stream)$/socket=\\1/p'
done
sshd -T 2>/dev/null | sed -n 's/^port /sshd=/p'
echo end=yes
"""


class Wanted(NamedTuple):
    """What the inventory asks of a host, as far as the host has a say in it."""

    python: str = PYTHON
    max_age: int = 120
    interfaces: Sequence[str] = ()
    mode: str = "drop"
    synchronised: bool = True
    names_foreign: bool = True


@dataclass(frozen=True)
class Host:
    """What a host said: the values of each name, in their order."""

    said: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Host:
        """Read what the script printed, whatever stands between its lines."""
        said: dict[str, list[str]] = {}
        for line in text.splitlines():
            name, is_one, value = line.partition("=")
            if is_one:
                said.setdefault(name, []).append(value.strip())
        return cls(said)

    def all(self, name: str) -> list[str]:
        """Return every value of a name."""
        return list(self.said.get(name, ()))

    def first(self, name: str) -> str:
        """Return the first value of a name; empty where there is none."""
        return next(iter(self.all(name)), "")

    @property
    def family(self) -> str:
        """The family of the distribution, as the files in roles/daemon/vars are named."""
        words = f"{self.first('id')} {self.first('like')}".lower().split()
        found = (family for word in words for family, names in _FAMILIES.items() if word.startswith(names))
        return next(found, "other")

    @property
    def sshd_ports(self) -> set[int]:
        """The ports that sshd has after its next start, as far as its configuration alone decides; else none."""
        listener = self.first("listener")
        sockets = self.all("socket")
        decides = listener and not re.search(r"\s-[pfo]", listener)
        return {int(port) for port in sockets or (self.all("sshd") if decides else ())}


def problems(host: Host, wanted: Wanted, before: float, after: float) -> Iterator[Problem]:
    """Yield what keeps doorward from a host that was asked between two moments of the controller's clock."""
    if host.first("uid") != "0":
        cause = f"tasks run as user number {host.first('uid')}, and root is needed: set become: true, or ansible_become"
        yield Problem("become", cause)
        return
    if not host.first("systemd"):
        yield Problem("the host", "systemd does not run it, and doorward's units need it")
    yield from _python(host, wanted)
    yield from _filter(host)
    yield from _clock(host, wanted, before, after)
    yield from _interfaces(host, wanted)
    yield from _sshd(host)
    if wanted.mode == "observe" and host.first("hidden"):
        yield Problem(
            "doorward_firewall_mode",
            "observe closes nothing, and the host is hidden by /etc/doorward/firewall.nft: open it first, with the "
            "playbook doorward.spa.uninstall, or keep drop or guard",
        )


def warnings(host: Host, wanted: Wanted) -> Iterator[str]:
    """Yield what an administrator should know, and what keeps doorward from nothing."""
    if wanted.names_foreign and host.all("firewall"):
        yield (
            f"other firewalls are active ({', '.join(host.all('firewall'))}), and what they drop stays dropped: "
            "`doorward status` names their chains, doorward_daemon_foreign_firewall: admit lets grants through"
        )


def _python(host: Host, wanted: Wanted) -> Iterator[Problem]:
    others = [other for other in host.all("other") if other != wanted.python]
    remedy = (
        f"set doorward_python: {others[-1]}, which the host has"
        if others
        else "install one, such as RHEL 9's python3.11 with python3.11-cryptography, and name it in doorward_python"
    )
    found = _version(host.first("python"))
    if host.first("python_fails") or not found:
        yield Problem("doorward_python", f"{wanted.python} does not run on the host: {remedy}")
    elif found < _PYTHON:
        cause = f"Python 3.10 or later is needed, and {wanted.python} is {host.first('python')}: {remedy}"
        yield Problem("doorward_python", cause)
    if host.all("lacks"):
        caps = host.all("lacks")
        yield Problem(
            "the host",
            f"it lacks CAP_{' and CAP_'.join(caps)}: start its container with "
            f"{' '.join(f'--cap-add={cap}' for cap in caps)}",
        )


def _filter(host: Host) -> Iterator[Problem]:
    """Yield what keeps nftables from being used; a host without nft gets the package."""
    kernel, nft = host.first("kernel"), host.first("nft")
    if _version(kernel) < _KERNEL:
        yield Problem("the host", f"its kernel {kernel} is older than 5.6, whose nftables doorward needs")
    elif nft and _version(nft) < _NFT:
        yield Problem("the host", f"{nft} is older than 0.9.4: install a newer package nftables")
    elif host.first("refused") and "NET_ADMIN" not in host.all("lacks"):
        cause = f"its kernel and nft do not take a table of doorward's: {host.first('refused')[:300]}"
        yield Problem("the host", cause)


def _clock(host: Host, wanted: Wanted, before: float, after: float) -> Iterator[Problem]:
    """Yield what keeps knocks from being of an age that the host takes."""
    now = host.first("time")
    off = max(before - int(now) - 1, int(now) - after, 0) if now.isdigit() else 0
    if off > wanted.max_age / 2:
        yield Problem(
            "doorward_max_age",
            f"the host's clock is {off:.0f} s off this controller's, and knocks that differ by {wanted.max_age} s are "
            "refused: set the clocks",
        )
    # A container has the clock of its machine, and cannot set it.
    elif wanted.synchronised and not host.first("container") and int(host.first("max_error") or 0) >= _UNSYNCHRONISED:
        yield Problem(
            "doorward_synchronised_clock",
            "the host's clock is not synchronised, so it drifts away from knocks: start chrony or systemd-timesyncd, "
            "or set it to false where something else keeps the clock right",
        )


def _interfaces(host: Host, wanted: Wanted) -> Iterator[Problem]:
    there = host.all("interface")
    if wanted.interfaces and there and not set(wanted.interfaces) & set(there):
        cause = f"the host has none of {', '.join(wanted.interfaces)}, and has {', '.join(there)}"
        yield Problem("doorward_interfaces", cause)


def _sshd(host: Host) -> Iterator[Problem]:
    """Yield where sshd will not be at its next start: the port that is protected would be nobody's."""
    port, after = host.first("port"), host.sshd_ports
    if port.isdigit() and after and int(port) not in after:
        place = "ssh.socket" if host.all("socket") else "sshd's configuration"
        yield Problem(
            "ansible_port",
            f"sshd answers this connection at port {port}, and {place} has {', '.join(map(str, sorted(after)))}: "
            "restart it, let the inventory follow, and run this again",
        )


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers of the first version in a text; none where there is none."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, match[0].split("."))) if match else ()
