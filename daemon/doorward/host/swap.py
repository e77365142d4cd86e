"""New files of the daemon under a dead man's switch.

Whoever changes a host puts the new files into a folder, beside a copy of those that they were made from. apply() arms a
rollback, swaps the files by renaming them, and restarts the daemon, or has it read its stanzas again where no other
file differs; the old files stay beside the new ones, and files that stay the same have a second name meanwhile.
confirm(), from a connection that came in by a fresh knock, removes them. Without it a shell script, which needs neither
Python nor the archive, renames them back: at the deadline, and at the next boot before anything else of ours is
started. Renaming needs no room, so a full disk keeps nobody out.

The file `pending` holds the only valid token. A rollback renames it before it does anything: from there it can only
go on, and is tried again until all of it is done.
"""

from __future__ import annotations

import contextlib
import filecmp
import hmac
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.errors import FirewallError
from doorward.firewall import tools
from doorward.firewall.deadman import alone
from doorward.linux.files import replace_file, sync
from doorward.linux.systemd import AS_OF, REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doorward.firewall.deadman import Timer

FOLDER: Final = Path("etc/doorward/change")  # below the root: it outlives a boot
BEFORE, AFTER = "base", "new"  # folders of a staged change
DAEMON: Final = "doorwardd.service"
EXEC: Final = ("doorward-exec.socket", "doorward-exec.service")
UNITS: Final = (DAEMON, *EXEC)
_NEEDS_EXEC: Final = "doorward-exec is needed for"
_ARCHIVE: Final = Path("usr/lib/doorward/doorward.pyz")
_SETTINGS, _STANZAS = Path("etc/doorward/doorwardd.conf"), Path("etc/doorward/access.conf")
_RELOADED: Final = frozenset({_STANZAS, Path("etc/doorward/access.redacted")})
_OURS: Final = Path("etc/doorward")
_NEEDED: Final = frozenset(  # to start, at the next boot too; the firewall's are read by its units
    {_SETTINGS, _STANZAS, _OURS / "host.key", _OURS / "failure-policy"}
    | {_OURS / name for name in ("firewall.nft", "firewall.nft.confirmed", "failure.nft")}
)
_MORE_STANZAS: Final = Path("etc/doorward/access.d")  # which access.conf includes, where the collection has made it
_SOCKET: Final = Path("etc/systemd/system/doorward-helper.socket")
_KNOCKS: Final = "doorward-udp.socket"  # which starting the daemon opens
_OPENED: Final = Path("etc/systemd/system") / _KNOCKS
_KEPT: Final = "kept"  # the paths that have an old file beside them
WAITS: Final = "doorward-change-wait"  # the unit that waits for the deadline
_AT_BOOT: Final = Path("etc/systemd/system/doorward-change.service")
_WANTED: Final = Path("etc/systemd/system/sysinit.target.wants/doorward-change.service")
_STOPPED: Final = frozenset({"inactive", "failed"})
_UNSETTLED: Final = frozenset({"activating", "deactivating"})  # a restart, also after a crash, is both in turn
_SECONDS: Final = 90.0  # in which systemctl answers: doorwardd may take long to start

_UNIT: Final = """\
# Written by `doorward change apply` until the change is confirmed: a host that is booted before has its old files.
[Unit]
Description=doorward's files from before a change that nobody has confirmed
DefaultDependencies=no
After=local-fs.target
Before=doorward-firewall.service doorwardd.service network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh {script} boot

[Install]
WantedBy=sysinit.target
"""

_SCRIPT: Final = """\
#!/bin/sh
# Written by `doorward change apply`: puts back what it replaced, if the change $2 is still not confirmed.
# $1 says when: `now`, or `boot`, before systemd starts what is put back.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd {folder} || exit 1
token=${{2:-$(cat pending 2>/dev/null || cat rolling)}}
is_in() {{ [ -n "$token" ] && [ "$(cat "$1" 2>/dev/null)" = "$token" ]; }}
is_in pending || is_in rolling || exit 0
# Who holds the lock changes these files. A system without flock(1) does not keep it from its work.
if command -v flock >/dev/null; then exec 9>>lock && flock 9 || exit 1; fi
if is_in pending; then mv -f pending rolling || exit 1; fi
is_in rolling || exit 0
there() {{ [ -e "$1" ] || [ -L "$1" ]; }}
back() {{
    rm -f "$1/.$2.new"
    # mv refuses two names of one file: the swap was cut off between the old file's new name and the new file.
    if [ "$1/.$2.before" -ef "$1/$2" ]; then rm -f "$1/.$2.before" || exit 1
    elif there "$1/.$2.before"; then mv -fT "$1/.$2.before" "$1/$2" || exit 1; fi
}}
gone() {{ rm -f "$1/.$2.new" "$1/$2" || exit 1; }}
# A file that the change left alone comes back where somebody has removed it; what cannot be done here stops nothing.
stays() {{
    if there "$1/$2"; then rm -f "$1/.$2.before"
    elif there "$1/.$2.before"; then mv -fT "$1/.$2.before" "$1/$2"; fi
}}
{files}
{units}
rm -f {at_boot} {wanted} rolling
echo '<3>THE CHANGE WAS NOT CONFIRMED: all files are as they were before, and doorwardd runs with them'
"""


class Difference(NamedTuple):
    """What a change makes of files, as paths below the root; all sorted."""

    written: tuple[Path, ...]
    removed: tuple[Path, ...]

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self.written or self.removed)

    @property
    def all(self) -> tuple[Path, ...]:
        """Every path."""
        return tuple(sorted((*self.written, *self.removed)))


class Services(NamedTuple):
    """What systemd knows of our units."""

    running: tuple[str, ...]
    enabled: tuple[str, ...]
    starting: tuple[str, ...] = ()  # neither running nor stopped: a start that may never come to its end


class Applied(NamedTuple):
    """A change that waits for its confirmation; the token is empty where there was nothing to change."""

    token: str
    paths: tuple[Path, ...]


class Swap:
    """apply, confirm and rollback of one host's files."""

    def __init__(self, timer: Timer, new_token: Callable[[], str], root: Path = Path("/")) -> None:
        """Change the files below `root`; `timer` has them put back."""
        self._timer, self._new_token, self._root = timer, new_token, root
        self._folder = root / FOLDER

    def pending(self) -> str | None:
        """The token that waits for confirmation, or is rolled back now."""
        for name in ("pending", "rolling"):
            with contextlib.suppress(FileNotFoundError):
                return (self._folder / name).read_text().strip() or None
        return None

    def apply(self, staged: Path, seconds: int) -> Applied:
        """Swap the files of a staged change in for `seconds`, and return the token that confirms it.

        Killed before the rollback is armed, nothing has changed; killed after, the rollback puts the old files back.

        Raises:
            FirewallError: another change is pending, the files are no configuration that doorwardd takes, somebody has
                changed them meanwhile, or a step failed. The host is as it was before.
        """
        with alone(self._folder):
            if self.pending():
                msg = "another change waits for its confirmation: it is confirmed or taken back within its deadline"
                raise FirewallError(msg)
            found = difference(staged / BEFORE, staged / AFTER)
            starts = (staged / AFTER / _STANZAS).exists()  # else it is a host that was only installed
            needs_exec = starts and _check(staged / AFTER)
            before = _services()
            if not found and (not starts or _is_served(before, needs_exec=needs_exec)):
                return Applied("", ())
            refuse_changes_of_others(self._root, found, staged / BEFORE)
            try:
                write_beside(self._root, found, staged / AFTER)
                token = self._arm(found, untouched(staged / BEFORE, found), before, seconds)
            except (OSError, FirewallError) as error:
                self._tidy_up(found)
                msg = f"{error}. Nothing was changed"
                raise FirewallError(msg) from error
            try:
                put_in(self._root, found)
                _systemctl("daemon-reload")
                if starts:
                    _serve(found, before, needs_exec=needs_exec)
            except (OSError, FirewallError) as error:
                failure = error
            else:
                return Applied(token, found.all)
        said = self._roll_back(token)  # which takes the lock
        msg = f"{failure}. {said}"
        raise FirewallError(msg) from failure

    def confirm(self, token: str) -> None:
        """Keep the new files.

        Raises:
            FirewallError: the token is not pending, or the old files cannot be removed.
        """
        with alone(self._folder):
            waits = self._folder / "pending"
            known = waits.read_text().strip() if waits.exists() else ""
            if not token or not hmac.compare_digest(known.encode(), token.encode()):
                msg = "this token is not pending: taken back, or confirmed before"
                raise FirewallError(msg)
            waits.unlink()
            sync(self._folder)
            self._forget()

    def rollback(self) -> str | None:
        """Put the old files back now, and return a report; None where nothing is pending.

        Raises:
            FirewallError: it failed; it is tried again.
        """
        token = self.pending()
        return None if token is None else self._roll_back(token)

    def _roll_back(self, token: str) -> str:
        """Run the script; the lock must not be held by this process."""
        return (
            tools.run(["/bin/sh", str(self._folder / "rollback.sh"), "now", token], 2 * _SECONDS)
            .strip()
            .removeprefix("<3>")
        )

    def _arm(self, found: Difference, others: Sequence[Path], before: Services, seconds: int) -> str:
        """Have the old files put back unless the change is confirmed: at the deadline, and at the next boot.

        The token comes last: nothing is pending that nobody would take back.
        """
        token, script = self._new_token(), self._folder / "rollback.sh"
        drop_leftovers(self._root, found)
        replace_file(self._folder / _KEPT, "".join(f"{path}\n" for path in (*found.all, *others)).encode())
        hold(self._root, others)
        replace_file(script, rollback_script(self._root, found, others, before).encode())
        boot, wanted = self._root / _AT_BOOT, self._root / _WANTED
        replace_file(boot, _UNIT.format(script=f"/{FOLDER}/rollback.sh").encode())
        wanted.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        wanted.unlink(missing_ok=True)
        wanted.symlink_to(f"/{_AT_BOOT}")
        sync(wanted.parent)
        self._timer.disarm()  # of an apply that was killed before it had a token
        self._timer.arm(seconds, ["/bin/sh", str(script), "now", token])
        replace_file(self._folder / "pending", f"{token}\n".encode())
        return token

    def _tidy_up(self, found: Difference) -> None:
        """Remove what an apply left that changed nothing."""
        for path in found.written:
            _beside(self._root / path, "new").unlink(missing_ok=True)
        (self._folder / "pending").unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        """Remove what only a rollback needs."""
        self._timer.disarm()
        for name in (_WANTED, _AT_BOOT):
            (self._root / name).unlink(missing_ok=True)
        kept = self._folder / _KEPT
        for path in kept.read_text().splitlines() if kept.exists() else ():
            with contextlib.suppress(OSError):  # on a disk that is only read there is none, and unlink(2) fails
                _beside(self._root / path, "before").unlink(missing_ok=True)


def refuse_changes_of_others(root: Path, found: Difference, base: Path) -> None:
    """Raise FirewallError where files that change are not those of `base` any more."""
    changed = [path for path in found.all if not _same(base / path, root / path)]
    if changed:
        names = ", ".join(f"/{path}" for path in changed)
        msg = f"somebody else has changed this host meanwhile ({names}): nothing was changed, run it again"
        raise FirewallError(msg)


def write_beside(root: Path, found: Difference, new: Path) -> None:
    """Write each new file beside its place: where there is no room, nothing has happened yet."""
    for path in found.written:
        place = root / path
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _copy(new / path, _beside(place, "new"))


def drop_leftovers(root: Path, found: Difference) -> None:
    """Remove old files of an earlier change that was cut off: a rollback of this one would put them into force."""
    for path in found.all:
        before = _beside(root / path, "before")
        if _is_there(before):
            before.unlink()
            sync(before.parent)


def untouched(base: Path, found: Difference) -> tuple[Path, ...]:
    """The files that a change leaves as they are, and without which nobody gets in.

    Not all of etc/doorward: a stanza of a file of its own may be removed to revoke it, and a log has one name.
    """
    return tuple(sorted(path for path in _files(base) - set(found.all) if _OURS not in path.parents or path in _NEEDED))


def hold(root: Path, others: Sequence[Path]) -> None:
    """Give files a second name, under which a rollback finds what somebody has removed; where that is impossible, none.

    A name needs no room, and a change may leave alone what lies on a disk that is only read.
    """
    for path in others:
        place = root / path
        with contextlib.suppress(OSError):
            _beside(place, "before").unlink(missing_ok=True)
            os.link(place, _beside(place, "before"), follow_symlinks=False)


def rollback_script(root: Path, found: Difference, others: Sequence[Path], before: Services) -> str:
    """The text of the rollback; `others` are the files that the change leaves alone."""

    def line(verb: str, path: Path) -> str:
        place = root / path
        return f"{verb} {shlex.quote(str(place.parent))} {shlex.quote(place.name)}"

    existed = [path for path in found.all if _is_there(root / path)]
    made = [path for path in found.written if path not in existed]
    return _SCRIPT.format(
        folder=shlex.quote(str(root / FOLDER)),
        files="\n".join(
            [line(verb, path) for verb, all_ in (("back", existed), ("gone", made), ("stays", others)) for path in all_]
        ),
        units="\n".join(_units_back(before)),
        at_boot=shlex.quote(str(root / _AT_BOOT)),
        wanted=shlex.quote(str(root / _WANTED)),
    )


def put_in(root: Path, found: Difference) -> None:
    """Put the new files in place of the old ones, which stay beside them."""
    for path in found.all:
        place = root / path
        if _is_there(place):
            before = _beside(place, "before")
            if path in found.removed:
                place.rename(before)
            else:
                os.link(place, before, follow_symlinks=False)
        if path in found.written:
            _beside(place, "new").replace(place)
        sync(place.parent)


def _units_back(before: Services) -> list[str]:
    """The lines of the rollback that have our units run as before, and no others; at boot systemd starts them."""
    lines = [f"systemctl --no-reload disable {unit} 2>/dev/null" for unit in UNITS if unit not in before.enabled]
    lines += ["systemctl daemon-reload", 'if [ "$1" != boot ]; then']
    stopped = [unit for unit in UNITS if unit not in (*before.running, *before.starting)]
    lines += [f"    systemctl stop {unit} 2>/dev/null" for unit in stopped]
    lines.append(f"    systemctl stop {_KNOCKS} 2>/dev/null")  # its port may have changed, or its file be gone
    # Whether these come up with the old files nobody knows: systemd goes on trying, and the rollback is over.
    lines += [f"    systemctl --no-block restart {' '.join(before.starting)}"] if before.starting else []
    lines += [f"    systemctl restart {' '.join(before.running)} || exit 1"] if before.running else []
    return [*lines, "    :", "fi"]


def difference(base: Path, new: Path) -> Difference:
    """What has to be written and removed for the files of `base` to become those of `new`."""
    old, wanted = _files(base), _files(new)
    written = sorted(path for path in wanted if path not in old or not _same(base / path, new / path))
    return Difference(tuple(written), tuple(sorted(old - wanted)))


def _files(top: Path) -> set[Path]:
    """The paths of all files and links below a folder, but for those of the switch itself."""
    found = (path for path in top.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path for path in (each.relative_to(top) for each in found) if FOLDER not in path.parents}


def _same(one: Path, other: Path) -> bool:
    """Whether both are absent, or the same file or link with the same mode and owner."""
    if not (_is_there(one) and _is_there(other)):
        return _is_there(one) == _is_there(other)
    left, right = one.lstat(), other.lstat()
    if (left.st_mode, left.st_uid, left.st_gid) != (right.st_mode, right.st_uid, right.st_gid):
        return False
    if one.is_symlink():
        return one.readlink() == other.readlink()
    return filecmp.cmp(one, other, shallow=False)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _beside(place: Path, what: str) -> Path:
    """The hidden name beside a file under which its old or its new content lies; no program reads a name like it."""
    return place.with_name(f".{place.name}.{what}")


def _copy(source: Path, target: Path) -> None:
    """Copy a file or link with its mode and owner, to the disk."""
    target.unlink(missing_ok=True)
    status = source.lstat()
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as reading, os.fdopen(descriptor, "wb") as writing:
        shutil.copyfileobj(reading, writing)
        os.fchown(writing.fileno(), status.st_uid, status.st_gid)
        os.fchmod(writing.fileno(), status.st_mode & 0o7777)
        writing.flush()
        os.fsync(writing.fileno())


def _check(new: Path) -> bool:
    """Whether these files need doorward-exec; they are read by the archive that comes with them.

    Raises:
        FirewallError: doorwardd would not start with them.
    """
    files = ("-c", str(new / _SETTINGS), "-a", str(new / _STANZAS))
    return _NEEDS_EXEC in tools.run([sys.executable, "-I", str(new / _ARCHIVE), "doorwardd", "check", *files], _SECONDS)


def _services() -> Services:
    """Which of our units run and are enabled.

    Raises:
        FirewallError: systemd does not say, and a rollback would not know what to start.
    """
    return services_of(_systemctl("show", "--property=Id,ActiveState,UnitFileState", *UNITS))


def services_of(shown: str) -> Services:
    """What systemd says of units. One that is between two states is starting, where nobody has stopped it for good."""
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in shown.split("\n\n")]
    states = {block["Id"]: block for block in blocks if "Id" in block}
    if set(states) != set(UNITS):
        msg = f"systemd does not say which of {', '.join(UNITS)} run"
        raise FirewallError(msg)
    active = {unit: states[unit]["ActiveState"] for unit in UNITS}
    enabled = tuple(unit for unit in UNITS if states[unit]["UnitFileState"].startswith("enabled"))
    running = tuple(unit for unit in UNITS if active[unit] not in _STOPPED | _UNSETTLED)
    restarted = {unit for unit in enabled if active[unit] == "deactivating"}
    starting = tuple(unit for unit in UNITS if active[unit] == "activating" or unit in restarted)
    return Services(running, enabled, starting)


def _is_served(now: Services, *, needs_exec: bool) -> bool:
    """Whether the units run, now and at boot, that have to."""
    wanted = {DAEMON, *(EXEC if needs_exec else ())}
    return set(now.running) == set(now.enabled) == wanted and not now.starting


def _serve(found: Difference, before: Services, *, needs_exec: bool) -> None:
    """Have our units run, now and at boot, with the files that lie there now."""
    if needs_exec:  # before the daemon can open a command cycle that it has to close
        _systemctl("enable", *EXEC)
        _systemctl("restart", *EXEC)
    _systemctl("enable", DAEMON)
    if all(map(is_reloaded, found.all)) and DAEMON in before.running:  # which also ends what a client had that is gone
        _reload()
    else:
        if _OPENED in found.all:
            with contextlib.suppress(FirewallError):  # a host that had no such unit
                _systemctl("stop", _KNOCKS)
        _systemctl("restart", *(["doorward-helper.socket"] if _SOCKET in found.all else []), DAEMON)
    if not needs_exec:  # only now: until the daemon had the change it could open one
        for unit in EXEC:
            with contextlib.suppress(FirewallError):  # a host that has no such unit
                _systemctl("disable", "--now", unit)


def is_reloaded(path: Path) -> bool:
    """Whether the daemon reads a changed file again without a restart."""
    return path in _RELOADED or path.parent == _MORE_STANZAS


def _reload() -> None:
    """Have the daemon read access.conf, and wait until it has.

    Raises:
        FirewallError: it refuses the file, or says nothing.
    """
    before, until = _said(), time.monotonic() + _SECONDS
    _systemctl("reload", DAEMON)
    while (now := _said())[1] == before[1]:
        if time.monotonic() > until:
            msg = f"{DAEMON} does not say that it has read access.conf again"
            raise FirewallError(msg)
        time.sleep(0.05)
    if now[0].startswith(REFUSED):
        msg = f"{DAEMON} refuses access.conf: see its log"
        raise FirewallError(msg)


def _said() -> tuple[str, str]:
    """What the daemon says of itself, and the time of its last reload."""
    said, _, moment = _systemctl("show", "--property=StatusText", "--value", DAEMON).partition(AS_OF)
    return said, moment


def _systemctl(*words: str) -> str:
    return tools.run(["systemctl", "--quiet", *words], _SECONDS).strip()
