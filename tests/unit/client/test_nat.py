from __future__ import annotations

import secrets

import pytest

from doorward.client import nat
from doorward.client.packet import Request
from doorward.client.profile import HostPort, Profile
from doorward.errors import ClientError
from doorward.values import Secret, Service, SymmetricKeys
from doorward.wire.fwknop import MessageType

SSH = (Service.parse("tcp/22"),)
TWO = (Service.parse("tcp/22"), Service.parse("tcp/80"))
KEYS = SymmetricKeys(Secret(b"k"), None)


@pytest.mark.parametrize(
    ("profile", "services", "led"),
    [
        (Profile(), TWO, nat.NatRequest(TWO)),
        (Profile(nat_access=HostPort("10.0.0.1", 80)), SSH, nat.NatRequest(SSH, "10.0.0.1,80")),
        (Profile(nat_access=HostPort("10.0.0.1", 80)), TWO, nat.NatRequest(TWO, "10.0.0.1,80")),
        (Profile(nat_access=HostPort("10.0.0.1")), SSH, nat.NatRequest(SSH, "10.0.0.1,22")),
        (Profile(nat_access=HostPort("2001:db8::5", 80)), SSH, nat.NatRequest(SSH, "2001:db8::5,80")),
        (
            Profile(nat_access=HostPort("in", 80), nat_port=99),
            SSH,
            nat.NatRequest((Service.parse("tcp/99"),), "in,80"),
        ),
        (Profile(nat_local=True, server="h"), SSH, nat.NatRequest(SSH, "h,22")),
        (
            Profile(nat_local=True, server="h", nat_port=110),
            SSH,
            nat.NatRequest((Service.parse("tcp/110"),), "h,22"),
        ),
        (
            Profile(nat_port=99),
            SSH,
            nat.NatRequest((Service.parse("tcp/99"),)),
        ),  # as fwknop: the port is replaced all the same
    ],
)
def test_the_message_says_what_fwknops_says(
    profile: Profile, services: tuple[Service, ...], led: nat.NatRequest
) -> None:
    assert nat.request(profile, services, secrets.token_bytes) == led


def test_a_random_port_lies_where_fwknops_lies() -> None:
    led = nat.request(Profile(nat_access=HostPort("in"), nat_rand_port=True), SSH, bytes)
    assert led == nat.NatRequest((Service.parse("tcp/10000"),), "in,22", random_port=10000)
    assert nat.random_port(lambda count: b"\xff" * count) <= 65534
    assert len({nat.random_port(secrets.token_bytes) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    ("profile", "services", "complaint"),
    [
        (Profile(nat_access=HostPort("in"), nat_port=1), TWO, "stands for one service"),
        (Profile(nat_access=HostPort("in")), (), "name it with -A"),
        (Profile(nat_local=True), SSH, "name the host"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    profile: Profile, services: tuple[Service, ...], complaint: str
) -> None:
    with pytest.raises(ClientError, match=complaint):
        nat.request(profile, services, secrets.token_bytes)


@pytest.mark.parametrize(
    ("target", "local", "timeout", "command", "kind"),
    [
        (None, False, 0, "id", MessageType.COMMAND),
        (None, False, 30, "id", MessageType.COMMAND),
        (None, False, 0, None, MessageType.ACCESS),
        (None, False, 30, None, MessageType.ACCESS_TIMEOUT),
        ("in,22", False, 0, None, MessageType.NAT),
        ("in,22", False, 30, None, MessageType.NAT_TIMEOUT),
        ("in,22", True, 0, None, MessageType.LOCAL_NAT),
        ("in,22", True, 30, None, MessageType.LOCAL_NAT_TIMEOUT),
    ],
)
def test_what_is_asked_for_makes_the_message_type(
    target: str | None, timeout: int, command: str | None, kind: MessageType, *, local: bool
) -> None:
    profile = Profile(timeout=timeout, command=command, nat_local=local)
    assert Request(profile, nat.NatRequest(SSH, target), KEYS, "u").type is kind
