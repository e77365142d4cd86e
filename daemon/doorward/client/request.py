"""From a profile to a request: keys fetched, defaults filled in, contradictions refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.client.packet import Request
from doorward.config import fwknoprc
from doorward.config.fwknoprc import ClientFile, Profile
from doorward.errors import ClientError, ConfigError, Problem
from doorward.values import HMAC_KEY_MAX, KEY_MAX, DigestType, EncryptionMode, SymmetricKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from doorward.client.outside import Outside
    from doorward.values import Secret, Service

PORT: Final = 62201  # fwknop's default
_USER_SOURCES: Final = ("SPOOF_USER", "LOGNAME", "USER")  # lib/fko_user.c
_NO_USER: Final = "NO_USER"
_FILLING: Final = " \t="  # what a key file may have around host and key (client/getpasswd.c)


def saved_profile(outside: Outside, rc_file: Path | None, stanza: str | None, host: str | None = None) -> Profile:
    """Return what the client's file says: the named stanza, or the one named like the host, or `[default]`.

    Without `rc_file` it is ~/.fwknoprc, which need not exist unless a stanza is asked for.

    Raises:
        ConfigError: the file is missing or wrong, or has no such stanza.
    """
    path = rc_file or outside.home / ".fwknoprc"
    if rc_file is None and stanza is None and _is_absent(path):
        return Profile()
    client_file = fwknoprc.load(path)
    for warning in client_file.warnings:
        outside.warn(warning)
    return client_file.profile(stanza or _stanza_for(client_file, host))


def _is_absent(path: Path) -> bool:
    """Say whether there surely is no such file; one that merely cannot be reached is left for load() to complain of."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _stanza_for(client_file: ClientFile, host: str | None) -> str:
    return host if host is not None and client_file.has(host) else fwknoprc.DEFAULT


def request(
    profile: Profile,
    services: tuple[Service, ...],
    host: str,
    environ: Mapping[str, str],
    ask: Callable[[str], str] | None,
) -> Request:
    """Return what to knock with. `ask` gets a secret from a person; None where nobody is there to ask.

    Raises:
        ClientError: no key, or modes that exclude one another.
        ConfigError: a key file is wrong.
    """
    keys = _keys(profile, host, ask)
    return Request(
        services=services,
        user=profile.user or user_name(environ),
        keys=keys,
        digest=profile.digest or DigestType.SHA256,
        timeout=profile.timeout or 0,
        time_offset=profile.time_offset or 0,
    )


def user_name(environ: Mapping[str, str]) -> str:
    """Return the name that the message carries where none is configured."""
    return next((environ[name] for name in _USER_SOURCES if environ.get(name)), _NO_USER)


def _keys(profile: Profile, host: str, ask: Callable[[str], str] | None) -> SymmetricKeys:
    mode = profile.mode or EncryptionMode.CBC
    key = _KeySearch("encryption key", KEY_MAX, host, ask).find(profile.key, profile.key_file)
    hmac_key = None
    if profile.hmac_key or profile.hmac_key_file or profile.use_hmac:
        search = _KeySearch("HMAC key", HMAC_KEY_MAX, host, ask)
        hmac_key = search.find(profile.hmac_key, profile.hmac_key_file)
    if hmac_key == key:
        msg = "the encryption key and the HMAC key are the same"
        raise ClientError(msg)
    if mode is EncryptionMode.LEGACY and hmac_key is not None:
        msg = "legacy encryption mode excludes an HMAC"
        raise ClientError(msg)
    return SymmetricKeys(key, hmac_key, profile.hmac_digest or DigestType.SHA256, mode)


@dataclass(frozen=True, slots=True)
class _KeySearch:
    """Where one key may come from. `limit` in bytes."""

    what: str
    limit: int
    host: str
    ask: Callable[[str], str] | None

    def find(self, given: Secret | None, file: Path | None) -> Secret:
        """Return the key that was given, or the file's for this host, or what a person types."""
        if given is not None:
            return given
        if file is not None:
            return key_from_file(file, self.host, self.limit)
        if self.ask is None:
            msg = f"no {self.what} is configured"
            raise ClientError(msg)
        return _typed(self.ask(f"Enter {self.what}: "), self.limit, self.what)


def _typed(text: str, limit: int, what: str) -> Secret:
    try:
        return fwknoprc.bounded_text(limit)(text)
    except ValueError as error:
        msg = f"{what}: {error}"
        raise ClientError(msg) from error


def key_from_file(path: Path, host: str, limit: int) -> Secret:
    """Return the key on the line `host: key`, at most `limit` bytes; the last such line counts, as in fwknop.

    Raises:
        ConfigError: the file cannot be read, or has no good key for this host.
    """
    found: Secret | None = None
    for number, row in enumerate(fwknoprc.rows(path), 1):
        name, separator, text = row.lstrip(_FILLING).partition(f"{host}:")
        if name or not separator or not text.strip(_FILLING):
            continue
        try:
            found = fwknoprc.bounded_text(limit)(text.lstrip(_FILLING))
        except ValueError as error:
            raise ConfigError([Problem(str(path), number, str(error))]) from error
    if found is None:
        raise ConfigError([Problem(str(path), 0, f"has no line '{host[:80]}: KEY'")])
    return found
