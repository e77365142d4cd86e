"""The pipeline of a forge and the hooks of an editor run the same programs as `make check` and `make test`."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_pipeline_runs_the_one_definition_of_all_tests() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in commands
    assert "exec make test" in (ROOT / ".ci/run").read_text("utf-8")


def test_the_hooks_are_local_and_run_the_tools_of_the_locked_environment() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert {one["repo"] for one in repositories} == {"local"}
    entries = [hook["entry"] for one in repositories for hook in one["hooks"]]
    programs = [found[0] for entry in entries if (found := re.search(r"\.venv/bin/\S+", entry))]
    assert len(programs) == len(entries)
    assert all((ROOT / program).exists() for program in programs)


def test_every_target_that_people_call_is_explained() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z -]*):", text, re.MULTILINE))
    named = {name for line in targets for name in line.split()} - {"help", "system", "venv", "lab-down"}
    assert not [name for name in named if name not in re.sub(r"(?m)^[^#].*", "", text)]
