"""The recorded packets and verdicts of fwknop 2.6.10, and their keys. README.md says where they come from."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from doorward.values import DigestType, EncryptionMode, Secret, SymmetricKeys

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ClientPacket:
    name: str
    keys: SymmetricKeys
    plaintext: bytes
    payload: bytes


@dataclass(frozen=True)
class DaemonVerdict:
    name: str
    configuration: str
    verdict: str
    payload: bytes

    @property
    def accepted(self) -> bool:
        return self.verdict.startswith("accept")


def _key(text: str) -> Secret:
    bare = text.removeprefix("b64:")
    return Secret(base64.b64decode(bare + "=" * (-len(bare) % 4)) if bare != text else text.encode())


def _keys(row: dict[str, str]) -> SymmetricKeys:
    hmac_key = _key(row["hmac_key"]) if "hmac_key" in row else None
    digest = DigestType[row.get("hmac", "sha256").upper()]
    return SymmetricKeys(_key(row["key"]), hmac_key, digest, EncryptionMode[row["mode"].upper()])


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (_FOLDER / name).read_text().splitlines()]


CLIENT = [
    ClientPacket(f"{row['id']}-{row['name']}", _keys(row), row["plain"].encode(), row["pkt"].encode())
    for row in _rows("fwknop-client-2.6.10.jsonl")
]
VERDICTS = [
    DaemonVerdict(f"{row['id']}-{row['case'].replace(' ', '-')}", row["conf"], row["verdict"], row["pkt"].encode())
    for row in _rows("fwknopd-2.6.10-verdicts.jsonl")
]
KEYS = CLIENT[0].keys
