"""The format `doorward 1` from the key pairs to the open port: the real daemon, the real client, the kernel's table."""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system.doorwardd import ACCESS, doorwardd, eventually, files, is_open, send, used_store, write
from system.executing import Trace, end_exec
from system.two_ends import Ends, acquainted
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace


@pytest.fixture
def ends(trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> Iterator[Ends]:
    with acquainted(trio, tmp_path) as made:
        yield made


def test_keys_are_private_files_with_public_lines_and_the_same_words_on_both_sides(ends: Ends) -> None:
    private = (ends.folder / "host.key", ends.home / ".config/doorward/client.key")
    assert [path.stat().st_mode & 0o777 for path in private] == [0o600, 0o600]
    assert ends.doorwardd("keys", "show", "--file", str(private[0])) == ends.host_line
    assert ends.doorward("keys", "show").stdout.strip() == ends.client_line
    told = ends.doorwardd("keys", "fingerprint", "--file", str(private[0]))
    assert ends.doorward("keys", "fingerprint", *ends.host_line.split()).stdout.strip() == told
    own = ends.doorward("keys", "fingerprint").stdout.strip()
    assert own.endswith(") alice@laptop")
    assert own != told
    write(ends.folder / "access.conf", ends.access)
    write(ends.folder / "doorwardd.conf", ends.config)
    checked = ends.doorwardd(
        "check", "--report", "-c", f"{ends.folder}/doorwardd.conf", "-a", f"{ends.folder}/access.conf", check=False
    )
    assert own.removesuffix(" alice@laptop") in checked
    again = ends.doorward("keys", "generate", "--public", check=False)
    assert (again.returncode, ends.doorward("keys", "show").stdout.strip()) == (1, ends.client_line), again.stderr


def test_a_knock_opens_the_port_once_and_the_kernel_closes_it(ends: Ends) -> None:
    host, client = ends.host, ends.client
    assert is_open(client, host.ipv4), "open before the daemon runs"
    used_store(ends.folder)
    saved = ends.home / "packet"
    with doorwardd(host, ends.folder, ends.access, ends.config) as daemon:
        assert not is_open(client, host.ipv4, within=0.5)
        ends.doorward("knock", "-n", "web1", "-A", "tcp/22", "-B", str(saved))
        line = daemon.wait_for("reason=granted")
        assert f" stanza=1 name=alice@laptop source={client.ipv4} services=tcp/22 seconds=3" in line
        assert is_open(client, host.ipv4)
        assert eventually(lambda: not is_open(client, host.ipv4, within=0.3))
        packet = base64.b64decode(saved.read_bytes())
        assert len(packet) == 164
        send(client, packet, host.ipv4)
        daemon.wait_for("reason=replay")
        send(client, packet[:-1] + bytes([packet[-1] ^ 1]), host.ipv4)
        daemon.wait_for("reason=hmac")
        send(client, bytes(164), host.ipv4)
        send(client, packet[:4] + bytes(160), host.ipv4)  # both end in the kernel
        assert not is_open(client, host.ipv4, within=0.5)
        assert len(daemon.verdicts) == 3, daemon.verdicts
        assert len([line for line in daemon.verdicts if "verdict=granted" in line]) == 1
        said = ends.doorwardd(
            "explain",
            "--origin",
            client.ipv4,
            "-c",
            f"{ends.folder}/doorwardd.conf",
            "-a",
            f"{ends.folder}/access.conf",
            "-d",
            f"{ends.folder}/run/replay.db",
            check=False,
            stdin=saved.read_bytes(),
        )
        assert "reason=replay" in said
    with doorwardd(host, ends.folder, ends.access, ends.config) as daemon:
        send(client, packet, host.ipv4)
        assert eventually(lambda: bool(daemon.verdicts))
        assert "reason=replay" in daemon.verdicts[0], "after a restart too"
        assert not is_open(client, host.ipv4, within=0.5)


def connected(ends: Ends, name: str) -> str:
    """Connect as ssh's ProxyCommand does, and return the address that the host has seen."""
    argv = ends.client.command(sys.executable, "-m", "doorward", "connect", "-n", "web1", name, "22")
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=ends.variables, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as connecting:
        ends.sshd.settimeout(20)
        accepted, origin = ends.sshd.accept()
        with accepted:
            accepted.sendall(b"SSH-2.0-here\r\n")
        said, complaints = connecting.communicate(timeout=20)
    assert (said, connecting.returncode) == (b"SSH-2.0-here\r\n", 0), complaints
    seen: str = origin[0]
    return seen


def test_a_connection_knocks_and_the_port_is_open_for_nobody_else(ends: Ends) -> None:
    used_store(ends.folder)
    with doorwardd(ends.host, ends.folder, ends.access, ends.config) as daemon:
        origin = connected(ends, ends.host.ipv4)
        assert origin.endswith(ends.client.ipv4)
        assert "name=alice@laptop" in daemon.wait_for("reason=granted")
        assert not is_open(ends.outsider, ends.host.ipv4, within=0.5)


def test_both_formats_share_the_port_and_a_removed_client_is_a_stranger_at_once(ends: Ends) -> None:
    used_store(ends.folder)
    with doorwardd(ends.host, ends.folder, ends.access + ACCESS, ends.config) as daemon:
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("stanza=1 name=alice@laptop")
        send(ends.client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS), ends.host.ipv4)
        daemon.wait_for("reason=granted origin=10.77.0.2 origin_port=", 2)
        assert " stanza=2 user=alice " in daemon.verdicts[1]
        write(ends.folder / "access.conf", ACCESS)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        ends.doorward("knock", "-n", "web1")
        assert eventually(lambda: len(daemon.verdicts) == 3)
        assert "granted" not in daemon.verdicts[2]
        send(ends.client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS), ends.host.ipv4)
        daemon.wait_for("verdict=granted", 3)


def test_a_client_with_two_pre_shared_keys_comes_in_by_both_until_one_is_taken_away(ends: Ends) -> None:
    """How a key is changed: what the old one opened stays, its packets are a stranger's at once."""
    used_store(ends.folder)
    stanzas = []
    for name, letter in (("old", b"1"), ("new", b"2")):
        line = f"PSK_BASE64 {base64.b64encode(letter * 32).decode()}\n"
        stanzas.append(ends.access.replace("TIMEOUT 3", "TIMEOUT 60") + line)
        with (ends.home / ".fwknoprc").open("a") as file:
            file.write(f"[{name}]\nSPA_SERVER {ends.host.ipv4}\nHOST_KEY {ends.host_line}\n{line}")
    with doorwardd(ends.host, ends.folder, "".join(reversed(stanzas)), ends.config) as daemon:
        ends.doorward("knock", "-n", "old")
        assert " stanza=2 name=alice@laptop " in daemon.wait_for("reason=granted")
        ends.doorward("knock", "-n", "new")
        daemon.wait_for("stanza=1 name=alice@laptop")
        ends.host.nft("flush set inet doorward open4")
        ends.doorward("knock", "-n", "old")
        daemon.wait_for("reason=granted", 3)
        write(ends.folder / "access.conf", stanzas[1])
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        assert is_open(ends.client, ends.host.ipv4), "it is the same client"
        ends.host.nft("flush set inet doorward open4")
        ends.doorward("knock", "-n", "old")
        ends.doorward("knock", "-n", "web1")  # without any
        assert not is_open(ends.client, ends.host.ipv4, within=0.5)
        ends.doorward("knock", "-n", "new")
        daemon.wait_for("reason=granted", 4)
        assert is_open(ends.client, ends.host.ipv4)


def test_the_first_client_comes_with_a_reload(ends: Ends) -> None:
    """The listener has given up its power by then: the key is handed over, and computed with behind the filter."""
    used_store(ends.folder)
    with doorwardd(ends.host, ends.folder, ACCESS, ends.config) as daemon:
        ends.doorward("knock", "-n", "web1")
        assert "reason=malformed" in daemon.wait_for("verdict=denied")
        write(ends.folder / "access.conf", ends.access)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        ends.doorward("knock", "-n", "web1")
        assert "name=alice@laptop" in daemon.wait_for("reason=granted")
        write(ends.folder / "access.conf", f"{ends.access}CLIENT {ends.host_line}\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("access.conf:5: CLIENT: this is the host's own key")
        ends.doorward("knock", "-n", "web1")
        daemon.wait_for("reason=granted", 2)


def code(secret: str, step: int) -> str:
    """The code that an authenticator app shows: RFC 4226 and 6238, another time."""
    mac = hmac.new(base64.b32decode(secret), step.to_bytes(8, "big"), "sha1").digest()
    at = mac[19] % 16
    return f"{int.from_bytes(mac[at : at + 4], 'big') % 2**31 % 10**6:06d}"


def test_a_knock_with_a_one_time_code_opens_once_over_restarts_too(ends: Ends) -> None:
    used_store(ends.folder)
    line = ends.doorward("keys", "otp", "--comment", "alice@web1").stdout.splitlines()[0]
    secret = line.split()[1]
    access = f"{ends.access}{line}\n"
    with doorwardd(ends.host, ends.folder, access, ends.config) as daemon:
        ends.doorward("knock", "-n", "web1")
        assert "no one-time code" in daemon.wait_for("reason=code")
        step = int(time.time()) // 30
        right = {code(secret, step + shift) for shift in range(-1, 4)}
        wrong = next(digits for digits in map("{:06d}".format, range(9)) if digits not in right)
        for number, digits in enumerate((wrong, code(secret, step + 5), code(secret, step - 5)), 2):
            ends.doorward("knock", "-n", "web1", "--otp", digits)
            assert "the one-time code is wrong" in daemon.wait_for("reason=code", number)
        assert not is_open(ends.client, ends.host.ipv4, within=0.5)
        now = code(secret, int(time.time()) // 30)
        ends.doorward("knock", "-n", "web1", "--otp", now)
        daemon.wait_for("reason=granted")
        assert is_open(ends.client, ends.host.ipv4)
        ends.doorward("knock", "-n", "web1", "--otp", now)
        assert "was used already" in daemon.wait_for("reason=code", 5)
    checked = ends.doorwardd("-D", *files(ends.folder))
    assert "ONE_TIME_CODE                <see the access.conf file>" in checked
    assert secret not in checked
    with doorwardd(ends.host, ends.folder, access, ends.config) as daemon:
        assert eventually(lambda: not is_open(ends.client, ends.host.ipv4, within=0.3))
        ends.doorward("knock", "-n", "web1", "--otp", now)
        assert "was used already" in daemon.wait_for("reason=code"), "after a restart too"
        assert not is_open(ends.client, ends.host.ipv4, within=0.5)
        ends.doorward("knock", "-n", "web1", "--otp", code(secret, int(time.time()) // 30 + 1))
        daemon.wait_for("reason=granted")
        assert is_open(ends.client, ends.host.ipv4)
        assert secret not in "\n".join(daemon.lines)


def test_a_connection_asks_for_the_code_at_its_terminal(ends: Ends) -> None:
    used_store(ends.folder)
    line = ends.doorward("keys", "otp").stdout.splitlines()[0]
    rc = ends.home / ".fwknoprc"
    write(rc, f"{rc.read_text()}ONE_TIME_CODE ask\n")
    words = (sys.executable, "-m", "doorward", "connect", "-n", "web1", ends.host.ipv4, "22")
    with doorwardd(ends.host, ends.folder, f"{ends.access}{line}\n", ends.config) as daemon:
        for asking in (words, (*words[:3], "knock", "-n", "web1")):
            nowhere = ends.client.run("setsid", "--wait", *asking, check=False, env=ends.variables)
            assert nowhere.returncode == 1
            assert "no one-time code, and there is no terminal to ask at" in nowhere.stderr
        ours, theirs = os.openpty()
        with ends.client.process("setsid", "--ctty", *words, env=ends.variables, stdin=theirs) as connecting:
            os.close(theirs)
            assert select.select([ours], [], [], 60)[0], "nobody asks"
            assert os.read(ours, 4096) == b"Enter one-time code: "
            os.write(ours, code(line.split()[1], int(time.time()) // 30).encode() + b"\n")
            ends.sshd.settimeout(30)
            accepted, _ = ends.sshd.accept()
            with accepted:
                accepted.sendall(b"SSH-2.0-here\n")
            os.write(ours, b"\x04")  # the end of standard input
            said, complaints = connecting.communicate(timeout=30)
        os.close(ours)
        assert (said, connecting.returncode) == ("SSH-2.0-here\n", 0), complaints
        assert "name=alice@laptop" in daemon.wait_for("reason=granted")


def test_a_command_runs_by_its_name_and_its_words_are_the_hosts(ends: Ends, open_path: Path) -> None:
    used_store(ends.folder)
    trace = Trace.make(open_path, "id -un")
    access = f"{ends.access}COMMANDS restart-web={trace.script} 's3cret word' $IP\nCOMMANDS off={trace.script} off\n"
    with doorwardd(ends.host, ends.folder, access, ends.config) as daemon:
        try:
            daemon.wait_for("without CMD_EXEC_USER the COMMANDS run as nobody")
            ends.doorward("knock", "-n", "web1", "--command", "restart-all")
            assert "no command of the stanza is named restart-all" in daemon.wait_for("reason=unsupported")
            ends.doorward("knock", "-n", "web1", "--command", "restart-web")
            assert f"source={ends.client.ipv4} command=restart-web" in daemon.wait_for("reason=granted")
            trace.wait_for(f"[s3cret word][{ends.client.ipv4}]")
            line = daemon.wait_for("command=named stanza=1")
            assert f"as=nobody called=restart-web program={trace.script} exit=0" in line
            assert "output=nobody" in line
            assert "s3cret" not in "\n".join(daemon.lines)
            assert not is_open(ends.client, ends.host.ipv4, within=0.5)
            refused = ends.doorward("knock", "-n", "web1", "--command", "id; reboot", check=False)
            assert (refused.returncode, "the command is no name" in refused.stderr) == (1, True)
        finally:
            end_exec(daemon)


def test_one_code_and_one_command_serve_both_families(ends: Ends, open_path: Path) -> None:
    """Both addresses of the host are in the client's hosts file, as a name server would have them."""
    used_store(ends.folder)
    trace = Trace.make(open_path)
    line = ends.doorward("keys", "otp").stdout.splitlines()[0]
    access = f"{ends.access}{line}\nCOMMANDS off={trace.script} off\n"
    with both_addresses(ends), doorwardd(ends.host, ends.folder, access, ends.config) as daemon:
        try:
            digits = code(line.split()[1], int(time.time()) // 30)
            ends.doorward("knock", "-n", "web1", "-D", "dual.example", "-A", "tcp/22", "--otp", digits)
            granted = daemon.wait_for("reason=granted")
            assert {f"source={one}" for one in (ends.client.ipv4, ends.client.ipv6)} == {
                word.removeprefix("second_") for word in granted.split() if "source=" in word
            }
            assert is_open(ends.client, ends.host.ipv4)
            assert is_open(ends.client, ends.host.ipv6)
            digits = code(line.split()[1], int(time.time()) // 30 + 1)
            ends.doorward("knock", "-n", "web1", "-D", "dual.example", "--command", "off", "--otp", digits)
            daemon.wait_for("command=named stanza=1")
            trace.wait_for("[off]")
            assert len(daemon.verdicts) == 2
        finally:
            end_exec(daemon)


DUAL = ("-n", "web1", "-D", "dual.example", "-A", "tcp/22")


@pytest.mark.parametrize("lost", ["ip", "ip6"])
def test_one_packet_lets_in_both_families_whichever_way_it_came(ends: Ends, lost: str) -> None:
    """The packet to the other family gets lost."""
    used_store(ends.folder)
    lose(ends, f"meta nfproto {'ipv4' if lost == 'ip' else 'ipv6'} udp dport 62201 drop")
    with both_addresses(ends), doorwardd(ends.host, ends.folder, ends.access, ends.config) as daemon:
        ends.doorward("knock", *DUAL)
        line = daemon.wait_for("reason=granted")
        first, second = (ends.client.ipv6, ends.client.ipv4) if lost == "ip" else (ends.client.ipv4, ends.client.ipv6)
        assert f" origin={first} " in line
        assert f" source={first} second_source={second} services=tcp/22 " in line
        for address in (ends.host.ipv4, ends.host.ipv6):
            assert is_open(ends.client, address)
            assert not is_open(ends.outsider, address, within=0.5)
        assert len(daemon.verdicts) == 1
        assert eventually(lambda: not any(is_open(ends.client, one, within=0.3) for one in families(ends)))


def families(ends: Ends) -> tuple[str, str]:
    return ends.host.ipv4, ends.host.ipv6


def lose(ends: Ends, *rules: str) -> None:
    """Have the client's network lose packets."""
    ends.client.nft(f"table inet lossy {{ chain out {{ type filter hook output priority 0; {'; '.join(rules)}; }}; }}")


def test_where_no_packet_is_lost_each_names_both_and_both_are_open(ends: Ends) -> None:
    used_store(ends.folder)
    with both_addresses(ends), doorwardd(ends.host, ends.folder, ends.access, ends.config) as daemon:
        ends.doorward("knock", *DUAL)
        daemon.wait_for("second_source=", 2)
        assert all(is_open(ends.client, one) for one in families(ends))
        assert [line.split()[0] for line in daemon.verdicts] == ["verdict=granted"] * 2


@pytest.mark.parametrize("source", ["10.77.0.0/24", "fd77::/64"])
def test_a_stanza_of_one_family_lets_in_that_one(ends: Ends, source: str) -> None:
    used_store(ends.folder)
    access = ends.access.replace("SOURCE ANY", f"SOURCE {source}")
    allowed, other = families(ends) if ":" not in source else families(ends)[::-1]
    refused = ends.client.ipv6 if ":" not in source else ends.client.ipv4
    with both_addresses(ends), doorwardd(ends.host, ends.folder, access, ends.config) as daemon:
        ends.doorward("knock", *DUAL)
        line = daemon.wait_for("reason=granted")
        assert line.endswith(f'detail="the other source is not let in: {refused} is not in SOURCE"')
        daemon.wait_for("reason=no_stanza")  # the packet from the other family
        assert is_open(ends.client, allowed)
        assert not is_open(ends.client, other, within=0.5)


def test_a_connection_in_one_family_comes_up_by_a_packet_of_the_other(ends: Ends) -> None:
    used_store(ends.folder)
    rc = ends.home / ".fwknoprc"
    write(rc, rc.read_text().replace(ends.host.ipv4, "dual.example"))
    lose(ends, f"ip daddr {ends.host.ipv4} tcp dport 22 drop", f"ip6 daddr {ends.host.ipv6} udp dport 62201 drop")
    with both_addresses(ends), doorwardd(ends.host, ends.folder, ends.access, ends.config) as daemon:
        origin = connected(ends, "dual.example")
        assert origin == ends.client.ipv6
        assert f"source={ends.client.ipv4} second_source={ends.client.ipv6}" in daemon.wait_for("reason=granted")


@contextlib.contextmanager
def both_addresses(ends: Ends) -> Iterator[None]:
    """Give the host a name with two addresses; `ip netns exec` puts these files over those of /etc."""
    folder = Path("/etc/netns") / ends.client.name
    folder.mkdir(parents=True)
    (folder / "hosts").write_text(f"{ends.host.ipv6} dual.example\n{ends.host.ipv4} dual.example\n")
    try:
        yield
    finally:
        (folder / "hosts").unlink()
        folder.rmdir()


def test_a_packet_that_names_no_source_needs_the_stanzas_leave(ends: Ends) -> None:
    used_store(ends.folder)
    with doorwardd(ends.host, ends.folder, ends.access, ends.config) as daemon:
        ends.doorward("knock", "-n", "web1", "-s")
        assert "name=alice@laptop" in daemon.wait_for("reason=source_required")
        write(ends.folder / "access.conf", f"{ends.access}REQUIRE_SOURCE_ADDRESS N\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the configuration was read again")
        ends.doorward("knock", "-n", "web1", "-s")
        daemon.wait_for("reason=granted")
        assert is_open(ends.client, ends.host.ipv4)


@pytest.mark.parametrize("family", [4, 6])
def test_a_knock_lets_in_the_network_that_it_asks_for(ends: Ends, family: int) -> None:
    used_store(ends.folder)
    host = ends.host.ipv4 if family == 4 else ends.host.ipv6
    prefix, too_wide, network = ("24", "23", "10.77.0.0/24") if family == 4 else ("64", "63", "fd77::/64")
    access = f"{ends.access}MAX_PREFIX4 24\nMAX_PREFIX6 64\n"
    knock = ("knock", "-n", "web1", "-D", host, "-A", "tcp/22")
    with doorwardd(ends.host, ends.folder, access, ends.config) as daemon:
        ends.doorward(*knock, "--prefix", too_wide)
        assert f"a network with a prefix of {too_wide}, wider than" in daemon.wait_for("reason=unsupported")
        ends.doorward(*knock)
        daemon.wait_for("reason=granted")
        assert is_open(ends.client, host)
        assert not is_open(ends.outsider, host, within=0.5)
        ends.doorward(*knock, "--prefix", prefix, "-f", "60")
        assert f"source={network} services=tcp/22" in daemon.wait_for("reason=granted", 2)
        assert is_open(ends.outsider, host)
        console = (sys.executable, "-m", "doorward")
        told = ends.host.run(*console, "status", *files(ends.folder), check=False, env=ends.variables).stdout
        assert f"{network} " in told, told
        ends.host.run(
            *console,
            "close",
            "--from",
            ends.outsider.ipv4 if family == 4 else ends.outsider.ipv6,
            *files(ends.folder),
            env=ends.variables,
        )
        assert not is_open(ends.outsider, host, within=0.5)
        write(ends.home / ".fwknoprc", f"{(ends.home / '.fwknoprc').read_text()}PREFIX {prefix}\n")
        ends.doorward(*knock)
        daemon.wait_for(f"source={network}", 2)
        assert is_open(ends.outsider, host)
        assert eventually(lambda: not is_open(ends.outsider, host, within=0.3))
