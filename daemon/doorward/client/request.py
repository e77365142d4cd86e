"""From a profile to a request: keys fetched, defaults filled in, contradictions refused."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.client.packet import OpenPgpKeys, Request
from doorward.config import fwknoprc
from doorward.config.profile import PASSPHRASE_MAX, Carrier, OpenPgpMode, Profile, bounded_text
from doorward.errors import ClientError, ConfigError, Problem
from doorward.values import HMAC_KEY_MAX, KEY_MAX, DigestType, EncryptionMode, SymmetricKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from doorward.client.nat import Led
    from doorward.client.outside import Outside
    from doorward.values import Secret, Service

PORT: Final = 62201  # fwknop's default
_NO_USER: Final = "NO_USER"
_FILLING: Final = " \t="  # what a key file may have around host and key (client/getpasswd.c)


def saved_profile(
    outside: Outside,
    rc_file: Path | None,
    stanza: str | None,
    host: str | None = None,
    service: Service | None = None,
) -> Profile:
    """Return what the client's file says: the named stanza, or the one for host and service, or `[default]`.

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
    if stanza is None and host is not None and service is not None:
        stanza = client_file.named_for(host, service)
    return client_file.profile(stanza or fwknoprc.DEFAULT)


def _is_absent(path: Path) -> bool:
    """Say whether there surely is no such file; one that merely cannot be reached is left for load() to complain of."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def request(
    profile: Profile,
    led: Led,
    host: str,
    environ: Mapping[str, str],
    ask: Callable[[str], str] | None,
) -> Request:
    """Return what to knock with. `ask` gets a secret from a person; None where nobody is there to ask.

    Raises:
        ClientError: no key, or modes that exclude one another.
        ConfigError: a key file is wrong.
    """
    _check(profile)
    return Request(
        services=led.services,
        user=profile.user or user_name(environ, _login()),
        keys=_openpgp_keys(profile, host, ask) if profile.use_gpg else _symmetric_keys(profile, host, ask),
        digest=profile.digest or DigestType.SHA256,
        timeout=profile.timeout or 0,
        time_offset=profile.time_offset or 0,
        nat=led.target,
        local=led.local,
        command=profile.command,
    )


def _check(profile: Profile) -> None:
    """Refuse what fwknop refuses (validate_options(), client/config_init.c)."""
    carrier = profile.carrier or Carrier.UDP
    for wrong, msg in (
        (profile.use_gpg and profile.gpg_recipient is None, "GnuPG needs a recipient: --gpg-recipient-key"),
        (profile.mode is OpenPgpMode.ASYMMETRIC and not profile.use_gpg, "mode Asymmetric is GnuPG: name its keys"),
        (profile.spoofed is not None and not carrier.is_raw, "a spoofed source needs -P udpraw, tcpraw or icmp"),
        (profile.http_proxy is not None and carrier is not Carrier.HTTP, "a proxy needs -P http"),
    ):
        if wrong:
            raise ClientError(msg)


def user_name(environ: Mapping[str, str], login: str | None) -> str:
    """Return the name that the message carries where none is configured (lib/fko_user.c).

    `login` is the name of this process's user in the system's accounts, for cron and units that set no variable.
    """
    named = (environ.get("SPOOF_USER"), environ.get("LOGNAME"), login, environ.get("USER"))
    return next((name for name in named if name), _NO_USER)


def _login() -> str | None:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def _symmetric_keys(profile: Profile, host: str, ask: Callable[[str], str] | None) -> SymmetricKeys:
    mode = profile.mode if isinstance(profile.mode, EncryptionMode) else EncryptionMode.CBC
    key = _KeySearch("encryption key", KEY_MAX, host, ask).find(profile.key, profile.key_file)
    hmac_key = _hmac_key(profile, host, ask)
    if hmac_key == key:
        msg = "the encryption key and the HMAC key are the same"
        raise ClientError(msg)
    if mode is EncryptionMode.LEGACY and hmac_key is not None:
        msg = "legacy encryption mode excludes an HMAC"
        raise ClientError(msg)
    return SymmetricKeys(key, hmac_key, profile.hmac_digest or DigestType.SHA256, mode)


def _openpgp_keys(profile: Profile, host: str, ask: Callable[[str], str] | None) -> OpenPgpKeys:
    """Return gpg's keys; a passphrase comes from where fwknop takes it, the encryption key's places included."""
    password = None
    if profile.gpg_signer is not None:
        given = profile.gpg_password or profile.key
        if given is not None or profile.key_file is not None or not (profile.gpg_agent or profile.gpg_no_password):
            search = _KeySearch("passphrase for signing", PASSPHRASE_MAX, host, ask)
            password = search.find(given, profile.key_file)
    return OpenPgpKeys(
        recipient=profile.gpg_recipient or "",
        signer=profile.gpg_signer,
        password=password,
        agent=bool(profile.gpg_agent),
        home=profile.gpg_home,
        exe=profile.gpg_exe,
        hmac_key=_hmac_key(profile, host, ask),
        hmac_digest=profile.hmac_digest or DigestType.SHA256,
    )


def _hmac_key(profile: Profile, host: str, ask: Callable[[str], str] | None) -> Secret | None:
    if profile.hmac_key is None and profile.hmac_key_file is None and not profile.use_hmac:
        return None
    return _KeySearch("HMAC key", HMAC_KEY_MAX, host, ask).find(profile.hmac_key, profile.hmac_key_file)


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
        return bounded_text(limit)(text)
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
            found = bounded_text(limit)(text.lstrip(_FILLING))
        except ValueError as error:
            raise ConfigError([Problem(str(path), number, str(error))]) from error
    if found is None:
        raise ConfigError([Problem(str(path), 0, f"has no line '{host[:80]}: KEY'")])
    return found
