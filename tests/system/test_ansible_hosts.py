"""Ansible's names for hosts, and the one host and key behind each: by name, address, alias, `-e` and delegation."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from system import ansible_site, doorwardd
from unit.collection_plugins import plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.ansible_site import Site

ONE, TWO, OUTSIDE = "10.77.0.1", "10.77.0.2", "10.77.0.3"
ASK = {"ansible.builtin.raw": "ip -4 -o addr show dev eth0"}
ACTIONS: tuple[dict[str, object], ...] = ({"doorward.spa.endpoint": None}, {"doorward.spa.knock": None})
silence = plugin("plugin_utils._silence")


@dataclass(frozen=True, slots=True)
class Naming:
    """A way to say which host is meant, and what ssh dials for it."""

    host: str
    variables: dict[str, object] = field(default_factory=dict)
    ssh_config: str = ""
    options: tuple[str, ...] = ()
    dials: tuple[str, int] = (ONE, 22)


NAMINGS = {
    "a name with ansible_host": Naming("web", {"ansible_host": ONE}),
    "an IPv4 address": Naming(ONE),
    "an IPv6 address": Naming("fd77::1", dials=("fd77::1", 22)),
    "an alias of ssh_config": Naming("web", {}, f"Host web\nHostName {ONE}\nPort 2222\n", dials=(ONE, 2222)),
    "-e": Naming("web", {}, "", ("-e", f"ansible_host={ONE} ansible_port=2222 ansible_spa_required=yes"), (ONE, 2222)),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Site]:
    with ansible_site.site() as made:
        yield made


@pytest.fixture
def place(lab: Site) -> Site:
    """The lab with no key, grant or verdict of an earlier test."""
    shutil.rmtree(lab.keys, ignore_errors=True)
    lab.collected.clear()
    for daemon in lab.daemons.values():
        daemon.lines.clear()
    for host in (lab.one, lab.two):
        host.nft("flush set inet doorward open4; flush set inet doorward open6")
    lab.configure_ssh("")
    return lab


@pytest.fixture(params=["fwknop", "doorward1"])
def keys(request: pytest.FixtureRequest) -> str:
    """The format of the knocks."""
    chosen: str = request.param
    return chosen


def reached(shown: str) -> list[str]:
    """The hosts that answered, by their addresses."""
    return re.findall(r'(?:^|"said.stdout": ")2: eth0 +inet (10\.77\.0\.\d+)/', shown, re.MULTILINE)


def outcomes(shown: str) -> list[dict[str, Any]]:
    """The results of tasks that -v shows."""
    texts = re.findall(r"^(?:ok|changed): \[[^\]]*\] => (\{.*\})$", shown, re.MULTILINE)
    return [json.loads(text) for text in texts]


def ask(hosts: str, *more: dict[str, object], delegate_to: str = "") -> dict[str, object]:
    """A play that asks each host who it is, and does more there."""
    whither = {"delegate_to": delegate_to} if delegate_to else {}
    shown = {"ansible.builtin.debug": {"var": "said.stdout"}}
    asking = {**ASK, **whither, "register": "said", "ignore_unreachable": True}
    return {"hosts": hosts, "gather_facts": False, "tasks": [asking, shown, *({**task, **whither} for task in more)]}


@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS)
def test_a_host_is_reached_and_knocked_at_with_its_own_key_directly_and_delegated_to(
    place: Site, naming: Naming, keys: str
) -> None:
    place.configure_ssh(naming.ssh_config)
    place.know(naming.host, "one", keys)
    place.know("from.example.org", "two", keys)
    plays = [ask(naming.host, *ACTIONS), ask("from.example.org", *ACTIONS, delegate_to=naming.host)]
    shown = place.play({naming.host: naming.variables, "from.example.org": {}}, plays, "-v", *naming.options)
    host, port = naming.dials
    said = {"host": host, "port": port, "user": "root", "is_spa": True, "service": f"tcp/{port}", "spa_host": host}
    said["host_key"] = place.pairs["one"] if keys == "doorward1" else ""
    results = [result for result in outcomes(shown) if "services" in result or "spa_host" in result]
    endpoint, knock, *delegated = results
    assert reached(shown) == [ONE, ONE], shown
    assert endpoint.items() >= (said | {"spa_port": 62201}).items(), shown
    assert knock["services"] == [f"tcp/{port}"]
    assert delegated == [endpoint, knock]
    assert doorwardd.eventually(lambda: len(place.verdicts("one")) >= 4)
    assert set(place.verdicts("one")) == {"granted"}
    assert place.verdicts("two") == []
    assert all(f"tcp/{port}" in line for line in place.daemons["one"].verdicts)
    assert all(("name=controller" in line) is (keys == "doorward1") for line in place.daemons["one"].verdicts)


def test_hosts_of_one_short_name_have_keys_of_their_own_in_delegated_tasks_too(place: Site, keys: str) -> None:
    hosts = {"a.example.org": {"ansible_host": ONE}, "a.example.net": {"ansible_host": TWO}}
    place.know("a.example.org", "one", keys)
    place.know("a.example.net", "two", keys)
    shown = place.play(
        hosts,
        [
            ask("all"),
            ask("a.example.org", delegate_to="a.example.net"),
            ask("a.example.net", delegate_to="a.example.org"),
        ],
    )
    assert sorted(reached(shown)) == [ONE, ONE, TWO, TWO], shown
    assert set(place.verdicts("one")) == set(place.verdicts("two")) == {"granted"}


def test_two_names_of_one_address_have_keys_of_their_own_at_the_same_time(place: Site) -> None:
    hosts = {"a": {"ansible_host": ONE}, "b": {"ansible_host": ONE}}
    place.hold_key("a", "one")
    place.hold_key("b", "one-too")
    shown = place.play(
        hosts, [{**ask("all"), "strategy": "free"}, ask("a", delegate_to="b"), ask("b", delegate_to="a")]
    )
    assert reached(shown) == [ONE] * 4, shown
    assert set(place.verdicts("one")) == {"granted"}
    stanzas = re.findall(r"stanza=(\S+)", "\n".join(place.daemons["one"].verdicts))
    assert len(set(stanzas)) == 2


@pytest.mark.parametrize(
    ("to", "ssh_config", "variables"),
    [
        (OUTSIDE, "", {}),
        ("fd77::3", "", {}),
        ("elsewhere.example.com", f"Host elsewhere.example.com\nHostName {OUTSIDE}\n", {}),
        ("web.example.com", f"Host web.example.com\nHostName {OUTSIDE}\n", {}),  # as short as one of the inventory
        (OUTSIDE, "", {"ansible_host": OUTSIDE, "ansible_port": 2222}),  # another port may be another machine
    ],
)
def test_delegation_to_a_host_outside_the_inventory_is_plain_ssh(
    place: Site, to: str, ssh_config: str, variables: dict[str, object], keys: str
) -> None:
    place.configure_ssh(ssh_config)
    place.know("web.example.org", "one", keys)
    hosts = {"web.example.org": {"ansible_host": ONE, **variables}}
    plays = [ask("web.example.org", delegate_to=to), *([] if variables else [ask("web.example.org")])]
    delegated, *direct = place.play(hosts, plays, "-vvv").split("PLAY [web.example.org]")[1:]
    assert reached(delegated) == [OUTSIDE], delegated
    assert "ProxyCommand" not in delegated
    assert place.verdicts("two") == []
    for shown in direct:  # in which it would have been seen
        assert reached(shown) == [ONE], shown
        assert "ProxyCommand" in shown
        assert set(place.verdicts("one")) == {"granted"}


def test_delegation_to_the_address_of_a_host_in_the_inventory_knocks_with_its_key(place: Site, keys: str) -> None:
    place.know("web", "one", keys)
    place.know("from", "two", keys)
    shown = place.play({"web": {"ansible_host": ONE}, "from": {"ansible_host": TWO}}, [ask("from", delegate_to=ONE)])
    assert reached(shown) == [ONE], shown
    assert set(place.verdicts("one")) == {"granted"}


@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS)
def test_an_enrolled_host_whose_key_is_gone_says_so(place: Site, naming: Naming, keys: str) -> None:
    place.configure_ssh(naming.ssh_config)
    file = place.know(naming.host, "one", keys)
    kept = file.read_bytes()
    (file.parent / "enrolled").touch()
    file.unlink()
    plays = [ask(naming.host), ask("from.example.org", delegate_to=naming.host)]
    hosts = {naming.host: naming.variables, "from.example.org": {}}
    shown = " ".join(place.play(hosts, plays, *naming.options, "-e", "ansible_timeout=1").split())
    if keys == "doorward1":
        doorwardd.write(file, kept.decode())
    sentence = {
        "fwknop": f"{naming.host} is enrolled, and its key {file} is gone: put it back from a copy",
        "doorward1": f"{naming.host} is knocked at with public keys, and there is no {file}, this controller's own key",
    }[keys]
    assert len(re.findall(rf'"msg": "[^"]*{re.escape(sentence)}', shown)) == 2, shown
    assert place.verdicts("one") == []


@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS)
def test_a_host_with_a_pre_shared_key_is_entered_with_it_alone(place: Site, naming: Naming) -> None:
    place.configure_ssh(naming.ssh_config)
    place.know(naming.host, "one", "doorward1")
    psk = base64.b64encode(b"p" * 32).decode()
    plays = [ask(naming.host), ask("from.example.org", delegate_to=naming.host)]
    hosts = {naming.host: naming.variables, "from.example.org": {}}
    with place.pre_shared("one", psk):
        without = place.play(hosts, plays, *naming.options, "-e", "ansible_timeout=1")
        assert reached(without) == [], without
        assert place.verdicts("one") == [], "its tag is a stranger's, which the kernel refuses"
        shown = place.play(hosts, plays, *naming.options, "-e", f"doorward_psk={psk}")
        assert reached(shown) == [ONE, ONE], shown
        assert set(place.verdicts("one")) == {"granted"}
        new = base64.b64encode(b"n" * 32).decode()
        digest = hashlib.sha256(f"doorward psk {psk}".encode()).digest()
        known = {"controller": f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"}
        told = {"doorward_psk": new, "doorward_known_psk": known, "ansible_timeout": 1}
        assert doorwardd.eventually(lambda: not doorwardd.is_open(place.controller, ONE)), (
            "the window of the play before ends"
        )
        lost = place.play(hosts, plays, *naming.options, "-e", json.dumps(told))
        assert reached(lost) == [], lost
        assert "neither doorward_psk nor doorward_previous_psk" in lost, lost
        shown = place.play(hosts, plays, *naming.options, "-e", json.dumps({**told, "doorward_previous_psk": psk}))
        assert reached(shown) == [ONE, ONE], shown


@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS)
def test_the_files_of_the_role_client_lead_a_person_in(place: Site, naming: Naming, keys: str) -> None:
    """The role delegates its own tasks to localhost, in which the host's address is localhost's."""
    place.configure_ssh(naming.ssh_config)
    file, person = place.know(naming.host, "one", keys), "alice"
    if keys == "fwknop":
        file.rename(place.keys / naming.host / "alice.key")
    else:
        person = "controller"
    role = {"name": "doorward.spa.client"}
    play = {"hosts": naming.host, "gather_facts": False, "tasks": [{"ansible.builtin.import_role": role}]}
    profiles = place.folder / "alice"
    said = f"doorward_client_name={person} doorward_client_dir={profiles} doorward_client_home={profiles}"
    said += f" doorward_format={keys}"
    sites = "doorward_client_resolve_url=https://icanhazip.com/,https://ifconfig.me/ip"
    shown = place.play({naming.host: naming.variables}, [play], *naming.options, "-e", said, "-e", sites)
    assert "failed=0" in shown, shown
    rc_file = (profiles / f"{naming.host}.fwknoprc").read_text()
    assert ("HMAC_KEY_BASE64" in rc_file) is (keys == "fwknop")
    assert "RESOLVE_URL https://icanhazip.com/,https://ifconfig.me/ip\n" in rc_file
    (place.folder / "bin").mkdir(exist_ok=True)
    program = doorwardd.write(
        place.folder / "bin/doorward", f'#!/bin/sh\nexec {ansible_site.PYTHON} -m doorward "$@"\n', 0o755
    )
    place.configure_ssh(f"Include {profiles}/{naming.host}.conf\n")
    words = ("ssh", "-F", str(place.folder / "ssh_config"), naming.host, *ASK["ansible.builtin.raw"].split())
    done = place.controller.run(*words, check=False, env=place.environment())
    assert reached(done.stdout) == [ONE], done.stderr
    assert set(place.verdicts("one")) == {"granted"}
    shutil.rmtree(profiles)
    program.unlink()


@pytest.mark.parametrize(
    ("host", "answer", "words"),
    [
        (OUTSIDE, "OPEN", "10.77.0.3 port 22 answers"),
        ("fd77::3", "OPEN", "fd77::3 port 22 answers"),
        ("10.77.0.4", "REFUSED", "10.77.0.4 port 22 answers with a refusal"),
        ("10.77.0.99", "UNKNOWN", "10.77.0.99 port 22 cannot be asked (No route to host)"),
        ("198.51.100.1", "UNKNOWN", "198.51.100.1 port 22 cannot be asked (Network is unreachable)"),
        ("no-such-host.invalid", "UNKNOWN", "no-such-host.invalid port 22 cannot be asked ("),
        ("a" * 70 + ".invalid", "UNKNOWN", "cannot be asked ("),
        (ONE, "SILENT", ""),
        ("fd77::1", "SILENT", ""),
    ],
)
def test_only_a_port_that_lets_a_packet_vanish_is_silent(place: Site, host: str, answer: str, words: str) -> None:
    with place.controller.inside():
        probes = silence.probe(host, 22, seconds=5 if answer == "UNKNOWN" else 1)
    assert [each.answer.name for each in probes] == [answer]
    assert (words in silence.broken(probes)) if words else silence.broken(probes) == ""
    assert silence.is_open(probes) is (answer == "OPEN")
