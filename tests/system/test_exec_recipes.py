"""The recipes of docs/commands.md: two with the real programs, the others against stubs that note their arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from system.doorwardd import eventually
from system.executing import Trace, executing, knock

if TYPE_CHECKING:
    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

PAGE: Final = Path(__file__).parents[2] / "docs" / "commands.md"
SSH: Final = ["-o", "BatchMode=yes", "-i"]
KEY: Final = "/etc/doorward/gateway.key"
GROUP: Final = ["--group-id", "sg-0123456789abcdef0", "--protocol", "tcp", "--port", "22", "--cidr", "ADDRESS/32"]
STUBBED: Final = {
    "pf on a BSD gateway": (
        "/usr/bin/ssh",
        [*SSH, KEY, "doorward@gateway", "doas", "pfctl", "-t", "friends", "-T", "add", "ADDRESS"],
        [*SSH, KEY, "doorward@gateway", "doas", "pfctl", "-t", "friends", "-T", "delete", "ADDRESS"],
    ),
    "ipfw on a FreeBSD gateway": (
        "/usr/bin/ssh",
        [*SSH, KEY, "root@gateway", "ipfw", "-q", "table", "friends", "add", "ADDRESS"],
        [*SSH, KEY, "root@gateway", "ipfw", "-q", "table", "friends", "delete", "ADDRESS"],
    ),
    "A security group at AWS": (
        "/usr/bin/aws",
        ["ec2", "authorize-security-group-ingress", *GROUP],
        ["ec2", "revoke-security-group-ingress", *GROUP],
    ),
    "A MikroTik router over ssh": (
        "/usr/bin/ssh",
        [*SSH, "/etc/doorward/router.key", "doorward@router",
         "/ip firewall address-list add list=friends address=ADDRESS timeout=2"],
        [*SSH, "/etc/doorward/router.key", "doorward@router",
         "/ip firewall address-list remove [find list=friends address=ADDRESS]"],
    ),
}  # fmt: skip


def recipes() -> dict[str, str]:
    """Return every recipe of the page by the bold words before it, with windows that a test can wait for."""
    found = re.findall(
        r"^\*\*([^*]+)\*\*[^`]*(?:`[^`\n]+`[^`]*)*?\n```access\.conf\n(.*?)```",
        PAGE.read_text(),
        re.MULTILINE | re.DOTALL,
    )
    cycles = {name: lines for name, lines in found if "CMD_CYCLE_OPEN" in lines}
    return {name: re.sub(r"(CMD_CYCLE_TIMER +)\d+", r"\g<1>2", lines) for name, lines in cycles.items()}


def test_the_page_has_these_recipes_and_no_untested_one() -> None:
    assert set(recipes()) == {"ipset", "nftables, a set of a table of yours", *STUBBED}


@pytest.mark.parametrize("name", STUBBED)
def test_a_recipe_calls_its_program_as_it_should(pair: Pair, open_path: Path, name: str) -> None:
    """Against a stub: there is no gateway, cloud or router here."""
    host, client = pair
    program, opens, closes = STUBBED[name]
    stub = Trace.make(open_path, name="stub")
    stanza = recipes()[name].replace(program, str(stub.script)).replace("doorward-aws", "nobody")
    calls = ["".join(f"[{word.replace('ADDRESS', client.ipv4)}]" for word in argv) for argv in (opens, closes)]
    with executing(host, open_path, stanza):
        knock(host, client)
        stub.wait_for(*calls)


def test_the_recipe_for_ipset_lets_an_address_in_and_out(pair: Pair, open_path: Path) -> None:
    host, client = pair
    host.run("ipset", "create", "friends", "hash:ip")
    with executing(host, open_path, recipes()["ipset"]) as daemon:
        knock(host, client)
        assert eventually(lambda: client.ipv4 in host.run("ipset", "list", "friends").stdout)
        assert "exit=0" in daemon.wait_for("command=close")
        assert client.ipv4 not in host.run("ipset", "list", "friends").stdout


def test_the_recipe_for_nftables_lets_an_address_in_and_out(pair: Pair, open_path: Path) -> None:
    host, client = pair
    host.nft("table inet mine {\n set friends { type ipv4_addr\n }\n }")
    with executing(host, open_path, recipes()["nftables, a set of a table of yours"]) as daemon:
        knock(host, client)
        assert eventually(lambda: client.ipv4 in host.run("nft", "list", "set", "inet", "mine", "friends").stdout)
        host.nft(f"delete element inet mine friends {{ {client.ipv4} }}")  # so that there is nothing to close
        assert "exit=0" in daemon.wait_for("command=close")
        assert client.ipv4 not in host.run("nft", "list", "set", "inet", "mine", "friends").stdout
