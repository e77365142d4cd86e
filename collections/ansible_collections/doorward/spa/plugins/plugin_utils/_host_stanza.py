# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One stanza in a file of its own, beside the host's access.conf: looked at, and written into a copy.

The work is done on the host by SCRIPT, standard library only: secrets of the stanza that is there never leave it. What
may be shown is a list of names; the values of others are hidden, and names that are not known too: they may be keys.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.doorward.spa.plugins.plugin_utils import _host_access
from ansible_collections.doorward.spa.plugins.plugin_utils._host_facts import PYTHON
from ansible_collections.doorward.spa.plugins.plugin_utils._printed import object_in

WRITE = "--write"
HEAD = "# Written by doorward.spa.access.\n"
_SHOWN = (
    "SOURCE", "NAME", "CLIENT", "OPEN_PORTS", "FW_ACCESS_TIMEOUT", "MAX_FW_TIMEOUT", "REQUIRE_SOURCE_ADDRESS",
    "ACCESS_EXPIRE", "SESSION_MAX", "KEEP_WHILE_USED", "MAX_PREFIX4", "MAX_PREFIX6", "FORCE_NAT", "NAT_TARGETS",
    "CMD_EXEC_USER", "CMD_EXEC_GROUP",
)  # fmt: skip  # a list of names reads better in lines of many
_HIDDEN = ("KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64", "PSK_BASE64", "ONE_TIME_CODE", "COMMANDS")
_COMPARING = r'''
folder, name, wanted, is_written = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:] == ["--write"]
main, file = os.path.join(folder, "access.conf"), os.path.join(MORE, name + ".conf")
path = os.path.join(folder, file)

def hidden(line, known):
    """A line with its value hidden, where it may be a secret; one that was not there before says so."""
    word, value = setting(line)
    if not line.strip() or line == HEAD or word in SHOWN:
        return line
    called = " " + value.split("=")[0] if word == "COMMANDS" and "=" in value else ""
    note = "(hidden)" if line in known else "(hidden, new)"
    return "%-23s %s\n" % (word + called if word in HIDDEN else "#", note)

def shown(lines, known):
    return "".join(hidden(line, known) for line in lines)

def others():
    """The places of stanzas that have this name in access.conf, or in another file of the folder."""
    for one in ["access.conf"] + [each for each in more(folder) if each != file]:
        count = 0
        for part in stanzas(read(os.path.join(folder, one))):
            here = setting(part[0])[0] == "SOURCE" if part else False
            if here and (name in [each[0] for each in clients(part)] or ("NAME", name) in map(setting, part)):
                yield "%s/%s:%d" % (HOME, one, count + 1)
            count += len(part)

def put(path, text):
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline="") as stream:
        stream.write(text)

before = read(path) if os.path.exists(path) else []
after = read(wanted) if wanted else []
there = read(main) if os.path.exists(main) else []
rest = [each for each in more(folder) if each != file] + ([file] if after else [])
said = {
    "changed": before != after or (bool(after) and not any(map(is_ours, there))),
    "before": shown(before, before), "after": shown(after, before),
    "lacks": not os.path.exists(main), "elsewhere": not_here(folder), "others": list(others()) if there else [],
}
if is_written:
    if after:
        put(path, "".join(after))
    elif before:
        os.unlink(path)
    if ended(there, bool(rest)) != there:
        write(main, ended(there, bool(rest)))
print(json.dumps(said))
'''
SCRIPT = f"{_host_access.PARTS}\nHEAD, SHOWN, HIDDEN = {HEAD!r}, {_SHOWN!r}, {_HIDDEN!r}\n{_COMPARING}"


class Found(NamedTuple):
    """What is to be changed, as it may be shown, and why it cannot be done here: other places of stanzas."""

    changed: bool
    before: str
    after: str
    lacks: bool
    elsewhere: tuple[str, ...]
    others: tuple[str, ...]


def file(name: str) -> str:
    """Return the file of a stanza."""
    return f"{_host_access.FOLDER}/{_host_access.MORE}/{name}.conf"


def words(folder: str, name: str, wanted: str, *flags: str) -> tuple[str, ...]:
    """Return the command that compares a stanza with the file of the wanted one, empty for none; WRITE writes it."""
    return (PYTHON, "-I", "-c", SCRIPT, folder, name, wanted, *flags)


def read(printed: str) -> Found:
    """Return what the command printed.

    Raises:
        ValueError: it is something else.
    """
    try:
        said = object_in(printed)
        elsewhere, others = (tuple(map(str, said[key])) for key in ("elsewhere", "others"))
        return Found(bool(said["changed"]), said["before"], said["after"], bool(said["lacks"]), elsewhere, others)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"the host cannot say which stanzas it has: {printed[-300:]!r}"
        raise ValueError(msg) from error
