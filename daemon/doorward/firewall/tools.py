"""Programs of the system: argument lists and no shell, an environment of our own, a deadline."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall.libnftables import first_words

if TYPE_CHECKING:
    from collections.abc import Sequence

PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"  # `su` leaves sbin out


def run(command: Sequence[str], seconds: float) -> str:
    """Run a program to its end and return its output.

    Raises:
        FirewallError: it is missing, fails, or takes longer than `seconds`; with its words.
    """
    try:
        done = subprocess.run(  # noqa: S603  a list, no shell; chains' names come from iptables' own listing
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env={"PATH": PATH, "LC_ALL": "C"},
            cwd="/",
        )
    except OSError as error:
        msg = f"{command[0]}: {error.strerror}"
        raise FirewallError(msg) from error
    except subprocess.TimeoutExpired as error:
        msg = f"{command[0]} took longer than {seconds:.0f} s"
        raise FirewallError(msg) from error
    if done.returncode:
        msg = f"{command[0]} failed ({done.returncode}): {first_words(done.stderr or done.stdout)}"
        raise FirewallError(msg)
    return done.stdout
