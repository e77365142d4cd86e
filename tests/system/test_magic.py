"""The magic packet on a real host: the lines of docs/magic-packet.md as they stand there, and what is no packet."""

from __future__ import annotations

import re
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.crypto import magic
from doorward.values import Secret
from system.doorwardd import ACCESS, doorwardd, environment, eventually, is_open, listener, send, used_store, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

DOCUMENT = Path(__file__).parents[2] / "docs" / "magic-packet.md"
PASSWORD = b"a-password-of-16-to-64-bytes"
PORT = 62204
UDP = f"SOURCE ANY\nMAGIC udp/{PORT}\nHMAC_KEY {PASSWORD.decode()}\nOPEN_PORTS tcp/22\nNAME camera\n"
ICMP = UDP.replace(f"udp/{PORT}", "icmp")
SERVER = "ENABLE_UDP_SERVER Y\n"
GRANTED = "verdict=granted"
DENIED = "verdict=denied"


def lines(language: str) -> str:
    """The lines of a language as the document has them."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


def packet(made: float | None = None, password: bytes = PASSWORD, nonce: bytes = b"nonce of a test!") -> bytes:
    return magic.seal(Secret(password), int(time.time() if made is None else made), nonce)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the password, from which the lines are run."""
    made = tmp_path / "device"
    made.mkdir()
    (made / "magic.password").write_bytes(PASSWORD + b"\n")
    return made


@pytest.fixture
def serving(pair: tuple[Namespace, Namespace], tmp_path: Path) -> Iterator[tuple[Namespace, Namespace, Running]]:
    """A host with a stanza for magic packets over UDP, and a client."""
    host, client = pair
    used_store(tmp_path)
    with doorwardd(host, tmp_path, UDP, f"ACCESS_FILE {tmp_path}/access.conf\n") as daemon, listener(host):
        yield host, client, daemon


Serving = tuple["Namespace", "Namespace", "Running"]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_lines_of_the_document_open_once(serving: Serving, folder: Path, language: str, family: str) -> None:
    host, client, daemon = serving
    address = getattr(host, family)
    program = ("sh",) if language == "sh" else (sys.executable, "-")
    heard: list[bytes] = []
    with host.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as tap:
        tap.setblocking(False)  # noqa: FBT003  its only argument
        words = ("-s", address) if language == "sh" else (address,)
        client.run(*program, *words, input=lines(language), cwd=folder)
        line = daemon.wait_for(GRANTED)
        while select.select([tap], [], [], 0)[0]:
            heard.append(tap.recv(2048))
    assert f"origin={getattr(client, family)} " in line
    assert "stanza=1 name=camera" in line
    assert is_open(client, address)
    (sent,) = {one[-106:] for one in heard if re.fullmatch(rb"[0-9a-f]{106}", one[-106:])}
    send(client, sent, address, PORT)
    daemon.wait_for("reason=replay")


def test_the_lines_in_python_open_over_icmp(pair: tuple[Namespace, Namespace], tmp_path: Path, folder: Path) -> None:
    host, client = pair
    client.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 0")
    with doorwardd(host, tmp_path, ICMP) as daemon, listener(host):
        send(client, packet(), host.ipv4, PORT)
        client.run(sys.executable, "-", host.ipv4, "icmp", input=lines("python"), cwd=folder)
        daemon.wait_for(GRANTED)
        assert len(daemon.verdicts) == 1, "over UDP no stanza waits for it"
        assert is_open(client, host.ipv4)


def test_what_is_no_packet_of_this_password_opens_nothing(serving: Serving) -> None:
    host, client, daemon = serving
    now = time.time()
    whole = packet(now)
    other = b"1" if whole[70:71] == b"0" else b"0"
    wrong = {
        "reason=hmac": [packet(now, b"another-password-of-some-bytes"), whole[:70] + other + whole[71:]],
        "reason=malformed": [whole.upper(), PASSWORD.ljust(106, b"0")],
        "reason=stale": [packet(now - 300)],
        "reason=future": [packet(now + 300)],
    }
    for reason, packets in wrong.items():
        for one in packets:
            send(client, one, host.ipv4, PORT)
        daemon.wait_for(reason, len(packets))
    assert not is_open(client, host.ipv4)
    before = len(daemon.verdicts)
    for one in (whole[:-1], whole + b"0", PASSWORD, b"", payload(message(time=int(now)), KEYS)):
        send(client, one, host.ipv4, PORT)
    send(client, whole, host.ipv4, 62201)
    send(client, whole, host.ipv4, PORT)
    daemon.wait_for(GRANTED)
    assert len(daemon.verdicts) == before + 1, "other lengths, and other ports, do not reach the listener"


def test_it_passes_beside_a_server_and_knocks_of_other_formats_go_on(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS + UDP, f"{SERVER}ACCESS_FILE {tmp_path}/access.conf\n") as daemon:
        send(client, packet(), host.ipv4, PORT)
        assert "stanza=2 " in daemon.wait_for(GRANTED)
        send(client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS), host.ipv4)
        assert "stanza=1 " in daemon.wait_for(GRANTED, 2)
        write(tmp_path / "access.conf", ACCESS)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        send(client, packet(nonce=b"after the reload"), host.ipv4, PORT)
        send(client, packet(nonce=b"after the reloa2"), host.ipv4)
        send(client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS), host.ipv4)
        daemon.wait_for(GRANTED, 3)
        assert len(daemon.verdicts) == 3, "no stanza wants it any more"
        write(tmp_path / "access.conf", ACCESS + ICMP + UDP.replace("62204", "62205"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again", 2)
        send(client, packet(nonce=b"at another port!"), host.ipv4, 62205)
        assert "stanza=3 " in daemon.wait_for(GRANTED, 4)


def test_explain_says_what_would_become_of_it(serving: Serving) -> None:
    host, client, daemon = serving
    argv = [sys.executable, "-m", "doorward", "doorwardd", "explain", "--origin", client.ipv4]
    argv += ["-a", f"{daemon.folder}/access.conf", "-d", f"{daemon.folder}/run/replay.db"]
    for password, words in ((PASSWORD, GRANTED), (b"another-password-of-some-bytes", "reason=hmac")):
        sent = packet(password=password).decode()
        said = host.run(*argv, input=f"{sent}\n", env=environment(), check=False)
        assert words in said.stdout, said.stderr
    assert not is_open(client, host.ipv4)


def test_its_port_answers_nobody(serving: Serving) -> None:
    host, client, _ = serving
    with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        sender.connect((host.ipv4, 62300))
        sender.send(b"x")
        with pytest.raises(ConnectionRefusedError):  # a port that is closed answers
            sender.recv(1)
        sender.connect((host.ipv4, PORT))
        for one in (b"x", packet(nonce=b"of another's!!!!", password=b"another-password-of-some-bytes")):
            sender.send(one)
            with pytest.raises(TimeoutError):
                sender.recv(1)


def test_it_is_remembered_over_a_restart(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, UDP) as daemon:
        sent = packet()
        send(client, sent, host.ipv4, PORT)
        daemon.wait_for(GRANTED)
    with doorwardd(host, tmp_path, UDP) as daemon:
        send(client, sent, host.ipv4, PORT)
        daemon.wait_for("reason=replay")
        assert eventually(lambda: DENIED in daemon.verdicts[0])
