from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from doorward.client import seen
from doorward.client.seen import DAY, SITE, Seen

NOW = 1_800_000_000
HOST, PUBLIC = ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("9.9.9.9")
OWN = ipaddress.ip_address("192.168.1.23")
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
"""


def entry(address: str, age: int = 0, by: str = "8.8.8.8", out: str = "w") -> Seen:
    return Seen(out, by, ipaddress.ip_address(address), NOW - age)


def known(*entries: Seen, host: str = "8.8.8.8") -> list[str]:
    return [str(each.address) for each in seen.known(entries, "w", ipaddress.ip_address(host), NOW)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state/doorward/seen"


def test_what_was_learned_is_read_again_by_nobody_but_its_owner(file: Path) -> None:
    seen.learn(file, entry("9.9.9.9"))
    assert seen.load(file) == ([entry("9.9.9.9")], "")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(file.parent.iterdir()) == [file]


def test_a_host_that_sees_another_address_keeps_the_last_three_and_the_newest_comes_first(file: Path) -> None:
    for age, address in ((9, "9.9.9.1"), (8, "9.9.9.2"), (7, "9.9.9.3"), (6, "9.9.9.4"), (5, "9.9.9.3")):
        seen.learn(file, entry(address, age))
        seen.learn(file, entry(address, age, by=SITE, out="other"))
    assert known(*seen.load(file)[0]) == ["9.9.9.3", "9.9.9.4", "9.9.9.2"]


def test_the_file_does_not_grow_without_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "LINES_MAX", 2)
    for number in range(4):
        seen.learn(file, entry("9.9.9.9", out=str(number)))
    assert [each.way for each in seen.load(file)[0]] == ["3", "2"]


def test_what_a_host_saw_counts_at_that_host_alone_and_what_a_site_told_everywhere() -> None:
    entries = entry("9.9.9.1"), entry("9.9.9.2", by="8.8.4.4"), entry("9.9.9.3", by=SITE)
    assert known(*entries) == ["9.9.9.1", "9.9.9.3"]
    assert known(*entries, host="8.8.4.4") == ["9.9.9.2", "9.9.9.3"]
    assert known(*entries, host="1.1.1.1") == ["9.9.9.3"]


@pytest.mark.parametrize(
    "useless",
    [
        entry("9.9.9.9", out="another way"),
        entry("9.9.9.9", age=91 * DAY),
        entry("9.9.9.9", age=-2 * DAY),
        entry("10.0.0.4"),
        entry("127.0.0.1"),
        entry("2600::1"),
    ],
)
def test_what_is_old_or_impossible_or_of_another_way_out_does_not_count(useless: Seen) -> None:
    assert known(useless) == []
    assert known(useless, entry("9.9.9.9", age=DAY)) == ["9.9.9.9"]


def test_old_lines_go_when_something_is_learned(file: Path) -> None:
    seen.learn(file, entry("9.9.9.9", age=200 * DAY))
    seen.learn(file, entry("9.9.9.8"))
    assert seen.load(file)[0] == [entry("9.9.9.8")]


@pytest.mark.parametrize(
    "row",
    [
        "",
        "x",
        "w 8.8.8.8 9.9.9.9",
        "w 8.8.8.8 9.9.9.9 x",
        "w nobody 9.9.9.9 1",
        "w 8.8.8.8 9.9.9 1",
        "\x00 \xff é 1",
        "a b c d e",
    ],
)
def test_a_damaged_line_is_told_and_goes_with_the_next_learning(file: Path, row: str) -> None:
    seen.learn(file, entry("9.9.9.9"))
    with file.open("a") as stream:
        stream.write(f"{row}\n")
    assert seen.load(file) == ([entry("9.9.9.9")], f"1 of the lines of {file} are damaged and not used")
    seen.learn(file, entry("9.9.9.8"))
    assert seen.load(file)[1] == ""


def test_a_file_that_others_can_write_counts_for_nothing(file: Path) -> None:
    seen.learn(file, entry("9.9.9.9"))
    for mode in (0o620, 0o602):
        file.chmod(mode)
        assert seen.load(file) == ([], f"{file} is not used: others can write it (mode 0{mode:o})")
    file.chmod(0o644)
    assert seen.load(file) == ([entry("9.9.9.9")], "")


def test_a_file_of_another_user_counts_for_nothing_and_stays(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen.learn(file, entry("9.9.9.9"))
    there = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: there + 1)
    assert seen.load(file) == ([], f"{file} is not used: it is another user's")
    with pytest.raises(PermissionError, match="others can write the folder"):
        seen.learn(file, entry("9.9.9.8"))
    monkeypatch.undo()
    assert seen.load(file)[0] == [entry("9.9.9.9")]


def test_a_folder_that_others_can_write_gets_nothing(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="others can write the folder"):
        seen.learn(file, entry("9.9.9.9"))


def test_a_link_a_pipe_and_a_huge_file_count_for_nothing(file: Path, tmp_path: Path) -> None:
    seen.learn(file, entry("9.9.9.9"))
    link, pipe, huge = (tmp_path / name for name in ("link", "pipe", "huge"))
    link.symlink_to(file)
    os.mkfifo(pipe, 0o600)
    huge.write_bytes(bytes(seen.FILE_MAX + 1))
    huge.chmod(0o600)
    told = [seen.load(path) for path in (link, pipe, huge)]
    assert [entries for entries, _ in told] == [[], [], []]
    assert "symbolic links" in told[0][1]
    assert told[1][1].endswith("it is no file")
    assert told[2][1].endswith(f"it exceeds {seen.FILE_MAX} bytes")


def test_no_file_is_no_complaint(file: Path) -> None:
    assert seen.load(file) == ([], "")
    assert seen.load(Path("/dev/null/doorward/seen")) == ([], "")


def test_the_file_is_in_the_state_home_and_a_relative_one_is_none() -> None:
    home = Path("/home/alice")
    assert seen.path({}, home) == home / ".local/state/doorward/seen"
    assert seen.path({"XDG_STATE_HOME": "/var/alice"}, home) == Path("/var/alice/doorward/seen")
    assert seen.path({"XDG_STATE_HOME": "here"}, home) == home / ".local/state/doorward/seen"


def test_a_way_out_is_named_by_network_and_gateway_and_whether_the_host_is_public(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(ROUTES)
    lease = ipaddress.ip_address("192.168.1.77")
    way = seen.way(OWN, HOST, table)
    assert way == seen.way(lease, HOST, table) == "public,c0a801,0101A8C0"
    others = [
        seen.way(OWN, ipaddress.ip_address("10.0.0.5"), table),
        seen.way(ipaddress.ip_address("192.168.2.23"), HOST, table),
        seen.way(OWN, HOST, tmp_path / "none"),
        seen.way(ipaddress.ip_address("fd77::1"), HOST, table),
    ]
    assert len({way, *others}) == 5


@pytest.mark.parametrize("table", ["", "x\ny\n", "h\na 00000000 b zz\n", "h\nlo 00000000 0 0001 0 0 x\n"])
def test_a_table_of_routes_that_cannot_be_read_names_no_gateway(tmp_path: Path, table: str) -> None:
    (tmp_path / "route").write_text(table)
    assert seen.way(OWN, HOST, tmp_path / "route").endswith(",-")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "just now"), (59, "just now"), (60, "1 min ago"), (7300, "2 h ago"), (9 * DAY, "9 d ago")],
)
def test_an_age_has_one_unit(seconds: float, words: str) -> None:
    assert seen.age(seconds) == words
