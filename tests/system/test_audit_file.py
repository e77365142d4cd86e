"""AUDIT_FILE on a real daemon: chained over restarts, and a change shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.linux import privileges
from system.doorwardd import ACCESS, command, doorwardd, environment, eventually, send, write
from system.test_daemon import knock

if TYPE_CHECKING:
    from collections.abc import Callable

    from system.netns import Namespace


def verify(*files: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "doorward", "audit", "verify", *map(str, files)]
    return subprocess.run(argv, check=False, capture_output=True, text=True, env=environment())


def test_the_lines_hang_together_over_restarts_and_a_change_is_found(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    file = tmp_path / "audit.log"
    for times in (1, 2):
        with doorwardd(host, tmp_path, ACCESS, f"AUDIT_FILE {file};\n") as daemon:
            send(client, b"A" * 200, host.ipv4)
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted")
        said = verify(file)
        assert (said.returncode, said.stdout.split(" hold")[0]) == (0, f"{3 * times} lines"), said
    text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(text.replace("reason=granted", "reason=replay", 1))
    changed = verify(file)
    assert (changed.returncode, changed.stderr) == (
        1,
        f"{file}:3: the line was changed, or a line before it was left out\n",
    )
    file.write_text(text[:-30])
    assert "carries no hash" in verify(file).stderr


def test_a_rotated_file_is_followed_by_one_that_says_what_it_follows(
    pair: tuple[Namespace, Namespace], tmp_path: Path, open_path: Path
) -> None:
    host, client = pair
    folder = open_path / "for root alone"  # the listener itself could not open the new file
    folder.mkdir(mode=0o700)
    file, old = folder / "audit.log", folder / "audit.log.1"
    with doorwardd(host, tmp_path, ACCESS, f"AUDIT_FILE {file};\n") as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert eventually(lambda: "granted" in file.read_text())
        file.rename(old)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted", count=2)
        assert eventually(lambda: file.exists() and "granted" in file.read_text())
        last = file.rename(folder / "audit.log.2")
        write(tmp_path / "access.conf", "NONSENSE")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the old one stays")
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted", count=3)
        assert eventually(lambda: file.exists() and "granted" in file.read_text()), (
            "a mistake elsewhere does not matter"
        )
    assert verify(old, last, file).returncode == 0
    assert verify(last, old).returncode == 1
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_not_there_is_a_sentence_at_the_start_and_in_a_reload(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.mkdir(mode=0o700)
    with doorwardd(host, tmp_path, ACCESS, f"AUDIT_FILE {there}/audit.log;\n") as daemon:
        moved = there.rename(gone)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for(f"AUDIT_FILE {there}/audit.log cannot be opened: No such file or directory")
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert eventually(lambda: "granted" in (moved / "audit.log").read_text()), "the old file goes on"
    words = command(
        "-f", "-c", str(tmp_path / "doorwardd.conf"), "-a", str(tmp_path / "access.conf"), "-r", str(tmp_path)
    )
    done = host.run(*words, check=False, env=environment(), timeout=200)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"AUDIT_FILE {there}/audit.log cannot be opened: No such file or directory" in done.stderr


def of_listener(path: Path) -> Path:
    """A folder of the listener's user's."""
    user = privileges.account()
    path.mkdir(mode=0o700)
    os.chown(path, user.pw_uid, user.pw_gid)
    return path


def test_in_a_folder_of_the_listeners_user_the_file_is_that_users_and_is_opened_again_after_a_rotation(
    pair: tuple[Namespace, Namespace], tmp_path: Path, open_path: Path
) -> None:
    host, client = pair
    folder = of_listener(open_path / "state")
    file, old = folder / "audit.log", folder / "audit.log.1"
    with doorwardd(host, tmp_path, ACCESS, f"AUDIT_FILE {file};\n") as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert eventually(lambda: "granted" in file.read_text())
        file.rename(old)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted", count=2)
        assert eventually(lambda: file.exists() and "granted" in file.read_text())
    assert verify(old, file).returncode == 0
    assert {one.stat().st_uid for one in (old, file)} == {privileges.account().pw_uid}


def test_what_the_listeners_user_plants_in_its_folder_is_never_opened_for_it(
    pair: tuple[Namespace, Namespace], tmp_path: Path, open_path: Path
) -> None:
    host, client = pair
    state, roots = of_listener(open_path / "state"), open_path / "roots"
    folder = of_listener(state / "audit")
    file, aside, user = folder / "log", state / "aside", privileges.account()
    write(open_path / "secret", "root's\n")
    roots.mkdir()

    def pipe() -> None:
        os.mkfifo(file)
        os.chown(file, user.pw_uid, user.pw_gid)

    def swap() -> None:
        folder.rename(aside)
        folder.symlink_to(roots)

    plants = {
        "symbolic links": lambda: file.symlink_to(open_path / "secret"),
        "Permission denied": lambda: file.hardlink_to(open_path / "secret"),
        "no regular file": pipe,
        "as nobody: Permission denied": swap,
    }
    with doorwardd(host, tmp_path, ACCESS, f"AUDIT_FILE {file};\n") as daemon:
        assert eventually(file.exists)
        last = file.rename(state / "begun")
        for number, (why, plant) in enumerate(plants.items(), 1):
            plant()
            daemon.signal(signal.SIGHUP)
            line = daemon.wait_for(f"AUDIT_FILE {file} cannot be opened: others than root can replace state", number)
            assert why.replace("nobody", user.pw_name) in line
            daemon.wait_for("was read again", number)
            if not folder.is_symlink():
                file.unlink()
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert eventually(lambda: "granted" in last.read_text()), "the old file goes on"
        assert (open_path / "secret").read_text() == "root's\n"
        assert not list(roots.iterdir())
        folder.unlink()
        aside.rename(folder)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again", len(plants) + 1)
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted", 2)
        assert eventually(lambda: file.exists() and "granted" in file.read_text()), "what is the user's own is opened"


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_a_start_follows_no_link_in_anothers_folder_and_check_says_so(
    ns: Namespace, tmp_path: Path, open_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    secret = write(open_path / "secret", "root's\n")
    file = of_listener(open_path / "state") / "audit.log"
    plant(file, secret)
    write(tmp_path / "access.conf", ACCESS)
    write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\nAUDIT_FILE {file};\n")
    options = ("-c", f"{tmp_path}/doorwardd.conf", "-a", f"{tmp_path}/access.conf", "-r", f"{tmp_path}/run")
    for words in (("-f", *options), options, ("check", *options)):
        done = ns.run(*command(*words), check=False, env=environment(), timeout=200)
        assert done.returncode == 1, words
        assert "cannot be opened: others than root can replace state; as " in done.stderr
        assert "Traceback" not in done.stderr
    assert secret.read_text() == "root's\n"
    file.unlink()
    assert ns.run(*command("check", *options), env=environment()).returncode == 0
    assert not file.exists()


def test_a_full_disk_is_a_line_and_the_chain_goes_on_behind_it(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    small = tmp_path / "small"
    small.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", str(small)], check=True)
    file = small / "audit.log"
    try:
        with doorwardd(host, tmp_path, ACCESS, f"AUDIT_FILE {file};\n") as daemon:
            for _ in range(40):
                send(client, b"A" * 200, host.ipv4)
            daemon.wait_for("lines could not be written to AUDIT_FILE: No space left on device")
            subprocess.run(["mount", "-o", "remount,size=65536", str(small)], check=True)
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted")
            assert eventually(lambda: "granted" in file.read_text())
        assert verify(file).returncode == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)
