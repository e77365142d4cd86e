"""What configuration files may say, and what their readers may answer."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.client import fwknoprc
from doorward.config import access, convert
from doorward.config import settings as config_settings
from doorward.config.files import Disk
from doorward.config.reader import LINE_MAX, PROBLEMS_MAX
from doorward.config.stanza import Cycle, Forwarding, Stanza, Target
from doorward.errors import ConfigError, DoorwardError
from doorward.values import (
    ANYWHERE,
    DigestType,
    EncryptionMode,
    IPNetwork,
    Networks,
    Protocol,
    Secret,
    Service,
    SymmetricKeys,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doorward.client.profile import Profile

services = st.builds(Service, st.sampled_from(Protocol), st.integers(1, 65535))
secrets = st.binary(min_size=1, max_size=32)
FILE = Path("the file")
words = st.text("abc/$ -'\"IP", min_size=2, max_size=20).map(str.strip).filter(bool)
addresses = st.ip_addresses()
targets = st.builds(
    lambda address, port: Target(Networks.of([network(address.packed)]), port),
    addresses,
    st.none() | st.integers(1, 65535),
)


def stanzas() -> st.SearchStrategy[Stanza]:
    networks = st.lists(st.ip_addresses().map(lambda ip: ip.packed), min_size=1, max_size=4)
    return st.builds(
        Stanza,
        number=st.just(1),
        path=st.just(""),
        line=st.just(1),
        source=st.just(ANYWHERE) | networks.map(lambda all_: Networks.of(map(network, all_))),
        keys=st.builds(
            SymmetricKeys,
            secrets.map(lambda key: Secret(b"1" + key[1:])),
            secrets.map(lambda key: Secret(b"2" + key)),
            st.sampled_from(DigestType),
            st.sampled_from(EncryptionMode),
        ),
        open_ports=st.frozensets(services, min_size=1, max_size=5),
        restrict_ports=st.frozensets(services, min_size=1, max_size=5),
        fw_access_timeout=st.integers(1, 8_388_608),
        max_fw_timeout=st.integers(1, 8_388_608),
        require_source_address=st.booleans(),
        expires=st.integers(1, 10**12 - 1),
        cycle=st.none() | st.builds(Cycle, words, words, st.integers(1, 8_388_608)),
        forwarding=st.builds(
            Forwarding,
            st.none() | st.tuples(addresses, st.integers(1, 65535)),
            rewrite=st.booleans(),
            everything=st.booleans(),
            targets=st.none() | st.lists(targets, min_size=1, max_size=3).map(tuple),
            only=st.none() | st.booleans(),
        ),
        require_os=st.none() | st.sampled_from(["Linux", "Windows", "OpenBSD", "Mac-OS"]),
        any_ports=st.booleans(),
    )


def network(packed: bytes) -> IPNetwork:
    return ipaddress.ip_network(packed)


def written(stanza: Stanza, mark: str, blank: str, end: str) -> str:
    """Return the stanza as a person could write it."""
    keys = stanza.keys
    assert keys is not None
    assert keys.hmac_key is not None
    values = {
        "SOURCE": str(stanza.source),
        "KEY_BASE64": base64.b64encode(keys.key.reveal()).decode(),
        "HMAC_KEY_BASE64": base64.b64encode(keys.hmac_key.reveal()).decode(),
        "HMAC_DIGEST_TYPE": keys.hmac_digest.label,
        "ENCRYPTION_MODE": keys.mode.name,
        "OPEN_PORTS": ", ".join(map(str, stanza.open_ports or ())),
        "RESTRICT_PORTS": ",".join(map(str, stanza.restrict_ports)),
        "FW_ACCESS_TIMEOUT": str(stanza.fw_access_timeout),
        "MAX_FW_TIMEOUT": str(stanza.max_fw_timeout),
        "REQUIRE_SOURCE_ADDRESS": yes_no(stanza.require_source_address),
        "ACCESS_EXPIRE_EPOCH": str(stanza.expires),
        "DISABLE_DNAT": yes_no(not stanza.forwarding.rewrite),
        "FORWARD_ALL": yes_no(stanza.forwarding.everything),
        "PERMIT_CLIENT_PORTS": yes_no(stanza.any_ports),
    } | dict(rare(stanza))
    return "".join(f"{blank}{name}{mark}{blank}{value}{blank}{end}" for name, value in values.items())


def yes_no(said: bool) -> str:  # noqa: FBT001  it is what is written
    return "Y" if said else "N"


def rare(stanza: Stanza) -> Iterator[tuple[str, str]]:
    """Yield what stands only in some stanzas."""
    cycle, forwarding = stanza.cycle, stanza.forwarding
    if cycle is not None:
        yield "CMD_CYCLE_OPEN", cycle.open
        yield "CMD_CYCLE_CLOSE", str(cycle.close)
        yield "CMD_CYCLE_TIMER", str(cycle.seconds)
    if forwarding.force is not None:
        yield "FORCE_NAT", "{} {}".format(*forwarding.force)
    if forwarding.targets is not None:
        yield "NAT_TARGETS", ", ".join(f"[{target.networks}]:{target.port or '*'}" for target in forwarding.targets)
    if forwarding.only is not None:
        yield "ENABLE_FORWARD_ACCESS", yes_no(forwarding.only)
    if stanza.require_os is not None:
        yield "REQUIRE_OS", stanza.require_os


@given(
    st.lists(stanzas(), min_size=1, max_size=3),
    st.sampled_from([" ", ": ", "\t", ":\t"]),
    st.sampled_from(["", " ", "\t "]),
    st.sampled_from(["\n", ";\n", "; # note\n", "\r\n"]),
)
def test_stanzas_are_read_as_they_were_written(made: list[Stanza], mark: str, blank: str, end: str) -> None:
    text = "".join(written(stanza, mark, blank, end) for stanza in made)
    read = access.parse(FILE, text.encode()).stanzas
    assert [replace(stanza, number=1, path="", line=1) for stanza in read] == made


def profile(content: bytes) -> Profile:
    return fwknoprc.parse(content, "rc").profile()


def complaint(load: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    return str(caught.value)


def daemon_complaint(text: str) -> str:
    return complaint(config_settings.parse, FILE, text.encode())


SLIPS = [
    "{0}",
    "{0};",
    "{0} x",
    "{0}: x",
    "{0} # the key",
    "KEY_BASE64={0}",
    "KEY_BASE64={0} x",
    "KEY_BASE46 {0}",
    "KEY_BASE64 {0}*",
    "KEY_BASE64 {0};{0}",
    "KEY_BASE64 {0} {0} *",
    "HMAC_KEY_BASE64 \x01{0}",
    "KEY_BASE64\n{0}",
    "KEY_BASE64\n{0} ; x",
    "HMAC_KEY " + "{0}" * 4,
    "HMAC_KEY " + "{0}" * 200,
    "{0} {0}; {0}",
]


@pytest.mark.parametrize("slip", SLIPS)
@given(key=st.binary(min_size=16, max_size=32).map(lambda raw: base64.b64encode(raw).decode()))
def test_a_slip_beside_a_key_never_shows_the_key(slip: str, key: str) -> None:
    line = slip.format(key)
    whole = f"SOURCE ANY\n{line}\nVERBOSE none\n"
    said = [complaint(access.parse, FILE, text.encode()) for text in (whole, f"{line}\n")]
    said.append(daemon_complaint(whole))
    said.append(complaint(profile, f"{line}\nVERBOSE none\n".encode()))
    pieces = {key[start : start + 8] for start in range(len(key) - 8)}
    assert not [text for text in said if any(piece in text for piece in pieces)]


def test_a_misspelt_name_is_still_shown() -> None:
    assert "unknown name 'KEY_BASE46'" in daemon_complaint("KEY_BASE46 x\n")
    assert "unknown name 'verbose'" in daemon_complaint("verbose 1\n")


def test_a_variable_may_come_from_a_line_that_has_no_other_meaning_here() -> None:
    assert config_settings.parse(
        FILE, b"FWKNOP_CONF_DIR /etc/fwknop;\nACCESS_FILE $FWKNOP_CONF_DIR/mine.conf;\n"
    ).settings.access_file == Path("/etc/fwknop/mine.conf")


@pytest.mark.parametrize("name", ["ACCESS_FILE", "FIREWALL_FILE", "SYSLOG_IDENTITY"])
def test_a_variable_that_no_line_sets_is_a_mistake(name: str) -> None:
    assert daemon_complaint(f"VERBOSE 1\n{name} $NOWHERE/x;\n").count(":2: ") == 1


def test_variables_cannot_grow_without_bound() -> None:
    grows = "FIREWALL_FILE $FIREWALL_FILE/" + "x" * 1000 + ";\n"
    said = daemon_complaint("FIREWALL_FILE /a;\n" + grows * 50)
    assert f"more than {LINE_MAX}" in said
    assert (
        len(str(config_settings.parse(FILE, ("FIREWALL_FILE /a;\n" + grows * 3).encode()).settings.firewall_file))
        == 2 + 3 * 1001
    )


@pytest.mark.parametrize("parse", [access.parse, config_settings.parse], ids=["access", "daemon"])
@pytest.mark.parametrize("line", ["OPEN_PORT x", "SOURCE", "SOURCE ANY", "VERBOSE x", "PCAP_FILE x", "\x01"])
def test_the_problems_of_a_hopeless_file_are_bounded(parse: Callable[[Path, bytes], object], line: str) -> None:
    content = f"{line}\n".encode() * 5000
    assert 1 < complaint(parse, FILE, content).count("\n") + 1 <= PROBLEMS_MAX + 1


def test_the_problems_of_a_hopeless_client_file_are_bounded() -> None:
    for line in ("x", "NAME x", "[", "VERBOSE x"):
        content = f"{line}\n".encode() * 5000
        assert complaint(profile, content).count("\n") < PROBLEMS_MAX + 1


def test_a_file_that_fails_while_it_is_read_is_a_problem_and_no_traceback() -> None:
    """/proc/self/mem is a regular file of ours that opens and cannot be read at its start."""
    loads: tuple[Callable[[Path], object], ...] = (access.load, partial(Disk().content, secret=False), fwknoprc.load)
    for load in loads:
        assert "cannot be read: Input/output error" in complaint(load, Path("/proc/self/mem"))


def test_an_interface_name_is_measured_in_bytes() -> None:
    assert "is not an interface name" in daemon_complaint("PCAP_INTF " + "é" * 8 + ";\n")
    assert config_settings.parse(FILE, ("PCAP_INTF " + "é" * 7 + ";\n").encode()).settings.interfaces == ("é" * 7,)


@given(st.text(max_size=12).filter(lambda text: not text.isascii()))
def test_a_word_with_a_letter_that_only_looks_like_ascii_is_no_word(text: str) -> None:
    for read in (convert.boolean, convert.digest_type, convert.encryption_mode, convert.port, convert.services):
        with pytest.raises(Exception, match=r".") as caught:
            read(text)
        assert isinstance(caught.value, (ValueError, DoorwardError))


def test_the_long_s_is_no_s() -> None:
    with pytest.raises(ValueError, match="is none of"):
        convert.digest_type("\u017fha256")


@pytest.mark.parametrize("mark", [" ", ": ", ":", "\t", " : ", ":\t"])
def test_a_source_that_begins_with_colons_keeps_them(mark: str) -> None:
    """`::1.2.3.4` without its colons would be another address, and of the other family."""
    text = f"SOURCE{mark}::1.2.3.4\nKEY a\n"
    assert str(access.parse(FILE, text.encode()).stanzas[0].source) == "::102:304/128"
    keys = access.parse(FILE, f"SOURCE ANY\nKEY{mark}:a\n".encode()).stanzas[0].keys
    assert keys is not None
    assert keys.key == Secret(b":a")
