"""`doorward status` on a person's machine: who this user is to the hosts. Nothing is sent, and no key is shown."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward import __version__, portable
from doorward.client import fwknoprc, known_hosts, seen
from doorward.client.address import Endpoint, own_address
from doorward.client.keys import key_file
from doorward.client.request import PORT, user_name
from doorward.errors import ConfigError
from doorward.linux.clock import is_synchronised

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import SimpleNamespace

    from doorward.client.profile import Profile
    from doorward.client.surroundings import Outside

HOSTS_FILES: Final = (Path("/etc/doorward/access.conf"), Path("/run/doorward/doorwardd.pid"))
_CLOCK: Final = {
    True: "kept right by a program",
    False: "no program keeps it right, as far as the kernel knows; two minutes off, no knock opens",
    None: "this system does not say whether a program keeps it right",
}
_AHEAD: Final = 300  # seconds by which a file may be newer than the clock


def report(said: SimpleNamespace, outside: Outside) -> int:
    """Say it, and return the exit code: 0 where all is well, 1 where something is not, 4 on a host.

    Raises:
        ConfigError: the file of sections, or that of known hosts, cannot be read.
    """
    path: Path = said.rc_file or outside.home / ".fwknoprc"
    known = None if said.rc_file is None and not path.exists() else fwknoprc.load(path)
    keys = [] if known is None else list(_keys(known, key_file(outside.environ)))
    learned = [] if known is None and not _seen_file(outside).exists() else list(_learned(outside))
    found: dict[str, Any] = {
        "version": __version__,
        "user": user_name(outside.environ, portable.login()),
        "file": str(path),
        "keys": keys,
        "pinned": [",".join(each.names) for each in known_hosts.load(known_hosts.path(outside.environ))],
        "seen": learned,
        "clock": is_synchronised(),
        "is_host": any(file.exists() for file in HOSTS_FILES),
    }
    doubts = [*(known.warnings if known else ()), *_doubts(found, path, outside)]
    outside.say(json.dumps(found | {"well": not doubts, "doubts": doubts}) if said.json else _text(found, doubts))
    if found["is_host"] and not said.me:
        outside.warn("this machine is a host too: what it opens is told to root alone: sudo doorward status")
        return 4
    return int(bool(doubts))


def _keys(known: fwknoprc.ClientFile, identity_file: Path) -> Iterator[dict[str, Any]]:
    """The sections, each with what it knocks at and what kind of key it has; `key` null is none."""
    for name in known.names:
        try:
            profile = known.profile(name)
        except ConfigError as error:
            yield {"section": name, "mistakes": [str(each) for each in error.problems]}
            continue
        if name.lower() == fwknoprc.DEFAULT and not profile.can_seal:
            continue
        access = ",".join(map(str, profile.access or ()))
        yield {
            "section": name,
            "host": profile.server,
            "access": access or None,
            "key": _key(profile, identity_file),
            "hmac": any(
                each is not None
                for each in (profile.host_key, profile.hmac_key, profile.hmac_key_file, profile.hmac_key_command)
            ),
        }


def _key(profile: Profile, identity_file: Path) -> str | None:
    """Where the key is, never the key."""
    if profile.host_key is not None:
        return f"pair in {profile.client_key_file or identity_file}"
    if profile.use_gpg:
        return f"GnuPG, for {profile.gpg_recipient}" if profile.gpg_recipient else None
    if profile.key_command is not None:
        return f"printed by {profile.key_command[0]}"
    if profile.key is not None:
        return "in the file"
    return None if profile.key_file is None else f"in {profile.key_file}"


def _seen_file(outside: Outside) -> Path:
    return seen.path(outside.environ, outside.home)


def _learned(outside: Outside) -> Iterator[dict[str, Any]]:
    """The addresses at which others have seen this machine; `here` is whether from the network that it is in now."""
    entries, complaint = seen.load(_seen_file(outside))
    if complaint:
        yield {"complaint": complaint}
    now = outside.clock()
    for each in sorted(entries, key=lambda entry: -entry.time):
        fresh = -seen.AHEAD_MAX < now - each.time < seen.AGE_MAX
        yield {
            "by": each.by,
            "address": str(each.address),
            "age": seen.age(now - each.time),
            "here": _is_here(each),
            "used": fresh,
        }


def _is_here(entry: seen.Seen) -> bool | None:
    """Whether an entry is from this network; None where that cannot be told."""
    if entry.by == seen.SITE:
        return None
    host = ipaddress.ip_address(entry.by)
    try:
        return seen.way(own_address(Endpoint(host, PORT)), host) == entry.way
    except OSError:
        return False


def _doubts(found: dict[str, Any], path: Path, outside: Outside) -> Iterator[str]:
    """What is not well, one sentence each."""
    if not found["keys"] and not found["pinned"]:
        yield f"there is no key in {path}: `doorward import -` takes the line of `doorward init`"
    for each in found["keys"]:
        yield from each.get("mistakes", ())
        if "mistakes" not in each and each["key"] is None:
            yield f"[{each['section']}] has no key: it is dialled without a knock"
    yield from (each["complaint"] for each in found["seen"] if "complaint" in each)
    if path.exists() and path.stat().st_mtime > outside.clock() + _AHEAD:
        yield f"the clock is behind: {path} was written in its future"


def _text(found: dict[str, Any], doubts: list[str]) -> str:
    return "\n".join(
        [
            f"doorward {found['version']}: user {found['user']}",
            *(_key_text(each) for each in found["keys"] if "mistakes" not in each),
            *(f"{each}: knocked at with the key that `doorward keys pin` keeps" for each in found["pinned"]),
            *(_seen_text(each) for each in found["seen"] if "complaint" not in each),
            f"clock: {_CLOCK[found['clock']]}",
            *(f"NOT WELL: {each}" for each in doubts),
        ]
    )


def _key_text(each: dict[str, Any]) -> str:
    services = f" for {each['access']}" if each["access"] else ""
    host = each["host"] or "the host that is dialled"
    hmac = "" if each["hmac"] else ", without an HMAC"
    key = f"key {each['key']}{hmac}" if each["key"] else "no key"
    return f"[{each['section']}] knocks at {host}{services}: {key}"


def _seen_text(each: dict[str, Any]) -> str:
    where = {True: ", from this network", False: ", from another network", None: ""}[each["here"]]
    witness = "a site told" if each["by"] == seen.SITE else f"{each['by']} saw this machine at"
    return f"{witness} {each['address']} {each['age']}{where}{'' if each['used'] else ', too old to be used'}"
