"""Every vector of the format `doorward 1`, by the package and by a second implementation."""

from __future__ import annotations

import pytest

from doorward.crypto.doorward import Pair, public_key
from doorward.values import PublicKey, Secret
from doorward.wire.doorward import epoch_of, parse, serialize
from vectors import doorward_by_hand as by_hand
from vectors.doorward_1 import MESSAGES, Vector, made, recorded

VECTORS = recorded()


def test_the_file_has_a_vector_for_each_message() -> None:
    assert [one.name for one in VECTORS] == list(MESSAGES)


def test_the_package_still_makes_what_was_recorded() -> None:
    assert tuple(made()) == VECTORS


@pytest.mark.parametrize("vector", VECTORS, ids=[one.name for one in VECTORS])
def test_the_package_reads_what_was_recorded(vector: Vector) -> None:
    message = parse(bytes.fromhex(vector.plaintext))
    assert message == MESSAGES[vector.name]
    assert serialize(message).hex() == vector.plaintext
    host = Secret(bytes.fromhex(vector.host_private))
    client = PublicKey(bytes.fromhex(vector.client_public))
    pair = Pair.of_host(host, public_key(host), client, Secret(bytes.fromhex(vector.psk)) if vector.psk else None)
    assert pair.unseal(bytes.fromhex(vector.packet), epoch_of(vector.time)).hex() == vector.plaintext


@pytest.mark.parametrize("vector", VECTORS, ids=[one.name for one in VECTORS])
def test_a_second_implementation_makes_the_same_bytes(vector: Vector) -> None:
    client, host = bytes.fromhex(vector.client_private), bytes.fromhex(vector.host_private)
    assert (by_hand.public(client).hex(), by_hand.public(host).hex()) == (vector.client_public, vector.host_public)
    ends = by_hand.Ends(client, by_hand.public(host), bytes.fromhex(vector.psk) or bytes(32))
    packet = by_hand.packet(ends, vector.time, bytes.fromhex(vector.nonce), bytes.fromhex(vector.plaintext))
    assert packet.hex() == vector.packet


def test_the_second_implementation_agrees_with_the_rfcs() -> None:
    """RFC 7748 §5.2, RFC 8439 §2.8.2."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    shared = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert by_hand.x25519(scalar, point).hex() == shared
    key = bytes(range(0x80, 0xA0))
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    text += b"sunscreen would be it."
    sealed = by_hand.sealed(
        key, bytes.fromhex("070000004041424344454647"), text, bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    )
    assert sealed[:4].hex() == "d31a8d34"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
