"""`doorward init`: what is there stays as it is, and whatever fails leaves the host as it was, and open."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import segno

from doorward.config import half
from doorward.errors import FirewallError
from doorward.firewall import tools
from doorward.host import service
from system.doorwardd import eventually
from system.first_host import machines
from system.nat_lab import CARRIER, HOST
from transcript import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from system.first_host import Machine

SHOWN = "Waiting for that knock.\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    folder = tmp_path_factory.mktemp("init")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o711)
    with machines(folder) as made:
        yield made


@pytest.fixture
def host(pair: tuple[Machine, Machine]) -> Machine:
    """A host without any file of ours."""
    pair[0].run("rm -rf /etc/doorward laptop.half; nft delete table inet doorward 2>/dev/null; rm -f /run/rc")
    assert is_untouched(pair[0])
    return pair[0]


@pytest.fixture
def laptop(pair: tuple[Machine, Machine]) -> Machine:
    pair[1].run("rm -f .fwknoprc")
    return pair[1]


def is_untouched(host: Machine) -> bool:
    """Whether nothing of ours is there: no file, no daemon, no table."""
    files = host.run("ls -A /etc/doorward /root/laptop.half 2>/dev/null").split()
    return files in ([], ["/etc/doorward:"]) and not host.run("cat /run/doorward/doorwardd.pid 2>/dev/null") + (
        host.run("nft list tables")
    )


def is_open(laptop: Machine) -> bool:
    return laptop.run("ssh -o ConnectTimeout=1 web1 hostname") == "web1\n"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("mkdir /etc/doorward; echo mine > /etc/doorward/access.conf", "/etc/doorward/access.conf exists: init is for"),
        ("mkdir /etc/doorward; echo mine > /etc/doorward/firewall.nft", "/etc/doorward/firewall.nft exists: init is"),
        ("mkdir /etc/doorward; echo x > /etc/doorward/firewall.nft.confirmed", "firewall.nft.confirmed exists: init"),
        ("mkdir /etc/doorward; ln -s /nowhere /etc/doorward/access.conf", "/etc/doorward/access.conf exists: init is"),
        ("mkdir /etc/doorward; echo 'FIREWALL_MODE guard;' > /etc/doorward/doorwardd.conf", "has FIREWALL_MODE: init"),
        ("mkdir /etc/doorward; echo 'NONSENSE x;' > /etc/doorward/doorwardd.conf", "NONSENSE"),
        ("nft add table inet doorward", "there is a table inet doorward: init is for a new host"),
        ("touch laptop.half", "laptop.half exists: init is for a new host"),
    ],
)
def test_a_host_that_is_no_new_one_is_left_alone(host: Machine, before: str, words: str) -> None:
    host.run(before)
    state = (
        "grep -r . /etc/doorward; ls -lA --time-style=full-iso /etc/doorward laptop.half 2>/dev/null; nft list ruleset"
    )
    there = host.run(state)
    assert words in host.run("doorward init --client laptop --output laptop.half --wait 5s || echo failed")
    assert host.run(state) == there
    assert host.run("cat /run/doorward/doorwardd.pid 2>/dev/null") == ""


@pytest.mark.parametrize("words", ["--client ''", "--client 'a b'", "--name default", "--address -oX", "--open tcp/0"])
def test_a_name_that_nobody_could_use_is_a_sentence_and_nothing_is_made(host: Machine, words: str) -> None:
    said = host.run(f"doorward init {words} --wait 1s; echo $?")
    assert re.search(r"\n[12]\n$", said)
    assert "Traceback" not in said
    assert is_untouched(host)


def test_without_a_knock_everything_is_taken_back(host: Machine, laptop: Machine) -> None:
    said = host.run("doorward init --client laptop --output laptop.half --wait 1s; echo $?")
    assert "no knock was granted within 1 s, so nothing was closed" in said
    assert "taken back: /root/laptop.half is removed\n" in said
    assert said.endswith("\n1\n")
    assert "NOT taken back" not in said
    assert is_untouched(host)
    assert is_open(laptop)


def test_an_interruption_takes_everything_back(host: Machine) -> None:
    window = Window(host, "echo $$ > /run/init.pid; exec doorward init --client laptop")
    window.shows_after(SHOWN)
    assert not is_untouched(host)
    host.run("kill -INT $(cat /run/init.pid)")
    assert window.ends() == 130
    assert is_untouched(host)


def test_settings_that_are_there_come_back_byte_by_byte(host: Machine) -> None:
    host.run("mkdir -p /etc/doorward; printf '# mine\\nLOG_STYLE both;' > /etc/doorward/doorwardd.conf")
    window = Window(host, "echo $$ > /run/init.pid; exec doorward init --client laptop")
    window.shows_after(SHOWN)
    assert "FIREWALL_MODE observe" in host.run("cat /etc/doorward/doorwardd.conf")
    host.run("kill -INT $(cat /run/init.pid)")
    assert window.ends() == 130
    assert host.run("cat /etc/doorward/doorwardd.conf") == "# mine\nLOG_STYLE both;"


def knocked(host: Machine, laptop: Machine, options: str) -> Window:
    """A window in which init has seen the laptop's knock, after one of the host itself."""
    window = Window(host, f"echo $$ > /run/init.pid; exec doorward init --client laptop {options}")
    line = window.shows_after(SHOWN).string.splitlines()[5]
    assert half.parse(line).server == HOST
    assert "knocks at" in host.run("doorward import --rc-file /run/rc -", told=line)
    host.run("doorward knock --rc-file /run/rc -n web1")
    window.shows_after(f"a knock of laptop from this host itself ({HOST}): it proves nothing; waiting on\n")
    laptop.run("doorward import -", told=line)
    laptop.run(f"doorward learn web1 --address {CARRIER}")
    assert laptop.run("doorward knock -n web1") == ""
    window.shows_after(f"laptop has knocked: tcp/22 was granted to {CARRIER}.\n")
    return window


def test_a_table_that_nobody_confirms_opens_again_by_itself(host: Machine, laptop: Machine) -> None:
    window = knocked(host, laptop, "--deadline 6s")
    window.shows_after("firewall confirm ")
    host.run("doorward close")
    assert not is_open(laptop)
    assert window.ends() == 1
    window.shows_after("nobody has confirmed it in time: the host is open again\n")
    assert eventually(lambda: is_untouched(host))
    assert is_open(laptop)


def test_an_interruption_while_it_is_closed_opens_the_host(host: Machine, laptop: Machine) -> None:
    window = knocked(host, laptop, "--deadline 1h")
    window.shows_after("firewall confirm ")
    host.run("doorward close")
    assert not is_open(laptop)
    host.run("kill -INT $(cat /run/init.pid)")
    assert window.ends() == 130
    assert is_untouched(host)
    assert is_open(laptop)


def test_the_code_for_phones_is_the_line(host: Machine) -> None:
    said = host.run("doorward init --client phone --qr --wait 1s")
    (line,) = re.findall("^KEY_BASE64:.*$", said, re.MULTILINE)
    expected = [list(row) for row in segno.make(line, error="l", micro=False).matrix_iter(border=4)]
    assert shown(said) == [[bool(module) for module in row] for row in expected]


def shown(text: str) -> list[list[bool]]:
    """The modules of a code that is printed in half blocks, whatever the colours; dark is True."""
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in text.splitlines() if set(row) & set("\u2580\u2584\u2588")]
    light = {" ": (False, False), "\u2580": (True, False), "\u2584": (False, True), "\u2588": (True, True)}
    found = [[not light[char][half_] for char in row] for row in rows for half_ in (0, 1)]
    return found[: len(found[0])]


def test_a_unit_is_written_with_every_word_quoted_for_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    known: list[bool] = [False]

    def run(command: list[str], _seconds: float) -> str:
        calls.append(command)
        if command[1] == "cat" and not known[0]:
            message = "no such unit"
            raise FirewallError(message)
        return ""

    monkeypatch.setattr(tools, "run", run)
    monkeypatch.setattr(service, "command", lambda: ["/opt/my folder/doorwardd"])
    undone: list[Callable[[], object]] = []
    systemd = service.Systemd(["-c", "/etc/50%/$x.conf"], tmp_path)
    assert "is written, and doorwardd.service runs" in systemd.start(lambda _, call: undone.append(call))
    unit = (tmp_path / "doorwardd.service").read_text()
    assert 'ExecStart="/opt/my folder/doorwardd" -f -c /etc/50%%/$$x.conf\n' in unit
    assert (tmp_path / "doorwardd.service").stat().st_mode & 0o777 == 0o644
    assert calls[-1] == ["systemctl", "enable", "--now", "doorwardd.service"]
    for call in reversed(undone):
        call()
    assert not list(tmp_path.iterdir())
    systemd.reload()
    assert calls[-1] == ["systemctl", "reload", "doorwardd.service"]
    known[0] = True
    assert systemd.start(lambda _, __: None) == "doorwardd.service runs, now and after a reboot"
    assert not list(tmp_path.iterdir())
