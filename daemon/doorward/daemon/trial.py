"""What a start would refuse beyond the files' words: `doorwardd check` tries it, and changes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from doorward import replay
from doorward.errors import ConfigError, OpenPgpError, Problem, ReportError
from doorward.gnupg import remote, worker
from doorward.record import audit_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doorward.config.access import Access
    from doorward.config.settings import DaemonSettings


def of_stanzas(access: Access) -> list[str]:
    """Try the keyrings as gpg's worker opens them; the warnings about signers.

    Raises:
        ConfigError: the keyring of a stanza cannot be used.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    rings = remote.keyrings(access.stanzas, access.homes)
    places = {remote.ring(one.openpgp): one for one in reversed(access.stanzas) if one.openpgp is not None}
    with worker.workspace() as folder:
        for number, (ring, one) in enumerate(rings.items()):
            stanza = places[ring]
            try:
                with worker.keyring(one, folder / str(number)) as decryptor:
                    warnings += worker.doubts(decryptor, one)
            except (OSError, OpenPgpError) as error:
                problems.append(Problem(stanza.path, stanza.line, f"GPG_DECRYPT_ID {one.decrypt_id}: {error}"))
    if problems:
        raise ConfigError(problems)
    return warnings


def of_settings(settings: DaemonSettings) -> None:
    """Try what the settings name.

    Raises:
        ConfigError: a file cannot be used.
    """
    problems = list(_problems(settings))
    if problems:
        raise ConfigError(problems)


def _problems(settings: DaemonSettings) -> Iterator[Problem]:
    try:
        if replay.is_foreign(settings.replay_file):
            text = "no replay store of doorward (DIGEST_DB_FILE): name another file, or --rotate-digest-cache"
            yield Problem(str(settings.replay_file), 0, text)
    except OSError as error:
        yield Problem(str(settings.replay_file), 0, f"DIGEST_DB_FILE cannot be read: {error.strerror}")
    if settings.audit_file is not None:
        yield from _audit_file(settings.audit_file)
    capture = settings.pcap_file
    if capture is not None and not (capture.is_file() and os.access(capture, os.R_OK)):
        yield Problem(str(capture), 0, "no regular file that can be read (--pcap-file)")


def _audit_file(path: Path) -> Iterator[Problem]:
    try:
        os.close(audit_file.of_either(path, lambda: audit_file.of_root(path, begin=False), begin=False))
    except ReportError as error:
        yield Problem(str(path), 0, str(error).replace(f"AUDIT_FILE {path}", "AUDIT_FILE"))
