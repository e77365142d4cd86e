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
from typing import TYPE_CHECKING, Any, Final, Protocol

from doorward.errors import FirewallError
from doorward.firewall import ruleset
from doorward.firewall.libnftables import Libnftables, Output
from doorward.firewall.nftables import Table, read_table, table_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEADLINE_MAX: Final = 86_400  # seconds
UNIT: Final = "doorward-fw-rollback"
_COMMAND_SECONDS: Final = 30  # a tool that takes longer hangs
_CANARY: Final = "table inet canary {\n}\ntable ip canary {\n}\n"

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
    echo 'doorward: not confirmed in time or called back: the previous table is back'
else
    # The way in goes before the wall: a host that cannot have its old table back must not keep the unproven one.
    echo 'doorward: the previous table does not load; removing ours, THE HOST IS OPEN' >&2
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
            self._prepare(candidate, token)
            self._timer.arm(seconds, ["/bin/sh", str(self._directory / "rollback.sh"), token])
            try:
                self._write("pending", token + "\n")
                self._nft.run(ruleset.swap(candidate.text))
                self._write("applied.json", json.dumps({"handle": _present(read_table(self._nft)).handle}))
            except BaseException:
                self._rollback_locked()
                raise
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
            applied = json.loads((self._directory / "applied.json").read_text())["handle"]
            table = read_table(self._nft)
            if table is None or table.handle != applied:
                msg = "the table in the kernel is not the one that was applied: somebody replaced it meanwhile"
                raise FirewallError(msg)
            persist(file, (self._directory / "candidate.nft").read_bytes())
            (self._directory / "pending").unlink()
            self._timer.disarm()

    def rollback(self, token: str | None = None) -> bool:
        """Restore the table from before apply() and return whether there was something to restore.

        Raises:
            FirewallError: the rollback failed; the timer, if it still runs, tries again.
        """
        wanted = token or self.pending()
        if wanted is None or not (self._directory / "rollback.sh").exists():
            return False
        said = _run(["/bin/sh", str(self._directory / "rollback.sh"), wanted])
        if not said.strip():
            return False
        self._timer.disarm()
        return True
