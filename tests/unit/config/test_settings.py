"""doorwardd.conf, which is fwknopd.conf too."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from pathlib import Path

import pytest

from doorward.config import settings as config_settings
from doorward.config.settings import DaemonSettings
from doorward.errors import ConfigError
from doorward.values import Carriers, FirewallMode, ForeignFirewall, LogFormat, Permissions, ShareFailure


def load(folder: Path, text: str) -> config_settings.Loaded:
    path = folder / "doorwardd.conf"
    path.write_text(text)
    return config_settings.parse(path, path.read_bytes())


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(folder, text)
    return [str(problem).removeprefix(f"{folder}/doorwardd.conf") for problem in raised.value.problems]


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == config_settings.Loaded(DaemonSettings(), ())


def test_every_variable_reaches_its_field(tmp_path: Path) -> None:
    text = """
        PCAP_INTF eth0, eth1;
        PCAP_FILTER udp dst portrange 10000-65535;
        MAX_SPA_PACKET_AGE 60;
        FWKNOP_RUN_DIR /run/other;
        FWKNOP_PID_FILE $FWKNOP_RUN_DIR/pid;
        DIGEST_DB_FILE /var/lib/other.db;
        ACCESS_FILE access.conf;
        FIREWALL_MODE observe;
        FIREWALL_FILE /etc/other.nft;
        FLUSH_IPT_AT_INIT Y;
        FLUSH_IPT_AT_EXIT Y;
        VERBOSE 1;
        SYSLOG_IDENTITY spa;
        SYSLOG_FACILITY LOG_LOCAL3;
        METRICS_FILE /var/lib/prometheus/node-exporter/doorward.prom;
        LOG_FORMAT json;
    """
    settings = load(tmp_path, text).settings
    assert settings.interfaces == ("eth0", "eth1")
    assert settings.carriers.udp == (range(10000, 65536),)
    assert settings.max_age == 60
    assert [str(settings.run_folder), str(settings.pid_file)] == ["/run/other", "/run/other/pid"]
    assert str(settings.replay_file) == "/var/lib/other.db"
    assert settings.access_file == tmp_path / "access.conf"
    assert (settings.firewall_mode, str(settings.firewall_file)) == (FirewallMode.OBSERVE, "/etc/other.nft")
    assert settings.flush_at_start
    assert settings.flush_at_exit
    assert str(settings.metrics_file) == "/var/lib/prometheus/node-exporter/doorward.prom"
    assert settings.log_format is LogFormat.JSON
    assert (settings.verbose, settings.syslog_identity, settings.syslog_facility) == (1, "spa", "local3")


def test_ageing_can_be_switched_off(tmp_path: Path) -> None:
    assert load(tmp_path, "ENABLE_SPA_PACKET_AGING N;\nMAX_SPA_PACKET_AGE 9;\n").settings.max_age is None


def test_any_interface_is_every_interface(tmp_path: Path) -> None:
    assert load(tmp_path, "PCAP_INTF any;\n").settings.interfaces == ()


def test_grants_survive_a_restart_unless_a_flush_is_written(tmp_path: Path) -> None:
    settings = load(tmp_path, "VERBOSE 0;\n").settings
    assert not settings.flush_at_start
    assert not settings.flush_at_exit


def test_a_name_without_a_meaning_here_is_named_in_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, "\nPCAP_LOOP_SLEEP 100000;\n")
    assert loaded.warnings == (
        f"{tmp_path}/doorwardd.conf:2: PCAP_LOOP_SLEEP has no effect: the kernel wakes the daemon for each packet",
    )


MISTAKES = {
    "PCAP_INTERFACE eth0;": ":1: unknown name 'PCAP_INTERFACE'",
    "PCAP_INTF a/b;": ":1: PCAP_INTF: 'a/b' is not an interface name",
    "PCAP_INTF abcdefghijklmnop;": ":1: PCAP_INTF: 'abcdefghijklmnop' is not an interface name",
    "PCAP_FILTER host h;": (
        ":1: PCAP_FILTER: 'host h' is none of 'udp', 'port N', 'udp port N', 'tcp dst portrange N-M', 'icmp'"
    ),
    "PCAP_FILTER udp port 0;": ":1: PCAP_FILTER: '0' is not a number from 1 to 65535",
    "PCAP_FILTER udp portrange 9-8;": ":1: PCAP_FILTER: 'udp portrange 9-8' is an empty range",
    "MAX_SPA_PACKET_AGE 0;": ":1: MAX_SPA_PACKET_AGE: '0' is not a number from 1 to 100000",
    "FIREWALL_MODE open;": ":1: FIREWALL_MODE: 'open' is none of guard, observe",
    "FIREWALL_FILE table.nft;": ":1: FIREWALL_FILE: 'table.nft' is not an absolute path",
    "SYSLOG_FACILITY LOG_KERN;": ":1: SYSLOG_FACILITY: 'LOG_KERN' is neither LOG_DAEMON nor LOG_LOCAL0 to LOG_LOCAL7",
    "ENABLE_NFQ_CAPTURE Y;": (
        ":1: ENABLE_NFQ_CAPTURE Y is refused: packets come from interfaces (PCAP_INTF) or servers, never from a queue"
    ),
    "ENABLE_DIGEST_PERSISTENCE N;": (
        ":1: ENABLE_DIGEST_PERSISTENCE N is refused: after a restart every packet of the last minutes could "
        "be sent again"
    ),
    "TRUSTED_PROXIES ANY;": ":1: TRUSTED_PROXIES: ANY would believe every client's X-Forwarded-For",
    "FIREWALL_BACKEND pf;": ":1: FIREWALL_BACKEND: 'pf' is neither nftables nor iptables",
    "LOG_STYLE syslog;": ":1: LOG_STYLE: 'syslog' is none of doorward, fwknop, both",
    "LOG_FORMAT xml;": ":1: LOG_FORMAT: 'xml' is none of line, json",
    "METRICS_FILE doorward.prom;": ":1: METRICS_FILE: 'doorward.prom' is not an absolute path",
    "METRICS_FILE /var/metrics;": (
        ":1: METRICS_FILE: '/var/metrics' is not a path without .. to NAME.prom: node_exporter reads no other"
    ),
    "METRICS_FILE /var/../a.prom;": (
        ":1: METRICS_FILE: '/var/../a.prom' is not a path without .. to NAME.prom: node_exporter reads no other"
    ),
    "METRICS_FILE /var/.prom;": (
        ":1: METRICS_FILE: '/var/.prom' is not a path without .. to NAME.prom: node_exporter reads no other"
    ),
    "CMD_EXEC_TIMEOUT 0;": ":1: CMD_EXEC_TIMEOUT: '0' is not a number from 1 to 3600",
    "SNAT_TRANSLATE_IP gw;": ":1: SNAT_TRANSLATE_IP: 'gw' is not an address",
    "ACCESS_ALERTS root@example.org, -bs;": ":1: ACCESS_ALERTS: '-bs' is not a mail address",
    "ACCESS_FOLDER clients;": ":1: ACCESS_FOLDER: 'clients' is not an absolute path",
    "FWKNOP_PID_FILE $NOWHERE/pid;": ":1: FWKNOP_PID_FILE: '$NOWHERE/pid' is not an absolute path",
    "PCAP_FILE x.pcap;": ":1: PCAP_FILE: 'x.pcap' is not an absolute path",
}
ALONE = {  # mistakes that another line makes good
    "ENABLE_X_FORWARDED_FOR Y;": (":1: ENABLE_X_FORWARDED_FOR needs TRUSTED_PROXIES: which proxies are believed?"),
    "SENDMAIL_EXE /usr/bin/msmtp;": ":1: SENDMAIL_EXE without ACCESS_ALERTS: nobody gets the mail",
}


@pytest.mark.parametrize("text", [*MISTAKES, *ALONE])
def test_a_mistake_is_reported_with_its_line(text: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text + "\n") == [(MISTAKES | ALONE)[text]]


def test_all_mistakes_are_reported_in_one_run(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "\n".join(MISTAKES))) == len(MISTAKES)


def test_switches_that_are_off_in_fwknopd_may_be_written(tmp_path: Path) -> None:
    found = load(tmp_path, "ENABLE_UDP_SERVER N;\nENABLE_DIGEST_PERSISTENCE Y;\n").settings
    assert found == replace(DaemonSettings(), automatic=False)


@pytest.mark.parametrize(
    "text",
    [
        *("PCAP_INTF any;", "PCAP_FILTER udp port 62201;", "ENABLE_PCAP_PROMISC N;", "PCAP_FILE /x.pcap;"),
        *("ENABLE_UDP_SERVER Y;", "UDPSERV_PORT 62201;", "ENABLE_TCP_SERVER N;", "TCPSERV_PORT 62201;"),
        "ENABLE_SPA_OVER_ICMP N;",
    ],
)
def test_who_writes_how_knocks_are_heard_leaves_nothing_open(text: str, tmp_path: Path) -> None:
    assert load(tmp_path, "FIREWALL_MODE observe;\nVERBOSE 1;\n").settings.automatic
    assert not load(tmp_path, f"{text}\n").settings.automatic


def test_what_other_parts_need_reaches_its_field(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        ENABLE_FIREWD_FORWARDING Y;
        ENABLE_IPT_LOCAL_NAT Y;
        ENABLE_IPT_SNAT Y;
        SNAT_TRANSLATE_IP 192.0.2.1;
        ENABLE_DESTINATION_RULE Y;
        ENABLE_PCAP_PROMISC Y;
        ENABLE_UDP_SERVER Y;
        UDPSERV_PORT 1234;
        ENABLE_TCP_SERVER Y;
        ENABLE_SPA_OVER_HTTP Y;
        ENABLE_X_FORWARDED_FOR Y;
        TRUSTED_PROXIES 10.0.0.1;
        PCAP_FILE /tmp/x.pcap;
        FIREWALL_BACKEND iptables;
        LOG_STYLE fwknop;
        ACCESS_FOLDER /etc/doorward/clients;
        GPG_HOME_DIR /root/keys;
        CMD_EXEC_TIMEOUT 20;
        ACCESS_ALERTS root@localhost, ops@example.org;
        ALERT_EVENTS denied;
        SENDMAIL_EXE /usr/bin/msmtp;
        """,
    ).settings
    assert settings.permissions == Permissions(
        forwarding=True,
        local_nat=True,
        snat=True,
        snat_source=ipaddress.ip_address("192.0.2.1"),
        destination_rule=True,
    )
    assert (settings.promiscuous, settings.http, settings.forwarded_for) == (True,) * 3
    assert (settings.udp_server, settings.tcp_server, settings.capture) == (1234, 62201, False)
    assert (str(settings.proxies), str(settings.pcap_file)) == ("10.0.0.1/32", "/tmp/x.pcap")  # noqa: S108  nothing is written there
    assert (settings.foreign_firewall, settings.log_style.value) == (ForeignFirewall.ADMIT, "fwknop")
    assert (str(settings.access_folder), str(settings.gpg_home)) == ("/etc/doorward/clients", "/root/keys")
    assert settings.command_seconds == 20
    assert settings.alerts is not None
    assert settings.alerts.addresses == ("root@localhost", "ops@example.org")
    assert (settings.alerts.granted, settings.alerts.denied, str(settings.alerts.sendmail)) == (
        False,
        True,
        "/usr/bin/msmtp",
    )


ALL, ONE, SOME = range(1, 65536), range(62201, 62202), range(10000, 20001)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("udp", Carriers(udp=(ALL,))),
        ("tcp or udp port 62201", Carriers(udp=(ONE,), tcp=(ALL,))),
        ("port 62201", Carriers(udp=(ONE,), tcp=(ONE,))),
        ("dst portrange 10000-20000", Carriers(udp=(SOME,), tcp=(SOME,))),
        ("udp and dst port 62201 or icmp", Carriers(udp=(ONE,), icmp=True)),
    ],
)
def test_a_filter_may_leave_out_the_port_or_the_protocol(tmp_path: Path, text: str, expected: Carriers) -> None:
    assert load(tmp_path, f"PCAP_FILTER {text};\n").settings.carriers == expected


@pytest.mark.parametrize("text", ["", "port", "udp and", "and port 1", "udp tcp port 1", "src port 1", "udp port 1 or"])
def test_what_is_no_filter_for_knocks_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, f"PCAP_FILTER {text};\n")


def test_a_file_named_fwknopd_conf_keeps_fwknopds_habits(tmp_path: Path) -> None:
    settings = config_settings.parse(tmp_path / "fwknopd.conf", b"").settings
    assert (settings.syslog_identity, settings.log_style.value) == ("fwknopd", "both")
    assert settings.access_file == tmp_path / "access.conf"
    chosen = config_settings.parse(tmp_path / "fwknopd.conf", b"SYSLOG_IDENTITY me;\nLOG_STYLE doorward;\n").settings
    assert (chosen.syslog_identity, chosen.log_style.value) == ("me", "doorward")
    ours = config_settings.parse(tmp_path / "doorwardd.conf", b"").settings
    assert (ours.syslog_identity, ours.log_style.value) == ("doorwardd", "doorward")


def test_what_iptables_name_says_counts_more_than_firewallds(tmp_path: Path) -> None:
    for text in ("ENABLE_IPT_SNAT N;\nENABLE_FIREWD_SNAT Y;\n", "ENABLE_FIREWD_SNAT Y;\nENABLE_IPT_SNAT N;\n"):
        loaded = load(tmp_path, text)
        assert not loaded.settings.permissions.snat
        assert "ENABLE_FIREWD_SNAT is not used beside ENABLE_IPT_SNAT" in loaded.warnings[0]


def test_later_files_count_more_and_name_their_own_lines(tmp_path: Path) -> None:
    first, second = tmp_path / "a.conf", tmp_path / "b.conf"
    read = config_settings.parse(first, b"VERBOSE 1;\nMAX_SPA_PACKET_AGE 60;\n", [(second, b"VERBOSE 2;\n")]).settings
    assert (read.verbose, read.max_age) == (2, 60)
    with pytest.raises(ConfigError) as raised:
        config_settings.parse(first, b"VERBOSE x;\n", [(second, b"\nNOTHING 1;\n")])
    assert [str(problem).split(": ")[0] for problem in raised.value.problems] == [f"{first}:1", f"{second}:2"]


def test_every_name_of_fwknopd_is_known(tmp_path: Path) -> None:
    """The names are those that its own template shows; unknown ones would be problems."""
    shipped = Path("/etc/fwknop/fwknopd.conf").read_text()
    names = re.findall(r"^#?([A-Z][A-Z_]{4,})\s+\S+;", shipped, re.MULTILINE)
    assert len(names) > 60
    assert not set(names) - {*config_settings.SETTINGS, *config_settings.INERT}
    assert config_settings.parse(tmp_path / "x", shipped.encode()).warnings == ()


def test_of_a_name_that_stands_twice_the_last_counts_and_the_others_are_named(tmp_path: Path) -> None:
    loaded = load(tmp_path, "VERBOSE 1;\nPCAP_INTF eth0;\nVERBOSE 2;\nVERBOSE 3;\n")
    assert loaded.settings.verbose == 3
    where = f"{tmp_path}/doorwardd.conf"
    assert loaded.warnings == tuple(f"{where}:{n}: VERBOSE is not used: line 4 sets it again" for n in (1, 3))


def test_an_override_says_a_name_again_without_a_warning(tmp_path: Path) -> None:
    read = config_settings.parse(tmp_path / "a.conf", b"VERBOSE 1;\n", [(tmp_path / "b.conf", b"VERBOSE 2;\n")])
    assert (read.settings.verbose, read.warnings) == (2, ())


def test_what_looks_like_a_comment_behind_a_value_is_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, "SYSLOG_IDENTITY spa # mine\nAUDIT_FILE /var/log/a;# mine\nGPG_EXE /usr/bin/gpg#2;\n")
    assert loaded.settings.syslog_identity == "spa # mine", "as fwknopd reads it"
    told = "SYSLOG_IDENTITY: '#' and what follows are part of the value; a comment may stand behind ';'"
    assert loaded.warnings == (f"{tmp_path}/doorwardd.conf:1: {told}",)


def test_events_of_alerts_are_granted_denied_or_both(tmp_path: Path) -> None:
    text = "ACCESS_ALERTS me@example.org;\nALERT_EVENTS all;\n"
    assert problems(tmp_path, text) == [":2: ALERT_EVENTS: 'all' is none of granted, denied, both"]


def test_another_run_folder_has_all_that_a_running_daemon_keeps() -> None:
    settings = config_settings.in_run_folder(DaemonSettings(), Path("/run/other"))
    assert {settings.run_folder, settings.pid_file.parent} == {Path("/run/other")}


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_names_of_the_engine_that_is_gone_are_warned_of_with_their_line(tmp_path: Path, backend: str) -> None:
    text = f"FIREWALL_BACKEND {backend};\nFIREWALL_EXE /usr/sbin/iptables-legacy;\nIPT_INPUT_ACCESS ACCEPT, filter;\n"
    loaded = load(tmp_path, text)
    named = [warning.partition(" has no effect")[0].rpartition(":")[0] for warning in loaded.warnings]
    assert [name.rpartition(":")[2] for name in named] == ["2", "3"]
    assert loaded.settings.foreign_firewall is ForeignFirewall("admit" if backend == "iptables" else "report")


def test_other_firewalls_admit_grants_where_fwknopd_lived_or_where_it_is_asked_for(tmp_path: Path) -> None:
    for name, text, expected in (
        ("doorwardd.conf", "", "report"),
        ("fwknopd.conf", "", "admit"),
        ("doorwardd.conf", "FOREIGN_FIREWALL ADMIT;", "admit"),
        ("fwknopd.conf", "FOREIGN_FIREWALL report;", "report"),
        ("doorwardd.conf", "FIREWALL_BACKEND iptables;\nFOREIGN_FIREWALL report;", "report"),
    ):
        chosen = config_settings.parse(tmp_path / name, f"{text}\n".encode()).settings
        assert chosen.foreign_firewall.value == expected, (name, text)


@pytest.mark.parametrize(("text", "mark"), [("0x40000000", 1 << 30), ("1", 1), ("0x80000000", 1 << 31), ("4096", 4096)])
def test_a_mark_is_one_bit(tmp_path: Path, text: str, mark: int) -> None:
    assert load(tmp_path, f"FIREWALL_MARK {text};\n").settings.mark == mark


@pytest.mark.parametrize("text", ["0", "0x0", "3", "0x40000001", "0x100000000", "-1", "bit", "0x", "010"])
def test_a_mark_of_no_bit_or_of_several_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, f"VERBOSE 0;\nFIREWALL_MARK {text};\n") == [
        f":2: FIREWALL_MARK: {text!r} is not one bit of a mark, such as 0x40000000"
    ]


def test_a_name_that_contains_itself_does_not_grow_without_end(tmp_path: Path) -> None:
    lines = [f"FWKNOP_RUN_DIR /{'a' * 2000}", *(f"FWKNOP_RUN_DIR $FWKNOP_RUN_DIR/{'a' * 1000}",) * 4]
    said = problems(tmp_path, "\n".join(lines) + "\n")
    assert said == [f":{number}: FWKNOP_RUN_DIR: 5004 characters are more than 4096" for number in (4, 5)]


def test_a_text_that_begins_with_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    said = problems(tmp_path, "SYSLOG_IDENTITY $NOBODY\n")
    assert said == [":1: SYSLOG_IDENTITY: '$NOBODY' begins with a variable that no line above sets"]


def test_a_share_is_a_socket_and_its_failure_a_policy(tmp_path: Path) -> None:
    settings = load(tmp_path, "REPLAY_SHARE unix:/run/valkey/valkey.sock;\n").settings
    assert (settings.replay_share, settings.share_failure) == (Path("/run/valkey/valkey.sock"), ShareFailure.REFUSE)
    text = "REPLAY_SHARE unix:/run/redis.sock;\nSHARE_FAILURE local;\n"
    assert load(tmp_path, text).settings.share_failure is ShareFailure.LOCAL


@pytest.mark.parametrize("value", ["/run/redis.sock", "tcp:127.0.0.1:6379", "unix:redis.sock", f"unix:/{'x' * 107}"])
def test_any_other_share_is_refused(value: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, f"REPLAY_SHARE {value};\n")
    assert "is not unix:/PATH of a socket, such as unix:/run/valkey/valkey.sock" in problem


def test_a_share_needs_packets_that_become_too_old(tmp_path: Path) -> None:
    text = "REPLAY_SHARE unix:/run/redis.sock;\nENABLE_SPA_PACKET_AGING N;\n"
    assert problems(tmp_path, text) == [":1: REPLAY_SHARE needs ENABLE_SPA_PACKET_AGING: what is shared has to end"]
    assert problems(tmp_path, "SHARE_FAILURE local;\n") == [":1: SHARE_FAILURE without REPLAY_SHARE: nothing is shared"]
