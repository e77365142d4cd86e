"""Every program that a person types, against a hidden host: the table of docs/client.md, a row a test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system import doorwardd, everywhere
from system.doorwardd import eventually
from system.everywhere import CLIENT, DEEPER, INNER, INSIDE, PLAIN, WEB1, Place
from unit.collection_plugins import COLLECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with everywhere.place(tmp_path_factory.mktemp("everywhere")) as made:
        yield made


@pytest.fixture
def lab(shared: Place) -> Iterator[Place]:
    """The lab with everything closed: neither an outsider nor the client without a knock sees the host."""
    shared.forget()
    assert not shared.sees(shared.outsider)
    yield shared
    assert not shared.sees(shared.outsider)


def granted(lab: Place, name: str = "web1") -> str:
    """The last line of a host about a knock."""
    return lab.daemons[name].verdicts[-1]


def test_ssh_gets_in_by_a_name_that_a_hostname_line_replaces(lab: Place) -> None:
    lab.configure(lab.block("web1"))
    done = lab.ssh("web1", "echo", "inside")
    assert done.stdout == "inside\n", done.stderr
    assert f"source={CLIENT} " in granted(lab)


def test_without_fdpass_the_bytes_are_relayed(lab: Place) -> None:
    lab.configure(lab.block("--no-fdpass", "web1"))
    done = lab.ssh("web1", "echo", "inside")
    assert done.stdout == "inside\n", done.stderr


@pytest.mark.parametrize("flags", [["-4"], ["-b", CLIENT], ["-B", "eth0"], ["-o", "AddressFamily=inet"]], ids=" ".join)
def test_what_ssh_was_told_about_its_way_is_followed(lab: Place, flags: list[str]) -> None:
    lab.client.run("ip", "addr", "add", "10.77.0.99/24", "dev", "eth0")
    lab.configure(lab.block("web1"))
    done = lab.ssh(*flags, "web1", "echo", "$SSH_CONNECTION")
    lab.client.run("ip", "addr", "del", "10.77.0.99/24", "dev", "eth0")
    assert done.stdout.startswith(f"{CLIENT} "), done.stderr


def test_another_address_of_this_machine_is_asked_for_and_used(lab: Place) -> None:
    lab.client.run("ip", "addr", "add", "10.77.0.99/24", "dev", "eth0")
    lab.configure(lab.block("web1"))
    done = lab.ssh("-b", "10.77.0.99", "web1", "echo", "$SSH_CONNECTION")
    lab.client.run("ip", "addr", "del", "10.77.0.99/24", "dev", "eth0")
    assert done.stdout.startswith("10.77.0.99 "), done.stderr
    assert "source=10.77.0.99 " in granted(lab)


def test_ipv6_alone_is_followed(lab: Place) -> None:
    (lab.folder / "hosts").write_text("")
    lab.configure("Host web1\n    HostName fd77::1\n", lab.block("web1"))
    done = lab.ssh("-6", "web1", "echo", "inside")
    refused = lab.ssh("-4", "web1", "echo", "inside")
    assert done.stdout == "inside\n", done.stderr
    assert "IPv4 alone" in refused.stderr


def test_a_hidden_bastion_with_a_plain_host_behind_it(lab: Place) -> None:
    lab.configure(lab.block("web1"))
    done = lab.ssh("-J", "web1", "plain", "echo", "$SSH_CONNECTION")
    assert done.stdout.startswith(everywhere.BESIDE), done.stderr


def test_a_hidden_host_behind_a_hidden_bastion(lab: Place) -> None:
    assert not lab.sees(lab.hosts["web1"], everywhere.INNER)
    lab.configure(lab.block("web1"), lab.block("--jump", "web1", "inner"))
    done = lab.ssh("inner", "echo", "$SSH_CONNECTION")
    assert done.stdout.startswith(f"{INSIDE} "), done.stderr
    assert f"source={INSIDE} " in granted(lab, "inner")


def test_two_hidden_bastions_in_a_row(lab: Place) -> None:
    lab.configure(lab.block("web1"), lab.block("--jump", "web1,10.81.0.2", "deep"))
    done = lab.ssh("deep", "echo", "$SSH_CONNECTION")
    assert done.stdout.startswith(f"{DEEPER} "), done.stderr
    assert f"source={DEEPER} " in granted(lab, "deep")


def test_connect_goes_through_a_jump_host_by_itself(lab: Place) -> None:
    lab.configure(lab.block("web1"))
    done = lab.doorward("connect", "--ssh", f"ssh -F {lab.folder}/config", "-J", "web1", everywhere.INNER, "22")
    assert done.stdout.startswith("SSH-2.0-"), done.stderr


def test_scp_sftp_rsync_and_git_get_in(lab: Place) -> None:
    config = lab.configure(lab.block("web1"))
    sent, got = lab.folder / "sent", lab.folder / "got"
    sent.write_bytes(os.urandom(100_000))
    for words in (
        ["scp", "-q", "-F", config, str(sent), f"web1:{got}"],
        ["sftp", "-q", "-F", config, "-b", "-", "web1"],
        ["rsync", "-e", f"ssh -F {config}", str(sent), f"web1:{got}"],
    ):
        got.unlink(missing_ok=True)
        lab.forget()
        done = lab.run(*words, told=f"put {sent} {got}\n" if words[0] == "sftp" else "")
        assert done.returncode == 0, done.stderr
        assert got.read_bytes() == sent.read_bytes()


def test_git_gets_in(lab: Place) -> None:
    config = lab.configure(lab.block("web1"))
    there, here = lab.folder / "there.git", lab.folder / "here"
    subprocess.run(["git", "init", "-q", "--bare", str(there)], check=True)
    done = lab.run("env", f"GIT_SSH_COMMAND=ssh -F {config}", "git", "clone", "-q", f"web1:{there}", str(here))
    assert done.returncode == 0, done.stderr
    assert (here / ".git").is_dir()


def test_a_second_session_over_a_control_master_needs_no_knock(lab: Place) -> None:
    lab.configure(lab.block("web1"))
    control = ["-o", "ControlMaster=auto", "-o", f"ControlPath={lab.folder}/mux", "-o", "ControlPersist=20"]
    before = lab.knocks("web1")
    first = lab.ssh(*control, "web1", "echo", "first")
    assert lab.comes_to(before + 1, "web1")
    lab.hosts["web1"].nft("flush set inet doorward open4")
    second = lab.ssh(*control, "web1", "echo", "second")
    lab.ssh(*control, "-O", "exit", "web1")
    assert (first.stdout, second.stdout) == ("first\n", "second\n")
    assert lab.knocks("web1") == before + 1


def test_a_port_is_forwarded_with_a_knock_for_each_connection(lab: Place) -> None:
    with forwarded(lab, f"{WEB1}:22") as port:
        for _ in range(2):
            lab.forget()
            before = lab.knocks("web1")
            assert banner(lab, port).startswith(b"SSH-2.0-")
            assert lab.comes_to(before + 1, "web1")


def test_a_port_is_forwarded_through_a_jump_host(lab: Place) -> None:
    config = lab.configure(lab.block("web1"))
    with forwarded(lab, f"{INNER}:22", "-J", "web1", "--ssh", f"ssh -F {config}") as port:
        assert banner(lab, port).startswith(b"SSH-2.0-")
    assert f"source={INSIDE} " in granted(lab, "inner")


@contextlib.contextmanager
def forwarded(lab: Place, to: str, *options: str) -> Iterator[int]:
    """Run `doorward forward` at the client, at a port that the system chooses."""
    words = [sys.executable, "-m", "doorward", "forward", *options, "0", to]
    with lab.client.process(*words, env=lab.environment()) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(r"127\.0\.0\.1 port (\d+) leads to \S+ port \d+\n", said)
        assert found is not None, said
        yield int(found[1])


def banner(lab: Place, port: int) -> bytes:
    """The first bytes from a port of the client's loopback."""
    with lab.client.inside():
        dialler = socket.socket()
    with dialler:
        dialler.settimeout(20)
        dialler.connect(("127.0.0.1", port))
        return dialler.recv(100)


def test_nothing_is_forwarded_for_other_machines(lab: Place) -> None:
    done = lab.doorward("forward", "0.0.0.0:2222", f"{WEB1}:22")
    assert "is no address of this machine alone" in done.stderr


def test_mosh_gets_in_over_a_range_of_ports_that_one_knock_opens(lab: Place) -> None:
    config = lab.configure(lab.block("web1"))
    own = [sys.executable, "-m", "doorward", "mosh", "--ssh", f"ssh -F {config}"]
    words = ["env", "LC_ALL=C.UTF-8", "TERM=xterm", *own, "web1", "--", "sh", "-c", "echo inside; sleep 1"]
    done = lab.run("script", "-qec", f"stty rows 24 cols 80; {shlex.join(words)}", "/dev/null")
    assert "inside" in done.stdout, done.stdout + done.stderr
    knocked = next(line for line in reversed(lab.daemons["web1"].verdicts) if "udp/60000" in line)
    assert "udp/60010" in knocked
    assert "reason=granted" in knocked


def test_a_proxy_jump_of_ssh_config_is_followed_by_the_plugin_and_none_is_no_proxy(lab: Place) -> None:
    block = f"Host {INNER}\n    ProxyJump web1\n"
    lab.configure(lab.block("web1"), block)
    shown = by_ansible(lab, {INNER: {"ansible_ssh_extra_args": "-o ProxyCommand=none"}})
    assert "rc=0" in shown, shown
    assert f"source={INSIDE} " in granted(lab, "inner")


def test_hosts_behind_a_bastion_of_the_inventory_share_its_connection(lab: Place) -> None:
    lab.configure()
    before = lab.knocks("web1")
    jump = {"ansible_spa_jump": "web1"}
    plain = {"ansible_spa_key": "", "ansible_host": PLAIN}
    hosts = {"web1": {"ansible_host": WEB1}, "inner": {"ansible_host": INNER, **jump}, "plain": {**plain, **jump}}
    shown = by_ansible(lab, hosts, "inner,plain")
    assert shown.count("rc=0") == 2, shown
    assert f"source={INSIDE} " in granted(lab, "inner")
    assert lab.comes_to(before + 1, "web1")


def test_a_host_behind_two_bastions_of_the_inventory(lab: Place) -> None:
    lab.configure()
    hosts = {
        "web1": {"ansible_host": WEB1},
        "inner": {"ansible_host": INNER, "ansible_spa_jump": "web1"},
        "deep": {"ansible_host": everywhere.DEEP, "ansible_spa_jump": "inner"},
    }
    shown = by_ansible(lab, hosts, "deep")
    assert "rc=0" in shown, shown
    assert f"source={DEEPER} " in granted(lab, "deep")


def test_a_host_behind_a_gateway_that_forwards(lab: Place) -> None:
    lab.configure()
    nat = {"ansible_host": WEB1, "ansible_port": "2222", "ansible_spa_nat": f"{PLAIN}:22"}
    shown = by_ansible(lab, {"plain": nat})
    assert "rc=0" in shown, shown
    assert "reason=granted" in granted(lab)
    lab.forget()
    lab.configure(lab.block("-N", f"{PLAIN}:22", "web1"))
    done = lab.ssh("-p", "2222", "web1", "echo", "inside")
    assert done.stdout == "inside\n", done.stderr


def test_the_knock_action_knocks_from_the_bastion(lab: Place) -> None:
    lab.configure()
    hosts = {"web1": {"ansible_host": WEB1}, "inner": {"ansible_host": INNER, "ansible_spa_jump": "web1"}}
    before = lab.knocks("inner")
    shown = by_ansible(lab, hosts, "inner", "doorward.spa.knock")
    assert "SUCCESS" in shown or "CHANGED" in shown, shown
    assert lab.comes_to(before + 1, "inner")
    assert f"source={INSIDE} " in granted(lab, "inner")


SILENCE = """\
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        return {"is_silent": self._connection.spa_is_silent_behind_the_jump()}
"""


def test_the_proof_of_silence_behind_a_bastion_is_about_the_place_where_ssh_goes(lab: Place) -> None:
    """Address and port stand in ssh_config alone, and the bastion knows none of the names."""
    places = {"shut": f"{INNER}\n    Port 22", "open": f"{PLAIN}\n    Port 22", "refused": f"{PLAIN}\n    Port 2222"}
    lab.configure(*(f"Host {name}\n    HostName {place}\n" for name, place in places.items()))
    (lab.folder / "silence.py").write_text(SILENCE)
    hosts = {"web1": {"ansible_host": WEB1}, **{name: {"ansible_spa_jump": "web1"} for name in places}}
    shown = by_ansible(lab, hosts, ",".join(places), "silence")
    said = dict(re.findall(r'^(\w+) \| SUCCESS => \{[^}]*"is_silent": (true|false)', shown, re.MULTILINE))
    assert said == {"shut": "true", "open": "false"}, shown
    assert "refused | UNREACHABLE" in shown
    assert f"cannot be seen from the jump host: doorward: {PLAIN} port 2222: " in shown


def test_a_bastion_that_is_too_slow_proves_no_silence(lab: Place) -> None:
    """An open host is as silent behind it as a closed one."""
    lab.configure(f"Host open\n    HostName {PLAIN}\n")
    (lab.folder / "silence.py").write_text(SILENCE)
    (lab.folder / "slow").mkdir()
    (lab.folder / "slow/ssh").write_text('#!/bin/sh\ncase $* in *-W*) exec sleep 600 ;; esac\nexec /usr/bin/ssh "$@"\n')
    (lab.folder / "slow/ssh").chmod(0o755)
    hosts = {"web1": {"ansible_host": WEB1}, "open": {"ansible_spa_jump": "web1"}}
    asked = (lab, hosts, "open", "silence")
    assert '"is_silent": false' in by_ansible(*asked)
    slow = by_ansible(*asked, PATH=f"{lab.folder}/slow:{os.environ['PATH']}", ANSIBLE_TIMEOUT="4")
    assert "is_silent" not in slow
    assert "the jump host does not answer in time, so that silence behind it would prove nothing" in slow


def by_ansible(
    lab: Place, hosts: dict[str, dict[str, str]], which: str = "all", module: str = "raw", **environ: str
) -> str:
    """Run a command at hosts through the connection plugin."""
    key = f"{doorwardd.KEY}\n{doorwardd.HMAC_KEY}\n"
    common = {
        "ansible_connection": "doorward.spa.ssh",
        "ansible_spa_key": key,
        "ansible_user": "root",
        "ansible_ssh_args": f"-F {lab.folder}/config",
    }
    inventory = {"all": {"hosts": {name: {**common, **said} for name, said in hosts.items()}}}
    (lab.folder / "hosts.json").write_text(json.dumps(inventory))
    program = str(Path(sys.executable).parent / "ansible")
    more = {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_HOME": f"{lab.folder}/.ansible", "LC_ALL": "C.UTF-8"}
    more["ANSIBLE_TIMEOUT"] = "60"  # two bastions are ten processes, one after the other
    more["ANSIBLE_ACTION_PLUGINS"] = str(lab.folder)
    words = [program, "-i", str(lab.folder / "hosts.json"), which, "-m", module]
    words += ["-a", "echo inside"] if module == "raw" else []
    done = lab.client.run(*words, check=False, env={**lab.environment(), **more, **environ})
    return done.stdout + done.stderr


def test_a_bastion_that_dies_in_the_middle_is_told_in_one_sentence(lab: Place) -> None:
    """The connection to it ends between the program's answer and the connection behind it."""
    config = lab.configure(lab.block("web1"))
    (lab.folder / "dying").write_text(
        f"#!/bin/sh\ncase $* in *-W*) exec ssh -F {config} web1 'kill -9 $PPID' ;; esac\nexec ssh -F {config} \"$@\"\n"
    )
    (lab.folder / "dying").chmod(0o755)
    for command in (f"{lab.folder}/dying", f"{lab.folder}/nothing", "false"):
        done = lab.doorward("connect", "--timeout", "5", "--ssh", command, "-J", "web1", INNER, "22")
        assert done.returncode == 1
        assert done.stderr.startswith(f"doorward: {INNER} port 22: "), done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr


def test_a_bastion_that_says_nothing_in_time_is_told_apart_from_one_that_ends(lab: Place) -> None:
    stuck, ended = (
        lab.doorward("connect", "--timeout", "2", "--ssh", command, "-J", "web1", INNER, "22").stderr
        for command in ("sh -c 'exec sleep 600'", "false")
    )
    assert stuck == f"doorward: {INNER} port 22: jump host web1: no word from there in 2 s\n"
    assert ended == f"doorward: {INNER} port 22: jump host web1: no knock can be sent from there\n"


def test_a_closed_host_behind_a_bastion_is_told_with_the_knocks_and_as_whom(lab: Place) -> None:
    config = lab.configure(lab.block("web1"))
    wrong = doorwardd.write(lab.folder / "wrong", everywhere.RC.replace("aGho", "aaaa"))
    words = ("--rc-file", str(wrong), "--timeout", "3", "--ssh", f"ssh -F {config}", "-J", "web1", INNER, "22")
    done = lab.doorward("connect", *words)
    assert re.fullmatch(
        rf"doorward: {INNER} port 22: closed after \d knocks? from jump host web1 as {INSIDE}: key\? clock\?\n",
        done.stderr,
    ), done.stderr


def doctor(lab: Place, host: str, *words: str) -> tuple[int, dict[str, str]]:
    """The exit code of the doctor for a host behind web1, and its lines by their topic, without the commands."""
    config = lab.configure(lab.block("web1"))
    done = lab.doorward("doctor", "-F", config, "--ssh", f"ssh -F {config}", "-J", "web1", *words, host)
    lines = [re.sub(r"  \[[^]]*]$", "", line).split(maxsplit=2) for line in done.stdout.splitlines()]
    return done.returncode, {topic: f"{state} {text}" for state, topic, text in lines}


def test_the_doctor_follows_a_knock_through_a_jump_host(lab: Place) -> None:
    code, told = doctor(lab, INNER)
    assert told["jump"] == f"ok through web1, which reaches the host at {INNER}"
    assert told["source"] == f"ok {INSIDE}: the address that web1 has towards the host"
    assert told["closed"] == "ok tcp/22 does not answer web1 before the knock"
    assert told["port"].startswith("ok tcp/22 opened: SSH-2.0-")
    assert code == 0
    assert f"source={INSIDE} " in granted(lab, "inner")


def test_the_doctor_tells_what_is_wrong_behind_a_jump_host(lab: Place) -> None:
    wrong = doorwardd.write(lab.folder / "wrong", everywhere.RC.replace("aGho", "aaaa"))
    code, told = doctor(lab, INNER, "--rc-file", str(wrong), "--timeout", "3")
    assert re.fullmatch(rf"no closed after \d knocks? from jump host web1 as {INSIDE}: key\? clock\?", told["port"])
    assert code == 1
    code, told = doctor(lab, PLAIN)
    assert told["closed"] == "? tcp/22 is open before the knock: not hidden, or by an earlier knock"
    code, told = doctor(lab, PLAIN, "--port", "2222", "--source", CLIENT)
    assert (
        told["source"] == f"? {CLIENT}, as ALLOW_IP or --source has it; web1 has {everywhere.BESIDE} towards the host"
    )
    assert told["closed"].startswith(f"? jump host web1 does not get through to {PLAIN} port 2222: ")
    assert told["port"].startswith("no ")
    assert code == 1


def test_the_doctor_connects_to_no_jump_host_without_a_knock(lab: Place) -> None:
    before = [len(daemon.verdicts) for daemon in lab.daemons.values()]
    code, told = doctor(lab, INNER, "--no-knock")
    assert told["jump"] == "? through web1, where nothing is tried without a knock"
    assert code == 0
    assert [len(daemon.verdicts) for daemon in lab.daemons.values()] == before


def test_without_a_key_a_hidden_host_is_silent_for_its_bastion_and_a_plain_one_answers(lab: Place) -> None:
    config = lab.configure(lab.block("web1"))
    blank = doorwardd.write(lab.folder / "blank", "[default]\n")
    words = ("--rc-file", str(blank), "--timeout", "3", "--ssh", f"ssh -F {config}", "-J", "web1")
    assert lab.doorward("connect", *words, PLAIN, "22").stdout.startswith("SSH-2.0-")
    done = lab.doorward("connect", *words, INNER, "22")
    assert f"{INNER} port 22: no answer through jump host web1" in done.stderr


def test_no_key_and_no_packet_is_in_a_command_line_of_a_jump(lab: Place) -> None:
    """Looked at while the program runs on the jump host; namespaces share one list of processes."""
    config = lab.configure(lab.block("web1"))
    wrong = doorwardd.write(lab.folder / "wrong", everywhere.RC.replace("aGho", "aaaa"))
    secrets = [line.split()[1] for line in wrong.read_text().splitlines()[1:]]
    words = ("--rc-file", str(wrong), "--timeout", "4", "--ssh", f"ssh -F {config}", "-J", "web1", INNER, "22")
    command = [sys.executable, "-m", "doorward", "connect", *words]
    before = len(lab.daemons["inner"].lines)
    seen: list[str] = []

    def runs() -> bool:
        seen.append(arguments())
        return "doorward-jump" in seen[-1]

    with lab.client.process(*command, env=lab.environment(), stdin=subprocess.DEVNULL):
        assert eventually(runs)
        assert eventually(lambda: len(lab.daemons["inner"].lines) > before)
    shown = "".join([*seen, arguments()])
    assert not [secret for secret in secrets if secret in shown]


def arguments() -> str:
    """The command lines of all processes, with their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += [(process / name).read_bytes().decode("utf-8", "replace") for name in ("cmdline", "environ")]
    return "\0".join(found)


def test_each_row_of_the_pages_table_is_a_test() -> None:
    page = (Path(__file__).parents[2] / "docs/client.md").read_text()
    rows = re.findall(r"^\|.*\| `(test_\w+)` \|$", page, re.MULTILINE)
    assert len(rows) > 10
    assert [name for name in rows if name not in globals()] == []
