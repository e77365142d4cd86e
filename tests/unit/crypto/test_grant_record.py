"""The envelope of a grant that one gateway tells the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorward.config.stanza import Client, Magic, OpenPgp
from doorward.crypto.grant_record import ID_BYTES, RecordKey, key_of
from doorward.errors import AuthenticationError
from doorward.values import PublicKey, Secret, SymmetricKeys
from unit.making import KEYS, OTHER_KEYS, stanza

NONCE = bytes(range(12))
HOST = Secret(b"p" * 32)
GPG = OpenPgp("ABCD1234", Path("/root/.gnupg"))


def test_a_record_is_opened_by_the_same_key_alone() -> None:
    one, same, other = RecordKey((b"a", b"bc")), RecordKey((b"a", b"bc")), RecordKey((b"ab", b"c"))
    record = one.seal(b"content", NONCE)
    assert one.name == same.name == record[:ID_BYTES] != other.name, "a border between secrets is part of them"
    assert same.unseal(record) == b"content"
    assert b"content" not in record
    for place in range(len(record)):
        changed = bytearray(record)
        changed[place] ^= 1
        with pytest.raises(AuthenticationError, match="not made with the key"):
            one.unseal(bytes(changed))
        with pytest.raises(AuthenticationError):
            one.unseal(record[:place])
    with pytest.raises(AuthenticationError):
        other.unseal(other.name + record[ID_BYTES:])


def test_every_secret_of_a_stanza_is_in_its_key_and_nothing_else() -> None:
    client = (Client(PublicKey(bytes([7]) * 32), "laptop"),)
    psk, hmac_key, password = Secret(b"s" * 32), Secret(b"m" * 32), Secret(b"w" * 16)
    gnupg = OpenPgp(GPG.decrypt_id, GPG.home, hmac_key=hmac_key)
    keyed = [
        (stanza(), None),
        (stanza(keys=OTHER_KEYS), None),
        (stanza(keys=SymmetricKeys(KEYS.key, None)), None),
        (stanza(keys=None, openpgp=gnupg), None),
        (stanza(openpgp=gnupg), None),
        (stanza(keys=None, clients=client), HOST),
        (stanza(keys=None, clients=client), Secret(b"q" * 32)),
        (stanza(keys=None, clients=client, psk=psk), HOST),
        (stanza(keys=None, magic=Magic(None, password)), None),
    ]
    names = [key.name for key in (key_of(*one) for one in keyed) if key is not None]
    assert len(set(names)) == len(keyed)
    again, moved = key_of(stanza(), None), key_of(stanza(4, name="laptop", fw_access_timeout=9), HOST)
    assert again is not None
    assert moved is not None
    assert again.name == moved.name == names[0]


def test_a_stanza_that_nothing_secret_authenticates_has_no_key() -> None:
    assert key_of(stanza(keys=None, openpgp=GPG), HOST) is None
    assert key_of(stanza(keys=None), HOST) is None
