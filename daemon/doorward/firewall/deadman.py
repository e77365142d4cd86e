"""The dead man's switch: a table that closes a host takes effect for good only once somebody has proven the way in.

apply() arms a timer that will restore the previous table, and only then swaps; confirm() makes the new table last;
rollback, by the timer or by hand, is a shell script that needs flock(1), nft(8) and nothing of this package. All three
hold one lock. The file `pending` names the one token that counts; removing it is the point of no return for both.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from doorward.errors import FirewallError
from doorward.firewall import ruleset
from doorward.firewall.libnftables import Libnftables, Output, first_words
from doorward.firewall.nftables import describe, foreign_tables, read_table, table_text
from doorward.firewall.replacing import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEADLINE_MAX: Final = 86_400  # seconds
UNIT: Final = "doorward-fw-rollback"
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}  # `su` leaves sbin out of PATH
_COMMAND_SECONDS: Final = 30  # a tool that takes longer hangs
# Loads standard input where nothing else is, not even an interface but lo, as at boot; then lists what came of it.
_EXAMINE: Final = f"nft -f /dev/stdin && nft -j -t list ruleset && nft -s list table {ruleset.TABLE}"

# In the script nothing comes from outside but the token, and that only as "$1".
_SCRIPT: Final = """\
#!/bin/sh
# Written by `doorward firewall apply`. Restores the table that was there before, if token $1 is still pending.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd {directory} || exit 1
exec 9>>lock || exit 1
flock 9 || exit 1
[ -n "$1" ] && [ "$(cat pending 2>/dev/null)" = "$1" ] || exit 0
if nft -f previous.nft; then
    echo 'the table was not confirmed: the previous one is back'
else
    # The way in comes before the wall: without its old table a host must not keep one that nobody has proven.
    echo 'the previous table does not load: ours is removed, THE HOST IS OPEN'
    nft -f absent.nft || exit 1
fi
rm -f pending
"""


class Timer(Protocol):
    """What calls the rollback when nobody confirms. Both methods raise FirewallError."""

    def arm(self, seconds: int, command: Sequence[str]) -> None:
        """Run `command` once, `seconds` from now, whatever becomes of this process."""

    def disarm(self) -> None:
        """Forget it; no error where nothing is armed any more."""


class SystemdTimer:
    """A transient systemd timer: it outlives this process, the SSH session and the user's last login."""

    def arm(self, seconds: int, command: Sequence[str]) -> None:
        """See Timer. A second timer of the same name is refused by systemd."""
        if not Path("/run/systemd/system").is_dir():  # sd_booted(3)
            msg = "systemd does not run this host, so nothing could roll the firewall back: not applied"
            raise FirewallError(msg)
        _run(
            ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", f"--on-active={seconds}s",
             "--timer-property=AccuracySec=100ms", "--", *command]
        )  # fmt: skip

    def disarm(self) -> None:
        """See Timer. Only the timer is stopped: a rollback that runs already waits for our lock and finds no token."""
        with contextlib.suppress(FirewallError):
            _run(["systemctl", "stop", f"{UNIT}.timer"])


@dataclass(frozen=True, slots=True)
class Candidate:
    """A table text that was checked: what it says, and what the kernel makes of it."""

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
        self._new_token = new_token

    def pending(self) -> str | None:
        """Return the token that waits for its confirmation."""
        try:
            return (self._directory / "pending").read_text().strip() or None
        except FileNotFoundError:
            return None

    def apply(self, candidate: Candidate, seconds: int) -> str:
        """Arm, then put `candidate` into the kernel for `seconds`, and return the token that confirms it.

        Killed before the timer is armed, nothing has happened; killed after, the timer restores what was there.

        Raises:
            FirewallError: one is pending already, or a step failed; the table is as it was.
        """
        with self._locked():
            if self.pending():
                msg = "another table is pending: confirm it or roll it back first"
                raise FirewallError(msg)
            self._nft.check(ruleset.swap(candidate.text))
            token = self._new_token()
            previous = self._prepare(candidate)
            self._timer.arm(seconds, ["/bin/sh", str(self._directory / "rollback.sh"), token])
            try:
                self._write("pending", f"{token}\n")
                self._nft.run(ruleset.swap(candidate.text))
            except BaseException:
                self._forget()
                raise
            self._note_applied(previous)
            return token

    def confirm(self, token: str, file: Path) -> None:
        """Make the pending table last: write it to `file` and forget the rollback.

        Raises:
            FirewallError: the token is not pending, the table is not the one applied, or it cannot be written; in
                the last two cases the rollback stays armed.
        """
        with self._locked():
            if not token or not hmac.compare_digest((self.pending() or "").encode(), token.encode()):
                msg = "this token is not pending: rolled back, or confirmed before"
                raise FirewallError(msg)
            table = read_table(self._nft)
            if table is None or table.handle != self._applied_handle():
                msg = "the table in the kernel is not the one that was applied: somebody replaced it meanwhile"
                raise FirewallError(msg)
            persist(file, self._directory / "candidate.nft")
            (self._directory / "pending").unlink()
            self._timer.disarm()

    def rollback(self, token: str | None = None) -> str | None:
        """Restore the table from before apply() and return what was done; None where nothing, or another, is pending.

        Raises:
            FirewallError: the rollback failed; the timer, if it still runs, tries again.
        """
        wanted = token or self.pending()
        if wanted is None or not (self._directory / "rollback.sh").exists():
            return None
        said = _run(["/bin/sh", str(self._directory / "rollback.sh"), wanted]).strip()
        with self._locked():
            if said and self.pending() is None:  # else it is another's, whose timer must stay
                self._timer.disarm()
        return said or None

    def _prepare(self, candidate: Candidate) -> str:
        """Write all that the rollback script will need and return the text of the previous table."""
        table = read_table(self._nft)
        listing = self._nft.run(f"list table {ruleset.TABLE}", Output.STATELESS) if table else ""
        previous = ruleset.restoration(listing)
        self._nft.check(previous)
        self._write("previous.nft", previous)
        self._write("absent.nft", ruleset.REMOVE)
        self._write("candidate.nft", ruleset.swap(candidate.text))
        self._write("rollback.sh", _SCRIPT.format(directory=shlex.quote(str(self._directory))))
        return previous

    def _note_applied(self, previous: str) -> None:
        """Note which table was made, so that confirm() cannot mistake another for it."""
        try:
            table = read_table(self._nft)
            self._write("applied.json", json.dumps({"handle": table.handle if table else None}))
        except BaseException:
            self._nft.run(previous)
            self._forget()
            raise

    def _applied_handle(self) -> int | None:
        """Return the handle of the table that apply() made; None where it came to no end."""
        try:
            handle: int | None = json.loads((self._directory / "applied.json").read_text())["handle"]
        except (OSError, ValueError, LookupError):
            return None
        return handle

    def _forget(self) -> None:
        """Give up an apply whose table is not in the kernel."""
        (self._directory / "pending").unlink(missing_ok=True)
        self._timer.disarm()

    def _write(self, name: str, text: str) -> None:
        """Replace a file of the state; a running shell keeps reading the old one."""
        replace_file(self._directory / name, text.encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock that apply, confirm and the rollback script share.

        Raises:
            FirewallError: the directory is not ours alone: root will run a script out of it.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for place in (self._directory, self._directory.parent):
                _refuse_foreign_directory(place)
            descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FirewallError(str(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def examine(file: Path) -> Candidate:
    """Return the checked table text of `file`.

    It is loaded into a network namespace made for that, where nothing but `lo` is there: so it will be at boot.

    Raises:
        FirewallError: it does not load there, touches anything but our table, or has no sets for grants.
    """
    text = table_text(file)
    try:
        objects, _, listing = _run(["unshare", "--net", "--", "/bin/sh", "-c", _EXAMINE], text).partition("\n")
    except FirewallError as error:
        msg = f"{file}: {error}"
        raise FirewallError(msg) from error
    entries = [entry for entry in json.loads(objects)["nftables"] if "metainfo" not in entry]
    foreign = foreign_tables(entries)
    if foreign:
        msg = f"{file}: makes tables that are not ours: {', '.join(foreign)}"
        raise FirewallError(msg)
    table = describe(entries)
    if table is None or not table.serves_grants:
        msg = f"{file}: the table has not the sets {' and '.join(ruleset.GRANT_SETS)} that grants go to"
        raise FirewallError(msg)
    return Candidate(text, ruleset.normalised(listing))


def persist(file: Path, candidate: Path) -> None:
    """Make the content of `candidate` the firewall file of the next boot: all of it or, after a crash, the old one.

    Raises:
        FirewallError: it cannot be written.
    """
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        content = candidate.read_bytes()
    except OSError as error:
        raise FirewallError(str(error)) from error
    replace_file(file, content)


def _refuse_foreign_directory(place: Path) -> None:
    """Refuse a directory that another user owns or may write to."""
    status = place.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        msg = f"{place} may be written by others: it must belong to root alone"
        raise FirewallError(msg)


def _run(command: Sequence[str], standard_input: str = "") -> str:
    """Run a tool of the system to its end and return what it printed.

    Raises:
        FirewallError: it is missing, failed or hangs; with its words.
    """
    try:
        done = subprocess.run(  # noqa: S603  a list, no shell; every word is ours
            command,
            input=standard_input,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            env=_ENVIRONMENT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{command[0]}: {error}"
        raise FirewallError(msg) from error
    if done.returncode:
        msg = f"{command[0]} failed ({done.returncode}): {first_words(done.stderr or done.stdout)}"
        raise FirewallError(msg)
    return done.stdout
