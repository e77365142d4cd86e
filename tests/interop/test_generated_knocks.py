"""Generated command lines of the real fwknop client: doorward reads in each packet what was asked for."""

from __future__ import annotations

import base64
import string
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doorward.crypto import symmetric
from doorward.values import DigestType, EncryptionMode, Protocol, Secret, Service, SymmetricKeys
from doorward.wire import fwknop
from doorward.wire.fwknop import MessageType
from doorward.wire.wish import NatTarget

if TYPE_CHECKING:
    import ipaddress

USER_SIGNS = string.ascii_letters + string.digits + " ._-@!#$%&'(){}^~`"
USER_MAX = 29  # characters; the client cuts what is longer without a word
MODES = [mode for mode in EncryptionMode if mode is not EncryptionMode.LEGACY]


@dataclass(frozen=True, slots=True)
class Knock:
    source: ipaddress.IPv4Address
    services: tuple[Service, ...]
    user: str
    timeout: int
    nat: tuple[ipaddress.IPv4Address, int] | None
    digest: DigestType
    keys: SymmetricKeys

    @property
    def kind(self) -> MessageType:
        if self.nat:
            return MessageType.NAT_TIMEOUT if self.timeout else MessageType.NAT
        return MessageType.ACCESS_TIMEOUT if self.timeout else MessageType.ACCESS

    def arguments(self) -> list[str]:
        """Return fwknop's options."""
        hmac_key = self.keys.hmac_key
        assert hmac_key is not None
        made = ["-a", str(self.source), "-A", ",".join(map(str, self.services)), "-U", self.user]
        made += ["-m", self.digest.label, "-M", self.keys.mode.name.lower()]
        made += ["--key-base64-rijndael", base64.b64encode(self.keys.key.reveal()).decode()]
        made += ["--use-hmac", "--hmac-digest-type", self.keys.hmac_digest.label]
        made += ["--key-base64-hmac", base64.b64encode(hmac_key.reveal()).decode()]
        made += ["-f", str(self.timeout)] if self.timeout else []
        return [*made, "-N", f"{self.nat[0]},{self.nat[1]}"] if self.nat else made


def addresses() -> st.SearchStrategy[ipaddress.IPv4Address]:
    return st.ip_addresses(v=4).filter(lambda ip: not ip.is_unspecified)  # type: ignore[return-value]  # v=4 says which


knocks = st.builds(
    Knock,
    source=addresses(),
    services=st.lists(
        st.builds(Service, st.sampled_from(Protocol), st.integers(1, 65535)), min_size=1, max_size=5, unique=True
    ).map(tuple),
    user=st.text(USER_SIGNS, min_size=1, max_size=USER_MAX),
    timeout=st.integers(0, 65535),
    nat=st.none() | st.tuples(addresses(), st.integers(1, 65535)),
    digest=st.sampled_from(DigestType),
    keys=st.builds(
        SymmetricKeys,
        st.binary(min_size=1, max_size=32).map(Secret),
        st.binary(min_size=33, max_size=128).map(Secret),
        st.sampled_from(DigestType),
        st.sampled_from(MODES),
    ),
)


@given(knocks)
@settings(max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_what_fwknop_was_asked_is_what_doorward_reads(knock: Knock) -> None:
    command = ["fwknop", "--no-rc-file", "--no-save-args", "--test", "-v", "-D", "127.0.0.1", *knock.arguments()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    made, _, _ = done.stdout.partition("Generating SPA packet")  # behind it what the client decodes again, without tag
    shown = dict(line.lstrip().split(": ", 1) for line in made.split("\n") if ": " in line.lstrip())
    plaintext = symmetric.unseal(shown["Final SPA Data"].encode(), knock.keys)
    assert plaintext.decode() == f"{shown['Encoded Data']}:{shown['SPA Data Digest']}"
    message = fwknop.parse(plaintext)
    assert fwknop.serialize(message) == plaintext
    assert (message.user, message.type, message.timeout) == (knock.user, knock.kind, knock.timeout or None)
    assert (message.random, message.digest) == (shown["Random Value"], knock.digest)
    assert fwknop.parse_access(message.text) == fwknop.Access(knock.source, knock.services)
    if knock.nat is not None:
        assert message.nat_access is not None
        assert fwknop.parse_nat(message.nat_access) == NatTarget(str(knock.nat[0]), knock.nat[1])
