"""access.conf: what is read, and every mistake with its line."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest

from doorward.config import access
from doorward.errors import ConfigError
from doorward.values import DigestType, EncryptionMode, Secret, Service

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.config.stanza import Stanza
    from doorward.values import SymmetricKeys

KEY = base64.b64encode(b"k" * 32).decode()
HMAC = base64.b64encode(b"h" * 64).decode()
GOOD = f"SOURCE ANY\nKEY_BASE64 {KEY}\nHMAC_KEY_BASE64 {HMAC}\n"


def write(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "access.conf"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def problems(folder: Path, text: str | bytes, mode: int = 0o600) -> list[str]:
    path = write(folder, text, mode)
    with pytest.raises(ConfigError) as raised:
        access.load(path)
    return [str(problem).removeprefix(str(path)) for problem in raised.value.problems]


def keys(stanza: Stanza) -> SymmetricKeys:
    """Return the keys of a stanza that has some."""
    assert stanza.keys is not None
    return stanza.keys


def test_both_spellings_say_the_same(tmp_path: Path) -> None:
    new = access.load(write(tmp_path, GOOD + "OPEN_PORTS tcp/22, udp/53\nFW_ACCESS_TIMEOUT 12\n")).stanzas
    old = access.load(
        write(
            tmp_path,
            f"# old\nSOURCE: ANY;\nKEY_BASE64: {KEY};\nHMAC_KEY_BASE64: {HMAC}; # secret\n"
            "OPEN_PORTS: tcp/22, udp/53;\n;\nFW_ACCESS_TIMEOUT: 12;\n",
        )
    ).stanzas
    assert len(new) == len(old) == 1
    assert keys(new[0]).key == keys(old[0]).key == Secret(b"k" * 32)
    assert keys(new[0]).hmac_key == keys(old[0]).hmac_key == Secret(b"h" * 64)
    assert new[0].open_ports == old[0].open_ports == frozenset({Service.parse("tcp/22"), Service.parse("udp/53")})
    assert new[0].fw_access_timeout == old[0].fw_access_timeout == 12


def test_every_variable_reaches_its_field(tmp_path: Path) -> None:
    text = (
        "SOURCE 192.0.2.0/24, 198.51.100.7\nDESTINATION 203.0.113.5\nOPEN_PORTS tcp/22\nRESTRICT_PORTS udp/1\n"
        "KEY secret\nHMAC_KEY other\nHMAC_DIGEST_TYPE SHA512\nENCRYPTION_MODE ctr\nFW_ACCESS_TIMEOUT 5\n"
        "MAX_FW_TIMEOUT 60\nREQUIRE_USERNAME alice\nREQUIRE_SOURCE_ADDRESS Y\nACCESS_EXPIRE 12/31/2030\n"
    )
    (stanza,) = access.load(write(tmp_path, text)).stanzas
    assert bytes([192, 0, 2, 9]) in stanza.source
    assert bytes([198, 51, 100, 8]) not in stanza.source
    assert bytes([203, 0, 113, 5]) in stanza.destination
    assert stanza.restrict_ports == frozenset({Service.parse("udp/1")})
    assert (keys(stanza).hmac_digest, keys(stanza).mode) == (DigestType.SHA512, EncryptionMode.CTR)
    assert (stanza.fw_access_timeout, stanza.max_fw_timeout) == (5, 60)
    assert (stanza.require_username, stanza.require_source_address) == ("alice", True)
    assert stanza.expires == 1924905600


def test_stanzas_keep_their_order_and_their_line(tmp_path: Path) -> None:
    stanzas = access.load(write(tmp_path, GOOD + "\n" + GOOD.replace("ANY", "2001:db8::/32"))).stanzas
    assert [(stanza.number, stanza.line) for stanza in stanzas] == [(1, 1), (2, 5)]
    assert bytes.fromhex("20010db8" + "00" * 12) in stanzas[1].source


MISTAKES: dict[str, tuple[str | bytes, list[str]]] = {
    "an unknown name": (GOOD + "OPEN_PORT tcp/22\n", [":4: unknown name 'OPEN_PORT'"]),
    "a name of fwknop that is not served": (
        GOOD + "ENABLE_CMD_EXEC Y\n",
        [":4: ENABLE_CMD_EXEC is not served by this version"],
    ),
    "bad base64": (GOOD.replace(KEY, "a*b"), [":2: KEY_BASE64: is not base64"]),
    "base64 with unused bits set": (GOOD.replace(KEY, "YWJ"), [":2: KEY_BASE64: is not base64"]),
    "port 0": (GOOD + "OPEN_PORTS tcp/0\n", [":4: OPEN_PORTS: port 0 is outside 1 to 65535"]),
    "port 99999": (GOOD + "OPEN_PORTS tcp/99999\n", [":4: OPEN_PORTS: port 99999 is outside 1 to 65535"]),
    "a port range": (GOOD + "OPEN_PORTS tcp/20-30\n", [":4: OPEN_PORTS: 'tcp/20-30' is not tcp/PORT or udp/PORT"]),
    "an empty entry": (GOOD + "OPEN_PORTS tcp/22,,tcp/23\n", [":4: OPEN_PORTS: '' is not tcp/PORT or udp/PORT"]),
    "a service twice": (GOOD + "OPEN_PORTS tcp/22,tcp/22\n", [":4: OPEN_PORTS: names a service twice"]),
    "the key again as HMAC key": (
        GOOD.replace(HMAC, KEY),
        [":3: the HMAC key equals the encryption key"],
    ),
    "the key again under its other name": (
        "SOURCE ANY\nKEY abc\nHMAC_KEY_BASE64 YWJj\n",
        [":3: the HMAC key equals the encryption key"],
    ),
    "a key of 33 bytes": ("SOURCE ANY\nKEY " + "k" * 33 + "\n", [":1: an encryption key has 1 to 32 bytes, not 33"]),
    "no stanza": ("# nothing\n", [": has no stanza: nobody could get in"]),
    "an empty file": ("", [": has no stanza: nobody could get in"]),
    "a stanza without a key": ("SOURCE ANY\n", [":1: the stanza has no KEY or KEY_BASE64"]),
    "the placeholder": (GOOD.replace(KEY, "__CHANGEME__"), [":2: KEY_BASE64: still has the placeholder __CHANGEME__"]),
    "a name without a value": (GOOD + "OPEN_PORTS\n", [":4: 'OPEN_PORTS' has no value"]),
    "a value that is only a semicolon": (GOOD + "OPEN_PORTS ;\n", [":4: 'OPEN_PORTS' has no value"]),
    "text after the end of a value": (
        "SOURCE ANY\nKEY abc;def\n",
        [":2: KEY: text after ';', where a value ends", ":1: the stanza has no KEY or KEY_BASE64"],
    ),
    "true for Y": (
        GOOD + "REQUIRE_SOURCE_ADDRESS true\n",
        [":4: REQUIRE_SOURCE_ADDRESS: 'true' is neither Y nor N"],
    ),
    "a window with a unit": (
        GOOD + "FW_ACCESS_TIMEOUT 30s\n",
        [":4: FW_ACCESS_TIMEOUT: '30s' is not a number from 1 to 8388608"],
    ),
    "a window of 0": (
        GOOD + "FW_ACCESS_TIMEOUT 0\n",
        [":4: FW_ACCESS_TIMEOUT: '0' is not a number from 1 to 8388608"],
    ),
    "a date that does not exist": (GOOD + "ACCESS_EXPIRE 13/45/2020\n", [":4: ACCESS_EXPIRE: month must be in 1..12"]),
    "a date in another spelling": (
        GOOD + "ACCESS_EXPIRE 2030-01-01\n",
        [":4: ACCESS_EXPIRE: '2030-01-01' is not MM/DD/YYYY"],
    ),
    "a SOURCE of commas": (GOOD.replace("ANY", ",,"), [":1: SOURCE: names no network"]),
    "an unknown digest": (
        GOOD + "HMAC_DIGEST_TYPE crc32\n",
        [":4: HMAC_DIGEST_TYPE: 'crc32' is none of md5, sha1, sha256, sha384, sha512, sha3_256, sha3_512"],
    ),
    "a digest without an HMAC key": (
        "SOURCE ANY\nKEY abc\nHMAC_DIGEST_TYPE md5\n",
        [":3: HMAC_DIGEST_TYPE without an HMAC key"],
    ),
    "a variable before the first SOURCE": ("KEY abc\n", [":1: KEY stands before the first SOURCE"]),
    "a variable twice": (GOOD + f"KEY_BASE64 {KEY}\n", [":4: KEY_BASE64: already set in line 2"]),
    "a host name as SOURCE": (
        GOOD.replace("ANY", "host.example"),
        [":1: SOURCE: 'host.example' is not an address or a network"],
    ),
    "every address as SOURCE": (
        GOOD.replace("ANY", "0.0.0.0/0"),
        [":1: SOURCE: '0.0.0.0/0' is every address: write ANY"],
    ),
    "binary garbage": (GOOD.encode() + b"\x00\xff\x01\n", [":4: the line is not UTF-8 text"]),
    "a control character": (GOOD.encode() + b"KEY a\x07b\n", [":4: the line has a control character"]),
    "a line of ten million bytes": (
        GOOD.encode() + b"#" * 10_000_000,
        [":4: the line has 10000000 bytes, more than 4096"],
    ),
    "a file beyond every bound": (
        GOOD.encode() + b"#\n" * (9 * 1024 * 1024),
        [":8388526: the file exceeds 16777216 bytes"],
    ),
    "several mistakes at once": (
        "SOURCE nowhere\nKEY_BASE64 ***\nOPEN_PORTS tcp/0\nNONSENSE 1\n",
        [
            ":1: SOURCE: 'nowhere' is not an address or a network",
            ":2: KEY_BASE64: is not base64",
            ":3: OPEN_PORTS: port 0 is outside 1 to 65535",
            ":4: unknown name 'NONSENSE'",
        ],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_with_its_line(name: str, tmp_path: Path) -> None:
    text, expected = MISTAKES[name]
    assert sorted(problems(tmp_path, text)) == sorted(expected)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD, mode) == [f": holds keys and has mode {mode:04o}: chmod 600 it"]


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    os.chown(path, 12345, 0)
    with pytest.raises(ConfigError, match="belongs to uid 12345"):
        access.load(path)


def test_a_missing_file_a_folder_and_a_fifo_are_refused_without_waiting(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path, words in ((tmp_path / "no", "No such file"), (tmp_path, "not a regular file"), (fifo, "not a regular")):
        with pytest.raises(ConfigError, match=words):
            access.load(path)


def test_a_key_never_stands_in_an_error(tmp_path: Path) -> None:
    key = base64.b64encode(b"planted-secret-planted-secret-33bytes"[:33]).decode()
    shown = "\n".join(problems(tmp_path, f"SOURCE ANY\nKEY_BASE64 {key}!\nHMAC_KEY_BASE64 {key}*\n"))
    assert "KEY_BASE64" in shown
    assert key not in shown


def test_what_weakens_a_stanza_is_a_warning(tmp_path: Path) -> None:
    warnings = access.load(write(tmp_path, "SOURCE ANY\nKEY abc\nFW_ACCESS_TIMEOUT 400\n")).warnings
    text = "\n".join(warnings)
    for words in ("no HMAC key", "REQUIRE_SOURCE_ADDRESS", "no OPEN_PORTS", "exceeds MAX_FW_TIMEOUT"):
        assert words in text


def test_reading_stops_after_a_hundred_problems(tmp_path: Path) -> None:
    found = problems(tmp_path, "x\n" * 5000)
    assert len(found) == 101
    assert found[-1] == ":100: too many problems, reading stops here"
