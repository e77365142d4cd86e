"""The cycles that doorward-exec has open: opened for a knock, opened for longer, closed when they are due.

What opens is in the journal first, so that it is closed whatever happens; what closes is what the journal says.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from doorward import withdrawn
from doorward.cycles import CYCLES_MAX, OPENED_MAX, Cycle, Journal, Moment
from doorward.daemon import commands
from doorward.daemon.tasks import Task, about_of, line_of
from doorward.errors import HelperError

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.config import stanza
    from doorward.daemon.log import Log
    from doorward.daemon.tasks import Tasks
    from doorward.values import Execution

CLOSING_MAX: Final = 4  # closing commands at a time, besides the others: no flood of knocks holds them up


class OpenCycles:
    """What is open, and the journal of it."""

    def __init__(self, folder: Path, log: Log, tasks: Tasks) -> None:
        """Have the journal in `folder`; what it holds is taken over by adopt().

        Raises:
            DoorwardError: it cannot be had.
        """
        self._journal = Journal(folder)
        self.folder = folder
        self._log = log
        self._tasks = tasks
        self._cycles: dict[str, Cycle] = {}
        self._busy: set[str] = set()

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._cycles)

    def open(self, cycle: stanza.Cycle, execution: Execution) -> bool:
        """Open a cycle, or open it for longer; return False where it has to wait for its own opening or closing.

        What is open with the same end is not opened twice, unless the opening command is another one now.

        Raises:
            DoorwardError, OSError: nothing was opened.
        """
        user = commands.cycle_account(cycle)
        argv = commands.of_cycle(cycle.open, execution)
        about = about_of(execution.stanza, execution.source, user)
        job = self._tasks.job(argv, commands.environment(execution, user, "open"), user)
        if cycle.close is None:
            self._tasks.put(Task("open", about, job, lambda _: None))
            return True
        wanted = Cycle(
            stanza=execution.stanza,
            source=str(execution.source),
            close=commands.of_cycle(cycle.close, execution),
            environment=commands.environment(execution, user, "close"),
            user=user.name,
            group=cycle.group,
            opened=(),
            at=Moment.now(),
            seconds=execution.seconds,
        )
        if wanted.name in self._busy:
            return False
        kept = self._renewed(wanted)
        self._journal.write(kept)
        self._cycles[kept.name] = kept
        if argv in kept.opened:
            self._log.info("command=renew %s seconds=%d", line_of(about), execution.seconds)
            return True
        self._busy.add(kept.name)
        self._tasks.put(Task("open", about, job, lambda well: self._opened(kept.name, argv, well)))
        return True

    def _renewed(self, wanted: Cycle) -> Cycle:
        """Return a cycle with what is known of it: it closes when the later of both ends, never sooner than before."""
        known = self._cycles.get(wanted.name)
        if known is None:
            if len(self._cycles) >= CYCLES_MAX:
                msg = f"more than {CYCLES_MAX} cycles are open"
                raise HelperError(msg)
            return wanted
        same_boot = known.at.boot == wanted.at.boot
        left = known.remaining(wanted.at) if known.retry_at is None else 0.0
        opened = known.opened[-OPENED_MAX:] if same_boot and known.retry_at is None else ()
        return replace(wanted, opened=opened, seconds=max(wanted.seconds, left))

    def _opened(self, name: str, argv: tuple[str, ...], well: bool) -> None:  # noqa: FBT001  a Task's `done`
        self._busy.discard(name)
        known = self._cycles.get(name)
        if known is None or not well:
            return
        self._cycles[name] = replace(known, opened=(*known.opened, argv))
        try:
            self._journal.write(self._cycles[name])
        except OSError as error:  # after a restart another knock would open it again
            self._log.error("doorward-exec: the journal cannot be written: %s", error.strerror)

    def adopt(self) -> None:
        """Take over what an earlier process has opened."""
        for found in self._journal.read():
            if isinstance(found, str):
                self._log.error("doorward-exec: %s", found)
                continue
            self._cycles[found.name] = found
        if self._cycles:
            self._log.warning(
                "doorward-exec: %d cycles were left open: they close when they are due", len(self._cycles)
            )

    def close_what_is_due(self) -> None:
        """Start the closing of what is due, the longest overdue first."""
        now = Moment.now()
        closing = self._tasks.count("close")
        due = (cycle for cycle in self._cycles.values() if cycle.name not in self._busy and cycle.remaining(now) <= 0)
        for cycle in sorted(due, key=lambda one: one.remaining(now))[: max(0, CLOSING_MAX - closing)]:
            self._close(cycle)

    def _close(self, cycle: Cycle) -> None:
        self._cycles[cycle.name] = replace(cycle, opened=())  # from here on it may be half closed
        try:
            user = commands.account(cycle.user, cycle.group)
        except HelperError as error:
            self._log.error("doorward-exec: %s", error)
            self._closed(cycle.name, well=False)
            return
        self._busy.add(cycle.name)
        job = self._tasks.job(cycle.close, cycle.environment, user)
        about = about_of(cycle.stanza, cycle.source, user)
        self._tasks.start(Task("close", about, job, lambda well: self._closed(cycle.name, well=well)))

    def _closed(self, name: str, *, well: bool) -> None:
        self._busy.discard(name)
        cycle = self._cycles[name]
        try:
            if well:
                del self._cycles[name]
                self._journal.remove(cycle)
                return
            self._cycles[name] = cycle.failed(Moment.now())
            self._journal.write(self._cycles[name])
        except OSError as error:
            self._log.error("doorward-exec: the journal cannot be written: %s", error.strerror)
        if not well:
            left = self._cycles[name].remaining(Moment.now())
            what = f"stanza {cycle.stanza} for {cycle.source}: {shlex.join(cycle.close)}"
            self._log.error("doorward-exec: CLOSING FAILED, IT STAYS OPEN, tried again in %.0f s: %s", left, what)

    def heed_by_hand(self) -> None:
        """Close at once what root closed by hand."""
        taken = self.folder / "taken"
        try:
            taken.mkdir(mode=0o700, exist_ok=True)
            (self.folder / withdrawn.FILE).rename(taken / withdrawn.FILE)
        except OSError:
            return
        now = Moment.now()
        for moment, source in withdrawn.read(taken):
            for cycle in list(self._cycles.values()):
                if source in {None, cycle.address} and (cycle.at.boot != now.boot or cycle.at.steady <= moment):
                    self._cycles[cycle.name] = replace(cycle, seconds=0, retry_at=None)
        (taken / withdrawn.FILE).unlink(missing_ok=True)
        self.close_what_is_due()
