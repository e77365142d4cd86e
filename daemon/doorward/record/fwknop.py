"""The lines that fwknopd would have written for a verdict, for filters and people who look for them.

Wording: fwknop server/incoming_spa.c, replay_cache.c, fw_util_iptables.c, cmd_cycle.c of 2.6.10. Pure. Some verdicts
have no line of fwknopd's: where nothing comes out, our own line stands for them. A replay's line ends where fwknopd
would go on about the first of the two packets, of which only a hash is kept here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from doorward import denials
from doorward.denials import (
    CodeDenied,
    Failure,
    Forged,
    Inexpressible,
    NotExamined,
    PrefixTooWide,
    SourceDenial,
    TargetDenial,
    UnknownCommand,
    UnknownTag,
    Unserved,
    WindowTooLong,
)
from doorward.values import Grant, address
from doorward.wire.fwknop import PAYLOAD_MIN, Field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.config.stanza import Stanza
    from doorward.denials import Denial
    from doorward.gate import Verdict

CODES: Final = {  # server/fwknopd_errors.h
    0x1000: "Data is not a valid SPA message format",
    0x1001: "Not enough data to be a valid SPA message",
    0x1002: "Data is not an SPA message",
    0x1003: "SPA via HTTP request, but ENABLE_SPA_OVER_HTTP is not set",
    0x1004: "Error creating FKO context for incoming data.",
    0x1005: "Unable to retrieve digest from the SPA data.",
    0x1006: "Error trying to access the digest.cache file",
    0x1007: "Detected SPA message replay",
    0x1008: "SPA message timestamp is outside the allowable window",
    0x1009: "SPA message did not pass access checks",
    0x100A: "An error occurred while executing an SPA command message",
    0x100B: "Unsupported SPA message operation",
    0x100C: "Undefined/unknown fwknopd Error",
    0x100D: "General SPA message processing error",
    0x2000: "An error occurred while tring to add a firewall rule",
    0x2001: "An error occurred while tring to delete a firewall rule",
    0x2002: "Unknown/unclassified firewall rule processing error",
}
_ANY: Final = "0.0.0.0/0"
_OURS = (
    UnknownTag | Forged | WindowTooLong | UnknownCommand | PrefixTooWide | CodeDenied
)  # of a format that fwknopd does not speak
_FIELDS: Final = {  # fwknop's names; any other part is the message
    Field.TIMEOUT: "TIMEOUT_VALIDFAIL",
    Field.TIME: "TIMESTAMP_DECODEFAIL",
    Field.USER: "USERNAME_VALIDFAIL",
    Field.VERSION: "VERSION_TOOBIG",
    Field.TYPE: "MSGTYPE_DECODEFAIL",
    Field.NAT_ACCESS: "NATACCESS_VALIDFAIL",
}


class Entry(NamedTuple):
    """One line and its severity: error, warning, info or debug, fwknopd's LOG_ERR to LOG_DEBUG."""

    severity: str
    text: str


def entries(verdict: Verdict, now: float, stanza: Stanza | None = None, *, test: bool = False) -> tuple[Entry, ...]:
    """Fwknopd's lines for a verdict that was reached at `now` (Unix seconds), none where it has none.

    `stanza` is the one that decided; its command cycle is named.
    """
    denial = verdict.denial
    found = [_denied(verdict, denial)] if denial is not None else list(_granted(verdict, now, stanza, test=test))
    lines = [entry for entry in found if entry is not None]
    if verdict.signer is not None and lines:
        signed = f"Incoming SPA data signed by '{verdict.signer[-8:]}' (fingerprint '{verdict.signer}')."
        lines.insert(0, _info(f"{_head(verdict)} {signed}"))
    if verdict.stanza is not None and lines:
        heard = f"(stanza #{verdict.stanza}) SPA Packet from IP: {_origin(verdict)} received with access source match"
        lines.insert(0, _info(heard))
    return tuple(Entry(severity, _one_line(text)) for severity, text in lines)


def _origin(verdict: Verdict) -> str:
    return str(address(verdict.datagram.origin))


def _head(verdict: Verdict) -> str:
    return f"[{_origin(verdict)}] (stanza #{verdict.stanza})"


def _info(text: str) -> Entry:
    return Entry("info", text)


def _warning(text: str) -> Entry:
    return Entry("warning", text)


def _denied(verdict: Verdict, denial: Denial) -> Entry | None:  # noqa: C901, PLR0911, PLR0912  a table: one line a fact
    """Fwknopd's line for a denial, None where fwknopd has none."""
    if isinstance(denial, NotExamined | SourceDenial | TargetDenial | Inexpressible | Failure | _OURS):
        return None
    head, origin, datagram = _head(verdict), _origin(verdict), verdict.datagram
    match denial:
        case denials.Malformed():
            return Entry("debug", f"[{origin}] {_not_processed(datagram.payload)}")
        case denials.NoStanza():
            return _warning(f"No access data found for source IP: {origin}")
        case denials.Expired():
            return _info(f"{head} Access stanza has expired")
        case denials.WrongHmac() | denials.NotDecrypted() | denials.Undecodable() | denials.NotSigned():
            return _warning(f"{head} Error creating fko context: {_why_no_context(denial)}")
        case denials.BadSignature():
            return _warning(f"{head} Error creating fko context: Bad GPG signature")
        case denials.WrongSigner(signer, option):
            by_id = option == "GPG_REMOTE_ID"
            named = f" ID: {signer[-8:]}, but that ID" if by_id else f": {signer}, but that fingerprint"
            return _warning(f"{head} Incoming SPA packet signed by{named} is not in the {option} list.")
        case denials.Replayed() | denials.MaybeReplayed() | denials.SentElsewhere():
            where = f"{datagram.protocol}/{datagram.destination_port}"
            return _warning(f"Replay detected from source IP: {origin}, Destination proto/port: {where}")
        case denials.WrongClock(seconds) | denials.TooOld(seconds) | denials.TooNew(seconds):
            return _warning(f"{head} SPA data time difference is too great ({abs(seconds):.0f} seconds).")
        case denials.WrongUser(sent, required):
            return _warning(f"{head} Username in SPA data ({sent}) does not match required username: {required}")
        case denials.SourceRequired():
            return _warning(f"{head} Got 0.0.0.0 when valid source IP was required.")
        case denials.NotServed(Unserved.COMMAND):
            return _warning(f"{head} SPA Command messages are not allowed in the current configuration.")
        case denials.NotServed():
            text = f"SPA packet from {origin} requested NAT access, but is not enabled/supported"
            return _warning(f"(stanza #{verdict.stanza}) {text}")
        case denials.ServiceRestricted() | denials.ServiceClosed():
            return _warning(f"{head} One or more requested protocol/ports was denied per access.conf.")


def _not_processed(payload: bytes) -> str:
    code = 0x1001 if len(payload) < PAYLOAD_MIN else 0x1003 if payload[:5].upper() == b"GET /" else 0x1000
    return f"preprocess_spa_data() returned error {code}: '{CODES[code]}' for incoming packet."


def _why_no_context(
    denial: denials.WrongHmac | denials.NotDecrypted | denials.Undecodable | denials.NotSigned,
) -> str:
    """Why fwknopd could not open a packet."""
    match denial:
        case denials.WrongHmac():
            return "Args contain invalid data: FKO_ERROR_INVALID_DATA_HMAC_COMPAREFAIL"
        case denials.NotDecrypted():
            return "Decryption failed or decrypted data is invalid"
        case denials.NotSigned():
            return "Missing GPG signature"
        case denials.Undecodable(field=Field.DIGEST):
            return "The computed digest did not match the digest in the spa data"
        case denials.Undecodable(field):
            what = _FIELDS.get(field, "MESSAGE_VALIDFAIL")
            return f"Args contain invalid data: FKO_ERROR_INVALID_DATA_DECODE_{what}"


def _granted(verdict: Verdict, now: float, stanza: Stanza | None, *, test: bool) -> Iterator[Entry]:
    head, execution = _head(verdict), verdict.execution
    if test:
        yield _info(f"{head} --test mode enabled, skipping firewall manipulation.")
    elif execution is not None and execution.command is not None:
        yield _info(f"{head} Processing SPA Command message: command='{execution.command}'.")
    elif execution is not None and stanza is not None and stanza.cycle is not None:
        yield _info(f"{head} Running CMD_CYCLE_OPEN command: {stanza.cycle.open}")
        if stanza.cycle.close is not None:
            text = f"Running CMD_CYCLE_CLOSE command in {execution.seconds} seconds: {stanza.cycle.close}"
            yield _info(f"{head} {text}")
    elif verdict.grant is not None:
        for grant in (one for one in (verdict.grant, verdict.second) if isinstance(one, Grant)):
            yield from (_info(text) for text in _rules(grant, int(now) + grant.seconds))


def _one_line(text: str) -> str:
    """A text with its control characters escaped, so that it stays one line and shows all of it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _rules(grant: Grant, until: int) -> Iterator[str]:
    """One line for each service, each with the whole list, as fwknopd does."""
    asked, nat = ",".join(map(str, grant.services)), grant.nat
    rest = f"for {grant.whence} -> {grant.destination or _ANY} {asked}, expires at {until}"
    everything = nat is not None and nat.everything
    led = f"for {grant.source} -> {_ANY} {'*/*' if everything else asked}, expires at {until}"
    if nat is None:
        yield from (f"Added access rule to FWKNOP_INPUT {rest}" for _ in grant.services)
        return
    if nat.target is None:
        yield f"Added local NAT rule to FWKNOP_INPUT {rest}"
        yield f"Added DNAT rule to FWKNOP_PREROUTING {rest}"
        return
    yield f"Added FORWARD{' ALL' if nat.everything else ''} rule to FWKNOP_FORWARD {led}"
    if nat.rewrite:
        yield f"Added DNAT{' ALL' if nat.everything else ''} rule to FWKNOP_PREROUTING {led}"
    if nat.snat is not None or nat.masquerade:
        yield f"Added SNAT{' ALL' if nat.everything else ''} rule to FWKNOP_POSTROUTING {led}"
