"""Other firewalls, and how a grant fares behind each of them: rows for test_other_firewalls.py and `make firewalls`.

python -m system.other_firewalls        one line a firewall
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from system.doorwardd import ACCESS, doorwardd, eventually, is_open, listener, send
from system.netns import network
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

ESTABLISHED = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
OBSERVE = "FIREWALL_MODE observe\n"
ADMIT = f"FOREIGN_FIREWALL admit\n{OBSERVE}"
NEIGHBOURS = "-A INPUT -p ipv6-icmp -j ACCEPT"


BOTH = ("ip", "ip6")


def iptables(
    flavour: str,
    *rules: str,
    policy: str = "ACCEPT",
    chains: str = "",
    table: str = "filter",
    families: tuple[str, ...] = BOTH,
) -> str:
    """The commands that restore one table, as a reload of that firewall does."""
    head = [f"*{table}", f":INPUT {policy} [0:0]", *(f":{name} - [0:0]" for name in chains.split())]
    texts = {"ip": (*head, *rules, "COMMIT"), "ip6": (*head, NEIGHBOURS, *rules, "COMMIT")}
    return " && ".join(f"printf '%s\\n' {quoted(texts[one])} | {one}tables-{flavour}-restore" for one in families)


def quoted(lines: tuple[str, ...]) -> str:
    return " ".join(map(shlex.quote, lines))


def nft(text: str, table: str) -> str:
    """The command that loads a table again."""
    return f"nft 'table {table} {{ }}; delete table {table}; {text}'"


# Debian's ufw, over a copy of its files that is gone with the mount namespace.
UFW = """unshare -m sh -ec '
mount -t tmpfs none /mnt; cp -a /etc/ufw /mnt; mount --bind /mnt/ufw /etc/ufw; ufw --force enable; ufw reload'"""
# As firewalld writes it, `nft list table inet firewalld` of 1.3, without zones of no interest.
FIREWALLD = """table inet firewalld {
    chain filter_IN_public_allow { tcp dport 443 ct state { new, untracked } accept; };
    chain filter_IN_public { jump filter_IN_public_allow; meta l4proto { icmp, ipv6-icmp } accept; };
    chain filter_INPUT_ZONES { goto filter_IN_public; };
    chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept; ct status dnat accept; iifname "lo" accept;
        jump filter_INPUT_ZONES; ct state invalid drop; reject with icmpx admin-prohibited; };
}"""


@dataclass(frozen=True)
class Other:
    """One other firewall: the command that loads it, which is also its reload, and the chain that is named."""

    load: str
    chain: str
    families: tuple[str, ...] = BOTH  # that it filters
    flushes: bool = True  # its reload takes our rule out

    def addresses(self, host: Namespace) -> list[str]:
        """The addresses of the host that it keeps closed."""
        return [{"ip": host.ipv4, "ip6": host.ipv6}[family] for family in self.families]


OTHERS = {
    "iptables-nft, policy drop": Other(
        iptables("nft", f"-A INPUT {ESTABLISHED}", policy="DROP"), "table ip filter, chain INPUT"
    ),
    "iptables-legacy, policy drop": Other(
        iptables("legacy", f"-A INPUT {ESTABLISHED}", policy="DROP"),
        "iptables-legacy, table ip filter, chain INPUT",
    ),
    "iptables-nft, a drop that matches a port": Other(
        iptables("nft", f"-A INPUT {ESTABLISHED}", "-A INPUT -p tcp --dport 22 -j DROP"), "table ip filter, chain INPUT"
    ),
    "iptables-legacy, a drop that matches an interface": Other(
        iptables("legacy", f"-A INPUT {ESTABLISHED}", "-A INPUT -i eth0 -p tcp -j DROP"),
        "iptables-legacy, table ip filter, chain INPUT",
    ),
    "iptables-nft, a drop that matches a state": Other(
        iptables("nft", f"-A INPUT {ESTABLISHED}", "-A INPUT -m conntrack --ctstate NEW -p tcp -j DROP"),
        "table ip filter, chain INPUT",
    ),
    "iptables-nft, a reject behind two jumps": Other(
        iptables(
            "nft",
            f"-A INPUT {ESTABLISHED}",
            "-A INPUT -p tcp -j one",
            "-A one -j two",
            "-A two -p tcp -j REJECT",
            chains="one two",
        ),
        "table ip filter, chain INPUT",
    ),
    "iptables-nft, a drop in mangle": Other(
        iptables("nft", f"-A INPUT {ESTABLISHED}", "-A INPUT -p tcp --dport 22 -j DROP", table="mangle"),
        "table ip mangle, chain INPUT",
    ),
    "ip6tables-nft alone": Other(
        iptables("nft", f"-A INPUT {ESTABLISHED}", policy="DROP", families=("ip6",)),
        "table ip6 filter, chain INPUT",
        families=("ip6",),
    ),
    "ip6tables-legacy alone": Other(
        iptables("legacy", f"-A INPUT {ESTABLISHED}", "-A INPUT -p tcp -j REJECT", families=("ip6",)),
        "ip6tables-legacy, table ip6 filter, chain INPUT",
        families=("ip6",),
    ),
    "ufw": Other(UFW, "table ip filter, chain INPUT", flushes=False),
    "firewalld": Other(nft(FIREWALLD, "inet firewalld"), "table inet firewalld, chain filter_INPUT"),
    "another table, policy drop": Other(
        nft(
            "table inet filter { chain input { type filter hook input priority 0; policy drop; "
            "ct state established accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }",
            "inet filter",
        ),
        "table inet filter, chain input",
    ),
    "another table, a verdict map": Other(
        nft(
            "table inet filter { chain closed { tcp dport 22 drop; }; chain input { type filter hook input priority 5; "
            'policy accept; ct state established accept; iifname vmap { "eth0" : jump closed }; }; }',
            "inet filter",
        ),
        "table inet filter, chain input",
    ),
}


def reached(client: Namespace, address: str, port: int = 22, within: float = 0.6) -> bool:
    """Whether a connection is made; a firewall that rejects is closed too."""
    try:
        return is_open(client, address, port, within=within)
    except OSError:
        return False


def rules(host: Namespace) -> str:
    """Every rule of other firewalls that says it is ours, of both flavours."""
    legacy = [host.run(f"{one}tables-legacy-save", check=False).stdout for one in ("ip", "ip6")]
    lines = "".join([host.nft("list ruleset"), *legacy]).splitlines()
    return "\n".join(line for line in lines if 'comment "doorward"' in line or "--comment doorward" in line)


def knock(client: Namespace, address: str, running: Running, count: int) -> None:
    send(client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS), address)
    running.wait_for("reason=granted", count)


def shell(host: Namespace, script: str) -> None:
    host.run("sh", "-ec", script)


@contextlib.contextmanager
def session(client: Namespace, accepting: socket.socket, address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of an established connection."""
    with client.inside():
        ours = socket.create_connection((address, 22), timeout=3)
    accepting.settimeout(3)
    theirs, peer = accepting.accept()
    while peer[1] != ours.getsockname()[1]:  # one of those that were only tried
        theirs.close()
        theirs, peer = accepting.accept()
    theirs.settimeout(3)
    with ours, theirs:
        yield ours, theirs


def lives(ends: tuple[socket.socket, socket.socket]) -> bool:
    """Whether a connection carries data both ways."""
    for sender, receiver in (ends, ends[::-1]):
        sender.sendall(b"still here")
        try:
            if receiver.recv(16) != b"still here":
                return False
        except TimeoutError:
            return False
    return True


def named(running: Running, other: Other) -> str:
    """The command that the report gives for a chain."""
    said = running.wait_for(f"{other.chain} can drop what a grant lets in; this lets it through: ")
    return said.partition("lets it through: ")[2]


FARES = {"before": "closed", "granted": "open", "expired": "closed", "session": "open", "reloaded": "open"}


def fared(host: Namespace, client: Namespace, folder: Path, other: Other) -> dict[str, str]:
    """How a grant fares with `admit` behind a firewall that is loaded: FARES, where all is well."""
    shell(host, other.load)
    addresses = other.addresses(host)
    knocks = iter(range(1, 9))

    def knocked(address: str) -> bool:
        knock(client, address, running, next(knocks))
        return reached(client, address, within=3)  # as long as a busy machine may take

    with (
        contextlib.ExitStack() as stack,
        listener(host) as accepting,
        doorwardd(host, folder, ACCESS + "FW_ACCESS_TIMEOUT 4\n", ADMIT) as running,
    ):
        running.wait_for(f"{other.chain} can drop what a grant lets in: our rule accepts it there")
        seen = {"before": _word([reached(client, one) for one in addresses])}
        seen["granted"] = _word([knocked(one) for one in addresses])
        sessions = [stack.enter_context(session(client, accepting, one)) for one in addresses]
        eventually(lambda: not any(reached(client, one) for one in addresses), 8)
        seen["expired"] = _word([reached(client, one) for one in addresses])
        seen["session"] = _word(list(map(lives, sessions)))
        before = rules(host)
        shell(host, other.load)
        if other.flushes:
            running.wait_for(f"OUR RULE WAS TAKEN OUT of {other.chain}: it is back")
        assert eventually(lambda: rules(host) == before), "our rules are not what they were"
        seen["reloaded"] = _word([knocked(one) for one in addresses])
    return seen


def _word(found: list[bool]) -> str:
    return "open" if all(found) else "PARTLY" if any(found) else "closed"


def main() -> None:
    """Print how a grant fares behind each firewall."""
    sys.stdout.write(f"{'':50}{''.join(f'{step:10}' for step in FARES)}the report's command\n")
    for name, other in OTHERS.items():
        with network("host", "client") as (host, client), tempfile.TemporaryDirectory() as folder:
            steps = "".join(f"{word:10}" for word in fared(host, client, Path(folder), other).values())
            with doorwardd(host, Path(folder), ACCESS, OBSERVE) as running:
                sys.stdout.write(f"{name:50}{steps}{named(running, other)}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
