"""The files of a real fwknop installation: Debian's own, and everything that they may include."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from system.doorwardd import Running, command, environment, eventually, is_open, listener, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

INSTALLED = Path("/etc/fwknop")  # of the package fwknop-server
KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 5)]


@contextlib.contextmanager
def started(host: Namespace, folder: Path, *files: str) -> Iterator[Running]:
    """Yield a doorwardd with these files and with nothing else said but where its state goes."""
    argv = command("-f", *files, "-r", str(folder / "run"))
    with host.process(*argv, env=environment()) as process:
        running = Running(process, folder)
        reader = threading.Thread(target=running.take, daemon=True)
        reader.start()
        running.wait_for("listening for knocks")
        yield running
        process.terminate()
        process.wait(10)
        reader.join(10)


def knock(client: Namespace, folder: Path, host: str, key: str, hmac_key: str, *what: str) -> None:
    """Send a packet with Debian's fwknop."""
    keys = ("--use-hmac", "--key-base64-rijndael", key, "--key-base64-hmac", hmac_key)
    home = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    argv = ("fwknop", "--no-rc-file", "--no-save-args", "-a", client.ipv4, "-D", host, *keys, *what)
    client.run(*argv, env=home, stdin=subprocess.DEVNULL)


def two_stanzas() -> str:
    """Return Debian's access.conf with its stanza filled in, and one more."""
    first, second = KEYS[:2], KEYS[2:]
    shipped = (INSTALLED / "access.conf").read_text()
    filled = shipped.replace("__CHANGEME__", first[0], 1).replace("__CHANGEME__", first[1], 1)
    more = f"SOURCE: 10.0.0.0/8;\nOPEN_PORTS: tcp/2222;\nKEY_BASE64: {second[0]};\nHMAC_KEY_BASE64: {second[1]};\n"
    return f"{filled}\n{more}REQUIRE_SOURCE_ADDRESS: Y;\nFW_ACCESS_TIMEOUT: 60;\n"


def test_debians_files_with_two_stanzas_start_doorwardd_unchanged(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    access = write(tmp_path / "access.conf", two_stanzas())
    files = ("-c", str(INSTALLED / "fwknopd.conf"), "-a", str(access))
    fwknopd = subprocess.run(
        ["fwknopd", *files, "-r", str(tmp_path), "--exit-parse-config"], check=False, capture_output=True, timeout=30
    )
    assert fwknopd.returncode == 0, "the same files start fwknopd"
    with listener(host, 22), listener(host, 2222), started(host, tmp_path, *files) as daemon:
        assert not is_open(client, host.ipv4, 2222, within=0.5)
        knock(client, tmp_path, host.ipv4, *KEYS[:2], "-A", "tcp/22")
        first = daemon.wait_for("verdict=granted reason=granted")
        assert f"stanza=1 user=root source={client.ipv4} services=tcp/22 seconds=30" in first
        knock(client, tmp_path, host.ipv4, *KEYS[2:], "-A", "tcp/2222")
        second = daemon.wait_for("verdict=granted reason=granted", 2)
        assert f"stanza=2 user=root source={client.ipv4} services=tcp/2222 seconds=60" in second
        assert is_open(client, host.ipv4, 2222)
        told = daemon.wait_for(
            f"Added access rule to FWKNOP_INPUT for {client.ipv4} -> 0.0.0.0/0 tcp/2222, expires at "
        )
        assert told.split()[-1].isdigit(), "fwknopd's own line stands beside ours"


def test_included_files_reach_the_listener_which_cannot_read_them(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "one.conf", "SOURCE ANY\nOPEN_PORTS tcp/22\n%include_keys ../one.key\n")
    write(tmp_path / "d" / "two.conf~", "not a stanza\n")
    write(tmp_path / "one.key", f"KEY_BASE64 {KEYS[0]}\nHMAC_KEY_BASE64 {KEYS[1]}\n")
    access = write(tmp_path / "access.conf", "%include_folder d\n")
    config = write(tmp_path / "fwknopd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\n")
    tmp_path.chmod(0o700)
    with started(host, tmp_path, "-c", str(config), "-a", str(access)) as daemon:
        knock(client, tmp_path, host.ipv4, *KEYS[:2], "-A", "tcp/22")
        daemon.wait_for("reason=granted")
        write(tmp_path / "d" / "two.conf", f"SOURCE ANY\nKEY_BASE64 {KEYS[2]}\nHMAC_KEY_BASE64 {KEYS[3]}\n")
        daemon.process.send_signal(1)
        daemon.wait_for("the configuration was read again")
        knock(client, tmp_path, host.ipv4, *KEYS[2:], "-A", "tcp/23")
        daemon.wait_for("stanza=2 user=root")
        write(tmp_path / "d" / "two.conf", "%include ../access.conf\n")
        daemon.process.send_signal(1)
        daemon.wait_for(f"{tmp_path}/d/two.conf:1: %include: ")
        daemon.wait_for("the configuration is refused, the old one stays")
        knock(client, tmp_path, host.ipv4, *KEYS[2:], "-A", "tcp/24")
        daemon.wait_for("services=tcp/24")


def test_access_folder_and_override_files_count(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    (tmp_path / "clients").mkdir()
    write(tmp_path / "clients" / "b.conf", f"SOURCE ANY\nKEY_BASE64 {KEYS[0]}\nHMAC_KEY_BASE64 {KEYS[1]}\n")
    config = write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\nPCAP_FILTER udp port 1000;\n")
    override = write(tmp_path / "more.conf", "PCAP_FILTER udp port 2000;\nLOG_STYLE fwknop;\n")
    audit = tmp_path / "audit.log"
    more = write(tmp_path / "most.conf", f"PCAP_FILTER udp port 3000;\nAUDIT_FILE {audit};\n")
    files = ("-c", str(config), "-O", f"{override},{more}", "--access-folder", str(tmp_path / "clients"))
    with started(host, tmp_path, *files) as daemon:
        assert "udp 3000 (passive)" in daemon.wait_for("listening for knocks")
        knock(client, tmp_path, host.ipv4, *KEYS[:2], "-A", "tcp/22", "-p", "3000")
        daemon.wait_for("Added access rule to FWKNOP_INPUT")
        assert eventually(lambda: "verdict=granted" in audit.read_text()), "AUDIT_FILE has our line in every style"
        assert not daemon.verdicts, "and the log has fwknopd's lines alone"
