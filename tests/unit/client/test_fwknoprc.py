from __future__ import annotations

import ipaddress
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from doorward.client import fwknoprc
from doorward.client.profile import (
    OWN_ADDRESS_QUESTIONS,
    Carrier,
    HostPort,
    OpenPgpMode,
    Profile,
    Question,
    SourceRule,
)
from doorward.errors import ConfigError
from doorward.values import DigestType, EncryptionMode, Protocol, Secret, Service

KEY = "QUFBQUFBQUFBQUFBQUFBQQ=="  # 16 times A
HMAC_KEY = "QkJCQkJCQkJCQkJCQkJCQg=="


def profile(text: str, name: str = fwknoprc.DEFAULT) -> Profile:
    return fwknoprc.parse(text.encode(), "rc").profile(name)


def complaints(text: str, name: str = fwknoprc.DEFAULT) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        profile(text, name)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("SPA_SERVER web1.example.org", "server", "web1.example.org"),
        ("SPA_SERVER 2001:db8::1", "server", "2001:db8::1"),
        ("SPA_SERVER_PORT 1", "port", 1),
        ("SPA_SERVER_PORT: 65535;", "port", 65535),
        ("SPA_SOURCE_PORT 53", "source_port", 53),
        ("ACCESS tcp/22", "access", (Service(Protocol.TCP, 22),)),
        ("ACCESS tcp/22,udp/53", "access", (Service(Protocol.TCP, 22), Service(Protocol.UDP, 53))),
        ("ALLOW_IP source", "source", SourceRule.PACKET),
        ("ALLOW_IP 0.0.0.0", "source", SourceRule.PACKET),
        ("ALLOW_IP Auto", "source", SourceRule.AUTO),
        ("ALLOW_IP 192.0.2.1", "source", ipaddress.ip_address("192.0.2.1")),
        ("ALLOW_IP 2001:db8::1", "source", ipaddress.ip_address("2001:db8::1")),
        ("FW_TIMEOUT 0", "timeout", 0),
        ("FW_TIMEOUT 65536", "timeout", 65536),
        ("SPOOF_USER alice", "user", "alice"),
        ("TIME_OFFSET 30", "time_offset", 30),
        ("TIME_OFFSET -5m", "time_offset", -300),
        ("TIME_OFFSET 2H", "time_offset", 7200),
        ("TIME_OFFSET +1H", "time_offset", 3600),
        ("TIME_OFFSET 1d", "time_offset", 86400),
        ("DIGEST_TYPE SHA512", "digest", DigestType.SHA512),
        ("ENCRYPTION_MODE ctr", "mode", EncryptionMode.CTR),
        ("KEY secret # and a note", "key", Secret(b"secret")),
        (f"KEY_BASE64 {KEY}", "key", Secret(b"A" * 16)),
        (f"KEY_BASE64: {KEY.rstrip('=')}", "key", Secret(b"A" * 16)),
        ("KEY_FILE /etc/keys", "key_file", Path("/etc/keys")),
        ("HMAC_KEY other", "hmac_key", Secret(b"other")),
        (f"HMAC_KEY_BASE64 {HMAC_KEY}", "hmac_key", Secret(b"B" * 16)),
        ("HMAC_KEY_FILE /etc/hmac", "hmac_key_file", Path("/etc/hmac")),
        ("HMAC_DIGEST_TYPE sha3_512", "hmac_digest", DigestType.SHA3_512),
        ("USE_HMAC Y", "use_hmac", True),
        ("SERVER_RESOLVE_IPV4 n", "ipv4_only", False),
        ("ENCRYPTION_MODE Asymmetric", "mode", OpenPgpMode.ASYMMETRIC),
        ("ALLOW_IP resolve", "source", SourceRule.RESOLVE),
        ("RESOLVE_IP_HTTPS Y", "source", SourceRule.RESOLVE),
        ("RESOLVE_IP_HTTP y", "source", SourceRule.RESOLVE),
        ("RESOLVE_HTTP_ONLY Y", "resolve_http_only", True),
        ("RESOLVE_URL https://x/ip", "resolve_urls", ("https://x/ip",)),
        ("RESOLVE_URL x,http://[::1]:80", "resolve_urls", ("https://x/", "http://[::1]:80/")),
        ("RESOLVE_DNS me.example@ns1", "resolve_dns", (Question("me.example", HostPort("ns1")),)),
        ("RESOLVE_DNS me.@[::1]:53", "resolve_dns", (Question("me", HostPort("::1", 53)),)),
        ("RESOLVE_DNS default", "resolve_dns", OWN_ADDRESS_QUESTIONS),
        ("WGET_CMD /usr/bin/wget", "wget", "/usr/bin/wget"),
        ("HTTP_USER_AGENT x", "user_agent", "x"),
        ("USE_WGET_USER_AGENT Y", "wget_user_agent", True),
        ("SPA_SERVER_PROTO TCP", "carrier", Carrier.TCP),
        ("SPA_SERVER_PROTO http", "carrier", Carrier.HTTP),
        ("HTTP_PROXY http://px:3128/", "http_proxy", HostPort("px", 3128)),
        ("HTTP_PROXY http://px:80/path", "http_proxy", HostPort("px", 80)),
        ("HTTP_PROXY http://px/path/2", "http_proxy", HostPort("px")),
        ("HTTP_PROXY px", "http_proxy", HostPort("px")),
        ("ICMP_TYPE 8", "icmp_type", 8),
        ("ICMP_CODE 15", "icmp_code", 15),
        ("SPOOF_SOURCE_IP 192.0.2.1", "spoofed", ipaddress.ip_address("192.0.2.1")),
        ("RAND_PORT Y", "rand_port", True),
        ("NAT_ACCESS 10.0.0.1,22", "nat_access", HostPort("10.0.0.1", 22)),
        ("NAT_ACCESS inner:22", "nat_access", HostPort("inner", 22)),
        ("NAT_ACCESS inner", "nat_access", HostPort("inner")),
        ("NAT_ACCESS [2001:db8:0::5]:22", "nat_access", HostPort("2001:db8::5", 22)),
        ("NAT_ACCESS 2001:db8::5,22", "nat_access", HostPort("2001:db8::5", 22)),
        ("NAT_ACCESS 2001:db8::5", "nat_access", HostPort("2001:db8::5")),
        ("NAT_LOCAL Y", "nat_local", True),
        ("NAT_PORT 55000", "nat_port", 55000),
        ("NAT_RAND_PORT N", "nat_rand_port", False),
        ("USE_GPG Y", "use_gpg", True),
        ("USE_GPG_AGENT Y", "gpg_agent", True),
        ("GPG_RECIPIENT ABCD1234", "gpg_recipient", "ABCD1234"),
        ("GPG_SIGNER me@example.org", "gpg_signer", "me@example.org"),
        ("GPG_HOMEDIR /root/.gnupg", "gpg_home", Path("/root/.gnupg")),
        ("GPG_EXE /usr/bin/gpg2", "gpg_exe", Path("/usr/bin/gpg2")),
        ("GPG_NO_SIGNING_PW Y", "gpg_no_password", True),
        ("GPG_SIGNING_PW secret", "gpg_password", Secret(b"secret")),
        (f"GPG_SIGNING_PW_BASE64 {KEY}", "gpg_password", Secret(b"A" * 16)),
        ("NO_SAVE_ARGS Y", "no_save_args", True),
        ("VERBOSE Y", "verbose", 1),
        ("VERBOSE 3", "verbose", 3),
        ("\t SPA_SERVER_PORT\t62201\r", "port", 62201),
    ],
)
def test_a_line_fills_its_field_and_no_other(line: str, field: str, value: Any) -> None:
    assert profile(f"[default]\n{line}\n") == Profile(**{field: value})


def test_every_name_that_fwknop_knows_is_known() -> None:
    text = """
        DIGEST_TYPE SPA_SERVER_PROTO SPA_SERVER_PORT SPA_SOURCE_PORT FW_TIMEOUT ALLOW_IP TIME_OFFSET ENCRYPTION_MODE
        USE_GPG USE_GPG_AGENT GPG_RECIPIENT GPG_SIGNER GPG_HOMEDIR GPG_EXE GPG_SIGNING_PW GPG_SIGNING_PW_BASE64
        GPG_NO_SIGNING_PW SPOOF_USER SPOOF_SOURCE_IP ACCESS SPA_SERVER RAND_PORT KEY KEY_BASE64 HMAC_DIGEST_TYPE
        HMAC_KEY_BASE64 HMAC_KEY USE_HMAC USE_WGET_USER_AGENT KEY_FILE HMAC_KEY_FILE NAT_ACCESS HTTP_USER_AGENT
        RESOLVE_URL SERVER_RESOLVE_IPV4 NAT_LOCAL NAT_RAND_PORT NAT_PORT VERBOSE RESOLVE_IP_HTTP RESOLVE_IP_HTTPS
        RESOLVE_HTTP_ONLY WGET_CMD NO_SAVE_ARGS
    """  # fko_var_array, client/config_init.c
    names = text.split()
    assert len(names) == 44
    assert set(names) <= set(fwknoprc.SETTINGS)
    ours = {"HMAC_KEY_COMMAND", "HTTP_PROXY", "ICMP_CODE", "ICMP_TYPE", "KEY_COMMAND", "RESOLVE_DNS"}
    ours |= {"CLIENT_KEY_FILE", "HOST_KEY", "ONE_TIME_CODE", "PREFIX", "PSK_BASE64", "SEQUENCE"}
    assert set(fwknoprc.SETTINGS) - set(names) == ours


@pytest.mark.parametrize("line", ["RESOLVE_IP_HTTP N", "RESOLVE_IP_HTTPS N"])
def test_a_line_that_asks_for_nothing_special_is_accepted(line: str) -> None:
    assert profile(f"[default]\n{line}\n") == Profile()


@pytest.mark.parametrize(
    "lines",
    ["ALLOW_IP 192.0.2.1\nRESOLVE_IP_HTTPS Y", "RESOLVE_IP_HTTPS Y\nALLOW_IP 192.0.2.1", "ALLOW_IP 192.0.2.1"],
)
def test_an_address_wins_over_asking_a_web_site_for_it(lines: str) -> None:
    assert profile(f"[default]\n{lines}\n").source == ipaddress.ip_address("192.0.2.1")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("USE_GPG maybe", "USE_GPG: 'maybe' is neither Y nor N"),
        ("GPG_SIGNING_PW_BASE64 x*", "GPG_SIGNING_PW_BASE64: is not base64"),
        ("NAT_ACCESS 10.0.0.1,0", "NAT_ACCESS: '0' is not a number from 1 to 65535"),
        ("NAT_ACCESS 10.0.0.1,", "NAT_ACCESS: '' is not a number from 1 to 65535"),
        ("NAT_ACCESS a'b,22", None),
        ("NAT_ACCESS [::1,22", None),
        ("NAT_ACCESS 1:2:3,22", None),
        ("RESOLVE_URL file:///etc/passwd", "RESOLVE_URL: 'file:///etc/passwd' is not https://HOST[:PORT]/PATH"),
        ("RESOLVE_URL https://user:secret@x/", None),
        ("RESOLVE_URL https://x:99999/", None),
        ("RESOLVE_URL https://x:0/", None),
        ("RESOLVE_URL https://[::::]/", None),
        (f"RESOLVE_URL {','.join(['https://x/'] * 9)}", "RESOLVE_URL: at most 8 addresses are asked"),
        ("RESOLVE_DNS myip.opendns.com", "RESOLVE_DNS: 'myip.opendns.com' is not NAME@SERVER"),
        ("RESOLVE_DNS a..b@x", "RESOLVE_DNS: 'a..b@x' is not NAME@SERVER"),
        ("SPOOF_SOURCE_IP here", "SPOOF_SOURCE_IP: 'here' is not an address"),
        ("SPA_SERVER_PROTO sctp", "SPA_SERVER_PROTO: 'sctp' is none of udp, tcp, http, udpraw, tcpraw, icmp"),
        ("HTTP_USER_AGENT é", "HTTP_USER_AGENT: a user agent is 1 to 99 printable characters"),
        ("ICMP_TYPE 41", "ICMP_TYPE: '41' is not a number from 0 to 40"),
        ("HTTP_PROXY https://x", None),
        ("ALLOW_IP 010.0.0.1", "ALLOW_IP: '010.0.0.1' is neither auto, named, source, resolve nor an address"),
        ("CLIENT_TIMEOUT 30", "unknown name 'CLIENT_TIMEOUT'"),
        ("spa_server x", "unknown name 'spa_server'"),
        ("SPA_SERVER_PORT 0", "SPA_SERVER_PORT: '0' is not a number from 1 to 65535"),
        ("SPA_SERVER_PORT 99999", "SPA_SERVER_PORT: '99999' is not a number from 1 to 65535"),
        ("SPA_SERVER -oProxyCommand=x", "SPA_SERVER: '-oProxyCommand=x' is no host name or address"),
        ("SPA_SERVER $(id)", "SPA_SERVER: '$(id)' is no host name or address"),
        ("ACCESS tcp/0", "ACCESS: port 0 is outside 1 to 65535"),
        ("ACCESS icmp/1", "ACCESS: 'icmp/1' is not tcp/PORT or udp/PORT"),
        ("FW_TIMEOUT 65537", "FW_TIMEOUT: '65537' is not a number from 0 to 65536"),
        ("TIME_OFFSET 5y", "TIME_OFFSET: '5y' is no offset such as 30, -5m, 2h or 1d"),
        ("USE_HMAC 1", "USE_HMAC: '1' is neither Y nor N"),
        (f"SPOOF_USER {'u' * 49}", "SPOOF_USER: a user name has 1 to 48 bytes"),
        (f"KEY {'s' * 33}", "KEY: the key has 33 bytes, more than 32"),
        ("KEY_BASE64 c2Vj*mV0", "KEY_BASE64: is not base64"),
        ("SPA_SERVER", "SPA_SERVER has no value"),
        ("SPA_SERVER ; x", "the line is not NAME value"),
        ("ENCRYPTION_MODE pcbc", None),
        ("DIGEST_TYPE crc32", None),
        ("KEY_FILE ~no-such-user/x", None),
    ],
)
def test_a_wrong_line_is_a_problem_with_its_number(line: str, complaint: str | None) -> None:
    (found,) = complaints(f"\n[default]\n# a comment\n{line}\n")
    assert found.startswith("rc:4: ")
    assert complaint is None or found == f"rc:4: {complaint}"


def test_all_problems_come_in_one_run() -> None:
    text = "[default]\nUSE_GPG 1\nACCESS tcp/0\n[web1]\nBAD\nNAME x\n"
    assert [line.split(" ")[0] for line in complaints(text, "web1")] == ["rc:2:", "rc:3:", "rc:5:", "rc:6:"]


@pytest.mark.parametrize(
    "key", ["c2VjcmV0IQ==", "c2VjcmV0IQ", "hunter2hunter2", "KEY_BASE64=c2VjcmV0IQ==", "KEY:hunter2"]
)
def test_a_key_that_lost_its_name_is_not_repeated(key: str) -> None:
    (found,) = complaints(f"[default]\n{key}\n")
    assert found == "rc:2: the line is not NAME value"


@pytest.mark.parametrize("line", ["KEY_BASE64 hunter2*", f"HMAC_KEY {'hunter2' * 20}", f"KEY {'hunter2' * 9}"])
def test_a_wrong_key_is_not_repeated(line: str) -> None:
    assert "hunter2" not in "".join(complaints(f"[default]\n{line}\n"))


def test_mistakes_in_sections_that_are_not_used_do_not_matter() -> None:
    text = "[default]\nSPA_SERVER_PORT 1000\n[gpg]\nUSE_GPG 1\nnonsense\n[web1]\nACCESS tcp/22\n"
    assert profile(text, "web1").port == 1000
    assert len(complaints(text, "gpg")) == 2


def test_a_named_section_lies_over_the_default() -> None:
    text = "[default]\nSPA_SERVER_PORT 1000\nSPOOF_USER alice\n[web1]\nSPOOF_USER bob\n"
    assert profile(text, "web1") == Profile(port=1000, user="bob")
    assert profile(text) == Profile(port=1000, user="alice")


@pytest.mark.parametrize("name", ["web1", "WEB1", "Web1"])
def test_section_names_know_no_case(name: str) -> None:
    assert profile("[WeB1]\nSPA_SERVER x\n", name).server == "x"


def test_a_missing_section_is_told_with_those_that_exist() -> None:
    assert complaints("[default]\n[web1]\n[web2]\n", "web3") == [
        "rc: no section [web3]; there are: default, web1, web2"
    ]


def test_lines_above_the_first_section_belong_to_the_default() -> None:
    assert profile(f"KEY_BASE64: {KEY}\nHMAC_KEY_BASE64: {HMAC_KEY}\n").key == Secret(b"A" * 16)
    assert profile(f"KEY_BASE64: {KEY}\n[web1]\nSPA_SERVER x\n", "web1").key == Secret(b"A" * 16)


def test_a_named_sections_key_replaces_the_defaults_whatever_its_spelling() -> None:
    text = f"[default]\nKEY one\nHMAC_KEY_FILE /x\n[web1]\nKEY_BASE64 {KEY}\n[web2]\nKEY_FILE /y\nHMAC_KEY two\n"
    assert profile(text, "web1").key == Secret(b"A" * 16)
    assert profile(text, "web2") == Profile(key_file=Path("/y"), hmac_key=Secret(b"two"))


def test_two_keys_in_one_section_are_a_problem() -> None:
    (found,) = complaints(f"[default]\nKEY one\nKEY_BASE64 {KEY}\n")
    assert found == "rc:3: KEY_BASE64: the section has this key already; keep one line"


def test_an_encryption_key_equal_to_the_hmac_key_is_a_problem() -> None:
    (found,) = complaints(f"[default]\nKEY_BASE64 {KEY}\n[web1]\nHMAC_KEY {'A' * 16}\n", "web1")
    assert found == "rc: [web1]: the encryption key and the HMAC key are the same"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[default]\nKEY \xff\xfe\n", "rc:2: the line is not UTF-8 text"),
        (b"[default]\nKEY a\x00b\n", "rc:2: the line has a control character"),
        (b"[default]\nKEY a\x1b[31m\n", "rc:2: the line has a control character"),
        (b"\n" + b"x" * 1024, "rc:2: the line has 1024 bytes, more than 1023"),
        (b"x" * ((1 << 20) + 1), "rc: the file exceeds 1048576 bytes"),
    ],
)
def test_what_is_no_text_of_a_bearable_size_is_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fwknoprc.parse(content, "rc")
    assert str(caught.value) == complaint


def test_random_bytes_never_raise_anything_else() -> None:
    for _ in range(200):
        content = os.urandom(300)
        try:
            fwknoprc.parse(content, "rc").profile()
        except ConfigError:
            continue


@pytest.mark.parametrize("name", ["default", "web1", "web2"])
def test_a_heading_without_an_end_is_a_problem_whichever_section_is_used(name: str) -> None:
    text = "[default]\nKEY one\n[web1]\nSPA_SERVER x\n  [web2\nKEY hunter2\n[]\n[ \n"
    assert complaints(text, name) == [
        "rc:5: the section's heading has no ']'",
        "rc:8: the section's heading has no ']'",
    ]


def test_two_sections_of_one_name_are_both_read_and_warned_of() -> None:
    text = b"[web1]\nSPA_SERVER x\nFW_TIMEOUT 1\n[web2]\n[WEB1] ; again\nFW_TIMEOUT 2\n[default]\n[default]#\n"
    found = fwknoprc.parse(text, "rc")
    assert found.profile("web1") == Profile(server="x", timeout=2)
    assert found.warnings == (
        "rc:5: [WEB1] begins on line 1 already: both are read, the later line wins",
        "rc:8: [default] begins on line 7 already: both are read, the later line wins",
    )
    assert fwknoprc.parse(b"KEY x\n[default]\n[web1]\n", "rc").warnings == ()


def test_a_file_of_nothing_but_oddities_is_not_warned_of_without_an_end() -> None:
    assert len(fwknoprc.parse(b"[a] x\n" * 100_000, "rc").warnings) == 100
    assert len(complaints("[a\n" * 100_000)) == 101


def test_what_stands_behind_a_heading_is_warned_of_and_not_repeated() -> None:
    found = fwknoprc.parse(b"[web1] KEY hunter2\n[web2] ; x\n[web3]# y\n[web4]  \n", "rc")
    assert found.warnings == ("rc:1: text behind the section's heading is not read: put it on a line of its own",)
    assert found.profile("web1") == Profile()


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o601])
def test_a_file_with_keys_that_others_can_reach_is_warned_of(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "rc"
    path.write_text("[default]\nKEY secret\n")
    path.chmod(mode)
    assert fwknoprc.load(path).warnings == (f"{path}: holds keys and has mode {mode:04o}: chmod 600 it",)
    path.chmod(0o600)
    assert fwknoprc.load(path).warnings == ()


def test_a_file_without_keys_may_be_read_by_all(tmp_path: Path) -> None:
    path = tmp_path / "rc"
    path.write_text("[default]\nSPA_SERVER x\n")
    path.chmod(0o644)
    assert fwknoprc.load(path).warnings == ()
    path.chmod(0o664)
    assert fwknoprc.load(path).warnings == (
        f"{path}: other users can write it (mode 0664) and so choose who is let in: chmod 600 it",
    )


def test_a_pipe_may_stand_in_for_the_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("[default]\nKEY secret\n",))
    writer.start()
    assert fwknoprc.load(pipe).profile().key == Secret(b"secret")
    writer.join()


@pytest.mark.parametrize("name", ["missing", ".", "no\0name"])
def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        fwknoprc.load(tmp_path / name)


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="exceeds"):
        fwknoprc.load(Path("/dev/zero"))


def test_a_profile_never_shows_its_keys() -> None:
    shown = repr(profile("[default]\nKEY hunter2\nHMAC_KEY hunter3\n"))
    assert "hunter" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    ("host", "service", "name"),
    [
        ("web1", "tcp/22", "web1"),
        ("WEB1", "tcp/9", "WEB1"),
        ("10.0.0.1", "tcp/22", "shell"),
        ("10.0.0.1", "tcp/443", "pages"),
        ("10.0.0.1", "tcp/9", None),
        ("GW.example", "tcp/9", "gate"),
        ("10.0.0.2", "tcp/22", "any"),
        ("10.0.0.3", "tcp/22", None),
    ],
)
def test_a_host_finds_its_section_by_name_or_by_address(host: str, service: str, name: str | None) -> None:
    text = (
        "[default]\nSPA_SERVER 10.0.0.3\n[web1]\nACCESS tcp/80\n[shell]\nSPA_SERVER 10.0.0.1\nACCESS tcp/22,tcp/80\n"
        "[pages]\nSPA_SERVER 10.0.0.1\nACCESS tcp/443\n[any]\nSPA_SERVER 10.0.0.2\n"
        "[gate]\nSPA_SERVER gw.example\nACCESS tcp/22\nNAT_PORT 9\n"
    )
    assert fwknoprc.parse(text.encode(), "rc").named_for(host, Service.parse(service)) == name


@pytest.mark.parametrize("mode", [0o620, 0o602])
@pytest.mark.parametrize("name", ["WGET_CMD", "GPG_EXE"])
def test_a_file_that_others_can_write_names_no_program(tmp_path: Path, mode: int, name: str) -> None:
    path = tmp_path / "rc"
    path.write_text(f"[default]\n{name} /tmp/evil\n")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf":2: {name}: other users can write this file"):
        fwknoprc.load(path)
    path.chmod(0o644)
    assert fwknoprc.load(path).profile() != Profile()


def test_a_sequence_is_all_of_its_line() -> None:
    text = b"[web]\nSPA_SERVER web\nSEQUENCE tcp/7000 udp/8000:5 tcp/9000\n"
    found = fwknoprc.parse(text, "rc").profile("web").sequence
    assert found == tuple(map(Service.parse, ("tcp/7000", "udp/8000", "tcp/9000")))
    for wrong in (b"tcp/7000,udp/8000", b"tcp/7000 # udp/8000", b"tcp/7000 udp/70000"):
        with pytest.raises(ConfigError, match="rc:2: SEQUENCE: "):
            fwknoprc.parse(b"[web]\nSEQUENCE " + wrong, "rc").profile("web")
