"""From a profile to a request: keys fetched, defaults filled in, contradictions refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward import portable
from doorward.client import fwknoprc
from doorward.client.keys import key_file
from doorward.client.packet import OpenPgpKeys, PublicKeys, Request
from doorward.client.profile import (
    PASSPHRASE_MAX,
    Carrier,
    CodeRule,
    OpenPgpMode,
    Profile,
    bounded_text,
    one_time_code,
)
from doorward.client.surroundings import UnansweredError
from doorward.errors import ClientError, ConfigError, Problem
from doorward.values import HMAC_KEY_MAX, KEY_MAX, DigestType, EncryptionMode, SymmetricKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from doorward.client.nat import NatRequest
    from doorward.client.surroundings import Outside
    from doorward.values import Secret, Service

PORT: Final = 62201  # fwknop's default
_NO_USER: Final = "NO_USER"
_FILLING: Final = " \t="  # characters around host and key in a key file (client/getpasswd.c)


class Saved(NamedTuple):
    """The client's file's settings and where they were read; `path` None stands for no file.

    `sections` were read, the first over the others; empty where the file is missing. `unread` is the section of the
    host's name that was not asked for. `asked` are the kinds of keys to ask for, even where the file has them.
    """

    profile: Profile = Profile()
    path: Path | None = None
    sections: tuple[str, ...] = ()
    unread: str | None = None
    asked: frozenset[KeyKind] = frozenset()

    def lacks(self, kind: KeyKind) -> str:
        """The places that were searched for a key, in words."""
        if self.profile.sequence is not None:
            return "SEQUENCE makes no packet, and only `doorward knock` sends it"
        if kind in self.asked:
            return f"{kind.asking} asks for it"
        if self.path is None:
            return "no file was read"
        if not self.sections:
            return f"there is no {self.path}"
        has = "has" if len(self.sections) == 1 else "have"
        return f"{' and '.join(f'[{name}]' for name in self.sections)} of {self.path} {has} none"

    def remedy(self, kind: KeyKind, *, by_options: bool) -> str:
        """The remedy for a missing key; `by_options` where the command has fwknop's options."""
        if kind in self.asked:
            return "pass it with --fd or --stdin"
        if self.unread is not None:
            return f"that file has a section [{self.unread}]: read it with -n {self.unread}"
        if self.path is None:
            return kind.option
        place = f"[{self.sections[0]}]" if self.sections else "it"
        return f"write {kind.name} into {place}{kind.source}" + (f", or {kind.option}" if by_options else "")


def client_file(outside: Outside, path: Path) -> fwknoprc.ClientFile:
    """The client's file; its oddities become warnings.

    Raises:
        ConfigError: it is missing or wrong.
    """
    found = fwknoprc.load(path)
    for warning in found.warnings:
        outside.warn(warning)
    return found


def saved_profile(
    outside: Outside,
    rc_file: Path | fwknoprc.ClientFile | None,
    section: str | None,
    host: str | None = None,
    service: Service | None = None,
) -> Saved:
    """The settings of the client's file: the named section, or the one for host and service, or `[default]`.

    Without `rc_file` it is ~/.fwknoprc; a ClientFile was read already. A file may be missing unless a section is named,
    as in fwknop, but a named file not where `service` is given: a misspelt one would mean no knock. Without `service`
    the host's section must be named, as in fwknop.

    Raises:
        ConfigError: the file is missing or wrong, or has no such section.
    """
    if isinstance(rc_file, fwknoprc.ClientFile):
        path, found = Path(rc_file.path), rc_file
    else:
        path = rc_file or outside.home / ".fwknoprc"
        if (rc_file is None or service is None) and section is None and _is_absent(path):
            return Saved(path=path)
        found = client_file(outside, path)
    if section is None and host is not None and service is not None:
        section = found.named_for(host, service)
    read = tuple(dict.fromkeys((section or fwknoprc.DEFAULT, fwknoprc.DEFAULT)))
    unread = host if section is None and host is not None and found.has(host) else None
    return Saved(found.profile(read[0]), path, read, unread)


def _is_absent(path: Path) -> bool:
    """Whether the file is certainly missing; load() complains about one that cannot be reached."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    return False


def request(profile: Profile, nat: NatRequest, search: KeySearch, environ: Mapping[str, str]) -> Request:
    """The request of a profile.

    Raises:
        ClientError: no key, or modes that exclude one another.
        ConfigError: a key file is wrong.
    """
    _check(profile)
    user = profile.user or user_name(environ, portable.login())
    if profile.host_key is not None:
        from doorward.client import identity  # noqa: PLC0415  other formats do without cryptography

        pair = identity.load(profile.client_key_file or key_file(environ))
        keys = PublicKeys(pair.private, profile.host_key, profile.psk)
        if profile.one_time_code is CodeRule.ASK:
            profile = profile._replace(one_time_code=search.code())
        return Request(profile, nat, keys, user)
    if profile.key_command is not None or profile.hmac_key_command is not None:
        from doorward.client import key_command  # noqa: PLC0415  it starts programs

        profile = key_command.with_printed_keys(profile)
    secret = _openpgp_keys(profile, search) if profile.use_gpg else _symmetric_keys(profile, search)
    return Request(profile, nat, secret, user)


def _check(profile: Profile) -> None:
    """Refuse what fwknop refuses (validate_options(), client/config_init.c)."""
    if profile.host_key is not None and profile.use_gpg:
        msg = "HOST_KEY and USE_GPG exclude one another: USE_GPG N leaves GnuPG out"
        raise ClientError(msg)
    if profile.host_key is None and profile.prefixes is not None:
        msg = "a prefix (PREFIX) goes with the host's public key (HOST_KEY): other formats carry none"
        raise ClientError(msg)
    if profile.host_key is None and isinstance(profile.one_time_code, int):
        msg = "a one-time code goes with the host's public key (HOST_KEY): other formats carry none"
        raise ClientError(msg)
    if profile.host_key is not None and profile.transport not in {Carrier.UDP, Carrier.UDPRAW}:
        msg = f"the format doorward 1 (HOST_KEY) goes over UDP, not over {profile.transport.value}"
        raise ClientError(msg)
    if profile.use_gpg and profile.gpg_recipient is None:
        msg = "GnuPG needs a recipient: --gpg-recipient-key KEY (GPG_RECIPIENT)"
        raise ClientError(msg)
    if profile.mode is OpenPgpMode.ASYMMETRIC and not profile.use_gpg:
        msg = "mode Asymmetric is GnuPG: name its keys with --gpg-recipient-key and --gpg-signer-key"
        raise ClientError(msg)
    if profile.spoofed is not None and not profile.transport.is_raw:
        msg = "a spoofed source needs -P udpraw, tcpraw or icmp"
        raise ClientError(msg)
    if profile.http_proxy is not None and profile.transport is not Carrier.HTTP:
        msg = f"a proxy needs -P http, and this knock has -P {profile.transport.value}"
        raise ClientError(msg)


def user_name(environ: Mapping[str, str], login: str | None) -> str:
    """The user name for the message where none is configured (lib/fko_user.c).

    `login` is the name of this process's user in the system's accounts, for cron and units that set no variable.
    """
    named = (environ.get("SPOOF_USER"), environ.get("LOGNAME"), login, environ.get("USER"))
    return next((name for name in named if name), _NO_USER)


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
    """The keys for gpg; the passphrase comes from fwknop's places for it, those of the encryption key included."""
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


class KeyKind(NamedTuple):
    """A kind of key in the words of messages. `limit` in bytes; `name` is the file's.

    `option` is the option that gives the key, `asking` the option that asks for it, `source` the source of a new key.
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


def _ask_nobody(_prompt: str) -> str:
    msg = "this command asks no questions"
    raise UnansweredError(msg)


class KeySearch(NamedTuple):
    """The places where a host's keys may be. `ask` asks the user; None where no question may be asked.

    `ask_code` asks for a one-time code, which is in no place but an app.
    """

    host: str
    ask: Callable[[str], str] | None
    saved: Saved = Saved()
    ask_code: Callable[[str], str] = _ask_nobody

    def code(self) -> int:
        """The one-time code that the user types.

        Raises:
            ClientError: it is none, or nobody can be asked.
        """
        try:
            typed = one_time_code(self.ask_code("Enter one-time code: "))
        except UnansweredError as error:
            msg = f"no one-time code, and {error} (knock and connect take --otp CODE)"
            raise ClientError(msg) from error
        except ValueError as error:
            msg = f"what was typed {error}"
            raise ClientError(msg) from error
        if isinstance(typed, CodeRule):
            msg = "no one-time code was typed"
            raise ClientError(msg)
        return typed

    def find(self, kind: KeyKind, given: Secret | None, file: Path | None) -> Secret:
        """The given key, or the file's for this host, or the one that the user types."""
        if given is not None:
            return given
        if file is not None:
            return key_from_file(file, self.host, kind)
        try:
            return bounded_text(kind.limit)(self._answer(kind))
        except UnansweredError as error:
            remedy = self.saved.remedy(kind, by_options=self.ask is not None)
            msg = f"no {kind.what}: {self.saved.lacks(kind)}, and {error}; {remedy}"
            raise ClientError(msg) from error
        except ValueError as error:
            msg = f"{kind.what}: {error}"
            raise ClientError(msg) from error

    def _answer(self, kind: KeyKind) -> str:
        if self.ask is None:
            msg = "`doorward connect` asks no questions"
            raise UnansweredError(msg)
        return self.ask(f"Enter {kind.what}: ")


def key_from_file(path: Path, host: str, kind: KeyKind) -> Secret:
    """The key on the line `host: key`; the last such line counts, as in fwknop.

    Raises:
        ClientError: no host is named.
        ConfigError: the file cannot be read, or has no good key for this host.
    """
    if not host:
        msg = f"{path} has one key per host: name the host with -D to find its {kind.what}"
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
