"""The fuzzers find a fault that is there, keep what shows it, and count what they did."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import plaintexts, spellings
from fuzz.targets import TARGETS

RUN = Path(__file__).resolve().parents[1] / "fuzz/run.py"


def fuzz(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(RUN),
        "--plaintexts",
        "0",
        "--spellings",
        "0",
        "--seed",
        "1",
        "--folder",
        str(folder),
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def test_a_run_fails_at_a_planted_fault_keeps_its_input_and_goes_on_with_the_others(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="coverage-guided fuzzing needs atheris, which this platform has not")
    done = fuzz(tmp_path, "--target", "planted", "--target", "words", "--seconds", "4", "--jobs", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 targets, 1 failed, " in done.stdout
    crashes = list((tmp_path / "crashes").iterdir())
    assert [crash.name.partition("-crash-")[0] for crash in crashes] == ["planted"]
    again = fuzz(tmp_path, "--replay", "planted", str(crashes[0]))
    assert again.returncode != 0
    assert "AssertionError" in again.stderr
    assert fuzz(tmp_path, "--replay", "words", str(crashes[0])).returncode == 0


def test_generated_plaintexts_reach_messages_and_every_kind_of_refusal() -> None:
    said = plaintexts.report(20_000, seed=1)
    assert said.startswith("20000 plaintexts behind the crypto, seed 1:")
    assert "  read\n" in said
    assert said.count("refused: ") >= 28, said


def test_no_other_spelling_of_a_good_packet_opens_anything() -> None:
    said = spellings.report(6_000, seed=1)
    assert said.startswith("6000 other spellings of good packets, seed 1:")
    assert [way for way in spellings.WAYS if f"  {way}: " not in said] == []
    assert {reason for reason in ("malformed", "hmac", "decryption") if f": {reason}\n" not in said} == set()


def test_the_same_seed_gives_the_same_plaintexts() -> None:
    def made(seed: int) -> list[bytes]:
        return list(plaintexts.generated(50, random.Random(seed)))  # noqa: S311  to be repeated, no secret

    assert made(1) == made(1)
    assert made(1) != made(2)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_seeds_that_keep_its_promise(name: str) -> None:
    assert TARGETS[name].seeds
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)
