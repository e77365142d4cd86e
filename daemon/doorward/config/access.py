"""access.conf: its lines to stanzas. Source: fwknop server/access.c."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from doorward.config import convert, reader
from doorward.config.reader import Line, Setting
from doorward.config.stanza import Stanza
from doorward.errors import Problem, WireError
from doorward.values import DigestType, EncryptionMode, SymmetricKeys

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.values import Secret

SETTINGS: Final[dict[str, Setting[Any]]] = {
    "SOURCE": Setting("source", convert.networks),
    "DESTINATION": Setting("destination", convert.networks),
    "OPEN_PORTS": Setting("open_ports", lambda text: frozenset(convert.services(text))),
    "RESTRICT_PORTS": Setting("restrict_ports", lambda text: frozenset(convert.services(text))),
    "KEY": Setting("key", convert.key_text),
    "KEY_BASE64": Setting("key", convert.key_base64),
    "HMAC_KEY": Setting("hmac_key", convert.key_text),
    "HMAC_KEY_BASE64": Setting("hmac_key", convert.key_base64),
    "HMAC_DIGEST_TYPE": Setting("hmac_digest", convert.digest_type),
    "ENCRYPTION_MODE": Setting("mode", convert.encryption_mode),
    "FW_ACCESS_TIMEOUT": Setting("fw_access_timeout", convert.window),
    "MAX_FW_TIMEOUT": Setting("max_fw_timeout", convert.window),
    "REQUIRE_USERNAME": Setting("require_username", convert.text),
    "REQUIRE_SOURCE_ADDRESS": Setting("require_source_address", convert.boolean),
    "REQUIRE_SOURCE": Setting("require_source_address", convert.boolean),
    "ACCESS_EXPIRE": Setting("expires", convert.expiry_date),
    "ACCESS_EXPIRE_EPOCH": Setting("expires", convert.number(1, 10**12 - 1)),
}
UNSERVED: Final = frozenset(
    {
        "ENABLE_CMD_EXEC", "CMD_EXEC_USER", "CMD_EXEC_GROUP", "ENABLE_CMD_SUDO_EXEC", "CMD_SUDO_EXEC_USER",
        "CMD_SUDO_EXEC_GROUP", "CMD_CYCLE_OPEN", "CMD_CYCLE_CLOSE", "CMD_CYCLE_TIMER", "FORCE_NAT", "FORCE_SNAT",
        "FORCE_MASQUERADE", "DISABLE_DNAT", "FORWARD_ALL", "GPG_HOME_DIR", "GPG_EXE", "GPG_DECRYPT_ID",
        "GPG_DECRYPT_PW", "GPG_ALLOW_NO_PW", "GPG_REQUIRE_SIG", "GPG_DISABLE_SIG", "GPG_IGNORE_SIG_VERIFY_ERROR",
        "GPG_REMOTE_ID", "GPG_FINGERPRINT_ID", "%include", "%include_folder", "%include_keys",
    }
)  # fmt: skip  # names of fwknop that this version does not serve; a table reads better in lines of many


@dataclass(frozen=True, slots=True)
class Access:
    """What access.conf says. `warnings` are for the log at start: legal, but worth knowing."""

    stanzas: tuple[Stanza, ...]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    """The lines of one stanza while they are read."""

    start: Line
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)  # fields that some line meant to fill, well or badly


def load(path: Path) -> Access:
    """Return the stanzas of an access.conf.

    Raises:
        ConfigError: every problem of the file.
    """
    return parse(path, reader.content(path, secret=True))


def parse(path: Path, content: bytes) -> Access:
    """Return the stanzas in the bytes of an access.conf; `path` names it in problems.

    Raises:
        ConfigError: every problem of the file.
    """
    problems: list[Problem] = []
    lines = [line for line in reader.lines(path, content, problems) if _is_served(line, problems)]
    drafts = _drafts(lines, problems)
    stanzas = [_stanza(number, draft, problems) for number, draft in enumerate(drafts, start=1)]
    if not drafts and not problems:
        problems.append(Problem(str(path), 0, "has no stanza: nobody could get in"))
    if problems:
        raise reader.failure(problems)
    made = tuple(stanza for stanza in stanzas if stanza is not None)
    return Access(made, tuple(warning for stanza in made for warning in _warnings(stanza)))


def _is_served(line: Line, problems: list[Problem]) -> bool:
    if line.name in UNSERVED:
        problems.append(line.problem(f"{line.name} is not served by this version"))
    return line.name not in UNSERVED


def _drafts(lines: list[Line], problems: list[Problem]) -> list[_Draft]:
    """Group the converted lines by the SOURCE that starts each stanza."""
    drafts: list[_Draft] = []
    for line in lines:
        if line.name == "SOURCE":
            drafts.append(_Draft(line))
        elif not drafts:
            shown = line.name if reader.is_name(line.name) else "the line"
            problems.append(line.problem(f"{shown} stands before the first SOURCE"))
            continue
        draft = drafts[-1]
        draft.named |= {SETTINGS[line.name].field} if line.name in SETTINGS else set()
        for _, name, value in reader.convert([line], SETTINGS, problems):
            if name in draft.values:
                problems.append(line.problem(f"{line.name}: already set in line {draft.lines[name].number}"))
            draft.values[name] = value
            draft.lines[name] = line
    return drafts


def _stanza(number: int, draft: _Draft, problems: list[Problem]) -> Stanza | None:
    """Return the stanza of a draft, or None where it has problems."""
    values = dict(draft.values)
    before = len(problems)
    keys = _keys(draft, values, problems)
    if len(problems) > before or keys is None or "source" not in values:
        return None
    for name in ("key", "hmac_key", "hmac_digest", "mode"):
        values.pop(name, None)
    return Stanza(number=number, path=draft.start.path, line=draft.start.number, keys=keys, **values)


def _keys(draft: _Draft, values: dict[str, Any], problems: list[Problem]) -> SymmetricKeys | None:
    key: Secret | None = values.get("key")
    hmac_key: Secret | None = values.get("hmac_key")
    if key is None:
        if "key" not in draft.named:  # a key with a mistake of its own is reported where it stands
            problems.append(draft.start.problem("the stanza has no KEY or KEY_BASE64"))
        return None
    if hmac_key is not None and key == hmac_key:
        problems.append(draft.lines["hmac_key"].problem("the HMAC key equals the encryption key"))
        return None
    if hmac_key is None and "hmac_digest" in values:
        problems.append(draft.lines["hmac_digest"].problem("HMAC_DIGEST_TYPE without an HMAC key"))
        return None
    digest = values.get("hmac_digest", DigestType.SHA256)
    try:
        return SymmetricKeys(key, hmac_key, digest, values.get("mode", EncryptionMode.CBC))
    except WireError as error:
        problems.append(draft.start.problem(str(error)))
        return None


def _warnings(stanza: Stanza) -> list[str]:
    where = f"{stanza.path}:{stanza.line}: "
    warnings = []
    if stanza.keys is not None and stanza.keys.hmac_key is None:
        warnings.append(where + "no HMAC key: packets are not authenticated before they are decrypted")
    if not stanza.require_source_address:
        warnings.append(where + "REQUIRE_SOURCE_ADDRESS is not set: whoever relays a packet first gets the opening")
    if stanza.open_ports is None:
        warnings.append(where + "no OPEN_PORTS: every service may be opened")
    if stanza.fw_access_timeout > stanza.max_fw_timeout:
        warnings.append(where + "FW_ACCESS_TIMEOUT exceeds MAX_FW_TIMEOUT, which caps only what clients ask for")
    return warnings
