"""Coverage-guided fuzzing of every parser: `python tests/fuzz/run.py --seconds 600` divides the time among all.

What breaks a promise of targets.py is kept in FOLDER/crashes, shown with its traceback, and fails the run. To see one
again: `python tests/fuzz/run.py --replay NAME FILE`. The corpus in FOLDER/corpus grows from run to run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parents[2]
for folder in ("daemon", "tests"):
    if str(REPOSITORY / folder) not in sys.path:
        sys.path.insert(0, str(REPOSITORY / folder))

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.target import Target

LONGEST = 4096  # bytes of an input
SLOWEST = 20  # seconds that one input may take before it counts as a hang
MEMORY = 1024  # megabytes that one target may use
PLANTED = "planted"  # the name of a target with a fault, which shows that a run finds one
PLAINTEXTS = 300_000
SPELLINGS = 215_000
PRIVATE = "--in-this-process"  # how the run calls itself for one target


@dataclass(frozen=True, slots=True)
class Outcome:
    """What fuzzing one target came to; `log` is all that it printed."""

    name: str
    code: int
    log: str

    @property
    def tried(self) -> int:
        """The number of inputs."""
        return int(_last(r"stat::number_of_executed_units: (\d+)", self.log) or _last(r"#(\d+)", self.log))

    def __str__(self) -> str:
        """Return a line: target, inputs tried, branches reached, verdict."""
        reached = _last(r" cov: (\d+)", self.log)
        verdict = "ok" if self.code == 0 else f"FAILED (exit {self.code})"
        return f"{self.name:12} {self.tried:>10} inputs {reached:>6} branches   {verdict}"


def main(arguments: Sequence[str]) -> int:
    """Return 0 when no target failed, 1 when one did, 2 when there is nothing to fuzz with."""
    if arguments[:1] == [PRIVATE]:
        return fuzz_here(arguments[1], arguments[2:])
    options = _options(arguments)
    if options.replay:
        name, file = options.replay
        _target(name).run(Path(file).read_bytes())
        sys.stdout.write(f"{name}: keeps its promise under {file}\n")
        return 0
    try:
        import atheris  # noqa: F401, PLC0415  needed only here
    except ImportError:
        sys.stderr.write("fuzzing needs atheris, which there is for Python 3.11 to 3.13 on x86-64 Linux\n")
        return 2
    return fuzz_all(options)


def fuzz_all(options: argparse.Namespace) -> int:
    """Fuzz every chosen target, some at a time, and print what became of each."""
    from fuzz.targets import TARGETS  # noqa: PLC0415  after the path is set

    names = options.target or list(TARGETS)
    sys.stdout.write(_behind_the_crypto(options) if options.plaintexts else "")
    sys.stdout.write(_in_other_spellings(options) if options.spellings else "")
    sys.stdout.flush()
    seconds = max(1, options.seconds * options.jobs // len(names))
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda name: _fuzz_apart(name, seconds, options), names))
    failed = [outcome for outcome in outcomes if outcome.code]
    sys.stdout.write("".join(f"=== {outcome.name}\n{outcome.log[-6000:]}\n" for outcome in failed))
    tried = sum(outcome.tried for outcome in outcomes)
    sys.stdout.write("\n".join(map(str, outcomes)))
    sys.stdout.write(f"\n{len(outcomes)} targets, {len(failed)} failed, {tried} inputs\n")
    return 1 if failed else 0


def _behind_the_crypto(options: argparse.Namespace) -> str:
    from fuzz import plaintexts  # noqa: PLC0415  after the path is set

    return plaintexts.report(options.plaintexts, options.seed, options.jobs)


def _in_other_spellings(options: argparse.Namespace) -> str:
    from fuzz import spellings  # noqa: PLC0415  after the path is set

    return spellings.report(options.spellings, options.seed, options.jobs)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together (default: 600)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time (default: one a core)")
    parser.add_argument("--target", action="append", metavar="NAME", help="only this one; can be given several times")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build/fuzz", help="where corpus and crashes go")
    parser.add_argument("--seed", type=int, default=0, help="of the randomness; 0 takes a new one (default)")
    parser.add_argument("--plaintexts", type=int, default=PLAINTEXTS, help="generated behind the crypto first")
    parser.add_argument("--spellings", type=int, default=SPELLINGS, help="other spellings of good packets first")
    parser.add_argument("--replay", nargs=2, metavar=("NAME", "FILE"), help="run one target on one file and end")
    return parser.parse_args(arguments)


def _fuzz_apart(name: str, seconds: int, options: argparse.Namespace) -> Outcome:
    """Fuzz one target in a process of its own: a hang or a lack of memory ends that one alone."""
    corpus, crashes = options.folder / "corpus" / name, options.folder / "crashes"
    for path in (corpus, crashes):
        path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="doorward-fuzz-") as seeds:
        flags = _flags(_target(name), seconds, options.seed, Path(seeds))
        command = [sys.executable, __file__, PRIVATE, name, *flags, f"-artifact_prefix={crashes}/{name}-"]
        ended = subprocess.run(
            [*command, str(corpus), seeds],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            errors="replace",
            timeout=seconds + 40 * SLOWEST,
        )
    return Outcome(name, ended.returncode, ended.stdout)


def _flags(target: Target, seconds: int, seed: int, folder: Path) -> list[str]:
    """Return libFuzzer's options, the seeds and words of a target written to `folder`."""
    for number, content in enumerate(target.seeds):
        (folder / f"seed-{number}").write_bytes(content)
    flags = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MEMORY}",
        f"-max_len={LONGEST}",
        f"-seed={seed}",
        "-print_final_stats=1",
    ]
    if target.words:
        words = folder / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        flags.append(f"-dict={words}")
    return flags


def _escaped(word: str) -> str:
    return "".join(char if char.isalnum() or char in "_% {" else f"\\x{ord(char):02x}" for char in word)


def fuzz_here(name: str, flags: Sequence[str]) -> int:
    """Fuzz one target in this process; libFuzzer ends the process when its time is over or a promise is broken."""
    import atheris  # noqa: PLC0415  instruments what is imported after it

    with atheris.instrument_imports(include=["doorward"]):
        target = _target(name)
    atheris.Setup([sys.argv[0], *flags], target.run)
    atheris.Fuzz()
    return 0


def _target(name: str) -> Target:
    from fuzz.target import Target  # noqa: PLC0415
    from fuzz.targets import TARGETS  # noqa: PLC0415  imports all of doorward, instrumented in a child

    return Target(_fault, (b"tcp/9",)) if name == PLANTED else TARGETS[name]


def _fault(content: bytes) -> None:
    """Fail at one port, which nothing but the way through the parser leads to."""
    from doorward.errors import WireError  # noqa: PLC0415
    from doorward.values import Service  # noqa: PLC0415

    try:
        found = Service.parse(content.decode("latin-1"))
    except WireError:
        return
    assert found.port != 7


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    return found[-1] if found else "0"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
