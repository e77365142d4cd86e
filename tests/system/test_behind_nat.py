"""A laptop behind home and carrier NAT, a public host with REQUIRE_SOURCE_ADDRESS Y, and the documentation's files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.config import convert
from doorward.config.half import Half
from doorward.host import init
from doorward.values import Secret
from system import doorwardd
from system.nat_lab import CARRIER, HOST, OTHER, OWN, Lab, lab
from system.test_connect import UNSYNCHRONISED
from unit.collection_plugins import COLLECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running

SITE_OF_THE_PAGE = "https://icanhazip.com/"
PAGE = Path(__file__).parents[2] / "docs/first-host.md"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab with the first page's files: access.conf of init, the section of import, and the page's RESOLVE_URL."""
    folder = tmp_path_factory.mktemp("laptop")
    with lab(folder) as (made, url):
        keys = Secret(os.urandom(32)), Secret(os.urandom(64))
        half = Half("web1", HOST, convert.services("tcp/22"), *keys)
        doorwardd.write(folder / "access.conf", init.stanza("laptop", half))
        keys_alone = half.line.replace("KEY_BASE64:", "KEY_BASE64: ").split(" SPA_SERVER")[0]
        (folder / "laptop.key").write_text(keys_alone.replace(" HMAC", "\nHMAC") + "\n")
        assert made.doorward("import", "-", told=half.line).returncode == 0
        (command,) = [line for line in PAGE.read_text().splitlines() if SITE_OF_THE_PAGE in line]
        words = command.removeprefix("laptop$ ").replace(SITE_OF_THE_PAGE, url)
        subprocess.run(["bash", "-ec", words], env=made.environment(), check=True)
        yield made


@pytest.fixture
def place(shared: Lab) -> Iterator[Lab]:
    """The lab with a client that has learned nothing."""
    shared.asked.clear()
    yield shared
    shared.answer = ""
    shared.translate()
    shared.carry(CARRIER)
    shutil.rmtree(shared.folder / ".local", ignore_errors=True)


@contextlib.contextmanager
def closed(made: Lab, folder: Path, *, wants_address: bool = True) -> Iterator[Running]:
    """Run the daemon with the page's access.conf; its last line may be turned to N."""
    access = (made.folder / "access.conf").read_text()
    assert access.endswith("REQUIRE_SOURCE_ADDRESS  Y\n")
    try:
        with doorwardd.doorwardd(made.host, folder, access if wants_address else access[:-2] + "N\n") as running:
            assert made.ssh("ConnectTimeout=1").returncode == 255
            yield running
    finally:
        made.host.nft("delete table inet doorward")  # with its grants, which outlive the daemon


def learn(made: Lab) -> str:
    """Learn as the page says, through the real ssh, while the host is open."""
    shown = made.ssh(words="echo $SSH_CONNECTION").stdout
    return made.doorward("learn", HOST, told=shown).stdout


def asked_for(running: Running) -> list[str]:
    """The address that each packet named, in order; the origin for one that named none."""
    found = []
    for line in running.verdicts:
        named = re.search(r" source=(\S+)", line)
        found.append("origin" if "source_required" in line else named[1] if named else line)
    return found


def test_with_the_pages_files_ssh_gets_in_with_one_packet_for_the_address_that_the_host_saw(
    place: Lab, tmp_path: Path
) -> None:
    assert learn(place) == f"{HOST} sees this machine at {CARRIER}: behind NAT\n"
    with closed(place, tmp_path) as running:
        done = place.ssh_that_knocks("-n", "web1")
    assert done.stdout == "inside\n", done.stderr
    assert asked_for(running) == [CARRIER]
    assert place.asked == []


def without_site(made: Lab) -> str:
    """A client's file as the page makes it, without the line that names a site."""
    path = made.folder / "no_site"
    rows = (made.folder / ".fwknoprc").read_text().splitlines(keepends=True)
    path.write_text("".join(row for row in rows if "RESOLVE_URL" not in row))
    path.chmod(0o600)
    return str(path)


def test_an_address_that_changed_is_found_out_in_the_second_round_and_asked_for_in_the_first_one_from_then_on(
    place: Lab, tmp_path: Path
) -> None:
    learn(place)
    place.carry(OTHER)
    with closed(place, tmp_path) as running:
        done = place.ssh_that_knocks("-n", "web1")
        first, *second = asked_for(running)
        again = place.ssh_that_knocks("-n", "web1")
    assert done.stdout == again.stdout == "inside\n", done.stderr
    assert first == CARRIER
    assert second.count(CARRIER) <= 2  # the second round, and once more when the site had answered
    assert second[-1] == OTHER
    assert asked_for(running)[1 + len(second) :] == [OTHER, CARRIER]
    assert place.asked == [OTHER]


def test_in_a_network_that_is_new_a_site_is_asked_at_once(place: Lab, tmp_path: Path) -> None:
    with closed(place, tmp_path) as running:
        done = place.ssh_that_knocks("-n", "web1")
    assert done.stdout == "inside\n", done.stderr
    assert asked_for(running) == [CARRIER]
    assert place.asked == [CARRIER]


def test_where_tcp_has_another_address_than_udp_the_one_of_the_connection_is_asked_for(
    place: Lab, tmp_path: Path
) -> None:
    split(place)
    assert OTHER in learn(place)
    with closed(place, tmp_path) as running:
        done = place.ssh_that_knocks("-n", "web1")
    assert done.stdout == "inside\n", done.stderr
    (verdict,) = running.verdicts
    assert f"origin={CARRIER}" in verdict
    assert f"source={OTHER} " in verdict


def split(made: Lab) -> None:
    """Have the carrier give TCP another address than UDP."""
    made.carrier.run("ip", "addr", "add", f"{OTHER}/24", "dev", "eth0")
    made.translate(f'ip protocol udp snat to {CARRIER}; oifname "eth0" ip protocol tcp snat to {OTHER}')


def test_where_tcp_has_another_address_the_client_says_that_the_origin_is_no_help(place: Lab, tmp_path: Path) -> None:
    split(place)
    with closed(place, tmp_path, wants_address=False) as running:
        done = place.doorward("connect", "--rc-file", without_site(place), "-n", "web1", "--timeout", "3", HOST, "22")
    assert [verdict for verdict in running.verdicts if f"source={CARRIER} " in verdict]
    assert done.stderr == (
        f"doorward: {HOST}: knocked twice as the packet's origin, no answer yet\n"
        f"doorward: {HOST} port 22: closed after 2 knocks as the packet's origin: key? clock? this machine ({OWN}) "
        f"is behind NAT; name its address there (ALLOW_IP), or a site that tells it (RESOLVE_URL); "
        f"the packet's origin is wrong where TCP takes another address than UDP{UNSYNCHRONISED}; "
        f"try: doorward doctor {HOST}\n"
    )


def test_the_origin_is_asked_for_where_nothing_else_opened_and_never_by_named(place: Lab, tmp_path: Path) -> None:
    learn(place)
    place.carry(OTHER)
    with closed(place, tmp_path, wants_address=False) as running:
        words = ("--rc-file", without_site(place), "-n", "web1")
        named = place.doorward("connect", *words, "--source", "named", "--timeout", "3", HOST, "22")
        assert asked_for(running) == [CARRIER] * 2
        done = place.ssh_that_knocks(*words)
    assert done.stdout == "inside\n", done.stderr
    assert [verdict for verdict in running.verdicts if f"source={OTHER} " in verdict]
    waiting, reason = named.stderr.splitlines()
    assert waiting == f"doorward: {HOST}: knocked twice as {CARRIER}, no answer yet"
    assert f"closed after 2 knocks as {CARRIER}: " in reason
    assert f"this machine ({OWN}) is behind NAT; the host saw {CARRIER} just now; name its address there" in reason


def test_a_portal_that_answers_with_a_page_is_told_and_its_answer_not_used(place: Lab, tmp_path: Path) -> None:
    place.answer = "<html>Please log in"
    with closed(place, tmp_path) as running:
        done = place.doorward("connect", "-n", "web1", "--timeout", "3", HOST, "22")
        place.answer = ""
        assert place.ssh_that_knocks("-n", "web1").stdout == "inside\n"
    assert "answers '<html>Please log in', not one plain address" in done.stderr
    assert "Traceback" not in done.stderr
    assert set(asked_for(running)) == {"origin", CARRIER}


def test_a_knock_that_is_not_repeated_asks_for_every_candidate_at_once(place: Lab, tmp_path: Path) -> None:
    learn(place)
    with closed(place, tmp_path) as running:
        done = place.doorward("knock", "--rc-file", without_site(place), "-n", "web1")
        assert doorwardd.eventually(lambda: len(running.verdicts) == 2)
        assert place.ssh("ConnectTimeout=5").stdout == "inside\n"
    assert done.stderr == ""
    assert asked_for(running) == [CARRIER, "origin"]


def test_two_networks_at_once_have_addresses_of_their_own(place: Lab, tmp_path: Path) -> None:
    """A second way out to the host, through another NAT."""
    learn(place)
    with second_way(place), closed(place, tmp_path) as running:
        done = place.doorward("learn", HOST, "--address", OTHER)
        assert "behind NAT" in done.stdout
        words = ("connect", "--rc-file", without_site(place), "-n", "web1", "--timeout", "1", "--source", "named", HOST)
        place.doorward(*words, "22")
        place.client.run("ip", "route", "del", HOST)
        place.doorward(*words, "22")
    assert asked_for(running) == [OTHER, CARRIER]


@contextlib.contextmanager
def second_way(made: Lab) -> Iterator[None]:
    """Give the client a second network on the line to its router, and the route to the host through it."""
    made.client.run("ip", "addr", "add", "192.168.2.23/24", "dev", "lan")
    made.home.run("ip", "addr", "add", "192.168.2.1/24", "dev", "lan")
    made.client.run("ip", "route", "add", HOST, "via", "192.168.2.1", "src", "192.168.2.23")
    try:
        yield
    finally:
        made.client.run("ip", "addr", "del", "192.168.2.23/24", "dev", "lan")
        made.home.run("ip", "addr", "del", "192.168.2.1/24", "dev", "lan")


def test_ansible_learns_from_an_open_host_and_gets_into_the_closed_one(place: Lab, tmp_path: Path) -> None:
    assert "rc=0" in by_ansible(place, tmp_path)
    with closed(place, tmp_path) as running:
        shown = by_ansible(place, tmp_path)
    assert "rc=0" in shown, shown
    assert asked_for(running)[0] == CARRIER, "a slow machine may send a second round"
    assert place.asked == []


def by_ansible(made: Lab, folder: Path) -> str:
    """Run a command at the host through the connection plugin, with its defaults; each run makes a new connection."""
    key = (made.folder / "laptop.key").read_text()
    variables = {"ansible_spa_key": key, "ansible_connection": "doorward.spa.ssh", "ansible_user": "root"}
    variables["ansible_ssh_private_key_file"] = f"{made.folder}/client_key"
    variables["ansible_ssh_args"] = f"-F none -o ControlPath=none -o UserKnownHostsFile={made.folder}/known"
    (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": {HOST: variables}}}))
    program = str(Path(sys.executable).parent / "ansible")
    environment = {**made.environment(), "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_HOME": str(folder)}
    environment |= {"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    words = (program, "-i", str(folder / "hosts.json"), "all", "-m", "raw", "-a", "echo inside")
    done = made.client.run(*words, check=False, env=environment)
    return done.stdout + done.stderr
