"""Mail on verdicts: through a real SMTP session with a sink, and through a stub in sendmail's place."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from system.doorwardd import eventually, is_open, listener, send, write
from system.executing import Trace, executing, knock
from unit.making import OTHER_KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

OPENS = "OPEN_PORTS tcp/22\n"
SINK = Path(__file__).with_name("smtp_sink.py")
TO = "ACCESS_ALERTS root@example.org, second@example.org;\nALERT_FROM door@example.org;\n"


@contextlib.contextmanager
def sink(host: Namespace, folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the file of a sink that listens on the host's loopback, and its port."""
    kept = write(folder / "mails", "")
    with host.process(sys.executable, str(SINK), str(kept)) as process:
        assert process.stdout is not None
        yield kept, int(process.stdout.readline())


def denied_for_a_closed_port(host: Namespace, client: Namespace) -> None:
    knock(host, client, "0.0.0.0,tcp/9999")


def test_grants_and_refusals_are_mailed_and_strangers_are_not(pair: Pair, open_path: Path) -> None:
    host, client = pair
    with sink(host, open_path) as (kept, port), listener(host):
        with executing(host, open_path, OPENS, f"{TO}SMTP_SERVER 127.0.0.1:{port};\n") as daemon:
            send(client, payload(message(time=int(time.time())), OTHER_KEYS), host.ipv4)
            daemon.wait_for("reason=hmac")
            knock(host, client)
            denied_for_a_closed_port(host, client)
            daemon.wait_for("reason=granted")
            assert is_open(client, host.ipv4)
            assert eventually(lambda: kept.read_text().count("Auto-Submitted") == 2), kept.read_text()
        mails = kept.read_text()
    assert mails.count("rcpt TO:<root@example.org>") == mails.count("rcpt TO:<second@example.org>") == 2
    assert mails.count("mail FROM:<door@example.org>") == 2
    assert "verdict=granted reason=granted" in mails
    assert "reason=services" in mails
    assert "reason=hmac" not in mails


def test_only_what_alert_events_names_is_mailed(pair: Pair, open_path: Path) -> None:
    host, client = pair
    with (
        sink(host, open_path) as (kept, port),
        executing(host, open_path, OPENS, f"{TO}ALERT_EVENTS granted;\nSMTP_SERVER 127.0.0.1:{port};\n") as daemon,
    ):
        denied_for_a_closed_port(host, client)
        daemon.wait_for("reason=services")
        knock(host, client)
        daemon.wait_for("command=mail")
        assert "verdict=granted" in kept.read_text()
        assert "reason=services" not in kept.read_text()


def test_more_than_so_many_an_hour_are_not_mailed(pair: Pair, open_path: Path) -> None:
    host, client = pair
    with (
        sink(host, open_path) as (kept, port),
        executing(host, open_path, OPENS, f"{TO}ALERTS_PER_HOUR 2;\nSMTP_SERVER 127.0.0.1:{port};\n") as daemon,
    ):
        for _ in range(6):
            knock(host, client)
        daemon.wait_for("command=mail", 2)
        daemon.wait_for("reason=granted", 6)
        time.sleep(1)  # what was not to be mailed would be by now: the two took a fraction of it
        assert kept.read_text().count("Auto-Submitted") == 2


def test_a_server_that_hangs_or_refuses_delays_no_knock_and_no_command(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    cycle = f"CMD_CYCLE_OPEN {trace.script} open\nCMD_CYCLE_CLOSE NONE\n"
    with listener(host, 2525), executing(host, open_path, cycle, f"{TO}SMTP_SERVER 127.0.0.1:2525;\n") as daemon:
        for count in range(1, 13):
            knock(host, client)
            daemon.wait_for("command=open stanza=1", count)
        assert len(trace.lines) == 12
    with executing(host, open_path, cycle, f"{TO}SMTP_SERVER 127.0.0.1:2525;\n") as daemon:
        knock(host, client)
        assert "ConnectionRefusedError" in daemon.wait_for("command=mail")


def test_mail_goes_through_sendmail_where_no_server_is_named(pair: Pair, open_path: Path) -> None:
    """With a stub in sendmail's place, which keeps its arguments and its input."""
    host, client = pair
    trace = Trace.make(open_path, f"cat >> {open_path}/body")
    body = write(open_path / "body", "", 0o666)
    with executing(host, open_path, OPENS, f"{TO}SENDMAIL_EXE {trace.script};\n") as daemon:
        knock(host, client)
        assert "exit=0" in daemon.wait_for("command=mail")
    assert trace.lines == ["[-i][-f][door@example.org][root@example.org][second@example.org]"]
    head, _, text = body.read_text().replace("\r\n", "\n").partition("\n\n")
    assert "To: root@example.org, second@example.org\n" in head
    assert "verdict=granted" in text


def test_a_sendmail_that_is_not_there_is_a_line_in_the_log(pair: Pair, open_path: Path) -> None:
    host, client = pair
    with executing(host, open_path, OPENS, f"{TO}SENDMAIL_EXE {open_path}/none;\n") as daemon:
        knock(host, client)
        assert "exit=126" in daemon.wait_for("command=mail")
        knock(host, client)
        daemon.wait_for("reason=granted", 2)
