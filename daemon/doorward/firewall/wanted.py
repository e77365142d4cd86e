"""The texts that our table may have: that of a file, or of a change that waits for its confirmation."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import kernel, layout, ruleset
from doorward.firewall.kernel import read_table
from doorward.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.firewall.kernel import Table
    from doorward.firewall.layout import Layout
    from doorward.firewall.libnftables import Libnftables
    from doorward.linux.netlink import Netlink

FAILURE_FILE: Final = "failure.nft"  # beside the confirmed file; the firewall role writes both
FILE_BYTES_MAX: Final = 1 << 20  # a rendered table is some 3 KB
SWITCH_FOLDER: Final = Path("/run/doorward/fw")  # of the dead man's switch; a reboot must empty it
PENDING, CANDIDATE, PREVIOUS = "pending", "candidate.nft", "previous.nft"  # files of the dead man's switch
MARK_TEXT: Final = """\
# This host was closed by a confirmed table. While this file is here, a lost firewall file means the failure policy.
"""  # the firewall role writes the same
_KNOWN_MAX: Final = 16  # texts; a configuration has three


@dataclass(frozen=True, slots=True)
class Text:
    """The text of a table, and words for the log once it is loaded; `failure` is why it is not the confirmed file's."""

    content: str
    done: str
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What the kernel makes of a text."""

    table: Table
    layout: Layout


class Files:
    """The texts of files, and what the kernel makes of them."""

    def __init__(
        self, file: Path, switch: Path | None, nft: Libnftables, nftables: Netlink, good: str | None = None
    ) -> None:
        """Use the file of a confirmed table, and the folder of the dead man's switch.

        `good` is a text that the file had, which counts while it has none.
        """
        self._file = file
        self._switch = switch
        self._nft = nft
        self._kernel = nftables
        self.good = good
        self._known: dict[str, Known] = {}

    @property
    def is_confirmed(self) -> bool:
        """Whether this host was ever closed by a confirmed table."""
        return os.path.lexists(self._file) or os.path.lexists(mark_of(self._file))

    @property
    def is_pending(self) -> bool:
        """Whether a change waits for its confirmation."""
        return self._switch is not None and (self._switch / PENDING).exists()

    def pending(self) -> Iterator[Text]:
        """The texts of a change that waits for its confirmation: its table, and the one that a rollback restores."""
        if self._switch is None or not self.is_pending:
            return
        for name in (CANDIDATE, PREVIOUS):
            with suppress(FirewallError):
                yield Text(self._usable(_root_text(self._switch / name)), f"loaded {self._switch / name}")

    def confirmed(self) -> Text:
        """The confirmed file's text.

        Raises:
            FirewallError: it cannot be used.
        """
        try:
            content = self._usable(_root_text(self._file), closing=True)
        except FirewallError as error:
            if self.good is None:
                raise
            said = f"{self._file} does not load ({error})"
            return Text(self.good, f"{said}: loaded what it said before", said)
        self.good = content
        return Text(content, f"loaded {self._file}")

    def at_failure(self, error: FirewallError) -> Text | None:
        """The failure policy's text, if there is one that can be used."""
        failure = self._file.with_name(FAILURE_FILE)
        said = f"{self._file} does not load ({error})"
        with suppress(FirewallError):
            words = f"{said}: the failure policy's {failure} is in force"
            return Text(self._usable(_root_text(failure)), words, words)
        return None

    def known(self, content: str) -> Known | None:
        """What the kernel makes of a text, or None where it takes the text but not beside our table.

        Raises:
            FirewallError: it does not load, or makes no table.
        """
        if content not in self._known:
            try:
                made = self._loaded_beside(content)
            except FirewallError:
                self._nft.check(ruleset.swap(content))
                return None
            if made is None:
                msg = "it makes no table that serves grants"
                raise FirewallError(msg)
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[content] = made
        return self._known[content]

    def _usable(self, content: str, *, closing: bool = False) -> str:
        known = self.known(content)
        if known is not None and not known.table.serves_grants:
            msg = "it makes no table that serves grants"
            raise FirewallError(msg)
        if known is not None and closing and known.table.kind == "observe":
            msg = "its table closes nothing"
            raise FirewallError(msg)
        return content

    def _loaded_beside(self, content: str) -> Known | None:
        """Load a text under another name, dormant, and read it: no unit of ours may make a network namespace."""
        name = f"{kernel.NAME}_{os.getpid()}"
        remove = f"add table inet {name}; delete table inet {name}\n"
        self._nft.run(remove + ruleset.dormant(content, name))
        try:
            table, found = read_table(self._kernel, name), layout.read(self._kernel, name)
        finally:
            self._nft.run(remove)
        return None if table is None or found is None else Known(table, found.awake())


def mark_of(file: Path) -> Path:
    """The file that says, beside a confirmed one, that there was one: its loss must not open the host."""
    return file.with_name(f"{file.name}.confirmed")


def table_text(file: Path) -> str:
    """The text of a firewall file.

    Raises:
        FirewallError: unreadable, too long, not UTF-8, or it defines anything but our table.
    """
    return _text(file, of_root=False)


def _root_text(file: Path) -> str:
    """The text of a firewall file that root alone can write.

    Raises:
        FirewallError: as table_text(), or another user can write it.
    """
    return _text(file, of_root=True)


def _text(file: Path, *, of_root: bool) -> str:
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if of_root and (status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
                msg = f"{file}: others can write it: it must belong to root alone"
                raise FirewallError(msg)
            text = stream.read(FILE_BYTES_MAX + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file}: {error}"
        raise FirewallError(msg) from error
    if len(text) > FILE_BYTES_MAX:
        msg = f"{file}: longer than {FILE_BYTES_MAX} bytes"
        raise FirewallError(msg)
    ruleset.refuse_foreign(text)
    return text
