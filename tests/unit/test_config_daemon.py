"""doorwardd.conf, which is fwknopd.conf too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.config import daemon
from doorward.config.daemon import DaemonSettings
from doorward.errors import ConfigError
from doorward.values import FirewallMode

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, text: str) -> daemon.Loaded:
    path = folder / "doorwardd.conf"
    path.write_text(text)
    return daemon.load(path)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(folder, text)
    return [str(problem).removeprefix(f"{folder}/doorwardd.conf") for problem in raised.value.problems]


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == daemon.Loaded(DaemonSettings(), ())


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
    """
    settings = load(tmp_path, text).settings
    assert settings.interfaces == ("eth0", "eth1")
    assert settings.ports == range(10000, 65536)
    assert settings.max_age == 60
    assert [str(settings.run_folder), str(settings.pid_file)] == ["/run/other", "/run/other/pid"]
    assert str(settings.replay_file) == "/var/lib/other.db"
    assert settings.access_file == tmp_path / "access.conf"
    assert (settings.firewall_mode, str(settings.firewall_file)) == (FirewallMode.OBSERVE, "/etc/other.nft")
    assert settings.flush_at_start
    assert settings.flush_at_exit
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
        f"{tmp_path}/doorwardd.conf:2: PCAP_LOOP_SLEEP has no meaning for doorwardd and is not used",
    )


MISTAKES = {
    "PCAP_INTERFACE eth0;": ":1: unknown name 'PCAP_INTERFACE'",
    "PCAP_INTF a/b;": ":1: PCAP_INTF: 'a/b' is not an interface name",
    "PCAP_INTF abcdefghijklmnop;": ":1: PCAP_INTF: 'abcdefghijklmnop' is not an interface name",
    "PCAP_FILTER tcp port 1;": ":1: PCAP_FILTER: 'tcp port 1' is not 'udp port N' or 'udp dst portrange N-M'",
    "PCAP_FILTER udp port 0;": ":1: PCAP_FILTER: '0' is not a number from 1 to 65535",
    "PCAP_FILTER udp portrange 9-8;": ":1: PCAP_FILTER: 'udp portrange 9-8' is an empty range",
    "MAX_SPA_PACKET_AGE 0;": ":1: MAX_SPA_PACKET_AGE: '0' is not a number from 1 to 100000",
    "FIREWALL_MODE open;": ":1: FIREWALL_MODE: 'open' is none of guard, observe",
    "FIREWALL_FILE table.nft;": ":1: FIREWALL_FILE: 'table.nft' is not an absolute path",
    "SYSLOG_FACILITY LOG_KERN;": ":1: SYSLOG_FACILITY: 'LOG_KERN' is neither LOG_DAEMON nor LOG_LOCAL0 to LOG_LOCAL7",
    "ENABLE_UDP_SERVER Y;": ":1: ENABLE_UDP_SERVER Y is not served by this version",
    "ENABLE_DIGEST_PERSISTENCE N;": ":1: ENABLE_DIGEST_PERSISTENCE N is not served by this version",
    "FWKNOP_PID_FILE $NOWHERE/pid;": ":1: FWKNOP_PID_FILE: '$NOWHERE/pid' is not an absolute path",
    "PCAP_FILE /tmp/x.pcap;": ":1: PCAP_FILE is not served by this version",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_reported_with_its_line(text: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text + "\n") == [MISTAKES[text]]


def test_all_mistakes_are_reported_in_one_run(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "\n".join(MISTAKES))) == len(MISTAKES)


def test_switches_that_are_off_in_fwknopd_may_be_written(tmp_path: Path) -> None:
    assert load(tmp_path, "ENABLE_UDP_SERVER N;\nENABLE_DIGEST_PERSISTENCE Y;\n").settings == DaemonSettings()
