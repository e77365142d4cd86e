"""The lines that fwknopd would have written for a verdict, for filters and people who look for them.

Wording: fwknop server/incoming_spa.c, replay_cache.c, fw_util_iptables.c, cmd_cycle.c of 2.6.10. Pure. Some verdicts
have no line of fwknopd's: where nothing comes out, our own line stands for them. A replay's line ends where fwknopd
would go on about the first of the two packets, of which only a hash is kept here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.values import Reason, address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doorward.config.stanza import Stanza
    from doorward.gate import Verdict
    from doorward.values import Grant

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
SIZE_MIN: Final = 140  # bytes, fwknopd's MIN_SPA_DATA_SIZE
_ANY: Final = "0.0.0.0/0"
_DAY: Final = 86_400  # seconds
_SECONDS: Final = re.compile(r"made (\d+) s")
_DAYS: Final = re.compile(r"([+-]\d+) days")
_USERS: Final = re.compile(r"user '(.*)' is not '(.*)'")
_FIELDS: Final = {  # a word of our complaint, and fwknop's name for it; the first that fits
    "timeout": "TIMEOUT_VALIDFAIL",
    "time": "TIMESTAMP_DECODEFAIL",
    "user": "USERNAME_VALIDFAIL",
    "version": "VERSION_TOOBIG",
    "type": "MSGTYPE_DECODEFAIL",
    "nat": "NATACCESS_VALIDFAIL",
    "message": "MESSAGE_VALIDFAIL",
}


class Entry(NamedTuple):
    """One line and its severity: error, warning, info or debug, fwknopd's LOG_ERR to LOG_DEBUG."""

    severity: str
    text: str


def entries(verdict: Verdict, now: float, stanza: Stanza | None = None, *, test: bool = False) -> tuple[Entry, ...]:
    """Return fwknopd's lines for a verdict that was reached at `now` (Unix seconds), none where it has none.

    `stanza` is the one that decided; its command cycle is named.
    """
    write = _WRITERS.get(verdict.reason)
    if write is None:
        return ()
    if verdict.granted and test:
        told = [_info(f"{_head(verdict)} --test mode enabled, skipping firewall manipulation.")]
    elif verdict.granted:
        told = list(_granted(verdict, now, stanza))
    else:
        told = list(write(verdict))
    if verdict.signer is not None:
        signed = f"Incoming SPA data signed by '{verdict.signer[-8:]}' (fingerprint '{verdict.signer}')."
        told.insert(0, _info(f"{_head(verdict)} {signed}"))
    if verdict.stanza is not None and told:
        heard = f"(stanza #{verdict.stanza}) SPA Packet from IP: {_origin(verdict)} received with access source match"
        told.insert(0, _info(heard))
    return tuple(told)


def _origin(verdict: Verdict) -> str:
    return str(address(verdict.datagram.origin))


def _head(verdict: Verdict) -> str:
    return f"[{_origin(verdict)}] (stanza #{verdict.stanza})"


def _info(text: str) -> Entry:
    return Entry("info", text)


def _warning(text: str) -> Entry:
    return Entry("warning", text)


def _malformed(verdict: Verdict) -> Iterator[Entry]:
    payload = verdict.datagram.payload
    code = 0x1001 if len(payload) < SIZE_MIN else 0x1003 if payload[:5].upper() == b"GET /" else 0x1000
    text = f"preprocess_spa_data() returned error {code}: '{CODES[code]}' for incoming packet."
    yield Entry("debug", f"[{_origin(verdict)}] {text}")


def _no_stanza(verdict: Verdict) -> Iterator[Entry]:
    yield _warning(f"No access data found for source IP: {_origin(verdict)}")


def _expired(verdict: Verdict) -> Iterator[Entry]:
    yield _info(f"{_head(verdict)} Access stanza has expired")


def _no_context(verdict: Verdict) -> Iterator[Entry]:
    """Yield the line of a packet that could not be opened."""
    yield _warning(f"{_head(verdict)} Error creating fko context: {_why_no_context(verdict)}")


def _why_no_context(verdict: Verdict) -> str:
    if verdict.reason is Reason.HMAC:
        return "Args contain invalid data: FKO_ERROR_INVALID_DATA_HMAC_COMPAREFAIL"
    if verdict.reason is Reason.DECRYPTION:
        return "Decryption failed or decrypted data is invalid"
    if "digest" in verdict.detail:
        return "The computed digest did not match the digest in the spa data"
    detail = verdict.detail.lower()
    what = next((name for word, name in _FIELDS.items() if word in detail), "MESSAGE_VALIDFAIL")
    return f"Args contain invalid data: FKO_ERROR_INVALID_DATA_DECODE_{what}"


def _signature(verdict: Verdict) -> Iterator[Entry]:
    signer, _, option = verdict.detail.removeprefix("signed by ").partition(", which ")
    if option.startswith("GPG_FINGERPRINT_ID"):
        text = f"signed by: {signer}, but that fingerprint is not in the GPG_FINGERPRINT_ID list."
    elif option.startswith("GPG_REMOTE_ID"):
        text = f"signed by ID: {signer[-8:]}, but that ID is not in the GPG_REMOTE_ID list."
    else:
        why = "Missing" if verdict.detail == "not signed" else "Bad"
        yield _warning(f"{_head(verdict)} Error creating fko context: {why} GPG signature")
        return
    yield _warning(f"{_head(verdict)} Incoming SPA packet {text}")


def _replay(verdict: Verdict) -> Iterator[Entry]:
    datagram = verdict.datagram
    where = f"{datagram.protocol}/{datagram.destination_port}"
    yield _warning(f"Replay detected from source IP: {_origin(verdict)}, Destination proto/port: {where}")


def _age(verdict: Verdict) -> Iterator[Entry]:
    seconds, days = _SECONDS.search(verdict.detail), _DAYS.search(verdict.detail)
    off = int(seconds[1]) if seconds else abs(int(days[1])) * _DAY if days else 0
    yield _warning(f"{_head(verdict)} SPA data time difference is too great ({off} seconds).")


def _username(verdict: Verdict) -> Iterator[Entry]:
    users = _USERS.fullmatch(verdict.detail)
    sent, wanted = users.groups() if users else (verdict.user or "", "")
    yield _warning(f"{_head(verdict)} Username in SPA data ({sent}) does not match required username: {wanted}")


def _source_required(verdict: Verdict) -> Iterator[Entry]:
    yield _warning(f"{_head(verdict)} Got 0.0.0.0 when valid source IP was required.")


def _unsupported(verdict: Verdict) -> Iterator[Entry]:
    if "command" in verdict.detail:
        yield _warning(f"{_head(verdict)} SPA Command messages are not allowed in the current configuration.")
    else:
        origin = _origin(verdict)
        text = f"SPA packet from {origin} requested NAT access, but is not enabled/supported"
        yield _warning(f"(stanza #{verdict.stanza}) {text}")


def _services(verdict: Verdict) -> Iterator[Entry]:
    yield _warning(f"{_head(verdict)} One or more requested protocol/ports was denied per access.conf.")


def _granted(verdict: Verdict, now: float, stanza: Stanza | None) -> Iterator[Entry]:
    head, execution = _head(verdict), verdict.execution
    if execution is not None and execution.command is not None:
        yield _info(f"{head} Processing SPA Command message: command='{_one_line(execution.command)}'.")
    elif execution is not None and stanza is not None and stanza.cycle is not None:
        yield _info(f"{head} Running CMD_CYCLE_OPEN command: {_one_line(stanza.cycle.open)}")
        if stanza.cycle.close is not None:
            text = f"Running CMD_CYCLE_CLOSE command in {execution.seconds} seconds: {_one_line(stanza.cycle.close)}"
            yield _info(f"{head} {text}")
    elif verdict.grant is not None:
        yield from (_info(text) for text in _rules(verdict.grant, int(now) + verdict.grant.seconds))


def _one_line(command: str) -> str:
    """Return a command with what could begin another line left out."""
    return "".join(char if char.isprintable() else "?" for char in command)


def _rules(grant: Grant, until: int) -> Iterator[str]:
    """Yield one line for each service, each with the whole list, as fwknopd does."""
    asked, nat = ",".join(map(str, grant.services)), grant.nat
    rest = f"for {grant.source} -> {grant.destination or _ANY} {asked}, expires at {until}"
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


def _nothing(_verdict: Verdict) -> Iterator[Entry]:
    return iter(())


_WRITERS: Final[dict[Reason, Callable[[Verdict], Iterator[Entry]]]] = {
    Reason.MALFORMED: _malformed,
    Reason.NO_STANZA: _no_stanza,
    Reason.EXPIRED: _expired,
    Reason.HMAC: _no_context,
    Reason.DECRYPTION: _no_context,
    Reason.SIGNATURE: _signature,
    Reason.DECODE: _no_context,
    Reason.REPLAY: _replay,
    Reason.CLOCK: _age,
    Reason.STALE: _age,
    Reason.FUTURE: _age,
    Reason.USERNAME: _username,
    Reason.SOURCE_REQUIRED: _source_required,
    Reason.UNSUPPORTED: _unsupported,
    Reason.SERVICES: _services,
    Reason.GRANTED: _nothing,
}
