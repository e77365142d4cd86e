"""Our client's packets against Debian's own fwknopd: captured live in a namespace, opened by real iptables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system import netns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
DIGESTS = ("md5", "sha1", "sha256", "sha384", "sha512", "sha3_256", "sha3_512")
MODES = ("cbc", "ecb", "cfb", "ofb", "ctr")
PATIENCE = 20.0  # seconds until a missing rule counts as missing

FWKNOPD_CONF = """\
PCAP_INTF eth0;
PCAP_FILTER udp port 62201;
ENABLE_IPT_COMMENT_CHECK N;
"""


@dataclass(frozen=True, slots=True)
class Key:
    """The keys of one stanza, as `doorward keys generate` prints them."""

    key: str
    hmac_key: str

    @classmethod
    def new(cls) -> Key:
        printed = subprocess.run(
            [sys.executable, "-m", "doorward", "keys", "generate"],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(DAEMON)},
        ).stdout
        match = re.fullmatch(r"KEY_BASE64: (\S+)\nHMAC_KEY_BASE64: (\S+)\n", printed)
        assert match
        return cls(match[1], match[2])


@dataclass(frozen=True, slots=True)
class Peer:
    """A running fwknopd, the client's namespace beside it, and the keys by stanza name."""

    host: Namespace
    client: Namespace
    keys: dict[str, Key]
    folder: Path

    def knock(self, stanza: str, *options: str, key: Key | None = None) -> None:
        """Knock with a client file of our own making."""
        chosen = key or self.keys[stanza]
        rc_file = self.folder / "fwknoprc"
        rc_file.write_text(
            f"[default]\nSPA_SERVER {self.host.ipv4}\n[{stanza}]\n"
            f"KEY_BASE64 {chosen.key}\nHMAC_KEY_BASE64 {chosen.hmac_key}\n"
        )
        rc_file.chmod(0o600)
        command = [sys.executable, "-m", "doorward", "knock", "--rc-file", str(rc_file), "-n", stanza, *options]
        self.client.run(*command, env={**os.environ, "PYTHONPATH": str(DAEMON)})

    def rules(self) -> str:
        """Return fwknopd's chain as iptables prints it."""
        return self.host.run("iptables", "-w", "-S", "FWKNOP_INPUT", check=False).stdout

    def opens(self, port: int) -> bool:
        """Wait until fwknopd has let the client's address in to a port; False when it does not come."""
        end = time.monotonic() + PATIENCE
        rule = re.compile(rf"-s {re.escape(self.client.ipv4)}/32 .*--dport {port} ")
        while time.monotonic() < end:
            if rule.search(self.rules()):
                return True
            time.sleep(0.05)
        return False


def _stanza(key: Key, hmac: str, mode: str) -> str:
    return (
        f"SOURCE ANY\nKEY_BASE64 {key.key}\nHMAC_KEY_BASE64 {key.hmac_key}\nHMAC_DIGEST_TYPE {hmac}\n"
        f"ENCRYPTION_MODE {mode}\nFW_ACCESS_TIMEOUT 600\n"
    )


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    folder = tmp_path_factory.mktemp("fwknopd")
    keys = {f"hmac-{name}": Key.new() for name in DIGESTS} | {f"mode-{name}": Key.new() for name in MODES}
    stanzas = [_stanza(keys[f"hmac-{name}"], name, "cbc") for name in DIGESTS]
    stanzas += [_stanza(keys[f"mode-{name}"], "sha256", name) for name in MODES]
    (folder / "access.conf").write_text("\n".join(stanzas))
    (folder / "fwknopd.conf").write_text(FWKNOPD_CONF)
    for file in folder.iterdir():
        file.chmod(0o600)
    with netns.network("fwknopd", "client") as (host, client):
        paths = ["-c", "fwknopd.conf", "-a", "access.conf", "-d", "digests", "-p", "pid", "-r", str(folder)]
        with (
            (folder / "log").open("w") as log,
            host.process("fwknopd", "-f", *paths, cwd=folder, stdout=log, stderr=log) as daemon,
        ):
            _until_ready(folder / "log", daemon)
            yield Peer(host, client, keys, folder)


def _until_ready(log: Path, daemon: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while "Starting fwknopd main event loop" not in log.read_text():
        assert daemon.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("hmac", DIGESTS)
def test_fwknopd_opens_for_a_packet_with_the_hmac(peer: Peer, hmac: str) -> None:
    port = 1100 + DIGESTS.index(hmac)
    assert f"--dport {port} " not in peer.rules()
    peer.knock(f"hmac-{hmac}", "-A", f"tcp/{port}", "--hmac-digest-type", hmac)
    assert peer.opens(port), (peer.folder / "log").read_text()


@pytest.mark.parametrize("digest", DIGESTS)
def test_fwknopd_opens_for_a_packet_with_the_digest_inside(peer: Peer, digest: str) -> None:
    port = 1200 + DIGESTS.index(digest)
    assert f"--dport {port} " not in peer.rules()
    peer.knock("hmac-sha256", "-A", f"tcp/{port}", "-m", digest)
    assert peer.opens(port), (peer.folder / "log").read_text()


@pytest.mark.parametrize("mode", MODES)
def test_fwknopd_opens_for_a_packet_in_the_encryption_mode(peer: Peer, mode: str) -> None:
    port = 1300 + MODES.index(mode)
    peer.knock(f"mode-{mode}", "-A", f"tcp/{port}", "-M", mode)
    assert peer.opens(port), (peer.folder / "log").read_text()


def test_fwknopd_opens_all_services_that_one_packet_asks_for(peer: Peer) -> None:
    peer.knock("hmac-sha256", "-A", "tcp/1400,udp/1401")
    assert peer.opens(1400)
    assert peer.opens(1401)


def test_fwknopd_lets_the_origin_in_when_the_packet_names_no_source(peer: Peer) -> None:
    peer.knock("hmac-sha256", "-A", "tcp/1500", "-s")
    assert peer.opens(1500)


def test_fwknopd_closes_after_the_window_that_the_client_asked_for(peer: Peer) -> None:
    before = int(time.time())
    peer.knock("hmac-sha256", "-A", "tcp/1600", "-f", "200")
    assert peer.opens(1600)
    match = re.search(r"--dport 1600 .*_exp_(\d+)", peer.rules())
    assert match
    assert 200 <= int(match[1]) - before <= 200 + PATIENCE


def test_fwknopd_refuses_our_packet_under_another_key_and_takes_the_next_good_one(peer: Peer) -> None:
    peer.knock("hmac-sha256", "-A", "tcp/1700", key=Key.new())
    peer.knock("hmac-sha256", "-A", "tcp/1701")  # packets arrive in order: once this opens, the former was judged
    assert peer.opens(1701)
    assert "--dport 1700 " not in peer.rules()


def _fields(*command: str) -> list[tuple[str, str]]:
    shown = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(DAEMON)},
    ).stdout
    first_dump = shown.partition("Generating SPA packet")[0]
    return re.findall(r"^ *([A-Z][A-Za-z ]+): (.*)$", first_dump, re.MULTILINE)


CHANGING = {"Random Value", "Timestamp", "Encoded Data", "SPA Data Digest", "HMAC", "Final SPA Data"}
RC_FILE = """\
# a file as people have it

[default]
DIGEST_TYPE         sha384
SPOOF_USER:         alice;      # a note
KEY                 a passphrase
[web1]
SPA_SERVER          127.0.0.1
SPA_SERVER_PORT     62222
ALLOW_IP            192.0.2.4
ACCESS              tcp/22,udp/53
FW_TIMEOUT          45
USE_HMAC            Y
HMAC_KEY            another;
HMAC_DIGEST_TYPE    sha3_256
NO_SAVE_ARGS        Y
[other]
USE_GPG             Y
"""


@pytest.mark.parametrize(
    "options",
    [
        ["-n", "web1"],
        ["-n", "WEB1", "-A", "tcp/80", "-a", "198.51.100.1", "-f", "0"],
        ["-n", "web1", "-m", "md5", "--hmac-digest-type", "sha1", "-U", "bob", "-s"],
        ["-n", "web1", "-M", "ctr", "--time-offset-minus", "5m", "-p", "1000"],
    ],
    ids=" ".join,
)
def test_both_clients_understand_a_file_and_a_command_line_alike(options: list[str], tmp_path: Path) -> None:
    rc_file = tmp_path / "fwknoprc"
    rc_file.write_text(RC_FILE)
    rc_file.chmod(0o600)
    common = ["--rc-file", str(rc_file), "--test", "-v", "--no-save-args", *options]
    theirs = _fields("fwknop", *common)
    ours = _fields(sys.executable, "-m", "doorward", *common)
    assert [label for label, _ in ours] == [label for label, _ in theirs]
    assert len(ours) == 17
    same = [(field, text) for field, text in ours if field not in CHANGING]
    assert same == [(field, text) for field, text in theirs if field not in CHANGING]
    assert [len(text) for label, text in ours if label == "HMAC"] == [
        len(text) for label, text in theirs if label == "HMAC"
    ]
