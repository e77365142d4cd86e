# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revoked clients, as the controller remembers them: their keys, and the hosts that may still accept them.

One file beside the keys, `.revoked.json`. It holds public keys and fingerprints, so nothing secret. It is written as a
whole, under a lock, since the forks of a run work on hosts side by side.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ansible.errors import AnsibleError
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FILE = ".revoked.json"
LONGEST = 100  # characters of a name in access.conf


class Revoked(NamedTuple):
    """A revoked client: since when (UTC), its keys, and the hosts on which it is not known to be gone."""

    name: str
    since: str
    keys: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()

    def accepts(self, host: str, name: str, key: str) -> bool:
        """Tell whether a client that a host knows is this one."""
        return key in self.keys or (host in self.waiting and name == self.name[:LONGEST])


def read(folder: str) -> tuple[Revoked, ...]:
    """Return all that were revoked.

    Raises:
        AnsibleError: the file is damaged; a run that went on would let revoked clients in again.
    """
    file = _file(folder)
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))["revoked"]
        return tuple(
            Revoked(each["name"], each["since"], frozenset(each["keys"]), frozenset(each["waiting"])) for each in listed
        )
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{file} says which clients are revoked, and cannot be read: {error}. Put it back from a copy"
        raise AnsibleError(msg) from error


def note(folder: str, name: str, since: str, keys: Iterable[str], waiting: Iterable[str]) -> Revoked:
    """Remember a client as revoked, with keys and hosts beside those that are known; return all that is known of it."""
    with _changing(folder) as known:
        before = known.get(name, Revoked(name, since))
        known[name] = before._replace(keys=before.keys | set(keys), waiting=before.waiting | set(waiting))
        return known[name]


def done(folder: str, host: str, name: str = "", keys: Iterable[str] = ()) -> bool:
    """Note that a host does not accept a client any more, or with no name none of them; tell whether that is new."""
    if not _file(folder).exists():
        return False
    with _changing(folder) as known:
        news = False
        for each in [one for one in known.values() if name in {"", one.name}]:
            after = each._replace(keys=each.keys | (set(keys) if name else set()), waiting=each.waiting - {host})
            news, known[each.name] = news or after != each, after
        return news


def forget(folder: str, name: str) -> None:
    """Forget a client that nobody knows."""
    with _changing(folder) as known:
        known.pop(name, None)


def _file(folder: str) -> Path:
    return Path(folder).expanduser() / _FILE


@contextlib.contextmanager
def _changing(folder: str) -> Iterator[dict[str, Revoked]]:
    """Give what is known by name, and write it if it has changed; others wait meanwhile."""
    file = _file(folder)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read(folder)
        known = {each.name: each for each in before}
        yield known
        if tuple(known.values()) != before:
            listed = [
                {"name": each.name, "since": each.since, "keys": sorted(each.keys), "waiting": sorted(each.waiting)}
                for each in known.values()
            ]
            _archive.write_whole(file, json.dumps({"revoked": listed}, indent=2) + "\n")
