from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from doorward.errors import HelperError
from doorward.linux import privileges


def run(program: str) -> str:
    """Run a program that gives up something for good, and return its output."""
    lines = f"import resource\nfrom doorward.linux import privileges, seccomp\n{program}"
    return subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True).stdout.strip()


def test_a_limit_is_lowered_and_never_raised() -> None:
    shown = run(
        "for most in (100, 200):\n"
        "    privileges.limit([(resource.RLIMIT_NOFILE, most)])\n"
        "    print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert shown.splitlines() == ["100 100", "100 100"]


NOT_ALLOWED = "seccomp.install({'prlimit64': (), **{name: ((),) for name in seccomp.GNUPG if 'limit' not in name}})\n"


def test_a_limit_that_a_unit_forbids_is_passed_over_where_that_is_allowed() -> None:
    limit = "privileges.limit([(resource.RLIMIT_NOFILE, 100)]"
    assert run(f"{NOT_ALLOWED}{limit}, where_allowed=True)\nprint('done')") == "done"
    with pytest.raises(subprocess.CalledProcessError):
        run(f"{NOT_ALLOWED}{limit})")


def test_a_process_gains_nothing_and_hides() -> None:
    shown = run(
        "import ctypes\n"
        "privileges.gain_nothing()\n"
        "privileges.hide()\n"
        "prctl = ctypes.CDLL(None).prctl\n"
        "print(prctl(39, 0, 0, 0, 0), prctl(3, 0, 0, 0, 0))"  # PR_GET_NO_NEW_PRIVS, PR_GET_DUMPABLE
    )
    assert shown == "1 0"


def test_a_peer_of_another_user_is_refused() -> None:
    """The tests' own user is not the listener's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, pytest.raises(HelperError, match=r"a process of uid \d+ is not the listener"):
        privileges.check_peer(ours)


def test_a_user_namespace_has_the_ids_of_its_map_alone() -> None:
    table = "         0       1000          1\n         1     100000      65536\n"
    assert [privileges._is_mapped(number, table) for number in (0, 1, 65536, 65537)] == [True, True, True, False]  # noqa: SLF001  the kernel writes no such table here
    privileges.require_user(privileges.account())


def test_a_capability_that_is_missing_is_named_with_its_remedy() -> None:
    code = (
        "from doorward.linux import privileges as p; p.keep_capabilities(()); p._hold(()); p.require((p.CAP_SETUID,))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "CAP_SETUID missing here: start the container with --cap-add=SETUID, or" in done.stderr
