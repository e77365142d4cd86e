"""The open command cycles of doorward-exec: opened for a knock, renewed, closed when they are due.

What opens is in the journal first, so that it is closed whatever happens; what closes is what the journal says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from doorward.commands import arguments
from doorward.commands.journal import CYCLES_MAX, OPENED_MAX, Cycle, Journal, Moment
from doorward.commands.tasks import Task, about_of, line_of
from doorward.errors import HelperError
from doorward.firewall import closed_by_hand

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.commands.tasks import Tasks
    from doorward.config import stanza
    from doorward.record.log import Log
    from doorward.values import Execution

CLOSING_MAX: Final = 4  # close commands at a time, beside the others: no flood of knocks delays them


class OpenCycles:
    """The open cycles, and their journal."""

    def __init__(self, folder: Path, log: Log, tasks: Tasks) -> None:
        """Use the journal in `folder`; adopt() takes over its cycles.

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
        """The number of open cycles."""
        return len(self._cycles)

    def open(self, cycle: stanza.Cycle, execution: Execution, name: str | None) -> bool:
        """Open or renew a cycle; False where it must wait for its own open or close command.

        What is open with the same end is not opened twice, unless the opening command is another one now. `name` is the
        stanza's.

        Raises:
            DoorwardError, OSError: nothing was opened.
        """
        user = arguments.cycle_account(cycle)
        argv = arguments.of_cycle(cycle.open, execution)
        about = about_of(execution.stanza, name, execution.source, user)
        job = self._tasks.job(argv, arguments.environment(execution, user, "open"), user)
        if cycle.close is None:
            self._tasks.put(Task("open", about, job, lambda _: None))
            return True
        wanted = Cycle(
            stanza=execution.stanza,
            source=str(execution.source),
            close=arguments.of_cycle(cycle.close, execution),
            environment=arguments.environment(execution, user, "close"),
            user=user.name,
            group=cycle.group,
            opened=(),
            at=Moment.now(),
            seconds=execution.seconds,
            client=name,
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
        """A cycle merged with its known state: it closes at the later of both ends."""
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
        except OSError as error:  # after a restart another knock opens it again
            self._log.error("doorward-exec: the journal cannot be written: %s", error.strerror)

    def adopt(self) -> None:
        """Take over the cycles of an earlier process."""
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
        """Start the close commands that are due, the longest overdue first."""
        now = Moment.now()
        closing = self._tasks.count("close")
        due = (cycle for cycle in self._cycles.values() if cycle.name not in self._busy and cycle.remaining(now) <= 0)
        for cycle in sorted(due, key=lambda one: one.remaining(now))[: max(0, CLOSING_MAX - closing)]:
            self._close(cycle)

    def _close(self, cycle: Cycle) -> None:
        self._cycles[cycle.name] = replace(cycle, opened=())  # from now on it may be half closed
        try:
            user = arguments.account(cycle.user, cycle.group)
        except HelperError as error:
            self._log.error("doorward-exec: %s", error)
            self._closed(cycle.name, well=False)
            return
        self._busy.add(cycle.name)
        job = self._tasks.job(cycle.close, cycle.environment, user)
        about = about_of(cycle.stanza, cycle.client, cycle.source, user)
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
            what = f"stanza {cycle.stanza}{_in_brackets(cycle.client)} for {cycle.source}: {cycle.close[0]}"
            self._log.error("doorward-exec: CLOSING FAILED, IT STAYS OPEN, tried again in %.0f s: %s", left, what)

    def close_at_once(self) -> None:
        """Close at once the cycles that root closed manually."""
        taken = self.folder / "taken"
        try:
            taken.mkdir(mode=0o700, exist_ok=True)
            (self.folder / closed_by_hand.FILE).rename(taken / closed_by_hand.FILE)
        except OSError:
            return
        now = Moment.now()
        for moment, source in closed_by_hand.read(taken):
            for cycle in list(self._cycles.values()):
                if source in {None, cycle.address} and (cycle.at.boot != now.boot or cycle.at.steady <= moment):
                    self._cycles[cycle.name] = replace(cycle, seconds=0, retry_at=None)
        (taken / closed_by_hand.FILE).unlink(missing_ok=True)
        self.close_what_is_due()


def _in_brackets(name: str | None) -> str:
    return "" if name is None else f" ({name})"
