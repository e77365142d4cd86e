"""Keys and packets of the format `doorward 1`."""

from __future__ import annotations

import pickle
import subprocess
import sys
from ipaddress import ip_address

import pytest

from doorward.crypto import doorward
from doorward.crypto.doorward import Directory, Pair, generate, nonce_of, public_key
from doorward.errors import AuthenticationError, WireError
from doorward.values import PublicKey, Secret
from doorward.wire.doorward import EPOCH_MS, Kind, Message, serialize
from vectors import doorward_by_hand as by_hand

EPOCH = 28_125_000
CLIENT, HOST, OTHER = (Secret(bytes([number]) * 32) for number in (1, 2, 3))
PSK = Secret(b"p" * 32)
NONCE = bytes(range(12))
PLAINTEXT = serialize(Message(Kind.ACCESS, EPOCH * EPOCH_MS, ip_address("192.0.2.7")))


def sides(client: Secret = CLIENT, host: Secret = HOST, psk: Secret | None = None) -> tuple[Pair, Pair]:
    return Pair.of_client(client, public_key(host), psk), Pair.of_host(host, public_key(host), public_key(client), psk)


@pytest.mark.parametrize("psk", [None, PSK])
def test_both_sides_make_the_same_packet_and_read_it(psk: Secret | None) -> None:
    client, host = sides(psk=psk)
    packet = client.seal(PLAINTEXT, EPOCH, NONCE)
    assert packet == host.seal(PLAINTEXT, EPOCH, NONCE)
    assert (len(packet), nonce_of(packet), packet[:8]) == (164, NONCE, host.tag(EPOCH))
    assert host.unseal(packet, EPOCH) == PLAINTEXT


@pytest.mark.parametrize(
    ("reader", "epoch"),
    [
        (sides(client=OTHER)[1], EPOCH),
        (sides(host=OTHER)[1], EPOCH),
        (sides(psk=PSK)[1], EPOCH),
        (sides(client=HOST, host=CLIENT)[1], EPOCH),  # the other direction of two machines that are both
        (sides()[1], EPOCH - 1),
        (sides()[1], EPOCH + 1),
    ],
    ids=["another client", "another host", "a pre-shared key", "the other direction", "the epoch before", "the next"],
)
def test_a_packet_of_another_pair_or_epoch_is_not_read(reader: Pair, epoch: int) -> None:
    packet = sides()[0].seal(PLAINTEXT, EPOCH, NONCE)
    assert packet[:8] != reader.tag(epoch)
    with pytest.raises(AuthenticationError):
        reader.unseal(packet, epoch)


def test_packets_of_several_epochs_in_turn_are_each_read_in_their_own_alone() -> None:
    client, host = sides()
    for epoch in (EPOCH, EPOCH + 1, EPOCH, EPOCH - 1, EPOCH - 1, EPOCH + 1):
        packet = client.seal(PLAINTEXT, epoch, NONCE)
        for other in {EPOCH - 1, EPOCH, EPOCH + 1} - {epoch}:
            with pytest.raises(AuthenticationError):
                host.unseal(packet, other)
        assert host.unseal(packet, epoch) == PLAINTEXT


def test_no_flipped_bit_and_no_other_length_is_read() -> None:
    client, host = sides()
    packet = client.seal(PLAINTEXT, EPOCH, NONCE)
    number = int.from_bytes(packet, "big")
    flipped = [(number ^ 1 << bit).to_bytes(164, "big") for bit in range(164 * 8)]
    for changed in (*flipped, packet[:-1], packet + b"\0", packet[:20], packet[:8], b""):
        with pytest.raises(AuthenticationError):
            host.unseal(changed, EPOCH)
    assert host.unseal(packet, EPOCH) == PLAINTEXT


def test_a_directory_knows_the_last_this_and_the_next_epoch() -> None:
    client, host = sides()
    directory = Directory([("laptop", host), ("phone", sides(client=OTHER)[1])])
    assert directory.find(client.seal(PLAINTEXT, EPOCH, NONCE)) == ()
    directory.follow(EPOCH)
    packets = {epoch: client.seal(PLAINTEXT, epoch, NONCE) for epoch in range(EPOCH - 3, EPOCH + 5)}
    found = {epoch: [(one.sender, one.epoch) for one in directory.find(packet)] for epoch, packet in packets.items()}
    known = {epoch: [("laptop", epoch)] for epoch in (EPOCH - 1, EPOCH, EPOCH + 1)}
    assert found == {epoch: known.get(epoch, []) for epoch in packets}
    for moved in (EPOCH, EPOCH + 1, EPOCH + 56, EPOCH - 56, EPOCH):  # an hour ahead, and back
        directory.follow(moved)
        assert [one.sender for one in directory.find(client.seal(PLAINTEXT, moved, NONCE))] == ["laptop"]
    directory.follow(0)
    assert directory.find(client.seal(PLAINTEXT, 1, NONCE))[0].epoch == 1


def test_two_senders_may_share_a_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pair, "tag", lambda _self, epoch: epoch.to_bytes(8, "big"))
    client, host = sides()
    directory = Directory([("phone", sides(client=OTHER)[1]), ("laptop", host)])
    directory.follow(EPOCH)
    assert [one.sender for one in directory.find(client.seal(PLAINTEXT, EPOCH, NONCE))] == ["phone", "laptop"]


def test_keys_of_other_lengths_or_of_zeros_are_refused() -> None:
    for psk in (Secret(b"p" * 31), Secret(b"p" * 33), Secret(bytes(32))):
        with pytest.raises(WireError, match="pre-shared key"):
            sides(psk=psk)
    with pytest.raises(WireError, match="private key"):
        public_key(Secret(b"k" * 31))
    with pytest.raises(WireError, match="nonce"):
        sides()[0].seal(PLAINTEXT, EPOCH, bytes(11))


def test_new_keys_are_random_bytes_and_show_nothing() -> None:
    made = generate(lambda count: b"r" * count)
    assert made == Secret(b"r" * 32)
    assert public_key(made).raw == by_hand.public(b"r" * 32)
    pair = sides()[0]
    assert "Pair object" in repr(pair)
    with pytest.raises(TypeError):
        pickle.dumps(pair)


LOW_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    by_hand.P - 1,
)


@pytest.mark.parametrize("number", LOW_ORDER)
def test_a_key_of_low_order_is_refused_as_it_would_share_zeros(number: int) -> None:
    raw = number.to_bytes(32, "little")
    assert by_hand.x25519(CLIENT.reveal(), raw) == bytes(32), "it does"
    with pytest.raises(WireError, match="low order"):
        PublicKey(raw)


def test_another_spelling_of_a_key_is_refused_though_the_curve_takes_it() -> None:
    key = public_key(HOST).raw
    number = int.from_bytes(key, "little")
    top = (number | 1 << 255).to_bytes(32, "little")
    assert by_hand.x25519(CLIENT.reveal(), top) == by_hand.x25519(CLIENT.reveal(), key), "the same client twice"
    nine = (9).to_bytes(32, "little")
    above = (by_hand.P + 9).to_bytes(32, "little")
    assert by_hand.x25519(CLIENT.reveal(), above) == by_hand.x25519(CLIENT.reveal(), nine)
    for raw in (top, above, by_hand.P.to_bytes(32, "little"), (by_hand.P + 1).to_bytes(32, "little"), b"\xff" * 32):
        with pytest.raises(WireError, match="canonical"):
            PublicKey(raw)
    for raw in (key[:-1], key + b"\0", b""):
        with pytest.raises(WireError, match="32 bytes"):
            PublicKey(raw)


def test_a_public_key_is_read_from_its_one_text() -> None:
    key = public_key(HOST)
    assert PublicKey.parse(str(key)) == key
    encoded = str(key).removeprefix("doorward1 ")
    for text in (encoded, f"ssh-ed25519 {encoded}", f"doorward2 {encoded}", f"doorward1  {encoded}", ""):
        with pytest.raises(WireError):
            PublicKey.parse(text)
    for cut in (encoded[:-1], encoded[:-4], encoded + "=", f"{encoded} x", "é" + encoded[1:], encoded[:-2] + "/="):
        with pytest.raises(WireError):
            PublicKey.parse(f"doorward1 {cut}")


def test_the_module_is_the_only_one_that_knows_the_lengths() -> None:
    assert (doorward.TAG_BYTES, doorward.NONCE_BYTES, doorward.KEY_BYTES) == (8, 12, 32)


USE = """
import sys
from doorward import gate
from doorward.crypto.doorward import Pair, public_key
from doorward.values import Secret
before = set(sys.modules)
client, host = Secret(bytes([1]) * 32), Secret(bytes([2]) * 32)
packet = Pair.of_client(client, public_key(host)).seal(bytes(128), 5, bytes(12))
assert Pair.of_host(host, public_key(host), public_key(client)).unseal(packet, 5) == bytes(128)
print(sorted(set(sys.modules) - before))
import colorsys
print(sorted(set(sys.modules) - before))
"""


def test_nothing_is_loaded_at_the_first_key_when_the_listener_may_read_no_file_any_more() -> None:
    """The first client can come with a reload; a module that is loaded then would be seen."""
    done = subprocess.run([sys.executable, "-c", USE], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n['colorsys']\n"
