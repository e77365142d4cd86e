"""From a profile to a request: keys fetched, defaults filled in, contradictions refused."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from doorward.client.outside import UnansweredError
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


@dataclass(frozen=True, slots=True)
class Saved:
    """What the client's file says, and where that was read; `path` None stands for no file.

    `stanzas` has those that were read, the first over the others; none where there is no such file. `unread` is the
    stanza of the host's name where nobody asked for it. `asked` has the kinds of keys that are not looked for.
    """

    profile: Profile = field(default_factory=Profile)
    path: Path | None = None
    stanzas: tuple[str, ...] = ()
    unread: str | None = None
    asked: frozenset[KeyKind] = frozenset()

    def lacks(self, kind: KeyKind) -> str:
        """Return the words for where a key was looked for in vain."""
        if kind in self.asked:
            return f"it was to be asked for ({kind.asking})"
        if self.path is None:
            return "no file was read"
        if not self.stanzas:
            return f"there is no {self.path}"
        has = "has" if len(self.stanzas) == 1 else "have"
        return f"{' and '.join(f'[{name}]' for name in self.stanzas)} of {self.path} {has} none"

    def remedy(self, kind: KeyKind, *, by_options: bool) -> str:
        """Return what helps; `by_options` where the command has fwknop's options."""
        if kind in self.asked:
            return "hand it over with --fd or --stdin"
        if self.unread is not None:
            return f"that file has a stanza [{self.unread}]: read it with -n {self.unread}"
        if self.path is None:
            return kind.option
        place = f"[{self.stanzas[0]}]" if self.stanzas else "it"
        return f"write {kind.name} into {place}{kind.source}" + (f", or {kind.option}" if by_options else "")


def client_file(outside: Outside, path: Path) -> fwknoprc.ClientFile:
    """Return the client's file, and warn of what is odd about it.

    Raises:
        ConfigError: it is missing or wrong.
    """
    found = fwknoprc.load(path)
    for warning in found.warnings:
        outside.warn(warning)
    return found


def saved_profile(
    outside: Outside,
    rc_file: Path | None,
    stanza: str | None,
    host: str | None = None,
    service: Service | None = None,
) -> Saved:
    """Return what the client's file says: the named stanza, or the one for host and service, or `[default]`.

    Without `rc_file` it is ~/.fwknoprc, which need not exist unless a stanza is asked for. Without `service` the host's
    stanza has to be asked for, as in fwknop.

    Raises:
        ConfigError: the file is missing or wrong, or has no such stanza.
    """
    path = rc_file or outside.home / ".fwknoprc"
    if rc_file is None and stanza is None and _is_absent(path):
        return Saved(path=path)
    found = client_file(outside, path)
    if stanza is None and host is not None and service is not None:
        stanza = found.named_for(host, service)
    read = tuple(dict.fromkeys((stanza or fwknoprc.DEFAULT, fwknoprc.DEFAULT)))
    unread = host if stanza is None and host is not None and found.has(host) else None
    return Saved(found.profile(read[0]), path, read, unread)


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
    search: KeySearch,
    environ: Mapping[str, str],
) -> Request:
    """Return what to knock with.

    Raises:
        ClientError: no key, or modes that exclude one another.
        ConfigError: a key file is wrong.
    """
    _check(profile)
    return Request(
        services=led.services,
        user=profile.user or user_name(environ, _login()),
        keys=_openpgp_keys(profile, search) if profile.use_gpg else _symmetric_keys(profile, search),
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
        (
            profile.use_gpg and profile.gpg_recipient is None,
            "GnuPG needs a recipient: --gpg-recipient-key KEY (GPG_RECIPIENT)",
        ),
        (
            profile.mode is OpenPgpMode.ASYMMETRIC and not profile.use_gpg,
            "mode Asymmetric is GnuPG: name its keys with --gpg-recipient-key and --gpg-signer-key",
        ),
        (profile.spoofed is not None and not carrier.is_raw, "a spoofed source needs -P udpraw, tcpraw or icmp"),
        (
            profile.http_proxy is not None and carrier is not Carrier.HTTP,
            f"a proxy needs -P http, and this knock has -P {carrier.value}",
        ),
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


def _symmetric_keys(profile: Profile, search: KeySearch) -> SymmetricKeys:
    mode = profile.mode if isinstance(profile.mode, EncryptionMode) else EncryptionMode.CBC
    key = search.find(ENCRYPTION, profile.key, profile.key_file)
    hmac_key = _hmac_key(profile, search)
    if hmac_key == key:
        msg = "the encryption key and the HMAC key are the same: `doorward keys generate` makes two"
        raise ClientError(msg)
    if mode is EncryptionMode.LEGACY and hmac_key is not None:
        msg = "legacy encryption mode excludes an HMAC: take another mode (-M), or leave the HMAC key out"
        raise ClientError(msg)
    return SymmetricKeys(key, hmac_key, profile.hmac_digest or DigestType.SHA256, mode)


def _openpgp_keys(profile: Profile, search: KeySearch) -> OpenPgpKeys:
    """Return gpg's keys; a passphrase comes from where fwknop takes it, the encryption key's places included."""
    password = None
    if profile.gpg_signer is not None:
        given = profile.gpg_password or profile.key
        if given is not None or profile.key_file is not None or not (profile.gpg_agent or profile.gpg_no_password):
            password = search.find(PASSPHRASE, given, profile.key_file)
    return OpenPgpKeys(
        recipient=profile.gpg_recipient or "",
        signer=profile.gpg_signer,
        password=password,
        agent=bool(profile.gpg_agent),
        home=profile.gpg_home,
        exe=profile.gpg_exe,
        hmac_key=_hmac_key(profile, search),
        hmac_digest=profile.hmac_digest or DigestType.SHA256,
    )


def _hmac_key(profile: Profile, search: KeySearch) -> Secret | None:
    if profile.hmac_key is None and profile.hmac_key_file is None and not profile.use_hmac:
        return None
    return search.find(HMAC, profile.hmac_key, profile.hmac_key_file)


@dataclass(frozen=True, slots=True)
class KeyKind:
    """A kind of key in the words of messages. `limit` in bytes; `option` is what names one, `asking` what asks for it.

    `name` is the file's, `source` says where a new one comes from.
    """

    what: str
    limit: int
    name: str
    option: str
    asking: str = "--ask-key"
    source: str = " (`doorward keys generate` makes new ones)"


ENCRYPTION: Final = KeyKind("encryption key", KEY_MAX, "KEY_BASE64", "name a file of lines HOST: KEY with -G")
HMAC: Final = KeyKind(
    "HMAC key", HMAC_KEY_MAX, "HMAC_KEY_BASE64", "name a file of lines HOST: KEY with --get-hmac-key", "--ask-hmac-key"
)
PASSPHRASE: Final = KeyKind(
    "passphrase for signing",
    PASSPHRASE_MAX,
    "GPG_SIGNING_PW_BASE64 or USE_GPG_AGENT Y",
    "leave it to gpg-agent with --gpg-agent",
    source="",
)


@dataclass(frozen=True, slots=True)
class KeySearch:
    """Where the keys for a host may come from. `ask` gets one from a person; None where nobody is there to ask."""

    host: str
    ask: Callable[[str], str] | None
    saved: Saved = field(default_factory=Saved)

    def find(self, kind: KeyKind, given: Secret | None, file: Path | None) -> Secret:
        """Return the key that was given, or the file's for this host, or what a person types."""
        if given is not None:
            return given
        if file is not None:
            return key_from_file(file, self.host, kind)
        try:
            return _typed(self._answer(kind), kind)
        except UnansweredError as error:
            remedy = self.saved.remedy(kind, by_options=self.ask is not None)
            msg = f"no {kind.what}: {self.saved.lacks(kind)}, and {error}; {remedy}"
            raise ClientError(msg) from error

    def _answer(self, kind: KeyKind) -> str:
        if self.ask is None:
            msg = "`doorward connect` asks nobody"
            raise UnansweredError(msg)
        return self.ask(f"Enter {kind.what}: ")


def _typed(text: str, kind: KeyKind) -> Secret:
    try:
        return bounded_text(kind.limit)(text)
    except ValueError as error:
        msg = f"{kind.what}: {error}"
        raise ClientError(msg) from error


def key_from_file(path: Path, host: str, kind: KeyKind) -> Secret:
    """Return the key on the line `host: key`; the last such line counts, as in fwknop.

    Raises:
        ClientError: no host is named.
        ConfigError: the file cannot be read, or has no good key for this host.
    """
    if not host:
        msg = f"{path} has a key a host: name the host with -D, so that its {kind.what} can be found"
        raise ClientError(msg)
    found: Secret | None = None
    for number, row in enumerate(fwknoprc.rows(path), 1):
        name, separator, text = row.lstrip(_FILLING).partition(f"{host}:")
        if name or not separator or not text.strip(_FILLING):
            continue
        try:
            found = bounded_text(kind.limit)(text.lstrip(_FILLING))
        except ValueError as error:
            raise ConfigError([Problem(str(path), number, str(error))]) from error
    if found is None:
        raise ConfigError([Problem(str(path), 0, f"has no line '{host[:80]}: KEY' for the {kind.what}")])
    return found
