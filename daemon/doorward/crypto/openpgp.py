"""fwknop's OpenPGP envelope: a message encrypted and signed by gpg, as base64 without its first two characters.

Source: fwknop lib/gpgme_funcs.c, lib/fko_encryption.c. python-gnupg runs gpg; its status lines about a
signature are read here (GnuPG doc/DETAILS), since the versions of python-gnupg keep different parts of them.
"""

from __future__ import annotations

import codecs
import enum
import hmac
import logging
import re
import subprocess
from typing import TYPE_CHECKING, Any, Final

from doorward.errors import AuthenticationError, OpenPgpError, OtherKeyError, WireError
from doorward.frozen import dataclass
from doorward.values import DigestType
from doorward.wire import fwknop, openpgp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from doorward.values import Secret

PACKAGE: Final = "python-gnupg (Debian: python3-gnupg)"
SHORT_ID: Final = 8  # hex digits of a signer's ID in fwknop: the last of its fingerprint
_OUTPUT_MAX: Final = str(fwknop.PAYLOAD_MAX)  # bytes; no plaintext is longer, however well it was compressed
_STATUS: Final = re.compile(r"^\[GNUPG:\] ([A-Z_]+)(?: (.*))?$", re.MULTILINE)
_MODERN: Final = (2, 1)  # from here on secret keys are the agent's business
_NEVER_ASK: Final = ("--pinentry-mode", "error")
# A knock needs no network, no learning of keys, and no advice.
_QUIET: Final = ("--quiet", "--no-auto-key-retrieve", "--disable-dirmngr")


class Status(str, enum.Enum):
    """gpg's opinion of a signature."""

    GOOD = "good"
    EXPIRED = "expired"  # the signature or the signer's key
    REVOKED = "revoked"  # the signer's key
    UNTRUSTED = "untrusted"  # right, but nobody says whose the key is
    MISSING_KEY = "missing key"  # the signer's key is not in the keyring
    BAD = "bad"  # not made over this text by this key

    def __str__(self) -> str:
        """The words themselves."""
        return self.value


@dataclass(frozen=True, slots=True)
class Signature:
    """The signer by gpg's status lines.

    `fingerprint` is the signing key's, in upper-case hex; where gpg knows no more, its ID. `primary` is the fingerprint
    of the key that the signing key belongs to, the same where it signs itself.
    """

    status: Status
    fingerprint: str
    primary: str

    def is_one_of(self, identities: frozenset[str]) -> bool:
        """Whether fingerprints or their ends (8 or 16 digits) name the signer or its primary key."""
        return any(own.endswith(named) for named in identities for own in (self.fingerprint, self.primary))


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A plaintext and its signature, None where there is none."""

    plaintext: bytes
    signature: Signature | None


def seal(  # noqa: PLR0913  the inputs of gpg, each named
    plaintext: bytes,
    recipient: str,
    *,
    signer: str | None = None,
    password: Secret | None = None,
    agent: bool = False,
    home: Path | None = None,
    exe: Path | None = None,
    hmac_key: Secret | None = None,
    hmac_digest: DigestType = DigestType.SHA256,
) -> bytes:
    """The payload for a plaintext: encrypted to `recipient`, signed by `signer` unless that is None.

    `password` opens the signer's key; with `agent` gpg-agent asks for it where it does not know it; without either the
    key has none. Keys are named as gpg names them, but so that one key fits. `home` None is gpg's own choice.

    Raises:
        OpenPgpError: gpg or python-gnupg is missing, a key does not fit, or the knock is too long for fwknop.
    """
    gpg = _start(exe, home)
    where = f" in {'its own keyring' if home is None else home}: import it there, or name another (--gpg-home-dir)"
    to = _the_key(gpg, recipient, secret=False, where=where)
    by = None if signer is None else _the_key(gpg, signer, secret=True, where=where)
    blob = _encrypt(gpg, plaintext, to, by, password, ask=agent)
    sealed = fwknop.encode_blob(blob)
    _check_prefix(sealed, recipient, to)
    tag = b"" if hmac_key is None else _tag(sealed, hmac_key, hmac_digest)
    payload = sealed[len(fwknop.GPG_PREFIX) :] + tag
    _check_length(payload, recipient, signer)
    return payload


def decode(sealed: bytes) -> tuple[bytes, bytes]:
    """The OpenPGP message of a sealed text, prefix put back and tag cut off, and its encrypted block; without gpg.

    Raises:
        WireError: too short for an OpenPGP packet, not canonical base64, or not one encrypted message.
    """
    if len(sealed) < fwknop.SYMMETRIC_MAX:
        msg = f"{len(sealed)} characters are too short for an OpenPGP packet"
        raise WireError(msg)
    blob = fwknop.decode_blob(sealed)
    return blob, openpgp.parse(blob).block


class Decryptor:
    """The keys of one keyring and their passphrase, which open packets. gpg is run once a packet."""

    def __init__(
        self, home: Path, exe: Path | None = None, password: Secret | None = None, decrypt_id: str | None = None
    ) -> None:
        """Look into the keyring of `home`, which gpg may write to; `decrypt_id` names the one secret key that counts.

        Raises:
            OpenPgpError: gpg or python-gnupg is missing, the keyring cannot be read, or has no such key.
        """
        self._gpg = _start(exe, home)
        self._home = home
        self.password = password
        keys = (
            self._gpg.list_keys(secret=True) if decrypt_id is None else [_the_key(self._gpg, decrypt_id, secret=True)]
        )
        self._fingerprints = [str(key["fingerprint"]) for key in keys]
        self._key_ids = frozenset(_key_ids(keys))

    @property
    def key_ids(self) -> frozenset[str]:
        """The key IDs, 16 hex digits each, whose secret keys are here."""
        return self._key_ids

    def keygrips(self) -> list[str]:
        """The names that gpg-agent has for the secret keys; older python-gnupg does not tell them."""
        listing = ["--batch", "--with-colons", "--with-keygrip", "--list-secret-keys", *self._fingerprints]
        command = [self._gpg.gpgbinary, "--homedir", str(self._home), *_no_autostart(self._gpg), *listing]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  gpg on a keyring
        return [line.split(":")[_GRIP] for line in done.stdout.splitlines() if line.startswith("grp:")]

    def doubts(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Those fingerprints or key IDs whose signatures would be refused as the keyring is now, and why.

        Raises:
            OpenPgpError: the keyring cannot be read.
        """
        wanted = sorted(set(names))
        for start in range(0, len(wanted), _NAMES_AT_ONCE):
            some = wanted[start : start + _NAMES_AT_ONCE]
            keys = {own: key["trust"] for key in _keys(self._gpg, some, secret=False) for own in _names(key)}
            for name in some:
                found = {doubt for own, trust in keys.items() if own.endswith(name) for doubt in [_doubt(trust)]}
                if "" not in found:
                    yield name, min(found, default="its key is not in the keyring")

    def unseal(self, blob: bytes) -> Unsealed:
        """The plaintext of an OpenPGP message and its signature. A bad signature is an answer, not an error.

        Raises:
            WireError: this is not one encrypted message.
            OtherKeyError: it is not for these keys.
            AuthenticationError: gpg refuses it.
        """
        named = openpgp.parse(blob).recipients
        if not self._key_ids.intersection(named):  # fwknop always names the recipient; a hidden one may be anybody
            msg = f"encrypted to {', '.join(named)}"
            raise OtherKeyError(msg)
        alone = (*_no_autostart(self._gpg), *_asking(self._gpg, self.password))
        arguments = [*_QUIET, "--max-output", _OUTPUT_MAX, *alone]
        outcome = self._gpg.decrypt(blob, passphrase=_passphrase(self.password), extra_args=arguments)
        report = getattr(outcome, "stderr", "")
        said = [(match[1], (match[2] or "").split(" ")) for match in _STATUS.finditer(report)]
        _check_decryption(said, outcome.returncode, report)
        self._check_key(said)
        if len(outcome.data) > fwknop.PAYLOAD_MAX:
            msg = "the plaintext is longer than any knock"
            raise AuthenticationError(msg)
        return Unsealed(outcome.data, _signature(said))

    def _check_key(self, said: list[tuple[str, list[str]]]) -> None:
        """Refuse a message that another key of the ring has opened: the sender alone chooses the recipients in it."""
        opened = [rest[0].upper() for word, rest in said if word == "DECRYPTION_KEY"]
        if not opened:
            msg = "gpg does not say which key opened it (GnuPG before 2.2?)"
            raise AuthenticationError(msg)
        if any(key[-_KEY_ID:] not in self._key_ids for key in opened):
            msg = f"opened by {', '.join(opened)}, which GPG_DECRYPT_ID does not name"
            raise OtherKeyError(msg)


_GRIP: Final = 9  # field of a listing
_KEY_ID: Final = 16  # hex digits at the end of a fingerprint
_NAMES_AT_ONCE: Final = 200  # in the arguments of one gpg
_DOUBTS: Final = {"e": "its key has expired", "r": "its key is revoked", "d": "its key is disabled"}


def _doubt(validity: str) -> str:
    """The doubt about a key that gpg lists with this validity (doc/DETAILS, field 2), or nothing."""
    return "" if validity in {"m", "f", "u"} else _DOUBTS.get(validity, "nobody says whose its key is (trust)")


def _names(key: Mapping[str, Any]) -> Iterator[str]:
    """The fingerprint of a key, and the fingerprints and IDs of its subkeys."""
    yield str(key["fingerprint"]).upper()
    for subkey in key.get("subkeys", ()):
        yield from (str(part).upper() for part in (subkey[0], *subkey[2:3]))


def _check_decryption(said: list[tuple[str, list[str]]], returncode: int, report: str) -> None:
    """Refuse anything but one plaintext that was decrypted completely.

    The exit code is 2 for a signature that cannot be checked too, so it alone decides nothing. At a bad one gpg stops,
    and says nothing of the decryption any more.
    """
    words = [word for word, _ in said]
    if "BADSIG" in words:
        return
    if "DECRYPTION_OKAY" in words and words.count("PLAINTEXT") == 1 and "DECRYPTION_FAILED" not in words:
        failure = next((f"gpg refuses it: {' '.join(rest)}" for word, rest in said if word in _FATAL), None)
        if failure is None:
            return
        raise AuthenticationError(failure)
    complaint = next((line for line in report.splitlines() if line.startswith("gpg: ")), f"exit code {returncode}")
    msg = f"decryption failed: {complaint.removeprefix('gpg: ')[:100]}"
    raise AuthenticationError(msg)


_FATAL: Final = frozenset({"NODATA", "UNEXPECTED", "BADMDC"})
_VERDICTS: Final = {
    "GOODSIG": Status.GOOD,
    "EXPSIG": Status.EXPIRED,
    "EXPKEYSIG": Status.EXPIRED,
    "REVKEYSIG": Status.REVOKED,
    "BADSIG": Status.BAD,
    "ERRSIG": Status.BAD,
}
_TRUSTED: Final = frozenset({"TRUST_MARGINAL", "TRUST_FULLY", "TRUST_ULTIMATE"})  # as fwknop: validity >= marginal
_NO_KEY: Final = "9"  # ERRSIG's reason: the public key is missing
_ERRSIG_REASON, _ERRSIG_FINGERPRINT = 5, 6
_VALIDSIG_PRIMARY: Final = 9


def _signature(said: list[tuple[str, list[str]]]) -> Signature | None:
    """The one signature that the status lines speak of; of several none is taken."""
    verdicts = [(word, rest) for word, rest in said if word in _VERDICTS]
    if not verdicts:
        return None
    if len(verdicts) > 1:
        msg = "more than one signature"
        raise AuthenticationError(msg)
    word, rest = verdicts[0]
    fingerprint = primary = rest[0].upper()
    status = _VERDICTS[word]
    if word == "ERRSIG":
        fingerprint = primary = _claimed(rest)
        status = Status.MISSING_KEY if _at(rest, _ERRSIG_REASON) == _NO_KEY else Status.BAD
    for known, details in said:
        if known == "VALIDSIG":
            fingerprint = details[0].upper()
            primary = (_at(details, _VALIDSIG_PRIMARY) or fingerprint).upper()
    if status is Status.GOOD and not (_TRUSTED & {known for known, _ in said}):
        status = Status.UNTRUSTED
    return Signature(status, fingerprint, primary)


def _claimed(rest: list[str]) -> str:
    """The fingerprint that an unverifiable signature claims, or the key ID (GnuPG before 2.2.7)."""
    named = _at(rest, _ERRSIG_FINGERPRINT)
    return (named if named and named != "-" else rest[0]).upper()


def _at(fields: list[str], place: int) -> str | None:
    return fields[place] if place < len(fields) else None


def _start(exe: Path | None, home: Path | None) -> Any:  # noqa: ANN401  python-gnupg has no types
    """Python-gnupg's wrapper of gpg."""
    gnupg = load()
    logging.getLogger("gnupg").addHandler(logging.NullHandler())
    logging.getLogger("gnupg").propagate = False  # it logs exit codes that are answers here
    binary = "gpg" if exe is None else str(exe)
    try:
        return gnupg.GPG(gpgbinary=binary, gnupghome=None if home is None else str(home))
    except (OSError, ValueError) as error:
        msg = f"{binary} cannot be used: {str(error).strip()}"
        raise OpenPgpError(msg) from error


def load() -> Any:  # noqa: ANN401  a module without types
    """Python-gnupg, with all that it will ever import.

    Raises:
        OpenPgpError: it is not installed.
    """
    try:
        import gnupg  # noqa: PLC0415  needed only where knocks are OpenPGP messages
    except ImportError as error:
        msg = f"GnuPG knocks need the Python package {PACKAGE}"
        raise OpenPgpError(msg) from error
    codecs.lookup("latin-1")
    return gnupg


def _the_key(gpg: Any, name: str, *, secret: bool, where: str = "") -> Mapping[str, Any]:  # noqa: ANN401
    """The one key of the keyring that a name fits, as fwknop wants it; `where` is for the error."""
    kind = "secret" if secret else "public"
    found = _keys(gpg, [name], secret=secret)
    if not found:
        msg = f"gpg has no {kind} key {name!r}{where}"
        raise OpenPgpError(msg)
    if len(found) > 1:
        msg = f"{name!r} fits {len(found)} {kind} keys; name one of {', '.join(key['fingerprint'] for key in found)}"
        raise OpenPgpError(msg)
    key: Mapping[str, Any] = found[0]
    return key


def _keys(gpg: Any, names: list[str], *, secret: bool) -> list[Mapping[str, Any]]:  # noqa: ANN401
    """The keys of the keyring that any of the names fits."""
    try:
        return list(gpg.list_keys(secret=secret, keys=names))
    except ValueError as error:
        msg = f"the keyring cannot be read: {error}"
        raise OpenPgpError(msg) from error


def _encrypt(  # noqa: PLR0913  one run of gpg
    gpg: Any,  # noqa: ANN401
    plaintext: bytes,
    recipient: Mapping[str, Any],
    signer: Mapping[str, Any] | None,
    password: Secret | None,
    *,
    ask: bool,
) -> bytes:
    asking = [] if ask and password is None else _asking(gpg, password)
    sign = [] if signer is None else ["--sign", "--local-user", signer["fingerprint"]]
    outcome = gpg.encrypt(
        plaintext,
        recipient["fingerprint"],
        always_trust=True,
        armor=False,
        passphrase=_passphrase(password),
        extra_args=[*_QUIET, *asking, *sign],
    )
    if not outcome.ok:
        msg = f"gpg does not make the knock: {_refusal(outcome, recipient, signer, _hint(password, ask=ask))}"
        raise OpenPgpError(msg)
    blob: bytes = outcome.data
    return blob


def _hint(password: Secret | None, *, ask: bool) -> str:
    """The advice where gpg does not sign."""
    if password is not None:
        return "is the passphrase right?"
    return "gpg-agent was to ask for the passphrase" if ask else "has the key a passphrase? None was given"


def _refusal(
    outcome: Any,  # noqa: ANN401
    recipient: Mapping[str, Any],
    signer: Mapping[str, Any] | None,
    hint: str,
) -> str:
    """Why gpg did not encrypt; `hint` is for a signature that it began. Of a key it says only `unusable`."""
    report = str(outcome.stderr)
    words = {match[1] for match in _STATUS.finditer(report)}
    if "INV_RECP" in words:
        return f"nobody can encrypt to {_owner(recipient)}: {_flaw(recipient, 'e')}"
    if "INV_SGNR" in words and signer is not None:
        return f"{_owner(signer)} cannot sign: {_flaw(signer, 's')}"
    complaint = next((line for line in report.splitlines() if line.startswith("gpg: ")), str(outcome.status))
    return complaint.removeprefix("gpg: ") + (f"; {hint}" if "BEGIN_SIGNING" in words else "")


def _owner(key: Mapping[str, Any]) -> str:
    """The owner and fingerprint of a key."""
    return f"{next(iter(key.get('uids') or ()), 'the key')!r} ({key['fingerprint']})"


def _flaw(key: Mapping[str, Any], use: str) -> str:
    """Why a key cannot be used to encrypt (`e`) or sign (`s`), by its listing (GnuPG doc/DETAILS)."""
    validity, capabilities = key.get("trust", ""), key.get("cap", "")
    if validity in _FLAWS:
        return f"the key {_FLAWS[validity]}"
    if validity == "d" or "D" in capabilities:
        return "the key is disabled in this keyring (gpg --edit-key, enable)"
    doing = {"e": "encryption", "s": "signing"}[use]
    details = key.get("subkey_info") or {}  # not in every python-gnupg
    subkeys = [details.get(subkey[0], {}).get("trust", "") for subkey in key.get("subkeys", ()) if use in subkey[1]]
    if not subkeys:
        return f"it has no subkey for {doing} (gpg --quick-add-key {key['fingerprint']} rsa2048 {doing[:4]})"
    ends = sorted({_FLAWS.get(flaw, "cannot be used") for flaw in subkeys})
    return f"its subkey for {doing} {' or '.join(ends)}; is there a newer copy of the key?"


_FLAWS: Final = {"e": "has expired", "r": "is revoked", "i": "is not valid"}


def _asking(gpg: Any, password: Secret | None) -> tuple[str, ...]:  # noqa: ANN401
    """The arguments that keep gpg from asking a person for a passphrase."""
    return _NEVER_ASK if password is None and (gpg.version or _MODERN) >= _MODERN else ()


def _no_autostart(gpg: Any) -> tuple[str, ...]:  # noqa: ANN401
    return ("--no-autostart",) if (gpg.version or _MODERN) >= _MODERN else ()


def _passphrase(password: Secret | None) -> str | None:
    """A passphrase whose bytes python-gnupg hands on as they are."""
    if password is None:
        return None
    text = password.reveal().decode("latin-1")
    if not text or any(char in text for char in "\n\r\0"):
        msg = "a passphrase is one line"
        raise OpenPgpError(msg)
    return text


def _tag(sealed: bytes, key: Secret, digest: DigestType) -> bytes:
    return fwknop.encode_blob(hmac.digest(key.reveal(), sealed, digest.label))


def _check_prefix(sealed: bytes, name: str, key: Mapping[str, Any]) -> None:
    """Refuse a message before which the receiver would put a wrong prefix (lib/fko_encryption.c, add_gpg_prefix)."""
    if sealed.startswith(fwknop.GPG_PREFIX):
        return
    msg = (
        f"the recipient {name!r} ({key['fingerprint']}) cannot be used with fwknop's format: the message begins with "
        f"{sealed[:2].decode()!r}, and every receiver puts 'hQ' before it. Keys encrypt to 'hQ' where the encryption "
        "subkey is RSA of 2048 to 4096 bits or ElGamal; elliptic curves and 1024 bits do not. An RSA encryption subkey "
        "can be added to any key (gpg --quick-add-key FINGERPRINT rsa2048 encr)"
    )
    raise OpenPgpError(msg)


def _check_length(payload: bytes, recipient: str, signer: str | None) -> None:
    """Refuse a packet that no receiver takes. With `hQ` in front none is too short: the session key has 256 bytes."""
    if len(payload) > fwknop.PAYLOAD_MAX:
        by = "" if signer is None else f" and signed by {signer!r}"
        msg = (
            f"the knock to {recipient!r}{by} has {len(payload)} characters of {fwknop.PAYLOAD_MAX}: "
            "use smaller RSA keys or sign with an elliptic curve key"
        )
        raise OpenPgpError(msg)


def _key_ids(keys: list[Mapping[str, Any]]) -> Iterator[str]:
    for key in keys:
        yield str(key["keyid"]).upper()
        for subkey in key.get("subkeys", ()):
            yield str(subkey[0]).upper()
