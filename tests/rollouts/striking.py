"""A fault is injected into a roll-out to one host: begun, struck, watched, and what it left looked at."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.containers import words
from lab.controller import AT_ONCE
from lab.run import LabError
from rollouts import blows
from rollouts.faults import Blow, Moment
from rollouts.owner import seconds_away, watching
from rollouts.scene import ROLLOUT, begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lab.trial import Trial
    from rollouts.faults import Fault
    from rollouts.owner import Watch
    from rollouts.scene import Run, Scene

PATIENCE: Final = 90.0  # seconds after a run in which a host puts back what nobody has confirmed
BARRED: Final = 8.0  # seconds for the same where what was injected is in the way
LOCKED_OUT: Final = "LOCKED OUT"

# All of ours, and every unit of root's, with mode, owner and content; then the table. Not what a switch itself keeps.
_FILES: Final = """
for path in /etc/doorward /usr/lib/doorward /usr/bin/doorward /usr/sbin/doorwardd /usr/sbin/doorward-first-aid \\
        /etc/systemd/system /etc/tmpfiles.d; do
    find "$path" \\( -type f -o -type l \\) ! -path '/etc/doorward/change/lock' ! -path '/etc/doorward/change/kept' \\
        ! -path '/etc/doorward/change/*.sh' -exec stat -c '%n %a %U %N' {} + -exec sha256sum {} +
done 2>/dev/null
echo "table $({ nft -s -t list table inet doorward 2>&1 || echo none; } | sha256sum)"
"""
_PENDING: Final = """
for name in /etc/doorward/change/pending /etc/doorward/change/rolling /run/doorward/fw/pending; do
    [ ! -e $name ] || echo $name
done
"""
# Who applies holds the lock until all of it is in force.
_IN_FORCE: Final = "until [ -e {0}/pending ] && flock -n {0}/lock true; do wait_a_bit; done"
_WHEN: Final = {
    Moment.BEFORE: "",
    Moment.ARMED: "until [ -e /etc/doorward/change/pending ]; do wait_a_bit; done",
    Moment.SWAPPED: _IN_FORCE.format("/etc/doorward/change"),
    Moment.CLOSED: _IN_FORCE.format("/run/doorward/fw"),
}
_NEVER: Final = 77
_WAITS: Final = f"left=6000; wait_a_bit() {{ left=$((left - 1)); [ $left -gt 0 ] || exit {_NEVER}; sleep 0.01; }}"


@dataclass(slots=True)
class Struck:
    """What became of the strike; the error is empty once it was done as it was meant."""

    error: str = "its moment never came"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a roll-out ended, and what the host was like then.

    ``away`` are the seconds in which the owner did not get in, None where that did not end. ``undone`` says that it
    ended, or that the host was quiet, only without what was injected. ``unsettled`` is what was wrong in the end.
    """

    said: str
    ended_well: bool
    strike: str
    away: float | None
    undone: bool
    unsettled: str
    differs: tuple[str, ...]

    def wrong(self, fault: Fault) -> Iterator[str]:
        """What is not as it has to be after this fault."""
        if fault.task and self.strike:
            yield f"the strike: {self.strike}"
        if self.unsettled:
            yield self.unsettled
        if self.ended_well != fault.ends_well:
            yield "the run ended well" if self.ended_well else "the run failed"
        new = sorted(set(self.differs) - set(fault.leaves))
        if new and not self.ended_well:
            yield f"kept: {', '.join(new)}"


def files(trial: Trial) -> dict[str, str]:
    """What stands for each file of ours on the host; it differs as soon as mode, owner, target or content do."""
    found: dict[str, str] = {}
    for line in trial.console("sh", "-c", _FILES).splitlines():
        first, rest = line.split(maxsplit=1)
        name, value = (first, rest) if first.startswith("/") or first == "table" else (rest, first)
        found[name] = f"{found.get(name, '')}{value} "
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """What differs, sorted."""
    return tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))


def inject(scene: Scene) -> Ending:
    """Roll out, strike, and look at the host until it is quiet and can be entered."""
    before = files(scene.trial)
    with watching(scene.owner) as watch, undone(scene) as undo:
        ended_well, said, strike = play(scene)
        unsettled = settle(scene.trial, watch, BARRED if scene.fault.bars else PATIENCE)
        is_undone = bool(unsettled) and scene.fault.bars
        if is_undone:
            undo()
            unsettled = settle(scene.trial, watch, PATIENCE)
        differs = differences(before, files(scene.trial))
    return Ending(said, ended_well, strike, seconds_away(watch.looks), is_undone, unsettled, differs)


def play(scene: Scene) -> tuple[bool, str, str]:
    """Whether the run ended well, what it said, and what was wrong with the strike."""
    struck = Struck()
    under_way = begin(scene)
    striker = threading.Thread(target=_strike_in_time, args=(scene, under_way, struck))
    striker.start()
    code = under_way.end()
    said = under_way.said() if code or scene.fault.again else "it ended well"
    if scene.fault.again:
        again = scene.controller.playbook(ROLLOUT, "--limit", scene.host, *AT_ONCE)
        code, said = again.code, f"{said} - begun again at once: {'ok' if again.code == 0 else again.output[-500:]}"
    striker.join()
    return code == 0, said, struck.error


# --- the strike -------------------------------------------------------------------------------------------------------


def _strike_in_time(scene: Scene, under_way: Run, struck: Struck) -> None:
    """Wait for the task, then for the moment, and strike."""
    fault, go = scene.fault, scene.folder / "go"
    while not (scene.folder / "reached").exists():
        if not fault.task or under_way.process.poll() is not None:
            return
        time.sleep(0.05)
    try:
        if fault.moment is Moment.BEFORE:
            _strike(scene, under_way)
        else:
            _strike_later(scene, under_way, go)
        struck.error = ""
    except (LabError, OSError, subprocess.SubprocessError) as error:
        struck.error = str(error)
    finally:
        go.touch()


def _strike_later(scene: Scene, under_way: Run, go: Path) -> None:
    """Let the task begin, and strike as soon as the host says that the moment is there."""
    strike = scene.fault.strike
    script = "\n".join((_WAITS, _WHEN[scene.fault.moment], strike if isinstance(strike, str) else ""))
    command = words("exec", scene.trial.host.container, "sh", "-eu", "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as waiting:
        go.touch()
        said, _ = waiting.communicate()
    if waiting.returncode:
        text = "its moment never came" if waiting.returncode == _NEVER else f"ended with {waiting.returncode}: {said}"
        raise LabError(text)
    if isinstance(strike, Blow):
        blows.strike(strike, scene, under_way)


def _strike(scene: Scene, under_way: Run) -> None:
    strike = scene.fault.strike
    if isinstance(strike, Blow):
        blows.strike(strike, scene, under_way)
    else:
        scene.trial.console("sh", "-eu", "-c", strike)


# --- afterwards -------------------------------------------------------------------------------------------------------


@contextmanager
def undone(scene: Scene) -> Iterator[Callable[[], None]]:
    """What takes away what was injected; it is done once, at the end of the block at the latest."""
    left = [scene.fault.undo] if scene.fault.undo else []

    def undo() -> None:
        if left:
            scene.trial.console("sh", "-eu", "-c", left.pop())

    try:
        yield undo
    finally:
        if isinstance(scene.fault.strike, Blow):
            blows.take_back(scene.fault.strike, scene)
        undo()


def settle(trial: Trial, watch: Watch, seconds: float) -> str:
    """Wait until nothing is pending on the host and its owner gets in; return what is wrong where that never comes."""
    end, quiet = time.monotonic() + seconds, 0.0
    while True:
        pending = _pending(trial)
        quiet = 0.0 if pending else quiet or time.monotonic()
        if quiet and watch.got_in_since(quiet):
            return ""
        if time.monotonic() > end:
            return f"still there: {pending}" if pending else LOCKED_OUT
        time.sleep(0.5)


def _pending(trial: Trial) -> str:
    """What waits for a confirmation or is taken back; a host that is down waits too."""
    try:
        return " ".join(trial.console("sh", "-c", _PENDING).split())
    except LabError:
        return "the host"
