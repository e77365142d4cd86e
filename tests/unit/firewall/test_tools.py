"""Programs of the system, run by the firewall's tools."""

from __future__ import annotations

import pytest

from doorward.errors import FirewallError
from doorward.firewall import tools


def test_a_program_runs_with_our_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("LD_PRELOAD", "")
    printed = tools.run(["env"], 5).splitlines()
    assert sorted(line for line in printed if not line.startswith("PWD=")) == ["LC_ALL=C", f"PATH={tools.PATH}"]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["no-such-program"], "no-such-program: No such file or directory"),
        (["sh", "-c", "echo one; echo Error: two >&2; exit 3"], r"sh failed \(3\): Error: two"),
        (["sh", "-c", "exit 3"], r"sh failed \(3\): no output"),
        (["sleep", "5"], "sleep took longer than 0 s"),
    ],
)
def test_a_program_that_is_missing_fails_or_hangs_is_an_error_in_its_words(command: list[str], complaint: str) -> None:
    with pytest.raises(FirewallError, match=complaint):
        tools.run(command, 0.3)
