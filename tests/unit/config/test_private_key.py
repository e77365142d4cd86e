"""The file of a key pair of the format doorward 1."""

from __future__ import annotations

import base64

import pytest

from doorward.config import private_key
from doorward.config.private_key import KeyPair
from doorward.errors import ConfigError
from doorward.values import PublicKey, Secret

PRIVATE = base64.b64encode(b"p" * 32).decode()
PUBLIC = PublicKey(b"\5" * 32)
PAIR = KeyPair(Secret(b"p" * 32), PUBLIC, "alice@laptop")


@pytest.mark.parametrize("pair", [PAIR, PAIR._replace(comment=None)])
def test_a_pair_comes_back_from_its_file(pair: KeyPair) -> None:
    text = private_key.text(pair)
    assert private_key.parse("client.key", text.encode()) == pair
    assert text.endswith(f"\n{pair.line}\n")
    assert PRIVATE not in pair.line


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "client.key: is no key pair"),
        (f"doorward1-private {PRIVATE}\n", "client.key: is no key pair"),
        (f"{PUBLIC}\ndoorward1-private {PRIVATE}\n", "client.key: is no key pair"),
        (f"doorward1-private {PRIVATE}\n{PUBLIC}\n{PUBLIC}\n", "client.key: is no key pair"),
        (f"{PRIVATE}\n{PUBLIC}\n", "client.key:1: "),
        (f"doorward1-private {PRIVATE[:-1]}\n{PUBLIC}\n", "client.key:1: the private key is not 32 bytes"),
        (f"doorward1-private {PRIVATE[4:]}\n{PUBLIC}\n", "client.key:1: the private key is not 32 bytes"),
        (f"doorward1-private é{PRIVATE}\n{PUBLIC}\n", "client.key:1: the private key is not 32 bytes"),
        (f"doorward1-private {PRIVATE}\n{PUBLIC} a b\n", "client.key:2: the comment behind a public key is one word"),
        (f"doorward1-private {PRIVATE}\n{PUBLIC} a=b\n", "client.key:2: 'a=b' is no name"),
        (f"doorward1-private {PRIVATE}\ndoorward1 {'A' * 43}=\n", "client.key:2: the public key is of low order"),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_never_the_key(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        private_key.parse("client.key", text.encode())
    assert str(refused.value).startswith(problem)
    assert PRIVATE[4:-1] not in str(refused.value)
