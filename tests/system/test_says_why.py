"""Each cause why a host does not open is injected for real; the documentation has what client and doctor say then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system import doorwardd, says_why
from system.says_why import CAUSES, Cause, Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).parents[2] / "docs/client.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with says_why.scene(tmp_path_factory.mktemp("why")) as ready:
        yield ready


def documented() -> list[str]:
    """The rows of the table."""
    section = DOCUMENT.read_text().split("## Why a host does not open\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


def test_at_least_twelve_causes_are_told_apart_by_the_doctor() -> None:
    rows = documented()
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [cause.name for cause in CAUSES]
    assert len({row.split(" | ")[2] for row in rows}) == len(CAUSES) >= 12


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_the_cause_is_told_as_the_documentation_has_it(made: Scene, cause: Cause) -> None:
    said = made.says(cause)
    assert said.row(cause) in documented(), f"{said.doctor.stdout}{said.doctor.stderr}"
    assert said.doctor.returncode == 1
    assert "Traceback" not in said.doctor.stderr + said.client


def test_where_all_holds_the_doctor_ends_with_0_and_each_line_says_so(made: Scene) -> None:
    with doorwardd.listener(made.host):
        done = made.doorward("doctor", made.host.ipv4, "-F", "none")
        made.host.nft("flush set inet doorward open4")
        shown = made.doorward("doctor", made.host.ipv4, "-F", "none", "--json")
    made.host.nft("flush set inet doorward open4")
    states = [line.split()[:2] for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout
    assert states[0] == ["?", "ssh"]
    assert {state for state, _ in states[1:]} == {"ok"}, done.stdout
    told = json.loads(shown.stdout)
    assert told["holds"]
    assert [[each["state"], each["topic"]] for each in told["findings"]] == states


def test_without_a_knock_none_is_sent(made: Scene) -> None:
    def verdicts() -> int:
        return len(made.daemon.verdicts)

    before = verdicts()
    done = made.doorward("doctor", made.host.ipv4, "-F", "none", "--no-knock")
    assert done.returncode == 0
    assert "closed" not in done.stdout
    made.doorward("doctor", made.host.ipv4, "-F", "none")
    made.host.nft("flush set inet doorward open4")
    assert doorwardd.eventually(lambda: verdicts() > before)
    assert verdicts() == before + 1


def test_an_address_that_no_packet_can_name_is_no_reason_against_the_packet(made: Scene) -> None:
    done = made.doorward("doctor", "::1", "-F", "none", "--no-knock")
    assert "ok  packet" in done.stdout, done.stdout
    assert done.returncode == 0
    with says_why.file(made, f"{says_why.GOOD}SPOOF_USER a:b\n"):
        assert "no  packet" in made.doorward("doctor", "::1", "-F", "none", "--no-knock").stdout


def test_client_and_host_say_the_same_words_for_the_same_keys_and_show_no_key(made: Scene) -> None:
    client = made.doorward("doctor", made.host.ipv4, "-F", "none", "--no-knock").stdout
    words = doorwardd.command("check", *doorwardd.files(made.folder), "--report")
    done = made.host.run(*words, check=False, env=doorwardd.environment())
    (there,) = (line for line in done.stdout.splitlines() if line.startswith("ok  key "))
    (here,) = (line for line in client.splitlines() if line.startswith("ok  key "))
    assert here.split("  [")[0].split(maxsplit=2)[2] == there.split("  [")[0].split(": ")[1]
    for secret in (doorwardd.KEY.split()[1], doorwardd.HMAC_KEY.split()[1], "k" * 32, "h" * 64):
        assert secret not in client + done.stdout + done.stderr
    assert "ok  table   inet doorward: guard" in done.stdout, done.stdout
    assert "ok  daemon  runs" in done.stdout


def test_the_options_of_the_proxy_command_are_those_of_the_examination(made: Scene) -> None:
    command = f"doorward connect --rc-file {made.folder}/fwknoprc --service tcp/22 %h %p"
    text = f"Host web1\n  HostName {made.host.ipv4}\n  ProxyCommand {command}\n"
    config = doorwardd.write(made.folder / "ssh_config", text)
    done = made.doorward("doctor", "web1", "-F", str(config), "--no-knock")
    assert f"ok  ssh     knocks with doorward connect, at {made.host.ipv4} port 22" in done.stdout
    assert done.returncode == 0


def test_the_way_is_the_one_of_connect_with_its_own_address_and_jump_hosts(made: Scene) -> None:
    bound = made.doorward("doctor", made.host.ipv4, "-F", "none", "--no-knock", "-b", made.client.ipv4)
    assert f"ok  route   {made.host.ipv4} from {made.client.ipv4}" in bound.stdout
    lost = made.doorward("doctor", made.host.ipv4, "-F", "none", "--no-knock", "-b", "10.77.0.77")
    assert "no  route" in lost.stdout, lost.stdout
    jumped = made.doorward("doctor", made.host.ipv4, "-F", "none", "-J", "me@10.77.0.3:2222")
    assert [line.split()[:2] for line in jumped.stdout.splitlines()][-2:] == [["?", "clock"], ["no", "jump"]]
    assert "no  jump    jump host me@10.77.0.3:2222: no knock can be sent from there: " in jumped.stdout
    assert "[doorward doctor 10.77.0.3]" in jumped.stdout
    assert jumped.returncode == 1


def test_a_section_that_only_the_user_calls_so_is_named(made: Scene) -> None:
    config = doorwardd.write(made.folder / "ssh_config", f"Host web1\n  HostName {made.host.ipv4}\n")
    with says_why.file(made, f"[web1]\n{doorwardd.KEY}\n{doorwardd.HMAC_KEY}\n"):
        done = made.doorward("doctor", "web1", "-F", str(config), "--no-knock")
    assert f"[web1] is there, and ssh calls the host {made.host.ipv4}: write SPA_SERVER" in done.stdout
    assert done.returncode == 1


def test_one_who_is_ended_while_waiting_leaves_the_state_of_things(made: Scene, tmp_path: Path) -> None:
    status = tmp_path / "status"
    with says_why.wrong_key(made):
        words = ("connect", "--rc-file", f"{made.folder}/fwknoprc", "--status", str(status), made.host.ipv4, "22")
        program = (sys.executable, "-m", "doorward", *words)
        environment = doorwardd.environment()
        with made.client.process(*program, env=environment, stdin=subprocess.DEVNULL):
            assert doorwardd.eventually(lambda: "no answer yet" in status.read_text() if status.exists() else False)
    assert status.read_text() == (
        f"knocked twice as {made.client.ipv4}, no answer yet, when a signal ended the helper\n"
    )
