"""Files that are swapped under a dead man's switch, and put back by a script, wherever the swap was cut off."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.errors import FirewallError
from doorward.host import swap
from doorward.host.swap import Difference, Services, Swap, difference

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING_RAN = Services((), ())
OLD = {
    "etc/doorward/access.conf": "old stanzas",
    "etc/doorward/doorwardd.conf": "old settings",
    "etc/systemd/system/doorwardd.service": "old unit",
    "etc/systemd/system/doorwardd.service.d/extra.conf": "to be removed",
    "usr/lib/doorward/doorward.pyz": "old archive",
}
NEW = {
    "etc/doorward/access.conf": "new stanzas",
    "etc/doorward/doorwardd.conf": "old settings",
    "etc/systemd/system/doorwardd.service": "new unit",
    "usr/bin/doorward": "new launcher",
    "usr/lib/doorward/doorward.pyz": "new archive",
}


class CutError(Exception):
    """The process ends here."""


def write(top: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o640)


def seen(top: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder, but for the switch's own, with content and mode."""
    files = (path for path in top.rglob("*") if path.is_file() and "change" not in path.parts)
    return {str(path.relative_to(top)): (path.read_text(), path.stat().st_mode & 0o777) for path in files}


class Timer:
    """A timer that never comes."""

    def arm(self, seconds: int, command: Sequence[str]) -> None:
        """See deadman.Timer."""

    def disarm(self) -> None:
        """See deadman.Timer."""


class Scene:
    """A host's root with the old files, and a folder with the change."""

    def __init__(self, folder: Path) -> None:
        self.root, self.staged = folder / "root", folder / "staged"
        write(self.root, OLD)
        write(self.staged / "base", OLD)
        write(self.staged / "new", NEW)
        (self.root / "etc/doorward/change").mkdir()
        self.before = seen(self.root)
        self.timer = Timer()
        self.swap = Swap(self.timer, lambda: "token", self.root)
        self.found = difference(self.staged / "base", self.staged / "new")
        self.others = swap.untouched(self.staged / "base", self.found)

    def prepare(self, ran: Services = NOTHING_RAN) -> None:
        """Arm as apply does, but with nothing that waits."""
        swap.write_beside(self.root, self.found, self.staged / "new")
        folder = self.root / "etc/doorward/change"
        swap.drop_leftovers(self.root, self.found)
        swap.hold(self.root, self.others)
        (folder / "rollback.sh").write_text(swap.rollback_script(self.root, self.found, self.others, ran))
        (folder / "kept").write_text("".join(f"{path}\n" for path in (*self.found.all, *self.others)))
        (folder / "pending").write_text("token\n")

    def roll_back(self, *words: str) -> subprocess.CompletedProcess[str]:
        script = self.root / "etc/doorward/change/rollback.sh"
        return subprocess.run(["sh", str(script), *words], check=False, capture_output=True, text=True, timeout=30)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_difference_is_what_is_written_and_what_is_removed(scene: Scene) -> None:
    assert scene.found == Difference(
        tuple(map(Path, sorted(set(NEW) - {"etc/doorward/doorwardd.conf"}))),
        (Path("etc/systemd/system/doorwardd.service.d/extra.conf"),),
    )


@pytest.mark.parametrize("change", ["mode", "link", "content"])
def test_a_mode_and_a_link_are_differences_too(scene: Scene, change: str) -> None:
    file = scene.staged / "new/etc/doorward/doorwardd.conf"
    if change == "mode":
        file.chmod(0o600)
    elif change == "content":
        file.write_text("new settings")
    else:
        file.unlink()
        file.symlink_to("access.conf")
    found = difference(scene.staged / "base", scene.staged / "new")
    assert Path("etc/doorward/doorwardd.conf") in found.written


def test_the_files_of_the_switch_are_no_part_of_a_change(scene: Scene) -> None:
    write(scene.staged / "base", {"etc/doorward/change/pending": "another's"})
    assert difference(scene.staged / "base", scene.staged / "new") == scene.found


def test_a_swap_that_is_confirmed_leaves_the_new_files_and_nothing_beside_them(scene: Scene) -> None:
    scene.prepare()
    swap.put_in(scene.root, scene.found)
    assert any(".before" in name for name in seen(scene.root))
    scene.swap.confirm("token")
    assert {name: text for name, (text, _) in seen(scene.root).items()} == NEW
    assert scene.roll_back("now", "token").returncode == 0, "a rollback that comes too late does nothing"
    assert {name: text for name, (text, _) in seen(scene.root).items()} == NEW


@pytest.mark.parametrize("words", [("now", "token"), ("boot",)])
def test_a_swap_that_is_not_confirmed_is_put_back(scene: Scene, words: tuple[str, ...]) -> None:
    scene.prepare()
    swap.put_in(scene.root, scene.found)
    assert seen(scene.root) != scene.before
    done = scene.roll_back(*words)
    assert "NOT CONFIRMED" in done.stdout, done
    assert seen(scene.root) == scene.before
    assert scene.swap.pending() is None


@pytest.mark.parametrize("missing", ["", "flock", "systemctl"])
def test_a_system_without_a_program_does_not_keep_a_rollback_from_its_work(scene: Scene, missing: str) -> None:
    """Where it finds no mv(1) it has to be tried again: an absence is seen."""
    scene.prepare()
    swap.put_in(scene.root, scene.found)
    script, programs = scene.root / "etc/doorward/change/rollback.sh", scene.root / "programs"
    programs.mkdir()
    for name in {"cat", "flock", "mv", "rm"} - {missing}:
        (programs / name).symlink_to(str(shutil.which(name)))
    script.write_text(script.read_text().replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PATH={programs}"))
    (programs / "mv").rename(programs / "away")
    assert scene.roll_back("now", "token").returncode == 1
    (programs / "away").rename(programs / "mv")
    assert scene.roll_back("now", "token").returncode == 0
    shutil.rmtree(programs)
    assert seen(scene.root) == scene.before


@pytest.mark.parametrize("steps", range(7))
def test_a_swap_that_is_cut_off_anywhere_is_put_back(scene: Scene, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every file, and between an old file's new name and the new file in its place."""
    scene.prepare()
    left = [steps]

    really = Path.replace

    def replace(path: Path, target: Path) -> None:
        if not left[0]:
            raise CutError
        left[0] -= 1
        really(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "rename", replace)
    try:
        swap.put_in(scene.root, scene.found)
    except CutError:
        assert steps < len(scene.found.all)
    monkeypatch.undo()
    scene.roll_back("boot")
    assert seen(scene.root) == scene.before


def test_a_rollback_that_is_cut_off_goes_on_and_takes_no_confirmation(scene: Scene) -> None:
    """A file cannot be renamed: what lies in its place is a folder that is not empty."""
    scene.prepare()
    swap.put_in(scene.root, scene.found)
    unit = scene.root / "etc/systemd/system/doorwardd.service"
    unit.unlink()
    (unit / "in the way").mkdir(parents=True)
    assert scene.roll_back("now", "token").returncode != 0
    with pytest.raises(FirewallError, match="not pending"):
        scene.swap.confirm("token")
    assert scene.swap.pending() == "token"
    shutil.rmtree(unit)
    assert scene.roll_back("now", "token").returncode == 0
    assert seen(scene.root) == scene.before


def test_what_the_change_left_alone_and_somebody_removed_comes_back(scene: Scene) -> None:
    """Without its archive or a key the daemon would not run again, whatever else is put back."""
    settings = scene.root / "etc/doorward/doorwardd.conf"
    scene.prepare()
    swap.put_in(scene.root, scene.found)
    settings.unlink()
    scene.roll_back("now", "token")
    assert seen(scene.root) == scene.before


def test_what_the_change_left_alone_and_somebody_replaced_stays_theirs(scene: Scene) -> None:
    settings = scene.root / "etc/doorward/doorwardd.conf"
    scene.prepare()
    swap.put_in(scene.root, scene.found)
    settings.unlink()
    settings.write_text("theirs")
    scene.roll_back("now", "token")
    assert settings.read_text() == "theirs"
    assert not list(scene.root.rglob(".*.before"))


def test_where_no_second_name_can_be_given_the_change_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "link", refuse)
    swap.hold(scene.root, scene.others)
    assert seen(scene.root) == scene.before


def test_a_change_beside_a_disk_that_is_only_read_is_confirmed_and_tidied_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There unlink(2) says EROFS of a name too that is not there."""
    unlink = Path.unlink

    def refuse(self: Path, *, missing_ok: bool = False) -> None:
        if self.name == ".doorwardd.conf.before":
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    scene.prepare()
    assert not (scene.root / "etc/doorward/.doorwardd.conf.before").exists()
    swap.put_in(scene.root, scene.found)
    scene.swap.confirm("token")
    assert {name: text for name, (text, _) in seen(scene.root).items()} == NEW


def test_an_old_file_that_an_earlier_change_has_left_behind_does_not_come_back(scene: Scene) -> None:
    left = scene.root / "usr/lib/doorward/.doorward.pyz.before"
    left.write_text("of two changes ago")
    scene.prepare()
    scene.roll_back("now", "token")  # the swap was cut off before this file's turn
    assert seen(scene.root) == scene.before


def test_a_stanza_that_was_removed_meanwhile_does_not_come_back_and_a_log_keeps_its_one_name(scene: Scene) -> None:
    more = {"etc/doorward/access.d/mallory.conf": "revoked", "etc/doorward/audit.log": "lines"}
    more |= dict.fromkeys(("etc/doorward/firewall.nft.confirmed", "etc/doorward/failure.nft"), "read at the next boot")
    write(scene.root, more)
    write(scene.staged / "base", more)
    scene.others = swap.untouched(scene.staged / "base", scene.found)
    held = ("doorwardd.conf", "failure.nft", "firewall.nft.confirmed")
    assert scene.others == tuple(Path("etc/doorward") / name for name in held)
    scene.prepare()
    swap.put_in(scene.root, scene.found)
    (scene.root / "etc/doorward/access.d/mallory.conf").unlink()
    assert (scene.root / "etc/doorward/audit.log").stat().st_nlink == 1
    scene.roll_back("now", "token")
    assert not (scene.root / "etc/doorward/access.d/mallory.conf").exists()


@pytest.mark.parametrize(
    ("ran", "over"),
    [(Services((swap.DAEMON,), ()), False), (Services((), (), (swap.DAEMON,)), True)],
    ids=["ran", "started over and over"],
)
def test_a_rollback_is_over_where_a_unit_does_not_start_that_did_not_run_before(
    scene: Scene, ran: Services, *, over: bool
) -> None:
    """Here no unit starts, since there is none. One that ran is tried again; else no further change could be made."""
    scene.prepare(ran)
    swap.put_in(scene.root, scene.found)
    assert (scene.roll_back("now", "token").returncode == 0) is over
    assert seen(scene.root) == scene.before
    assert (scene.swap.pending() is None) is over


@pytest.mark.parametrize("token", ["", "another", "toke"])
def test_another_token_confirms_nothing(scene: Scene, token: str) -> None:
    scene.prepare()
    with pytest.raises(FirewallError, match="not pending"):
        scene.swap.confirm(token)
    assert scene.roll_back("now", token or "x").returncode == 0
    assert scene.swap.pending() == "token"


def test_what_somebody_else_has_changed_meanwhile_is_not_overwritten(scene: Scene) -> None:
    swap.refuse_changes_of_others(scene.root, scene.found, scene.staged / "base")
    (scene.root / "etc/doorward/access.conf").write_text("another controller's")
    with pytest.raises(FirewallError, match=r"/etc/doorward/access\.conf"):
        swap.refuse_changes_of_others(scene.root, scene.found, scene.staged / "base")


def test_what_cannot_be_written_leaves_the_old_files(scene: Scene) -> None:
    shutil.rmtree(scene.root / "usr")
    (scene.root / "usr").write_text("a file, where a folder is needed")
    before = seen(scene.root)
    with pytest.raises(OSError, match="usr"):
        swap.write_beside(scene.root, scene.found, scene.staged / "new")
    assert {name: old for name, old in seen(scene.root).items() if not name.endswith(".new")} == before


def test_a_rollback_closes_the_udp_socket_before_what_ran_is_started_again(scene: Scene) -> None:
    """Its file may be gone, or have another port: the daemon's start opens it as its file says."""
    ran = Services((swap.DAEMON,), (swap.DAEMON,))
    lines = [line.strip() for line in swap.rollback_script(scene.root, scene.found, (), ran).splitlines()]
    closed = lines.index("systemctl stop doorward-udp.socket 2>/dev/null")
    assert (
        lines.index("systemctl daemon-reload") < closed < lines.index("systemctl restart doorwardd.service || exit 1")
    )


def shown(**states: tuple[str, str]) -> str:
    """What `systemctl show` prints of our units."""
    known = {"doorwardd.service": ("inactive", "disabled"), **dict.fromkeys(swap.EXEC, ("inactive", ""))}
    known |= {f"{name}.service": state for name, state in states.items()}
    return "\n\n".join(
        f"Id={unit}\nActiveState={active}\nUnitFileState={file}" for unit, (active, file) in known.items()
    )


@pytest.mark.parametrize("state", ["active", "reloading", "refreshing"])
def test_a_daemon_that_runs_is_started_again_by_a_rollback(scene: Scene, state: str) -> None:
    found = swap.services_of(shown(doorwardd=(state, "enabled")))
    assert found == Services((swap.DAEMON,), (swap.DAEMON,))
    assert swap._is_served(found, needs_exec=False)  # noqa: SLF001  of the same module
    assert "systemctl restart doorwardd.service || exit 1" in swap.rollback_script(scene.root, scene.found, (), found)


@pytest.mark.parametrize("state", ["activating", "deactivating"])
def test_a_daemon_between_two_states_is_started_again_and_nobody_waits_for_it(scene: Scene, state: str) -> None:
    """It may be in somebody's restart, which is both in turn, or in a crash loop, which serves nobody."""
    found = swap.services_of(shown(doorwardd=(state, "enabled")))
    assert found == Services((), (swap.DAEMON,), (swap.DAEMON,))
    assert not swap._is_served(found, needs_exec=False)  # noqa: SLF001  of the same module
    script = swap.rollback_script(scene.root, scene.found, (), found)
    assert "systemctl --no-block restart doorwardd.service\n" in script
    assert "systemctl stop doorwardd.service" not in script


@pytest.mark.parametrize("starts", [True, False])
def test_a_daemon_in_a_crash_loop_is_restarted_for_new_stanzas_since_systemd_reloads_none(
    monkeypatch: pytest.MonkeyPatch, *, starts: bool
) -> None:
    said: list[tuple[str, ...]] = []

    def systemctl(*words: str) -> str:
        said.append(words)
        return ""

    monkeypatch.setattr(swap, "_systemctl", systemctl)
    monkeypatch.setattr(swap, "_reload", lambda: said.append(("reload", swap.DAEMON)))
    before = Services((), (), (swap.DAEMON,)) if starts else Services((swap.DAEMON,), ())
    found = Difference((Path("etc/doorward/access.conf"),), ())
    swap._serve(found, before, needs_exec=False)  # noqa: SLF001  of the same module
    assert ("restart" if starts else "reload", swap.DAEMON) in said


@pytest.mark.parametrize("state", ["inactive", "failed", "deactivating"])
def test_a_daemon_that_does_not_run_is_not_started_by_a_rollback(scene: Scene, state: str) -> None:
    found = swap.services_of(shown(doorwardd=(state, "disabled")))
    assert found == NOTHING_RAN
    assert "systemctl restart" not in swap.rollback_script(scene.root, scene.found, (), found)


@pytest.mark.parametrize("said", ["", "Id=doorwardd.service\nActiveState=active\nUnitFileState=enabled"])
def test_where_systemd_does_not_say_what_runs_nothing_is_changed(said: str) -> None:
    """A rollback would not know what to start."""
    with pytest.raises(FirewallError, match="does not say"):
        swap.services_of(said)


def test_stanzas_alone_are_read_again_without_a_restart() -> None:
    stanzas = ("access.conf", "access.redacted", "access.d/alice.conf")
    others = ("doorwardd.conf", "host.key", "access.d/more/alice.conf", "more/alice.conf")
    assert [name for name in (*stanzas, *others) if swap.is_reloaded(Path("etc/doorward") / name)] == list(stanzas)
    assert not swap.is_reloaded(Path("usr/bin/doorward"))
