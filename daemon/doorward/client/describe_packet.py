"""A packet as `fwknop --test -v` shows it: the same labels in the same order. Keys are never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.client.packet import PublicKeys
from doorward.values import EncryptionMode, SymmetricKeys
from doorward.wire import doorward
from doorward.wire.fwknop import Message, MessageType

if TYPE_CHECKING:
    from doorward.client.address import Endpoint
    from doorward.client.packet import OpenPgpKeys, Packet
    from doorward.client.profile import Profile

_NULL: Final = "<NULL>"
_TYPES: Final = {  # common/fko_util.c
    MessageType.COMMAND: "Command msg",
    MessageType.ACCESS: "Access msg",
    MessageType.NAT: "NAT access msg",
    MessageType.ACCESS_TIMEOUT: "Client timeout access msg",
    MessageType.NAT_TIMEOUT: "Client timeout NAT access msg",
    MessageType.LOCAL_NAT: "Local NAT access msg",
    MessageType.LOCAL_NAT_TIMEOUT: "Client timeout local NAT access msg",
}
_MODES: Final = {EncryptionMode.LEGACY: "legacy"}


def fields(packet: Packet) -> list[tuple[str, str]]:
    """Label and text of each field, in fwknop's order where it is fwknop's format."""
    message, keys = packet.message, packet.keys
    if isinstance(keys, PublicKeys) or not isinstance(message, Message):
        return _tagged(packet)
    encoded, _, digest = packet.plaintext.decode("ascii").rpartition(":")
    payload = packet.payload.decode("ascii")
    hmac_type = f"{keys.hmac_digest.value} ({keys.hmac_digest.name})" if keys.hmac_key else "0 (None)"
    return [
        ("Random Value", message.random),
        ("Username", message.user),
        ("Timestamp", str(message.time)),
        ("FKO Version", message.version),
        ("Message Type", f"{message.type.value} ({_TYPES[message.type]})"),
        ("Message String", message.text),
        ("Nat Access", message.nat_access or _NULL),
        ("Server Auth", message.server_auth or _NULL),
        ("Client Timeout", str(message.timeout or 0)),
        ("Digest Type", f"{message.digest.value} ({message.digest.name})"),
        ("HMAC Type", hmac_type),
        ("Encryption Type", "1 (Rijndael)" if isinstance(keys, SymmetricKeys) else "2 (GPG)"),
        ("Encryption Mode", _mode(packet)),
        *(() if isinstance(keys, SymmetricKeys) else _openpgp(keys)),
        ("Encoded Data", encoded),
        ("SPA Data Digest", digest),
        ("HMAC", payload[-keys.tag_length :] if keys.hmac_key else _NULL),
        ("Final SPA Data", payload),
    ]


def _tagged(packet: Packet) -> list[tuple[str, str]]:
    """The fields of the format doorward 1."""
    message = packet.message
    assert isinstance(message, doorward.Message)  # noqa: S101  fields() has looked
    nat = _NULL if message.nat is None else f"{message.nat.target or 'this host'},{message.nat.port}"
    return [
        ("Format", "doorward 1"),
        ("Timestamp", f"{message.time / 1000:.3f}"),
        ("Message String", packet.text),
        ("Nat Access", nat),
        ("Client Timeout", str(message.seconds)),
        ("One-time Code", _NULL if message.code is None else "given"),
        ("Tag", packet.payload[:8].hex()),
        ("Final SPA Data", packet.payload.hex()),
    ]


def _openpgp(keys: OpenPgpKeys) -> list[tuple[str, str]]:
    """The lines that fwknop shows of gpg: the sender's settings; nothing of the signature that it made itself."""
    return [
        ("GPG signer", keys.signer or _NULL),
        ("GPG recipient", keys.recipient),
        ("GPG sig verify", "Yes"),
        ("GPG ignore sig", "No"),
        ("GPG sig ID", _NULL),
        ("GPG sig fpr", _NULL),
        ("GPG sig summary", "-1"),
        ("GPG sig status", "-1"),
        ("GPG home dir", str(keys.home) if keys.home is not None else _NULL),
        ("GPG exe", str(keys.exe) if keys.exe is not None else "/usr/bin/gpg"),
    ]


def _mode(packet: Packet) -> str:
    if not isinstance(packet.keys, SymmetricKeys):
        return "7 (Asymmetric)"
    mode = packet.keys.mode
    return f"{mode.value} ({_MODES.get(mode, mode.name)})"


def dump(packet: Packet) -> str:
    """The block of fields with its heading."""
    lines = (f"{label:>15}: {text}" for label, text in fields(packet))
    return "\n".join(["SPA Field Values:", "=================", *lines, ""])


def destination(to: Endpoint | None, port: int, profile: Profile) -> str:
    """The block that describes the packet's way."""
    return "\n".join(
        [
            "Generating SPA packet:",
            f"            protocol: {profile.transport.value}",
            f"         source port: {profile.source_port or '<OS assigned>'}",
            f"    destination port: {to.port if to else port}",
            f"             IP/host: {to.host if to else profile.server or _NULL}",
        ]
    )
