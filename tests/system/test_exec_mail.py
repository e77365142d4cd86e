"""Mail on verdicts, through a stub in sendmail's place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from system.doorwardd import eventually, is_open, listener, send, write
from system.executing import Trace, executing, knock
from unit.making import OTHER_KEYS, message, payload

if TYPE_CHECKING:
    from pathlib import Path

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

OPENS = "OPEN_PORTS tcp/22\n"
TO = "ACCESS_ALERTS root@example.org, second@example.org;\nALERT_FROM door@example.org;\n"


class Mailer:
    """A stub in sendmail's place, which keeps its arguments and its input."""

    def __init__(self, folder: Path) -> None:
        self.trace = Trace.make(folder, f"cat >> {folder}/mails")
        self.kept = write(folder / "mails", "", 0o666)
        self.lines = f"{TO}SENDMAIL_EXE {self.trace.script};\n"

    @property
    def mails(self) -> str:
        return self.kept.read_text().replace("\r\n", "\n")


def denied_for_a_closed_port(host: Namespace, client: Namespace) -> None:
    knock(host, client, "0.0.0.0,tcp/9999")


def test_grants_and_refusals_are_mailed_and_strangers_are_not(pair: Pair, open_path: Path) -> None:
    host, client = pair
    mailer = Mailer(open_path)
    with listener(host), executing(host, open_path, OPENS, mailer.lines) as daemon:
        send(client, payload(message(time=int(time.time())), OTHER_KEYS), host.ipv4)
        daemon.wait_for("reason=hmac")
        knock(host, client)
        denied_for_a_closed_port(host, client)
        daemon.wait_for("reason=granted")
        assert is_open(client, host.ipv4)
        assert eventually(lambda: mailer.mails.count("Auto-Submitted") == 2), mailer.mails
        assert "exit=0" in daemon.wait_for("command=mail", 2)
    assert mailer.trace.lines == ["[-i][-f][door@example.org][root@example.org][second@example.org]"] * 2
    assert mailer.mails.count("To: root@example.org, second@example.org\n") == 2
    assert "verdict=granted reason=granted" in mailer.mails
    assert "reason=services" in mailer.mails
    assert "reason=hmac" not in mailer.mails


def test_only_what_alert_events_names_is_mailed(pair: Pair, open_path: Path) -> None:
    host, client = pair
    mailer = Mailer(open_path)
    with executing(host, open_path, OPENS, f"{mailer.lines}ALERT_EVENTS granted;\n") as daemon:
        denied_for_a_closed_port(host, client)
        daemon.wait_for("reason=services")
        knock(host, client)
        daemon.wait_for("command=mail")
        assert "verdict=granted" in mailer.mails
        assert "reason=services" not in mailer.mails


def test_more_than_so_many_an_hour_are_not_mailed(pair: Pair, open_path: Path) -> None:
    host, client = pair
    mailer = Mailer(open_path)
    with executing(host, open_path, OPENS, f"{mailer.lines}ALERTS_PER_HOUR 2;\n") as daemon:
        for _ in range(6):
            knock(host, client)
        daemon.wait_for("command=mail", 2)
        daemon.wait_for("reason=granted", 6)
        time.sleep(1)  # what was not to be mailed would be by now: the two took a fraction of it
        assert mailer.mails.count("Auto-Submitted") == 2


def test_a_mailer_that_hangs_or_fails_delays_no_knock_and_no_command(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    cycle = f"CMD_CYCLE_OPEN {trace.script} open\nCMD_CYCLE_CLOSE NONE\n"
    for program, end in (("sleep 60", ""), ("echo no route; exit 75", "exit=75")):
        script = write(open_path / "mailer", f"#!/bin/sh\n{program}\n", 0o755)
        with executing(host, open_path, cycle, f"{TO}SENDMAIL_EXE {script};\n") as daemon:
            for count in range(1, 7):
                knock(host, client)
                daemon.wait_for("command=open stanza=1", count)
            if end:
                assert end in daemon.wait_for("command=mail")
    assert len(trace.lines) == 12


def test_a_sendmail_that_is_not_there_is_a_line_in_the_log(pair: Pair, open_path: Path) -> None:
    host, client = pair
    with executing(host, open_path, OPENS, f"{TO}SENDMAIL_EXE {open_path}/none;\n") as daemon:
        knock(host, client)
        assert "exit=126" in daemon.wait_for("command=mail")
        knock(host, client)
        daemon.wait_for("reason=granted", 2)


def test_an_smtp_server_of_earlier_versions_is_named_with_its_line_and_the_way_on(pair: Pair, open_path: Path) -> None:
    host, client = pair
    mailer = Mailer(open_path)
    with executing(host, open_path, OPENS, f"{mailer.lines}SMTP_SERVER 127.0.0.1:25;\n") as daemon:
        assert "mail goes through SENDMAIL_EXE" in daemon.wait_for("SMTP_SERVER has no effect")
        knock(host, client)
        assert "exit=0" in daemon.wait_for("command=mail")
