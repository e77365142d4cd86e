"""The dead man's switch: a table that closes a host is only kept once somebody has proven the way in.

apply() arms a timer that will restore the previous table, and only then swaps; confirm() keeps the new table; rollback,
by the timer or manually, is a shell script that needs only nft(8). All three hold one lock. The file `pending` holds
the only valid token; removing it is the point of no return for both.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hmac
import json
import math
import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from doorward.errors import FirewallError
from doorward.firewall import kernel, ruleset, tools
from doorward.firewall.kernel import read_table
from doorward.firewall.libnftables import Libnftables, Output
from doorward.firewall.wanted import CANDIDATE, MARK_TEXT, PENDING, PREVIOUS, SWITCH_FOLDER, mark_of, table_text
from doorward.frozen import dataclass
from doorward.linux.files import replace_file
from doorward.linux.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEADLINE_MAX: Final = 86_400  # seconds
UNIT: Final = "doorward-fw-rollback"
_DESCRIPTION: Final = "Takes back a change that nobody confirms"
MOMENT: Final = "moment"  # a file of the switch: when the pending table is rolled back, in seconds of /proc/uptime
_COMMAND_SECONDS: Final = 30  # a program that takes longer hangs
_AGAIN: Final = "3s"  # after a rollback that fails; systemd gives up only after 5 starts in 10 s
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET: Final = 0x40000000

# The token is the only input of the script, and only as "$1". A lock that nobody releases, and a system without
# flock(1), do not keep it from its work.
_SCRIPT: Final = """\
#!/bin/sh
# Written by `doorward firewall apply`. Restores the table that was there before, if token $1 is still pending.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd {directory} || exit 1
is_pending() {{ [ -n "$1" ] && [ "$(cat pending 2>/dev/null)" = "$1" ]; }}
is_pending "$1" || exit 0
command exec 9>>lock
flock -w 10 9
is_pending "$1" || exit 0
if nft -f previous.nft; then
    echo 'the table was not confirmed: the previous one is back'
elif nft -f absent.nft; then
    # The way in comes before the wall: without its old table a host must not keep one that nobody has proven.
    echo 'the previous table does not load: ours is removed, THE HOST IS OPEN'
else
    echo 'the table was not confirmed, and the previous one CANNOT BE RESTORED: the host stays as it is' >&2
    exit 1
fi
rm -f pending
"""
# "$1" is a moment in seconds of /proc/uptime, the rest a command. SIGTERM makes it the moment: who ends a dead man's
# switch gets what it was there for.
AT: Final = """\
moment=$1
shift
trap 'moment=0' TERM
until read -r now _ </proc/uptime && [ "${now%.*}" -ge "$moment" ]; do
    sleep 1
done
exec "$@"
"""


class Timer(Protocol):
    """Calls the rollback when nobody confirms. Both methods raise FirewallError."""

    def arm(self, seconds: int, command: Sequence[str]) -> None:
        """Run `command` `seconds` from now, even if this process ends, again and again until it succeeds."""

    def disarm(self) -> None:
        """Cancel it; no error where nothing is armed."""


@dataclass(frozen=True, slots=True)
class SystemdTimer:
    """A transient service that waits: it outlives this process, the SSH session and the user's last login.

    It waits for a moment on the clock of /proc/uptime, which a step of the time does not move, and which counts a
    suspend. A timer of systemd would begin its time again at each daemon-reload. What it runs lies in a file of
    `folder`, which root alone can write: systemd reads its own file of the service again, and would read quotes wrong.
    """

    folder: Path = SWITCH_FOLDER
    unit: str = UNIT

    def arm(self, seconds: int, command: Sequence[str]) -> None:
        """See Timer. A second one of the same name is refused by systemd."""
        if not Path("/run/systemd/system").is_dir():  # sd_booted(3)
            msg = "systemd does not run this host, so nothing could take the change back: not applied"
            raise FirewallError(msg)
        moment, script = str(math.ceil(_uptime()) + seconds), self.folder / "at.sh"
        _write(script, AT)
        tools.run(
            ["systemd-run", "--quiet", "--collect", f"--unit={self.unit}", f"--description={_DESCRIPTION}",
             "--property=Type=exec", "--property=Restart=on-failure", f"--property=RestartSec={_AGAIN}",
             "--", "/bin/sh", str(script), moment, *command],
            _COMMAND_SECONDS,
        )  # fmt: skip

    def disarm(self) -> None:
        """See Timer. A rollback that runs finds no token any more."""
        with contextlib.suppress(FirewallError):
            tools.run(["systemctl", "stop", f"{self.unit}.service"], _COMMAND_SECONDS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checked table text, and its listing by the kernel."""

    text: str
    normalised: str


class DeadMansSwitch:
    """apply, confirm and rollback over one directory of state, which a reboot empties (/run)."""

    def __init__(
        self,
        directory: Path,
        timer: Timer,
        nft: Libnftables,
        new_token: Callable[[], str],
    ) -> None:
        """Keep the parts; nothing is written yet."""
        self._directory = directory
        self._timer = timer
        self._nft = nft
        self._kernel = Netlink()
        self._new_token = new_token

    def pending(self) -> str | None:
        """The token that waits for confirmation."""
        try:
            return (self._directory / PENDING).read_text().strip() or None
        except FileNotFoundError:
            return None

    def seconds_left(self) -> int:
        """Seconds until the pending table is rolled back; 0 where none is pending, or its moment has passed."""
        if self.pending() is None:
            return 0
        try:
            moment = int((self._directory / MOMENT).read_text())
        except (OSError, ValueError):
            return 0
        return max(0, int(moment - _uptime()))

    def apply(self, candidate: Candidate, seconds: int) -> str:
        """Arm, then put `candidate` into the kernel for `seconds`, and return the token that confirms it.

        Killed before the timer is armed, nothing has changed; killed after, the timer restores the previous table.
        What is pending keeps its moment: it is refused with the seconds that are left.

        Raises:
            FirewallError: another is pending, or a step failed; the table is unchanged.
        """
        with alone(self._directory):
            if self.pending():
                left = self.seconds_left()
                msg = f"another table is pending for {left} s more: confirm it, wait, or roll it back first"
                raise FirewallError(msg)
            self._nft.check(ruleset.swap(candidate.text))
            token = self._new_token()
            previous = self._prepare(candidate)
            _write(self._directory / MOMENT, f"{math.ceil(_uptime()) + seconds}\n")
            self._timer.arm(seconds, ["/bin/sh", str(self._directory / "rollback.sh"), token])
            try:
                _write(self._directory / PENDING, f"{token}\n")
                self._nft.run(ruleset.swap(candidate.text))
            except BaseException:
                self._forget()
                raise
            self._note_applied(previous)
            return token

    def confirm(self, token: str, file: Path) -> None:
        """Keep the pending table: write it to `file` and cancel the rollback.

        Raises:
            FirewallError: the token is not pending, the table is not the one applied, or it cannot be written; in
                the last two cases the rollback stays armed.
        """
        with alone(self._directory):
            if not token or not hmac.compare_digest((self.pending() or "").encode(), token.encode()):
                msg = "this token is not pending: rolled back, or confirmed before"
                raise FirewallError(msg)
            table = read_table(self._kernel)
            if table is None or table.handle != self._applied_handle():
                msg = "the table in the kernel is not the applied one: it was replaced meanwhile"
                raise FirewallError(msg)
            persist(file, self._directory / CANDIDATE)
            (self._directory / PENDING).unlink()
            self._timer.disarm()

    def rollback(self, token: str | None = None) -> str | None:
        """Restore the table from before apply() and return a report; None where nothing, or another, is pending.

        Raises:
            FirewallError: the rollback failed, and the host is as the new table has it; the timer tries again.
        """
        wanted = token or self.pending()
        if wanted is None or not (self._directory / "rollback.sh").exists():
            return None
        said = tools.run(["/bin/sh", str(self._directory / "rollback.sh"), wanted], _COMMAND_SECONDS).strip()
        with alone(self._directory):
            if said and self.pending() is None:  # else it is another's, whose timer must stay
                self._timer.disarm()
        return said or None

    def _prepare(self, candidate: Candidate) -> str:
        """Write all files of the rollback script and return the text of the previous table."""
        table = read_table(self._kernel)
        listing = self._nft.run(f"list table {ruleset.TABLE}", Output.STATELESS) if table else ""
        previous = ruleset.restoration(listing)
        self._nft.check(previous)
        _write(self._directory / PREVIOUS, previous)
        _write(self._directory / "absent.nft", ruleset.REMOVE)
        _write(self._directory / CANDIDATE, ruleset.swap(candidate.text))
        _write(self._directory / "rollback.sh", _SCRIPT.format(directory=shlex.quote(str(self._directory))))
        return previous

    def _note_applied(self, previous: str) -> None:
        """Record the handle of the new table, so that confirm() cannot mistake another for it."""
        try:
            table = read_table(self._kernel)
            _write(self._directory / "applied.json", json.dumps({"handle": table.handle if table else None}))
        except BaseException:
            self._nft.run(previous)
            self._forget()
            raise

    def _applied_handle(self) -> int | None:
        """The handle of the table that apply() made; None where apply() did not finish."""
        try:
            handle: int | None = json.loads((self._directory / "applied.json").read_text())["handle"]
        except (OSError, ValueError, LookupError):
            return None
        return handle

    def _forget(self) -> None:
        """Abandon an apply whose table is not in the kernel."""
        (self._directory / PENDING).unlink(missing_ok=True)
        self._timer.disarm()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a switch, which apply, confirm and the rollback script share; the folder is made if missing.

    Raises:
        FirewallError: it cannot be had, or another user can write to the folder, from which root will run a script.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in (folder, folder.parent):
            _refuse_foreign_directory(place)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FirewallError(str(error)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(file: Path, text: str) -> None:
    """Replace a file of the state; a running shell keeps reading the old one."""
    try:
        replace_file(file, text.encode())
    except OSError as error:
        msg = f"{file}: {error.strerror}"
        raise FirewallError(msg) from error


def _uptime() -> float:
    """Seconds since the boot, a suspend included (proc_uptime(5))."""
    return float(Path("/proc/uptime").read_text("ascii").split()[0])


def examine(file: Path) -> Candidate:
    """The checked table text of `file`.

    It is loaded into a new network namespace with no interface but `lo`, as at boot.

    Raises:
        FirewallError: it does not load there, touches another table, or has no sets for grants.
    """
    text = table_text(file)
    with ThreadPoolExecutor(1) as thread:  # a namespace can be a thread's own, and ends with it
        try:
            return thread.submit(_load_alone, text).result()
        except FirewallError as error:
            msg = f"{file}: {error}"
            raise FirewallError(msg) from error


def _load_alone(text: str) -> Candidate:
    if _LIBC.unshare(_CLONE_NEWNET):
        msg = f"no network namespace to try it in: {os.strerror(ctypes.get_errno())}"
        raise FirewallError(msg)
    with contextlib.closing(Libnftables()) as nft, contextlib.closing(Netlink()) as alone:
        nft.run(text)
        foreign = [f"{family} {name}" for family, name in kernel.tables(alone) if not kernel.is_ours(family, name)]
        if foreign:
            msg = f"makes tables that are not ours: {', '.join(foreign)}"
            raise FirewallError(msg)
        table = read_table(alone)
        if table is None or not table.serves_grants:
            msg = f"the table lacks the sets {' and '.join(ruleset.GRANT_SETS)} that grants go to"
            raise FirewallError(msg)
        return Candidate(text, ruleset.normalised(nft.run(f"list table {ruleset.TABLE}", Output.STATELESS)))


def persist(file: Path, candidate: Path) -> None:
    """Make `candidate` the firewall file of the next boot; after a crash the file is either the new or the old one.

    A mark beside it, written after it, says that this host was closed by a confirmed table, also once the file is lost.

    Raises:
        FirewallError: it cannot be written.
    """
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(file, candidate.read_bytes())
        os.chown(file, os.geteuid(), os.getegid())  # another user's is not trusted
        replace_file(mark_of(file), MARK_TEXT.encode())
    except OSError as error:
        raise FirewallError(str(error)) from error


def _refuse_foreign_directory(place: Path) -> None:
    """Refuse a directory that another user owns or may write to."""
    status = place.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        msg = f"{place} may be written by others: it must belong to root alone"
        raise FirewallError(msg)
