"""MAGIC in access.conf: what is read, and every mistake with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.config.stanza import Magic
from doorward.values import Secret
from unit.config.test_sequence import KEY, load, problems

if TYPE_CHECKING:
    from pathlib import Path

STANZA = "SOURCE ANY\nMAGIC udp/62204\nHMAC_KEY correct-horse-battery\nOPEN_PORTS tcp/22\n"


@pytest.mark.parametrize(("text", "port"), [("udp/62204", 62204), ("icmp", None)])
def test_a_stanza_has_a_carrier_and_a_password(tmp_path: Path, text: str, port: int | None) -> None:
    found = load(tmp_path, STANZA.replace("udp/62204", text))
    (stanza,) = found.stanzas
    assert stanza.magic == Magic(port, Secret(b"correct-horse-battery"))
    assert (stanza.keys, stanza.has_hmac_key) == (None, True)
    (warning,) = found.warnings
    assert "the first address to relay a packet that names none is let in" in warning


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (STANZA.replace("udp/62204", "tcp/62204"), "2: MAGIC: 'tcp/62204' is neither udp/PORT nor icmp"),
        (STANZA.replace("udp/62204", "udp/0"), "2: MAGIC: 'udp/0' is neither udp/PORT nor icmp"),
        (STANZA.replace("HMAC_KEY correct-horse-battery\n", ""), "2: MAGIC without HMAC_KEY: which password"),
        (STANZA.replace("HMAC_KEY correct-horse-battery", "HMAC_KEY_BASE64 ?"), "3: HMAC_KEY_BASE64: "),
        (STANZA.replace("correct-horse-battery", "fifteen-letters"), "3: HMAC_KEY beside MAGIC: a password has 16"),
        (STANZA.replace("correct-horse-battery", "x" * 65), "3: HMAC_KEY beside MAGIC: a password has 16 to 64 bytes"),
        (STANZA.replace("OPEN_PORTS tcp/22\n", ""), "2: MAGIC without OPEN_PORTS: what does it open?"),
        (STANZA + KEY, "5: KEY_BASE64 beside MAGIC: a magic packet has a password alone (HMAC_KEY)"),
        (f"{STANZA}HMAC_DIGEST_TYPE sha512\n", "5: HMAC_DIGEST_TYPE beside MAGIC: "),
        (f"{STANZA}REQUIRE_SOURCE_ADDRESS Y\n", "5: REQUIRE_SOURCE_ADDRESS beside MAGIC: "),
        (f"{STANZA}REQUIRE_USERNAME joe\n", "5: REQUIRE_USERNAME beside MAGIC: "),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f"access.conf:{told}")
    assert "horse" not in problem


def test_a_sequence_beside_it_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, f"{STANZA}SEQUENCE tcp/7 tcp/70 tcp/700\n")
    assert any("SEQUENCE beside MAGIC" in one for one in found)
