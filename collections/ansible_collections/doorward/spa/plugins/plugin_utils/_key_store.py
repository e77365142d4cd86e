# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys that the controller holds: one folder a host, one file a client, made once and never remade."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.errors import AnsibleError

if TYPE_CHECKING:
    from ansible.parsing.dataloader import DataLoader

_NAME = re.compile(r"[A-Za-z0-9_@\[][A-Za-z0-9_.@:+%\[\]-]{0,199}", re.ASCII)
_ENROLMENT = "enrolment"
_ENROLLED = "enrolled"


def path(folder: str, host: str, client: str) -> Path:
    """Return where the key of `client` for `host` is kept.

    Raises:
        AnsibleError: a name that could leave the folder.
    """
    for kind, name in (("host", host), ("client", client)):
        if not _NAME.fullmatch(name):
            msg = f"{name!r} cannot be the name of a {kind} that has keys: letters, digits and _.@:+%[]- only"
            raise AnsibleError(msg)
    return Path(folder).expanduser() / host / f"{client}.key"


def read(file: Path, loader: DataLoader) -> str | None:
    """Return the key text in `file`, decrypted where it is vaulted, or None where there is none.

    Raises:
        AnsibleError: a plain key that others may read, or a vaulted one without its secret.
    """
    if not file.exists():
        return None
    clear = Path(loader.get_real_file(str(file)))
    if clear == file and file.stat().st_mode & 0o077:
        msg = f"{file} holds a key and others may read it: make it mode 0600, or vault it"
        raise AnsibleError(msg)
    text = clear.read_text(encoding="utf-8")
    loader.cleanup_tmp_file(str(clear))
    return text


def create(file: Path, text: str) -> bool:
    """Write `text` to a new file of mode 0600; False, and nothing written, when the file is there already."""
    for folder in (file.parent.parent, file.parent):  # only the last is made with the mode by mkdir(parents)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    import tempfile  # noqa: PLC0415  the lookup, which only reads, runs in every task

    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".draft-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, file)  # unlike a rename this never replaces a key that another run made meanwhile
    except FileExistsError:
        return False
    finally:
        Path(draft).unlink()
    return True


def enrolment(host_folder: Path, *, make: bool) -> str | None:
    """Return the enrolment id of a host, made on demand; the host bears the same once it is enrolled."""
    file = host_folder / _ENROLMENT
    if make:
        import secrets  # noqa: PLC0415  as above

        create(file, secrets.token_hex(16) + "\n")
    return file.read_text(encoding="ascii").strip() if file.exists() else None


def named(folder: Path, mark: str) -> str:
    """Return the name of the host that bears this enrolment id, empty where none does."""
    files = folder.glob(f"*/{_ENROLMENT}")
    fitting = (file for file in files if file.read_text(encoding="ascii", errors="replace").strip() == mark)
    return next((file.parent.name for file in fitting), "")


def enrolled(host_folder: Path) -> bool:
    """Tell whether this controller has seen the host bear its enrolment id."""
    return (host_folder / _ENROLLED).exists()


def vaulted(text: str, vault_id: str, loader: DataLoader) -> str:
    """Return the text encrypted with the secret of an id; as it is where the id is empty.

    Raises:
        AnsibleError: there is no such secret.
    """
    if not vault_id:
        return text
    from ansible.parsing.vault import VaultLib, match_secrets  # noqa: PLC0415  as above

    known = loader._vault.secrets or []  # noqa: SLF001  the loader offers no other way to its secrets
    fitting = match_secrets(known, [vault_id])
    if not fitting:
        msg = f"there is no vault secret with the id {vault_id!r}: give one with --vault-id {vault_id}@FILE"
        raise AnsibleError(msg)
    return VaultLib(known).encrypt(text, secret=fitting[0][1], vault_id=vault_id).decode()


def mark_enrolled(host_folder: Path) -> bool:
    """Remember that the host bears its enrolment id; tell whether that is new."""
    return create(host_folder / _ENROLLED, "")


def forget_enrolled(host_folder: Path) -> bool:
    """Forget that the host bears its enrolment id; its keys stay. Tell whether there was something to forget."""
    mark = host_folder / _ENROLLED
    known = mark.exists()
    mark.unlink(missing_ok=True)
    return known
