"""What access.conf includes, and how the answers travel from who may read to who may not."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.config import access, files, reader
from doorward.config.files import Disk, Files, Question, Recorder
from doorward.config.settings import DaemonSettings
from doorward.errors import ConfigError, HelperError

if TYPE_CHECKING:
    from doorward.config.access import Access

KEYS = "KEY_BASE64 {}\nHMAC_KEY_BASE64 {}\n".format(*(base64.b64encode(c * 32).decode() for c in (b"k", b"h")))


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        access.load(path)
    return [str(problem).replace(str(path.parent), "") for problem in raised.value.problems]


def sources(read: Access) -> list[str]:
    return [str(stanza.source) for stanza in read.stanzas]


def test_included_stanzas_stand_where_they_are_included_and_the_stanza_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "b.conf", f"SOURCE 10.0.0.2\n{KEYS}")
    text = f"SOURCE 10.0.0.1\n%include b.conf\n{KEYS}OPEN_PORTS tcp/22\nSOURCE 10.0.0.3\n{KEYS}"
    read = access.load(write(tmp_path / "access.conf", text))
    assert sources(read) == ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"]
    assert [stanza.open_ports is None for stanza in read.stanzas] == [False, True, True]
    assert read.stanzas[1].path == str(tmp_path / "b.conf")


def test_a_folder_is_read_by_name_and_only_its_conf_files(tmp_path: Path) -> None:
    for name in ("b.conf", "a.conf", "c.conf~", "d.config", ".e.conf", "f.CONF"):
        write(tmp_path / "d" / name, f"SOURCE 10.0.0.{ord(name[0]) % 100}\n{KEYS}")
    read = access.load(write(tmp_path / "access.conf", "%include_folder d\n"))
    assert sources(read) == ["10.0.0.97/32", "10.0.0.98/32"]
    folder = access.load_configured(DaemonSettings(access_folder=tmp_path / "d"), Disk())
    assert sources(folder) == sources(read)


def test_a_folder_without_stanzas_is_a_warning_beside_others(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    read = access.load(write(tmp_path / "access.conf", f"%include_folder d\nSOURCE ANY\n{KEYS}"))
    assert f"{tmp_path}/access.conf:1: {tmp_path}/d has no *.conf" in read.warnings
    assert problems(write(tmp_path / "access.conf", "%include_folder d\n")) == [
        "/access.conf: has no stanza: nobody could get in"
    ]


def test_a_key_file_fills_the_stanza_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "k", KEYS)
    read = access.load(write(tmp_path / "access.conf", "SOURCE ANY\n%include_keys k\nOPEN_PORTS tcp/22\n"))
    assert read.stanzas[0].keys is not None
    assert read.stanzas[0].open_ports is not None


def test_mistakes_in_other_files_have_their_own_path_and_line(tmp_path: Path) -> None:
    write(tmp_path / "k", f"# mine\nOPEN_PORTS tcp/1\n{KEYS}")
    write(tmp_path / "b.conf", "KEY abc\n")
    said = problems(write(tmp_path / "access.conf", "SOURCE ANY\n%include_keys k\n%include b.conf\n%include_keys k\n"))
    assert "/k:2: OPEN_PORTS is no key: %include_keys takes KEY*, HMAC_KEY* and GPG_*" in said
    assert "/b.conf:1: KEY stands before the first SOURCE" in said
    assert "/k:3: KEY_BASE64: already set in line 3" in said
    assert problems(write(tmp_path / "access.conf", "%include_keys k\n"))[0] == (
        "/access.conf:1: %include_keys stands before the first SOURCE"
    )


@pytest.mark.parametrize("directive", ["%include", "%include_folder", "%include_keys"])
def test_what_cannot_be_read_is_a_problem_of_the_line_that_names_it(tmp_path: Path, directive: str) -> None:
    said = problems(write(tmp_path / "access.conf", f"SOURCE ANY\n{KEYS}{directive} nothing\n"))
    assert said == [f"/access.conf:4: {directive}: /nothing: cannot be read: No such file or directory"]


def test_an_included_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "b.conf", f"SOURCE ANY\n{KEYS}", 0o644)
    (said,) = problems(write(tmp_path / "access.conf", "%include b.conf\n"))
    assert "holds keys and has mode 0644" in said


def test_loops_and_depth_are_problems(tmp_path: Path) -> None:
    own = problems(write(tmp_path / "access.conf", "%include access.conf\n"))
    assert own == ["/access.conf:1: %include: /access.conf includes itself"]
    for one, next_one in (("access.conf", "b.conf"), ("b.conf", "c.conf"), ("c.conf", "d.conf")):
        write(tmp_path / one, f"SOURCE ANY\n{KEYS}%include {next_one}\n")
    write(tmp_path / "d.conf", f"SOURCE ANY\n{KEYS}")
    assert problems(tmp_path / "access.conf") == ["/c.conf:4: %include: files within files, deeper than 3"]
    write(tmp_path / "c.conf", f"SOURCE ANY\n{KEYS}")
    assert len(access.load(tmp_path / "access.conf").stanzas) == 3


def test_files_that_include_each_other_many_times_end_soon(tmp_path: Path) -> None:
    write(tmp_path / "c.conf", "# nothing\n")
    write(tmp_path / "b.conf", "%include c.conf\n" * 2000)
    (said,) = [
        one for one in problems(write(tmp_path / "access.conf", "%include b.conf\n" * 2000)) if "first" not in one
    ][:1]
    assert "more than 10000 files" in said


def keyring(folder: Path) -> Path:
    write(folder / "pubring.kbx", "public", 0o644)
    write(folder / "trustdb.gpg", "trust")
    write(folder / "gpg.conf", "keyserver-options auto-key-retrieve")
    write(folder / "private-keys-v1.d" / "AB.key", "secret")
    return folder


GPG = "SOURCE ANY\nGPG_DECRYPT_ID AABBCCDD\nGPG_ALLOW_NO_PW Y\nGPG_REMOTE_ID 11223344\nGPG_HOME_DIR {}\n"


def test_a_keyring_is_taken_without_gpgs_settings(tmp_path: Path) -> None:
    home = keyring(tmp_path / "home")
    read = access.load(write(tmp_path / "access.conf", GPG.format(home)))
    assert list(read.homes) == [home]
    with tarfile.open(fileobj=io.BytesIO(read.homes[home])) as archive:
        assert archive.getnames() == ["pubring.kbx", "trustdb.gpg", "private-keys-v1.d/AB.key"]


def test_a_keyring_that_is_none_or_that_others_can_read_is_refused(tmp_path: Path) -> None:
    home = keyring(tmp_path / "home")
    path = write(tmp_path / "access.conf", GPG.format(home))
    (home / "private-keys-v1.d" / "AB.key").chmod(0o640)
    assert "AB.key: holds keys and has mode 0640" in problems(path)[0]
    (home / "private-keys-v1.d" / "AB.key").unlink()
    assert "has no secret keys" in problems(path)[0]
    (home / "pubring.kbx").unlink()
    assert "/access.conf:1: GPG_HOME_DIR: /home: has no public keys" in problems(path)[0]
    assert "is not a folder" in problems(write(tmp_path / "access.conf", GPG.format(tmp_path / "none")))[0]


def recorded(path: Path) -> tuple[Access, Files]:
    recorder = Recorder()
    read = access.parse(path, recorder.content(path, secret=True), None, recorder)
    return read, Files.decode(recorder.files.encode())


def test_who_may_not_read_comes_to_the_same_stanzas(tmp_path: Path) -> None:
    home = keyring(tmp_path / "home")
    write(tmp_path / "k", KEYS)
    write(tmp_path / "d" / "b.conf", GPG.format(home))
    more = "CMD_EXEC_USER nobody\nCMD_EXEC_GROUP nobody\nENABLE_CMD_EXEC Y\nNAT_TARGETS localhost:22\n"
    text = f"SOURCE ANY\n%include_keys k\n{more}%include_folder d\n"
    path = write(tmp_path / "access.conf", text)
    read, told = recorded(path)
    for one in (home / "pubring.kbx", tmp_path / "k", tmp_path / "d" / "b.conf", path):
        one.unlink()
    again = access.parse(path, told.content(path, secret=True), None, told)
    assert again == read
    assert again.stanzas[0].forwarding.targets is not None
    assert again.stanzas[0].forwarding.targets[0].addresses
    assert again.homes == read.homes
    assert again.homes


def test_what_was_not_read_is_a_problem_and_not_looked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "b.conf", f"SOURCE ANY\n{KEYS}")
    with pytest.raises(ConfigError, match="was not read"):
        access.parse(tmp_path / "access.conf", f"%include {path}\n".encode())


@given(st.data())
def test_bytes_that_are_no_recording_are_refused(data: st.DataObject) -> None:
    named = {(Question.CONTENT, "/a"): b"content", (Question.NAMES, "/\udcff"): b"x.conf\0y.conf"}
    recorded = Files({**named, (Question.USER, "me"): b""})
    whole = recorded.encode()
    assert Files.decode(whole) == recorded
    place = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(HelperError):
        Files.decode(whole[:place] + data.draw(st.sampled_from([b"", whole[place:] + b"\0"])))


def test_a_recording_with_two_answers_to_one_question_is_refused() -> None:
    one, two = (Files({(Question.USER, name): b"y"}).encode() for name in ("me", "me"))
    twice = one[:1] + b"\0\2" + one[3:] + two[3:]
    with pytest.raises(HelperError, match="two answers"):
        Files.decode(twice)


def test_a_recording_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TOTAL_MAX", 1000)
    recorder = Recorder()
    recorder.content(write(tmp_path / "a", "x" * 500), secret=True)
    recorder.content(tmp_path / "a", secret=True)
    with pytest.raises(ConfigError, match="exceeds 1000 bytes"):
        recorder.content(write(tmp_path / "b", "x" * 500), secret=True)


def test_a_name_server_that_does_not_answer_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "NAME_SECONDS", 0.0)
    disk = Disk()
    assert disk.addresses("localhost") == ()
    monkeypatch.undo()
    assert Disk().addresses("localhost")
    assert Disk().addresses("no such name") == ()


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write(tmp_path / "many" / f"{number}.conf", "")
    monkeypatch.setattr(files, "ENTRIES_MAX", 3)
    assert len(Disk().names(tmp_path / "many")) == 3
    monkeypatch.setattr(files, "ENTRIES_MAX", 2)
    with pytest.raises(ConfigError, match="has more than 2 entries"):
        Disk().names(tmp_path / "many")


def test_a_keyring_is_bounded_and_holds_nothing_but_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = keyring(tmp_path / "home")
    write(home / "private-keys-v1.d" / "AB.lock", "")
    with tarfile.open(fileobj=io.BytesIO(Disk().tree(home))) as archive:
        assert "private-keys-v1.d/AB.lock" not in archive.getnames()
    monkeypatch.setattr(files, "TREE_MAX", 10)
    with pytest.raises(ConfigError, match="has keyrings of more than 10 bytes"):
        Disk().tree(home)


def test_key_files_count_as_included_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "keys", KEYS)
    path = write(tmp_path / "access.conf", "SOURCE ANY\n%include_keys keys\n")
    assert len(access.load(path).stanzas) == 1
    monkeypatch.setattr(access, "INCLUDES_MAX", 0)
    assert "/access.conf:2: %include_keys: more than 0 files" in problems(path)


def test_a_file_that_may_be_missing_is_empty_and_an_account_that_was_not_asked_for_is_none(tmp_path: Path) -> None:
    assert Disk().content_if_any(tmp_path / "none") == b""
    assert Files({}).addresses("web") == ()


def test_a_file_that_cannot_be_read_is_named_with_its_reason() -> None:
    with pytest.raises(ConfigError, match=r"^/proc/self/mem: cannot be read: Input/output error$"):
        reader.content(Path("/proc/self/mem"), secret=True)  # the one regular file that nobody can read from its start
