"""The client's side of the format doorward 1: its keys, its settings, its packets."""

from __future__ import annotations

import base64
import os
import re
import socket
import subprocess
import sys
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from doorward.client import cli, getopt, identity, last_command
from doorward.client.describe_packet import dump
from doorward.client.fwknoprc import parse as parse_rc
from doorward.client.nat import NatRequest
from doorward.client.packet import PACKETS_MAX, PublicKeys, Request, build, parts
from doorward.client.profile import CodeRule, HostPort, Profile
from doorward.client.request import KeySearch, request
from doorward.client.surroundings import UnansweredError
from doorward.config import convert, private_key
from doorward.crypto.doorward import Pair, public_key
from doorward.errors import ClientError, ConfigError, WireError
from doorward.values import Secret
from doorward.wire.doorward import Forward, Kind, Message, epoch_of, parse

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.25
OWN, HOST = Secret(b"o" * 32), Secret(b"h" * 32)
HOST_KEY = public_key(HOST)
KEYS = PublicKeys(OWN, HOST_KEY)
HERE = ip_address("192.0.2.7")
BASE64_PSK = base64.b64encode(b"p" * 32).decode()


def asked(services: str = "tcp/22", target: str | None = None, **changes: Any) -> Request:
    nat = NatRequest(convert.services(services) if services else (), target)
    return Request(Profile(host_key=HOST_KEY, **changes), nat, KEYS, "alice")


def read(request: Request, keys: PublicKeys = KEYS) -> Message:
    """The message of a fresh packet, as the host reads it."""
    packet = build(request._replace(keys=keys), HERE, NOW, lambda count: b"r" * count)
    pair = Pair.of_host(HOST, HOST_KEY, public_key(keys.private), keys.psk)
    message = parse(pair.unseal(packet.payload, epoch_of(int(NOW * 1000))))
    assert len(packet.payload) == 164
    assert message == packet.message
    return message


def test_a_packet_says_what_was_asked_for() -> None:
    plain = read(asked("tcp/22, udp/60000-60010", timeout=60))
    assert list(map(str, plain.services)) == ["tcp/22", "udp/60000-60010"]
    assert (plain.kind, plain.time, plain.source, plain.seconds) == (Kind.ACCESS, int(NOW * 1000), HERE, 60)
    assert read(asked("")).services == ()
    assert read(asked(time_offset=2)).time == int(NOW * 1000) + 2000
    forward = read(asked(target="10.0.0.5,22", nat_access=HostPort("10.0.0.5", 22)))
    assert forward.nat == Forward(ip_address("10.0.0.5"), 22)
    assert read(asked(target="web1,2222", nat_local=True)).nat == Forward(None, 2222)
    command = read(asked(command="restart-web", timeout=9))
    assert (command.kind, command.command, command.services, command.seconds) == (Kind.COMMAND, "restart-web", (), 0)
    assert read(asked(), KEYS._replace(psk=Secret(b"p" * 32))).source == HERE


WITHOUT_CRYPTOGRAPHY = """
import os, sys
from pathlib import Path
from doorward.client import identity, proxy
from doorward.client.nat import NatRequest
from doorward.client.packet import PublicKeys, Request, build
from doorward.client.profile import Profile
from doorward.crypto.doorward import Pair
from doorward.values import Service
pair = identity.load(Path(sys.argv[1]))
keys = PublicKeys(pair.private, pair.public)
request = Request(Profile(), NatRequest((Service.parse("tcp/22"),), None), keys, "me")
print(len(build(request, None, 1e9, os.urandom).payload), "cryptography" in sys.modules)
Pair.of_host(pair.private, pair.public, pair.public)
print("cryptography" in sys.modules)
"""


def test_a_packet_is_made_without_loading_cryptography(tmp_path: Path) -> None:
    """That takes 20 to 70 ms, before every ssh; a host loads it."""
    file = tmp_path / "key"
    identity.generate(file, "me", os.urandom, force=False, environ={})
    command = [sys.executable, "-c", WITHOUT_CRYPTOGRAPHY, str(file)]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert made == "164 False\nTrue\n"


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (asked(timeout=65536), "the window is outside 0 to 65535 s"),
        (asked(command="id; reboot"), "the command is no name of up to 16"),
        (asked(target="inner.example,22", nat_access=HostPort("inner.example", 22)), "is no address"),
        (asked("tcp/22,tcp/80", target="10.0.0.5,22", nat_access=HostPort("10.0.0.5", 22)), "NAT leads one service"),
    ],
)
def test_what_the_format_cannot_carry_is_refused(request_: Request, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        build(request_, HERE, NOW, os.urandom)


def test_a_one_time_code_goes_into_the_packet_and_is_not_shown() -> None:
    assert read(asked(one_time_code=12)).code == 12
    assert read(asked()).code is None
    assert read(asked(one_time_code=CodeRule.NONE)).code is None
    shown = dump(build(asked(one_time_code=492039), HERE, NOW, os.urandom))
    assert "One-time Code: given" in shown
    assert "492039" not in shown


def test_one_packet_may_name_both_families() -> None:
    other = ip_address("2001:db8::7")
    packet = build(asked(prefixes=(24, 64)), HERE, NOW, os.urandom, other)
    assert packet.text == "192.0.2.0/24+2001:db8::/64,tcp/22"
    assert build(asked(), other, NOW, os.urandom, HERE).text == "2001:db8::7+192.0.2.7,tcp/22"


def test_a_prefix_asks_for_the_network_around_the_source() -> None:
    wide = read(asked(prefixes=(24, 64)))
    assert (str(wide.source), wide.prefix) == ("192.0.2.0", 24)
    packet = build(asked(prefixes=(24, 64)), ip_address("2001:db8::7"), NOW, os.urandom)
    assert packet.text == "2001:db8::/64,tcp/22"
    assert read(asked(prefixes=(64,))).prefix is None, "of the other family"
    assert read(asked(command="restart-web", prefixes=(24,))).prefix is None
    assert build(asked(prefixes=(24,)), None, NOW, os.urandom).text == "0.0.0.0,tcp/22"
    found = parse_rc(f"HOST_KEY {HOST_KEY}\nPREFIX 24,64\n".encode(), "rc").profile("default")
    assert found.prefixes == (24, 64)
    with pytest.raises(ClientError, match="goes with the host's public key"):
        request(Profile(key=Secret(b"k"), prefixes=(24,)), NatRequest(()), searching(""), {})


def test_a_code_is_good_for_one_packet() -> None:
    with pytest.raises(ClientError, match="need 3 packets, and a one-time code is good for one"):
        parts(asked(",".join(f"tcp/{port}" for port in range(1, 40, 2)), one_time_code=1), HERE)


def searching(typed: str | Exception) -> KeySearch:
    def ask(prompt: str) -> str:
        assert prompt == "Enter one-time code: "
        if isinstance(typed, Exception):
            raise typed
        return typed

    return KeySearch("web1", None, ask_code=ask)


def test_a_code_is_asked_for_where_the_file_says_so(home: Path) -> None:
    assert cli.main(["keys", "generate", "--public"]) == 0
    profile = parse_rc(f"HOST_KEY {HOST_KEY}\nONE_TIME_CODE ask\n".encode(), "rc").profile("default")
    environ = {"HOME": str(home)}
    made = request(profile, NatRequest(()), searching("492 039"), environ)
    assert made.profile.one_time_code == 492039
    given = Profile(one_time_code=7).over(profile)
    assert request(given, NatRequest(()), KeySearch("web1", None), environ).profile.one_time_code == 7
    nobody = UnansweredError("there is no terminal to ask at")
    for search, problem in (
        (searching(nobody), "no one-time code, and there is no terminal to ask at (knock and connect take --otp CODE)"),
        (KeySearch("web1", None), "no one-time code, and this command asks no questions"),
        (searching("12345"), "what was typed is no one-time code: six digits"),
        (searching("ask"), "no one-time code was typed"),
    ):
        with pytest.raises(ClientError, match=re.escape(problem)):
            request(profile, NatRequest(()), search, environ)
    with pytest.raises(ClientError, match="a one-time code goes with the host's public key"):
        request(Profile(key=Secret(b"k"), one_time_code=7), NatRequest(()), searching(""), environ)


def test_a_secret_for_codes_is_shown_once_as_line_uri_and_qr_code(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["keys", "otp", "--comment", "alice@web1"]) == 0
    line, uri, *rows = capsys.readouterr().out.splitlines()
    name, _, secret = line.partition(" ")
    assert (name, len(base64.b32decode(secret))) == ("ONE_TIME_CODE", 20)
    assert uri == f"otpauth://totp/doorward:alice%40web1?secret={secret}&issuer=doorward"
    assert len(rows) > 15
    assert list(home.iterdir()) == [], "it is written nowhere"
    monkeypatch.setitem(sys.modules, "segno", None)
    assert cli.main(["keys", "otp"]) == 0
    said = capsys.readouterr()
    assert "doorward:alice-smith%40" in said.out
    assert (len(said.out.splitlines()), "needs the Python package segno" in said.err) == (2, True)


def test_a_code_is_not_kept_with_the_last_command_line() -> None:
    said = getopt.read(["-n", "web1", "--otp", "492039"])
    assert last_command.text(said) == "--named-config web1 --otp ask"


def test_many_services_become_packets_of_eight_ranges() -> None:
    every_other = ",".join(f"tcp/{port}" for port in range(1, 40, 2))
    chunks = parts(asked(every_other), HERE)
    assert [len(read(chunk).services) for chunk in chunks] == [8, 8, 4]
    assert sorted(port.first for chunk in chunks for port in read(chunk).services) == list(range(1, 40, 2))
    assert parts(asked("udp/60000-60255"), HERE)[0].nat.services == asked("udp/60000-60255").nat.services
    assert len(parts(asked(""), HERE)) == 1
    too_many = ",".join(f"tcp/{port}" for port in range(1, 16 * PACKETS_MAX + 2, 2))
    with pytest.raises(ClientError, match=f"need {PACKETS_MAX + 1} packets"):
        parts(asked(too_many), HERE)


def test_a_shown_packet_has_no_key() -> None:
    packet = build(asked(), HERE, NOW, os.urandom)
    shown = dump(packet)
    assert "192.0.2.7,tcp/22" in shown
    assert packet.payload.hex() in shown
    assert OWN.reveal().hex() not in shown
    assert "0.0.0.0,all that is open" in dump(build(asked(""), None, NOW, os.urandom))


def test_the_file_names_the_host_by_its_public_key() -> None:
    text = f"[default]\nKEY_BASE64 {BASE64_PSK}\nHMAC_KEY x\n[web1]\nHOST_KEY {HOST_KEY} web1\n"
    text += f"PSK_BASE64 {BASE64_PSK}\n[old]\n"
    found = parse_rc(text.encode(), "rc")
    web1, old = found.profile("web1"), found.profile("old")
    assert (web1.host_key, web1.psk, web1.key, web1.can_seal) == (HOST_KEY, Secret(b"p" * 32), None, True)
    assert (old.host_key, old.key) == (None, Secret(b"p" * 32))
    by_default = parse_rc(f"HOST_KEY: {HOST_KEY}\n[old]\nKEY k\n".encode(), "rc")
    assert by_default.profile("default").host_key == HOST_KEY
    assert by_default.profile("old").host_key is None, "the section's own key wins"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"HOST_KEY {HOST_KEY}x\n", "rc:1: HOST_KEY: the public key is not base64, or was cut"),
        (f"HOST_KEY {str(HOST_KEY).split()[1]}\n", "rc:1: HOST_KEY: is no public key: doorward1 BASE64"),
        (f"HOST_KEY doorward1 {'A' * 43}=\n", "rc:1: HOST_KEY: the public key is of low order"),
        (f"KEY k\nHOST_KEY {HOST_KEY}\n", "rc:2: HOST_KEY: the section has this key already"),
        (f"HOST_KEY {HOST_KEY}\nONE_TIME_CODE 492039\n", "rc:2: ONE_TIME_CODE: a code does not stay good in a file"),
        ("PREFIX 24,25\n", "rc:1: PREFIX: '24,25' has two lengths for one family"),
        ("PREFIX 7\n", "rc:1: PREFIX: '7' is no length of a network: 8 to 31 for IPv4, 32 to 127 for IPv6"),
        ("ONE_TIME_CODE often\n", "rc:1: ONE_TIME_CODE: is no one-time code: six digits, or `ask`"),
        ("PSK_BASE64 AAAA\n", "rc:1: PSK_BASE64: is no pre-shared key"),
    ],
)
def test_a_mistake_in_the_file_is_reported_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_rc(text.encode(), "rc").profile("default")
    assert str(refused.value).startswith(problem)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "alice smith")
    return tmp_path


def test_a_pair_is_made_shown_and_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "generate", "--public"]) == 0
    line = capsys.readouterr().out.strip()
    file = home / ".config/doorward/client.key"
    assert line.startswith("doorward1 ")
    assert line.split()[2].startswith("alice-smith@")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert cli.main(["keys", "show"]) == 0
    assert capsys.readouterr().out.strip() == line
    assert cli.main(["keys", "fingerprint"]) == 0
    told = capsys.readouterr().out
    assert cli.main(["keys", "fingerprint", line]) == 0
    assert capsys.readouterr().out == told
    assert cli.main(["keys", "generate", "--public"]) == 1
    assert "exists" in capsys.readouterr().err
    assert cli.main(["keys", "generate", "--public", "--force", "--comment", "phone"]) == 0
    assert capsys.readouterr().out.endswith(" phone\n")


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["keys", "generate", "--comment", "x"], 2, "--comment goes with --public"),
        (["keys", "generate", "--public", "--length", "16"], 2, "leave --length"),
        (["keys", "generate", "--public", "--comment", "a b"], 2, "is no name"),
        (["keys", "generate", "--public", "--output", "/dev/null/x"], 1, "/dev/null: cannot be made"),
        (["keys", "show"], 3, "client.key: is not there: `doorward keys generate --public` makes it"),
        (["keys", "fingerprint", "doorward1", "x"], 1, "the public key is not base64, or was cut"),
        (["keys", "make"], 2, "a command is required: generate, show, fingerprint, pin, otp"),
        (["keys", "otp", "--comment", "a b"], 2, "is no name"),
        (["--host-key", str(HOST_KEY), "-D", "127.0.0.1", "--otp", "12345"], 2, "--otp: is no one-time code"),
        (["--host-key", str(HOST_KEY), "-D", "127.0.0.1", "-P", "tcp"], 1, "goes over UDP, not over tcp"),
        (["--host-key", str(HOST_KEY), "-D", "127.0.0.1", "-g"], 1, "HOST_KEY and USE_GPG exclude one another"),
        (["--host-key", str(HOST_KEY), "-D", "127.0.0.1"], 3, "client.key: is not there"),
    ],
)
def test_a_mistake_is_told(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, complaint: str
) -> None:
    assert not (home / ".config").exists()
    assert cli.main(words) == code
    assert complaint in capsys.readouterr().err


def test_a_pair_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "client.key"
    made = private_key.KeyPair(OWN, public_key(OWN), "alice")
    file.write_text(private_key.text(made))
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="holds a private key and has mode 0640: chmod 600 it"):
        identity.load(file)
    file.chmod(0o600)
    assert identity.load(file) == made
    file.write_text(private_key.text(made._replace(public=HOST_KEY)))
    with pytest.raises(ConfigError, match="its two keys are no pair"):
        identity.load(file)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        identity.load(tmp_path)


def test_a_knock_uses_the_pinned_key_of_its_host_where_no_file_has_another(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keys", "generate", "--public"]) == 0
    own = identity.load(home / ".config/doorward/client.key")
    (home / ".config/doorward/known_hosts").write_text(f"127.0.0.1 {HOST_KEY} web1\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))
        door.settimeout(10)
        words = ["-D", "127.0.0.1", "-p", str(door.getsockname()[1]), "-a", "192.0.2.7", "-A", "tcp/22"]
        assert cli.main(words) == 0
        tagged = door.recv(2048)
        pair = Pair.of_host(HOST, HOST_KEY, own.public)
        assert tagged[:8] in {pair.tag(epoch_of(int(time.time() * 1000)) + shift) for shift in (-1, 0)}
        (home / ".fwknoprc").write_text(f"KEY_BASE64 {BASE64_PSK}\nHMAC_KEY x\n")
        (home / ".fwknoprc").chmod(0o600)
        assert cli.main(words) == 0
        assert len(door.recv(2048)) != len(tagged), "of fwknop's format"
    capsys.readouterr()
    assert cli.main(["--no-rc-file", *words, "--fd", "1000"]) == 1
    assert "descriptor 1000 cannot be read" in capsys.readouterr().err, "it asks for a key"


def test_a_knock_goes_out_saved_as_a_line_and_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "generate", "--public"]) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))
        door.settimeout(10)
        to = ["-D", "127.0.0.1", "-p", str(door.getsockname()[1]), "-a", "192.0.2.7"]
        saved = home / "packet"
        more = ["-A", "tcp/22", "-B", str(saved), "-v", "--save-rc-stanza", "-n", "web"]
        assert cli.main(["--host-key", str(HOST_KEY), *to, *more]) == 0
        packet = door.recv(2048)
    assert base64.b64decode(saved.read_bytes()) == packet
    said = capsys.readouterr()
    assert "no HMAC key" not in said.err
    assert packet.hex() in said.out
    assert f"HOST_KEY                    {HOST_KEY}\n" in (home / ".fwknoprc").read_text()
    pair = Pair.of_host(HOST, HOST_KEY, identity.load(home / ".config/doorward/client.key").public)
    now = epoch_of(int(time.time() * 1000))
    epoch = next(one for one in (now - 1, now) if pair.tag(one) == packet[:8])
    assert str(parse(pair.unseal(packet, epoch)).source) == "192.0.2.7"


def test_the_status_of_a_person_names_the_pair(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rc = home / ".fwknoprc"
    text = f"[web1]\nSPA_SERVER 192.0.2.1\nHOST_KEY {HOST_KEY} web1\n"
    rc.write_text(f"{text}[web2]\nHOST_KEY {HOST_KEY}\nCLIENT_KEY_FILE /k\n")
    rc.chmod(0o600)
    cli.main(["status", "--me"])
    said = capsys.readouterr().out
    assert f"[web1] knocks at 192.0.2.1: key pair in {home}/.config/doorward/client.key\n" in said
    assert "key pair in /k\n" in said
