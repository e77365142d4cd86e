"""Public keys of the controller and of hosts: the actions doorward.spa.key and host_key and the lookup, by ansible."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from unit.collection_plugins import ansible, module, plugin

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ansible
key_text = plugin("plugin_utils._key_text")

HOST = "doorward1 " + "A" * 42 + "E="
PSK, OLD_PSK = "A" * 42 + "E=", "B" * 42 + "E="


def make(folder: Path, *options: str, check: bool = True, **arguments: object) -> dict[str, Any]:
    given = {"host": "web", "folder": str(folder / "keys"), "private_key_file": str(folder / "own.key")}
    return module(folder, "doorward.spa.key", *options, check=check, **{**given, **arguments})


def look_up(folder: Path, *options: str, **variables: object) -> str:
    """What the lookup gives for localhost with these variables."""
    given = {"doorward_keys_dir": str(folder / "keys"), "doorward_private_key_file": str(folder / "own.key")}
    said = json.dumps({**given, **variables})
    text = "msg={{ lookup('doorward.spa.key') }}"
    shown = ansible(folder, "ansible", "localhost", "-m", "debug", "-a", text, "-e", said, *options)
    found: str = json.loads(shown[shown.index("=> {") + 3 : shown.rindex("}") + 1])["msg"]
    return found


def test_the_controllers_pair_is_made_once_for_all_hosts_and_no_secret_is_told(tmp_path: Path) -> None:
    planned = make(tmp_path, "--check")
    assert planned["made"] == [str(tmp_path / "own.key")]
    assert planned["stanzas"][0]["public_key"] == ""
    assert not (tmp_path / "own.key").exists()
    first, other = make(tmp_path), make(tmp_path, host="db", clients=["controller"])
    assert (first["changed"], other["changed"]) == (True, False)
    assert first["stanzas"] == other["stanzas"]
    private, public = (tmp_path / "own.key").read_text(encoding="utf-8").splitlines()[-2:]
    assert (tmp_path / "own.key").stat().st_mode & 0o777 == 0o600
    assert public == f"{first['stanzas'][0]['public_key']} controller"
    assert private.split()[1] not in str(first)
    assert not list((tmp_path / "keys").glob("*/*.key")), "no symmetric key"


def test_the_mark_of_an_enrolled_host_is_kept_without_symmetric_keys(tmp_path: Path) -> None:
    mark = make(tmp_path)["enrolment"]
    assert make(tmp_path, host_mark=mark, enrolled=True)["changed"]
    assert not make(tmp_path, host_mark=mark)["changed"]
    assert "was enrolled by this controller" in make(tmp_path, check=False)["msg"]


def test_a_host_moves_as_long_as_its_connections_knock_with_the_old_key(tmp_path: Path) -> None:
    make(tmp_path, format="fwknop")
    moving, moved = make(tmp_path), make(tmp_path, host_key=HOST)
    assert [(each["format"], each["leaves"]) for each in moving["stanzas"]] == [("doorward1", False), ("fwknop", True)]
    assert [(each["format"], each["leaves"]) for each in moved["stanzas"]] == [("doorward1", False)]
    assert (moving["moving"], moved["moving"]) == (True, False)
    back = make(tmp_path, format="fwknop", host_key=HOST)
    assert [(each["format"], each["leaves"]) for each in back["stanzas"]] == [("fwknop", False), ("doorward1", True)]


@pytest.mark.parametrize("clients", [["controller", "alice"], [{"name": "alice", "public_key": "doorward1 AAAA"}]])
def test_a_client_without_a_good_public_key_is_named_before_anything_is_made(
    tmp_path: Path, clients: list[object]
) -> None:
    refused = make(tmp_path, check=False, clients=clients)
    assert refused["failed"]
    assert re.search("alice has no public_key|is no public key", refused["msg"])
    assert not (tmp_path / "own.key").exists()


def test_a_vaulted_pair_is_opened_for_the_run_alone(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n", encoding="utf-8")
    vault = ("--vault-id", f"fleet@{password}")
    made, again = make(tmp_path, *vault, vault_id="fleet"), make(tmp_path, *vault, vault_id="fleet")
    assert made["stanzas"] == again["stanzas"]
    assert (tmp_path / "own.key").read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT;1.2;AES256;fleet\n")
    text = look_up(tmp_path, *vault, doorward_host_key=f"{HOST} web")
    name, host_key, own = text.splitlines()
    assert (name, host_key) == ("# host: localhost", f"HOST_KEY: {HOST} web")
    copy = own.removeprefix("CLIENT_KEY_FILE: ")
    assert copy.startswith(str(tmp_path / "ansible/tmp"))
    play = tmp_path / "play.yml"
    tasks = [
        {"ansible.builtin.set_fact": {"said": "{{ lookup('doorward.spa.key') }}"}},
        {"ansible.builtin.command": "stat -c %a {{ said | regex_search('/.*own') }}", "register": "mode"},
        {"ansible.builtin.command": "tail -1 {{ said | regex_search('/.*own') }}", "register": "line"},
        {
            "ansible.builtin.debug": {
                "msg": "mode {{ mode.stdout }} {{ line.stdout }} psk {{ said is search('PSK_BASE64') }}"
            }
        },
    ]
    hidden = {"doorward_host_key": HOST, "doorward_private_key_file": str(tmp_path / "own.key")}
    said = {"ansible_connection": "local", "doorward_psk": PSK, "ansible_python_interpreter": sys.executable, **hidden}
    play.write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": said, "tasks": tasks}]), encoding="utf-8"
    )
    shown = ansible(tmp_path, "ansible-playbook", "play.yml", *vault)
    assert f"mode 600 {made['stanzas'][0]['public_key']} controller psk True" in shown
    assert not list((tmp_path / "ansible/tmp").glob("*/doorward-*")), "gone with the run"
    assert "--vault-id fleet@FILE" in make(tmp_path, check=False, vault_id="fleet", private_key_file="x")["msg"]


def test_a_pre_shared_key_comes_from_a_vault(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n", encoding="utf-8")
    vault = ("--vault-id", f"fleet@{password}")
    make(tmp_path)
    vaulted = ansible(tmp_path, "ansible-vault", "encrypt_string", *vault, "--name", "doorward_psk", PSK)
    assert PSK not in vaulted
    (tmp_path / "psk.yml").write_text(vaulted[vaulted.index("doorward_psk:") :], encoding="utf-8")
    text = look_up(tmp_path, *vault, "-e", "@psk.yml", doorward_host_key=HOST)
    assert text.splitlines()[-1] == f"PSK_BASE64: {PSK}"
    assert "PSK_BASE64" not in look_up(tmp_path, *vault, doorward_host_key=HOST)


def test_connections_use_the_pre_shared_key_that_the_host_knows(tmp_path: Path) -> None:
    old, new = (key_text.psk_mark(psk) for psk in (OLD_PSK, PSK))
    make(tmp_path)

    def used(mark: str, **told: str) -> str:
        """What a connection says that it uses."""
        known = {"doorward_known_psk": {"controller": mark, "other": old}} if mark else {}
        text = look_up(tmp_path, doorward_host_key=HOST, **known, **told)
        return str(re.sub(r"\A# host: localhost\nHOST_KEY.*\nCLIENT_KEY_FILE.*\n", "", text)).strip()

    both = {"doorward_psk": PSK, "doorward_previous_psk": OLD_PSK}
    assert used("", **both) == used(new, **both) == f"PSK_BASE64: {PSK}"
    assert used(old, **both) == f"PSK_BASE64: {OLD_PSK}"
    assert used("none", **both) == used("none") == used("") == ""
    assert used(old, doorward_previous_psk=OLD_PSK) == f"PSK_BASE64: {OLD_PSK}"
    told = used(old, doorward_psk=PSK)
    assert "no key: localhost knows a pre-shared key of this controller that is neither doorward_psk nor" in told
    assert PSK not in told


def test_a_host_moves_to_a_pre_shared_key_as_long_as_it_knows_the_old_one(tmp_path: Path) -> None:
    old, new = (key_text.psk_mark(psk) for psk in (OLD_PSK, PSK))

    def planned(mark: str, **told: str) -> list[tuple[str, bool]]:
        made = make(tmp_path, check=True, host_key=HOST, known_psk=mark, **told)
        assert made["psk_mark"] == (new if "psk" in told else "none")
        assert not [psk for psk in (PSK, OLD_PSK) if psk in str(made)]
        assert made["moving"] == (len(made["stanzas"]) > 1)
        return [(each["psk"], each["leaves"]) for each in made["stanzas"]]

    both = {"psk": PSK, "previous_psk": OLD_PSK}
    assert planned(old, **both) == [("present", False), ("previous", True)]
    assert planned("none", psk=PSK) == [("present", False), ("none", True)]
    assert planned(old, previous_psk=OLD_PSK) == [("present", False), ("previous", True)]
    assert planned(new, **both) == planned("", **both) == planned("none") == [("present", False)]
    refused = make(tmp_path, check=False, host_key=HOST, known_psk=old, psk=PSK)
    assert "that is neither doorward_psk nor doorward_previous_psk" in refused["msg"]
    assert "Nothing was changed" in refused["msg"]
    assert make(tmp_path, known_psk=old, psk=PSK)["stanzas"][0]["psk"] == "present", "it does not knock yet"


@pytest.mark.parametrize("spelled", [list, " ".join])
def test_a_pair_that_a_program_prints_is_asked_for_once_a_run(tmp_path: Path, spelled: Any) -> None:
    made = make(tmp_path)
    program = tmp_path / "print"
    program.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\ncat {tmp_path}/own.key\n", encoding="utf-8")
    program.chmod(0o700)
    (tmp_path / "runs").write_text("", encoding="utf-8")
    command = spelled([str(program), "--now"])
    printed = make(tmp_path, private_key_command=command, private_key_file=str(tmp_path / "none"))
    assert printed["stanzas"] == made["stanzas"]
    assert not printed["changed"]
    (tmp_path / "runs").write_text("", encoding="utf-8")
    text = "{{ lookup('doorward.spa.key') }}{{ lookup('doorward.spa.key') }}"
    said = json.dumps({"doorward_host_key": HOST, "doorward_private_key_command": command})
    shown = ansible(tmp_path, "ansible", "localhost", "-m", "debug", "-a", f"msg={text}", "-e", said)
    assert shown.count("CLIENT_KEY_FILE: ") == 2
    assert (tmp_path / "runs").read_text(encoding="utf-8") == "run\n"
    program.chmod(0o777)
    assert "can be written by other users" in make(tmp_path, check=False, private_key_command=command)["msg"]
    program.chmod(0o700)
    program.write_text("#!/bin/sh\necho doorward1-private secret\nexit 3\n", encoding="utf-8")
    refused = make(tmp_path, check=False, private_key_command=command)
    assert "ended with 3" in refused["msg"]
    program.write_text("#!/bin/sh\necho doorward1-private secret\n", encoding="utf-8")
    refused = make(tmp_path, check=False, private_key_command=command)
    assert f"what {program} prints is no key pair" in refused["msg"]
    assert "secret" not in str(refused)


def test_the_lookup_chooses_the_format_by_what_the_inventory_has(tmp_path: Path) -> None:
    make(tmp_path, host="localhost", format="fwknop")
    symmetric = look_up(tmp_path)
    assert "\nKEY_BASE64: " in symmetric
    assert look_up(tmp_path, doorward_host_key=HOST) == symmetric, "this controller has no pair of its own"
    own = make(tmp_path, host="db")
    assert own["changed"]
    public = look_up(tmp_path, doorward_host_key=HOST)
    assert public == f"# host: localhost\nHOST_KEY: {HOST}\nCLIENT_KEY_FILE: {tmp_path}/own.key\n"
    assert look_up(tmp_path, doorward_host_key=HOST, doorward_knock_format="fwknop") == symmetric


def collect(home: Path, *options: str, check: bool = True, **arguments: object) -> dict[str, Any]:
    given = {"host": "web", "public_key": f"{HOST} web", "folder": str(home / "host_vars")}
    return module(home, "doorward.spa.host_key", *options, check=check, **{**given, **arguments})


def test_a_hosts_public_key_goes_into_the_inventory_once_and_out_again(tmp_path: Path) -> None:
    file = tmp_path / "host_vars/web/doorward.yml"
    assert collect(tmp_path, "--check")["changed"]
    for line, shown in ((f"{HOST} web", f"{HOST} web"), ("", "made on the host by the roll-out")):
        given = json.dumps({"host": "web", "public_key": line, "folder": str(file.parents[1])})
        diff = ansible(
            tmp_path, "ansible", "localhost", "-m", "doorward.spa.host_key", "-a", given, "--check", "--diff"
        )
        assert f'+doorward_host_key: "{shown}"' in diff
    assert not file.exists()
    assert [collect(tmp_path)["changed"], collect(tmp_path)["changed"]] == [True, False]
    (tmp_path / "hosts").write_text("web\n", encoding="utf-8")
    shown = ansible(tmp_path, "ansible", "-i", "hosts", "web", "-m", "debug", "-a", "var=doorward_host_key")
    assert f'"doorward_host_key": "{HOST} web"' in shown
    assert collect(tmp_path, knock_format="fwknop")["changed"]
    assert "doorward_knock_format: fwknop" in file.read_text(encoding="utf-8")
    assert [collect(tmp_path, state="absent")["changed"] for _ in range(2)] == [True, False]
    assert not file.parent.exists()


def test_marks_of_pre_shared_keys_are_kept_for_each_controller(tmp_path: Path) -> None:
    file, one, other = tmp_path / "host_vars/web/doorward.yml", key_text.psk_mark(PSK), key_text.psk_mark(OLD_PSK)
    assert "doorward_known_psk" not in (collect(tmp_path), file.read_text(encoding="utf-8"))[1]
    assert collect(tmp_path, psk_mark=one)["changed"]
    assert collect(tmp_path, psk_mark="none", controller="second")["changed"]
    assert not collect(tmp_path, psk_mark=one)["changed"]
    (tmp_path / "hosts").write_text("web\n", encoding="utf-8")

    def known() -> dict[str, str]:
        shown = ansible(tmp_path, "ansible", "-i", "hosts", "web", "-m", "debug", "-a", "var=doorward_known_psk")
        found: dict[str, str] = json.loads(shown[shown.index("=> {") + 3 :])["doorward_known_psk"]
        return found

    assert known() == {"controller": one, "second": "none"}
    collect(tmp_path, psk_mark=other)
    assert OLD_PSK not in file.read_text(encoding="utf-8")
    assert known() == {"controller": other, "second": "none"}
    collect(tmp_path, psk_mark="")  # moved to fwknop's format
    assert known() == {"second": "none"}
    for text in ('doorward_known_psk: {"a: b": none, second: "{{ x }}", third: 3}', "doorward_known_psk: {", "- x"):
        file.write_text(text, encoding="utf-8")
        collect(tmp_path, psk_mark=one)
        assert known() == {"controller": one}
        assert "{{" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "lookup('pipe', 'id')",
        f'{HOST} web"\nx: "y',
        f"{HOST} web#x",
        f"{HOST} {{x}}",
        f"{HOST}\n- x",
        "doorward1 AAAA",
    ],
)
def test_what_a_host_shows_is_no_template_of_the_controller(tmp_path: Path, line: str) -> None:
    refused = collect(tmp_path, check=False, public_key=line)
    assert refused["failed"]
    assert "is no public key" in refused["msg"]
    assert not (tmp_path / "host_vars").exists()


@pytest.mark.parametrize("name", ["web", "web.yml", "web.yaml", "web.json"])
def test_variables_that_ansible_would_not_read_any_more_are_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / "host_vars" / name
    file.parent.mkdir()
    file.write_text("{}", encoding="utf-8")
    refused = collect(tmp_path, check=False)
    assert refused["failed"]
    assert f"{file} is a file, which ansible does not read once there is a folder" in refused["msg"]
    assert file.read_text(encoding="utf-8") == "{}"


def test_an_inventory_in_no_folder_and_a_name_that_leaves_it_are_refused(tmp_path: Path) -> None:
    assert "set doorward_host_vars" in collect(tmp_path, check=False, folder="")["msg"]
    assert "cannot be the name of a host" in collect(tmp_path, check=False, host="../web")["msg"]
