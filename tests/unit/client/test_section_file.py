from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from doorward.client import cli, fwknoprc, getopt, section_file
from doorward.client.profile import SourceRule
from doorward.errors import ClientError, ConfigError
from doorward.values import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEFORE = (
    b"# mine\r\n\r\n[default]\n;c\nSPOOF_USER   bob\n\n[web1] ; note\n# about web1\nACCESS tcp/80\n"
    b"KEY one\nFW_TIMEOUT 9\n\n\t[web2]\nACCESS\ttcp/443\n# end, no newline"
)


def never(question: str) -> bool:
    raise AssertionError(question)


def saved(
    path: Path, line: str, section: str = "web1", *, force: bool = False, agree: Callable[[str], bool] = never
) -> str:
    lines = section_file.settings(getopt.read(line.split()))
    section_file.change(path, section, lines, force=force, agree=agree).write()
    return path.read_text()


@pytest.fixture
def rc(tmp_path: Path) -> Path:
    path = tmp_path / "rc"
    path.write_bytes(BEFORE)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("-A tcp/22,udp/53 -D web1", "ACCESS tcp/22,udp/53|SPA_SERVER web1"),
        ("-s", "ALLOW_IP source"),
        ("-a 192.0.2.1 -f 30 -U bob", "ALLOW_IP 192.0.2.1|FW_TIMEOUT 30|SPOOF_USER bob"),
        ("-R --resolve-url https://a/,b --resolve-url c", "RESOLVE_IP_HTTPS Y|RESOLVE_URL https://a/,b,c"),
        ("--resolve-url c --resolve-dns", "RESOLVE_DNS default|RESOLVE_URL c"),
        ("--resolve-http-only", "RESOLVE_HTTP_ONLY Y|RESOLVE_IP_HTTPS Y"),
        ("-P udp -H px", "HTTP_PROXY px|SPA_SERVER_PROTO udp"),
        ("--time-offset-minus 5m", "TIME_OFFSET -5m"),
        ("--time-offset-minus -5m", "TIME_OFFSET -5m"),
        ("--time-offset-minus +5m", "TIME_OFFSET -5m"),
        ("--time-offset-plus +5m", "TIME_OFFSET 5m"),
        ("--time-offset-plus 5m", "TIME_OFFSET 5m"),
        ("-v", "VERBOSE Y"),
        ("-vv -v", "VERBOSE 3"),
        ("--NAT-access h:110 --NAT-local", "NAT_ACCESS h|NAT_LOCAL Y|NAT_PORT 110"),
        ("--nat-rand-port", "NAT_RAND_PORT Y"),
        ("--key-hmac x --hmac-digest-type sha512", "HMAC_DIGEST_TYPE sha512|HMAC_KEY x|USE_HMAC Y"),
        ("--gpg-recip A --gpg-sign B --gpg-agent", "GPG_RECIPIENT A|GPG_SIGNER B|USE_GPG Y|USE_GPG_AGENT Y"),
        ("-H px:80", "HTTP_PROXY px:80|SPA_SERVER_PROTO http"),
        ("-T -n x --save-rc-stanza -B f -l", ""),
    ],
)
def test_options_become_the_lines_that_mean_them(line: str, lines: str) -> None:
    said = section_file.settings(getopt.read(line.split()))
    assert "|".join(f"{name} {value}" for name, value in said) == lines
    assert {name for name, _ in said} <= set(fwknoprc.SETTINGS)


@pytest.mark.parametrize("value", ["Mozilla/5.0 (X11)", "a;b", "a#b", ""])
def test_what_the_file_cannot_hold_is_not_saved(value: str) -> None:
    with pytest.raises(ClientError, match="--user-agent cannot be saved"):
        section_file.settings(getopt.read(["-u", value]))


def test_comments_and_other_sections_stay_byte_for_byte(rc: Path) -> None:
    saved(rc, "-A tcp/22")
    assert (
        rc.read_bytes()
        == BEFORE.replace(b"[web1] ; note\n", b"[web1] ; note\nACCESS                      tcp/22\n").replace(
            b"ACCESS tcp/80\n", b""
        )
        + b"\n"
    )


def test_a_new_section_comes_at_the_end(rc: Path) -> None:
    saved(rc, "-A tcp/22 -D host", "host")
    assert rc.read_bytes() == BEFORE + (
        b"\n\n[host]\nACCESS                      tcp/22\nSPA_SERVER                  host\n"
    )


def test_a_missing_file_is_made_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new"
    assert saved(path, "-A tcp/22") == "[web1]\nACCESS                      tcp/22\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_could_read_is_closed_when_keys_come_in(rc: Path) -> None:
    rc.chmod(0o644)
    saved(rc, "--key-hmac x")
    assert rc.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(rc: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(rc)
    saved(link, "-A tcp/22")
    assert link.is_symlink()
    assert b"tcp/22" in rc.read_bytes()


def test_a_link_to_itself_is_told_and_stays(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ClientError, match="loop: cannot be read: Too many levels of symbolic links"):
        saved(loop, "-A tcp/22")
    assert loop.is_symlink()
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "new")
    saved(dangling, "-A tcp/22")
    assert dangling.is_symlink()
    assert "tcp/22" in (tmp_path / "new").read_text()


@pytest.mark.parametrize(("answer", "key"), [(True, b"two"), (False, b"one")])
def test_a_key_is_replaced_only_where_the_person_agrees(rc: Path, *, answer: bool, key: bytes) -> None:
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return answer

    saved(rc, "-A tcp/22 --key-rijndael two", agree=agree)
    assert asked == ["Variable 'KEY' found in stanza 'web1'. Overwrite [N/y] ? "]
    assert fwknoprc.load(rc).profile("web1").key == Secret(key)


def test_another_spelling_of_the_key_is_asked_for_too(rc: Path) -> None:
    saved(rc, "--key-base64-rijndael QUFB", agree=lambda question: "KEY" in question)
    assert fwknoprc.load(rc).profile("web1").key == Secret(b"AAA")
    assert "KEY one" not in rc.read_text()


def test_a_key_that_nothing_replaces_stays_without_a_question(rc: Path) -> None:
    saved(rc, "-A tcp/22 --key-hmac two")
    assert fwknoprc.load(rc).profile("web1").key == Secret(b"one")


def test_force_replaces_a_key_and_drops_old_lines_without_a_question(rc: Path) -> None:
    saved(rc, "-A tcp/22 --key-rijndael two", force=True)
    profile = fwknoprc.load(rc).profile("web1")
    assert profile.key == Secret(b"two")
    assert profile.timeout is None


@pytest.mark.parametrize(
    "kept",
    [
        "KEY one\nHMAC_KEY two\nUSE_HMAC Y\nHMAC_DIGEST_TYPE sha512\nENCRYPTION_MODE ctr\n",
        "KEY_FILE /keys\nHMAC_KEY_FILE /hmac-keys\n",
        "GPG_RECIPIENT a\nGPG_SIGNER b\nUSE_GPG Y\nGPG_HOMEDIR /g\nGPG_SIGNING_PW_BASE64 QUFB\n",
    ],
)
def test_force_without_a_key_deletes_no_key(rc: Path, kept: str) -> None:
    rc.write_text(f"[web1]\nFW_TIMEOUT 9\n{kept}")
    before = fwknoprc.load(rc).profile("web1")
    saved(rc, "-A tcp/22", force=True)
    assert rc.read_text() == f"[web1]\nACCESS                      tcp/22\n{kept}"
    after = fwknoprc.load(rc).profile("web1")
    assert after == before._replace(access=after.access, timeout=None)


@pytest.mark.parametrize("name", ["", " x", "a]b", "[x", "a\nKEY x", "#x", "x" * 300])
def test_what_is_no_name_is_refused(rc: Path, name: str) -> None:
    with pytest.raises(ClientError, match="no name for a section"):
        saved(rc, "-A tcp/22", name)
    assert rc.read_bytes() == BEFORE


def test_a_file_that_would_not_be_read_again_is_not_written(rc: Path) -> None:
    with pytest.raises(ConfigError, match="port 0"):
        saved(rc, "-A tcp/0")
    assert rc.read_bytes() == BEFORE


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot be read"):
        saved(tmp_path, "-A tcp/22")
    with pytest.raises(ClientError, match="nothing was changed"):
        saved(tmp_path / "missing" / "rc", "-A tcp/22")


def test_a_file_that_grows_too_large_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "rc"
    path.write_text("# a comment\n" * (fwknoprc.FILE_MAX // 12))
    with pytest.raises(ClientError, match="would exceed"):
        saved(path, "-A tcp/22 -D a.very.long.example.org", "a.very.long.example.org")


def test_what_a_killed_process_left_is_no_hindrance(rc: Path) -> None:
    left = rc.with_name(f".{rc.name}.{os.getpid()}.new")
    left.write_text("half a f")
    saved(rc, "-A tcp/22")
    assert not left.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_roots_change_leaves_the_file_to_its_owner(rc: Path) -> None:
    os.chown(rc, 12345, 12346)
    saved(rc, "-A tcp/22")
    assert (rc.stat().st_uid, rc.stat().st_gid) == (12345, 12346)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_an_owner_who_puts_a_link_in_the_new_files_place_gets_nobody_elses_file(rc: Path, tmp_path: Path) -> None:
    """The owner of the folder is as quick as can be: between writing and giving away, the new file becomes a link."""
    roots = tmp_path / "roots"
    roots.write_text("root's")
    os.chown(rc, 12345, 12346)
    swapped: list[Path] = []

    def swap(event: str, _: object) -> None:
        if event == "os.chown" and not swapped:
            fresh = rc.with_name(f".{rc.name}.{os.getpid()}.new")
            swapped.append(fresh)
            fresh.unlink()
            fresh.symlink_to(roots)

    sys.addaudithook(swap)  # there is no taking it off again: it does this once
    saved(rc, "-A tcp/22")
    assert swapped
    assert (roots.stat().st_uid, roots.stat().st_gid) == (os.geteuid(), os.getegid())


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    yield folder
    assert ctypes.CDLL(None).umount(os.fsencode(folder)) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")
def test_a_full_disk_leaves_the_old_file(tiny: Path) -> None:
    rc = tiny / "rc"
    rc.write_bytes(BEFORE)
    (tiny / "filler").write_bytes(bytes(48 * 1024))
    with pytest.raises(OSError, match="No space"):
        (tiny / "more").write_bytes(bytes(64 * 1024))  # it is full
    with pytest.raises(ClientError, match="No space left on device; nothing was changed"):
        saved(rc, "-A tcp/22")
    assert rc.read_bytes() == BEFORE
    assert sorted(path.name for path in tiny.iterdir()) == ["filler", "more", "rc"]
    (tiny / "more").unlink()
    assert "tcp/22" in saved(rc, "-A tcp/22")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_saving_and_knocking_is_one_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-A", "tcp/22", "-a", "192.0.2.1", "-D", "h.invalid", "--key-rijndael", "one", "-T"]
    assert cli.main([*words, "--save-rc-stanza", "-n", "mine"]) == 0
    assert "Message String: 192.0.2.1,tcp/22" in capsys.readouterr().out
    assert cli.main(["-n", "mine", "-T"]) == 0
    assert "Message String: 192.0.2.1,tcp/22" in capsys.readouterr().out
    assert cli.main([*words, "--save-rc-stanza"]) == 0
    assert fwknoprc.load(home / ".fwknoprc").names == ("default", "mine", "h.invalid")


def test_saving_over_a_section_keeps_what_the_command_line_does_not_say(home: Path) -> None:
    words = ["-A", "tcp/22", "-a", "192.0.2.1", "-D", "h.invalid", "--key-rijndael", "one", "--save-rc-stanza"]
    assert cli.main([*words, "-n", "mine", "-T"]) == 0
    assert cli.main(["-n", "mine", "-f", "9", "-s", "--save-rc-stanza", "-T"]) == 0
    profile = fwknoprc.load(home / ".fwknoprc").profile("mine")
    assert (profile.server, profile.timeout, profile.source) == ("h.invalid", 9, SourceRule.PACKET)
    assert profile.access is not None


def test_a_command_that_says_too_little_leaves_the_file_alone(home: Path) -> None:
    rc = home / ".fwknoprc"
    rc.write_text("[mine]\nFW_TIMEOUT 9\n")
    rc.chmod(0o600)
    assert cli.main(["-n", "mine", "-f", "8", "--save-rc-stanza"]) == 1
    assert rc.read_text() == "[mine]\nFW_TIMEOUT 9\n"


@pytest.mark.parametrize(
    "words",
    [
        "-M legacy",  # beside the HMAC key that stays
        "-Q 192.0.2.3",
        "-G /none",
        "--get-hmac-key /none",
        "-P http -H proxy.invalid -P udp",
        "--nat-local -A tcp/22,tcp/23 --nat-port 9",
        "--gpg-signer-key me",
        "-n other",  # has no key, and nobody is there to be asked
        "--ask-key --stdin",
    ],
)
def test_a_command_that_cannot_make_a_knock_changes_nothing(
    home: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[web1]\nSPA_SERVER h.invalid\nKEY abc\nHMAC_KEY def\nFW_TIMEOUT 9\n"
    (home / ".fwknoprc").write_text(text)
    (home / ".fwknoprc").chmod(0o600)
    monkeypatch.setattr("sys.stdin", None)
    with open(os.devnull) as nothing:  # noqa: PTH123  a descriptor
        before = os.dup(0)
        os.dup2(nothing.fileno(), 0)
        try:
            for force in ([], ["--force-stanza"]):
                line = ["-n", "web1", "-D", "h.invalid", "-A", "tcp/22", "-a", "192.0.2.1", *words.split(), *force]
                assert cli.main([*line, "--save-rc-stanza", "-T"]) in {1, 2, 3}
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert (home / ".fwknoprc").read_text() == text
    assert sorted(path.name for path in home.iterdir()) == [".fwknoprc"]


def test_new_keys_go_into_the_section(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-k", "--save-rc-stanza", "-n", "mine", "-A", "tcp/22", "--hmac-digest-type", "sha1"]) == 0
    assert "KEY_BASE64" not in capsys.readouterr().out
    profile = fwknoprc.load(home / ".fwknoprc").profile("mine")
    assert profile.key is not None
    assert profile.hmac_key is not None
    assert (len(profile.key), len(profile.hmac_key)) == (32, 20)
