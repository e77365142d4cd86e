# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients in a host's own access.conf: listed, and taken out of a copy. Standard library only.

The work is done on the host by SCRIPT, so that no secret leaves it: a public key is named as it is, a symmetric one by
its fingerprint. Clients are taken out of the text that is there, line by line: what else stands in the file stays. The
stanzas of the action access are files of the folder access.d, which access.conf includes: they are read and written as
well.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.doorward.spa.plugins.plugin_utils._host_facts import PYTHON
from ansible_collections.doorward.spa.plugins.plugin_utils._printed import object_in

NEW_KEY = "--new-key"
FOLDER = "/etc/doorward"
MORE = "access.d"  # in it, and as access.conf has it: a copy of both is read as the copy
_ENDING = ("\n", "# The stanzas of doorward.spa.access.\n", f"%include_folder {MORE}\n")  # the role writes the same
_READING = r'''
import base64, hashlib, json, os, re, sys

SETTING = re.compile(r"\s*(%?[A-Za-z][A-Za-z0-9_]*)(?::|\s+:(?=\s))?\s*(.*?)\s*(?:;.*)?$")
REDACTED = re.compile(r"# key (SHA256:\S+)")

def setting(line):
    found = None if line.lstrip()[:1] in ("#", ";") else SETTING.match(line)
    return (found[1], found[2]) if found else ("", "")

def raw(text):
    try:
        return base64.b64encode(base64.b64decode(text, validate=True))
    except ValueError:
        return text.encode()

def fingerprint(values):
    digest = hashlib.sha256(raw(values["KEY_BASE64"]) + b"\n" + raw(values["HMAC_KEY_BASE64"])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

def stanzas(lines):
    """The lines of the head, then those of each stanza."""
    parts = [[]]
    for line in lines:
        if setting(line)[0] == "SOURCE":
            parts.append([])
        parts[-1].append(line)
    return parts

def clients(part):
    """Name, key and line of each client of a stanza; a symmetric key is that of the whole stanza."""
    values = dict(map(setting, reversed(part)))
    opens = values.get("OPEN_PORTS", "").replace(",", " ").split()
    found = []
    for place, line in enumerate(part):
        name, value = setting(line)
        words = value.split()
        if name == "CLIENT" and len(words) > 1:
            found.append((" ".join(words[2:]) or values.get("NAME", ""), " ".join(words[:2]), place, opens))
    if found:
        return found
    shown = [match[1] for match in map(REDACTED.match, part) if match]
    key = fingerprint(values) if {"KEY_BASE64", "HMAC_KEY_BASE64"} <= set(values) else shown[0] if shown else ""
    return [(values.get("NAME", ""), key, None, opens)]

def included(line):
    """What a line of %include or %include_folder names, but for the folder of doorward.spa.access."""
    name, value = setting(line)
    return value if name.startswith("%include") and not is_ours(line) else ""

def is_ours(line):
    """Whether a line includes the folder of doorward.spa.access."""
    name, value = setting(line)
    return name == "%include_folder" and os.path.normpath(os.path.join(HOME, value)) == os.path.join(HOME, MORE)

def without(part, gone):
    """A stanza without the clients that go; where none stays, only what includes our folder behind it."""
    here = clients(part)
    going = [each for each in here if each[0] in gone or each[1] in gone]
    if len(going) == len(here):
        return ENDING if part[-len(ENDING):] == ENDING else [line for line in part if is_ours(line)], going
    places = {each[2] for each in going}
    return [line for place, line in enumerate(part) if place not in places], going

def beside(part, old, new):
    """A stanza with a second line of CLIENT for whoever has the old key, unless it is there."""
    keys = [each[1] for each in clients(part)]
    if old not in keys or new in keys:
        return part
    place = next(each[2] for each in clients(part) if each[1] == old)
    return part[:place + 1] + [part[place].replace(old.split()[1], new.split()[1], 1)] + part[place + 1:]

def read(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return stream.read().splitlines(True)

def write(path, lines):
    with open(path, "r+", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        stream.truncate()
        stream.write("".join(lines))

def not_here(folder):
    """Where the settings have the stanzas, where it is not access.conf."""
    settings = os.path.join(folder, "doorwardd.conf")
    return [value for name, value in map(setting, read(settings) if os.path.exists(settings) else [])
            if name == "ACCESS_FOLDER" or name == "ACCESS_FILE" and value != "/etc/doorward/access.conf"]

def more(folder):
    """The files of doorward.spa.access, in the order in which they are read."""
    place = os.path.join(folder, MORE)
    names = sorted(os.listdir(place)) if os.path.isdir(place) else []
    return [os.path.join(MORE, name) for name in names if name.endswith(".conf") and name[0] != "."]

def ended(lines, has_more):
    """access.conf, including the folder of doorward.spa.access where there is anything in it, and else not."""
    if any(map(is_ours, lines)) == has_more:
        return lines
    if has_more:
        whole = lines if not lines or lines[-1].endswith("\n") else lines[:-1] + [lines[-1] + "\n"]
        return whole + ENDING
    if lines[-len(ENDING):] == ENDING:
        return lines[:-len(ENDING)]
    return [line for line in lines if not is_ours(line)]
'''
_LISTING = """
folder, words = sys.argv[1], sys.argv[2:]
elsewhere, removed, listed, kept = not_here(folder), [], [], []
main = os.path.join(folder, "access.conf")
reads_more = os.path.exists(main) and any(map(is_ours, read(main)))
for name in ["access.redacted", "access.conf"] + (more(folder) if reads_more else []):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        continue
    head, *parts = stanzas(read(path))
    if words[:1] == ["--new-key"]:
        kept = [beside(part, words[1], words[2]) for part in parts]
        changed = kept != parts
    else:
        pairs = [without(part, set(words)) for part in parts]
        kept, gone = [part for part, _ in pairs if part], [each for _, going in pairs for each in going]
        changed = bool(gone)
        removed += gone if name != "access.redacted" else []
    if changed and name.startswith(MORE) and not kept:
        os.unlink(path)
        if not more(folder):
            write(main, ended(read(main), False))
    elif changed:
        write(path, head + [line for part in kept for line in part])
    if name != "access.redacted":
        listed += [each for part in kept if setting(part[0])[0] == "SOURCE" for each in clients(part)]
        elsewhere += filter(None, map(included, head + sum(parts, [])))
named = lambda found: [{"name": each[0], "key": each[1], "opens": each[3]} for each in found]
print(json.dumps({"clients": named(listed), "removed": named(removed), "elsewhere": elsewhere}))
"""
PARTS = f"HOME, MORE, ENDING = {FOLDER!r}, {MORE!r}, {list(_ENDING)!r}\n{_READING}"
SCRIPT = PARTS + _LISTING


class Known(NamedTuple):
    """A client that a host knows: its name, a public key or the fingerprint of a symmetric one, and its services."""

    name: str
    key: str
    opens: tuple[str, ...] = ()


class Access(NamedTuple):
    """The clients of a file, those that were taken out of it, and other files that may have more."""

    clients: tuple[Known, ...]
    removed: tuple[Known, ...]
    elsewhere: tuple[str, ...]


def words(folder: str, *more: str) -> tuple[str, ...]:
    """Return the command that lists the clients of a folder's access.conf, without those named by name or key."""
    return (PYTHON, "-I", "-c", SCRIPT, folder, *more)


def read(printed: str) -> Access:
    """Return what the command printed.

    Raises:
        ValueError: it is something else.
    """
    try:
        found = object_in(printed)
        listed, removed = (
            tuple(Known(each["name"], each["key"], tuple(each["opens"])) for each in found[key])
            for key in ("clients", "removed")
        )
        return Access(listed, removed, tuple(map(str, found["elsewhere"])))
    except (ValueError, KeyError, TypeError) as error:
        msg = f"the host cannot say which clients it knows: {printed[-300:]!r}"
        raise ValueError(msg) from error
