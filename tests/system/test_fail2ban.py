"""The fail2ban filter that we ship, by fail2ban's own tool, on lines that a real daemon wrote."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system.doorwardd import ACCESS, doorwardd, send, used_store
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from system.netns import Namespace

ROLE = Path(__file__).parents[2] / "collections/ansible_collections/doorward/spa/roles/daemon"
FILTER = ROLE / "files/fail2ban/filter.conf"
SYSLOG = "Nov 21 05:00:00 host {}[4711]: {}"
ISO = "2026-11-21T05:00:00.123456+00:00 host {}[4711]: {}"
AUDIT = "2026-11-21T05:00:00.123+00:00 {1} hash=0011"


def failures(folder: Path, line: str) -> list[str]:
    """Return the addresses that fail2ban would count a failure of."""
    return told(folder, [line], "doorward", "-o", "ip").split()


def counted(folder: Path, lines: Sequence[str], mode: str) -> list[str]:
    """Return the lines that fail2ban would count, as they are in the log."""
    shown = told(folder, lines, mode, "--print-all-matched")
    _, _, matched = shown.partition("|- Matched line(s):\n")
    return [line.removeprefix("|  ") for line in matched.partition("`-")[0].splitlines()]


def told(folder: Path, lines: Sequence[str], mode: str, *options: str) -> str:
    """Return what fail2ban's own tool prints about a log with these lines."""
    log = folder / "log"
    log.write_text("".join(f"{line}\n" for line in lines))
    filters = folder / "fail2ban" / "filter.d"
    filters.mkdir(parents=True, exist_ok=True)
    shutil.copy(FILTER, filters / "doorward.conf")
    shutil.copy("/etc/fail2ban/filter.d/common.conf", filters)
    argv = ["fail2ban-regex", "-c", str(filters.parent), *options, str(log), f"doorward[mode={mode}]"]
    found = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONWARNINGS": "ignore"}
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def knocks() -> dict[str, bytes]:
    """Return one packet for every kind of verdict that a stranger or a client can have."""
    now = int(time.time())
    good = payload(message(time=now, text="0.0.0.0,tcp/22"), KEYS)
    wrong = good[:-9] + (b"A" if good[-9:-8] != b"A" else b"B") + good[-8:]
    return {
        "granted": good,
        "replay": good,
        "hmac": wrong,
        "stale": payload(message(time=now - 1000, text="0.0.0.0,tcp/22"), KEYS),
        "services": payload(message(time=now, text="0.0.0.0,tcp/23"), KEYS),
        "malformed": b"?" * 200,
    }


@pytest.mark.parametrize("form", ["line", "json"])
def test_of_a_real_daemons_lines_only_what_no_stanza_accepted_counts(
    pair: tuple[Namespace, Namespace], tmp_path: Path, form: str
) -> None:
    host, client = pair
    stanza = ACCESS.replace("SOURCE ANY", "SOURCE 10.77.0.0/16")
    used_store(tmp_path)
    said = "reason={} " if form == "line" else '"reason": "{}", '
    with doorwardd(host, tmp_path, stanza, f"LOG_STYLE both;\nLOG_FORMAT {form};\n") as daemon:
        for reason, packet in knocks().items():
            send(client, packet, host.ipv4)
            daemon.wait_for(said.format(reason))
        send(client, knocks()["hmac"], host.ipv6)
        daemon.wait_for(said.format("no_stanza"))
        lines = list(daemon.lines)
    logged = [SYSLOG.format("doorwardd", line) for line in lines]
    before = len(SYSLOG.format("doorwardd", ""))
    ours, fwknops = ([line[before:] for line in counted(tmp_path, logged, mode)] for mode in ("doorward", "fwknop"))
    assert [re.findall(r"reason\W+(\w+)", line) for line in ours] == [["hmac"], ["no_stanza"]]
    assert [line.split(" ")[0] for line in fwknops] == [f"[{client.ipv4}]", "No"]


DENIED = "verdict=denied reason=hmac origin=192.0.2.9 origin_port=4000 stanza=1"


OBJECT = json.dumps(
    {"time": "2026-11-21T05:00:00.123+00:00", "verdict": "denied", "reason": "hmac", "origin": "192.0.2.9"}
    | {"origin_port": 4000, "stanza": 1}
)


@pytest.mark.parametrize("line", [DENIED, OBJECT], ids=["line", "json"])
@pytest.mark.parametrize("frame", [SYSLOG, ISO, AUDIT])
@pytest.mark.parametrize("identity", ["doorwardd", "fwknopd"])
def test_a_failure_is_found_wherever_the_line_was_written(tmp_path: Path, frame: str, identity: str, line: str) -> None:
    assert failures(tmp_path, frame.format(identity, line)) == ["192.0.2.9"]
    assert not failures(tmp_path, frame.format(identity, line.replace("denied", "granted").replace("hmac", "granted")))


@pytest.mark.parametrize(
    "line",
    [
        f'verdict=denied reason=username origin=192.0.2.9 origin_port=1 stanza=1 detail="{DENIED}"',
        "user said: " + DENIED,
        "test=yes " + DENIED,
        DENIED.replace("hmac", "replay"),
        DENIED.replace("hmac", "signature"),
        DENIED.replace("hmac", "firewall"),
        OBJECT.replace("hmac", "replay"),
        OBJECT.replace('"verdict"', '"test": true, "verdict"'),
        "user said: " + OBJECT,
        json.dumps({"time": "t", "verdict": "denied", "reason": "username", "origin": "192.0.2.9", "user": OBJECT}),
    ],
)
def test_nothing_else_is_a_failure_whatever_is_in_the_line(tmp_path: Path, line: str) -> None:
    assert not failures(tmp_path, SYSLOG.format("doorwardd", line))
    assert failures(tmp_path, SYSLOG.format("doorwardd", DENIED)) == ["192.0.2.9"], "the tool would have seen it"


def test_the_jail_is_off_until_somebody_has_read_its_warning() -> None:
    jail = (FILTER.parent / "jail.conf").read_text()
    assert "enabled  = false" in jail
    assert "shuts YOU out" in jail
