"""access.conf: what is read, and every mistake with its line."""

from __future__ import annotations

import base64
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward import policy
from doorward.config import access, private_key
from doorward.config import settings as config_settings
from doorward.config.files import Files
from doorward.config.private_key import KeyPair
from doorward.config.settings import DaemonSettings
from doorward.config.stanza import Commands, Cycle, OpenPgp
from doorward.errors import ConfigError, WireError
from doorward.values import (
    NAME_MAX,
    DigestType,
    EncryptionMode,
    Grant,
    Permissions,
    PublicKey,
    Secret,
    Service,
    SymmetricKeys,
)

if TYPE_CHECKING:
    from doorward.config.access import Access
    from doorward.config.stanza import Stanza

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
    "a name of fwknop 1.9 that is not served": (
        GOOD + "INTERNAL_NET_ACCESS 10.0.0.0/8\n",
        [":4: INTERNAL_NET_ACCESS is not served: write NAT_TARGETS"],
    ),
    "a user that is none": (
        GOOD + "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER no-such-user\n",
        [":5: CMD_EXEC_USER: there is no user no-such-user"],
    ),
    "a group that is none": (
        GOOD + "CMD_SUDO_EXEC_GROUP no-such-group\n",
        [":4: CMD_SUDO_EXEC_GROUP: there is no group no-such-group"],
    ),
    "a cycle without its end": (GOOD + "CMD_CYCLE_OPEN /bin/a\n", [":4: CMD_CYCLE_CLOSE is missing"]),
    "a cycle without its begin": (GOOD + "CMD_CYCLE_CLOSE /bin/a\n", [":4: CMD_CYCLE_OPEN is missing"]),
    "a cycle without a timer": (
        GOOD + "CMD_CYCLE_OPEN /bin/a\nCMD_CYCLE_CLOSE /bin/b\n",
        [":4: CMD_CYCLE_TIMER is missing"],
    ),
    "a timer without a cycle": (GOOD + "CMD_CYCLE_TIMER 5\n", [":4: CMD_CYCLE_TIMER without CMD_CYCLE_OPEN"]),
    "SNAT without NAT": (GOOD + "FORCE_SNAT 10.0.0.1\n", [":4: FORCE_SNAT needs FORCE_NAT or FORWARD_ALL"]),
    "masquerading without NAT": (
        GOOD + "FORCE_MASQUERADE Y\n",
        [":4: FORCE_MASQUERADE needs FORCE_NAT or FORWARD_ALL"],
    ),
    "a NAT target without a port": (GOOD + "FORCE_NAT 10.0.0.1\n", [":4: FORCE_NAT: '10.0.0.1' is not ADDRESS PORT"]),
    "a NAT target by name": (GOOD + "FORCE_NAT web1 22\n", [":4: FORCE_NAT: 'web1' is not an address"]),
    "targets without ports": (
        GOOD + "NAT_TARGETS 10.0.0.1\n",
        [":4: NAT_TARGETS: '10.0.0.1' is not HOST:PORT, NETWORK:PORT or [IPV6]:PORT, with * for every port"],
    ),
    "a system that is none": (
        GOOD + "REQUIRE_OS Linux 6\n",
        [":4: REQUIRE_OS: 'Linux 6' is no name of an operating system"],
    ),
    "sequences of ports": (
        GOOD + "DATA_COLLECT_MODE ENCRYPT_SEQUENCE\n",
        [":4: DATA_COLLECT_MODE: 'ENCRYPT_SEQUENCE' is none of PCAP, FILE_PCAP, ULOG_PCAP: no port sequences here"],
    ),
    "no port for clients and none listed": (
        GOOD + "PERMIT_CLIENT_PORTS N\n",
        [":4: PERMIT_CLIENT_PORTS N without OPEN_PORTS: nothing could be opened"],
    ),
    "OpenPGP without a password": (
        "SOURCE ANY\nGPG_DECRYPT_ID AABBCCDD\nGPG_REMOTE_ID AABBCCDD\n",
        [":2: OpenPGP needs GPG_DECRYPT_PW or GPG_ALLOW_NO_PW Y"],
    ),
    "OpenPGP without anybody's signature": (
        "SOURCE ANY\nGPG_DECRYPT_ID AABBCCDD\nGPG_DECRYPT_PW x\n",
        [":1: nobody's signature counts: GPG_FINGERPRINT_ID or GPG_REMOTE_ID is missing"],
    ),
    "OpenPGP without a key": (
        "SOURCE ANY\nGPG_DECRYPT_PW x\nGPG_DISABLE_SIG Y\n",
        [":2: GPG_DECRYPT_ID is missing: which key decrypts?"],
    ),
    "a fingerprint that is none": (
        "SOURCE ANY\nGPG_DECRYPT_ID A\nGPG_DECRYPT_PW x\nGPG_FINGERPRINT_ID ABCD\n",
        [":4: GPG_FINGERPRINT_ID: 'ABCD' is not a fingerprint of 40 hex digits"],
    ),
    "the password of OpenPGP as HMAC key": (
        "SOURCE ANY\nGPG_DECRYPT_ID A\nGPG_DECRYPT_PW abc\nGPG_DISABLE_SIG Y\nHMAC_KEY abc\n",
        [":5: the HMAC key equals the encryption key"],
    ),
    "asymmetric without OpenPGP": (
        "SOURCE ANY\nKEY abc\nENCRYPTION_MODE Asymmetric\n",
        [
            ":3: ENCRYPTION_MODE Asymmetric without GPG_DECRYPT_ID",
            ":3: ENCRYPTION_MODE Asymmetric beside a KEY, which is then unused",
        ],
    ),
    "bad base64": (GOOD.replace(KEY, "a*b"), [":2: KEY_BASE64: is not base64"]),
    "base64 with unused bits set": (GOOD.replace(KEY, "YWJ"), [":2: KEY_BASE64: is not base64"]),
    "port 0": (GOOD + "OPEN_PORTS tcp/0\n", [":4: OPEN_PORTS: port 0 is outside 1 to 65535"]),
    "port 99999": (GOOD + "OPEN_PORTS tcp/99999\n", [":4: OPEN_PORTS: port 99999 is outside 1 to 65535"]),
    "a range backwards": (
        GOOD + "OPEN_PORTS tcp/30-20\n",
        [":4: OPEN_PORTS: 'tcp/30-20' is no range of at most 1024 ports, the lower one first"],
    ),
    "a range of too many": (
        GOOD + "OPEN_PORTS udp/1-1025\n",
        [":4: OPEN_PORTS: 'udp/1-1025' is no range of at most 1024 ports, the lower one first"],
    ),
    "ranges of too many": (
        GOOD + "OPEN_PORTS udp/1-1024, tcp/22\n",
        [":4: OPEN_PORTS: names more than 1024 services"],
    ),
    "a range over another": (GOOD + "OPEN_PORTS tcp/20-30,tcp/22\n", [":4: OPEN_PORTS: names a service twice"]),
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
    "a stanza without a key": (
        "SOURCE ANY\n",
        [":1: the stanza has no KEY or KEY_BASE64, no GPG_DECRYPT_ID with a password, no CLIENT and no SEQUENCE"],
    ),
    "the placeholder": (GOOD.replace(KEY, "__CHANGEME__"), [":2: KEY_BASE64: still has the placeholder __CHANGEME__"]),
    "a name without a value": (GOOD + "OPEN_PORTS\n", [":4: 'OPEN_PORTS' has no value"]),
    "a value that is only a semicolon": (GOOD + "OPEN_PORTS ;\n", [":4: 'OPEN_PORTS' has no value"]),
    "text after the end of a value": (
        "SOURCE ANY\nKEY abc;def\n",
        [
            ":2: KEY: text after ';', where a value ends",
            ":1: the stanza has no KEY or KEY_BASE64, no GPG_DECRYPT_ID with a password, no CLIENT and no SEQUENCE",
        ],
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
        [":4: ACCESS_EXPIRE: '2030-01-01' is not M/D/YYYY"],
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


def test_a_range_stands_for_each_of_its_ports(tmp_path: Path) -> None:
    (stanza,) = access.load(write(tmp_path, GOOD + "OPEN_PORTS tcp/22, udp/60000-60002\n")).stanzas
    assert sorted(map(str, stanza.open_ports or ())) == ["tcp/22", "udp/60000", "udp/60001", "udp/60002"]


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


def warnings_of(folder: Path, text: str, settings: DaemonSettings | None = None) -> list[str]:
    path = write(folder, text)
    return [warning.removeprefix(str(path)) for warning in access.load(path, settings).warnings]


@pytest.mark.parametrize(("line", "place"), [("", ":1"), ("REQUIRE_SOURCE_ADDRESS N\n", ":5")])
def test_a_warning_is_true_of_what_is_written_and_of_what_is_not(tmp_path: Path, line: str, place: str) -> None:
    text = "REQUIRE_SOURCE_ADDRESS is not Y: the first address to relay a packet that names none is let in"
    assert warnings_of(tmp_path, GOOD + "OPEN_PORTS tcp/22\n" + line) == [f"{place}: {text}"]
    assert not warnings_of(tmp_path, GOOD + "OPEN_PORTS tcp/22\nREQUIRE_SOURCE_ADDRESS Y\n")


@pytest.mark.parametrize("date", ["07/04/2030", "7/4/2030", "7/04/30", "07/4/30"])
def test_a_date_has_digits_to_spare_as_in_fwknopd(tmp_path: Path, date: str) -> None:
    (stanza,) = access.load(write(tmp_path, f"{GOOD}ACCESS_EXPIRE {date}\n")).stanzas
    assert stanza.expires == 1_909_353_600


CLOSED = GOOD + "OPEN_PORTS tcp/22\nREQUIRE_SOURCE_ADDRESS Y\n"
FORWARDS, LOCAL = (
    DaemonSettings(permissions=one) for one in (Permissions(forwarding=True), Permissions(local_nat=True))
)


TARGETED = "NAT_TARGETS 10.0.0.5:*\n"


@pytest.mark.parametrize(
    ("line", "settings", "place"),
    [
        ("", FORWARDS, ":1"),
        ("FORWARD_ALL Y\n", FORWARDS, ":6"),
        ("ENABLE_FORWARD_ACCESS Y\n", FORWARDS, ":6"),
        ("ENABLE_FORWARD_ACCESS Y\n", None, ":6"),
        ("NAT_TARGETS 10.0.0.5:22\n", FORWARDS, ""),
        ("FORCE_NAT 10.0.0.5 22\n", FORWARDS, ""),
        ("ENABLE_FORWARD_ACCESS N\n", FORWARDS, ""),
        ("", LOCAL, ""),
        ("", None, ""),
    ],
)
def test_a_stanza_whose_packets_may_name_any_inner_host_is_a_warning(
    tmp_path: Path, line: str, settings: DaemonSettings | None, place: str
) -> None:
    text = ": no NAT_TARGETS: a packet may have connections forwarded to any host that this one reaches"
    told = [warning for warning in warnings_of(tmp_path, CLOSED + line, settings) if "NAT_TARGETS" in warning]
    assert told == ([place + text] if place else [])


@pytest.mark.parametrize(("line", "said"), [("", "have every address behind this host"), (TARGETED, "are denied")])
def test_a_stanza_that_forwards_everything_without_a_target_is_a_warning(tmp_path: Path, line: str, said: str) -> None:
    told = warnings_of(tmp_path, f"{CLOSED}FORWARD_ALL Y\n{line}", FORWARDS)
    assert f":6: FORWARD_ALL without FORCE_NAT: packets that name no target {said}" in told


def test_messages_name_the_file_that_was_read(tmp_path: Path) -> None:
    settings = config_settings.parse(tmp_path / "fwknopd.conf", b"").settings
    text = f"{GOOD}FORWARD_ALL Y\nENABLE_FORWARD_ACCESS Y\nNAT_TARGETS 10.0.0.5:*\nDATA_COLLECT_MODE PCAP\n"
    with pytest.raises(ConfigError) as raised:
        access.load(write(tmp_path, text), settings)
    told = [str(problem) for problem in raised.value.problems]
    told += warnings_of(tmp_path, f"{GOOD}NAT_TARGETS 10.0.0.5:*\nDATA_COLLECT_MODE PCAP\n", settings)
    named = [line for line in told if ".conf" in line.partition(": ")[2]]
    assert len(named) == 4
    assert all(f"{tmp_path}/fwknopd.conf" in line for line in named)


@pytest.mark.parametrize("line", ["REQUIRE_USERNAME alice # admin", "CMD_CYCLE_OPEN /bin/a #x\nCMD_CYCLE_CLOSE NONE"])
def test_what_looks_like_a_comment_behind_a_value_is_a_warning(tmp_path: Path, line: str) -> None:
    name = line.split(maxsplit=1)[0]
    assert warnings_of(tmp_path, f"{CLOSED}{line}\n")[0] == (
        f":6: {name}: '#' and what follows are part of the value; a comment may stand behind ';'"
    )
    assert not [one for one in warnings_of(tmp_path, CLOSED + "REQUIRE_USERNAME a#b ; # c\n") if "comment" in one]


def test_a_key_that_looks_like_it_has_a_comment_is_not_told(tmp_path: Path) -> None:
    (told,) = warnings_of(tmp_path, CLOSED.replace(f"KEY_BASE64 {KEY}", "KEY s3cret # mine", 1))
    assert told.startswith(":2: KEY: ")
    assert "s3cret" not in told
    assert "mine" not in told


def test_every_service_that_is_none_is_named(tmp_path: Path) -> None:
    told = problems(tmp_path, GOOD + "OPEN_PORTS tcp/22, TCP/23, tcp/0, tcp/22\nRESTRICT_PORTS x, y\n")
    assert told == [
        ":4: OPEN_PORTS: 'TCP/23' is not tcp/PORT or udp/PORT; port 0 is outside 1 to 65535; names a service twice",
        ":5: RESTRICT_PORTS: 'x' is not tcp/PORT or udp/PORT; 'y' is not tcp/PORT or udp/PORT",
    ]


def test_reading_stops_after_a_hundred_problems(tmp_path: Path) -> None:
    found = problems(tmp_path, "x\n" * 5000)
    assert len(found) == 101
    assert found[-1] == ":100: too many problems, reading stops here"


def test_a_stanza_has_the_name_that_it_says(tmp_path: Path) -> None:
    names = ("laptop", "anna@example.org", "web1.example.org:22", "[2001:db8::1]", "x" * NAME_MAX)
    text = "".join(f"{GOOD}NAME {name}\n" for name in names) + GOOD
    stanzas = access.load(write(tmp_path, text)).stanzas
    assert [stanza.name for stanza in stanzas] == [*names, None]
    assert [stanza.label for stanza in (stanzas[0], stanzas[-1])] == ["stanza 1 (laptop)", "stanza 6"]


@pytest.mark.parametrize(
    "name", ["my laptop", "a=b", 'a"b', "a'b", "a\\nb", "a{b", "a,b", "café", "\u2028", "x" * (NAME_MAX + 1)]
)
def test_a_name_that_could_break_out_of_a_line_is_refused(tmp_path: Path, name: str) -> None:
    (problem,) = problems(tmp_path, f"{GOOD}NAME {name}\n")
    assert ":4: " in problem
    assert "\n" not in problem
    with pytest.raises(WireError):
        Grant(ipaddress.ip_address("192.0.2.7"), (Service.parse("tcp/22"),), 30, name=name)


def test_a_name_before_its_stanza_or_twice_in_one_is_a_problem_and_one_of_two_stanzas_a_warning(tmp_path: Path) -> None:
    assert problems(tmp_path, f"NAME laptop\n{GOOD}") == [":1: NAME stands before the first SOURCE"]
    (twice,) = problems(tmp_path, f"{GOOD}NAME laptop\nNAME phone\n")
    assert "already set in line 4" in twice
    two = f"{GOOD}NAME laptop\n{GOOD}NAME"
    shared = [line for line in warnings_of(tmp_path, f"{two} laptop\n") if "NAME" in line]
    assert shared == [f":5: NAME laptop is that of {tmp_path}/access.conf:1 too"]
    assert not any("NAME" in line for line in warnings_of(tmp_path, f"{two} phone\n"))


def stanza_of(folder: Path, text: str, settings: DaemonSettings | None = None) -> Stanza:
    return access.load(write(folder, text), settings).stanzas[0]


def test_commands_cycles_and_forwarding_reach_their_fields(tmp_path: Path) -> None:
    text = (
        "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody\nCMD_EXEC_SHELL Y\nENABLE_CMD_SUDO_EXEC Y\nCMD_SUDO_EXEC_USER root\n"
        "CMD_CYCLE_OPEN /bin/open $IP\nCMD_CYCLE_CLOSE /bin/close\nCMD_CYCLE_TIMER 9\nFORCE_NAT 10.0.0.5 22\n"
        "FORCE_SNAT 10.0.0.1\nREQUIRE_OS Linux\n"
        "NAT_TARGETS 10.1.0.0/24:443, [2001:db8::5]:22, LOCALHOST:80, 10.0.0.9:*\n"
    )
    stanza = stanza_of(tmp_path, GOOD + text)
    shown = Commands("nobody", None, sudo=True, sudo_user="root", shell=True)  # noqa: S604  nothing is run
    assert stanza.commands == shown
    assert stanza.cycle == Cycle("/bin/open $IP", "/bin/close", 9, "nobody")
    forwarding, one = stanza.forwarding, ipaddress.ip_address
    assert (forwarding.force, forwarding.snat) == ((one("10.0.0.5"), 22), one("10.0.0.1"))
    targets = forwarding.targets or ()
    assert [(str(target.networks), target.port, target.name) for target in targets] == [
        ("10.1.0.0/24", 443, None),
        ("2001:db8::5/128", 22, None),
        ("", 80, "localhost"),
        ("10.0.0.9/32", None, None),
    ]
    assert set(targets[2].addresses) & {one("127.0.0.1"), one("::1")}
    assert stanza.require_os == "Linux"


def test_a_cycle_that_never_closes_needs_no_timer(tmp_path: Path) -> None:
    assert stanza_of(tmp_path, GOOD + "CMD_CYCLE_OPEN /bin/a\nCMD_CYCLE_CLOSE NONE\n").cycle == Cycle(
        "/bin/a", None, None
    )


def test_the_users_of_a_cycle_count_without_commands_of_clients(tmp_path: Path) -> None:
    text = "CMD_EXEC_USER nobody\nCMD_EXEC_GROUP nobody\nCMD_CYCLE_OPEN /bin/a\nCMD_CYCLE_CLOSE NONE\n"
    read = access.load(write(tmp_path, GOOD + text))
    assert read.stanzas[0].commands is None
    assert read.stanzas[0].cycle == Cycle("/bin/a", None, None, "nobody", "nogroup")
    assert "the group nogroup of the user nobody is used" in "\n".join(read.warnings)


def test_openpgp_reaches_its_fields_and_its_defaults(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "pubring.gpg").write_bytes(b"p")
    (home / "secring.gpg").write_bytes(b"s")
    (home / "secring.gpg").chmod(0o600)
    text = (
        "SOURCE ANY\nGPG_DECRYPT_ID AABBCCDD\nGPG_DECRYPT_PW secret\nGPG_REMOTE_ID 0x11223344,5566778899aabbcc\n"
        f"GPG_FINGERPRINT_ID {'ABCD ' * 10}, {'12' * 20}\nHMAC_KEY abc\nHMAC_DIGEST_TYPE sha512\n"
    )
    stanza = stanza_of(tmp_path, text, DaemonSettings(gpg_home=home))
    assert stanza.keys is None
    assert stanza.openpgp == OpenPgp(
        "AABBCCDD",
        home,
        Path("/usr/bin/gpg"),
        Secret(b"secret"),
        remote_ids=frozenset({"11223344", "5566778899AABBCC"}),
        fingerprints=frozenset({"ABCD" * 10, "12" * 20}),
        hmac_key=Secret(b"abc"),
        hmac_digest=DigestType.SHA512,
    )
    both = f"{text}KEY sym\nGPG_DISABLE_SIG Y\nGPG_REQUIRE_SIG Y\nGPG_HOME_DIR {home}\n"
    stanza = stanza_of(tmp_path, both)
    assert keys(stanza).hmac_key == Secret(b"abc")
    assert stanza.openpgp is not None
    assert stanza.openpgp.require_signature, "both set: signatures are checked, as in fwknopd"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("FORCE_NAT 10.0.0.5 22", "FORCE_NAT needs ENABLE_IPT_FORWARDING or ENABLE_IPT_LOCAL_NAT"),
        ("FORWARD_ALL Y", "FORWARD_ALL needs ENABLE_IPT_FORWARDING or ENABLE_IPT_LOCAL_NAT"),
        ("ENABLE_FORWARD_ACCESS Y", "ENABLE_FORWARD_ACCESS needs ENABLE_IPT_FORWARDING"),
    ],
)
def test_what_needs_the_daemons_permission_is_refused_without_it(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path, f"{GOOD}{line}\n")
    with pytest.raises(ConfigError, match=said):
        access.load(path, DaemonSettings())
    assert access.load(path, DaemonSettings(permissions=Permissions(forwarding=True))).stanzas
    assert access.load(path).stanzas, "without settings only what the file says alone is judged"


def test_names_of_fwknop_1_9_keep_their_meaning(tmp_path: Path) -> None:
    text = "OPEN_PORTS tcp/22\nPERMIT_CLIENT_PORTS Y\nENABLE_FORWARD_ACCESS N\nDATA_COLLECT_MODE PCAP\n"
    read = access.load(write(tmp_path, GOOD + text))
    (stanza,) = read.stanzas
    assert (stanza.any_ports, stanza.forwarding.only) == (True, False)
    assert policy.refused_service(stanza, [Service.parse("tcp/80")]) is None
    assert stanza.open_ports == frozenset({Service.parse("tcp/22")}), "what a guard table closes"
    assert ":7: DATA_COLLECT_MODE is not used" in "\n".join(read.warnings)


@pytest.mark.parametrize("source", ["ANY # everyone", "= ANY", "ANY, 10.0.0.300"])
def test_any_beside_what_is_no_network_is_not_everybody(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError):
        access.load(write(tmp_path, GOOD.replace("SOURCE ANY", f"SOURCE {source}")))


def test_any_in_a_list_is_everybody_as_in_fwknopd(tmp_path: Path) -> None:
    (stanza,) = access.load(write(tmp_path, GOOD.replace("SOURCE ANY", "SOURCE any, 10.0.0.1"))).stanzas
    assert stanza.source.everywhere


def test_a_port_sequence_as_the_way_of_capture_is_refused(tmp_path: Path) -> None:
    assert ":4" in problems(tmp_path, GOOD + "DATA_COLLECT_MODE ENCRYPT_SEQUENCE\n")[0]
    assert "none of PCAP, FILE_PCAP, ULOG_PCAP" in problems(tmp_path, GOOD + "DATA_COLLECT_MODE ENCRYPT_SEQUENCE\n")[0]


@pytest.mark.parametrize(
    "name", ["FORCE_NAT 10.0.0.5 22", "FORCE_SNAT 10.0.0.1", "FORCE_MASQUERADE Y", "FORWARD_ALL Y"]
)
def test_what_forwards_needs_the_permission_of_the_settings(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f"{GOOD}OPEN_PORTS tcp/22\n{name}\n")
    with pytest.raises(ConfigError, match="needs ENABLE_IPT_FORWARDING or ENABLE_IPT_LOCAL_NAT"):
        access.load(path, DaemonSettings())


def test_a_target_whose_name_has_no_address_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "NAT_TARGETS no-such-host.invalid:22\n")
    read = access.parse(path, path.read_bytes(), DaemonSettings(permissions=Permissions(forwarding=True)), Files({}))
    assert [one for one in read.warnings if "no-such-host.invalid has no address now" in one]


@pytest.mark.parametrize("name", ["ENABLE_CMD_SUDO_EXEC", "CMD_EXEC_SHELL"])
def test_what_is_about_commands_does_nothing_without_commands(tmp_path: Path, name: str) -> None:
    read = access.load(write(tmp_path, f"{GOOD}{name} Y\n"))
    assert [one for one in read.warnings if f"{name} does nothing without ENABLE_CMD_EXEC Y" in one]
    assert read.stanzas[0].commands is None


def test_a_stanza_with_a_key_and_no_password_of_gpg_takes_symmetric_packets_only(tmp_path: Path) -> None:
    read = access.load(write(tmp_path, GOOD + "GPG_DECRYPT_ID AABBCCDD\n"))
    assert [one for one in read.warnings if "takes symmetric packets only" in one]
    assert read.stanzas[0].openpgp is None


def test_a_password_of_gpg_that_is_none_is_one_problem_and_not_two(tmp_path: Path) -> None:
    text = "SOURCE ANY\nGPG_DECRYPT_ID AABBCCDD\nGPG_REMOTE_ID 11223344\n"
    assert [one.partition(": ")[0] for one in problems(tmp_path, text + "GPG_DECRYPT_PW __CHANGEME__\n")] == [":4"]
    assert "OpenPGP needs GPG_DECRYPT_PW" in problems(tmp_path, text)[0]


def test_a_keyring_has_an_absolute_path(tmp_path: Path) -> None:
    assert ":4: GPG_HOME_DIR: 'gnupg' is not an absolute path" in problems(tmp_path, GOOD + "GPG_HOME_DIR gnupg\n")


def test_targets_without_forwarding_are_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "NAT_TARGETS 10.0.0.5:22\n")
    assert [one for one in access.load(path, DaemonSettings()).warnings if "NAT_TARGETS does nothing" in one]
    assert "NAT_TARGETS" not in "".join(
        access.load(path, DaemonSettings(permissions=Permissions(forwarding=True))).warnings
    )


def test_a_key_that_legacy_mode_cuts_is_warned_of(tmp_path: Path) -> None:
    long, short = GOOD.replace(KEY, base64.b64encode(b"k" * 17).decode()), GOOD.replace(KEY, KEY[:20] + "aw==")
    cut = [warning for warning in warnings_of(tmp_path, f"{long}ENCRYPTION_MODE legacy\n") if "legacy" in warning]
    assert cut == [":4: in legacy mode only the first 16 bytes of the key count"]
    assert not [warning for warning in warnings_of(tmp_path, f"{short}ENCRYPTION_MODE legacy\n") if "legacy" in warning]


def test_a_group_that_exists_is_taken_without_a_word(tmp_path: Path) -> None:
    read = access.load(write(tmp_path, GOOD + "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody\nCMD_EXEC_GROUP root\n"))
    (commands,) = (stanza.commands for stanza in read.stanzas)
    assert commands is not None
    assert commands.group == "root"
    assert "CMD_EXEC_GROUP" not in "\n".join(read.warnings)


def test_connections_that_pass_without_rewriting_are_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "FORCE_NAT 10.0.0.5 22\nDISABLE_DNAT Y\n")
    assert "DISABLE_DNAT without FORWARD_ALL" in "\n".join(access.load(path).warnings)
    path = write(tmp_path, GOOD + "FORWARD_ALL Y\nDISABLE_DNAT Y\n")
    assert "DISABLE_DNAT without FORWARD_ALL" not in "\n".join(access.load(path).warnings)


LAPTOP, PHONE, HOST = (PublicKey(bytes([number]) * 32) for number in (5, 6, 7))
PSK = base64.b64encode(b"p" * 32).decode()
CODE_SECRET = base64.b32encode(b"s" * 20).decode()
CLIENT = f"SOURCE ANY\nCLIENT {LAPTOP} alice@laptop\nOPEN_PORTS tcp/22\n"


def with_host_key(folder: Path, text: str) -> Access:
    """The stanzas as a daemon reads them, with its host key in the folder."""
    file = folder / "host.key"
    file.write_text(private_key.text(KeyPair(Secret(b"h" * 32), HOST, "web1")))
    file.chmod(0o600)
    return access.load(write(folder, text), DaemonSettings(host_key_file=file))


def test_clients_are_named_by_their_public_keys(tmp_path: Path) -> None:
    found = with_host_key(tmp_path, f"{CLIENT}CLIENT {PHONE}\nPSK_BASE64 {PSK}\nNAME family\n{GOOD}")
    one, other = found.stanzas
    assert [(client.key, client.name) for client in one.clients] == [(LAPTOP, "alice@laptop"), (PHONE, None)]
    assert (one.psk, one.keys, one.openpgp, found.host_key) == (Secret(b"p" * 32), None, None, Secret(b"h" * 32))
    assert (one.require_source_address, one.origin_window, one.has_hmac_key) == (True, 10, True)
    assert (other.clients, other.require_source_address, other.origin_window) == ((), False, None)


def test_a_stanza_may_let_clients_leave_the_source_open(tmp_path: Path) -> None:
    (stanza,) = with_host_key(tmp_path, f"{CLIENT}REQUIRE_SOURCE_ADDRESS N\nFW_ACCESS_TIMEOUT 60\n").stanzas
    assert (stanza.require_source_address, stanza.origin_window) == (False, 60)


@pytest.mark.parametrize("spelling", [CODE_SECRET, CODE_SECRET.lower(), f"{CODE_SECRET[:4]} {CODE_SECRET[4:]}"])
def test_a_secret_of_codes_is_read_as_apps_show_it_and_never_shown(spelling: str, tmp_path: Path) -> None:
    (stanza,) = with_host_key(tmp_path, f"{CLIENT}ONE_TIME_CODE {spelling}\n").stanzas
    assert stanza.one_time_code == Secret(b"s" * 20)
    assert CODE_SECRET not in repr(stanza)


def test_commands_have_names_and_open_no_port_by_themselves(tmp_path: Path) -> None:
    alone = f"SOURCE ANY\nCLIENT {LAPTOP} x\nCOMMANDS restart-web = /bin/sh -c 'a=1 b'\nCOMMANDS off=/sbin/poweroff\n"
    one, other = with_host_key(tmp_path, f"{alone}CMD_EXEC_USER root\n{CLIENT}COMMANDS off=/sbin/poweroff\n").stanzas
    assert one.named is not None
    assert other.named is not None
    assert one.named.texts == (("restart-web", "/bin/sh -c 'a=1 b'"), ("off", "/sbin/poweroff"))
    assert (one.named.find("off"), one.named.find("on"), one.named.user) == ("/sbin/poweroff", None, "root")
    assert one.open_ports == frozenset()
    assert (other.named.user, other.open_ports) == (None, frozenset({Service.parse("tcp/22")}))


def test_without_clients_no_host_key_is_read(tmp_path: Path) -> None:
    nowhere = DaemonSettings(host_key_file=tmp_path / "none")
    assert access.load(write(tmp_path, GOOD), nowhere).host_key is None
    assert access.load(write(tmp_path, CLIENT)).host_key is None, "access.conf alone"
    with pytest.raises(ConfigError) as raised:
        access.load(write(tmp_path, CLIENT), nowhere)
    said = str(raised.value)
    assert f"{tmp_path}/none: cannot be read: No such file or directory" in said
    assert ":2: CLIENT: needs the host's key: `doorwardd keys generate` makes it" in said


def spelled(raw: bytes) -> str:
    return f"doorward1 {base64.b64encode(raw).decode()}"


OF_GPG = "GPG_DECRYPT_ID 12345678\nGPG_ALLOW_NO_PW Y\nGPG_DISABLE_SIG Y\n"
WRONG_COMMANDS = """\
COMMANDS restart /bin/true
COMMANDS Restart=/bin/true
COMMANDS a=true
COMMANDS b=/1
COMMANDS b=/2
"""
CLIENT_MISTAKES = {
    "a secret of codes too short": (
        f"{CLIENT}ONE_TIME_CODE {base64.b32encode(b's' * 15).decode()}\n",
        [":4: ONE_TIME_CODE: is no secret for one-time codes: 16 to 64 bytes in base32"],
    ),
    "a secret of codes in base64": (
        f"{CLIENT}ONE_TIME_CODE {PSK}\n",
        [":4: ONE_TIME_CODE: is no secret for one-time codes: 16 to 64 bytes in base32"],
    ),
    "commands without a name, a program, or twice": (
        f"{CLIENT}{WRONG_COMMANDS}",
        [
            ":4: COMMANDS: 'restart /bin/true' is not NAME=COMMAND, with a name of up to 16 of a-z, 0-9 and -",
            ":5: COMMANDS: 'Restart=/bin/true' is not NAME=COMMAND, with a name of up to 16 of a-z, 0-9 and -",
            ":6: COMMANDS: a: the command does not begin with the absolute path of a program",
            ":8: COMMANDS: b is that of {}:7",
        ],
    ),
    "commands of nobody": (
        f"{GOOD}COMMANDS a=/bin/true\n",
        [":4: COMMANDS without CLIENT: it goes with public keys"],
    ),
    "networks too wide": (
        f"{CLIENT}MAX_PREFIX4 7\nMAX_PREFIX6 128\n",
        [
            ":4: MAX_PREFIX4: '7' is not a number from 8 to 31",
            ":5: MAX_PREFIX6: '128' is not a number from 32 to 127",
        ],
    ),
    "limits of what a command cycle opens": (
        f"{GOOD}CMD_CYCLE_OPEN /bin/a\nCMD_CYCLE_CLOSE /bin/b\nCMD_CYCLE_TIMER 9\nSESSION_MAX 60\nKEEP_WHILE_USED Y\n",
        [
            ":7: SESSION_MAX beside a command cycle, whose connections are not known here",
            ":8: KEEP_WHILE_USED beside a command cycle, whose connections are not known here",
        ],
    ),
    "sessions of no time": (
        f"{GOOD}SESSION_MAX 0\nKEEP_WHILE_USED yes, please\n",
        [
            ":4: SESSION_MAX: '0' is not a number from 1 to 8388608",
            ":5: KEEP_WHILE_USED: 'yes, please' is neither Y nor N",
        ],
    ),
    "networks of nobody": (
        f"{GOOD}MAX_PREFIX6 64\n",
        [":4: MAX_PREFIX6 without CLIENT: it goes with public keys"],
    ),
    "a secret of codes of nobody": (
        f"{GOOD}ONE_TIME_CODE {CODE_SECRET}\n",
        [":4: ONE_TIME_CODE without CLIENT: it goes with public keys"],
    ),
    "a key twice": (f"{CLIENT}CLIENT {LAPTOP} bob\n", [":4: CLIENT: this key is that of {}:2"]),
    "the host's own key": (f"{CLIENT}CLIENT {HOST} web1\n", [":4: CLIENT: this is the host's own key"]),
    "no key": ("SOURCE ANY\nCLIENT laptop\n", [":2: CLIENT: is no public key: doorward1 BASE64"]),
    "a cut key": (
        f"SOURCE ANY\nCLIENT {str(LAPTOP)[:-2]} x\n",
        [":2: CLIENT: the public key is not base64, or was cut"],
    ),
    "a key of low order": (
        f"{CLIENT}CLIENT {spelled(bytes(32))} x\n",
        [":4: CLIENT: the public key is of low order: everybody would share its secret"],
    ),
    "another spelling of a known key": (
        f"{CLIENT}CLIENT {spelled(LAPTOP.raw[:31] + bytes([LAPTOP.raw[31] | 128]))} x\n",
        [":4: CLIENT: the public key is not canonical: another spelling of a key"],
    ),
    "a comment of two words": (
        f"SOURCE ANY\nCLIENT {LAPTOP} of alice\n",
        [":2: CLIENT: the comment behind a public key is one word, such as alice@laptop"],
    ),
    "other keys": (
        f"{CLIENT}KEY_BASE64 {KEY}\nHMAC_KEY_BASE64 {HMAC}\n{OF_GPG}",
        [
            *(f":{line}: {name} beside CLIENT: give this client a stanza of its own" for line, name in (
                (4, "KEY_BASE64"), (5, "HMAC_KEY_BASE64"), (6, "GPG_DECRYPT_ID"), (7, "GPG_ALLOW_NO_PW"),
                (8, "GPG_DISABLE_SIG"),
            )),
        ],
    ),
    "a user name": (
        f"{CLIENT}REQUIRE_USERNAME alice\n",
        [":4: REQUIRE_USERNAME beside CLIENT: packets of this format carry no user name"],
    ),
    "a client's own commands": (
        f"{CLIENT}ENABLE_CMD_EXEC Y\n",
        [":4: ENABLE_CMD_EXEC beside CLIENT: packets of this format carry names of commands alone (COMMANDS)"],
    ),
    "a pre-shared key of zeros": (
        f"{CLIENT}PSK_BASE64 {base64.b64encode(bytes(32)).decode()}\n",
        [":4: PSK_BASE64: is no pre-shared key: 32 random bytes in base64"],
    ),
    "a short pre-shared key": (
        f"{CLIENT}PSK_BASE64 {base64.b64encode(b'p' * 31).decode()}\n",
        [":4: PSK_BASE64: is no pre-shared key: 32 random bytes in base64"],
    ),
    "a pre-shared key of nobody": (
        f"{GOOD}PSK_BASE64 {PSK}\n",
        [":4: PSK_BASE64 without CLIENT: it goes with public keys"],
    ),
}  # fmt: skip  # a list of lines reads better in lines of many


@pytest.mark.parametrize("name", CLIENT_MISTAKES)
def test_a_mistake_about_clients_is_reported_with_its_line(name: str, tmp_path: Path) -> None:
    text, expected = CLIENT_MISTAKES[name]
    with pytest.raises(ConfigError) as raised:
        with_host_key(tmp_path, text)
    path = tmp_path / "access.conf"
    assert [str(each).removeprefix(str(path)) for each in raised.value.problems] == [
        each.format(path) for each in expected
    ]


def test_ten_thousand_clients_are_read(tmp_path: Path) -> None:
    keys = (PublicKey(number.to_bytes(2, "big") + b"\5" * 30) for number in range(10_000))
    lines = "".join(f"CLIENT {key} c{number}\n" for number, key in enumerate(keys))
    (stanza,) = with_host_key(tmp_path, f"SOURCE ANY\n{lines}OPEN_PORTS tcp/22\n").stanzas
    assert len(stanza.clients) == 10_000
    assert stanza.clients[-1].name == "c9999"


def test_sessions_end_and_grants_stay_where_a_stanza_says_so(tmp_path: Path) -> None:
    limited, usual = stanza_of(tmp_path, f"{GOOD}SESSION_MAX 60\nKEEP_WHILE_USED Y\n"), stanza_of(tmp_path, GOOD)
    assert (limited.session_max, limited.keep_while_used) == (60, True)
    assert (usual.session_max, usual.keep_while_used) == (None, False)
