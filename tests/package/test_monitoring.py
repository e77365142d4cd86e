"""docs/monitoring and METRICS_FILE by Prometheus' own tool: it takes them all, and each alert fires."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

import programs
from repository.test_monitoring import ALERTS, CONTENT, RULES, expressions

if TYPE_CHECKING:
    from pathlib import Path

START: Final = 400 * 86_400  # seconds, from which the tests of alerts count back


def told(*words: str, content: bytes = b"") -> tuple[int, str]:
    """The exit code of promtool, and what it prints."""
    programs.require("promtool")
    done = subprocess.run(["promtool", *words], input=content, check=False, capture_output=True, timeout=120)
    return done.returncode, (done.stdout + done.stderr).decode()


def promtool(*words: str, content: bytes = b"") -> str:
    """What promtool prints; it must find nothing."""
    code, said = told(*words, content=content)
    assert code == 0, said
    return said


def test_prometheus_finds_nothing_to_say_about_the_file() -> None:
    assert promtool("check", "metrics", content=CONTENT) == ""


def test_prometheus_would_find_something_in_a_worse_one() -> None:
    with pytest.raises(AssertionError, match="no help text"):
        promtool("check", "metrics", content=re.sub(rb"# HELP doorward_closed.*\n", b"", CONTENT))
    with pytest.raises(AssertionError, match="error while linting"):
        promtool("check", "metrics", content=CONTENT + b"doorward_closed{ 1\n")


def test_prometheus_takes_the_rules() -> None:
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))


def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    def check(expressions: dict[str, str]) -> str:
        rules = [{"record": f"panel:{place}", "expr": one} for place, one in enumerate(expressions.values())]
        (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        return promtool("check", "rules", str(tmp_path / "rules.yml"))

    assert f"SUCCESS: {len(expressions())} rules found" in check(expressions())
    for title, one in expressions().items():
        with pytest.raises(AssertionError, match="could not parse expression"):
            check({title: f"{one})"})


# ---- each alert fires, and is silent where all is well ---------------------------------------------------------------

WELL: Final = {  # series of a host where all is well: value, and what is added each minute
    "doorward_closed": "1+0x200",
    "doorward_table_intact": "1+0x200",
    'doorward_doubt{cause="open"}': "0+0x200",
    'doorward_policy{policy="drop"}': "1+0x200",
    'doorward_policy{policy="failure"}': "0+0x200",
    'doorward_packets_total{reason="granted"}': "0+5x200",
    'doorward_packets_total{reason="hmac"}': "0+50x200",
    **{
        f'doorward_packets_total{{reason="{reason}"}}': "0+0x200"
        for reason in ("store", "firewall", "internal", "replay", "code", "stale", "busy")
    },
    "doorward_dropped_packets_total": "3+0x200",
    "doorward_replay_packets": "10+1x200",
    "doorward_replay_packets_max": "1000000+0x200",
    "doorward_exec_waiting_orders": "0+0x200",
    "doorward_last_update_timestamp_seconds": "0+60x200",
    'doorward_key_timestamp_seconds{file="/etc/doorward/access.conf"}': "0+0x200",
    'doorward_last_knock_timestamp_seconds{name="laptop"}': "0+0x200",
    'doorward_build_info{version="2"}': "1+0x200",
}
DISTURBED: Final = {  # alert: a series that is otherwise, and the minute at which it must fire
    "DoorwardSilent": ("doorward_last_update_timestamp_seconds", "0+60x20 1200+0x180", 30),
    "DoorwardGone": ("doorward_last_update_timestamp_seconds", "0+60x80 stale", 100),
    "DoorwardNotClosed": ("doorward_closed", "1+0x10 0+0x190", 15),
    "DoorwardDoubt": ('doorward_doubt{cause="open"}', "0+0x10 1+0x190", 15),
    "DoorwardTableChanged": ("doorward_table_intact", "1+0x10 0+0x190", 15),
    "DoorwardPolicy": ('doorward_policy{policy="failure"}', "0+0x10 1+0x190", 25),
    "DoorwardRefusesAll": ('doorward_packets_total{reason="store"}', "0+0x10 1+0x190", 15),
    "DoorwardReplayed": ('doorward_packets_total{reason="replay"}', "0+0x10 1+0x190", 15),
    "DoorwardGuessing": ('doorward_packets_total{reason="code"}', "0+0x10 12+0x190", 15),
    "DoorwardClocks": ('doorward_packets_total{reason="stale"}', "0+0x10 9+0x190", 15),
    "DoorwardDropsPackets": ("doorward_dropped_packets_total", "3+0x10 4+9x190", 25),
    "DoorwardReplayStoreFull": ("doorward_replay_packets", "10+0x10 900000+0x190", 15),
    "DoorwardGnupgBusy": ('doorward_packets_total{reason="busy"}', "0+0x10 1+0x190", 15),
    "DoorwardExecBehind": ("doorward_exec_waiting_orders", "0+0x10 2+0x190", 15),
    "DoorwardKeysOld": (
        'doorward_key_timestamp_seconds{file="/etc/doorward/access.conf"}', f"{-START}+0x200", 15,
    ),
    "DoorwardClientUnused": ('doorward_last_knock_timestamp_seconds{name="laptop"}', f"{-START}+0x200", 15),
    "DoorwardVersions": ('doorward_build_info{version="1"}', "1+0x2000", 1500),
}  # fmt: skip
MEANT_TOO: Final = {"DoorwardNotClosed", "DoorwardDoubt", "DoorwardTableChanged", "DoorwardSilent", "DoorwardGone"}


def fired(folder: Path, disturbed: dict[str, str], minute: int) -> set[str]:
    """The alerts that fire at a minute, by promtool's word on each."""
    series = WELL | disturbed
    if minute > 200:  # the length of the series
        series = {name: values.replace("x200", "x2000") for name, values in series.items()}
    listed = [{"series": _labelled(name), "values": values} for name, values in series.items()]
    asked = [{"eval_time": f"{minute}m", "alertname": alert["alert"]} for alert in ALERTS]
    tests = [{"interval": "1m", "input_series": listed, "alert_rule_test": asked}]
    file = folder / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    said = told("test", "rules", str(file))[1]
    assert "SUCCESS" in said or "FAILED:" in said, said
    return set(re.findall(r"alertname: (\w+), time:", said))  # an expected nothing, and something was there


def _labelled(series: str) -> str:
    name, _, labels = series.partition("{")
    return f'{name}{{instance="h"{"," + labels.rstrip("}") if labels else ""}}}'


def test_no_alert_fires_where_all_is_well(tmp_path: Path) -> None:
    assert fired(tmp_path, {}, 150) == set()


@pytest.mark.parametrize("alert", [alert["alert"] for alert in ALERTS])
def test_an_alert_fires(tmp_path: Path, alert: str) -> None:
    series, values, minute = DISTURBED[alert]
    found = fired(tmp_path, {series: values}, minute)
    assert alert in found
    assert found <= MEANT_TOO | {alert}
