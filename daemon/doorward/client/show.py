"""A packet as `fwknop --test -v` shows it: the same labels in the same order. Keys are never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.values import EncryptionMode
from doorward.wire.fwknop import MessageType

if TYPE_CHECKING:
    from doorward.client.address import Endpoint
    from doorward.client.packet import Packet

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
    """Return label and text of each field, in fwknop's order."""
    message, keys = packet.message, packet.keys
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
        ("Encryption Type", "1 (Rijndael)"),
        ("Encryption Mode", f"{keys.mode.value} ({_MODES.get(keys.mode, keys.mode.name)})"),
        ("Encoded Data", encoded),
        ("SPA Data Digest", digest),
        ("HMAC", payload[-keys.tag_length :] if keys.hmac_key else _NULL),
        ("Final SPA Data", payload),
    ]


def dump(packet: Packet) -> str:
    """Return the block of fields with its heading."""
    lines = (f"{label:>15}: {text}" for label, text in fields(packet))
    return "\n".join(["SPA Field Values:", "=================", *lines, ""])


def destination(to: Endpoint | None, source_port: int | None) -> str:
    """Return the block that says how the packet travels."""
    return "\n".join(
        [
            "Generating SPA packet:",
            "            protocol: udp",
            f"         source port: {source_port or '<OS assigned>'}",
            f"    destination port: {to.port if to else _NULL}",
            f"             IP/host: {to.host if to else _NULL}",
        ]
    )
