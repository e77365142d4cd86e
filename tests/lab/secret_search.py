"""Whether a secret of the lab stands in its inventory: every secret that there is, in every file that ansible reads."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from lab import hosts
from lab.plan import STATE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lab.plan import Host

# Lines of key files and of access.conf behind which a secret stands.
SECRET = re.compile(r"^(?:doorward1-private|(?:HMAC_)?KEY_BASE64|PSK_BASE64):?\s+(\S+)$", re.MULTILINE)


def secrets_in(texts: Iterable[str]) -> set[str]:
    """What stands behind the words of secrets in key files."""
    return {secret for text in texts for secret in SECRET.findall(text)}


def of_the_lab(known: Iterable[Host]) -> set[str]:
    """All secrets of knocks: the private halves of the hosts and of the controller, and the symmetric keys."""
    files = [STATE / "client.key", *(STATE / "keys").glob("*/*.key")]
    there = [hosts.inside(host, "cat", "/etc/doorward/host.key", "/etc/doorward/access.conf") for host in known]
    return secrets_in([*there, *(file.read_text(encoding="utf-8") for file in files)])


def files_with(secrets: set[str], inventory: Path) -> list[Path]:
    """The files of an inventory that have one of the secrets; links are followed, as ansible does."""
    sought = [secret.encode() for secret in secrets]
    texts = {file: file.read_bytes() for file in files_of(inventory)}
    return [file for file, text in texts.items() if any(secret in text for secret in sought)]


def files_of(inventory: Path) -> list[Path]:
    """The files of an inventory, those behind links included."""
    folders = [inventory]
    found = []
    while folders:
        for entry in sorted(folders.pop().iterdir()):
            if entry.is_dir():
                folders.append(entry)
            elif entry.is_file():
                found.append(entry)
    return found


def planted(secret: str, inventory: Path, copy: Path) -> Path:
    """Plant a secret in a copy of the inventory, where a team would by mistake; return the file."""
    shutil.copytree(inventory, copy)
    file = next(each for each in files_of(copy) if each.name == "doorward.yml")
    file.write_text(f"{file.read_text(encoding='utf-8')}doorward_psk: {secret}\n", encoding="utf-8")
    return file
