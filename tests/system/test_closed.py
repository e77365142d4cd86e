"""A closed host stays closed, or says that it is not: whatever others did to its table or its files."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from doorward.firewall import ruleset
from doorward.firewall.deadman import DeadMansSwitch, examine
from doorward.firewall.kernel import TRIES
from doorward.firewall.libnftables import Libnftables, Output
from doorward.firewall.nftables import Nftables
from doorward.firewall.standing import Standing, Word
from doorward.firewall.wanted import mark_of
from doorward.values import FirewallMode, Grant, Protocol, Service
from system.doorwardd import command, doorwardd, environment, eventually, files, is_open, listener, write
from system.process_timer import ProcessTimer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

SSH = Service(Protocol.TCP, 22)
OTHER = ipaddress.ip_address("192.0.2.7")
FIRST = f'type filter hook input priority -1000; policy drop; iif "lo" accept; {ruleset.ESTABLISHED}'
FRIENDS = "set friends { type ipv4_addr; flags interval; elements = { 192.0.2.64/26 }; }\n"
INHERITED = "set inherited4 { type ipv4_addr . inet_service; flags timeout; }\n"
GRANTED = (
    "ip saddr . meta l4proto . th dport @open4 meta mark set meta mark | 0x40000000 accept\n"
    "ip6 saddr . meta l4proto . th dport @open6 accept\nmeta l4proto . th dport @open_any accept\n"
)
CLOSING = (
    f"table inet doorward {{\n{ruleset.SETS}{FRIENDS}{INHERITED}"
    f"chain input {{ {FIRST} ip saddr @friends accept\nct state established tcp dport {{ 80, 443 }} accept\n"
    f"{GRANTED} }}\n{ruleset.ENDED_CHAIN}}}\n"
)
OPENING = "chain input { type filter hook input priority 0; policy accept; };"
HARMED = {
    "dormant": "add table inet doorward { flags dormant; }",
    "its policy": "add chain inet doorward input { policy accept; }",
    "a rule in front": "insert rule inet doorward input tcp dport 22 accept",
    "its chain deleted": "flush chain inet doorward input; delete chain inet doorward input",
    "its chain at another place": (
        "flush chain inet doorward input; delete chain inet doorward input; "
        f"table inet doorward {{ {OPENING} }}"
    ),
    "everybody a friend": "add element inet doorward friends { 0.0.0.0/1 }",
    "other ports in a rule": (
        "insert rule inet doorward input tcp dport { 22, 443 } accept"
    ),
    "another table": f"{ruleset.REMOVE}{ruleset.observe()}",
    "a table of another's making": f"{ruleset.REMOVE}table inet doorward {{ {ruleset.SETS} {OPENING} }}",
}  # fmt: skip
GUARD_HARMED = {
    "its rules taken out": "flush table inet doorward",
    "its chain emptied": "flush chain inet doorward guard",
    "dormant": "add table inet doorward { flags dormant; }",
    "a rule in front": "insert rule inet doorward guard accept",
    "nothing guarded": "flush set inet doorward guarded",
    "its chain deleted": "flush chain inet doorward guard; delete chain inet doorward guard",
    "nothing but sets": f"{ruleset.REMOVE}table inet doorward {{ {ruleset.SETS} }}",
    "another table": f"{ruleset.REMOVE}{ruleset.observe()}",
    "its ports exchanged": (
        f"{ruleset.REMOVE}{ruleset.guard([SSH]).replace('@guarded drop', '{ 6 . 2222 } drop')}"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A host with a service, the stranger who dials it, and the host's firewall file."""

    host: Namespace
    stranger: Namespace
    file: Path

    @contextlib.contextmanager
    def started(
        self, mode: FirewallMode = FirewallMode.OBSERVE, nft: type[Libnftables] = Libnftables
    ) -> Iterator[Nftables]:
        """The packet filter as a daemon that starts has it."""
        with self.host.inside():
            made = Nftables(self.file, mode, lambda: {SSH}, nft(), switch=self.file.parent / "fw")
        with contextlib.closing(made):
            yield made

    def answers(self) -> bool:
        return is_open(self.stranger, self.host.ipv4, within=0.3)

    def standing(self, mode: FirewallMode = FirewallMode.OBSERVE) -> Standing:
        with self.started(mode) as made:
            return made.standing()


@pytest.fixture
def site(pair: tuple[Namespace, Namespace], tmp_path: Path) -> Iterator[Site]:
    tmp_path.chmod(0o700)
    host, stranger = pair
    with listener(host):
        yield Site(host, stranger, tmp_path / "firewall.nft")


def confirm(site: Site) -> None:
    write(site.file, ruleset.swap(CLOSING))
    write(mark_of(site.file), "")


@pytest.mark.parametrize("harm", HARMED)
def test_a_confirmed_table_that_was_harmed_while_no_daemon_ran_is_loaded_again_at_the_start(
    site: Site, harm: str
) -> None:
    confirm(site)
    with site.started() as made:
        made.prepare()
        assert not site.answers()
        assert made.standing().closed is True
        made.open(Grant(OTHER, (SSH,), 600))
        site.host.nft("add element inet doorward inherited4 { 192.0.2.9 . 22 timeout 1h expires 30m }\n")
    site.host.nft(f"{HARMED[harm]}\n")
    assert eventually(site.answers), "it is open to a stranger"
    assert site.standing().closed is False
    assert site.standing().doubts
    kept = ruleset.REMOVE not in HARMED[harm]
    with site.started() as made:
        assert str(site.file) in (made.prepare() or "")
        assert not site.answers()
        assert made.standing().closed is True
        assert made.prepare() is None, "nothing is to be done twice"
        assert [grant.source for grant in made.grants()] == ([OTHER] if kept else [])
    if kept:
        assert "192.0.2.9 . 22 timeout 1h expires 2" in site.host.nft("list table inet doorward")


@pytest.mark.parametrize("harm", GUARD_HARMED)
def test_our_own_guard_that_was_harmed_while_no_daemon_ran_is_made_again_at_the_start(site: Site, harm: str) -> None:
    with site.started(FirewallMode.GUARD) as made:
        made.prepare()
        assert not site.answers()
        assert made.standing().closed is True
    site.host.nft(f"{GUARD_HARMED[harm]}\n")
    assert eventually(site.answers), "it is open to a stranger"
    assert site.standing(FirewallMode.GUARD).closed is False
    with site.started(FirewallMode.GUARD) as made:
        assert made.prepare() is not None
        assert not site.answers()
        assert made.standing().closed is True
        assert made.prepare() is None


def test_a_table_as_its_file_has_it_is_not_touched(site: Site) -> None:
    """Loaded by nft at boot, listed and loaded again by a rollback, or by us: it is the same table."""
    confirm(site)
    site.host.run("nft", "-f", str(site.file))
    handle = handle_of(site)
    with site.started() as made:
        assert made.prepare() is None
    listing = site.host.run("nft", "-s", "list", "table", "inet", "doorward").stdout
    site.host.nft(ruleset.swap(listing))
    with site.started() as made:
        assert made.prepare() is None
    assert handle_of(site) != handle
    assert site.host.nft("list tables") == "table inet doorward\n", "nothing is left of the comparison"


def handle_of(site: Site) -> int:
    listed = json.loads(site.host.run("nft", "-j", "list", "tables").stdout)["nftables"]
    (handle,) = [one["table"]["handle"] for one in listed if "table" in one]
    return int(handle)


FAILURE = CLOSING.replace("chain input", "chain failure_policy { }\nchain input")
LOST = {
    "gone": 'rm "$1"',
    "empty": ': > "$1"',
    "cut off": 'head -c 900 "$1" > "$1.new"; mv "$1.new" "$1"',
    "of another form": 'echo "table inet doorward { chain c { accepts; }; }" > "$1"',
    "another's text": 'echo "table ip filter { }" > "$1"',
    "without a chain": 'sed -i "/chain input/,/^ *}$/d" "$1"',
    "dormant": 'sed -i "s/^table inet doorward {/& flags dormant;/" "$1"',
    "another's": 'chown 65534 "$1"',
    "open to all": 'chmod 666 "$1"',
    "a link to nowhere": 'ln -sf /nonexistent "$1"',
}


@pytest.mark.parametrize("table", ["as at boot", "present"])
@pytest.mark.parametrize("loss", LOST)
def test_a_host_that_was_confirmed_never_starts_into_observe(site: Site, loss: str, table: str) -> None:
    confirm(site)
    if table == "present":
        site.host.nft(ruleset.observe())
    site.host.run("sh", "-ec", LOST[loss], "sh", str(site.file))
    assert eventually(site.answers), "nothing closes it yet"
    with site.started(FirewallMode.OBSERVE) as made:
        assert "the services of OPEN_PORTS are guarded instead" in (made.prepare() or "")
        assert not site.answers()
        assert made.standing().closed is None, "it is not as it was confirmed"
    write(site.file.with_name("failure.nft"), FAILURE)
    with site.started(FirewallMode.OBSERVE) as made:
        assert "the failure policy's" in (made.prepare() or "")
        assert not site.answers()
        assert "the failure policy's" in made.standing().sentences[0]
        assert made.prepare() is None


def test_a_failure_policy_that_opens_ssh_is_not_made_stricter(site: Site) -> None:
    confirm(site)
    site.file.unlink()
    write(site.file.with_name("failure.nft"), FAILURE.replace("iif", "tcp dport 22 accept\niif"))
    with site.started() as made:
        assert "the failure policy's" in (made.prepare() or "")
        assert eventually(site.answers)
        assert made.standing().closed is None


def test_a_host_that_was_never_confirmed_still_observes(site: Site) -> None:
    with site.started() as made:
        assert "made the observe table" in (made.prepare() or "")
        assert eventually(site.answers)
        assert made.standing().closed is False


def test_a_file_that_is_lost_while_the_daemon_runs_still_says_what_must_be_in_the_table(site: Site) -> None:
    confirm(site)
    with site.started() as made:
        made.prepare()
        site.file.unlink()
        site.host.nft(HARMED["its policy"])
        assert eventually(site.answers)
        assert "loaded what it said before" in (made.prepare() or "")
        assert not site.answers()
        with site.host.inside():
            reloaded = Nftables(site.file, FirewallMode.OBSERVE, lambda: {SSH}, before=made)
        with contextlib.closing(reloaded):
            assert reloaded.prepare() is None


class Raced(Libnftables):
    """nft in a world where somebody adds a rule in front right after each load of our table."""

    loads = 0

    def run(self, commands: str, output: Output = Output(0)) -> str:  # noqa: B008  an immutable flag
        said = super().run(commands, output)
        if commands.startswith(ruleset.REMOVE):
            Raced.loads += 1
            super().run("insert rule inet doorward input accept")
        return said


def test_a_table_that_others_never_leave_alone_is_not_called_closed(site: Site) -> None:
    confirm(site)
    Raced.loads = 0
    with site.started(nft=Raced) as made:
        assert "AND OTHERS KEEP CHANGING IT" in (made.prepare() or "")
        assert Raced.loads == TRIES
        assert not made.is_whole
        assert made.standing().doubts == (
            (Word.CHANGED, "table inet doorward was changed: chain input has other rules"),
        )
        assert eventually(site.answers)
    with site.started() as made:  # the others have left
        assert made.prepare() is not None
        assert made.is_whole
        assert not site.answers()


def test_a_change_that_waits_for_its_confirmation_is_left_alone_and_so_is_its_rollback(
    site: Site, tmp_path: Path
) -> None:
    timer = ProcessTimer(tmp_path)
    new = write(tmp_path / "new.nft", CLOSING.replace("tcp dport { 80, 443 }", "tcp dport { 80 }"))
    with site.started() as made, site.host.inside():
        made.prepare()
        switch = DeadMansSwitch(tmp_path / "fw", timer, Libnftables(), lambda: "a" * 32)
        token = switch.apply(examine(new), 60)
        timer.disarm()
        assert not site.answers()
        assert made.prepare() is None
        assert made.standing().closed is True
        site.host.nft("insert rule inet doorward input accept")
        assert eventually(site.answers)
        assert made.standing().closed is False
        assert "candidate.nft" in (made.prepare() or "")
        assert not site.answers()
        site.host.nft(f"{ruleset.REMOVE}{ruleset.observe()}")  # as the rollback does, while it is still pending
        assert made.prepare() is None
        assert eventually(site.answers)
        switch.rollback(token)
        assert made.prepare() is None


def test_what_is_confirmed_is_what_the_daemon_compares_with(site: Site, tmp_path: Path) -> None:
    timer = ProcessTimer(tmp_path)
    with site.started() as made, site.host.inside():
        made.prepare()
        switch = DeadMansSwitch(tmp_path / "fw", timer, Libnftables(), lambda: "a" * 32)
        switch.confirm(switch.apply(examine(write(tmp_path / "new.nft", CLOSING)), 60), site.file)
        assert mark_of(site.file).exists()
        assert made.prepare() is None
        assert made.standing().closed is True
        site.host.nft(HARMED["dormant"])
        assert "it is dormant" in (made.prepare() or "")
        assert not site.answers()


def test_a_grant_that_others_made_without_an_end_is_named(site: Site) -> None:
    confirm(site)
    with site.started() as made:
        made.prepare()
        made.open(Grant(OTHER, (SSH,), 600))
        assert made.standing() == Standing()
        site.host.nft("add element inet doorward open4 { 192.0.2.8 . 6 . 22 timeout 0s }")
        assert made.standing().sentences == ("a grant without an end, which no knock made: 192.0.2.8 tcp/22",)
        assert made.standing().closed is True
        site.host.nft("add element inet doorward open_any { 6 . 22 timeout 60s }")
        assert eventually(site.answers)
        assert re.fullmatch(r"tcp/22 is open to everybody, for [56]\d s", made.standing().sentences[0])
        assert made.standing([SSH]).closed is True, "but a port of our own server has to be"


ACCESS = "SOURCE ANY\nOPEN_PORTS tcp/22\nKEY {}\nHMAC_KEY {}\nREQUIRE_SOURCE_ADDRESS N\n".format("k" * 16, "h" * 16)


def test_a_running_daemon_repairs_its_table_and_check_and_status_tell_the_truth(site: Site, tmp_path: Path) -> None:
    confirm(site)
    with doorwardd(site.host, tmp_path, ACCESS, "FIREWALL_MODE observe;\n") as daemon:
        assert not site.answers()
        for harm in ("dormant", "its policy", "a rule in front", "everybody a friend", "another table"):
            site.host.nft(HARMED[harm])
            assert eventually(lambda: not site.answers(), 5), harm
        daemon.wait_for("OUR TABLE WAS REMOVED OR CHANGED: it was changed (it is dormant)")
        assert doorward(site, tmp_path, "status", "--json")["closed"] is True
        os.kill(daemon.process.pid, 19)  # SIGSTOP: nothing is repaired now
        site.host.nft(HARMED["its policy"])
        assert eventually(site.answers)
        found = doorward(site, tmp_path, "status", "--json")
        assert (found["closed"], found["well"]) == (False, False)
        changed = "table inet doorward was changed: chain input has another hook, priority or policy"
        assert {"word": "changed", "text": changed} in found["causes"]
        options = ("-c", str(tmp_path / "doorwardd.conf"), "-a", str(tmp_path / "access.conf"))
        checked = site.host.run(*command("check", *options), env=environment())
        assert f"warning: {changed}" in checked.stderr
        os.kill(daemon.process.pid, 18)  # SIGCONT
        assert eventually(lambda: not site.answers(), 5)
        site.file.unlink()
    with doorwardd(site.host, tmp_path, ACCESS, "FIREWALL_MODE observe;\n") as daemon:
        daemon.wait_for("the services of OPEN_PORTS are guarded instead")
        assert not site.answers()


def test_a_rule_that_root_adds_by_hand_goes_again_and_one_in_the_file_or_in_another_table_stays(
    site: Site, tmp_path: Path
) -> None:
    confirm(site)
    rule, counting = "tcp dport 22 accept", "tcp dport 22 counter"
    site.host.nft(f"table inet roots {{ chain input {{ type filter hook input priority -2000; {counting}; }}; }}")
    with doorwardd(site.host, tmp_path, ACCESS, "FIREWALL_MODE observe;\n") as daemon:
        site.host.nft("add element inet doorward open4 { 192.0.2.7 . 6 . 22 timeout 1h }")
        site.host.nft(f"add rule inet doorward input {rule}")
        daemon.wait_for("OUR TABLE WAS REMOVED OR CHANGED")
        assert not site.answers()
        listed = site.host.nft("list ruleset")
        assert rule not in listed
        assert "192.0.2.7 . tcp . 22" in listed, "what was open is open"
        assert "tcp dport 22 counter" in listed, "the table is root's own"
        write(site.file, ruleset.swap(CLOSING.replace(GRANTED, f"{GRANTED}{rule}\n")))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        assert rule in site.host.nft("list table inet doorward")
        assert site.answers()


def doorward(site: Site, folder: Path, *words: str) -> dict[str, Any]:
    argv = [*command()[:-1], *words, *files(folder)]
    found: dict[str, Any] = json.loads(site.host.run(*argv, env=environment(), check=False).stdout)
    return found


def test_a_host_that_root_opened_stays_open_and_says_so(site: Site, tmp_path: Path) -> None:
    confirm(site)
    with doorwardd(site.host, tmp_path, ACCESS):
        assert not site.answers()
        site.host.run(*command()[:-1], "firewall", "stop", *files(tmp_path), env=environment())
        assert eventually(site.answers)
    with doorwardd(site.host, tmp_path, ACCESS) as daemon:
        daemon.wait_for("NOT AS IT SHOULD BE: root opened this host until the next boot")
        assert eventually(site.answers)
        assert doorward(site, tmp_path, "status", "--json")["closed"] is False
