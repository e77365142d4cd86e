"""The runner of fwknop's own tests, on a small suite of the same form: it sees what is alike, and what is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import programs
from system.doorwardd import HMAC_KEY, KEY, write

RUN: Final = Path(__file__).resolve().parents[1] / "fwknop_suite/run.py"
DRIVER: Final = """
use strict;
use Getopt::Long 'GetOptions';
our ($fwknopCmd, $fwknopdCmd) = ('', '');
our ($FW_TYPE, $FW_PREFIX, $fw_conf_prefix) = ('', '', '');
our (@small, @build_security) = ();
exit 1 unless GetOptions('fwknop-path=s' => \\$fwknopCmd, 'fwknopd-path=s' => \\$fwknopdCmd,
    'loopback-intf=s' => \\my $interface, 'prefer-iptables' => \\my $prefer);
&init();
require 'tests/small.pl';
require 'tests/build_security.pl';
&validate_test_hashes();
die 'nothing is run';

sub init() { die 'nothing is run'; }
sub os_fw_detect() { }
sub spa_cycle() { }
sub replay_detection() { }
sub generic_exec() { }
sub binary_exists() { }
"""
TESTS: Final = """
our ($fwknopCmd, $fwknopdCmd);
my $client = "LD_LIBRARY_PATH=../lib $fwknopCmd -A tcp/22 -a 127.0.0.2 -D 127.0.0.1 --rc-file conf/rc " .
    "--no-save-args -v";
my $server = "LD_LIBRARY_PATH=../lib $fwknopdCmd -c conf/fwknopd.conf -a conf/access.conf -d run/digest.cache " .
    "-p run/fwknopd.pid -i lo --foreground";
my %cycle = ('category' => 'S', 'function' => \\&spa_cycle, 'cmdline' => $client, 'fwknopd_cmdline' => $server);
@small = (
    {%cycle, 'detail' => 'opens', 'fw_rule_created' => 1},
    {%cycle, 'detail' => 'must not open', 'fw_rule_created' => 2},
    {%cycle, 'detail' => 'another key', 'cmdline' => "$client -n other", 'fw_rule_created' => 2},
    {%cycle, 'detail' => 'another key must open', 'cmdline' => "$client -n other", 'fw_rule_created' => 1},
    {%cycle, 'detail' => 'replay', 'function' => \\&replay_detection},
    {'category' => 'S', 'detail' => 'no option', 'function' => \\&generic_exec, 'exec_err' => 1,
        'cmdline' => "$fwknopCmd --no-such-option", 'positive_output_matches' => [qr/usage/i]},
    {'category' => 'S', 'detail' => 'an option', 'function' => \\&generic_exec, 'exec_err' => 1,
        'cmdline' => "$fwknopCmd -V"},
);
1;
"""
BUILD: Final = """
@build_security = ({'category' => 'B', 'detail' => 'hardened', 'function' => \\&binary_exists});
1;
"""


def suite(folder: Path) -> Path:
    """Write the sources of a small suite."""
    for name in ("test/tests", "test/conf"):
        (folder / name).mkdir(parents=True)
    write(folder / "test/test-fwknop.pl", DRIVER)
    write(folder / "test/tests/small.pl", TESTS)
    write(folder / "test/tests/build_security.pl", BUILD)
    write(folder / "test/conf/access.conf", f"SOURCE ANY\n{KEY}\n{HMAC_KEY}\n")
    write(folder / "test/conf/fwknopd.conf", "")
    keys = f"{KEY}\n{HMAC_KEY}\n".replace(":", "")
    write(folder / "test/conf/rc", f"[default]\n{keys}[other]\nKEY other\nHMAC_KEY another\n")
    return folder


def test_the_runner_tells_what_is_alike_from_what_is_not_and_from_what_was_not_run() -> None:
    for program in ("perl", "unshare", "nft"):
        programs.require(program)
    folder = Path(tempfile.mkdtemp(prefix="dwsuite", dir="/var/tmp"))
    try:
        command = [sys.executable, str(RUN), str(suite(folder)), "--jobs", "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    finally:
        shutil.rmtree(folder)
    lines = done.stdout.splitlines()
    differ = sorted(line.partition("] [] ")[2].partition(":")[0] for line in lines if line.startswith("differs"))
    assert differ == ["an option", "another key must open", "must not open"], done.stdout
    assert "not run  build_security: 1, about the binaries of fwknop" in lines
    assert [line.split() for line in lines if line.startswith("small")] == [["small", "7", "7", "4"]]
    assert lines[-1].startswith("8 tests, ")
