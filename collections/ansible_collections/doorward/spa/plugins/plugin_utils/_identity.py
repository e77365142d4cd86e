# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own key pair of the format doorward 1: one file for all hosts, or what a program prints.

The file may be vaulted. A pair that is not plain in a file is put into this run's own folder, mode 0600, once a run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ansible.errors import AnsibleError
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive, _key_store, _key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ansible.parsing.dataloader import DataLoader

_VAULTED = b"$ANSIBLE_VAULT;"
_SECONDS = 60  # a person may have to type a PIN
_LONGEST = 4096  # characters


class Place(NamedTuple):
    """Where the pair is: a file, unless a program prints it."""

    file: str
    command: tuple[str, ...] = ()

    @classmethod
    def of(cls, file: str, command: str | Sequence[str] | None) -> Place:
        """Read the values of options; a command is words, or one text that is split as a shell would."""
        words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command or ()]
        return cls(str(Path(file).expanduser()), tuple(words))

    @property
    def words(self) -> str:
        """What errors call it."""
        return f"what {self.command[0]} prints" if self.command else self.file


def at_hand(place: Place, loader: DataLoader) -> str:
    """Return a file that the client can read the pair from; empty where there is no pair yet.

    Raises:
        AnsibleError: the program fails, or the file is vaulted and its secret is missing.
    """
    if not place.command:
        try:
            with Path(place.file).open("rb") as stream:
                head = stream.read(len(_VAULTED))
        except FileNotFoundError:
            return ""
        except OSError as error:
            msg = f"{place.file}: {error.strerror}"
            raise AnsibleError(msg) from error
        if head != _VAULTED and not any(map(str.isspace, place.file)):
            return place.file
    copy = _copy(place)
    if not copy.is_file():
        with _alone(copy.with_suffix(".lock")):
            if not copy.is_file():
                _archive.write_whole(copy, read(place, loader) or "")
    return str(copy)


def forget(place: Place) -> None:
    """Forget this run's copy of a pair that was replaced."""
    _copy(place).unlink(missing_ok=True)


def read(place: Place, loader: DataLoader) -> str | None:
    """Return the text of the pair; None where there is none yet.

    Raises:
        AnsibleError: the program fails, or the file must not or cannot be read.
    """
    return _printed(place.command) if place.command else _key_store.read(Path(place.file), loader)


def public(text: str, place: Place) -> str:
    """Return the public half of a pair, `doorward1 BASE64 NAME`.

    Raises:
        AnsibleError: the text is no pair; it is never repeated.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    is_pair = len(lines) == 2 and lines[0].startswith("doorward1-private ")  # noqa: PLR2004  the two halves
    with contextlib.suppress(_key_text.KeyTextError):
        if is_pair:
            return _key_text.public(lines[1])
    msg = f"{place.words} is no key pair: a line doorward1-private, then a line doorward1"
    raise AnsibleError(msg)


def make(place: Place, name: str, vaulted: Callable[[str], str]) -> None:
    """Make the pair and write its file; of several that make one at once, the first one's stays.

    Raises:
        AnsibleError: it cannot be made.
    """
    import secrets  # noqa: PLC0415  the lookup, which only reads, runs in every task

    draft = _archive.scratch() / f"doorward-{secrets.token_hex(8)}.new"
    words = [*_archive.command("keys"), "generate", "--public", "--comment", name, "--output", str(draft)]
    done = subprocess.run(  # noqa: S603  our own archive, no shell
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        msg = f"the controller's key pair cannot be made: {done.stderr.strip()[-500:]}"
        raise AnsibleError(msg)
    text = draft.read_text(encoding="ascii")
    draft.unlink()
    _key_store.create(Path(place.file), vaulted(text))


def _copy(place: Place) -> Path:
    """Return where this run's copy of a pair is that is not plain in a file."""
    digest = hashlib.sha256(repr(place).encode()).hexdigest()[:20]
    return _archive.scratch() / f"doorward-{digest}.own"


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Keep the run's other forks waiting: a person is asked for a PIN once."""
    with file.open("w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _printed(command: Sequence[str]) -> str:
    program = shutil.which(Path(command[0]).expanduser())
    if program is None:
        msg = f"doorward_private_key_command: {command[0]} is no program, or is not in PATH"
        raise AnsibleError(msg)
    if Path(program).stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        msg = f"doorward_private_key_command: {program} can be written by other users, so it is not run"
        raise AnsibleError(msg)
    try:
        done = subprocess.run(  # noqa: S603  the user's own program
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"doorward_private_key_command: {program} failed: {type(error).__name__}"
        raise AnsibleError(msg) from None  # its output may be in it
    if done.returncode or not done.stdout.strip() or len(done.stdout) > _LONGEST:
        story = f"ended with {done.returncode}" if done.returncode else f"printed {len(done.stdout)} bytes"
        msg = f"doorward_private_key_command: {program} {story}, where a key pair was expected"
        raise AnsibleError(msg)
    return done.stdout.decode("ascii", "replace")
