"""Debian's fwknop and doorward as the two ends: both clients send every combination, both daemons read captures."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.capture import http
from doorward.capture.pcap import FileCapture
from doorward.config import access
from doorward.config import settings as config_settings
from doorward.config.files import Disk
from doorward.gate import Gate
from doorward.replay import ReplayStore
from interop.formats import COMBINATIONS, DAEMON_FILE, access_file, client_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from doorward.config.settings import DaemonSettings
    from doorward.gate import Verdict
    from doorward.values import Datagram
    from interop.formats import Combination
    from system.netns import Namespace

TESTS: Final = Path(__file__).resolve().parents[1]
CLIENTS: Final = 2  # processes at a time
_FIELD: Final = re.compile(r"^ *([A-Z][A-Za-z ]+): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client said of one packet that it sent, by the labels of its dump; `failure` where it sent none."""

    fields: dict[str, str]
    failure: str = ""

    @property
    def payload(self) -> bytes:
        """What it put into its carrier."""
        assert not self.failure, self.failure
        return self.fields["Final SPA Data"].encode()

    @property
    def plaintext(self) -> str:
        """What it encrypted."""
        assert not self.failure, self.failure
        return f"{self.fields['Encoded Data']}:{self.fields['SPA Data Digest']}"


def sent(code: int, out: str, err: str) -> Sent:
    """Return what a run of a client came to; only the first of its two dumps has the tag."""
    if code != 0:
        return Sent({}, f"exit {code}: {out}{err}")
    return Sent(dict(_FIELD.findall(out.partition("Generating SPA packet")[0])))


def write_client_file(folder: Path) -> Path:
    """Write the file that both clients read."""
    return _private(folder / "fwknoprc", client_file())


def _private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def send_by_fwknop(client: Namespace, folder: Path) -> list[Sent]:
    """Send every combination by fwknop's client, a run for each."""
    rc_file = write_client_file(folder)

    def send(combination: Combination) -> Sent:
        command = ["fwknop", "--rc-file", str(rc_file), "--no-save-args", "-v", *combination.options]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
            timeout=60,
        )
        return sent(done.returncode, done.stdout, done.stderr)

    def send_some(some: Sequence[Combination]) -> list[Sent]:
        with client.inside():  # children belong to this thread's namespace
            return [send(combination) for combination in some]

    return _in_parts(send_some)


def send_by_doorward(client: Namespace, folder: Path) -> list[Sent]:
    """Send every combination by our client's command line."""
    rc_file = write_client_file(folder)

    def send_some(some: Sequence[Combination]) -> list[Sent]:
        lines = [["--rc-file", str(rc_file), "--no-save-args", "-v", *combination.options] for combination in some]
        done = client.run(
            sys.executable,
            str(TESTS / "interop/our_client.py"),
            input="".join(f"{json.dumps(line)}\n" for line in lines),
            timeout=280,
            env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(TESTS.parent / "daemon")},
        )
        return [sent(*json.loads(line)) for line in done.stdout.splitlines()]

    return _in_parts(send_some)


def _in_parts(send_some: object) -> list[Sent]:
    """Return what sending came to, in the combinations' order; the parts are sent at the same time."""
    assert callable(send_some)
    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = list(pool.map(send_some, [COMBINATIONS[start::CLIENTS] for start in range(CLIENTS)]))
    return [parts[number % CLIENTS][number // CLIENTS] for number in range(len(COMBINATIONS))]


@dataclass(frozen=True, slots=True)
class Read:
    """What fwknopd said of one packet: the labels of its dump, and the line that says what it would do."""

    fields: dict[str, str]
    outcome: str


def read_by_fwknopd(capture: Path, folder: Path, frames: int) -> dict[str, list[Read]]:
    """Return what fwknopd made of a capture, by the source that each packet asked for."""
    return _reads(read_capture(capture, folder, frames, access_file()))


def read_capture(capture: Path, folder: Path, frames: int, access_text: str) -> str:
    """Return what fwknopd logs of a capture; it changes nothing.

    `frames` is how many the capture has: fwknopd does not end at the end of a file.
    """
    _private(folder / "access.conf", access_text)
    _private(folder / "fwknopd.conf", DAEMON_FILE)
    files = ["-c", "fwknopd.conf", "-a", "access.conf", "-d", "digests", "-p", "pid", "-r", str(folder / "fwknopd")]
    reading = ["--pcap-file", str(capture), "-f", "-t", "-v", "-v", "-C", str(frames), "--no-ipt-check-support"]
    done = subprocess.run(
        ["fwknopd", *files, *reading],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def _reads(log: str) -> dict[str, list[Read]]:
    found: dict[str, list[Read]] = {}
    for _, _, rest in (part.partition("SPA Decode") for part in log.split("received with access source match")[1:]):
        fields = dict(_FIELD.findall(rest))
        outcome = next((line for line in rest.splitlines() if "(stanza #" in line), "")
        source = fields.get("Message String", "").partition(",")[0]
        found.setdefault(source, []).append(Read(fields, outcome))
    return found


def judge(capture: Path, folder: Path) -> dict[str, list[Verdict]]:
    """Return doorward's verdicts on a capture, by the source that each packet asked for.

    The files are read, the packets parsed and judged as doorwardd does it; what a verdict would cause is not done.
    """
    settings = config_settings.parse(folder / "fwknopd.conf", DAEMON_FILE.encode()).settings
    stanzas = access.parse(folder / "access.conf", access_file().encode(), settings, Disk()).stanzas
    memory = ReplayStore(folder / "replay.db")
    # a capture is read later than it was made: fwknopd does not ask for the age of packets in a file either
    gate = Gate(stanzas, memory, lambda _: None, None, permissions=settings.permissions, execute=lambda _: None)
    verdicts: dict[str, list[Verdict]] = {}
    for datagram in datagrams(capture, settings):
        verdict = gate.judge(datagram, time.time())
        asked = verdict.grant or verdict.execution
        verdicts.setdefault(str(asked.source if asked else None), []).append(verdict)
    memory.close()
    return verdicts


def datagrams(capture: Path, settings: DaemonSettings) -> Iterator[Datagram]:
    """Yield what doorwardd finds in a capture."""
    source = FileCapture(os.open(capture, os.O_RDONLY), settings.carriers)
    with contextlib.closing(source):
        while not source.ended:
            datagram = source.receive()
            if datagram is not None:
                yield http.read(datagram, http.Rules()) if settings.http else datagram
